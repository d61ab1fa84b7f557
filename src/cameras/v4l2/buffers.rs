//! The buffers of a queue: asking for them, mapping them, handing them to the driver and taking them back.
//!
//! One set of functions for single- and multi-planar queues. A multi-planar buffer is described by an array of planes
//! that the struct points to; [`exchange`] keeps that array alive for exactly one call.

#![allow(unsafe_code, reason = "ioctl(2) and mmap(2); ioctl.rs has the rest")]

use super::ioctl::{Plain, Queue, Request, call};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;
use v4l::v4l_sys as sys;
use v4l::v4l2::{self, vidioc};

/// Memory planes of the formats that are used here, at most (YM12).
pub(super) const PLANES: usize = 3;
/// What the kernel reads of the array of planes, at most.
const MAX_PLANES: usize = sys::VIDEO_MAX_PLANES as usize;

/// Whose memory a queue's buffers are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cameras) enum Memory {
    /// The driver's own, which can be mapped and exported.
    Mmap,
    /// That of another device, which exported it.
    Dmabuf,
}

impl Memory {
    fn code(self) -> u32 {
        match self {
            Memory::Mmap => sys::v4l2_memory_V4L2_MEMORY_MMAP,
            Memory::Dmabuf => sys::v4l2_memory_V4L2_MEMORY_DMABUF,
        }
    }
}

/// VIDIOC_REQBUFS: how many buffers the driver gave. Zero frees them.
pub(super) fn request(file: &File, queue: Queue, memory: Memory, count: u32) -> io::Result<u32> {
    let mut raw = sys::v4l2_requestbuffers { count, type_: queue.code(), memory: memory.code(), ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_REQBUFS, &mut raw)?;
    Ok(raw.count)
}

/// One call with a buffer and, if the queue is multi-planar, its planes, which `fill` may set before.
fn exchange(
    file: &File,
    request: Request,
    (queue, memory, index): (Queue, Memory, u32),
    fill: impl FnOnce(&mut sys::v4l2_buffer, &mut [sys::v4l2_plane; MAX_PLANES]),
) -> io::Result<(sys::v4l2_buffer, [sys::v4l2_plane; MAX_PLANES])> {
    let mut raw = sys::v4l2_buffer { index, type_: queue.code(), memory: memory.code(), ..Plain::zeroed() };
    let mut planes = [sys::v4l2_plane::zeroed(); MAX_PLANES];
    fill(&mut raw, &mut planes);
    if queue.is_mplane() {
        raw.m.planes = planes.as_mut_ptr();
        raw.length = MAX_PLANES as u32;
    }
    let outcome = call(file, request, &mut raw);
    if queue.is_mplane() {
        raw.m.planes = std::ptr::null_mut();
    }
    outcome.map(|()| (raw, planes))
}

/// VIDIOC_QUERYBUF: maps a buffer's planes into memory.
pub(super) fn map(file: &File, queue: Queue, index: u32) -> io::Result<Vec<Mapping>> {
    let (raw, planes) = exchange(file, vidioc::VIDIOC_QUERYBUF, (queue, Memory::Mmap, index), |_, _| {})?;
    if !queue.is_mplane() {
        // SAFETY: for memory-mapped buffers the kernel fills `offset`.
        return Ok(vec![Mapping::new(file, unsafe { raw.m.offset }, raw.length as usize)?]);
    }
    let planes = planes.iter().take(raw.length as usize);
    // SAFETY: as above, `mem_offset`.
    planes.map(|plane| Mapping::new(file, unsafe { plane.m.mem_offset }, plane.length as usize)).collect()
}

/// VIDIOC_EXPBUF: a mapped buffer's first plane, for another device to import.
pub(super) fn export(file: &File, queue: Queue, index: u32) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::RDWR;
    let mut raw = sys::v4l2_exportbuffer { type_: queue.code(), index, flags: flags.bits(), ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_EXPBUF, &mut raw)?;
    // SAFETY: the kernel made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw.fd) })
}

