//! Tags `mqtt/...`: how the uplink is.
//!
//! These tags are sent by the uplink itself, so each change of a count makes further ones. So counts are told every ten
//! seconds, and what people wait for, the connection and faults, at once.

use super::images;
use crate::hub::{Hub, RegisterError, Registration};
use crate::model::{DataType, Sample, TagName, TagNameError, TagSpec, Timestamp, Value};
use crate::store::QueueState;
use std::time::Duration;

const COUNTS: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// The connection, as the uplink knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    pub is_connected: bool,
    /// The one that is connected, or tried.
    pub broker: String,
    /// The last one since the start; empty if there was none.
    pub last_error: String,
    /// Since the start, without the first connection.
    pub reconnects: u64,
}

pub struct Status {
    hub: Hub,
    tags: Registration,
    last: Vec<Option<Value>>,
    counted: Option<Timestamp>,
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
        spec("Pictures", DataType::UInt64, "", "Pictures that are not known to have arrived")?,
        spec("PicturesSent", DataType::UInt64, "", "Pictures that have arrived, since the start")?,
        spec("PicturesDropped", DataType::UInt64, "", "Pictures removed by image_bytes, or unreadable, ever")?,
    ])
}

fn values(connection: &Connection, queue: &QueueState, pictures: &images::State, now: Timestamp) -> Vec<Value> {
    let age = queue.oldest.map_or(0, |oldest| now.ticks().saturating_sub(oldest.ticks()).max(0) / 10_000_000);
    vec![
        Value::Boolean(connection.is_connected),
        Value::string(&*connection.broker),
        Value::string(&*connection.last_error),
        Value::UInt64(connection.reconnects),
        Value::string(pictures.fault.as_deref().unwrap_or_default()),
        Value::UInt64(queue.waiting),
        Value::UInt64(age as u64),
        Value::UInt64(queue.settled),
        Value::UInt64(queue.dropped),
        Value::UInt64(queue.lost),
        Value::UInt64(pictures.waiting),
        Value::UInt64(pictures.sent),
        Value::UInt64(pictures.dropped),
    ]
}

impl Status {
    pub fn register(hub: &Hub) -> Result<Self, StatusError> {
        let tags = hub.register("mqtt", specs()?)?;
        Ok(Self { last: vec![None; tags.tags().len()], hub: hub.clone(), tags, counted: None })
    }

    /// Publishes what has changed. To be called when the connection changes, and regularly.
    pub fn tell(&mut self, connection: &Connection, queue: &QueueState, pictures: &images::State) {
        let now = self.hub.now();
        // Also when the clock was set back.
        let is_recent = |at: Timestamp| at <= now && now.saturating_sub(COUNTS) < at;
        let count = if self.counted.is_some_and(is_recent) { AT_ONCE } else { self.last.len() };
        if count > AT_ONCE {
            self.counted = Some(now);
        }
        let values = values(connection, queue, pictures, now).into_iter().take(count);
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
        let mut status = Status::register(&hub).unwrap();
        let read = |name: &str| hub.read(hub.find(&TagName::new(&format!("mqtt/{name}")).unwrap()).unwrap()).value;
        let (mut connection, mut queue) = (Connection::default(), QueueState::default());
        let mut pictures = images::State::default();
        status.tell(&connection, &queue, &pictures);
        assert_eq!((read("Connected"), read("Queue")), (Value::Boolean(false), Value::UInt64(0)));
        (connection.is_connected, connection.broker) = (true, "mqtt://b".into());
        pictures.fault = Some("full".into());
        (queue.waiting, pictures.dropped) = (7, 3);
        queue.oldest = Some(Timestamp::from(clock.now()));
        status.tell(&connection, &queue, &pictures);
        assert_eq!((read("Connected"), read("Broker")), (Value::Boolean(true), Value::string("mqtt://b")));
        assert_eq!((read("Queue"), read("PicturesError")), (Value::UInt64(0), Value::string("full")));
        tokio::time::sleep(COUNTS).await;
        status.tell(&connection, &queue, &pictures);
        assert_eq!((read("Queue"), read("QueueAge")), (Value::UInt64(7), Value::UInt64(10)));
        assert_eq!(read("PicturesDropped"), Value::UInt64(3));
        let mut every = hub.every(8);
        status.tell(&connection, &queue, &pictures);
        assert!(every.try_next().is_none(), "nothing has changed");
    }
}
