//! Items of one place as the metrics of NDATA or DDATA.
//!
//! Within a message the metrics stand in the order of their times (Sparkplug 3.0, 5.16). A clock may go back; then a new message
//! begins, so that for each tag what came last is said last. Members of an instance that have the same time are one metric. A
//! message is ended when it has become large: many brokers refuse more than 128 KiB or 256 KiB.

use super::layout::{Entry, Layout};
use super::metric::{self, Item, QualityCode};
use super::template;
use crate::model::{TagId, TagMap, Timestamp};
use crate::mqtt::sparkplug::proto::payload::{Metric, metric as wire};
use prost::Message as _;

/// What stands around a metric in its message: key and length.
const AROUND: usize = 4;

/// The alias of a plain metric; unique, because a tag's number is. 0 is left out: some take it for none.
pub(super) fn alias_of_tag(tag: TagId) -> u64 {
    u64::from(tag.0) + 1
}

/// The alias of an instance, by the first of its members.
pub(super) fn alias_of_instance(first: TagId) -> u64 {
    u64::from(u32::MAX) + 1 + alias_of_tag(first)
}

/// The metrics of each message. `told` is what was told about the quality of tags, and what is told now; `most` the bytes of a message.
pub(super) fn messages(
    items: Vec<Item>,
    layout: &Layout,
    aliases: bool,
    told: &mut TagMap<QualityCode>,
    most: usize,
) -> Vec<Vec<Metric>> {
    let mut messages = Vec::new();
    for mut run in runs(items) {
        let first = |item: &Item| layout.entries[&item.tag].instance.as_ref().map(|instance| instance.first);
        run.sort_by_key(|item| (item.time, first(item)));
        let mut metrics: Vec<Metric> = Vec::with_capacity(run.len());
        // Of the last metric, if it is an instance that may take further members.
        let mut open: Option<(TagId, &Item)> = None;
        for item in &run {
            let entry = &layout.entries[&item.tag];
            let before = told.get(&item.tag).copied().unwrap_or(QualityCode::Good);
            let (metric, code) = metric::of_item(&entry.spec, &entry.name, item, before, false);
            if !item.is_historical {
                told.insert(item.tag, code);
            }
            let is_open = |(first, before): (TagId, &Item)| {
                entry.instance.as_ref().is_some_and(|instance| instance.first == first)
                    && (before.time, before.is_historical) == (item.time, item.is_historical)
            };
            match metrics.last_mut() {
                Some(last) if open.is_some_and(is_open) && !has(last, metric.name()) => push_member(last, metric),
                _ => {
                    open = entry.instance.as_ref().map(|instance| (instance.first, item));
                    metrics.push(of_entry(entry, item.tag, metric, aliases));
                }
            }
        }
        split(metrics, most, &mut messages);
    }
    messages
}

/// The metric as it stands in a message: an instance around a member, and an alias in place of the name.
fn of_entry(entry: &Entry, tag: TagId, metric: Metric, aliases: bool) -> Metric {
    let (mut metric, alias) = match &entry.instance {
        None => (metric, alias_of_tag(tag)),
        Some(instance) => {
            let around = Metric {
                name: Some(instance.name.clone()),
                timestamp: metric.timestamp,
                is_historical: metric.is_historical,
                value: Some(template::instance(&instance.template, vec![metric])),
                ..Metric::default()
            };
            (around, alias_of_instance(instance.first))
        }
    };
    if aliases {
        // Never both (Sparkplug 3.0, 6.4.5).
        (metric.name, metric.alias) = (None, Some(alias));
    }
    metric
}

fn has(instance: &Metric, member: &str) -> bool {
    match &instance.value {
        Some(wire::Value::TemplateValue(template)) => template.metrics.iter().any(|metric| metric.name() == member),
        _ => false,
    }
}

fn push_member(instance: &mut Metric, member: Metric) {
    if let Some(wire::Value::TemplateValue(template)) = &mut instance.value {
        template.metrics.push(member);
    }
}

/// Cut where a tag's time goes back.
fn runs(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut runs = Vec::new();
    let mut run: Vec<Item> = Vec::new();
    let mut last: TagMap<Timestamp> = TagMap::default();
    for item in items {
        if last.get(&item.tag).is_some_and(|&before| item.time < before) {
            runs.push(std::mem::take(&mut run));
            last.clear();
        }
        last.insert(item.tag, item.time);
        run.push(item);
    }
    if !run.is_empty() {
        runs.push(run);
    }
    runs
}

fn split(metrics: Vec<Metric>, most: usize, messages: &mut Vec<Vec<Metric>>) {
    let (mut message, mut size) = (Vec::new(), 0);
    for metric in metrics {
        let length = metric.encoded_len() + AROUND;
        if size + length > most && !message.is_empty() {
            messages.push(std::mem::take(&mut message));
            size = 0;
        }
        size += length;
        message.push(metric);
    }
    if !message.is_empty() {
        messages.push(message);
    }
}
