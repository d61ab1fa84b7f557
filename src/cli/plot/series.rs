//! What one node delivered: a ring of points, and the line through them.
//!
//! A subscription tells changes only, so between two points that are further apart than the sampling interval the value is
//! held; the last one is held to now. Booleans are steps. A point without a value is a gap.
//!
//! Times are those of the source, moved by how far its clock is from ours as soon as that is more than a moment: else the
//! line of a server whose clock is wrong would be drawn outside of the window.

use crate::cli::remote::Reading;
use crate::model::{Status, Value};
use std::collections::VecDeque;

/// Points of one line that are kept: a day at one a second, 16 minutes at a hundred a second.
const KEPT: usize = 100_000;
/// Seconds by which clocks differ without being called different.
const ALIKE: f64 = 2.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Seconds from 1970.
    pub time: f64,
    /// `None`: no value, or a bad one.
    pub value: Option<f64>,
    pub status: Status,
}

pub(super) struct Series {
    pub name: String,
    pub unit: String,
    pub is_shown: bool,
    points: VecDeque<Point>,
    is_step: bool,
    /// Seconds between samples.
    interval: f64,
    /// The source's clock to ours; none until a second value came, because the first may be old.
    offset: Option<f64>,
    is_first: bool,
}

impl Series {
    pub(super) fn new(name: String, unit: String, interval: f64) -> Self {
        Self {
            name,
            unit,
            is_shown: true,
            points: VecDeque::new(),
            is_step: false,
            interval,
            offset: None,
            is_first: true,
        }
    }

    pub(super) fn points(&self) -> impl DoubleEndedIterator<Item = &Point> + ExactSizeIterator {
        self.points.iter()
    }

    pub(super) fn last(&self) -> Option<&Point> {
        self.points.back()
    }

    pub(super) fn take(&mut self, reading: &Reading, arrived: f64) {
        let value = if reading.status.is_bad() { None } else { reading.value.as_f64().filter(|v| v.is_finite()) };
        self.is_step |= matches!(reading.value, Value::Boolean(_));
        let source = reading.source_time.map(|time| time.ticks() as f64 / 1e7);
        let time = self.time(source, arrived);
        self.push(Point { time, value, status: reading.status });
    }

    /// A gap from now on: the server is gone.
    pub(super) fn lose(&mut self, status: Status, now: f64) {
        if self.points.back().is_some_and(|last| last.value.is_some()) {
            self.push(Point { time: now, value: None, status });
        }
        self.is_first = true;
    }

