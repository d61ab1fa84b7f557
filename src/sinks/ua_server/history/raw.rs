//! ReadRawModifiedDetails: samples as they were, of a range of time (OPC 10000-11, 6.5.3).
//!
//! Two of start, end and number must be given. The range has its beginning and not its end, whichever way it goes: from
//! start to end if both are given, forward if only the start is, backward from the end if only that is. With both, more
//! values than asked for leave a continuation point; with one, the number is all there is.
//!
//! Bounds are the samples at start and end or, if there is none exactly there, the nearest outside; where there is none at all
//! stands BadBoundNotFound. An end that was not given has no bound.

use super::{Found, Job, Place as AnyPlace, unreadable};
use crate::model::{Sample, TagId, TagName, TagSpec, Timestamp};
use crate::opcua::{data_value, date_time};
use crate::store::{Direction, Record, Scan, Store};
use ::opcua::types::{DataValue, ReadRawModifiedDetails, StatusCode, Variant};

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wish {
    pub(super) direction: Direction,
    /// Where reading begins.
    pub(super) from: i64,
    /// Where it ends, if that was given.
    pub(super) to: Option<i64>,
    /// 0: all.
    pub(super) most: usize,
    pub(super) bounds: bool,
}

/// Behind a sample: its time, and how many of that time have been given.
#[derive(Clone, Debug)]
pub(super) struct Place {
    time: i64,
    given: usize,
}

impl Wish {
    pub(super) fn new(details: &ReadRawModifiedDetails) -> Result<Self, StatusCode> {
        let (start, end) = (super::given(&details.start_time), super::given(&details.end_time));
        let most = details.num_values_per_node as usize;
        let (direction, from, to) = match (start, end) {
            (Some(start), Some(end)) if start <= end => (Direction::Forward, start, Some(end)),
            (Some(start), Some(end)) => (Direction::Backward, start, Some(end)),
            (Some(start), None) if most > 0 => (Direction::Forward, start, None),
            (None, Some(end)) if most > 0 => (Direction::Backward, end, None),
            _ => return Err(StatusCode::BadHistoryOperationInvalid),
        };
        Ok(Self { direction, from, to, most, bounds: details.return_bounds })
    }

    /// The range without its end, from `from` on. Of one that begins where it ends it is that one moment.
    fn range(&self, from: i64) -> std::ops::RangeInclusive<Timestamp> {
        let (first, last) = match (self.direction, self.to) {
            (Direction::Forward, None) => (from, i64::MAX),
            (Direction::Backward, None) => (i64::MIN, from),
            (_, Some(to)) if to == self.from => (from, to),
            (Direction::Forward, Some(to)) => (from, to.saturating_sub(1)),
            (Direction::Backward, Some(to)) => (to.saturating_add(1), from),
        };
        Timestamp::from_ticks(first)..=Timestamp::from_ticks(last)
    }
}

pub(super) fn read(store: &Store, spec: &TagSpec, wish: &Wish, job: &Job) -> Result<Found, StatusCode> {
    let place = match &job.place {
        None => None,
        Some(AnyPlace::Raw(place)) => Some(place.clone()),
        Some(_) => return Err(StatusCode::BadContinuationPointInvalid),
    };
    let mut page = Page { wish, job, values: Vec::new(), bytes: 0, place: place.clone() };
    let begin = if place.is_none() && wish.bounds {
        bound(store, &spec.name, wish.from, opposite(wish.direction))?
    } else {
        Bound::Unwanted
    };
    match begin {
        // One that is exactly there is in the range anyway.
        Bound::Inside | Bound::Unwanted => {}
        Bound::Outside(record) => page.push_bound(&record),
        Bound::None => page.push_none(wish.from),
    }
    let from = place.as_ref().map_or(wish.from, |place| place.time);
    let mut skip = place.map_or(0, |place| place.given);
    let range = wish.range(from);
    if !range.is_empty() {
        for record in scan(store, &spec.name, range, wish.direction)?.into_iter().flatten() {
            let record = record.map_err(unreadable)?;
            if skip > 0 && record.time().ticks() == from {
                skip -= 1;
                continue;
            }
            if page.is_full() {
                return Ok(page.unfinished());
            }
            page.push(&record);
        }
    }
    if let (true, Some(to)) = (wish.bounds, wish.to) {
        if to == wish.from {
            return Ok(page.finished());
        }
        if page.is_full() {
            return Ok(page.unfinished());
        }
        match bound_or_exact(store, &spec.name, to, wish.direction)? {
            Some(record) => page.push_bound(&record),
            None => page.push_none(to),
        }
    }
    Ok(page.finished())
}

