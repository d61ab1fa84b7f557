//! What a person may say about the uplink, parsed into types that cannot be wrong.
//!
//! What one key alone can get wrong is refused while parsing ([`BrokerUrl`], [`SparkplugId`]); what only keys together
//! or a range can get wrong is found by [`Config::validate`] (`validate.rs`). Files are opened at each connect, not here, so that
//! a certificate can be renewed without a restart.

mod validate;

use crate::base::{bytes, duration};
use crate::model::{Role, TagName};
use crate::mqtt::sparkplug::SparkplugId;
use crate::mqtt::{Access, BrokerUrl, Protocol};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// `[mqtt]`: the uplink.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the broker is: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` with TLS. The ports default to 1883 and
    /// 8883. Example: `"mqtts://broker.plant.example:8883"`. No default; `broker` or `brokers` must be there.
    #[serde(default)]
    pub broker: Option<BrokerUrl>,
    /// Several brokers, tried in turn: the next one when one cannot be reached, or when the primary host is not there.
    /// Instead of `broker`. Default: none.
    #[serde(default)]
    pub brokers: Vec<BrokerUrl>,
    /// The version of MQTT: `"5"` or `"3.1.1"`. Default: `"5"`.
    #[serde(default)]
    pub protocol: Protocol,
    /// What is said: `"sparkplug"` (Sparkplug B 3.0) or `"json"`. Default: `"sparkplug"`.
    #[serde(default)]
    pub format: Format,
    /// The Sparkplug group that this device is listed under; a level of the topics in JSON, too. Example: `"Plant 1"`.
    /// Default: `"Vedette"`.
    #[serde(default = "default_group")]
    pub group: SparkplugId,
    /// The Sparkplug edge node id; unique within the group. Example: `"press-4"`. Default: the device's name.
    #[serde(default)]
    pub node: Option<SparkplugId>,
    /// Sparkplug's primary host: nothing is sent, and everything is kept, unless it says that it is there. Example:
    /// `"scada"`. Default: none.
    #[serde(default)]
    pub primary_host: Option<SparkplugId>,
    /// Send aliases (numbers) in place of names in DATA. Saves bytes; some hosts cannot read them. Default: false.
    #[serde(default)]
    pub aliases: bool,
    /// Folders that are instances of one Sparkplug template. Default: none.
    #[serde(default)]
    pub template: Vec<Template>,
    /// Tags that are sent, by name. In a pattern `*` stands for any part of a segment, `?` for one character, and `**` as a
    /// segment for any number of segments. Default: `["**"]`, all.
    #[serde(default = "default_tags")]
    pub tags: Vec<String>,
    /// The user at the broker. Example: `"vedette"`. Default: none.
    #[serde(default)]
    pub username: Option<String>,
    /// A file whose first line is the user's password; `"credential:NAME"` is the systemd credential NAME. Example:
    /// `"/etc/vedette/mqtt.password"`. Default: none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// PEM file with the certificate authorities that may have signed the broker's certificate; only with `mqtts://`.
    /// Example: `"/etc/vedette/plant-ca.pem"`. Default: the system's authorities.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with this device's certificate and what it is signed with, own certificate first; only with
    /// `mqtts://` and together with `client_key_file`. Example: `"/etc/vedette/mqtt.pem"`. Default: none.
    #[serde(default)]
    pub client_cert_file: Option<PathBuf>,
    /// PEM file with the private key of `client_cert_file`; `"credential:NAME"` as above. Nobody but its owner may be
    /// able to read it. Example: `"/etc/vedette/mqtt.key"`. Default: none.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// How long the line may be silent before either end asks whether the other is there, in whole seconds from
    /// `"1s"` to `"65535s"`. A broken line is noticed after one and a half to two of them. Default: `"30s"`.
    #[serde(default = "default_keep_alive", deserialize_with = "duration::deserialize")]
    pub keep_alive: Duration,
    /// Changes are collected for this long and sent together; each keeps its own time. From `"10ms"` to `"1h"`.
    /// Default: `"1s"`.
    #[serde(default = "default_publish_interval", deserialize_with = "duration::deserialize")]
    pub publish_interval: Duration,
    /// Samples per second that are sent of what was kept while there was no broker, beside the new ones. From 1 to
    /// 1 000 000. Default: 5000.
    #[serde(default = "default_backlog_rate")]
    pub backlog_rate: u32,
    /// What commands over MQTT may do at most: `"viewer"` (look, take pictures), `"operator"` (write tags, ask for births, identify),
    /// `"admin"` (reboot, firmware, configuration: whatever the user of this service may do), or `"none"` for no commands but Sparkplug's own rebirth. Whoever may publish to the
    /// topic of a role has it, so the broker's access list decides. Default: `"operator"`.
    #[serde(default)]
    pub commands: Commands,
    /// How JSON is laid out; only with `format = "json"`.
    #[serde(default)]
    pub json: Json,
    /// What pictures that wait for the broker may take on the disk; the oldest go. Default: `"64MiB"`.
    #[serde(default = "default_image_bytes", deserialize_with = "bytes::deserialize")]
    pub image_bytes: u64,
    /// Pictures that are sent.
    #[serde(default)]
    pub image: Vec<Image>,
}

/// What is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Sparkplug,
    Json,
}

/// What commands may do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "CommandsText")]
pub struct Commands(pub Option<Role>);

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum CommandsText {
    None,
    Viewer,
    Operator,
    Admin,
}

