//! What is owed to the uplink: which rows, where they are, and who has them. In memory; the rows are on the disk.
//!
//!     appended ──commit──► owed ──► with the uplink: live (the tail has it) or taken (a chunk of the backlog) ──► settled
//!                           ▲                                │
//!                           └────────── rewind ──────────────┘
//!
//! Each owed row has a number, in the order of arrival. On disk it is counted from the `base` of its generation, so that
//! numbers of another run of the program need not be known to give out new ones.
//!
//! What is settled is remembered in `unsaved` and goes with the next frame of the journal; what a sealed generation owes
//! stands in the archive as of the last sealing, and the journal after it has the rest.
//!
//! What the uplink cannot say now (its device is dead) is `parked`: owed, not with the uplink and not given to it, until
//! [`Queue::unpark`] or a rewind. So it waits here, on the disk, and not in the uplink's memory.
//!
//! While the disk takes nothing, rows are owed that are on no disk (`unwritten`); they wait in memory with those that
//! are pending. If one of these is dropped for want of room while the uplink has it, it is an orphan: lost if the
//! connection is, too.
//!
//! Invariants: a number is owed in one place at most. `live`, `taken` and `parked` exclude each other. Settling what is not with the
//! uplink does nothing, so nothing is forgotten that was never sent.

use super::archive::Debt;
use super::journal::Settled;
use super::pending::NUMBERED_FROM;
use super::ranges::Ranges;
use super::tail::{Live, Outlet, Tail};
use crate::model::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// How far apart the notes are of when rows came, in ticks.
const STEP: i64 = 10_000_000;

pub(super) struct Queue {
    generations: BTreeMap<u64, Owed>,
    /// Offered to the uplink, and on no disk.
    unwritten: Owed,
    orphans: Ranges,
    live: Ranges,
    taken: Ranges,
    parked: Ranges,
    epoch: Epoch,
    /// Counts what makes void what was read of the backlog.
    round: u64,
    /// Numbers below have been offered to the tail, or there was none.
    offered: u64,
    /// Numbers from here up are in use.
    floor: u64,
    unsaved: Settled,
    outlet: Option<Outlet>,
    counts: Counts,
    is_loaded: bool,
}

/// What a generation owes.
#[derive(Clone)]
struct Owed {
    /// Since when this process knows it, or knows that it is sealed.
    seen: Instant,
    base: u64,
    numbers: Ranges,
    /// From which number on rows came when, in ticks.
    stamps: VecDeque<(u64, i64)>,
    is_sealed: bool,
    /// What the archive says is not what is so.
    is_changed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) settled: u64,
    pub(super) dropped: u64,
    pub(super) lost: u64,
}

/// How the queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Owed now, also what the uplink has and did not settle yet.
    pub waiting: u64,
    /// When the oldest of these came, by this device's clock; to the second while it is in the journal, else to the
    /// generation.
    pub oldest: Option<Timestamp>,
    /// Since the start.
    pub settled: u64,
    /// Removed by `max_bytes` and `max_age` while they were owed; counted over restarts.
    pub dropped: u64,
    /// Never written and never settled, or unreadable; since the start.
    pub lost: u64,
}

/// Whose turn it is: counts rewinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u64);

/// A piece of the backlog on its way.
#[derive(Clone, Debug)]
pub struct Token {
    epoch: Epoch,
    numbers: Ranges,
}

/// What a generation looks like on disk, as far as the queue cares.
#[derive(Clone, Default)]
pub(super) struct Found {
    /// Counted from 0.
    pub(super) debt: Debt,
    /// Behind the last number that was ever used.
    pub(super) end: u64,
    pub(super) is_sealed: bool,
    /// The journal says that less is owed than the archive does.
    pub(super) is_changed: bool,
}

/// What is to be read next for the uplink.
pub(super) struct Next {
    pub(super) generation: u64,
    pub(super) base: u64,
    pub(super) is_sealed: bool,
    /// The numbers of rows.
    pub(super) wanted: Ranges,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            generations: BTreeMap::new(),
            unwritten: Owed::new(0),
            orphans: Ranges::default(),
            live: Ranges::default(),
            taken: Ranges::default(),
            parked: Ranges::default(),
            epoch: Epoch::default(),
            round: 0,
            offered: NUMBERED_FROM,
            floor: NUMBERED_FROM,
            unsaved: Settled::new(),
            outlet: None,
            counts: Counts::default(),
            is_loaded: false,
        }
    }
}