/// What a buffer holds when it is given to the driver.
pub(in crate::cameras) enum Content<'a> {
    /// Nothing: the driver fills it.
    Empty,
    /// Bytes in each of its planes.
    Mapped(&'a [u32]),
    /// So many bytes in another device's buffer.
    Imported(BorrowedFd<'a>, u32),
}

/// VIDIOC_QBUF: gives a buffer to the driver.
pub(super) fn enqueue(file: &File, queue: Queue, index: u32, content: &Content<'_>) -> io::Result<()> {
    let memory = if let Content::Imported(..) = content { Memory::Dmabuf } else { Memory::Mmap };
    exchange(file, vidioc::VIDIOC_QBUF, (queue, memory, index), |raw, planes| match *content {
        Content::Empty => {}
        Content::Mapped(used) => {
            raw.bytesused = used.first().copied().unwrap_or(0);
            for (plane, used) in planes.iter_mut().zip(used) {
                plane.bytesused = *used;
            }
        }
        // vb2 checks what is used against the length given here (vivid's output says EINVAL without one); for the
        // single-planar queue it takes its own.
        Content::Imported(fd, used) if queue.is_mplane() => {
            (planes[0].bytesused, planes[0].length) = (used, used);
            planes[0].m.fd = fd.as_raw_fd();
        }
        Content::Imported(fd, used) => {
            raw.bytesused = used;
            raw.m.fd = fd.as_raw_fd();
        }
    })
    .map(|_| ())
}

pub(super) struct Filled {
    pub index: usize,
    /// The content of each memory plane: from which byte to before which.
    pub planes: [(usize, usize); PLANES],
    pub sequence: u32,
    pub error: bool,
    /// Since boot (CLOCK_MONOTONIC); `None` if the driver stamps by another clock.
    pub monotonic: Option<Duration>,
}

/// VIDIOC_DQBUF: takes a buffer back from the driver. WouldBlock if there is none.
pub(super) fn dequeue(file: &File, queue: Queue, memory: Memory) -> io::Result<Filled> {
    let (raw, planes) = exchange(file, vidioc::VIDIOC_DQBUF, (queue, memory, 0), |_, _| {})?;
    let content = std::array::from_fn(|index| match planes[index] {
        _ if !queue.is_mplane() => (0, if index == 0 { raw.bytesused as usize } else { 0 }),
        plane => (plane.data_offset as usize, plane.bytesused as usize),
    });
    let is_monotonic = raw.flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK == sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    let stamp = || {
        let seconds = u64::try_from(raw.timestamp.tv_sec).ok()?;
        let micros = u64::try_from(raw.timestamp.tv_usec).ok()?;
        Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
    };
    Ok(Filled {
        index: raw.index as usize,
        planes: content,
        sequence: raw.sequence,
        error: raw.flags & sys::V4L2_BUF_FLAG_ERROR != 0,
        monotonic: if is_monotonic { stamp() } else { None },
    })
}

/// VIDIOC_STREAMON or VIDIOC_STREAMOFF.
pub(super) fn set_streaming(file: &File, queue: Queue, on: bool) -> io::Result<()> {
    let request = if on { vidioc::VIDIOC_STREAMON } else { vidioc::VIDIOC_STREAMOFF };
    call(file, request, &mut (queue.code() as std::os::raw::c_int))
}

/// A driver's buffer in this process's memory.
pub(super) struct Mapping {
    start: *mut std::os::raw::c_void,
    length: usize,
}

impl Mapping {
    fn new(file: &File, offset: u32, length: usize) -> io::Result<Self> {
        const PROT_READ_WRITE: i32 = 1 | 2;
        const MAP_SHARED: i32 = 1;
        // SAFETY: a new mapping at an address of the kernel's choice; offset and length come from QUERYBUF.
        let start = unsafe {
            v4l2::mmap(std::ptr::null_mut(), length, PROT_READ_WRITE, MAP_SHARED, file.as_raw_fd(), offset.into())
        }?;
        Ok(Self { start, length })
    }

    /// The content. The driver must not own the buffer meanwhile, so the caller holds it dequeued.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for `length` bytes until drop.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }

    /// As [`Self::bytes`], to fill it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and writable; nobody else has this mapping.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) }
    }
}

// SAFETY: memory that the kernel mapped for the process, and not for a thread.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, unmapped once. It can only fail for arguments that `new` did not give.
        let _ = unsafe { v4l2::munmap(self.start, self.length) };
    }
}
