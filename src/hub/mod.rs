//! The only owner of current values.
//!
//!     source ── publish(batch) ──► table ──┬─► Latest: which tags changed since you last asked   (may skip)
//!        ▲                                 └─► Every: each batch as it came                       (counts what it loses)
//!        └── WriteRequest ◄── write(tag, value) ◄── sink
//!
//! - [`Hub`] is a cheap handle; all of them see one table. Tags are registered by the source that owns them, with
//!   [`Hub::register`], and stay registered while the process lives: a source that ends leaves its tags behind, bad.
//! - [`frames`] is the same for pictures: leased on demand, latest wins.
//!
//! Invariants: a publish never waits for a sink. The table's lock is held for the copy of a batch and never across an
//! await. A tag's samples reach every reader in the order in which they were published. A write is answered once,
//! by the owner or by the hub on its behalf.

mod every;
pub mod frames;
mod latest;
mod table;

pub use every::Every;
pub use latest::Latest;
pub use table::{RegisterError, Registration, WriteRequest};

use crate::base::Clock;
use crate::model::{Quality, Sample, Status, TagId, TagName, TagSpec, Timestamp, Value};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use table::Table;
use tokio::sync::{oneshot, watch};

/// How long the owner of a tag may take to answer a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    clock: Clock,
    table: RwLock<Table>,
    latest: Mutex<Vec<std::sync::Weak<latest::Marks>>>,
    every: Mutex<Vec<every::Tap>>,
    /// Counts registrations, so that sinks see new tags and cameras.
    structure: watch::Sender<u64>,
    cameras: RwLock<Vec<frames::Camera>>,
}

impl Hub {
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            clock,
            table: RwLock::default(),
            latest: Mutex::default(),
            every: Mutex::default(),
            structure: watch::Sender::new(0),
            cameras: RwLock::default(),
        }))
    }

    /// Now, by the device's clock.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now().into()
    }

    /// Makes the caller the owner of these tags: it publishes their values and answers writes to them. Until its
    /// first sample a tag is BadWaitingForInitialData.
    pub fn register(&self, owner: &str, specs: Vec<TagSpec>) -> Result<Registration, RegisterError> {
        let now = self.now();
        let registration = self.write_table().register(self.clone(), owner, specs, now)?;
        self.mark(registration.tags());
        self.0.structure.send_modify(|count| *count += 1);
        Ok(registration)
    }

    /// Takes in a batch. Samples of one tag must be in order; tags may be mixed.
    pub fn publish(&self, batch: Vec<Sample>) {
        if batch.is_empty() {
            return;
        }
        {
            let mut table = self.write_table();
            for sample in &batch {
                table.store(sample);
            }
            // Still under the table's lock, so that readers see batches in the order of the table.
            every::offer(&mut lock(&self.0.every), batch.as_slice());
        }
        latest::mark(&mut lock(&self.0.latest), batch.iter().map(|sample| sample.tag));
    }

    /// Sets the quality of tags and keeps their values, as for a device that is lost.
    pub fn degrade(&self, tags: &[TagId], quality: &Quality) {
        let now = self.now();
        let batch = {
            let table = self.read_table();
            let degraded = |&tag: &TagId| Sample {
                quality: quality.clone(),
                source_time: Some(now),
                server_time: now,
                ..table.current(tag).clone()
            };
            tags.iter().map(degraded).collect()
        };
        self.publish(batch);
    }

    /// The current sample of a tag.
    pub fn read(&self, tag: TagId) -> Sample {
        self.read_table().current(tag).clone()
    }

    /// The current samples of many tags, in their order, under one lock.
    pub fn read_many(&self, tags: &[TagId]) -> Vec<Sample> {
        let table = self.read_table();
        tags.iter().map(|&tag| table.current(tag).clone()).collect()
    }

    pub fn find(&self, name: &TagName) -> Option<TagId> {
        self.read_table().find(name)
    }

    pub fn spec(&self, tag: TagId) -> Arc<TagSpec> {
        self.read_table().spec(tag)
    }

    /// All tags from the `first`-th on, in the order of their registration.
    pub fn tags_from(&self, first: usize) -> Vec<(TagId, Arc<TagSpec>)> {
        self.read_table().specs_from(first)
    }

    /// Changes when tags or cameras were added.
    pub fn structure(&self) -> watch::Receiver<u64> {
        self.0.structure.subscribe()
    }

    /// For sinks that want the newest value of each tag and may skip those between.
    pub fn latest(&self) -> Latest {
        let latest = Latest::new();
        latest::subscribe(&mut lock(&self.0.latest), &latest);
        latest
    }

    /// For sinks that want each sample. Holds `capacity` batches; a reader that falls behind further loses whole
    /// batches, and [`Every::lost`] counts their samples.
    pub fn every(&self, capacity: usize) -> Every {
        every::subscribe(&mut lock(&self.0.every), capacity)
    }

    /// Asks the owner of a tag to set it, and waits for the answer: `Ok`, or why not. The new value comes back as a
    /// sample, if and when the owner publishes it.
    pub async fn write(&self, tag: TagId, value: Value) -> Result<(), Quality> {
        let (owner, spec) = {
            let table = self.read_table();
            (table.owner(tag), table.spec(tag))
        };
        check_writable(&spec, &value)?;
        let (reply, answer) = oneshot::channel();
        let request = WriteRequest { tag, value, reply };
        let exchange = async {
            owner.send(request).await.map_err(|_| gone(&spec))?;
            answer.await.map_err(|_| gone(&spec))?
        };
        match tokio::time::timeout(WRITE_TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Quality::new(Status::BAD_TIMEOUT, "the source did not answer the write in 10 s")),
        }
    }

    fn mark(&self, tags: &[TagId]) {
        latest::mark(&mut lock(&self.0.latest), tags.iter().copied());
    }

    fn read_table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.0.table.read().expect("no code that holds the table panics")
    }

    fn write_table(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.0.table.write().expect("no code that holds the table panics")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no code that holds this lock panics")
}

fn gone(spec: &TagSpec) -> Quality {
    Quality::new(Status::BAD_NO_COMMUNICATION, format!("the source of {} has ended", spec.name))
}

fn check_writable(spec: &TagSpec, value: &Value) -> Result<(), Quality> {
    if !spec.writable {
        return Err(Quality::new(Status::BAD_NOT_WRITABLE, format!("{} is read-only", spec.name)));
    }
    if value.data_type() != Some(spec.data_type) || value.is_array() != spec.is_array {
        let found = value.data_type().map_or("nothing".to_owned(), |t| t.to_string());
        let reason = format!("{} is of type {}, not {found}", spec.name, spec.data_type);
        return Err(Quality::new(Status::BAD_TYPE_MISMATCH, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
