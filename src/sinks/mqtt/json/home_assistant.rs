//! What Home Assistant is told of the tags, so that they appear there by themselves (its MQTT discovery):
//! `<prefix>/<component>/<device>/<object>/config`, retained; an empty one takes the entity away.
//!
//! A number is a `sensor`, a Boolean a `binary_sensor`; where they can be written, a `number` and a `switch`. Other plain values
//! are sensors, too; arrays, bytes and structures are left out, because a state is a text of 255 characters at most. Cameras
//! whose pictures are sent are `camera`s.
//!
//! The device's own level in the topic lets it find what it told before a restart: see [`Announcer::filter`].

use super::topic::Topics;
use crate::model::{DataType, TagSpec};
use crate::mqtt::sparkplug::SparkplugId;
use serde_json::{Value as Json, json};

/// Longer or other: not a state of Home Assistant.
const PLAIN: &[DataType] = &[
    DataType::String,
    DataType::DateTime,
    DataType::Guid,
    DataType::StatusCode,
    DataType::LocalizedText,
    DataType::QualifiedName,
];

/// Unit and device class, where one unit belongs to one class. `%` may be humidity, battery or power, so it is none.
const CLASSES: &[(&str, &[&str])] = &[
    ("temperature", &["°C", "°F", "K"]),
    ("pressure", &["Pa", "hPa", "kPa", "mbar", "bar", "psi", "mmHg", "inHg"]),
    ("voltage", &["µV", "mV", "V", "kV"]),
    ("current", &["mA", "A"]),
    ("power", &["mW", "W", "kW", "MW"]),
    ("frequency", &["Hz", "kHz", "MHz", "GHz"]),
    ("illuminance", &["lx"]),
    ("data_size", &["B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"]),
    ("data_rate", &["B/s", "kB/s", "MB/s", "bit/s", "kbit/s", "Mbit/s"]),
    ("duration", &["ms", "s", "min", "h", "d"]),
    ("distance", &["mm", "cm", "m", "km"]),
    ("speed", &["mm/s", "m/s", "km/h"]),
    ("weight", &["g", "kg"]),
];

pub(super) struct Announcer {
    prefix: String,
    /// Its level in topics, and the beginning of ids.
    device: String,
    node: String,
    cameras: Vec<Camera>,
}

struct Camera {
    name: String,
    topic: String,
}

