//! The uplink's task: brokers in turn, for ever.
//!
//!     wait ──► CONNECT to the next broker, with a will ──► talk (talk.rs) ──► lost, or left ──► wait ...
//!                                                            └── stop ──► goodbye
//!
//! Each CONNECT has a will and a bdSeq of its own, so it is a new client each time. Several brokers are tried one after the
//! other without a wait; the wait comes after each of them was tried, and before a connection that had worked is made anew,
//! so that a fleet that loses its broker does not come back all at once.

use super::Setup;
use super::commands::{Commands, Snapshot, TakePicture};
use super::config::{Config, Format};
use super::dialect::Dialect;
use super::forward::Forward;
use super::images::{self, Outbox, Sizes, Way};
use super::json::Json;
use super::sparkplug::{BdSeq, Session};
use super::talk::{Stage, Talk, Why};
use crate::base::{Backoff, Selection, Stop};
use crate::hub::Hub;
use crate::model::{ConditionKind, EventKind};
use crate::mqtt::line::{Client, ClientError, Connect, Dial, Message};
use crate::mqtt::{BrokerUrl, Protocol};
use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// The goodbye and DISCONNECT together, on the way out.
const FAREWELL: Duration = Duration::from_secs(2);

/// Waits are up to so long, spread over all of it: a site that gets its power back, or a fleet that loses its broker, comes
/// back evenly (docs/fleet.md has what that does).
const FIRST: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(60);

/// After leaving a broker on purpose there is no crowd.
const NEXT: Duration = Duration::from_secs(1);

/// A connection that lasts so long was a good one: the next wait is short again.
const STEADY: Duration = Duration::from_secs(60);

/// What a message has beside its picture, at most.
const AROUND: usize = 4096;

/// What events and conditions of the uplink are about.
const SOURCE: &str = "mqtt";

/// Connects for ever. Returns when asked to stop, and not before.
pub(super) async fn run(setup: &Setup, hub: &Hub, stop: &Stop, pictures: &Outbox, dial: impl Dial) {
    hub.declare_condition(ConditionKind::UplinkDown, SOURCE);
    Uplink::new(setup, hub, stop, pictures).await.connect_for_ever(dial).await;
    hub.withdraw_condition(ConditionKind::UplinkDown, SOURCE);
}

struct Uplink<'a> {
    setup: &'a Setup,
    hub: &'a Hub,
    stop: &'a Stop,
    pictures: &'a Outbox,
    sizes: Sizes,
    client_id: String,
    dialect: Box<dyn Dialect>,
    commands: Commands,
    tags: Selection,
    bd_seq: Option<BdSeq>,
    /// It has been said that the broker is lost.
    is_lost: bool,
    /// Why there was no connection when that was said last.
    cause: Option<String>,
}

impl<'a> Uplink<'a> {
    async fn new(setup: &'a Setup, hub: &'a Hub, stop: &'a Stop, pictures: &'a Outbox) -> Self {
        let config = &setup.config;
        let node = setup.node();
        let dialect: Box<dyn Dialect> = match config.format {
            Format::Sparkplug => Box::new(Session::new(config, &node)),
            Format::Json => Box::new(Json::new(config, &node)),
        };
        Self {
            client_id: format!("{}-{node}", config.group),
            commands: Commands::new(
                config.commands.0,
                setup.base(),
                hub.clone(),
                Arc::new(Eye(hub.clone(), setup.base())),
            ),
            pictures,
            sizes: Sizes::default(),
            dialect,
            tags: Selection::new(&config.tags),
            bd_seq: Some(open_bd_seq(&setup.data_dir).await),
            is_lost: false,
            cause: None,
            setup,
            hub,
            stop,
        }
    }

    async fn connect_for_ever(&mut self, mut dial: impl Dial) {
        let brokers: Vec<BrokerUrl> = self.setup.config.brokers().into_iter().cloned().collect();
        let mut backoff = Backoff::spread(FIRST, SLOWEST);
        let mut tried = 0;
        let mut wait = backoff.wait();
        for broker in brokers.iter().cycle() {
            if !self.stop.sleep(wait).await {
                return;
            }
            let mut connected = None;
            let outcome = self.connect(broker, &mut dial, &mut connected).await;
            if connected.is_some_and(|since: Instant| since.elapsed() >= STEADY) {
                backoff.reset();
            }
            tried += 1;
            let is_round_over = connected.is_some() || tried >= brokers.len();
            wait = match outcome {
                Ok(Why::Stopped) => return,
                Ok(Why::Left(reason)) => {
                    info!(%broker, %reason, "Left the MQTT broker.");
                    self.lost(broker, &reason);
                    // A round without a birth is no way to find the primary host fast.
                    if connected.is_none() && is_round_over { backoff.wait() } else { NEXT }
                }
                Err(error) => {
                    self.complain(broker, &error, connected.is_some());
                    if is_round_over { backoff.wait() } else { Duration::ZERO }
                }
            };
            if is_round_over {
                tried = 0;
            }
        }
    }

