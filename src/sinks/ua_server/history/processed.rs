//! ReadProcessedDetails: aggregates over intervals (OPC 10000-11, 6.5.4; OPC 10000-13, 5.4.2.2).
//!
//! The intervals begin at the start; the last one is cut at the end. If the end is before the start they go backward, and have
//! their later bound and not their earlier one. A response has as many intervals as it may have values; the rest comes
//! behind a continuation point.

use super::aggregates::{Before, Configuration, Function, Interval, aggregate};
use super::{Found, Job, Place, unreadable};
use crate::model::{DataType, TagSpec, Timestamp};
use crate::opcua::{date_time, status_code, variant};
use crate::store::{Direction, Record, Store};
use ::opcua::types::{AggregateConfiguration, DataValue, ReadProcessedDetails, StatusCode};
use std::ops::RangeInclusive;

/// How far it is looked back for a value that is not Bad.
const LOOK_BACK: usize = 100_000;

#[derive(Clone, Debug)]
pub(super) struct Wish {
    start: i64,
    end: i64,
    /// Ticks; that of the whole range if it was 0.
    interval: i64,
    configuration: AggregateConfiguration,
}

impl Wish {
    pub(super) fn new(details: &ReadProcessedDetails) -> Result<Self, StatusCode> {
        let (start, end) = (super::given(&details.start_time), super::given(&details.end_time));
        let (Some(start), Some(end)) = (start, end) else { return Err(StatusCode::BadHistoryOperationInvalid) };
        let ticks = details.processing_interval * 10_000.0;
        // Negative, no number, or less than there is.
        if start == end || !(ticks == 0.0 || ticks >= 1.0) {
            return Err(StatusCode::BadInvalidArgument);
        }
        let configuration = details.aggregate_configuration.clone();
        if !configuration.use_server_capabilities_defaults {
            let (bad, good) = (configuration.percent_data_bad, configuration.percent_data_good);
            // OPC 10000-13, 4.2.1.2.
            if bad > 100 || good > 100 || good < 100 - bad {
                return Err(StatusCode::BadAggregateConfigurationRejected);
            }
        }
        let whole = start.abs_diff(end).min(i64::MAX as u64) as i64;
        let interval = if ticks == 0.0 { whole } else { (ticks as i64).min(whole) };
        Ok(Self { start, end, interval, configuration })
    }

    fn configuration(&self, spec: &TagSpec) -> Configuration {
        let AggregateConfiguration {
            use_server_capabilities_defaults,
            treat_uncertain_as_bad,
            percent_data_bad,
            percent_data_good,
            use_sloped_extrapolation,
        } = self.configuration;
        let stepped = is_stepped(spec);
        if use_server_capabilities_defaults {
            return Configuration {
                treat_uncertain_as_bad: true,
                data_bad: 100,
                data_good: 100,
                sloped_extrapolation: false,
                stepped,
            };
        }
        Configuration {
            treat_uncertain_as_bad,
            data_bad: percent_data_bad,
            data_good: percent_data_good,
            sloped_extrapolation: use_sloped_extrapolation,
            stepped,
        }
    }

    /// The `index`-th interval, if there is one.
    fn interval(&self, index: usize) -> Option<Interval> {
        let offset = i128::from(self.interval) * index as i128;
        let end = i128::from(self.end);
        let narrow = |time: i128| i64::try_from(time).unwrap_or(i64::MAX);
        if self.start < self.end {
            let from = i128::from(self.start) + offset;
            let to = from + i128::from(self.interval);
            let (stamp, last) = (narrow(from), narrow(to.min(end)));
            (from < end).then_some(Interval { from: stamp, to: last, stamp, is_cut: to > end })
        } else {
            // The same mirrored: the later bound belongs to it.
            let from = i128::from(self.start) - offset;
            let to = from - i128::from(self.interval);
            let first = narrow(to.max(end) + 1);
            let stamp = narrow(from);
            (from > end).then_some(Interval { from: first, to: stamp.saturating_add(1), stamp, is_cut: to < end })
        }
    }
}

