//! What went wrong: the status code's name, what it means here, and what to try.

use crate::opcua::client::{ConnectError, Loss, ServiceError, hint, name};
use opcua::types::StatusCode as Code;
use std::io;

#[derive(Debug)]
pub(in crate::cli) enum Failure {
    /// The command line; nothing was done.
    Wrong(String),
    Failed(String),
    /// It failed, and that was said already.
    Said,
    /// Whoever was asked did not answer in time.
    Silent(String),
    /// The same, and that was said already.
    Unanswered,
    /// Whoever read the output wants no more of it.
    BrokenPipe,
}

impl Failure {
    pub(in crate::cli) fn failed(what: String) -> Self {
        Self::Failed(what)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Failed(format!("cannot write the output: {error}")),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::Failed(format!("{error}\n{}", meaning(error.status)))
    }
}

pub(super) fn lost(loss: &Loss) -> Failure {
    let code = Code::from(loss.status.0);
    Failure::Failed(format!("the connection was lost: {}\n{}", loss.reason, meaning(code)))
}

/// `Speed: BadNodeIdUnknown`, and on the next line what that means.
pub(in crate::cli) fn of_node(node: &str, code: Code) -> String {
    let meant = match Code::from(code.bits() & 0xFFFF_0000) {
        Code::BadBrowseNameDuplicated => {
            "several nodes have this browse name: write it with its namespace index, as in /Objects/2:Line 1".into()
        }
        Code::BadNoMatch => "nothing is at this path; `vedette browse` shows what there is".into(),
        other => meaning(other),
    };
    format!("{node}: {}\n{meant}", name(code))
}

/// In words: what the code means here and what to try; else what the standard says of it.
pub(in crate::cli) fn meaning(code: Code) -> String {
    let here = match Code::from(code.bits() & 0xFFFF_0000) {
        Code::BadSecurityChecksFailed | Code::BadCertificateUntrusted => {
            "the server does not trust the certificate of this tool (yet): have it trusted there (in Vedette's server with \
             `vedette trust`, elsewhere by moving it from the rejected to the trusted folder), then try again"
        }
        Code::BadIdentityTokenRejected | Code::BadIdentityTokenInvalid => {
            "the server does not take this login: is the name spelled right, the password, is the user known there? \
             --user NAME, or --user-cert and --user-key"
        }
        Code::BadUserAccessDenied => "this user may not do that there: try another one with --user NAME",
        Code::BadNodeIdUnknown | Code::BadNodeIdInvalid => {
            "there is no such node (or this user may not see it): `vedette browse` shows what there is; namespace indices \
             change, a URI (nsu=...;s=...) does not"
        }
        Code::BadTypeMismatch => "the node wants another type: `vedette read` shows which, --type sends another",
        Code::BadTooManySessions | Code::BadMaxConnectionsReached | Code::BadTcpNotEnoughResources => {
            "the server has as many clients as it takes: close some, or wait until their sessions time out"
        }
        Code::BadTimeout | Code::BadRequestTimeout => {
            "the server did not answer in time: is it busy or stopped? --timeout 60s waits longer"
        }
        Code::BadConnectionClosed | Code::BadCommunicationError | Code::BadConnectionRejected => {
            "is the server running, and is this its port? `vedette discover HOST` looks for servers"
        }
        Code::BadSecurityPolicyRejected | Code::BadSecurityModeRejected => {
            "the server refuses this security: `vedette discover HOST` lists what it offers, --policy and --mode choose"
        }
        Code::BadTcpEndpointUrlInvalid | Code::BadServerUriInvalid => {
            "the host is not known, or the server does not know itself by this URL: `vedette discover HOST` lists its URLs"
        }
        Code::BadNotWritable => "this node cannot be written",
        Code::BadOutOfRange => "the value is outside of what the node takes; an EURange property says what that is",
        Code::BadFilterNotAllowed | Code::BadMonitoredItemFilterUnsupported | Code::BadDeadbandFilterInvalid => {
            "the server takes no such deadband here: percent needs an EURange property on the node, and both need a number"
        }
        Code::BadAttributeIdInvalid => {
            "this node has no value; only variables have, and `vedette browse` shows which are"
        }
        Code::BadDecodingError | Code::BadEncodingError => "what came is not OPC UA, or damaged on the way",
        other => match hint(other) {
            Some(hint) => hint,
            None => other.sub_code().description(),
        },
    };
    here.to_owned()
}

