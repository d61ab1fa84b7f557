//! [`Access`] as the authenticator asks it.

use super::{Access, Action};
use crate::model::{Role, Timestamp};
use crate::opcua::server::authenticator::{Refused, Rights};
use crate::users;
use ::opcua::server::authenticator::UserToken;
use ::opcua::types::{NodeId, StatusCode};
use async_trait::async_trait;

#[async_trait]
impl Rights for Access {
    fn is_open(&self) -> bool {
        self.0.anonymous.is_some()
    }

    async fn log_in(&self, name: &str, password: &str) -> Result<UserToken, Refused> {
        let token = self.users().log_in(name, password).await.map_err(|why| {
            let is_busy = why == users::Refused::Busy;
            let status = if is_busy { StatusCode::BadServerTooBusy } else { StatusCode::BadUserAccessDenied };
            Refused { status, why: Box::new(why) }
        })?;
        Ok(UserToken(token.0))
    }

    fn log_in_with_certificate(&self, thumbprint: &str, now: Timestamp) -> Result<UserToken, Refused> {
        // The token is what it says, its owner has signed for it; it is only nobody's here (OPC 10000-4, 5.7.3).
        let status = StatusCode::BadIdentityTokenRejected;
        let token = self.users().log_in_with_certificate(thumbprint, now);
        token.map(|token| UserToken(token.0)).map_err(|why| Refused { status, why: Box::new(why) })
    }

    fn may(&self, token: &UserToken, action: Action, node: &NodeId) -> bool {
        Access::may(self, token, action, node)
    }

    fn may_see_sessions(&self, token: &UserToken) -> bool {
        self.role(token) == Some(Role::Admin)
    }
}
