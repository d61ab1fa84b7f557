//! The V4L2 ioctls that this program uses, as safe functions on an open file.
//!
//! Built on the `v4l` crate's structs, numbers and syscall. Its own `Device` and `Stream` are not used: they panic on
//! names that are not UTF-8 and when a device goes away between STREAMON and STREAMOFF, and a gateway meets both.
//!
//! Each function names the ioctl it is; units and meanings are those of the kernel's documentation
//! (Documentation/userspace-api/media/v4l).

#![allow(unsafe_code, reason = "ioctl(2); named in DESIGN as a place for it")]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::os::raw::c_int;
use std::time::Duration;
use v4l::v4l_sys as sys;
use v4l::v4l2::{self, vidioc};

/// A device's queue of buffers, by buffer type. A camera has one; a memory-to-memory device one for each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Capture,
    CaptureMplane,
    Output,
    OutputMplane,
}

impl Queue {
    pub fn code(self) -> u32 {
        match self {
            Queue::Capture => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
            Queue::CaptureMplane => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
            Queue::Output => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT,
            Queue::OutputMplane => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE,
        }
    }

    /// Formats and buffers are described plane by plane, even if there is but one.
    pub fn is_mplane(self) -> bool {
        matches!(self, Queue::CaptureMplane | Queue::OutputMplane)
    }
}

/// Structs of C without pointers and without rules for their bits: all zeroes is a value of each.
///
/// # Safety
/// Only for types for which that is so.
pub(super) unsafe trait Plain: Sized {
    fn zeroed() -> Self {
        // SAFETY: promised by the implementor.
        unsafe { mem::zeroed() }
    }
}

macro_rules! plain {
    ($($name:ident),*) => { $(
        // SAFETY: integers, arrays of integers and unions of those; the unions of v4l2_buffer, v4l2_plane, v4l2_format and
        // v4l2_ext_control and v4l2_ext_controls also hold raw pointers, for which null is a value.
        unsafe impl Plain for sys::$name {}
    )* };
}

plain!(
    v4l2_capability,
    v4l2_fmtdesc,
    v4l2_frmsizeenum,
    v4l2_frmivalenum,
    v4l2_format,
    v4l2_streamparm,
    v4l2_requestbuffers,
    v4l2_buffer,
    v4l2_plane,
    v4l2_input,
    v4l2_control,
    v4l2_selection,
    v4l2_exportbuffer,
    v4l2_dv_timings,
    v4l2_query_ext_ctrl,
    v4l2_querymenu,
    v4l2_ext_control,
    v4l2_ext_controls,
    v4l2_event_subscription,
    v4l2_event
);

// SAFETY: an integer.
unsafe impl Plain for c_int {}

#[cfg(not(target_env = "musl"))]
pub(super) type Request = std::os::raw::c_ulong;
#[cfg(target_env = "musl")]
pub(super) type Request = std::os::raw::c_int;

const WRITE: u32 = 1;
const READ: u32 = 2;

/// The numbers that the `v4l` crate does not have: _IOR, _IOW and _IOWR of linux/ioctl.h for 'V'.
const fn request<T>(direction: u32, number: u32) -> Request {
    (direction << 30 | (mem::size_of::<T>() as u32) << 16 | (b'V' as u32) << 8 | number) as Request
}

pub(super) fn call<T: Plain>(file: &File, request: Request, argument: &mut T) -> io::Result<()> {
    loop {
        // SAFETY: each caller below pairs a request with the struct that the kernel defines for it, which lives
        // until the call returns.
        match unsafe { v4l2::ioctl(file.as_raw_fd(), request, (argument as *mut T).cast()) } {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => return outcome,
        }
    }
}

/// Bytes up to the first NUL, whatever their encoding.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

pub(super) struct Capability {
    pub driver: String,
    pub card: String,
    pub bus: String,
    /// V4L2_CAP_*, of this node (device_caps) and not of the whole hardware.
    pub flags: u32,
}

