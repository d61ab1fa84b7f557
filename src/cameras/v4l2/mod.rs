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

use super::device::{CameraError, Description, Device, Stream};
use ioctl::Queue;
use negotiate::Attempt;
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

    fn start(&self, device: &str, file: &File, queue: Queue) -> Result<MmapStream, CameraError> {
        let offered = negotiate::offered(file, queue);
        let ladder = negotiate::ladder(&offered);
        let attempt = |code, wish: &Wish| {
            let Some(agreed) = negotiate::agree(device, file, queue, code, wish)? else {
                return Ok(Attempt::OtherFormat);
            };
            let mode = agreed.mode.clone();
            Ok(MmapStream::start(device, file, agreed)
                .map_or_else(|error| Attempt::Refused(error, mode), Attempt::Started))
        };
        let none = || negotiate::nothing_usable(device, &offered);
        let (mut stream, remark) =
            negotiate::first_that_starts(&ladder, &self.wish, attempt, || negotiate::offers(file, &ladder), none)?;
        stream.set_remark(remark);
        Ok(stream)
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
