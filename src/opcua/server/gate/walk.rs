//! Walks through the body of a request that is not encrypted, before the UA crate decodes it.
//!
//! The crate's decoder (0.19) calls itself for DiagnosticInfo in DiagnosticInfo and for DataValue in Variant in DataValue
//! without an end, so that a request can use up the stack, and it makes room for what a length announces before it looks
//! whether it is there. Here nothing is stored, every length is held against what is left, and [`DEPTH`] against
//! nesting. A request is described by its fields (OPC 10000-4, chapter 5) in a small language:
//!
//!     b w u l    1, 2, 4, 8 bytes          N E  NodeId, ExpandedNodeId      V  Variant      [..]  an array of these
//!     s          String or ByteString      Q L  QualifiedName, LocalizedText D  DataValue
//!     g          16 bytes                  X    ExtensionObject             I  DiagnosticInfo
//!
//! The inside of an ExtensionObject is bounded by [`EXTENSION`] and not looked at.

use super::frame::{Reader, Refusal, refuse};
use ::opcua::types::StatusCode;

/// Values in values. OPC 10000-6, 5.2.2.16 wants 100 to be refused.
const DEPTH: u32 = 32;
/// Bytes of one ExtensionObject; a filter with a hundred operands is a few thousand.
const EXTENSION: usize = 32 * 1024;

/// Before every request's own fields: AuthenticationToken, timestamp, handle, diagnostics, audit entry, timeout hint.
const REQUEST_HEADER: &[u8] = b"Nluusu";

/// Services by the NodeId of their request's encoding, and the fields after the RequestHeader.
const SERVICES: &[(u32, &[u8])] = &[
    (422, b"s[s][s]"),                   // FindServers
    (428, b"s[s][s]"),                   // GetEndpoints
    (437, b"ss[L]us[s]sb"),              // RegisterServer
    (446, b"uuusu"),                     // OpenSecureChannel
    (452, b""),                          // CloseSecureChannel
    (461, b"ssLuss[s]ssssslu"),          // CreateSession
    (467, b"ss[ss][s]Xss"),              // ActivateSession
    (473, b"b"),                         // CloseSession
    (479, b"u"),                         // Cancel
    (488, b"[ENEQuXE]"),                 // AddNodes
    (494, b"[NNbsEu]"),                  // AddReferences
    (500, b"[Nb]"),                      // DeleteNodes
    (506, b"[NNbEb]"),                   // DeleteReferences
    (527, b"Nluu[NuNbuu]"),              // Browse
    (533, b"b[s]"),                      // BrowseNext
    (554, b"[N[NbbQ]]"),                 // TranslateBrowsePathsToNodeIds
    (560, b"[N]"),                       // RegisterNodes
    (566, b"[N]"),                       // UnregisterNodes
    (615, b"Nlu[Eb[[NbbQ]us]][u[X]]uu"), // QueryFirst
    (621, b"bs"),                        // QueryNext
    (631, b"lu[NusQ]"),                  // Read
    (664, b"Xub[NsQs]"),                 // HistoryRead
    (673, b"[NusD]"),                    // Write
    (700, b"[X]"),                       // HistoryUpdate
    (712, b"[NN[V]]"),                   // Call
    (751, b"uu[NusQuulXub]"),            // CreateMonitoredItems
    (763, b"uu[uulXub]"),                // ModifyMonitoredItems
    (769, b"uu[u]"),                     // SetMonitoringMode
    (775, b"uu[u][u]"),                  // SetTriggering
    (781, b"u[u]"),                      // DeleteMonitoredItems
    (787, b"luuubb"),                    // CreateSubscription
    (793, b"uluuub"),                    // ModifySubscription
    (799, b"b[u]"),                      // SetPublishingMode
    (826, b"[uu]"),                      // Publish
    (832, b"uu"),                        // Republish
    (841, b"[u]b"),                      // TransferSubscriptions
    (847, b"[u]"),                       // DeleteSubscriptions
    (12208, b"uu[s]"),                   // FindServersOnNetwork
];