impl Owed {
    fn new(base: u64) -> Self {
        Self {
            seen: Instant::now(),
            base,
            numbers: Ranges::default(),
            stamps: VecDeque::new(),
            is_sealed: false,
            is_changed: false,
        }
    }

    fn insert(&mut self, number: u64, time: i64) {
        self.numbers.insert(number..number + 1);
        if self.stamps.back().is_none_or(|(_, last)| time >= last + STEP) {
            self.stamps.push_back((number, time));
        }
    }

    fn remove(&mut self, run: Range<u64>) -> Ranges {
        let removed = self.numbers.remove(run);
        let first = self.numbers.first().unwrap_or(u64::MAX);
        while self.stamps.get(1).is_some_and(|(number, _)| *number <= first) {
            self.stamps.pop_front();
        }
        removed
    }

    fn overlaps(&self, run: &Range<u64>) -> bool {
        self.numbers.first().is_some_and(|first| first < run.end) && run.start < self.numbers.end()
    }

    fn since(&self) -> Option<i64> {
        self.stamps.front().filter(|_| !self.numbers.is_empty()).map(|(_, time)| *time)
    }

    fn debt(&self) -> Debt {
        Debt { since: self.since().unwrap_or(0), numbers: self.numbers.relative_to(self.base) }
    }
}

impl Queue {
    /// Generations as they were found on disk. Only at first: after that this knows better.
    pub(super) fn load(&mut self, found: BTreeMap<u64, Found>) {
        if std::mem::replace(&mut self.is_loaded, true) {
            return;
        }
        for (generation, Found { debt, end, is_sealed, is_changed }) in found.into_iter().rev() {
            self.floor = self.floor.saturating_sub(end);
            let numbers = debt.numbers.on_base(self.floor);
            let stamps = numbers.first().map(|first| (first, debt.since)).into_iter().collect();
            let owed = Owed { numbers, stamps, is_sealed, is_changed, ..Owed::new(self.floor) };
            self.generations.insert(generation, owed);
        }
    }

    /// All that was sealed is gone: it could not be read.
    pub(super) fn forget_sealed(&mut self) {
        for owed in self.generations.extract_if(.., |_, owed| owed.is_sealed).map(|(_, owed)| owed) {
            self.counts.lost += owed.numbers.count();
            self.live = self.live.without(&owed.numbers);
            self.taken = self.taken.without(&owed.numbers);
            self.parked = self.parked.without(&owed.numbers);
        }
    }

    pub(super) fn set_dropped(&mut self, dropped: u64) {
        self.counts.dropped = dropped;
    }

    /// The base of the journal's generation: the number of the first row that it ever owed.
    pub(super) fn base(&mut self, generation: u64, number: u64) -> u64 {
        self.generations.entry(generation).or_insert_with(|| Owed::new(number)).base
    }

    /// Whether a row has not been offered to the uplink.
    pub(super) fn is_fresh(&self, number: u64) -> bool {
        number >= self.offered
    }

    /// Whether a pending row is owed: it is new, or it was offered and not settled.
    pub(super) fn is_owed_still(&self, number: u64) -> bool {
        self.is_fresh(number) || self.unwritten.numbers.contains(number)
    }

    /// Rows, by number and time of arrival, are in the journal now.
    pub(super) fn written(&mut self, generation: u64, rows: impl Iterator<Item = (u64, i64)>) {
        // Whoever writes an owed row has asked for the base.
        let Some(owed) = self.generations.get_mut(&generation) else { return };
        for (number, time) in rows {
            if number >= self.offered || !self.unwritten.remove(number..number + 1).is_empty() {
                owed.insert(number, time);
            } else {
                // Settled while it was being written.
                let number = number - owed.base;
                self.unsaved.entry(generation).or_default().insert(number..number + 1);
            }
        }
    }

    /// Fresh rows that could not be written.
    pub(super) fn not_written(&mut self, rows: &[Live]) {
        for row in rows {
            self.unwritten.insert(row.number, row.sample.server_time.ticks());
        }
    }