impl Capability {
    /// The queue that pictures come from, if this node is for capturing.
    pub fn capture_queue(&self) -> Option<Queue> {
        match self.flags {
            flags if flags & sys::V4L2_CAP_STREAMING == 0 || self.is_m2m() => None,
            // Touch panels deliver their raw values as video.
            flags if flags & sys::V4L2_CAP_TOUCH != 0 => None,
            flags if flags & sys::V4L2_CAP_VIDEO_CAPTURE != 0 => Some(Queue::Capture),
            flags if flags & sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0 => Some(Queue::CaptureMplane),
            _ => None,
        }
    }

    pub fn is_m2m(&self) -> bool {
        self.flags & (sys::V4L2_CAP_VIDEO_M2M | sys::V4L2_CAP_VIDEO_M2M_MPLANE) != 0
    }

    /// In words, for nodes that are not cameras.
    pub fn kind(&self) -> &'static str {
        match self.flags {
            _ if self.is_m2m() => "memory-to-memory device (encoder, decoder or scaler)",
            flags if flags & sys::V4L2_CAP_TOUCH != 0 => "touch panel",
            flags if flags & (sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE) != 0 => {
                "video capture without streaming"
            }
            flags if flags & sys::V4L2_CAP_META_CAPTURE != 0 => "metadata of a camera",
            flags if flags & sys::V4L2_CAP_META_OUTPUT != 0 => "metadata output",
            flags if flags & (sys::V4L2_CAP_VIDEO_OUTPUT | sys::V4L2_CAP_VIDEO_OUTPUT_MPLANE) != 0 => "video output",
            flags if flags & (sys::V4L2_CAP_VBI_CAPTURE | sys::V4L2_CAP_SLICED_VBI_CAPTURE) != 0 => "teletext (VBI)",
            flags if flags & (sys::V4L2_CAP_RADIO | sys::V4L2_CAP_TUNER | sys::V4L2_CAP_SDR_CAPTURE) != 0 => "radio",
            _ => "no video capture",
        }
    }
}

/// VIDIOC_QUERYCAP.
pub(super) fn capability(file: &File) -> io::Result<Capability> {
    let mut raw = sys::v4l2_capability::zeroed();
    call(file, vidioc::VIDIOC_QUERYCAP, &mut raw)?;
    let own = raw.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0;
    Ok(Capability {
        driver: text(&raw.driver),
        card: text(&raw.card),
        bus: text(&raw.bus_info),
        flags: if own { raw.device_caps } else { raw.capabilities },
    })
}

/// VIDIOC_ENUM_FMT: FourCC and description of the `index`-th format; `None` after the last.
pub(super) fn format_at(file: &File, queue: Queue, index: u32) -> Option<([u8; 4], String)> {
    let mut raw = sys::v4l2_fmtdesc { index, type_: queue.code(), ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_ENUM_FMT, &mut raw).ok()?;
    Some((raw.pixelformat.to_le_bytes(), text(&raw.description)))
}

/// A size, or a span of sizes: least, greatest, step.
pub(super) enum Sizes {
    One((u32, u32)),
    Span { min: (u32, u32), max: (u32, u32), step: (u32, u32) },
}

/// VIDIOC_ENUM_FRAMESIZES: the `index`-th size of a format; `None` after the last.
pub(super) fn size_at(file: &File, fourcc: [u8; 4], index: u32) -> Option<Sizes> {
    let pixel_format = u32::from_le_bytes(fourcc);
    let mut raw = sys::v4l2_frmsizeenum { index, pixel_format, ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_ENUM_FRAMESIZES, &mut raw).ok()?;
    if raw.type_ == sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
        // SAFETY: the type says which member of the union the kernel wrote.
        let size = unsafe { raw.__bindgen_anon_1.discrete };
        return Some(Sizes::One((size.width, size.height)));
    }
    // SAFETY: stepwise and continuous share this member.
    let span = unsafe { raw.__bindgen_anon_1.stepwise };
    Some(Sizes::Span {
        min: (span.min_width, span.min_height),
        max: (span.max_width, span.max_height),
        step: (span.step_width, span.step_height),
    })
}

