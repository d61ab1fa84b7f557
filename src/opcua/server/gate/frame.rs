//! What the transport of UA looks like on the wire (OPC 10000-6, 7.1): headers, Hello, Acknowledge, Error, and the part
//! of OpenSecureChannel that is never encrypted. Pure: bytes in, words out.

use ::opcua::types::StatusCode;

/// MessageType, ChunkType and MessageSize (OPC 10000-6, 7.1.2.2).
pub(super) const HEADER: usize = 8;
/// The largest chunk that either side may send; what the UA crate negotiates as well.
pub(super) const BUFFER: usize = 65_535;
/// Bytes of one response; the largest ByteString with room around it.
pub const RESPONSE_BYTES: usize = 64 * 1024 * 1024;
/// A response of that size in chunks of 64 KiB.
pub const RESPONSE_CHUNKS: usize = 1024;
/// The least that a side must be able to take (OPC 10000-6, 7.1.2.3).
const LEAST_BUFFER: u32 = 8192;
/// OPC 10000-6, 7.1.2.3: a server answers longer ones with BadTcpEndpointUrlInvalid.
const ENDPOINT_URL: usize = 4096;
/// Longer than any URI of a policy.
const POLICY_URI: usize = 255;
/// The bytes of a SHA-1 thumbprint.
const THUMBPRINT: usize = 20;

/// Why a client is sent away: goes out as an Error message (OPC 10000-6, 7.1.2.5).
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: &'static str,
}

pub(super) const fn refuse(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

const fn malformed(reason: &'static str) -> Refusal {
    refuse(StatusCode::BadDecodingError, reason)
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Hello,
    Open,
    Message,
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Chunk {
    Final,
    Intermediate,
    Abort,
}

/// The first bytes of everything that a client sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    pub kind: Kind,
    pub chunk: Chunk,
    /// With the header itself.
    pub size: usize,
}

impl Header {
    pub fn parse(bytes: [u8; HEADER]) -> Result<Self, Refusal> {
        let [a, b, c, chunk, size @ ..] = bytes;
        let invalid = |reason| refuse(StatusCode::BadTcpMessageTypeInvalid, reason);
        let kind = match &[a, b, c] {
            b"HEL" => Kind::Hello,
            b"OPN" => Kind::Open,
            b"MSG" => Kind::Message,
            b"CLO" => Kind::Close,
            _ => return Err(invalid("this is not a message of a UA client")),
        };
        let chunk = match (kind, chunk) {
            (_, b'F') => Chunk::Final,
            (Kind::Message, b'C') => Chunk::Intermediate,
            (Kind::Message, b'A') => Chunk::Abort,
            _ => return Err(invalid("the chunk is of no known type")),
        };
        let size = u32::from_le_bytes(size) as usize;
        if size > BUFFER {
            return Err(refuse(StatusCode::BadTcpMessageTooLarge, "the chunk is larger than what was agreed"));
        }
        if size < least_size(kind) {
            return Err(malformed("the chunk is too short for its headers"));
        }
        Ok(Self { kind, chunk, size })
    }
}

/// Header, SecureChannelId, security header and sequence header; what a message of that kind cannot do without.
const fn least_size(kind: Kind) -> usize {
    match kind {
        Kind::Hello => HEADER + 5 * 4 + 4,
        Kind::Open => HEADER + 4 + 3 * 4 + 8,
        Kind::Message | Kind::Close => HEADER + 4 + 4 + 8,
    }
}

/// SecureChannelId, TokenId, SequenceNumber and RequestId of a message that is not encrypted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Symmetric {
    pub channel: u32,
    pub token: u32,
    pub request: u32,
}

impl Symmetric {
    /// Where the body begins.
    pub(super) const END: usize = least_size(Kind::Message);

    pub(super) fn parse(frame: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(frame.get(HEADER..).unwrap_or_default());
        let (channel, token, _sequence) = (reader.u32()?, reader.u32()?, reader.u32()?);
        Ok(Self { channel, token, request: reader.u32()? })
    }
}

/// Fields in little endian, each checked against what is there.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(malformed("the message ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refusal> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }

    /// The Int32 before an array, a String or a ByteString; -1 stands for none of them (OPC 10000-6, 5.2.2.4, 5.2.5).
    pub(super) fn length(&mut self) -> Result<Option<usize>, Refusal> {
        match i32::from_le_bytes(self.array()?) {
            -1 => Ok(None),
            // Each element takes a byte at the least.
            length => match usize::try_from(length) {
                Ok(length) if length <= self.left() => Ok(Some(length)),
                _ => Err(malformed("a length goes beyond the end of the message")),
            },
        }
    }

    /// A String or a ByteString; null counts as empty.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.length()?.unwrap_or(0);
        self.take(length)
    }
}

/// What a client says first (OPC 10000-6, 7.1.2.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Hello<'a> {
    receive_buffer: u32,
    send_buffer: u32,
    max_message: u32,
    max_chunks: u32,
    pub(super) url: &'a str,
}

