//! Where a broker is, and what a client needs to be let in.
//!
//! Files are named here and opened at each connect, so that a certificate or a password can be renewed without a restart.

use crate::base::net::hide_userinfo;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One broker, as the line connects to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub broker: BrokerUrl,
    pub protocol: Protocol,
    pub username: Option<String>,
    /// Its first line is the password.
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
    pub keep_alive: Duration,
}

/// The version of MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    #[default]
    #[serde(rename = "5")]
    V5,
    #[serde(rename = "3.1.1")]
    V311,
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

#[cfg(test)]
mod tests {
    use super::*;

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
            let error = BrokerUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains(word), "{url}: {error}");
            assert!(error.contains(r#"write "mqtt://HOST:1883", or "mqtts://HOST:8883" for TLS"#), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
