//! The recorder: each sample of the tags that `[history]` names goes to the store, and how the store is becomes tags.
//!
//!     hub ── every sample ──► recorder ──► store
//!                                └──► pictures, each `snapshot_interval`
//!     hub ◄── store/State, store/Samples ...
//!
//! Tags `store/...`: how the store is, once a second. A store that cannot write has the reason as its State.

use crate::base::Stop;
use crate::hub::frames::Camera;
use crate::hub::{Every, Hub, RegisterError, Registration};
use crate::model::{DataType, EventKind, Sample, TagId, TagName, TagNameError, TagSpec, Value};
use crate::store::{History, State};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tracing::warn;

/// Seconds of a plant, while the store's thread has the processor. When it is full the hub drops and counts.
const BATCHES: usize = 1024;
const STATUS: Duration = Duration::from_secs(1);
/// How long a camera may take for a picture that nobody waits for.
const SNAPSHOT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// With its tags registered.
pub struct Recorder {
    hub: Hub,
    history: History,
    /// Taken at once, so that nothing that comes before the task runs is missed.
    every: tokio::sync::Mutex<Every>,
    status: Mutex<Status>,
}

struct Status {
    tags: Registration,
    last: Option<Vec<Value>>,
    lost: u64,
}

fn specs() -> Result<Vec<TagSpec>, TagNameError> {
    let spec = |name: &str, data_type, unit: &str, description: &str| {
        let name = TagName::new(&format!("store/{name}"))?;
        Ok(TagSpec::new(name, data_type).unit(unit).described(description))
    };
    // In the order of `values`.
    Ok(vec![
        spec("State", DataType::String, "", "\"writing\", \"opening\", or why nothing can be written")?,
        spec("LastError", DataType::String, "", "The last fault since the start; empty if there was none")?,
        spec("Samples", DataType::UInt64, "", "Samples in the history")?,
        spec("Bytes", DataType::UInt64, "B", "What they take on the disk")?,
        spec("BytesWritten", DataType::UInt64, "B", "Written to the disk since the start")?,
        spec("DroppedByBytes", DataType::UInt64, "", "Samples removed because of max_bytes, ever")?,
        spec("DroppedByAge", DataType::UInt64, "", "Samples removed because of max_age, ever")?,
        spec("Lost", DataType::UInt64, "", "Samples that could not be written, since the start")?,
    ])
}

fn values(state: &State, lost: u64) -> Vec<Value> {
    let word = match state.is_writing {
        None => "opening",
        Some(true) => "writing",
        Some(false) => state.last_error.as_deref().unwrap_or("faulty"),
    };
    let error = state.last_error.as_deref().unwrap_or("");
    let numbers = [
        state.samples,
        state.bytes,
        state.bytes_written,
        state.dropped_by_bytes,
        state.dropped_by_age,
        state.lost + lost,
    ];
    let texts = [word, error].map(Value::string);
    texts.into_iter().chain(numbers.map(Value::UInt64)).collect()
}

impl Recorder {
    pub fn register(history: History, hub: &Hub) -> Result<Self, RecorderError> {
        let status = Status { tags: Self::register_tags(hub)?, last: None, lost: 0 };
        let every = tokio::sync::Mutex::new(hub.every(BATCHES));
        Ok(Self { hub: hub.clone(), history, every, status: Mutex::new(status) })
    }

    /// Its tags alone: whether it could have them.
    pub fn register_tags(hub: &Hub) -> Result<Registration, RecorderError> {
        Ok(hub.register("store", specs()?)?)
    }

    /// Until the stop.
    pub async fn run(&self, stop: &Stop) {
        tokio::select! {
            () = self.record() => {}
            () = self.tell() => {}
            () = self.snapshots() => {}
            () = stop.stopped() => {}
        }
        // What came before the stop.
        let mut every = self.every.lock().await;
        let mut names = Vec::new();
        while let Some(batch) = every.try_next() {
            self.keep(&mut names, &batch);
        }
    }

    async fn record(&self) {
        let mut every = self.every.lock().await;
        let mut names = Vec::new();
        while let Some(batch) = every.next().await {
            self.keep(&mut names, &batch);
            let lost = every.lost();
            self.status.lock().expect("no code that holds this lock panics").lost = lost;
        }
    }

    /// `names` has the name of each tag that is kept, as far as they are known.
    fn keep<'a>(&self, names: &'a mut Vec<Option<TagName>>, batch: &'a [Sample]) {
        let newest = batch.iter().map(|sample| sample.tag.0 + 1).max().unwrap_or(0);
        // An id has one name as long as the process lives.
        for tag in names.len() as u32..newest {
            let name = self.hub.spec(TagId(tag)).name.clone();
            names.push(Some(name).filter(|name| self.history.tags.contains(name.as_str())));
        }
        let named = |sample: &'a Sample| Some((names.get(sample.tag.index())?.as_ref()?, sample));
        self.history.store.append(batch.iter().filter_map(named));
    }

    /// Publishes how the store is, for ever.
    async fn tell(&self) {
        let mut ticks = tokio::time::interval(STATUS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut was_writing = true;
        loop {
            ticks.tick().await;
            let state = self.history.store.state();
            let is_writing = state.is_writing != Some(false);
            if is_writing != was_writing {
                was_writing = is_writing;
                let reason = state.last_error.as_deref().unwrap_or("unknown");
                let (kind, text) = if is_writing {
                    (EventKind::SourceBack, "The history is written again".to_owned())
                } else {
                    (EventKind::SourceLost, format!("The history cannot be written: {reason}"))
                };
                self.hub.raise(kind, "store", text);
            }
            self.publish(&state);
        }
    }

    /// What has changed.
    fn publish(&self, state: &State) {
        let mut status = self.status.lock().expect("no code that holds this lock panics");
        let (values, now) = (values(state, status.lost), self.hub.now());
        let last = status.last.replace(values.clone());
        let has_changed = |index: usize| last.as_ref().is_none_or(|last| last[index] != values[index]);
        let changed = status.tags.tags().iter().enumerate().filter(|(index, _)| has_changed(*index));
        let samples = changed.map(|(index, &tag)| Sample::good(tag, values[index].clone(), now)).collect();
        drop(status);
        self.hub.publish(samples);
    }

    /// Takes and keeps pictures, for ever.
    async fn snapshots(&self) {
        let Some(interval) = self.history.snapshot_interval else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut was_faulty = false;
        loop {
            ticks.tick().await;
            // One after the other: nobody waits for them, and each may have a megabyte.
            for camera in self.hub.cameras() {
                if self.history.cameras.contains(camera.name()) {
                    match self.snapshot(&camera).await {
                        Ok(()) => was_faulty = false,
                        Err(error) if !was_faulty => {
                            was_faulty = true;
                            warn!(camera = camera.name(), %error, "A picture could not be kept.");
                        }
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// A camera that has none now says so on its own tags.
    async fn snapshot(&self, camera: &Camera) -> std::io::Result<()> {
        let Ok(picture) = camera.snapshot(Duration::ZERO, SNAPSHOT).await else { return Ok(()) };
        let (pictures, name) = (self.history.pictures.clone(), camera.name().to_owned());
        let kept = tokio::task::spawn_blocking(move || pictures.keep(&name, &picture)).await;
        kept.map_err(std::io::Error::other)?
    }
}