fn scan(
    store: &Store,
    tag: &TagName,
    range: std::ops::RangeInclusive<Timestamp>,
    direction: Direction,
) -> Result<Option<Scan>, StatusCode> {
    store.scan(tag, range, direction).map_err(unreadable)
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Forward => Direction::Backward,
        Direction::Backward => Direction::Forward,
    }
}

enum Bound {
    Unwanted,
    Inside,
    Outside(Record),
    None,
}

/// The bound of the beginning.
fn bound(store: &Store, tag: &TagName, time: i64, outward: Direction) -> Result<Bound, StatusCode> {
    Ok(match bound_or_exact(store, tag, time, outward)? {
        Some(record) if record.time().ticks() == time => Bound::Inside,
        Some(record) => Bound::Outside(record),
        None => Bound::None,
    })
}

/// The sample at a time, or the nearest in that direction.
fn bound_or_exact(store: &Store, tag: &TagName, time: i64, outward: Direction) -> Result<Option<Record>, StatusCode> {
    let range = match outward {
        Direction::Forward => Timestamp::from_ticks(time)..=Timestamp::from_ticks(i64::MAX),
        Direction::Backward => Timestamp::from_ticks(i64::MIN)..=Timestamp::from_ticks(time),
    };
    let first = scan(store, tag, range, outward)?.and_then(|mut scan| scan.next());
    first.transpose().map_err(unreadable)
}

/// What goes into this response.
struct Page<'a> {
    wish: &'a Wish,
    job: &'a Job,
    values: Vec<DataValue>,
    bytes: usize,
    place: Option<Place>,
}

impl Page<'_> {
    fn is_full(&self) -> bool {
        let most = if self.wish.most == 0 { self.job.values } else { self.wish.most.min(self.job.values) };
        self.values.len() >= most || (self.bytes >= self.job.bytes && !self.values.is_empty())
    }

    fn push(&mut self, record: &Record) {
        let time = record.time().ticks();
        match &mut self.place {
            Some(place) if place.time == time => place.given += 1,
            place => *place = Some(Place { time, given: 1 }),
        }
        self.push_bound(record);
    }

    fn push_bound(&mut self, record: &Record) {
        let value = self.job.finish(to_data_value(record));
        self.bytes += 32 + size(value.value.as_ref());
        self.values.push(value);
    }

    fn push_none(&mut self, time: i64) {
        let time = Some(date_time(Timestamp::from_ticks(time)));
        let value = DataValue {
            value: Some(Variant::Empty),
            status: Some(StatusCode::BadBoundNotFound),
            source_timestamp: time,
            server_timestamp: time,
            ..DataValue::default()
        };
        self.values.push(self.job.finish(value));
    }

    /// There is more, for which a client comes again, unless it was the number alone that limited it.
    fn unfinished(self) -> Found {
        let is_enough = self.wish.to.is_none() && self.values.len() >= self.wish.most;
        let place = self.place.unwrap_or(Place { time: self.wish.from, given: 0 });
        Found { values: self.values, next: (!is_enough).then_some(AnyPlace::Raw(place)) }
    }

    fn finished(self) -> Found {
        Found { values: self.values, next: None }
    }
}

pub(super) fn to_data_value(record: &Record) -> DataValue {
    data_value(&Sample {
        tag: TagId(0),
        value: record.value.clone(),
        quality: record.status.into(),
        source_time: Some(record.time()),
        server_time: record.server_time,
    })
}

/// Bytes, about.
fn size(value: Option<&Variant>) -> usize {
    match value {
        Some(Variant::String(text)) => text.as_ref().len(),
        Some(Variant::ByteString(bytes)) => bytes.value.as_ref().map_or(0, Vec::len),
        Some(Variant::Array(array)) => array.values.iter().map(|value| 8 + size(Some(value))).sum(),
        Some(Variant::ExtensionObject(_) | Variant::LocalizedText(_) | Variant::DataValue(_)) => 256,
        _ => 8,
    }
}
