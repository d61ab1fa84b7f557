//! The JSON that is said: one value, many values, whether this device is there.

use crate::model::{Sample, Status, TagName, TagSpec, Timestamp};
use crate::opcua::json::{self, json};
use crate::store::Record;
use serde::Serialize;
use serde_json::Value as Json;

/// A value of a tag at a time.
#[derive(Serialize)]
pub(super) struct Said<'a> {
    /// Where the topic does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<&'a str>,
    time: String,
    /// Null if the quality is bad: what it was last is no value now.
    value: Json,
    quality: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    unit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Older than others that were said before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    historical: bool,
}

impl<'a> Said<'a> {
    pub(super) fn sample(spec: &'a TagSpec, sample: &'a Sample, historical: bool) -> Self {
        let quality = &sample.quality;
        Self {
            tag: None,
            time: json::time(sample.source_time.unwrap_or(sample.server_time)),
            value: if quality.is_bad() { Json::Null } else { json(&sample.value) },
            quality: name(quality.status),
            unit: &spec.unit,
            reason: quality.reason.as_deref(),
            historical,
        }
    }

    /// Of the store, which keeps no reasons; of a tag that is gone there is no unit.
    pub(super) fn record(spec: Option<&'a TagSpec>, record: &Record) -> Self {
        Self {
            tag: None,
            time: json::time(record.source_time.unwrap_or(record.server_time)),
            value: if record.status.is_bad() { Json::Null } else { json(&record.value) },
            quality: name(record.status),
            unit: spec.map_or("", |spec| &spec.unit),
            reason: None,
            historical: true,
        }
    }

    pub(super) fn tagged(mut self, name: &'a TagName) -> Self {
        self.tag = Some(name.as_str());
        self
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can be written as JSON")
    }
}

/// Without what its info bits say: a name to compare with.
fn name(status: Status) -> String {
    json::status(Status(status.0 & 0xFFFF_0000))
}

/// `{"time":..,"values":[..]}`, of as many messages as it takes to keep each below `limit` bytes.
pub(super) fn batches(values: impl Iterator<Item = Vec<u8>>, now: Timestamp, limit: usize) -> Vec<Vec<u8>> {
    let begin = || format!("{{\"time\":\"{}\",\"values\":[", json::time(now)).into_bytes();
    let (mut batches, mut batch, empty) = (Vec::new(), begin(), begin().len());
    for value in values {
        if batch.len() + value.len() + 3 > limit && batch.len() > empty {
            batch.extend_from_slice(b"]}");
            batches.push(std::mem::replace(&mut batch, begin()));
        }
        if batch.len() > empty {
            batch.push(b',');
        }
        batch.extend_from_slice(&value);
    }
    if batch.len() > empty {
        batch.extend_from_slice(b"]}");
        batches.push(batch);
    }
    batches
}

#[derive(Serialize)]
pub(super) struct State {
    state: &'static str,
    /// Not in the will, which is written long before it is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
}

impl State {
    pub(super) fn online(now: Timestamp) -> Vec<u8> {
        Self { state: "online", time: Some(json::time(now)), version: Some(env!("CARGO_PKG_VERSION")) }.payload()
    }

    pub(super) fn offline(now: Option<Timestamp>) -> Vec<u8> {
        Self { state: "offline", time: now.map(json::time), version: None }.payload()
    }

    fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts can be written as JSON")
    }
}
