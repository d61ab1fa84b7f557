//! `[[ua_client]]`: what to collect from one server.

use super::Finding;
use crate::base::duration;
use crate::model::{DataType, TagName};
use crate::opcua::client::{NodeRef, Security};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// `[[ua_client]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of its tags. Example: "line1".
    pub name: String,
    /// Example: "opc.tcp://plc.example.com:4840".
    pub url: String,
    /// "Aes256_Sha256_RsaPss", "Basic256Sha256", "Aes128_Sha256_RsaOaep" or, in so many words, "None". Default: "best", of those
    /// that the server offers, and never None.
    #[serde(default)]
    pub security_policy: Option<String>,
    /// "SignAndEncrypt", "Sign" or "None". Default: "best".
    #[serde(default)]
    pub security_mode: Option<String>,
    /// Default: an anonymous login.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file with the password in its first line, instead of `password`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The certificate of the user, DER or PEM, and its key as PEM, instead of `user`.
    #[serde(default)]
    pub user_certificate: Option<PathBuf>,
    #[serde(default)]
    pub user_key: Option<PathBuf>,
    /// The one certificate that the server may have, DER or PEM. Default: whatever the trust list accepts.
    #[serde(default)]
    pub server_certificate: Option<PathBuf>,
    /// A server that says nothing for so long is lost. Default: "10s".
    #[serde(default = "default_silence", deserialize_with = "duration::deserialize")]
    pub silence: Duration,
    /// How often the rules look for new nodes, besides each time that the server says that nodes came. Default: "10m".
    #[serde(default = "default_rescan", deserialize_with = "duration::deserialize")]
    pub rescan: Duration,
    /// Read each value back after it was written, and fail the write if it is another. Default: false.
    #[serde(default)]
    pub read_back: bool,
    /// Collect the server's events as well. Default: false.
    #[serde(default)]
    pub events: bool,
    #[serde(default)]
    pub group: Vec<Spanned<GroupConfig>>,
    #[serde(default)]
    pub tag: Vec<Spanned<TagConfig>>,
    #[serde(default)]
    pub rule: Vec<Spanned<RuleConfig>>,
}

/// `[[ua_client.group]]`: how its tags are watched. One that is called "default" is for those that name none.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    pub name: String,
    /// How often the server looks at a value. Default: "500ms".
    #[serde(default = "default_interval", deserialize_with = "duration::deserialize")]
    pub sampling_interval: Duration,
    /// How often it sends what has changed. Default: "500ms".
    #[serde(default = "default_interval", deserialize_with = "duration::deserialize")]
    pub publishing_interval: Duration,
    /// The least change of a number that is sent: 0.5 in the value's unit, "1%" of its EURange. Default: each change.
    #[serde(default, deserialize_with = "deadband")]
    pub deadband: Option<Deadband>,
    /// How many values of one tag the server keeps between two publications. Default: 10.
    #[serde(default = "default_queue_size")]
    pub queue_size: u32,
}

/// `[[ua_client.tag]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagConfig {
    /// Below the folder of the source. Example: "speed".
    pub name: String,
    /// A NodeId or a path. Example: "nsu=urn:plant;s=Line1.Speed", "/Objects/Line 1/Speed".
    pub node: String,
    #[serde(default)]
    pub group: Option<String>,
}

/// `[[ua_client.rule]]`: all variables below a node.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// A NodeId or a path. Example: "/Objects/Line 1".
    pub below: String,
    /// Built-in types, as in ["Double", "Boolean"]. Default: all.
    #[serde(default)]
    pub types: Vec<String>,
    /// The name of the variable or its path from `below`; `*` is any text and `?` any character. Example: "*Temp*". Default: all.
    #[serde(default, rename = "match")]
    pub pattern: Option<String>,
    /// Default: 10000.
    #[serde(default = "default_at_most")]
    pub at_most: usize,
    /// Where its tags are below the folder of the source. Default: directly there.
    #[serde(default)]
    pub folder: Option<String>,
    #[serde(default)]
    pub group: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deadband {
    Absolute(f64),
    /// Of the EURange.
    Percent(f64),
}

/// Not shown by `Debug`.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

const fn default_silence() -> Duration {
    Duration::from_secs(10)
}

const fn default_rescan() -> Duration {
    Duration::from_secs(600)
}

const fn default_interval() -> Duration {
    Duration::from_millis(500)
}

const fn default_queue_size() -> u32 {
    10
}

const fn default_at_most() -> usize {
    10_000
}

/// The group of tags that name none.
pub(super) const DEFAULT_GROUP: &str = "default";
/// The folder of what the source says of itself.
pub(super) const STATUS: &str = "status";
/// More than fits in the memory of such a device.
const MOST_TAGS: usize = 500_000;

