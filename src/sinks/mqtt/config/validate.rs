//! What is wrong with `[mqtt]` though each of its keys can be read: keys that do not go together, and numbers out of range.

use super::{Config, Form, Format, Image, Json, Layout};
use crate::base::selection::check_pattern;
use crate::mqtt::Protocol;
use std::time::Duration;

/// Pictures of one trigger at most: they wait in memory.
const MOST_OF_A_TRIGGER: usize = 100;

impl Config {
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
