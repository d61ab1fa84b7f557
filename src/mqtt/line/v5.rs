//! MQTT 5 by `rumqttc-v5-next`. Says in the words of [`super`] what that crate says in its own; decides nothing.

use super::inbox::Limits;
use super::socket::Socket;
use super::{
    Connect, Credentials, End, INCOMING, Inbox, Message, Notice, PROBE, Properties, QoS, Received, Refusal,
    UNACKNOWLEDGED, once,
};
use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::Error as Garbage;
use rumqttc::{
    AsyncClient, ConnAck, ConnectReturnCode, ConnectionError, DisconnectProperties, DisconnectReasonCode, Event,
    EventLoop, IncomingPacketSizeLimit, LastWill, LastWillProperties, MqttOptions, Packet, PubAckReason,
    PublishNoticeError, PublishOptions, PublishProperties, RetainForwardRule, SessionMode, StateError, SubscribeFilter,
    SubscribeReasonCode,
};

#[derive(Clone)]
pub(super) struct Wire(AsyncClient);

pub(super) fn start(
    connect: Connect,
    credentials: Credentials,
    socket: Socket,
    inbox: Inbox,
) -> (Wire, impl Future<Output = End> + Send) {
    let mut options = options(connect, credentials);
    options.set_socket_connector(once(socket));
    let (client, event_loop) = AsyncClient::builder(options).capacity(UNACKNOWLEDGED.into()).build();
    (Wire(client), pump(event_loop, inbox))
}

fn options(connect: Connect, credentials: Credentials) -> MqttOptions {
    let Connect { access, client_id, will } = connect;
    let mut options = MqttOptions::new(client_id, (access.broker.host(), access.broker.port()));
    options.set_keep_alive(u16::try_from(access.keep_alive.as_secs()).unwrap_or(u16::MAX));
    options.set_connect_timeout(super::CONNECT_TIMEOUT);
    options.set_session_mode(SessionMode::Clean);
    options.set_clean_start(true);
    options.set_session_expiry_interval(Some(0));
    options.set_outgoing_inflight_upper_limit(UNACKNOWLEDGED);
    options.set_max_request_batch(UNACKNOWLEDGED.into());
    options.set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(INCOMING));
    if let Some(Message { topic, payload, qos, retain, properties }) = will {
        let properties = (properties != Properties::default()).then_some(LastWillProperties {
            delay_interval: None,
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: properties.content_type,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            user_properties: properties.user,
        });
        options.set_last_will(LastWill::new(topic, payload, level(qos), retain, properties));
    }
    match credentials {
        (Some(username), Some(password)) => options.set_credentials(username, password),
        (Some(username), None) => options.set_username(username),
        (None, Some(password)) => options.set_password(password),
        (None, None) => &mut options,
    };
    options
}

fn level(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
    }
}

/// Polls until the connection ends. After an error `poll` would connect again, so it is not called again.
async fn pump(mut event_loop: EventLoop, mut inbox: Inbox) -> End {
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                inbox.connected(connack.properties.map_or_else(Limits::default, |properties| Limits {
                    largest: properties.max_packet_size,
                    is_without_qos: properties.max_qos == Some(0),
                    is_without_retain: properties.retain_available == Some(0),
                }))
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let properties = publish.properties.unwrap_or_default();
                inbox.push(Received {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    payload: Bytes::copy_from_slice(&publish.payload),
                    retain: publish.retain,
                    properties: Properties {
                        content_type: properties.content_type,
                        response_topic: properties.response_topic,
                        correlation_data: properties.correlation_data,
                        user: properties.user_properties,
                    },
                });
            }
            Ok(_) => {}
            Err(error) => return end(error),
        }
    }
}

impl Wire {
    pub(super) async fn publish(&self, message: Message) -> Result<Notice, String> {
        let Message { topic, payload, qos, retain, properties } = message;
        let mut options = PublishOptions::new(level(qos)).retain(retain);
        if properties != Properties::default() {
            options = options.properties(PublishProperties {
                content_type: properties.content_type,
                response_topic: properties.response_topic,
                correlation_data: properties.correlation_data,
                user_properties: properties.user,
                ..PublishProperties::default()
            });
        }
        let notice = self.0.publish_tracked(topic, payload, options).await.map_err(|error| error.to_string())?;
        Ok(Box::pin(async move {
            notice.wait_completion_async().await.map_err(|error| match error {
                PublishNoticeError::V5PubAck(PubAckReason::NotAuthorized) => {
                    Refusal { reason: "not authorised".to_owned(), is_for_now: false }
                }
                PublishNoticeError::V5PubAck(reason) => {
                    let is_for_now = matches!(
                        reason,
                        PubAckReason::UnspecifiedError
                            | PubAckReason::ImplementationSpecificError
                            | PubAckReason::QuotaExceeded
                    );
                    Refusal { reason: spaced(reason), is_for_now }
                }
                error => Refusal { reason: error.to_string(), is_for_now: false },
            })
        }))
    }

