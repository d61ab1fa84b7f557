//! Samples of one tag in few bytes: a column of times and a body.
//!
//! The times are apart because tags that are sampled together have the same ones, which are then kept once.
//!
//!     times     count, unit (index into UNITS), first time, then what each difference differs from the one before
//!     body      flags (1: all have a source time; 2: the server's time is always the same as that; 4: some are owed)
//!               lengths of runs with and without a source time, in turn      unless all have one
//!               server's time minus time, as a difference to the one before  unless always the same
//!               lengths of runs that are owed and not, in turn; then     if some are owed
//!                 their numbers: what each difference differs from the one before, and after each 0 how many more follow
//!               runs of one status: length, status
//!               runs of one type: length, type (value.rs), values
//!
//! Values of a run: Boolean as lengths of runs of equal ones after the first value; integers as differences; texts with
//! 0 for "as before"; Float and Double in the shortest of three ways, because most measurements are decimal numbers with
//! few digits, which in binary look like noise:
//!
//!     0 to 9    value x 10^n is an integer: differences of those
//!     0xF0      the bits that differ from the value before: a byte (zero bytes in front x 16 + behind), the bytes between
//!     0xFF      as they are

use super::record::{NUMBERS, Record, Row};
use super::value::{body, put_body, put_text, tag_of, text};
use super::wire::{Damaged, Reader, put_signed, put_varint};
use crate::model::{DataType, Status, Timestamp, Value};
use std::sync::Arc;

/// Records in a block at most: what a reader has in memory of each tag. Few enough that even noise fits into one page of
/// redb, which gives larger values a power of two of pages.
pub(super) const MOST: usize = 256;

/// Second, millisecond, microsecond, tick.
const UNITS: [i64; 4] = [10_000_000, 10_000, 10, 1];

const ALL_SOURCE: u8 = 1;
const SAME_SERVER: u8 = 2;
const SOME_OWED: u8 = 4;

const XOR: u8 = 0xF0;
const RAW: u8 = 0xFF;

pub(super) fn times(rows: &[Row]) -> Vec<u8> {
    let ticks = || rows.iter().map(|row| row.record.time().ticks());
    let differences = || ticks().zip(ticks().skip(1)).map(|(before, after)| after.wrapping_sub(before));
    let fits = |unit: i64| differences().all(|difference| difference % unit == 0);
    let index = UNITS.iter().position(|&unit| fits(unit)).expect("1 divides everything");
    let mut out = Vec::new();
    put_varint(&mut out, rows.len() as u64);
    out.push(index as u8);
    put_signed(&mut out, ticks().next().unwrap_or(0));
    let mut last = 0;
    for difference in differences().map(|difference| difference / UNITS[index]) {
        put_signed(&mut out, difference.wrapping_sub(last));
        last = difference;
    }
    out
}

fn read_times(bytes: &[u8]) -> Result<Vec<i64>, Damaged> {
    let mut reader = Reader::new(bytes);
    let count: usize = reader.number()?;
    let unit = *UNITS.get(usize::from(reader.byte()?)).ok_or(Damaged)?;
    if count > MOST {
        return Err(Damaged);
    }
    let (mut time, mut difference) = (reader.signed()?, 0i64);
    let mut times = Vec::with_capacity(count);
    for index in 0..count {
        if index > 0 {
            difference = difference.wrapping_add(reader.signed()?);
            time = time.wrapping_add(difference.wrapping_mul(unit));
        }
        times.push(time);
    }
    Ok(times)
}

pub(super) fn encode(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    let all_source = rows.iter().all(|row| row.record.source_time.is_some());
    let same_server = rows.iter().all(|row| row.record.server_time == row.record.time());
    let some_owed = rows.iter().any(|row| row.owed.is_some());
    let flag = |is_so: bool, flag: u8| if is_so { flag } else { 0 };
    out.push(flag(all_source, ALL_SOURCE) | flag(same_server, SAME_SERVER) | flag(some_owed, SOME_OWED));
    if !all_source {
        put_turns(&mut out, true, rows.iter().map(|row| row.record.source_time.is_some()));
    }
    if !same_server {
        let mut last = 0;
        for Row { record, .. } in rows {
            let late = record.server_time.ticks().wrapping_sub(record.time().ticks());
            put_signed(&mut out, late.wrapping_sub(last));
            last = late;
        }
    }
    if some_owed {
        put_turns(&mut out, true, rows.iter().map(|row| row.owed.is_some()));
        put_numbers(&mut out, &rows.iter().filter_map(|row| row.owed).collect::<Vec<_>>());
    }
    for run in rows.chunk_by(|a, b| a.record.status == b.record.status) {
        put_varint(&mut out, run.len() as u64);
        put_varint(&mut out, run[0].record.status.0.into());
    }
    for run in rows.chunk_by(|a, b| tag_of(&a.record.value) == tag_of(&b.record.value)) {
        put_varint(&mut out, run.len() as u64);
        out.push(tag_of(&run[0].record.value));
        put_values(&mut out, run);
    }
    out
}

