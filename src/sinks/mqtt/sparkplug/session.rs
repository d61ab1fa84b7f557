//! The edge node's session: births, data, commands, rebirth and death as a state machine without I/O.
//!
//!     Offline ──connecting: will──► Connecting ──birth──► Born ──birth (seq = 0 again)──► Born
//!        ▲                              │                  │
//!        └──────────────────────────────┴─ connecting, death
//!
//!     Device: dead ──birth, back, changed: DBIRTH──► alive ──lost, changed, death: DDEATH──► dead
//!
//! Invariants: no DATA before all births, none for a metric that the last birth did not have, none between the request for a rebirth
//! and the birth, none for a dead device. seq is 0 in NBIRTH and one more, modulo 256, in each message after it, of node and
//! devices; NDEATH has none. bdSeq is that of the will and changes only with a new CONNECT. A device is born again only after its
//! death, or after an NBIRTH. No value that is older than what the last birth showed is said as the newest: it is
//! `is_historical`, unless only the clock says so because it was set back.
//!
//! A node that was not born says no NDEATH: its birth has to be the first that it says (Sparkplug 3.0, 2.4). The will, which the
//! broker sends, is all that there is to say then.
//!
//! Absent on purpose: sockets, disk, the clock.

mod births;

use super::command::Commands;
use super::data;
use super::held::Held;
use super::host::Host;
use super::layout::{BD_SEQ, Layout, Place};
use super::metric::{self, Item, QualityCode, millis};
use super::template::Templates;
use super::{names, same};
use crate::model::{Sample, TagId, TagMap, TagName, TagSpec, Timestamp};
use crate::mqtt::BrokerUrl;
use crate::mqtt::line::{Message, QoS, Received};
use crate::mqtt::sparkplug::proto::payload::{MetaData, Metric, metric as wire};
use crate::mqtt::sparkplug::proto::{DataType as Type, Payload};
use crate::mqtt::sparkplug::{HostState, Kind, SparkplugId, Topic};
use crate::sinks::mqtt::config::{Config, Form};
use crate::sinks::mqtt::dialect::{Ask, CanSay, Dialect, View, is_overtaken, room};
use crate::store::Record;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use tracing::{debug, warn};

pub(in crate::sinks::mqtt) struct Session {
    group: String,
    node: String,
    commands: Commands,
    templates: Templates,
    /// Whose pictures are metrics of their devices.
    cameras: BTreeSet<String>,
    host: Option<Host>,

    state: State,
    bd_seq: u8,
    /// Of the next message.
    seq: u8,
    /// Somebody asked for a birth: no DATA until then.
    is_birth_due: bool,
    /// Of the last birth.
    layout: Arc<Layout>,
    /// Folders of the devices that are alive.
    alive: BTreeSet<Arc<str>>,
    /// The tags that were born.
    tags: TagMap<Tag>,
    /// What hosts were last told about the quality of tags, in whichever session.
    told: TagMap<QualityCode>,
    held: Held,
    /// Samples that could not be said, since the start.
    unsaid: u64,
    /// This connection has told the log of some.
    is_told: bool,
    /// What people were told about names.
    noticed: HashSet<String>,
    /// The largest packet that the broker takes, if it says one.
    largest: Option<usize>,
    /// Devices whose births are larger; people were told.
    too_large: HashSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Offline,
    Connecting,
    Born,
}

struct Tag {
    /// As the birth showed it.
    born: Sample,
    /// What was last said as the newest.
    last: Sample,
}

impl Session {
    pub(in crate::sinks::mqtt) fn new(config: &Config, node: &SparkplugId) -> Self {
        let pictured = config.image.iter().filter(|image| image.form == Form::Sparkplug);
        Self {
            group: config.group.to_string(),
            node: node.to_string(),
            commands: Commands { role: config.commands.0, aliases: config.aliases },
            templates: Templates::new(&config.template),
            cameras: pictured.map(|image| image.camera.clone()).collect(),
            host: config.primary_host.clone().map(Host::new),
            state: State::Offline,
            bd_seq: 0,
            seq: 0,
            is_birth_due: false,
            layout: Arc::default(),
            alive: BTreeSet::new(),
            tags: TagMap::default(),
            told: TagMap::default(),
            held: Held::default(),
            unsaid: 0,
            is_told: false,
            noticed: HashSet::new(),
            largest: None,
            too_large: HashSet::new(),
        }
    }

