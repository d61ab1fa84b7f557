//! One line: what is wanted of it, and what its edges mean.

use crate::base::duration;
use crate::model::{DataType, Sample, TagId, TagName, TagNameError, TagSpec, Timestamp, Value};
use gpiocdev::line::{Bias, Drive, EdgeDetection, EdgeEvent, EdgeKind, EventClock};
use gpiocdev::request::Builder;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// The kernel takes microseconds in 32 bits; a contact that bounces for longer is broken.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(60);
/// Edges that the kernel keeps until they are read. When it is full the oldest go, and are counted all the same.
const EDGES: u32 = 1024;

/// `[[gpio.line]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Example: "door".
    pub name: String,
    /// Its number on the chip, or its name as `gpioinfo` shows it. Example: 17, or "GPIO17".
    pub line: Line,
    /// "in" or "out". Default: "in".
    #[serde(default)]
    pub direction: Direction,
    /// True is a low level. Default: false.
    #[serde(default)]
    pub active_low: bool,
    /// "pull-up", "pull-down" or "disabled". Default: as it is.
    pub bias: Option<Pull>,
    /// Of an input: a level counts when it has lasted for so long. Default: at once.
    #[serde(default, deserialize_with = "duration::deserialize_some")]
    pub debounce: Option<Duration>,
    /// Of an input: a further tag, its name and `_count`, counts the edges since the program was started. Default: false.
    #[serde(default)]
    pub count: bool,
    /// Which edges are counted: "rising", "falling" or "both". Default: "both".
    pub edges: Option<Edges>,
    /// Of an output: its value from the moment that it is taken, also when the chip comes back. Default: false.
    pub initial: Option<bool>,
    /// Of an output: "push-pull", "open-drain" or "open-source". Default: "push-pull".
    pub drive: Option<Driver>,
    /// What false and what true mean. Example: ["closed", "open"]. Default: none.
    pub states: Option<[String; 2]>,
    /// One sentence for people. Default: none.
    #[serde(default)]
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a line is its number, as in 17, or its name, as in \"GPIO17\"")]
pub enum Line {
    Number(u32),
    Name(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    #[default]
    In,
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Pull {
    #[serde(rename = "pull-up")]
    Up,
    #[serde(rename = "pull-down")]
    Down,
    #[serde(rename = "disabled")]
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edges {
    Rising,
    Falling,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    PushPull,
    OpenDrain,
    OpenSource,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Number(number) => number.fmt(f),
            Line::Name(name) => write!(f, "{name:?}"),
        }
    }
}

impl Config {
    pub(super) fn is_output(&self) -> bool {
        self.direction == Direction::Out
    }

    pub(super) fn check(&self, folder: &str) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        // A folder that is wrong is said once.
        if let Err(error) = TagName::new(&self.name).and_then(|_| match TagName::new(folder) {
            Ok(_) => self.specs(folder).map(|_| ()),
            Err(_) => Ok(()),
        }) {
            faults.push(("name", error.to_string()));
        }
        if matches!(&self.line, Line::Name(name) if name.trim().is_empty()) {
            faults.push(("line", "names none; write its number, as in 17, or its name, as in \"GPIO17\"".into()));
        }
        let mut only = |wanted: &str, key, is_set: bool| {
            if is_set {
                faults.push((key, format!("only an {wanted} has it; leave it out")));
            }
        };
        only("output", "initial", !self.is_output() && self.initial.is_some());
        only("output", "drive", !self.is_output() && self.drive.is_some());
        only("input", "debounce", self.is_output() && self.debounce.is_some());
        only("input", "count", self.is_output() && self.count);
        if self.edges.is_some() && !self.count {
            faults.push(("edges", "chooses what `count` counts; add count = true, or leave it out".into()));
        }
        if self.debounce.is_some_and(|debounce| debounce > LONGEST_DEBOUNCE) {
            faults.push(("debounce", "is too long; use \"60s\" at most".into()));
        }
        faults
    }

    /// The tag of its level, and the one that counts.
    pub(super) fn specs(&self, folder: &str) -> Result<Vec<TagSpec>, TagNameError> {
        let name = |end: &str| TagName::new(&format!("{folder}/{}{end}", self.name));
        let mut level = TagSpec::new(name("")?, DataType::Boolean).described(&*self.description);
        if let Some(states) = &self.states {
            level = level.states(states.iter().map(|state| state.as_str().into()).collect());
        }
        if self.is_output() {
            level = level.writable();
        }
        let count = TagSpec::new(name("_count")?, DataType::UInt64)
            .described(format!("Edges of {} since the program was started", self.name));
        Ok(if self.count { vec![level, count] } else { vec![level] })
    }

