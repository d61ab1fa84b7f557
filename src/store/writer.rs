//! The thread that writes: opens what there is, appends each group to the journal, seals full journals into the archive,
//! removes what is too old or too much.
//!
//!     closed ──open──► writing ──fault──► closed, as far as the fault goes; tried again at the next interval
//!
//! A fault is said once in the log and stands in [`State`](super::State) as long as it lasts.

use super::archive::{Archive, Counted, Debt, is_damage};
use super::journal::{self, Entry, Journal, Line};
use super::pending::Waiting;
use super::queue::Found;
use super::record::{Record, Row};
use super::tail::Live;
use super::{Shared, StoreError, lock};
use crate::base::Stop;
use crate::model::Timestamp;
use std::collections::BTreeMap;
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
/// While sealing fails a journal becomes so many times as large, and no larger.
const MOST_OVERDUE: u64 = 4;
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
    pub(super) journal: Option<Journal>,
    /// When the journal was begun.
    began: Instant,
    retained: Option<Instant>,
    /// What the archive says is owed, by generation, until the queue has it.
    debts: BTreeMap<u64, Found>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, journal: None, began: Instant::now(), retained: None, debts: BTreeMap::new() }
    }

    /// Until the interval is over, or much is pending. While there is a fault the disk is tried once in an interval, and what
    /// is much goes to the uplink without it.
    pub(super) fn wait(&self, stop: &Stop) {
        let until = Instant::now() + self.shared.config.commit_interval;
        let is_faulty = self.shared.state().is_writing == Some(false);
        let mut pending = self.shared.pending();
        while !stop.is_stopped() {
            if pending.is_much() && !is_faulty {
                return;
            }
            if pending.is_much() {
                drop(pending);
                self.offer_unwritten();
                pending = self.shared.pending();
            }
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
        match outcome {
            Ok(()) => {
                let mut state = self.shared.state();
                if state.is_writing == Some(false) {
                    info!("The history is written again.");
                }
                state.is_writing = Some(true);
            }
            Err(fault) => {
                self.offer_unwritten();
                let mut state = self.shared.state();
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
        // First, because what follows may fail again and again.
        let mut outcome = match self.retained.is_none_or(|at| at.elapsed() >= RETAIN) {
            true => self.retain(),
            false => Ok(()),
        };
        if self.is_full(MOST_OVERDUE) {
            outcome = outcome.and_then(|()| self.seal());
            if self.is_full(MOST_OVERDUE) {
                // What comes waits in memory, as if the disk were full.
                return outcome;
            }
        }
        self.append()?;
        outcome?;
        let is_old = self.began.elapsed() >= SEAL_AFTER && self.shared.recent().samples > 0;
        if self.is_full(1) || is_old { self.seal() } else { Ok(()) }
    }

    /// Whether the journal has so many times what it should have at most.
    fn is_full(&self, times: u64) -> bool {
        let has_bytes = self.journal.as_ref().is_some_and(|journal| journal.len() >= times * SEAL_BYTES);
        has_bytes || self.shared.recent().samples >= times * SEAL_SAMPLES
    }

    fn file_error(&self, source: io::Error) -> StoreError {
        StoreError::File { path: self.shared.folder.clone(), source }
    }

    /// Opens what is not open.
    fn open(&mut self) -> Result<(), StoreError> {
        if lock(&self.shared.archive).is_none() {
            fs::create_dir_all(&self.shared.folder).map_err(|error| self.file_error(error))?;
            let archive = self.open_archive()?;
            let opened = |error| self.archive_error(error);
            let series = archive.series().map_err(opened)?;
            let debts = archive.debts().map_err(opened)?.into_iter();
            let found = |debt: Debt| Found { end: debt.numbers.end(), debt, is_sealed: true, is_changed: false };
            let debts = debts.map(|(number, debt)| (number, found(debt))).collect();
            self.shared.queue().set_dropped(archive.dropped().map_err(opened)?.owed);
            let mut recent = self.shared.recent();
            series.iter().for_each(|(id, name)| recent.define(*id, name));
            drop(recent);
            // A sealing that was said to have failed may yet have reached the disk.
            let newest = archive.view().and_then(|view| view.newest()).map_err(opened)?;
            if let Some(sealed) = self.journal.take_if(|journal| newest >= Some(journal.generation)) {
                self.shared.queue().found_sealed(sealed.generation);
            }
            self.shared.set_archive(Some(archive));
            self.debts = debts;
            self.retained = None;
        }
        if self.journal.is_none() {
            let mut debts = self.debts.clone();
            self.journal = Some(self.open_journal(&mut debts)?);
            self.began = Instant::now();
            self.debts.clear();
            self.shared.queue().load(debts);
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
        self.shared.queue().forget_sealed();
        error!(error = %fault, kept = %aside.display(), "The history on disk is damaged; beginning a new one.");
        self.shared.state().last_error = Some(format!("{}: {fault}; moved to {}", path.display(), aside.display()));
        Ok(())
    }

    fn archive_error(&self, source: redb::Error) -> StoreError {
        StoreError::Archive { path: self.shared.folder.join(ARCHIVE), source: Box::new(source) }
    }

    /// Takes up the journal that was being written, or begins one.
    fn open_journal(&self, debts: &mut BTreeMap<u64, Found>) -> Result<Journal, StoreError> {
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
            Entry::Row(id, row) => {
                recent.push(id, &row);
                let Some(number) = row.owed else { return };
                let Found { debt, end, .. } = debts.entry(generation).or_default();
                if debt.numbers.is_empty() {
                    debt.since = row.record.server_time.ticks();
                }
                debt.numbers.insert(number..number + 1);
                *end = (*end).max(number + 1);
            }
            Entry::Settled(settled, numbers) => {
                if let Some(found) = debts.get_mut(&settled) {
                    found.debt.numbers = found.debt.numbers.without(&numbers);
                    found.is_changed = found.is_sealed;
                }
            }
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

    /// One frame with what is pending and what was settled.
    fn append(&mut self) -> Result<(), StoreError> {
        let Some(journal) = self.journal.as_mut() else { return Ok(()) };
        let (waiting, shed) = self.shared.pending().take();
        let generation = journal.generation;
        let mut queue = self.shared.queue();
        queue.shed(&shed);
        let settled = queue.take_unsaved();
        // What is neither wanted for the history nor owed any more needs no place on the disk.
        let number = |row: &Waiting| row.number.filter(|number| queue.is_owed_still(*number));
        let rows = waiting.iter().map(|row| (row, number(row)));
        let rows: Vec<_> = rows.filter(|(row, number)| row.is_kept || number.is_some()).collect();
        let base = rows.iter().find_map(|(_, number)| *number).map_or(0, |first| queue.base(generation, first));
        drop(queue);
        if rows.is_empty() && settled.is_empty() {
            return Ok(());
        }
        let mut recent = self.shared.recent();
        let lines = rows.into_iter().map(|(waiting, number)| {
            let owed = number.map(|number| number - base);
            let row = Row { record: Record::from(&waiting.sample), owed, is_kept: waiting.is_kept };
            let name = waiting.tag.as_str();
            Line { series: recent.id_or_new(name), name, row }
        });
        let lines: Vec<_> = lines.collect();
        drop(recent);
        match journal.append(&lines, &settled) {
            Ok(bytes) => {
                self.shared.written.fetch_add(bytes, Ordering::Relaxed);
                let mut recent = self.shared.recent();
                lines.iter().for_each(|line| recent.push(line.series, &line.row));
                drop(recent);
                let mut queue = self.shared.queue();
                let owed = |Row { record, owed, .. }: &Row| Some(((*owed)? + base, record.server_time.ticks()));
                queue.written(generation, lines.iter().filter_map(|line| owed(&line.row)));
                let count = lines.len() as u64;
                queue.offer(waiting.into_iter().filter_map(Waiting::into_live).collect());
                drop(queue);
                let mut state = self.shared.state();
                state.samples += count;
                state.bytes += bytes;
                Ok(())
            }
            Err(error) => {
                drop(lines);
                self.shared.pending().put_back(waiting);
                self.shared.queue().put_back_unsaved(&settled);
                Err(self.file_error(error))
            }
        }
    }

    /// Live data go on while nothing can be written. What the uplink has settled by now needs no room any more.
    fn offer_unwritten(&self) {
        let mut pending = self.shared.pending();
        let shed = pending.take_shed();
        pending.fresh = 0;
        let mut queue = self.shared.queue();
        queue.shed(&shed);
        pending.retain(|row| row.is_kept || row.number.is_some_and(|number| queue.is_owed_still(number)));
        let fresh = pending.iter().filter(|row| row.number.is_some_and(|number| queue.is_fresh(number)));
        let live: Vec<Live> = fresh.filter_map(|row| row.clone().into_live()).collect();
        queue.not_written(&live);
        queue.offer(live);
    }

    /// Moves the journal into the archive: what is kept, and what is still owed.
    pub(super) fn seal(&mut self) -> Result<(), StoreError> {
        let Some(generation) = self.journal.as_ref().map(|journal| journal.generation) else { return Ok(()) };
        let archive = self.shared.archive()?;
        let names: Vec<_> = {
            let recent = self.shared.recent();
            recent.series().into_iter().filter_map(|id| Some((id, recent.name(id)?))).collect()
        };
        let names: Vec<(u32, &str)> = names.iter().map(|(id, name)| (*id, &**name)).collect();
        let (debts, settled) = {
            let mut queue = self.shared.queue();
            (queue.debts(generation), queue.take_unsaved())
        };
        let owed = debts.iter().find(|(number, _)| *number == generation).map(|(_, debt)| &debt.numbers);
        let is_owed = |number: &u64| owed.is_some_and(|owed| owed.contains(*number));
        let rows = |series| {
            let mut rows =
                self.shared.recent().rows(series, |row| row.is_kept || row.owed.as_ref().is_some_and(is_owed));
            rows.iter_mut().for_each(|row| row.owed = row.owed.filter(is_owed));
            rows
        };
        let sealed = archive.seal(generation, &names, rows, &debts);
        if sealed.is_err() {
            self.shared.queue().put_back_unsaved(&settled);
        }
        self.checked(sealed)?;
        self.shared.queue().sealed(generation, &debts);
        self.journal = None;
        self.shared.recent().clear(generation + 1);
        self.open()?;
        self.retain()
    }

    fn retain(&mut self) -> Result<(), StoreError> {
        self.retain_within(self.shared.config.max_bytes.saturating_sub(RESERVE))
    }

    pub(super) fn retain_within(&mut self, max_bytes: u64) -> Result<(), StoreError> {
        let max_age = self.shared.config.max_age;
        let oldest = Timestamp::from(self.shared.clock.now()).saturating_sub(max_age);
        let archive = self.shared.archive()?;
        let is_young = |generation| self.shared.queue().is_young(generation, max_age);
        let surplus = archive.surplus(max_bytes, oldest.ticks(), is_young);
        let (gone, mut dropped) = self.checked(surplus)?;
        if !gone.is_empty() {
            let withdrawn = self.shared.queue().withdraw(&gone);
            dropped.owed = withdrawn.owed();
            let removed = archive.remove(&gone, dropped);
            let mut queue = self.shared.queue();
            match removed {
                Ok(()) => queue.dropped(&withdrawn),
                Err(_) => queue.restore(withdrawn),
            }
            drop(queue);
            self.checked(removed)?;
        }
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