    fn topic(&self, kind: Kind, device: Option<&str>) -> String {
        Topic::Message { group: &self.group, kind, node: &self.node, device }.to_string()
    }

    fn message(&mut self, kind: Kind, device: Option<&str>, metrics: Vec<Metric>, now: Timestamp) -> Message {
        let payload =
            Payload { timestamp: Some(millis(now)), metrics, seq: Some(self.seq.into()), ..Payload::default() };
        self.seq = self.seq.wrapping_add(1);
        Message { topic: self.topic(kind, device), payload: payload.encode_to_vec().into(), ..Message::default() }
    }

    /// Without a seq (Sparkplug 3.0, 6.4.25), because the broker may send it at any time.
    fn ndeath(&self, now: Timestamp) -> Message {
        let payload =
            Payload { timestamp: Some(millis(now)), metrics: vec![self.bd_seq_metric(now)], ..Payload::default() };
        Message {
            topic: self.topic(Kind::NDeath, None),
            payload: payload.encode_to_vec().into(),
            qos: QoS::AtLeastOnce,
            ..Message::default()
        }
    }

    fn bd_seq_metric(&self, now: Timestamp) -> Metric {
        metric::of_node(BD_SEQ, Type::Int64, wire::Value::LongValue(self.bd_seq.into()), now)
    }

    /// Whether a tag was born and its place is alive.
    fn is_born_and_alive(&self, tag: TagId) -> bool {
        let is_alive = |place: &Place| match place {
            Place::Node => true,
            Place::Device(folder) => self.alive.contains(folder),
        };
        self.tags.contains_key(&tag) && self.layout.entries.get(&tag).is_some_and(|entry| is_alive(&entry.place))
    }

    /// DATA, place by place.
    fn say(&mut self, items: Vec<Item>, now: Timestamp) -> Vec<Message> {
        let mut places: BTreeMap<Place, Vec<Item>> = BTreeMap::new();
        for item in items {
            let place = &self.layout.entries[&item.tag].place;
            match places.get_mut(place) {
                Some(items) => items.push(item),
                None => drop(places.insert(place.clone(), vec![item])),
            }
        }
        let mut said = Vec::new();
        for (place, items) in places {
            let (kind, device) = match place {
                Place::Node => (Kind::NData, None),
                Place::Device(folder) => (Kind::DData, Some(self.layout.devices[&folder].clone())),
            };
            let most = room(self.largest, &self.topic(kind, device.as_deref()));
            let metrics = data::messages(items, &self.layout, self.commands.aliases, &mut self.told, most);
            said.extend(metrics.into_iter().map(|metrics| self.message(kind, device.as_deref(), metrics, now)));
        }
        said
    }

    /// What waited and can be said now. All of it is older than the births.
    fn say_held(&mut self, now: Timestamp) -> Vec<Message> {
        let dropped = self.held.take_dropped();
        self.cannot_say(dropped, || "samples of devices that are dead, of which there were too many".into());
        let mut held = std::mem::take(&mut self.held);
        let samples = held.take(|tag| self.is_born_and_alive(tag));
        self.held = held;
        let (fit, misfits): (Vec<_>, Vec<_>) = samples
            .into_iter()
            .filter(|sample| !same::sample(sample, &self.tags[&sample.tag].born))
            .partition(|sample| metric::fits(&self.layout.entries[&sample.tag].spec, &sample.value));
        if let Some(first) = misfits.first() {
            let name = self.layout.entries[&first.tag].spec.name.clone();
            self.cannot_say(misfits.len() as u64, || format!("samples of {name}, which were of another type"));
        }
        self.say(fit.iter().map(|sample| Item::new(sample, true)).collect(), now)
    }