/// Of what is in a block it is not known any more whether the history wants it; whoever reads that says of which tags.
pub(super) fn decode(times: &[u8], body: &[u8]) -> Result<Vec<Row>, Damaged> {
    let times = read_times(times)?;
    let count = times.len();
    let mut reader = Reader::new(body);
    let flags = reader.byte()?;
    let sources = if flags & ALL_SOURCE != 0 { vec![true; count] } else { turns(&mut reader, true, count)? };
    let mut late = vec![0i64; count];
    if flags & SAME_SERVER == 0 {
        let mut last = 0i64;
        for late in &mut late {
            last = last.wrapping_add(reader.signed()?);
            *late = last;
        }
    }
    let mut owed = vec![None; count];
    if flags & SOME_OWED != 0 {
        let is_owed = turns(&mut reader, true, count)?;
        let numbers = numbers(&mut reader, is_owed.iter().filter(|is_owed| **is_owed).count())?;
        let places = owed.iter_mut().zip(is_owed).filter(|(_, is_owed)| *is_owed);
        places.zip(numbers).for_each(|((place, _), number)| *place = Some(number));
    }
    let mut statuses = Vec::with_capacity(count);
    while statuses.len() < count {
        let length = run_length(&mut reader, count - statuses.len())?;
        let status = Status(reader.number()?);
        statuses.resize(statuses.len() + length, status);
    }
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let length = run_length(&mut reader, count - values.len())?;
        let tag = reader.byte()?;
        read_values(&mut reader, tag, length, &mut values)?;
    }
    let row = |(index, value): (usize, Value)| {
        let record = Record {
            value,
            status: statuses[index],
            source_time: sources[index].then(|| Timestamp::from_ticks(times[index])),
            server_time: Timestamp::from_ticks(times[index].wrapping_add(late[index])),
        };
        Row { record, owed: owed[index], is_kept: true }
    };
    Ok(values.into_iter().enumerate().map(row).collect())
}

/// Tags that are sampled in turn have equal differences, which then take next to nothing.
fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    let (mut before, mut last, mut same) = (0u64, 0u64, 0u64);
    for &number in numbers {
        let difference = number.wrapping_sub(before);
        let change = difference.wrapping_sub(last) as i64;
        (before, last) = (number, difference);
        match (change, same) {
            (0, 0) => {
                put_signed(out, 0);
                same = 1;
            }
            (0, _) => same += 1,
            (_, 0) => put_signed(out, change),
            (_, _) => {
                put_varint(out, same - 1);
                put_signed(out, change);
                same = 0;
            }
        }
    }
    if same > 0 {
        put_varint(out, same - 1);
    }
}

