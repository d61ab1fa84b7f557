//! The store on disk: what was recent, in order of time, and what is still owed to the uplink.
//!
//!     append(samples) ─► pending ──each commit_interval──► journal, synced ──when full──► archive (redb)
//!                        in memory                          ├─► recent, in memory          in order, compressed
//!                                                           └─► tail (owed rows) ─► uplink
//!     scan(tag, range) ◄── merges recent and archive
//!     backlog(n)       ◄── owed rows that the uplink does not have: archive, then recent
//!     settle(numbers)  ──► queue, in memory ──with the next frame──► journal ──with the next sealing──► archive
//!
//! One thread ([`Store::run`]) writes; whoever holds a [`Store`] appends, which never waits, and reads, which does (from
//! the disk, so not on an async thread).
//!
//! On disk, in a folder of its own:
//!
//!     journal-<generation>   journal.rs: what came since the archive was written last. One append and one sync for each group
//!     archive.redb           archive.rs: generations, each the content of one journal: sorted by tag and time, in blocks of
//!                            up to 256 samples (block.rs)
//!     pictures/              pictures.rs: one file for each
//!     *.damaged              what could not be read any more, moved aside; one of a kind is kept
//!
//! Why both: a transaction of redb writes about 30 kB, however small it is, and a frame of the journal one page. So flash
//! is worn once a second by what came, and once in some minutes by a transaction; and the order of arrival, which an
//! uplink wants, is the order in the journal. A generation becomes part of the archive in one transaction; its
//! journal is removed after that, and is ignored if the archive has that generation already. So a power cut at any
//! moment costs at most what was pending.
//!
//! Tags are known by their names (series, with ids of the store's own), because their ids in the hub change over restarts.
//! A row can be wanted for the history, owed to the uplink, or both; queue.rs has what is owed. What is only owed is not
//! moved into the archive once it is settled.
//!
//! Invariants: nothing here ends the process or makes a caller wait for the disk to come back. While the disk is full,
//! read-only or broken the newest samples wait in memory, as many as [`pending`] holds; each that is lost is counted.
//! When the disk takes data again, so does the store.

mod config;
pub mod history;

mod block;
mod record;
mod value;
mod wire;

mod archive;
mod backlog;
mod journal;
mod pending;
pub mod pictures;
mod queue;
mod ranges;
mod recent;
mod scan;
mod tail;
mod writer;

pub use backlog::Chunk;
pub use config::Config;
pub use history::History;
pub use queue::{Epoch, QueueState, Token};
pub use record::Record;
pub use scan::{Direction, Scan};
pub use tail::{Live, Tail};
pub use wire::crc32;

use crate::base::{Clock, Stop};
use crate::model::{Sample, TagName, Timestamp};
use archive::Archive;
use backlog::Drain;
use pending::Pending;
use queue::Queue;
use recent::Recent;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

#[derive(Clone)]
pub struct Store(Arc<Shared>);

pub(crate) struct Shared {
    folder: PathBuf,
    config: Config,
    clock: Clock,
    pending: Mutex<Pending>,
    /// Signalled when much is pending.
    filled: Condvar,
    recent: Mutex<Recent>,
    queue: Mutex<Queue>,
    drain: Mutex<Drain>,
    /// While it is open.
    archive: Mutex<Option<Arc<Archive>>>,
    state: Mutex<State>,
    /// Bytes written to files since the start.
    written: Arc<AtomicU64>,
}

/// A sample that comes into the store.
pub struct Arrival {
    pub tag: TagName,
    pub sample: Sample,
    /// Of the batch of the hub that it came in ([`crate::hub::Every::mark`]).
    pub mark: u64,
    /// To the uplink.
    pub is_owed: bool,
    /// For the history.
    pub is_kept: bool,
}

impl Arrival {
    /// For the history alone.
    pub fn kept(tag: &TagName, sample: &Sample) -> Self {
        Self { tag: tag.clone(), sample: sample.clone(), mark: 0, is_owed: false, is_kept: true }
    }
}

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Whether the last attempt to write succeeded; `None` before the first.
    pub is_writing: Option<bool>,
    /// Why the last attempt that failed did.
    pub last_error: Option<String>,
    /// Samples that can be read.
    pub samples: u64,
    /// Of all files with samples.
    pub bytes: u64,
    pub bytes_written: u64,
    /// Removed because of `max_bytes`, counted over restarts.
    pub dropped_by_bytes: u64,
    /// Removed because of `max_age`, counted over restarts.
    pub dropped_by_age: u64,
    /// Never written since the start: they came too fast, or while nothing could be written.
    pub lost: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Archive { path: PathBuf, source: Box<redb::Error> },
    #[error("the archive: {0}")]
    Read(#[source] Box<redb::Error>),
    #[error("the store is not open")]
    NotOpen,
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        StoreError::Read(Box::new(error))
    }
}

