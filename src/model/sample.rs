//! One value of one tag at one time.

use super::{Quality, TagName, Timestamp, Value};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// By tags' numbers: looked at for each sample, several times.
pub type TagMap<T> = HashMap<TagId, T, RandomState>;
/// By tags' names.
pub type NameMap<T> = HashMap<TagName, T, RandomState>;

/// A tag's place in the hub's table. Given out by the hub, in order, never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagId(pub u32);

impl TagId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What flows from a source through the hub to every sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub tag: TagId,
    /// Kept also when the quality is bad, if the source still knows a value; else [`Value::Empty`].
    pub value: Value,
    pub quality: Quality,
    /// When the value was so, by the clock of whoever measured it. `None` if nobody said.
    pub source_time: Option<Timestamp>,
    /// When this device took it in, by this device's clock.
    pub server_time: Timestamp,
}

impl Sample {
    /// A good value, measured here and now.
    pub fn good(tag: TagId, value: Value, now: Timestamp) -> Self {
        Self { tag, value, quality: Quality::GOOD, source_time: Some(now), server_time: now }
    }

    /// No value, and why.
    pub fn bad(tag: TagId, quality: Quality, now: Timestamp) -> Self {
        Self { tag, value: Value::Empty, quality, source_time: Some(now), server_time: now }
    }
}
