//! Which cameras there are: found at start, and whenever one is plugged in or pulled out.
//!
//!     news (v4l2::Uevents) or every few seconds ──► look: nodes that went, nodes that came ──► nudge all cameras
//!                                                                   └─► names.rs: a known name: its place again
//!                                                                                 a new one:   a new camera
//!
//! A name, once given, stays its camera's while the process lives, and so do its tags and nodes: a camera that is pulled out
//! leaves them behind, bad. A node that the configuration names belongs to that camera and is not looked at further.
//!
//! With udev a node is left alone until udev is done with it, because only then it has its links and permissions.

use super::v4l2::{self, NodeStamp, Place, Uevents};
use super::{CameraConfig, CameraError, Starter};
use crate::base::Stop;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// For what no news tells of: messages were lost, or do not reach this network namespace. Opens nothing.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);
/// How long a stop may take to be seen.
const GLANCE: Duration = Duration::from_millis(500);
/// How soon to look again for a node that udev is not done with, and how long it is waited for.
const UNSETTLED: Duration = Duration::from_millis(100);
const SETTLE: Duration = Duration::from_secs(10);

pub(super) struct Plug {
    starter: Starter,
    /// The devices that the configuration names, present or not.
    configured: Vec<PathBuf>,
    /// The nodes that have been looked at.
    seen: BTreeMap<PathBuf, NodeStamp>,
    /// Nodes that udev is not done with, and since when.
    unsettled: HashMap<PathBuf, Instant>,
    /// Nodes that could not be looked at.
    unknown: HashSet<PathBuf>,
    /// By name.
    found: HashMap<String, Found>,
}

struct Found {
    place: Place,
    node: Option<PathBuf>,
}

impl Plug {
    pub(super) fn new(starter: Starter, configured: Vec<PathBuf>) -> Self {
        let (seen, unsettled, unknown, found) = (BTreeMap::new(), HashMap::new(), HashSet::new(), HashMap::new());
        Self { starter, configured, seen, unsettled, unknown, found }
    }

    /// Until `stop`.
    pub(super) fn run(&mut self, stop: &Stop) {
        let uevents = Uevents::open();
        if let Err(error) = &uevents {
            warn!(%error, "No news of devices from the kernel; looking every few seconds instead.");
        }
        let mut looked = Instant::now();
        while !stop.is_stopped() {
            let pause = if self.unsettled.is_empty() { GLANCE } else { UNSETTLED };
            let is_news = match &uevents {
                Ok(uevents) => uevents.wait(pause).unwrap_or_else(|error| {
                    warn!(%error, "Lost some news of devices.");
                    std::thread::sleep(pause);
                    true
                }),
                Err(_) => {
                    std::thread::sleep(pause);
                    false
                }
            };
            if is_news || !self.unsettled.is_empty() || looked.elapsed() >= LOOK_ANYWAY {
                looked = Instant::now();
                self.look();
            }
        }
    }

    /// Takes note of what came and went since the last look.
    pub(super) fn look(&mut self) {
        let now: BTreeMap<PathBuf, NodeStamp> = v4l2::nodes().into_iter().collect();
        let gone: Vec<PathBuf> = self
            .seen
            .iter()
            .filter(|(node, stamp)| now.get(*node) != Some(stamp))
            .map(|(node, _)| node.clone())
            .collect();
        for node in &gone {
            self.seen.remove(node);
            self.lose(node);
        }
        self.unsettled.retain(|node, _| now.contains_key(node));
        let mut has_changed = !gone.is_empty();
        for (node, stamp) in now {
            if self.seen.contains_key(&node) || !self.is_settled(&node) {
                continue;
            }
            match self.meet(&node) {
                Ok(()) => {
                    has_changed = true;
                    self.unknown.remove(&node);
                    self.seen.insert(node, stamp);
                }
                // It is looked at again with the next news, or in some seconds.
                Err(error) => {
                    if self.unknown.insert(node) {
                        warn!(%error, "Cannot tell what a video node is; trying again.");
                    }
                }
            }
        }
        self.unknown.retain(|node| node.exists());
        if has_changed {
            self.starter.hub.cameras().iter().for_each(|camera| camera.nudge());
        }
    }

    fn is_settled(&mut self, node: &Path) -> bool {
        let since = *self.unsettled.entry(node.into()).or_insert_with(Instant::now);
        let is_settled = v4l2::is_settled(node) || since.elapsed() >= SETTLE;
        if is_settled {
            self.unsettled.remove(node);
        }
        is_settled
    }

    fn lose(&mut self, node: &Path) {
        let Some((name, found)) = self.found.iter_mut().find(|(_, found)| found.node.as_deref() == Some(node)) else {
            return;
        };
        info!(camera = %name, node = %node.display(), "A camera was pulled out.");
        found.node = None;
        found.place.set(None);
    }

    fn meet(&mut self, node: &Path) -> Result<(), CameraError> {
        if !self.starter.config.discover {
            return Ok(());
        }
        if self.configured.iter().any(|device| device.canonicalize().is_ok_and(|device| device == node)) {
            return Ok(());
        }
        let Some(mut name) = v4l2::camera_name(node)? else { return Ok(()) };
        if self.found.get(&name).is_some_and(|found| found.node.is_some()) || self.is_configured(&name) {
            // Two that cannot be told apart, or one that has the name of another by accident.
            name = format!("{name} {}", node.file_name().unwrap_or_default().to_string_lossy());
        }
        let node = Some(node.to_path_buf());
        if let Some(found) = self.found.get_mut(&name) {
            info!(camera = %name, "A camera is back.");
            found.place.set(node.clone());
            found.node = node;
            return Ok(());
        }
        let place = Place::found(&name, node.clone());
        let camera = CameraConfig::plain(name.clone(), PathBuf::new());
        match self.starter.start(&camera, &place) {
            Ok(()) => {
                info!(camera = %name, node = %place.name(), "Found a camera.");
                self.found.insert(name, Found { place, node });
            }
            Err(error) => warn!(camera = %name, %error, "Cannot serve a camera that was found."),
        }
        Ok(())
    }

    fn is_configured(&self, name: &str) -> bool {
        !self.found.contains_key(name) && self.starter.hub.cameras().iter().any(|camera| camera.name() == name)
    }
}
