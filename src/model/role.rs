//! What somebody may do.

use serde::{Deserialize, Serialize};
use std::fmt;

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

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        })
    }
}
