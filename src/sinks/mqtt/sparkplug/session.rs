//! The edge node's session: birth, data, commands, rebirth and death as a state machine without I/O.
//!
//!     Offline ──connecting: will──► Connecting ──birth──► Born ──birth (seq = 0 again)──► Born
//!        ▲                              │                  │
//!        └──────────── lost ────────────┴── lost / death ──┘
//!
//! Invariants: no DATA before BIRTH, and none for a tag that the last BIRTH did not have. seq is 0 in NBIRTH and one
//! more, modulo 256, in each message after it; NDEATH has none. bdSeq is that of the will and changes only with a new
//! CONNECT. Within one NDATA the metrics stand in the order of their times.
//!
//! A birth shows each tag as it is now. What was taken in before and not yet sent is older than that, so it follows
//! the birth marked `is_historical`: nothing is lost, and no host shows an old value as the newest.
//!
//! Absent on purpose: sockets, disk, the clock, aliases. The one place that knows the wire is the MQTT client.

use super::metric::{self, QualityCode};
use crate::model::{DataType, Sample, Status, TagId, TagName, TagSpec, Timestamp, Value};
use crate::mqtt::line::{Message, QoS};
use crate::mqtt::sparkplug::SparkplugId;
use crate::mqtt::sparkplug::codec::{self, DecodeError};
use crate::mqtt::sparkplug::proto::payload::{Metric, metric as wire};
use crate::mqtt::sparkplug::proto::{DataType as Type, Payload};
use crate::sinks::mqtt::same;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;

const BD_SEQ: &str = "bdSeq";
const REBIRTH: &str = "Node Control/Rebirth";

/// An NDATA is ended when it has become this large: many brokers refuse more than 128 KiB or 256 KiB.
const PAYLOAD: usize = 96 * 1024;

/// The names under `spBv1.0`.
#[derive(Clone, Debug)]
pub(in crate::sinks::mqtt) struct Topics {
    group: String,
    node: String,
}

impl Topics {
    pub(in crate::sinks::mqtt) fn new(group: &SparkplugId, node: &SparkplugId) -> Self {
        Self { group: group.to_string(), node: node.to_string() }
    }

    /// NCMD: what hosts say to this node.
    pub(in crate::sinks::mqtt) fn command(&self) -> String {
        self.of("NCMD")
    }

    fn of(&self, kind: &str) -> String {
        format!("spBv1.0/{}/{kind}/{}", self.group, self.node)
    }
}

pub(in crate::sinks::mqtt) struct Session {
    topics: Topics,
    state: State,
    bd_seq: u8,
    /// Of the next message.
    seq: u8,
    /// Those of the last birth.
    tags: HashMap<TagId, Tag>,
    names: HashMap<TagName, TagId>,
    /// Not yet sent, in the order of arrival.
    pending: Vec<Pending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Offline,
    Connecting,
    Born,
}

struct Tag {
    spec: Arc<TagSpec>,
    /// What was last sent or is about to be.
    last: (Value, Status),
    /// What was last told about the quality.
    told: QualityCode,
}

struct Pending {
    sample: Sample,
    historical: bool,
}

/// What an NCMD asks for.
#[derive(Debug, Default, PartialEq)]
pub(in crate::sinks::mqtt) struct Command {
    pub(in crate::sinks::mqtt) rebirth: bool,
    pub(in crate::sinks::mqtt) writes: Vec<(TagId, Value)>,
    /// Metrics that no tag answers to.
    pub(in crate::sinks::mqtt) unknown: Vec<String>,
    pub(in crate::sinks::mqtt) faults: Vec<Fault>,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(in crate::sinks::mqtt) enum Fault {
    #[error("{metric}: {error}")]
    Value { metric: String, error: DecodeError },
    #[error("{metric} is read-only")]
    ReadOnly { metric: String },
}

impl Session {
    pub(in crate::sinks::mqtt) fn new(topics: Topics) -> Self {
        Self {
            topics,
            state: State::Offline,
            bd_seq: 0,
            seq: 0,
            tags: HashMap::new(),
            names: HashMap::new(),
            pending: Vec::new(),
        }
    }

