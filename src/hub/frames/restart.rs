//! Closing a camera's device and opening it anew, because a person asks for it.
//!
//!     Camera::restart ──► restarts ──► capture thread: closes, restarted() ──► a picture, or why there is none
//!
//! A device that hangs inside its driver keeps its thread, and no other could open it either: then the restart says so.

use super::{Camera, Port, Shot, Terms, lock};
use crate::model::{Quality, Status};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

impl Camera {
    /// Closes the device, opens it again and takes a picture, all within `timeout`. Everybody who has a lease goes on with it.
    pub async fn restart(&self, timeout: Duration) -> Shot {
        let late = |what: &str| {
            let reason = format!("camera {} {what} within {timeout:?}", self.name());
            Quality::new(Status::BAD_TIMEOUT, reason)
        };
        let (sender, closed) = oneshot::channel();
        lock(&self.0.state).restarts.push(sender);
        self.0.demand.notify_all();
        let deadline = tokio::time::Instant::now() + timeout;
        match tokio::time::timeout_at(deadline, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Quality::new(Status::BAD_NO_COMMUNICATION, "the camera's thread has ended")),
            Err(_) => return Err(late("did not let go of its device")),
        }
        let mut lease = self.lease_from(Instant::now(), Terms::default());
        tokio::time::timeout_at(deadline, lease.next()).await.unwrap_or_else(|_| Err(late("gave no frame")))
    }
}

impl Port {
    /// Somebody wants the device closed and opened anew.
    pub fn is_restart_asked(&self) -> bool {
        !lock(&self.shared.state).restarts.is_empty()
    }

    /// The device is closed; from here on it is as if nobody had used it yet.
    pub fn restarted(&self) {
        for waiting in std::mem::take(&mut lock(&self.shared.state).restarts) {
            // Whoever asked may have given up.
            let _ = waiting.send(());
        }
    }
}
