//! One client at the gate.
//!
//!     Hello ──► OpenSecureChannel ──► open ──► closed
//!       hello_timeout   channel_timeout  │
//!                                        ├─ requests: chunk by chunk, whole ones only, to the server behind
//!                                        └─ responses: as they come, at the client's pace
//!
//! The server behind is dialled when the OpenSecureChannel was found good; before that a client costs a socket. While
//! a client does not take a response its requests wait, so that the server cannot pile up answers, and after
//! stall_timeout it has to go. Buffers exist only while there are bytes in them.
//!
//! Invariant: whatever the gate itself says to a client comes between two messages of the server, or not at all.

use super::frame::{
    self, BUFFER, Chunk, HEADER, Header, Hello, Kind, Open, RESPONSE_CHUNKS, Refusal, Symmetric, refuse,
};
use super::responses::Responses;
use super::stream::{Inbox, say_good_bye, say_last, set_options, write_all};
use super::{Shared, busy, walk};
use crate::base::Clock;
use crate::model::EventKind;
use crate::opcua::server::limits::CHANNEL_LIFETIME;
use crate::opcua::status_code;
use crate::opcua::trust::Accepted;
use ::opcua::crypto::SecurityPolicy;
use ::opcua::types::StatusCode;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often it is asked whether a client is still trusted.
const TRUST: Duration = Duration::from_secs(2);
/// How long the server behind may take to answer a Hello, and to close after a CloseSecureChannel.
const SERVER: Duration = Duration::from_secs(5);
/// Bytes of a request for discovery.
const DISCOVERY_BYTES: usize = 8192;
/// Requests on a channel for discovery.
const DISCOVERY_REQUESTS: usize = 16;
/// A signature of any policy that is offered (HMAC-SHA256).
const SIGNATURE: usize = 32;
/// A renewal may come late by a quarter of the lifetime (OPC 10000-4, 5.5.2.1).
const EXPIRY: Duration = CHANNEL_LIFETIME.saturating_add(CHANNEL_LIFETIME.checked_div(4).expect("4 is not 0"));

/// Why a connection is over.
enum End {
    /// One side closed it, or the network did.
    Closed,
    /// The client did something it may not.
    Refused(Refusal),
    /// The client asked for a service that its channel is not for.
    NotHere { request: Symmetric, handle: u32 },
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        End::Refused(refusal)
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Closed
    }
}

/// What an OpenSecureChannel has made of the connection.
#[derive(Clone, Debug)]
enum Channel {
    /// SecurityPolicy None where that is for discovery only.
    Discovery,
    /// SecurityPolicy None with sessions: what is sent can be read here.
    Clear,
    /// Signed, and maybe encrypted.
    Secure { policy: String, accepted: Box<Accepted>, certificates: Vec<u8> },
}

pub(super) struct Connection<'a> {
    shared: &'a Shared,
    client: TcpStream,
    peer: SocketAddr,
    id: u64,
    responses: Responses,
}

impl<'a> Connection<'a> {
    pub(super) fn new(shared: &'a Shared, client: TcpStream, peer: SocketAddr, id: u64) -> Self {
        Self { shared, client, peer, id, responses: Responses::default() }
    }

    pub(super) async fn run(self, leave: &CancellationToken) {
        if let Err(error) = set_options(&self.client) {
            debug!(peer = %self.peer, %error, "Cannot set up the connection.");
        }
        let end = tokio::select! {
            end = self.converse() => end.err().unwrap_or(End::Closed),
            () = leave.cancelled() => End::Refused(busy()),
        };
        let between = self.responses.between();
        match end {
            End::Closed => debug!(peer = %self.peer, "The connection is over."),
            End::Refused(refusal) => {
                info!(peer = %self.peer, status = %refusal.status, reason = refusal.reason, "Sent a client away.");
                if between.is_some() {
                    say_good_bye(&self.client, &refusal).await;
                }
            }
            End::NotHere { request, handle } => {
                info!(peer = %self.peer, "A client wanted a session without security.");
                if let Some(chunks) = between {
                    let status = StatusCode::BadSecurityPolicyRejected;
                    let fault = frame::service_fault(request, chunks.wrapping_add(1), handle, status);
                    say_last(&self.client, &fault).await;
                }
            }
        }
    }