fn numbers(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u64>, Damaged> {
    let (mut number, mut difference, mut numbers) = (0u64, 0u64, Vec::with_capacity(count));
    while numbers.len() < count {
        let change = reader.signed()?;
        difference = difference.wrapping_add(change as u64);
        let same: usize = if change == 0 { reader.number()? } else { 0 };
        if same >= count - numbers.len() {
            return Err(Damaged);
        }
        for _ in 0..=same {
            number = number.wrapping_add(difference);
            if number >= NUMBERS {
                return Err(Damaged);
            }
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Of a run that is not empty and has at most so many.
fn run_length(reader: &mut Reader<'_>, most: usize) -> Result<usize, Damaged> {
    let length = reader.number()?;
    if (1..=most).contains(&length) { Ok(length) } else { Err(Damaged) }
}

/// The lengths of the runs of `first`, of its opposite, of `first` again, and so on.
fn put_turns(out: &mut Vec<u8>, first: bool, values: impl Iterator<Item = bool>) {
    let (mut current, mut length) = (first, 0);
    for value in values {
        if value != current {
            put_varint(out, length);
            (current, length) = (value, 0);
        }
        length += 1;
    }
    put_varint(out, length);
}

fn turns(reader: &mut Reader<'_>, first: bool, count: usize) -> Result<Vec<bool>, Damaged> {
    let (mut current, mut values) = (first, Vec::with_capacity(count));
    while values.len() < count {
        let length: usize = reader.number()?;
        // Only the first run can be empty; more of them would make this long.
        if length > count - values.len() || (length == 0 && (!values.is_empty() || current != first)) {
            return Err(Damaged);
        }
        values.resize(values.len() + length, current);
        current = !current;
    }
    Ok(values)
}

/// All of one type.
fn put_values(out: &mut Vec<u8>, run: &[Row]) {
    let integer = |value: &Value| match *value {
        Value::SByte(v) => v.into(),
        Value::Byte(v) => v.into(),
        Value::Int16(v) => v.into(),
        Value::UInt16(v) => v.into(),
        Value::Int32(v) => v.into(),
        Value::UInt32(v) => v.into(),
        Value::Int64(v) => v,
        Value::UInt64(v) => v as i64,
        Value::DateTime(v) => v.ticks(),
        _ => unreachable!("only asked for integers"),
    };
    match &run[0].record.value {
        Value::Boolean(first) => {
            out.push((*first).into());
            put_turns(out, *first, run.iter().map(|row| row.record.value == Value::Boolean(true)));
        }
        Value::SByte(_)
        | Value::Byte(_)
        | Value::Int16(_)
        | Value::UInt16(_)
        | Value::Int32(_)
        | Value::UInt32(_)
        | Value::Int64(_)
        | Value::UInt64(_)
        | Value::DateTime(_) => put_differences(out, run.iter().map(|row| integer(&row.record.value))),
        Value::Float(_) => {
            let bits = |row: &Row| match row.record.value {
                Value::Float(v) => v.to_bits(),
                _ => unreachable!("all are of one type"),
            };
            put_floats::<F32>(out, &run.iter().map(bits).collect::<Vec<_>>());
        }
        Value::Double(_) => {
            let bits = |row: &Row| match row.record.value {
                Value::Double(v) => v.to_bits(),
                _ => unreachable!("all are of one type"),
            };
            put_floats::<F64>(out, &run.iter().map(bits).collect::<Vec<_>>());
        }
        Value::String(_) => {
            let mut last: Option<&Option<Arc<str>>> = None;
            for row in run {
                let Value::String(text) = &row.record.value else { unreachable!("all are of one type") };
                if last == Some(text) {
                    out.push(0);
                } else {
                    out.push(1);
                    put_text(out, text);
                    last = Some(text);
                }
            }
        }
        _ => run.iter().for_each(|row| put_body(out, &row.record.value)),
    }
}

fn read_values(reader: &mut Reader<'_>, tag: u8, length: usize, values: &mut Vec<Value>) -> Result<(), Damaged> {
    macro_rules! integers {
        ($variant:ident, $type:ty) => {{
            let mut last = 0i64;
            for _ in 0..length {
                last = last.wrapping_add(reader.signed()?);
                values.push(Value::$variant(<$type>::try_from(last).map_err(|_| Damaged)?));
            }
        }};
    }
    match DataType::from_id(tag.into()) {
        Some(DataType::Boolean) => {
            let first = reader.byte()? != 0;
            values.extend(turns(reader, first, length)?.into_iter().map(Value::Boolean));
        }
        Some(DataType::SByte) => integers!(SByte, i8),
        Some(DataType::Byte) => integers!(Byte, u8),
        Some(DataType::Int16) => integers!(Int16, i16),
        Some(DataType::UInt16) => integers!(UInt16, u16),
        Some(DataType::Int32) => integers!(Int32, i32),
        Some(DataType::UInt32) => integers!(UInt32, u32),
        Some(DataType::Int64) => integers!(Int64, i64),
        Some(DataType::UInt64) => {
            let mut last = 0i64;
            for _ in 0..length {
                last = last.wrapping_add(reader.signed()?);
                values.push(Value::UInt64(last as u64));
            }
        }
        Some(DataType::DateTime) => {
            let mut last = 0i64;
            for _ in 0..length {
                last = last.wrapping_add(reader.signed()?);
                values.push(Value::DateTime(Timestamp::from_ticks(last)));
            }
        }
        Some(DataType::Float) => {
            let bits = floats::<F32>(reader, length)?;
            values.extend(bits.into_iter().map(|bits| Value::Float(f32::from_bits(bits))));
        }
        Some(DataType::Double) => {
            let bits = floats::<F64>(reader, length)?;
            values.extend(bits.into_iter().map(|bits| Value::Double(f64::from_bits(bits))));
        }
        Some(DataType::String) => {
            let mut last: Option<Arc<str>> = None;
            for index in 0..length {
                match reader.byte()? {
                    0 if index > 0 => {}
                    1 => last = text(reader)?,
                    _ => return Err(Damaged),
                }
                values.push(Value::String(last.clone()));
            }
        }
        _ => {
            for _ in 0..length {
                values.push(body(reader, tag, 100)?);
            }
        }
    }
    Ok(())
}

fn put_differences(out: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
    let mut last = 0;
    for value in values {
        put_signed(out, value.wrapping_sub(last));
        last = value;
    }
}

/// Float and Double, by their bits.
trait Float {
    type Bits: Copy + Eq;
    const BYTES: usize;
    fn wide(bits: Self::Bits) -> f64;
    fn narrow(value: f64) -> Self::Bits;
    fn to_u64(bits: Self::Bits) -> u64;
    fn from_u64(bits: u64) -> Self::Bits;
}

struct F32;
struct F64;

impl Float for F32 {
    type Bits = u32;
    const BYTES: usize = 4;
    fn wide(bits: u32) -> f64 {
        f32::from_bits(bits).into()
    }
    fn narrow(value: f64) -> u32 {
        (value as f32).to_bits()
    }
    fn to_u64(bits: u32) -> u64 {
        bits.into()
    }
    fn from_u64(bits: u64) -> u32 {
        bits as u32
    }
}

impl Float for F64 {
    type Bits = u64;
    const BYTES: usize = 8;
    fn wide(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    fn narrow(value: f64) -> u64 {
        value.to_bits()
    }
    fn to_u64(bits: u64) -> u64 {
        bits
    }
    fn from_u64(bits: u64) -> u64 {
        bits
    }
}

const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Integers up to here are exact in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The integers that these are when multiplied by a power of ten, if that gives back exactly these.
fn decimals<F: Float>(bits: &[F::Bits], power: f64) -> Option<Vec<i64>> {
    let integer = |&bits: &F::Bits| {
        let scaled = (F::wide(bits) * power).round();
        (scaled.abs() <= EXACT && F::narrow(scaled as i64 as f64 / power) == bits).then_some(scaled as i64)
    };
    bits.iter().map(integer).collect()
}

fn put_floats<F: Float>(out: &mut Vec<u8>, bits: &[F::Bits]) {
    let bytes = |bits: F::Bits| F::to_u64(bits).to_le_bytes();
    let mut best = vec![RAW];
    bits.iter().for_each(|&bits| best.extend(&bytes(bits)[..F::BYTES]));

    let mut xor = vec![XOR];
    let mut last = 0;
    for bits in bits.iter().map(|&bits| F::to_u64(bits)) {
        let differing = (bits ^ last).to_le_bytes();
        last = bits;
        let differing = &differing[..F::BYTES];
        let behind = differing.iter().take_while(|byte| **byte == 0).count();
        let in_front =
            if behind == F::BYTES { 0 } else { differing.iter().rev().take_while(|byte| **byte == 0).count() };
        xor.push((in_front << 4 | behind) as u8);
        xor.extend(&differing[behind..F::BYTES - in_front]);
    }
    if xor.len() < best.len() {
        best = xor;
    }
    // The smallest power that fits gives the smallest numbers.
    let scaled = POWERS.iter().enumerate().find_map(|(n, &power)| Some((n, decimals::<F>(bits, power)?)));
    if let Some((n, integers)) = scaled {
        let mut decimal = vec![n as u8];
        put_differences(&mut decimal, integers.into_iter());
        if decimal.len() < best.len() {
            best = decimal;
        }
    }
    out.extend(best);
}

fn floats<F: Float>(reader: &mut Reader<'_>, length: usize) -> Result<Vec<F::Bits>, Damaged> {
    let mut values = Vec::with_capacity(length);
    match reader.byte()? {
        RAW => {
            for _ in 0..length {
                values.push(F::from_u64(little_endian(reader.take(F::BYTES)?, 0)));
            }
        }
        XOR => {
            let mut last = 0;
            for _ in 0..length {
                let zeros = reader.byte()?;
                let (in_front, behind) = (usize::from(zeros >> 4), usize::from(zeros & 0xF));
                let between = F::BYTES.checked_sub(in_front + behind).ok_or(Damaged)?;
                last ^= little_endian(reader.take(between)?, behind);
                values.push(F::from_u64(last));
            }
        }
        n => {
            let power = *POWERS.get(usize::from(n)).ok_or(Damaged)?;
            let mut last = 0i64;
            for _ in 0..length {
                last = last.wrapping_add(reader.signed()?);
                values.push(F::narrow(last as f64 / power));
            }
        }
    }
    Ok(values)
}

/// Eight bytes at most, with zeros behind.
fn little_endian(bytes: &[u8], behind: usize) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)).checked_shl(8 * behind as u32).unwrap_or(0)
}
