//! The uplink: this device as a Sparkplug B 3.0 edge node at an MQTT 5 broker.
//!
//!     hub ── every sample ──► session (what to say) ──► client (rumqttc) ──► broker
//!      ▲                          │    ▲                    │
//!      └── write ◄── NCMD ────────┘    └──── commands ──────┘
//!
//! Tags are metrics of the node, under their own names; there are no Sparkplug devices. Each connection begins with
//! NBIRTH, which shows every tag as it is; then changes follow as NDATA, collected for `publish_interval`. A sample is
//! a change if its value or its status differs from the one before.
//!
//! In reading order: [`config`] what a person may say, `sparkplug` the protocol as a state machine, `uplink` the task; the
//! line and the payload's schema are in [`crate::mqtt`].
//!
//! Absent on purpose: aliases, templates, a primary host, history over an outage (samples taken while there is no
//! broker are not sent; the birth shows the newest), and retained messages.

pub mod config;

#[allow(dead_code, reason = "until the uplink drives it")]
mod commands;
#[allow(dead_code, reason = "until the uplink drives it")]
mod dialect;
pub mod forward;
mod sparkplug;
pub mod status;

#[allow(dead_code, unused_imports, reason = "not wired yet")]
mod images;

mod loss;
mod uplink;
mod writes;

pub use config::Config;

use crate::base::Stop;
use crate::hub::Hub;
use crate::mqtt::line::{Dial, Rumqtt};
use std::path::PathBuf;
use std::sync::Arc;

/// What the uplink needs to know.
#[derive(Clone, Debug)]
pub struct Setup {
    pub config: Config,
    /// Names the edge node if the configuration does not.
    pub device_name: String,
    /// Where the program keeps what must survive a restart; the uplink uses the folder `mqtt` in it.
    pub data_dir: PathBuf,
}

/// Keeps the uplink running. Returns when asked to stop, after a goodbye to the broker of two seconds at most.
pub async fn run(setup: Arc<Setup>, hub: Hub, stop: Stop) {
    run_over(setup, hub, stop, Rumqtt::default()).await;
}

/// The same over another line, as one that counts what goes over it.
pub async fn run_over(setup: Arc<Setup>, hub: Hub, stop: Stop, dial: impl Dial) {
    uplink::run(&setup, &hub, &stop, dial).await;
}
