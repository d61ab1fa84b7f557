//! Capturing through memory-mapped buffers.
//!
//!     start: S_FMT, S_PARM, REQBUFS, mmap, QBUF all, STREAMON
//!     next:  QBUF of the last one, poll, DQBUF
//!     drop:  STREAMOFF, munmap, REQBUFS(0), close
//!
//! At most one buffer is with us; the others are with the driver, so that frames stay fresh while one is encoded.
//!
//! A frame is one slice for everybody else. The few formats with a memory plane for luma and others for chroma (NM12,
//! YM12) are gathered into one here, which costs a copy; drivers that offer them mostly offer NV12 too, which is
//! preferred.

use super::buffers::{self, Content, Mapping, Memory};
use super::ioctl::{self, PlaneFormat, Queue};
use super::negotiate::Agreed;
use super::signal;
use crate::cameras::device::{CameraError, Frame, Mode, Plane, Stream};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use v4l::v4l_sys as sys;

/// Enough for the driver to fill one while another is being encoded and a third waits.
const BUFFERS: u32 = 4;

pub(super) struct MmapStream {
    device: String,
    file: File,
    queue: Queue,
    mode: Mode,
    remark: String,
    /// Of the memory planes.
    planes: Vec<PlaneFormat>,
    /// Each with its memory planes.
    buffers: Vec<Vec<Mapping>>,
    /// The same, for another device to take frames from; all or none.
    exported: Vec<OwnedFd>,
    /// The frame in one piece, where the driver gives it in several.
    gathered: Vec<u8>,
    /// The buffer that is with us.
    held: Option<u32>,
}

impl MmapStream {
    pub(super) fn start(device: &str, file: &File, agreed: Agreed) -> Result<Self, CameraError> {
        let at = |operation| move |error| super::error(device, operation, &error);
        let Agreed { queue, mode, planes } = agreed;
        let mut stream = Self {
            device: device.into(),
            file: file.try_clone().map_err(at("duplicate the file"))?,
            queue,
            mode,
            remark: String::new(),
            planes,
            buffers: Vec::new(),
            exported: Vec::new(),
            gathered: Vec::new(),
            held: None,
        };
        let count = buffers::request(file, queue, Memory::Mmap, BUFFERS).map_err(at("request buffers"))?;
        for index in 0..count {
            stream.buffers.push(buffers::map(file, queue, index).map_err(at("map buffer"))?);
            // For a hardware encoder; one that takes frames as they are needs full range in one plane. Not every driver
            // can export, and a copy does as well.
            if stream.planes.len() == 1 && !stream.mode.limited_range {
                stream.exported.extend(buffers::export(file, queue, index));
            }
            buffers::enqueue(file, queue, index, &Content::Empty).map_err(at("queue buffer"))?;
        }
        buffers::set_streaming(file, queue, true).map_err(|error| stream.not_started(&error))?;
        Ok(stream)
    }

    pub(super) fn set_remark(&mut self, remark: String) {
        self.remark = remark;
    }

    fn not_started(&self, error: &io::Error) -> CameraError {
        let (device, mode) = (self.device.clone(), self.mode.to_string());
        match Errno::from_io_error(error) {
            // usb_submit_urb and the selection of an alternate setting both say so.
            Some(Errno::NOSPC) => CameraError::Bandwidth { device, mode },
            // The links of a media controller are not set up, or for another format.
            Some(Errno::PIPE) => {
                CameraError::NeedsIsp { device, found: format!("its media pipeline does not deliver {mode}") }
            }
            _ => self.failed("start streaming", error),
        }
    }

    fn has_new_source(&self) -> bool {
        let mut is_new = false;
        while let Ok(Some(event)) = ioctl::next_event(&self.file) {
            is_new |= event.kind == sys::V4L2_EVENT_SOURCE_CHANGE;
        }
        is_new
    }