/// What anybody may ask before there is a session: FindServers, GetEndpoints, FindServersOnNetwork (OPC 10000-4, 5.5.1).
const DISCOVERY: [u32; 3] = [422, 428, 12208];

/// A request that was walked through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// The NodeId of its encoding, in namespace 0.
    pub service: u32,
    pub handle: u32,
    /// Nothing in it is of a type of its own.
    pub is_plain: bool,
}

impl Request {
    pub fn is_discovery(self) -> bool {
        DISCOVERY.contains(&self.service)
    }

    /// OpenSecureChannel.
    pub fn is_open(self) -> bool {
        self.service == 446
    }
}

/// The first fields of a request, whatever it is, and then the rest of it if the service is known.
pub fn request(body: &[u8]) -> Result<Request, Refusal> {
    let mut walk = Walk { reader: Reader::new(body), is_plain: true };
    let service = walk.type_id()?;
    let before = walk.reader.left();
    walk.fields(REQUEST_HEADER, 0)?;
    // AuthenticationToken is of any length; the handle stands where its length says.
    let handle = walk.handle(&body[body.len() - before..])?;
    walk.field(b'X', 0)?;
    if let Some((_, fields)) = SERVICES.iter().find(|(id, _)| *id == service) {
        walk.fields(fields, 0)?;
    } else if walk.reader.left() > EXTENSION {
        return Err(refuse(StatusCode::BadServiceUnsupported, "a service that is not known, with a large request"));
    }
    Ok(Request { service, handle, is_plain: walk.is_plain })
}

struct Walk<'a> {
    reader: Reader<'a>,
    is_plain: bool,
}

fn invalid(reason: &'static str) -> Refusal {
    refuse(StatusCode::BadDecodingError, reason)
}

