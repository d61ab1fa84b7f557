//! Logins and rights, as the UA crate asks for them.
//!
//! - Anonymous is offered if somebody without a user comes in at all; user names and certificates on every endpoint that is
//!   secured. On SecurityPolicy None they are not: a password would cross the network in clear (OPC 10000-4, 7.40.4), and
//!   a session that anybody can take over is nobody's.
//! - The policies name the endpoint's own SecurityPolicy. An empty one would do by the standard, but the crate refuses
//!   certificates then, and it would itself name Basic128Rsa15 for them.
//! - Who is refused is told the same whether the name exists or not. Each refusal is an event; the log gets a line at
//!   most every [`QUIET`].

use super::Notices;
use crate::base::Clock;
use crate::model::{EventKind, Timestamp};
use ::opcua::crypto::{SecurityPolicy, Thumbprint};
use ::opcua::server::ServerEndpoint;
use ::opcua::server::address_space::AccessLevel;
use ::opcua::server::authenticator::{
    AuthManager, CoreServerPermissions, Password, UserToken, user_pass_security_policy_id,
};
use ::opcua::types::{Error, NodeId, StatusCode, UAString, UserTokenPolicy, UserTokenType};
use async_trait::async_trait;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// As the crate's identity_token.rs has them, which it does not export.
const ANONYMOUS: &str = "anonymous";
const CERTIFICATE: &str = "x509";

/// From one line in the log about refused logins to the next.
const QUIET: Duration = Duration::from_secs(10);
/// Characters of a name that nobody has checked.
const NAME: usize = 64;

const READ: AccessLevel = AccessLevel::CURRENT_READ.union(AccessLevel::HISTORY_READ);

/// What somebody does with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Browse,
    /// The value, now or in history, and events of the node.
    Read,
    Write,
    /// Of a method's own node.
    Call,
}

/// Who does not come in.
pub struct Refused {
    pub status: StatusCode,
    /// For log and events; the client is told nothing of it.
    pub why: Box<dyn Display + Send>,
}

/// Who may come in, and do what.
#[async_trait]
pub trait Rights: Send + Sync + 'static {
    /// Whether somebody without a user comes in.
    fn is_open(&self) -> bool;

    async fn log_in(&self, name: &str, password: &str) -> Result<UserToken, Refused>;

    /// For a certificate whose owner has proven to have its key.
    fn log_in_with_certificate(&self, thumbprint: &str, now: Timestamp) -> Result<UserToken, Refused>;

    /// Whether the holder of a token may do this with a node now.
    fn may(&self, token: &UserToken, action: Action, node: &NodeId) -> bool;

    /// Whether the holder of a token may see who is connected, from where.
    fn may_see_sessions(&self, token: &UserToken) -> bool;
}

pub struct Authenticator<R> {
    rights: R,
    notices: Arc<dyn Notices>,
    clock: Clock,
    /// When the last line was written, and how many have not been since.
    said: Mutex<(Option<Instant>, u64)>,
}

impl<R: Rights> Authenticator<R> {
    pub fn new(rights: R, notices: Arc<dyn Notices>, clock: Clock) -> Self {
        Self { rights, notices, clock, said: Mutex::default() }
    }

    /// Says that somebody was refused, and makes the answer.
    fn refuse(&self, who: &str, status: StatusCode, why: &dyn Display) -> Error {
        let who: String = who.chars().take(NAME).flat_map(char::escape_debug).collect();
        self.notices.raise(EventKind::LoginRefused, format!("Login of \"{who}\" refused: {why}."));
        let unsaid = {
            let (last, unsaid) = &mut *self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < QUIET) {
                *unsaid += 1;
                None
            } else {
                *last = Some(Instant::now());
                Some(std::mem::take(unsaid))
            }
        };
        if let Some(unsaid) = unsaid {
            warn!(user = %who, reason = %why, others = unsaid, "Refused a login.");
        }
        Error::new(status, "login refused")
    }
}

#[async_trait]
impl<R: Rights> AuthManager for Authenticator<R> {
    async fn authenticate_anonymous_token(&self, _: &ServerEndpoint) -> Result<(), Error> {
        match self.rights.is_open() {
            true => Ok(()),
            false => Err(self.refuse(ANONYMOUS, StatusCode::BadIdentityTokenRejected, &"a user is needed")),
        }
    }

    async fn authenticate_username_identity_token(
        &self,
        _: &ServerEndpoint,
        name: &str,
        password: &Password,
    ) -> Result<UserToken, Error> {
        let token = self.rights.log_in(name, password.get()).await;
        token.map_err(|Refused { status, why }| self.refuse(name, status, &why))
    }

    async fn authenticate_x509_identity_token(
        &self,
        _: &ServerEndpoint,
        thumbprint: &Thumbprint,
    ) -> Result<UserToken, Error> {
        let thumbprint = thumbprint.as_hex_string();
        let token = self.rights.log_in_with_certificate(&thumbprint, self.clock.now().into());
        token.map_err(|Refused { status, why }| self.refuse(&thumbprint, status, &why))
    }

    fn user_token_policies(&self, endpoint: &ServerEndpoint) -> Vec<UserTokenPolicy> {
        let policy = |id: UAString, token_type: UserTokenType, security_policy_uri: UAString| UserTokenPolicy {
            policy_id: id,
            token_type,
            issued_token_type: UAString::null(),
            issuer_endpoint_url: UAString::null(),
            security_policy_uri,
        };
        let mut policies = Vec::new();
        if self.rights.is_open() {
            policies.push(policy(ANONYMOUS.into(), UserTokenType::Anonymous, UAString::null()));
        }
        let secured = endpoint.security_policy();
        if secured != SecurityPolicy::None {
            let uri = UAString::from(secured.to_uri());
            policies.push(policy(user_pass_security_policy_id(endpoint), UserTokenType::UserName, uri.clone()));
            policies.push(policy(CERTIFICATE.into(), UserTokenType::Certificate, uri));
        }
        policies
    }

    fn effective_user_access_level(&self, token: &UserToken, level: AccessLevel, node: &NodeId) -> AccessLevel {
        let mut effective = AccessLevel::empty();
        if self.rights.may(token, Action::Read, node) {
            effective |= level & READ;
        }
        if !(level - READ).is_empty() && self.rights.may(token, Action::Write, node) {
            effective |= level - READ;
        }
        effective
    }

    fn is_user_executable(&self, token: &UserToken, method: &NodeId) -> bool {
        self.rights.may(token, Action::Call, method)
    }

    /// The diagnostics say who is connected, from where.
    fn core_permissions(&self, token: &UserToken) -> CoreServerPermissions {
        CoreServerPermissions { read_diagnostics: self.rights.may_see_sessions(token) }
    }
}
