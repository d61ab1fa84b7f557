//! One sample as it is kept, and its form in the journal: a row.
//!
//!     flags      1: has a source time; 2: the server's time is another; 4: the status is not Good; 8: owed to the uplink;
//!                16: its number is not the one after that of the owed row before; 32: not for the history
//!     time       the source time, or without one the server's; difference to the row before, in ticks of 100 ns
//!     server     if flagged: difference to `time`
//!     number     if flagged 16: difference to the expected one
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

/// A sample in the store.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) record: Record,
    /// If it is owed to the uplink: its number among the owed ones of its generation, as they came.
    pub(super) owed: Option<u64>,
    /// Wanted also when it is owed no more: for the history.
    pub(super) is_kept: bool,
}

/// What the codec of rows knows of those before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    time: i64,
    /// The number that the next owed row has if none is missing.
    number: u64,
}

/// No generation has so many owed rows.
pub(super) const NUMBERS: u64 = 1 << 40;

const HAS_SOURCE: u8 = 1;
const OTHER_SERVER: u8 = 2;
const NOT_GOOD: u8 = 4;
const OWED: u8 = 8;
const JUMPS: u8 = 16;
const NOT_KEPT: u8 = 32;
const ALL: u8 = HAS_SOURCE | OTHER_SERVER | NOT_GOOD | OWED | JUMPS | NOT_KEPT;

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

pub(super) fn put_row(out: &mut Vec<u8>, before: &mut Before, row: &Row) {
    let Row { record, owed, is_kept } = row;
    let (time, server) = (record.time().ticks(), record.server_time.ticks());
    let jump = owed.map_or(0, |number| number.wrapping_sub(before.number) as i64);
    let flag = |is_so: bool, flag: u8| if is_so { flag } else { 0 };
    out.push(
        flag(record.source_time.is_some(), HAS_SOURCE)
            | flag(server != time, OTHER_SERVER)
            | flag(record.status != Status::GOOD, NOT_GOOD)
            | flag(owed.is_some(), OWED)
            | flag(jump != 0, JUMPS)
            | flag(!is_kept, NOT_KEPT),
    );
    put_signed(out, time.wrapping_sub(before.time));
    before.time = time;
    if server != time {
        put_signed(out, server.wrapping_sub(time));
    }
    if jump != 0 {
        put_signed(out, jump);
    }
    if let Some(number) = owed {
        before.number = number + 1;
    }
    if record.status != Status::GOOD {
        put_varint(out, record.status.0.into());
    }
    put_value(out, &record.value);
}

pub(super) fn row(reader: &mut Reader<'_>, before: &mut Before) -> Result<Row, Damaged> {
    let flags = reader.byte()?;
    if flags & !ALL != 0 {
        return Err(Damaged);
    }
    let time = before.time.wrapping_add(reader.signed()?);
    before.time = time;
    let server = if flags & OTHER_SERVER != 0 { time.wrapping_add(reader.signed()?) } else { time };
    let jump = if flags & JUMPS != 0 { reader.signed()? } else { 0 };
    let owed = (flags & OWED != 0).then(|| before.number.wrapping_add(jump as u64));
    if let Some(number) = owed {
        if number >= NUMBERS {
            return Err(Damaged);
        }
        before.number = number + 1;
    }
    let status = if flags & NOT_GOOD != 0 { Status(reader.number()?) } else { Status::GOOD };
    let record = Record {
        value: value(reader)?,
        status,
        source_time: (flags & HAS_SOURCE != 0).then(|| Timestamp::from_ticks(time)),
        server_time: Timestamp::from_ticks(server),
    };
    Ok(Row { record, owed, is_kept: flags & NOT_KEPT == 0 })
}
