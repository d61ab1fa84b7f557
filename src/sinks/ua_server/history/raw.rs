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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};
    use crate::model::{DataType, Quality, Status};
    use ::opcua::types::{NumericRange, TimestampsToReturn};
    use std::time::{Duration, UNIX_EPOCH};

    const MINUTE: i64 = 600_000_000;

    /// The example of OPC 10000-11, 6.5.3.2: values at 5:00, 5:02, 5:03, 5:05 and 5:06.
    async fn example(folder: &std::path::Path) -> (Store, Tasks) {
        let config = crate::store::Config { commit_interval: Duration::from_millis(10), ..Default::default() };
        let store = Store::new(config, folder.into(), Clock::simulated(UNIX_EPOCH));
        let tasks = Tasks::new("store");
        let writer = store.clone();
        tasks.spawn_thread("store", move |stop| writer.run(stop));
        let name = TagName::new("a").unwrap();
        let samples = [0, 2, 3, 5, 6].map(|minute| {
            let time = Timestamp::from_ticks((300 + minute) * MINUTE);
            Sample::good(TagId(0), crate::model::Value::Int64(minute), time)
        });
        let bad = Sample { quality: Quality::from(Status::BAD_NOT_CONNECTED), ..samples[2].clone() };
        let later = Sample { server_time: Timestamp::from_ticks(0), ..samples[4].clone() };
        let samples = [&samples[3], &samples[0], &samples[1], &bad, &later];
        store.append(samples.into_iter().map(|sample| crate::store::Arrival::kept(&name, sample)));
        while store.state().samples < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (store, tasks)
    }

    /// Minutes after 5:00, negative for a bound that was not found; and whether there is more.
    fn asked(store: &Store, start: Option<i64>, end: Option<i64>, number: u32, bounds: bool) -> Vec<Vec<i64>> {
        let time = |minute: Option<i64>| {
            minute.map_or_else(::opcua::types::DateTime::null, |minute| {
                date_time(Timestamp::from_ticks((300 + minute) * MINUTE))
            })
        };
        let wish = Wish::new(&ReadRawModifiedDetails {
            is_read_modified: false,
            start_time: time(start),
            end_time: time(end),
            num_values_per_node: number,
            return_bounds: bounds,
        })
        .unwrap();
        let spec = TagSpec::new(TagName::new("a").unwrap(), DataType::Int64);
        let (mut pages, mut place) = (Vec::new(), None);
        loop {
            let job = Job {
                what: crate::sinks::ua_server::history::What::Camera(String::new()),
                place,
                range: NumericRange::None,
                timestamps: TimestampsToReturn::Both,
                values: 100,
                bytes: 1000,
            };
            let found = read(store, &spec, &wish, &job).unwrap();
            let minute = |value: &DataValue| {
                let ticks = crate::opcua::timestamp(&value.source_timestamp.unwrap()).ticks();
                let minute = ticks / MINUTE - 300;
                if value.status == Some(StatusCode::BadBoundNotFound) { -minute - 100 } else { minute }
            };
            pages.push(found.values.iter().map(minute).collect());
            place = found.next;
            if place.is_none() {
                return pages;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ranges_and_bounds_are_those_of_the_standard() {
        let folder = tempfile::tempdir().unwrap();
        let (store, tasks) = example(folder.path()).await;
        let all = |start, end, number, bounds| asked(&store, start, end, number, bounds).concat();
        for (start, end, with, without) in [
            (0, 5, vec![0, 2, 3, 5], vec![0, 2, 3]),
            (1, 4, vec![0, 2, 3, 5], vec![2, 3]),
            (5, 0, vec![5, 3, 2, 0], vec![5, 3, 2]),
            (4, 1, vec![5, 3, 2, 0], vec![3, 2]),
            (-1, 5, vec![-99, 0, 2, 3, 5], vec![0, 2, 3]),
            (1, 7, vec![0, 2, 3, 5, 6, -107], vec![2, 3, 5, 6]),
            (7, 8, vec![6, -108], vec![]),
            (2, 2, vec![2], vec![2]),
        ] {
            assert_eq!(all(Some(start), Some(end), 0, true), with, "from {start} to {end} with bounds");
            assert_eq!(all(Some(start), Some(end), 0, false), without, "from {start} to {end}");
            for number in 1..4 {
                let pages = asked(&store, Some(start), Some(end), number, true);
                assert_eq!(pages.concat(), with, "by {number} from {start} to {end}");
                assert!(pages.iter().all(|page| page.len() <= number as usize));
            }
        }
        assert_eq!(asked(&store, Some(2), None, 3, false), [[2, 3, 5]], "the number is all there is");
        assert_eq!(asked(&store, None, Some(5), 3, false), [[5, 3, 2]]);
        assert_eq!(asked(&store, None, Some(4), 2, true), [[5, 3]], "a bound counts");
        tasks.stop(Duration::from_secs(5)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bad_values_are_null_and_both_times_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (store, tasks) = example(folder.path()).await;
        let range = Timestamp::from_ticks(303 * MINUTE)..=Timestamp::from_ticks(306 * MINUTE);
        let found = store.scan(&TagName::new("a").unwrap(), range, Direction::Forward).unwrap().unwrap();
        let values: Vec<_> = found.map(|record| to_data_value(&record.unwrap())).collect();
        assert_eq!((&values[0].value, values[0].status), (&Some(Variant::Empty), Some(StatusCode::BadNotConnected)));
        assert_eq!(values[2].server_timestamp, Some(date_time(Timestamp::from_ticks(0))));
        assert_eq!(values[2].source_timestamp, Some(date_time(Timestamp::from_ticks(306 * MINUTE))));
        tasks.stop(Duration::from_secs(5)).await;
    }

    #[test]
    fn less_than_two_of_three_is_no_range() {
        let wish = |start, end, number| {
            Wish::new(&ReadRawModifiedDetails {
                is_read_modified: false,
                start_time: start,
                end_time: end,
                num_values_per_node: number,
                return_bounds: false,
            })
        };
        let (some, none) = (date_time(Timestamp::UNIX_EPOCH), ::opcua::types::DateTime::null());
        for (start, end, number) in [(none, none, 5), (some, none, 0), (none, some, 0), (none, none, 0)] {
            assert_eq!(wish(start, end, number), Err(StatusCode::BadHistoryOperationInvalid));
        }
        assert!(wish(some, some, 0).is_ok());
    }
}
