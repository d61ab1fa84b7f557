//! Connects to clients that wait for servers (OPC 10000-6, 7.1.3): for those behind a firewall that lets nobody in.
//!
//!     dial ──ReverseHello──► idle ──the client's Hello──► in use: handed to the gate; the next one is dialled
//!       ▲ backoff              └─ closed ─► dial
//!
//! After the ReverseHello a connection is like any other, so it is handed to the gate as if the client had come. The UA
//! crate can dial by itself, but tries again at once and for ever when nobody answers, and gives the client five seconds
//! to want something.
//!
//! One connection is always idle, because a client that looks for endpoints needs a second one for its session.

use super::{Identity, Reverse, target};
use crate::base::net::HostPort;
use crate::base::{Backoff, Stop};
use ::opcua::core::comms::tcp_types::ReverseHelloMessage;
use ::opcua::types::SimpleBinaryEncodable;
use futures_util::future::join_all;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Name resolution and TCP.
const CONNECT: Duration = Duration::from_secs(10);
/// Connections in use by one client.
const IN_USE: usize = 10;
/// So long after a client has gone without a word its connection counts as idle no more.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Until the stop.
pub(super) async fn run<F>(
    clients: &[Reverse],
    identity: &Identity,
    receive: impl Fn(TcpStream, SocketAddr) -> F,
    stop: &Stop,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let clients = clients.iter().filter_map(|client| Some((client, target(&client.client).ok()?)));
    let all = join_all(clients.map(|(client, target)| serve(&client.client, target, identity, &receive)));
    tokio::select! {
        _ = all => {}
        () = stop.stopped() => {}
    }
}

/// One client, for ever.
async fn serve<F>(client: &str, target: HostPort, identity: &Identity, receive: &impl Fn(TcpStream, SocketAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut in_use = JoinSet::new();
    let mut last: Option<String> = None;
    loop {
        while in_use.try_join_next().is_some() {}
        if in_use.len() >= IN_USE {
            in_use.join_next().await;
        }
        let outcome = dial(&target, identity).await;
        let said = outcome.as_ref().map_or_else(ToString::to_string, |_| String::new());
        if last.as_ref() != Some(&said) {
            match &outcome {
                Ok(_) => info!(client, "Reached a client by reverse connect."),
                Err(error) => warn!(client, %error, "Cannot reach a client by reverse connect; trying again."),
            }
        }
        last = Some(said);
        if let Ok((stream, peer)) = outcome
            && is_wanted(&stream).await
        {
            backoff.reset();
            in_use.spawn(receive(stream, peer));
            continue;
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

async fn dial(target: &HostPort, identity: &Identity) -> io::Result<(TcpStream, SocketAddr)> {
    let connect = TcpStream::connect((target.host.as_str(), target.port));
    let mut stream = match tokio::time::timeout(CONNECT, connect).await {
        Ok(stream) => stream?,
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    };
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE)?;
    let hello = ReverseHelloMessage::new(&identity.uri, &identity.url);
    let mut message = Vec::with_capacity(hello.byte_len());
    hello.encode(&mut message).map_err(io::Error::other)?;
    stream.write_all(&message).await?;
    let peer = stream.peer_addr()?;
    Ok((stream, peer))
}

/// Waits until the client says something; `false` if it closed the connection instead.
async fn is_wanted(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]).await, Ok(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_reverse_hello_comes_first_then_it_is_a_client_like_others_and_one_more_is_idle() {
        let client = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = client.local_addr().unwrap();
        let url = format!("opc.tcp://{address}");
        let identity = Identity {
            name: "n".into(),
            uri: "urn:a".into(),
            address,
            url: "opc.tcp://h:1/".into(),
            capabilities: Vec::new(),
        };
        let receive = |mut stream: TcpStream, peer| async move {
            assert_eq!(peer, address);
            let mut word = [0; 3];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(b"ACK").await.unwrap();
        };
        let story = async {
            let (mut one, _) = client.accept().await.unwrap();
            // OPC 10000-6, 7.1.2.6: type, size, two strings with their lengths.
            let golden = b"RHEF\x23\0\0\0\x05\0\0\0urn:a\x0e\0\0\0opc.tcp://h:1/";
            let mut hello = vec![0; golden.len()];
            one.read_exact(&mut hello).await.unwrap();
            assert_eq!(hello, golden);
            one.write_all(b"HEL").await.unwrap();
            let mut word = [0; 3];
            one.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"ACK");
            let (_idle, _) = client.accept().await.unwrap();
        };
        tokio::select! {
            () = serve(&url, target(&url).unwrap(), &identity, &receive) => unreachable!("for ever"),
            done = tokio::time::timeout(Duration::from_secs(20), story) => done.unwrap(),
        }
    }
}
