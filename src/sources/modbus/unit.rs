//! A unit: its tags, the jobs that read them, and how it is.
//!
//!     Good ──more timeouts in a row than allowed──► Silent ──an answer to a probe──► Good
//!
//! A silent unit is asked one question now and then, each time another: where it does answer to some, the one that made it
//! silent is suspected, and if it is not answered once more, left out like a register that does not exist, half by half.
//! What was left out is tried again one by one; as soon as one of them can be read, all of them, in blocks.

use super::layout::Layout;
use super::plan::{Area, Block, Extent, Lessons, Limits, alone, plan};
use super::status::{Counts, Status};
use crate::base::Backoff;
use crate::model::{Range, TagId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// First and longest wait before a silent unit is asked again.
const PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// What a device has refused is asked for again after this time.
pub const RETRY: Duration = Duration::from_secs(30);

pub struct Unit {
    pub id: u8,
    /// Its folder: for events.
    pub folder: String,
    pub points: Vec<Point>,
    pub jobs: Vec<Job>,
    pub health: Health,
    /// Questions in a row that it did not answer.
    pub unanswered: u8,
    /// How long it takes to answer: the longest of late.
    pub pace: Option<Duration>,
    pub habits: Habits,
    pub counts: Counts,
    pub status: Status,
}

/// A tag in the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub tag: TagId,
    pub area: Area,
    pub address: u16,
    pub layout: Layout,
    /// What may be written.
    pub range: Option<Range>,
}

impl Point {
    pub fn extent(&self) -> Extent {
        Extent { area: self.area, address: self.address, size: self.layout.size() as u16 }
    }
}

/// What the device has shown not to take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Write Single Coil, while it does know Write Multiple Coils.
    pub no_single_coil: bool,
    /// The same for registers.
    pub no_single_register: bool,
    /// Mask Write Register.
    pub no_mask: bool,
}

pub enum Health {
    Good,
    Silent(Silence),
}

pub struct Silence {
    backoff: Backoff,
    pub next: Instant,
    /// How often it was asked since.
    pub tries: usize,
    /// What it did not answer: job and first extent.
    pub culprit: Option<(usize, usize)>,
}

impl Silence {
    pub fn new(culprit: Option<(usize, usize)>) -> Self {
        let mut silence = Self { backoff: Backoff::new(PROBE.0, PROBE.1), next: Instant::now(), tries: 0, culprit };
        silence.wait();
        silence
    }

    pub fn wait(&mut self) {
        self.next = Instant::now() + self.backoff.wait();
    }
}

/// The tags of a unit that are read at one interval.
pub struct Job {
    pub interval: Duration,
    /// When the next scan begins, on an even grid.
    pub due: Instant,
    pub scan: Option<Scan>,
    extents: Vec<Extent>,
    /// The points of each extent, by their place in the unit.
    points: Vec<Vec<usize>>,
    lessons: Lessons,
    /// When extents that were refused are tried again.
    retries: BTreeMap<usize, Instant>,
    /// How long each that was not answered waits for its retry.
    waits: BTreeMap<usize, Duration>,
    /// They are tried in blocks, not one by one.
    has_hope: bool,
    /// The first extent of the block that made the unit silent.
    suspect: Option<usize>,
}

/// A scan that is on its way.
pub struct Scan {
    pub began: Instant,
    pub todo: VecDeque<Block>,
}

impl Job {
    pub fn new(interval: Duration, points: impl Iterator<Item = (usize, Extent)>) -> Self {
        let mut by_extent: BTreeMap<Extent, Vec<usize>> = BTreeMap::new();
        for (index, extent) in points {
            by_extent.entry(extent).or_default().push(index);
        }
        let (extents, points) = by_extent.into_iter().unzip();
        Self {
            interval,
            due: Instant::now(),
            scan: None,
            extents,
            points,
            lessons: Lessons::default(),
            retries: BTreeMap::new(),
            waits: BTreeMap::new(),
            has_hope: false,
            suspect: None,
        }
    }

    /// Begins a scan that is due, with what was refused, as far as its time has come. How many scans were missed.
    pub fn begin(&mut self, now: Instant, limits: &Limits, may_retry: bool) -> u64 {
        let steps = (now - self.due).as_nanos() / self.interval.as_nanos() + 1;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.due += self.interval.saturating_mul(steps);
        if self.scan.is_some() {
            return steps.into();
        }
        let mut todo: VecDeque<Block> = plan(&self.extents, limits, &self.lessons).into();
        if may_retry {
            todo.extend(self.retry(now, limits));
        }
        if !todo.is_empty() {
            self.scan = Some(Scan { began: now, todo });
        }
        u64::from(steps) - 1
    }

