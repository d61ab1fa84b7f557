//! What somebody who may look sees: how the device is, its tags, its log.

use super::End;
use super::act::Doer;
use crate::base::{Selection, logs};
use crate::hub::Hub;
use crate::model::{Sample, TagId, TagName, TagSpec};
use crate::opcua::json::json as to_json;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of an answer. What is longer cannot be read by many clients, and there is a pattern to make it shorter.
const LONGEST: usize = 1 << 20;

/// The folders of tags that say how the device itself is.
const OWN: [&str; 5] = ["device/**", "system/**", "store/**", "mqtt/**", "cameras/*/State"];

pub(super) fn status(hub: &Hub) -> End {
    let own = Selection::new(&OWN.map(str::to_owned));
    let (tags, specs) = chosen(hub, &own);
    let values = hub
        .read_many(&tags)
        .into_iter()
        .map(|sample| if sample.quality.is_bad() { Json::Null } else { to_json(&sample.value) });
    let tags: serde_json::Map<String, Json> = specs.iter().map(|spec| spec.name.to_string()).zip(values).collect();
    let lost: serde_json::Map<String, Json> =
        hub.lost_sources().into_iter().map(|(name, why)| (name.to_string(), (*why).into())).collect();
    let alarms: Vec<Json> = hub
        .conditions()
        .iter()
        .filter(|condition| condition.is_active)
        .map(|condition| json!({"source": &*condition.source, "message": condition.message, "since": condition.since.to_string()}))
        .collect();
    done(json!({"version": env!("CARGO_PKG_VERSION"), "tags": tags, "lost_sources": lost, "alarms": alarms}))
}

pub(super) fn list(hub: &Hub, pattern: String) -> End {
    let (tags, specs) = chosen(hub, &Selection::new(&[pattern]));
    let mut rows = Vec::with_capacity(tags.len());
    let mut length = 0;
    // A few at a time: thousands of large arrays are not to be copied only to be refused.
    for (tags, specs) in tags.chunks(100).zip(specs.chunks(100)) {
        for (spec, sample) in specs.iter().zip(hub.read_many(tags)) {
            let mut row = seen(spec, &sample);
            row["type"] = type_of(spec).into();
            row["unit"] = spec.unit.as_str().into();
            row["writable"] = spec.writable.into();
            length += row.to_string().len();
            rows.push(row);
        }
        if length > LONGEST {
            return End::Failed(format!(
                "the list is longer than {LONGEST} bytes; name fewer tags, as in {{\"pattern\": \"system/**\"}}"
            ));
        }
    }
    done(rows.into())
}

pub(super) async fn read(hub: &Hub, names: Vec<TagName>) -> End {
    let mut tags = Vec::with_capacity(names.len());
    for name in &names {
        match hub.find(name) {
            Some(tag) => tags.push(tag),
            None => return End::Failed(format!("there is no tag {name}; `list` says which there are")),
        }
    }
    hub.refresh(&tags, Duration::ZERO).await;
    let rows = tags.iter().zip(hub.read_many(&tags)).map(|(&tag, sample)| seen(&hub.spec(tag), &sample));
    done(rows.collect())
}

pub(super) fn log(lines: usize, level: logs::Level) -> End {
    let lines: Vec<Json> = logs::recent(lines, level)
        .into_iter()
        .map(|line| json!({"time": line.time, "level": line.level.to_string(), "module": line.module, "text": line.text}))
        .collect();
    done(lines.into())
}

impl Doer {
    pub(super) async fn snapshot(&self, camera: &str, max_bytes: Option<u64>) -> End {
        match self.pictures.take(camera, max_bytes).await {
            Ok(snapshot) => {
                let bytes = snapshot.message.payload.len();
                let captured = snapshot.captured.to_string();
                let result = json!({"topic": snapshot.message.topic, "bytes": bytes, "captured": captured});
                End::Picture(snapshot.message, result)
            }
            Err(why) => End::Failed(why),
        }
    }
}

fn chosen(hub: &Hub, selection: &Selection) -> (Vec<TagId>, Vec<Arc<TagSpec>>) {
    hub.tags().into_iter().filter(|(_, spec)| selection.contains(spec.name.as_str())).unzip()
}

fn type_of(spec: &TagSpec) -> String {
    if spec.is_array { format!("{}[]", spec.data_type) } else { spec.data_type.to_string() }
}

fn seen(spec: &TagSpec, sample: &Sample) -> Json {
    let mut row = json!({
        "name": spec.name.as_str(),
        "value": to_json(&sample.value),
        "quality": sample.quality.status.to_string(),
        "time": sample.source_time.unwrap_or(sample.server_time).to_string(),
    });
    if let Some(reason) = &sample.quality.reason {
        row["reason"] = (**reason).into();
    }
    row
}

fn done(result: Json) -> End {
    match result.to_string().len() {
        length if length > LONGEST => End::Failed(format!("the answer is {length} bytes long; {LONGEST} are the most")),
        _ => End::Done(result),
    }
}
