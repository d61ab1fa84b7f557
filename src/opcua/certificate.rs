//! The application's own certificate: made at first start, never absent.
//!
//!     <pki>/own/cert.der          the certificate (OPC 10000-6, 6.2.2)
//!     <pki>/private/private.pem   its key, readable by this user only
//!     <pki>/trusted/              certificates of clients that may connect
//!     <pki>/rejected/             those that tried
//!
//! The UA crate would go on without a certificate and fail when the first client comes, so whatever is wrong is an
//! error here, before anything listens.

use opcua::crypto::KeySize;
use opcua::crypto::{CertificateStore, PrivateKey, X509, X509Data};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tracing::info;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot make {path:?}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot write the application certificate below {path:?}: {reason}")]
    Write { path: PathBuf, reason: String },
    #[error(
        "{certificate:?} is there but its key {key:?} is not: put it back, or remove the certificate to have a new pair \
         made (clients must then trust the new one)"
    )]
    NoKey { certificate: PathBuf, key: PathBuf },
    #[error("{path:?} is not readable as {what}: {reason}")]
    Unreadable { path: PathBuf, what: &'static str, reason: String },
    #[error("{certificate:?} and {key:?} are not a pair")]
    Mismatch { certificate: PathBuf, key: PathBuf },
}

/// Where certificate and key are, relative to the PKI folder, as the UA crate has them.
pub const CERTIFICATE: &str = "own/cert.der";
pub const PRIVATE_KEY: &str = "private/private.pem";

/// How long a new certificate is valid.
const VALID_DAYS: u32 = 5 * 365;

/// What goes into a new certificate.
pub struct Application<'a> {
    /// The common name.
    pub name: &'a str,
    /// The ApplicationUri, which clients compare with that of the server.
    pub uri: &'a str,
    /// Host names and addresses under which clients reach it.
    pub hosts: Vec<String>,
}

/// Makes the PKI folder with certificate and key if they are missing, and checks them if they are there.
pub fn ensure(pki: &Path, application: &Application<'_>) -> Result<(), CertificateError> {
    for (folder, mode) in [("own", 0o755), ("private", 0o700), ("trusted", 0o755), ("rejected", 0o755)] {
        let path = pki.join(folder);
        let made = fs::DirBuilder::new().recursive(true).mode(mode).create(&path);
        made.map_err(|source| CertificateError::Folder { path, source })?;
    }
    let (certificate, key) = (pki.join(CERTIFICATE), pki.join(PRIVATE_KEY));
    match (certificate.exists(), key.exists()) {
        (true, true) => {}
        (true, false) => return Err(CertificateError::NoKey { certificate, key }),
        (_, has_key) => {
            // The key goes first: a power cut between the two leaves a key, which gets its certificate at the next start.
            if !has_key {
                create_key(&key)?;
            }
            create_certificate(&certificate, &key, application)?;
        }
    }
    check(certificate, key)
}

fn create_key(path: &Path) -> Result<(), CertificateError> {
    let failed = |reason: String| CertificateError::Write { path: path.to_owned(), reason };
    let key = PrivateKey::new(2048).map_err(|error| failed(error.to_string()))?;
    let der = key.to_der().map_err(|error| failed(error.to_string()))?;
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let base64 = opcua::types::ByteString::from(der.as_bytes().to_vec()).as_base64();
    for line in base64.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    write(path, 0o600, pem.as_bytes()).map_err(|error| failed(error.to_string()))
}

fn create_certificate(path: &Path, key: &Path, application: &Application<'_>) -> Result<(), CertificateError> {
    let failed = |reason: String| CertificateError::Write { path: path.to_owned(), reason };
    let hosts = Some(application.hosts.clone());
    let data = X509Data {
        key_size: 2048,
        common_name: application.name.to_owned(),
        organization: "Vedette".to_owned(),
        organizational_unit: String::new(),
        country: String::new(),
        state: String::new(),
        alt_host_names: X509Data::alt_host_names(application.uri, hosts, false, false, false),
        certificate_duration_days: VALID_DAYS,
    };
    let x509 = X509::from_pkey(&read_key(key)?, &data).map_err(failed)?;
    let der = x509.to_der().map_err(|error| failed(error.to_string()))?;
    write(path, 0o644, &der).map_err(|error| failed(error.to_string()))?;
    info!(path = %path.display(), "Made the application certificate.");
    Ok(())
}

