//! Which applications may connect: the trust list, as a folder that is read again whenever it changes.
//!
//!     <pki>/trusted/     certificates of clients, and of CAs whose clients all may connect
//!     <pki>/issuers/     certificates of CAs that are needed to get from a client to a trusted CA; not trusted by themselves
//!     <pki>/crls/        revocation lists of any of these CAs
//!     <pki>/rejected/    certificates that tried, for whoever decides (`vedette trust`)
//!     <pki>/.store/      what the UA crate is shown, and nobody else's business (store.rs)
//!
//! - `x509.rs` reads certificates and lists, `signature.rs` verifies them, `path.rs` has the rules of OPC 10000-4, 6.1.3.
//! - `folder.rs` notices what changes on disk, `rejected.rs` keeps strangers, `store.rs` tells the UA crate.
//! - `admin.rs` is what a person does with the folder from another process.
//!
//! A file that cannot be read is said in the log once, and what it held before goes on to hold. At the start it held nothing: of
//! `trusted/` and `issuers/` it is left out, because a program that does not come up for one bad certificate shuts out everybody;
//! but without a revocation list that is there, and without a folder, there is no start: who was shut out could come in.

pub mod admin;
mod folder;
mod path;
mod rejected;
mod signature;
mod store;
pub mod x509;

use crate::base::files;
pub(super) use crate::base::files::{Stamp, write_whole as write};
use crate::model::Status;
pub(super) use folder::certificates;
use folder::{Folder, News};
use path::{Known, Verdict, judge};
pub use path::{Reason, Rules, earliest};
use rejected::Rejected;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
pub use store::FOLDER as STORE;
use store::Store;
use tracing::{error, info, warn};
use x509::{Cert, Crl};

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot make {path:?}: {source}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot read {path:?} of the trust list: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path:?} of the trust list is not {what}: {reason}; repair it or take it away")]
    Wrong { path: PathBuf, what: &'static str, reason: String },
    #[error("cannot write {path:?}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

impl TrustError {
    /// It is about a file without which fewer may connect, and not more.
    fn lets_nobody_in(&self, pki: &Path) -> bool {
        let (Self::Unreadable { path, .. } | Self::Wrong { path, .. }) = self else { return false };
        [TRUSTED, ISSUERS].iter().any(|name| path.parent() == Some(&pki.join(name)))
    }
}

/// The folder of it all, below the data folder.
pub const PKI: &str = "pki";
pub const TRUSTED: &str = "trusted";
pub const ISSUERS: &str = "issuers";
pub const CRLS: &str = "crls";
pub const REJECTED: &str = "rejected";

/// Cheap to clone.
#[derive(Clone)]
pub struct TrustList(Arc<Inner>);

struct Inner {
    rules: Rules,
    /// `None` if it is servers that are judged.
    store: Option<Store>,
    state: Mutex<State>,
}

struct State {
    trusted: Folder<Cert>,
    issuers: Folder<Cert>,
    crls: Folder<Crl>,
    known: Known,
    /// Counts what changed.
    generation: u64,
    looked: Instant,
    rejected: Rejected,
    /// CAs of which it was said that they have no list, clients of which it was said that they send too much.
    said: BTreeSet<String>,
}

/// An application that may connect.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// SHA-1 in hex, as UA names certificates.
    pub thumbprint: String,
    pub subject: String,
    pub application_uri: Option<String>,
    chain: Vec<Arc<Cert>>,
    generation: u64,
    since: SystemTime,
    until: SystemTime,
}

/// An application that may not.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// `None` if what it sent is no certificate.
    pub thumbprint: Option<String>,
    pub subject: String,
    pub reason: Box<Reason>,
    /// The first time that it is refused for this; then it is worth a line.
    pub is_new: bool,
    /// The code of the failed step, for log and audit.
    pub status: Status,
    /// What the client is told.
    pub status_for_client: Status,
}

/// A sentence for people, with the way out if there is one.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, reason, .. } = self;
        let subject = if subject.is_empty() { "a client without a name" } else { subject };
        write!(f, "{subject} may not connect: {reason}")?;
        match &self.thumbprint {
            Some(thumbprint) if reason.is_want_of_trust() => {
                write!(f, "; `{} trust {thumbprint}` lets it in", program())
            }
            Some(thumbprint) => write!(f, " (thumbprint {thumbprint})"),
            None => Ok(()),
        }
    }
}

