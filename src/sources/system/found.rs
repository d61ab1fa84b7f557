//! Tags for what a machine may have several of and what may come and go: network interfaces, disks.

use super::read::Reading;
use crate::hub::{Hub, RegisterError, Registration};
use crate::model::{DataType, Quality, Sample, Status, TagId, TagName, TagSpec};
use std::collections::{HashMap, HashSet};
use tracing::warn;

/// Of one kind, those that have gone as well; tags stay until the program ends.
const MOST: usize = 64;

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
pub(super) struct FoundTags {
    tags: HashMap<TagName, TagId>,
    /// `system/network/eth0`
    folders: HashSet<String>,
    is_full_said: bool,
}

impl FoundTags {
    /// Registers what is new, and gives the samples of all.
    pub(super) fn take(
        &mut self,
        hub: &Hub,
        tags: &mut Registration,
        found: Vec<Found>,
    ) -> Result<Vec<Sample>, RegisterError> {
        let now = hub.now();
        let is_new = |one: &&Found| !self.tags.contains_key(&one.spec.name);
        let mut new: Vec<TagSpec> = found.iter().filter(is_new).map(|one| one.spec.clone()).collect();
        new.retain(|spec| self.has_room(spec.name.as_str()));
        if !new.is_empty() {
            let names: Vec<TagName> = new.iter().map(|spec| spec.name.clone()).collect();
            let first = tags.tags().len();
            tags.extend(new)?;
            self.tags.extend(names.into_iter().zip(tags.tags()[first..].iter().copied()));
        }
        let mut gone = self.tags.clone();
        let mut samples = Vec::with_capacity(self.tags.len());
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

    /// Whether a tag may be added, which is one of `system/<kind>/<one of them>`.
    fn has_room(&mut self, tag: &str) -> bool {
        let Some((folder, _)) = tag.rsplit_once('/') else { return false };
        let kind = |folder: &str| folder.rsplit_once('/').map(|(kind, _)| kind.to_owned());
        let is_known = self.folders.contains(folder);
        if !is_known && self.folders.iter().filter(|known| kind(known) == kind(folder)).count() >= MOST {
            if !std::mem::replace(&mut self.is_full_said, true) {
                warn!(folder, "There were {MOST} of this kind since the start; further ones get no tags.");
            }
            return false;
        }
        is_known || self.folders.insert(folder.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::model::Value;

    #[test]
    fn what_comes_and_goes_all_the_time_costs_a_bounded_number_of_tags() {
        let hub = Hub::new(Clock::real());
        let mut tags = hub.register("system", Vec::new()).unwrap();
        let mut known = FoundTags::default();
        let mut look = |name: &str| {
            let spec = spec(name, ("up", DataType::Boolean, "", "x")).unwrap();
            known.take(&hub, &mut tags, vec![Found { spec, reading: Ok(Value::Boolean(true)) }]).unwrap();
        };
        (0..500).for_each(|number| look(&format!("network/wwan{number}")));
        look("storage/sda");
        assert_eq!(hub.tags().len(), MOST + 1, "one kind takes no room from another");
    }

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
