//! Encoders that exist only in tests: they answer as known drivers do, and as broken ones might.
//!
//! A peer reads its buffers by its own layout and encodes what it finds there, so that a frame that was put in wrongly
//! comes out wrong.

use super::*;
use crate::cameras::encode::Encoder;
use crate::cameras::v4l2::m2m::node::Candidate;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// How one kind of encoder behaves.
#[derive(Clone)]
pub(in crate::cameras) struct Peer {
    pub(in crate::cameras) name: &'static str,
    raw: &'static [&'static [u8; 4]],
    jpeg: &'static [u8; 4],
    /// Width and height at most; more is cut down to it.
    max: (u32, u32),
    /// Bytes that a line is a multiple of.
    stride_align: u32,
    /// Sizes become a multiple of this in the answer to S_FMT.
    size_align: (u32, u32),
    /// Rows are laid out as a multiple of this, whatever S_FMT answered.
    row_align: u32,
    /// Needs S_SELECTION to know the size of the picture; others remember what was asked for.
    needs_crop: bool,
    has_quality: bool,
    takes_dmabuf: bool,
    fault: Fault,
    seen: Arc<Seen>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// S_FMT fails.
    Format,
    /// STREAMON fails.
    Start,
    /// Frames fail after so many good ones.
    After(u32),
    /// Says to be done and gives nothing.
    Empty,
    /// Gives something that is no JPEG.
    Garbage,
    /// Gives a JPEG of another size.
    Size,
    /// Gives a JPEG of nothing (zeroes are green in YCbCr).
    Green,
}

#[derive(Default)]
struct Seen {
    opened: AtomicU32,
    open: AtomicU32,
    imported: AtomicU32,
    frames: AtomicU32,
    quality: AtomicU8,
}

fn plain(name: &'static str) -> Peer {
    Peer {
        name,
        raw: &[b"YUYV", b"UYVY", b"NV12", b"YU12", b"GREY"],
        jpeg: b"JPEG",
        max: (8192, 8192),
        stride_align: 1,
        size_align: (1, 1),
        row_align: 1,
        needs_crop: false,
        has_quality: true,
        takes_dmabuf: true,
        fault: Fault::None,
        seen: Arc::new(Seen { quality: AtomicU8::new(90), ..Seen::default() }),
    }
}

/// drivers/staging/vc04_services/bcm2835-codec of the Raspberry Pi's kernel, image encoder.
pub(in crate::cameras) fn bcm2835() -> Peer {
    Peer {
        raw: &[b"YU12", b"YV12", b"NV12", b"YUYV", b"UYVY"],
        max: (1920, 1920),
        stride_align: 64,
        size_align: (1, 16),
        takes_dmabuf: false,
        ..plain("bcm2835-codec-encode_image")
    }
}

/// drivers/media/platform/verisilicon, VEPU.
pub(in crate::cameras) fn hantro() -> Peer {
    Peer {
        raw: &[b"YM12", b"NM12", b"YUYV", b"UYVY"],
        size_align: (16, 16),
        needs_crop: true,
        ..plain("rockchip,rk3399-vpu-enc")
    }
}

/// drivers/media/platform/nxp/imx-jpeg.
pub(in crate::cameras) fn mxc_jpeg() -> Peer {
    Peer { raw: &[b"NV12", b"YUYV", b"GREY"], stride_align: 16, row_align: 16, ..plain("mxc-jpeg encoder") }
}

pub(in crate::cameras) fn without_quality() -> Peer {
    Peer { has_quality: false, jpeg: b"MJPG", ..plain("without quality") }
}

pub(in crate::cameras) fn failing_after(frames: u32) -> Peer {
    Peer { fault: Fault::After(frames), ..plain("failing") }
}

pub(in crate::cameras) fn broken() -> Vec<Peer> {
    let faults = [
        ("fails S_FMT", Fault::Format),
        ("fails STREAMON", Fault::Start),
        ("fails every frame", Fault::After(0)),
        ("gives nothing", Fault::Empty),
        ("gives no JPEG", Fault::Garbage),
        ("gives another size", Fault::Size),
        ("gives green", Fault::Green),
    ];
    faults.map(|(name, fault)| Peer { fault, ..plain(name) }).into()
}

