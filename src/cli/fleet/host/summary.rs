//! What a table shows of a node: version, uptime, queue, cameras, what is lost.
//!
//! Sparkplug has no names for these. Ours come first; then names that others use, without regard to upper and lower case.
//! What nobody tells is shown as nothing.

use super::metric::{Metric, QualityCode};
use super::node::{Life, Node};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub version: Option<Arc<str>>,
    /// In seconds.
    pub uptime: Option<f64>,
    /// Samples that wait for the broker.
    pub queue: Option<f64>,
    pub cameras: usize,
    /// Cameras that cannot deliver.
    pub cameras_lost: usize,
    /// Devices that are said to be dead, and sources that are lost.
    pub lost: usize,
    /// Metrics whose quality is bad.
    pub bad: usize,
}

impl Summary {
    pub fn is_well(&self) -> bool {
        self.lost == 0 && self.bad == 0 && self.cameras_lost == 0
    }
}

/// What follows `Properties/`, or is the whole name.
const VERSIONS: &[&str] = &[
    "version",
    "firmware/version",
    "device/version",
    "system/version",
    "firmware version",
    "firmware_version",
    "software version",
    "software_version",
    "fw version",
    "sw version",
];
const UPTIMES: &[&str] = &["uptime", "system/uptime", "device/uptime", "uptime_s", "uptime (s)"];
const QUEUES: &[&str] = &[
    "queue",
    "mqtt/queue",
    "mqtt/backlog",
    "store/owed",
    "store/queue",
    "store/backlog",
    "uplink/queue",
    "uplink/backlog",
    "mqtt/owed",
    "queue depth",
    "queue_depth",
];

/// A camera is a device, or a folder below `cameras/`, that has this and a `State`.
const FRAMES: &str = "FramesCaptured";
/// More cameras than this nobody has in one state.
const MOST: usize = 10_000;
/// States in which a camera can deliver.
const WELL: [&str; 2] = ["idle", "streaming"];

pub fn summary(node: &Node) -> Summary {
    let mut summary = Summary { lost: node.lost().len(), ..Summary::default() };
    // Ours counts its cameras itself: one that was never there is not born.
    let (mut counted, mut counted_lost) = (0, 0);
    for metric in node.metrics.list() {
        let name = metric.name.to_ascii_lowercase();
        let (is_property, name) = match name.strip_prefix("properties/").or(name.strip_prefix("node info/")) {
            Some(rest) => (true, rest),
            None => (false, name.as_str()),
        };
        if VERSIONS.contains(&name) && summary.version.is_none() {
            summary.version = metric.as_text().map(Arc::from);
        } else if UPTIMES.contains(&name) {
            summary.uptime = summary.uptime.or(metric.as_f64());
        } else if QUEUES.contains(&name) {
            summary.queue = summary.queue.or(metric.as_f64());
        } else if let Some(state) = name.strip_prefix("system/cameras/").filter(|_| is_property) {
            // Whatever it says: the sum has to stay one.
            let count = (metric.as_f64().unwrap_or(0.0) as usize).min(MOST);
            counted += count;
            counted_lost += if WELL.contains(&state) { 0 } else { count };
        } else if let Some(folder) = metric.name.strip_suffix(FRAMES).filter(|folder| folder.starts_with("cameras/")) {
            camera(node.metrics.get(&format!("{folder}State")), &mut summary);
        }
        // What the node says of itself, such as a sensor of temperature that it does not have, is no alarm.
        summary.bad += usize::from(!is_property && metric.quality == QualityCode::Bad);
    }
    for device in node.devices.values() {
        if device.metrics.get(FRAMES).is_some() {
            camera(device.metrics.get("State"), &mut summary);
        }
        if device.life == Life::Born {
            summary.bad += device.metrics.list().iter().filter(|metric| metric.quality == QualityCode::Bad).count();
        }
    }
    if counted > 0 {
        (summary.cameras, summary.cameras_lost) = (counted, counted_lost);
    }
    summary
}

fn camera(state: Option<&Metric>, summary: &mut Summary) {
    let is_well = state.and_then(Metric::as_text).is_some_and(|state| WELL.contains(&state));
    summary.cameras += 1;
    summary.cameras_lost += usize::from(!is_well);
}
