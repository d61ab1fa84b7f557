//! Who may do what with which node.
//!
//!     session ── UserToken ── role() ──► Role ──┐
//!                                               ├──► at least? ──► may()
//!     node ── NodeId ── path ── rules ──► Role ─┘
//!
//! - `rules.rs`: the role that an action on a node needs, by path.
//! - `rights.rs`: the same as the authenticator of every server (`opcua/server`) asks it.
//! - `guard.rs`: the node manager that hides what a user may not browse.
//! - `seats.rs`: whose monitored items they are.
//!
//! A role is looked up at each use, so a change of users or of the configuration takes effect at once. What somebody may
//! not browse is not there for them: every service answers as for a node that does not exist.

mod guard;
mod rights;
mod rules;
mod seats;

pub(super) use guard::Guard;
pub use rules::AccessRule;
pub(super) use rules::Rules;
pub(super) use seats::{Seat, Seats};

use crate::model::Role;
pub(super) use crate::opcua::server::authenticator::Action;
use crate::users::Users;
use ::opcua::server::authenticator::UserToken;
use ::opcua::types::{DataValue, DateTime, NodeId, StatusCode, Variant};
use serde::Deserialize;
use std::sync::Arc;

/// What somebody without a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Nobody comes in without a user.
    None,
    Viewer,
    Operator,
    Admin,
}

impl Anonymous {
    pub fn role(self) -> Option<Role> {
        match self {
            Anonymous::None => None,
            Anonymous::Viewer => Some(Role::Viewer),
            Anonymous::Operator => Some(Role::Operator),
            Anonymous::Admin => Some(Role::Admin),
        }
    }
}

/// A cheap handle.
#[derive(Clone)]
pub(super) struct Access(Arc<Inner>);

struct Inner {
    anonymous: Option<Role>,
    rules: Rules,
    users: Users,
    seats: Seats,
}

impl Access {
    pub(super) fn new(anonymous: Anonymous, rules: &[AccessRule], users: Users) -> Self {
        let (anonymous, rules, seats) = (anonymous.role(), Rules::new(rules), Seats::default());
        Self(Arc::new(Inner { anonymous, rules, users, seats }))
    }

    /// What the holder of a token is now; `None` if nothing any more.
    pub(super) fn role(&self, token: &UserToken) -> Option<Role> {
        if token.is_anonymous() { self.0.anonymous } else { self.0.users.role(&token.0) }
    }

    pub(super) fn may(&self, token: &UserToken, action: Action, node: &NodeId) -> bool {
        self.role(token).is_some_and(|role| self.role_may(role, action, node))
    }

    /// For who asks about many nodes.
    pub(super) fn role_may(&self, role: Role, action: Action, node: &NodeId) -> bool {
        role >= self.0.rules.needed(action, node)
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.0.rules
    }

    pub(super) fn users(&self) -> &Users {
        &self.0.users
    }

    pub(super) fn seats(&self) -> &Seats {
        &self.0.seats
    }
}

/// What an item gets for a value that its user may not read: it is created all the same (OPC 10000-4, 5.13.2.1).
pub(super) fn denied() -> DataValue {
    DataValue {
        value: Some(Variant::Empty),
        status: Some(StatusCode::BadUserAccessDenied),
        server_timestamp: Some(DateTime::now()),
        ..DataValue::default()
    }
}
