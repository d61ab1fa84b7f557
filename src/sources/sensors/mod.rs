//! The sensors that Linux has drivers for, found by themselves: `hwmon` (temperatures, fans, voltages of boards) and `iio`
//! (converters, environment, motion).
//!
//!     scan.rs      sysfs ──► devices and their channels
//!     channel.rs   one channel: its unit, its value now
//!     run.rs       tags for what is found, readings at an interval, devices that come and go
//!
//! A tag is called `<name>/hwmon/<driver>/<label>` or `<name>/iio/<device>/<label>`; a number tells twins apart. Devices are
//! told from each other by their place in the machine, which a reboot does not change as it does `hwmon3`.

mod channel;
mod run;
mod scan;

use super::{Finding, Place, Source, SourceError};
use crate::base::duration;
use crate::base::selection::check_pattern;
use crate::hub::Hub;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// `[[sensors]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of its tags. Example: "sensors".
    pub name: String,
    /// Time between two readings. Default: "1s".
    #[serde(default = "default_interval", deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// Which channels, by their name below the folder: `*` stands for any part of a segment, `**` for any number of segments.
    /// Default: ["**"].
    #[serde(default = "default_include")]
    pub include: Vec<String>,
    /// Which of these not. Example: ["hwmon/*/fan*"]. Default: none.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Where sysfs is. Default: "/sys".
    #[serde(default = "default_sysfs")]
    pub sysfs: PathBuf,
}

const fn default_interval() -> Duration {
    Duration::from_secs(1)
}

fn default_include() -> Vec<String> {
    vec!["**".into()]
}

fn default_sysfs() -> PathBuf {
    "/sys".into()
}

impl super::Config for Config {
    fn table(&self) -> &'static str {
        "[[sensors]]"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Vec<Finding> {
        let mut faults = Vec::new();
        if self.interval < Duration::from_millis(100) {
            faults.push(("interval", "it is too short; use \"100ms\" or more".into()));
        }
        faults.extend(self.include.iter().filter_map(|pattern| Some(("include", check_pattern(pattern)?))));
        faults.extend(self.exclude.iter().filter_map(|pattern| Some(("exclude", check_pattern(pattern)?))));
        if !self.sysfs.is_dir() {
            faults.push(("sysfs", format!("{:?} is no folder; leave it out for \"/sys\"", self.sysfs)));
        }
        faults.into_iter().map(Finding::from).collect()
    }

    fn register(&self, _: &Place, hub: &Hub) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(run::Sensors::register(self.clone(), hub)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Config as _;

    #[test]
    fn what_is_wrong_is_said() {
        for (toml, words) in [
            ("name = 'a//b'", "empty segment"),
            ("name = 'a'\ninterval = '1ms'", "too short"),
            ("name = 'a'\ninclude = ['hwmon//x']", "empty segment"),
            ("name = 'a'\nexclude = ['/x']", "empty segment"),
            ("name = 'a'\nsysfs = '/does/not/exist'", "is no folder"),
        ] {
            let found = toml::from_str::<Config>(toml).unwrap().findings();
            assert!(found.len() == 1 && found[0].what.contains(words), "{toml}: {found:?}");
        }
    }
}