impl Peer {
    pub(in crate::cameras) fn candidate(&self) -> Candidate {
        let peer = self.clone();
        Box::new(move || {
            peer.seen.opened.fetch_add(1, Ordering::SeqCst);
            peer.seen.open.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Session { peer: peer.clone(), size: (0, 0), raw: None, buffers: vec![], jpeg: vec![] }))
        })
    }

    pub(in crate::cameras) fn opened(&self) -> u32 {
        self.seen.opened.load(Ordering::SeqCst)
    }

    pub(in crate::cameras) fn open(&self) -> u32 {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// How many it was given to encode.
    pub(in crate::cameras) fn frames(&self) -> u32 {
        self.seen.frames.load(Ordering::SeqCst)
    }

    pub(in crate::cameras) fn imported(&self) -> u32 {
        self.seen.imported.load(Ordering::SeqCst)
    }

    pub(in crate::cameras) fn quality(&self) -> u8 {
        self.seen.quality.load(Ordering::SeqCst)
    }
}

struct Session {
    peer: Peer,
    /// Of the picture.
    size: (u32, u32),
    raw: Option<Raw>,
    buffers: Vec<Vec<u8>>,
    jpeg: Vec<u8>,
}

/// How the peer reads its buffers.
struct Raw {
    /// Of one frame in one piece, with the peer's rows and stride.
    layout: Mode,
    is_split: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.peer.seen.open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn einval() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::INVAL.raw_os_error())
}

impl Port for Session {
    fn name(&self) -> &str {
        self.peer.name
    }

    fn formats(&self, side: Side) -> Vec<[u8; 4]> {
        match side {
            Side::Raw => self.peer.raw.iter().map(|code| **code).collect(),
            Side::Jpeg => vec![*self.peer.jpeg],
        }
    }

    fn set_format(
        &mut self,
        side: Side,
        fourcc: [u8; 4],
        (width, height): (u32, u32),
        first: PlaneFormat,
    ) -> io::Result<Format> {
        if self.peer.fault == Fault::Format {
            return Err(einval());
        }
        let (width, height) = (width.min(self.peer.max.0), height.min(self.peer.max.1));
        if side == Side::Jpeg {
            return Ok(Format { fourcc, width, height, limited_range: false, planes: vec![first] });
        }
        self.size = (width, height);
        let (across, down) = self.peer.size_align;
        let (width, height) = (width.next_multiple_of(across), height.next_multiple_of(down));
        if self.peer.needs_crop {
            self.size = (width, height);
        }
        let format = PixelFormat::from_fourcc(fourcc).ok_or_else(einval)?;
        let line = if matches!(format, PixelFormat::Yuyv | PixelFormat::Uyvy) { 2 * width } else { width };
        // hantro and mxc-jpeg have lines of their own; the Pi's takes longer ones.
        let wished = if self.peer.stride_align == 64 { first.stride } else { 0 };
        let stride = line.max(wished).next_multiple_of(self.peer.stride_align);
        let rows = height.next_multiple_of(self.peer.row_align);
        let frame_interval = Duration::ZERO;
        let layout = Mode { format, width, height: rows, stride, limited_range: false, frame_interval };
        let is_split = matches!(&fourcc, b"NM12" | b"YM12");
        let size =
            |plane: &Plane| PlaneFormat { stride: plane.stride as u32, size: (plane.stride * plane.rows) as u32 };
        let planes = match is_split {
            true => layout.planes().iter().map(size).collect(),
            false => vec![PlaneFormat { stride, size: layout.planes().last().map_or(0, Plane::end) as u32 }],
        };
        self.buffers = planes.iter().map(|plane| vec![0; plane.size as usize]).collect();
        self.raw = Some(Raw { layout, is_split });
        Ok(Format { fourcc, width, height, limited_range: false, planes })
    }

    fn set_crop(&mut self, size: (u32, u32)) -> io::Result<()> {
        if self.peer.needs_crop {
            self.size = size;
        }
        Ok(())
    }

    fn set_quality(&mut self, quality: u8) -> io::Result<()> {
        if !self.peer.has_quality {
            return Err(einval());
        }
        self.peer.seen.quality.store(quality, Ordering::SeqCst);
        Ok(())
    }

