//! Tags for the sensors that are found, and their readings.
//!
//!     found ──► there: read at each interval ──not found any more──► gone: BadNotConnected, last value ──found──► there
//!
//! A device keeps its name while the program runs, and so do its tags: one that is pulled out leaves them behind. sysfs
//! announces nothing that this could wait for without being root everywhere, so it is looked at every few seconds, and at
//! once when a reading says that a device has gone. Files of sysfs answer when the sensor has, so they are read on a
//! thread that may block; within one table one after the other.

use super::Config;
use super::channel::Channel;
use super::scan::{Device, Key, scan};
use super::{Source, SourceError};
use crate::base::{Selection, Stop};
use crate::hub::{Hub, Registration};
use crate::model::{DataType, Quality, Sample, Status, TagId, TagName, TagSpec, Value};
use async_trait::async_trait;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// How often devices are looked for.
const LOOK: Duration = Duration::from_secs(5);

pub(super) struct Sensors {
    config: Config,
    include: Selection,
    exclude: Selection,
    hub: Hub,
    tags: Registration,
    devices: HashMap<Key, Known>,
    looked: Instant,
}

/// A device that was found once.
struct Known {
    /// `hwmon/lm75`, `hwmon/lm75 2`.
    name: String,
    is_there: bool,
    /// By name. `None` of the channel: it is not there now.
    channels: HashMap<String, (TagId, Option<Channel>)>,
}

type Reading = Result<f64, Quality>;

impl Sensors {
    pub(super) fn register(config: Config, hub: &Hub) -> Result<Self, SourceError> {
        let tags = hub.register(&format!("sensors {}", config.name), Vec::new())?;
        let (include, exclude) = (Selection::new(&config.include), Selection::new(&config.exclude));
        let devices = HashMap::new();
        let mut sensors = Self { include, exclude, hub: hub.clone(), tags, devices, looked: Instant::now(), config };
        // So that the tags are there with those of the other sources; nothing is measured for it.
        sensors.take_in(scan(&sensors.config.sysfs))?;
        Ok(sensors)
    }

    /// Makes what is known be what was found.
    fn take_in(&mut self, found: Vec<Device>) -> Result<(), SourceError> {
        self.looked = Instant::now();
        let gone: Vec<Key> =
            self.devices.keys().filter(|key| found.iter().all(|one| one.key != **key)).cloned().collect();
        for key in gone {
            self.lose(&key);
        }
        for Device { key, channels, .. } in found {
            let name = self.name_of(&key);
            let known = self.devices.get(&key);
            let wanted: Vec<Channel> = channels.into_iter().filter(|channel| self.is_wanted(&name, channel)).collect();
            if wanted.is_empty() {
                continue;
            }
            let is_new = |channel: &&Channel| known.is_none_or(|known| !known.channels.contains_key(&channel.name));
            let new: Vec<&Channel> = wanted.iter().filter(is_new).collect();
            let specs = new.iter().map(|channel| self.spec(&name, &key, channel)).collect::<Result<Vec<_>, _>>()?;
            let first = self.tags.tags().len();
            self.tags.extend(specs)?;
            let added = new.iter().map(|channel| channel.name.clone()).zip(self.tags.tags()[first..].iter().copied());
            let added: Vec<(String, TagId)> = added.collect();
            let known = self.devices.entry(key).or_insert_with(|| {
                info!(sensor = %name, "Found a sensor.");
                Known { name, is_there: true, channels: HashMap::new() }
            });
            if !known.is_there {
                known.is_there = true;
                self.hub.source_back(&format!("{}/{}", self.config.name, known.name));
            }
            known.channels.extend(added.into_iter().map(|(name, tag)| (name, (tag, None))));
            let mut wanted: HashMap<String, Channel> = wanted.into_iter().map(|one| (one.name.clone(), one)).collect();
            for (name, (tag, channel)) in &mut known.channels {
                let now = wanted.remove(name);
                if now.is_none() && channel.is_some() {
                    let quality = Quality::new(Status::BAD_NOT_CONNECTED, "the driver does not offer it any more");
                    self.hub.degrade(&[*tag], &quality);
                }
                *channel = now;
            }
        }
        Ok(())
    }