    fn failed(&self, operation: &'static str, error: &io::Error) -> CameraError {
        super::error(&self.device, operation, error)
    }
}

impl Stream for MmapStream {
    fn mode(&self) -> &Mode {
        &self.mode
    }

    fn remark(&self) -> &str {
        &self.remark
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<Frame<'_>>, CameraError> {
        if let Some(index) = self.held.take() {
            buffers::enqueue(&self.file, self.queue, index, &Content::Empty)
                .map_err(|error| self.failed("queue buffer", &error))?;
        }
        let ready = ioctl::wait(&self.file, timeout).map_err(|error| self.failed("wait for a frame", &error))?;
        // First, because a driver may fail its buffers when the signal changes.
        if ready.event && self.has_new_source() {
            return Err(CameraError::SourceChanged { device: self.device.clone() });
        }
        if !ready.buffer {
            signal::check(&self.device, &self.file)?;
            return Ok(None);
        }
        let filled = match buffers::dequeue(&self.file, self.queue, Memory::Mmap) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(self.failed("take a frame", &error)),
        };
        self.held = Some(filled.index as u32);
        let Some(buffer) = self.buffers.get(filled.index) else {
            let error = io::Error::other(format!("the driver gave buffer {}, which it never had", filled.index));
            return Err(self.failed("take a frame", &error));
        };
        let mut contents = buffer.iter().zip(filled.planes).map(|(mapping, (offset, end))| {
            let bytes = mapping.bytes();
            let end = end.min(bytes.len());
            &bytes[offset.min(end)..end]
        });
        let data = if buffer.len() > 1 {
            gather(&self.mode, &self.planes, contents, &mut self.gathered);
            &self.gathered
        } else {
            contents.next().unwrap_or_default()
        };
        Ok(Some(Frame {
            data,
            captured: filled.monotonic.map_or_else(Instant::now, instant_of),
            sequence: filled.sequence,
            corrupt: filled.error,
            dmabuf: self.exported.get(filled.index).map(AsFd::as_fd),
        }))
    }
}

/// Lays memory planes out as one frame of `mode`; empty if a plane is cut short.
fn gather<'a>(mode: &Mode, formats: &[PlaneFormat], contents: impl Iterator<Item = &'a [u8]>, frame: &mut Vec<u8>) {
    let planes = mode.planes();
    frame.resize(planes.iter().map(Plane::end).max().unwrap_or(0), 0);
    for ((plane, format), content) in planes.iter().zip(formats).zip(contents) {
        let stride = (format.stride as usize).max(plane.line);
        if content.len() < stride * (plane.rows - 1) + plane.line {
            return frame.clear();
        }
        let lines = frame[plane.offset..plane.end()].chunks_mut(plane.stride);
        for (to, from) in lines.zip(content.chunks(stride)) {
            to[..plane.line].copy_from_slice(&from[..plane.line]);
        }
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
        let _ = buffers::set_streaming(&self.file, self.queue, false);
        self.buffers.clear();
        let _ = buffers::request(&self.file, self.queue, Memory::Mmap, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cameras::device::PixelFormat;

    #[test]
    fn memory_planes_become_one_frame_whatever_their_strides() {
        let mode = Mode {
            format: PixelFormat::Yu12,
            width: 4,
            height: 4,
            stride: 4,
            limited_range: false,
            frame_interval: Duration::ZERO,
        };
        let strides = [6, 2, 3].map(|stride| PlaneFormat { stride, size: 0 });
        let contents: [&[u8]; 3] = [b"aaaa--bbbb--cccc--dddd", b"uuvv", b"xx-yy-"];
        let mut frame = Vec::new();
        gather(&mode, &strides, contents.into_iter(), &mut frame);
        assert_eq!(frame, b"aaaabbbbccccdddduuvvxxyy");
        gather(&mode, &strides, [contents[0], b"uuv", contents[2]].into_iter(), &mut frame);
        assert_eq!(frame, b"");
    }
}
