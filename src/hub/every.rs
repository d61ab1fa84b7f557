//! Delivery of each sample: batches through a bounded queue.
//!
//! The hub never waits for a reader. A reader that falls behind by more batches than its queue holds loses whole
//! batches, newest first, and the count of their samples is kept for everybody to see.

use crate::model::Sample;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// A reader of each sample. Dropping it ends the delivery.
pub struct Every {
    batches: mpsc::Receiver<Arc<[Sample]>>,
    lost: Arc<AtomicU64>,
}

pub(super) struct Tap {
    batches: mpsc::Sender<Arc<[Sample]>>,
    lost: Arc<AtomicU64>,
}

impl Every {
    /// The next batch, in the order of publication. `None` if the hub is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<[Sample]>> {
        self.batches.recv().await
    }

    /// A batch that waits already, if there is one.
    pub fn try_next(&mut self) -> Option<Arc<[Sample]>> {
        self.batches.try_recv().ok()
    }

    /// Samples lost so far because this reader was too slow.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

pub(super) fn subscribe(taps: &mut Vec<Tap>, capacity: usize) -> Every {
    let (sender, batches) = mpsc::channel(capacity);
    let lost = Arc::new(AtomicU64::new(0));
    taps.push(Tap { batches: sender, lost: lost.clone() });
    Every { batches, lost }
}

pub(super) fn offer(taps: &mut Vec<Tap>, batch: &[Sample]) {
    taps.retain(|tap| !tap.batches.is_closed());
    if taps.is_empty() {
        return;
    }
    let shared: Arc<[Sample]> = batch.into();
    for tap in taps {
        if tap.batches.try_send(shared.clone()).is_err() {
            tap.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }
}