/// Numbers with fractions are measured and move from one to the next; anything else stays until it changes.
pub(super) fn is_stepped(spec: &TagSpec) -> bool {
    spec.is_array || !matches!(spec.data_type, DataType::Float | DataType::Double)
}

/// Of each node; `None` is one that is not supported.
///
/// The crate hands over those nodes of a request that exist and may be read, without saying which they were. So with
/// others among them it is not known which aggregate belongs to which, unless it is the same for all.
pub(super) fn functions(details: &ReadProcessedDetails, nodes: usize) -> Result<Vec<Option<Function>>, StatusCode> {
    let asked = details.aggregate_type.as_deref().unwrap_or_default();
    let same = asked.first().filter(|first| asked.iter().all(|other| other == *first));
    match same {
        _ if asked.len() == nodes => Ok(asked.iter().map(Function::from_id).collect()),
        Some(same) if asked.len() > nodes => Ok(vec![Function::from_id(same); nodes]),
        _ => Err(StatusCode::BadAggregateListMismatch),
    }
}

pub(super) fn read(
    store: &Store,
    spec: &TagSpec,
    function: Function,
    wish: &Wish,
    job: &Job,
) -> Result<Found, StatusCode> {
    if !function.takes(spec.data_type, spec.is_array) {
        return Err(StatusCode::BadAggregateInvalidInputs);
    }
    let first = match &job.place {
        None => 0,
        Some(Place::Processed(index)) => *index,
        Some(_) => return Err(StatusCode::BadContinuationPointInvalid),
    };
    let configuration = wish.configuration(spec);
    let mut intervals: Vec<Interval> = (first..).take(job.values).map_while(|index| wish.interval(index)).collect();
    let next = first + intervals.len();
    let is_backward = wish.start > wish.end;
    if is_backward {
        intervals.reverse();
    }
    let Some(begin) = intervals.first().map(|interval| interval.from) else {
        return Ok(Found { values: Vec::new(), next: None });
    };
    let before = before(store, spec, configuration, begin)?;
    let records = scan(store, spec, begin..=i64::MAX, Direction::Forward)?;
    let mut results = aggregate(function, configuration, &intervals, before, records).map_err(unreadable)?;
    if is_backward {
        results.reverse();
    }
    let value = |result: &super::aggregates::Aggregated| {
        let time = Some(date_time(result.time));
        job.finish(DataValue {
            value: Some(variant(&result.value)),
            status: Some(status_code(result.status)),
            source_timestamp: time,
            server_timestamp: time,
            ..DataValue::default()
        })
    };
    let values = results.iter().map(value).collect();
    Ok(Found { values, next: wish.interval(next).map(|_| Place::Processed(next)) })
}

fn before(store: &Store, spec: &TagSpec, configuration: Configuration, begin: i64) -> Result<Before, StatusCode> {
    let mut before = Before::default();
    let Some(last) = begin.checked_sub(1) else { return Ok(before) };
    for record in scan(store, spec, i64::MIN..=last, Direction::Backward)?.take(LOOK_BACK) {
        let record = record.map_err(unreadable)?;
        if before.any.is_none() {
            before.any = Some(record.clone());
        }
        if configuration.is_usable(record.status) {
            before.usable.push(record);
            if before.usable.len() == 2 {
                break;
            }
        }
    }
    Ok(before)
}

type Records = Box<dyn Iterator<Item = Result<Record, crate::store::StoreError>>>;

fn scan(
    store: &Store,
    spec: &TagSpec,
    range: RangeInclusive<i64>,
    direction: Direction,
) -> Result<Records, StatusCode> {
    let range = Timestamp::from_ticks(*range.start())..=Timestamp::from_ticks(*range.end());
    let scan = store.scan(&spec.name, range, direction).map_err(unreadable)?;
    Ok(Box::new(scan.into_iter().flatten()))
}
