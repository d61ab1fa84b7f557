//! The only owner of current values.
//!
//!     source ── publish(batch) ──► table ──┬─► Latest: which tags changed since you last asked   (may skip)
//!        ▲                                 └─► Every: each batch as it came                       (counts what it loses)
//!        └── Request ◄── write(tag, value), refresh(tags) ◄── sink
//!
//! - [`Hub`] is a cheap handle; all of them see one table. Tags are registered by the source that owns them, with
//!   [`Hub::register`]. A source that ends leaves its tags behind, bad, until another registers them anew under their old
//!   ids, perhaps with another type, or until they are retired ([`Hub::retire`]) and there for nobody.
//! - [`frames`] is the same for pictures: leased on demand, latest wins.
//! - [`Hub::raise`] says that something happened; [`Events`] is for those who pass that on, and
//!   [`Hub::set_condition`] that something is off normal, or no longer.
//! - [`Hub::ask`] asks whoever took [`Hub::demands`] for something that is about the device itself.
//! - [`Hub::sources`] says which sources there are and which of them are lost.
//!
//! Invariants: a publish never waits for a sink. The table's lock is held for the copy of a batch and never across an
//! await. A tag's samples reach every reader in the order in which they were published. A write is answered once,
//! by the owner or by the hub on its behalf.
//!
//! Most values change when their source says so. A tag whose value can change without that (a register of a device that
//! only a read shows) is called live, and whoever wants its value now, or goes on wanting it, asks for a refresh.

mod commands;
mod conditions;
mod events;
mod every;
pub mod frames;
mod latest;
mod sources;
mod table;

pub use commands::{Apply, Demand, DeviceRequest, News, Outcome, Report, Update};
pub use conditions::{Act, ActError};
pub use events::Events;
pub use every::Every;
pub use latest::Latest;
pub use sources::{Running, SourceState};
pub use table::{RegisterError, Registration, Request, TagChange, WriteRequest};

use crate::base::Clock;
use crate::model::{DataType, Quality, Sample, Status, TagId, TagName, TagSpec, Timestamp, Value};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use table::Table;
use tokio::sync::{oneshot, watch};

/// How long the owner of a tag may take to answer a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the owners of live tags may take to publish new samples; after that a reader takes what there is.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);
/// The resolution of timestamps.
const TICK: Duration = Duration::from_nanos(100);

#[derive(Clone)]
pub struct Hub(Arc<Inner>);

/// Everything as it is at one moment.
pub struct Moment {
    /// The number of the last batch that is in it.
    pub mark: u64,
    /// In the order of their ids.
    pub tags: Vec<(TagId, Arc<TagSpec>)>,
    /// The samples of `tags`, in their order.
    pub current: Vec<Sample>,
}

struct Inner {
    clock: Clock,
    table: RwLock<Table>,
    latest: Mutex<Vec<std::sync::Weak<latest::Marks>>>,
    registered: Mutex<Vec<std::sync::Weak<latest::Marks>>>,
    every: Mutex<Vec<every::Tap>>,
    /// Counts what readers must know of tags and cameras that come and go.
    structure: watch::Sender<u64>,
    cameras: RwLock<Vec<frames::Camera>>,
    log: events::Log,
    conditions: Mutex<Vec<conditions::Row>>,
    sources: Mutex<BTreeMap<Arc<str>, SourceState>>,
    sources_changed: watch::Sender<u64>,
    desk: commands::Desk,
}

impl Hub {
    pub fn new(clock: Clock) -> Self {
        let log = events::Log::new(clock.now().into());
        Self(Arc::new(Inner {
            clock,
            log,
            table: RwLock::default(),
            latest: Mutex::default(),
            registered: Mutex::default(),
            every: Mutex::default(),
            structure: watch::Sender::new(0),
            cameras: RwLock::default(),
            conditions: Mutex::default(),
            sources: Mutex::default(),
            sources_changed: watch::Sender::new(0),
            desk: commands::Desk::default(),
        }))
    }

