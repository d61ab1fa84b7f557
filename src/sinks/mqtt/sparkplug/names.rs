//! Where a tag is said, by its name.
//!
//! | tag                                | Sparkplug                                            |
//! |------------------------------------|------------------------------------------------------|
//! | `plc/motor/speed`                  | device `plc`, metric `motor/speed`                   |
//! | `cameras/line1/State`              | device `line1`, metric `State`                       |
//! | `device/version`                   | the node's metric `Properties/version`               |
//! | `system/cpu/usage`, `store/`, `mqtt/` | the node's metric `Properties/system/cpu/usage`   |
//! | `answer` (in no folder)            | the node's metric `answer`                           |
//!
//! A camera whose name a source has already is the device `cameras-line1`. What cannot stand in a topic is replaced; if that
//! makes two names one, the later gets a number. A device's id depends on the names of all folders, and on nothing else.

use crate::mqtt::sparkplug::SparkplugId;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Folders of this program's own tags: they tell of the node, and are no devices.
const OWN: [&str; 3] = ["system", "store", "mqtt"];

const CAMERAS: &str = "cameras/";

/// The node's metrics about itself.
const PROPERTIES: &str = "Properties/";

/// The folder that is the device, if it is one, and the name of the metric.
pub(super) fn spot(name: &str) -> (Option<&str>, String) {
    if let Some(rest) = name.strip_prefix("device/") {
        return (None, format!("{PROPERTIES}{rest}"));
    }
    match name.split_once('/') {
        None => (None, name.to_owned()),
        Some((folder, _)) if OWN.contains(&folder) => (None, format!("{PROPERTIES}{name}")),
        Some(("cameras", rest)) => match rest.split_once('/') {
            None => (None, format!("{PROPERTIES}{name}")),
            Some((camera, metric)) => (Some(&name[..CAMERAS.len() + camera.len()]), metric.to_owned()),
        },
        Some((folder, metric)) => (Some(folder), metric.to_owned()),
    }
}

/// Whether there are several devices in a folder.
pub(super) fn is_above_devices(folder: &str) -> bool {
    CAMERAS.strip_suffix('/') == Some(folder)
}

/// The folder of a camera's tags.
pub(super) fn of_camera(camera: &str) -> String {
    format!("{CAMERAS}{camera}")
}

/// The ids of devices, by their folders.
pub(super) fn devices(folders: &BTreeSet<Arc<str>>) -> BTreeMap<Arc<str>, Arc<str>> {
    let (cameras, sources): (Vec<_>, Vec<_>) = folders.iter().partition(|folder| folder.starts_with(CAMERAS));
    let mut taken = HashSet::new();
    let mut devices = BTreeMap::new();
    for folder in sources.into_iter().chain(cameras) {
        let mut wanted = SparkplugId::nearest(folder.strip_prefix(CAMERAS).unwrap_or(folder)).to_string();
        if folder.starts_with(CAMERAS) && taken.contains(&wanted) {
            wanted = SparkplugId::nearest(folder).to_string();
        }
        let numbered = (2..).map(|number| format!("{wanted}-{number}"));
        let id = std::iter::once(wanted.clone()).chain(numbered).find(|id| !taken.contains(id));
        let id = id.expect("there are more numbers than devices");
        taken.insert(id.clone());
        devices.insert(folder.clone(), id.into());
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_is_the_device_but_for_the_programs_own() {
        for (name, folder, metric) in [
            ("plc/motor/speed", Some("plc"), "motor/speed"),
            ("cameras/line1/Controls/gain", Some("cameras/line1"), "Controls/gain"),
            ("cameras/count", None, "Properties/cameras/count"),
            ("device/slot", None, "Properties/slot"),
            ("system/cpu/usage", None, "Properties/system/cpu/usage"),
            ("store/bytes", None, "Properties/store/bytes"),
            ("mqtt/queue", None, "Properties/mqtt/queue"),
            ("systems/x", Some("systems"), "x"),
            ("answer", None, "answer"),
        ] {
            assert_eq!(spot(name), (folder, metric.to_owned()), "{name}");
        }
    }

    #[test]
    fn ids_of_devices_are_unique_and_fit_into_a_topic() {
        let folders = ["plc", "a+b", "a#b", "a-b", "line1", "cameras/line1", "cameras/line2", "cameras/plc"];
        let devices = devices(&folders.iter().map(|&folder| folder.into()).collect());
        let id = |folder: &str| devices[folder].as_ref();
        assert_eq!([id("plc"), id("line1"), id("cameras/line2")], ["plc", "line1", "line2"]);
        assert_eq!([id("cameras/line1"), id("cameras/plc")], ["cameras-line1", "cameras-plc"]);
        assert_eq!([id("a#b"), id("a+b"), id("a-b")], ["a-b", "a-b-2", "a-b-3"]);
        let different: HashSet<&str> = devices.values().map(AsRef::as_ref).collect();
        assert_eq!(different.len(), folders.len());
    }
}