    fn start(&mut self, raw: Memory) -> io::Result<()> {
        let refuses = raw == Memory::Dmabuf && !self.peer.takes_dmabuf;
        if self.peer.fault == Fault::Start || refuses { Err(einval()) } else { Ok(()) }
    }

    fn raw(&mut self, plane: usize) -> &mut [u8] {
        self.buffers.get_mut(plane).map(Vec::as_mut_slice).unwrap_or_default()
    }

    fn run(&mut self, content: &Content<'_>, _: Duration) -> io::Result<&[u8]> {
        let raw = self.raw.as_ref().ok_or_else(einval)?;
        let mut data = match content {
            Content::Imported(fd, _) => {
                self.peer.seen.imported.fetch_add(1, Ordering::SeqCst);
                borrowed(*fd)
            }
            _ => self.buffers.concat(),
        };
        let frames = self.peer.seen.frames.fetch_add(1, Ordering::SeqCst);
        let (mut width, height) = self.size;
        match self.peer.fault {
            Fault::After(good) if frames >= good => return Err(einval()),
            Fault::Empty => return Ok(&[]),
            Fault::Garbage => return Ok(b"\xff\xd8 and so on"),
            Fault::Green => data.fill(0),
            Fault::Size => width -= 16,
            _ => {}
        }
        // The picture is the upper left corner of what is laid out.
        let cropped = cut(&raw.layout, &data, (width, height));
        let mode = Mode { width, height, stride: 0, ..raw.layout.clone() };
        assert!(raw.is_split || self.buffers.len() == 1);
        let mut encoder = Encoder::new(self.peer.quality(), usize::MAX).map_err(io::Error::other)?;
        self.jpeg = encoder.encode(&mode, &cropped).map_err(io::Error::other)?.jpeg.to_vec();
        // Drivers may round up what they wrote.
        self.jpeg.extend([0; 7]);
        Ok(&self.jpeg)
    }
}

/// A frame of another size out of a larger one.
fn cut(layout: &Mode, data: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
    let smaller = Mode { width, height, stride: 0, ..layout.clone() };
    let mut out = Vec::new();
    for (from, to) in layout.planes().iter().zip(smaller.planes()) {
        for row in 0..to.rows {
            let at = from.offset + row * from.stride;
            out.extend_from_slice(&data[at..at + to.line]);
        }
    }
    out
}

/// A frame with something in every corner, in a colour that is none in another order of planes.
pub(in crate::cameras) fn picture(mode: &Mode) -> Vec<u8> {
    let planes = mode.planes();
    let mut data = vec![0xEE; planes.last().map_or(0, Plane::end)];
    for (index, plane) in planes.iter().enumerate() {
        for row in 0..plane.rows {
            // Dark above and bright below, so that a wrong range shows too.
            let luma = if row < plane.rows / 2 { 25 } else { 190 } + (35 * row / plane.rows) as u8;
            let (u, v) = (100, 150 + (40 * row / plane.rows) as u8);
            let group = match (mode.format, index) {
                (PixelFormat::Yuyv, _) => [luma, u, luma, v],
                (PixelFormat::Uyvy, _) => [u, luma, v, luma],
                (PixelFormat::Nv12, 1) => [u, v, u, v],
                (PixelFormat::Yu12, 1) => [u; 4],
                (PixelFormat::Yu12, 2) => [v; 4],
                _ => [luma; 4],
            };
            let line = &mut data[plane.offset + row * plane.stride..][..plane.line];
            line.iter_mut().zip(group.into_iter().cycle()).for_each(|(to, from)| *to = from);
            // Nor is a line the same from left to right.
            let brighter = line.len() / 3;
            if index == 0 {
                line[..brighter].iter_mut().for_each(|sample| *sample = sample.saturating_sub(9));
            }
        }
    }
    data
}

pub(in crate::cameras) fn noise(mode: &Mode) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..mode.planes().last().map_or(0, Plane::end)).map(|_| random.u8(..)).collect()
}

/// Stands for a buffer that a camera lends.
pub(in crate::cameras) fn lent(data: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    file
}

fn borrowed(fd: BorrowedFd<'_>) -> Vec<u8> {
    let mut file = File::from(fd.try_clone_to_owned().unwrap());
    let mut data = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut data).unwrap();
    data
}
