//! An encoder of the kernel, and where they are.

use super::{Port, Side, is_jpeg_encoder};
use crate::cameras::v4l2::buffers::{self, Content, Mapping, Memory};
use crate::cameras::v4l2::ioctl::{self, Format, PlaneFormat, Queue};
use crate::cameras::v4l2::{discover, open};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use v4l::v4l_sys as sys;

/// Opens an encoder; each time it is opened it is one of its own (a context, as the kernel calls it).
pub(in crate::cameras) type Candidate = Box<dyn Fn() -> io::Result<Box<dyn Port>> + Send>;

/// The encoders there are; those whose quality can be set first. The others are meant for video (the Raspberry Pi has one
/// of each) and keep a bitrate rather than a quality.
pub(in crate::cameras) fn find() -> Vec<Candidate> {
    let mut found: Vec<(bool, PathBuf)> = Vec::new();
    for path in discover::video_nodes() {
        let Ok(node) = Node::open(&path) else { continue };
        if is_jpeg_encoder(&node) {
            let has_quality = ioctl::number(&node.file, sys::V4L2_CID_JPEG_COMPRESSION_QUALITY).is_ok();
            found.push((!has_quality, path));
        }
    }
    found.sort();
    let candidate = |(_, path): (bool, PathBuf)| -> Candidate {
        Box::new(move || Node::open(&path).map(|node| Box::new(node) as Box<dyn Port>))
    };
    found.into_iter().map(candidate).collect()
}

struct Node {
    file: File,
    card: String,
    raw_queue: Queue,
    jpeg_queue: Queue,
    memory: Memory,
    raw: Vec<Mapping>,
    jpeg: Vec<Mapping>,
}

impl Node {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let found = ioctl::capability(&file)?;
        if !found.is_m2m() {
            return Err(io::Error::other("not a memory-to-memory device"));
        }
        let is_mplane = found.flags & sys::V4L2_CAP_VIDEO_M2M_MPLANE != 0;
        let (raw_queue, jpeg_queue) =
            if is_mplane { (Queue::OutputMplane, Queue::CaptureMplane) } else { (Queue::Output, Queue::Capture) };
        let (memory, raw, jpeg) = (Memory::Mmap, Vec::new(), Vec::new());
        Ok(Self { file, card: found.card, raw_queue, jpeg_queue, memory, raw, jpeg })
    }

    fn queue(&self, side: Side) -> Queue {
        match side {
            Side::Raw => self.raw_queue,
            Side::Jpeg => self.jpeg_queue,
        }
    }
}

impl Port for Node {
    fn name(&self) -> &str {
        &self.card
    }

    fn formats(&self, side: Side) -> Vec<[u8; 4]> {
        let queue = self.queue(side);
        (0..).map_while(|index| ioctl::format_at(&self.file, queue, index)).map(|(code, _)| code).collect()
    }

    fn set_format(&mut self, side: Side, fourcc: [u8; 4], size: (u32, u32), first: PlaneFormat) -> io::Result<Format> {
        ioctl::set_format(&self.file, self.queue(side), fourcc, size, first)
    }

    fn set_crop(&mut self, size: (u32, u32)) -> io::Result<()> {
        ioctl::set_crop(&self.file, size)
    }

    fn set_quality(&mut self, quality: u8) -> io::Result<()> {
        ioctl::set_control(&self.file, sys::V4L2_CID_JPEG_COMPRESSION_QUALITY, quality.into())
    }

    fn start(&mut self, raw: Memory) -> io::Result<()> {
        self.memory = raw;
        buffers::request(&self.file, self.raw_queue, raw, 1)?;
        buffers::request(&self.file, self.jpeg_queue, Memory::Mmap, 1)?;
        if raw == Memory::Mmap {
            self.raw = buffers::map(&self.file, self.raw_queue, 0)?;
        }
        self.jpeg = buffers::map(&self.file, self.jpeg_queue, 0)?;
        buffers::set_streaming(&self.file, self.raw_queue, true)?;
        buffers::set_streaming(&self.file, self.jpeg_queue, true)
    }

    fn raw(&mut self, plane: usize) -> &mut [u8] {
        self.raw.get_mut(plane).map(Mapping::bytes_mut).unwrap_or_default()
    }

    fn run(&mut self, content: &Content<'_>, timeout: Duration) -> io::Result<&[u8]> {
        buffers::enqueue(&self.file, self.jpeg_queue, 0, &Content::Empty)?;
        buffers::enqueue(&self.file, self.raw_queue, 0, content)?;
        let deadline = Instant::now() + timeout;
        // Both have to come back, in whatever order: a frame that was lent must not be read any more.
        let (mut jpeg, mut raw) = (None, None);
        while jpeg.is_none() || raw.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            ioctl::wait(&self.file, left)?;
            for (buffer, queue, memory) in
                [(&mut jpeg, self.jpeg_queue, Memory::Mmap), (&mut raw, self.raw_queue, self.memory)]
            {
                if buffer.is_none() {
                    *buffer = match buffers::dequeue(&self.file, queue, memory) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                        outcome => Some(outcome?),
                    };
                }
            }
        }
        let (Some(jpeg), Some(raw)) = (jpeg, raw) else { unreachable!("both are there, or it is too late") };
        if jpeg.error || raw.error {
            return Err(io::Error::other("the driver says that it failed"));
        }
        let bytes = self.jpeg.first().map(Mapping::bytes).unwrap_or_default();
        let (start, end) = jpeg.planes[0];
        bytes.get(start..end).ok_or_else(|| io::Error::other("the driver says more than its buffer holds"))
    }
}