/// VIDIOC_ENUM_FRAMEINTERVALS: the `index`-th interval of a format and size (of a span, the shortest); `None` after
/// the last.
pub(super) fn interval_at(file: &File, fourcc: [u8; 4], (width, height): (u32, u32), index: u32) -> Option<Duration> {
    let pixel_format = u32::from_le_bytes(fourcc);
    let mut raw = sys::v4l2_frmivalenum { index, pixel_format, width, height, ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_ENUM_FRAMEINTERVALS, &mut raw).ok()?;
    if raw.type_ == sys::v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE {
        // SAFETY: the type says which member of the union the kernel wrote.
        return Some(seconds(unsafe { raw.__bindgen_anon_1.discrete }));
    }
    // SAFETY: stepwise and continuous share this member. There is one span, so only index 0 has one.
    (index == 0).then(|| seconds(unsafe { raw.__bindgen_anon_1.stepwise }.min))
}

fn seconds(fraction: sys::v4l2_fract) -> Duration {
    match fraction.denominator {
        0 => Duration::ZERO,
        denominator => Duration::from_secs_f64(f64::from(fraction.numerator) / f64::from(denominator)),
    }
}

/// A format, and how much memory it takes, plane by plane (memory planes: NV12 has one, NM12 two).
pub(in crate::cameras) struct Format {
    pub fourcc: [u8; 4],
    pub width: u32,
    pub height: u32,
    pub limited_range: bool,
    pub planes: Vec<PlaneFormat>,
}

/// Bytes; zero in a wish means that the driver shall say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cameras) struct PlaneFormat {
    /// From one line to the next.
    pub stride: u32,
    pub size: u32,
}

/// VIDIOC_S_FMT: asks for a format and size; the driver answers with what it will do, which may be another. `first` is a
/// wish for the first plane.
pub(super) fn set_format(
    file: &File,
    queue: Queue,
    fourcc: [u8; 4],
    (width, height): (u32, u32),
    first: PlaneFormat,
) -> io::Result<Format> {
    let mut raw = sys::v4l2_format { type_: queue.code(), ..Plain::zeroed() };
    let (pixelformat, field) = (u32::from_le_bytes(fourcc), sys::v4l2_field_V4L2_FIELD_ANY);
    // The colours of what is captured the driver says; what is given to an encoder is full range (V4L2's JPEG space).
    let colorspace = match queue {
        Queue::Capture | Queue::CaptureMplane => sys::v4l2_colorspace_V4L2_COLORSPACE_DEFAULT,
        Queue::Output | Queue::OutputMplane => sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG,
    };
    let PlaneFormat { stride: bytesperline, size: sizeimage } = first;
    if queue.is_mplane() {
        // SAFETY: integers only.
        let zeroed: sys::v4l2_pix_format_mplane = unsafe { mem::zeroed() };
        let mut pix =
            sys::v4l2_pix_format_mplane { width, height, pixelformat, field, colorspace, num_planes: 1, ..zeroed };
        pix.plane_fmt[0].bytesperline = bytesperline;
        pix.plane_fmt[0].sizeimage = sizeimage;
        raw.fmt.pix_mp = pix;
    } else {
        // SAFETY: integers only. `priv` stays 0: no extended fields.
        let zeroed: sys::v4l2_pix_format = unsafe { mem::zeroed() };
        raw.fmt.pix =
            sys::v4l2_pix_format { width, height, pixelformat, field, colorspace, bytesperline, sizeimage, ..zeroed };
    }
    call(file, vidioc::VIDIOC_S_FMT, &mut raw)?;
    if queue.is_mplane() {
        // SAFETY: for these queues the kernel fills `pix_mp`.
        let pix = unsafe { raw.fmt.pix_mp };
        // The struct is packed, hence the copies.
        let planes = { pix.plane_fmt }.into_iter().take(pix.num_planes.into());
        let planes = planes.map(|plane| PlaneFormat { stride: plane.bytesperline, size: plane.sizeimage });
        return Ok(Format {
            fourcc: pix.pixelformat.to_le_bytes(),
            width: pix.width,
            height: pix.height,
            limited_range: is_limited(pix.quantization.into(), pix.colorspace),
            planes: planes.collect(),
        });
    }
    // SAFETY: for these queues the kernel fills `pix`.
    let pix = unsafe { raw.fmt.pix };
    Ok(Format {
        fourcc: pix.pixelformat.to_le_bytes(),
        width: pix.width,
        height: pix.height,
        limited_range: is_limited(pix.quantization, pix.colorspace),
        planes: vec![PlaneFormat { stride: pix.bytesperline, size: pix.sizeimage }],
    })
}

