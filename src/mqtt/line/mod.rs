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

mod files;
mod socket;
mod tls;
mod v4;
mod v5;

use super::{Access, BrokerUrl, Protocol};
use bytes::Bytes;
use socket::{Meter, Socket};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tls::Tls;
use tokio::sync::mpsc;
use tracing::warn;

/// Name resolution, TCP, TLS and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest command that is taken; told to the broker, which keeps larger ones. `rumqttc`'s own default of 10 KiB
/// ends the connection at the first larger packet.
const INCOMING: u32 = 4 * 1024 * 1024;

/// Commands that wait while a publish is on its way, and the bytes of what waits. When full, further messages are dropped,
/// which the log says.
const COMMANDS: usize = 256;
/// Nobody subscribes to this.
const PROBE: &str = "vedette/probe";
const WAITING_BYTES: usize = 2 * INCOMING as usize;

/// PUBLISH packets on their way. The client has a place for each from the start, and would have 65 535, which are 16 MB.
const UNACKNOWLEDGED: u16 = 64;

/// A broker that takes in less than this while it is waited for takes in nothing: pings alone are no progress.
const PROGRESS: u64 = 1024;

const CLIENT_ID: &str = "the broker does not take this client id (group and node, with a hyphen between them)";
const NOT_AUTHORISED: &str = "not authorised; many brokers say so of a wrong user name or password, too";
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
    /// What comes in. Cancel safe. To be awaited whenever there is nothing else to do, as it keeps the line alive.
    fn next(&mut self) -> impl Future<Output = Result<Received, ClientError>> + Send;

    /// Returns after SUBACK; at least once.
    fn subscribe(&mut self, filters: Vec<String>) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Returns when all messages are on the line, or at QoS 1 acknowledged. They go out in their order, and none waits for the
    /// acknowledgement of the one before, but [`UNACKNOWLEDGED`] at once. What comes in meanwhile waits for
    /// [`Client::next`]. After an error some may have arrived, and after [`ClientError::Publish`] all have but that one.
    fn publish(&mut self, messages: Vec<Message>) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Returns when the broker has answered; so all that was published before has arrived there. (A ping of MQTT would do as well,
    /// if one could be sent when it is wanted; this unsubscribes from what nobody has subscribed to.)
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

pub struct Connection {
    broker: BrokerUrl,
    protocol: Protocol,
    tls: Option<Tls>,
    wire: Wire,
    meter: Arc<Meter>,
    /// Drives the socket; ends with the connection.
    pump: Pin<Box<dyn Future<Output = End> + Send>>,
    inbox: mpsc::Receiver<Inbound>,
    inbox_bytes: Arc<AtomicUsize>,
    /// After CONNACK.
    is_connected: bool,
    /// The largest packet that the broker takes, if it says one.
    largest: Option<u32>,
    /// Why the pump ended. It must not be polled again.
    ended: Option<End>,
    patience: Duration,
}

enum Inbound {
    Connected { largest: Option<u32> },
    Message(Received),
}

/// The pump's end of what comes in.
struct Inbox {
    sender: mpsc::Sender<Inbound>,
    bytes: Arc<AtomicUsize>,
    most: usize,
    dropped: u64,
}

/// Why a pump ended.
enum End {
    Io(io::Error),
    /// By the broker, without a word.
    Closed,
    /// By the broker, with a DISCONNECT: the code, and its own words.
    Dismissed(String, Option<String>),
    /// CONNACK says no.
    Refused(String),
    /// A PINGREQ was not answered.
    Silent,
    /// A packet from the broker, of so many bytes.
    TooLarge(usize),
    Other(String),
}

/// Ends when a message is on the line or acknowledged; an error is why the broker does not take it.
type Notice = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// Why a broker does not take a message.
#[derive(Debug)]
struct Refusal {
    reason: String,
    /// Of the broker's state, not of the message: it may take it later.
    is_for_now: bool,
}

/// The client of one version of MQTT.
#[derive(Clone)]
enum Wire {
    V5(v5::Wire),
    V311(v4::Wire),
}

impl Wire {
    async fn publish(&self, message: Message) -> Result<Notice, String> {
        match self {
            Wire::V5(wire) => wire.publish(message).await,
            Wire::V311(wire) => wire.publish(message).await,
        }
    }

    async fn subscribe(&self, filters: Vec<String>) -> Result<Vec<(String, String)>, String> {
        match self {
            Wire::V5(wire) => wire.subscribe(filters).await,
            Wire::V311(wire) => wire.subscribe(filters).await,
        }
    }

    async fn probe(&self) -> Result<(), String> {
        match self {
            Wire::V5(wire) => wire.probe().await,
            Wire::V311(wire) => wire.probe().await,
        }
    }

    async fn disconnect(&self, with_will: bool) -> Result<(), String> {
        match self {
            Wire::V5(wire) => wire.disconnect(with_will).await,
            Wire::V311(wire) => wire.disconnect().await,
        }
    }
}

impl Dial for Rumqtt {
    type Client = Connection;

    async fn dial(&mut self, connect: Connect) -> Result<Connection, ClientError> {
        let broker = connect.access.broker.clone();
        let timeout = ClientError::Timeout { broker, what: "CONNECT", limit: CONNECT_TIMEOUT };
        tokio::time::timeout(CONNECT_TIMEOUT, dial(*self, connect)).await.unwrap_or(Err(timeout))
    }
}

async fn dial(room: Rumqtt, connect: Connect) -> Result<Connection, ClientError> {
    let access = connect.access.clone();
    let files = move || {
        let password = access.password_file.as_deref().map(files::password).transpose()?;
        let tls = access.broker.tls().then(|| Tls::new(&access)).transpose()?;
        Ok((password.map(Bytes::from), tls))
    };
    let (password, tls) = tokio::task::spawn_blocking(files).await.expect("reading files does not panic")?;
    let (broker, protocol) = (connect.access.broker.clone(), connect.access.protocol);
    let (socket, meter) = socket::open(&broker, tls.clone()).await?;
    let credentials = (connect.access.username.clone(), password);
    let patience = patience(&connect.access);
    let (sender, inbox) = mpsc::channel(room.waiting);
    let bytes = Arc::new(AtomicUsize::new(0));
    let inbound = Inbox { sender, bytes: bytes.clone(), most: room.bytes, dropped: 0 };
    let (wire, pump): (Wire, Pin<Box<dyn Future<Output = End> + Send>>) = match protocol {
        Protocol::V5 => {
            let (wire, pump) = v5::start(connect, credentials, socket, inbound);
            (Wire::V5(wire), Box::pin(pump))
        }
        Protocol::V311 => {
            let (wire, pump) = v4::start(connect, credentials, socket, inbound);
            (Wire::V311(wire), Box::pin(pump))
        }
    };
    let mut connection = Connection {
        broker,
        protocol,
        tls,
        wire,
        meter,
        pump,
        inbox,
        inbox_bytes: bytes,
        is_connected: false,
        largest: None,
        ended: None,
        patience,
    };
    while !connection.is_connected {
        if let Inbound::Connected { largest } = connection.inbound().await? {
            (connection.is_connected, connection.largest) = (true, largest);
        }
    }
    Ok(connection)
}

fn patience(access: &Access) -> Duration {
    access.keep_alive.mul_f64(1.5)
}

/// Hands a socket that is open already to an event loop, which asks for one once: it is not polled after its end.
fn once<O>(socket: Socket) -> impl Fn(String, O) -> std::future::Ready<io::Result<Socket>> + Send + Sync + 'static {
    let socket = Mutex::new(Some(socket));
    move |_, _| {
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(socket.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

impl Inbox {
    fn connected(&mut self, largest: Option<u32>) {
        // The first to come in; there is room.
        let _ = self.sender.try_send(Inbound::Connected { largest });
    }

    fn push(&mut self, received: Received) {
        let size = received.size();
        let fits = self.bytes.load(Ordering::Relaxed) + size <= self.most;
        if fits && self.sender.try_send(Inbound::Message(received)).is_ok() {
            self.bytes.fetch_add(size, Ordering::Relaxed);
            self.dropped = 0;
            return;
        }
        self.dropped += 1;
        if self.dropped == 1 {
            warn!("Messages come from the broker faster than they can be taken; dropping some.");
        }
    }
}

impl Received {
    fn size(&self) -> usize {
        let Properties { content_type, response_topic, correlation_data, user } = &self.properties;
        let texts = content_type.iter().chain(response_topic).map(String::len).sum::<usize>();
        let user = user.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>();
        self.topic.len() + self.payload.len() + texts + correlation_data.as_ref().map_or(0, Bytes::len) + user
    }
}

impl Connection {
    /// Cancel safe: the pump stays, and the channel is. What came in before the end comes before the error.
    async fn inbound(&mut self) -> Result<Inbound, ClientError> {
        let inbound = loop {
            if let Ok(inbound) = self.inbox.try_recv() {
                break inbound;
            }
            self.check()?;
            tokio::select! {
                biased;
                Some(inbound) = self.inbox.recv() => break inbound,
                end = &mut self.pump => self.ended = Some(end),
            }
        };
        if let Inbound::Message(received) = &inbound {
            self.inbox_bytes.fetch_sub(received.size(), Ordering::Relaxed);
        }
        Ok(inbound)
    }

    /// Waits for an answer that comes only while the pump runs, for as long as the broker takes in something.
    async fn drive<T>(&mut self, what: &'static str, answer: impl Future<Output = T>) -> Result<T, ClientError> {
        self.check()?;
        let limit = self.patience;
        let meter = self.meter.clone();
        let frozen = async move {
            loop {
                let before = meter.written();
                tokio::time::sleep(limit).await;
                if meter.written() - before < PROGRESS {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            answer = answer => return Ok(answer),
            end = &mut self.pump => self.ended = Some(end),
            () = frozen => {}
        }
        self.check()?;
        Err(ClientError::Timeout { broker: self.broker.clone(), what, limit })
    }

    async fn leave(&mut self, with_will: bool) -> Result<(), ClientError> {
        let wire = self.wire.clone();
        self.drive("DISCONNECT", async move { wire.disconnect(with_will).await })
            .await?
            .map_err(|reason| self.lost(reason))?;
        // The pump ends when DISCONNECT is out.
        match self.drive("DISCONNECT", std::future::pending::<()>()).await {
            Err(timeout @ ClientError::Timeout { .. }) => Err(timeout),
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<(), ClientError> {
        self.ended.as_ref().map_or(Ok(()), |end| Err(self.error(end)))
    }

    /// Why there is no connection any more, in words.
    fn error(&self, end: &End) -> ClientError {
        let first_words = self.meter.first_words();
        let broker = self.broker.clone();
        if let (End::Io(error), Some(tls)) = (end, &self.tls)
            && let Some(reason) = tls.explain_later(error)
        {
            return ClientError::Tls { broker, reason };
        }
        let reason = match end {
            End::Refused(reason) => match v5::beside(&first_words) {
                Some(beside) if self.protocol == Protocol::V5 => format!("{reason}; {beside}"),
                _ => reason.clone(),
            },
            End::Dismissed(reason, Some(words)) => format!("the broker ended the connection: {reason} ({words:?})"),
            End::Dismissed(reason, None) => format!("the broker ended the connection: {reason}"),
            End::Silent => "the broker does not answer".into(),
            End::Closed => self.without_a_word(&first_words, "the broker closed the connection"),
            // `I/O: ` before what is plainly I/O helps nobody.
            End::Io(error) => self.without_a_word(&first_words, &error.to_string()),
            End::TooLarge(size) => format!("the broker sent a packet of {size} bytes; this device takes {INCOMING}"),
            End::Other(reason) => self.without_a_word(&first_words, reason),
        };
        match self.is_connected || first_words.first() != Some(&0x20) {
            true => ClientError::Connection { broker, reason },
            false => ClientError::Refused { broker, reason },
        }
    }

    /// An end before CONNACK is most often about what is spoken. An old broker answers with the short CONNACK of its version, or
    /// closes (OASIS MQTT 3.1.1, 3.1.2.2).
    fn without_a_word(&self, first_words: &[u8], what: &str) -> String {
        match first_words {
            _ if self.is_connected => what.to_owned(),
            [0x15, 0x03, ..] => "the broker speaks TLS on this port: write mqtts://".into(),
            [0x20, 2, ..] if self.protocol == Protocol::V5 => OLD_BROKER.into(),
            [] => {
                let tls = if self.tls.is_none() { "; if it wants TLS on this port, write mqtts://" } else { "" };
                let version = match self.protocol {
                    Protocol::V5 => "; if it does not speak MQTT 5, set protocol = \"3.1.1\"",
                    Protocol::V311 => "",
                };
                format!("{what} before it said anything{tls}{version}")
            }
            [0x20, ..] => what.to_owned(),
            _ => format!("what answers there does not speak MQTT ({what})"),
        }
    }

    fn lost(&self, reason: String) -> ClientError {
        ClientError::Connection { broker: self.broker.clone(), reason }
    }

    /// What it may take later is lost with the connection, so that whoever keeps it says it again.
    fn refused(&self, topic: String, Refusal { reason, is_for_now }: Refusal) -> ClientError {
        match is_for_now {
            true => self.lost(format!("the broker does not take a message to {topic} for now: {reason}")),
            false => ClientError::Publish { broker: self.broker.clone(), topic, reason },
        }
    }
}

impl Client for Connection {
    async fn next(&mut self) -> Result<Received, ClientError> {
        loop {
            if let Inbound::Message(received) = self.inbound().await? {
                return Ok(received);
            }
        }
    }

    async fn subscribe(&mut self, filters: Vec<String>) -> Result<(), ClientError> {
        if filters.is_empty() {
            return Ok(());
        }
        let wire = self.wire.clone();
        let outcome = self.drive("SUBSCRIBE", async move { wire.subscribe(filters).await }).await?;
        match outcome.map_err(|reason| self.lost(reason))?.into_iter().next() {
            Some((filter, reason)) => Err(ClientError::Subscribe { broker: self.broker.clone(), filter, reason }),
            None => Ok(()),
        }
    }

    async fn probe(&mut self) -> Result<(), ClientError> {
        let wire = self.wire.clone();
        self.drive("a probe", async move { wire.probe().await }).await?.map_err(|reason| self.lost(reason))
    }

    async fn publish(&mut self, messages: Vec<Message>) -> Result<(), ClientError> {
        let wire = self.wire.clone();
        let mut waiting: VecDeque<(String, Notice)> = VecDeque::new();
        let mut refused = None;
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() || !waiting.is_empty() {
            if waiting.len() < UNACKNOWLEDGED.into()
                && let Some(message) = messages.next()
            {
                let (topic, size) = (message.topic.clone(), message.size());
                if let Some(largest) = self.largest.filter(|&largest| size > largest as usize) {
                    // The event loop would end the connection.
                    let reason = format!("it has {size} bytes, and the broker takes {largest}");
                    refused.get_or_insert((topic, Refusal { reason, is_for_now: false }));
                    continue;
                }
                let notice = self.drive("PUBLISH", wire.publish(message)).await?.map_err(|reason| self.lost(reason))?;
                waiting.push_back((topic, notice));
            } else if let Some((topic, notice)) = waiting.pop_front()
                && let Err(refusal) = self.drive("PUBLISH", notice).await?
            {
                self.check()?;
                if refusal.is_for_now {
                    return Err(self.refused(topic, refusal));
                }
                refused.get_or_insert((topic, refusal));
            }
        }
        match refused {
            Some((topic, refusal)) => Err(self.refused(topic, refusal)),
            None => Ok(()),
        }
    }

    async fn disconnect(&mut self) -> Result<(), ClientError> {
        self.leave(false).await
    }

    async fn disconnect_with_will(&mut self) -> Result<(), ClientError> {
        self.leave(true).await
    }
}

impl Message {
    /// Of the packet, at most (OASIS MQTT 5.0, 3.3).
    fn size(&self) -> usize {
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
