//! One sample as it is kept, and its form in the journal: a row.
//!
//!     flags      1: has a source time; 2: the server's time is another; 4: the status is not Good
//!     time       the source time, or without one the server's; difference to the row before, in ticks of 100 ns
//!     server     if flagged: difference to `time`
//!     status     if flagged
//!     value      value.rs

use super::value::{put_value, value};
use super::wire::{Damaged, Reader, put_signed, put_varint};
use crate::model::{Sample, Status, Timestamp, Value};

/// A sample as it is kept: of which tag says whoever holds it, and the reason in words is not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// [`Value::Empty`] if the status is bad.
    pub value: Value,
    pub status: Status,
    pub source_time: Option<Timestamp>,
    pub server_time: Timestamp,
}

const HAS_SOURCE: u8 = 1;
const OTHER_SERVER: u8 = 2;
const NOT_GOOD: u8 = 4;

impl Record {
    /// Orders the history: when the value was so, as far as anybody said.
    pub fn time(&self) -> Timestamp {
        self.source_time.unwrap_or(self.server_time)
    }
}

impl From<&Sample> for Record {
    fn from(sample: &Sample) -> Self {
        Self {
            value: if sample.quality.is_bad() { Value::Empty } else { sample.value.clone() },
            status: sample.quality.status,
            source_time: sample.source_time,
            server_time: sample.server_time,
        }
    }
}

/// `before` is the time of the row before, and becomes this one's.
pub(super) fn put_row(out: &mut Vec<u8>, before: &mut i64, record: &Record) {
    let (time, server) = (record.time().ticks(), record.server_time.ticks());
    let mut flags = if record.source_time.is_some() { HAS_SOURCE } else { 0 };
    flags |= if server == time { 0 } else { OTHER_SERVER };
    flags |= if record.status == Status::GOOD { 0 } else { NOT_GOOD };
    out.push(flags);
    put_signed(out, time.wrapping_sub(*before));
    *before = time;
    if server != time {
        put_signed(out, server.wrapping_sub(time));
    }
    if record.status != Status::GOOD {
        put_varint(out, record.status.0.into());
    }
    put_value(out, &record.value);
}

pub(super) fn row(reader: &mut Reader<'_>, before: &mut i64) -> Result<Record, Damaged> {
    let flags = reader.byte()?;
    let time = before.wrapping_add(reader.signed()?);
    *before = time;
    let server = if flags & OTHER_SERVER != 0 { time.wrapping_add(reader.signed()?) } else { time };
    let status = if flags & NOT_GOOD != 0 { Status(reader.number()?) } else { Status::GOOD };
    Ok(Record {
        value: value(reader)?,
        status,
        source_time: (flags & HAS_SOURCE != 0).then(|| Timestamp::from_ticks(time)),
        server_time: Timestamp::from_ticks(server),
    })
}