/// V4L2_MAP_QUANTIZATION_DEFAULT of videodev2.h: for Y'CbCr limited, but for the JPEG colour space full.
fn is_limited(quantization: u32, colorspace: u32) -> bool {
    match quantization {
        sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE => false,
        sys::v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE => true,
        _ => colorspace != sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG,
    }
}

/// VIDIOC_S_PARM if a rate (frames a second) is asked for, else VIDIOC_G_PARM: the frame interval in force; `None` if
/// the driver has no notion of it.
pub(super) fn frame_interval(file: &File, queue: Queue, rate: Option<f64>) -> Option<Duration> {
    let mut raw = sys::v4l2_streamparm { type_: queue.code(), ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_G_PARM, &mut raw).ok()?;
    // SAFETY: for CAPTURE the kernel fills `capture`.
    let can_set = unsafe { raw.parm.capture }.capability & sys::V4L2_CAP_TIMEPERFRAME != 0;
    if let (Some(rate), true) = (rate, can_set) {
        raw.parm.capture.timeperframe =
            sys::v4l2_fract { numerator: 1000, denominator: (rate * 1000.0).round() as u32 };
        call(file, vidioc::VIDIOC_S_PARM, &mut raw).ok()?;
    }
    // SAFETY: as above.
    let interval = seconds(unsafe { raw.parm.capture }.timeperframe);
    (!interval.is_zero()).then_some(interval)
}

/// An input of a capture device: a sensor, a socket for a cable, a tuner.
pub(super) struct Input {
    pub index: u32,
    /// V4L2_IN_ST_*.
    pub status: u32,
    /// Its signal has DV timings: HDMI, DVI, SDI.
    pub has_timings: bool,
}

/// VIDIOC_G_INPUT and VIDIOC_ENUMINPUT: the input that is selected.
pub(super) fn input(file: &File) -> io::Result<Input> {
    let mut selected: c_int = 0;
    call(file, vidioc::VIDIOC_G_INPUT, &mut selected)?;
    let mut raw = sys::v4l2_input { index: selected as u32, ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_ENUMINPUT, &mut raw)?;
    let has_timings = raw.capabilities & sys::V4L2_IN_CAP_DV_TIMINGS != 0;
    Ok(Input { index: raw.index, status: raw.status, has_timings })
}

/// VIDIOC_S_INPUT.
pub(super) fn set_input(file: &File, index: u32) -> io::Result<()> {
    call(file, vidioc::VIDIOC_S_INPUT, &mut (index as c_int))
}

/// Size and rate of a digital video signal, with all that lies between.
pub(super) struct Timings(sys::v4l2_dv_timings);

impl Timings {
    pub fn none() -> Self {
        Self(Plain::zeroed())
    }
}

/// As in 1920x1080p60; "an unknown signal" if there are no numbers.
impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: integers whichever member of the union was written; V4L2_DV_BT_656_1120 is the only one there is.
        let bt = unsafe { self.0.__bindgen_anon_1.bt };
        let across = u64::from(bt.width) + u64::from(bt.hfrontporch) + u64::from(bt.hsync) + u64::from(bt.hbackporch);
        let down = u64::from(bt.height) + u64::from(bt.vfrontporch) + u64::from(bt.vsync) + u64::from(bt.vbackporch);
        let (width, height, clock) = (bt.width, bt.height, bt.pixelclock);
        if width == 0 || height == 0 {
            return f.write_str("an unknown signal");
        }
        let scan = if bt.interlaced == 0 { 'p' } else { 'i' };
        write!(f, "{width}x{height}{scan}{}", (clock as f64 / (across * down) as f64).round())
    }
}