    /// Now, by the device's clock.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now().into()
    }

    /// Makes the caller the owner of these tags: it publishes their values and answers writes to them. Until its
    /// first sample a tag is BadWaitingForInitialData.
    pub fn register(&self, owner: &str, specs: Vec<TagSpec>) -> Result<Registration, RegisterError> {
        let mut registration = Registration::new(self.clone(), owner);
        registration.extend(specs)?;
        Ok(registration)
    }

    /// Tells all readers of tags that were registered.
    fn announce(&self, tags: &[TagId], is_news: bool) {
        latest::mark(&mut lock(&self.0.latest), tags.iter().copied());
        latest::mark(&mut lock(&self.0.registered), tags.iter().copied());
        if is_news {
            self.0.structure.send_modify(|count| *count += 1);
        }
    }

    /// Takes away the tags, cameras and conditions whose owners have ended. Whoever still asks for one of them is told so.
    pub fn retire(&self) {
        self.retire_tags(|_| true);
        if self.retire_cameras(&gone_from_configuration()) {
            self.0.structure.send_modify(|count| *count += 1);
        }
        self.retire_conditions();
    }

    fn retire_tags(&self, is_one: impl Fn(TagId) -> bool) {
        let tags = self.write_table().retire(is_one);
        if !tags.is_empty() {
            self.degrade(&tags, &gone_from_configuration());
            self.0.structure.send_modify(|count| *count += 1);
        }
    }

    /// Takes in a batch. Samples of one tag must be in order; tags may be mixed.
    pub fn publish(&self, batch: Vec<Sample>) {
        if batch.is_empty() {
            return;
        }
        // Moved once, and shared by all readers.
        let batch: Arc<[Sample]> = batch.into();
        {
            let mut table = self.write_table();
            for sample in batch.iter() {
                table.store(sample);
            }
            // Still under the table's lock, so that readers see batches in the order of the table.
            every::offer(&mut lock(&self.0.every), table.next_mark(), &batch);
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

    /// Every tag with its current sample, and which batch was the last that is in there ([`Every::mark`]).
    pub fn read_all(&self) -> Moment {
        let table = self.read_table();
        let tags = table.specs();
        let current = tags.iter().map(|(tag, _)| table.current(*tag).clone()).collect();
        Moment { mark: table.mark(), tags, current }
    }

    pub fn find(&self, name: &TagName) -> Option<TagId> {
        self.read_table().find(name)
    }

    pub fn spec(&self, tag: TagId) -> Arc<TagSpec> {
        self.read_table().spec(tag)
    }

    /// All tags in the order of their first registration.
    pub fn tags(&self) -> Vec<(TagId, Arc<TagSpec>)> {
        self.read_table().specs()
    }

    /// What became of the tags since an earlier call, which gave the number `since`; 0 for all. And the number for the
    /// next call.
    pub fn tags_since(&self, since: u64) -> (u64, Vec<TagChange>) {
        self.read_table().since(since)
    }

    /// Changes when tags or cameras were added, became others or were taken away.
    pub fn structure(&self) -> watch::Receiver<u64> {
        self.0.structure.subscribe()
    }

    /// For sinks that want the newest value of each tag and may skip those between.
    pub fn latest(&self) -> Latest {
        let latest = Latest::new();
        latest::subscribe(&mut lock(&self.0.latest), &latest);
        latest
    }

    /// Tags that were registered, or of which something else became known: their current sample became another without
    /// being published, which those who read [`Hub::every`] are not told.
    pub fn registered(&self) -> Latest {
        let registered = Latest::new();
        latest::subscribe(&mut lock(&self.0.registered), &registered);
        registered
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
        let request = Request::Write(WriteRequest { tag, value, reply });
        let exchange = async {
            owner.send(request).await.map_err(|_| gone(&spec))?;
            answer.await.map_err(|_| gone(&spec))?
        };
        match tokio::time::timeout(WRITE_TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let reason = "the source did not answer the write in 10 s; whether it was written is not known";
                Err(Quality::new(Status::BAD_TIMEOUT, reason))
            }
        }
    }

    /// Brings those of the tags that are live up to date, as far as their samples are as old as `max_age`. Returns when
    /// their owners have published new ones, or after 2 s.
    pub async fn refresh(&self, tags: &[TagId], max_age: Duration) {
        let now = self.now();
        // A sample from after now was taken before the clock was set back.
        let fresh = now.saturating_sub(max_age).saturating_add(TICK)..=now;
        let owners = self.read_table().stale(tags, &fresh);
        if owners.is_empty() {
            return;
        }
        let exchanges = owners.into_iter().map(|(owner, tags)| async move {
            let (done, answer) = oneshot::channel();
            if owner.send(Request::Refresh { tags, done }).await.is_ok() {
                // Answered by dropping it.
                let _ = answer.await;
            }
        });
        // An owner that does not answer says so on its tags, sooner or later.
        let _ = tokio::time::timeout(REFRESH_TIMEOUT, join_all(exchanges)).await;
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

fn gone_from_configuration() -> Quality {
    Quality::new(Status::BAD_NODE_ID_UNKNOWN, "it is not in the configuration any more")
}

fn gone(spec: &TagSpec) -> Quality {
    Quality::new(Status::BAD_NO_COMMUNICATION, format!("the source of {} has ended", spec.name))
}

fn check_writable(spec: &TagSpec, value: &Value) -> Result<(), Quality> {
    if !spec.writable {
        return Err(Quality::new(Status::BAD_NOT_WRITABLE, format!("{} is read-only", spec.name)));
    }
    // Where the type is not known its owner has to judge.
    let fits = value.data_type() == Some(spec.data_type) && value.is_array() == spec.is_array;
    if !fits && spec.data_type != DataType::Variant {
        let found = value.data_type().map_or("nothing".to_owned(), |t| t.to_string());
        let reason = format!("{} is of type {}, not {found}", spec.name, spec.data_type);
        return Err(Quality::new(Status::BAD_TYPE_MISMATCH, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
