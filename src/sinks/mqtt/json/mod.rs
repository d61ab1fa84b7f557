//! Plain JSON, for people without Sparkplug: a dialect that any MQTT client reads.
//!
//!     Offline ──connecting: will──► Connecting ──birth──► Born ──birth──► Born
//!        ▲                              │                  │
//!        └──────────── connecting ──────┴──────────────────┘
//!
//! - `TOPIC/status`, retained: `{"state":"online",...}` at birth, `offline` by the will or the goodbye.
//! - Layout "tag": each value at `TOPIC/<tag>`, retained if the configuration says so. Layout "batch": many in one at `TOPIC/data`.
//! - `TOPIC/<tag>/set` writes: a value, or `{"value": ...}`. Never a retained one: it would be done again at each connect.
//! - Home Assistant's discovery, if the configuration says so.
//!
//! A birth says the value of each tag, retained or not, so that whoever listens has all of them from then on. Then follow changes of
//! value or status. What is older than the birth says so (`"historical": true`) and is never retained.
//!
//! Of retained messages whose tags are gone nobody else takes care: values are taken away at the next birth, as long as this
//! program runs; discovery also after a restart, because the broker gives it back to whoever asks.

mod home_assistant;
mod message;
mod topic;

use super::config::{Config, Form, Json as JsonConfig, Layout};
use super::dialect::{Ask, Dialect, View, is_overtaken, room};
use super::value::from_json;
use crate::model::{NameMap, Role, Sample, TagId, TagMap, TagName, TagSpec, Timestamp};
use crate::mqtt::image_topic;
use crate::mqtt::line::{Message, Properties, QoS, Received};
use crate::mqtt::sparkplug::SparkplugId;
use crate::store::Record;
use home_assistant::Announcer;
use message::{Said, State as Presence};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use topic::Topics;

/// Foreign or old announcements that are remembered to be taken away: more than a device has tags in a bad hour.
const STALE: usize = 4096;

pub(super) struct Json {
    config: JsonConfig,
    topics: Topics,
    announcer: Option<Announcer>,
    takes_writes: bool,
    state: State,
    /// The largest packet that the broker takes, if it says one.
    largest: Option<usize>,
    /// Those of the last birth, also of a connection before.
    tags: TagMap<Tag>,
    names: NameMap<TagId>,
    /// Those that the last birth did not have any more: what was gathered of them before is said after it.
    gone: TagMap<Arc<TagSpec>>,
    /// By the topic at which they are written.
    writable: HashMap<String, TagId>,
    /// Retained messages that the broker holds for us, but for the status.
    retained: BTreeSet<String>,
    /// Retained messages that are to be taken away with the next words.
    stale: BTreeSet<String>,
    /// Tags whose value is to be said again: somebody wanted another one and did not get it.
    again: BTreeSet<TagId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Offline,
    Connecting,
    Born,
}

struct Tag {
    spec: Arc<TagSpec>,
    topic: String,
    /// As the birth showed it.
    born: Sample,
    /// As it was last said.
    last: Sample,
}

impl Json {
    pub(super) fn new(config: &Config, node: &SparkplugId) -> Self {
        let group = &config.group;
        let cameras = config.image.iter().filter(|image| image.form == Form::Jpeg);
        let cameras: BTreeSet<_> = cameras
            .map(|image| (image.camera.clone(), image_topic(&format!("vedette/{group}/{node}"), &image.camera)))
            .collect();
        let prefix = config.json.home_assistant.as_deref();
        Self {
            topics: Topics::new(&config.json.topic, group, node),
            announcer: prefix.map(|prefix| Announcer::new(prefix, group, node, cameras)),
            takes_writes: config.commands.0.is_some_and(|role| role >= Role::Operator),
            config: config.json.clone(),
            state: State::Offline,
            largest: None,
            tags: TagMap::default(),
            names: NameMap::default(),
            gone: TagMap::default(),
            writable: HashMap::new(),
            retained: BTreeSet::new(),
            stale: BTreeSet::new(),
            again: BTreeSet::new(),
        }
    }

    /// Of values; never less for what is retained and said once.
    fn qos(&self) -> QoS {
        match self.config.qos {
            0 => QoS::AtMostOnce,
            _ => QoS::AtLeastOnce,
        }
    }

    fn value(&self, topic: String, payload: Vec<u8>, retain: bool) -> Message {
        Message { topic, payload: payload.into(), qos: self.qos(), retain, properties: json_type() }
    }

