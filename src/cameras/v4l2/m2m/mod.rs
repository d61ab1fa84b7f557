//! JPEG by hardware: memory-to-memory devices that take raw frames on one queue and give JPEGs on the other.
//!
//!     find ──► Port (node.rs, or a scripted one in tests) ──► HardwareEncoder::start ──► encode, encode, ...
//!
//! Encoders are found by what they take and give, not by name or number. What a driver does of what is documented
//! differs, so nothing is taken for granted: each answer of S_FMT is respected, and whoever uses this compares the first
//! picture with libjpeg-turbo's (cameras/ladder.rs).
//!
//! Known drivers:
//! - bcm2835-codec (Raspberry Pi up to 4): 1920x1920 at most, lines of a multiple of 64 bytes, and a multiple of 16
//!   lines: 1080 become 1088, between luma and chroma too. It crops by itself.
//! - hantro (Rockchip): sizes of a multiple of 16, cropped by S_SELECTION; a memory plane for luma and one for chroma.
//! - mxc-jpeg (i.MX8): 64x64 to 8192x8192; says the size that was asked for but may lay frames out in 16 lines.
//!
//! JPEG is full range (JFIF 1.02), most cameras are limited, and encoders do not stretch. So frames are stretched while
//! they are copied into the encoder's buffer; only a full-range frame whose layout is the encoder's own goes in as
//! it is, by DMABUF. A cheap encoder with wrong blacks would be no bargain.

mod node;
#[cfg(test)]
pub(in crate::cameras) mod peers;

pub(in crate::cameras) use node::{Candidate, find};

use super::buffers::{Content, Memory};
use super::ioctl::{Format, PlaneFormat};
use crate::cameras::device::{Frame, Mode, PixelFormat, Plane};
use crate::cameras::encode::{Encoded, LOWEST, STEP};
use crate::cameras::jpeg;
use crate::cameras::layout::{full_chroma, full_luma};
use bytes::Bytes;
use std::io;
use std::time::Duration;

/// The two queues of an encoder, of one buffer each. Errors are those of the kernel.
pub(in crate::cameras) trait Port: Send {
    /// What the driver calls the encoder.
    fn name(&self) -> &str;

    fn formats(&self, side: Side) -> Vec<[u8; 4]>;

    fn set_format(&mut self, side: Side, fourcc: [u8; 4], size: (u32, u32), first: PlaneFormat) -> io::Result<Format>;

    /// Which part of the raw frame counts, from its upper left corner on.
    fn set_crop(&mut self, size: (u32, u32)) -> io::Result<()>;

    /// 1..=100.
    fn set_quality(&mut self, quality: u8) -> io::Result<()>;

    /// Makes the buffers and starts both queues. `raw` says whose memory frames come in.
    fn start(&mut self, raw: Memory) -> io::Result<()>;

    /// A memory plane of the buffer for raw frames.
    fn raw(&mut self, plane: usize) -> &mut [u8];

    /// Encodes what is in the raw buffer, or in another device's.
    fn run(&mut self, content: &Content<'_>, timeout: Duration) -> io::Result<&[u8]>;
}

/// A queue, by what passes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cameras) enum Side {
    Raw,
    Jpeg,
}

