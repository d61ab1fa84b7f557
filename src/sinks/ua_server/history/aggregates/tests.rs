//! The examples of OPC 10000-13, Annex A: Historian 1 to 3.

use super::*;
use std::convert::Infallible;

const BAD_DATA_LOST: u32 = 0x809D_0000;
const UNCERTAIN: u32 = 0x4000_0000;
const UNCERTAIN_LAST: u32 = 0x408F_0000;

fn record(second: i64, value: f64, status: u32) -> Record {
    let time = Timestamp::from_millis(second * 1000);
    let status = Status(status);
    let value = if status.is_bad() { Value::Empty } else { Value::Double(value) };
    Record { value, status, source_time: Some(time), server_time: time }
}

/// Seconds after 12:00.
fn historian_1() -> Vec<Record> {
    let good = |second: i64| record(second, second as f64, 0);
    let mut records = vec![record(0, 0.0, BAD_NO_DATA.0), good(10), good(20), good(30), record(40, 0.0, Status::BAD.0)];
    records.extend([good(50), good(60), record(70, 70.0, UNCERTAIN), good(80), good(90)]);
    records
}

fn historian_2() -> Vec<Record> {
    let good = [(2, 10.0), (25, 20.0), (28, 25.0), (39, 30.0)].map(|(second, value)| record(second, value, 0));
    let later = [(48, 40.0), (52, 50.0), (72, 60.0), (83, 70.0), (86, 80.0), (90, 90.0)];
    let mut records =
        vec![record(0, 0.0, BAD_NO_DATA.0), record(42, 0.0, BAD_DATA_LOST), record(77, 70.0, UNCERTAIN_LAST)];
    records.extend(good);
    records.extend(later.map(|(second, value)| record(second, value, 0)));
    records.sort_by_key(Record::time);
    records
}

const ONE: Configuration = Configuration {
    treat_uncertain_as_bad: false,
    data_bad: 100,
    data_good: 100,
    sloped_extrapolation: false,
    stepped: false,
};
const TWO: Configuration = Configuration { treat_uncertain_as_bad: true, ..ONE };
const THREE: Configuration = Configuration { stepped: true, ..TWO };

/// From 12:00 to 12:01:40, as "value status bits".
fn said(function: Function, configuration: Configuration, records: Vec<Record>, seconds: i64) -> Vec<String> {
    let tick = |second: i64| Timestamp::from_millis(second * 1000).ticks();
    let interval = |from: i64| Interval {
        from: tick(from),
        to: tick((from + seconds).min(100)),
        stamp: tick(from),
        is_cut: from + seconds > 100,
    };
    let intervals: Vec<_> = (0..100).step_by(seconds as usize).map(interval).collect();
    let records = records.into_iter().map(Ok::<_, Infallible>);
    let results = aggregate(function, configuration, &intervals, Before::default(), records).unwrap();
    let times: Vec<_> = results.iter().map(|result| result.time.ticks()).collect();
    assert_eq!(times, intervals.iter().map(|interval| interval.stamp).collect::<Vec<_>>());
    results.iter().map(text).collect()
}

fn text(result: &Aggregated) -> String {
    let severity = match result.status.0 & 0xFFFF_0000 {
        0 => "Good",
        0x809B_0000 => return "NoData".into(),
        0x4000_0000 => "Uncertain",
        0x40A4_0000 => "SubNormal",
        0x8000_0000 => return "Bad".into(),
        other => panic!("0x{other:08X}"),
    };
    let mut text = match result.value {
        Value::UInt32(count) => format!("{count} {severity}"),
        ref value => format!("{} {severity}", (value.as_f64().unwrap() * 1000.0).round() / 1000.0),
    };
    for (bit, word) in [(1, " C"), (2, " I"), (4, " P")] {
        if result.status.0 & 0x0400 != 0 && result.status.0 & bit != 0 {
            text.push_str(word);
        }
    }
    text
}

