//! Whether a server is who it should be, decided before it is told anything.

use crate::model::Status;
use crate::opcua::trust::x509::{Cert, split};
use crate::opcua::trust::{Refusal, TrustList, program};
use std::time::SystemTime;

/// What a server shows of itself.
pub struct ServerCertificate<'a> {
    pub url: &'a str,
    /// DER: its own certificate, and after it perhaps those of its CAs.
    pub chain: &'a [u8],
    /// Its own.
    pub leaf: Cert,
}

/// A server that is not talked to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the server's certificate is not accepted: {reason}")]
pub struct Untrusted {
    pub status: Status,
    /// For people, with the way out.
    pub reason: String,
    /// SHA-1 in hexadecimal digits; empty if it is no certificate.
    pub thumbprint: String,
    /// It was not refused for this before: worth a line.
    pub is_new: bool,
}

/// Who decides. It may take its time: it is called where nothing waits but this connection.
pub trait ServerTrust: Send + Sync {
    fn judge(&self, server: &ServerCertificate<'_>, now: SystemTime) -> Result<(), Untrusted>;
}

impl<'a> ServerCertificate<'a> {
    pub(super) fn read(url: &'a str, chain: &'a [u8]) -> Result<Self, Untrusted> {
        let unreadable = |reason: String| Untrusted {
            status: Status::BAD_CERTIFICATE_INVALID,
            reason: format!("it cannot be read: {reason}"),
            thumbprint: String::new(),
            is_new: true,
        };
        let parts = split(chain).map_err(|error| unreadable(error.to_string()))?;
        let first = parts.first().ok_or_else(|| unreadable("there is none".into()))?;
        let leaf = Cert::from_der(first).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self { url, chain, leaf })
    }

    fn refuse(&self, reason: String) -> Untrusted {
        let thumbprint = self.leaf.thumbprint().to_owned();
        Untrusted { status: Status::BAD_CERTIFICATE_UNTRUSTED, reason, thumbprint, is_new: true }
    }
}

/// By our trust list; who is refused is kept in rejected/ for `vedette trust`. The list must be one that judges servers.
impl ServerTrust for TrustList {
    fn judge(&self, server: &ServerCertificate<'_>, now: SystemTime) -> Result<(), Untrusted> {
        let Err(Refusal { thumbprint, subject, reason, status, is_new, .. }) = self.check(server.chain, now) else {
            return Ok(());
        };
        let thumbprint = thumbprint.unwrap_or_default();
        let way_out = match reason.is_want_of_trust() {
            true => format!("; `{} trust {thumbprint}` accepts it", program()),
            false => format!(" (thumbprint {thumbprint})"),
        };
        Err(Untrusted { status, reason: format!("{subject}: {reason}{way_out}"), thumbprint, is_new })
    }
}

/// By a certificate that is known: this one and no other, also when it has expired.
pub struct Pinned(pub Vec<u8>);

impl ServerTrust for Pinned {
    fn judge(&self, server: &ServerCertificate<'_>, _: SystemTime) -> Result<(), Untrusted> {
        if server.leaf.der() == self.0 {
            return Ok(());
        }
        let (subject, thumbprint) = (server.leaf.title(), server.leaf.thumbprint());
        Err(server.refuse(format!("it is not the one in `server_certificate`, but {subject} ({thumbprint})")))
    }
}

/// By a question: `true` is yes. For a person who is asked.
pub struct Ask<F>(pub F);

impl<F: Fn(&ServerCertificate<'_>) -> bool + Send + Sync> ServerTrust for Ask<F> {
    fn judge(&self, server: &ServerCertificate<'_>, _: SystemTime) -> Result<(), Untrusted> {
        if (self.0)(server) { Ok(()) } else { Err(server.refuse("it was not accepted".into())) }
    }
}