    /// What to try again of that which was refused.
    fn retry(&mut self, now: Instant, limits: &Limits) -> Vec<Block> {
        let mut due = self.retries.iter().filter(|(_, at)| **at <= now).map(|(&index, _)| index);
        if !std::mem::take(&mut self.has_hope) {
            return due.next().map(|index| alone(&self.extents, index)).into_iter().collect();
        }
        let due: BTreeSet<usize> = due.collect();
        let others = (0..self.extents.len()).filter(|index| !due.contains(index)).collect();
        plan(&self.extents, limits, &Lessons { bad: others, ..self.lessons.clone() })
    }

    /// The connection is a new one, perhaps to another device.
    pub fn forget(&mut self) {
        self.lessons = Lessons::default();
        self.retries.clear();
        self.waits.clear();
        self.has_hope = false;
        self.suspect = None;
        self.scan = None;
    }

    /// All requests that read it, for a probe.
    pub fn blocks(&self, limits: &Limits) -> Vec<Block> {
        plan(&self.extents, limits, &self.lessons)
    }

    /// The points of a block, with their extents.
    pub fn points_of(&self, block: &Block) -> impl Iterator<Item = (&Extent, usize)> {
        let extents = self.extents[block.extents.clone()].iter().zip(&self.points[block.extents.clone()]);
        extents.flat_map(|(extent, points)| points.iter().map(move |&point| (extent, point)))
    }

    /// The request that reads this and nothing else.
    pub fn find(&self, extent: &Extent) -> Option<Block> {
        self.extents.binary_search(extent).ok().map(|index| alone(&self.extents, index))
    }

    pub fn is_known_bad(&self, block: &Block) -> bool {
        self.lessons.bad.contains(&block.extents.start)
    }

    /// A block was answered. If it had been left out, the others may be readable as well, and are tried in this scan.
    pub fn is_good_again(&mut self, block: &Block, limits: &Limits) {
        if !self.is_known_bad(block) {
            return;
        }
        self.take_back(block);
        let now = Instant::now();
        self.retries.values_mut().for_each(|at| *at = now);
        let is_last = self.scan.as_ref().is_some_and(|scan| !scan.todo.iter().any(|block| self.is_known_bad(block)));
        if is_last {
            self.has_hope = true;
            let more = self.retry(now, limits);
            self.scan.iter_mut().for_each(|scan| scan.todo.extend(more.clone()));
        }
    }

    fn take_back(&mut self, block: &Block) {
        for index in block.extents.clone() {
            self.lessons.bad.remove(&index);
            self.retries.remove(&index);
            self.waits.remove(&index);
        }
    }

    /// A block was refused: what to ask instead. Nothing: it cannot be divided, and is bad from now on.
    pub fn divide(&mut self, block: &Block, limits: &Limits) -> Vec<Block> {
        super::plan::learn(&self.extents, block, &mut self.lessons);
        if block.extents.len() > 1 {
            self.take_back(block);
            return super::plan::parts(&self.extents, block, limits, &self.lessons);
        }
        self.retries.insert(block.extents.start, Instant::now() + RETRY);
        Vec::new()
    }

    /// The unit fell silent over the block that begins with this extent, and answers to another.
    pub fn suspect(&mut self, first: usize) {
        self.suspect = Some(first);
    }

    /// It is asked once more, and that decides.
    pub fn take_suspect(&mut self, block: &Block) -> bool {
        self.suspect.take_if(|first| *first == block.extents.start).is_some()
    }

    /// The unit answers, but not to this. Which part of it is at fault is found with the next scans.
    pub fn leave_out(&mut self, block: &Block) {
        let is_one = block.extents.len() == 1;
        if !is_one || !self.is_known_bad(block) {
            super::plan::learn(&self.extents, block, &mut self.lessons);
        }
        // First soon, because it may only have been slow, then less and less often.
        let wait = if is_one {
            self.waits.get(&block.extents.start).map_or(PROBE.0, |wait| RETRY.min(*wait * 2))
        } else {
            Duration::ZERO
        };
        if is_one {
            self.waits.insert(block.extents.start, wait);
        }
        let at = Instant::now() + wait;
        self.lessons.bad.extend(block.extents.clone());
        self.retries.extend(block.extents.clone().map(|index| (index, at)));
        // A scan waits for one of them only.
        let bad = &self.lessons.bad;
        let left = self.scan.as_mut().map_or(0, |scan| {
            let before = scan.todo.len();
            scan.todo.retain(|block| !bad.contains(&block.extents.start));
            before - scan.todo.len()
        });
        self.has_hope |= !is_one || left > 0;
    }
}

