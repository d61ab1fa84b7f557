//! One connection to the broker, from CONNECT to its end, and the loop around it.
//!
//! The session decides what is said, the client says it; this file gives them time, samples and commands. It waits
//! for the broker and for nobody else: writes that commands ask for run beside it, and while there is no broker no
//! queue fills, because the hub delivers only from the birth on.

use super::Setup;
use super::loss::Loss;
use super::sparkplug::{BdSeq, Session, Topics, is_reserved};
use super::writes::Writes;
use crate::base::{Backoff, Stop};
use crate::hub::{Every, Hub};
use crate::model::{ConditionKind, EventKind, Sample, TagId};
use crate::mqtt::line::{Client, ClientError, Connect, Dial, Message, Received};
use crate::mqtt::sparkplug::SparkplugId;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

/// Batches between the hub and this task: some ten seconds of a hundred sources at ten batches a second, for the
/// time in which a publish waits for a slow line. When full the hub drops batches and counts them.
const BATCHES: usize = 8192;

/// New tags come in bursts, and hosts ask for rebirths in chorus; one birth answers all of them.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// NDEATH and DISCONNECT together, on the way out.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection that lasts so long was a good one: the next wait is short again.
const STEADY: Duration = Duration::from_secs(60);

/// What events and conditions of the uplink are about.
const SOURCE: &str = "mqtt";

/// Connects for ever. Returns when asked to stop, and not before.
pub(super) async fn run(setup: &Setup, hub: &Hub, stop: &Stop, mut dial: impl Dial) {
    let node = setup.config.node.clone().unwrap_or_else(|| SparkplugId::nearest(&setup.device_name));
    let topics = Topics::new(&setup.config.group, &node);
    let client_id = format!("{}-{node}", setup.config.group);
    let mut uplink = Uplink {
        setup,
        hub,
        stop,
        command_topic: topics.command(),
        client_id,
        session: Session::new(topics),
        connected: None,
        is_lost: false,
        warned: 0,
    };
    hub.declare_condition(ConditionKind::UplinkDown, SOURCE);
    let mut bd_seq = Some(open_bd_seq(&setup.data_dir).await);
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut last_cause = None;
    while !stop.is_stopped() {
        uplink.connected = None;
        let outcome = uplink.run_once(&mut dial, &mut bd_seq).await;
        uplink.session.lost();
        let Err(error) = outcome else { break };
        if let Some(since) = uplink.connected {
            // Whatever it was before, the cause is a new one now.
            last_cause = None;
            if since.elapsed() >= STEADY {
                backoff.reset();
            }
        }
        let cause = error.to_string();
        if last_cause.as_ref() != Some(&cause) {
            uplink.lost(&cause);
            match uplink.connected {
                Some(_) => warn!(%error, "Lost the MQTT broker; trying again until it is back."),
                None => warn!(%error, "Cannot reach the MQTT broker; trying again until it answers."),
            }
        }
        last_cause = Some(cause);
        stop.sleep(backoff.wait()).await;
    }
    hub.withdraw_condition(ConditionKind::UplinkDown, SOURCE);
}

struct Uplink<'a> {
    setup: &'a Setup,
    hub: &'a Hub,
    stop: &'a Stop,
    command_topic: String,
    client_id: String,
    session: Session,
    /// Since when, if this connection came to its birth.
    connected: Option<Instant>,
    /// It has been said that the broker is lost.
    is_lost: bool,
    /// How many tags were looked through for names that Sparkplug reserves.
    warned: usize,
}

