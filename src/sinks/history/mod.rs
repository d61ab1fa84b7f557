//! The recorder: the samples of the tags that `[history]` and the uplink name go to the store, and how the store is becomes
//! tags.
//!
//!     hub ── every sample ──► recorder ──► store ──► uplink, UA server
//!                                └──► pictures, each `snapshot_interval`
//!     hub ◄── store/State, store/Samples ...
//!
//! The history has every sample. The uplink is owed changes only: samples whose value or status is not that of the one
//! before; others are not written for it, because flash wears.
//!
//! Tags `store/...`: how the store is, once a second. A store that cannot write has the reason as its State.

use crate::base::{Selection, Stop};
use crate::hub::frames::Camera;
use crate::hub::{Every, Hub, RegisterError, Registration};
use crate::model::{DataType, EventKind, Sample, Status, TagId, TagName, TagNameError, TagSpec, Value};
use crate::store::{Arrival, History, State, Store};
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

/// What is recorded, and where.
#[derive(Clone)]
pub struct Wanted {
    pub store: Store,
    pub history: Option<History>,
    /// Tags that the uplink sends.
    pub uplink: Selection,
}

/// With its tags registered.
pub struct Recorder {
    hub: Hub,
    wanted: Wanted,
    /// Taken at once, so that nothing that comes before the task runs is missed.
    samples: tokio::sync::Mutex<Samples>,
    tags: Mutex<Tags>,
}

struct Samples {
    every: Every,
    /// By id: the tags that are recorded, as far as they are known.
    known: Vec<Option<Known>>,
    lost: u64,
}

struct Known {
    name: TagName,
    is_kept: bool,
    is_sent: bool,
    /// What the uplink was last owed.
    last: Option<(Value, Status)>,
}

struct Tags {
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

impl Known {
    /// `None` if there is nothing to record.
    fn arrival(&mut self, sample: &Sample, mark: u64) -> Option<Arrival> {
        let last = self.last.as_ref();
        let is_change =
            last.is_none_or(|(value, status)| *status != sample.quality.status || !value.is_same(&sample.value));
        let is_owed = self.is_sent && is_change;
        if is_owed {
            self.last = Some((sample.value.clone(), sample.quality.status));
        }
        let is_kept = self.is_kept;
        (is_owed || is_kept).then_some(Arrival {
            tag: self.name.clone(),
            sample: sample.clone(),
            mark,
            is_owed,
            is_kept,
        })
    }
}

impl Recorder {
    pub fn register(wanted: Wanted, hub: &Hub) -> Result<Self, RecorderError> {
        let tags = Tags { tags: Self::register_tags(hub)?, last: None, lost: 0 };
        let samples = Samples { every: hub.every(BATCHES), known: Vec::new(), lost: 0 };
        let samples = tokio::sync::Mutex::new(samples);
        Ok(Self { hub: hub.clone(), wanted, samples, tags: Mutex::new(tags) })
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
        let mut samples = self.samples.lock().await;
        while let Some(batch) = samples.every.try_next() {
            self.keep(&mut samples, &batch);
        }
    }

    async fn record(&self) {
        let mut samples = self.samples.lock().await;
        while let Some(batch) = samples.every.next().await {
            self.keep(&mut samples, &batch);
        }
    }

    fn keep(&self, Samples { every, known, lost }: &mut Samples, batch: &[Sample]) {
        if std::mem::replace(lost, every.lost()) != every.lost() {
            // What was lost may have been a change: the next sample is news, whatever it is.
            known.iter_mut().flatten().for_each(|tag| tag.last = None);
            self.tags().lost = *lost;
        }
        let newest = batch.iter().map(|sample| sample.tag.0 + 1).max().unwrap_or(0);
        // An id has one name as long as the process lives.
        known.extend((known.len() as u32..newest).map(|tag| self.known(TagId(tag))));
        let mark = every.mark();
        let arrival = |sample: &Sample| known.get_mut(sample.tag.index())?.as_mut()?.arrival(sample, mark);
        self.wanted.store.append(batch.iter().filter_map(arrival));
    }

