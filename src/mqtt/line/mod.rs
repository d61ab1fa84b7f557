//! The line to a broker, and `rumqttc` behind it; nothing outside this folder knows that crate.
//!
//!     Dial ──► files, tls ──► socket (TCP, TLS) ──► v5 or v4 (CONNECT, CONNACK) ──► Connection: Client
//!
//! [`Dial`] makes one connection and [`Client`] is that connection: it never connects again by itself, because each
//! CONNECT of Sparkplug has a will of its own. Tests put a script in the place of both.
//!
//! `rumqttc`'s event loop does all I/O inside `poll`, which loses what it was at when it is dropped half-way. So `poll`
//! runs in a future that lives as long as the connection; each method of the client drives that future while it waits.
//!
//! Limits: CONNECT is given up after [`CONNECT_TIMEOUT`]. A broker that takes in nothing for one and a half keep-alives,
//! while something waits to be sent or acknowledged, is lost, because TCP alone may wait a quarter of an hour; a slow
//! one that takes in a little all the time is not. What comes in is bounded by number and by bytes.

mod connection;
mod files;
mod inbox;
mod socket;
mod tls;
mod v4;
mod v5;

use super::{Access, BrokerUrl, Protocol};
use bytes::Bytes;
pub use connection::Connection;
use connection::{End, Notice, Refusal, once, patience};
use inbox::Inbox;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

/// Name resolution, TCP, TLS and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest command that is taken; told to the broker, which keeps larger ones. `rumqttc`'s own default of 10 KiB
/// ends the connection at the first larger packet.
const INCOMING: u32 = 4 * 1024 * 1024;

/// Commands that wait while a publish is on its way, and the bytes of what waits. When full, further messages are dropped,
/// which the log says.
const COMMANDS: usize = 256;
const WAITING_BYTES: usize = 2 * INCOMING as usize;

/// Nobody subscribes to this.
const PROBE: &str = "vedette/probe";

/// Filters in one SUBSCRIBE. The broker of a large cloud takes no more, and ends the connection at the ninth.
const FILTERS: usize = 8;

/// PUBLISH packets on their way. The client has a place for each from the start, and would have 65 535, which are 16 MB.
const UNACKNOWLEDGED: u16 = 64;

const CLIENT_ID: &str = "the broker does not take this client id (group and node, with a hyphen between them)";
const NOT_AUTHORISED: &str = "not authorised; many brokers say so of a wrong user name or password, too";
const NO_QOS: &str = "it takes QoS 0 only, but the will has QoS 1";
const NO_RETAIN: &str = "it does not take retained messages, but the will is one";
const OLD_BROKER: &str = "the broker does not speak MQTT 5; set protocol = \"3.1.1\"";
const TAKEN_OVER: &str =
    "another client connected with the same client id; group and node together must be this device's alone";

/// One CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    pub access: Access,
    pub client_id: String,
    pub will: Option<Message>,
}

/// User name and password.
type Credentials = (Option<String>, Option<Bytes>);

/// A publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub qos: QoS,
    pub retain: bool,
    /// Of MQTT 5; left out on MQTT 3.1.1.
    pub properties: Properties,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QoS {
    #[default]
    AtMostOnce,
    AtLeastOnce,
}

