//! The line to a broker, and `rumqttc` behind it; nothing outside this folder knows that crate.
//!
//! [`Dial`] makes one connection and [`Client`] is that connection: it never connects again by itself, because each
//! CONNECT of Sparkplug has a will of its own. Tests put a script in the place of both.
//!
//! `rumqttc`'s event loop does all I/O inside `poll`, which loses what it was at when it is dropped half-way. So `poll`
//! runs in a future that lives as long as the connection; each method of the client drives that future while it waits.
//!
//! Limits: CONNECT is given up after [`CONNECT_TIMEOUT`]; a publish that does not get out, or is not acknowledged,
//! within one and a half keep-alives counts as a lost connection, because TCP alone may wait a quarter of an hour.

mod tls;

use super::{Access, BrokerUrl};
use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectionError, DisconnectProperties, DisconnectReasonCode, Event, EventLoop,
    IncomingPacketSizeLimit, LastWill, MqttOptions, Packet, PublishOptions, SessionMode, Transport,
};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// Name resolution, TCP, TLS and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest command that is taken; told to the broker, which keeps larger ones. `rumqttc`'s own default of 10 KiB
/// ends the connection at the first larger packet.
const INCOMING: u32 = 4 * 1024 * 1024;

/// Commands that wait while a publish is on its way.
const COMMANDS: usize = 256;
/// PUBLISH packets on their way. The client has a place for each from the start, and would have 65 535, which are 16 MB.
const UNACKNOWLEDGED: u16 = 64;

/// One CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    pub access: Access,
    pub client_id: String,
    pub will: Option<Message>,
}

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

/// Something on the connection that the uplink did not ask for.
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
    #[error("{broker} refuses the connection: {reason}")]
    Refused { broker: BrokerUrl, reason: String },
    #[error("{broker} does not let this device subscribe to {filter}: {reason}")]
    Subscribe { broker: BrokerUrl, filter: String, reason: String },
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

/// One connection. After an error it is of no more use.
pub trait Client: Send {
    /// What comes in. Cancel safe. To be awaited whenever there is nothing else to do, as it keeps the line alive.
    fn next(&mut self) -> impl Future<Output = Result<Received, ClientError>> + Send;

    /// Returns after SUBACK; at least once.
    fn subscribe(&mut self, filter: String) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Returns when the message is on the line, or at QoS 1 when it is acknowledged.
    fn publish(&mut self, message: Message) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// DISCONNECT with reason 0x04: the broker publishes the will (Sparkplug 3.0, 6.4.25).
    fn disconnect_with_will(&mut self) -> impl Future<Output = Result<(), ClientError>> + Send;
}

/// Over TCP or TLS, MQTT 5.
pub struct Rumqtt {
    /// Messages that came in and wait to be taken. When full, further ones are dropped and counted in the log.
    pub waiting: usize,
}

impl Default for Rumqtt {
    fn default() -> Self {
        Self { waiting: COMMANDS }
    }
}

pub struct Connection {
    broker: BrokerUrl,
    client: AsyncClient,
    /// Drives the socket; ends with the connection.
    pump: Pin<Box<dyn Future<Output = ConnectionError> + Send>>,
    inbox: mpsc::Receiver<Inbound>,
    /// Why the pump ended. It must not be polled again.
    ended: Option<String>,
    patience: Duration,
}

enum Inbound {
    Connected,
    Command(Received),
}

impl Dial for Rumqtt {
    type Client = Connection;

    async fn dial(&mut self, connect: Connect) -> Result<Connection, ClientError> {
        let (broker, patience) = (connect.access.broker.clone(), connect.access.keep_alive.mul_f64(1.5));
        let options = tokio::task::spawn_blocking(move || options(connect)).await.expect("options() does not panic")?;
        let (client, event_loop) = AsyncClient::builder(options).capacity(16).build();
        let (sender, inbox) = mpsc::channel(self.waiting);
        let pump = Box::pin(pump(event_loop, sender));
        let mut connection = Connection { broker: broker.clone(), client, pump, inbox, ended: None, patience };
        match tokio::time::timeout(CONNECT_TIMEOUT, connection.connected()).await {
            Ok(outcome) => outcome.map(|()| connection),
            Err(_) => Err(ClientError::Timeout { broker, what: "CONNECT", limit: CONNECT_TIMEOUT }),
        }
    }
}

/// Reads the files that the configuration names, at each CONNECT: they may have been renewed.
fn options(connect: Connect) -> Result<MqttOptions, ClientError> {
    let Connect { access, client_id, will } = connect;
    let mut options = MqttOptions::new(client_id, (access.broker.host(), access.broker.port()));
    options.set_keep_alive(u16::try_from(access.keep_alive.as_secs()).unwrap_or(u16::MAX));
    options.set_session_mode(SessionMode::Clean);
    options.set_clean_start(true);
    options.set_session_expiry_interval(Some(0));
    options.set_outgoing_inflight_upper_limit(UNACKNOWLEDGED);
    options.set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(INCOMING));
    if let Some(will) = will {
        options.set_last_will(LastWill::new(will.topic, will.payload, level(will.qos), will.retain, None));
    }
    if let Some(username) = &access.username {
        options.set_username(username.clone());
    }
    if let Some(path) = &access.password_file {
        let text = tls::read("password_file", path)?;
        let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let password = Bytes::copy_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        match &access.username {
            Some(username) => options.set_credentials(username.clone(), password),
            None => options.set_password(password),
        };
    }
    if access.broker.tls() {
        options.set_transport(Transport::tls_with_config(tls::configuration(&access)?));
    }
    Ok(options)
}

