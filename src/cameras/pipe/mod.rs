//! Cameras that are the output of a program, such as `rpicam-vid --codec mjpeg -o -`: the way to sensors that give the
//! kernel only raw Bayer, and to anything else that some program can turn into pictures.
//!
//!     open ── process.rs: program ──stdout──► mjpeg.rs or Raw ──newest whole frame──► next
//!                             └──stderr──► log, and the reason when it ends
//!
//! The program runs while the camera is open. It is read faster than it writes: of the frames that waited in the pipe
//! only the newest is handed on, the others count as dropped, so that pictures do not grow old in it.
//!
//! The stamp of a frame is a time before its first byte was written: the moment it was read if the pipe had been empty,
//! else the look at the pipe before that. So a picture is never older than it says.

mod mjpeg;
mod process;

use super::CameraConfig;
use super::device::{CameraError, Device, Frame, Identity, Mode, PixelFormat, Stream};
use mjpeg::{Cut, Splitter};
use process::Process;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// What a program writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JPEGs back to back, or as the parts of a multipart/x-mixed-replace.
    #[default]
    Mjpeg,
    /// Planes of Y, U and V, 4:2:0 (I420).
    Yuv420,
    /// A plane of Y, a plane of U and V in turns, 4:2:0.
    Nv12,
    /// Packed Y U Y V, 4:2:2.
    Yuyv,
}

/// What black and white are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Range {
    /// 0 and 255: what rpicam-vid gives for yuv420 (its colour space is sYCC), and JPEG means.
    #[default]
    Full,
    /// 16 and 235: what ffmpeg and GStreamer mostly give.
    Limited,
}

/// A JPEG from a camera is smaller, even at 8K.
const LARGEST_JPEG: usize = 32 << 20;
/// Read at once from programs that write JPEG.
const CHUNK: usize = 64 << 10;

/// What is wrong with the keys of a pipe, as (key, what and what would be right).
pub(super) fn check(camera: &CameraConfig) -> Vec<(&'static str, String)> {
    let CameraConfig { command, format, stride, range, width, height, .. } = camera;
    let mut faults = Vec::new();
    if !camera.is_pipe() {
        let is_set = [
            ("command", command.is_some()),
            ("format", format.is_some()),
            ("stride", stride.is_some()),
            ("range", range.is_some()),
        ];
        let set = is_set.into_iter().filter(|(_, is_set)| *is_set);
        faults.extend(set.map(|(key, _)| (key, "it is of a pipe camera; add device = \"pipe\", or remove it".into())));
        return faults;
    }
    let example = "write the program and its arguments, as in [\"rpicam-vid\", \"--codec\", \"mjpeg\", \"-t\", \"0\", \
                   \"-o\", \"-\"]";
    match command.as_deref() {
        None => faults.push(("command", format!("a pipe camera needs it; {example}"))),
        Some(words) if words.first().is_none_or(String::is_empty) => {
            faults.push(("command", format!("it names no program; {example}")));
        }
        Some(words) if words.iter().any(|word| word.contains('\0')) => {
            faults.push(("command", "it contains a NUL, which no argument can".into()));
        }
        Some(_) => {}
    }
    let format = format.unwrap_or_default();
    if format == Format::Mjpeg {
        let raw = "it is of raw frames; remove it, or set format to \"yuv420\", \"nv12\" or \"yuyv\"";
        faults.extend(stride.map(|_| ("stride", raw.to_owned())));
        faults.extend(range.map(|_| ("range", raw.to_owned())));
        return faults;
    }
    let mut even = vec![("width", *width)];
    if format != Format::Yuyv {
        even.push(("height", *height));
    }
    for (key, value) in even.into_iter().filter(|(_, value)| value % 2 == 1) {
        faults.push((key, format!("{value} is odd; raw frames of this format have an even {key}")));
    }
    let least = format.line(*width);
    if let Some(stride) = *stride
        && (stride < least || stride % 2 == 1 || stride > 1 << 18)
    {
        faults.push(("stride", format!("{stride} is out of range; use an even number from {least} to {}", 1 << 18)));
    }
    faults
}

impl Format {
    fn pixel_format(self) -> PixelFormat {
        match self {
            Format::Mjpeg => PixelFormat::Mjpg,
            Format::Yuv420 => PixelFormat::Yu12,
            Format::Nv12 => PixelFormat::Nv12,
            Format::Yuyv => PixelFormat::Yuyv,
        }
    }

    /// Bytes of a line of the first plane without padding; zero for JPEG.
    fn line(self, width: u32) -> u32 {
        match self {
            Format::Mjpeg => 0,
            Format::Yuv420 | Format::Nv12 => width,
            Format::Yuyv => 2 * width,
        }
    }
}

pub struct PipeDevice {
    command: Vec<String>,
    mode: Mode,
}

impl PipeDevice {
    /// Of a configuration that `check` has nothing against.
    pub(super) fn new(camera: &CameraConfig) -> Self {
        let format = camera.format.unwrap_or_default();
        let mode = Mode {
            format: format.pixel_format(),
            width: camera.width,
            height: camera.height,
            stride: camera.stride.unwrap_or(format.line(camera.width)),
            limited_range: camera.range == Some(Range::Limited),
            frame_interval: camera.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate)),
        };
        Self { command: camera.command.clone().unwrap_or_default(), mode }
    }
}

