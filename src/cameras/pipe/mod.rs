//! Cameras that are the output of a program, such as `rpicam-vid --codec mjpeg -o -`: the way to sensors that give the
//! kernel only raw Bayer, and to anything else that some program can turn into pictures.
//!
//!     open ── process.rs: program ──stdout──► mjpeg.rs or Raw ──newest whole frame──► next
//!                             └──stderr──► log, and the reason when it ends
//!
//! The program runs while the camera is open. It is read faster than it writes: of the frames that waited in the pipe
//! only the newest is handed on, the others count as dropped, so that pictures do not grow old in it.
//!
//! The size of JPEGs is taken from the first of them, that of raw frames from the configuration.
//!
//! The stamp of a frame is a time before its first byte was written: the moment it was read if the pipe had been empty,
//! else the look at the pipe before that. So a picture is never older than it says.

mod mjpeg;
mod process;

use super::CameraConfig;
use super::device::{CameraError, Description, Device, Frame, Identity, Mode, PixelFormat, Stream};
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
/// How long the first JPEG is waited for, to know its size. Less than a stop of this program may take.
const FIRST_JPEG: Duration = Duration::from_secs(3);

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

    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }
}

impl Device for PipeDevice {
    fn probe(&self) -> Result<(), CameraError> {
        process::find(self.program()).map(|_| ())
    }

    fn describe(&self) -> Result<Description, CameraError> {
        // Not the arguments, which may hold the password of an address.
        let identity = Identity { driver: "pipe".into(), card: self.program().into(), bus: String::new() };
        let format = if self.mode.format == PixelFormat::Mjpg { "MJPG".into() } else { self.mode.to_string() };
        let path = process::find(self.program())?.display().to_string();
        Ok(Description { path, identity, formats: vec![format], fault: None })
    }

    fn open(&mut self) -> Result<Box<dyn Stream>, CameraError> {
        let mut stream = PipeStream::start(&self.command, self.mode.clone())?;
        if self.mode.format == PixelFormat::Mjpg {
            stream.learn_size(Instant::now() + FIRST_JPEG)?;
        }
        Ok(Box::new(stream))
    }
}

struct PipeStream {
    process: Process,
    mode: Mode,
    cutter: Cutter,
    /// The newest whole frame.
    newest: Vec<u8>,
    /// When that one was captured, if it has not been handed on.
    captured: Option<Instant>,
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
        let (process, now) = (Process::start(command)?, Instant::now());
        Ok(Self {
            process,
            cutter: Cutter::new(&mode),
            mode,
            newest: Vec::new(),
            captured: None,
            looked: now,
            begun: now,
            sequence: 0,
            damaged: 0,
        })
    }

    /// Takes the size from the first JPEG, if it comes by `deadline`.
    fn learn_size(&mut self, deadline: Instant) -> Result<(), CameraError> {
        let mut damaged = 0;
        while self.captured.is_none() && Instant::now() < deadline {
            self.read(deadline)?;
            damaged += std::mem::take(&mut self.damaged);
        }
        self.damaged = damaged;
        if self.captured.is_some()
            && let Ok(header) = turbojpeg::read_header(&self.newest)
        {
            (self.mode.width, self.mode.height) = (header.width as u32, header.height as u32);
        }
        Ok(())
    }

    /// Reads what waits in the pipe, and on until there is something to tell, or it is `deadline`.
    fn read(&mut self, deadline: Instant) -> Result<(), CameraError> {
        let mut waiting = self.process.look();
        let mut stamp = std::mem::replace(&mut self.looked, Instant::now());
        loop {
            if waiting == 0 {
                if self.captured.is_some() || self.damaged > 0 || !self.process.wait(deadline)? {
                    return Ok(());
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
                        let dropped = self.captured.replace(std::mem::replace(&mut self.begun, stamp)).is_some();
                        // A gap shows it.
                        self.sequence = self.sequence.wrapping_add(dropped.into());
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

    fn next(&mut self, timeout: Duration) -> Result<Option<Frame<'_>>, CameraError> {
        if self.damaged == 0 {
            self.read(Instant::now() + timeout)?;
        }
        let captured = self.captured.take();
        let corrupt = captured.is_none();
        if corrupt {
            let Some(rest) = self.damaged.checked_sub(1) else { return Ok(None) };
            self.damaged = rest;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let data = if corrupt { &[] } else { &self.newest[..] };
        let (captured, sequence) = (captured.unwrap_or(self.begun), self.sequence);
        Ok(Some(Frame { data, captured, sequence, corrupt, dmabuf: None }))
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
