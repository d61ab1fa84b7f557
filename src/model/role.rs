//! What somebody may do.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks: browses, reads, monitors, takes snapshots.
    Viewer,
    /// Runs the plant: writes tags, restarts a camera, acknowledges.
    Operator,
    /// Runs the device: reloads its configuration, sees who is connected.
    Admin,
}

#[derive(Debug, thiserror::Error)]
#[error("viewer, operator and admin are roles")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    /// As it is written.
    fn from_str(text: &str) -> Result<Self, NoRole> {
        [Role::Viewer, Role::Operator, Role::Admin].into_iter().find(|role| role.to_string() == text).ok_or(NoRole)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        })
    }
}
