//! The capture thread of one camera.
//!
//!     idle ──lease──► opening ──► streaming ──last lease ended, linger over──► idle
//!      ▲                 │            │
//!      └─device is back──┴── failed ◄─┘   (bad, with the reason, to every lease; tried again while wanted)
//!
//! Idle means that the device is closed: nothing is captured, and another program may use the camera. While idle the
//! thread looks twice a second whether the device is still there, so that a camera that was unplugged is bad within a
//! second even if nobody watches it.
//!
//! A frame is encoded at most once, and only if it is due to somebody (hub::frames). What the camera is and does it says
//! on tags `cameras/<name>/...`.

use super::device::{CameraError, Device, PixelFormat, Stream};
use super::encode::EncodeError;
use super::ladder::Ladder;
use crate::base::{Backoff, Stop};
use crate::hub::frames::Port;
use crate::hub::{Hub, Registration};
use crate::model::{DataType, Picture, Quality, Sample, TagId, TagName, TagSpec, Timestamp, Value};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often an idle camera is looked at, and how long a stop may take to be seen.
const GLANCE: Duration = Duration::from_millis(500);
/// A stream that is silent for so long is given up and opened anew.
const SILENCE: Duration = Duration::from_secs(5);
/// How often counters are published while streaming.
const COUNTERS: Duration = Duration::from_secs(1);

pub(super) struct Capture {
    pub(super) hub: Hub,
    pub(super) port: Port,
    pub(super) device: Box<dyn Device>,
    pub(super) status: Status,
    pub(super) settings: Settings,
}

pub(super) struct Settings {
    /// JPEG quality, 1..=100.
    pub(super) quality: u8,
    /// Bytes of a picture at most.
    pub(super) max_bytes: usize,
    /// Whether hardware may make the JPEGs.
    pub(super) hardware_jpeg: bool,
    /// How long the device keeps streaming after the last lease.
    pub(super) linger: Duration,
}

impl Capture {
    /// Until `stop`.
    pub(super) fn run(&mut self, stop: &Stop) {
        let mut retry = Retry::new();
        let mut ladder = None;
        self.glance(true);
        let mut glanced = Instant::now();
        while !stop.is_stopped() {
            let is_wanted = self.port.wait_for_demand(GLANCE).leases > 0;
            if is_wanted && retry.is_due() {
                let began = Instant::now();
                let outcome = self.stream(&mut ladder, stop);
                if let Some(ladder) = &mut ladder {
                    ladder.rest();
                }
                match outcome {
                    Ok(()) => {
                        retry.reset();
                        self.port.set_quality(Quality::GOOD);
                        self.status.set(&self.hub, "idle", "");
                    }
                    // Opened anew at once, in the new size; but not over and over if the driver cannot decide.
                    Err(CameraError::SourceChanged { .. }) if began.elapsed() > GLANCE => {}
                    Err(error) => {
                        self.fail(&error);
                        // Whoever waits for a signal to come back does not want to wait longer than needed.
                        if error.is_signal() {
                            retry.reset();
                        }
                        retry.wait();
                    }
                }
            } else if glanced.elapsed() >= GLANCE {
                self.glance(retry.is_due());
                glanced = Instant::now();
                if is_wanted {
                    // Demand returns at once; there is nothing to do for it yet.
                    std::thread::sleep(retry.pause());
                }
            } else if is_wanted {
                std::thread::sleep(retry.pause());
            }
        }
    }

    /// Is the device (still, again) there? A loss is not taken back before it is time to try again, so that it is seen also
    /// when the device comes back at once.
    fn glance(&mut self, may_recover: bool) {
        match self.device.probe() {
            Err(error) => self.fail(&error),
            // A missing device that is there again can be asked again.
            Ok(()) if may_recover && (self.status.is_disconnected() || self.status.is_new()) => {
                self.port.set_quality(Quality::GOOD);
                self.status.set(&self.hub, "idle", "");
            }
            // Of any other fault nobody knows whether it persists, because nobody asks: the next reader finds out. The
            // state stays what it was, or a broken camera would look fine between two attempts.
            Ok(()) if may_recover && self.port.demand().leases == 0 => self.port.set_quality(Quality::GOOD),
            Ok(()) => {}
        }
    }

    fn fail(&mut self, error: &CameraError) {
        if self.status.set(&self.hub, error.state(), &error.to_string()) {
            warn!(camera = self.port.name(), %error, "Camera lost; trying again.");
        }
        self.port.set_quality(error.quality());
    }

