//! What the relay and a worker say to each other, through the worker's standard input and output.
//!
//! A message is a frame: its length (u32, little endian), then the message in postcard's encoding. The relay asks with a number of
//! its own choosing and gets exactly one last [`Reply`] with it, before which a browse sends what it has. What DA pushes comes
//! unasked as [`Event`]. A worker starts with `Event::Started`, and ends when its input does.
//!
//! Words are DA's own and unjudged: the quality's 16 bits, FILETIMEs that may be nonsense, HRESULTs. What they mean in OPC UA is the
//! relay's to say, once, where it can be tested without COM. An HRESULT is a failure if it is negative; successes other than 0
//! (S_FALSE, OPC_S_CLAMP, OPC_S_UNSUPPORTEDRATE) are kept.
//!
//! The worker answers requests of one [`Lane`] in their order, and each lane on a thread and a connection of its own, so that a slow
//! browse delays no value. Whatever takes too long is the relay's to end, with the whole process.

use serde::{Deserialize, Deserializer, Serialize};
use std::cell::Cell;

/// The longest frame that either side takes. The worker splits what would be longer.
pub const LONGEST_FRAME: usize = 16 << 20;

/// How many items go into one call of AddItems, Read or Write.
pub const ITEMS_PER_CALL: usize = 1000;

/// Of how many items properties are asked at once: those may cost the DA server a call or two for each.
pub const DESCRIBED_PER_CALL: usize = 100;

pub type Hresult = i32;

/// 100 ns since 1601, as DA gives it: nominally UTC.
pub type Filetime = u64;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToWorker {
    pub id: u32,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    Reply { id: u32, reply: Reply },
    Event(Event),
}

/// Threads of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Groups, reads and writes.
    Data,
    Browse,
    /// Properties, so that what a level has can be told while it is still browsed.
    Describe,
    /// GetStatus alone, so that it says whether the server lives and not whether a read is slow.
    Status,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    Status,
    /// One level below `branch`: names from the root on, each as the server gave it. Answered by `Entries` in pieces, as they come.
    Browse {
        branch: Branch,
    },
    /// Properties of items: all there are, or `ids` only. Answered by `Properties`, in the order of `items`.
    Properties {
        items: Vec<String>,
        ids: Option<Vec<u32>>,
    },
    /// Values from the server's cache or from the device. Answered by `Values`, in the order of `items`.
    Read {
        items: Vec<String>,
        from: Origin,
    },
    /// Each value is brought to the item's canonical type by VariantChangeType. Answered by `Written`, in the order of `items`.
    Write {
        items: Vec<(String, DaValue)>,
    },
    /// Adds a group. Answered by `Group`.
    AddGroup {
        group: u32,
        settings: GroupSettings,
    },
    SetGroup {
        group: u32,
        settings: GroupSettings,
    },
    RemoveGroup {
        group: u32,
    },
    /// `handle` is the relay's own and comes back with each value. Answered by `Added`, in the order of `items`.
    AddItems {
        group: u32,
        items: Vec<NewItem>,
    },
    RemoveItems {
        group: u32,
        handles: Vec<u32>,
    },
    /// Sends the values of all active items once more, from the cache. Answered by `Done`.
    Refresh {
        group: u32,
    },
    /// As AddGroup, but it is not called back: its cache is polled. In the place of a group of the same number.
    PollGroup {
        group: u32,
        settings: GroupSettings,
    },
}

