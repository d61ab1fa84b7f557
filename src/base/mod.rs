//! What any daemon needs, and nothing that only this one needs.
//!
//! - [`clock`]: what time it is; simulated in tests.
//! - [`backoff`]: how long to wait before trying again.
//! - [`duration`], [`bytes`]: reading durations and sizes from a configuration.
//! - [`files`]: writing a file whole or not at all.
//! - [`tasks`]: named tasks and threads that are restarted when they fail and stopped in order.
//! - [`interfaces`]: the addresses of this machine.
//! - [`logs`]: sentences on stderr, for a terminal or for journald.
//! - [`net`]: binding a port, and saying who has it when it is taken.
//! - [`selection`]: names that are chosen by patterns.

pub mod backoff;
pub mod bytes;
pub mod clock;
pub mod duration;
pub mod files;
pub mod interfaces;
pub mod logs;
pub mod net;
pub mod selection;
pub mod tasks;

pub use backoff::Backoff;
pub use clock::Clock;
pub use selection::Selection;
use std::convert::Infallible;
pub use tasks::{Spawner, Stop, Tasks};

/// Tells systemd that the service is up, if systemd started it (`Type=notify`); else does nothing.
pub fn notify_ready() {
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Tells systemd that the service takes in its configuration (`Type=notify-reload`); it is done with [`notify_ready`].
pub fn notify_reloading() {
    match sd_notify::NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[sd_notify::NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "Could not notify systemd."),
    }
}

/// Tells systemd's watchdog, if the service has one (`WatchdogSec=`), that whoever polls this still runs. Never ends.
pub async fn keep_watchdog_quiet() -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    // sd_watchdog_enabled(3) recommends half of the time.
    let mut ticks = tokio::time::interval(limit / 2);
    loop {
        ticks.tick().await;
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

/// Tells systemd that the service is about to stop.
pub fn notify_stopping() {
    notify(&[sd_notify::NotifyState::Stopping]);
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "Could not notify systemd.");
    }
}
