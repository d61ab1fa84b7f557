//! What a person may say about the uplink, parsed into types that cannot be wrong.
//!
//! What one key alone can get wrong is refused while parsing ([`BrokerUrl`], [`SparkplugId`]); what only keys together
//! or a range can get wrong is found by [`Config::validate`]. Files are opened at each connect, not here, so that
//! a certificate can be renewed without a restart.

use crate::base::selection::check_pattern;
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

/// Pictures of one trigger at most: they wait in memory.
const MOST_OF_A_TRIGGER: usize = 100;

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

    /// What is wrong between keys or out of range: the key, and a sentence that says what would be right.
    pub fn validate(&self) -> Vec<(&'static str, String)> {
        let mut faults = self.validate_access();
        let mut fault = |key, message: String| faults.push((key, message));
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&self.publish_interval) {
            fault("publish_interval", "publish_interval must be from \"10ms\" to \"1h\"".into());
        }
        if !(1..=1_000_000).contains(&self.backlog_rate) {
            fault("backlog_rate", "backlog_rate must be from 1 to 1000000".into());
        }
        for pattern in &self.tags {
            if let Some(what) = check_pattern(pattern) {
                fault("tags", what);
            }
        }
        if self.image_bytes < 1 << 20 {
            fault("image_bytes", "image_bytes must be \"1MiB\" or more".into());
        }
        match self.format {
            Format::Sparkplug if self.json != Json::default() => {
                fault("json", "[mqtt.json] has no effect without format = \"json\"".into());
            }
            Format::Json => {
                for (key, is_there) in [
                    ("primary_host", self.primary_host.is_some()),
                    ("aliases", self.aliases),
                    ("template", !self.template.is_empty()),
                ] {
                    if is_there {
                        fault(key, format!("{key} belongs to Sparkplug; it has no effect with format = \"json\""));
                    }
                }
            }
            Format::Sparkplug => {}
        }
        self.json.validate().into_iter().for_each(|what| fault("json", what));
        for (at, template) in self.template.iter().enumerate() {
            if self.template[..at].iter().any(|other| other.name == template.name) {
                fault("template", format!("there are two templates {:?}; write all folders into one", template.name));
            }
            if template.name.is_empty() || template.folders.is_empty() {
                fault("template", "a template needs a name, and patterns of folders".into());
            }
            template
                .folders
                .iter()
                .filter_map(|pattern| check_pattern(pattern))
                .for_each(|what| fault("template", what));
        }
        for image in &self.image {
            image
                .validate(self.format)
                .into_iter()
                .for_each(|what| fault("image", format!("{}: {what}", image.camera)));
            if image.max_bytes > self.image_bytes {
                let what =
                    "max_bytes is more than image_bytes, so such a picture could not be kept; make one of them fit";
                fault("image", format!("{}: {what}", image.camera));
            }
        }
        faults
    }

    fn validate_access(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut fault = |key, message: &str| faults.push((key, message.to_owned()));
        match (&self.broker, &self.brokers[..]) {
            (None, []) => fault("broker", "the broker is missing: add broker = \"mqtt://HOST\""),
            (Some(_), [_, ..]) => fault("brokers", "there is `broker` too; write all of them in `brokers`"),
            _ => {}
        }
        match (&self.client_cert_file, &self.client_key_file) {
            (Some(_), None) => fault(
                "client_key_file",
                "client_cert_file needs its key: add client_key_file, or remove client_cert_file",
            ),
            (None, Some(_)) => fault(
                "client_cert_file",
                "client_key_file needs its certificate: add client_cert_file, or remove client_key_file",
            ),
            _ => {}
        }
        if !self.brokers().is_empty() && !self.brokers().iter().any(|broker| broker.tls()) {
            for (key, file) in [
                ("ca_file", &self.ca_file),
                ("client_cert_file", &self.client_cert_file),
                ("client_key_file", &self.client_key_file),
            ] {
                if file.is_some() {
                    fault(key, &format!("{key} has no effect without TLS: write broker = \"mqtts://...\""));
                }
            }
        }
        if self.protocol == Protocol::V311 && self.password_file.is_some() && self.username.is_none() {
            fault("password_file", "password_file needs a username with protocol = \"3.1.1\": add username");
        }
        let keep_alive = self.keep_alive;
        if keep_alive.subsec_nanos() != 0 || !(1..=u64::from(u16::MAX)).contains(&keep_alive.as_secs()) {
            fault("keep_alive", "keep_alive must be whole seconds from \"1s\" to \"65535s\"");
        }
        faults
    }
}

