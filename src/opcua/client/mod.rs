//! Other OPC UA servers, seen as a client: one session at a time, shared by the source `ua_client` and the command line.
//!
//!     Target, ServerTrust ──Connection::open──► Connection ── read, write, browse, resolve, subscribe ──► ...
//!                                                   └── lost(): when and why it ended; there is no way back from that
//!
//! - A [`Connection`] is one session. It drives the UA crate's event loop in a task of its own, which ends with it; whoever
//!   wants a connection for ever opens another after a wait. The crate is told never to reconnect: its states then cannot
//!   differ from ours.
//! - In use: `Connection::open(&target, &trust)`, then `resolve(&NodeRef::parse(text)?)`, `read(&[ReadValueId], max_age)`,
//!   `write(Vec<WriteValue>)`, `browse(&[children(node)])`, and `subscribe(&Settings, |notice| ...)` followed by
//!   `monitor(&subscription, &[Item::value(...)])`. `offers` and `find_servers` need no connection.
//! - [`ServerTrust`] decides about the server's certificate before anything but GetEndpoints is said. The crate's own trust
//!   list is not used: it knows no CAs and asks too late.
//! - `endpoints.rs` asks what a server offers and chooses; `transport.rs` is the socket; `limits.rs` cuts what is asked into
//!   pieces that the server takes; `services.rs` are the services; `browse.rs` follows continuation points;
//!   `subscription.rs` hands over what comes; `node_ref.rs` reads how people write nodes; `error.rs` says what failed and
//!   what to try; `tag_names.rs` makes tags' names of browse names.
//!
//! Invariants: the names of all status codes are kept. Every answer of a server is checked for its length before its parts
//! are matched with what was asked. A server that is silent for [`Times::silence`] is lost, whatever TCP says.

mod browse;
mod connection;
mod endpoints;
mod error;
mod limits;
mod node_ref;
mod services;
mod subscription;
mod tag_names;
mod transport;
mod trust;

pub use browse::{Child, children};
pub use connection::{Connection, Loss};
pub use endpoints::{Offer, find_servers, offers};
pub use error::{ConnectError, ServiceError, hint, name};
pub use limits::OperationLimits;
pub use node_ref::{Namespaces, NodeRef, NodeRefError};
pub use subscription::{Gap, Item, Made, Notice, Settings, Subscription};
pub use tag_names::{Names, distinct, segment};
pub use trust::{Ask, Pinned, ServerCertificate, ServerTrust, Untrusted};

use opcua::client::Password;
use opcua::crypto::SecurityPolicy;
use opcua::types::MessageSecurityMode;
use std::path::PathBuf;
use std::time::Duration;

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// `opc.tcp://host:4840/path`. Used as it is written: servers often call themselves by names that are not known here.
    pub url: String,
    pub security: Security,
    pub user: User,
    /// Needed for everything but SecurityPolicy None.
    pub own: Option<Own>,
    /// What the server's diagnostics show.
    pub session_name: String,
    pub times: Times,
}

/// Which of the server's endpoints will do. The default is the best that signs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Security {
    /// `None`: any that is not broken.
    pub policy: Option<SecurityPolicy>,
    /// `None`: SignAndEncrypt or, where there is no such endpoint, Sign.
    pub mode: Option<MessageSecurityMode>,
}

impl Security {
    /// Neither signed nor encrypted. Only for those who ask for it in words.
    pub const NONE: Self = Self { policy: Some(SecurityPolicy::None), mode: Some(MessageSecurityMode::None) };

