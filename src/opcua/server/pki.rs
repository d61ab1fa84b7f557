//! Our own certificate and the trust list, as the server needs them: opened before anything listens, and watched while it
//! runs.
//!
//! The UA crate reads its certificate once, so another one means that the server ends and starts again inside this process.
//! That closes the sessions of all clients, who have to look at the new certificate in any case.

use super::Notices;
use crate::base::Clock;
use crate::model::EventKind;
use crate::opcua::certificate::{Application, CertificateError, Identity, News, OwnCertificate};
use crate::opcua::trust::{Refusal, Rules, TrustError, TrustList};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::{error, info, warn};

/// How often files are looked at; a replacement counts when it has been the same for two looks.
const LOOK: Duration = Duration::from_secs(2);

pub struct Pki {
    pub trust: TrustList,
    own: Mutex<OwnCertificate>,
    clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl Pki {
    pub fn open(folder: &Path, application: Application, rules: Rules, clock: Clock) -> Result<Self, PkiError> {
        let own = OwnCertificate::open(folder, application, clock.now())?;
        let trust = TrustList::open(folder, rules)?;
        Ok(Self { trust, own: Mutex::new(own), clock })
    }

    /// The certificate that counts now.
    pub fn identity(&self) -> Identity {
        self.own().identity().clone()
    }

    /// Whether a server that we are the client of is trusted.
    pub fn check(&self, chain: &[u8]) -> Result<(), Refusal> {
        self.trust.check(chain, self.clock.now()).map(|_| ())
    }

    /// Returns when another certificate counts.
    pub async fn replaced(&self, notices: &dyn Notices) {
        loop {
            let now = self.clock.now();
            let news = self.own().look(now);
            match news {
                None => {}
                Some(News::Replaced(Identity { thumbprint, subject, file, .. })) => {
                    info!(path = %file.display(), %thumbprint, %subject, "Another application certificate; starting the UA server again.");
                    let message = format!("the application certificate is now {} ({thumbprint})", file.display());
                    notices.raise(EventKind::ConfigurationApplied, message);
                    return;
                }
                Some(News::Broken(fault)) => {
                    error!(%fault, "The application certificate from before holds.");
                    let message = format!("{fault}; the certificate from before holds");
                    notices.raise(EventKind::ConfigurationRefused, message);
                }
                Some(News::Expires(identity)) => {
                    let end = identity.end(now);
                    warn!("Put another certificate in its place: {end}.");
                    notices.raise(EventKind::CertificateExpires, end);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn own(&self) -> MutexGuard<'_, OwnCertificate> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