impl Json {
    fn validate(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.qos > 1 {
            faults.push("qos must be 0 or 1".into());
        }
        if self.retain && self.layout == Layout::Batch {
            faults.push("retain keeps single values; it goes with layout = \"tag\" only".into());
        }
        if self.home_assistant.is_some() && self.layout == Layout::Batch {
            faults.push("home_assistant reads single values; it goes with layout = \"tag\" only".into());
        }
        for (key, topic) in [("topic", Some(&self.topic)), ("home_assistant", self.home_assistant.as_ref())] {
            if topic.is_some_and(|topic| topic.is_empty() || topic.contains(['+', '#', '\0'])) {
                faults.push(format!("{key} must be levels of a topic, without + and #"));
            }
        }
        faults
    }
}

impl Image {
    fn validate(&self, format: Format) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |what: &str| faults.push(what.to_owned());
        if self.on_change.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            fault("on_change must be a percentage from 0 to 100");
        }
        if [self.interval, Some(self.every)].into_iter().flatten().any(|time| time < Duration::from_millis(10)) {
            fault("interval and every must be \"10ms\" or more");
        }
        if self.interval.is_none() && self.on_change.is_none() && self.trigger.is_none() {
            fault("it sends nothing: add interval, on_change or trigger");
        }
        if self.max_bytes < 4 << 10 {
            fault("max_bytes must be \"4KiB\" or more");
        }
        if self.form == Form::Sparkplug && format == Format::Json {
            fault("as = \"sparkplug\" needs format = \"sparkplug\"");
        }
        if let Some(trigger) = &self.trigger {
            if trigger.before + trigger.after > MOST_OF_A_TRIGGER {
                fault("before and after together must be 100 or less");
            }
            if trigger.before + trigger.after == 0 {
                fault("a trigger with before = 0 and after = 0 sends nothing");
            }
            if trigger.every < Duration::from_millis(10) {
                fault("every must be \"10ms\" or more");
            }
            if !(trigger.becomes.is_bool()
                || trigger.becomes.is_integer()
                || trigger.becomes.is_float()
                || trigger.becomes.is_str())
            {
                fault("becomes must be true, false, a number or a text");
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Config, String> {
        toml::from_str(toml).map_err(|error| error.message().to_owned())
    }

    fn faults(toml: &str) -> Vec<(&'static str, String)> {
        read(toml).unwrap().validate()
    }

    #[test]
    fn the_broker_alone_is_enough() {
        let config = read(r#"broker = "mqtt://broker""#).unwrap();
        assert_eq!(config.broker.as_ref().unwrap().to_string(), "mqtt://broker:1883");
        assert_eq!((config.group.as_str(), config.node.as_ref()), ("Vedette", None));
        assert_eq!((config.keep_alive, config.publish_interval), (Duration::from_secs(30), Duration::from_secs(1)));
        assert!(config.validate().is_empty());
    }

    #[test]
    fn the_shipped_file_has_each_key_with_its_default() {
        let text = include_str!("../../../config/vedette.toml");
        let table = text.split_once("#[mqtt]\n").unwrap().1.split("\n\n").next().unwrap();
        let keys = table.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
        let toml = keys.collect::<Vec<_>>().join("\n").replace("[mqtt.", "[");
        let shown = read(&toml).unwrap();
        let written: toml::Table = toml::from_str(&toml).unwrap();
        for key in [
            "broker brokers protocol format group node primary_host aliases template tags username password_file ca_file",
            "client_cert_file client_key_file keep_alive publish_interval backlog_rate commands json image_bytes image",
        ] {
            key.split(' ').for_each(|key| assert!(written.contains_key(key), "{key}"));
        }
        let default = read("").unwrap();
        let home_assistant = shown.json.home_assistant.clone();
        assert_eq!(shown.json, Json { home_assistant, ..default.json.clone() });
        let given = Config {
            broker: shown.broker.clone(),
            brokers: shown.brokers.clone(),
            node: shown.node.clone(),
            primary_host: shown.primary_host.clone(),
            template: shown.template.clone(),
            username: shown.username.clone(),
            password_file: shown.password_file.clone(),
            ca_file: shown.ca_file.clone(),
            client_cert_file: shown.client_cert_file.clone(),
            client_key_file: shown.client_key_file.clone(),
            json: shown.json.clone(),
            image: shown.image.clone(),
            ..default
        };
        assert_eq!(shown, given, "all else is what it is without being written");
        let image =
            toml::from_str("camera = 'line1'\ninterval = '10m'\non_change = 5.0\ntrigger = { tag = 'line1/stopped' }");
        assert_eq!(shown.image, [image.unwrap()]);
    }

    #[test]
    fn what_keys_get_wrong_together_names_the_key() {
        fn keys(toml: &str) -> Vec<&'static str> {
            faults(toml).into_iter().map(|(key, _)| key).collect()
        }
        assert_eq!(keys("broker = 'mqtts://b'\nclient_cert_file = 'c'"), ["client_key_file"]);
        assert_eq!(keys("broker = 'mqtts://b'\nclient_key_file = 'c'"), ["client_cert_file"]);
        assert!(keys("broker = 'mqtts://b'\nclient_key_file = 'k'\nclient_cert_file = 'c'").is_empty());
        assert_eq!(keys("broker = 'mqtt://b'\nca_file = 'c'"), ["ca_file"]);
        for wrong in ["0s", "1500ms", "65536s"] {
            assert_eq!(keys(&format!("broker = 'mqtt://b'\nkeep_alive = '{wrong}'")), ["keep_alive"], "{wrong}");
        }
        for wrong in ["9ms", "2h"] {
            let toml = format!("broker = 'mqtt://b'\npublish_interval = '{wrong}'");
            assert_eq!(keys(&toml), ["publish_interval"], "{wrong}");
        }
        for (wrong, key, words) in [
            (
                "template = [{name = 'M', folders = ['a']}, {name = 'M', folders = ['b']}]",
                "template",
                "two templates \"M\"",
            ),
            ("image = [{camera = 'c'}]", "image", "c: it sends nothing"),
            ("image = [{camera = 'c', interval = '1s', max_bytes = '65MiB'}]", "image", "more than image_bytes"),
            ("protocol = '3.1.1'\npassword_file = 'p'", "password_file", "needs a username"),
        ] {
            let found = faults(&format!("broker = 'mqtt://b'\n{wrong}"));
            let [(at, message)] = &found[..] else { panic!("{wrong}: {found:?}") };
            assert!(*at == key && message.contains(words), "{wrong}: {message}");
        }
        assert!(keys("broker = 'mqtt://b'\npassword_file = 'p'").is_empty(), "MQTT 5 can");
        let (_, message) = &faults("broker = 'mqtt://b'\nca_file = 'c'")[0];
        assert_eq!(message, r#"ca_file has no effect without TLS: write broker = "mqtts://...""#);
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        assert!(read("broker = 'mqtt://b'\nbrocker = 1").unwrap_err().contains("unknown field `brocker`"));
    }
}
