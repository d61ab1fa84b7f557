//! What went wrong, by the name of its status code, and what to try.

use super::trust::Untrusted;
use crate::model::Status;
use opcua::types::{Error, StatusCode};
use std::path::PathBuf;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{url:?} is no address of OPC UA ({reason}); write it as \"opc.tcp://host:4840\"")]
    Url { url: String, reason: String },
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, status: StatusCode, reason: String },
    #[error("{url} did not answer within {seconds} s")]
    Timeout { url: String, seconds: u64 },
    #[error("{url} offers no endpoint with {wanted}; it offers {offered}")]
    NoEndpoint { url: String, wanted: String, offered: String },
    #[error("{url} takes no login by {wanted} there; it takes {offered}")]
    NoLogin { url: String, wanted: &'static str, offered: String },
    #[error(
        "somebody on the way to {url} could read the password: it is sent on no channel without security, and in clear on none that only signs"
    )]
    PasswordInClear { url: String },
    #[error(
        "the connection to {url} was made with {used}, but on it the server says that it has {better}: perhaps somebody in \
         between hides that, in order to read along"
    )]
    Downgraded { url: String, used: String, better: String },
    #[error("{url} wants signed messages, and there is no certificate of our own")]
    NoCertificate { url: String },
    #[error("cannot read {path:?} ({what}): {reason}")]
    File { path: PathBuf, what: &'static str, reason: String },
    #[error("{0}")]
    Untrusted(Box<Untrusted>),
    #[error("{url} refused the session: {}", name(*status))]
    Session { url: String, status: StatusCode },
}

impl ConnectError {
    /// Its status code, for the quality of what the connection was for.
    pub fn status(&self) -> Status {
        match self {
            Self::Url { .. } | Self::NoEndpoint { .. } | Self::NoLogin { .. } | Self::NoCertificate { .. } => {
                Status::BAD_CONFIGURATION_ERROR
            }
            Self::File { .. } => Status::BAD_CONFIGURATION_ERROR,
            Self::PasswordInClear { .. } | Self::Downgraded { .. } => Status::BAD_SECURITY_CHECKS_FAILED,
            Self::Untrusted(untrusted) => untrusted.status,
            Self::Timeout { .. } => Status::BAD_TIMEOUT,
            Self::Unreachable { status, .. } | Self::Session { status, .. } => Status(status.bits()),
        }
    }

    /// What to try, if there is anything to say.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { status, .. } | Self::Session { status, .. } => hint(*status),
            Self::NoEndpoint { .. } => Some("set policy and mode to what it offers; None has to be asked for in words"),
            Self::NoLogin { .. } => {
                Some("set user and password, a user certificate, or nothing for an anonymous login")
            }
            Self::Downgraded { .. } => {
                Some("find out who is in between; policy and mode in words take what is there, or nothing")
            }
            Self::PasswordInClear { .. } => Some("connect with a security policy, and best with SignAndEncrypt"),
            _ => None,
        }
    }
}

/// A service that the server answered with an error, or not at all.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{service}: {}{}", name(*status), if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
pub struct ServiceError {
    pub service: &'static str,
    pub status: StatusCode,
    pub detail: String,
}

impl ServiceError {
    pub(super) fn new(service: &'static str, error: &Error) -> Self {
        let text = error.to_string();
        // The crate's text begins with the code.
        let detail = text.split_once(": ").map_or("", |(_, detail)| detail).to_owned();
        Self { service, status: error.status(), detail }
    }

    pub(super) fn wrong(service: &'static str, detail: impl Into<String>) -> Self {
        Self { service, status: StatusCode::BadUnknownResponse, detail: detail.into() }
    }

    pub fn status(&self) -> Status {
        Status(self.status.bits())
    }
}

/// The standard's name of any status code.
pub fn name(status: StatusCode) -> String {
    let name = status.to_string();
    // Info bits follow the name.
    name.split([' ', ',', '|', '(']).next().unwrap_or(&name).to_owned()
}

/// What a code means for somebody in front of a client, and what to try.
pub fn hint(status: StatusCode) -> Option<&'static str> {
    use StatusCode as Code;
    Some(match Code::from(status.bits() & 0xFFFF_0000) {
        Code::BadSecurityChecksFailed | Code::BadCertificateUntrusted => {
            "the server does not trust our certificate (yet): move it from its rejected to its trusted folder"
        }
        Code::BadCertificateTimeInvalid => "a certificate is not valid now: look at the clocks of both sides",
        Code::BadCertificateUriInvalid => "the server wants the ApplicationUri of our certificate to be ours",
        Code::BadIdentityTokenRejected | Code::BadUserAccessDenied => {
            "the server does not know this user or password, or the user may not do this"
        }
        Code::BadIdentityTokenInvalid => "the server cannot read the login: try another security policy",
        Code::BadTooManySessions | Code::BadTcpNotEnoughResources => "the server has too many clients already",
        Code::BadTcpEndpointUrlInvalid => "the server does not know itself by this URL: try the one that it announces",
        Code::BadConnectionClosed | Code::BadCommunicationError => {
            "nothing answers there: is the server running, is this its port, is a firewall in between?"
        }
        Code::BadTimeout => "the server did not answer in time: is it overloaded or stopped?",
        Code::BadNodeIdUnknown => "there is no such node: browse for its name; namespace indices may have changed",
        Code::BadNoMatch => "nothing is at this path: browse for it",
        Code::BadNotWritable => "this node can only be read",
        Code::BadNotReadable => "this node cannot be read",
        Code::BadTypeMismatch => "the node wants another type",
        Code::BadOutOfRange => "the value is outside of what the node takes",
        Code::BadWriteNotSupported => "the server takes only a plain value here",
        Code::BadAttributeIdInvalid => "the node has no such attribute; only variables have a value",
        Code::BadTooManyMonitoredItems | Code::BadTooManySubscriptions => "the server does not serve so many items",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_name_whatever_its_info_bits_say() {
        assert_eq!(name(StatusCode::BadNodeIdUnknown), "BadNodeIdUnknown");
        assert_eq!(name(StatusCode::BadNodeIdUnknown.set_overflow(true)), "BadNodeIdUnknown");
        assert!(hint(StatusCode::BadNodeIdUnknown.set_overflow(true)).is_some());
        let error = ServiceError::new("Read", &Error::new(StatusCode::BadTooManyOperations, "too much"));
        assert_eq!(error.to_string(), "Read: BadTooManyOperations (too much)");
    }
}
