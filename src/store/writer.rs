//! The thread that writes: opens what there is, appends each group to the journal, seals full journals into the archive,
//! removes what is too old or too much.
//!
//!     closed ──open──► writing ──fault──► closed, as far as the fault goes; tried again at the next interval
//!
//! A fault is said once in the log and stands in [`State`](super::State) as long as it lasts.

use super::archive::{Archive, Counted, is_damage};
use super::journal::{self, Entry, Journal, Row};
use super::{Shared, StoreError, lock};
use crate::base::Stop;
use crate::model::Timestamp;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// A journal that has so many bytes or samples, or is so old, is sealed. Its samples are in memory until then.
const SEAL_BYTES: u64 = 1 << 20;
const SEAL_SAMPLES: u64 = 32_768;
const SEAL_AFTER: Duration = Duration::from_secs(3600);
/// How often it is looked for what is too old.
const RETAIN: Duration = Duration::from_secs(60);
/// A stop is noticed after this at the latest.
const SLICE: Duration = Duration::from_millis(100);
/// What journal and a transaction under way take of `max_bytes`.
const RESERVE: u64 = 4 << 20;

pub(super) const ARCHIVE: &str = "archive.redb";

pub(super) fn run(shared: Arc<Shared>, stop: &Stop) {
    let mut writer = Writer::new(shared.clone());
    while !stop.is_stopped() {
        writer.tick();
        writer.wait(stop);
    }
    writer.tick();
    // Another store may take up the files.
    shared.set_archive(None);
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    journal: Option<Journal>,
    /// When the journal was begun.
    began: Instant,
    retained: Option<Instant>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, journal: None, began: Instant::now(), retained: None }
    }

    /// Until the interval is over, or much is pending.
    fn wait(&self, stop: &Stop) {
        let until = Instant::now() + self.shared.config.commit_interval;
        let mut pending = self.shared.pending();
        let faulty = self.shared.state().is_writing == Some(false);
        while !stop.is_stopped() && (faulty || !pending.is_much()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.filled.wait_timeout(pending, left.min(SLICE));
            pending = waited.expect("no code that holds this lock panics").0;
        }
    }

    /// Writes what is pending, and says how that went.
    pub(super) fn tick(&mut self) {
        let outcome = self.write();
        let mut state = self.shared.state();
        match outcome {
            Ok(()) => {
                if state.is_writing == Some(false) {
                    info!("The history is written again.");
                }
                state.is_writing = Some(true);
            }
            Err(fault) => {
                let reason = fault.to_string();
                if state.is_writing != Some(false) || state.last_error.as_ref() != Some(&reason) {
                    error!(error = %reason, "The history cannot be written; the newest samples wait in memory.");
                }
                state.is_writing = Some(false);
                state.last_error = Some(reason);
            }
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.open()?;
        self.append()?;
        let is_full = self.journal.as_ref().is_some_and(|journal| journal.len() >= SEAL_BYTES);
        let samples = self.shared.recent().samples;
        if is_full || samples >= SEAL_SAMPLES || (samples > 0 && self.began.elapsed() >= SEAL_AFTER) {
            self.seal()?;
        }
        if self.retained.is_none_or(|at| at.elapsed() >= RETAIN) {
            self.retain()?;
        }
        Ok(())
    }

    fn file_error(&self, source: io::Error) -> StoreError {
        StoreError::File { path: self.shared.folder.clone(), source }
    }

    /// Opens what is not open.
    fn open(&mut self) -> Result<(), StoreError> {
        if lock(&self.shared.archive).is_none() {
            fs::create_dir_all(&self.shared.folder).map_err(|error| self.file_error(error))?;
            let archive = self.open_archive()?;
            let series = archive.series().map_err(|error| self.archive_error(error))?;
            let mut recent = self.shared.recent();
            series.iter().for_each(|(id, name)| recent.define(*id, name));
            drop(recent);
            // A sealing that was said to have failed may yet have reached the disk.
            let newest = archive.view().and_then(|view| view.newest()).map_err(|error| self.archive_error(error))?;
            self.journal =
                self.journal.take().filter(|journal| newest.is_none_or(|newest| newest < journal.generation));
            self.shared.set_archive(Some(archive));
            self.retained = None;
        }
        if self.journal.is_none() {
            self.journal = Some(self.open_journal()?);
            self.began = Instant::now();
        }
        Ok(())
    }

    /// A file that is damaged is moved aside, and a new one begun.
    fn open_archive(&self) -> Result<Archive, StoreError> {
        let path = self.shared.folder.join(ARCHIVE);
        let open = || -> Result<Archive, redb::Error> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let inner = redb::backends::FileBackend::new(file)?;
            Archive::open(Counted { inner, written: self.shared.written.clone() })
        };
        // A file that is no database at all can make redb panic.
        let opened = catch_unwind(AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(redb::Error::Corrupted("it makes the reader fail".into())));
        match opened {
            Err(fault) if is_damage(&fault) => {
                self.move_aside(&fault)?;
                open().map_err(|error| self.archive_error(error))
            }
            other => other.map_err(|error| self.archive_error(error)),
        }
    }

    fn move_aside(&self, fault: &redb::Error) -> Result<(), StoreError> {
        let path = self.shared.folder.join(ARCHIVE);
        let aside = path.with_extension("redb.damaged");
        fs::rename(&path, &aside).map_err(|error| self.file_error(error))?;
        error!(error = %fault, kept = %aside.display(), "The history on disk is damaged; beginning a new one.");
        self.shared.state().last_error = Some(format!("{}: {fault}; moved to {}", path.display(), aside.display()));
        Ok(())
    }

    fn archive_error(&self, source: redb::Error) -> StoreError {
        StoreError::Archive { path: self.shared.folder.join(ARCHIVE), source: Box::new(source) }
    }

    /// Takes up the journal that was being written, or begins one.
    fn open_journal(&self) -> Result<Journal, StoreError> {
        let folder = &self.shared.folder;
        let newest = self.shared.archive()?.view().and_then(|view| view.newest());
        let newest = newest.map_err(|error| self.archive_error(error))?;
        let mut found = journal::list(folder).map_err(|error| self.file_error(error))?;
        while let Some(sealed) = found.first().copied().filter(|first| Some(*first) <= newest) {
            journal::remove(folder, sealed).map_err(|error| self.file_error(error))?;
            found.remove(0);
        }
        let mut recent = self.shared.recent();
        let Some(generation) = found.first().copied() else {
            let next = newest.map_or(0, |newest| newest + 1);
            recent.clear(next);
            return Journal::create(folder, next).map_err(|error| self.file_error(error));
        };
        recent.clear(generation);
        let each = |entry: Entry<'_>| match entry {
            Entry::Series(id, name) => recent.define(id, name),
            Entry::Row(id, record) => recent.push(id, &record),
        };
        let (journal, torn) = Journal::recover(folder, generation, each).map_err(|error| self.file_error(error))?;
        if torn > 0 {
            warn!(
                bytes = torn,
                samples = recent.samples,
                "The end of the history's journal was cut off; going on before it."
            );
        }
        Ok(journal)
    }

    fn append(&mut self) -> Result<(), StoreError> {
        let samples = self.shared.pending().take();
        let Some(journal) = self.journal.as_mut().filter(|_| !samples.is_empty()) else { return Ok(()) };
        let mut recent = self.shared.recent();
        let rows = samples.iter().map(|(tag, record)| Row {
            series: recent.id_or_new(tag.as_str()),
            name: tag.as_str(),
            record: record.clone(),
        });
        let rows: Vec<_> = rows.collect();
        drop(recent);
        match journal.append(&rows) {
            Ok(bytes) => {
                self.shared.written.fetch_add(bytes, Ordering::Relaxed);
                let mut recent = self.shared.recent();
                rows.iter().for_each(|row| recent.push(row.series, &row.record));
                drop(recent);
                let mut state = self.shared.state();
                state.samples += rows.len() as u64;
                state.bytes += bytes;
                Ok(())
            }
            Err(error) => {
                drop(rows);
                self.shared.pending().put_back(samples);
                Err(self.file_error(error))
            }
        }
    }

    /// Moves the journal into the archive.
    pub(super) fn seal(&mut self) -> Result<(), StoreError> {
        let Some(generation) = self.journal.as_ref().map(|journal| journal.generation) else { return Ok(()) };
        let archive = self.shared.archive()?;
        let names: Vec<_> = {
            let recent = self.shared.recent();
            recent.series().into_iter().filter_map(|id| Some((id, recent.name(id)?))).collect()
        };
        let names: Vec<(u32, &str)> = names.iter().map(|(id, name)| (*id, &**name)).collect();
        let sealed = archive.seal(generation, &names, |series| self.shared.recent().records(series, |_| true));
        self.checked(sealed)?;
        self.journal = None;
        self.shared.recent().clear(generation + 1);
        self.journal = Some(self.open_journal()?);
        self.began = Instant::now();
        self.retain()
    }

    fn retain(&mut self) -> Result<(), StoreError> {
        let config = &self.shared.config;
        let oldest = Timestamp::from(self.shared.clock.now()).saturating_sub(config.max_age);
        let archive = self.shared.archive()?;
        let retained = archive.retain(config.max_bytes.saturating_sub(RESERVE), oldest.ticks());
        self.checked(retained)?;
        let (dropped, generations) = (self.checked(archive.dropped())?, self.checked(archive.generations())?);
        let archived: u64 = generations.iter().map(|(_, meta)| meta.samples).sum();
        let samples = archived + self.shared.recent().samples;
        // What it takes: its length is a power of two, and what was never written takes nothing.
        let file = fs::metadata(self.shared.folder.join(ARCHIVE)).map_or(0, |meta| meta.blocks() * 512);
        let bytes = file + self.journal.as_ref().map_or(0, Journal::len);
        let mut state = self.shared.state();
        state.samples = samples;
        state.bytes = bytes;
        (state.dropped_by_bytes, state.dropped_by_age) = (dropped.by_bytes, dropped.by_age);
        self.retained = Some(Instant::now());
        Ok(())
    }

    /// An archive that failed is closed, to be opened anew; one that is damaged is moved aside.
    fn checked<T>(&self, outcome: Result<T, redb::Error>) -> Result<T, StoreError> {
        outcome.map_err(|fault| {
            self.shared.set_archive(None);
            if is_damage(&fault)
                && let Err(error) = self.move_aside(&fault)
            {
                return error;
            }
            self.archive_error(fault)
        })
    }
}
