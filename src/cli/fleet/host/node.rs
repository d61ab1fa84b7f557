//! One edge node with its devices, as its messages tell.
//!
//!     Heard ──birth──► Born ──gap in seq──► Missed ──birth──► Born
//!       any ──death of this session──► Dead ──birth──► Born; ──data──► Heard
//!
//! seq is that of the node: births, data and deaths of its devices count, too (Sparkplug 3.0, 6.4.3). A death belongs to
//! the birth with the same bdSeq; an older one comes from a connection that the broker gave up late, and says nothing. One
//! that is one ahead is of a connection whose birth was missed, so the node is gone all the same.

use super::metric::{Held, QualityCode};
use super::metrics::{Metrics, Misfits, Store};
use super::summary::{Summary, summary};
use super::topic::Kind;
use crate::model::{Timestamp, Value};
use crate::mqtt::sparkplug::proto::Payload;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A node with more devices is not believed.
const DEVICES: usize = 10_000;

/// After a birth of the node come those of its devices.
const BIRTHS: Duration = Duration::from_secs(10);

/// Each source of ours has a `State` below it: running or lost.
const SOURCES: &str = "Properties/Sources/";

pub struct Node {
    pub group: Arc<str>,
    pub name: Arc<str>,
    pub life: Life,
    /// The node's own.
    pub metrics: Metrics,
    pub devices: BTreeMap<Arc<str>, Device>,
    /// The last message of any kind.
    pub heard: Timestamp,
    pub born: Option<Timestamp>,
    /// Messages that were missed, by the gaps in seq.
    pub missed: u64,
    /// Messages and metrics that make no sense.
    pub faulty: u64,
    /// When devices that were dead before the last birth are no more, unless they come again.
    forget: Option<Timestamp>,
    bd_seq: Option<u64>,
    /// Of the last message.
    seq: Option<u64>,
    summary: Option<Summary>,
}

pub struct Device {
    pub life: Life,
    pub metrics: Metrics,
    pub heard: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It speaks, but its birth was before this host came.
    Heard,
    Born,
    /// Messages are missing since its birth: some values may be older than they look. Of a device: its node was born
    /// anew, and the device not yet.
    Missed,
    Dead,
}

/// In a word; in the order of what needs looking at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is there, and something of it is not well: a device that is lost, a value that is bad.
    Alarm,
    Dead,
    /// Not all that is shown of it is known to be so.
    Stale,
    Online,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Dead => "dead",
            Self::Stale => "stale",
            Self::Online => "online",
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Taken,
    /// Only a rebirth tells what is missing.
    NeedsBirth,
    /// A death of a connection before this one.
    OldDeath,
}

impl Node {
    pub fn new(group: Arc<str>, name: Arc<str>, now: Timestamp) -> Self {
        Self {
            group,
            name,
            life: Life::Heard,
            metrics: Metrics::default(),
            devices: BTreeMap::new(),
            heard: now,
            born: None,
            missed: 0,
            faulty: 0,
            forget: None,
            bd_seq: None,
            seq: None,
            summary: None,
        }
    }