#[test]
fn interpolative_of_historian_1() {
    assert_eq!(
        said(Function::Interpolative, ONE, historian_1(), 5),
        [
            "NoData",
            "NoData",
            "10 Good",
            "15 Good I",
            "20 Good",
            "25 Good I",
            "30 Good",
            "35 SubNormal I",
            "40 SubNormal I",
            "45 SubNormal I",
            "50 Good",
            "55 Good I",
            "60 Good",
            "65 SubNormal I",
            "70 Uncertain",
            "75 SubNormal I",
            "80 Good",
            "85 Good I",
            "90 Good",
            "90 SubNormal I",
        ]
    );
}

#[test]
fn interpolative_of_historian_2() {
    assert_eq!(
        said(Function::Interpolative, TWO, historian_2(), 5),
        [
            "NoData",
            "11.304 Good I",
            "13.478 Good I",
            "15.652 Good I",
            "17.826 Good I",
            "20 Good",
            "25.909 Good I",
            "28.182 Good I",
            "31.111 SubNormal I",
            "36.667 SubNormal I",
            "45 Good I",
            "51.5 Good I",
            "54 Good I",
            "56.5 Good I",
            "59 Good I",
            "62.727 SubNormal I",
            "67.273 SubNormal I",
            "76.667 Good I",
            "90 Good",
            "90 SubNormal I",
        ]
    );
}

#[test]
fn interpolative_of_historian_3() {
    assert_eq!(
        said(Function::Interpolative, THREE, historian_2(), 5),
        [
            "NoData",
            "10 Good I",
            "10 Good I",
            "10 Good I",
            "10 Good I",
            "20 Good",
            "25 Good I",
            "25 Good I",
            "30 Good I",
            "30 SubNormal I",
            "40 Good I",
            "50 Good I",
            "50 Good I",
            "50 Good I",
            "50 Good I",
            "60 Good I",
            "60 SubNormal I",
            "70 Good I",
            "90 Good",
            "90 SubNormal I",
        ]
    );
}

#[test]
fn average_counts_good_values_only() {
    assert_eq!(
        said(Function::Average, ONE, historian_1(), 5),
        [
            "NoData",
            "NoData",
            "10 Good C",
            "NoData",
            "20 Good C",
            "NoData",
            "30 Good C",
            "NoData",
            "NoData",
            "NoData",
            "50 Good C",
            "NoData",
            "60 Good C",
            "NoData",
            "NoData",
            "NoData",
            "80 Good C",
            "NoData",
            "90 Good C",
            "NoData",
        ]
    );
    let two = [
        "10 Good C",
        "NoData",
        "NoData",
        "NoData",
        "NoData",
        "22.5 Good C",
        "NoData",
        "30 Good C",
        "NoData",
        "40 Good C",
        "50 Good C",
        "NoData",
        "NoData",
        "NoData",
        "60 Good C",
        "NoData",
        "70 Good C",
        "80 Good C",
        "90 Good C",
        "NoData",
    ];
    assert_eq!(said(Function::Average, TWO, historian_2(), 5), two);
    assert_eq!(said(Function::Average, THREE, historian_2(), 5), two);
}

#[test]
fn extremes_are_raw_where_the_interval_begins() {
    assert_eq!(
        said(Function::Minimum, ONE, historian_1(), 16),
        ["10 Good C P", "20 Good C", "NoData", "50 Good C", "NoData", "80 Good P", "NoData",]
    );
    assert_eq!(
        said(Function::Maximum, ONE, historian_1(), 16),
        ["10 Good C P", "30 Good C", "NoData", "60 Good C", "NoData", "90 Good C P", "NoData",]
    );
    assert_eq!(
        said(Function::Minimum, TWO, historian_2(), 16),
        ["10 Good C P", "20 Good C", "30 SubNormal C", "40 Good", "60 SubNormal C", "70 Good C P", "NoData",]
    );
    assert_eq!(
        said(Function::Maximum, THREE, historian_2(), 16),
        ["10 Good C P", "25 Good C", "30 SubNormal C", "50 Good C", "60 SubNormal C", "90 Good C P", "NoData",]
    );
    assert_eq!(said(Function::Range, TWO, historian_2(), 16)[1], "5 Good C");
}

