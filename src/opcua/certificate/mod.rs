//! The application's own certificate: made at first start, renewed before it expires, replaced by files.
//!
//!     <pki>/own/cert.der           made here: signed by itself, for five years
//!     <pki>/private/private.pem    its key, readable by this user only
//!     <pki>/own/<any name>         put there by somebody: counts instead, and is never written to
//!     <pki>/private/<any name>     its key
//!
//! - `application.rs` says what goes into it, `make.rs` makes certificates, `files.rs` finds which files count.
//!
//! What counts is copied to where the UA crate reads it (trust/store.rs). So a file that is broken while the server runs
//! changes nothing but the log, and what the crate reads is always a pair. At the start there is nothing to fall back to,
//! and whatever is broken is an error before anything listens. A certificate that has expired is not broken: clients judge
//! that by themselves, may be told to look away, and a device that comes back after a power cut serves them better than
//! one that does not; it is said in the log and as an event.
//!
//! A renewed certificate keeps key, ApplicationUri and subject. Clients that trust certificates one by one have to
//! trust it anew either way, but those that remember keys need not, and a small device is spared the making of a key.

mod application;
mod files;
mod make;

use super::trust::x509::Cert;
use super::trust::{self, Stamp, TrustError, earliest};
use crate::model::Timestamp;
pub use application::host_name;
use files::Key;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot use {path:?}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot make the application certificate: {reason}")]
    Make { reason: String },
    #[error("cannot write {path:?}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{certificate:?} is there but its key is not: put it into {folder:?}, or remove the certificate to have a new pair \
         made (clients must then trust the new one)"
    )]
    NoKey { certificate: PathBuf, folder: PathBuf },
    #[error("{path:?} is not readable as {what}: {reason}")]
    Unreadable { path: PathBuf, what: &'static str, reason: String },
    #[error(transparent)]
    Certificate(#[from] TrustError),
    #[error("{certificate:?} and {keys:?} are not a pair: no key there belongs to the certificate")]
    Mismatch { certificate: PathBuf, keys: Vec<PathBuf> },
    #[error("only one of {paths:?} can be the application certificate: take the others away")]
    Several { paths: Vec<PathBuf> },
    #[error("{path:?} cannot be an application certificate: {reason}")]
    Unfit { path: PathBuf, reason: String },
    #[error("{path:?} is readable by everybody, and that cannot be changed: {source}; do `chmod 600` as its owner")]
    Permissions { path: PathBuf, source: io::Error },
}

const OWN: &str = "own";
const PRIVATE: &str = "private";
const CERTIFICATE: &str = "own/cert.der";
const PRIVATE_KEY: &str = "private/private.pem";

/// Where the UA crate finds what counts, below the store.
pub const STORE_CERTIFICATE: &str = "own/cert.der";
pub const STORE_KEY: &str = "private/private.pem";

/// Within this time before its end a certificate is renewed, or its owner told.
pub const SOON: Duration = Duration::from_secs(30 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);

/// What goes into a new certificate.
#[derive(Clone, Debug)]
pub struct Application {
    /// The common name.
    pub name: String,
    /// The ApplicationUri, which clients compare with that of the server.
    pub uri: String,
    /// Host names and addresses under which clients reach it.
    pub hosts: Vec<String>,
}

/// The certificate that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What the server has to call itself, because clients compare it with the certificate (OPC 10000-4, 5.6.2).
    pub application_uri: String,
    pub thumbprint: String,
    pub subject: String,
    pub file: PathBuf,
    pub not_after: SystemTime,
    not_before: SystemTime,
    is_ours: bool,
}

/// What a look found.
#[derive(Debug)]
pub enum News {
    /// Another certificate counts; the server has to start with it.
    Replaced(Identity),
    /// Files were put there that cannot be used; the certificate from before holds.
    Broken(CertificateError),
    /// It ends soon, or has ended, and is not ours to renew. Said once a day.
    Expires(Identity),
}

/// Server and clients may open it at one time, and only one of them is to make the key.
static OPENING: Mutex<()> = Mutex::new(());

