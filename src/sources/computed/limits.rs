//! Limits of a tag's value, as an alarm.
//!
//!     within ──beyond a limit for `delay`──► active at a level ──back by `hysteresis`──► milder level, or within
//!
//! Each limit has a time of its own, which begins when the value passes it. A value that is bad says nothing, so the alarm
//! stays as it is. The alarm is a condition of the hub, so who has seen it is kept there; it is declared while its tag
//! exists. When its table begins anew, an alarm on the same limits goes on at the level that it had.

use super::Finding;
use crate::base::duration;
use crate::hub::Hub;
use crate::model::{ConditionKind, Level, Limits, TagName};
use serde::Deserialize;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// More is a slip; and a time that far ahead can still be told.
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The outermost first.
const LEVELS: [Level; 4] = [Level::HighHigh, Level::LowLow, Level::High, Level::Low];

/// `[[computed.limit]]`, or `limit = { ... }` in `[[computed.tag]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose value it is about: any tag. Not within `[[computed.tag]]`, where it is that tag. Example: "demo/sine".
    pub tag: Option<String>,
    /// Above this it is urgent. At least one of the four.
    pub high_high: Option<f64>,
    /// Above this it is off normal.
    pub high: Option<f64>,
    /// Below this it is off normal.
    pub low: Option<f64>,
    /// Below this it is urgent.
    pub low_low: Option<f64>,
    /// So far a value must come back behind a limit for it to be over, in the unit of the tag; less than there is between
    /// the limits. Default: 0.
    #[serde(default)]
    pub hysteresis: f64,
    /// So long a value must be beyond a limit, "30d" at most. Default: "0s".
    #[serde(default, deserialize_with = "duration::deserialize")]
    pub delay: Duration,
    /// Urgency of the alarm, 1 to 1000. Default: 500.
    #[serde(default = "default_severity")]
    pub severity: u16,
}

const fn default_severity() -> u16 {
    ConditionKind::Limit.severity()
}

impl Config {
    fn limits(&self) -> Limits {
        Limits { high_high: self.high_high, high: self.high, low: self.low, low_low: self.low_low }
    }

    /// `within`: in the table of a computed tag.
    pub(super) fn check(&self, at: &Range<usize>, within: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |key, what: String| findings.push(Finding { at: Some(at.clone()), key, what });
        match &self.tag {
            Some(_) if within => add("limit", "`tag` is not said here, it is about this tag; leave it out".into()),
            None if !within => add("tag", "says not which tag it is about; write it as in \"demo/sine\"".into()),
            Some(name) => {
                if let Err(error) = TagName::new(name) {
                    add("tag", error.to_string());
                }
            }
            None => {}
        }
        let key = |key| if within { "limit" } else { key };
        let all: Vec<f64> = [self.low_low, self.low, self.high, self.high_high].into_iter().flatten().collect();
        if all.is_empty() {
            add(key("tag"), "has no limit; add high_high, high, low or low_low".into());
        }
        if !all.iter().all(|limit| limit.is_finite()) || !all.is_sorted_by(|a, b| a < b) {
            add(key("tag"), "its limits must be numbers, low_low < low < high < high_high".into());
        }
        if !self.hysteresis.is_finite() || self.hysteresis < 0.0 {
            add(key("hysteresis"), "must be a number that is not negative".into());
        }
        if let (Some(high), Some(low)) = (self.high.or(self.high_high), self.low.or(self.low_low))
            && high > low
            && self.hysteresis >= high - low
        {
            let what = format!("{} leaves no value at which an alarm is over", self.hysteresis);
            add(key("hysteresis"), format!("{what}; use less than the {} between {low} and {high}", high - low));
        }
        if self.delay > LONGEST_DELAY {
            add(key("delay"), "it is too long; use \"30d\" or less".into());
        }
        if !(1..=1000).contains(&self.severity) {
            add(key("severity"), format!("{} is out of range; use 1 to 1000", self.severity));
        }
        findings
    }
}

/// Looks after one tag.
pub(super) struct Watch {
    config: Config,
    pub(super) tag: TagName,
    level: Option<Level>,
    /// Of each of [`LEVELS`], since when the value is beyond its limit.
    beyond: [Option<Instant>; 4],
    is_declared: bool,
}

impl Watch {
    pub(super) fn new(config: Config, tag: TagName) -> Self {
        Self { config, tag, level: None, beyond: [None; 4], is_declared: false }
    }

    fn source(&self) -> String {
        format!("tags/{}", self.tag)
    }

    /// Whether the tag exists.
    pub(super) fn declare(&mut self, hub: &Hub, exists: bool) {
        match (self.is_declared, exists) {
            (false, true) => {
                self.level = hub.declare_limit(&self.source(), self.config.limits(), self.config.severity);
            }
            (true, false) => {
                hub.withdraw_condition(ConditionKind::Limit, &self.source());
                (self.level, self.beyond) = (None, [None; 4]);
            }
            _ => {}
        }
        self.is_declared = exists;
    }

