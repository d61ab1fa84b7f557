//! How the device itself is: load, memory, disk, temperature, uptime.
//!
//! `[system]` makes the tags `system/...`. They are read from procfs, sysfs and statvfs (`read.rs`, tested with recorded
//! files); what a machine does not have (a temperature in most virtual ones) is BadNotSupported with the reason, so that
//! the same tags exist on every device.

mod read;

use crate::base::{Stop, duration};
use crate::hub::{Hub, RegisterError, Registration};
use crate::model::{DataType, Sample, TagName, TagNameError, TagSpec};
use read::{Readings, Root};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// `[system]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time between two readings. Default: "5s".
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// The file system that the disk tags are about. Default: the one that holds the data folder.
    pub disk: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), disk: None }
    }
}

impl Config {
    /// What is wrong with the values, as (key, what and what would be right).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.interval < Duration::from_millis(100) {
            faults.push(("interval", "it is too short; use \"100ms\" or more".into()));
        }
        if let Some(disk) = self.disk.as_ref().filter(|disk| !disk.is_dir()) {
            faults.push((
                "disk",
                format!("{disk:?} is no folder; name one on the file system to watch, as in \"/data\""),
            ));
        }
        faults
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error(transparent)]
    Tag(#[from] RegisterError),
}

/// The source, with its tags registered.
pub struct System {
    interval: Duration,
    hub: Hub,
    tags: Registration,
    readings: Readings,
}

fn specs() -> Result<Vec<TagSpec>, TagNameError> {
    let spec = |name: &str, data_type, unit: &str, description: &str| {
        let name = TagName::new(&format!("system/{name}"))?;
        Ok(TagSpec::new(name, data_type).unit(unit).described(description))
    };
    // In the order of `Readings::take`.
    Ok(vec![
        spec("cpu/temperature", DataType::Double, "°C", "Temperature of the processor")?.range(0.0, 100.0),
        spec("cpu/usage", DataType::Double, "%", "Share of the time that all cores were busy")?.range(0.0, 100.0),
        spec("cpu/load", DataType::Double, "", "Processes that run or wait, averaged over one minute")?,
        spec("memory/total", DataType::UInt64, "B", "Memory of the device")?,
        spec("memory/available", DataType::UInt64, "B", "Memory that programs can still have without swapping")?,
        spec("memory/resident", DataType::UInt64, "B", "Memory that this program uses")?,
        spec("disk/total", DataType::UInt64, "B", "Size of the file system that holds the data")?,
        spec("disk/available", DataType::UInt64, "B", "Space that is left on it")?,
        spec("uptime", DataType::Double, "s", "Time since the device booted")?,
    ])
}

impl System {
    pub fn register(config: Config, data_dir: PathBuf, hub: &Hub) -> Result<Self, SpawnError> {
        let tags = hub.register("system", specs()?)?;
        let readings = Readings::new(Root::default(), config.disk.unwrap_or(data_dir));
        Ok(Self { interval: config.interval, hub: hub.clone(), tags, readings })
    }

    /// Until the stop.
    pub async fn run(&mut self, stop: &Stop) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.take(),
                () = stop.stopped() => return,
            }
        }
    }

    fn take(&mut self) {
        let now = self.hub.now();
        let samples = self.tags.tags().iter().zip(self.readings.take()).map(|(&tag, reading)| match reading {
            Ok(value) => Sample::good(tag, value, now),
            Err(quality) => Sample::bad(tag, quality, now),
        });
        self.hub.publish(samples.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::model::{TagName, Value};

    #[tokio::test]
    async fn this_machine_has_memory_a_disk_and_an_uptime() {
        let hub = Hub::new(Clock::real());
        let mut system = System::register(Config::default(), "/".into(), &hub).unwrap();
        system.take();
        let read = |name: &str| hub.read(hub.find(&TagName::new(name).unwrap()).unwrap());
        for name in ["memory/total", "memory/available", "memory/resident", "disk/total", "uptime"] {
            let sample = read(&format!("system/{name}"));
            assert!(sample.quality.is_good(), "{name}: {}", sample.quality);
            assert!(sample.value.as_f64().unwrap() > 0.0, "{name}");
        }
        let usage = read("system/cpu/usage");
        assert!(matches!(usage.value, Value::Double(v) if (0.0..=100.0).contains(&v)) || usage.quality.is_bad());
    }

    #[test]
    fn as_many_readings_as_tags() {
        assert_eq!(specs().unwrap().len(), Readings::new(Root::default(), "/".into()).take().len());
    }
}
