//! One connection with `rumqttc` inside: the pump, who waits while it runs, and why it ended in words.

use super::inbox::{Inbound, Inbox, Limits};
use super::socket::{self, Meter, Socket};
use super::tls::Tls;
use super::{
    Access, BrokerUrl, CONNECT_TIMEOUT, Client, ClientError, Connect, Dial, FILTERS, INCOMING, Message, NO_QOS,
    NO_RETAIN, OLD_BROKER, Protocol, QoS, Received, Rumqtt, UNACKNOWLEDGED, files, v4, v5,
};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// A broker that takes in less than this while it is waited for takes in nothing: pings alone are no progress.
const PROGRESS: u64 = 1024;

/// A message that a broker may find too large: rumqttd's own default, the least that is known, is 20 KiB.
const LARGE: usize = 20 * 1024;

pub struct Connection {
    broker: BrokerUrl,
    protocol: Protocol,
    tls: Option<Tls>,
    wire: Wire,
    meter: Arc<Meter>,
    /// Drives the socket; ends with the connection.
    pump: Pin<Box<dyn Future<Output = End> + Send>>,
    inbox: mpsc::Receiver<Inbound>,
    pub(super) inbox_bytes: Arc<AtomicUsize>,
    /// After CONNACK.
    is_connected: bool,
    limits: Limits,
    /// The largest message since the broker answered last.
    unanswered: usize,
    /// What was subscribed to first.
    first_filter: Option<String>,
    /// Why the pump ended. It must not be polled again.
    ended: Option<End>,
    patience: Duration,
}

/// Why a pump ended.
pub(super) enum End {
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
pub(super) type Notice = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// Why a broker does not take a message.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    /// Of the broker's state, not of the message: it may take it later.
    pub(super) is_for_now: bool,
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

    /// Asks for a filter again, or without one for nothing.
    async fn probe(&self, filter: Option<String>) -> Result<(), String> {
        match self {
            Wire::V5(wire) => wire.probe(filter).await,
            Wire::V311(wire) => wire.probe(filter).await,
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
        // What speaks only older versions may as well say nothing to a CONNECT that it does not know.
        let what = match connect.access.protocol {
            Protocol::V5 => r#"CONNECT (if it does not speak MQTT 5, set protocol = "3.1.1")"#,
            Protocol::V311 => "CONNECT",
        };
        let timeout = ClientError::Timeout { broker, what, limit: CONNECT_TIMEOUT };
        tokio::time::timeout(CONNECT_TIMEOUT, dial(*self, connect)).await.unwrap_or(Err(timeout))
    }
}

async fn dial(room: Rumqtt, connect: Connect) -> Result<Connection, ClientError> {
    let access = connect.access.clone();
    let (has_qos, has_retain) =
        connect.will.as_ref().map_or((false, false), |will| (will.qos != QoS::AtMostOnce, will.retain));
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
        limits: Limits::default(),
        unanswered: 0,
        first_filter: None,
        ended: None,
        patience,
    };
    while !connection.is_connected {
        if let Inbound::Connected(limits) = connection.inbound().await? {
            (connection.is_connected, connection.limits) = (true, limits);
        }
    }
    // A broker has to refuse such a will (OASIS MQTT 5.0, 3.2.2.3.4); mqttools 0.50 takes it, and ends the connection later.
    let reason = match connection.limits {
        Limits { is_without_qos: true, .. } if has_qos => NO_QOS,
        Limits { is_without_retain: true, .. } if has_retain => NO_RETAIN,
        _ => return Ok(connection),
    };
    Err(ClientError::Refused { broker: connection.broker, reason: reason.into() })
}

pub(super) fn patience(access: &Access) -> Duration {
    access.keep_alive.mul_f64(1.5)
}

/// Hands a socket that is open already to an event loop, which asks for one once: it is not polled after its end.
pub(super) fn once<O>(
    socket: Socket,
) -> impl Fn(String, O) -> std::future::Ready<io::Result<Socket>> + Send + Sync + 'static {
    let socket = Mutex::new(Some(socket));
    move |_, _| {
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(socket.ok_or_else(|| io::ErrorKind::NotConnected.into()))
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
            _ if self.is_connected && self.unanswered >= LARGE => {
                format!("{what} after a message of {} bytes; perhaps it takes none so large", self.unanswered)
            }
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
    fn ended_on(&self) -> Option<usize> {
        let is_by_broker = !matches!(self.ended, None | Some(End::Silent | End::TooLarge(_)));
        (is_by_broker && self.is_connected && self.unanswered >= LARGE).then_some(self.unanswered)
    }

    fn largest(&self) -> Option<usize> {
        self.limits.largest.map(|bytes| bytes as usize)
    }

    async fn next(&mut self) -> Result<Received, ClientError> {
        loop {
            if let Inbound::Message(received) = self.inbound().await? {
                return Ok(received);
            }
        }
    }

    async fn subscribe(&mut self, filters: Vec<String>) -> Result<(), ClientError> {
        for some in filters.chunks(FILTERS) {
            let (wire, some) = (self.wire.clone(), some.to_vec());
            let first = some.first().cloned();
            let outcome = self.drive("SUBSCRIBE", async move { wire.subscribe(some).await }).await?;
            if let Some((filter, reason)) = outcome.map_err(|reason| self.lost(reason))?.into_iter().next() {
                return Err(ClientError::Subscribe { broker: self.broker.clone(), filter, reason });
            }
            self.first_filter = self.first_filter.take().or(first);
        }
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), ClientError> {
        let (wire, filter) = (self.wire.clone(), self.first_filter.clone());
        let outcome = self.drive("a probe", async move { wire.probe(filter).await }).await?;
        outcome.map_err(|reason| self.lost(reason))?;
        self.unanswered = 0;
        Ok(())
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
                if let Some(largest) = self.largest().filter(|&largest| size > largest) {
                    // The event loop would end the connection.
                    let reason = format!("it has {size} bytes, and the broker takes {largest}");
                    refused.get_or_insert((topic, Refusal { reason, is_for_now: false }));
                    continue;
                }
                self.unanswered = self.unanswered.max(size);
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