    /// The first of several twins has the plain name.
    fn name_of(&self, key: &Key) -> String {
        if let Some(known) = self.devices.get(key) {
            return known.name.clone();
        }
        let plain = format!("{}/{}", key.kind, key.name);
        let numbered = (2..).map(|number| format!("{plain} {number}"));
        let is_free = |name: &String| self.devices.values().all(|known| known.name != *name);
        std::iter::once(plain.clone()).chain(numbered).find(is_free).expect("there are numbers enough")
    }

    fn is_wanted(&self, device: &str, channel: &Channel) -> bool {
        let name = format!("{device}/{}", channel.name);
        self.include.contains(&name) && !self.exclude.contains(&name)
    }

    fn spec(&self, device: &str, key: &Key, channel: &Channel) -> Result<TagSpec, SourceError> {
        let name = TagName::new(&format!("{}/{device}/{}", self.config.name, channel.name))?;
        let description = format!("{} by {} ({})", channel.measure.what, key.name, key.kind);
        Ok(TagSpec::new(name, DataType::Double).unit(channel.measure.unit).described(description))
    }

    fn lose(&mut self, key: &Key) {
        let Some(known) = self.devices.get_mut(key).filter(|known| known.is_there) else { return };
        known.is_there = false;
        let reason = "the sensor is not there any more";
        let tags: Vec<TagId> = known.channels.values().map(|(tag, _)| *tag).collect();
        known.channels.values_mut().for_each(|(_, channel)| *channel = None);
        self.hub.degrade(&tags, &Quality::new(Status::BAD_NOT_CONNECTED, reason));
        self.hub.source_lost(&format!("{}/{}", self.config.name, known.name), reason);
    }

    fn channels(&self) -> Vec<(TagId, Channel)> {
        let all = self.devices.values().flat_map(|known| known.channels.values());
        all.filter_map(|(tag, channel)| Some((*tag, channel.clone()?))).collect()
    }

    /// Whether some device has gone.
    fn publish(&self, readings: Vec<(TagId, Reading)>) -> bool {
        let now = self.hub.now();
        let is_gone = |(_, reading): &(TagId, Reading)| {
            reading.as_ref().is_err_and(|quality| quality.status == Status::BAD_NOT_CONNECTED)
        };
        let any_gone = readings.iter().any(is_gone);
        let sample = |(tag, reading)| match reading {
            Ok(value) => Sample::good(tag, Value::Double(value), now),
            Err(quality) => Sample { value: self.hub.read(tag).value, ..Sample::bad(tag, quality, now) },
        };
        self.hub.publish(readings.into_iter().map(sample).collect());
        any_gone
    }