    async fn converse(&self) -> Result<(), End> {
        let limits = &self.shared.limits;
        let mut inbox = Inbox::default();
        let late = |reason| refuse(StatusCode::BadTimeout, reason);

        let hello = timeout(limits.hello_timeout, self.read_frame(&mut inbox)).await;
        let (header, hello) = hello.map_err(|_| late("no Hello came in time"))??;
        if header.kind != Kind::Hello {
            return Err(refuse(StatusCode::BadTcpMessageTypeInvalid, "a connection begins with a Hello").into());
        }
        let hello = Hello::parse(&hello)?;
        if !is_our_url(hello.url) {
            return Err(refuse(StatusCode::BadTcpEndpointUrlInvalid, "there is no such endpoint").into());
        }
        self.send(&hello.acknowledge()).await?;

        let deadline = Instant::now() + limits.channel_timeout;
        let open = timeout_at(deadline, self.read_frame(&mut inbox)).await;
        let (header, open) = open.map_err(|_| late("no OpenSecureChannel came in time"))??;
        if header.kind != Kind::Open {
            let reason = "an OpenSecureChannel follows the Hello";
            return Err(refuse(StatusCode::BadTcpMessageTypeInvalid, reason).into());
        }
        let channel = self.admit(&open)?;
        let server = timeout_at(deadline, self.dial(&hello)).await.map_err(|_| late("the server is busy"))??;
        write_all(&server, &open).await?;
        timeout_at(deadline, self.carry_first(&server, &channel))
            .await
            .map_err(|_| late("the channel did not open in time"))??;

        tokio::select! {
            end = self.requests(&server, inbox, channel.clone()) => end,
            end = self.carry_on(&server) => end,
            end = self.watch(&channel, deadline) => end,
        }
    }

    /// Decides about an OpenSecureChannel before anything in it is decrypted.
    fn admit(&self, frame: &[u8]) -> Result<Channel, Refusal> {
        let open = Open::parse(frame)?;
        if open.policy == SecurityPolicy::None.to_uri() {
            // After the sequence header, in the clear.
            let request = walk::request(open.rest.get(8..).unwrap_or_default())?;
            if !request.is_open() || !request.is_plain {
                return Err(refuse(StatusCode::BadTcpMessageTypeInvalid, "this is no OpenSecureChannel"));
            }
            return Ok(if self.shared.with_none { Channel::Clear } else { Channel::Discovery });
        }
        if !self.shared.policies.contains(&open.policy) {
            return Err(refuse(StatusCode::BadSecurityPolicyRejected, "the security policy is not offered"));
        }
        // What is encrypted comes in blocks as long as the key; the crate would panic over a part of one.
        if open.rest.is_empty() || !open.rest.len().is_multiple_of(self.shared.key_bytes) || !open.has_thumbprint {
            return Err(refuse(StatusCode::BadSecurityChecksFailed, "the message is not encrypted for this server"));
        }
        let accepted = self.shared.trust.check(open.certificates, Clock::real().now()).map_err(|why| {
            if why.is_new {
                warn!(peer = %self.peer, status = %why.status, "{why}.");
                let message = format!("{}: {why}", self.peer.ip());
                self.shared.notices.raise(EventKind::ClientRefused, message);
            }
            // The reason is nobody's business who is not trusted (OPC 10000-4, 6.1.3).
            refuse(status_code(why.status_for_client), "security checks failed")
        })?;
        let accepted = Box::new(accepted);
        Ok(Channel::Secure { policy: open.policy.to_owned(), accepted, certificates: open.certificates.to_vec() })
    }

    /// Connects to the server behind and repeats the Hello there.
    async fn dial(&self, hello: &Hello<'_>) -> Result<TcpStream, End> {
        let server = TcpStream::connect(self.shared.server).await?;
        server.set_nodelay(true)?;
        write_all(&server, &hello.forward()).await?;
        let mut answer = Inbox::default();
        let header: [u8; HEADER] = answer.need(&server, HEADER).await?.try_into().expect("HEADER bytes were asked for");
        let [a, b, c, _, size @ ..] = header;
        let size = (u32::from_le_bytes(size) as usize).clamp(HEADER, BUFFER);
        answer.need(&server, size).await?;
        // What the client was told by the gate is the same or less; only a refusal is worth passing on.
        if &[a, b, c] != b"ACK" {
            self.send(answer.need(&server, size).await?).await?;
            return Err(End::Closed);
        }
        Ok(server)
    }