    /// Opens the device and streams until nobody has wanted a frame for the linger time.
    fn stream(&mut self, ladder: &mut Option<Ladder>, stop: &Stop) -> Result<(), CameraError> {
        let Settings { quality, max_bytes, hardware_jpeg, .. } = self.settings;
        let ladder = match ladder {
            Some(ladder) => ladder,
            None => ladder.insert(Ladder::new(quality, max_bytes, hardware_jpeg).map_err(|error| {
                let (device, reason) = (self.port.name().into(), error.to_string());
                CameraError::Failed { device, operation: "make an encoder", reason }
            })?),
        };
        let mut stream = self.device.open()?;
        let mode = stream.mode().clone();
        self.status.describe(&self.hub, stream.as_ref());
        let camera = self.port.name().to_owned();
        info!(%camera, %mode, "Capturing.");

        let (mut last_wanted, mut last_good, mut counted) = (Instant::now(), Instant::now(), Instant::now());
        let mut last_sequence = None;
        let mut has_faults = false;
        while !stop.is_stopped() {
            let now = Instant::now();
            let leases = self.port.demand().leases;
            if leases > 0 {
                last_wanted = now;
            } else if now.duration_since(last_wanted) >= self.settings.linger {
                break;
            }
            if now.duration_since(counted) >= COUNTERS {
                counted = now;
                self.status.count(&self.hub, leases);
            }
            let Some(frame) = stream.next(GLANCE)? else {
                if last_good.elapsed() >= SILENCE {
                    return Err(CameraError::Silent { device: camera, seconds: SILENCE.as_secs() });
                }
                continue;
            };
            let is_silent = last_good.elapsed() >= SILENCE;
            let counters = &mut self.status.counters;
            counters.captured += 1;
            if let Some(last) = last_sequence.replace(frame.sequence) {
                let skipped = frame.sequence.wrapping_sub(last).wrapping_sub(1);
                // A driver that restarts its count is not a driver that lost four billion frames.
                counters.dropped += u64::from(if skipped < 1000 { skipped } else { 0 });
            }
            if frame.corrupt {
                counters.corrupt += 1;
                if is_silent {
                    return Err(CameraError::Damaged { device: camera, seconds: SILENCE.as_secs() });
                }
                continue;
            }
            if !self.port.is_wanted(frame.captured, mode.frame_interval) {
                last_good = Instant::now();
                continue;
            }
            let captured_at: Timestamp = self.hub.now().saturating_sub(frame.captured.elapsed());
            let encoded = match ladder.encode(&mode, &frame) {
                Ok(encoded) => encoded,
                Err(error) => {
                    counters.corrupt += 1;
                    if !std::mem::replace(&mut has_faults, true) {
                        warn!(%camera, %error, "Dropped a frame; further ones are only counted.");
                    }
                    if is_silent {
                        return Err(CameraError::Damaged { device: camera, seconds: SILENCE.as_secs() });
                    }
                    if let EncodeError::Limit { .. } = error {
                        let quality = crate::model::Status::BAD_RESOURCE_UNAVAILABLE;
                        self.port.set_quality(Quality::new(quality, error.to_string()));
                    }
                    continue;
                }
            };
            last_good = Instant::now();
            self.status.set_encoder(&self.hub, ladder.name());
            let counters = &mut self.status.counters;
            counters.encoded += u64::from(mode.format != PixelFormat::Mjpg);
            let picture = Picture {
                jpeg: encoded.jpeg,
                width: encoded.width,
                height: encoded.height,
                sequence: counters.captured,
                captured: captured_at,
            };
            counters.published += self.port.deliver(frame.captured, mode.frame_interval, &picture) as u64;
            self.status.set(&self.hub, "streaming", stream.remark());
        }
        self.status.count(&self.hub, 0);
        info!(%camera, "Nobody is watching; the camera is off.");
        Ok(())
    }
}

/// When a camera that failed may be tried again.
struct Retry {
    backoff: Backoff,
    next: Instant,
}

impl Retry {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        Self { backoff, next: Instant::now() }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn pause(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now()).min(GLANCE)
    }

    fn wait(&mut self) {
        self.next = Instant::now() + self.backoff.wait();
    }

    fn reset(&mut self) {
        self.backoff.reset();
    }
}

/// The camera's own tags.
pub(super) struct Status {
    tags: Registration,
    state: &'static str,
    reason: String,
    last_error: String,
    encoder: String,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    captured: u64,
    encoded: u64,
    published: u64,
    dropped: u64,
    corrupt: u64,
}

macro_rules! status_tags {
    ($($name:ident: $data_type:ident, $description:literal;)*) => {
        #[derive(Clone, Copy)]
        enum Tag { $($name),* }

        const TAGS: &[(&str, DataType, &str)] = &[$((stringify!($name), DataType::$data_type, $description)),*];
    };
}