    /// A CONNECT is about to be made: its will. What was not sent on the last connection is dropped; the birth will
    /// show how things are.
    pub(in crate::sinks::mqtt) fn connecting(&mut self, bd_seq: u8, now: Timestamp) -> Message {
        self.lost();
        self.state = State::Connecting;
        self.bd_seq = bd_seq;
        self.ndeath(now)
    }

    /// NBIRTH, first or again. `current` are the newest samples of `specs`, in their order, which is that
    /// of the ids; `queued` is what waits to be taken in, some of it perhaps older than `current`. Call only between [`Session::connecting`] and
    /// [`Session::lost`].
    pub(in crate::sinks::mqtt) fn birth(
        &mut self,
        specs: Vec<(TagId, Arc<TagSpec>)>,
        current: &[Sample],
        queued: &[Sample],
        now: Timestamp,
    ) -> Message {
        debug_assert_ne!(self.state, State::Offline, "a birth needs a connection");
        // The hub delivers what it stores, in that order: whatever precedes the current sample is older than the birth.
        let is_current = |sample: &Sample| {
            let at = current.binary_search_by_key(&sample.tag, |now| now.tag);
            at.is_ok_and(|at| same::sample(&current[at], sample))
        };
        let mut born_with = HashMap::new();
        for (at, sample) in queued.iter().enumerate().filter(|(_, sample)| is_current(sample)) {
            born_with.insert(sample.tag, at);
        }
        let is_old = |at: usize, sample: &Sample| born_with.get(&sample.tag).is_some_and(|&born| at <= born);
        for (_, sample) in queued.iter().enumerate().filter(|(at, sample)| is_old(*at, sample)) {
            self.take(sample);
        }
        self.pending.retain(|pending| !is_current(&pending.sample));
        self.pending.iter_mut().for_each(|pending| pending.historical = true);

        let mut metrics = Vec::with_capacity(specs.len() + 2);
        metrics.push(self.bd_seq_metric(now));
        metrics.push(metric::of_node(REBIRTH, Type::Boolean, wire::Value::BooleanValue(false), now));
        let before = std::mem::take(&mut self.tags);
        self.names.clear();
        // A host cannot be told of a metric whose type is to come; when it has, there is another birth.
        let typed = |((_, spec), _): &((TagId, Arc<TagSpec>), &Sample)| spec.data_type != DataType::Variant;
        for ((id, spec), sample) in specs.into_iter().zip(current).filter(typed) {
            let told = before.get(&id).map_or(QualityCode::Good, |tag| tag.told);
            let (metric, told) = metric::of_sample(&spec, sample, told, true);
            if !is_reserved(spec.name.as_str()) {
                metrics.push(metric);
                self.names.insert(spec.name.clone(), id);
            }
            self.tags.insert(id, Tag { spec, last: (sample.value.clone(), sample.quality.status), told });
        }
        // Of tags that are gone, and of those whose values were of another type, nothing more is to be said.
        let fits =
            |Tag { spec, .. }: &Tag, value: &Value| value.data_type().is_none_or(|found| found == spec.data_type);
        let tags = &self.tags;
        self.pending.retain(|Pending { sample, .. }| tags.get(&sample.tag).is_some_and(|tag| fits(tag, &sample.value)));
        self.state = State::Born;
        self.seq = 0;
        let birth = self.message("NBIRTH", metrics, now);
        for (_, sample) in queued.iter().enumerate().filter(|(at, sample)| !is_old(*at, sample)) {
            self.take(sample);
        }
        birth
    }

    /// Takes in what changed; before the birth nothing is, because the birth will show it.
    pub(in crate::sinks::mqtt) fn samples(&mut self, batch: &[Sample]) {
        batch.iter().for_each(|sample| self.take(sample));
    }