    fn push(&mut self, mut point: Point) {
        // Time never goes back, whatever a source says.
        point.time = self.points.back().map_or(point.time, |last| point.time.max(last.time));
        if self.points.len() == KEPT {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    fn time(&mut self, source: Option<f64>, arrived: f64) -> f64 {
        let Some(source) = source else { return arrived };
        if std::mem::take(&mut self.is_first) {
            return source.min(arrived);
        }
        let behind = arrived - source;
        // The least that was seen is the clock; the rest is the way here.
        let offset = self.offset.map_or(behind, |known| known.min(behind));
        self.offset = Some(offset);
        if offset.abs() < ALIKE { source.min(arrived) } else { source + offset }
    }

    /// The least and the largest value in a window, with the one that holds at its beginning.
    pub(super) fn extent(&self, from: f64, to: f64) -> Option<(f64, f64)> {
        let values = self.window(from, to).filter_map(|point| point.value);
        values.fold(None, |found, value| match found {
            None => Some((value, value)),
            Some((low, high)) => Some((value.min(low), value.max(high))),
        })
    }

    fn window(&self, from: f64, to: f64) -> impl Iterator<Item = &Point> {
        let begin = self.points.partition_point(|point| point.time <= from).saturating_sub(1);
        let end = self.points.partition_point(|point| point.time <= to);
        self.points.range(begin.min(end)..end)
    }

    /// The line within a window, in pieces between gaps, with at most about four points for each of `columns`.
    pub(super) fn line(&self, from: f64, to: f64, columns: usize) -> Vec<Vec<(f64, f64)>> {
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        let mut held: Option<(f64, f64)> = None;
        for point in self.window(from, to) {
            let time = point.time.max(from);
            if let Some((before, value)) = held {
                let until = match (self.is_step || point.value.is_none(), point.time - before > 1.5 * self.interval) {
                    (true, _) => Some(time),
                    (false, true) => Some((point.time - self.interval).max(from)),
                    (false, false) => None,
                };
                piece.extend(until.map(|until| (until, value)));
            }
            match point.value {
                Some(value) => piece.push((time, value)),
                None => pieces.push(std::mem::take(&mut piece)),
            }
            held = point.value.map(|value| (point.time, value));
        }
        if let Some((_, value)) = held {
            piece.push((to, value));
        }
        pieces.push(piece);
        pieces.retain(|piece| !piece.is_empty());
        let width = (to - from) / columns.max(1) as f64;
        pieces.into_iter().map(|piece| thinned(piece, width)).collect()
    }
}

/// Of what falls into one column: first, least, largest and last, in their order.
fn thinned(piece: Vec<(f64, f64)>, width: f64) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    let mut rest = piece.as_slice();
    while let Some(&(begin, _)) = rest.first() {
        let length = rest.iter().take_while(|(time, _)| *time < begin + width).count().max(1);
        let (column, after) = rest.split_at(length);
        rest = after;
        if column.len() <= 4 {
            kept.extend_from_slice(column);
            continue;
        }
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends = [column.first(), column.iter().min_by(by_value), column.iter().max_by(by_value), column.last()];
        let mut four: Vec<(f64, f64)> = ends.into_iter().flatten().copied().collect();
        four.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.extend(four);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[(f64, Option<f64>)]) -> Series {
        let mut series = Series::new("x".into(), String::new(), 1.0);
        for &(time, value) in points {
            series.push(Point { time, value, status: Status::GOOD });
        }
        series
    }

    #[test]
    fn a_value_is_held_until_the_next_and_to_the_end() {
        let line = series(&[(0.0, Some(1.0)), (1.0, Some(2.0)), (9.0, Some(3.0))]).line(0.0, 10.0, 100);
        assert_eq!(line, [vec![(0.0, 1.0), (1.0, 2.0), (8.0, 2.0), (9.0, 3.0), (10.0, 3.0)]]);
    }

    #[test]
    fn a_bad_value_is_a_gap() {
        let line = series(&[(0.0, Some(1.0)), (1.0, None), (3.0, Some(3.0))]).line(0.0, 4.0, 100);
        assert_eq!(line, [vec![(0.0, 1.0), (1.0, 1.0)], vec![(3.0, 3.0), (4.0, 3.0)]]);
    }

    #[test]
    fn what_holds_from_before_begins_at_the_edge() {
        let old = series(&[(-100.0, Some(7.0))]);
        assert_eq!(old.line(0.0, 10.0, 100), [vec![(0.0, 7.0), (10.0, 7.0)]]);
        assert_eq!(old.extent(0.0, 10.0), Some((7.0, 7.0)));
        assert_eq!(series(&[(20.0, Some(7.0))]).line(0.0, 10.0, 100), Vec::<Vec<_>>::new());
    }

    #[test]
    fn booleans_are_steps() {
        let mut steps = series(&[]);
        steps.is_step = true;
        for (time, value) in [(0.0, 0.0), (1.0, 1.0)] {
            steps.push(Point { time, value: Some(value), status: Status::GOOD });
        }
        assert_eq!(steps.line(0.0, 2.0, 100), [vec![(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (2.0, 1.0)]]);
    }

    #[test]
    fn many_points_keep_their_peaks() {
        let points: Vec<_> =
            (0..50_000).map(|n| (f64::from(n) / 1000.0, Some(if n == 33_333 { 99.0 } else { 0.5 }))).collect();
        let line = series(&points).line(0.0, 50.0, 100);
        assert!(line[0].len() <= 420, "{}", line[0].len());
        assert!(line[0].iter().any(|(_, value)| *value == 99.0));
    }

    #[test]
    fn memory_is_bounded_and_time_never_goes_back() {
        let mut many = series(&[(5.0, Some(1.0))]);
        for _ in 0..KEPT + 10 {
            many.push(Point { time: 1.0, value: None, status: Status::BAD });
        }
        assert_eq!(many.points().len(), KEPT);
        assert!(many.points().all(|point| point.time == 5.0));
    }

    #[test]
    fn a_clock_that_is_wrong_does_not_move_the_line() {
        for wrong in [-3600.0, 0.0, 3600.0] {
            let mut series = series(&[]);
            let _ = series.time(Some(1000.0 + wrong), 1000.0);
            assert!((series.time(Some(1001.0 + wrong), 1001.2) - 1001.1).abs() < 0.2, "{wrong}");
            assert!((series.time(Some(1002.0 + wrong), 1002.1) - 1002.1).abs() < 0.2, "{wrong}");
        }
    }
}