    /// Everything the client sends, checked.
    async fn requests(&self, server: &TcpStream, mut inbox: Inbox, channel: Channel) -> Result<(), End> {
        let limits = &self.shared.limits;
        let mut renewed = Instant::now();
        let mut count = 0;
        loop {
            // Silence, and then a request that does not end.
            let silent = Instant::now() + limits.idle_timeout;
            let expired = renewed + EXPIRY;
            if inbox.is_empty() {
                match timeout_at(silent.min(expired), inbox.need(&self.client, 1)).await {
                    Ok(read) => drop(read?),
                    Err(_) if expired < silent => {
                        let reason = "the secure channel was not renewed in time";
                        return Err(refuse(StatusCode::BadSecureChannelTokenUnknown, reason).into());
                    }
                    Err(_) => return Err(refuse(StatusCode::BadTimeout, "nothing came for a long time").into()),
                }
            }
            let request = timeout(limits.request_timeout, self.request(server, &mut inbox, &channel)).await;
            match request.map_err(|_| refuse(StatusCode::BadTimeout, "a request did not end in time"))?? {
                Kind::Open => renewed = Instant::now(),
                Kind::Close => {
                    // The server closes now; if it does not, nobody waits for it.
                    tokio::time::sleep(SERVER).await;
                    return Ok(());
                }
                _ => count += 1,
            }
            if matches!(channel, Channel::Discovery) && count > DISCOVERY_REQUESTS {
                let reason = "too many requests on a channel for discovery";
                return Err(refuse(StatusCode::BadTcpServerTooBusy, reason).into());
            }
        }
    }

    /// One message from its first chunk to its last.
    async fn request(&self, server: &TcpStream, inbox: &mut Inbox, channel: &Channel) -> Result<Kind, End> {
        let mut budget = Budget { shared: self.shared, bytes: 0, chunks: 0 };
        let mut body = Vec::new();
        loop {
            let (header, frame) = self.read_frame(inbox).await?;
            match header.kind {
                Kind::Open if body.is_empty() && budget.bytes == 0 => self.admit_renewal(&frame, channel)?,
                Kind::Message | Kind::Close => self.check(header, &frame, channel, &mut budget, &mut body)?,
                Kind::Hello | Kind::Open => {
                    let reason = "this message does not belong here";
                    return Err(refuse(StatusCode::BadTcpMessageTypeInvalid, reason).into());
                }
            }
            if header.chunk != Chunk::Intermediate {
                self.responses.turn(self.shared.limits.requests_in_flight).await;
                if header.chunk == Chunk::Final {
                    self.responses.asked();
                }
                write_all(server, &frame).await?;
                return Ok(header.kind);
            }
            write_all(server, &frame).await?;
        }
    }

    /// A chunk of a request on an open channel.
    fn check(
        &self,
        header: Header,
        frame: &[u8],
        channel: &Channel,
        budget: &mut Budget<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), End> {
        let too_large = refuse(StatusCode::BadTcpMessageTooLarge, "the request is too large");
        let limit = match channel {
            Channel::Discovery => DISCOVERY_BYTES,
            Channel::Clear | Channel::Secure { .. } => self.shared.limits.request_bytes,
        };
        if budget.bytes + frame.len() > limit || budget.chunks >= RESPONSE_CHUNKS {
            return Err(too_large.into());
        }
        if header.chunk == Chunk::Intermediate {
            budget.take(frame.len())?;
        }
        if let Channel::Secure { .. } = channel {
            // The crate subtracts the signature from the size before it looks which is larger.
            let least = Symmetric::END + SIGNATURE;
            return match frame.len() < least {
                true => Err(refuse(StatusCode::BadSecurityChecksFailed, "the message is not signed").into()),
                false => Ok(()),
            };
        }
        body.extend_from_slice(&frame[Symmetric::END..]);
        if header.chunk == Chunk::Abort || header.chunk == Chunk::Intermediate {
            return Ok(());
        }
        let request = walk::request(body)?;
        if let Channel::Discovery = channel
            && header.kind == Kind::Message
            && (!request.is_discovery() || !request.is_plain)
        {
            return Err(End::NotHere { request: Symmetric::parse(frame)?, handle: request.handle });
        }
        Ok(())
    }

