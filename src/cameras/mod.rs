//! Cameras: found, opened when somebody wants a picture, closed when nobody does.
//!
//!     v4l2/, pipe/ or test_pattern.rs ──frame──► difference.rs ──► ladder.rs (jpeg/) ──picture──► hub::frames
//!                └────────────────────── capture.rs: one thread a camera ──────────────────────────────┘
//!
//! - `device.rs` says what a camera is, and what can be wrong with one.
//! - `plug.rs` finds cameras, at start and when they are plugged in.
//! - `capture.rs` is the life of a camera: idle, streaming, failed, back again. `status.rs` is what it says of itself;
//!   `news.rs` when that is an event.
//! - `ladder.rs` chooses who makes the JPEG: the camera, a hardware encoder, or encode.rs.
//! - `controls/` serves a camera's controls as tags, whether it captures or not.
//! - `encode.rs` makes JPEGs of raw frames, laid out by `layout.rs`; `jpeg/` mends those that a camera makes.
//! - `scale.rs` makes a picture of another size for who asks for one.
//! - `snapshot.rs` takes one picture without any of that, for the command line.
//! - `fleet.rs` starts and stops them, each with threads of its own, and follows the configuration.

mod capture;
mod controls;
mod device;
mod difference;
mod encode;
mod fleet;
pub mod jpeg;
mod ladder;
mod layout;
mod news;
mod pipe;
mod plug;
mod scale;
mod snapshot;
mod status;
mod test_pattern;
pub mod v4l2;

pub use device::{CameraError, Mode, PixelFormat};
pub use difference::Meter;
pub use encode::Encoder;
pub use fleet::{Cameras, SpawnError};
pub use snapshot::{SnapshotError, find, snapshot};
pub use status::specs;

use crate::base::{Clock, duration};
use controls::WhenOpen;
use device::Device;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use v4l2::Place;

/// `[cameras]`: what holds for all cameras.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Serve every V4L2 capture device, also those that no `[[camera]]` names and those that are plugged in later.
    /// Default: true.
    pub discover: bool,
    /// When to add the test-pattern camera: "never", "if-none" (there is no other camera) or "always". Default: never.
    pub test_pattern: WhenTestPattern,
    /// How long a camera keeps streaming after the last reader or monitored item is gone. Default: "2s".
    #[serde(deserialize_with = "duration::deserialize")]
    pub linger: Duration,
    /// A picture's size limit in bytes, met by lowering the quality. Clients on .NET refuse more than 1 MiB unless told
    /// otherwise. Default: 1000000.
    pub max_bytes: usize,
    /// Encode JPEG with the hardware encoder if this machine has one (a V4L2 memory-to-memory device). Default: true.
    pub hardware_jpeg: bool,
    /// Decode a camera's own JPEG far enough to see whether it is whole, and drop it if not. Without, only what the headers
    /// and markers show is noticed, which costs next to nothing. Default: true.
    pub verify_jpeg: bool,
    /// For percent deadbands: parts of a picture that differ by less than this (percent) count as equal. Hides the noise
    /// of a sensor. Default: 0.5.
    pub noise_floor: f64,
    /// For percent deadbands: a change of the whole picture's brightness (a lamp, an exposure) is no difference.
    /// Default: false.
    pub ignore_brightness: bool,
    /// For percent deadbands: a picture comes after this time even if nothing has changed. Default: never.
    #[serde(deserialize_with = "duration::deserialize_some")]
    pub heartbeat: Option<Duration>,
    /// When to open V4L2 cameras for their controls (brightness, exposure, focus ...), the tags
    /// `cameras/<name>/Controls/...`: "on-demand" while a UA client reads, writes or monitors them; "always", so that
    /// changes by others reach MQTT too, though some USB cameras then never sleep and their drivers cannot be unloaded;
    /// "never", and there are no such tags. Default: "on-demand".
    pub controls: WhenOpen,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            discover: true,
            test_pattern: WhenTestPattern::Never,
            linger: Duration::from_secs(2),
            max_bytes: 1_000_000,
            hardware_jpeg: true,
            verify_jpeg: true,
            noise_floor: 0.5,
            ignore_brightness: false,
            heartbeat: None,
            controls: WhenOpen::default(),
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
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// Its name below Objects/Cameras. Example: "line1".
    pub name: String,
    /// The device node, best by a path that stays ("/dev/v4l/by-id/..."; `vedette cameras` shows them),
    /// "test-pattern", or "pipe" for the output of a program.
    pub device: PathBuf,
    /// Pixels. The driver takes the nearest it can; of a pipe with raw frames it is what the program gives. Default: 1280.
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
    /// Which input of a device with several (analog, HDMI), by V4L2's number. Default: the one that is selected.
    pub input: Option<u32>,
    /// Do not serve this device. Default: false.
    #[serde(default)]
    pub hide: bool,
    /// Instead of `[cameras] noise_floor`.
    pub noise_floor: Option<f64>,
    /// Instead of `[cameras] ignore_brightness`.
    pub ignore_brightness: Option<bool>,
    /// Instead of `[cameras] heartbeat`.
    #[serde(default, deserialize_with = "duration::deserialize_some")]
    pub heartbeat: Option<Duration>,
    /// Of a pipe: the program and its arguments. It is started without a shell when somebody wants pictures, and ended
    /// when nobody does. Example: ["rpicam-vid", "--codec", "mjpeg", "-t", "0", "-o", "-"].
    pub command: Option<Vec<String>>,
    /// Of a pipe: "mjpeg", or raw frames of width x height as "yuv420", "nv12" or "yuyv". Default: "mjpeg".
    pub format: Option<pipe::Format>,
    /// Of a pipe with raw frames: bytes from one line to the next. Default: lines are not padded.
    pub stride: Option<u32>,
    /// Of a pipe with raw frames: "full" (luma 0 to 255, as rpicam-vid gives) or "limited" (16 to 235, as ffmpeg
    /// mostly gives). Default: "full".
    pub range: Option<pipe::Range>,
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
/// What it is called if the configuration does not name it.
const TEST_PATTERN_NAME: &str = "Test pattern";
/// The same for the output of a program.
const PIPE: &str = "pipe";