    /// Nobody looks after the tag any more, unless somebody declares the same.
    pub(super) fn release(&self, hub: &Hub) {
        if self.is_declared {
            hub.release_condition(ConditionKind::Limit, &self.source());
        }
    }

    /// Takes note of a value; `None` is one that is bad.
    pub(super) fn see(&mut self, hub: &Hub, value: Option<f64>, unit: &str, now: Instant) {
        if self.judge(value, now) {
            let text = self.level.zip(value).map(|(level, value)| (level, self.words(level, value, unit)));
            hub.set_limit(&self.source(), text.as_ref().map(|(level, text)| (*level, text.as_str())));
        }
    }

    /// When to look again, though the value stays.
    pub(super) fn due(&self) -> Option<Instant> {
        let waiting = LEVELS.into_iter().zip(self.beyond).filter(|(level, _)| !self.is_active(*level));
        waiting.filter_map(|(_, since)| Some(since? + self.config.delay)).min()
    }

    /// Whether the level changed.
    fn judge(&mut self, value: Option<f64>, now: Instant) -> bool {
        let Some(value) = value else {
            self.beyond = [None; 4];
            return false;
        };
        for (at, level) in LEVELS.into_iter().enumerate() {
            self.beyond[at] = self.is_beyond(level, value).then(|| self.beyond[at].unwrap_or(now));
        }
        let is_up = |(limit, since): &(Level, Option<Instant>)| {
            since.is_some_and(|since| self.is_active(*limit) || now.duration_since(since) >= self.config.delay)
        };
        let level = LEVELS.into_iter().zip(self.beyond).find(is_up).map(|(level, _)| level);
        std::mem::replace(&mut self.level, level) != level
    }

    /// An inner limit is also exceeded while the outer one is.
    fn is_active(&self, limit: Level) -> bool {
        self.level.is_some_and(|level| limit == level || limit.is_milder_than(level))
    }

    fn is_beyond(&self, limit: Level, value: f64) -> bool {
        let Config { high_high, high, low, low_low, hysteresis, .. } = self.config;
        let slack = if self.is_active(limit) { hysteresis } else { 0.0 };
        match limit {
            Level::HighHigh => high_high.is_some_and(|limit| value > limit - slack),
            Level::High => high.is_some_and(|limit| value > limit - slack),
            Level::Low => low.is_some_and(|limit| value < limit + slack),
            Level::LowLow => low_low.is_some_and(|limit| value < limit + slack),
        }
    }

