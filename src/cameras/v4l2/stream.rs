//! Capturing through memory-mapped buffers.
//!
//!     start: S_FMT, S_PARM, REQBUFS, mmap, QBUF all, STREAMON
//!     next:  QBUF of the last one, poll, DQBUF
//!     drop:  STREAMOFF, munmap, REQBUFS(0), close
//!
//! At most one buffer is with us; the others are with the driver, so that frames stay fresh while one is encoded.

use super::ioctl::{self, Mapping};
use crate::cameras::device::{CameraError, Frame, Mode, Stream};
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// Enough for the driver to fill one while another is being encoded and a third waits.
const BUFFERS: u32 = 4;

pub(super) struct MmapStream {
    device: String,
    file: File,
    mode: Mode,
    buffers: Vec<Mapping>,
    /// The buffer that is with us.
    held: Option<u32>,
}

impl MmapStream {
    pub(super) fn start(device: &str, file: File, mode: Mode) -> Result<Self, CameraError> {
        let at = |operation| move |error| super::error(device, operation, &error);
        let count = ioctl::request_buffers(&file, BUFFERS).map_err(at("request buffers"))?;
        let mut stream = Self { device: device.into(), file, mode, buffers: Vec::new(), held: None };
        for index in 0..count {
            let (offset, length) = ioctl::query_buffer(&stream.file, index).map_err(at("query buffer"))?;
            stream.buffers.push(Mapping::new(&stream.file, offset, length).map_err(at("map buffer"))?);
            ioctl::queue(&stream.file, index).map_err(at("queue buffer"))?;
        }
        ioctl::set_streaming(&stream.file, true).map_err(at("start streaming"))?;
        Ok(stream)
    }

    fn failed(&self, operation: &'static str, error: &io::Error) -> CameraError {
        super::error(&self.device, operation, error)
    }
}

impl Stream for MmapStream {
    fn mode(&self) -> &Mode {
        &self.mode
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<Frame<'_>>, CameraError> {
        if let Some(index) = self.held.take() {
            ioctl::queue(&self.file, index).map_err(|error| self.failed("queue buffer", &error))?;
        }
        if !ioctl::wait(&self.file, timeout).map_err(|error| self.failed("wait for a frame", &error))? {
            return Ok(None);
        }
        let filled = match ioctl::dequeue(&self.file) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(self.failed("take a frame", &error)),
        };
        self.held = Some(filled.index as u32);
        let Some(buffer) = self.buffers.get(filled.index) else {
            let error = io::Error::other(format!("the driver gave buffer {}, which it never had", filled.index));
            return Err(self.failed("take a frame", &error));
        };
        let bytes = buffer.bytes();
        Ok(Some(Frame {
            data: &bytes[..filled.length.min(bytes.len())],
            captured: filled.monotonic.map_or_else(Instant::now, instant_of),
            sequence: filled.sequence,
            corrupt: filled.error,
        }))
    }
}

/// The driver's stamp as an Instant, which on Linux is the same clock but does not show its zero.
fn instant_of(stamp: Duration) -> Instant {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now_since_boot = Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0));
    let age = now_since_boot.saturating_sub(stamp);
    // A driver that stamps zero is not a driver that kept a frame since boot.
    let age = if age > Duration::from_secs(5) { Duration::ZERO } else { age };
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}

impl Drop for MmapStream {
    fn drop(&mut self) {
        // Errors say that the device is gone, which whoever drops this knows or is about to notice.
        let _ = ioctl::set_streaming(&self.file, false);
        self.buffers.clear();
        let _ = ioctl::request_buffers(&self.file, 0);
    }
}