impl Uplink<'_> {
    /// `Ok`: asked to stop, and said goodbye if there was a connection.
    async fn run_once(&mut self, dial: &mut impl Dial, bd_seq: &mut Option<BdSeq>) -> Result<(), ClientError> {
        let number = next_bd_seq(bd_seq).await;
        let will = self.session.connecting(number, self.hub.now());
        let connect = Connect {
            access: self.setup.config.access(self.setup.config.brokers()[0]),
            client_id: self.client_id.clone(),
            will: Some(will),
        };
        let opened = async {
            let mut client = dial.dial(connect).await?;
            // Before the birth, so that a host that answers it is heard.
            client.subscribe(vec![self.command_topic.clone()]).await?;
            Ok(client)
        };
        let mut client = tokio::select! {
            biased;
            () = self.stop.stopped() => return Ok(()),
            client = opened => client?,
        };
        let outcome = tokio::select! {
            biased;
            () = self.stop.stopped() => None,
            outcome = self.converse(&mut client) => Some(outcome),
        };
        match outcome {
            None => self.farewell(client).await,
            Some(error) => return Err(error),
        }
        Ok(())
    }

    /// Says that there is no connection, and why; once until there is one again.
    fn lost(&mut self, cause: &str) {
        let message = format!("No connection to {}: {cause}", self.setup.config.brokers()[0]);
        self.hub.set_condition(ConditionKind::UplinkDown, SOURCE, Some(&message));
        if !std::mem::replace(&mut self.is_lost, true) {
            self.hub.raise(EventKind::UplinkLost, SOURCE, message);
        }
    }

    /// Says that there is one again. The first one is no event.
    fn back(&mut self) {
        self.hub.set_condition(ConditionKind::UplinkDown, SOURCE, None);
        if std::mem::take(&mut self.is_lost) {
            let message = format!("Connected to {} again", self.setup.config.brokers()[0]);
            self.hub.raise(EventKind::UplinkBack, SOURCE, message);
        }
    }

    /// From the birth to the end of the connection. May be dropped at any await: the client is left usable, at worst
    /// with its last message on the way.
    async fn converse(&mut self, client: &mut impl Client) -> ClientError {
        match self.exchange(client).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn exchange(&mut self, client: &mut impl Client) -> Result<std::convert::Infallible, ClientError> {
        let hub = self.hub.clone();
        let mut structure = hub.structure();
        let mut every = hub.every(BATCHES);
        let mut loss = Loss::default();
        let mut writes = Writes::default();
        let mut tick = tokio::time::interval(self.setup.config.publish_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

        let birth = self.birth(&mut every);
        client.publish(vec![birth]).await?;
        self.connected = Some(Instant::now());
        self.back();
        info!(broker = %self.setup.config.brokers()[0], "Connected to the MQTT broker.");
        let mut born = Instant::now();
        let mut birth_due: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                received = client.next() => {
                    if self.command(&received?, &mut writes) {
                        let earliest = Instant::now().max(born + DEBOUNCE);
                        birth_due = Some(birth_due.map_or(earliest, |due| due.min(earliest)));
                    }
                }
                () = tokio::time::sleep_until(birth_due.unwrap_or(born)), if birth_due.is_some() => {
                    structure.mark_unchanged();
                    let birth = self.birth(&mut every);
                    client.publish(vec![birth]).await?;
                    (born, birth_due) = (Instant::now(), None);
                }
                changed = structure.changed() => {
                    changed.expect("this task holds the hub");
                    birth_due.get_or_insert(Instant::now() + DEBOUNCE);
                }
                (tag, outcome) = writes.next() => {
                    if let Err(quality) = outcome {
                        warn!(metric = %hub.spec(tag).name, reason = %quality, "A command was refused.");
                    }
                }
                _ = tick.tick() => {
                    loss.look(every.lost());
                    // Between the request for a rebirth and the birth no data may go out (Sparkplug 3.0, 5.17).
                    if birth_due.is_none() {
                        client.publish(self.session.data(hub.now())).await?;
                    }
                }
                batch = every.next() => {
                    self.session.samples(&batch.expect("this task holds the hub"));
                }
            }
        }
    }

    /// Everything as it is now.
    fn birth(&mut self, every: &mut Every) -> Message {
        // Read first, then empty the queue: so the queue's rest holds all that came after what was read, and the
        // session sorts out what came before.
        while let Some(batch) = every.try_next() {
            self.session.samples(&batch);
        }
        let specs = self.hub.tags();
        let tags: Vec<TagId> = specs.iter().map(|(tag, _)| *tag).collect();
        let current = self.hub.read_many(&tags);
        let mut queued: Vec<Sample> = Vec::new();
        while let Some(batch) = every.try_next() {
            queued.extend_from_slice(&batch);
        }
        for (_, spec) in specs.iter().skip(self.warned).filter(|(_, spec)| is_reserved(spec.name.as_str())) {
            warn!(tag = %spec.name, "Sparkplug uses this name itself, so the tag is not sent to the MQTT broker.");
        }
        self.warned = self.warned.max(specs.len());
        self.session.birth(specs, &current, &queued, self.hub.now())
    }

    /// `true` if it asks for a rebirth.
    fn command(&self, received: &Received, writes: &mut Writes) -> bool {
        if received.topic != self.command_topic {
            return false;
        }
        let command = match self.session.command(&received.payload) {
            Ok(command) => command,
            Err(error) => {
                warn!(topic = received.topic, %error, "Ignored a command that is no Sparkplug payload.");
                return false;
            }
        };
        if let Some(first) = command.unknown.first() {
            warn!(metric = first, metrics = command.unknown.len(), "Ignored a command for what is no tag here.");
        }
        for fault in &command.faults {
            warn!(%fault, "Ignored a command that its tag cannot take.");
        }
        for (tag, value) in command.writes {
            let name = self.hub.spec(tag).name.clone();
            debug!(metric = %name, "Writing for a command.");
            if !writes.push(self.hub.clone(), tag, value) {
                warn!(metric = %name, "Ignored a command: too many of them wait for their sources.");
            }
        }
        command.rebirth
    }

    /// NDEATH, then DISCONNECT (Sparkplug 3.0, 5.5). What was collected and not yet sent goes before them.
    async fn farewell(&mut self, mut client: impl Client) {
        let now = self.hub.now();
        let mut last = self.session.data(now);
        last.push(self.session.death(now));
        let exchange = async {
            client.publish(last).await?;
            client.disconnect_with_will().await
        };
        match tokio::time::timeout(FAREWELL, exchange).await {
            Ok(Ok(())) => info!("Said goodbye to the MQTT broker."),
            Ok(Err(error)) => warn!(%error, "Lost the MQTT broker while saying goodbye; it will send the will."),
            Err(_) => warn!("The MQTT broker did not take the goodbye in time; it will send the will."),
        }
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