    /// Owed rows, which are in the journal or `unwritten`. Those that are new go to the uplink.
    pub(super) fn offer(&mut self, mut rows: Vec<Live>) {
        rows.retain(|row| row.number >= self.offered);
        let Some(last) = rows.last() else { return };
        self.offered = last.number + 1;
        if let Some(outlet) = &self.outlet {
            self.live.extend(&outlet.offer(rows));
        }
    }

    /// Rows that were dropped before they could be written.
    pub(super) fn shed(&mut self, numbers: &Ranges) {
        for number in numbers.runs().flatten() {
            if number >= self.offered {
                self.counts.lost += 1;
            } else if self.live.contains(number) || self.taken.contains(number) {
                self.orphans.insert(number..number + 1);
            } else if !self.unwritten.remove(number..number + 1).is_empty() {
                self.parked.remove(number..number + 1);
                self.counts.lost += 1;
            }
        }
    }

    /// The connection is a new one: what it does not settle is owed again.
    pub(super) fn rewind(&mut self) -> Tail {
        for orphans in std::mem::take(&mut self.orphans).runs() {
            self.counts.lost += self.unwritten.remove(orphans).count();
        }
        self.live = Ranges::default();
        self.taken = Ranges::default();
        self.parked = Ranges::default();
        self.epoch.0 += 1;
        self.round += 1;
        let (outlet, tail) = Outlet::new(self.epoch);
        self.outlet = Some(outlet);
        tail
    }