/// Whole or not at all, also if the power goes: beside it, to disk, then in its place.
fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // What a power cut left behind may have other permissions.
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn read_key(path: &Path) -> Result<PrivateKey, CertificateError> {
    let what = "a private key (PEM, PKCS #8)";
    CertificateStore::read_pkey(path).map_err(|reason| CertificateError::Unreadable {
        path: path.to_owned(),
        what,
        reason,
    })
}

fn check(certificate: PathBuf, key: PathBuf) -> Result<(), CertificateError> {
    let x509: X509 = CertificateStore::read_cert(&certificate).map_err(|reason| CertificateError::Unreadable {
        path: certificate.clone(),
        what: "a certificate (DER)",
        reason,
    })?;
    let private = read_key(&key)?;
    if is_pair(&x509, &private) { Ok(()) } else { Err(CertificateError::Mismatch { certificate, key }) }
}

/// What the key signs, the certificate must verify.
fn is_pair(certificate: &X509, key: &PrivateKey) -> bool {
    let Ok(public) = certificate.public_key() else { return false };
    let mut signature = vec![0; key.size()];
    key.sign_sha256(b"a pair", &mut signature).is_ok()
        && public.verify_sha256(b"a pair", &signature).is_ok_and(|is_valid| is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application() -> Application<'static> {
        Application { name: "Vedette", uri: "urn:vedette:test", hosts: vec!["localhost".into(), "127.0.0.1".into()] }
    }

    #[test]
    fn a_pair_is_made_once_and_kept() {
        let pki = tempfile::tempdir().unwrap();
        ensure(pki.path(), &application()).unwrap();
        let first = fs::read(pki.path().join(CERTIFICATE)).unwrap();
        ensure(pki.path(), &application()).unwrap();
        assert_eq!(fs::read(pki.path().join(CERTIFICATE)).unwrap(), first);
        let key = fs::metadata(pki.path().join(PRIVATE_KEY)).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);

        let x509 = X509::from_der(&first).unwrap();
        x509.is_application_uri_valid("urn:vedette:test").unwrap();
        x509.is_hostname_valid("127.0.0.1").unwrap();
    }

    #[test]
    fn what_is_broken_is_said_by_path() {
        let pki = tempfile::tempdir().unwrap();
        ensure(pki.path(), &application()).unwrap();
        let (certificate, key) = (pki.path().join(CERTIFICATE), pki.path().join(PRIVATE_KEY));

        let other = tempfile::tempdir().unwrap();
        ensure(other.path(), &application()).unwrap();
        fs::copy(other.path().join(PRIVATE_KEY), &key).unwrap();
        let error = ensure(pki.path(), &application()).unwrap_err();
        assert!(matches!(error, CertificateError::Mismatch { .. }), "{error}");

        fs::write(&certificate, "nonsense").unwrap();
        let error = ensure(pki.path(), &application()).unwrap_err().to_string();
        assert!(error.contains("cert.der") && error.contains("not readable as a certificate"), "{error}");

        fs::remove_file(&key).unwrap();
        let error = ensure(pki.path(), &application()).unwrap_err().to_string();
        assert!(error.contains("its key"), "{error}");
    }

    #[test]
    fn a_key_alone_gets_its_certificate() {
        let pki = tempfile::tempdir().unwrap();
        ensure(pki.path(), &application()).unwrap();
        let key = fs::read(pki.path().join(PRIVATE_KEY)).unwrap();
        fs::remove_file(pki.path().join(CERTIFICATE)).unwrap();
        ensure(pki.path(), &application()).unwrap();
        assert_eq!(fs::read(pki.path().join(PRIVATE_KEY)).unwrap(), key);
    }
}
