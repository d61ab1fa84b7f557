//! What waits to be written: bounded in number and bytes. While the disk takes nothing the oldest go, and are counted.

use super::record::Record;
use crate::model::{TagName, Value};
use std::collections::VecDeque;

/// Some seconds of a fast plant, or hours of a slow one.
const MOST: usize = 65_536;
const MOST_BYTES: usize = 8 << 20;
/// One value; larger ones are pictures or programs, and no history.
const MOST_OF_ONE: usize = 256 << 10;
/// From here on they are written at once.
const MUCH: usize = MOST / 4;

#[derive(Default)]
pub(super) struct Pending {
    samples: VecDeque<(TagName, Record)>,
    bytes: usize,
    pub(super) lost: u64,
}

impl Pending {
    pub(super) fn push(&mut self, tag: TagName, record: Record) {
        let weight = weight(&record.value);
        if weight > MOST_OF_ONE {
            self.lost += 1;
            return;
        }
        self.bytes += weight;
        self.samples.push_back((tag, record));
        self.shed();
    }

    /// All of it.
    pub(super) fn take(&mut self) -> VecDeque<(TagName, Record)> {
        self.bytes = 0;
        std::mem::take(&mut self.samples)
    }

    /// What could not be written, in front of what came since.
    pub(super) fn put_back(&mut self, mut samples: VecDeque<(TagName, Record)>) {
        self.bytes += samples.iter().map(|(_, record)| weight(&record.value)).sum::<usize>();
        samples.append(&mut self.samples);
        self.samples = samples;
        self.shed();
    }

    pub(super) fn is_much(&self) -> bool {
        self.samples.len() >= MUCH || self.bytes >= MOST_BYTES / 4
    }

    fn shed(&mut self) {
        while self.samples.len() > MOST || self.bytes > MOST_BYTES {
            let Some((_, record)) = self.samples.pop_front() else { return };
            self.bytes -= weight(&record.value);
            self.lost += 1;
        }
    }
}

/// Bytes, about.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(Some(v)) | Value::XmlElement(Some(v)) => v.len() + 16,
        Value::ByteString(Some(v)) => v.len() + 16,
        Value::LocalizedText(v) => 32 + v.text.as_ref().map_or(0, |text| text.len()),
        Value::Structure(v) => match &v.body {
            crate::model::Body::None => 32,
            crate::model::Body::Binary(bytes) => bytes.len() + 32,
            crate::model::Body::Xml(text) => text.len() + 32,
        },
        Value::Array(v) => v.values().iter().map(weight).sum::<usize>() + 32,
        Value::Variant(v) => weight(v) + 16,
        Value::DataValue(v) => v.value.as_ref().map_or(0, weight) + 64,
        _ => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Status, Timestamp};

    fn record(value: Value) -> Record {
        Record { value, status: Status::GOOD, source_time: None, server_time: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let (mut pending, tag) = (Pending::default(), TagName::new("a").unwrap());
        for number in 0..MOST as u32 + 5 {
            pending.push(tag.clone(), record(Value::UInt32(number)));
        }
        assert_eq!((pending.lost, pending.samples.len()), (5, MOST));
        let taken = pending.take();
        pending.push(tag.clone(), record(Value::Empty));
        pending.put_back(taken);
        assert_eq!((pending.lost, pending.samples[0].1.value.clone()), (6, Value::UInt32(6)));

        pending.push(tag.clone(), record(Value::bytes(vec![0; MOST_OF_ONE])));
        assert_eq!(pending.lost, 7, "too large");
        for _ in 0..100 {
            pending.push(tag.clone(), record(Value::bytes(vec![0; MOST_OF_ONE - 16])));
        }
        assert!(pending.bytes <= MOST_BYTES && pending.samples.len() <= 32);
        pending.take();
        assert_eq!(pending.bytes, 0);
    }
}