impl Config {
    /// What is wrong with the values, as (key, what and what would be right).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !(10_000..=100_000_000).contains(&self.max_bytes) {
            faults.push(("max_bytes", format!("{} is out of range; use 10000 to 100000000 bytes", self.max_bytes)));
        }
        check_noise_floor(self.noise_floor, &mut faults);
        check_heartbeat(self.heartbeat, &mut faults);
        faults
    }
}

fn check_heartbeat(heartbeat: Option<Duration>, faults: &mut Vec<(&'static str, String)>) {
    const MOST: Duration = Duration::from_secs(365 * 24 * 3600);
    if heartbeat.is_some_and(|heartbeat| heartbeat.is_zero() || heartbeat > MOST) {
        faults.push(("heartbeat", "is out of range; use a time up to 365d, or remove it for none".into()));
    }
}

fn check_noise_floor(noise_floor: f64, faults: &mut Vec<(&'static str, String)>) {
    if !(0.0..=100.0).contains(&noise_floor) {
        faults.push(("noise_floor", format!("{noise_floor} is out of range; use 0 to 100 percent")));
    }
}

impl CameraConfig {
    fn plain(name: String, device: PathBuf) -> Self {
        let (width, height, quality) = (default_width(), default_height(), default_quality());
        Self {
            name,
            device,
            width,
            height,
            rate: None,
            quality,
            input: None,
            hide: false,
            noise_floor: None,
            ignore_brightness: None,
            heartbeat: None,
            command: None,
            format: None,
            stride: None,
            range: None,
        }
    }

    /// The path of a V4L2 device.
    pub fn device_node(&self) -> Option<&str> {
        if self.is_v4l2() { self.device.to_str() } else { None }
    }

    fn is_v4l2(&self) -> bool {
        !self.is_test_pattern() && !self.is_pipe()
    }

    fn is_test_pattern(&self) -> bool {
        self.device.as_os_str() == TEST_PATTERN
    }

    fn is_pipe(&self) -> bool {
        self.device.as_os_str() == PIPE
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
        if self.is_v4l2() && !self.device.is_absolute() {
            let (device, path) = (self.device.display(), "write its path, as in \"/dev/video0\"");
            faults.push(("device", format!("{device:?} is no device; {path}, or \"{TEST_PATTERN}\" or \"{PIPE}\"")));
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
        if let Some(noise_floor) = self.noise_floor {
            check_noise_floor(noise_floor, &mut faults);
        }
        check_heartbeat(self.heartbeat, &mut faults);
        if self.input.is_some() && !self.is_v4l2() {
            faults.push(("input", "is of a V4L2 device; remove it".into()));
        }
        faults.extend(pipe::check(self));
        faults
    }

    fn open(&self, place: &Place, clock: &Clock) -> Box<dyn Device> {
        let &Self { width, height, rate, .. } = self;
        if self.is_test_pattern() {
            let rate = rate.unwrap_or(25.0);
            return Box::new(test_pattern::TestPattern { width, height, rate, clock: clock.clone() });
        }
        if self.is_pipe() {
            return Box::new(pipe::PipeDevice::new(self));
        }
        let wish = v4l2::Wish { width, height, rate, input: self.input };
        Box::new(v4l2::V4l2Device::new(place.clone(), wish))
    }
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
}
