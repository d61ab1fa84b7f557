//! Pictures that wait for the broker: each a file until it has arrived there, the oldest first, within `image_bytes`.
//!
//!     put(picture) ─► file, synced ─► index ─► next(): read, on its way ─► arrived(): removed
//!                       │ over budget: the oldest    ▲                          │
//!                       └──────────► counted         └──────── rewind() ◄── line lost
//!
//! `disk` is the folder, `shelf` its files, `file` what is in one, `index` what waits; [`keeper`] puts these together and waits
//! for the disk, and [`Outbox`] is the handle that does not.
//!
//! Invariants: every picture that was put has arrived, or waits, or is counted as dropped, also over restarts; only what
//! the disk did not take is lost with the power. While the disk takes nothing the newest pictures wait in memory
//! ([`keeper::MEMORY`]), and become files when it does again. A picture's bytes are in memory only while it is put or sent.

mod disk;
mod file;
mod index;
mod keeper;
mod shelf;

use crate::sinks::mqtt::images::Snap;
use disk::Folder;
use keeper::{Keeper, Loaded};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// How often a disk that failed is tried when there is no picture to try it with.
const RETRY: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    keeper: Arc<Keeper<Folder>>,
    /// There may be something to send.
    filled: Notify,
    /// A picture that is being read. Kept here, so that [`Outbox::next`] goes on with it when it was dropped and asked again.
    loading: Mutex<Option<JoinHandle<Loaded>>>,
}

/// A picture that is to be sent now.
#[derive(Clone, Debug, PartialEq)]
pub struct Queued {
    /// For [`Outbox::arrived`].
    pub id: u64,
    pub snap: Snap,
    /// It was taken before the present connection.
    pub is_historical: bool,
}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Pictures that have not arrived.
    pub waiting: u64,
    /// What they take.
    pub bytes: u64,
    /// Because of `image_bytes`, or because they could not be read or kept, or because the broker does not take them; ever.
    pub dropped: u64,
    /// That have arrived, since the start.
    pub sent: u64,
    /// Why nothing can be kept on the disk.
    pub fault: Option<Arc<str>>,
}

impl Outbox {
    /// Reads what waits in the folder. If the disk cannot be used it is tried again later.
    pub async fn open(folder: PathBuf, budget: u64) -> Self {
        let keeper = Arc::new(Keeper::new(Folder(folder), budget));
        let outbox = Self(Arc::new(Inner { keeper, filled: Notify::new(), loading: Mutex::new(None) }));
        outbox.tend_once().await;
        outbox
    }

    /// Returns when the picture is kept, on the disk if that is possible.
    pub async fn put(&self, snap: Snap) {
        self.blocking(move |keeper| keeper.put(snap)).await;
        self.0.filled.notify_one();
    }

    /// The oldest picture that is not on its way, which it is from now on. One task at a time. Cancel safe.
    pub async fn next(&self) -> Queued {
        let mut loading = self.0.loading.lock().await;
        loop {
            let loaded = match &mut *loading {
                Some(task) => task.await.expect("reading a picture does not panic"),
                None if self.0.keeper.has_next() => {
                    let keeper = self.0.keeper.clone();
                    *loading = Some(tokio::task::spawn_blocking(move || keeper.load()));
                    continue;
                }
                None => {
                    self.0.filled.notified().await;
                    continue;
                }
            };
            *loading = None;
            if let Some((id, snap)) = loaded
                && let Some(is_historical) = self.0.keeper.begin(id)
            {
                return Queued { id, snap, is_historical };
            }
        }
    }

    /// The broker has it.
    pub fn arrived(&self, id: u64) {
        if let Some(number) = self.0.keeper.arrived(id) {
            let keeper = self.0.keeper.clone();
            tokio::task::spawn_blocking(move || keeper.remove(number));
        }
    }

    /// The broker does not take it. It is counted as dropped.
    pub fn refuse(&self, id: u64) {
        let keeper = self.0.keeper.clone();
        tokio::task::spawn_blocking(move || keeper.refuse(id));
    }

    /// It could not be sent now; [`Outbox::next`] gives it again.
    pub fn release(&self, id: u64) {
        self.0.keeper.release(id);
        self.0.filled.notify_one();
    }

    /// To be called when the line is up, before anything else is sent: what was on its way goes again, and what there is
    /// counts as history.
    pub fn rewind(&self) {
        self.0.keeper.rewind();
        self.0.filled.notify_one();
    }

    pub fn state(&self) -> State {
        self.0.keeper.state()
    }

    /// Tries a disk that failed, for ever.
    pub async fn tend(&self) {
        let mut ticks = tokio::time::interval(RETRY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.0.keeper.is_faulty() {
                self.tend_once().await;
            }
        }
    }

    /// Returns when the disk has what it was given, so that another may open the folder.
    pub async fn settle(&self) {
        self.tend_once().await;
    }

    async fn tend_once(&self) {
        self.blocking(Keeper::tend).await;
        self.0.filled.notify_one();
    }

    /// What was begun is finished also if nobody waits for it any more.
    async fn blocking(&self, work: impl FnOnce(&Keeper<Folder>) + Send + 'static) {
        let keeper = self.0.keeper.clone();
        tokio::task::spawn_blocking(move || work(&keeper)).await.expect("keeping pictures does not panic");
    }
}

#[cfg(test)]
mod tests;