impl Walk<'_> {
    /// A numeric NodeId in namespace 0 (OPC 10000-6, 5.2.2.9).
    fn type_id(&mut self) -> Result<u32, Refusal> {
        let unknown = refuse(StatusCode::BadServiceUnsupported, "the message is of no service of UA");
        match self.reader.u8()? {
            0 => self.reader.u8().map(u32::from),
            1 if self.reader.u8()? == 0 => self.reader.u16().map(u32::from),
            2 if self.reader.u16()? == 0 => self.reader.u32(),
            _ => Err(unknown),
        }
    }

    /// The RequestHandle in a RequestHeader.
    fn handle(&self, header: &[u8]) -> Result<u32, Refusal> {
        let mut walk = Walk { reader: Reader::new(header), is_plain: true };
        walk.fields(b"Nl", 0)?;
        walk.reader.u32()
    }

    fn fields(&mut self, fields: &[u8], depth: u32) -> Result<(), Refusal> {
        let mut at = 0;
        while let Some(&field) = fields.get(at) {
            if field == b'[' {
                let end = at + closing(&fields[at..]);
                for _ in 0..self.reader.length()?.unwrap_or(0) {
                    self.fields(&fields[at + 1..end], depth)?;
                }
                at = end;
            } else {
                self.field(field, depth)?;
            }
            at += 1;
        }
        Ok(())
    }

    fn skip(&mut self, count: usize) -> Result<(), Refusal> {
        self.reader.take(count).map(|_| ())
    }

    fn field(&mut self, field: u8, depth: u32) -> Result<(), Refusal> {
        if depth > DEPTH {
            return Err(refuse(StatusCode::BadEncodingLimitsExceeded, "values are nested too deeply"));
        }
        match field {
            b'b' => self.skip(1),
            b'w' => self.skip(2),
            b'u' => self.skip(4),
            b'l' => self.skip(8),
            b'g' => self.skip(16),
            b's' => self.reader.bytes().map(|_| ()),
            b'N' => self.node_id(false),
            b'E' => self.node_id(true),
            b'Q' => self.fields(b"ws", depth),
            b'L' => self.masked(&[(1, b's'), (2, b's')], depth),
            b'X' => self.extension_object(),
            b'V' => self.variant(depth),
            // Value, status, and the two timestamps, each with its picoseconds (OPC 10000-6, 5.2.2.17).
            b'D' => self.masked(&[(1, b'V'), (2, b'u'), (4, b'l'), (16, b'w'), (8, b'l'), (32, b'w')], depth + 1),
            // SymbolicId, NamespaceUri, Locale, LocalizedText, AdditionalInfo, InnerStatusCode, InnerDiagnosticInfo
            // (OPC 10000-6, 5.2.2.12).
            _ => {
                let parts = [(1, b'u'), (2, b'u'), (8, b'u'), (4, b'u'), (16, b's'), (32, b'u'), (64, b'I')];
                self.masked(&parts, depth + 1)
            }
        }
    }

    /// Fields that are there if their bit is set.
    fn masked(&mut self, parts: &[(u8, u8)], depth: u32) -> Result<(), Refusal> {
        let mask = self.reader.u8()?;
        for (bit, field) in parts {
            if mask & bit != 0 {
                self.field(*field, depth)?;
            }
        }
        Ok(())
    }

    fn node_id(&mut self, is_expanded: bool) -> Result<(), Refusal> {
        let encoding = self.reader.u8()?;
        match encoding & 0x3F {
            0 => self.skip(1)?,
            1 => self.skip(3)?,
            2 => self.skip(6)?,
            3 | 5 => self.fields(b"ws", 0)?,
            4 => self.fields(b"wg", 0)?,
            _ => return Err(invalid("a NodeId is of no known form")),
        }
        // NamespaceUri and ServerIndex (OPC 10000-6, 5.2.2.10); in a plain NodeId the bits mean nothing.
        if is_expanded && encoding & 0x80 != 0 {
            self.field(b's', 0)?;
        }
        if is_expanded && encoding & 0x40 != 0 { self.skip(4) } else { Ok(()) }
    }

    fn extension_object(&mut self) -> Result<(), Refusal> {
        self.node_id(false)?;
        let encoding = self.reader.u8()?;
        if encoding == 0 {
            return Ok(());
        }
        self.is_plain = false;
        if self.reader.bytes()?.len() > EXTENSION {
            return Err(refuse(StatusCode::BadEncodingLimitsExceeded, "an ExtensionObject is too large"));
        }
        Ok(())
    }

    /// OPC 10000-6, 5.2.2.16: the type in the lower bits, then a value, or an array with or without its dimensions.
    fn variant(&mut self, depth: u32) -> Result<(), Refusal> {
        let encoding = self.reader.u8()?;
        let field = match encoding & 0x3F {
            0 => return Ok(()),
            1..=3 => b'b',
            4 | 5 => b'w',
            6 | 7 | 10 | 19 => b'u',
            8 | 9 | 11 | 13 => b'l',
            12 | 15 | 16 => b's',
            14 => b'g',
            17 => b'N',
            18 => b'E',
            20 => b'Q',
            21 => b'L',
            22 => b'X',
            23 => b'D',
            24 => b'V',
            25 => b'I',
            _ => return Err(invalid("a Variant is of no known type")),
        };
        let count = if encoding & 0x80 != 0 { self.reader.length()?.unwrap_or(0) } else { 1 };
        for _ in 0..count {
            self.field(field, depth + 1)?;
        }
        if encoding & 0x40 != 0 { self.fields(b"[u]", depth) } else { Ok(()) }
    }
}