    /// NDATA with all that was taken in since the last time; several if one would be too large.
    pub(in crate::sinks::mqtt) fn data(&mut self, now: Timestamp) -> Vec<Message> {
        if self.state != State::Born {
            return Vec::new();
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by_key(|pending| (!pending.historical, metric::time_of(&pending.sample)));
        let mut messages = Vec::new();
        let (mut metrics, mut size) = (Vec::new(), 0);
        for Pending { sample, historical } in pending {
            let Some(tag) = self.tags.get_mut(&sample.tag) else { continue };
            let (mut metric, told) = metric::of_sample(&tag.spec, &sample, tag.told, false);
            if historical {
                metric.is_historical = Some(true);
            } else {
                tag.told = told;
            }
            let length = metric.encoded_len();
            if size + length > PAYLOAD && !metrics.is_empty() {
                messages.push(self.message("NDATA", std::mem::take(&mut metrics), now));
                size = 0;
            }
            size += length;
            metrics.push(metric);
        }
        if !metrics.is_empty() {
            messages.push(self.message("NDATA", metrics, now));
        }
        messages
    }

    /// Reads an NCMD. Its time is not looked at: not every host sends one.
    pub(in crate::sinks::mqtt) fn command(&self, payload: &[u8]) -> Result<Command, prost::DecodeError> {
        let mut command = Command::default();
        for metric in Payload::decode(payload)?.metrics {
            // Births give no aliases, so an alias can only be somebody else's.
            let name = metric.name.clone().unwrap_or_else(|| format!("alias {}", metric.alias()));
            let known = self.names.get(name.as_str()).map(|&tag| (tag, &self.tags[&tag].spec));
            match known {
                _ if name == REBIRTH => match codec::decode(&metric, DataType::Boolean, false) {
                    Ok(asked) => command.rebirth |= asked == Value::Boolean(true),
                    Err(error) => command.faults.push(Fault::Value { metric: name, error }),
                },
                None => command.unknown.push(name),
                Some((_, spec)) if !spec.writable => command.faults.push(Fault::ReadOnly { metric: name }),
                Some((tag, spec)) => match codec::decode(&metric, spec.data_type, spec.is_array) {
                    Ok(value) => command.writes.push((tag, value)),
                    Err(error) => command.faults.push(Fault::Value { metric: name, error }),
                },
            }
        }
        Ok(command)
    }

    /// NDEATH for a leave on purpose, to be published before the DISCONNECT.
    pub(in crate::sinks::mqtt) fn death(&mut self, now: Timestamp) -> Message {
        self.lost();
        self.ndeath(now)
    }

    /// The connection is gone.
    pub(in crate::sinks::mqtt) fn lost(&mut self) {
        self.state = State::Offline;
        self.pending.clear();
    }

    fn take(&mut self, sample: &Sample) {
        if self.state != State::Born {
            return;
        }
        // A tag that is newer than the birth: the next birth is on its way.
        let Some(tag) = self.tags.get_mut(&sample.tag) else { return };
        if is_reserved(tag.spec.name.as_str())
            || (tag.last.1 == sample.quality.status && same::value(&tag.last.0, &sample.value))
        {
            return;
        }
        tag.last = (sample.value.clone(), sample.quality.status);
        self.pending.push(Pending { sample: sample.clone(), historical: false });
    }

    fn message(&mut self, kind: &str, metrics: Vec<Metric>, now: Timestamp) -> Message {
        let payload =
            Payload { timestamp: Some(metric::millis(now)), metrics, seq: Some(self.seq.into()), ..Payload::default() };
        self.seq = self.seq.wrapping_add(1);
        Message { topic: self.topics.of(kind), payload: payload.encode_to_vec().into(), ..Message::default() }
    }

    /// Without a seq (Sparkplug 3.0, 6.4.25), because the broker may send it at any time.
    fn ndeath(&self, now: Timestamp) -> Message {
        let timestamp = Some(metric::millis(now));
        let payload = Payload { timestamp, metrics: vec![self.bd_seq_metric(now)], ..Payload::default() };
        Message {
            topic: self.topics.of("NDEATH"),
            payload: payload.encode_to_vec().into(),
            qos: QoS::AtLeastOnce,
            ..Message::default()
        }
    }

    fn bd_seq_metric(&self, now: Timestamp) -> Metric {
        metric::of_node(BD_SEQ, Type::Int64, wire::Value::LongValue(self.bd_seq.into()), now)
    }
}

/// Names that Sparkplug itself uses in a birth. A tag so called stays out of the uplink.
pub(in crate::sinks::mqtt) fn is_reserved(name: &str) -> bool {
    name == BD_SEQ || name == REBIRTH
}

#[cfg(test)]
mod tests;
