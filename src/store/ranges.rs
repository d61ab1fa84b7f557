//! A set of numbers that come in long runs.
//!
//!     on disk    number of runs, of each: distance from the end of the one before, length (varints)

use super::wire::{Damaged, Reader, put_varint};
use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The first of a run, and the end behind its last. Runs are not empty and do not touch.
    runs: BTreeMap<u64, u64>,
    count: u64,
}

impl Ranges {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.runs.keys().next().copied()
    }

    /// Behind the last.
    pub(super) fn end(&self) -> u64 {
        self.runs.values().next_back().copied().unwrap_or(0)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.runs.range(..=number).next_back().is_some_and(|(_, &end)| number < end)
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().map(|(&first, &end)| first..end)
    }

    pub(super) fn insert(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        // Mostly they come one behind the other.
        if let Some(mut last) = self.runs.last_entry()
            && *last.get() == run.start
        {
            last.insert(run.end);
            self.count += run.end - run.start;
            return;
        }
        let (mut first, mut end) = (run.start, run.end);
        // Whatever overlaps or touches becomes a part of it; seen from behind, the first that does not ends the search.
        while let Some((&start, &stop)) = self.runs.range(..=end).next_back() {
            if stop < run.start {
                break;
            }
            self.count -= stop - start;
            self.runs.remove(&start);
            (first, end) = (first.min(start), end.max(stop));
        }
        self.runs.insert(first, end);
        self.count += end - first;
    }

    /// Returns what of it was there.
    pub(super) fn remove(&mut self, run: Range<u64>) -> Self {
        let mut removed = Self::default();
        if run.is_empty() {
            return removed;
        }
        while let Some((&start, &stop)) = self.runs.range(..run.end).next_back() {
            if stop <= run.start {
                break;
            }
            self.runs.remove(&start);
            let inside = start.max(run.start)..stop.min(run.end);
            self.count -= inside.end - inside.start;
            if start < inside.start {
                self.runs.insert(start, inside.start);
            }
            if inside.end < stop {
                self.runs.insert(inside.end, stop);
            }
            removed.insert(inside);
        }
        removed
    }

    pub(super) fn extend(&mut self, other: &Self) {
        other.runs().for_each(|run| self.insert(run));
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        let mut left = self.clone();
        let overlapping = other.runs.range(..self.end()).map(|(&first, &end)| first..end);
        overlapping.for_each(|run| drop(left.remove(run)));
        left
    }

    /// Each number as it is seen from `base`.
    pub(super) fn relative_to(&self, base: u64) -> Self {
        self.mapped(|number| number.wrapping_sub(base))
    }

    pub(super) fn on_base(&self, base: u64) -> Self {
        self.mapped(|number| number.wrapping_add(base))
    }

    fn mapped(&self, map: impl Fn(u64) -> u64) -> Self {
        Self { runs: self.runs.iter().map(|(&first, &end)| (map(first), map(end))).collect(), count: self.count }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.runs.len() as u64);
        let mut before = 0;
        for run in self.runs() {
            put_varint(out, run.start - before);
            put_varint(out, run.end - run.start);
            before = run.end;
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let (mut ranges, mut before) = (Self::default(), 0u64);
        for _ in 0..reader.varint()? {
            let first = before.checked_add(reader.varint()?).ok_or(Damaged)?;
            let end = first.checked_add(reader.varint()?).ok_or(Damaged)?;
            ranges.insert(first..end);
            before = end;
        }
        Ok(ranges)
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(runs: I) -> Self {
        let mut ranges = Self::default();
        runs.into_iter().for_each(|run| ranges.insert(run));
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.runs().flatten().collect()
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0..60u64, 0..12u64), 0..40)) {
            let (mut ranges, mut model, mut other) = (Ranges::default(), BTreeSet::new(), Ranges::default());
            for (is_insert, first, length) in steps {
                let run = first..first + length;
                if is_insert {
                    ranges.insert(run.clone());
                    model.extend(run);
                } else {
                    let there: BTreeSet<u64> = run.clone().filter(|number| model.remove(number)).collect();
                    prop_assert_eq!(set(&ranges.remove(run.clone())), there);
                    other.insert(run);
                }
                prop_assert_eq!(set(&ranges), model.clone());
                prop_assert_eq!(ranges.count(), model.len() as u64);
                prop_assert_eq!((ranges.first(), ranges.end()), (model.first().copied(), model.last().map_or(0, |n| n + 1)));
                prop_assert!((0..80).all(|number| ranges.contains(number) == model.contains(&number)));
                let apart = ranges.runs().zip(ranges.runs().skip(1)).all(|(a, b)| a.end < b.start);
                prop_assert!(apart, "{ranges:?}");
            }
            prop_assert_eq!(set(&ranges.without(&other)), model.difference(&set(&other)).copied().collect());
            prop_assert_eq!(&ranges.on_base(1000).relative_to(1000), &ranges);
            let mut out = Vec::new();
            ranges.put(&mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(Ranges::read(&mut reader), Ok(ranges));
            prop_assert!(reader.is_empty());
        }
    }
}