    fn cannot_say(&mut self, count: u64, what: impl FnOnce() -> String) {
        self.unsaid += count;
        if count > 0 && !std::mem::replace(&mut self.is_told, true) {
            warn!(samples = count, "Not sent, now or later: {}.", what());
        }
    }

    fn lay_out(&self, view: &View) -> Layout {
        Layout::new(&view.tags, &self.templates, &self.cameras)
    }

    /// Takes a new layout; what was born with the old one and is another now has to be born after it.
    fn take(&mut self, layout: Layout) {
        for notice in layout.notices.iter().filter(|notice| !self.noticed.contains(*notice)) {
            warn!("{notice}");
        }
        self.noticed = layout.notices.iter().cloned().collect();
        self.layout = Arc::new(layout);
        let known = |tag: &TagId| self.layout.entries.contains_key(tag);
        self.tags.retain(|tag, _| known(tag));
        self.told.retain(|tag, _| known(tag));
    }

    /// Forgets what waits of tags that are gone, after a birth.
    fn forget_gone(&mut self, view: &View) {
        let waiting = self.held.tags();
        if waiting.is_empty() {
            return;
        }
        let there: HashSet<TagId> = view.tags.iter().map(|(tag, _)| *tag).collect();
        let gone = self.held.forget(|tag| !there.contains(&tag));
        self.cannot_say(gone, || "samples of tags that are gone".into());
    }

    fn hear(&mut self, state: &[u8]) -> Vec<Ask> {
        let Some(host) = &mut self.host else { return Vec::new() };
        match HostState::read(state) {
            Err(error) => vec![Ask::Refused(format!("the STATE of {}: {error}", host.id))],
            Ok(state) if !host.hear(state) => {
                debug!(host = %host.id, "Ignored a STATE that is older than the one before.");
                Vec::new()
            }
            Ok(state) if !state.online => vec![Ask::Leave(format!("the primary host {} is offline", host.id))],
            Ok(_) => Vec::new(),
        }
    }

    fn command(&mut self, place: &Place, received: &Received) -> Vec<Ask> {
        if received.retain {
            // It may be a year old, and would be done at each connect.
            return vec![Ask::Refused(format!("{}: commands must not be retained", received.topic))];
        }
        let asks = self.commands.read(&self.layout, place, &received.payload);
        self.is_birth_due |= self.state == State::Born && asks.contains(&Ask::Birth);
        asks
    }
}

type Current<'a> = TagMap<&'a Sample>;

fn current(view: &View) -> Current<'_> {
    view.tags.iter().map(|(tag, _)| *tag).zip(&view.current).collect()
}

impl Dialect for Session {
    fn dialing(&mut self, broker: &BrokerUrl) {
        if let Some(host) = &mut self.host {
            host.at(broker.to_string());
        }
    }

    fn connecting(&mut self, bd_seq: u8, now: Timestamp) -> Option<Message> {
        self.state = State::Connecting;
        self.bd_seq = bd_seq;
        self.is_birth_due = false;
        self.is_told = false;
        self.alive.clear();
        if let Some(host) = &mut self.host {
            host.forget();
        }
        Some(self.ndeath(now))
    }

    fn connected(&mut self, largest: Option<usize>) {
        self.largest = largest;
        self.too_large.clear();
    }

    /// NCMD, STATE if there is a primary host, and DCMD of each device if commands may write.
    fn filters(&self, tags: &[(TagId, Arc<TagSpec>)]) -> Vec<String> {
        let mut filters = vec![self.topic(Kind::NCmd, None)];
        filters.extend(self.host.as_ref().map(|host| Topic::State { host: host.id.as_str() }.to_string()));
        if self.commands.allow(crate::model::Role::Operator) {
            let layout = Layout::new(tags, &self.templates, &self.cameras);
            filters.extend(layout.devices.values().map(|id| self.topic(Kind::DCmd, Some(id))));
        }
        filters
    }