impl Device for PipeDevice {
    fn probe(&self) -> Result<(), CameraError> {
        process::find(self.command.first().map_or("", String::as_str))
    }

    fn open(&mut self) -> Result<Box<dyn Stream>, CameraError> {
        Ok(Box::new(PipeStream::start(&self.command, self.mode.clone())?))
    }
}

struct PipeStream {
    process: Process,
    identity: Identity,
    mode: Mode,
    cutter: Cutter,
    /// The newest whole frame.
    newest: Vec<u8>,
    /// What is in the pipe now was written after this.
    looked: Instant,
    /// What came of the frame at hand was written after this.
    begun: Instant,
    sequence: u32,
    /// Damaged frames that have not been told of yet.
    damaged: u32,
}

impl PipeStream {
    fn start(command: &[String], mode: Mode) -> Result<Self, CameraError> {
        let process = Process::start(command)?;
        let identity = Identity {
            driver: "pipe".into(),
            // Not the arguments, which may hold the password of an address.
            card: process.program().into(),
            bus: format!("process {}", process.id()),
        };
        let (cutter, now) = (Cutter::new(&mode), Instant::now());
        let newest = Vec::new();
        Ok(Self { process, identity, mode, cutter, newest, looked: now, begun: now, sequence: 0, damaged: 0 })
    }

    /// Reads what waits in the pipe, and on until there is something to tell. The time of the newest whole frame; `None`
    /// if there was none, or none in time.
    fn read(&mut self, deadline: Instant) -> Result<Option<Instant>, CameraError> {
        let mut waiting = self.process.look();
        let mut stamp = std::mem::replace(&mut self.looked, Instant::now());
        let mut captured = None;
        loop {
            if waiting == 0 {
                if captured.is_some() || self.damaged > 0 || !self.process.wait(deadline)? {
                    return Ok(captured);
                }
                stamp = Instant::now();
            }
            if self.cutter.is_between_frames() {
                self.begun = stamp;
            }
            let buffer = self.cutter.buffer();
            let room = buffer.capacity() - buffer.len();
            let length = self.process.read(buffer)?;
            if length < room {
                // That was all.
                (waiting, self.looked) = (0, Instant::now());
            }
            waiting = waiting.saturating_sub(length);
            while let Some(cut) = self.cutter.cut(&mut self.newest) {
                match cut {
                    Cut::Damaged => self.damaged += 1,
                    Cut::Frame => {
                        // The one before it is dropped, which shows as a gap.
                        self.sequence = self.sequence.wrapping_add(captured.is_some().into());
                        captured = Some(std::mem::replace(&mut self.begun, stamp));
                    }
                }
            }
        }
    }
}

impl Stream for PipeStream {
    fn mode(&self) -> &Mode {
        &self.mode
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<Frame<'_>>, CameraError> {
        let captured = if self.damaged > 0 { None } else { self.read(Instant::now() + timeout)? };
        let corrupt = captured.is_none();
        if corrupt {
            let Some(rest) = self.damaged.checked_sub(1) else { return Ok(None) };
            self.damaged = rest;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let data = if corrupt { &[] } else { &self.newest[..] };
        Ok(Some(Frame { data, captured: captured.unwrap_or(self.begun), sequence: self.sequence, corrupt }))
    }
}

/// Cuts what a program writes into frames.
enum Cutter {
    Mjpeg(Splitter),
    /// Frames of one length, with nothing between them that could tell them apart.
    Raw {
        data: Vec<u8>,
        length: usize,
    },
}

impl Cutter {
    fn new(mode: &Mode) -> Self {
        let (stride, height) = (mode.stride as usize, mode.height as usize);
        let length = match mode.format {
            PixelFormat::Mjpg => return Cutter::Mjpeg(Splitter::new(LARGEST_JPEG)),
            PixelFormat::Yu12 | PixelFormat::Nv12 => stride * height * 3 / 2,
            _ => stride * height,
        };
        Cutter::Raw { data: Vec::new(), length }
    }

    /// Where the next bytes go, as many as there is room for.
    fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Cutter::Mjpeg(splitter) => {
                let buffer = splitter.buffer();
                buffer.reserve(CHUNK);
                buffer
            }
            Cutter::Raw { data, length } => {
                data.reserve_exact(*length - data.len());
                data
            }
        }
    }

    /// The next thing found; a whole frame is put in `frame`. `None`: more bytes are needed.
    fn cut(&mut self, frame: &mut Vec<u8>) -> Option<Cut> {
        match self {
            Cutter::Mjpeg(splitter) => splitter.cut(frame),
            Cutter::Raw { data, length } => {
                if data.len() < *length {
                    return None;
                }
                // Frames are large: they are exchanged, and only what was read of the next one is copied.
                std::mem::swap(data, frame);
                data.clear();
                data.extend_from_slice(&frame[*length..]);
                frame.truncate(*length);
                Some(Cut::Frame)
            }
        }
    }

    fn is_between_frames(&self) -> bool {
        match self {
            Cutter::Mjpeg(splitter) => splitter.is_between_frames(),
            Cutter::Raw { data, .. } => data.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests;