impl<'a> Hello<'a> {
    pub fn parse(frame: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(frame.get(HEADER..).unwrap_or_default());
        // A client may speak a newer version; the answer says which one is spoken here.
        let _version = reader.u32()?;
        let (receive_buffer, send_buffer) = (reader.u32()?, reader.u32()?);
        let (max_message, max_chunks) = (reader.u32()?, reader.u32()?);
        let url = reader.bytes()?;
        if reader.left() > 0 {
            return Err(malformed("something follows the EndpointUrl"));
        }
        if receive_buffer < LEAST_BUFFER || send_buffer < LEAST_BUFFER {
            return Err(refuse(StatusCode::BadConnectionRejected, "buffers must hold 8192 bytes at the least"));
        }
        let bad_url = refuse(StatusCode::BadTcpEndpointUrlInvalid, "the EndpointUrl is too long or not a text");
        let url = std::str::from_utf8(url).map_err(|_| bad_url.clone())?;
        if url.len() > ENDPOINT_URL {
            Err(bad_url)
        } else {
            Ok(Self { receive_buffer, send_buffer, max_message, max_chunks, url })
        }
    }

    /// The answer: what both sides can take (OPC 10000-6, 7.1.2.4). 0 stands for no limit.
    ///
    /// MaxMessageSize is about requests, but widespread clients (asyncua 1.1) hold responses against it and drop
    /// pictures; so what is said here is the limit of responses, and requests are held to theirs all the same.
    pub(super) fn acknowledge(&self) -> Vec<u8> {
        let both = |ours: u32, theirs: u32| if theirs == 0 { ours } else { ours.min(theirs) };
        let (message, chunks) = (RESPONSE_BYTES as u32, RESPONSE_CHUNKS as u32);
        let buffer = BUFFER as u32;
        let fields = [
            0,
            buffer.min(self.send_buffer),
            buffer.min(self.receive_buffer),
            both(message, self.max_message),
            both(chunks, self.max_chunks),
        ];
        frame(b"ACK", &fields.map(u32::to_le_bytes).concat())
    }

    /// The same Hello for the server behind.
    pub(super) fn forward(&self) -> Vec<u8> {
        let fields = [0, self.receive_buffer, self.send_buffer, self.max_message, self.max_chunks];
        let mut body = fields.map(u32::to_le_bytes).concat();
        put_text(&mut body, self.url);
        frame(b"HEL", &body)
    }
}

/// The part of an OpenSecureChannel that is never encrypted (OPC 10000-6, 6.7.2.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Open<'a> {
    pub policy: &'a str,
    /// The client's certificate and what it is signed with, or empty.
    pub certificates: &'a [u8],
    pub has_thumbprint: bool,
    /// From the SequenceNumber on; encrypted unless the policy is None.
    pub rest: &'a [u8],
}

impl<'a> Open<'a> {
    pub fn parse(frame: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(frame.get(HEADER..).unwrap_or_default());
        let _channel = reader.u32()?;
        let policy = reader.bytes()?;
        let rejected = refuse(StatusCode::BadSecurityPolicyRejected, "the security policy is not known");
        let policy = std::str::from_utf8(policy).map_err(|_| rejected.clone())?;
        if policy.len() > POLICY_URI {
            return Err(rejected);
        }
        let certificates = reader.bytes()?;
        let thumbprint = reader.bytes()?;
        if !matches!(thumbprint.len(), 0 | THUMBPRINT) {
            return Err(malformed("a thumbprint has 20 bytes"));
        }
        Ok(Self { policy, certificates, has_thumbprint: !thumbprint.is_empty(), rest: reader.take(reader.left())? })
    }
}

/// The Error message that ends a connection.
pub(super) fn error(refusal: &Refusal) -> Vec<u8> {
    let mut body = refusal.status.bits().to_le_bytes().to_vec();
    put_text(&mut body, refusal.reason);
    frame(b"ERR", &body)
}

/// A ServiceFault (i=397) as the response to a request on a channel that is not encrypted.
pub(super) fn service_fault(to: Symmetric, sequence: u32, handle: u32, status: StatusCode) -> Vec<u8> {
    let mut body = [to.channel, to.token, sequence, to.request].map(u32::to_le_bytes).concat();
    body.extend([1, 0]);
    body.extend(397_u16.to_le_bytes());
    // ResponseHeader: no time, the handle, the result, no diagnostics, no strings, nothing additional.
    body.extend([0; 8]);
    body.extend(handle.to_le_bytes());
    body.extend(status.bits().to_le_bytes());
    body.push(0);
    body.extend((-1_i32).to_le_bytes());
    body.extend([0; 3]);
    frame(b"MSG", &body)
}

fn frame(kind: &[u8; 3], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER + body.len()).expect("what is sent from here is short");
    [kind, &b"F"[..], &size.to_le_bytes(), body].concat()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(u32::try_from(text.len()).expect("what is sent from here is short").to_le_bytes());
    out.extend(text.as_bytes());
}