    /// These values in this order, as the layout has it. `is_current`: nothing newer was said before.
    fn say<'a>(&self, said: Vec<(&'a TagName, Said<'a>)>, is_current: bool, now: Timestamp) -> Vec<Message> {
        match self.config.layout {
            Layout::Tag => {
                let retain = self.config.retain && is_current;
                let one =
                    |(name, said): (&TagName, Said<'_>)| self.value(self.topics.tag(name), said.payload(), retain);
                said.into_iter().map(one).collect()
            }
            Layout::Batch => {
                let values = said.into_iter().map(|(name, said)| said.tagged(name).payload());
                let batches = message::batches(values, now, room(self.largest, &self.topics.data()));
                batches.into_iter().map(|batch| self.value(self.topics.data(), batch, false)).collect()
            }
        }
    }

    /// What Home Assistant is told of all tags and cameras.
    fn announcements(&self, tags: &[(TagId, Arc<TagSpec>)]) -> Vec<(String, Vec<u8>)> {
        let Some(announcer) = &self.announcer else { return Vec::new() };
        let of_tags = tags.iter().filter_map(|(_, spec)| announcer.tag(spec, &self.topics, self.takes_writes));
        of_tags.chain(announcer.cameras(&self.topics)).collect()
    }

    /// What is to be taken away, and what is to be said again.
    fn left_over(&mut self, now: Timestamp) -> Vec<Message> {
        let stale = std::mem::take(&mut self.stale);
        let mut messages: Vec<Message> = stale.into_iter().map(|topic| retained(topic, Vec::new())).collect();
        let again = std::mem::take(&mut self.again);
        let said = again.iter().filter_map(|tag| self.tags.get(tag));
        let said = said.map(|tag| (&tag.spec.name, Said::sample(&tag.spec, &tag.last, false))).collect();
        messages.extend(self.say(said, true, now));
        messages
    }

    fn write(&mut self, tag: TagId, received: &Received) -> Result<Ask, String> {
        let spec = &self.tags[&tag].spec;
        let json: serde_json::Value = serde_json::from_slice(&received.payload)
            .map_err(|error| format!("{}: no JSON ({error}); write a value, or {{\"value\": ...}}", received.topic))?;
        let value = match &json {
            serde_json::Value::Object(object) => object
                .get("value")
                .ok_or_else(|| format!("{}: an object without \"value\"; write {{\"value\": ...}}", received.topic))?,
            value => value,
        };
        from_json(value, spec).map(|value| Ask::Write(tag, value))
    }
}

/// Retained, and acknowledged.
fn retained(topic: String, payload: Vec<u8>) -> Message {
    let properties = if payload.is_empty() { Properties::default() } else { json_type() };
    Message { topic, payload: payload.into(), qos: QoS::AtLeastOnce, retain: true, properties }
}

fn json_type() -> Properties {
    Properties { content_type: Some("application/json".into()), ..Properties::default() }
}

impl Json {
    /// All tags, or those that are new.
    fn show(&mut self, view: &View, is_whole: bool, now: Timestamp) -> Vec<Message> {
        self.state = State::Born;
        self.again.clear();
        let before = std::mem::take(&mut self.tags);
        (self.names, self.writable) = Default::default();
        let mut said = Vec::new();
        for ((id, spec), sample) in view.tags.iter().zip(&view.current) {
            let topic = self.topics.tag(&spec.name);
            if spec.writable && self.takes_writes {
                self.writable.insert(self.topics.set(&spec.name), *id);
            }
            self.names.insert(spec.name.clone(), *id);
            let known = before.get(id).filter(|_| !is_whole);
            if known.is_none() {
                said.push((&spec.name, Said::sample(spec, sample, false)));
            }
            let [born, last] = known.map_or([sample, sample], |tag| [&tag.born, &tag.last]).map(Sample::clone);
            self.tags.insert(*id, Tag { spec: spec.clone(), topic, born, last });
        }
        self.gone = before.into_iter().map(|(id, tag)| (id, tag.spec)).collect();
        self.gone.retain(|id, _| !self.tags.contains_key(id));
        let announcements = self.announcements(&view.tags);
        let before = std::mem::take(&mut self.retained);
        self.retained.extend(announcements.iter().map(|(topic, _)| topic.clone()));
        if self.config.retain {
            self.retained.extend(self.tags.values().map(|tag| tag.topic.clone()));
        }
        self.stale.extend(before);
        self.stale.retain(|topic| !self.retained.contains(topic));

        let mut messages = self.left_over(now);
        messages.extend(announcements.into_iter().map(|(topic, payload)| retained(topic, payload)));
        messages.push(retained(self.topics.status(), Presence::online(now)));
        messages.extend(self.say(said, true, now));
        messages
    }
}