/// What is wrong with the pattern of a rule.
fn check_pattern(pattern: &str) -> Option<String> {
    match pattern.chars().count() {
        0 => Some("it fits nothing; leave it away for all, or write \"*Temp*\"".into()),
        1..=200 => None,
        _ => Some("it is longer than 200 characters".into()),
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            name: DEFAULT_GROUP.into(),
            sampling_interval: default_interval(),
            publishing_interval: default_interval(),
            deadband: None,
            queue_size: default_queue_size(),
        }
    }
}

impl Config {
    /// All groups, the default one among them.
    pub(super) fn groups(&self) -> Vec<GroupConfig> {
        let mut groups: Vec<GroupConfig> = self.group.iter().map(|group| group.get_ref().clone()).collect();
        if !groups.iter().any(|group| group.name == DEFAULT_GROUP) {
            groups.push(GroupConfig::default());
        }
        groups
    }

    pub(super) fn security(&self) -> Result<Security, String> {
        Security::parse(self.security_policy.as_deref(), self.security_mode.as_deref())
    }

    pub(super) fn faults(&self) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.own_findings().into_iter().map(Finding::from).collect();
        let groups: HashSet<String> = self.groups().into_iter().map(|group| group.name).collect();
        let mut names = HashSet::new();
        for group in &self.group {
            let GroupConfig { name, sampling_interval, publishing_interval, deadband, queue_size } = group.get_ref();
            let mut add = |key, what: String| found.push(Finding { at: Some(group.span()), key, what });
            if !names.insert(name.as_str()) {
                add("name", format!("there is another group {name:?}; each needs its own name"));
            }
            for (key, interval) in
                [("sampling_interval", sampling_interval), ("publishing_interval", publishing_interval)]
            {
                if *interval > Duration::from_secs(3600) || (interval.is_zero() && key == "publishing_interval") {
                    add(key, "it must be between \"1ms\" and \"1h\"".into());
                }
            }
            if let Some(Deadband::Absolute(width) | Deadband::Percent(width)) = deadband
                && (!width.is_finite() || *width < 0.0)
            {
                add("deadband", "it must not be negative; use 0.5, or \"1%\" of the range".into());
            }
            if let Some(Deadband::Percent(width)) = deadband
                && *width > 100.0
            {
                add("deadband", "it must not be more than \"100%\"".into());
            }
            if *queue_size == 0 || *queue_size > 10_000 {
                add("queue_size", "it must be between 1 and 10000".into());
            }
        }
        let unknown = |group: &Option<String>| {
            let name = group.as_ref().filter(|name| !groups.contains(*name))?;
            Some(("group", format!("there is no [[ua_client.group]] with the name {name:?}")))
        };
        for tag in &self.tag {
            let TagConfig { name, node, group } = tag.get_ref();
            let faults = [
                TagName::new(&format!("{}/{name}", self.name)).err().map(|error| ("name", error.to_string())),
                is_reserved(name).then(|| ("name", reserved())),
                NodeRef::parse(node).err().map(|error| ("node", error.to_string())),
                unknown(group),
            ];
            let at = Some(tag.span());
            found.extend(faults.into_iter().flatten().map(|(key, what)| Finding { at: at.clone(), key, what }));
        }
        for rule in &self.rule {
            let RuleConfig { below, types, pattern, at_most, folder, group } = rule.get_ref();
            let folder = folder.as_deref();
            let faults = [
                NodeRef::parse(below).err().map(|error| ("below", error.to_string())),
                types.iter().find(|name| data_type(name).is_none()).map(|name| {
                    let all: Vec<_> = DataType::ALL.iter().map(|one| one.name()).collect();
                    ("types", format!("{name:?} is no built-in type; there is {}", all.join(", ")))
                }),
                pattern.as_deref().and_then(check_pattern).map(|what| ("match", what)),
                (*at_most == 0 || *at_most > MOST_TAGS)
                    .then(|| ("at_most", format!("it must be between 1 and {MOST_TAGS}"))),
                folder.and_then(|folder| TagName::new(folder).err()).map(|error| ("folder", error.to_string())),
                folder.is_some_and(is_reserved).then(|| ("folder", reserved())),
                unknown(group),
            ];
            let at = Some(rule.span());
            found.extend(faults.into_iter().flatten().map(|(key, what)| Finding { at: at.clone(), key, what }));
        }
        found
    }

    fn own_findings(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let rest = self.url.strip_prefix("opc.tcp://").unwrap_or_default();
        if rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace) {
            faults
                .push(("url", format!("{:?} is no address of OPC UA; write it as \"opc.tcp://host:4840\"", self.url)));
        }
        let security = self.security();
        if let Err(what) = &security {
            let key = if self.security_policy.is_some() { "security_policy" } else { "security_mode" };
            faults.push((key, what.clone()));
        }
        match (&self.user, &self.password, &self.password_file) {
            (Some(_), Some(_), Some(_)) => {
                faults.push(("password_file", "there is `password` too; one of them is enough".into()))
            }
            (Some(_), None, None) => faults.push(("user", "its password is missing; add password_file = ...".into())),
            (None, Some(_), _) => faults.push(("password", "there is no `user` for it".into())),
            (None, None, Some(_)) => faults.push(("password_file", "there is no `user` for it".into())),
            _ => {}
        }
        match (&self.user_certificate, &self.user_key) {
            (Some(_), None) => faults.push(("user_certificate", "its key is missing; add user_key = ...".into())),
            (None, Some(_)) => faults.push(("user_key", "there is no `user_certificate` for it".into())),
            (Some(_), Some(_)) if self.user.is_some() => {
                faults.push(("user_certificate", "there is `user` too; a login is by one of them".into()));
            }
            _ => {}
        }
        if self.silence < Duration::from_secs(1) || self.silence > Duration::from_secs(3600) {
            faults.push(("silence", "it must be between \"1s\" and \"1h\"".into()));
        }
        if self.rescan < Duration::from_secs(1) {
            faults.push(("rescan", "it is too short; use \"1s\" or more".into()));
        }
        if self.tag.is_empty() && self.rule.is_empty() && !self.events {
            faults.push(("", "nothing is collected; add a [[ua_client.tag]] or a [[ua_client.rule]]".into()));
        }
        faults
    }
}

