//! MQTT 3.1.1 by `rumqttc-v4-next`. Says in the words of [`super`] what that crate says in its own; decides nothing.
//!
//! This version has no properties, no reasons for what is refused after CONNECT, and no DISCONNECT that keeps the will.

use super::inbox::Limits;
use super::socket::Socket;
use super::{
    Connect, Credentials, End, INCOMING, Inbox, Message, Notice, PROBE, Properties, QoS, Received, Refusal,
    UNACKNOWLEDGED, once,
};
use bytes::Bytes;
use rumqttc_v4::mqttbytes::Error as Garbage;
use rumqttc_v4::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet,
    PublishOptions, StateError, SubscribeFilter, SubscribeReasonCode,
};

/// The largest packet that MQTT has (OASIS MQTT 3.1.1, 2.2.3): what the broker takes it does not say.
const OUTGOING: usize = 268_435_460;

#[derive(Clone)]
pub(super) struct Wire(AsyncClient);

pub(super) fn start(
    connect: Connect,
    credentials: Credentials,
    socket: Socket,
    inbox: Inbox,
) -> (Wire, impl Future<Output = End> + Send) {
    // Here a limit to each flush, too.
    let patience = super::CONNECT_TIMEOUT.max(super::patience(&connect.access));
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(patience.as_secs());
    let mut options = options(connect, credentials);
    options.set_socket_connector(once(socket));
    let (client, mut event_loop) = AsyncClient::builder(options).capacity(UNACKNOWLEDGED.into()).build();
    event_loop.set_network_options(network);
    (Wire(client), pump(event_loop, inbox))
}

fn options(connect: Connect, credentials: Credentials) -> MqttOptions {
    let Connect { access, client_id, will } = connect;
    let mut options = MqttOptions::new(client_id, (access.broker.host(), access.broker.port()));
    options.set_keep_alive(u16::try_from(access.keep_alive.as_secs()).unwrap_or(u16::MAX));
    options.set_clean_session(true);
    options.set_inflight(UNACKNOWLEDGED);
    options.set_max_request_batch(UNACKNOWLEDGED.into());
    options.set_max_packet_size(INCOMING as usize, OUTGOING);
    if let Some(Message { topic, payload, qos, retain, properties: _ }) = will {
        options.set_last_will(LastWill::new(topic, payload, level(qos), retain));
    }
    match credentials {
        (Some(username), Some(password)) => options.set_credentials(username, password),
        (Some(username), None) => options.set_username(username),
        // A password without a user name does not exist in this version (3.1.2.9).
        (None, _) => &mut options,
    };
    options
}

fn level(qos: QoS) -> rumqttc_v4::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc_v4::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc_v4::QoS::AtLeastOnce,
    }
}

/// Polls until the connection ends. After an error `poll` would connect again, so it is not called again.
async fn pump(mut event_loop: EventLoop, mut inbox: Inbox) -> End {
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => inbox.connected(Limits::default()),
            Ok(Event::Incoming(Packet::Publish(publish))) => inbox.push(Received {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: Bytes::copy_from_slice(&publish.payload),
                retain: publish.retain,
                properties: Properties::default(),
            }),
            Ok(_) => {}
            Err(error) => return end(error),
        }
    }
}

impl Wire {
    pub(super) async fn publish(&self, message: Message) -> Result<Notice, String> {
        let Message { topic, payload, qos, retain, properties: _ } = message;
        let options = PublishOptions::new(level(qos)).retain(retain);
        let notice = self.0.publish_tracked(topic, payload, options).await.map_err(|error| error.to_string())?;
        Ok(Box::pin(async move {
            let outcome = notice.wait_completion_async().await;
            outcome.map_err(|error| Refusal { reason: error.to_string(), is_for_now: false })
        }))
    }

    /// What is refused, with the reason.
    pub(super) async fn subscribe(&self, filters: Vec<String>) -> Result<Vec<(String, String)>, String> {
        let wanted = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), rumqttc_v4::QoS::AtLeastOnce));
        let notice = self.0.subscribe_many_tracked(wanted).await.map_err(|error| error.to_string())?;
        let answer = notice.wait_async().await.map_err(|error| error.to_string())?;
        let refused = filters.into_iter().zip(answer.return_codes).filter_map(|(filter, code)| match code {
            SubscribeReasonCode::Success(_) => None,
            SubscribeReasonCode::Failure => Some((filter, "refused; MQTT 3.1.1 gives no reason".to_owned())),
        });
        Ok(refused.collect())
    }

    pub(super) async fn probe(&self, filter: Option<String>) -> Result<(), String> {
        if let Some(filter) = filter {
            return self.subscribe(vec![filter]).await.map(drop);
        }
        let notice = self.0.unsubscribe_tracked(PROBE).await.map_err(|error| error.to_string())?;
        notice.wait_async().await.map(drop).map_err(|error| error.to_string())
    }

    pub(super) async fn disconnect(&self) -> Result<(), String> {
        self.0.disconnect().await.map_err(|error| error.to_string())
    }
}

fn end(error: ConnectionError) -> End {
    match error {
        ConnectionError::ConnectionRefused(code) => End::Refused(refusal(code).into()),
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => End::Io(error),
        ConnectionError::MqttState(StateError::ConnectionAborted) => End::Closed,
        ConnectionError::MqttState(StateError::AwaitPingResp) => End::Silent,
        ConnectionError::MqttState(StateError::Deserialization(Garbage::PayloadSizeLimitExceeded(pkt_size))) => {
            End::TooLarge(pkt_size)
        }
        ConnectionError::MqttState(StateError::Deserialization(Garbage::Io(error))) => End::Io(error),
        ConnectionError::MqttState(StateError::Deserialization(error)) => {
            End::Other(format!("the broker sent what is no MQTT: {error}"))
        }
        ConnectionError::MqttState(error) => End::Other(error.to_string()),
        error => End::Other(error.to_string()),
    }
}

/// OASIS MQTT 3.1.1, 3.2.2.3.
fn refusal(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "no reason",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => super::CLIENT_ID,
        ConnectReturnCode::ServiceUnavailable => "the broker is not available",
        ConnectReturnCode::BadUserNamePassword => "bad user name or password",
        ConnectReturnCode::NotAuthorized => super::NOT_AUTHORISED,
    }
}
