//! The V4L2 ioctls that this program uses, as safe functions on an open file.
//!
//! Built on the `v4l` crate's structs, numbers and syscall. Its own `Device` and `Stream` are not used: they panic on
//! names that are not UTF-8 and when a device goes away between STREAMON and STREAMOFF, and a gateway meets both.
//!
//! Each function names the ioctl it is; units and meanings are those of the kernel's documentation
//! (Documentation/userspace-api/media/v4l).

#![allow(unsafe_code, reason = "ioctl(2); named in DESIGN as a place for it")]

use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use v4l::v4l_sys as sys;
use v4l::v4l2::{self, vidioc};

const CAPTURE: u32 = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
pub(super) const MMAP: u32 = sys::v4l2_memory_V4L2_MEMORY_MMAP;

/// Structs of C without pointers and without rules for their bits: all zeroes is a value of each.
///
/// # Safety
/// Only for types for which that is so.
unsafe trait Plain: Sized {
    fn zeroed() -> Self {
        // SAFETY: promised by the implementor.
        unsafe { mem::zeroed() }
    }
}

macro_rules! plain {
    ($($name:ident),*) => { $(
        // SAFETY: integers, arrays of integers and unions of those; v4l2_buffer's, v4l2_format's and v4l2_ext_control's
        // unions and v4l2_ext_controls also hold raw pointers, for which null is a value.
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
    v4l2_query_ext_ctrl,
    v4l2_querymenu,
    v4l2_ext_control,
    v4l2_ext_controls,
    v4l2_event_subscription,
    v4l2_event
);

#[cfg(not(target_env = "musl"))]
type Request = std::os::raw::c_ulong;
#[cfg(target_env = "musl")]
type Request = std::os::raw::c_int;

fn call<T: Plain>(file: &File, request: Request, argument: &mut T) -> io::Result<()> {
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
fn text(bytes: &[u8]) -> String {
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
    pub fn is_capture(&self) -> bool {
        self.flags & sys::V4L2_CAP_VIDEO_CAPTURE != 0 && self.flags & sys::V4L2_CAP_STREAMING != 0 && !self.is_m2m()
    }

    pub fn is_m2m(&self) -> bool {
        self.flags & (sys::V4L2_CAP_VIDEO_M2M | sys::V4L2_CAP_VIDEO_M2M_MPLANE) != 0
    }

    /// In words, for nodes that are not cameras.
    pub fn kind(&self) -> &'static str {
        match self.flags {
            _ if self.is_m2m() => "memory-to-memory device (encoder, decoder or scaler)",
            flags if flags & sys::V4L2_CAP_META_CAPTURE != 0 => "metadata of a camera",
            flags if flags & sys::V4L2_CAP_META_OUTPUT != 0 => "metadata output",
            flags if flags & sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0 => "multi-planar capture (not supported yet)",
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
pub(super) fn format_at(file: &File, index: u32) -> Option<([u8; 4], String)> {
    let mut raw = sys::v4l2_fmtdesc { index, type_: CAPTURE, ..Plain::zeroed() };
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

/// What the driver made of a wish for a format.
pub(super) struct Format {
    pub fourcc: [u8; 4],
    pub width: u32,
    pub height: u32,
    pub stride: u32,
    pub limited_range: bool,
}

/// VIDIOC_S_FMT: asks for a format and size; the driver answers with what it will do, which may be another.
pub(super) fn set_format(file: &File, fourcc: [u8; 4], width: u32, height: u32) -> io::Result<Format> {
    let mut raw = sys::v4l2_format { type_: CAPTURE, ..Plain::zeroed() };
    // `priv` and the colour fields stay 0: defaults of the driver.
    raw.fmt.pix = sys::v4l2_pix_format {
        width,
        height,
        pixelformat: u32::from_le_bytes(fourcc),
        field: sys::v4l2_field_V4L2_FIELD_ANY,
        // SAFETY: integers only.
        ..unsafe { mem::zeroed() }
    };
    call(file, vidioc::VIDIOC_S_FMT, &mut raw)?;
    // SAFETY: for CAPTURE the kernel fills `pix`.
    let pix = unsafe { raw.fmt.pix };
    // V4L2_MAP_QUANTIZATION_DEFAULT of videodev2.h: for Y'CbCr limited, but for the JPEG colour space full.
    let limited_range = match pix.quantization {
        sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE => false,
        sys::v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE => true,
        _ => pix.colorspace != sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG,
    };
    Ok(Format {
        fourcc: pix.pixelformat.to_le_bytes(),
        width: pix.width,
        height: pix.height,
        stride: pix.bytesperline,
        limited_range,
    })
}

/// VIDIOC_S_PARM if a rate (frames a second) is asked for, else VIDIOC_G_PARM: the frame interval in force; `None` if
/// the driver has no notion of it.
pub(super) fn frame_interval(file: &File, rate: Option<f64>) -> Option<Duration> {
    let mut raw = sys::v4l2_streamparm { type_: CAPTURE, ..Plain::zeroed() };
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

/// VIDIOC_REQBUFS with memory-mapped buffers: how many the driver gave. Zero frees them.
pub(super) fn request_buffers(file: &File, count: u32) -> io::Result<u32> {
    let mut raw = sys::v4l2_requestbuffers { count, type_: CAPTURE, memory: MMAP, ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_REQBUFS, &mut raw)?;
    Ok(raw.count)
}

fn buffer(index: u32) -> sys::v4l2_buffer {
    sys::v4l2_buffer { index, type_: CAPTURE, memory: MMAP, ..Plain::zeroed() }
}

/// VIDIOC_QUERYBUF: offset (for mmap) and length of a buffer.
pub(super) fn query_buffer(file: &File, index: u32) -> io::Result<(u32, usize)> {
    let mut raw = buffer(index);
    call(file, vidioc::VIDIOC_QUERYBUF, &mut raw)?;
    // SAFETY: for MMAP the kernel fills `offset`.
    Ok((unsafe { raw.m.offset }, raw.length as usize))
}

/// VIDIOC_QBUF: gives a buffer to the driver.
pub(super) fn queue(file: &File, index: u32) -> io::Result<()> {
    call(file, vidioc::VIDIOC_QBUF, &mut buffer(index))
}

pub(super) struct Filled {
    pub index: usize,
    pub length: usize,
    pub sequence: u32,
    pub error: bool,
    /// Since boot (CLOCK_MONOTONIC); `None` if the driver stamps by another clock.
    pub monotonic: Option<Duration>,
}

/// VIDIOC_DQBUF: takes a filled buffer from the driver. WouldBlock if there is none.
pub(super) fn dequeue(file: &File) -> io::Result<Filled> {
    let mut raw = buffer(0);
    call(file, vidioc::VIDIOC_DQBUF, &mut raw)?;
    let is_monotonic = raw.flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK == sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    let stamp = || {
        let seconds = u64::try_from(raw.timestamp.tv_sec).ok()?;
        let micros = u64::try_from(raw.timestamp.tv_usec).ok()?;
        Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
    };
    Ok(Filled {
        index: raw.index as usize,
        length: raw.bytesused as usize,
        sequence: raw.sequence,
        error: raw.flags & sys::V4L2_BUF_FLAG_ERROR != 0,
        monotonic: if is_monotonic { stamp() } else { None },
    })
}

/// VIDIOC_STREAMON or VIDIOC_STREAMOFF.
pub(super) fn set_streaming(file: &File, on: bool) -> io::Result<()> {
    let request = if on { vidioc::VIDIOC_STREAMON } else { vidioc::VIDIOC_STREAMOFF };
    let mut kind = CAPTURE as std::os::raw::c_int;
    // SAFETY: both take a pointer to an int, which lives until the call returns.
    unsafe { v4l2::ioctl(file.as_raw_fd(), request, (&raw mut kind).cast()) }
}

/// Waits until the device has a frame or an error. `false` after `timeout`.
pub(super) fn wait(file: &File, timeout: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let fd = file.as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A control as the driver describes it now. What its limits mean depends on its type.
pub(super) struct ControlInfo {
    pub id: u32,
    /// V4L2_CTRL_TYPE_*.
    pub kind: u32,
    pub name: String,
    pub minimum: i64,
    pub maximum: i64,
    /// V4L2_CTRL_FLAG_*.
    pub flags: u32,
    /// Empty for a single value.
    pub dimensions: Vec<u32>,
}

/// VIDIOC_QUERY_EXT_CTRL: the control with this number.
pub(super) fn control(file: &File, id: u32) -> io::Result<ControlInfo> {
    let mut raw = sys::v4l2_query_ext_ctrl { id, ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_QUERY_EXT_CTRL, &mut raw)?;
    let dimensions = raw.dims.iter().take(raw.nr_of_dims as usize).copied().collect();
    Ok(ControlInfo {
        id: raw.id,
        kind: raw.type_,
        name: text(&raw.name.map(|c| c as u8)),
        minimum: raw.minimum,
        maximum: raw.maximum,
        flags: raw.flags,
        dimensions,
    })
}

/// VIDIOC_QUERY_EXT_CTRL: the control with the next higher number, of whatever type; `None` after the last and if the
/// driver has no controls.
pub(super) fn control_after(file: &File, id: u32) -> io::Result<Option<ControlInfo>> {
    let next = id | sys::V4L2_CTRL_FLAG_NEXT_CTRL | sys::V4L2_CTRL_FLAG_NEXT_COMPOUND;
    match control(file, next) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(errno(&error), Some(Errno::INVAL | Errno::NOTTY)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// VIDIOC_QUERYMENU: the name of an entry of a menu, or the number behind it; `None` where the menu has a gap.
pub(super) fn menu_entry(file: &File, id: u32, is_integer: bool, index: u32) -> Option<String> {
    let mut raw = sys::v4l2_querymenu { id, index, ..Plain::zeroed() };
    call(file, vidioc::VIDIOC_QUERYMENU, &mut raw).ok()?;
    // SAFETY: numbers, all of whose bits are written: by the kernel or as zeroes.
    let (number, name) = unsafe { (raw.__bindgen_anon_1.value, raw.__bindgen_anon_1.name) };
    Some(if is_integer { number.to_string() } else { text(&name) })
}

/// How the value of a control travels.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Payload {
    Value(i32),
    Value64(i64),
    /// Strings (with their NUL), arrays and structs.
    Bytes(Vec<u8>),
}

/// VIDIOC_G_EXT_CTRLS with one control: fills `payload`, whose kind must be that of the control. Bytes must be as many as
/// the value can have and are cut to those it has.
pub(super) fn get_control(file: &File, id: u32, payload: &mut Payload) -> io::Result<()> {
    ext_control(file, vidioc::VIDIOC_G_EXT_CTRLS, id, payload)
}

/// VIDIOC_S_EXT_CTRLS with one control.
pub(super) fn set_control(file: &File, id: u32, payload: &mut Payload) -> io::Result<()> {
    ext_control(file, vidioc::VIDIOC_S_EXT_CTRLS, id, payload)
}

fn ext_control(file: &File, request: Request, id: u32, payload: &mut Payload) -> io::Result<()> {
    let mut control = sys::v4l2_ext_control { id, ..Plain::zeroed() };
    match payload {
        Payload::Value(value) => control.__bindgen_anon_1.value = *value,
        Payload::Value64(value) => control.__bindgen_anon_1.value64 = *value,
        Payload::Bytes(bytes) => {
            control.size = bytes.len() as u32;
            control.__bindgen_anon_1.string = bytes.as_mut_ptr().cast();
        }
    }
    // `which` stays 0: V4L2_CTRL_WHICH_CUR_VAL, controls of any class.
    let mut raw = sys::v4l2_ext_controls { count: 1, controls: &raw mut control, ..Plain::zeroed() };
    // The kernel writes at most `size` bytes to the address in `control`; all three live until the call returns.
    call(file, request, &mut raw)?;
    match payload {
        // SAFETY: the payload has the kind of the control, and any bits are a number.
        Payload::Value(value) => *value = unsafe { control.__bindgen_anon_1.value },
        // SAFETY: as above.
        Payload::Value64(value) => *value = unsafe { control.__bindgen_anon_1.value64 },
        Payload::Bytes(bytes) => bytes.truncate(control.size as usize),
    }
    Ok(())
}

/// Makes the arrival of events (POLLPRI) something that can be awaited. Needs a tokio runtime.
pub(super) fn await_events(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a File is one descriptor for as long as it lives, and nobody can change that while the AsyncFd owns it.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?)
}

/// VIDIOC_SUBSCRIBE_EVENT: V4L2_EVENT_* from now on, of the control or input `id`, with V4L2_EVENT_SUB_FL_*.
pub(super) fn subscribe(file: &File, kind: u32, id: u32, flags: u32) -> io::Result<()> {
    // The `v4l` crate has no number for it: _IOW('V', 90, struct v4l2_event_subscription).
    const VIDIOC_SUBSCRIBE_EVENT: u32 =
        1 << 30 | (mem::size_of::<sys::v4l2_event_subscription>() as u32) << 16 | (b'V' as u32) << 8 | 90;
    let mut raw = sys::v4l2_event_subscription { type_: kind, id, flags, ..Plain::zeroed() };
    call(file, VIDIOC_SUBSCRIBE_EVENT as Request, &mut raw)
}

pub(super) struct Event {
    /// V4L2_EVENT_*.
    pub kind: u32,
    /// The control or input it is about.
    pub id: u32,
}

/// VIDIOC_DQEVENT: the next event that waits; `None` if there is none. While one waits the file is ready for POLLPRI.
pub(super) fn next_event(file: &File) -> io::Result<Option<Event>> {
    // The `v4l` crate has no number for it: _IOR('V', 89, struct v4l2_event).
    const VIDIOC_DQEVENT: u32 = 2 << 30 | (mem::size_of::<sys::v4l2_event>() as u32) << 16 | (b'V' as u32) << 8 | 89;
    let mut raw = sys::v4l2_event::zeroed();
    match call(file, VIDIOC_DQEVENT as Request, &mut raw) {
        Ok(()) => Ok(Some(Event { kind: raw.type_, id: raw.id })),
        // What a non-blocking file says when nothing waits.
        Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// A driver's buffer in this process's memory.
pub(super) struct Mapping {
    start: *mut std::os::raw::c_void,
    length: usize,
}

impl Mapping {
    pub fn new(file: &File, offset: u32, length: usize) -> io::Result<Self> {
        const PROT_READ: i32 = 1;
        const MAP_SHARED: i32 = 1;
        // SAFETY: a new mapping at an address of the kernel's choice; offset and length come from QUERYBUF.
        let start = unsafe {
            v4l2::mmap(std::ptr::null_mut(), length, PROT_READ, MAP_SHARED, file.as_raw_fd(), offset.into())
        }?;
        Ok(Self { start, length })
    }

    /// The content. The driver must not own the buffer meanwhile, so the caller holds it dequeued.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped readable for `length` bytes until drop.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, unmapped once. It can only fail for arguments that `new` did not give.
        let _ = unsafe { v4l2::munmap(self.start, self.length) };
    }
}