    /// One connection. `connected` becomes the moment of the first birth.
    async fn connect(
        &mut self,
        broker: &BrokerUrl,
        dial: &mut impl Dial,
        connected: &mut Option<Instant>,
    ) -> Result<Why, ClientError> {
        let number = next_bd_seq(&mut self.bd_seq).await;
        self.dialect.dialing(broker);
        let will = self.dialect.connecting(number, self.hub.now());
        let connect = Connect { access: self.setup.config.access(broker), client_id: self.client_id.clone(), will };
        let mut client = tokio::select! {
            biased;
            () = self.stop.stopped() => return Ok(Why::Stopped),
            client = dial.dial(connect) => client?,
        };
        let config = &self.setup.config;
        let forward = Forward::new(config.is_unacknowledged().then(|| config.window()), config.backlog_rate);
        let mut reached = |stage| match stage {
            Stage::Born => {
                *connected = Some(Instant::now());
                self.setup.status.connected(broker);
                self.hub.set_condition(ConditionKind::UplinkDown, SOURCE, None);
                info!(%broker, "Connected to the MQTT broker.");
                self.cause = None;
                if std::mem::take(&mut self.is_lost) {
                    self.hub.raise(EventKind::UplinkBack, SOURCE, format!("Connected to {broker} again"));
                }
            }
            Stage::Waiting(why) => {
                let host = self.setup.config.primary_host.as_ref().map(ToString::to_string);
                warn!(%broker, host, "The broker is there, but {why}: nothing is sent until it says that it is online.");
                lost(self.setup, self.hub, &mut self.is_lost, broker, why);
            }
        };
        let way = Way::new(self.pictures, self.sizes.limit(broker));
        let mut talk =
            Talk::new(self.setup, self.hub, &self.tags, &mut *self.dialect, &mut self.commands, way, forward);
        let outcome = tokio::select! {
            biased;
            () = self.stop.stopped() => Ok(Why::Stopped),
            outcome = talk.hold(&mut client, &mut reached) => outcome,
        };
        let last = match &outcome {
            Ok(why) => talk.last_words(why),
            Err(_) => Vec::new(),
        };
        let picture = talk.largest_picture();
        drop(talk);
        if outcome.is_err()
            && let (Some(picture), Some(bytes)) = (picture, client.ended_on())
            && (picture.bytes..picture.bytes + AROUND).contains(&bytes)
            && self.sizes.strike(broker, &picture)
        {
            self.pictures.refuse(picture.id);
            let bytes = picture.bytes;
            warn!(%broker, bytes, "The broker ends the connection on pictures of this size, so they are dropped for an hour; \
                   give [[mqtt.image]] a smaller max_bytes.");
        }
        let why = outcome?;
        farewell(client, last, &self.setup.config).await;
        Ok(why)
    }

    /// Says in the log, once for each cause, why there is no connection.
    fn complain(&mut self, broker: &BrokerUrl, error: &ClientError, was_connected: bool) {
        let cause = error.to_string();
        if self.cause.as_ref() == Some(&cause) {
            return;
        }
        self.lost(broker, &cause);
        match was_connected {
            true => warn!(%error, "Lost the MQTT broker; trying again until it is back."),
            false => warn!(%error, "Cannot reach the MQTT broker; trying again until it answers."),
        }
        self.cause = Some(cause);
    }

    fn lost(&mut self, broker: &BrokerUrl, cause: &str) {
        lost(self.setup, self.hub, &mut self.is_lost, broker, cause);
    }
}

/// Says to the sinks that there is no connection, and why.
fn lost(setup: &Setup, hub: &Hub, is_lost: &mut bool, broker: &BrokerUrl, cause: &str) {
    let message = format!("No connection to {broker}: {cause}");
    setup.status.lost(broker, cause);
    hub.set_condition(ConditionKind::UplinkDown, SOURCE, Some(&message));
    if !std::mem::replace(is_lost, true) {
        hub.raise(EventKind::UplinkLost, SOURCE, message);
    }
}

/// What is left to say, then DISCONNECT. Sparkplug wants the will as well (6.4.25); in JSON it would replace a better goodbye.
/// Where nothing is left to say, the will is the goodbye, which on MQTT 3.1.1 only a line that ends without a DISCONNECT brings.
async fn farewell(mut client: impl Client, last: Vec<Message>, config: &Config) {
    if last.is_empty() && config.protocol == Protocol::V311 {
        return;
    }
    let is_with_will = last.is_empty() || config.format == Format::Sparkplug;
    let exchange = async {
        client.publish(last).await?;
        if is_with_will { client.disconnect_with_will().await } else { client.disconnect().await }
    };
    match tokio::time::timeout(FAREWELL, exchange).await {
        Ok(Ok(())) => info!("Said goodbye to the MQTT broker."),
        Ok(Err(error)) => warn!(%error, "Lost the MQTT broker while saying goodbye; it will send the will."),
        Err(_) => warn!("The MQTT broker did not take the goodbye in time; it will send the will."),
    }
}

/// Takes pictures for commands.
struct Eye(Hub, String);

#[async_trait]
impl TakePicture for Eye {
    async fn take(&self, camera: &str, max_bytes: Option<u64>) -> Result<Snapshot, String> {
        let snap = images::take(&self.0, camera, max_bytes).await.map_err(|quality| quality.to_string())?;
        Ok(Snapshot { message: snap.message(&self.1), captured: snap.captured })
    }
}

async fn open_bd_seq(data_dir: &Path) -> BdSeq {
    let data_dir = data_dir.to_owned();
    tokio::task::spawn_blocking(move || BdSeq::open(&data_dir)).await.expect("reading a number does not panic")
}

async fn next_bd_seq(bd_seq: &mut Option<BdSeq>) -> u8 {
    let mut held = bd_seq.take().expect("given back below");
    let next = move || {
        let number = held.next();
        (held, number)
    };
    let (held, number) = tokio::task::spawn_blocking(next).await.expect("writing a number does not panic");
    *bd_seq = Some(held);
    number
}

#[cfg(test)]
mod tests;
