//! How the device itself is: load, memory, disk, temperature, uptime.
//!
//! `[system]` makes the tags `system/...`. They are read from procfs, sysfs and statvfs (`read.rs`, tested with recorded
//! files); what a machine does not have (a temperature in most virtual ones) is BadNotSupported with the reason, so that
//! the same tags exist on every device.
//!
//! What a machine may have several of is found: `network.rs`, `storage.rs`; `found.rs` has its tags. `cameras.rs` counts the
//! cameras by their states. How far the uplink is behind is for the uplink to say, with tags of its own.
//!
//! It also looks after two conditions: `disk.rs` says when the disk is nearly full, `clock.rs` when the clock is not set.

mod cameras;
pub mod clock;
mod disk;
mod found;
mod network;
mod read;
mod storage;

use super::{Finding, Place, Source, SourceError};
use crate::base::{Stop, duration};
use crate::hub::{Hub, Registration};
use crate::model::{ConditionKind, DataType, Sample, TagName, TagNameError, TagSpec};
use async_trait::async_trait;
use disk::Disk;
use found::{Found, FoundTags};
use read::{Readings, Root};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tracing::warn;

/// `[system]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time between two readings. Default: "5s".
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// The file system that the disk tags are about. Default: the one that holds the data folder.
    pub disk: Option<PathBuf>,
    /// Percent of the file system in use from which on it is nearly full (the condition DiskNearlyFull); over again 2 % below.
    /// Default: 90.
    pub disk_nearly_full: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), disk: None, disk_nearly_full: 90.0 }
    }
}

impl Config {
    /// What there is without a table of its own: enough to see how a device fares, at little cost.
    pub fn seldom() -> Self {
        Self { interval: Duration::from_secs(60), ..Self::default() }
    }
}

impl super::Config for Config {
    fn table(&self) -> &'static str {
        "[system]"
    }

    fn name(&self) -> &str {
        SOURCE
    }

    fn check(&self) -> Vec<Finding> {
        let mut faults = Vec::new();
        if self.interval < Duration::from_millis(100) {
            faults.push(("interval", "it is too short; use \"100ms\" or more".into()));
        }
        if !(disk::HYSTERESIS..=100.0).contains(&self.disk_nearly_full) {
            let (found, least) = (self.disk_nearly_full, disk::HYSTERESIS);
            faults.push(("disk_nearly_full", format!("{found} is out of range; use {least} to 100 percent")));
        }
        if let Some(disk) = self.disk.as_ref().filter(|disk| !disk.is_dir()) {
            let what = format!("{disk:?} is no folder; name one on the file system to watch, as in \"/data\"");
            faults.push(("disk", what));
        }
        faults.into_iter().map(Finding::from).collect()
    }

    fn register(&self, place: &Place, hub: &Hub) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(System::register(self.clone(), place.data_dir.clone(), hub)?))
    }
}

/// The source, with its tags registered.
struct System {
    interval: Duration,
    hub: Hub,
    tags: Registration,
    root: Root,
    /// Network interfaces and disks.
    found: FoundTags,
    readings: Readings,
    disk: Disk,
}

/// What events and conditions of the device itself are about.
const SOURCE: &str = "system";

fn specs() -> Result<Vec<TagSpec>, TagNameError> {
    let spec = |name: &str, data_type, unit: &str, description: &str| {
        let name = TagName::new(&format!("system/{name}"))?;
        Ok(TagSpec::new(name, data_type).unit(unit).described(description))
    };
    // In the order of `Readings::take` and `cameras::count`.
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
        spec("disk/read_only", DataType::Boolean, "", "The file system that holds the data cannot be written")?,
        spec("firmware/slot", DataType::String, "", "The slot of RAUC that runs")?,
        spec("cameras/idle", DataType::UInt32, "", "Cameras that nobody wants pictures of")?,
        spec("cameras/streaming", DataType::UInt32, "", "Cameras that deliver")?,
        spec("cameras/disconnected", DataType::UInt32, "", "Cameras that are not there")?,
        spec("cameras/faulty", DataType::UInt32, "", "Cameras that are there and cannot deliver")?,
    ])
}

#[async_trait]
impl Source for System {
    async fn run(&mut self, stop: &Stop) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.take(),
                () = stop.stopped() => return,
            }
        }
    }
}

impl System {
    fn register(config: Config, data_dir: PathBuf, hub: &Hub) -> Result<Self, SourceError> {
        let tags = hub.register("system", specs()?)?;
        let path = config.disk.unwrap_or(data_dir);
        let is_nearly_full = hub.declare_condition(ConditionKind::DiskNearlyFull, SOURCE);
        hub.declare_condition(ConditionKind::ClockNotSet, SOURCE);
        let disk = Disk::new(path.clone(), config.disk_nearly_full, is_nearly_full);
        let root = Root::default();
        let readings = Readings::new(root.clone(), path);
        let found = FoundTags::default();
        let mut system = Self { interval: config.interval, hub: hub.clone(), tags, root, found, readings, disk };
        // So that these tags are there with the others.
        let found = system.look();
        system.found.take(hub, &mut system.tags, found)?;
        Ok(system)
    }

    fn look(&self) -> Vec<Found> {
        let mut found = network::look(&self.root.sys, &network::addresses());
        found.extend(storage::look(&self.root.sys));
        found
    }

    fn take(&mut self) {
        let now = self.hub.now();
        let readings = self.readings.take().into_iter().chain(cameras::count(&self.hub).into_iter().map(Ok));
        let samples = self.tags.tags().iter().zip(readings).map(|(&tag, reading)| match reading {
            Ok(value) => Sample::good(tag, value, now),
            Err(quality) => Sample::bad(tag, quality, now),
        });
        self.hub.publish(samples.collect());
        let found = self.look();
        match self.found.take(&self.hub, &mut self.tags, found) {
            Ok(samples) => self.hub.publish(samples),
            Err(error) => warn!(%error, "A part of this machine can have no tags."),
        }
        // Else nobody knows how full it is, and the tags say why.
        if let Ok(fault) = self.disk.look() {
            self.hub.set_condition(ConditionKind::DiskNearlyFull, SOURCE, fault.as_deref());
        }
        let fault = clock::fault(now, Path::new(clock::TIMESYNC));
        self.hub.set_condition(ConditionKind::ClockNotSet, SOURCE, fault);
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for kind in [ConditionKind::DiskNearlyFull, ConditionKind::ClockNotSet] {
            self.hub.release_condition(kind, SOURCE);
        }
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
        let readings = Readings::new(Root::default(), "/".into()).take().len();
        let cameras = cameras::count(&Hub::new(Clock::real())).len();
        assert_eq!(specs().unwrap().len(), readings + cameras);
    }
}