/// A connection that was not made: what was tried, why it failed, and the option that helps.
pub(in crate::cli) fn explain(error: &ConnectError) -> String {
    let way_out = match error {
        ConnectError::Unreachable { status, reason, .. } => unreachable(*status, reason),
        // Servers say either of a wrong password.
        ConnectError::Session { status: Code::BadUserAccessDenied, .. } => meaning(Code::BadIdentityTokenRejected),
        ConnectError::Session { status, .. } => meaning(*status),
        ConnectError::Timeout { .. } => meaning(Code::BadTimeout),
        ConnectError::NoEndpoint { offered, .. } if offered.contains("None") => {
            "--policy None connects without security (anybody on the way can read and change what is sent); \
             --policy and --mode choose one of those offered"
                .into()
        }
        ConnectError::NoEndpoint { .. } => "--policy and --mode choose one of those offered".into(),
        ConnectError::NoLogin { .. } => {
            "--user NAME logs in with a password, --user-cert and --user-key with a certificate, neither anonymously"
                .into()
        }
        ConnectError::PasswordInClear { .. } => {
            "leave out --policy None and --mode Sign; a server that offers nothing else has to be given a security policy, or \
             read without a login"
                .into()
        }
        ConnectError::Downgraded { .. } => {
            "ask whoever runs the network; --policy and --mode take exactly the security that they name, or nothing".into()
        }
        ConnectError::Url { .. }
        | ConnectError::NoCertificate { .. }
        | ConnectError::File { .. }
        | ConnectError::Untrusted(_) => return error.to_string(),
    };
    // The crate's own words for a refused connection help nobody twice.
    format!("{error}\n{way_out}")
}

fn unreachable(status: Code, reason: &str) -> String {
    let has = |words: &str| reason.to_lowercase().contains(words);
    if has("refused") {
        return "nothing listens there: is the server running, and is this its port? `vedette discover HOST` looks for servers"
            .into();
    }
    if has("lookup") || has("name or service not known") || has("temporary failure in name resolution") {
        return "the name of the host is not known: is it spelled right? An IP address does without names".into();
    }
    if has("unreachable") || has("timed out") {
        return "there is no way to this host: is it switched on, is the network plugged in, is a firewall in between?"
            .into();
    }
    meaning(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_words_and_the_usual_ones_a_way_out() {
        for (code, way_out) in [
            (Code::BadSecurityChecksFailed, "`vedette trust`"),
            (Code::BadIdentityTokenRejected, "--user"),
            (Code::BadUserAccessDenied, "--user"),
            (Code::BadNodeIdUnknown, "`vedette browse`"),
            (Code::BadTypeMismatch, "--type"),
            (Code::BadTooManySessions, "close some"),
            (Code::BadCertificateUntrusted, "trusted folder"),
            (Code::BadTimeout, "--timeout"),
            (Code::BadTypeMismatch.set_overflow(true), "--type"),
        ] {
            assert!(meaning(code).contains(way_out), "{code}: {}", meaning(code));
        }
        assert!(!meaning(Code::BadEventIdUnknown).is_empty());
    }

    #[test]
    fn the_reason_of_the_network_is_told_apart() {
        let error = |reason: &str| {
            explain(&ConnectError::Unreachable {
                url: "opc.tcp://plc:4840".into(),
                status: Code::BadCommunicationError,
                reason: reason.into(),
            })
        };
        assert!(error("Connection refused (os error 111)").contains("nothing listens there"));
        assert!(error("failed to lookup address information: Name or service not known").contains("spelled right"));
        assert!(error("No route to host; Network is unreachable").contains("no way to this host"));
    }
}