/// Keeps an eye on the files.
pub struct OwnCertificate {
    pki: PathBuf,
    application: Application,
    identity: Identity,
    store: Target,
    /// Of what was read last.
    seen: Vec<(PathBuf, Stamp)>,
    /// Different from that, and not yet known to be complete.
    settling: Option<Vec<(PathBuf, Stamp)>>,
    /// When something was last done about its end.
    told: Option<SystemTime>,
}

/// Where the UA crate reads.
struct Target {
    certificate: PathBuf,
    key: PathBuf,
}

impl OwnCertificate {
    /// Makes what is missing, renews what is due, checks all of it, and puts it where the UA crate reads.
    pub fn open(pki: &Path, application: Application, now: SystemTime) -> Result<Self, CertificateError> {
        let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let store = pki.join(trust::STORE);
        for (path, mode) in [(pki.join(OWN), 0o755), (pki.join(PRIVATE), 0o700), (store.clone(), 0o700)] {
            trust::make_folder(&path, mode)?;
        }
        for part in [OWN, PRIVATE] {
            trust::make_folder(&store.join(part), 0o700)?;
        }
        let store = Target { certificate: store.join(STORE_CERTIFICATE), key: store.join(STORE_KEY) };
        let loaded = load(pki, &application, now)?;
        store.put(&loaded)?;
        let identity = loaded.identity;
        if identity.application_uri != application.uri {
            let (certificate, configured) = (&identity.application_uri, &application.uri);
            info!(%certificate, %configured, "The ApplicationUri is that of the certificate.");
        }
        let seen = files::stamps(pki)?;
        Ok(Self { pki: pki.to_owned(), application, identity, store, seen, settling: None, told: None })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the UA crate reads the certificate and its key.
    pub fn files(&self) -> (&Path, &Path) {
        (&self.store.certificate, &self.store.key)
    }

    /// To be called every few seconds.
    pub fn look(&mut self, now: SystemTime) -> Option<News> {
        let stamps = match files::stamps(&self.pki) {
            Ok(stamps) => stamps,
            Err(error) => {
                // Said once, like a file that cannot be read.
                let is_known = self.seen.is_empty();
                self.seen.clear();
                return (!is_known).then_some(News::Broken(error));
            }
        };
        let is_changed = stamps != self.seen;
        if is_changed && self.settling.as_ref() != Some(&stamps) {
            // A certificate and its key come one after the other: whatever comes has to stay the same for one look.
            self.settling = Some(stamps);
            return None;
        }
        if is_changed {
            return self.reload(now);
        }
        let is_told = self.told.is_some_and(|told| now.duration_since(told).unwrap_or_default() < DAY);
        if is_told || !self.identity.ends_soon(now) {
            return None;
        }
        self.told = Some(now);
        if self.identity.is_ours { self.reload(now) } else { Some(News::Expires(self.identity.clone())) }
    }

    fn reload(&mut self, now: SystemTime) -> Option<News> {
        self.settling = None;
        let loaded = load(&self.pki, &self.application, now).and_then(|loaded| {
            self.store.put(&loaded)?;
            Ok(loaded.identity)
        });
        // After the reading, which may have renewed the certificate.
        self.seen = files::stamps(&self.pki).unwrap_or_default();
        match loaded {
            Err(error) => Some(News::Broken(error)),
            Ok(identity) => {
                let is_new = identity.thumbprint != self.identity.thumbprint;
                if is_new {
                    self.told = None;
                }
                self.identity = identity.clone();
                is_new.then_some(News::Replaced(identity))
            }
        }
    }
}

impl Identity {
    fn new(file: PathBuf, certificate: &Cert) -> Result<Self, CertificateError> {
        let unfit = |reason: String| CertificateError::Unfit { path: file.clone(), reason };
        // What the security policies allow (OPC 10000-7).
        match certificate.rsa_bits() {
            Some(2048..=4096) => {}
            Some(bits) => return Err(unfit(format!("its key has {bits} bits, and 2048 to 4096 are allowed"))),
            None => return Err(unfit("its key is not RSA".into())),
        }
        let uri = certificate.application_uri().filter(|uri| !uri.is_empty()).ok_or_else(|| {
            unfit("its SubjectAltName has no URI; that is the ApplicationUri, as in URI:urn:example.com:line1".into())
        })?;
        Ok(Self {
            application_uri: uri.to_owned(),
            thumbprint: certificate.thumbprint().to_owned(),
            subject: certificate.title(),
            not_after: certificate.not_after(),
            not_before: certificate.not_before(),
            is_ours: make::is_ours(certificate),
            file,
        })
    }