    fn may_be_born(&self) -> bool {
        self.host.as_ref().is_none_or(Host::is_online)
    }

    fn birth(&mut self, view: &View, now: Timestamp) -> Vec<Message> {
        debug_assert_ne!(self.state, State::Offline, "a birth needs a connection");
        let layout = self.lay_out(view);
        let is_lost = |folder: &Arc<str>| view.lost.contains(folder);
        let mut said = Vec::new();
        // Hosts may keep a device over an NBIRTH, so one that will not be born again has to die first.
        let dying =
            |folder: &&Arc<str>| is_lost(folder) || layout.devices.get(*folder) != self.layout.devices.get(*folder);
        let dying: Vec<Arc<str>> = self.alive.iter().filter(dying).cloned().collect();
        said.extend(dying.iter().filter_map(|folder| self.bury(folder, now)));
        self.take(layout);
        self.state = State::Born;
        self.is_birth_due = false;
        self.alive.clear();
        self.seq = 0;
        let current = current(view);
        let node = self.bear(&Place::Node, &current, now);
        if !self.fits(&node) {
            // The line refuses it, and without it nothing else may be said.
            return vec![node];
        }
        said.push(node);
        let devices: Vec<Arc<str>> = self.layout.devices.keys().filter(|folder| !is_lost(folder)).cloned().collect();
        said.extend(devices.into_iter().filter_map(|folder| self.bear_device(folder, &current, now)));
        self.forget_gone(view);
        said.extend(self.say_held(now));
        said
    }

    fn changed(&mut self, view: &View, now: Timestamp) -> Vec<Message> {
        if self.state != State::Born {
            return Vec::new();
        }
        let layout = self.lay_out(view);
        if self.is_birth_due
            || !layout.is_same(&self.layout, &Place::Node)
            || layout.definitions != self.layout.definitions
        {
            return self.birth(view, now);
        }
        let is_another = |folder: &Arc<str>| !layout.is_same(&self.layout, &Place::Device(folder.clone()));
        let is_lost = |folder: &Arc<str>| view.lost.contains(folder);
        let dying = self.alive.iter().filter(|folder| is_lost(folder) || is_another(folder));
        let dying: Vec<Arc<str>> = dying.cloned().collect();
        let mut said: Vec<Message> = dying.iter().filter_map(|folder| self.bury(folder, now)).collect();
        self.take(layout);
        let unborn = |folder: &&Arc<str>| !is_lost(folder) && !self.alive.contains(*folder);
        let unborn: Vec<Arc<str>> = self.layout.devices.keys().filter(unborn).cloned().collect();
        let current = current(view);
        said.extend(unborn.into_iter().filter_map(|folder| self.bear_device(folder, &current, now)));
        self.forget_gone(view);
        said.extend(self.say_held(now));
        said
    }

    fn is_born(&self) -> bool {
        self.state == State::Born
    }

    fn is_vital(&self, topic: &str) -> bool {
        topic == self.topic(Kind::NBirth, None)
    }

    /// Not those of devices that are dead.
    fn can_say(&self) -> CanSay {
        let (layout, alive) = (self.layout.clone(), self.alive.clone());
        Box::new(move |name| match layout.tag(name).map(|tag| &layout.entries[&tag].place) {
            Some(Place::Device(folder)) => alive.contains(folder),
            Some(Place::Node) | None => true,
        })
    }

    fn live(&mut self, samples: &[Sample], now: Timestamp) -> Vec<Message> {
        if self.state != State::Born {
            return Vec::new();
        }
        let mut items = Vec::new();
        for sample in samples {
            if self.is_birth_due || !self.is_born_and_alive(sample.tag) {
                self.held.push(sample.clone());
                continue;
            }
            let tag = self.tags.get_mut(&sample.tag).expect("what can be said was born");
            if is_overtaken(sample, &tag.born) {
                items.push(Item::new(sample, true));
            } else if !same::says(&tag.last, sample) {
                tag.last = sample.clone();
                items.push(Item::new(sample, false));
            }
        }
        self.say(items, now)
    }

