//! The broker that somebody names at a shell: how it is reached, as whom, and what is said when it cannot be.

use super::super::remote::Failure;
use super::host::{Host, Limits, Policy};
use super::session::Session;
use crate::mqtt::line::{ClientError, Connect};
use crate::mqtt::{Access, BrokerUrl, Protocol};
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Broker {
    /// The broker: mqtt://host:1883, mqtts://host:8883 with TLS, or just host or host:port.
    #[arg(value_name = "BROKER", value_parser = url)]
    broker: BrokerUrl,
    #[command(flatten)]
    options: Options,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Options {
    /// Log in with this name.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Take the password from the first line of this file.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Authorities (PEM) that may have signed the broker's certificate. Default: those of the system.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Show this certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The version of MQTT: 5 or 3.1.1.
    #[arg(long, value_name = "VERSION", default_value = "5", value_parser = protocol)]
    protocol: Protocol,
    /// When nodes are asked for a birth that was not heard: no, few (50 at most) or all (10 a second).
    #[arg(long, value_name = "WHEN", default_value = "few", value_parser = policy)]
    rebirth: Policy,
}

/// A line that is silent for longer is asked whether it still is one.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

impl Broker {
    pub(super) fn url(&self) -> &BrokerUrl {
        &self.broker
    }

    /// For [`Session::open`]; each connection has a client id of its own, so that two tools do not throw each other out.
    pub(super) fn connect(&self) -> Result<Connect, Failure> {
        let options = &self.options;
        let has_files = options.ca.is_some() || options.cert.is_some();
        if has_files && !self.broker.tls() {
            let what = format!("--ca, --cert and --key are of TLS: write mqtts://{}", self.broker.host());
            return Err(Failure::Wrong(what));
        }
        let access = Access {
            broker: self.broker.clone(),
            protocol: options.protocol,
            username: options.user.clone(),
            password_file: options.password_file.clone(),
            ca_file: options.ca.clone(),
            client_cert_file: options.cert.clone(),
            client_key_file: options.key.clone(),
            keep_alive: KEEP_ALIVE,
        };
        let client_id = format!("vedette-fleet-{:08x}", fastrand::u32(..));
        Ok(Connect { access, client_id, will: None })
    }

    pub(super) fn policy(&self) -> Policy {
        self.options.rebirth
    }

    /// Connects once, and listens to `filters`.
    pub(super) async fn open(&self, limits: Limits, filters: Vec<String>) -> Result<Session, Failure> {
        self.open_with(Host::new(limits, self.options.rebirth), filters).await
    }

    /// The same, and nobody is asked for anything.
    pub(super) async fn open_quietly(&self, limits: Limits, filters: Vec<String>) -> Result<Session, Failure> {
        self.open_with(Host::new(limits, Policy::No), filters).await
    }

    async fn open_with(&self, host: Host, filters: Vec<String>) -> Result<Session, Failure> {
        let opened = Session::open(self.connect()?, host, &filters).await;
        opened.map_err(|(error, _)| Failure::failed(explain(&error)))
    }
}

/// `host`, `host:port`, or the whole.
fn url(text: &str) -> Result<BrokerUrl, String> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("mqtt://{text}") };
    BrokerUrl::parse(&whole).map_err(|error| error.to_string())
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "5" | "5.0" => Ok(Protocol::V5),
        "3.1.1" => Ok(Protocol::V311),
        _ => Err("write 5 or 3.1.1".into()),
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "no" => Ok(Policy::No),
        "few" => Ok(Policy::Few),
        "all" => Ok(Policy::All),
        _ => Err("write no, few or all".into()),
    }
}

/// What went wrong, in words, and the option that helps.
pub(super) fn explain(error: &ClientError) -> String {
    let said = error.to_string();
    let has = |words: &str| said.to_lowercase().contains(words);
    let way_out = match error {
        ClientError::File { key, path, reason } => {
            let option = match *key {
                "ca_file" => "--ca",
                "client_cert_file" => "--cert",
                "client_key_file" => "--key",
                "password_file" => "--password-file",
                other => other,
            };
            return format!("{option} {}: {reason}", path.display());
        }
        _ if has("set protocol = \"3.1.1\"") => {
            "for this tool that is --protocol 3.1.1; mqtts:// is with TLS, mqtt:// without"
        }
        ClientError::SystemRoots(_) => "--ca FILE names one",
        ClientError::Refused { .. } => {
            "the broker does not take this login: is the name spelled right, the password? --user NAME and --password-file FILE, \
             or --cert and --key"
        }
        ClientError::Subscribe { .. } => {
            "the broker's access list keeps this from this user: it has to allow reading spBv1.0/#, and for commands \
             vedette/GROUP/NODE/answer/#"
        }
        ClientError::Publish { .. } => "the broker's access list keeps this from this user",
        ClientError::Tls { .. } => {
            "the broker's certificate is not one that is trusted here for this host: --ca FILE names the authority; the host \
             must be spelled as in the certificate"
        }
        _ if has("refused") => "nothing listens there: is the broker running, and is this its port?",
        _ if has("lookup") || has("name or service not known") || has("temporary failure in name resolution") => {
            "the name of the host is not known: is it spelled right? An IP address does without names"
        }
        ClientError::Timeout { .. } => {
            "the broker did not answer in time: is this its port, and is it one without TLS for mqtt:// and with TLS for mqtts://?"
        }
        _ if has("unreachable") || has("timed out") => {
            "there is no way to this host: is it switched on, is the network plugged in, is a firewall in between?"
        }
        _ => "what answers there may be no MQTT broker; mqtts:// is with TLS, mqtt:// without",
    };
    format!("{said}\n{way_out}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_broker_is_said_with_the_option_that_helps() {
        let broker = url("plant").unwrap();
        let reason = "the broker does not speak MQTT 5; set protocol = \"3.1.1\"".to_owned();
        let said = explain(&ClientError::Refused { broker, reason });
        assert!(said.contains("--protocol 3.1.1") && !said.contains("password"), "{said}");
    }

    #[test]
    fn a_broker_may_be_short() {
        assert_eq!(url("plant").unwrap().to_string(), "mqtt://plant:1883");
        assert_eq!(url("plant:1884").unwrap().to_string(), "mqtt://plant:1884");
        assert_eq!(url("mqtts://plant").unwrap().to_string(), "mqtts://plant:8883");
        for wrong in ["", "http://plant", "a/b", "me:secret@plant"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
