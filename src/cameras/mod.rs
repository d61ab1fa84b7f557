//! Cameras: found, opened when somebody wants a picture, closed when nobody does.
//!
//!     v4l2/ or test_pattern.rs ──frame──► encode.rs (jpeg.rs) ──picture──► hub::frames
//!                └────────────── capture.rs: one thread a camera ──────────────┘
//!
//! - `device.rs` says what a camera is, and what can be wrong with one.
//! - `capture.rs` is the life of a camera: idle, streaming, failed, back again.
//!
//! [`spawn`] starts one thread for each configured camera and, if the configuration asks, for each other V4L2 capture
//! device that is there at start.

mod capture;
mod device;
mod encode;
mod jpeg;
mod ladder;
mod test_pattern;
pub mod v4l2;

pub use device::{CameraError, Mode, PixelFormat};
pub use encode::Encoder;

use crate::base::{Clock, Tasks, duration};
use crate::hub::{Hub, RegisterError};
use crate::model::TagNameError;
use capture::{Capture, Settings, Status};
use device::Device;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use tracing::{info, warn};

/// `[cameras]`: what holds for all cameras.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Serve every V4L2 capture device that is there at start, also those that no `[[camera]]` names. Default: true.
    pub discover: bool,
    /// When to add the test-pattern camera: "never", "if-none" (there is no other camera) or "always". Default: never.
    pub test_pattern: WhenTestPattern,
    /// How long a camera keeps streaming after the last reader or monitored item is gone. Default: "2s".
    #[serde(deserialize_with = "duration::deserialize")]
    pub linger: Duration,
    /// A picture's size limit in bytes, met by lowering the quality. Clients on .NET refuse more than 1 MiB unless told
    /// otherwise. Default: 1000000.
    pub max_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            discover: true,
            test_pattern: WhenTestPattern::Never,
            linger: Duration::from_secs(2),
            max_bytes: 1_000_000,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenTestPattern {
    #[default]
    Never,
    IfNone,
    Always,
}

/// `[[camera]]`: one camera.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// Its name below Objects/Cameras. Example: "line1".
    pub name: String,
    /// The device node, best by a path that stays ("/dev/v4l/by-id/..."; `vedette cameras` shows them), or
    /// "test-pattern".
    pub device: PathBuf,
    /// Pixels. The driver takes the nearest it can. Default: 1280.
    #[serde(default = "default_width")]
    pub width: u32,
    /// Pixels. Default: 720.
    #[serde(default = "default_height")]
    pub height: u32,
    /// Frames a second that the camera shall run at. Default: what the driver prefers; 25 for the test pattern.
    pub rate: Option<f64>,
    /// JPEG quality, 1 to 100, where this device encodes (not for cameras that deliver JPEG). Default: 80.
    #[serde(default = "default_quality")]
    pub quality: u8,
}

const fn default_width() -> u32 {
    1280
}

const fn default_height() -> u32 {
    720
}

const fn default_quality() -> u8 {
    80
}

/// The word for the test-pattern camera where else a path stands.
const TEST_PATTERN: &str = "test-pattern";

impl Config {
    /// What is wrong with the values, as (key, what and what would be right).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !(10_000..=100_000_000).contains(&self.max_bytes) {
            faults.push(("max_bytes", format!("{} is out of range; use 10000 to 100000000 bytes", self.max_bytes)));
        }
        faults
    }
}

impl CameraConfig {
    fn plain(name: String, device: PathBuf) -> Self {
        let (width, height, quality) = (default_width(), default_height(), default_quality());
        Self { name, device, width, height, rate: None, quality }
    }

    fn is_test_pattern(&self) -> bool {
        self.device.as_os_str() == TEST_PATTERN
    }