    /// What is refused, with the reason.
    pub(super) async fn subscribe(&self, filters: Vec<String>) -> Result<Vec<(String, String)>, String> {
        let wanted = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), rumqttc::QoS::AtLeastOnce));
        let codes = self.ask_for(wanted.collect()).await?;
        let refused = filters.into_iter().zip(codes).filter_map(|(filter, code)| match code {
            SubscribeReasonCode::Success(_) => None,
            SubscribeReasonCode::NotAuthorized => Some((filter, "not authorised".to_owned())),
            code => Some((filter, spaced(code))),
        });
        Ok(refused.collect())
    }

    async fn ask_for(&self, filters: Vec<SubscribeFilter>) -> Result<Vec<SubscribeReasonCode>, String> {
        let notice = self.0.subscribe_many_tracked(filters).await.map_err(|error| error.to_string())?;
        Ok(notice.wait_async().await.map_err(|error| error.to_string())?.return_codes)
    }

    pub(super) async fn probe(&self, filter: Option<String>) -> Result<(), String> {
        if let Some(filter) = filter {
            // What is retained there has come already.
            let again = SubscribeFilter::new(filter, rumqttc::QoS::AtLeastOnce);
            let again = SubscribeFilter { retain_forward_rule: RetainForwardRule::Never, ..again };
            return self.ask_for(vec![again]).await.map(drop);
        }
        let notice = self.0.unsubscribe_tracked(PROBE).await.map_err(|error| error.to_string())?;
        notice.wait_async().await.map(drop).map_err(|error| error.to_string())
    }

    pub(super) async fn disconnect(&self, with_will: bool) -> Result<(), String> {
        let code = match with_will {
            true => DisconnectReasonCode::DisconnectWithWillMessage,
            false => DisconnectReasonCode::NormalDisconnection,
        };
        let properties = DisconnectProperties {
            session_expiry_interval: None,
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        };
        self.0.disconnect_with_properties(code, properties).await.map_err(|error| error.to_string())
    }
}

fn end(error: ConnectionError) -> End {
    match error {
        ConnectionError::ConnectionRefused(code) => End::Refused(refusal(code)),
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => End::Io(error),
        ConnectionError::MqttState(StateError::ConnectionAborted) => End::Closed,
        ConnectionError::MqttState(StateError::AwaitPingResp) => End::Silent,
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            End::Dismissed(dismissal(reason_code), reason_string)
        }
        ConnectionError::MqttState(StateError::Deserialization(Garbage::PayloadSizeLimitExceeded {
            pkt_size, ..
        })) => End::TooLarge(pkt_size),
        ConnectionError::MqttState(StateError::Deserialization(Garbage::Io(error))) => End::Io(error),
        ConnectionError::MqttState(StateError::Deserialization(error)) => {
            End::Other(format!("the broker sent what is no MQTT: {error}"))
        }
        ConnectionError::MqttState(error) => End::Other(error.to_string()),
        error => End::Other(error.to_string()),
    }
}

/// OASIS MQTT 5.0, 3.2.2.2.
fn refusal(code: ConnectReturnCode) -> String {
    use ConnectReturnCode as Code;
    match code {
        Code::BadUserNamePassword => "bad user name or password".into(),
        Code::NotAuthorized => super::NOT_AUTHORISED.into(),
        Code::BadClientId | Code::ClientIdentifierNotValid => super::CLIENT_ID.into(),
        Code::ServiceUnavailable | Code::ServerUnavailable => "the broker is not available".into(),
        Code::ServerBusy => "the broker is busy".into(),
        Code::Banned => "this client is banned".into(),
        Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => super::OLD_BROKER.into(),
        Code::BadAuthenticationMethod => "it wants another way of authentication than user and password".into(),
        Code::PacketTooLarge => "the will is too large for it".into(),
        Code::RetainNotSupported => super::NO_RETAIN.into(),
        Code::QoSNotSupported => super::NO_QOS.into(),
        Code::TopicNameInvalid => "it does not take the topic of the will".into(),
        Code::UseAnotherServer => "another broker is to be used".into(),
        Code::ServerMoved => "the broker has moved".into(),
        Code::ConnectionRateExceeded => "too many connections in a short time".into(),
        code => spaced(code),
    }
}

/// OASIS MQTT 5.0, 3.14.2.1.
fn dismissal(code: DisconnectReasonCode) -> String {
    use DisconnectReasonCode as Code;
    match code {
        Code::SessionTakenOver => super::TAKEN_OVER.into(),
        Code::ServerShuttingDown => "the broker shuts down".into(),
        Code::KeepAliveTimeout => "the broker heard nothing from this device within the keep-alive".into(),
        Code::NotAuthorized => "not authorised".into(),
        code => spaced(code),
    }
}

/// `QuotaExceeded` as `quota exceeded`.
fn spaced(code: impl std::fmt::Debug) -> String {
    let mut words = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(character.to_lowercase());
    }
    words
}

/// What a CONNACK says beside its code: where else to go, and the broker's own words.
pub(super) fn beside(first_words: &[u8]) -> Option<String> {
    let Ok(Packet::ConnAck(ConnAck { properties: Some(properties), .. })) =
        Packet::read(&mut BytesMut::from(first_words), None)
    else {
        return None;
    };
    let reference = properties.server_reference.map(|reference| format!("it names {reference:?}"));
    let own = properties.reason_string.map(|reason| format!("it says {reason:?}"));
    let parts: Vec<String> = reference.into_iter().chain(own).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