    fn known(&self, tag: TagId) -> Option<Known> {
        let name = self.hub.spec(tag).name.clone();
        let is_kept = self.wanted.history.as_ref().is_some_and(|history| history.tags.contains(name.as_str()));
        let is_sent = self.wanted.uplink.contains(name.as_str());
        (is_kept || is_sent).then_some(Known { name, is_kept, is_sent, last: None })
    }

    fn tags(&self) -> std::sync::MutexGuard<'_, Tags> {
        self.tags.lock().expect("no code that holds this lock panics")
    }

    /// Publishes how the store is, for ever.
    async fn tell(&self) {
        let mut ticks = tokio::time::interval(STATUS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut was_writing = true;
        loop {
            ticks.tick().await;
            let state = self.wanted.store.state();
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
        let mut tags = self.tags();
        let (values, now) = (values(state, tags.lost), self.hub.now());
        let last = tags.last.replace(values.clone());
        let has_changed = |index: usize| last.as_ref().is_none_or(|last| last[index] != values[index]);
        let changed = tags.tags.tags().iter().enumerate().filter(|(index, _)| has_changed(*index));
        let samples = changed.map(|(index, &tag)| Sample::good(tag, values[index].clone(), now)).collect();
        drop(tags);
        self.hub.publish(samples);
    }

    /// Takes and keeps pictures, for ever.
    async fn snapshots(&self) {
        let Some(history) = &self.wanted.history else { return std::future::pending().await };
        let Some(interval) = history.snapshot_interval else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut was_faulty = false;
        loop {
            ticks.tick().await;
            // One after the other: nobody waits for them, and each may have a megabyte.
            for camera in self.hub.cameras() {
                if history.cameras.contains(camera.name()) {
                    match snapshot(history, &camera).await {
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
}

/// A camera that has none now says so on its own tags.
async fn snapshot(history: &History, camera: &Camera) -> std::io::Result<()> {
    let Ok(picture) = camera.snapshot(Duration::ZERO, SNAPSHOT).await else { return Ok(()) };
    let (pictures, name) = (history.pictures.clone(), camera.name().to_owned());
    let kept = tokio::task::spawn_blocking(move || pictures.keep(&name, &picture)).await;
    kept.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};
    use crate::model::{Quality, Timestamp};
    use crate::store::history;
    use std::time::UNIX_EPOCH;

    #[tokio::test]
    async fn the_history_has_every_sample_and_the_uplink_is_owed_changes() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(UNIX_EPOCH);
        let hub = Hub::new(clock.clone());
        let names = ["kept/a", "sent/b", "neither/c"].map(|name| TagName::new(name).unwrap());
        let specs = names.iter().map(|name| TagSpec::new(name.clone(), DataType::Double)).collect();
        let own = hub.register("test", specs).unwrap();
        let store = Store::new(Default::default(), folder.path().into(), clock);
        let config = history::Config { tags: vec!["kept/*".into()], ..Default::default() };
        let uplink = Selection::new(&["kept/*".into(), "sent/*".into()]);
        let wanted = Wanted { history: Some(History::new(&config, store.clone())), store: store.clone(), uplink };
        let recorder = Recorder::register(wanted, &hub).unwrap();

        let bad = Quality::from(Status::BAD_NOT_CONNECTED);
        let values = [
            (1.0, Quality::GOOD),
            (1.0, Quality::GOOD),
            (f64::NAN, Quality::GOOD),
            (f64::NAN, Quality::GOOD),
            (f64::NAN, bad),
        ];
        for (time, (value, quality)) in values.into_iter().enumerate() {
            let now = Timestamp::from_ticks(time as i64);
            let sample =
                |&tag: &TagId| Sample { quality: quality.clone(), ..Sample::good(tag, Value::Double(value), now) };
            hub.publish(own.tags().iter().map(sample).collect());
        }
        let (ended, tasks) = (Tasks::new("recorder"), Tasks::new("store"));
        let stop = ended.stop_signal();
        ended.stop(Duration::ZERO).await;
        recorder.run(&stop).await;
        let writer = store.clone();
        tasks.spawn_thread("store", move |stop| writer.run(stop));
        while store.state().is_writing.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tasks.stop(Duration::from_secs(30)).await;
        // All of the first tag; a value, a NaN and a status of each.
        assert_eq!((store.state().samples, store.queue().waiting), (5 + 3, 3 + 3));
    }
}