/// Whose command `trust` is: this program, by the name that it was started with. The relay has it, too.
pub fn program() -> String {
    let own = std::env::args_os().next().unwrap_or_default();
    Path::new(&own).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Folders are looked at that often for those who are connected; for those who come, always.
const LOOK: Duration = Duration::from_secs(1);

impl TrustList {
    /// Makes missing folders; an unreadable folder or a file that is no revocation list is an error that names it.
    pub fn open(pki: &Path, rules: Rules) -> Result<Self, TrustError> {
        for name in [TRUSTED, ISSUERS, CRLS, REJECTED] {
            make_folder(&pki.join(name), 0o755)?;
        }
        let store = if rules.of_servers { None } else { Some(Store::open(pki)?) };
        let mut state = State {
            trusted: Folder::new(pki.join(TRUSTED)),
            issuers: Folder::new(pki.join(ISSUERS)),
            crls: Folder::new(pki.join(CRLS)),
            known: Known::default(),
            generation: 0,
            looked: Instant::now(),
            rejected: Rejected::new(pki.join(REJECTED)),
            said: BTreeSet::new(),
        };
        for fault in state.look() {
            if !fault.lets_nobody_in(pki) {
                return Err(fault);
            }
            error!(%fault, "The trust list starts without a file that cannot be read.");
        }
        Ok(Self(Arc::new(Inner { rules, store, state: Mutex::new(state) })))
    }

    /// Decides about the certificates of an OpenSecureChannel: the application's own, and then those of its CAs.
    pub fn check(&self, chain: &[u8], now: SystemTime) -> Result<Accepted, Refusal> {
        let chain = match read_chain(chain) {
            Ok(chain) => chain,
            Err(reason) => return Err(self.refusal(None, reason)),
        };
        let mut state = self.state();
        state.look_and_tell();
        let judged = judge(&state.known, &chain, now, self.0.rules).and_then(|verdict| {
            if let Some(store) = &self.0.store {
                store.admit(&chain[0]).map_err(|error| Reason::Store(error.to_string()))?;
            }
            Ok(verdict)
        });
        let generation = state.generation;
        match judged {
            Ok(Verdict { until, unlisted }) => {
                state.tell_unlisted(unlisted);
                let leaf = &chain[0];
                state.rejected.forget(leaf);
                if chain.len() > 1 && !self.0.rules.of_servers {
                    state.tell_chain(leaf);
                }
                Ok(Accepted {
                    thumbprint: leaf.thumbprint().to_owned(),
                    subject: leaf.title(),
                    application_uri: leaf.application_uri().map(str::to_owned),
                    generation,
                    since: now,
                    until,
                    chain,
                })
            }
            Err(reason) => {
                drop(state);
                self.dismiss(&chain[0]);
                Err(self.refusal(Some(&chain[0]), reason))
            }
        }
    }

    /// Whether an earlier decision still holds.
    pub fn still(&self, accepted: &Accepted, now: SystemTime) -> bool {
        let mut state = self.state();
        if state.looked.elapsed() >= LOOK {
            state.look_and_tell();
        }
        if state.generation == accepted.generation && accepted.since <= now && now <= accepted.until {
            return true;
        }
        let holds = judge(&state.known, &accepted.chain, now, self.0.rules).is_ok();
        drop(state);
        if !holds && let Some(leaf) = accepted.chain.first() {
            self.dismiss(leaf);
        }
        holds
    }

    fn dismiss(&self, leaf: &Cert) {
        if let Some(store) = &self.0.store {
            store.dismiss(leaf);
        }
    }

    /// The folder to give to the UA crate's server.
    pub fn store(&self) -> &Path {
        self.0.store.as_ref().expect("a server judges clients").path()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, leaf: Option<&Cert>, reason: Reason) -> Refusal {
        let mut state = self.state();
        let thumbprint = leaf.map(|leaf| leaf.thumbprint().to_owned());
        let is_new = state.rejected.is_new(thumbprint.as_deref().unwrap_or_default(), reason.to_string());
        // One that is trusted and refused all the same is not waiting for a decision.
        let is_trusted = |leaf: &Cert| state.known.trusted.iter().any(|trusted| trusted.der() == leaf.der());
        if let Some(leaf) = leaf.filter(|leaf| is_new && !is_trusted(leaf))
            && let Err(error) = state.rejected.keep(leaf)
        {
            warn!(thumbprint = leaf.thumbprint(), %error, "Cannot keep a refused certificate under rejected/.");
        }
        Refusal {
            thumbprint,
            subject: leaf.map(Cert::title).unwrap_or_default(),
            is_new,
            status: reason.status(),
            status_for_client: reason.status_for_client(),
            reason: Box::new(reason),
        }
    }
}

fn read_chain(chain: &[u8]) -> Result<Vec<Arc<Cert>>, Reason> {
    let malformed = |error: &dyn fmt::Display| Reason::Malformed(error.to_string());
    let parts = x509::split(chain).map_err(|error| malformed(&error))?;
    if parts.is_empty() {
        return Err(Reason::Malformed("there is none".into()));
    }
    if parts.len() > path::MAX_CHAIN {
        return Err(Reason::TooMany);
    }
    let certs = parts.into_iter().map(|part| Cert::from_der(part).map(Arc::new).map_err(|error| malformed(&error)));
    certs.collect()
}

impl State {
    /// Reads what changed; gives what is newly wrong.
    fn look(&mut self) -> Vec<TrustError> {
        self.looked = Instant::now();
        let news = [self.trusted.look(), self.issuers.look(), self.crls.look()];
        if news.iter().any(|news| news.is_changed) {
            self.generation += 1;
            self.known = Known {
                trusted: self.trusted.entries().cloned().collect(),
                issuers: self.issuers.entries().cloned().collect(),
                crls: self.crls.entries().cloned().collect(),
            };
        }
        news.into_iter().flat_map(|News { faults, .. }| faults).collect()
    }

    fn look_and_tell(&mut self) {
        let generation = self.generation;
        for fault in self.look() {
            error!(%fault, "The trust list goes on without what cannot be read; what was read before holds.");
        }
        if self.generation != generation {
            let Known { trusted, issuers, crls } = &self.known;
            info!(trusted = trusted.len(), issuers = issuers.len(), crls = crls.len(), "Read the trust list again.");
        }
    }

    fn tell_unlisted(&mut self, unlisted: Vec<String>) {
        for issuer in unlisted {
            if !self.said.contains(&issuer) {
                info!(%issuer, "No current revocation list in crls/; clients of this CA are not checked for revocation.");
                self.said.insert(issuer);
            }
        }
    }

    /// docs/upstream.md: the UA crate takes exactly one certificate.
    fn tell_chain(&mut self, leaf: &Cert) {
        if self.said.insert(leaf.thumbprint().to_owned()) {
            let subject = leaf.title();
            warn!(%subject, "This client is trusted, but sends CA certificates after its own, which the UA crate cannot read. \
                             Let it send only its own, and put those of its CAs into issuers/.");
        }
    }
}

pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), TrustError> {
    files::make_folder(path, mode).map_err(|source| TrustError::Make { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
