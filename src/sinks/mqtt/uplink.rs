//! The uplink's task: brokers in turn, for ever.
//!
//!     wait ──► CONNECT to the next broker, with a will ──► talk (talk.rs) ──► lost, or left ──► wait ...
//!                                                            └── stop ──► goodbye
//!
//! Each CONNECT has a will and a bdSeq of its own, so it is a new client each time. Several brokers are tried one after the
//! other without a wait; the wait comes after each of them was tried, and before a connection that had worked is made anew,
//! so that a fleet that loses its broker does not come back all at once.

use super::Setup;
use super::commands::Commands;
use super::dialect::Dialect;
use super::forward::Forward;
use super::json::Json;
use super::sparkplug::{BdSeq, Session};
use super::status::Status;
use super::talk::{Talk, Why};
use super::config::Format;
use crate::base::{Backoff, Selection, Stop};
use crate::hub::Hub;
use crate::model::{ConditionKind, EventKind};
use crate::mqtt::line::{Client, ClientError, Connect, Dial};
use crate::mqtt::sparkplug::SparkplugId;
use crate::mqtt::BrokerUrl;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// The goodbye and DISCONNECT together, on the way out.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection that lasts so long was a good one: the next wait is short again.
const STEADY: Duration = Duration::from_secs(60);

/// What events and conditions of the uplink are about.
const SOURCE: &str = "mqtt";

/// Connects for ever. Returns when asked to stop, and not before.
pub(super) async fn run(setup: &Setup, hub: &Hub, stop: &Stop, dial: impl Dial) {
    hub.declare_condition(ConditionKind::UplinkDown, SOURCE);
    Uplink::new(setup, hub, stop).await.connect_for_ever(dial).await;
    hub.withdraw_condition(ConditionKind::UplinkDown, SOURCE);
}

struct Uplink<'a> {
    setup: &'a Setup,
    hub: &'a Hub,
    stop: &'a Stop,
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

/// How a connection ended.
enum End {
    Stopped,
    Left(String),
}

impl<'a> Uplink<'a> {
    async fn new(setup: &'a Setup, hub: &'a Hub, stop: &'a Stop) -> Self {
        let config = &setup.config;
        let node = config.node.clone().unwrap_or_else(|| SparkplugId::nearest(&setup.device_name));
        let dialect: Box<dyn Dialect> = match config.format {
            Format::Sparkplug => Box::new(Session::new(config, &node)),
            Format::Json => Box::new(Json::new(config, &node)),
        };
        Self {
            client_id: format!("{}-{node}", config.group),
            commands: Commands::new(setup, &node, hub),
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
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut tried = 0;
        for broker in brokers.iter().cycle() {
            let mut connected = None;
            let outcome = self.connect(broker, &mut dial, &mut connected).await;
            match outcome {
                Ok(End::Stopped) => return,
                Ok(End::Left(reason)) => {
                    info!(%broker, %reason, "Left the MQTT broker.");
                    self.lost(broker, &reason);
                }
                Err(error) => self.complain(broker, &error, connected.is_some()),
            }
            if connected.is_some_and(|since: Instant| since.elapsed() >= STEADY) {
                backoff.reset();
            }
            tried += 1;
            if connected.is_some() || tried >= brokers.len() {
                tried = 0;
                if !self.stop.sleep(backoff.wait()).await {
                    return;
                }
            }
        }
    }

    /// One connection. `connected` becomes the moment of the first birth.
    async fn connect(
        &mut self,
        broker: &BrokerUrl,
        dial: &mut impl Dial,
        connected: &mut Option<Instant>,
    ) -> Result<End, ClientError> {
        let number = next_bd_seq(&mut self.bd_seq).await;
        let will = self.dialect.connecting(number, self.hub.now());
        let connect = Connect { access: self.setup.config.access(broker), client_id: self.client_id.clone(), will };
        let mut client = tokio::select! {
            biased;
            () = self.stop.stopped() => return Ok(End::Stopped),
            client = dial.dial(connect) => client?,
        };
        let window = match self.setup.config.format {
            // Nothing acknowledges QoS 0; a loss is noticed so late.
            Format::Sparkplug => Some(self.setup.config.keep_alive.mul_f64(1.5)),
            Format::Json if self.setup.config.json.qos == 0 => Some(self.setup.config.keep_alive.mul_f64(1.5)),
            Format::Json => None,
        };
        let forward = Forward::new(window, self.setup.config.backlog_rate);
        let mut born = |hub: &Hub, status: &Status| {
            *connected = Some(Instant::now());
            status.connected(broker);
            hub.set_condition(ConditionKind::UplinkDown, SOURCE, None);
            info!(%broker, "Connected to the MQTT broker.");
        };
        let mut talk = Talk::new(
            self.setup,
            self.hub,
            &self.tags,
            &mut *self.dialect,
            &mut self.commands,
            forward,
        );
        let outcome = tokio::select! {
            biased;
            () = self.stop.stopped() => Ok(Why::Stopped),
            outcome = talk.hold(&mut client, &mut born) => outcome,
        };
        let last = match &outcome {
            Ok(_) => talk.last_words(),
            Err(_) => Vec::new(),
        };
        drop(talk);
        if connected.is_some() {
            self.cause = None;
            if std::mem::take(&mut self.is_lost) {
                self.hub.raise(EventKind::UplinkBack, SOURCE, format!("Connected to {broker} again"));
            }
        }
        match outcome? {
            Why::Stopped => {
                farewell(client, last).await;
                Ok(End::Stopped)
            }
            Why::Left(reason) => {
                farewell(client, last).await;
                Ok(End::Left(reason))
            }
        }
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

    /// Says to the sinks that there is no connection, and why.
    fn lost(&mut self, broker: &BrokerUrl, cause: &str) {
        let message = format!("No connection to {broker}: {cause}");
        self.setup.status.lost(&message);
        self.hub.set_condition(ConditionKind::UplinkDown, SOURCE, Some(&message));
        if !std::mem::replace(&mut self.is_lost, true) {
            self.hub.raise(EventKind::UplinkLost, SOURCE, message);
        }
    }
}