status_tags! {
    State: String, "idle, streaming, disconnected, in use by another program, needs ISP, no cable, no signal, no sync, \
        not supported or failed";
    Reason: String, "Why the camera does not deliver; empty while it can";
    LastError: String, "The last reason there was";
    Device: String, "Where the camera is looked for";
    Driver: String, "The kernel driver, once the camera has been opened";
    Card: String, "What the driver calls the camera";
    Bus: String, "Where the camera is attached";
    Format: String, "Pixel format, size and rate in use";
    Encoder: String, "Who makes the JPEG: camera, turbojpeg or the name of the hardware encoder";
    Leases: UInt32, "How many readers and monitored items want pictures now";
    FramesCaptured: UInt64, "Frames taken from the driver";
    FramesEncoded: UInt64, "Frames encoded by this device";
    FramesPublished: UInt64, "Pictures handed to readers and monitored items";
    FramesDropped: UInt64, "Frames the driver had to drop";
    FramesCorrupt: UInt64, "Frames that were damaged or truncated";
}

impl Status {
    /// Registers `cameras/<name>/...`.
    pub(super) fn register(hub: &Hub, name: &str, device: &str) -> Result<Self, super::SpawnError> {
        let specs = TAGS.iter().map(|(tag, data_type, description)| {
            let name = TagName::new(&format!("cameras/{name}/{tag}"))?;
            Ok(TagSpec::new(name, *data_type).described(*description))
        });
        let specs = specs.collect::<Result<Vec<_>, super::SpawnError>>()?;
        let tags = hub.register(&format!("camera {name}"), specs)?;
        let (reason, last_error, encoder) = Default::default();
        let status = Self { tags, state: "", reason, last_error, encoder, counters: Counters::default() };
        let empty = || Value::string("");
        let all = [
            (Tag::Device, Value::string(device)),
            (Tag::LastError, empty()),
            (Tag::Driver, empty()),
            (Tag::Card, empty()),
            (Tag::Bus, empty()),
            (Tag::Format, empty()),
            (Tag::Encoder, empty()),
        ];
        status.publish(hub, all);
        status.count(hub, 0);
        Ok(status)
    }

    fn id(&self, tag: Tag) -> TagId {
        self.tags.tags()[tag as usize]
    }

    fn publish(&self, hub: &Hub, values: impl IntoIterator<Item = (Tag, Value)>) {
        let now = hub.now();
        hub.publish(values.into_iter().map(|(tag, value)| Sample::good(self.id(tag), value, now)).collect());
    }

    fn is_new(&self) -> bool {
        self.state.is_empty()
    }

    fn is_disconnected(&self) -> bool {
        self.state == "disconnected"
    }

    /// Publishes state and reason if they changed; whether they did.
    fn set(&mut self, hub: &Hub, state: &'static str, reason: &str) -> bool {
        if self.state == state && self.reason == reason {
            return false;
        }
        self.state = state;
        self.reason = reason.to_owned();
        if !reason.is_empty() {
            self.last_error = reason.to_owned();
        }
        let values = [
            (Tag::State, Value::string(state)),
            (Tag::Reason, Value::string(reason)),
            (Tag::LastError, Value::string(&*self.last_error)),
        ];
        self.publish(hub, values);
        true
    }

    fn describe(&self, hub: &Hub, stream: &dyn Stream) {
        let (identity, mode) = (stream.identity(), stream.mode());
        let values = [
            (Tag::Driver, Value::string(&*identity.driver)),
            (Tag::Card, Value::string(&*identity.card)),
            (Tag::Bus, Value::string(&*identity.bus)),
            (Tag::Format, Value::string(mode.to_string())),
        ];
        self.publish(hub, values);
    }

    fn set_encoder(&mut self, hub: &Hub, name: &str) {
        if self.encoder != name {
            self.encoder = name.into();
            self.publish(hub, [(Tag::Encoder, Value::string(name))]);
        }
    }

    fn count(&self, hub: &Hub, leases: usize) {
        let Counters { captured, encoded, published, dropped, corrupt } = self.counters;
        let values = [
            (Tag::Leases, Value::UInt32(leases as u32)),
            (Tag::FramesCaptured, Value::UInt64(captured)),
            (Tag::FramesEncoded, Value::UInt64(encoded)),
            (Tag::FramesPublished, Value::UInt64(published)),
            (Tag::FramesDropped, Value::UInt64(dropped)),
            (Tag::FramesCorrupt, Value::UInt64(corrupt)),
        ];
        self.publish(hub, values);
    }
}

#[cfg(test)]
mod tests;
