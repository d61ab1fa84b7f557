//! A unit: its tags, the jobs that read them, and how it is.
//!
//!     Good ──more timeouts in a row than allowed──► Silent ──an answer to a probe──► Good
//!
//! A silent unit is asked one question now and then, each time another: where it does answer to some, the one that made it
//! silent is at fault and is left out like a register that does not exist.

use super::layout::Layout;
use super::plan::{Area, Block, Extent, Lessons, Limits, alone, plan};
use super::status::{Counts, Status};
use crate::base::Backoff;
use crate::model::{Range, TagId};
use std::collections::{BTreeMap, VecDeque};
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
    /// Write Single Coil and Write Single Register.
    pub no_single: bool,
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
        }
    }

    /// Begins a scan that is due, with one of the extents that were refused, if their time has come. How many scans were
    /// missed.
    pub fn begin(&mut self, now: Instant, limits: &Limits, may_retry: bool) -> u64 {
        let steps = (now - self.due).as_nanos() / self.interval.as_nanos() + 1;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.due += self.interval.saturating_mul(steps);
        if self.scan.is_some() {
            return steps.into();
        }
        let mut todo: VecDeque<Block> = plan(&self.extents, limits, &self.lessons).into();
        let retry = self.retries.iter().find(|(_, at)| may_retry && **at <= now).map(|(&index, _)| index);
        todo.extend(retry.map(|index| alone(&self.extents, index)));
        if !todo.is_empty() {
            self.scan = Some(Scan { began: now, todo });
        }
        u64::from(steps) - 1
    }

    /// The connection is a new one, perhaps to another device.
    pub fn forget(&mut self) {
        self.lessons = Lessons::default();
        self.retries.clear();
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

    pub fn is_good_again(&mut self, block: &Block) {
        if self.lessons.bad.remove(&block.extents.start) {
            self.retries.remove(&block.extents.start);
        }
    }

    /// A block was refused: what to ask instead. Nothing: it cannot be divided, and is bad from now on.
    pub fn divide(&mut self, block: &Block, limits: &Limits) -> Vec<Block> {
        super::plan::learn(&self.extents, block, &mut self.lessons);
        if block.extents.len() > 1 {
            return super::plan::parts(&self.extents, block, limits, &self.lessons);
        }
        self.retries.insert(block.extents.start, Instant::now() + RETRY);
        Vec::new()
    }

    /// Leaves out what begins with this extent, and tries it again with the next scan. The points that this is about.
    pub fn suspect(&mut self, first: usize, limits: &Limits) -> Vec<usize> {
        let Some(block) = self.blocks(limits).into_iter().find(|block| block.extents.start == first) else {
            return Vec::new();
        };
        let now = Instant::now();
        self.lessons.bad.extend(block.extents.clone());
        self.retries.extend(block.extents.clone().map(|index| (index, now)));
        self.points_of(&block).map(|(_, point)| point).collect()
    }

    pub fn try_later(&mut self, block: &Block) {
        self.retries.insert(block.extents.start, Instant::now() + RETRY);
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