    fn backlog(&mut self, rows: &[(TagName, Record)], now: Timestamp) -> Vec<Message> {
        if self.state != State::Born {
            return Vec::new();
        }
        let mut items = Vec::new();
        let (mut unsaid, mut first) = (0, None);
        for (name, record) in rows {
            let entry = self.layout.tag(name).map(|tag| (tag, &self.layout.entries[&tag]));
            match entry {
                Some((tag, entry)) if metric::fits(&entry.spec, &record.value) => {
                    if self.is_birth_due || !self.is_born_and_alive(tag) {
                        self.held.push(same::as_sample(tag, record));
                    } else if !same::sample(&same::as_sample(tag, record), &self.tags[&tag].born) {
                        items.push(Item::kept(tag, record));
                    }
                }
                _ => {
                    unsaid += 1;
                    first.get_or_insert(name);
                }
            }
        }
        if let Some(name) = first {
            self.cannot_say(unsaid, || format!("samples from before of {name}, which is gone or of another type now"));
        }
        self.say(items, now)
    }

    fn lost(&mut self, folder: &str, now: Timestamp) -> Vec<Message> {
        if self.state != State::Born {
            return Vec::new();
        }
        self.bury(folder, now).into_iter().collect()
    }

    fn back(&mut self, _folder: &str, view: &View, now: Timestamp) -> Vec<Message> {
        // The view says that it is not lost any more.
        self.changed(view, now)
    }

    fn picture(
        &mut self,
        camera: &str,
        jpeg: &[u8],
        captured: Timestamp,
        is_historical: bool,
        now: Timestamp,
    ) -> Option<Message> {
        let folder = names::of_camera(camera);
        if self.state != State::Born || self.is_birth_due || !self.alive.contains(folder.as_str()) {
            return None;
        }
        let metadata = MetaData {
            content_type: Some("image/jpeg".to_owned()),
            size: Some(jpeg.len() as u64),
            ..MetaData::default()
        };
        let metric = Metric {
            metadata: Some(metadata),
            is_historical: is_historical.then_some(true),
            datatype: None,
            is_null: None,
            value: Some(wire::Value::BytesValue(jpeg.to_vec())),
            ..self.picture_metric(&folder, captured)?
        };
        let id = self.layout.devices.get(folder.as_str()).cloned()?;
        Some(self.message(Kind::DData, Some(&id), vec![metric], now))
    }

    fn unsaid(&self) -> u64 {
        self.unsaid
    }

    fn received(&mut self, received: &Received, _now: Timestamp) -> Vec<Ask> {
        match Topic::parse(&received.topic) {
            Some(Topic::State { host }) if self.host.as_ref().is_some_and(|ours| ours.id.as_str() == host) => {
                self.hear(&received.payload)
            }
            Some(Topic::Message { group, kind: kind @ (Kind::NCmd | Kind::DCmd), node, device })
                if (group, node) == (&self.group, &self.node) =>
            {
                match (kind, device.map(|id| self.layout.device(id).cloned())) {
                    (Kind::NCmd, _) => self.command(&Place::Node, received),
                    (_, Some(Some(folder))) => self.command(&Place::Device(folder), received),
                    _ => vec![Ask::Refused(format!("{}: there is no such device", received.topic))],
                }
            }
            _ => Vec::new(),
        }
    }

    /// DDEATHs and NDEATH; nothing if there was no birth.
    fn death(&mut self, now: Timestamp) -> Vec<Message> {
        let was_born = std::mem::replace(&mut self.state, State::Offline) == State::Born;
        if !was_born {
            return Vec::new();
        }
        let alive: Vec<Arc<str>> = self.alive.iter().cloned().collect();
        let mut said: Vec<Message> = alive.iter().filter_map(|folder| self.bury(folder, now)).collect();
        said.push(self.ndeath(now));
        said
    }
}

#[cfg(test)]
mod tests;
