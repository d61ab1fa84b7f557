//! The uplink's live stream: owed rows as they have been written, or could not be.
//!
//! Bounded by what its rows weigh. What does not fit is not given and stays owed, so the uplink finds it in the backlog.

use super::pending::weight;
use super::queue::Epoch;
use super::ranges::Ranges;
use crate::model::{Sample, TagName};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// What waits for the uplink, about a second of the fastest plant; bytes, about.
const MOST_BYTES: usize = 16 << 20;
/// A row without its value.
const ROW: usize = 128;
/// One for each commit, which come once a second or when there is much.
const BATCHES: usize = 1024;

/// An owed row.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// To settle it with.
    pub number: u64,
    /// Of the batch of the hub that it came in.
    pub mark: u64,
    pub tag: TagName,
    pub sample: Sample,
}

/// Where owed rows come out, since the rewind that made it.
pub struct Tail {
    epoch: Epoch,
    batches: mpsc::Receiver<Vec<Live>>,
    waiting: Arc<AtomicUsize>,
}

pub(super) struct Outlet {
    batches: mpsc::Sender<Vec<Live>>,
    waiting: Arc<AtomicUsize>,
}

impl Tail {
    /// To take the backlog with.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What came with the next commit, in the order of arrival. `None` if the store has ended, or there is a newer tail.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<Live>> {
        let rows = self.batches.recv().await;
        rows.inspect(|rows| self.taken(rows))
    }

    /// What waits already.
    pub fn try_next(&mut self) -> Option<Vec<Live>> {
        let rows = self.batches.try_recv().ok();
        rows.inspect(|rows| self.taken(rows))
    }

    fn taken(&self, rows: &[Live]) {
        self.waiting.fetch_sub(rows.iter().map(bytes).sum(), Ordering::Relaxed);
    }
}

impl Outlet {
    pub(super) fn new(epoch: Epoch) -> (Self, Tail) {
        let (sender, batches) = mpsc::channel(BATCHES);
        let waiting = Arc::<AtomicUsize>::default();
        (Self { batches: sender, waiting: waiting.clone() }, Tail { epoch, batches, waiting })
    }

    /// Gives what fits, and says what that was.
    pub(super) fn offer(&self, mut rows: Vec<Live>) -> Ranges {
        let mut room = MOST_BYTES.saturating_sub(self.waiting.load(Ordering::Relaxed));
        let fits = |row: &Live| {
            let left = room.checked_sub(bytes(row));
            room = left.unwrap_or(room);
            left.is_some()
        };
        let count = rows.iter().map(fits).take_while(|fits| *fits).count();
        rows.truncate(count);
        if rows.is_empty() {
            return Ranges::default();
        }
        let given = rows.iter().map(|row| row.number..row.number + 1).collect();
        let bytes = rows.iter().map(bytes).sum();
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if self.batches.try_send(rows).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            return Ranges::default();
        }
        given
    }
}

fn bytes(row: &Live) -> usize {
    ROW + weight(&row.sample.value)
}
