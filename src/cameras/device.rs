//! What every camera is, wherever its pictures come from: a [`Device`] that can be opened into a [`Stream`] of [`Frame`]s.
//!
//! Blocking, because drivers are; each camera has a thread of its own (capture.rs). Opening starts the hardware,
//! dropping the stream stops it: an idle camera holds no file open and no buffer.

use crate::model::{Quality, Status};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// A camera that is not open.
pub trait Device: Send {
    /// Whether it could be opened now, without starting it. Cheap: called each second while the camera is idle.
    fn probe(&self) -> Result<(), CameraError>;

    /// What it is and offers. May open it for a moment, but does not start it.
    fn describe(&self) -> Result<Description, CameraError>;

    /// Starts capturing.
    fn open(&mut self) -> Result<Box<dyn Stream>, CameraError>;
}

/// A camera that captures.
pub trait Stream {
    fn mode(&self) -> &Mode;

    /// What people should know about the mode, such as why it is less than what was asked for. Mostly nothing.
    fn remark(&self) -> &str {
        ""
    }

    /// The next frame, or `None` if none came within `timeout`. Must be called faster than frames come, else the
    /// driver drops them.
    fn next(&mut self, timeout: Duration) -> Result<Option<Frame<'_>>, CameraError>;
}

/// For people: what a camera is and offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Where it was found.
    pub path: String,
    pub identity: Identity,
    /// A line each: pixel format, size, rates.
    pub formats: Vec<String>,
    /// Why it cannot be used as it is.
    pub fault: Option<CameraError>,
}

/// For people: what the driver says of itself. Empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    pub driver: String,
    pub card: String,
    pub bus: String,
}

/// What a stream delivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Mode {
    pub format: PixelFormat,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Bytes from one line of the first plane to the next; chroma planes follow from it as V4L2 lays down. Zero
    /// for compressed formats.
    pub stride: u32,
    /// Luma 16..=235 and chroma 16..=240 (what V4L2 calls limited range) rather than 0..=255, which JPEG means.
    pub limited_range: bool,
    /// Zero if the driver does not say.
    pub frame_interval: Duration,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mode { format, width, height, frame_interval, .. } = self;
        write!(f, "{format} {width}x{height}")?;
        if frame_interval.is_zero() { Ok(()) } else { write!(f, " {} fps", trim(1.0 / frame_interval.as_secs_f64())) }
    }
}

/// Where a plane of samples lies in the data of a frame. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plane {
    pub(super) offset: usize,
    /// From one line to the next.
    pub(super) stride: usize,
    /// What is used of a line.
    pub(super) line: usize,
    pub(super) rows: usize,
}

impl Plane {
    pub(super) fn end(&self) -> usize {
        self.offset + self.stride * self.rows
    }

    /// Its lines in the data of a frame, the padding behind the last perhaps missing; `None` if a line is missing.
    pub(super) fn content<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        let needed = self.stride * (self.rows - 1) + self.line;
        let rest = data.get(self.offset..)?;
        (rest.len() >= needed).then(|| &rest[..rest.len().min(self.stride * self.rows)])
    }
}

impl Mode {
    /// The planes of a raw frame, as V4L2 lays them down (Documentation/userspace-api/media/v4l/pixfmt-*.rst): chroma
    /// follows luma, its stride follows from luma's. None for compressed formats.
    pub(super) fn planes(&self) -> Vec<Plane> {
        let (width, height) = (self.width as usize, self.height as usize);
        let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
        let luma = |line: usize| Plane { offset: 0, stride: line.max(self.stride as usize), line, rows: height };
        let behind = |before: &Plane, stride, line| Plane { offset: before.end(), stride, line, rows: half_height };
        match self.format {
            PixelFormat::Mjpg => vec![],
            PixelFormat::Grey => vec![luma(width)],
            PixelFormat::Yuyv | PixelFormat::Uyvy => vec![luma(half_width * 4)],
            PixelFormat::Nv12 => {
                let y = luma(width);
                vec![y, behind(&y, y.stride, half_width * 2)]
            }
            PixelFormat::Yu12 => {
                let y = luma(width);
                let u = behind(&y, y.stride.div_ceil(2), half_width);
                vec![y, u, behind(&u, u.stride, half_width)]
            }
        }
    }
}

/// A rate as people write it: 25, 29.97.
fn trim(rate: f64) -> f64 {
    (rate * 100.0).round() / 100.0
}

/// A frame in the driver's buffer, which goes back to the driver when this is dropped.
pub struct Frame<'a> {
    pub data: &'a [u8],
    /// By the driver's own stamp where it has one.
    pub captured: Instant,
    /// The driver's count; gaps are frames it dropped.
    pub sequence: u32,
    /// The driver says that the content is damaged (V4L2_BUF_FLAG_ERROR).
    pub corrupt: bool,
    /// `data` (from its first byte on) as another device may take it, where the driver lends it.
    pub dmabuf: Option<BorrowedFd<'a>>,
}

/// The formats that can become a JPEG without a detour through RGB, by their FourCC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Motion JPEG or JPEG: each frame is one, more or less.
    Mjpg,
    /// 4:2:2, packed Y0 U Y1 V.
    Yuyv,
    /// 4:2:2, packed U Y0 V Y1.
    Uyvy,
    /// 4:2:0, a plane of Y, a plane of interleaved U and V.
    Nv12,
    /// 4:2:0, planes of Y, U and V (also called I420).
    Yu12,
    /// 8 bits of luma.
    Grey,
}