    /// The token of a channel is renewed by whom it was opened, and as it was opened (OPC 10000-4, 5.5.2).
    fn admit_renewal(&self, frame: &[u8], channel: &Channel) -> Result<(), Refusal> {
        let renewed = self.admit(frame)?;
        let is_same = match (channel, &renewed) {
            (Channel::Discovery, Channel::Discovery) | (Channel::Clear, Channel::Clear) => true,
            (
                Channel::Secure { policy, certificates, .. },
                Channel::Secure { policy: now_policy, certificates: now_certificates, .. },
            ) => policy == now_policy && certificates == now_certificates,
            _ => false,
        };
        let reason = "a channel keeps its policy and its certificate";
        if is_same { Ok(()) } else { Err(refuse(StatusCode::BadSecurityChecksFailed, reason)) }
    }

    /// What the server has to say now.
    async fn carry(&self, server: &TcpStream) -> Result<(), End> {
        let stall = self.shared.limits.stall_timeout;
        match self.responses.carry(server, &self.client, &self.shared.buffers, stall).await {
            Ok(true) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(refuse(StatusCode::BadTimeout, "the client does not take its responses").into())
            }
            Ok(false) | Err(_) => Err(End::Closed),
        }
    }

    /// The answer to the OpenSecureChannel, which says that the client had the key of its certificate. It counts before the client can
    /// read it, or whoever comes in next might take its place.
    async fn carry_first(&self, server: &TcpStream, channel: &Channel) -> Result<(), End> {
        let mut kind = *b"ERR";
        server.peek(&mut kind).await?;
        if kind == *b"OPN" && !matches!(channel, Channel::Discovery) {
            self.shared.doors().opened(self.id);
        }
        while !self.responses.has_begun() {
            self.carry(server).await?;
        }
        Ok(())
    }

    /// Everything the server says, until it closes.
    async fn carry_on(&self, server: &TcpStream) -> Result<(), End> {
        loop {
            self.carry(server).await?;
        }
    }

    /// Ends a channel for discovery when its time is over, and one whose certificate is not trusted any more.
    async fn watch(&self, channel: &Channel, deadline: Instant) -> Result<(), End> {
        match channel {
            Channel::Discovery => {
                tokio::time::sleep_until(deadline).await;
                Err(refuse(StatusCode::BadTimeout, "a channel for discovery does not last").into())
            }
            Channel::Secure { accepted, .. } => {
                while self.shared.trust.still(accepted, Clock::real().now()) {
                    tokio::time::sleep(TRUST).await;
                }
                warn!(peer = %self.peer, subject = %accepted.subject, "A client is not trusted any more.");
                Err(refuse(StatusCode::BadSecurityChecksFailed, "security checks failed").into())
            }
            Channel::Clear => std::future::pending().await,
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), End> {
        timeout(self.shared.limits.stall_timeout, write_all(&self.client, bytes)).await.map_err(|_| End::Closed)??;
        Ok(())
    }

    /// The next chunk, whole.
    async fn read_frame(&self, inbox: &mut Inbox) -> Result<(Header, Vec<u8>), End> {
        let header = inbox.need(&self.client, HEADER).await?.try_into().expect("HEADER bytes were asked for");
        let header = Header::parse(header)?;
        inbox.need(&self.client, header.size).await?;
        Ok((header, inbox.take(header.size)))
    }
}

/// Bytes of an unfinished request, counted for all clients together.
struct Budget<'a> {
    shared: &'a Shared,
    bytes: usize,
    chunks: usize,
}

impl Budget<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes += bytes;
        self.chunks += 1;
        let all = self.shared.unfinished.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > self.shared.limits.unfinished_bytes {
            return Err(refuse(StatusCode::BadTcpNotEnoughResources, "too many requests are unfinished"));
        }
        Ok(())
    }
}

impl Drop for Budget<'_> {
    fn drop(&mut self) {
        self.shared.unfinished.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The endpoints are at the root, whatever host and port a client knows this one by.
fn is_our_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    scheme.eq_ignore_ascii_case("opc.tcp") && !rest.is_empty() && path.trim_end_matches('/').is_empty()
}
