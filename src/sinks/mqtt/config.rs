//! What a person may say about the uplink, parsed into types that cannot be wrong.
//!
//! What one key alone can get wrong is refused while parsing ([`BrokerUrl`], [`SparkplugId`]); what only keys together
//! or a range can get wrong is found by [`Config::validate`]. Files are opened at each connect, not here, so that
//! a certificate can be renewed without a restart.

use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// `[mqtt]`: the uplink as a Sparkplug B edge node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the broker is: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` with TLS. The ports default to 1883 and
    /// 8883. Example: `"mqtts://broker.plant.example:8883"`. No default.
    pub broker: BrokerUrl,
    /// The Sparkplug group that this device is listed under. Example: `"Plant 1"`. Default: `"Vedette"`.
    #[serde(default = "default_group")]
    pub group: SparkplugId,
    /// The Sparkplug edge node id; unique within the group. Example: `"press-4"`. Default: the device's name.
    #[serde(default)]
    pub node: Option<SparkplugId>,
    /// The user at the broker. Example: `"vedette"`. Default: none.
    #[serde(default)]
    pub username: Option<String>,
    /// A file whose first line is the user's password. Example: `"/etc/vedette/mqtt.password"`. Default: none.
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
    /// PEM file with the private key of `client_cert_file`. Example: `"/etc/vedette/mqtt.key"`. Default: none.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// How long the line may be silent before either end asks whether the other is there, in whole seconds from
    /// `"1s"` to `"65535s"`. A broken line is noticed after one and a half to two of them. Default: `"30s"`.
    #[serde(default = "default_keep_alive", deserialize_with = "crate::base::duration::deserialize")]
    pub keep_alive: Duration,
    /// Changes are collected for this long and sent together; each keeps its own time. From `"10ms"` to `"1h"`.
    /// Default: `"1s"`.
    #[serde(default = "default_publish_interval", deserialize_with = "crate::base::duration::deserialize")]
    pub publish_interval: Duration,
}

fn default_group() -> SparkplugId {
    SparkplugId("Vedette".into())
}

fn default_keep_alive() -> Duration {
    Duration::from_secs(30)
}

fn default_publish_interval() -> Duration {
    Duration::from_secs(1)
}

impl Config {
    /// What is wrong between keys or out of range: the key, and a sentence that says what would be right.
    pub fn validate(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut fault = |key, message: &str| faults.push((key, message.to_owned()));
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
        if !self.broker.tls {
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
        let keep_alive = self.keep_alive;
        if keep_alive.subsec_nanos() != 0 || !(1..=u64::from(u16::MAX)).contains(&keep_alive.as_secs()) {
            fault("keep_alive", "keep_alive must be whole seconds from \"1s\" to \"65535s\"");
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&self.publish_interval) {
            fault("publish_interval", "publish_interval must be from \"10ms\" to \"1h\"");
        }
        faults
    }
}

/// `mqtt://host:1883` or `mqtts://host:8883`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BrokerUrl {
    tls: bool,
    host: String,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    r#"broker {url:?} is not understood ({reason}): write "mqtt://HOST:1883", or "mqtts://HOST:8883" for TLS, as in "mqtts://broker.plant.example:8883""#
)]
pub struct BrokerUrlError {
    url: String,
    reason: &'static str,
}

impl BrokerUrl {
    pub fn parse(url: &str) -> Result<Self, BrokerUrlError> {
        let error = |reason| BrokerUrlError { url: hide_userinfo(url), reason };
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| error("it does not begin with mqtt:// or mqtts://"))?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(error("it does not begin with mqtt:// or mqtts://")),
        };
        if rest.contains('@') {
            return Err(error("user and password belong into username and password_file"));
        }
        if rest.contains(['/', '?', '#']) {
            return Err(error("nothing may follow the port"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| error("an IPv6 address ends with ]"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| error("between [ and ] stands an IPv6 address"))?;
                match after {
                    "" => (host, None),
                    after => (host, Some(after.strip_prefix(':').ok_or_else(|| error("after ] comes :PORT"))?)),
                }
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(error("a host has no blanks"));
        }
        if host.contains(':') && !rest.starts_with('[') {
            return Err(error("an IPv6 address is written in [ and ]"));
        }
        let port = match port {
            None => default_port,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(error("a port is a number from 1 to 65535")),
            },
        };
        Ok(Self { tls, host: host.to_owned(), port })
    }

    pub fn tls(&self) -> bool {
        self.tls
    }

    /// A DNS name or an IP address, without brackets. With TLS the broker's certificate must name it.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Error messages reach logs and screens; a password somebody wrote into the URL must not.
fn hide_userinfo(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        (None, Some((_, host))) => format!("...@{host}"),
        _ => url.to_owned(),
    }
}