/// Follows what goes to a client, to know where a message ends and how many there were.
#[derive(Debug, Default)]
pub(super) struct Track {
    header: [u8; HEADER],
    /// Bytes of the header that were seen.
    seen: usize,
    /// Bytes of the chunk that are still to come, after the header.
    left: usize,
    pub(super) chunks: u32,
    /// Messages that were sent to their end.
    pub(super) messages: usize,
}

impl Track {
    pub(super) fn is_between(&self) -> bool {
        self.seen == 0 && self.left == 0
    }

    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let count = (HEADER - self.seen).min(bytes.len());
                self.header[self.seen..self.seen + count].copy_from_slice(&bytes[..count]);
                self.seen += count;
                bytes = &bytes[count..];
                if self.seen < HEADER {
                    return;
                }
                let [.., a, b, c, d] = self.header;
                self.left = (u32::from_le_bytes([a, b, c, d]) as usize).saturating_sub(HEADER);
            }
            let count = self.left.min(bytes.len());
            self.left -= count;
            bytes = &bytes[count..];
            if self.left == 0 {
                self.seen = 0;
                self.chunks = self.chunks.wrapping_add(1);
                if self.header[3] != b'C' {
                    self.messages += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(url: &str) -> Vec<u8> {
        let hello = Hello { receive_buffer: 65_535, send_buffer: 10_000, max_message: 0, max_chunks: 7, url };
        hello.forward()
    }

    #[test]
    fn a_header_is_one_of_four_kinds_and_of_a_size_that_can_be() {
        let parse = |text: &[u8; 4], size: u32| {
            let [a, b, c, d] = size.to_le_bytes();
            let [k, l, m, n] = *text;
            Header::parse([k, l, m, n, a, b, c, d]).map_err(|refusal| refusal.status)
        };
        let header = Header { kind: Kind::Message, chunk: Chunk::Intermediate, size: 24 };
        assert_eq!(parse(b"MSGC", 24), Ok(header));
        assert_eq!(parse(b"MSGF", 23), Err(StatusCode::BadDecodingError));
        assert_eq!(parse(b"MSGF", 65_536), Err(StatusCode::BadTcpMessageTooLarge));
        for text in [b"MSGX", b"HELC", b"OPNA", b"CLOC", b"ACKF", b"ERRF", b"RHEF", b"GET "] {
            assert_eq!(parse(text, 60), Err(StatusCode::BadTcpMessageTypeInvalid), "{text:?}");
        }
    }

    #[test]
    fn a_hello_is_understood_answered_and_repeated() {
        let bytes = hello("opc.tcp://host:4840/");
        let hello = Hello::parse(&bytes).unwrap();
        assert_eq!(hello.url, "opc.tcp://host:4840/");
        assert_eq!(hello.forward(), bytes);
        // OPC 10000-6, 7.1.2.4: version, buffers crossed over, MaxMessageSize, MaxChunkCount.
        let fields = [0, 10_000, 65_535, RESPONSE_BYTES as u32, 7].map(u32::to_le_bytes).concat();
        assert_eq!(hello.acknowledge(), [b"ACKF\x1c\0\0\0", &fields[..]].concat());
    }

    #[test]
    fn what_follows_a_hello_or_is_missing_from_it_is_refused() {
        let good = hello("opc.tcp://x/");
        assert!(Hello::parse(&[&good[..], &[0]].concat()).is_err());
        for length in HEADER..good.len() {
            assert!(Hello::parse(&good[..length]).is_err(), "{length}");
        }
        let long = hello(&format!("opc.tcp://{}", "x".repeat(ENDPOINT_URL)));
        assert_eq!(Hello::parse(&long).unwrap_err().status, StatusCode::BadTcpEndpointUrlInvalid);
    }

    #[test]
    fn the_clear_part_of_an_open_secure_channel_is_read() {
        let text = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
        let body = [&[0; 4][..], &text(b"policy"), &text(b"certificate"), &text(&[7; 20]), b"secret"].concat();
        let bytes = frame(b"OPN", &body);
        let open = Open::parse(&bytes).unwrap();
        let expected = Open { policy: "policy", certificates: b"certificate", has_thumbprint: true, rest: b"secret" };
        assert_eq!(open, expected);
        let body = [&[0; 4][..], &text(b"policy"), &text(b""), &text(&[7; 19])].concat();
        assert!(Open::parse(&frame(b"OPN", &body)).is_err(), "a thumbprint of 19 bytes");
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let stream = [frame(b"MSG", &[1; 30]), b"MSGC\x0a\0\0\0xy".to_vec(), frame(b"MSG", &[])].concat();
        for part in 1..stream.len() {
            let mut track = Track::default();
            for bytes in stream.chunks(part) {
                track.pass(bytes);
            }
            assert!(track.is_between());
            assert_eq!((track.chunks, track.messages), (3, 2), "in parts of {part}");
        }
    }
}