impl Announcer {
    /// `cameras` with the topics of their pictures.
    pub(super) fn new(
        prefix: &str,
        group: &SparkplugId,
        node: &SparkplugId,
        cameras: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
            device: format!("vedette-{}-{}", id(group.as_str()), id(node.as_str())),
            node: node.to_string(),
            cameras: cameras.into_iter().map(|(name, topic)| Camera { name, topic }).collect(),
        }
    }

    /// For all that this device told, now or before; the broker gives it back after a restart.
    pub(super) fn filter(&self) -> String {
        format!("{}/+/{}/+/config", self.prefix, self.device)
    }

    pub(super) fn is_own(&self, topic: &str) -> bool {
        let rest = topic.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('/'));
        let levels: Vec<&str> = rest.into_iter().flat_map(|rest| rest.split('/')).collect();
        matches!(levels[..], [_, device, _, "config"] if device == self.device)
    }

    /// Topic and payload. `None`: Home Assistant has nothing for such a tag.
    pub(super) fn tag(&self, spec: &TagSpec, topics: &Topics, takes_writes: bool) -> Option<(String, Vec<u8>)> {
        if spec.is_array {
            return None;
        }
        let is_number = spec.data_type.is_number();
        let is_boolean = spec.data_type == DataType::Boolean;
        if !is_number && !is_boolean && !PLAIN.contains(&spec.data_type) {
            return None;
        }
        let object = id(spec.name.as_str());
        let is_set = spec.writable && takes_writes;
        let component = match (is_boolean, is_number, is_set) {
            (true, _, true) => "switch",
            (true, _, false) => "binary_sensor",
            (_, true, true) => "number",
            _ => "sensor",
        };
        let mut config = self.entity(&object, spec.name.as_str(), topics);
        config["state_topic"] = json!(topics.tag(&spec.name));
        // NaN is a text in JSON, and no state of a number.
        let value = match (is_boolean, is_number) {
            (true, _) => "('ON' if value_json.value else 'OFF') if value_json.value is boolean else None",
            (_, true) => "value_json.value if value_json.value is number else None",
            // Of a longer text Home Assistant takes nothing.
            _ => "value_json.value[:255] if value_json.value is string else None",
        };
        // What is older than what was said before leaves the state as it is.
        let kept = if is_boolean { "this.state | upper" } else { "this.state" };
        config["value_template"] = json!(format!(
            "{{% if value_json.historical | default(false) %}}\
             {{{{ {kept} if this.state not in ['unknown', 'unavailable'] else None }}}}\
             {{% else %}}{{{{ {value} }}}}{{% endif %}}"
        ));
        if matches!(component, "switch" | "number") {
            config["command_topic"] = json!(topics.set(&spec.name));
            config["qos"] = json!(1);
            config["retain"] = json!(false);
        }
        match component {
            "switch" => {
                config["payload_on"] = json!("true");
                config["payload_off"] = json!("false");
                config["state_on"] = json!("ON");
                config["state_off"] = json!("OFF");
            }
            "number" => {
                let (low, high) = bounds(spec);
                config["min"] = json!(low);
                config["max"] = json!(high);
                config["step"] =
                    json!(if matches!(spec.data_type, DataType::Float | DataType::Double) { 0.001 } else { 1.0 });
                config["mode"] = json!("box");
            }
            "sensor" if is_number => config["state_class"] = json!("measurement"),
            "sensor" if spec.data_type == DataType::DateTime => config["device_class"] = json!("timestamp"),
            _ => {}
        }
        if is_number && !spec.unit.is_empty() {
            config["unit_of_measurement"] = json!(spec.unit);
            if let Some((class, _)) = CLASSES.iter().find(|(_, units)| units.contains(&spec.unit.as_str())) {
                config["device_class"] = json!(class);
            }
        }
        Some((self.topic(component, &object), config.to_string().into_bytes()))
    }

    pub(super) fn cameras(&self, topics: &Topics) -> Vec<(String, Vec<u8>)> {
        let announce = |camera: &Camera| {
            let object = id(&format!("cameras/{}/picture", camera.name));
            let mut config = self.entity(&object, &camera.name, topics);
            config["topic"] = json!(camera.topic);
            (self.topic("camera", &object), config.to_string().into_bytes())
        };
        self.cameras.iter().map(announce).collect()
    }

    fn topic(&self, component: &str, object: &str) -> String {
        format!("{}/{component}/{}/{object}/config", self.prefix, self.device)
    }

    fn entity(&self, object: &str, name: &str, topics: &Topics) -> Json {
        json!({
            "name": name,
            "unique_id": format!("{}_{object}", self.device),
            "availability_topic": topics.status(),
            "availability_template": "{{ value_json.state }}",
            "device": {
                "identifiers": [self.device],
                "name": self.node,
                "manufacturer": "Vedette",
                "model": "Vedette",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "origin": { "name": "Vedette", "sw_version": env!("CARGO_PKG_VERSION") },
        })
    }
}

/// What may be written: the range, or all that the type holds and Home Assistant's numbers bear.
fn bounds(spec: &TagSpec) -> (f64, f64) {
    const MOST: f64 = 9_007_199_254_740_991.0;
    match (spec.range, spec.data_type) {
        (Some(range), _) if range.low < range.high => (range.low, range.high),
        (_, DataType::SByte) => (i8::MIN.into(), i8::MAX.into()),
        (_, DataType::Byte) => (0.0, u8::MAX.into()),
        (_, DataType::Int16) => (i16::MIN.into(), i16::MAX.into()),
        (_, DataType::UInt16) => (0.0, u16::MAX.into()),
        (_, DataType::Int32) => (i32::MIN.into(), i32::MAX.into()),
        (_, DataType::UInt32) => (0.0, u32::MAX.into()),
        (_, DataType::UInt64) => (0.0, MOST),
        _ => (-MOST, MOST),
    }
}

/// Letters, digits, `-` and `_` are all that an id may have: `/` becomes `__`, all else `_` and two hexadecimal digits for each byte.
fn id(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'/' => text.push_str("__"),
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => text.push(char::from(byte)),
            other => text.push_str(&format!("_{other:02X}")),
        }
    }
    text
}
