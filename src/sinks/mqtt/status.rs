//! Tags `mqtt/...`: how the uplink is.
//!
//! These tags are sent by the uplink itself, so each change of a count makes further ones. So counts are told every ten
//! seconds, and what people wait for, the connection and faults, at once.

use super::images::{Outbox, State};
use crate::hub::{Hub, RegisterError, Registration};
use crate::model::{DataType, Sample, TagName, TagNameError, TagSpec, Timestamp, Value};
use crate::mqtt::BrokerUrl;
use crate::store::{QueueState, Store};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often the store and the outbox are looked at.
const LOOK: Duration = Duration::from_secs(1);
const COUNTS: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// What is known, and its tags.
pub struct Status(Mutex<Inner>);

struct Inner {
    hub: Hub,
    tags: Registration,
    connection: Connection,
    queue: QueueState,
    pictures: State,
    unsaid: u64,
    last: Vec<Option<Value>>,
    counted: Option<Timestamp>,
}

/// The connection, as the uplink knows it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Connection {
    is_connected: bool,
    /// The one that is connected, or was tried last.
    broker: String,
    /// The last one since the start; empty if there was none.
    last_error: String,
    /// Since the start, with the first connection.
    connections: u64,
}

/// How many of `values` are told at once.
const AT_ONCE: usize = 5;

fn specs() -> Result<Vec<TagSpec>, TagNameError> {
    let spec = |name: &str, data_type, unit: &str, description: &str| {
        let name = TagName::new(&format!("mqtt/{name}"))?;
        Ok(TagSpec::new(name, data_type).unit(unit).described(description))
    };
    // In the order of `values`.
    Ok(vec![
        spec("Connected", DataType::Boolean, "", "There is a connection to a broker")?,
        spec("Broker", DataType::String, "", "The broker that is connected, or tried")?,
        spec("LastError", DataType::String, "", "The last fault since the start; empty if there was none")?,
        spec("Reconnects", DataType::UInt64, "", "Connections since the start, without the first")?,
        spec("PicturesError", DataType::String, "", "Why no picture can be kept on the disk; empty if they can")?,
        spec("Queue", DataType::UInt64, "", "Samples that are not known to have arrived")?,
        spec("QueueAge", DataType::UInt64, "s", "Since when the oldest of them waits")?,
        spec("Sent", DataType::UInt64, "", "Samples that have arrived, since the start")?,
        spec("Dropped", DataType::UInt64, "", "Samples removed by max_bytes or max_age before they were sent, ever")?,
        spec(
            "Lost",
            DataType::UInt64,
            "",
            "Samples that were neither sent nor written, or became unreadable, since the start",
        )?,
        spec(
            "Unsaid",
            DataType::UInt64,
            "",
            "Samples whose tags were gone or of another type when they were to be sent",
        )?,
        spec("Pictures", DataType::UInt64, "", "Pictures that have not arrived")?,
        spec("PicturesSent", DataType::UInt64, "", "Pictures that have arrived, since the start")?,
        spec("PicturesDropped", DataType::UInt64, "", "Pictures that could not be kept until they were sent, ever")?,
    ])
}

fn values(connection: &Connection, queue: &QueueState, unsaid: u64, pictures: &State, now: Timestamp) -> Vec<Value> {
    let age = queue.oldest.map_or(0, |oldest| now.ticks().saturating_sub(oldest.ticks()).max(0) / 10_000_000);
    vec![
        Value::Boolean(connection.is_connected),
        Value::string(&*connection.broker),
        Value::string(&*connection.last_error),
        Value::UInt64(connection.connections.saturating_sub(1)),
        Value::string(pictures.fault.as_deref().unwrap_or_default()),
        Value::UInt64(queue.waiting),
        Value::UInt64(age as u64),
        Value::UInt64(queue.settled),
        Value::UInt64(queue.dropped),
        Value::UInt64(queue.lost),
        Value::UInt64(unsaid),
        Value::UInt64(pictures.waiting),
        Value::UInt64(pictures.sent),
        Value::UInt64(pictures.dropped),
    ]
}

impl Status {
    pub fn register(hub: &Hub) -> Result<Self, StatusError> {
        let tags = hub.register("mqtt", specs()?)?;
        Ok(Self(Mutex::new(Inner {
            last: vec![None; tags.tags().len()],
            hub: hub.clone(),
            tags,
            connection: Connection::default(),
            queue: QueueState::default(),
            pictures: State::default(),
            unsaid: 0,
            counted: None,
        })))
    }

    pub(super) fn connected(&self, broker: &BrokerUrl) {
        let mut inner = self.inner();
        inner.connection.is_connected = true;
        inner.connection.broker = broker.to_string();
        inner.connection.connections += 1;
        inner.tell();
    }

    pub(super) fn lost(&self, broker: &BrokerUrl, reason: &str) {
        let mut inner = self.inner();
        inner.connection.is_connected = false;
        inner.connection.broker = broker.to_string();
        inner.connection.last_error = reason.to_owned();
        inner.tell();
    }

    /// So many samples were taken and could not be said.
    pub(super) fn unsaid(&self, count: u64) {
        self.inner().unsaid = count;
    }

    /// For ever.
    pub(super) async fn keep_telling(&self, store: Option<&Store>, pictures: &Outbox) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut inner = self.inner();
            inner.queue = store.map(Store::queue).unwrap_or_default();
            inner.pictures = pictures.state();
            inner.tell();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no code that holds this lock panics")
    }
}

impl Inner {
    /// Publishes what has changed.
    fn tell(&mut self) {
        let now = self.hub.now();
        // Also when the clock was set back.
        let is_recent = |at: Timestamp| at <= now && now.saturating_sub(COUNTS) < at;
        let count = if self.counted.is_some_and(is_recent) { AT_ONCE } else { self.last.len() };
        if count > AT_ONCE {
            self.counted = Some(now);
        }
        let values = values(&self.connection, &self.queue, self.unsaid, &self.pictures, now).into_iter().take(count);
        let places = self.tags.tags().iter().zip(&mut self.last).zip(values);
        let changed = places.filter_map(|((&tag, last), value)| {
            let is_new = last.as_ref() != Some(&value);
            is_new.then(|| Sample::good(tag, last.insert(value).clone(), now))
        });
        self.hub.publish(changed.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use std::time::UNIX_EPOCH;

    #[tokio::test(start_paused = true)]
    async fn the_connection_is_told_at_once_and_counts_now_and_then() {
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(1000));
        let hub = Hub::new(clock.clone());
        let status = Status::register(&hub).unwrap();
        let read = |name: &str| hub.read(hub.find(&TagName::new(&format!("mqtt/{name}")).unwrap()).unwrap()).value;
        status.inner().tell();
        assert_eq!((read("Connected"), read("Queue")), (Value::Boolean(false), Value::UInt64(0)));
        status.connected(&BrokerUrl::parse("mqtt://b").unwrap());
        {
            let mut inner = status.inner();
            inner.queue.waiting = 7;
            inner.queue.oldest = Some(Timestamp::from(clock.now()));
            inner.tell();
        }
        assert_eq!((read("Connected"), read("Broker")), (Value::Boolean(true), Value::string("mqtt://b:1883")));
        assert_eq!(read("Queue"), Value::UInt64(0));
        tokio::time::sleep(COUNTS).await;
        status.inner().tell();
        assert_eq!((read("Queue"), read("QueueAge")), (Value::UInt64(7), Value::UInt64(10)));
        let mut every = hub.every(8);
        status.inner().tell();
        assert!(every.try_next().is_none(), "nothing has changed");
    }
}
