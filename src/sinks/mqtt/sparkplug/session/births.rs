//! What a birth says of its node or device, and the death of a device.

use super::{Current, Session, Tag};
use crate::model::{TagId, Timestamp};
use crate::mqtt::line::Message;
use crate::mqtt::sparkplug::Kind;
use crate::mqtt::sparkplug::proto::DataType as Type;
use crate::mqtt::sparkplug::proto::payload::{Metric, metric as wire};
use crate::sinks::mqtt::sparkplug::command::{CONTROLS, REBIRTH};
use crate::sinks::mqtt::sparkplug::data::{alias_of_instance, alias_of_tag};
use crate::sinks::mqtt::sparkplug::layout::{NODE_CONTROL, PICTURE, Place};
use crate::sinks::mqtt::sparkplug::metric::{self, Item, QualityCode, millis};
use crate::sinks::mqtt::sparkplug::{names, template};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::warn;

impl Session {
    /// Says a device dead, if it is alive.
    pub(super) fn bury(&mut self, folder: &str, now: Timestamp) -> Option<Message> {
        let folder = self.alive.take(folder)?;
        let id = self.layout.devices.get(&folder).cloned().expect("a device is in the layout it was born with");
        Some(self.message(Kind::DDeath, Some(&id), Vec::new(), now))
    }

    /// Whether the broker takes a message of this size, as far as it said.
    pub(super) fn fits(&self, message: &Message) -> bool {
        self.largest.is_none_or(|largest| message.size() <= largest)
    }

    /// One whose birth the broker does not take is as one that is lost: what its tags say waits for a broker that does.
    pub(super) fn bear_device(&mut self, folder: Arc<str>, current: &Current<'_>, now: Timestamp) -> Option<Message> {
        let before = self.seq;
        let birth = self.bear(&Place::Device(folder.clone()), current, now);
        if self.fits(&birth) {
            return Some(birth);
        }
        (self.seq, _) = (before, self.alive.remove(&folder));
        if self.too_large.insert(folder.clone()) {
            let (bytes, largest) = (birth.size(), self.largest.unwrap_or_default());
            warn!(
                device = %self.layout.devices[&folder], bytes, largest,
                "The broker does not take so large a birth, so this device is not born; let [mqtt] tags name fewer tags."
            );
        }
        None
    }

    pub(super) fn bear(&mut self, place: &Place, current: &Current<'_>, now: Timestamp) -> Message {
        let mut metrics = Vec::new();
        let mut instances: BTreeMap<TagId, Vec<Metric>> = BTreeMap::new();
        for (id, entry) in self.layout.of(place) {
            let Some(sample) = current.get(&id) else { continue };
            let told = self.told.get(&id).copied().unwrap_or(QualityCode::Good);
            let (mut metric, told) = metric::of_item(&entry.spec, &entry.name, &Item::new(sample, false), told, true);
            self.tags.insert(id, Tag { born: (*sample).clone(), last: (*sample).clone() });
            self.told.insert(id, told);
            match &entry.instance {
                Some(instance) => instances.entry(instance.first).or_default().push(metric),
                None => {
                    metric.alias = self.commands.aliases.then(|| alias_of_tag(id));
                    metrics.push(metric);
                }
            }
        }
        for (first, members) in instances {
            let instance = self.layout.entries[&first].instance.as_ref().expect("it has members");
            metrics.push(Metric {
                name: Some(instance.name.clone()),
                alias: self.commands.aliases.then(|| alias_of_instance(first)),
                timestamp: members.iter().filter_map(|member| member.timestamp).max(),
                datatype: Some(Type::Template as u32),
                value: Some(template::instance(&instance.template, members)),
                ..Metric::default()
            });
        }
        let device = match place {
            Place::Node => {
                metrics.extend(self.own_metrics(now));
                None
            }
            Place::Device(folder) => {
                metrics.extend(self.picture_metric(folder, now));
                self.alive.insert(folder.clone());
                Some(self.layout.devices[folder].clone())
            }
        };
        // Sparkplug 3.0, 5.16: births as well are in the order of the times.
        metrics.sort_by_key(|metric| metric.timestamp);
        if device.is_none() {
            // Definitions stand before what refers to them, so they are as old as the oldest.
            let oldest = metrics.first().and_then(|metric| metric.timestamp).unwrap_or_else(|| millis(now));
            metrics.splice(..0, self.layout.definitions.iter().map(|definition| definition.metric(oldest)));
        }
        let kind = if device.is_some() { Kind::DBirth } else { Kind::NBirth };
        self.message(kind, device.as_deref(), metrics, now)
    }

    /// Those of the node that are no tags; never with aliases (Sparkplug 3.0, 5.17).
    fn own_metrics(&self, now: Timestamp) -> Vec<Metric> {
        let control = |name: &str| {
            let name = format!("{NODE_CONTROL}{name}");
            metric::of_node(&name, Type::Boolean, wire::Value::BooleanValue(false), now)
        };
        let mut metrics = vec![self.bd_seq_metric(now), control(REBIRTH)];
        metrics.extend(CONTROLS.iter().filter(|(_, role)| self.commands.allow(*role)).map(|(name, _)| control(name)));
        metrics
    }

    pub(super) fn picture_metric(&self, folder: &str, now: Timestamp) -> Option<Metric> {
        let camera = self.cameras.iter().find(|camera| names::of_camera(camera) == folder);
        camera.map(|_| Metric {
            name: Some(PICTURE.to_owned()),
            timestamp: Some(millis(now)),
            datatype: Some(Type::Bytes as u32),
            is_null: Some(true),
            ..Metric::default()
        })
    }
}