impl From<redb::StorageError> for StoreError {
    fn from(error: redb::StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl Store {
    /// Nothing is opened before [`Store::run`].
    pub fn new(config: Config, folder: PathBuf, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            folder,
            config,
            clock,
            pending: Mutex::default(),
            filled: Condvar::new(),
            recent: Mutex::default(),
            queue: Mutex::default(),
            drain: Mutex::default(),
            archive: Mutex::default(),
            state: Mutex::default(),
            written: Arc::default(),
        }))
    }

    /// Where its files are.
    fn folder(&self) -> &std::path::Path {
        &self.0.folder
    }

    /// Writes until the stop, and what is pending after that.
    pub fn run(&self, stop: &Stop) {
        writer::run(self.0.clone(), stop);
    }

    /// Takes samples in. Never waits; what does not fit is counted as lost.
    pub fn append(&self, arrivals: impl Iterator<Item = Arrival>) {
        let mut pending = self.0.pending();
        arrivals.for_each(|arrival| pending.push(arrival));
        if pending.is_much() {
            self.0.filled.notify_one();
        }
    }

    /// The uplink has a new connection: whatever was given to it and not settled is owed again and in the backlog. Returns
    /// the owed rows that come from now on; those of an older tail are no more.
    pub fn rewind(&self) -> Tail {
        self.0.queue().rewind()
    }

    /// Live rows have arrived, by their numbers. Numbers that the newest tail did not give are no matter.
    pub fn settle(&self, numbers: Range<u64>) {
        self.0.queue().settle(numbers);
    }

    /// Owed rows that the uplink does not have yet, the oldest generation first, and in that in the order of their times.
    /// `None` if it has all, or there was a rewind since the one that made this epoch. Rows of tags that are not wanted are
    /// parked; a call looks at one generation at most. Waits for the disk.
    pub fn backlog(
        &self,
        epoch: Epoch,
        at_most: usize,
        is_wanted: &dyn Fn(&TagName) -> bool,
    ) -> Result<Option<Chunk>, StoreError> {
        backlog::take(&self.0, epoch, at_most, is_wanted)
    }

    /// Live rows cannot be said now: they stay owed, and come with the backlog after [`Store::unpark`].
    pub fn park(&self, numbers: impl Iterator<Item = u64>) {
        self.0.queue().park(numbers);
    }

    /// What was parked may be said now, perhaps.
    pub fn unpark(&self) {
        self.0.queue().unpark();
    }

    /// The rows of a chunk have arrived. Does nothing if there was a rewind since.
    pub fn settle_chunk(&self, token: &Token) {
        self.0.queue().settle_token(token);
    }

    pub fn queue(&self) -> QueueState {
        self.0.queue().state()
    }

    /// The samples of a tag whose times are in the range. Not those that are pending.
    pub fn scan(
        &self,
        tag: &TagName,
        range: RangeInclusive<Timestamp>,
        direction: Direction,
    ) -> Result<Option<Scan>, StoreError> {
        Scan::new(&self.0, tag.as_str(), range, direction)
    }

    /// The time of the oldest sample of any tag.
    pub fn oldest(&self) -> Option<Timestamp> {
        let archive = self.0.archive().ok()?;
        let archived = archive.generations().ok()?.into_iter().map(|(_, meta)| meta.first).min();
        let recent = self.0.recent().first();
        archived.into_iter().chain(recent).min().map(Timestamp::from_ticks)
    }

    pub fn state(&self) -> State {
        let lost = self.0.pending().lost;
        let written = self.0.written.load(std::sync::atomic::Ordering::Relaxed);
        State { lost, bytes_written: written, ..self.0.state().clone() }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        lock(&self.recent)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn archive(&self) -> Result<Arc<Archive>, StoreError> {
        lock(&self.archive).clone().ok_or(StoreError::NotOpen)
    }

    fn set_archive(&self, archive: Option<Archive>) {
        *lock(&self.archive) = archive.map(Arc::new);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code that holds this lock panics")
}

#[cfg(test)]
mod examine;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests;