    /// A clock that is not set says nothing about the end.
    pub fn ends_soon(&self, now: SystemTime) -> bool {
        now >= earliest() && self.not_after < now + SOON
    }

    fn is_due(&self, now: SystemTime) -> bool {
        self.is_ours && self.ends_soon(now)
    }

    /// For the log and the event.
    pub fn end(&self, now: SystemTime) -> String {
        let verb = if self.not_after < now { "expired" } else { "expires" };
        format!("the certificate {} {verb} at {}", self.file.display(), Timestamp::from(self.not_after))
    }
}

struct Loaded {
    identity: Identity,
    der: Vec<u8>,
    key: Key,
}

impl Target {
    /// The key first: with a power cut in between it is put right at the next start.
    fn put(&self, loaded: &Loaded) -> Result<(), CertificateError> {
        for (path, content) in [(&self.key, loaded.key.pem.as_bytes()), (&self.certificate, &loaded.der)] {
            if !fs::read(path).is_ok_and(|found| found == content) {
                write(path, 0o600, content)?;
            }
        }
        Ok(())
    }
}

fn load(pki: &Path, application: &Application, now: SystemTime) -> Result<Loaded, CertificateError> {
    let mut keys = files::keys(pki)?;
    let found = files::certificate(pki)?;
    let Some((file, mut certificate)) = found else {
        let key = match keys.iter().position(|(path, _)| *path == pki.join(PRIVATE_KEY)) {
            Some(at) => keys.swap_remove(at).1,
            None => create_key(pki)?,
        };
        return make_certificate(pki, application, key, now);
    };
    let Some(at) = keys.iter().position(|(_, key)| key.fits(&certificate)) else {
        return Err(match keys.is_empty() {
            true => CertificateError::NoKey { certificate: file, folder: pki.join(PRIVATE) },
            false => {
                let keys = keys.into_iter().map(|(path, _)| path).collect();
                CertificateError::Mismatch { certificate: file, keys }
            }
        });
    };
    let key = keys.swap_remove(at).1;
    let identity = Identity::new(file, &certificate)?;
    if identity.is_due(now) {
        info!(end = %identity.end(now), "Renewing the application certificate; clients have to trust the new one.");
        let renewed = Application { uri: identity.application_uri, ..application.clone() };
        let path = identity.file;
        certificate = write_certificate(&path, &renewed, &key, now)?;
        return Ok(Loaded { identity: Identity::new(path, &certificate)?, der: certificate.der().to_vec(), key });
    }
    if now >= earliest() && now < identity.not_before {
        let (from, clock) = (Timestamp::from(identity.not_before), Timestamp::from(now));
        warn!(%from, %clock, "The application certificate is not valid yet. Is the clock right?");
    }
    Ok(Loaded { identity, der: certificate.der().to_vec(), key })
}

/// The key goes first: a power cut between the two leaves a key, which gets its certificate at the next start.
fn create_key(pki: &Path) -> Result<Key, CertificateError> {
    let key = Key::generate()?;
    write(&pki.join(PRIVATE_KEY), 0o600, key.pem.as_bytes())?;
    Ok(key)
}

fn make_certificate(
    pki: &Path,
    application: &Application,
    key: Key,
    now: SystemTime,
) -> Result<Loaded, CertificateError> {
    let path = pki.join(CERTIFICATE);
    let certificate = write_certificate(&path, application, &key, now)?;
    info!(path = %path.display(), thumbprint = certificate.thumbprint(), "Made the application certificate.");
    Ok(Loaded { identity: Identity::new(path, &certificate)?, der: certificate.der().to_vec(), key })
}

fn write_certificate(
    path: &Path,
    application: &Application,
    key: &Key,
    now: SystemTime,
) -> Result<Cert, CertificateError> {
    let der = make::certificate(application, key, now)?;
    let certificate = Cert::from_der(&der).map_err(|error| CertificateError::Make { reason: error.to_string() })?;
    // What is renewed may have been put there as PEM, from a backup.
    write(path, 0o644, &der)?;
    Ok(certificate)
}

fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), CertificateError> {
    trust::write(path, mode, content).map_err(|source| CertificateError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
