//! Logins and rights, as the UA crate asks for them.
//!
//! - Anonymous is offered if the configuration gives it a role; user names and certificates on every endpoint that is
//!   secured. On SecurityPolicy None they are not: a password would cross the network in clear (OPC 10000-4, 7.40.4), and
//!   a session that anybody can take over is nobody's.
//! - The policies name the endpoint's own SecurityPolicy. An empty one would do by the standard, but the crate refuses
//!   certificates then, and it would itself name Basic128Rsa15 for them.
//! - Who is refused is told the same whether the name exists or not. Each refusal is an event; the log gets a line at
//!   most every [`QUIET`].

use super::{Access, Action};
use crate::hub::Hub;
use crate::model::{EventKind, Role};
use crate::users::Refused;
use ::opcua::crypto::{SecurityPolicy, Thumbprint};
use ::opcua::server::ServerEndpoint;
use ::opcua::server::address_space::AccessLevel;
use ::opcua::server::authenticator::{
    AuthManager, CoreServerPermissions, Password, UserToken, user_pass_security_policy_id,
};
use ::opcua::types::{Error, NodeId, StatusCode, UAString, UserTokenPolicy, UserTokenType};
use async_trait::async_trait;
use std::sync::{Mutex, PoisonError};
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

pub(in crate::sinks::ua_server) struct Authenticator {
    access: Access,
    hub: Hub,
    /// When the last line was written, and how many have not been since.
    said: Mutex<(Option<Instant>, u64)>,
}

impl Authenticator {
    pub(in crate::sinks::ua_server) fn new(access: Access, hub: Hub) -> Self {
        Self { access, hub, said: Mutex::default() }
    }

    /// Says that somebody was refused, and makes the answer.
    fn refuse(&self, who: &str, status: StatusCode, why: &dyn std::fmt::Display) -> Error {
        let who: String = who.chars().take(NAME).flat_map(char::escape_debug).collect();
        self.hub.raise(EventKind::LoginRefused, "ua_server", format!("Login of \"{who}\" refused: {why}."));
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
impl AuthManager for Authenticator {
    async fn authenticate_anonymous_token(&self, _: &ServerEndpoint) -> Result<(), Error> {
        match self.access.0.anonymous {
            Some(_) => Ok(()),
            None => Err(self.refuse(ANONYMOUS, StatusCode::BadIdentityTokenRejected, &"a user is needed")),
        }
    }

    async fn authenticate_username_identity_token(
        &self,
        _: &ServerEndpoint,
        name: &str,
        password: &Password,
    ) -> Result<UserToken, Error> {
        match self.access.users().log_in(name, password.get()).await {
            Ok(token) => Ok(UserToken(token.0)),
            Err(Refused::Busy) => Err(self.refuse(name, StatusCode::BadServerTooBusy, &Refused::Busy)),
            Err(why) => Err(self.refuse(name, StatusCode::BadUserAccessDenied, &why)),
        }
    }

    async fn authenticate_x509_identity_token(
        &self,
        _: &ServerEndpoint,
        thumbprint: &Thumbprint,
    ) -> Result<UserToken, Error> {
        let thumbprint = thumbprint.as_hex_string();
        match self.access.users().log_in_with_certificate(&thumbprint, self.hub.now()) {
            Ok(token) => Ok(UserToken(token.0)),
            // The token is what it says, its owner has signed for it; it is only nobody's here (OPC 10000-4, 5.7.3).
            Err(why) => Err(self.refuse(&thumbprint, StatusCode::BadIdentityTokenRejected, &why)),
        }
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
        if self.access.0.anonymous.is_some() {
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
        let Some(role) = self.access.role(token) else { return AccessLevel::empty() };
        let may = |action| self.access.role_may(role, action, node);
        let mut effective = AccessLevel::empty();
        if may(Action::Read) {
            effective |= level & READ;
        }
        if !(level - READ).is_empty() && may(Action::Write) {
            effective |= level - READ;
        }
        effective
    }

    fn is_user_executable(&self, token: &UserToken, method: &NodeId) -> bool {
        self.access.may(token, Action::Call, method)
    }

    /// The diagnostics say who is connected, from where.
    fn core_permissions(&self, token: &UserToken) -> CoreServerPermissions {
        CoreServerPermissions { read_diagnostics: self.access.role(token) == Some(Role::Admin) }
    }
}