/// What MQTT 5 says beside topic and payload (OASIS MQTT 5.0, 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
    pub user: Vec<(String, String)>,
}

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
    pub properties: Properties,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{key} = {path:?}: {reason}")]
    File { key: &'static str, path: PathBuf, reason: String },
    #[error("the system's certificate authorities cannot be used ({0}); name one in ca_file")]
    SystemRoots(String),
    /// A certificate, the broker's or this device's, or TLS itself.
    #[error("{broker}: {reason}")]
    Tls { broker: BrokerUrl, reason: String },
    #[error("{broker} refuses the connection: {reason}")]
    Refused { broker: BrokerUrl, reason: String },
    #[error("{broker} does not let this device subscribe to {filter}: {reason}")]
    Subscribe { broker: BrokerUrl, filter: String, reason: String },
    /// The connection is still there.
    #[error("{broker} does not take a message to {topic}: {reason}")]
    Publish { broker: BrokerUrl, topic: String, reason: String },
    /// The same of what everything else needs; so there is nothing to do at this broker.
    #[error("{broker} does not take the birth, {topic}: {reason}; let [mqtt] tags name fewer tags")]
    Birth { broker: BrokerUrl, topic: String, reason: String },
    #[error("{broker}: {reason}")]
    Connection { broker: BrokerUrl, reason: String },
    #[error("{broker} did not answer {what} within {limit:?}")]
    Timeout { broker: BrokerUrl, what: &'static str, limit: Duration },
}

pub trait Dial: Send {
    type Client: Client;

    /// Returns after CONNACK.
    fn dial(&mut self, connect: Connect) -> impl Future<Output = Result<Self::Client, ClientError>> + Send;
}

/// One connection. After an error other than [`ClientError::Publish`] and [`ClientError::Subscribe`] it is of no more use.
pub trait Client: Send {
    /// The largest packet that the broker takes, if it says one; larger ones are refused here.
    fn largest(&self) -> Option<usize> {
        None
    }

    /// The connection has ended, perhaps because of the size of a message: how large the largest was that the broker did not answer.
    fn ended_on(&self) -> Option<usize> {
        None
    }

    /// What comes in. Cancel safe. To be awaited whenever there is nothing else to do, as it keeps the line alive.
    fn next(&mut self) -> impl Future<Output = Result<Received, ClientError>> + Send;

    /// Returns after SUBACK; at least once. The first filter of a connection is the one that [`Client::probe`] asks for again.
    fn subscribe(&mut self, filters: Vec<String>) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Returns when all messages are on the line, or at QoS 1 acknowledged. They go out in their order, and none waits for the
    /// acknowledgement of the one before, but [`UNACKNOWLEDGED`] at once. What comes in meanwhile waits for
    /// [`Client::next`]. After an error some may have arrived, and after [`ClientError::Publish`] all have but that one.
    fn publish(&mut self, messages: Vec<Message>) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Returns when the broker has answered; so all that was published before has arrived there. (A ping of MQTT would do as well,
    /// if one could be sent when it is wanted.) This subscribes again to what was subscribed to first, which changes nothing
    /// (OASIS MQTT 5.0, 3.8.4); where there is no such thing it unsubscribes from what nobody has subscribed to, which rumqttd 0.20
    /// does not answer.
    fn probe(&mut self) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// DISCONNECT with reason 0x00: the broker discards the will.
    fn disconnect(&mut self) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// DISCONNECT with reason 0x04: the broker publishes the will (Sparkplug 3.0, 6.4.25). MQTT 3.1.1 has no such thing; there it
    /// is as [`Client::disconnect`], so whatever the will would say must be said before.
    fn disconnect_with_will(&mut self) -> impl Future<Output = Result<(), ClientError>> + Send;
}

/// Over TCP or TLS, MQTT 5 or 3.1.1.
#[derive(Clone, Copy, Debug)]
pub struct Rumqtt {
    /// Messages that came in and wait for [`Client::next`], and their bytes.
    pub waiting: usize,
    pub bytes: usize,
}

/// For a device, which few talk to.
impl Default for Rumqtt {
    fn default() -> Self {
        Self { waiting: COMMANDS, bytes: WAITING_BYTES }
    }
}

impl Message {
    /// Of the packet, at most (OASIS MQTT 5.0, 3.3).
    pub fn size(&self) -> usize {
        let Properties { content_type, response_topic, correlation_data, user } = &self.properties;
        let texts = content_type.iter().chain(response_topic).map(|text| 3 + text.len()).sum::<usize>();
        let correlation = correlation_data.as_ref().map_or(0, |data| 3 + data.len());
        let user = user.iter().map(|(name, value)| 5 + name.len() + value.len()).sum::<usize>();
        // Header, length, topic's length, packet id, length of the properties.
        1 + 4 + 2 + self.topic.len() + 2 + 4 + texts + correlation + user + self.payload.len()
    }
}

#[cfg(test)]
mod tests;