    /// Adds the line to what is asked of the kernel. An input without `edges` has to be looked at.
    pub(super) fn ask(&self, offset: u32, edges: bool, request: &mut Builder) {
        request.with_line(offset);
        if self.active_low {
            request.as_active_low();
        }
        if let Some(bias) = self.bias {
            request.with_bias(match bias {
                Pull::Up => Bias::PullUp,
                Pull::Down => Bias::PullDown,
                Pull::Disabled => Bias::Disabled,
            });
        }
        if self.is_output() {
            request.as_output(self.initial.unwrap_or(false).into());
            request.with_drive(match self.drive {
                None | Some(Driver::PushPull) => Drive::PushPull,
                Some(Driver::OpenDrain) => Drive::OpenDrain,
                Some(Driver::OpenSource) => Drive::OpenSource,
            });
            return;
        }
        request.as_input();
        if let Some(debounce) = self.debounce {
            request.with_debounce_period(debounce);
        }
        if edges {
            request.with_edge_detection(EdgeDetection::BothEdges);
            request.with_event_clock(EventClock::Realtime).with_kernel_event_buffer_size(EDGES);
        }
    }
}

/// What has been made of the edges of a line.
#[derive(Default)]
pub(super) struct Count {
    edges: u64,
    /// The kernel's number of the last edge.
    last: u32,
}

impl Count {
    pub(super) fn edges(&self) -> u64 {
        self.edges
    }

    /// The line is taken anew, so the kernel begins to count anew.
    pub(super) fn restart(&mut self) {
        self.last = 0;
    }

    /// Also of those that the kernel had no room for: they alternate.
    fn see(&mut self, event: &EdgeEvent, counted: Edges) {
        let lost = u64::from(event.line_seqno.wrapping_sub(self.last).saturating_sub(1));
        self.last = event.line_seqno;
        self.edges += match (counted, event.kind) {
            (Edges::Both, _) => lost + 1,
            // Before this edge came its opposite, so of an odd number of lost ones the opposites are one more.
            (Edges::Rising, EdgeKind::Rising) | (Edges::Falling, EdgeKind::Falling) => lost / 2 + 1,
            _ => lost.div_ceil(2),
        };
    }
}

/// The samples that an edge makes, of the level and of the count.
pub(super) fn samples(
    config: &Config,
    tags: &[TagId],
    count: &mut Count,
    event: &EdgeEvent,
    now: Timestamp,
) -> Vec<Sample> {
    count.see(event, config.edges.unwrap_or(Edges::Both));
    // The clock of the kernel is the device's, in nanoseconds since 1970.
    let time = Timestamp::UNIX_EPOCH.saturating_add(Duration::from_nanos(event.timestamp_ns));
    let values = [Value::Boolean(event.kind == EdgeKind::Rising), Value::UInt64(count.edges)];
    let sample = |(tag, value): (&TagId, Value)| Sample { source_time: Some(time), ..Sample::good(*tag, value, now) };
    tags.iter().zip(values).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EdgeKind, line_seqno: u32) -> EdgeEvent {
        EdgeEvent { timestamp_ns: 1_500_000_000, kind, offset: 3, seqno: line_seqno, line_seqno }
    }

    #[test]
    fn an_edge_is_a_level_and_a_count_at_the_kernels_time() {
        let config: Config = toml::from_str("name = 'a'\nline = 3\ncount = true").unwrap();
        let (mut count, tags) = (Count::default(), [TagId(4), TagId(5)]);
        let now = Timestamp::from_millis(9000);
        let made = samples(&config, &tags, &mut count, &event(EdgeKind::Rising, 1), now);
        let values: Vec<_> = made.iter().map(|sample| (sample.tag, sample.value.clone())).collect();
        assert_eq!(values, [(TagId(4), Value::Boolean(true)), (TagId(5), Value::UInt64(1))]);
        assert!(made.iter().all(|sample| sample.source_time == Some(Timestamp::from_millis(1500))));
        assert_eq!(samples(&config, &tags[..1], &mut count, &event(EdgeKind::Falling, 2), now).len(), 1);
    }

    #[test]
    fn edges_that_were_lost_are_counted_by_kind() {
        use EdgeKind::{Falling, Rising};
        let counted = |edges, events: &[(EdgeKind, u32)]| {
            let mut count = Count::default();
            events.iter().for_each(|(kind, number)| count.see(&event(*kind, *number), edges));
            count.edges
        };
        // Rising 1, then falling 2 and rising 3 are lost, falling 4, rising 5, then four are lost, falling 10.
        let events = [(Rising, 1), (Falling, 4), (Rising, 5), (Falling, 10)];
        assert_eq!(counted(Edges::Both, &events), 10);
        assert_eq!(counted(Edges::Rising, &events), 5);
        assert_eq!(counted(Edges::Falling, &events), 5);
        assert_eq!(counted(Edges::Rising, &[(Falling, 2)]), 1);
    }
}