    /// From words as in the configuration: a policy ("Basic256Sha256", "Aes256_Sha256_RsaPss", "None") and a mode ("Sign",
    /// "SignAndEncrypt", "None"); "best" is as good as nothing.
    pub fn parse(policy: Option<&str>, mode: Option<&str>) -> Result<Self, String> {
        let plain = |text: &str| text.to_lowercase().replace(['_', '-', '&', ' '], "");
        let policy = match policy.map(plain).as_deref() {
            None | Some("best" | "") => None,
            Some("none") => Some(SecurityPolicy::None),
            Some("basic256sha256") => Some(SecurityPolicy::Basic256Sha256),
            Some("aes128sha256rsaoaep") => Some(SecurityPolicy::Aes128Sha256RsaOaep),
            Some("aes256sha256rsapss") => Some(SecurityPolicy::Aes256Sha256RsaPss),
            Some(other) => {
                return Err(format!(
                    "{other:?} is no security policy that can be used; there is \"best\", \"Aes256_Sha256_RsaPss\", \
                     \"Basic256Sha256\", \"Aes128_Sha256_RsaOaep\" and \"None\""
                ));
            }
        };
        let mode = match mode.map(plain).as_deref() {
            None | Some("best" | "") => None,
            Some("none") => Some(MessageSecurityMode::None),
            Some("sign") => Some(MessageSecurityMode::Sign),
            Some("signandencrypt" | "signencrypt") => Some(MessageSecurityMode::SignAndEncrypt),
            Some(other) => {
                return Err(format!(
                    "{other:?} is no security mode; there is \"best\", \"SignAndEncrypt\", \"Sign\" and \"None\""
                ));
            }
        };
        match (policy, mode) {
            (Some(SecurityPolicy::None), None | Some(MessageSecurityMode::None))
            | (None, Some(MessageSecurityMode::None)) => Ok(Self::NONE),
            (Some(SecurityPolicy::None), _) | (_, Some(MessageSecurityMode::None)) => {
                Err("policy and mode are \"None\" together or not at all".into())
            }
            _ => Ok(Self { policy, mode }),
        }
    }

    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// As whom to log in.
#[derive(Clone, Debug, Default)]
pub enum User {
    #[default]
    Anonymous,
    Name {
        user: String,
        /// Not shown by `Debug`.
        password: Password,
    },
    /// X.509, as DER or PEM, and its key as PEM.
    Certificate { certificate: PathBuf, key: PathBuf },
}

/// Our own application certificate.
#[derive(Clone, Debug)]
pub struct Own {
    pub application_name: String,
    /// As in the certificate.
    pub application_uri: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// A folder of its own where the UA crate notes what was decided here. Made if it is missing.
    pub scratch: PathBuf,
}

#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For everything until the session is there.
    pub connect: Duration,
    /// For one request.
    pub request: Duration,
    /// A server that says nothing for so long is lost. It is asked for its state three times within it.
    pub silence: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(20), request: seconds(30), silence: seconds(10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::opcua::certificate::{Application, OwnCertificate};
    use std::path::Path;

    /// A certificate and its key.
    pub(super) fn identity(folder: &Path) -> (PathBuf, PathBuf) {
        let application = Application { name: "x".into(), uri: "urn:x".into(), hosts: vec!["localhost".into()] };
        let own = OwnCertificate::open(folder, application, Clock::real().now()).unwrap();
        let (certificate, key) = own.files();
        (certificate.to_owned(), key.to_owned())
    }

    #[test]
    fn security_is_read_as_people_write_it_and_none_has_to_be_said() {
        assert_eq!(Security::parse(None, None).unwrap(), Security::default());
        assert!(!Security::default().is_none());
        let wanted =
            Security { policy: Some(SecurityPolicy::Aes256Sha256RsaPss), mode: Some(MessageSecurityMode::Sign) };
        assert_eq!(Security::parse(Some("Aes256_Sha256_RsaPss"), Some("sign")).unwrap(), wanted);
        assert!(Security::parse(Some("None"), None).unwrap().is_none());
        assert!(Security::parse(None, Some("none")).unwrap().is_none());
        let together = Security::parse(Some("None"), Some("Sign")).unwrap_err();
        assert!(together.contains("together"), "{together}");
        let broken = Security::parse(Some("Basic128Rsa15"), None).unwrap_err();
        assert!(broken.contains("Basic256Sha256"), "{broken}");
    }

    #[test]
    fn a_password_is_not_printed() {
        let user = User::Name { user: "me".into(), password: "secret".into() };
        assert!(!format!("{user:?}").contains("secret"));
    }
}
