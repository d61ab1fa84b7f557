//! Cameras of the kernel: Video4Linux2 devices with single-planar capture and streaming I/O.
//!
//! - [`V4l2Device`] opens a node, walks the ladder of formats and starts a stream.
//! - [`discover`] lists what there is.
//! - [`Uevents`] says when to look again.
//! - [`ControlsAt`] gives access to a node's controls.
//! - `ioctl` and `stream` are the only places that talk to the driver.

mod controls;
mod discover;
mod ioctl;
mod stream;
mod uevents;

pub use controls::ControlsAt;
pub use discover::{Listing, Node, NodeFormat, NodeSize, discover, list};
pub use uevents::Uevents;

use super::device::{CameraError, Device, Identity, Mode, PixelFormat, Stream};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;

/// A capture node by path, and what is wanted of it. It need not exist yet.
pub struct V4l2Device {
    pub path: PathBuf,
    pub wish: Wish,
}

/// What the configuration asks for; the driver decides.
#[derive(Clone, Debug)]
pub struct Wish {
    pub width: u32,
    pub height: u32,
    /// Frames a second.
    pub rate: Option<f64>,
}

impl V4l2Device {
    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl Device for V4l2Device {
    fn probe(&self) -> Result<(), CameraError> {
        probe(&self.path)
    }

    fn open(&mut self) -> Result<Box<dyn Stream>, CameraError> {
        let device = self.name();
        let file = open(&self.path).map_err(|failure| error(&device, "open", &failure))?;
        let found = ioctl::capability(&file).map_err(|failure| not_v4l2(&device, &failure))?;
        if !found.is_capture() {
            return Err(CameraError::NotACamera { device, found: found.kind().into() });
        }
        let mode = negotiate(&device, &file, &self.wish)?;
        if (mode.width, mode.height) != (self.wish.width, self.wish.height) {
            let asked = format!("{}x{}", self.wish.width, self.wish.height);
            warn!(%device, %asked, got = %mode, "The camera does not offer the size asked for; using its nearest.");
        }
        let identity = Identity { driver: found.driver, card: found.card, bus: found.bus };
        Ok(Box::new(stream::MmapStream::start(&device, file, mode, identity)?))
    }
}

/// Opening wakes some USB cameras up; that the node exists is enough until somebody wants something of it.
fn probe(path: &Path) -> Result<(), CameraError> {
    let device = path.display().to_string();
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(CameraError::Missing { device }),
        Err(failure) => Err(error(&device, "look", &failure)),
    }
}

/// Non-blocking, so that only `ioctl::wait` ever waits, and not for ever.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// Walks the ladder of formats; the first that the driver offers and accepts is taken.
fn negotiate(device: &str, file: &File, wish: &Wish) -> Result<Mode, CameraError> {
    let offered: Vec<[u8; 4]> = (0..).map_while(|index| ioctl::format_at(file, index)).map(|(code, _)| code).collect();
    for rung in PixelFormat::LADDER {
        for &code in offered.iter().filter(|&&code| PixelFormat::from_fourcc(code) == Some(rung)) {
            let got = ioctl::set_format(file, code, wish.width, wish.height)
                .map_err(|failure| error(device, "set format", &failure))?;
            let Some(format) = PixelFormat::from_fourcc(got.fourcc).filter(|&format| format == rung) else { continue };
            return Ok(Mode {
                format,
                width: got.width,
                height: got.height,
                stride: got.stride,
                limited_range: got.limited_range && format != PixelFormat::Mjpg,
                frame_interval: ioctl::frame_interval(file, wish.rate).unwrap_or(Duration::ZERO),
            });
        }
    }
    let names: Vec<_> = offered.iter().map(|code| String::from_utf8_lossy(code).into_owned()).collect();
    let offered = if names.is_empty() { "no format".into() } else { names.join(", ") };
    Err(CameraError::NoFormat { device: device.into(), offered })
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
