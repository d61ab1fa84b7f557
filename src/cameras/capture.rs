//! The capture thread of one camera.
//!
//!     idle ──lease──► opening ──► streaming ──last lease ended, linger over──► idle
//!      ▲                 │            │
//!      └─device is back──┴── failed ◄─┘   (bad, with the reason, to every lease; tried again while wanted)
//!
//! Idle means that the device is closed: nothing is captured, and another program may use the camera. Whether it is still
//! there is looked at whenever a device came or went (plug.rs nudges), and twice a second for those that do not announce
//! themselves, so that a camera that was unplugged is bad within a second even if nobody watches it.
//!
//! A restart that somebody asks for closes the device wherever this thread is in the picture above, and begins at idle.
//!
//! A frame is measured at most once, if somebody who is due has a deadband (and once a second, for the live meter), and
//! then encoded at most once, if somebody still wants it (hub::frames). What the camera is and does it says on its tags (status.rs).

use super::device::{CameraError, Device, Frame, Mode, PixelFormat};
use super::difference::Meter;
use super::encode::EncodeError;
use super::ladder::Ladder;
use super::status::Status;
use crate::base::{Backoff, Stop};
use crate::hub::Hub;
use crate::hub::frames::{Port, Wanted};
use crate::model::{LumaGrid, Picture, Quality};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often an idle camera is looked at, and how long a stop may take to be seen.
const GLANCE: Duration = Duration::from_millis(500);
/// A stream that is silent for so long is given up and opened anew.
const SILENCE: Duration = Duration::from_secs(5);

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
    /// Decode a camera's JPEG far enough to see that it is whole.
    pub(super) verify_jpeg: bool,
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
            self.status.tell();
            if self.port.is_restart_asked() {
                self.restart();
                retry.reset();
            }
            let is_nudged = self.port.take_nudge();
            if is_nudged {
                retry.reset();
            }
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
                        self.status.set("idle", "");
                    }
                    // Opened anew at once, in the new size; but not over and over if the driver cannot decide.
                    Err(CameraError::SourceChanged { .. }) => {
                        self.status.set("idle", "");
                        if began.elapsed() < GLANCE {
                            retry.wait();
                        }
                    }
                    Err(error) => {
                        self.fail(&error);
                        // Whoever waits for a signal to come back does not want to wait longer than needed.
                        if error.is_signal() {
                            retry.reset();
                        }
                        retry.wait();
                    }
                }
                self.status.rests(self.port.demand().leases);
            } else {
                if is_nudged || glanced.elapsed() >= GLANCE {
                    self.glance(retry.is_due());
                    glanced = Instant::now();
                }
                if is_wanted {
                    // Demand returns at once; there is nothing to do for it yet.
                    self.port.wait_for_nudge(retry.pause());
                }
            }
        }
    }

    /// The device is closed, as it was asked for. Whatever was wrong with it may be over: the next reader finds out.
    fn restart(&mut self) {
        info!(camera = self.port.name(), "Restarting the camera, as asked.");
        match self.device.probe() {
            Ok(()) => self.port.set_quality(Quality::GOOD),
            Err(error) => self.fail(&error),
        }
        self.port.restarted();
    }

    /// Is the device (still, again) there? A loss is not taken back before it is time to try again, so that it is seen also
    /// when the device comes back at once.
    fn glance(&mut self, may_recover: bool) {
        match self.device.probe() {
            Err(error) => {
                self.fail(&error);
                self.status.forget_device();
            }
            // A device that is new, or there again, says what it is.
            Ok(()) if may_recover && !self.status.is_described() => self.meet(),
            // Of any other fault nobody knows whether it persists, because nobody asks: the next reader finds out. The
            // state stays what it was, or a broken camera would look fine between two attempts.
            Ok(()) if may_recover && self.port.demand().leases == 0 && !self.status.is_hopeless() => {
                self.port.set_quality(Quality::GOOD);
            }
            Ok(()) => {}
        }
    }

    /// A device that has come and is not used yet.
    fn meet(&mut self) {
        match self.describe() {
            Ok(()) => {
                self.port.set_quality(Quality::GOOD);
                self.status.set("idle", "");
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Asks the device what it is, once as long as it is there.
    fn describe(&mut self) -> Result<(), CameraError> {
        if self.status.is_described() {
            return Ok(());
        }
        let description = self.device.describe()?;
        self.status.found(&description);
        description.fault.map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: &CameraError) {
        let quality = error.quality();
        let is_new = self.status.set(error.state(), &error.to_string());
        if is_new {
            warn!(camera = self.port.name(), %error, "Camera lost; trying again.");
        }
        if self.status.is_disconnected() && (is_new || self.status.is_described()) {
            self.status.lose_device(&quality);
        }
        self.port.set_quality(quality);
    }

    /// Opens the device and streams until nobody has wanted a frame for the linger time.
    fn stream(&mut self, ladder: &mut Option<Ladder>, stop: &Stop) -> Result<(), CameraError> {
        let Settings { quality, max_bytes, hardware_jpeg, .. } = self.settings;
        let ladder = match ladder {
            Some(ladder) => ladder,
            None => ladder.insert(
                Ladder::new(quality, max_bytes, hardware_jpeg).map_err(|error| no_encoder(self.port.name(), &error))?,
            ),
        };
        self.describe()?;
        let mut stream = self.device.open()?;
        let mode = stream.mode().clone();
        let mut session = Session::new(self, ladder, mode, stream.remark().to_owned())?;
        info!(camera = session.camera, mode = %session.mode, "Capturing.");
        while !stop.is_stopped() {
            let now = Instant::now();
            let leases = session.port.demand().leases;
            session.status.tick(leases);
            session.status.tell();
            if session.port.is_restart_asked() {
                return Ok(());
            }
            if leases > 0 {
                session.last_wanted = now;
            } else if now.duration_since(session.last_wanted) >= session.linger {
                break;
            }
            match stream.next(GLANCE)? {
                Some(frame) => session.take(&frame),
                None if session.is_silent() => {
                    return Err(CameraError::Silent { device: session.camera.into(), seconds: SILENCE.as_secs() });
                }
                None => continue,
            }
            if session.is_silent() {
                return Err(CameraError::Damaged { device: session.camera.into(), seconds: SILENCE.as_secs() });
            }
        }
        info!(camera = session.camera, "Nobody is watching; the camera is off.");
        Ok(())
    }
}

/// From the opening of a device to its closing.
struct Session<'a> {
    hub: &'a Hub,
    port: &'a Port,
    status: &'a mut Status,
    camera: &'a str,
    linger: Duration,
    verify_jpeg: bool,
    mode: Mode,
    /// What people should know about the mode.
    remark: String,
    meter: Meter,
    ladder: &'a mut Ladder,
    last_sequence: Option<u32>,
    /// When somebody last held a lease, or got a picture: a reader may come and go during one wait for a frame.
    last_wanted: Instant,
    /// When there was a frame that is worth something.
    last_good: Instant,
    /// How the last picture looked that went to anybody, if it was measured.
    last_published: Option<LumaGrid>,
    is_fault_said: bool,
    is_lowering_said: bool,
}

impl<'a> Session<'a> {
    fn new(capture: &'a mut Capture, ladder: &'a mut Ladder, mode: Mode, remark: String) -> Result<Self, CameraError> {
        let Capture { hub, port, status, settings, .. } = capture;
        let meter = Meter::new().map_err(|error| no_encoder(port.name(), &error))?;
        status.streams(&mode);
        status.begin_window();
        Ok(Self {
            hub,
            camera: port.name(),
            port,
            status,
            linger: settings.linger,
            verify_jpeg: settings.verify_jpeg,
            mode,
            remark,
            meter,
            ladder,
            last_sequence: None,
            last_wanted: Instant::now(),
            last_good: Instant::now(),
            last_published: None,
            is_fault_said: false,
            is_lowering_said: false,
        })
    }

    fn is_silent(&self) -> bool {
        self.last_good.elapsed() >= SILENCE
    }

    fn take(&mut self, frame: &Frame<'_>) {
        let captured_at = self.hub.now().saturating_sub(frame.captured.elapsed());
        let counters = &mut self.status.counters;
        counters.captured += 1;
        counters.last_frame = Some(captured_at);
        if let Some(last) = self.last_sequence.replace(frame.sequence) {
            let skipped = frame.sequence.wrapping_sub(last).wrapping_sub(1);
            // A driver that restarts its count is not a driver that lost four billion frames.
            counters.dropped += u64::from(if skipped < 1000 { skipped } else { 0 });
        }
        if frame.corrupt {
            counters.corrupt += 1;
            return;
        }
        let interval = self.mode.frame_interval;
        let wanted = self.port.wanted(frame.captured, interval);
        let is_metering = self.status.is_meter_old();
        if wanted == Wanted::Nothing && !is_metering {
            self.last_good = Instant::now();
            return;
        }
        // What a camera encoded may be damaged where only decoding shows it.
        let is_verified = self.verify_jpeg && self.mode.format == PixelFormat::Mjpg;
        let is_measured = wanted == Wanted::Comparison || is_metering || is_verified;
        let grid = match is_measured.then(|| self.meter.grid(&self.mode, frame.data)).transpose() {
            Ok(grid) => grid,
            Err(error) => return self.drop_frame(&error),
        };
        if let Some(grid) = &grid {
            self.show_difference(grid);
            if wanted == Wanted::Nothing || !self.port.judge(frame.captured, interval, grid) {
                self.last_good = Instant::now();
                self.status.set("streaming", &self.remark);
                return;
            }
        }
        let encoded = match self.ladder.encode(&self.mode, frame) {
            Ok(encoded) => encoded,
            Err(error) => return self.drop_frame(&error),
        };
        self.last_good = Instant::now();
        self.last_wanted = self.last_good;
        self.status.set_encoder(self.ladder.name());
        self.say_lowering();
        let counters = &mut self.status.counters;
        counters.encoded += u64::from(self.mode.format != PixelFormat::Mjpg);
        let picture = Picture {
            jpeg: encoded.jpeg,
            width: encoded.width,
            height: encoded.height,
            sequence: counters.captured,
            captured: captured_at,
        };
        counters.published += self.port.deliver(frame.captured, interval, &picture, grid.as_ref()) as u64;
        self.last_published = grid.or(self.last_published.take());
        self.status.set("streaming", &self.remark);
    }

    fn drop_frame(&mut self, error: &EncodeError) {
        self.status.counters.corrupt += 1;
        if !std::mem::replace(&mut self.is_fault_said, true) {
            warn!(camera = self.camera, %error, "Dropped a frame; further ones are only counted.");
        }
        if let EncodeError::Limit { .. } = error {
            let status = crate::model::Status::BAD_RESOURCE_UNAVAILABLE;
            self.port.set_quality(Quality::new(status, error.to_string()));
        }
    }

    fn show_difference(&mut self, grid: &LumaGrid) {
        match &self.last_published {
            Some(last) => self.status.meter(self.port.comparison().difference(grid, last)),
            None => self.status.meter(0.0),
        }
    }

    fn say_lowering(&mut self) {
        let Some(quality) = self.ladder.lowered_quality() else { return };
        if !std::mem::replace(&mut self.is_lowering_said, true) {
            warn!(camera = self.camera, quality, "Lowered the JPEG quality to meet max_bytes; said once.");
        }
    }
}

fn no_encoder(camera: &str, error: &EncodeError) -> CameraError {
    CameraError::Failed { device: camera.into(), operation: "make an encoder", reason: error.to_string() }
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
        self.next = Instant::now();
    }
}

#[cfg(test)]
mod tests;
