//! What waits to be written: bounded in number and bytes. While the disk takes nothing the oldest go, and are counted.

use super::Arrival;
use super::ranges::Ranges;
use super::tail::Live;
use crate::model::{Sample, TagName, Value};
use std::collections::VecDeque;

/// Some seconds of a fast plant, or hours of a slow one.
const MOST: usize = 65_536;
const MOST_BYTES: usize = 8 << 20;
/// One value; larger ones are pictures or programs, and no history.
const MOST_OF_ONE: usize = 256 << 10;

/// Owed rows of this process are numbered from here on. Those that are found on disk get numbers below: they may be found
/// late, when a disk comes back after there were new ones.
pub(super) const NUMBERED_FROM: u64 = 1 << 62;

pub(super) struct Pending {
    samples: VecDeque<Waiting>,
    bytes: usize,
    /// Bytes, and a share of [`MOST_BYTES`] for each sample, that came since this was last emptied or looked through.
    pub(super) fresh: usize,
    /// Of the next owed row.
    number: u64,
    pub(super) lost: u64,
    /// The numbers of owed rows that were lost since this was last taken.
    shed: Ranges,
}

/// A sample on its way to the disk, and to the uplink.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) tag: TagName,
    pub(super) sample: Sample,
    /// Of the batch of the hub that it came in.
    pub(super) mark: u64,
    /// If it is owed.
    pub(super) number: Option<u64>,
    pub(super) is_kept: bool,
}

impl Waiting {
    pub(super) fn into_live(self) -> Option<Live> {
        let Self { tag, sample, mark, number, .. } = self;
        Some(Live { number: number?, mark, tag, sample })
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self { samples: VecDeque::new(), bytes: 0, fresh: 0, number: NUMBERED_FROM, lost: 0, shed: Ranges::default() }
    }
}

impl Pending {
    pub(super) fn push(&mut self, arrival: Arrival) {
        let Arrival { tag, sample, mark, is_owed, is_kept } = arrival;
        let number = is_owed.then_some(self.number);
        self.number += u64::from(is_owed);
        let weight = weight(&sample.value);
        if weight > MOST_OF_ONE {
            self.lose(number);
            return;
        }
        self.bytes += weight;
        self.fresh += weight.max(MOST_BYTES / MOST);
        self.samples.push_back(Waiting { tag, sample, mark, number, is_kept });
        self.shed();
    }

    /// All of it, and the numbers of owed rows that were lost.
    pub(super) fn take(&mut self) -> (VecDeque<Waiting>, Ranges) {
        (self.bytes, self.fresh) = (0, 0);
        (std::mem::take(&mut self.samples), self.take_shed())
    }

    pub(super) fn take_shed(&mut self) -> Ranges {
        std::mem::take(&mut self.shed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.samples.iter()
    }

    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Waiting) -> bool) {
        self.samples.retain(is_wanted);
        self.bytes = self.samples.iter().map(|waiting| weight(&waiting.sample.value)).sum();
    }

    /// What could not be written, in front of what came since.
    pub(super) fn put_back(&mut self, mut samples: VecDeque<Waiting>) {
        self.bytes += samples.iter().map(|waiting| weight(&waiting.sample.value)).sum::<usize>();
        samples.append(&mut self.samples);
        self.samples = samples;
        self.shed();
    }

    /// A quarter of what fits is new.
    pub(super) fn is_much(&self) -> bool {
        self.fresh >= MOST_BYTES / 4
    }

    fn shed(&mut self) {
        while self.samples.len() > MOST || self.bytes > MOST_BYTES {
            let Some(Waiting { sample, number, .. }) = self.samples.pop_front() else { return };
            self.bytes -= weight(&sample.value);
            self.lose(number);
        }
    }

    fn lose(&mut self, number: Option<u64>) {
        self.lost += 1;
        if let Some(number) = number {
            self.shed.insert(number..number + 1);
        }
    }
}

/// Bytes, about.
pub(super) fn weight(value: &Value) -> usize {
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
    use crate::model::{TagId, Timestamp};

    fn push(pending: &mut Pending, value: Value) {
        let sample = Sample::good(TagId(0), value, Timestamp::UNIX_EPOCH);
        let tag = TagName::new("a").unwrap();
        pending.push(Arrival { tag, sample, mark: 0, is_owed: true, is_kept: true });
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let mut pending = Pending::default();
        for number in 0..MOST as u32 + 5 {
            push(&mut pending, Value::UInt32(number));
        }
        assert_eq!((pending.lost, pending.samples.len()), (5, MOST));
        let (taken, shed) = pending.take();
        assert_eq!((shed.first(), shed.end(), shed.count()), (Some(NUMBERED_FROM), NUMBERED_FROM + 5, 5));
        push(&mut pending, Value::Empty);
        pending.put_back(taken);
        assert_eq!((pending.lost, pending.samples[0].sample.value.clone()), (6, Value::UInt32(6)));

        push(&mut pending, Value::bytes(vec![0; MOST_OF_ONE]));
        assert_eq!(pending.lost, 7, "too large");
        assert_eq!(pending.take_shed().count(), 2);
        for _ in 0..100 {
            push(&mut pending, Value::bytes(vec![0; MOST_OF_ONE - 16]));
        }
        assert!(pending.bytes <= MOST_BYTES && pending.samples.len() <= 32);
        pending.take();
        assert_eq!(pending.bytes, 0);
    }
}