impl Dialect for Json {
    fn connecting(&mut self, _bd_seq: u8, _now: Timestamp) -> Option<Message> {
        self.state = State::Connecting;
        self.again.clear();
        Some(retained(self.topics.status(), Presence::offline(None)))
    }

    fn connected(&mut self, largest: Option<usize>) {
        self.largest = largest;
    }

    fn filters(&self, tags: &[(TagId, Arc<TagSpec>)]) -> Vec<String> {
        let mut filters = Vec::new();
        if self.takes_writes {
            let writable = tags.iter().map(|(_, spec)| &**spec).filter(|spec| spec.writable);
            filters.extend(self.topics.filters(writable));
        }
        // Last, because the line may ask for the first one again, and much is retained here.
        filters.extend(self.announcer.iter().map(Announcer::filter));
        filters
    }

    fn may_be_born(&self) -> bool {
        self.state == State::Connecting
    }

    fn birth(&mut self, view: &View, now: Timestamp) -> Vec<Message> {
        self.show(view, true, now)
    }

    fn changed(&mut self, view: &View, now: Timestamp) -> Vec<Message> {
        self.show(view, false, now)
    }

    fn is_born(&self) -> bool {
        self.state == State::Born
    }

    fn live(&mut self, samples: &[Sample], now: Timestamp) -> Vec<Message> {
        if self.state != State::Born {
            return Vec::new();
        }
        let mut messages = self.left_over(now);
        let (mut old, mut new): (Vec<(Arc<TagSpec>, &Sample)>, _) = (Vec::new(), Vec::new());
        for sample in samples {
            let Some(tag) = self.tags.get_mut(&sample.tag) else {
                // Else it is newer than the birth: the next birth is on its way, and shows it.
                if let Some(spec) = self.gone.get(&sample.tag) {
                    old.push((spec.clone(), sample));
                }
                continue;
            };
            if is_overtaken(sample, &tag.born) {
                old.push((tag.spec.clone(), sample));
            } else if tag.last.quality.status != sample.quality.status || !tag.last.value.is_same(&sample.value) {
                tag.last = sample.clone();
                new.push((tag.spec.clone(), sample));
            }
        }
        for (samples, is_current) in [(old, false), (new, true)] {
            let said = samples.iter().map(|(spec, sample)| (&spec.name, Said::sample(spec, sample, !is_current)));
            messages.extend(self.say(said.collect(), is_current, now));
        }
        messages
    }

    fn backlog(&mut self, rows: &[(TagName, Record)], now: Timestamp) -> Vec<Message> {
        if self.state != State::Born {
            return Vec::new();
        }
        let said = rows.iter().filter_map(|(name, record)| {
            let tag = self.names.get(name).map(|tag| &self.tags[tag]);
            let is_born = tag.is_some_and(|Tag { born, .. }| {
                let at = (record.server_time, record.source_time, record.status);
                at == (born.server_time, born.source_time, born.quality.status)
                    && (born.quality.is_bad() || born.value.is_same(&record.value))
            });
            // The birth said it already.
            (!is_born).then(|| (name, Said::record(tag.map(|tag| &*tag.spec), record)))
        });
        self.say(said.collect(), false, now)
    }

    /// The values themselves say it.
    fn lost(&mut self, _folder: &str, _now: Timestamp) -> Vec<Message> {
        Vec::new()
    }

    fn back(&mut self, _folder: &str, _view: &View, _now: Timestamp) -> Vec<Message> {
        Vec::new()
    }

    fn received(&mut self, received: &Received, _now: Timestamp) -> Vec<Ask> {
        let topic = received.topic.as_str();
        if self.announcer.as_ref().is_some_and(|announcer| announcer.is_own(topic)) {
            let is_known = self.retained.contains(topic) || received.payload.is_empty();
            if !is_known && self.stale.len() < STALE {
                self.stale.insert(received.topic.clone());
            }
            return Vec::new();
        }
        let Some(&tag) = self.writable.get(topic) else { return Vec::new() };
        let outcome = match received.retain {
            true => Err(format!("{topic}: a retained write would be done again at each connect; send it unretained")),
            false => self.write(tag, received),
        };
        vec![outcome.unwrap_or_else(|reason| {
            self.again.insert(tag);
            Ask::Refused(reason)
        })]
    }

    fn refused(&mut self, tag: TagId) {
        self.again.insert(tag);
    }

    fn death(&mut self, now: Timestamp) -> Vec<Message> {
        self.state = State::Offline;
        vec![retained(self.topics.status(), Presence::offline(Some(now)))]
    }
}

#[cfg(test)]
mod tests;
