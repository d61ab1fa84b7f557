//! What the UA crate is shown: a trust list of its own kind, in which only those stand who were accepted here.
//!
//! The crate looks for exactly the client's certificate in `trusted/`, at CreateSession, and writes whom it does not find
//! there to `rejected/`, for ever refused. So an accepted certificate is put there before its channel goes on, and
//! removed with its trust. The crate reads its own certificate and key from here as well (certificate.rs puts them there).

use super::x509::Cert;
use super::{TrustError, make_folder, write};
use opcua::crypto::{CertificateStore, X509};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub struct Store(PathBuf);

/// The folder below the PKI folder.
pub const FOLDER: &str = ".store";

impl Store {
    /// Empty: nobody is trusted because of what an earlier run believed.
    pub fn open(pki: &Path) -> Result<Self, TrustError> {
        let store = Self(pki.join(FOLDER));
        make_folder(&store.0, 0o700)?;
        for name in ["trusted", "rejected"] {
            let path = store.0.join(name);
            make_folder(&path, 0o700)?;
            store.clear(name).map_err(|source| TrustError::Write { path, source })?;
        }
        Ok(store)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn admit(&self, certificate: &Cert) -> io::Result<()> {
        // Whom the crate itself refused meanwhile had shown another's certificate.
        self.clear("rejected")?;
        let path = self.file(certificate)?;
        if fs::read(&path).is_ok_and(|found| found == certificate.der()) {
            return Ok(());
        }
        write(&path, 0o600, certificate.der())
    }

    /// What is not there is gone as well.
    pub fn dismiss(&self, certificate: &Cert) {
        if let Ok(path) = self.file(certificate)
            && let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(?path, %error, "Cannot take back a client's trust.");
        }
    }

    fn file(&self, certificate: &Cert) -> io::Result<PathBuf> {
        let x509 = X509::from_der(certificate.der()).map_err(io::Error::other)?;
        Ok(self.0.join("trusted").join(CertificateStore::cert_file_name(&x509)))
    }

    fn clear(&self, name: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.0.join(name))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}
