//! Delivery of each sample: batches through a bounded queue.
//!
//! The hub never waits for a reader. A reader that falls behind by more batches than its queue holds, or by more samples
//! than [`SAMPLES`], loses whole batches, newest first, and the count of their samples is kept for everybody to see.

use crate::model::Sample;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// What may wait for one reader, 16 MiB; a larger batch waits alone.
const SAMPLES: usize = 200_000;

/// A reader of each sample. Dropping it ends the delivery.
pub struct Every {
    batches: mpsc::Receiver<(u64, Arc<[Sample]>)>,
    counts: Arc<Counts>,
    mark: u64,
}

#[derive(Default)]
struct Counts {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

pub(super) struct Tap {
    batches: mpsc::Sender<(u64, Arc<[Sample]>)>,
    counts: Arc<Counts>,
}

impl Every {
    /// The next batch, in the order of publication. `None` if the hub is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<[Sample]>> {
        let batch = self.batches.recv().await;
        batch.map(|batch| self.taken(batch))
    }

    /// A batch that waits already, if there is one.
    pub fn try_next(&mut self) -> Option<Arc<[Sample]>> {
        let batch = self.batches.try_recv().ok();
        batch.map(|batch| self.taken(batch))
    }

    /// Samples lost so far because this reader was too slow.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// The number of the batch that was given out last, as the hub counts them: a moment of [`super::Hub::read_all`] has
    /// all batches up to its mark in it, and none behind that.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    fn taken(&mut self, (mark, batch): (u64, Arc<[Sample]>)) -> Arc<[Sample]> {
        self.counts.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
        self.mark = mark;
        batch
    }
}

pub(super) fn subscribe(taps: &mut Vec<Tap>, capacity: usize) -> Every {
    let (sender, batches) = mpsc::channel(capacity);
    let counts = Arc::<Counts>::default();
    taps.push(Tap { batches: sender, counts: counts.clone() });
    Every { batches, counts, mark: 0 }
}

pub(super) fn offer(taps: &mut Vec<Tap>, mark: u64, batch: &Arc<[Sample]>) {
    taps.retain(|tap| !tap.batches.is_closed());
    for Tap { batches, counts } in taps {
        let waiting = counts.waiting.fetch_add(batch.len(), Ordering::Relaxed);
        let has_room = waiting == 0 || waiting + batch.len() <= SAMPLES;
        if !has_room || batches.try_send((mark, batch.clone())).is_err() {
            counts.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            counts.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }
}