    fn words(&self, level: Level, value: f64, unit: &str) -> String {
        let (words, limit) = match level {
            Level::HighHigh => ("above its high-high limit", self.config.high_high),
            Level::High => ("above its high limit", self.config.high),
            Level::Low => ("below its low limit", self.config.low),
            Level::LowLow => ("below its low-low limit", self.config.low_low),
        };
        let limit = limit.expect("a level is that of a limit");
        let text = format!("{} is {words} of {limit} {unit}", self.tag);
        format!("{}: {value}", text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use Level::{High, HighHigh, Low, LowLow};

    fn watch(toml: &str) -> Watch {
        Watch::new(toml::from_str(toml).unwrap(), TagName::new("calc/x").unwrap())
    }

    #[test]
    fn levels_come_at_once_and_go_with_hysteresis() {
        let mut watch = watch("high_high = 90\nhigh = 80\nlow = 20\nlow_low = 10\nhysteresis = 2");
        let now = Instant::now();
        let mut level = |value| {
            watch.judge(Some(value), now);
            watch.level
        };
        let values = [80.0, 80.1, 78.5, 78.0, 95.0, 88.5, 87.9, 15.0, 5.0, 11.9, 12.0, 21.9, 22.0];
        let levels = values.map(&mut level);
        let high = [None, Some(High), Some(High), None, Some(HighHigh), Some(HighHigh), Some(High)];
        assert_eq!(levels[..7], high);
        assert_eq!(levels[7..], [Some(Low), Some(LowLow), Some(LowLow), Some(Low), Some(Low), None]);
    }

    #[test]
    fn a_short_excursion_within_the_delay_is_none() {
        let mut watch = watch("high = 1\nhigh_high = 5\ndelay = '10s'");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!watch.judge(Some(2.0), at(0)) && watch.due() == Some(at(10)));
        assert!(!watch.judge(Some(0.0), at(9)) && watch.due().is_none());
        assert!(!watch.judge(Some(2.0), at(12)) && !watch.judge(Some(7.0), at(21)));
        assert!(watch.judge(Some(2.0), at(22)) && watch.level == Some(High));
        assert!(!watch.judge(None, at(23)) && watch.level == Some(High), "a bad value says nothing");
        assert!(watch.judge(Some(1.0), at(24)) && watch.level.is_none(), "over at once");
    }

    #[test]
    fn each_limit_has_a_time_of_its_own() {
        let mut watch = watch("high_high = 9\nhigh = 5\nlow = -5\ndelay = '10s'");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in 0..30 {
            let value = if seconds % 4 < 2 { 7.0 } else { -7.0 };
            assert!(!watch.judge(Some(value), at(seconds)), "beyond neither of them for long enough");
        }
        assert!(!watch.judge(Some(0.0), at(30)) && watch.due().is_none());
        assert!(!watch.judge(Some(7.0), at(40)) && !watch.judge(Some(10.0), at(48)) && watch.due() == Some(at(50)));
        assert!(watch.judge(Some(10.0), at(50)) && watch.level == Some(High) && watch.due() == Some(at(58)));
        assert!(watch.judge(Some(10.0), at(58)) && watch.level == Some(HighHigh) && watch.due().is_none());
        assert!(!watch.judge(None, at(59)) && watch.judge(Some(6.0), at(60)) && watch.level == Some(High));
        assert!(watch.judge(Some(-6.0), at(61)) && watch.level.is_none() && watch.due() == Some(at(71)));
        assert!(watch.judge(Some(-6.0), at(71)) && watch.level == Some(Low));
    }

    #[test]
    fn an_alarm_goes_on_when_its_table_begins_anew() {
        let hub = Hub::new(Clock::real());
        let now = Instant::now();
        let begin = |toml: &str| {
            let mut watch = watch(toml);
            watch.declare(&hub, true);
            watch
        };
        let condition = || hub.conditions().pop().unwrap();
        let mut first = begin("high = 1");
        first.see(&hub, Some(3.0), "", now);
        let act = crate::hub::Act::Acknowledge { id: condition().id.bytes(), comment: None };
        hub.act(ConditionKind::Limit, "tags/calc/x", act, "eva").unwrap();
        let before = condition();
        first.release(&hub);
        let mut second = begin("high = 1\ndelay = '10s'");
        hub.retire();
        second.see(&hub, None, "", now);
        second.see(&hub, Some(2.0), "", now);
        assert_eq!(condition(), before, "active and acknowledged, though not for 10 s");
        second.see(&hub, Some(0.0), "", now);
        assert!(!condition().is_active);

        second.see(&hub, Some(3.0), "", now);
        second.see(&hub, Some(3.0), "", now + Duration::from_secs(10));
        second.release(&hub);
        let third = begin("high = 2\ndelay = '10s'");
        assert!(third.level.is_none() && !condition().is_active, "it is another limit");
        third.release(&hub);
        hub.retire();
        assert!(hub.conditions().is_empty());
    }

    #[test]
    fn what_is_told_has_the_limit_and_the_value() {
        let hub = Hub::new(Clock::real());
        let mut watch = watch("high = 80\nseverity = 700");
        watch.declare(&hub, true);
        watch.see(&hub, Some(83.2), "kW", Instant::now());
        let told = hub.conditions().pop().unwrap();
        assert_eq!((told.message.as_str(), told.severity), ("calc/x is above its high limit of 80 kW: 83.2", 700));
        watch.see(&hub, Some(10.0), "kW", Instant::now());
        assert!(!hub.conditions().pop().unwrap().is_active);
        watch.declare(&hub, false);
        assert!(hub.conditions().is_empty());
    }

    #[test]
    fn wrong_limits_are_said() {
        for (toml, within, words) in [
            ("high = 1", false, "says not which tag"),
            ("tag = 'a'\nhigh = 1", true, "leave it out"),
            ("tag = 'a//b'\nhigh = 1", false, "empty segment"),
            ("tag = 'a'", false, "has no limit"),
            ("tag = 'a'\nhigh = 1\nlow = 2", false, "low_low < low"),
            ("tag = 'a'\nhigh = nan", false, "must be numbers"),
            ("tag = 'a'\nhigh = 1\nhysteresis = -1", false, "not negative"),
            ("tag = 'a'\nhigh = 1\nlow = -1\nhysteresis = 2", false, "use less than the 2 between -1 and 1"),
            ("tag = 'a'\nhigh_high = 1\nlow_low = -1\nlow = 0\nhysteresis = 1", false, "the 1 between 0 and 1"),
            ("tag = 'a'\nhigh = 1\ndelay = '90y'", false, "too long; use \"30d\""),
            ("tag = 'a'\nhigh = 1\nseverity = 0", false, "1 to 1000"),
        ] {
            let config: Config = toml::from_str(toml).unwrap();
            let findings = config.check(&(0..0), within);
            assert!(findings.len() == 1 && findings[0].what.contains(words), "{toml}: {findings:?}");
        }
    }
}