impl Unit {
    pub fn is_good(&self) -> bool {
        matches!(self.health, Health::Good)
    }

    pub fn tags(&self) -> Vec<TagId> {
        self.points.iter().map(|point| point.tag).collect()
    }

    /// Remembers how long an answer took; a slow one for a while.
    pub fn took(&mut self, time: Duration) {
        self.pace = Some(self.pace.map_or(time, |pace| time.max(pace.mul_f64(0.95))));
        self.counts.time = time;
    }

    /// What to ask a silent unit: each time something else, first what it was not asked when it fell silent.
    pub fn probe(&self, limits: &Limits) -> Option<(usize, Block)> {
        let Health::Silent(silence) = &self.health else { return None };
        let jobs = self.jobs.iter().enumerate();
        let all: Vec<(usize, Block)> =
            jobs.flat_map(|(job, own)| own.blocks(limits).into_iter().map(move |block| (job, block))).collect();
        let culprit = silence.culprit.and_then(|(job, first)| {
            all.iter().position(|(other, block)| (*other, block.extents.start) == (job, first))
        });
        let at = culprit.map_or(silence.tries, |culprit| culprit + 1 + silence.tries);
        match all.len() {
            // All was refused before it fell silent.
            0 => self
                .jobs
                .iter()
                .position(|job| !job.extents.is_empty())
                .map(|job| (job, alone(&self.jobs[job].extents, 0))),
            count => all.into_iter().nth(at % count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { registers: 125, bits: 2000, gap: 10 };

    fn job() -> Job {
        let extent = |address| Extent { area: Area::Holding, address, size: 1 };
        Job::new(Duration::from_secs(3600), (0..60).map(|index| (index, extent(index as u16))))
    }

    /// Takes the scan's blocks from it; those that `answer` refuses are treated with `fail`. How many there were.
    fn scan(job: &mut Job, now: Instant, answer: impl Fn(&Block) -> bool, fail: impl Fn(&mut Job, &Block)) -> usize {
        job.due = now;
        job.scan = None;
        job.begin(now, &LIMITS, true);
        let mut count = 0;
        while let Some(block) = job.scan.as_mut().and_then(|scan| scan.todo.pop_front()) {
            count += 1;
            if answer(&block) { job.is_good_again(&block, &LIMITS) } else { fail(job, &block) }
        }
        count
    }

    fn refuse(job: &mut Job, block: &Block) {
        let parts = job.divide(block, &LIMITS);
        let scan = job.scan.as_mut().unwrap();
        parts.into_iter().rev().for_each(|part| scan.todo.push_front(part));
    }

    #[test]
    fn what_refused_everything_for_a_while_is_back_with_one_scan() {
        let (mut job, start) = (job(), Instant::now());
        scan(&mut job, start, |_| false, refuse);
        assert_eq!(job.lessons.bad.len(), 60);
        assert_eq!(scan(&mut job, start + Duration::from_secs(1), |_| true, refuse), 0, "it is left alone");
        let later = start + RETRY * 2;
        assert_eq!(scan(&mut job, later, |_| true, refuse), 2, "one, then all others at once");
        assert!(job.lessons.bad.is_empty() && job.retries.is_empty());
        // One is still refused.
        scan(&mut job, later, |_| false, refuse);
        scan(&mut job, later + RETRY * 2, |block| !block.extents.contains(&37), refuse);
        assert_eq!(job.lessons.bad, [37].into());
    }

    #[test]
    fn what_is_never_answered_is_found_by_halves() {
        let (mut job, now) = (job(), Instant::now());
        let answer = |block: &Block| !block.extents.contains(&37);
        let whole = job.blocks(&LIMITS).remove(0);
        job.leave_out(&whole);
        let mut timeouts = 0;
        for _ in 0..20 {
            let before = job.lessons.clone();
            scan(&mut job, Instant::now(), answer, |job, block| job.leave_out(block));
            timeouts += usize::from(job.lessons != before);
        }
        assert_eq!(job.lessons.bad, [37].into());
        assert!(job.retries[&37] > now + PROBE.0 / 2 && timeouts < 15, "{timeouts}");
    }
}
