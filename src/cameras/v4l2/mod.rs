//! Cameras of the kernel: Video4Linux2 devices with capture (single- or multi-planar) and streaming I/O.
//!
//! - [`V4l2Device`] opens a node, looks what comes in (signal.rs), agrees on a format (negotiate.rs) and starts a
//!   stream (stream.rs).
//! - [`list`] says what there is; kinds.rs tells the nodes apart, names.rs names them.
//! - [`Uevents`] says when to look again; [`Watch`] does so for people.
//! - [`ControlsAt`] gives access to a node's controls; `m2m` are JPEG encoders.
//! - `ioctl`, `control_calls` and `buffers` are the only places that talk to the driver.

mod buffers;
mod control_calls;
mod controls;
mod discover;
mod ioctl;
mod kinds;
pub(super) mod m2m;
mod names;
mod negotiate;
mod place;
mod signal;
mod stream;
mod uevents;
mod watch;

pub use controls::ControlsAt;
pub use discover::{Fault, Listing, Node, NodeFormat, NodeSize, list};
pub(super) use discover::{NodeStamp, camera_name, nodes};
pub(super) use names::is_settled;
pub use place::Place;
pub use uevents::Uevents;
pub use watch::{Change, Watch};

use super::device::{CameraError, Description, Device, Mode, Stream};
use ioctl::Queue;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use stream::MmapStream;
use tracing::warn;

/// A capture node, and what is wanted of it. It need not exist yet.
pub struct V4l2Device {
    place: Place,
    wish: Wish,
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
    pub fn new(place: Place, wish: Wish) -> Self {
        Self { place, wish, warned: String::new() }
    }

    /// The first format of the ladder that the driver accepts and can start.
    fn start(&self, device: &str, file: &File, queue: Queue) -> Result<MmapStream, CameraError> {
        let offered = negotiate::offered(file, queue);
        let ladder = negotiate::ladder(&offered);
        let mut refused = None;
        for &code in &ladder {
            let Some(agreed) = negotiate::agree(device, file, queue, code, &self.wish)? else { continue };
            let mode = agreed.mode.clone();
            match MmapStream::start(device, file, agreed) {
                // The pipeline before the node has another format than this one; the next may be it.
                Err(error @ CameraError::NeedsIsp { .. }) => refused = Some(error),
                Err(error @ CameraError::Bandwidth { .. }) => {
                    let offers = negotiate::offers(file, &ladder);
                    return step_down(device, file, queue, &offers, &mode).unwrap_or(Err(error));
                }
                outcome => return outcome,
            }
        }
        Err(refused.unwrap_or_else(|| negotiate::nothing_usable(device, &offered)))
    }
}

impl Device for V4l2Device {
    fn probe(&self) -> Result<(), CameraError> {
        probe(&self.place)
    }

    fn describe(&self) -> Result<Description, CameraError> {
        let path = self.place.get()?;
        let found = discover::examine(&path)?;
        let formats = found.formats.iter().flat_map(NodeFormat::lines).collect();
        Ok(Description { path: path.display().to_string(), identity: found.identity, formats, fault: found.fault })
    }

    fn open(&mut self) -> Result<Box<dyn Stream>, CameraError> {
        let (device, path) = (self.place.name(), self.place.get()?);
        let file = open(&path).map_err(|failure| error(&device, "open", &failure))?;
        let found = ioctl::capability(&file).map_err(|failure| not_v4l2(&device, &failure))?;
        let queue = kinds::camera_queue(&found, &path)
            .map_err(|what| CameraError::NotACamera { device: device.clone(), found: what.into() })?;
        let follows_signal = signal::prepare(&device, &file, &self.wish)?;
        let stream = self.start(&device, &file, queue)?;
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
        Ok(Box::new(stream))
    }
}

/// Less than what was wished for, because the bus is full. `None` if there is nothing less.
fn step_down(
    device: &str,
    file: &File,
    queue: Queue,
    offers: &[negotiate::Offer],
    wished: &Mode,
) -> Option<Result<MmapStream, CameraError>> {
    let mut last = None;
    for (code, wish) in negotiate::steps_below(offers, wished) {
        let agreed = match negotiate::agree(device, file, queue, code, &wish) {
            Ok(Some(agreed)) => agreed,
            Ok(None) => continue,
            Err(error) => return Some(Err(error)),
        };
        match MmapStream::start(device, file, agreed) {
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

/// Opening wakes some USB cameras up; that the node exists is enough until somebody wants something of it.
fn probe(place: &Place) -> Result<(), CameraError> {
    match place.get()?.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(CameraError::Missing { device: place.name() }),
        Err(failure) => Err(error(&place.name(), "look", &failure)),
    }
}

/// Non-blocking, so that only `ioctl::wait` ever waits, and not for ever.
fn open(path: &Path) -> io::Result<File> {
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
