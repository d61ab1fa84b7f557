//! Which cameras there are: found at start, and whenever one is plugged in or pulled out.
//!
//!     news (v4l2::Uevents) or every few seconds ──► look: nodes that went, nodes that came ──► nudge all cameras
//!                                                                   └─► names.rs: a known name: its place again
//!                                                                                 a new one:   a new camera
//!
//! A name, once given, stays its camera's, and so do its tags and nodes: a camera that is pulled out leaves them behind,
//! bad. A node that the configuration names belongs to that camera and is not looked at further.
//!
//! With udev a node is left alone until udev is done with it, because only then it has its links and permissions.

use super::fleet::{SpawnError, Starter};
use super::v4l2::{self, NodeStamp, Place, Uevents};
use super::{CameraConfig, CameraError, Config, TEST_PATTERN, TEST_PATTERN_NAME, WhenTestPattern};
use crate::base::{Stop, Tasks};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
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
    /// What the configuration says, hidden ones too.
    wanted: Vec<CameraConfig>,
    /// Those of it that run, by name; also the test pattern that nobody named.
    running: HashMap<String, (CameraConfig, Tasks)>,
    /// Between two configurations, when cameras that were stopped may not have ended yet.
    is_changing: bool,
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
    tasks: Tasks,
}

/// Looks until `stop`.
pub(super) fn run(plug: &Mutex<Plug>, stop: &Stop) {
    let uevents = Uevents::open();
    if let Err(error) = &uevents {
        warn!(%error, "No news of devices from the kernel; looking every few seconds instead.");
    }
    let lock = || plug.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut looked, mut is_unsettled) = (Instant::now(), false);
    while !stop.is_stopped() {
        let pause = if is_unsettled { UNSETTLED } else { GLANCE };
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
        if is_news || is_unsettled || looked.elapsed() >= LOOK_ANYWAY {
            looked = Instant::now();
            let mut plug = lock();
            plug.look();
            is_unsettled = !plug.unsettled.is_empty();
        }
    }
}

impl Plug {
    pub(super) fn new(starter: Starter) -> Self {
        Self {
            starter,
            wanted: Vec::new(),
            running: HashMap::new(),
            is_changing: false,
            seen: BTreeMap::new(),
            unsettled: HashMap::new(),
            unknown: HashSet::new(),
            found: HashMap::new(),
        }
    }

    /// Takes note of a configuration, and hands out those that it has otherwise or not at all, to be stopped. No camera
    /// is started before [`Plug::start_wanted`].
    pub(super) fn set_wanted(&mut self, config: &Config, cameras: &[CameraConfig]) -> Vec<Tasks> {
        let is_other = self.starter.config != *config;
        self.starter.config = config.clone();
        self.wanted = cameras.to_vec();
        self.is_changing = true;
        let named: HashSet<&str> = self.wanted.iter().map(|camera| camera.name.as_str()).collect();
        let is_claimed = |found: &Found| found.node.as_ref().is_some_and(|node| is_configured(&self.wanted, node));
        let clashing =
            |(name, found): &(&String, &mut Found)| is_other || named.contains(name.as_str()) || is_claimed(found);
        let clashing: Vec<String> = self.found.iter_mut().filter(clashing).map(|(name, _)| name.clone()).collect();
        let mut ended: Vec<Tasks> =
            clashing.iter().filter_map(|name| self.found.remove(name)).map(|found| found.tasks).collect();
        // All nodes but those of the cameras that stay are looked at again.
        let kept: HashSet<&PathBuf> = self.found.values().filter_map(|found| found.node.as_ref()).collect();
        self.seen.retain(|node, _| kept.contains(node));
        let wanted = self.to_run();
        let stays = |camera: &CameraConfig| !is_other && wanted.contains(camera);
        let (stay, go) = std::mem::take(&mut self.running).into_iter().partition(|(_, (camera, _))| stays(camera));
        self.running = stay;
        let go: HashMap<String, (CameraConfig, Tasks)> = go;
        ended.extend(go.into_values().map(|(_, tasks)| tasks));
        ended
    }

    /// Starts what is wanted and does not run yet, then looks for others. What could not be started.
    pub(super) fn start_wanted(&mut self) -> Vec<SpawnError> {
        self.is_changing = false;
        let named = self.named();
        let mut errors = self.start_missing(named.clone());
        self.look();
        let others = self.to_run().into_iter().filter(|camera| !named.contains(camera)).collect();
        errors.extend(self.start_missing(others));
        errors
    }

    fn start_missing(&mut self, cameras: Vec<CameraConfig>) -> Vec<SpawnError> {
        let mut errors = Vec::new();
        for camera in cameras {
            if self.running.contains_key(&camera.name) {
                continue;
            }
            if camera.name == TEST_PATTERN_NAME && self.starter.config.test_pattern == WhenTestPattern::IfNone {
                warn!("No camera found; showing the test pattern instead.");
            }
            match self.starter.start(&camera, &Place::fixed(&camera.device)) {
                Ok(tasks) => drop(self.running.insert(camera.name.clone(), (camera, tasks))),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Those of the configuration.
    fn named(&self) -> Vec<CameraConfig> {
        self.wanted.iter().filter(|camera| !camera.hide).cloned().collect()
    }

    /// With the test pattern, if it is wanted with the cameras that there are.
    fn to_run(&self) -> Vec<CameraConfig> {
        let mut cameras = self.named();
        let is_wanted = match self.starter.config.test_pattern {
            WhenTestPattern::Never => false,
            WhenTestPattern::IfNone => cameras.is_empty() && self.found.is_empty(),
            WhenTestPattern::Always => true,
        };
        let is_there = |camera: &CameraConfig| camera.is_test_pattern() || camera.name == TEST_PATTERN_NAME;
        if is_wanted && !self.wanted.iter().any(is_there) {
            cameras.push(CameraConfig::plain(TEST_PATTERN_NAME.into(), TEST_PATTERN.into()));
        }
        cameras
    }

    /// Hands out all that run.
    pub(super) fn take_all(&mut self) -> Vec<Tasks> {
        self.is_changing = true;
        let running = std::mem::take(&mut self.running).into_values().map(|(_, tasks)| tasks);
        running.chain(std::mem::take(&mut self.found).into_values().map(|found| found.tasks)).collect()
    }

    /// Takes note of what came and went since the last look.
    fn look(&mut self) {
        if self.is_changing {
            return;
        }
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
        if is_configured(&self.wanted, node) {
            return Ok(());
        }
        let Some(mut name) = v4l2::camera_name(node)? else { return Ok(()) };
        if self.found.get(&name).is_some_and(|found| found.node.is_some()) || self.is_taken(&name) {
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
            Ok(tasks) => {
                info!(camera = %name, node = %place.name(), "Found a camera.");
                self.found.insert(name, Found { place, node, tasks });
            }
            Err(error) => warn!(camera = %name, %error, "Cannot serve a camera that was found."),
        }
        Ok(())
    }

    fn is_taken(&self, name: &str) -> bool {
        self.running.contains_key(name) || self.wanted.iter().any(|camera| camera.name == name && !camera.hide)
    }
}

/// Whether the configuration names this node, perhaps by a link.
fn is_configured(cameras: &[CameraConfig], node: &Path) -> bool {
    cameras.iter().any(|camera| camera.device.canonicalize().is_ok_and(|device| device == node))
}