impl From<CommandsText> for Commands {
    fn from(text: CommandsText) -> Self {
        Self(match text {
            CommandsText::None => None,
            CommandsText::Viewer => Some(Role::Viewer),
            CommandsText::Operator => Some(Role::Operator),
            CommandsText::Admin => Some(Role::Admin),
        })
    }
}

impl Default for Commands {
    fn default() -> Self {
        Self(Some(Role::Operator))
    }
}

/// `[[mqtt.template]]`: folders with the same tags in them, as instances of one Sparkplug template (UDT).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Of the definition. Example: `"Motor"`.
    pub name: String,
    /// Patterns of the folders, as of `tags`. Example: `["plc/motor*"]`.
    pub folders: Vec<String>,
}

/// `[mqtt.json]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Json {
    /// The first levels of all topics; `{group}` and `{node}` stand for theirs. Default: `"vedette/{group}/{node}"`.
    pub topic: String,
    /// `"tag"`: one message for each tag, at TOPIC/TAG. `"batch"`: the samples of one interval in one, at TOPIC/data.
    /// Default: `"tag"`.
    pub layout: Layout,
    /// 0 or 1. Default: 1.
    pub qos: u8,
    /// Keep the latest value of each tag at the broker; only with layout "tag". Default: false.
    pub retain: bool,
    /// Tell Home Assistant of the tags, below this topic. Example: `"homeassistant"`. Default: none.
    pub home_assistant: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    #[default]
    Tag,
    Batch,
}

impl Default for Json {
    fn default() -> Self {
        Self {
            topic: "vedette/{group}/{node}".into(),
            layout: Layout::Tag,
            qos: 1,
            retain: false,
            home_assistant: None,
        }
    }
}

/// `[[mqtt.image]]`: when pictures of a camera are sent, and how.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The camera's name.
    pub camera: String,
    /// Send a picture so often. Default: not by time.
    #[serde(default, deserialize_with = "duration::deserialize_some")]
    pub interval: Option<Duration>,
    /// Send a picture when it differs from the one sent before by so many percent. Default: not by change.
    #[serde(default)]
    pub on_change: Option<f64>,
    /// The shortest time between two pictures of `on_change`. Default: `"1s"`.
    #[serde(default = "default_every", deserialize_with = "duration::deserialize")]
    pub every: Duration,
    /// Send pictures when a tag becomes something. Default: none.
    #[serde(default)]
    pub trigger: Option<Trigger>,
    /// `"jpeg"`: the file itself as the message, on a topic of its own. `"sparkplug"`: a metric of type Bytes of the
    /// camera's device. Default: `"jpeg"`.
    #[serde(default, rename = "as")]
    pub form: Form,
    /// Pictures are made smaller until they fit. Default: `"512KiB"`.
    #[serde(default = "default_max_bytes", deserialize_with = "bytes::deserialize")]
    pub max_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    #[default]
    Jpeg,
    Sparkplug,
}

/// When a tag becomes something: so many pictures from before that moment, and so many after it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The tag. Example: `"plc/LineStop"`.
    pub tag: TagName,
    /// What it becomes: a Boolean, a number, or a text. Default: true.
    #[serde(default = "default_becomes")]
    pub becomes: toml::Value,
    /// Pictures from before, out of a ring in memory; the camera runs all the time for them. Default: 0.
    #[serde(default)]
    pub before: usize,
    /// Pictures from that moment on. Default: 1.
    #[serde(default = "default_after")]
    pub after: usize,
    /// The time between two of these pictures. Default: `"1s"`.
    #[serde(default = "default_every", deserialize_with = "duration::deserialize")]
    pub every: Duration,
}

fn default_group() -> SparkplugId {
    SparkplugId::nearest("Vedette")
}

fn default_tags() -> Vec<String> {
    vec!["**".into()]
}

fn default_keep_alive() -> Duration {
    Duration::from_secs(30)
}

fn default_publish_interval() -> Duration {
    Duration::from_secs(1)
}

fn default_backlog_rate() -> u32 {
    5000
}

fn default_image_bytes() -> u64 {
    64 << 20
}

fn default_every() -> Duration {
    Duration::from_secs(1)
}

fn default_max_bytes() -> u64 {
    512 << 10
}

fn default_becomes() -> toml::Value {
    toml::Value::Boolean(true)
}

fn default_after() -> usize {
    1
}

impl Config {
    /// In the order in which they are tried; at least one.
    pub fn brokers(&self) -> Vec<&BrokerUrl> {
        self.broker.iter().chain(&self.brokers).collect()
    }

    /// Nobody says that what was sent has arrived.
    pub(super) fn is_unacknowledged(&self) -> bool {
        self.format == Format::Sparkplug || self.json.qos == 0
    }

    /// A loss of the line is noticed so late.
    pub(super) fn window(&self) -> Duration {
        self.keep_alive.mul_f64(1.5)
    }

    /// What it takes to reach one of [`Config::brokers`].
    pub fn access(&self, broker: &BrokerUrl) -> Access {
        Access {
            broker: broker.clone(),
            protocol: self.protocol,
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            ca_file: self.ca_file.clone(),
            client_cert_file: self.client_cert_file.clone(),
            client_key_file: self.client_key_file.clone(),
            keep_alive: self.keep_alive,
        }
    }
}

#[cfg(test)]
mod tests;
