//! What any daemon needs, and nothing that only this one needs.
//!
//! - [`clock`]: what time it is; simulated in tests.
//! - [`backoff`]: how long to wait before trying again.
//! - [`configuration`]: a configuration file, and saying by line what is wrong with it.
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
pub mod configuration;
pub mod duration;
pub mod files;
pub mod interfaces;
pub mod logs;
pub mod net;
pub mod selection;
#[cfg(target_os = "linux")]
mod systemd;
pub mod tasks;

pub use backoff::Backoff;
pub use clock::Clock;
pub use selection::Selection;
#[cfg(target_os = "linux")]
pub use systemd::{keep_watchdog_quiet, notify_ready, notify_reloading, notify_stopping};
pub use tasks::{Spawner, Stop, Tasks};