#[derive(Debug, thiserror::Error)]
pub(in crate::cameras) enum HardwareError {
    #[error("it has no way to make a JPEG of {0}")]
    Format(String),
    #[error("it takes {width}x{height} and not {mode}")]
    Size { width: u32, height: u32, mode: String },
    #[error("{operation}: {error}")]
    Io { operation: &'static str, error: io::Error },
    #[error("its JPEG is unusable: {0}")]
    Jpeg(#[from] jpeg::Fault),
    #[error("its JPEG is {width}x{height}; {mode} was given")]
    Result { width: u32, height: u32, mode: String },
}

impl HardwareError {
    /// The encoder is as it should be; it only is not for this mode.
    pub(in crate::cameras) fn is_refusal(&self) -> bool {
        matches!(self, HardwareError::Format(_) | HardwareError::Size { .. })
    }
}

/// No encoder takes so long, even if others use it too.
const TIMEOUT: Duration = Duration::from_secs(1);

pub(in crate::cameras) struct HardwareEncoder {
    port: Box<dyn Port>,
    mode: Mode,
    /// Where the planes of a frame are, and where they go.
    planes: Vec<(Plane, Target)>,
    /// Bytes of each memory plane.
    used: Vec<u32>,
    is_import: bool,
    has_quality: bool,
    /// What the configuration asks for, 1..=100, and what the last frames needed.
    quality: u8,
    lowered: u8,
    /// Bytes.
    limit: usize,
    /// A JPEG that lacked something.
    mended: Vec<u8>,
}

/// A plane of samples in a memory plane of the encoder's buffer.
struct Target {
    memory_plane: usize,
    plane: Plane,
}

impl HardwareEncoder {
    /// Makes the encoder ready for frames of `mode`; with `import` for those that lie in the camera's own buffers.
    pub(in crate::cameras) fn start(
        mut port: Box<dyn Port>,
        mode: &Mode,
        import: bool,
        quality: u8,
        limit: usize,
    ) -> Result<Self, HardwareError> {
        let (raw, planes) = negotiate(port.as_mut(), mode)?;
        let is_same = planes.iter().all(|(from, to)| to.memory_plane == 0 && *from == to.plane);
        if import && (mode.limited_range || !is_same) {
            return Err(HardwareError::Format(format!("{mode} in the camera's buffers")));
        }
        let has_quality = port.set_quality(quality).is_ok();
        let memory = if import { Memory::Dmabuf } else { Memory::Mmap };
        port.start(memory).map_err(|error| HardwareError::Io { operation: "start", error })?;
        let used: Vec<_> = raw.planes.iter().map(|plane| plane.size).collect();
        let lowered = quality;
        Ok(Self {
            port,
            mode: mode.clone(),
            planes,
            used,
            is_import: import,
            has_quality,
            quality,
            lowered,
            limit,
            mended: Vec::new(),
        })
    }

    pub(in crate::cameras) fn name(&self) -> &str {
        self.port.name()
    }

    pub(in crate::cameras) fn mode(&self) -> &Mode {
        &self.mode
    }

    /// The quality in force, if it had to be lowered to meet the limit.
    pub fn lowered_quality(&self) -> Option<u8> {
        (self.lowered < self.quality).then_some(self.lowered)
    }

    /// `None` for a frame that is nothing for the hardware: cut short, or larger than the limit at any quality.
    pub(in crate::cameras) fn encode(&mut self, frame: &Frame<'_>) -> Result<Option<Encoded>, HardwareError> {
        let is_whole = self.planes.iter().all(|(plane, _)| plane.content(frame.data).is_some());
        let content = match frame.dmabuf {
            _ if !is_whole => return Ok(None),
            Some(fd) if self.is_import => Content::Imported(fd, frame.data.len() as u32),
            None if self.is_import => return Ok(None),
            _ => {
                self.copy(frame.data)?;
                Content::Mapped(&self.used)
            }
        };
        loop {
            let operation = "encode";
            let output = self.port.run(&content, TIMEOUT).map_err(|error| HardwareError::Io { operation, error })?;
            let (header, jpeg) = jpeg::repair(output, &mut self.mended)?;
            let (width, height) = (header.width, header.height);
            if (width, height) != (self.mode.width, self.mode.height) {
                return Err(HardwareError::Result { width, height, mode: self.mode.to_string() });
            }
            let length = jpeg.len();
            let encoded = (length <= self.limit).then(|| Encoded { jpeg: Bytes::copy_from_slice(jpeg), width, height });
            // As in encode.rs: down until the limit is met, and up again when the scene got simple.
            let next = match encoded {
                Some(_) if length < self.limit / 2 => (self.lowered + STEP).min(self.quality),
                Some(_) => self.lowered,
                None => self.lowered.saturating_sub(STEP).max(LOWEST),
            };
            let can_change = self.has_quality && next != self.lowered;
            if can_change {
                let operation = "set quality";
                self.port.set_quality(next).map_err(|error| HardwareError::Io { operation, error })?;
                self.lowered = next;
            }
            if encoded.is_some() || !can_change {
                return Ok(encoded);
            }
        }
    }

    /// Copies a frame into the encoder's buffer, stretched to full range.
    fn copy(&mut self, data: &[u8]) -> Result<(), HardwareError> {
        let stretch = Stretch::of(&self.mode);
        for (index, (from, Target { memory_plane, plane })) in self.planes.iter().enumerate() {
            let buffer = self.port.raw(*memory_plane);
            let Some(buffer) = buffer.get_mut(plane.offset..) else { return Err(short_buffer()) };
            if buffer.len() < plane.stride * (plane.rows - 1) + plane.line {
                return Err(short_buffer());
            }
            let content = from.content(data).unwrap_or_default();
            for (from_line, to) in content.chunks(from.stride).zip(buffer.chunks_mut(plane.stride)) {
                stretch.line(&from_line[..from.line], &mut to[..from.line], index);
            }
        }
        Ok(())
    }
}

fn short_buffer() -> HardwareError {
    let error = io::Error::other("the driver's buffer is smaller than its format");
    HardwareError::Io { operation: "fill the buffer", error }
}

/// What is done to samples on their way into the encoder.
enum Stretch {
    Nothing,
    /// The first plane is luma, the others are chroma.
    Planes,
    /// Luma and chroma take turns, luma first or second.
    Pairs {
        luma: usize,
    },
}

impl Stretch {
    fn of(mode: &Mode) -> Self {
        match mode.format {
            _ if !mode.limited_range => Stretch::Nothing,
            PixelFormat::Yuyv => Stretch::Pairs { luma: 0 },
            PixelFormat::Uyvy => Stretch::Pairs { luma: 1 },
            _ => Stretch::Planes,
        }
    }

    fn line(&self, from: &[u8], to: &mut [u8], plane: usize) {
        match *self {
            Stretch::Nothing => to.copy_from_slice(from),
            Stretch::Planes if plane == 0 => to.iter_mut().zip(from).for_each(|(to, from)| *to = full_luma(*from)),
            Stretch::Planes => to.iter_mut().zip(from).for_each(|(to, from)| *to = full_chroma(*from)),
            Stretch::Pairs { luma } => {
                for (to, from) in to.chunks_exact_mut(2).zip(from.chunks_exact(2)) {
                    (to[luma], to[1 - luma]) = (full_luma(from[luma]), full_chroma(from[1 - luma]));
                }
            }
        }
    }
}

/// Codes under which an encoder may take a format: in one memory plane, or in one for each plane of samples.
fn raw_codes(format: PixelFormat) -> Vec<[u8; 4]> {
    match format {
        PixelFormat::Mjpg => vec![],
        PixelFormat::Nv12 => vec![*b"NV12", *b"NM12"],
        PixelFormat::Yu12 => vec![*b"YU12", *b"YM12"],
        other => vec![other.fourcc()],
    }
}

const JPEG_CODES: [[u8; 4]; 2] = [*b"JPEG", *b"MJPG"];

/// Whether the encoder makes JPEGs of anything that a camera gives.
fn is_jpeg_encoder(port: &dyn Port) -> bool {
    let raw = port.formats(Side::Raw);
    let mut codes = PixelFormat::LADDER.into_iter().flat_map(raw_codes);
    codes.any(|code| raw.contains(&code)) && port.formats(Side::Jpeg).iter().any(|code| JPEG_CODES.contains(code))
}

/// Sets both formats: the coded one first (Documentation/userspace-api/media/v4l/dev-encoder.rst), because setting it may
/// reset the other.
fn negotiate(port: &mut dyn Port, mode: &Mode) -> Result<(Format, Vec<(Plane, Target)>), HardwareError> {
    let io = |operation| move |error| HardwareError::Io { operation, error };
    let size @ (width, height) = (mode.width, mode.height);
    let refused = || HardwareError::Format(mode.to_string());
    let (offered, coded) = (port.formats(Side::Raw), port.formats(Side::Jpeg));
    let raw_code = raw_codes(mode.format).into_iter().find(|code| offered.contains(code)).ok_or_else(refused)?;
    let jpeg_code = JPEG_CODES.into_iter().find(|code| coded.contains(code)).ok_or_else(refused)?;
    // 4:2:0 in hardware is even; the few cameras that are not have turbojpeg.
    if width % 2 != 0 || height % 2 != 0 {
        return Err(refused());
    }
    // A byte for each pixel is more than any quality that is worth having; drivers with a least size of their own say so.
    let room = PlaneFormat { stride: 0, size: width * height };
    let jpeg = port.set_format(Side::Jpeg, jpeg_code, size, room).map_err(io("set the format of JPEGs"))?;
    let wish = PlaneFormat { stride: mode.stride, size: 0 };
    let raw = port.set_format(Side::Raw, raw_code, size, wish).map_err(io("set the format of frames"))?;
    if jpeg.fourcc != jpeg_code || raw.fourcc != raw_code {
        return Err(refused());
    }
    if raw.width < width || raw.height < height {
        let (width, height) = (raw.width, raw.height);
        return Err(HardwareError::Size { width, height, mode: mode.to_string() });
    }
    // Drivers that cannot either have nothing to crop, or their first JPEG has the wrong size.
    let _ = port.set_crop(size);
    let planes = targets(&raw, mode).ok_or_else(refused)?;
    Ok((raw, planes))
}

/// Where in the encoder's buffer the planes of a frame go.
fn targets(raw: &Format, mode: &Mode) -> Option<Vec<(Plane, Target)>> {
    let from = mode.planes();
    let to: Vec<_> = match &raw.planes[..] {
        [single] => {
            let layout = Mode { height: rows(mode, raw, single), stride: single.stride, ..mode.clone() };
            layout.planes().into_iter().map(|plane| Target { memory_plane: 0, plane }).collect()
        }
        several if several.len() == from.len() => {
            let target = |(index, (format, from)): (usize, (&PlaneFormat, &Plane))| Target {
                memory_plane: index,
                plane: Plane { offset: 0, stride: from.line.max(format.stride as usize), ..*from },
            };
            several.iter().zip(&from).enumerate().map(target).collect()
        }
        _ => return None,
    };
    Some(from.into_iter().zip(to).collect())
}

/// Lines between the start of luma and the start of chroma. That is the height, but mxc-jpeg says the height asked for
/// and lays out more; its size in bytes gives it away.
fn rows(mode: &Mode, raw: &Format, plane: &PlaneFormat) -> u32 {
    let bytes = |rows: u32| Mode { height: rows, stride: plane.stride, ..mode.clone() }.planes();
    let has_size = |rows: &u32| bytes(*rows).last().is_some_and(|last| last.end() == plane.size as usize);
    [raw.height, raw.height.next_multiple_of(8), raw.height.next_multiple_of(16)]
        .into_iter()
        .find(has_size)
        .unwrap_or(raw.height)
}
