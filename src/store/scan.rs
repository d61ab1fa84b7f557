//! Reads the samples of one tag in the order of their times, forward or backward, one part of a block after the other.
//!
//! Generations may overlap: clocks are set back, and sources report old values late. So what lies ahead is in a heap, by
//! the time at which it begins: a generation that has not been looked at, a part that has not been read, the samples of a
//! part. What is on top is opened or given out. In memory are only the parts that overlap at the place of reading.
//! Samples of one time come in the order in which they were appended, or backward in the opposite.

use super::archive::View;
use super::record::Record;
use super::{Shared, StoreError};
use crate::model::Timestamp;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::RangeInclusive;
use tracing::warn;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// Samples of a tag. Holds on to the state of the store at its beginning, so it must not live long.
pub struct Scan {
    view: View,
    series: u32,
    wanted: RangeInclusive<i64>,
    direction: Direction,
    ahead: BinaryHeap<Reverse<Ahead>>,
    said_damage: bool,
}

/// Ordered by the place at which it comes up: its time and, for equal times, its number of generation and part. Backward
/// all are negative.
struct Ahead {
    place: (i128, i128, i64),
    what: What,
}

enum What {
    Generation(u64),
    Part(u64, u32),
    Records(VecDeque<Record>),
}

impl PartialEq for Ahead {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Ahead {}

impl PartialOrd for Ahead {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ahead {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

impl Scan {
    /// `None` if the store has never heard of the tag.
    pub(super) fn new(
        shared: &Shared,
        tag: &str,
        range: RangeInclusive<Timestamp>,
        direction: Direction,
    ) -> Result<Option<Self>, StoreError> {
        let archive = shared.archive()?;
        let wanted = range.start().ticks()..=range.end().ticks();
        let (view, series, recent, number) = {
            let recent = shared.recent();
            let Some(series) = recent.id(tag) else { return Ok(None) };
            let view = archive.view()?;
            // Between its sealing and its clearing it is in both.
            let is_sealed = view.newest()?.is_some_and(|newest| newest >= recent.generation);
            let is_wanted = |record: &Record| wanted.contains(&record.time().ticks());
            let records = if is_sealed { Vec::new() } else { recent.records(series, is_wanted) };
            (view, series, records, recent.generation)
        };
        let mut scan = Self { view, series, wanted, direction, ahead: BinaryHeap::new(), said_damage: false };
        scan.push_records(number, 0, recent);
        scan.push_generations()?;
        Ok(Some(scan))
    }

    fn push_generations(&mut self) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for row in self.view.generations.range::<u64>(..).map_err(redb::Error::from)? {
            let (number, meta) = row.map_err(redb::Error::from)?;
            // One that cannot be read has no samples that could be found.
            let Ok(meta) = super::archive::Generation::from_bytes(meta.value()) else { continue };
            found.push((number.value(), meta.first, meta.last));
        }
        for (number, first, last) in found {
            self.push(number, 0, first, last, What::Generation(number));
        }
        Ok(())
    }

    /// What begins at `first` and ends at `last`, if anything of that is wanted.
    fn push(&mut self, number: u64, part: u32, first: i64, last: i64, what: What) {
        if first > *self.wanted.end() || last < *self.wanted.start() {
            return;
        }
        let place = match self.direction {
            Direction::Forward => (first.into(), number.into(), part.into()),
            Direction::Backward => (-i128::from(last), -i128::from(number), -i64::from(part)),
        };
        self.ahead.push(Reverse(Ahead { place, what }));
    }

    /// In the order of their times.
    fn push_records(&mut self, number: u64, part: u32, records: Vec<Record>) {
        let mut records = VecDeque::from(records);
        if self.direction == Direction::Backward {
            records.make_contiguous().reverse();
        }
        if let Some(time) = records.front().map(|record| record.time().ticks()) {
            self.push(number, part, time, time, What::Records(records));
        }
    }

    fn open(&mut self, number: u64, part: u32) -> Result<(), StoreError> {
        match self.view.rows(number, self.series, part)? {
            Some(rows) => {
                let records = rows.into_iter().map(|row| row.record);
                let wanted = records.filter(|record| self.wanted.contains(&record.time().ticks())).collect();
                self.push_records(number, part, wanted);
            }
            None if !self.said_damage => {
                self.said_damage = true;
                warn!(generation = number, part, "Samples in the history are damaged; reading on behind them.");
            }
            None => {}
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Record>, StoreError> {
        while let Some(Reverse(Ahead { place, what })) = self.ahead.pop() {
            match what {
                What::Generation(number) => {
                    for (part, first, last) in self.view.parts(number, self.series)? {
                        self.push(number, part, first, last, What::Part(number, part));
                    }
                }
                What::Part(number, part) => self.open(number, part)?,
                What::Records(mut records) => {
                    let record = records.pop_front();
                    if let Some(next) = records.front() {
                        let time = i128::from(next.time().ticks());
                        let time = if self.direction == Direction::Forward { time } else { -time };
                        let ahead = Ahead { place: (time, place.1, place.2), what: What::Records(records) };
                        self.ahead.push(Reverse(ahead));
                    }
                    return Ok(record);
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Scan {
    type Item = Result<Record, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
