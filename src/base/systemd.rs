//! What systemd is told of the service.

use sd_notify::NotifyState;
use std::convert::Infallible;

/// Tells systemd that the service is up, if systemd started it (`Type=notify`); else does nothing.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells systemd that the service takes in its configuration (`Type=notify-reload`); it is done with [`notify_ready`].
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
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
        notify(&[NotifyState::Watchdog]);
    }
}

/// Tells systemd that the service is about to stop.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "Could not notify systemd.");
    }
}