    pub fn key(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// What a payload of the node (or of a device of it) says.
    pub fn take(
        &mut self,
        kind: Kind,
        device: Option<&str>,
        payload: Payload,
        store: &mut Store,
        now: Timestamp,
    ) -> Outcome {
        self.summary = None;
        if kind == Kind::Death && device.is_none() {
            return self.died(&payload, now);
        }
        self.forget(store, now);
        self.heard = now;
        if kind == Kind::Birth && device.is_none() {
            self.was_born(payload, store, now);
            return Outcome::Taken;
        }
        if self.life == Life::Dead {
            // It came back, and its birth was not heard.
            self.life = Life::Heard;
            self.seq = None;
        }
        self.follow(payload.seq);
        let misfits = match device {
            None => self.metrics.data(payload.metrics, payload.timestamp, store),
            Some(device) => self.device(device, kind, payload, store, now),
        };
        self.faulty += misfits.faulty;
        if misfits.unknown && self.life == Life::Born {
            self.life = Life::Missed;
        }
        if self.life == Life::Born { Outcome::Taken } else { Outcome::NeedsBirth }
    }

    fn was_born(&mut self, payload: Payload, store: &mut Store, now: Timestamp) {
        (self.life, self.born, self.seq) = (Life::Born, Some(now), payload.seq);
        let misfits = self.metrics.birth(payload.metrics, payload.timestamp, store);
        self.faulty += misfits.faulty;
        self.bd_seq = self.metrics.get("bdSeq").and_then(|metric| whole(&metric.held));
        self.forget = Some(now.saturating_add(BIRTHS));
        // Those that do not come again are no more; for those that were said to be lost there is time yet.
        self.devices.retain(|_, device| match device.life {
            Life::Missed | Life::Heard => {
                device.metrics.clear(store);
                false
            }
            Life::Born => {
                device.life = Life::Missed;
                true
            }
            Life::Dead => true,
        });
    }

    /// Lets go of devices that were dead before the last birth and did not come with it: they were taken away.
    pub fn forget(&mut self, store: &mut Store, now: Timestamp) {
        let Some(born) = self.born.filter(|_| self.forget.is_some_and(|at| now >= at)) else { return };
        self.forget = None;
        self.summary = None;
        self.devices.retain(|_, device| {
            let is_gone = device.life == Life::Dead && device.heard < born;
            if is_gone {
                device.metrics.clear(store);
            }
            !is_gone
        });
    }

    fn died(&mut self, payload: &Payload, now: Timestamp) -> Outcome {
        let told = payload.metrics.iter().find(|metric| metric.name() == "bdSeq").and_then(|metric| {
            let mut metric = metric.clone();
            let kind = super::metric::kind(&metric).unwrap_or(super::metric::likely_kind(metric.value.as_ref()));
            whole(&super::metric::held(&mut metric, kind, 0))
        });
        match (told, self.bd_seq) {
            // That of the next connection is one whose birth was missed; or pysparkplug, which counts before its goodbye.
            (Some(told), Some(own)) if told != own && told != own.wrapping_add(1) % 256 => return Outcome::OldDeath,
            // Some nodes leave it out of one or the other: then any death is theirs.
            _ => {}
        }
        (self.life, self.heard, self.seq) = (Life::Dead, now, None);
        Outcome::Taken
    }

    fn device(&mut self, name: &str, kind: Kind, payload: Payload, store: &mut Store, now: Timestamp) -> Misfits {
        if !self.devices.contains_key(name) {
            if self.devices.len() >= DEVICES {
                return Misfits { faulty: 1, unknown: false };
            }
            let device = Device { life: Life::Heard, metrics: Metrics::default(), heard: now };
            self.devices.insert(store.name(name), device);
        }
        let device = self.devices.get_mut(name).expect("it was put in above");
        device.heard = now;
        match kind {
            Kind::Birth => {
                device.life = Life::Born;
                device.metrics.birth(payload.metrics, payload.timestamp, store)
            }
            Kind::Data => {
                // Before its birth it may say nothing (Sparkplug 3.0, 6.4.20), so that was missed.
                let unknown = device.life != Life::Born;
                if device.life == Life::Dead {
                    device.life = Life::Heard;
                }
                let misfits = device.metrics.data(payload.metrics, payload.timestamp, store);
                Misfits { unknown: unknown || misfits.unknown, ..misfits }
            }
            Kind::Death => {
                device.life = Life::Dead;
                Misfits::default()
            }
        }
    }

    /// Counts what is missing between the last message and this one.
    fn follow(&mut self, seq: Option<u64>) {
        if let (Some(last), Some(seq)) = (self.seq, seq) {
            let missing = seq.wrapping_sub(last).wrapping_sub(1) % 256;
            if missing > 0 {
                self.missed += missing;
                if self.life == Life::Born {
                    self.life = Life::Missed;
                }
            }
        }
        self.seq = seq;
    }

    /// Its messages could not be heard for a while.
    pub fn miss(&mut self) {
        self.summary = None;
        self.seq = None;
        if self.life == Life::Born {
            self.life = Life::Missed;
        }
    }

    pub fn summary(&mut self) -> &Summary {
        if self.summary.is_none() {
            self.summary = Some(summary(self));
        }
        self.summary.as_ref().expect("it was made above")
    }

    pub fn state(&mut self) -> State {
        let is_well = self.summary().is_well();
        match self.life {
            Life::Dead => State::Dead,
            Life::Heard | Life::Missed => State::Stale,
            Life::Born if is_well => State::Online,
            Life::Born => State::Alarm,
        }
    }

    /// Devices that are said to be dead, and sources that ours says are lost: one that was lost before the first birth was
    /// never born, and does not die.
    pub fn lost(&self) -> BTreeSet<&str> {
        let dead = self.devices.iter().filter(|(_, device)| device.life == Life::Dead).map(|(name, _)| &**name);
        let lost = self.metrics.below(SOURCES).filter(|metric| metric.as_text() == Some("lost"));
        let sources = lost.filter_map(|metric| metric.name.strip_prefix(SOURCES)?.strip_suffix("/State"));
        dead.chain(sources).collect()
    }

    /// A metric of the node (`None`) or of a device by name.
    pub fn each(&self) -> impl Iterator<Item = (Option<&Arc<str>>, &super::metric::Metric)> {
        let own = self.metrics.list().iter().map(|metric| (None, metric));
        let of_devices = self
            .devices
            .iter()
            .flat_map(|(name, device)| device.metrics.list().iter().map(move |metric| (Some(name), metric)));
        own.chain(of_devices)
    }

    /// What the value of a metric is worth now: what is dead or missed says nothing of now.
    pub fn quality(&self, device: Option<&str>, told: QualityCode) -> QualityCode {
        let of_device = device.and_then(|device| self.devices.get(device)).map_or(Life::Born, |device| device.life);
        match (self.life, of_device) {
            (Life::Dead, _) | (_, Life::Dead | Life::Missed) if told == QualityCode::Good => QualityCode::Stale,
            _ => told,
        }
    }

    pub fn left_out(&self) -> u64 {
        self.metrics.left_out + self.devices.values().map(|device| device.metrics.left_out).sum::<u64>()
    }
}

/// bdSeq is an Int64 by the standard, and whatever there is elsewhere.
fn whole(held: &Held) -> Option<u64> {
    match held {
        Held::Value(Value::UInt64(v)) => Some(*v),
        Held::Value(Value::Int64(v)) => u64::try_from(*v).ok(),
        Held::Value(value) => value.as_f64().filter(|v| *v >= 0.0).map(|v| v as u64),
        _ => None,
    }
}
