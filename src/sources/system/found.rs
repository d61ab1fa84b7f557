//! Tags for what a machine may have several of and what may come and go: network interfaces, disks.

use super::read::Reading;
use crate::hub::{Hub, RegisterError, Registration};
use crate::model::{DataType, Quality, Sample, Status, TagId, TagName, TagSpec};
use std::collections::HashMap;

/// Something that was found now, with its value.
pub(super) struct Found {
    pub(super) spec: TagSpec,
    pub(super) reading: Reading,
}

/// Below the folder of something whose name the kernel gives; `None` if that cannot be part of a tag's name.
pub(super) fn spec(folder: &str, tag: (&str, DataType, &'static str, &'static str)) -> Option<TagSpec> {
    let (name, data_type, unit, description) = tag;
    let name = TagName::new(&format!("system/{folder}/{name}")).ok()?;
    Some(TagSpec::new(name, data_type).unit(unit).described(description))
}

/// The tags of what was found once. They stay when it goes, bad.
#[derive(Default)]
pub(super) struct FoundTags(HashMap<TagName, TagId>);

impl FoundTags {
    /// Registers what is new, and gives the samples of all.
    pub(super) fn take(
        &mut self,
        hub: &Hub,
        tags: &mut Registration,
        found: Vec<Found>,
    ) -> Result<Vec<Sample>, RegisterError> {
        let now = hub.now();
        let new: Vec<TagSpec> =
            found.iter().filter(|one| !self.0.contains_key(&one.spec.name)).map(|one| one.spec.clone()).collect();
        if !new.is_empty() {
            let names: Vec<TagName> = new.iter().map(|spec| spec.name.clone()).collect();
            let first = tags.tags().len();
            tags.extend(new)?;
            self.0.extend(names.into_iter().zip(tags.tags()[first..].iter().copied()));
        }
        let mut gone = self.0.clone();
        let mut samples = Vec::with_capacity(self.0.len());
        for Found { spec, reading } in found {
            if let Some(tag) = gone.remove(&spec.name) {
                samples.push(match reading {
                    Ok(value) => Sample::good(tag, value, now),
                    Err(quality) => Sample::bad(tag, quality, now),
                });
            }
        }
        let gone = gone.into_values().filter(|tag| hub.read(*tag).quality.status != Status::BAD_NOT_CONNECTED);
        let quality = Quality::new(Status::BAD_NOT_CONNECTED, "it is not there any more");
        samples.extend(gone.map(|tag| Sample { value: hub.read(tag).value, ..Sample::bad(tag, quality.clone(), now) }));
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::model::Value;

    #[test]
    fn what_goes_stays_behind_bad_and_comes_back() {
        let hub = Hub::new(Clock::real());
        let mut tags = hub.register("system", Vec::new()).unwrap();
        let mut known = FoundTags::default();
        let mut look = |names: &[&str]| {
            let one = |name: &&str| {
                let spec = spec(&format!("network/{name}"), ("up", DataType::Boolean, "", "x"))?;
                Some(Found { spec, reading: Ok(Value::Boolean(true)) })
            };
            let samples = known.take(&hub, &mut tags, names.iter().filter_map(one).collect()).unwrap();
            let count = samples.len();
            hub.publish(samples);
            let quality = |name| Some(hub.read(hub.find(&TagName::new(name).ok()?)?).quality.status);
            (count, quality("system/network/eth0/up"), quality("system/network/usb0/up"))
        };
        let (good, gone) = (Some(Status::GOOD), Some(Status::BAD_NOT_CONNECTED));
        assert_eq!(look(&["eth0"]), (1, good, None));
        assert_eq!(look(&["eth0", "usb0", "odd "]), (2, good, good));
        assert_eq!(look(&["eth0"]), (2, good, gone));
        assert_eq!(look(&["eth0"]), (1, good, gone), "said once");
        assert_eq!(look(&["usb0"]), (2, gone, good));
    }
}