fn level(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
    }
}

/// Polls until the connection ends. After an error `poll` would connect again, so it is not called again.
async fn pump(mut event_loop: EventLoop, inbox: mpsc::Sender<Inbound>) -> ConnectionError {
    let mut dropped = 0u64;
    loop {
        let inbound = match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Inbound::Connected,
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                Inbound::Command(Received {
                    topic,
                    payload: publish.payload,
                    retain: publish.retain,
                    properties: Properties::default(),
                })
            }
            Ok(_) => continue,
            Err(error) => return error,
        };
        match inbox.try_send(inbound) {
            Ok(()) => dropped = 0,
            Err(_) => {
                dropped += 1;
                if dropped == 1 {
                    warn!("Commands come faster than they can be taken; dropping some.");
                }
            }
        }
    }
}

impl Connection {
    async fn connected(&mut self) -> Result<(), ClientError> {
        loop {
            if let Inbound::Connected = self.inbound().await? {
                return Ok(());
            }
        }
    }

    /// Cancel safe: the pump stays, and the channel is.
    async fn inbound(&mut self) -> Result<Inbound, ClientError> {
        if let Ok(inbound) = self.inbox.try_recv() {
            return Ok(inbound);
        }
        if let Some(reason) = &self.ended {
            return Err(self.lost(reason.clone()));
        }
        tokio::select! {
            biased;
            Some(inbound) = self.inbox.recv() => Ok(inbound),
            error = &mut self.pump => Err(self.end(error)),
        }
    }

    /// Waits for an answer that comes only while the pump runs.
    async fn drive<T>(&mut self, what: &'static str, answer: impl Future<Output = T>) -> Result<T, ClientError> {
        if let Some(reason) = &self.ended {
            return Err(self.lost(reason.clone()));
        }
        let limit = self.patience;
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            error = &mut self.pump => Err(self.end(error)),
            () = tokio::time::sleep(limit) => Err(ClientError::Timeout { broker: self.broker.clone(), what, limit }),
        }
    }

    fn end(&mut self, error: ConnectionError) -> ClientError {
        let reason = reason(&error);
        self.ended = Some(reason.clone());
        match error {
            ConnectionError::ConnectionRefused(_) => ClientError::Refused { broker: self.broker.clone(), reason },
            _ => self.lost(reason),
        }
    }

    fn lost(&self, reason: String) -> ClientError {
        ClientError::Connection { broker: self.broker.clone(), reason }
    }
}

fn reason(error: &ConnectionError) -> String {
    match error {
        // `I/O: ` before what is plainly I/O helps nobody.
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::ConnectionRefused(code) => format!("{code:?}"),
        error => error.to_string(),
    }
}

impl Client for Connection {
    async fn next(&mut self) -> Result<Received, ClientError> {
        loop {
            if let Inbound::Command(received) = self.inbound().await? {
                return Ok(received);
            }
        }
    }

    async fn subscribe(&mut self, filter: String) -> Result<(), ClientError> {
        let client = self.client.clone();
        let topic = filter.clone();
        let exchange = async move {
            let notice = client.subscribe_tracked(topic, rumqttc::QoS::AtLeastOnce).await.map_err(|e| e.to_string())?;
            notice.wait_completion_async().await.map_err(|e| e.to_string())
        };
        let outcome = self.drive("SUBSCRIBE", exchange).await?;
        outcome.map_err(|reason| ClientError::Subscribe { broker: self.broker.clone(), filter, reason })
    }

    async fn publish(&mut self, message: Message) -> Result<(), ClientError> {
        let client = self.client.clone();
        let Message { topic, payload, qos, retain, .. } = message;
        let exchange = async move {
            let options = PublishOptions::new(level(qos)).retain(retain);
            let notice = client.publish_tracked(topic, payload, options).await.map_err(|e| e.to_string())?;
            notice.wait_completion_async().await.map_err(|e| e.to_string())
        };
        self.drive("PUBLISH", exchange).await?.map_err(|reason| self.lost(reason))
    }

    async fn disconnect_with_will(&mut self) -> Result<(), ClientError> {
        let properties = DisconnectProperties {
            session_expiry_interval: None,
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        };
        let client = self.client.clone();
        let code = DisconnectReasonCode::DisconnectWithWillMessage;
        let request = async move { client.disconnect_with_properties(code, properties).await };
        self.drive("DISCONNECT", request).await?.map_err(|error| self.lost(error.to_string()))?;
        if self.ended.is_none() {
            // The pump ends when DISCONNECT is out.
            let end = self.pump.as_mut().await;
            let _ = self.end(end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