impl PixelFormat {
    /// What is tried first to last: the camera's own JPEG costs nothing; the rest in the order of picture quality.
    pub const LADDER: [PixelFormat; 6] = [
        PixelFormat::Mjpg,
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::Yu12,
        PixelFormat::Grey,
    ];

    pub fn fourcc(self) -> [u8; 4] {
        match self {
            PixelFormat::Mjpg => *b"MJPG",
            PixelFormat::Yuyv => *b"YUYV",
            PixelFormat::Uyvy => *b"UYVY",
            PixelFormat::Nv12 => *b"NV12",
            PixelFormat::Yu12 => *b"YU12",
            PixelFormat::Grey => *b"GREY",
        }
    }

    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<Self> {
        match &fourcc {
            b"JPEG" => return Some(PixelFormat::Mjpg),
            // The same with a memory plane for each plane of samples; they are gathered into one frame.
            b"NM12" => return Some(PixelFormat::Nv12),
            b"YM12" => return Some(PixelFormat::Yu12),
            _ => {}
        }
        Self::LADDER.into_iter().find(|format| format.fourcc() == fourcc)
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.fourcc()).expect("the codes above are ASCII"))
    }
}

/// Why a camera does not deliver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CameraError {
    #[error("{device} does not exist")]
    Missing { device: String },
    #[error("{device} is not plugged in")]
    Unplugged { device: String },
    #[error("{device} is gone ({reason})")]
    Gone { device: String, reason: String },
    #[error("{device} is in use by another program")]
    Busy { device: String },
    #[error("{device} may not be opened: add this user to the group `video`")]
    Forbidden { device: String },
    #[error("{device} is not a camera: {found}")]
    NotACamera { device: String, found: String },
    #[error("{device} offers {offered}; this program needs one of MJPG, YUYV, UYVY, NV12, YU12, GREY")]
    NoFormat { device: String, offered: String },
    /// A sensor's raw data, or a pipeline that something else has to set up.
    #[error("{device} needs an ISP: {found}; use a `pipe` camera with `rpicam-vid --codec mjpeg -o -`, see README")]
    NeedsIsp { device: String, found: String },
    #[error("{device} has no input {input}")]
    NoInput { device: String, input: u32 },
    #[error("{device} has no cable, or what it leads to is off")]
    NoCable { device: String },
    #[error("{device} has no signal at its input")]
    NoSignal { device: String },
    #[error("{device} has a signal at its input, but cannot lock to it")]
    NoSync { device: String },
    #[error("{device} cannot take {found}; let its source send another size or rate")]
    Timings { device: String, found: String },
    /// Not a fault: the camera is to be opened anew, and has another size then.
    #[error("{device} has another signal at its input")]
    SourceChanged { device: String },
    #[error(
        "{device}: the USB bus has no bandwidth left for {mode}; lower the size or rate of the cameras on it, or use \
         another bus"
    )]
    Bandwidth { device: String, mode: String },
    #[error("{device} gave no frame in {seconds} s")]
    Silent { device: String, seconds: u64 },
    #[error("{device} gave only damaged frames for {seconds} s")]
    Damaged { device: String, seconds: u64 },
    #[error("`{program}` {reason}")]
    NoProgram { program: String, reason: String },
    #[error("`{program}` {what}")]
    Ended { program: String, what: String },
    #[error("{device}: {operation}: {reason}")]
    Failed { device: String, operation: &'static str, reason: String },
}

impl CameraError {
    /// It is about what comes in by a cable, and may be over at any moment.
    pub(super) fn is_signal(&self) -> bool {
        use CameraError::{NoCable, NoSignal, NoSync, SourceChanged, Timings};
        matches!(self, NoCable { .. } | NoSignal { .. } | NoSync { .. } | Timings { .. } | SourceChanged { .. })
    }

    /// In few words, for the camera's `State`.
    pub fn state(&self) -> &'static str {
        match self {
            CameraError::Missing { .. } | CameraError::Unplugged { .. } | CameraError::Gone { .. } => "disconnected",
            CameraError::Busy { .. } => "in use by another program",
            CameraError::NeedsIsp { .. } => "needs ISP",
            CameraError::NoCable { .. } => "no cable",
            CameraError::Silent { .. } | CameraError::NoSignal { .. } => "no signal",
            CameraError::NoSync { .. } | CameraError::SourceChanged { .. } => "no sync",
            CameraError::NoFormat { .. } | CameraError::Timings { .. } => "not supported",
            _ => "failed",
        }
    }

    pub fn quality(&self) -> Quality {
        let status = match self {
            CameraError::Missing { .. } | CameraError::Unplugged { .. } | CameraError::Gone { .. } => {
                Status::BAD_NOT_CONNECTED
            }
            CameraError::Busy { .. } | CameraError::Forbidden { .. } | CameraError::Bandwidth { .. } => {
                Status::BAD_RESOURCE_UNAVAILABLE
            }
            CameraError::NotACamera { .. } | CameraError::NoInput { .. } | CameraError::NoProgram { .. } => {
                Status::BAD_CONFIGURATION_ERROR
            }
            CameraError::NoFormat { .. } | CameraError::NeedsIsp { .. } | CameraError::Timings { .. } => {
                Status::BAD_NOT_SUPPORTED
            }
            CameraError::Silent { .. }
            | CameraError::NoCable { .. }
            | CameraError::NoSignal { .. }
            | CameraError::NoSync { .. }
            | CameraError::SourceChanged { .. } => Status::BAD_NO_COMMUNICATION,
            CameraError::Damaged { .. } | CameraError::Ended { .. } | CameraError::Failed { .. } => {
                Status::BAD_DEVICE_FAILURE
            }
        };
        Quality::new(status, self.to_string())
    }
}
