//! The socket below a session.
//!
//! Over the crate's own connector it does three things more: it tries each address that a name has, it sends what is small
//! at once (TCP_NODELAY), and it tells the age of a security token by our own clock. The crate compares the server's
//! CreatedAt with our time, so that with a server whose clock is behind it would renew the token with each request, and
//! with one that is ahead never (docs/upstream.md).

use crate::base::net::connect_to_first;
use opcua::client::transport::{
    Connector, RequestRecv, SecureChannelState, StreamConnection, StreamConnector, StreamTransport, Transport,
    TransportConfiguration, TransportPollResult,
};
use opcua::core::comms::tcp_codec::TcpCodec;
use opcua::types::{ChannelSecurityToken, DateTime, DecodingOptions, EndpointDescription, Error, StatusCode};
use std::sync::Arc;
use tokio::net::lookup_host;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::FramedRead;

/// The port of OPC UA (IANA).
const PORT: u16 = 4840;

/// Connects to the host of a URL.
#[derive(Clone, Debug)]
pub(super) struct Line {
    url: String,
    address: String,
}

impl Line {
    /// Says what is wrong with the URL.
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("opc.tcp://").ok_or("it does not begin with opc.tcp://")?;
        let authority = rest.split('/').next().unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| "its port is no number")?),
            _ => (authority, PORT),
        };
        if host.is_empty() || host.contains(char::is_whitespace) || (host.contains(':') && !host.starts_with('[')) {
            return Err("it names no host".into());
        }
        Ok(Self { url: url.to_owned(), address: format!("{host}:{port}") })
    }

    async fn connect(address: String, url: String, options: DecodingOptions) -> Result<Stream, Error> {
        let failed = |code, what: std::io::Error| Error::new(code, format!("{address}: {what}"));
        let found = lookup_host(&address).await.map_err(|error| failed(StatusCode::BadTcpEndpointUrlInvalid, error))?;
        let stream = connect_to_first(found).await.map_err(|error| failed(StatusCode::BadCommunicationError, error))?;
        stream.set_nodelay(true).map_err(|error| failed(StatusCode::BadCommunicationError, error))?;
        let (reader, writer) = stream.into_split();
        Ok(StreamConnection::new(FramedRead::new(reader, TcpCodec::new(options)), writer, url))
    }
}

type Stream = StreamConnection<OwnedReadHalf, OwnedWriteHalf>;

impl Connector for Line {
    type Transport = Aged<StreamTransport<OwnedReadHalf, OwnedWriteHalf>>;

    async fn connect(
        &self,
        channel: Arc<SecureChannelState>,
        outgoing: RequestRecv,
        config: TransportConfiguration,
    ) -> Result<Self::Transport, Error> {
        let address = self.address.clone();
        let open = move |url: String, options: DecodingOptions| Self::connect(address.clone(), url, options);
        let inner = StreamConnector::new(open, self.url.clone()).connect(channel.clone(), outgoing, config).await?;
        Ok(Aged { inner, channel, token: 0 })
    }

    fn default_endpoint(&self) -> EndpointDescription {
        EndpointDescription::from(self.url.as_str())
    }
}

/// Gives each new security token the time at which it came.
pub(super) struct Aged<T> {
    inner: T,
    channel: Arc<SecureChannelState>,
    /// The last one seen.
    token: u32,
}

impl<T: Transport> Transport for Aged<T> {
    async fn poll(&mut self) -> TransportPollResult {
        let result = self.inner.poll().await;
        if matches!(result, TransportPollResult::IncomingMessage) {
            let token = self.channel.secure_channel().read().token_id();
            if token != self.token {
                self.token = token;
                let mut channel = self.channel.secure_channel().write();
                let (channel_id, revised_lifetime) = (channel.secure_channel_id(), channel.token_lifetime());
                let created_at = DateTime::now();
                let token = ChannelSecurityToken { channel_id, token_id: token, created_at, revised_lifetime };
                channel.set_security_token(token);
            }
        }
        result
    }

    fn connected_url(&self) -> &str {
        self.inner.connected_url()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_and_perhaps_a_port() {
        let address = |url: &str| Line::new(url).map(|line| line.address);
        assert_eq!(address("opc.tcp://plc").unwrap(), "plc:4840");
        assert_eq!(address("opc.tcp://plc:4841/a/b:c").unwrap(), "plc:4841");
        assert_eq!(address("opc.tcp://[::1]:4841").unwrap(), "[::1]:4841");
        assert_eq!(address("opc.tcp://[::1]").unwrap(), "[::1]:4840");
        for wrong in ["http://plc", "opc.tcp://", "opc.tcp://:4840", "opc.tcp://plc:x", "opc.tcp://::1", "plc:4840"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