    /// What is wrong with the values, as (key, what and what would be right).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        match crate::model::TagName::new(&self.name) {
            Ok(name) if name.segments().count() > 1 => {
                faults.push(("name", format!("{:?} must not contain `/`", self.name)));
            }
            Ok(_) if self.name.len() > 200 => faults.push(("name", "it is longer than 200 bytes".into())),
            Ok(_) => {}
            Err(error) => faults.push(("name", error.to_string())),
        }
        if !self.is_test_pattern() && !self.device.is_absolute() {
            let device = self.device.display();
            faults.push((
                "device",
                format!("{device:?} is no device; write its path, as in \"/dev/video0\", or \"{TEST_PATTERN}\""),
            ));
        }
        for (key, value) in [("width", self.width), ("height", self.height)] {
            if !(16..=16384).contains(&value) {
                faults.push((key, format!("{value} is out of range; use 16 to 16384 pixels")));
            }
        }
        if let Some(rate) = self.rate
            && !(0.1..=1000.0).contains(&rate)
        {
            faults.push(("rate", format!("{rate} is out of range; use 0.1 to 1000 frames a second")));
        }
        if !(1..=100).contains(&self.quality) {
            faults.push(("quality", format!("{} is out of range; use 1 to 100", self.quality)));
        }
        faults
    }

    fn open(&self, clock: &Clock) -> Box<dyn Device> {
        let &Self { width, height, rate, .. } = self;
        if self.is_test_pattern() {
            let rate = rate.unwrap_or(25.0);
            return Box::new(test_pattern::TestPattern { width, height, rate, clock: clock.clone() });
        }
        Box::new(v4l2::V4l2Device::new(self.device.clone(), v4l2::Wish { width, height, rate, input: None }))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("two cameras have the name {0:?}")]
    Duplicate(String),
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error(transparent)]
    Tag(#[from] RegisterError),
}

/// Registers all cameras and starts their threads: the configured ones first, in their order.
pub fn spawn(
    config: &Config,
    cameras: &[CameraConfig],
    hub: &Hub,
    clock: &Clock,
    tasks: &mut Tasks,
) -> Result<(), SpawnError> {
    for camera in with_discovered(config, cameras) {
        let name = camera.name.clone();
        let port = hub.register_camera(&name).ok_or_else(|| SpawnError::Duplicate(name.clone()))?;
        let status = Status::register(hub, &name, &camera.device.display().to_string())?;
        let (quality, max_bytes, linger) = (camera.quality, config.max_bytes, config.linger);
        let settings = Settings { quality, max_bytes, hardware_jpeg: true, linger };
        let mut capture = Capture { hub: hub.clone(), port, device: camera.open(clock), status, settings };
        tasks.spawn_thread(format!("camera {name}"), move |stop| capture.run(stop));
    }
    Ok(())
}

fn with_discovered(config: &Config, configured: &[CameraConfig]) -> Vec<CameraConfig> {
    let mut cameras = configured.to_vec();
    if config.discover {
        let nodes: Vec<_> = configured.iter().filter_map(|camera| camera.device.canonicalize().ok()).collect();
        for (name, path) in v4l2::discover() {
            if path.canonicalize().is_ok_and(|node| nodes.contains(&node)) {
                continue;
            }
            if cameras.iter().any(|camera| camera.name == name) {
                warn!(camera = %name, device = %path.display(), "Not serving a camera whose name is taken.");
                continue;
            }
            info!(camera = %name, device = %path.display(), "Found a camera.");
            cameras.push(CameraConfig::plain(name, path));
        }
    }
    let is_wanted = match config.test_pattern {
        WhenTestPattern::Never => false,
        WhenTestPattern::IfNone => cameras.is_empty(),
        WhenTestPattern::Always => true,
    };
    if is_wanted && !cameras.iter().any(CameraConfig::is_test_pattern) {
        if config.test_pattern == WhenTestPattern::IfNone {
            warn!("No camera found; showing the test pattern instead.");
        }
        cameras.push(CameraConfig::plain("Test pattern".into(), TEST_PATTERN.into()));
    }
    cameras
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<&'static str> {
        let camera: CameraConfig = toml::from_str(text).unwrap();
        camera.check().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn values_are_checked_by_key() {
        assert_eq!(keys("name = 'a'\ndevice = '/dev/video0'"), Vec::<&str>::new());
        assert_eq!(keys("name = 'a'\ndevice = 'test-pattern'"), Vec::<&str>::new());
        assert_eq!(
            keys("name = 'a/b'\ndevice = 'video0'\nwidth = 1\nrate = 0.0\nquality = 0"),
            ["name", "device", "width", "rate", "quality"]
        );
    }

    #[test]
    fn the_test_pattern_comes_only_when_asked() {
        let with = |test_pattern, cameras: &[CameraConfig]| {
            let config = Config { discover: false, test_pattern, ..Config::default() };
            with_discovered(&config, cameras).len()
        };
        let one = [CameraConfig::plain("a".into(), "/dev/video77".into())];
        assert_eq!([with(WhenTestPattern::Never, &[]), with(WhenTestPattern::Never, &one)], [0, 1]);
        assert_eq!([with(WhenTestPattern::IfNone, &[]), with(WhenTestPattern::IfNone, &one)], [1, 1]);
        assert_eq!([with(WhenTestPattern::Always, &[]), with(WhenTestPattern::Always, &one)], [1, 2]);
    }
}