fn is_reserved(name: &str) -> bool {
    name.split('/').next() == Some(STATUS)
}

fn reserved() -> String {
    format!("{STATUS:?} is where the source tells of itself; choose another name")
}

/// By its name in OPC UA, in any case.
pub(super) fn data_type(name: &str) -> Option<DataType> {
    DataType::ALL.iter().copied().find(|one| one.name().eq_ignore_ascii_case(name))
}

fn deadband<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Deadband>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Integer(i64),
        Text(String),
    }
    let wrong =
        || Error::custom(r#"invalid deadband: write 0.5 for the value's unit, or "1%" for a part of its range"#);
    match Written::deserialize(deserializer).map_err(|_| wrong())? {
        Written::Number(width) => Ok(Some(Deadband::Absolute(width))),
        Written::Integer(width) => Ok(Some(Deadband::Absolute(width as f64))),
        Written::Text(text) => match text.trim().strip_suffix('%').map(|number| number.trim().parse()) {
            Some(Ok(width)) => Ok(Some(Deadband::Percent(width))),
            _ => Err(wrong()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<(&'static str, String)> {
        let text = format!("name = 'line1'\nurl = 'opc.tcp://plc:4840'\n{text}");
        let config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
        config.faults().into_iter().map(|finding| (finding.key, finding.what)).collect()
    }

    #[test]
    fn three_lines_are_enough() {
        assert_eq!(findings("[[rule]]\nbelow = '/Objects'"), []);
        assert_eq!(findings("[[tag]]\nname = 'a'\nnode = 'nsu=urn:x;s=a'"), []);
        let config: Config =
            toml::from_str("name = 'a'\nurl = 'x'\n[[group]]\nname = 'g'\ndeadband = '1.5 %'").unwrap();
        assert_eq!(config.groups()[0].deadband, Some(Deadband::Percent(1.5)));
        assert_eq!(config.groups()[1].name, DEFAULT_GROUP);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (text, key, words) in [
            ("", "", "nothing is collected"),
            ("events = true\nsecurity_policy = 'Basic256'", "security_policy", "Basic256Sha256"),
            (
                "events = true\nsecurity_mode = 'None'\nsecurity_policy = 'Basic256Sha256'",
                "security_policy",
                "together",
            ),
            ("events = true\nuser = 'a'", "user", "password_file"),
            ("events = true\npassword = 'a'", "password", "no `user`"),
            ("events = true\nuser_key = 'a'", "user_key", "user_certificate"),
            ("events = true\nsilence = '1ms'", "silence", "1s"),
            ("[[tag]]\nname = 'status/a'\nnode = 'i=1'", "name", "tells of itself"),
            ("[[tag]]\nname = 'a'\nnode = 'ns=1'", "node", "nsu=urn:plant"),
            ("[[tag]]\nname = 'a'\nnode = 'i=1'\ngroup = 'fast'", "group", "no [[ua_client.group]]"),
            ("[[rule]]\nbelow = 'i=85'\ntypes = ['Real']", "types", "Double"),
            ("[[rule]]\nbelow = 'i=85'\nat_most = 0", "at_most", "between 1"),
            ("events = true\n[[group]]\nname = 'g'\nqueue_size = 0", "queue_size", "between 1"),
            ("events = true\n[[group]]\nname = 'g'\ndeadband = -1", "deadband", "negative"),
        ] {
            let found = findings(text);
            assert!(found.iter().any(|(at, what)| *at == key && what.contains(words)), "{text}: {found:?}");
        }
        let wrong = toml::from_str::<GroupConfig>("name = 'g'\ndeadband = 'much'").unwrap_err().to_string();
        assert!(wrong.contains("1%"), "{wrong}");
    }
}
