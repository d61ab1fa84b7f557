//! Cameras of the kernel: Video4Linux2 devices with capture (single- or multi-planar) and streaming I/O.
//!
//! - [`V4l2Device`] opens a node, looks what comes in (signal.rs), agrees on a format (negotiate.rs) and starts a
//!   stream (stream.rs).
//! - [`discover`] lists what there is; nodes.rs tells the nodes apart.
//! - `m2m` are JPEG encoders.
//! - `ioctl` and `buffers` are the only places that talk to the driver.

mod buffers;
mod discover;
mod ioctl;
pub(super) mod m2m;
mod negotiate;
mod nodes;
mod signal;
mod stream;

pub use discover::{Fault, Listing, Node, NodeFormat, NodeSize, discover, list};

use super::device::{CameraError, Device, Identity, Mode, Stream};
use ioctl::Queue;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use stream::MmapStream;
use tracing::warn;

/// A capture node by path, and what is wanted of it. It need not exist yet.
pub struct V4l2Device {
    path: PathBuf,
    wish: Wish,
    /// What a look at the node said, as long as it is there; see `probe`.
    verdict: RefCell<Option<Result<(), CameraError>>>,
    /// The last warning about a mode other than wished for; it is not said twice in a row.
    warned: String,
}

/// What the configuration asks for; the driver decides.
#[derive(Clone, Debug)]
pub struct Wish {
    pub width: u32,
    pub height: u32,
    /// Frames a second.
    pub rate: Option<f64>,
    /// Of a device with several, by V4L2's number; else the one that is selected.
    pub input: Option<u32>,
}

impl V4l2Device {
    pub fn new(path: PathBuf, wish: Wish) -> Self {
        Self { path, wish, verdict: RefCell::new(None), warned: String::new() }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Whether it is a sensor without an ISP, which does not change as long as it is there. Everything else may
    /// change (a loopback device has no format until somebody writes to it), and whoever opens it finds out.
    fn look(&self) -> Result<(), CameraError> {
        let Ok(file) = open(&self.path) else { return Ok(()) };
        let Ok(found) = ioctl::capability(&file) else { return Ok(()) };
        let Ok(queue) = nodes::camera_queue(&found, &self.path) else { return Ok(()) };
        let offered = negotiate::offered(&file, queue);
        match negotiate::nothing_usable(&self.name(), &offered) {
            error @ CameraError::NeedsIsp { .. } if negotiate::ladder(&offered).is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// The first format of the ladder that the driver accepts and can start.
    fn start(&self, file: &File, queue: Queue, identity: &Identity) -> Result<MmapStream, CameraError> {
        let device = self.name();
        let offered = negotiate::offered(file, queue);
        let ladder = negotiate::ladder(&offered);
        let mut refused = None;
        for &code in &ladder {
            let Some(agreed) = negotiate::agree(&device, file, queue, code, &self.wish)? else { continue };
            let mode = agreed.mode.clone();
            match MmapStream::start(&device, file, agreed, identity) {
                // The pipeline before the node has another format than this one; the next may be it.
                Err(error @ CameraError::NeedsIsp { .. }) => refused = Some(error),
                Err(error @ CameraError::Bandwidth { .. }) => {
                    let offers = negotiate::offers(file, &ladder);
                    return self.step_down(file, queue, identity, &offers, &mode).unwrap_or(Err(error));
                }
                outcome => return outcome,
            }
        }
        Err(refused.unwrap_or_else(|| negotiate::nothing_usable(&device, &offered)))
    }

    /// Less than what was wished for, because the bus is full. `None` if there is nothing less.
    fn step_down(
        &self,
        file: &File,
        queue: Queue,
        identity: &Identity,
        offers: &[negotiate::Offer],
        wished: &Mode,
    ) -> Option<Result<MmapStream, CameraError>> {
        let device = self.name();
        let mut last = None;
        for (code, wish) in negotiate::steps_below(offers, wished) {
            let agreed = match negotiate::agree(&device, file, queue, code, &wish) {
                Ok(Some(agreed)) => agreed,
                Ok(None) => continue,
                Err(error) => return Some(Err(error)),
            };
            match MmapStream::start(&device, file, agreed, identity) {
                Err(error @ CameraError::Bandwidth { .. }) => last = Some(Err(error)),
                Ok(mut stream) => {
                    stream.set_remark(format!("less than {wished}, for which the USB bus has no bandwidth left"));
                    return Some(Ok(stream));
                }
                outcome => return Some(outcome),
            }
        }
        last
    }
}

impl Device for V4l2Device {
    fn probe(&self) -> Result<(), CameraError> {
        // Opening wakes some USB cameras up, so it is done once when the node appears; else that it exists is enough
        // here, and `open` finds out the rest.
        match self.path.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                self.verdict.take();
                return Err(CameraError::Missing { device: self.name() });
            }
            Err(failure) => return Err(error(&self.name(), "look", &failure)),
        }
        self.verdict.borrow_mut().get_or_insert_with(|| self.look()).clone()
    }

    fn open(&mut self) -> Result<Box<dyn Stream>, CameraError> {
        let device = self.name();
        let file = open(&self.path).map_err(|failure| error(&device, "open", &failure))?;
        let found = ioctl::capability(&file).map_err(|failure| not_v4l2(&device, &failure))?;
        let queue = nodes::camera_queue(&found, &self.path)
            .map_err(|what| CameraError::NotACamera { device: device.clone(), found: what.into() })?;
        let follows_signal = signal::prepare(&device, &file, &self.wish)?;
        let identity = Identity { driver: found.driver, card: found.card, bus: found.bus };
        let stream = self.start(&file, queue, &identity)?;
        let (mode, asked) = (stream.mode(), format!("{}x{}", self.wish.width, self.wish.height));
        let is_other = (mode.width, mode.height) != (self.wish.width, self.wish.height);
        // A signal has the size that it has.
        let is_odd = !stream.remark().is_empty() || (is_other && !follows_signal);
        let warning = if is_odd { format!("{mode}") } else { String::new() };
        if is_odd && warning != self.warned {
            let why = stream.remark();
            warn!(%device, %asked, got = %mode, why, "The camera cannot do what was asked for; using its nearest.");
        }
        self.warned = warning;
        // Whatever it was before, it works now.
        self.verdict.replace(Some(Ok(())));
        Ok(Box::new(stream))
    }
}

/// Non-blocking, so that only `ioctl::wait` ever waits, and not for ever.
fn open(path: &std::path::Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// What an errno of a V4L2 call means for people.
fn error(device: &str, operation: &'static str, error: &io::Error) -> CameraError {
    use rustix::io::Errno;
    let device = device.to_owned();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => CameraError::Missing { device },
        Some(Errno::NODEV | Errno::NXIO) => CameraError::Gone { device, reason: error.to_string() },
        Some(Errno::BUSY) => CameraError::Busy { device },
        Some(Errno::ACCESS | Errno::PERM) => CameraError::Forbidden { device },
        _ => CameraError::Failed { device, operation, reason: error.to_string() },
    }
}

fn not_v4l2(device: &str, failure: &io::Error) -> CameraError {
    if failure.raw_os_error() == Some(rustix::io::Errno::NOTTY.raw_os_error()) {
        return CameraError::NotACamera { device: device.into(), found: "not a V4L2 device".into() };
    }
    error(device, "query capabilities", failure)
}