/// VIDIOC_QUERY_DV_TIMINGS: what the receiver sees. `timings` may be filled also if it fails (ERANGE).
pub(super) fn query_timings(file: &File, timings: &mut Timings) -> io::Result<()> {
    call(file, request::<sys::v4l2_dv_timings>(READ, 99), &mut timings.0)
}

/// VIDIOC_S_DV_TIMINGS.
pub(super) fn set_timings(file: &File, timings: &Timings) -> io::Result<()> {
    call(file, request::<sys::v4l2_dv_timings>(READ | WRITE, 87), &mut timings.0.clone())
}

/// VIDIOC_G_CTRL: the value of a control that is a number.
pub(super) fn number(file: &File, id: u32) -> io::Result<i32> {
    let mut raw = sys::v4l2_control { id, value: 0 };
    call(file, vidioc::VIDIOC_G_CTRL, &mut raw)?;
    Ok(raw.value)
}

/// VIDIOC_S_CTRL. The kernel takes the nearest value that the control has.
pub(super) fn set_control(file: &File, id: u32, value: i32) -> io::Result<()> {
    call(file, vidioc::VIDIOC_S_CTRL, &mut sys::v4l2_control { id, value })
}

/// VIDIOC_S_SELECTION: the part of the frames in an output queue that counts, from their upper left corner on.
pub(super) fn set_crop(file: &File, (width, height): (u32, u32)) -> io::Result<()> {
    let r = sys::v4l2_rect { left: 0, top: 0, width, height };
    // Drivers want the plain buffer type here, also those with a multi-planar queue.
    let type_ = Queue::Output.code();
    let mut raw = sys::v4l2_selection { type_, target: sys::V4L2_SEL_TGT_CROP, r, ..Plain::zeroed() };
    call(file, request::<sys::v4l2_selection>(READ | WRITE, 95), &mut raw)
}

/// VIDIOC_SUBSCRIBE_EVENT: from now on the file has events of this type (V4L2_EVENT_*).
pub(super) fn subscribe(file: &File, type_: u32, id: u32, flags: u32) -> io::Result<()> {
    let mut raw = sys::v4l2_event_subscription { type_, id, flags, ..Plain::zeroed() };
    call(file, request::<sys::v4l2_event_subscription>(WRITE, 90), &mut raw)
}

pub(super) struct Event {
    /// V4L2_EVENT_*.
    pub kind: u32,
    /// The control or input that it is about.
    pub id: u32,
}

/// VIDIOC_DQEVENT: the next event; `None` if there is none.
pub(super) fn next_event(file: &File) -> io::Result<Option<Event>> {
    let mut raw = sys::v4l2_event::zeroed();
    match call(file, request::<sys::v4l2_event>(READ, 89), &mut raw) {
        Ok(()) => Ok(Some(Event { kind: raw.type_, id: raw.id })),
        // ENOENT is what the kernel says on a file that does not block.
        Err(error) if matches!(errno(&error), Some(Errno::NOENT | Errno::AGAIN)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// What [`wait`] found.
#[derive(Clone, Copy, Default)]
pub(super) struct Ready {
    /// A buffer can be taken back, or an error.
    pub buffer: bool,
    pub event: bool,
}

/// Waits until the device has a buffer for us, an event or an error; nothing after `timeout`.
pub(super) fn wait(file: &File, timeout: Duration) -> io::Result<Ready> {
    let found = poll_one(file, PollFlags::IN | PollFlags::PRI, timeout)?;
    Ok(Ready { buffer: found.intersects(!PollFlags::PRI), event: found.contains(PollFlags::PRI) })
}

/// What of `events`, or which error, there is; nothing after `timeout` or a signal.
pub(super) fn poll_one(fd: &impl AsFd, events: PollFlags, timeout: Duration) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(fd, events)];
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => Ok(fds[0].revents()),
        Err(Errno::INTR) => Ok(PollFlags::empty()),
        Err(error) => Err(error.into()),
    }
}