    /// One reading of all channels, and a look around if it is time for one.
    async fn round(&mut self) {
        let channels = self.channels();
        let read = move || channels.into_iter().map(|(tag, channel)| (tag, channel.read())).collect();
        let any_gone = self.publish(blocking(read).await);
        if any_gone || self.looked.elapsed() >= LOOK {
            let sysfs = self.config.sysfs.clone();
            let found = blocking(move || scan(&sysfs)).await;
            if let Err(error) = self.take_in(found) {
                // Again in some seconds, if it is still there then.
                warn!(table = %self.config.name, %error, "A sensor can have no tags.");
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading files does not panic")
}

#[async_trait]
impl Source for Sensors {
    async fn run(&mut self, stop: &Stop) {
        let mut ticks = tokio::time::interval(self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.stopped() => return,
            }
            tokio::select! {
                () = self.round() => {}
                () = stop.stopped() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::model::{EventKind, Happening};
    use std::fs;
    use std::path::Path;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn lm75(root: &Path, number: u32, value: &str) {
        write(root, &format!("class/hwmon/hwmon{number}/name"), "lm75");
        write(root, &format!("class/hwmon/hwmon{number}/temp1_input"), value);
        write(root, &format!("class/hwmon/hwmon{number}/fan1_input"), "900");
    }

    fn sensors(root: &Path, more: &str, hub: &Hub) -> Sensors {
        let config = toml::from_str(&format!("name = 's'\nsysfs = {root:?}\n{more}")).unwrap();
        Sensors::register(config, hub).unwrap()
    }

    fn shown(hub: &Hub) -> Vec<String> {
        let text = |(tag, spec): (TagId, std::sync::Arc<TagSpec>)| {
            let Sample { value, quality, .. } = hub.read(tag);
            format!("{} {:?} {}", spec.name, value.as_f64(), quality.status)
        };
        let mut shown: Vec<String> = hub.tags().into_iter().map(text).collect();
        shown.sort();
        shown
    }

    #[tokio::test]
    async fn sensors_come_go_and_come_back_under_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let (root, hub) = (folder.path(), Hub::new(Clock::real()));
        lm75(root, 4, "21500");
        let mut sensors = sensors(root, "exclude = ['hwmon/*/fan*']", &hub);
        assert_eq!(shown(&hub), ["s/hwmon/lm75/temp1 None BadWaitingForInitialData"]);
        sensors.round().await;
        // A twin that comes later does not take the name, though it would be found first.
        lm75(root, 1, "5000");
        sensors.take_in(scan(root)).unwrap();
        sensors.round().await;
        let both = ["s/hwmon/lm75 2/temp1 Some(5.0) Good", "s/hwmon/lm75/temp1 Some(21.5) Good"];
        assert_eq!(shown(&hub), both);

        fs::remove_dir_all(root.join("class/hwmon/hwmon4")).unwrap();
        sensors.round().await;
        let one = ["s/hwmon/lm75 2/temp1 Some(5.0) Good", "s/hwmon/lm75/temp1 Some(21.5) BadNotConnected"];
        assert_eq!(shown(&hub), one);
        sensors.round().await;
        lm75(root, 4, "garbage");
        sensors.take_in(scan(root)).unwrap();
        sensors.round().await;
        assert!(shown(&hub)[1].ends_with("Some(21.5) BadSensorFailure"), "{:?}", shown(&hub));
        lm75(root, 4, "21500");
        sensors.round().await;
        assert_eq!(shown(&hub), both);
        let kinds: Vec<EventKind> = hub
            .recent()
            .into_iter()
            .map(|one| match one {
                Happening::Event(event) => event.kind,
                Happening::Condition(_) => unreachable!("there are none"),
            })
            .collect();
        assert_eq!(kinds, [EventKind::SourceLost, EventKind::SourceBack]);
    }

    #[tokio::test]
    async fn what_is_plugged_in_again_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (root, hub) = (folder.path(), Hub::new(Clock::real()));
        let plug = |hid: &str, number: u32| {
            let device = root.join("devices/usb1/1-3/1-3:1.0").join(hid);
            write(&device, "x", "");
            write(root, &format!("class/hwmon/hwmon{number}/name"), "corsair");
            write(root, &format!("class/hwmon/hwmon{number}/temp1_input"), "30000");
            std::os::unix::fs::symlink(device, root.join(format!("class/hwmon/hwmon{number}/device"))).unwrap();
        };
        plug("0003:1B1C:1C0B.0004", 3);
        let mut sensors = sensors(root, "", &hub);
        fs::remove_dir_all(root.join("class/hwmon/hwmon3")).unwrap();
        sensors.take_in(scan(root)).unwrap();
        assert_eq!(shown(&hub), ["s/hwmon/corsair/temp1 None BadNotConnected"]);
        plug("0003:1B1C:1C0B.0005", 4);
        sensors.take_in(scan(root)).unwrap();
        sensors.round().await;
        assert_eq!(shown(&hub), ["s/hwmon/corsair/temp1 Some(30.0) Good"]);
    }

    #[test]
    fn a_name_that_is_taken_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::new(Clock::real());
        lm75(folder.path(), 0, "1");
        let _first = sensors(folder.path(), "", &hub);
        let config = toml::from_str(&format!("name = 's'\nsysfs = {:?}", folder.path())).unwrap();
        let error = Sensors::register(config, &hub).err().unwrap().to_string();
        assert!(error.contains("exists already"), "{error}");
    }
}