impl Request {
    pub fn lane(&self) -> Lane {
        match self {
            Self::Status => Lane::Status,
            Self::Browse { .. } => Lane::Browse,
            Self::Properties { .. } => Lane::Describe,
            _ => Lane::Data,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Branch {
    /// From the root on; empty is the root.
    pub names: Vec<String>,
    /// The branch's own ItemID, where the server gave one: what IOPCBrowse and OPC_BROWSE_TO want.
    pub item_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    Cache,
    Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSettings {
    /// Milliseconds; 0 is as fast as the server can.
    pub rate: u32,
    /// Percent of the range, of analog items.
    pub deadband: f32,
    pub active: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewItem {
    pub handle: u32,
    pub item_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The request as a whole failed.
    Failed(Failure),
    Done,
    Status(ServerStatus),
    /// Part of a level; the last part has `more` false.
    Entries {
        entries: Vec<Entry>,
        more: bool,
    },
    Properties(Vec<Result<Vec<Property>, Hresult>>),
    Values(Vec<Result<Reading, Hresult>>),
    /// Successes too: 0, or OPC_S_CLAMP.
    Written(Vec<Hresult>),
    Group {
        revised_rate: u32,
        result: Hresult,
    },
    Added(Vec<Result<AddedItem, Hresult>>),
}

/// `call` is the name of the method that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub call: String,
    pub hresult: Hresult,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The DA server is there.
    Started(Capabilities),
    /// It could not be created; the worker ends.
    NotStarted(Failure),
    /// From IOPCDataCallback. An item's own error takes its value's place.
    Data { group: u32, values: Vec<News> },
    /// From IOPCShutdown.
    Shutdown { reason: String },
    /// For the log.
    Said { text: String },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    pub clsid: String,
    pub prog_id: String,
    /// IOPCBrowse, of DA 3.
    pub browse3: bool,
    /// IOPCBrowseServerAddressSpace, of DA 2.
    pub browse2: bool,
    pub properties: bool,
    /// IOPCItemIO: reads and writes without a group.
    pub item_io: bool,
    /// A worker for 64 bits.
    pub wide: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    pub start: Filetime,
    pub current: Filetime,
    pub last_update: Filetime,
    /// OPCSERVERSTATE: 1 running, 2 failed, 3 noconfig, 4 suspended, 5 test, 6 comm fault.
    pub state: u32,
    pub groups: u32,
    pub bandwidth: u32,
    pub version: (u16, u16, u16),
    pub vendor: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    /// None if the server would not say (a branch of a DA 2 server), or GetItemID failed.
    pub item_id: Option<String>,
    pub is_branch: bool,
    /// The same name can be both.
    pub is_item: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Property {
    pub id: u32,
    pub description: String,
    pub data_type: u16,
    pub value: Result<DaValue, Hresult>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub value: DaValue,
    /// QQSSSSLL in the low byte, the vendor's bits in the high one.
    pub quality: u16,
    pub time: Filetime,
}

/// What an item of a group, by the number that it was given, reads.
pub type News = (u32, Result<Reading, Hresult>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedItem {
    /// VARTYPE.
    pub canonical_type: u16,
    /// 1 readable, 2 writable.
    pub access_rights: u32,
}

/// A VARIANT without COM's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum DaValue {
    #[default]
    Empty,
    Null,
    Bool(bool),
    I1(i8),
    U1(u8),
    I2(i16),
    U2(u16),
    I4(i32),
    U4(u32),
    I8(i64),
    U8(u64),
    R4(f32),
    R8(f64),
    /// Ten-thousandths.
    Cy(i64),
    /// Days since 1899-12-30, in no time zone.
    Date(f64),
    /// VT_BSTR; what is not UTF-16 is replaced.
    Text(String),
    /// VT_ERROR.
    Error(Hresult),
    Decimal(f64),
    /// In row-major order, the last dimension fastest; lower bounds are forgotten.
    Array {
        dimensions: Vec<u32>,
        elements: Elements,
    },
    /// A VARTYPE that has no place in OPC UA.
    Unsupported(u16),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Elements {
    Bool(Vec<bool>),
    I1(Vec<i8>),
    U1(Vec<u8>),
    I2(Vec<i16>),
    U2(Vec<u16>),
    I4(Vec<i32>),
    U4(Vec<u32>),
    I8(Vec<i64>),
    U8(Vec<u64>),
    R4(Vec<f32>),
    R8(Vec<f64>),
    Cy(Vec<i64>),
    Date(Vec<f64>),
    Text(Vec<String>),
    Error(Vec<Hresult>),
    #[serde(deserialize_with = "not_too_deep")]
    Variant(Vec<DaValue>),
}

impl DaValue {
    /// Bytes of memory beside its own, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Array { elements: Elements::Text(all), .. } => all.iter().map(|text| 24 + text.len()).sum(),
            Self::Array { elements: Elements::Variant(all), .. } => all.iter().map(|value| 64 + value.bytes()).sum(),
            Self::Array { elements, .. } => 8 * elements.len(),
            _ => 0,
        }
    }
}

impl Elements {
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(all) => all.len(),
            Self::I1(all) => all.len(),
            Self::U1(all) => all.len(),
            Self::I2(all) => all.len(),
            Self::U2(all) => all.len(),
            Self::I4(all) | Self::Error(all) => all.len(),
            Self::U4(all) => all.len(),
            Self::I8(all) | Self::Cy(all) => all.len(),
            Self::U8(all) => all.len(),
            Self::R4(all) => all.len(),
            Self::R8(all) | Self::Date(all) => all.len(),
            Self::Text(all) => all.len(),
            Self::Variant(all) => all.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One element as a value of its own; Empty beyond the end.
    pub fn get(&self, index: usize) -> DaValue {
        let value = match self {
            Self::Bool(all) => all.get(index).map(|&v| DaValue::Bool(v)),
            Self::I1(all) => all.get(index).map(|&v| DaValue::I1(v)),
            Self::U1(all) => all.get(index).map(|&v| DaValue::U1(v)),
            Self::I2(all) => all.get(index).map(|&v| DaValue::I2(v)),
            Self::U2(all) => all.get(index).map(|&v| DaValue::U2(v)),
            Self::I4(all) => all.get(index).map(|&v| DaValue::I4(v)),
            Self::U4(all) => all.get(index).map(|&v| DaValue::U4(v)),
            Self::I8(all) => all.get(index).map(|&v| DaValue::I8(v)),
            Self::U8(all) => all.get(index).map(|&v| DaValue::U8(v)),
            Self::R4(all) => all.get(index).map(|&v| DaValue::R4(v)),
            Self::R8(all) => all.get(index).map(|&v| DaValue::R8(v)),
            Self::Cy(all) => all.get(index).map(|&v| DaValue::Cy(v)),
            Self::Date(all) => all.get(index).map(|&v| DaValue::Date(v)),
            Self::Text(all) => all.get(index).map(|v| DaValue::Text(v.clone())),
            Self::Error(all) => all.get(index).map(|&v| DaValue::Error(v)),
            Self::Variant(all) => all.get(index).cloned(),
        };
        value.unwrap_or_default()
    }

    /// The VARTYPE of one element.
    pub fn vartype(&self) -> u16 {
        match self {
            Self::Bool(_) => 11,
            Self::I1(_) => 16,
            Self::U1(_) => 17,
            Self::I2(_) => 2,
            Self::U2(_) => 18,
            Self::I4(_) => 3,
            Self::U4(_) => 19,
            Self::I8(_) => 20,
            Self::U8(_) => 21,
            Self::R4(_) => 4,
            Self::R8(_) => 5,
            Self::Cy(_) => 6,
            Self::Date(_) => 7,
            Self::Text(_) => 8,
            Self::Error(_) => 10,
            Self::Variant(_) => 12,
        }
    }
}

/// How deep arrays of VARIANTs may lie in each other. More is nothing that a DA server means, and reading it would use up the stack.
const DEEPEST: u8 = 8;

fn not_too_deep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DaValue>, D::Error> {
    thread_local!(static DEPTH: Cell<u8> = const { Cell::new(0) });
    let depth = DEPTH.get();
    if depth == DEEPEST {
        return Err(serde::de::Error::custom("arrays in arrays, too deep"));
    }
    DEPTH.set(depth + 1);
    let values = Vec::deserialize(deserializer);
    DEPTH.set(depth);
    values
}

#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    #[error("a message of {0} bytes; the longest is {LONGEST_FRAME}")]
    TooLong(usize),
    #[error("not a message: {0}")]
    Malformed(#[from] postcard::Error),
}

/// A whole frame, with its length.
pub fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, ProtocolError> {
    let mut bytes = postcard::to_extend(message, vec![0; 4])?;
    let length = bytes.len() - 4;
    if length > LONGEST_FRAME {
        return Err(ProtocolError::TooLong(length));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// How long the frame is whose first four bytes these are.
pub fn length(head: [u8; 4]) -> Result<usize, ProtocolError> {
    let length = u32::from_le_bytes(head) as usize;
    if length > LONGEST_FRAME { Err(ProtocolError::TooLong(length)) } else { Ok(length) }
}

/// The message in a frame, without its length.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ProtocolError> {
    Ok(postcard::from_bytes(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_can_be_parsed() {
        let value =
            DaValue::Array { dimensions: vec![2, 1], elements: Elements::Text(vec!["a".into(), String::new()]) };
        let reading = Reading { value, quality: 0x01C0, time: u64::MAX };
        let event = FromWorker::Event(Event::Data { group: 3, values: vec![(7, Ok(reading)), (8, Err(-1))] });
        let bytes = frame(&event).unwrap();
        assert_eq!(length(bytes[..4].try_into().unwrap()).unwrap(), bytes.len() - 4);
        assert_eq!(parse::<FromWorker>(&bytes[4..]).unwrap(), event);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bytes = frame(&ToWorker { id: 1, request: Request::Refresh { group: 2 } }).unwrap();
        assert!(parse::<ToWorker>(&bytes[4..bytes.len() - 1]).is_err());
        assert!(parse::<ToWorker>(&[0xFF; 20]).is_err());
        assert!(length([0xFF; 4]).is_err());
    }

    #[test]
    fn arrays_that_lie_in_each_other_without_end_are_refused() {
        let nested = |depth: usize| {
            let around = |value| DaValue::Array { dimensions: vec![1], elements: Elements::Variant(vec![value]) };
            (0..depth).fold(DaValue::I4(5), |value, _| around(value))
        };
        let bytes = |value: &DaValue| frame(value).unwrap()[4..].to_vec();
        assert_eq!(parse::<DaValue>(&bytes(&nested(8))).unwrap(), nested(8));
        assert!(parse::<DaValue>(&bytes(&nested(9))).is_err());
        // As a worker that lies would send it: the same few bytes, a million times.
        let around = bytes(&DaValue::Array { dimensions: vec![1], elements: Elements::Variant(vec![DaValue::Empty]) });
        let endless = around[..around.len() - 1].repeat(1 << 20);
        assert!(parse::<DaValue>(&endless).is_err());
        assert_eq!(parse::<DaValue>(&bytes(&nested(8))).unwrap(), nested(8), "what was refused leaves nothing behind");
    }
}
