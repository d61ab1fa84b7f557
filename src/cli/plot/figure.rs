//! What a plot shows at one moment: lines, axes, legend. The screen, SVG and PNG are drawn from this, so that they agree.

use super::series::Series;
use crate::model::Timestamp;

pub(super) type Rgb = (u8, u8, u8);

/// Told apart also by most who see colours differently (Okabe and Ito), light enough for a dark terminal.
pub(super) const COLOURS: [Rgb; 8] = [
    (0x56, 0xB4, 0xE9),
    (0xE6, 0x9F, 0x00),
    (0x00, 0x9E, 0x73),
    (0xCC, 0x79, 0xA7),
    (0xF0, 0xE4, 0x42),
    (0xD5, 0x5E, 0x00),
    (0x00, 0x72, 0xB2),
    (0xBB, 0xBB, 0xBB),
];

pub(super) struct Figure {
    pub from: f64,
    pub to: f64,
    pub low: f64,
    pub high: f64,
    /// Evenly spaced from `low` to `high`.
    pub values: Vec<(f64, String)>,
    /// Evenly spaced from `from` to `to`.
    pub times: Vec<(f64, String)>,
    pub lines: Vec<Line>,
}

pub(super) struct Line {
    pub colour: Rgb,
    pub legend: String,
    pub pieces: Vec<Vec<(f64, f64)>>,
}

impl Figure {
    /// `scale`: the range of values if it is not to follow the lines.
    pub(super) fn new(series: &[Series], from: f64, to: f64, scale: Option<(f64, f64)>, columns: usize) -> Self {
        let shown = || series.iter().enumerate().filter(|(_, series)| series.is_shown);
        let extents = shown().filter_map(|(_, series)| series.extent(from, to));
        let extent = extents.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let (low, high) = scale.or(extent).unwrap_or((0.0, 1.0));
        let values = ticks(low, high);
        let edge = |tick: Option<&f64>, or: f64| tick.copied().unwrap_or(or);
        let (low, high) = (edge(values.first(), low), edge(values.last(), high));
        let step = values.get(1).map_or(1.0, |second| second - low);
        let lines = shown().map(|(index, series)| Line {
            colour: COLOURS[index % COLOURS.len()],
            legend: legend(series, from, to),
            pieces: series.line(from, to, columns),
        });
        Self {
            from,
            to,
            low,
            high,
            values: values.into_iter().map(|tick| (tick, number(tick, step))).collect(),
            times: times(from, to),
            lines: lines.collect(),
        }
    }
}

/// `Speed 1500.2 rpm  min 1200 max 1600`
pub(super) fn legend(series: &Series, from: f64, to: f64) -> String {
    let unit = if series.unit.is_empty() { String::new() } else { format!(" {}", series.unit) };
    let now = match series.last() {
        None => "waiting".into(),
        Some(point) => match point.value {
            Some(value) => format!("{}{unit}", short(value)),
            None => super::super::show::status(point.status),
        },
    };
    let extent = series.extent(from, to).map(|(low, high)| format!("  min {} max {}", short(low), short(high)));
    format!("{}  {now}{}", series.name, extent.unwrap_or_default())
}

/// Six digits that count, and no more.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-4..1e7).contains(&size) {
        let places = (5 - size.max(1e-4).log10().floor() as i32).clamp(0, 9);
        let text = format!("{value:.*}", places as usize);
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    } else {
        format!("{value:.4e}")
    }
}

/// With as many places as tell two ticks apart.
fn number(tick: f64, step: f64) -> String {
    // What is left of a subtraction is zero.
    let tick = if tick.abs() < step * 1e-6 { 0.0 } else { tick };
    match tick.abs().max(step) {
        size if (1e-5..1e7).contains(&size) => {
            format!("{tick:.*}", (-(step * 1.001).log10().floor()).clamp(0.0, 9.0) as usize)
        }
        _ => format!("{tick:.3e}"),
    }
}

/// Three to seven round numbers around a range: 1, 2 or 5 times a power of ten apart.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    // A flat line lies in the middle.
    let around = (low.abs().max(high.abs()) * 1e-9).max(f64::MIN_POSITIVE * 1e20);
    let (low, high) = match high - low > around {
        true => (low, high),
        false if low == 0.0 => (-1.0, 1.0),
        false => (low - low.abs() * 0.1, high + high.abs() * 0.1),
    };
    let rough = (high / 4.0 - low / 4.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|of| of * power).find(|step| *step >= rough * 0.999).unwrap_or(rough);
    let (first, last) = ((low / step).floor(), (high / step).ceil());
    // Steps that are too small for what a Double tells apart would not end.
    let count = (last - first).clamp(1.0, 8.0) as u32;
    let values: Vec<f64> = (0..=count).map(|n| (first + f64::from(n)) * step).collect();
    if values.iter().all(|value| value.is_finite()) { values } else { vec![low, high] }
}

/// Both ends and what lies evenly between, as the time of day in UTC.
fn times(from: f64, to: f64) -> Vec<(f64, String)> {
    const PARTS: u32 = 4;
    let is_short = to - from < 10.0;
    let at = |n: u32| from + (to - from) * f64::from(n) / f64::from(PARTS);
    let times = (0..=PARTS).map(at);
    let label = |time: f64| {
        let (hour, minute, second, milli) = timestamp(time).time_of_day();
        match is_short {
            true => format!("{hour:02}:{minute:02}:{second:02}.{}", milli / 100),
            false => format!("{hour:02}:{minute:02}:{second:02}"),
        }
    };
    times.map(|time| (time, label(time))).collect()
}

pub(super) fn timestamp(seconds: f64) -> Timestamp {
    Timestamp::from_ticks((seconds * 1e7) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        let ticks = ticks(low, high);
        let step = ticks[1] - ticks[0];
        ticks.into_iter().map(|tick| number(tick, step)).collect()
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(-1.0, 1.0), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(labels(1203.0, 1597.0), ["1200", "1300", "1400", "1500", "1600"]);
        assert_eq!(labels(0.0, 0.0), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(labels(0.0101, 0.0124).first().unwrap(), "0.010");
        assert_eq!(labels(5.0, 5.0).len(), labels(4.5, 5.5).len());
    }

    #[test]
    fn any_range_has_an_axis_that_holds_it() {
        for (low, high) in
            [(-1e308, 1e308), (1e300, 1e300), (1e-300, 2e-300), (1e15, 1e15 + 0.2), (-5.0, -5.0), (f64::MIN, f64::MAX)]
        {
            let ticks = ticks(low, high);
            assert!((2..=9).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.iter().all(|tick| tick.is_finite()), "{low} {high}: {ticks:?}");
            assert!(ticks[0] <= low && *ticks.last().unwrap() >= high * 0.999_999, "{low} {high}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 12.5, 1500.25, 0.1 + 0.2, 1e-9, 1e12, -3.0, 1_234_567.0].map(short),
            ["0", "12.5", "1500.25", "0.3", "1.0000e-9", "1.0000e12", "-3", "1234567"]
        );
    }

    #[test]
    fn times_are_those_of_the_ends_and_between() {
        let labels: Vec<_> = times(0.0, 60.0).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["00:00:00", "00:00:15", "00:00:30", "00:00:45", "00:01:00"]);
    }
}
