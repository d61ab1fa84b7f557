//! The uplink: this device at an MQTT broker, as a Sparkplug B 3.0 edge node or in plain JSON.
//!
//!     hub ── every sample ──► store ──► feed: live, and what is owed ──► dialect ──► line ──► broker
//!      ▲                      (disk)                                      ▲   │
//!      ├── write ◄──────────────────────────────── what hosts ask for ────┘   └── Sparkplug, or JSON
//!      ├──────────────────── commands ◄── requests as JSON, answers
//!      └── cameras ──► images ──► outbox (disk) ──► pictures
//!
//! In reading order: [`config`] what a person may say, `dialect` what is said, as state machines (`sparkplug`, `json`), `uplink`
//! brokers in turn, `talk` one connection, `feed` and `forward` what goes when and when it may be forgotten, `commands` and
//! `writes` what others ask for, `images` pictures, `status` how it all is, as tags. The line itself is
//! [`crate::mqtt::line`].

pub mod config;

mod dialect;
mod json;
mod sparkplug;

mod feed;
mod forward;
mod talk;
mod uplink;

mod commands;
mod writes;

mod images;
mod status;
mod value;

pub use config::Config;
pub use status::{Status, StatusError};

use crate::base::Stop;
use crate::hub::Hub;
use crate::mqtt::line::{Dial, Rumqtt};
use crate::mqtt::sparkplug::SparkplugId;
use crate::store::Store;
use images::{Outbox, Taker};
use std::path::PathBuf;
use std::sync::Arc;

/// What the uplink needs to know.
pub struct Setup {
    pub config: Config,
    /// Names the edge node if the configuration does not.
    pub device_name: String,
    /// Where the program keeps what must survive a restart; the uplink uses the folder `mqtt` in it.
    pub data_dir: PathBuf,
    /// Where each sample is before it is sent. Without it what is taken while there is no broker is not sent.
    pub store: Option<Store>,
    pub status: Status,
}

impl Setup {
    fn node(&self) -> SparkplugId {
        self.config.node.clone().unwrap_or_else(|| SparkplugId::nearest(&self.device_name))
    }

    /// The first levels of topics that are ours and not Sparkplug's: commands, answers, pictures.
    fn base(&self) -> String {
        format!("vedette/{}/{}", self.config.group, self.node())
    }
}

/// Keeps the uplink running. Returns when asked to stop, after a goodbye to the broker of two seconds at most.
pub async fn run(setup: Arc<Setup>, hub: Hub, stop: Stop) {
    run_over(setup, hub, stop, Rumqtt::default()).await;
}

/// The same over another line, as one that counts what goes over it.
pub async fn run_over(setup: Arc<Setup>, hub: Hub, stop: Stop, dial: impl Dial) {
    let outbox = Outbox::open(images::folder(&setup.data_dir), setup.config.image_bytes).await;
    let taker = Taker::new(setup.config.image.clone(), hub.clone(), outbox.clone());
    let beside = async {
        tokio::select! {
            () = outbox.tend() => {}
            () = setup.status.keep_telling(setup.store.as_ref(), &outbox) => {}
            () = stop.stopped() => {}
        }
    };
    tokio::join!(uplink::run(&setup, &hub, &stop, &outbox, dial), taker.run(&stop), beside);
    outbox.settle().await;
}