    /// Live rows that the uplink cannot say now.
    pub(super) fn park(&mut self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            let run = number..number + 1;
            if self.live.remove(run.clone()).is_empty() {
                continue;
            }
            // Nobody but the uplink had it.
            match self.orphans.remove(run.clone()).is_empty() {
                true => self.parked.insert(run),
                false => self.counts.lost += self.unwritten.remove(run).count(),
            }
        }
    }

    /// A row of the backlog that the uplink cannot say now.
    pub(super) fn park_waiting(&mut self, number: u64) {
        self.parked.insert(number..number + 1);
    }

    /// All of it may be given again.
    pub(super) fn unpark(&mut self) {
        if !self.parked.is_empty() {
            self.parked = Ranges::default();
            self.round += 1;
        }
    }

    /// Live rows have arrived.
    pub(super) fn settle(&mut self, run: Range<u64>) {
        let arrived = self.live.remove(run);
        self.settle_all(&arrived);
    }

    pub(super) fn settle_token(&mut self, token: &Token) {
        if token.epoch == self.epoch {
            self.taken = self.taken.without(&token.numbers);
            self.settle_all(&token.numbers);
        }
    }

    fn settle_all(&mut self, numbers: &Ranges) {
        for run in numbers.runs() {
            self.counts.settled += self.unwritten.remove(run.clone()).count();
            let removed = self.remove_written(&run);
            self.counts.settled += removed;
        }
    }

    fn remove_written(&mut self, run: &Range<u64>) -> u64 {
        let mut count = 0;
        for (generation, owed) in self.generations.iter_mut().filter(|(_, owed)| owed.overlaps(run)) {
            let removed = owed.remove(run.clone());
            count += removed.count();
            owed.is_changed |= owed.is_sealed;
            self.unsaved.entry(*generation).or_default().extend(&removed.relative_to(owed.base));
        }
        count
    }

    /// What was settled since this was asked for last, for the journal.
    pub(super) fn take_unsaved(&mut self) -> Settled {
        std::mem::take(&mut self.unsaved)
    }

    /// It could not be written.
    pub(super) fn put_back_unsaved(&mut self, settled: &Settled) {
        for (generation, numbers) in settled {
            self.unsaved.entry(*generation).or_default().extend(numbers);
        }
    }

    /// What a sealing has to write: what the new generation owes, and all that owe something else than the archive says.
    pub(super) fn debts(&self, generation: u64) -> Vec<(u64, Debt)> {
        let changed = self.generations.iter().filter(|(number, owed)| owed.is_changed || **number == generation);
        changed.map(|(number, owed)| (*number, owed.debt())).collect()
    }

    /// These debts are in the archive, and the generation is.
    pub(super) fn sealed(&mut self, generation: u64, debts: &[(u64, Debt)]) {
        if let Some(owed) = self.generations.get_mut(&generation) {
            owed.is_sealed = true;
            owed.seen = Instant::now();
            owed.stamps.truncate(1);
        }
        for (number, debt) in debts {
            if let Some(owed) = self.generations.get_mut(number) {
                owed.is_changed = owed.numbers.relative_to(owed.base) != debt.numbers;
            }
        }
        // What owes nothing and is said to owe nothing.
        self.generations.retain(|_, owed| !owed.is_sealed || owed.is_changed || !owed.numbers.is_empty());
    }

    /// Whether a generation owes something and has not been known for so long, whatever the clock on the wall says: a device
    /// without a battery for it thinks that it is 1970 until somebody tells it the time.
    pub(super) fn is_young(&self, generation: u64, max_age: Duration) -> bool {
        let owed = self.generations.get(&generation);
        owed.is_some_and(|owed| !owed.numbers.is_empty() && owed.seen.elapsed() < max_age)
    }

    /// A sealing that was said to have failed reached the disk. What was settled since is not in the archive.
    pub(super) fn found_sealed(&mut self, generation: u64) {
        if let Some(owed) = self.generations.get_mut(&generation) {
            owed.is_sealed = true;
            owed.is_changed = true;
        }
    }

    /// Takes out generations that are about to be removed; returns how many rows they owe.
    pub(super) fn withdraw(&mut self, gone: &[u64]) -> Withdrawn {
        Withdrawn(gone.iter().filter_map(|number| Some((*number, self.generations.remove(number)?))).collect())
    }

    /// They were not removed after all.
    pub(super) fn restore(&mut self, withdrawn: Withdrawn) {
        self.generations.extend(withdrawn.0);
    }

    /// They were removed.
    pub(super) fn dropped(&mut self, withdrawn: &Withdrawn) {
        for owed in withdrawn.0.values() {
            self.counts.dropped += owed.numbers.count();
            self.live = self.live.without(&owed.numbers);
            self.taken = self.taken.without(&owed.numbers);
            self.parked = self.parked.without(&owed.numbers);
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// The first generation of which the uplink does not have everything.
    pub(super) fn next(&self) -> Option<Next> {
        self.generations.iter().find_map(|(&generation, owed)| {
            let wanted = self.to_be_given(&owed.numbers);
            let next = Next { generation, base: owed.base, is_sealed: owed.is_sealed, wanted };
            (!next.wanted.is_empty()).then_some(next)
        })
    }

    pub(super) fn is_sealed(&self, generation: u64) -> bool {
        self.generations.get(&generation).is_some_and(|owed| owed.is_sealed)
    }

    /// Rows on no disk that the uplink does not have.
    pub(super) fn next_unwritten(&self) -> Ranges {
        self.to_be_given(&self.unwritten.numbers)
    }

    fn to_be_given(&self, numbers: &Ranges) -> Ranges {
        numbers.without(&self.live).without(&self.taken).without(&self.parked)
    }

    /// Whether a row may be given to the uplink as backlog. It is of this generation, or was on no disk.
    pub(super) fn is_waiting(&self, generation: Option<u64>, number: u64) -> bool {
        let is_owed = |owed: &Owed| owed.numbers.contains(number);
        let is_owed = match generation {
            Some(generation) => self.generations.get(&generation).is_some_and(is_owed),
            // It may have been written since.
            None => is_owed(&self.unwritten) || self.generations.values().any(is_owed),
        };
        is_owed && ![&self.live, &self.taken, &self.parked].iter().any(|numbers| numbers.contains(number))
    }

    pub(super) fn take(&mut self, numbers: Ranges) -> Token {
        self.taken.extend(&numbers);
        Token { epoch: self.epoch, numbers }
    }

    /// Rows that should be on disk and cannot be read.
    pub(super) fn lose(&mut self, missing: &Ranges) {
        for run in missing.runs() {
            self.counts.lost += self.remove_written(&run);
        }
    }

    pub(super) fn state(&self) -> QueueState {
        let all = || self.generations.values().chain([&self.unwritten]);
        QueueState {
            waiting: all().map(|owed| owed.numbers.count()).sum(),
            oldest: all().find_map(Owed::since).map(Timestamp::from_ticks),
            settled: self.counts.settled,
            dropped: self.counts.dropped,
            lost: self.counts.lost,
        }
    }
}

/// Generations that are being removed.
pub(super) struct Withdrawn(BTreeMap<u64, Owed>);

impl Withdrawn {
    pub(super) fn owed(&self) -> u64 {
        self.0.values().map(|owed| owed.numbers.count()).sum()
    }
}
