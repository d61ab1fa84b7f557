//! Samples that were given here and cannot be said yet: of a tag that is newer than the birth or whose type is to come, or between
//! the request for a rebirth and the birth. Those of a dead device wait in the store (`can_say`); one that comes all the same waits
//! here.
//!
//! They are kept over connections, because whoever gave them here takes them for said. When there are too many the oldest goes, and
//! is counted.

use super::metric::time_of;
use super::same;
use crate::model::{Sample, TagId};
use std::collections::{HashSet, VecDeque};

/// Some 10 MB: an hour of a dead device with ten tags that change twice a second.
const MOST: usize = 65_536;

#[derive(Default)]
pub(super) struct Held {
    samples: VecDeque<Sample>,
    dropped: u64,
}

impl Held {
    pub(super) fn push(&mut self, sample: Sample) {
        if self.samples.len() == MOST {
            self.samples.pop_front();
            self.dropped += 1;
        }
        self.samples.push_back(sample);
    }

    /// Takes out what can be said now, in the order of the times, each sample once.
    pub(super) fn take(&mut self, can_be_said: impl Fn(TagId) -> bool) -> Vec<Sample> {
        let (mut taken, rest): (Vec<Sample>, Vec<Sample>) =
            self.samples.drain(..).partition(|sample| can_be_said(sample.tag));
        self.samples = rest.into();
        taken.sort_by_key(|sample| (time_of(sample), sample.tag));
        taken.dedup_by(|a, b| same::sample(a, b));
        taken
    }

    /// Forgets tags that are gone; how many samples they had.
    pub(super) fn forget(&mut self, gone: impl Fn(TagId) -> bool) -> u64 {
        let before = self.samples.len();
        self.samples.retain(|sample| !gone(sample.tag));
        (before - self.samples.len()) as u64
    }

    pub(super) fn tags(&self) -> HashSet<TagId> {
        self.samples.iter().map(|sample| sample.tag).collect()
    }

    /// How many went because there were too many; counted once.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}
