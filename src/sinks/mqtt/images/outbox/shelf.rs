//! Pictures as files, and how many were dropped.
//!
//!     <number>.picture    a picture, whole: it gets this name when it is written and synced. Numbers grow, also over restarts
//!     counters            how many were dropped ever, and which files were counted with that but may still be there
//!     *.new               half written; removed at the next opening
//!     damaged             the last picture that could not be read, moved aside
//!
//! A drop is counted first and removed after that. If the power goes between the two, the next opening removes what was
//! counted; so each drop counts once. What was sent is only removed: after a power cut it may come back and go again,
//! as QoS 1 allows.
//!
//! What the disk does not take now is tried again with the next call: nothing here gives up.

use super::disk::Disk;
use serde::{Deserialize, Serialize};
use std::io;
use tracing::warn;

const COUNTERS: &str = "counters";
const DAMAGED: &str = "damaged";
const NEW: &str = ".new";
/// No count gets that far; a name that says so is somebody else's.
const MOST: u64 = 1 << 62;

pub struct Shelf<D> {
    disk: D,
    /// The number of the next picture, once the folder was read.
    next: Option<u64>,
    dropped: u64,
    /// What is on the disk has another count.
    is_dropped_stale: bool,
    /// Dropped, and not yet counted on the disk.
    to_drop: Vec<u64>,
    /// Removed, but not surely: a power cut may bring them back.
    removed: Vec<u64>,
    /// Sent, but the disk did not let them be removed.
    to_remove: Vec<u64>,
}

/// What the folder had in it: the numbers of its pictures, in their order, and the bytes of each.
pub type Found = Vec<(u64, u64)>;

#[derive(Default, Serialize, Deserialize)]
struct Counters {
    dropped: u64,
    gone: Vec<u64>,
}

fn name(number: u64) -> String {
    format!("{number:016x}.picture")
}

fn number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(".picture")?, 16).ok()?;
    // Other ways to write a number are not ours.
    (self::name(number) == name && number < MOST).then_some(number)
}

impl<D: Disk> Shelf<D> {
    pub fn new(disk: D) -> Self {
        let (to_drop, removed, to_remove) = (Vec::new(), Vec::new(), Vec::new());
        Self { disk, next: None, dropped: 0, is_dropped_stale: false, to_drop, removed, to_remove }
    }

    pub fn is_open(&self) -> bool {
        self.next.is_some()
    }

    /// Pictures dropped, ever.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// To be called until it succeeds, and then no more.
    pub fn open(&mut self) -> io::Result<Found> {
        let files = self.disk.list()?;
        let counters = if files.iter().any(|(name, _)| name == COUNTERS) {
            let bytes = self.disk.read(COUNTERS)?;
            serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(%error, "How many pictures were dropped cannot be read any more; counting from 0.");
                Counters::default()
            })
        } else {
            Counters::default()
        };
        let mut found: Found = Vec::new();
        for (name, bytes) in files {
            match number(&name) {
                Some(number) if !counters.gone.contains(&number) => found.push((number, bytes)),
                Some(_) => self.disk.remove(&name)?,
                None if name.ends_with(NEW) => self.disk.remove(&name)?,
                None => {}
            }
        }
        found.sort_unstable();
        let last = found.iter().map(|(number, _)| number).chain(&counters.gone).filter(|number| **number < MOST).max();
        self.next = Some(last.map_or(0, |last| last + 1));
        self.dropped += counters.dropped;
        self.removed = counters.gone;
        Ok(found)
    }

    /// Keeps a picture, and says under which number. When it fails nothing is left of it.
    pub fn put(&mut self, parts: &[&[u8]]) -> io::Result<u64> {
        let number = self.next.ok_or_else(|| io::Error::other("the folder could not be read yet"))?;
        self.next = Some(number + 1);
        let (name, new) = (name(number), format!("picture{NEW}"));
        let outcome =
            self.disk.write(&new, parts).and_then(|()| self.disk.rename(&new, &name)).and_then(|()| self.disk.sync());
        if outcome.is_err() {
            // Half a file takes what room there may be.
            if self.disk.remove(&new).and_then(|()| self.disk.remove(&name)).is_err() {
                self.to_remove.push(number);
            }
        }
        outcome.map(|()| number)
    }

    pub fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        self.disk.read(&name(number))
    }

    /// It was sent.
    pub fn remove(&mut self, number: u64) -> io::Result<()> {
        self.disk.remove(&name(number)).inspect_err(|_| self.to_remove.push(number))
    }

    /// They will not be sent; `more` were in memory only.
    pub fn lose(&mut self, numbers: Vec<u64>, more: u64) -> io::Result<()> {
        self.dropped += numbers.len() as u64 + more;
        self.is_dropped_stale = true;
        self.to_drop.extend(numbers);
        self.settle()
    }

    /// It cannot be read: moved aside, and counted as dropped.
    pub fn put_aside(&mut self, number: u64) -> io::Result<()> {
        self.dropped += 1;
        self.is_dropped_stale = true;
        self.to_drop.push(number);
        self.clear()?;
        self.count()?;
        self.disk.rename(&name(number), DAMAGED)?;
        self.clear()
    }

    /// Does what the disk did not take before.
    pub fn settle(&mut self) -> io::Result<()> {
        // What was counted goes before more is counted, so that the list on the disk has all that may still be there.
        self.clear()?;
        self.count()?;
        self.clear()
    }

    fn count(&mut self) -> io::Result<()> {
        if !self.is_dropped_stale || !self.is_open() {
            return Ok(());
        }
        let gone = self.removed.iter().chain(&self.to_drop).copied().collect();
        let counters = serde_json::to_vec(&Counters { dropped: self.dropped, gone }).map_err(io::Error::other)?;
        let new = format!("{COUNTERS}{NEW}");
        self.disk.write(&new, &[&counters])?;
        self.disk.rename(&new, COUNTERS)?;
        self.disk.sync()?;
        self.is_dropped_stale = false;
        // What was removed before that sync stays removed.
        self.removed = std::mem::take(&mut self.to_drop);
        self.to_remove.extend_from_slice(&self.removed);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        while let Some(number) = self.to_remove.last() {
            self.disk.remove(&name(*number))?;
            self.to_remove.pop();
        }
        Ok(())
    }
}
