//! The store on disk: what was recent, in order of time, and (with the uplink's queue) what is still owed.
//!
//!     append(samples) ─► pending ──each commit_interval──► journal, synced ──when full──► archive (redb)
//!                        in memory                          └─► recent, in memory          in order, compressed
//!     scan(tag, range) ◄── merges recent and archive
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
//! For the uplink's queue (not built yet): its cursor is a generation and a place in it; what retention removes
//! behind a cursor is counted as lost by its owner, and the journal is read in the order of arrival.
//!
//! Invariants: nothing here ends the process or makes a caller wait for the disk to come back. While the disk is full,
//! read-only or broken the newest samples wait in memory, as many as [`pending`] holds; each that is lost is counted.
//! When the disk takes data again, so does the store.

mod config;

mod block;
mod record;
mod value;
mod wire;

mod archive;
mod journal;
mod pending;
pub mod pictures;
mod recent;
mod scan;
mod writer;

pub use config::Config;
pub use record::Record;
pub use scan::{Direction, Scan};
pub use wire::crc32;

use crate::base::{Clock, Selection, Stop};
use crate::model::{Sample, TagName, Timestamp};
use archive::Archive;
use pending::Pending;
use recent::Recent;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

#[derive(Clone)]
pub struct Store(Arc<Shared>);

/// What `[history]` asks for, for those who write it and those who read it.
#[derive(Clone)]
pub struct History {
    pub store: Store,
    pub pictures: pictures::Pictures,
    /// Whose samples are kept.
    pub tags: Selection,
    /// Whose pictures are kept.
    pub cameras: Selection,
    pub snapshot_interval: Option<std::time::Duration>,
}

impl History {
    /// In the folder `history` below `data_dir`.
    pub fn new(config: &Config, data_dir: &std::path::Path, clock: Clock) -> Self {
        let folder = data_dir.join("history");
        Self {
            pictures: pictures::Pictures::new(config, &folder),
            tags: config.tags(),
            cameras: config.cameras(),
            snapshot_interval: config.snapshot_interval,
            store: Store::new(config.clone(), folder, clock),
        }
    }
}

pub(crate) struct Shared {
    folder: PathBuf,
    config: Config,
    clock: Clock,
    pending: Mutex<Pending>,
    /// Signalled when much is pending.
    filled: Condvar,
    recent: Mutex<Recent>,
    /// While it is open.
    archive: Mutex<Option<Arc<Archive>>>,
    state: Mutex<State>,
    /// Bytes written to files since the start.
    written: Arc<AtomicU64>,
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
            archive: Mutex::default(),
            state: Mutex::default(),
            written: Arc::default(),
        }))
    }

    /// Writes until the stop, and what is pending after that.
    pub fn run(&self, stop: &Stop) {
        writer::run(self.0.clone(), stop);
    }

    /// Takes samples in. Never waits; what does not fit is counted as lost.
    pub fn append<'a>(&self, samples: impl Iterator<Item = (&'a TagName, &'a Sample)>) {
        let mut pending = self.0.pending();
        for (tag, sample) in samples {
            pending.push(tag.clone(), sample.into());
        }
        if pending.is_much() {
            self.0.filled.notify_one();
        }
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
mod tests;
