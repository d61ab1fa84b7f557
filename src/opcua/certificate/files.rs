//! The files of the application's own certificate: which of them counts, and whether they are what they should be.
//!
//! Names do not matter: the certificate in own/ counts that this program did not make, else the one that it made; of the
//! keys in private/ the one that belongs to it.

use super::make::is_ours;
use super::{CertificateError, OWN, PRIVATE};
use crate::base::files;
use crate::opcua::trust::x509::Cert;
use crate::opcua::trust::{self, Stamp};
use opcua::crypto::PrivateKey;
use ring::signature::RsaKeyPair;
use std::fs;
use std::path::{Path, PathBuf};
use tracing::warn;
use x509_cert::der::pem::{self, LineEnding};

/// A private key that works.
pub struct Key {
    pub pair: RsaKeyPair,
    /// PKCS #8, as the UA crate reads it.
    pub pem: String,
}

impl Key {
    fn new(key: &PrivateKey) -> Result<Self, String> {
        let der = key.to_der().map_err(|error| error.to_string())?;
        let pair = RsaKeyPair::from_pkcs8(der.as_bytes()).map_err(|error| error.to_string())?;
        let pem =
            pem::encode_string("PRIVATE KEY", LineEnding::LF, der.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self { pair, pem })
    }

    pub fn generate() -> Result<Self, CertificateError> {
        let key = PrivateKey::new(2048).map_err(|error| error.to_string());
        key.and_then(|key| Self::new(&key)).map_err(|reason| CertificateError::Make { reason })
    }

    /// PEM or DER, PKCS #8 or PKCS #1.
    fn read(path: &Path) -> Result<Self, CertificateError> {
        let unreadable = |reason: String| CertificateError::Unreadable {
            path: path.to_owned(),
            what: "a private key (RSA, PEM or DER, without password)",
            reason,
        };
        let bytes = fs::read(path).map_err(|error| unreadable(error.to_string()))?;
        let texts = match std::str::from_utf8(&bytes) {
            Ok(text) if text.contains("ENCRYPTED") => {
                return Err(unreadable("it needs a password, which nobody can type when a device starts".into()));
            }
            Ok(text) => vec![text.to_owned()],
            Err(_) => ["PRIVATE KEY", "RSA PRIVATE KEY"]
                .iter()
                .filter_map(|label| pem::encode_string(label, LineEnding::LF, &bytes).ok())
                .collect(),
        };
        let key = texts.iter().find_map(|text| PrivateKey::from_pem(key_block(text).as_bytes()).ok());
        let key = key.ok_or_else(|| unreadable("no RSA key was found in it".into()))?;
        Self::new(&key).map_err(unreadable)
    }

    pub fn fits(&self, certificate: &Cert) -> bool {
        let info = &certificate.certificate().tbs_certificate.subject_public_key_info;
        info.subject_public_key.as_bytes() == Some(self.pair.public().as_ref())
    }
}

/// Without what may stand around the block.
fn key_block(text: &str) -> &str {
    let from = text.find("-----BEGIN").map_or(text, |start| &text[start..]);
    match from.rfind("KEY-----") {
        Some(end) => &from[..end + "KEY-----".len()],
        None => from,
    }
}

/// The certificate that counts, with its file.
pub fn certificate(pki: &Path) -> Result<Option<(PathBuf, Cert)>, CertificateError> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (path, _, found) in trust::certificates(&pki.join(OWN))? {
        // What follows is the chain, which the UA crate cannot send.
        let Some(first) = found?.into_iter().next() else { continue };
        if is_ours(&first) { ours.push((path, first)) } else { theirs.push((path, first)) }
    }
    let mut count = if theirs.is_empty() { ours } else { theirs };
    if count.len() > 1 {
        return Err(CertificateError::Several { paths: count.into_iter().map(|(path, _)| path).collect() });
    }
    Ok(count.pop())
}

/// All keys with their files.
pub fn keys(pki: &Path) -> Result<Vec<(PathBuf, Key)>, CertificateError> {
    paths(&pki.join(PRIVATE))?
        .into_iter()
        .map(|path| {
            guard(&path)?;
            let key = Key::read(&path)?;
            Ok((path, key))
        })
        .collect()
}

/// A key that everybody may read is no secret. Its group may, as when root puts it there for the service.
fn guard(path: &Path) -> Result<(), CertificateError> {
    let failed = |source| CertificateError::Permissions { path: path.to_owned(), source };
    if files::shut_out_everybody(path).map_err(failed)? {
        warn!(path = %path.display(), "Everybody on this device could read the private key; that is mended, but it may be known.");
    }
    Ok(())
}

/// What tells that something was put in or taken out.
pub fn stamps(pki: &Path) -> Result<Vec<(PathBuf, Stamp)>, CertificateError> {
    let mut stamps = Vec::new();
    for folder in [OWN, PRIVATE] {
        for path in paths(&pki.join(folder))? {
            if let Ok(metadata) = fs::metadata(&path) {
                stamps.push((path, Stamp::of(&metadata)));
            }
        }
    }
    Ok(stamps)
}

fn paths(folder: &Path) -> Result<Vec<PathBuf>, CertificateError> {
    let failed = |source| CertificateError::Folder { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