impl TryFrom<String> for BrokerUrl {
    type Error = BrokerUrlError;

    fn try_from(url: String) -> Result<Self, BrokerUrlError> {
        Self::parse(&url)
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// A group id or an edge node id: a level of a topic, so without `/`, `+`, `#` (Sparkplug 3.0, 4.1.2 and 4.1.4) and
/// without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SparkplugId(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SparkplugIdError {
    #[error("a Sparkplug id must not be empty")]
    Empty,
    #[error(
        "Sparkplug id {0:?} must not contain `/`, `+`, `#` or control characters: it is one level of an MQTT topic"
    )]
    Character(String),
}

impl SparkplugId {
    pub fn new(id: &str) -> Result<Self, SparkplugIdError> {
        match id {
            "" => Err(SparkplugIdError::Empty),
            _ if id.contains(is_forbidden) => Err(SparkplugIdError::Character(id.to_owned())),
            _ => Ok(Self(id.to_owned())),
        }
    }

    /// The id nearest to a name that was chosen without Sparkplug in mind: `press/4` becomes `press-4`.
    pub fn nearest(name: &str) -> Self {
        Self::new(&name.replace(is_forbidden, "-")).unwrap_or_else(|_| Self("vedette".into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_forbidden(c: char) -> bool {
    matches!(c, '/' | '+' | '#') || c.is_control()
}

impl TryFrom<String> for SparkplugId {
    type Error = SparkplugIdError;

    fn try_from(id: String) -> Result<Self, SparkplugIdError> {
        Self::new(&id)
    }
}

impl fmt::Display for SparkplugId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
        assert_eq!(config.broker.to_string(), "mqtt://broker:1883");
        assert_eq!((config.group.as_str(), config.node.as_ref()), ("Vedette", None));
        assert_eq!((config.keep_alive, config.publish_interval), (Duration::from_secs(30), Duration::from_secs(1)));
        assert!(config.validate().is_empty());
    }

    #[test]
    fn brokers_in_all_their_spellings() {
        for (url, tls, host, port) in [
            ("mqtt://10.0.0.1:18830", false, "10.0.0.1", 18830),
            ("mqtts://broker.plant.example", true, "broker.plant.example", 8883),
            ("mqtts://[fd00::1]:8884", true, "fd00::1", 8884),
            ("mqtt://[::1]", false, "::1", 1883),
        ] {
            let broker = BrokerUrl::parse(url).unwrap();
            assert_eq!((broker.tls(), broker.host(), broker.port()), (tls, host, port), "{url}");
            assert_eq!(BrokerUrl::parse(&broker.to_string()), Ok(broker), "{url}");
        }
    }

    #[test]
    fn a_broker_that_is_none_is_refused_with_what_would_be_right() {
        for (url, word) in [
            ("broker:1883", "does not begin with mqtt://"),
            ("tcp://broker:1883", "does not begin with mqtt://"),
            ("mqtt://", "host is missing"),
            ("mqtt://:1883", "host is missing"),
            ("mqtt://broker:0", "port is a number"),
            ("mqtt://broker:x", "port is a number"),
            ("mqtt://broker:65536", "port is a number"),
            ("mqtt://broker/path", "nothing may follow"),
            ("mqtt://fd00::1:1883", "written in [ and ]"),
            ("mqtt://[fd00::1", "ends with ]"),
            ("mqtt://[broker]:1", "stands an IPv6 address"),
            ("mqtt://[::1]1883", "after ] comes"),
            ("mqtt://a b", "no blanks"),
            ("mqtt://me:secret@broker", "username and password_file"),
        ] {
            let error = read(&format!("broker = {url:?}")).unwrap_err();
            assert!(error.contains(word), "{url}: {error}");
            assert!(error.contains(r#"write "mqtt://HOST:1883", or "mqtts://HOST:8883" for TLS"#), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn ids_are_one_level_of_a_topic() {
        for id in ["", "a/b", "a+", "#", "a\nb"] {
            let error = read(&format!("broker = \"mqtt://b\"\ngroup = {id:?}")).unwrap_err();
            assert!(error.contains("Sparkplug id"), "{id:?}: {error}");
        }
        assert_eq!(SparkplugId::nearest("press/4+#").as_str(), "press-4--");
        assert_eq!(SparkplugId::nearest("").as_str(), "vedette");
        assert_eq!(SparkplugId::nearest("Werk 1").as_str(), "Werk 1");
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
        let (_, message) = &faults("broker = 'mqtt://b'\nca_file = 'c'")[0];
        assert_eq!(message, r#"ca_file has no effect without TLS: write broker = "mqtts://...""#);
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        assert!(read("broker = 'mqtt://b'\nbrocker = 1").unwrap_err().contains("unknown field `brocker`"));
    }
}
