//! Aggregates of OPC 10000-13: from the samples of a tag in intervals to one value for each. Pure: no store, no clock.
//!
//! The intervals come in the order of time and so do the samples, once; whatever the span, only the samples around the
//! place of reading are in memory.
//!
//! Which samples count: Good ones; an Uncertain one is Bad or not by TreatUncertainAsBad, but never a value of Average,
//! Minimum, Maximum and Count (OPC 10000-13, Annex A, Historian 1). Bounds of durations are simple ones (3.1.9: the samples just before
//! and after, also if they are Bad), those of Interpolative interpolated ones (3.1.8: the next that are not Bad).

use crate::model::{DataType, Status, Timestamp, Value};
use crate::store::Record;
use ::opcua::types::{NodeId, ObjectId};

/// A sample in an interval, or the last before it.
#[derive(Clone, Debug)]
struct Point {
    time: i64,
    value: Value,
    status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Interpolative,
    Average,
    Minimum,
    Maximum,
    MinimumActualTime,
    MaximumActualTime,
    Range,
    Count,
    Start,
    End,
    DurationGood,
    DurationBad,
    PercentGood,
    PercentBad,
}

impl Function {
    pub(super) const ALL: [(Function, ObjectId); 14] = [
        (Function::Interpolative, ObjectId::AggregateFunction_Interpolative),
        (Function::Average, ObjectId::AggregateFunction_Average),
        (Function::Minimum, ObjectId::AggregateFunction_Minimum),
        (Function::Maximum, ObjectId::AggregateFunction_Maximum),
        (Function::MinimumActualTime, ObjectId::AggregateFunction_MinimumActualTime),
        (Function::MaximumActualTime, ObjectId::AggregateFunction_MaximumActualTime),
        (Function::Range, ObjectId::AggregateFunction_Range),
        (Function::Count, ObjectId::AggregateFunction_Count),
        (Function::Start, ObjectId::AggregateFunction_Start),
        (Function::End, ObjectId::AggregateFunction_End),
        (Function::DurationGood, ObjectId::AggregateFunction_DurationGood),
        (Function::DurationBad, ObjectId::AggregateFunction_DurationBad),
        (Function::PercentGood, ObjectId::AggregateFunction_PercentGood),
        (Function::PercentBad, ObjectId::AggregateFunction_PercentBad),
    ];

    pub(super) fn from_id(id: &NodeId) -> Option<Self> {
        Self::ALL.iter().find(|(_, object)| *id == *object).map(|(function, _)| *function)
    }

    /// Whether it can be computed of values of this type at all.
    pub(super) fn takes(self, data_type: DataType, is_array: bool) -> bool {
        use Function as F;
        let needs_numbers = matches!(
            self,
            F::Average | F::Minimum | F::Maximum | F::MinimumActualTime | F::MaximumActualTime | F::Range
        );
        // Boolean, the integers, Float, Double.
        !needs_numbers || (!is_array && (1..=11).contains(&(data_type as u8)))
    }
}

/// OPC 10000-13, 4.2.1.2, and Stepped of OPC 10000-11, 5.2.3.
#[derive(Clone, Copy, Debug)]
pub(super) struct Configuration {
    pub(super) treat_uncertain_as_bad: bool,
    /// Percent.
    pub(super) data_bad: u8,
    pub(super) data_good: u8,
    pub(super) sloped_extrapolation: bool,
    /// A value holds until the next, rather than moving there in a straight line.
    pub(super) stepped: bool,
}

/// From the first tick on, up to the last but not with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) from: i64,
    pub(super) to: i64,
    /// The timestamp of its value.
    pub(super) stamp: i64,
    /// Shorter than the others.
    pub(super) is_cut: bool,
}

/// What was before the first interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    /// The last sample of all.
    pub(super) any: Option<Record>,
    /// The last ones that are not Bad, the newest first.
    pub(super) usable: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Aggregated {
    pub(super) time: Timestamp,
    pub(super) value: Value,
    pub(super) status: Status,
}

const BAD_NO_DATA: Status = Status(0x809B_0000);
const UNCERTAIN_DATA_SUB_NORMAL: Status = Status(0x40A4_0000);
/// OPC 10000-4, 7.39.1: the info bits are those of a DataValue, and which of history.
const CALCULATED: u32 = 0x0400 | 0x01;
const INTERPOLATED: u32 = 0x0400 | 0x02;
const PARTIAL: u32 = 0x0400 | 0x04;