/// Where the array that begins here ends.
fn closing(fields: &[u8]) -> usize {
    let mut depth = 0;
    for (at, field) in fields.iter().enumerate() {
        match field {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    fields.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TypeId, then a RequestHeader with handle 9 and nothing additional.
    fn with_header(service: u16, fields: &[u8]) -> Vec<u8> {
        let [low, high] = service.to_le_bytes();
        let mut body = vec![1, 0, low, high];
        // AuthenticationToken: a ByteString of three bytes in namespace 0.
        body.extend([5, 0, 0, 3, 0, 0, 0, 7, 7, 7]);
        body.extend([0; 8]);
        body.extend([9, 0, 0, 0]);
        body.extend([0; 4]);
        body.extend([0xFF; 4]);
        body.extend([0; 4]);
        body.extend([0; 3]);
        body.extend(fields);
        body
    }

    /// A Write of one DataValue to i=1.
    fn write(value: &[u8]) -> Vec<u8> {
        with_header(673, &[&[1, 0, 0, 0, 0, 1, 13, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF][..], value].concat())
    }

    fn status(body: &[u8]) -> Option<StatusCode> {
        request(body).err().map(|refusal| refusal.status)
    }

    #[test]
    fn every_shape_is_written_in_the_language() {
        for (service, fields) in SERVICES {
            let mut depth = 0;
            for field in *fields {
                assert!(b"bwulgsNEQLXVDI[]".contains(field), "{service}");
                depth += i32::from(*field == b'[') - i32::from(*field == b']');
                assert!(depth >= 0, "{service}");
            }
            assert_eq!(depth, 0, "{service}");
        }
    }

    #[test]
    fn a_request_is_named_and_must_be_whole() {
        // GetEndpoints: an URL and two empty arrays.
        let body = with_header(428, &[1, 0, 0, 0, b'x', 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
        let expected = Request { service: 428, handle: 9, is_plain: true };
        assert_eq!(request(&body), Ok(expected));
        assert!(expected.is_discovery() && !expected.is_open());
        for length in 0..body.len() {
            assert!(request(&body[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn values_of_all_kinds_are_walked_over() {
        let values: [&[u8]; 9] = [
            &[0],
            &[1, 0x06, 1, 2, 3, 4],
            &[1 | 2 | 4 | 16 | 8 | 32, 0x01, 1, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8, 2, 2, 8, 8, 8, 8, 8, 8, 8, 8, 2, 2],
            // An array of two Strings with one dimension.
            &[1, 0xCC, 2, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, b'x', 1, 0, 0, 0, 2, 0, 0, 0],
            // A LocalizedText with a text, a DiagnosticInfo with all its parts.
            &[1, 0x15, 2, 1, 0, 0, 0, b'x'],
            &[1, 0x19, 0x7F, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 0, 0, 0, 0, 5, 5, 5, 5, 0],
            // NodeIds: two bytes, four, numeric, a text, a Guid, expanded with NamespaceUri and ServerIndex.
            &[1, 0x91, 4, 0, 0, 0, 0, 1, 1, 2, 3, 4, 2, 1, 0, 1, 2, 3, 4, 3, 1, 0, 1, 0, 0, 0, b'x'],
            &[1, 0x12, 0xC0, 1, 1, 0, 0, 0, b'u', 1, 0, 0, 0],
            // A DataValue in a Variant, an ExtensionObject with two bytes.
            &[1, 0x17, 1, 0x16, 0, 9, 1, 2, 0, 0, 0, 1, 2],
        ];
        for value in values {
            assert_eq!(status(&write(value)), None, "{value:?}");
            let whole = write(value);
            assert!(status(&whole[..whole.len() - 1]).is_some(), "{value:?} without its end");
        }
    }

    #[test]
    fn what_is_nested_for_its_own_sake_is_refused() {
        let limits = Some(StatusCode::BadEncodingLimitsExceeded);
        for bomb in [&[0x18][..], &[0x17, 1], &[0x98, 1, 0, 0, 0]] {
            let bytes = bomb.repeat(10_000);
            assert_eq!(status(&write(&[&[1], &bytes[..]].concat())), limits, "{bomb:?}");
        }
        assert_eq!(status(&write(&[&[1, 0x19][..], &[0x40; 10_000]].concat())), limits);
        // Small enough is nobody's harm.
        assert_eq!(status(&write(&[&[1][..], &[0x18; 5], &[0]].concat())), None);
    }

    #[test]
    fn what_is_announced_must_be_there() {
        let decoding = Some(StatusCode::BadDecodingError);
        for length in [1_i32, 1_000_000, i32::MAX, -2, i32::MIN] {
            let [a, b, c, d] = length.to_le_bytes();
            assert_eq!(status(&write(&[1, 0x8F, a, b, c, d])), decoding, "{length}");
            assert_eq!(status(&write(&[1, 0x16, 0, 9, 2, a, b, c, d])), decoding, "{length}");
        }
    }
}