#[test]
fn count_is_as_good_as_the_share_of_good_values() {
    assert_eq!(
        said(Function::Count, ONE, historian_1(), 16),
        ["1 Good C P", "2 Good C", "Bad", "2 Good C", "0 SubNormal C", "2 Good C P", "NoData",]
    );
    assert_eq!(
        said(Function::Count, TWO, historian_2(), 16),
        ["1 Good C P", "2 Good C", "1 SubNormal C", "2 Good C", "1 SubNormal C", "3 Good C P", "NoData",]
    );
    let half = Configuration { data_bad: 50, data_good: 50, ..THREE };
    assert_eq!(said(Function::Count, half, historian_2(), 16)[2], "Bad");
}

#[test]
fn durations_have_simple_bounds() {
    // The last interval with data ends with the data.
    assert_eq!(
        said(Function::DurationGood, ONE, historian_1(), 16),
        ["6000 Good C P", "16000 Good C", "0 Good C", "14000 Good C", "0 Good C", "10000 Good C P", "NoData",]
    );
    assert_eq!(
        said(Function::DurationBad, ONE, historian_1(), 16),
        ["10000 Good C P", "0 Good C", "8000 Good C", "2000 Good C", "0 Good C", "0 Good C P", "NoData",]
    );
    assert_eq!(
        said(Function::DurationGood, TWO, historian_2(), 16),
        ["14000 Good C P", "16000 Good C", "10000 Good C", "16000 Good C", "13000 Good C", "7000 Good C P", "NoData",]
    );
    assert_eq!(
        said(Function::PercentGood, THREE, historian_2(), 16)[..5],
        ["87.5 Good C P", "100 Good C", "62.5 Good C", "100 Good C", "81.25 Good C",]
    );
    assert_eq!(said(Function::PercentBad, TWO, historian_2(), 16)[4], "18.75 Good C");
}

#[test]
fn start_and_end_are_samples_as_they_are() {
    assert_eq!(said(Function::Start, ONE, historian_1(), 16)[..2], ["10 Good", "20 Good"]);
    assert_eq!(said(Function::End, ONE, historian_1(), 16)[4], "70 Uncertain");
    let of_two = aggregate(
        Function::MaximumActualTime,
        ONE,
        &[Interval { from: 0, to: i64::MAX, stamp: 0, is_cut: false }],
        Before::default(),
        historian_1().into_iter().map(Ok::<_, Infallible>),
    );
    assert_eq!(of_two.unwrap()[0].value, Value::Double(90.0));
}

#[test]
fn what_was_before_the_first_interval_counts_as_its_bound() {
    let interval = [Interval { from: 50_000_000, to: 60_000_000, stamp: 50_000_000, is_cut: false }];
    let before = Before { any: Some(record(4, 40.0, 0)), usable: vec![record(4, 40.0, 0), record(3, 30.0, 0)] };
    let after = || [record(6, 60.0, 0)].into_iter().map(Ok::<_, Infallible>);
    let at = |configuration, before, records: &mut dyn Iterator<Item = Result<Record, Infallible>>| {
        text(&aggregate(Function::Interpolative, configuration, &interval, before, records).unwrap()[0])
    };
    assert_eq!(at(ONE, before.clone(), &mut after()), "50 Good I");
    let bad_between = Before { any: Some(record(4, 0.0, Status::BAD.0)), usable: vec![record(3, 30.0, 0)] };
    assert_eq!(at(ONE, bad_between, &mut after()), "50 SubNormal I");
    let sloped = Configuration { sloped_extrapolation: true, ..ONE };
    assert_eq!(at(sloped, before, &mut std::iter::empty()), "50 SubNormal I");
}