impl Configuration {
    pub(super) fn is_usable(&self, status: Status) -> bool {
        status.is_good() || (status.is_uncertain() && !self.treat_uncertain_as_bad)
    }
}

impl From<Record> for Point {
    fn from(record: Record) -> Self {
        Self { time: record.time().ticks(), value: record.value, status: record.status }
    }
}

/// Values of the intervals, in their order. `records` begins with the first one that is not before them.
pub(super) fn aggregate<E>(
    function: Function,
    configuration: Configuration,
    intervals: &[Interval],
    before: Before,
    records: impl Iterator<Item = Result<Record, E>>,
) -> Result<Vec<Aggregated>, E> {
    let mut ahead = Ahead { records, next: None };
    ahead.advance()?;
    match function {
        Function::Interpolative => interpolate(configuration, intervals, before, &mut ahead),
        _ => {
            let mut last = before.any.map(Point::from);
            let mut has_usable = !before.usable.is_empty();
            let mut results = Vec::with_capacity(intervals.len());
            for interval in intervals {
                let mut sums = Sums::new(configuration, *interval, last.take(), has_usable, ahead.next.as_ref());
                while let Some(point) = ahead.take_before(interval.to)? {
                    sums.add(point);
                }
                results.push(sums.result(function, ahead.next.is_some()));
                has_usable |= sums.has_usable;
                last = sums.last;
            }
            Ok(results)
        }
    }
}

/// One sample further than what has been used.
struct Ahead<I> {
    records: I,
    next: Option<Point>,
}

impl<E, I: Iterator<Item = Result<Record, E>>> Ahead<I> {
    fn advance(&mut self) -> Result<Option<Point>, E> {
        let next = self.records.next().transpose()?.map(Point::from);
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// The next sample, if it is before that time.
    fn take_before(&mut self, time: i64) -> Result<Option<Point>, E> {
        if self.next.as_ref().is_some_and(|next| next.time < time) { self.advance() } else { Ok(None) }
    }
}

/// OPC 10000-13, 5.4.3.4: the value at the beginning of each interval.
fn interpolate<E, I: Iterator<Item = Result<Record, E>>>(
    configuration: Configuration,
    intervals: &[Interval],
    before: Before,
    ahead: &mut Ahead<I>,
) -> Result<Vec<Aggregated>, E> {
    // The last two before the place, the first one behind it, and when the first Bad one between those came.
    let mut usable = before.usable.into_iter().map(Point::from);
    let (mut last, mut last_but_one) = (usable.next(), usable.next());
    let since = last.as_ref().map_or(i64::MIN, |last| last.time);
    let mut bad_since = before.any.map(Point::from).filter(|any| any.time > since).map(|any| any.time);
    let mut next: Option<Point> = None;
    let mut results = Vec::with_capacity(intervals.len());
    for interval in intervals {
        let time = interval.stamp;
        loop {
            if let Some(reached) = next.take_if(|next| next.time <= time) {
                last_but_one = last.replace(reached);
                bad_since = None;
            }
            if next.is_some() {
                break;
            }
            let Some(point) = ahead.advance()? else { break };
            if configuration.is_usable(point.status) {
                next = Some(point);
            } else {
                bad_since.get_or_insert(point.time);
            }
        }
        let gap = bad_since.filter(|since| !configuration.stepped || *since <= time);
        let stepped = configuration.stepped;
        let (value, status) = match (&last, &next) {
            (None, _) => (Value::Empty, BAD_NO_DATA),
            (Some(last), _) if last.time == time => (last.value.clone(), last.status),
            (Some(last), None) => {
                let sloped = configuration.sloped_extrapolation && !stepped;
                let line = last_but_one.as_ref().filter(|_| sloped).and_then(|before| on_line(before, last, time));
                (line.unwrap_or_else(|| last.value.clone()), Status(UNCERTAIN_DATA_SUB_NORMAL.0 | INTERPOLATED))
            }
            (Some(last), Some(next)) => {
                let line = if stepped { None } else { on_line(last, next, time) };
                let is_good = gap.is_none() && last.status.is_good() && (stepped || next.status.is_good());
                let status = if is_good { Status::GOOD } else { UNCERTAIN_DATA_SUB_NORMAL };
                (line.unwrap_or_else(|| last.value.clone()), Status(status.0 | INTERPOLATED))
            }
        };
        results.push(Aggregated { time: Timestamp::from_ticks(time), value, status });
    }
    Ok(results)
}

/// The value at a time of the line through two points, of the type of the first one. `None` if they are no numbers.
fn on_line(a: &Point, b: &Point, time: i64) -> Option<Value> {
    let (from, to) = (a.value.as_f64()?, b.value.as_f64()?);
    let share = (time - a.time) as f64 / (b.time - a.time) as f64;
    let number = from + (to - from) * share;
    Some(match a.value {
        Value::Float(_) => Value::Float(number as f32),
        Value::Double(_) => Value::Double(number),
        Value::SByte(_) => Value::SByte(number.round() as i8),
        Value::Byte(_) => Value::Byte(number.round() as u8),
        Value::Int16(_) => Value::Int16(number.round() as i16),
        Value::UInt16(_) => Value::UInt16(number.round() as u16),
        Value::Int32(_) => Value::Int32(number.round() as i32),
        Value::UInt32(_) => Value::UInt32(number.round() as u32),
        Value::Int64(_) => Value::Int64(number.round() as i64),
        Value::UInt64(_) => Value::UInt64(number.round() as u64),
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Region {
    Good,
    Uncertain,
    Bad,
}

/// What is gathered of one interval.
struct Sums {
    configuration: Configuration,
    interval: Interval,
    /// The last sample so far, also of before.
    last: Option<Point>,
    had_usable: bool,
    has_usable: bool,
    count: u64,
    good: u64,
    /// Not usable.
    bad: u64,
    sum: f64,
    least: Option<Point>,
    most: Option<Point>,
    first: Option<Point>,
    /// Where the present region began, and what it is.
    since: i64,
    region: Region,
    /// Ticks.
    good_time: i64,
    bad_time: i64,
}

impl Sums {
    fn new(
        configuration: Configuration,
        interval: Interval,
        last: Option<Point>,
        had_usable: bool,
        next: Option<&Point>,
    ) -> Self {
        let is_usable = |point: &Point| configuration.is_usable(point.status);
        // The bound at its beginning; a sample exactly there replaces it at once.
        let region = match (&last, next) {
            (Some(last), _) if !is_usable(last) => Region::Bad,
            (None, _) => Region::Bad,
            (Some(_), None) => Region::Uncertain,
            (Some(last), Some(next)) if last.status.is_good() && (configuration.stepped || next.status.is_good()) => {
                Region::Good
            }
            _ => Region::Uncertain,
        };
        Self {
            configuration,
            interval,
            last,
            had_usable,
            has_usable: false,
            count: 0,
            good: 0,
            bad: 0,
            sum: 0.0,
            least: None,
            most: None,
            first: None,
            since: interval.from,
            region,
            good_time: 0,
            bad_time: 0,
        }
    }

    fn end_region(&mut self, time: i64) {
        let length = time - self.since;
        match self.region {
            Region::Good => self.good_time += length,
            Region::Bad => self.bad_time += length,
            Region::Uncertain => {}
        }
        self.since = time;
    }

    fn add(&mut self, point: Point) {
        self.end_region(point.time);
        if point.status.0 & 0xFFFF_0000 == BAD_NO_DATA.0 {
            // A mark that there is nothing, as at the beginning of an archive, is no sample.
            self.region = Region::Bad;
            self.last = Some(point);
            return;
        }
        self.count += 1;
        self.region = if !self.configuration.is_usable(point.status) {
            self.bad += 1;
            Region::Bad
        } else {
            self.has_usable = true;
            if point.status.is_good() { Region::Good } else { Region::Uncertain }
        };
        if point.status.is_good() {
            self.good += 1;
            if let Some(number) = point.value.as_f64() {
                self.sum += number;
                let beats = |other: &Option<Point>, wins: fn(f64, f64) -> bool| {
                    other.as_ref().and_then(|other| other.value.as_f64()).is_none_or(|other| wins(number, other))
                };
                if beats(&self.least, |new, old| new < old) {
                    self.least = Some(point.clone());
                }
                if beats(&self.most, |new, old| new > old) {
                    self.most = Some(point.clone());
                }
            }
        }
        if self.first.is_none() {
            self.first = Some(point.clone());
        }
        self.last = Some(point);
    }

    /// `goes_on`: there are samples behind the interval.
    fn result(&mut self, function: Function, goes_on: bool) -> Aggregated {
        // Behind the last sample of all nothing is known (5.3.3.2: Partial).
        let ends_inside = !goes_on && self.count > 0;
        let end =
            if ends_inside { self.last.as_ref().map_or(self.interval.to, |last| last.time) } else { self.interval.to };
        self.end_region(end);
        let begins_inside = !self.had_usable && self.has_usable;
        let partial = if self.interval.is_cut || begins_inside || ends_inside { PARTIAL } else { 0 };
        let (value, status) = self.value(function, end, partial, goes_on);
        Aggregated { time: Timestamp::from_ticks(self.interval.stamp), value, status }
    }

    fn value(&self, function: Function, end: i64, partial: u32, goes_on: bool) -> (Value, Status) {
        let none = (Value::Empty, BAD_NO_DATA);
        let of_values = self.status();
        let calculated = |value, status: Status| (value, Status(status.0 | CALCULATED | partial));
        // One that is where the interval begins is raw there; any other is moved there.
        let moved = |point: &Option<Point>| {
            let Some(point) = point else { return none.clone() };
            let bits = if point.time == self.interval.stamp { 0 } else { CALCULATED };
            (point.value.clone(), Status(self.extreme_status().0 | bits | partial))
        };
        let raw = |point: Option<&Point>| point.map_or(none.clone(), |point| (point.value.clone(), point.status));
        let covered = (end - self.interval.from) as f64;
        match function {
            Function::Interpolative => unreachable!("not computed here"),
            Function::Average if self.good == 0 => none,
            // By Annex A a beginning or end of the data does not make it partial.
            Function::Average => {
                let partial = if self.interval.is_cut { PARTIAL } else { 0 };
                (Value::Double(self.sum / self.good as f64), Status(of_values.0 | CALCULATED | partial))
            }
            Function::Minimum => moved(&self.least),
            Function::Maximum => moved(&self.most),
            Function::MinimumActualTime | Function::MaximumActualTime => {
                let point = if function == Function::MinimumActualTime { &self.least } else { &self.most };
                point.as_ref().map_or(none, |point| (point.value.clone(), Status(self.extreme_status().0 | partial)))
            }
            Function::Range => match (&self.least, &self.most) {
                (Some(least), Some(most)) => {
                    let range = most.value.as_f64().zip(least.value.as_f64()).map_or(0.0, |(most, least)| most - least);
                    calculated(Value::Double(range), self.extreme_status())
                }
                _ => none,
            },
            Function::Count if self.count == 0 => none,
            Function::Count if of_values.is_bad() => (Value::Empty, of_values),
            Function::Count => calculated(Value::UInt32(u32::try_from(self.good).unwrap_or(u32::MAX)), of_values),
            Function::Start => raw(self.first.as_ref()),
            Function::End => raw(self.last.as_ref().filter(|_| self.count > 0)),
            _ if self.count == 0 && (self.last.is_none() || !goes_on) => none,
            Function::DurationGood => calculated(milliseconds(self.good_time), Status::GOOD),
            Function::DurationBad => calculated(milliseconds(self.bad_time), Status::GOOD),
            Function::PercentGood => calculated(percent(self.good_time, covered), Status::GOOD),
            Function::PercentBad => calculated(percent(self.bad_time, covered), Status::GOOD),
        }
    }

    /// OPC 10000-13, 5.4.3.2.1, by the number of values. Bad goes before Good.
    fn status(&self) -> Status {
        let percent = |part: u64| part as f64 * 100.0 / self.count.max(1) as f64;
        if percent(self.bad) >= f64::from(self.configuration.data_bad) {
            Status::BAD
        } else if percent(self.good) >= f64::from(self.configuration.data_good) {
            Status::GOOD
        } else {
            UNCERTAIN_DATA_SUB_NORMAL
        }
    }

    /// Of the extremes: whether a value that was left out might have been one.
    fn extreme_status(&self) -> Status {
        if self.good == self.count { Status::GOOD } else { UNCERTAIN_DATA_SUB_NORMAL }
    }
}

fn milliseconds(ticks: i64) -> Value {
    Value::Double(ticks as f64 / 10_000.0)
}

fn percent(ticks: i64, of: f64) -> Value {
    Value::Double(if of > 0.0 { ticks as f64 * 100.0 / of } else { 100.0 })
}

#[cfg(test)]
mod tests;
