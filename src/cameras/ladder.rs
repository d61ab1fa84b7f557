//! Who makes the JPEG of a frame: the camera itself, else an encoder of the hardware, else libjpeg-turbo.
//!
//!     unknown ──found, and its first picture is right──► in use ──any failure──► software, for good
//!        └──────────none, or none that can──────────────────────────────────────────▲
//!
//! The hardware is tried with one frame, which libjpeg-turbo encodes too: only if both show the same picture the
//! hardware is trusted. A failure, then or later, is warned of once, and no frame is lost by it. That an encoder is not
//! made for a mode (too large, other format) is no failure; the next mode is tried anew.

use super::device::{Frame, Mode, PixelFormat};
use super::encode::{EncodeError, Encoded, Encoder};
use super::v4l2::m2m::{self, Candidate, HardwareEncoder, HardwareError};
use tracing::{info, warn};
use turbojpeg::{Decompressor, Image, ScalingFactor};

pub(super) struct Ladder {
    software: Encoder,
    /// 1..=100.
    quality: u8,
    /// Bytes of a picture at most.
    limit: usize,
    hardware: Hardware,
    name: String,
}

enum Hardware {
    /// Not looked for yet.
    Unknown,
    /// There are these. For the mode, if any, none of them was right.
    Found(Vec<Candidate>, Option<Mode>),
    InUse(Vec<Candidate>, Box<HardwareEncoder>),
    /// Not wanted, or it failed.
    Off,
}

impl Ladder {
    pub(super) fn new(quality: u8, limit: usize, use_hardware: bool) -> Result<Self, EncodeError> {
        let hardware = if use_hardware { Hardware::Unknown } else { Hardware::Off };
        Ok(Self { software: Encoder::new(quality, limit)?, quality, limit, hardware, name: String::new() })
    }

    /// Who made the last JPEG: "camera", "turbojpeg" or the name of the hardware's encoder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The quality in force, if it had to be lowered to meet the limit.
    pub(super) fn lowered_quality(&self) -> Option<u8> {
        match &self.hardware {
            Hardware::InUse(_, encoder) => encoder.lowered_quality(),
            _ => self.software.lowered_quality(),
        }
    }

    pub(super) fn encode(&mut self, mode: &Mode, frame: &Frame<'_>) -> Result<Encoded, EncodeError> {
        if mode.format == PixelFormat::Mjpg {
            self.called("camera");
            return self.software.encode(mode, frame.data);
        }
        if let Some(encoded) = self.by_hardware(mode, frame) {
            return Ok(encoded);
        }
        self.called("turbojpeg");
        self.software.encode(mode, frame.data)
    }

    /// Gives the hardware back, as long as there are no frames.
    pub(super) fn rest(&mut self) {
        self.hardware = match std::mem::replace(&mut self.hardware, Hardware::Off) {
            Hardware::InUse(candidates, _) => Hardware::Found(candidates, None),
            other => other,
        };
    }

    fn called(&mut self, name: &str) {
        if self.name != name {
            self.name = name.into();
        }
    }

    /// `None` if the hardware is not for this frame.
    fn by_hardware(&mut self, mode: &Mode, frame: &Frame<'_>) -> Option<Encoded> {
        match &self.hardware {
            Hardware::Off => return None,
            Hardware::Found(_, tried) if tried.as_ref() == Some(mode) => return None,
            Hardware::InUse(_, encoder) if encoder.mode() != mode => self.rest(),
            _ => {}
        }
        if !matches!(self.hardware, Hardware::InUse(..)) {
            let candidates = match std::mem::replace(&mut self.hardware, Hardware::Off) {
                Hardware::Found(candidates, _) => candidates,
                _ => m2m::find(),
            };
            if candidates.is_empty() {
                // Encoders are not plugged in later.
                return None;
            }
            return self.try_all(candidates, mode, frame);
        }
        let Hardware::InUse(_, encoder) = &mut self.hardware else { return None };
        match encoder.encode(frame) {
            Ok(encoded) => {
                let name = encoded.as_ref().map(|_| encoder.name().to_owned());
                name.iter().for_each(|name| self.called(name));
                encoded
            }
            Err(error) => {
                let encoder = encoder.name();
                warn!(encoder, %error, "The hardware encoder failed; encoding in software from now on.");
                self.hardware = Hardware::Off;
                None
            }
        }
    }

    /// Takes the first candidate whose picture is right, and else gives the software's; those that fail are not asked
    /// again.
    fn try_all(&mut self, candidates: Vec<Candidate>, mode: &Mode, frame: &Frame<'_>) -> Option<Encoded> {
        // Also says whether the frame is any good. A bad one says nothing about the hardware.
        let Ok(right) = self.software.encode(mode, frame.data) else {
            self.hardware = Hardware::Found(candidates, None);
            return None;
        };
        let mut remaining = Vec::new();
        let mut used = None;
        for candidate in candidates {
            if used.is_none() {
                match self.try_out(&candidate, mode, frame, &right) {
                    Ok(encoder) => used = Some(encoder),
                    Err(Trial { name, error }) if error.as_ref().is_some_and(HardwareError::is_refusal) => {
                        let why = error.map(|error| error.to_string()).unwrap_or_default();
                        info!(encoder = %name, why, "Not using a hardware encoder.");
                    }
                    Err(Trial { name, error }) => {
                        let why =
                            error.map_or("its picture is another than it should be".into(), |error| error.to_string());
                        warn!(encoder = %name, why, "A hardware encoder failed its trial; doing without it.");
                        continue;
                    }
                }
            }
            remaining.push(candidate);
        }
        let Some((encoder, encoded)) = used else {
            self.hardware = Hardware::Found(remaining, Some(mode.clone()));
            self.called("turbojpeg");
            return Some(right);
        };
        info!(encoder = encoder.name(), %mode, "Encoding in hardware.");
        let name = encoder.name().to_owned();
        self.called(&name);
        self.hardware = Hardware::InUse(remaining, Box::new(encoder));
        Some(encoded)
    }

    /// With the camera's own buffer first, if it lends them, else with a copy.
    fn try_out(
        &self,
        candidate: &Candidate,
        mode: &Mode,
        frame: &Frame<'_>,
        right: &Encoded,
    ) -> Result<(HardwareEncoder, Encoded), Trial> {
        let mut trial = Trial { name: "a hardware encoder".into(), error: None };
        for import in [true, false] {
            if import && frame.dmabuf.is_none() {
                continue;
            }
            let port = candidate().map_err(|error| HardwareError::Io { operation: "open", error });
            let attempt = port.and_then(|port| {
                trial.name = port.name().to_owned();
                let mut encoder = HardwareEncoder::start(port, mode, import, self.quality, self.limit)?;
                let encoded = encoder.encode(frame)?;
                Ok((encoder, encoded))
            });
            match attempt {
                Ok((encoder, Some(encoded))) if are_alike(&encoded.jpeg, &right.jpeg) => return Ok((encoder, encoded)),
                Ok(_) => trial.error = None,
                Err(error) => trial.error = Some(error),
            }
        }
        Err(trial)
    }
}

/// How a trial failed; without an error by the picture.
struct Trial {
    name: String,
    error: Option<HardwareError>,
}

/// By which two encoders may differ in the end: qualities differ, and so do the ways of subsampling. A wrong stride,
/// range or order of planes differs by more.
const TOLERANCE: f64 = 6.0;

/// Whether two JPEGs show the same picture.
fn are_alike(one: &[u8], other: &[u8]) -> bool {
    difference(one, other).is_some_and(|levels| levels <= TOLERANCE)
}

/// How many levels of 255 two JPEGs differ on average over a thumbnail; `None` if they cannot be compared.
fn difference(one: &[u8], other: &[u8]) -> Option<f64> {
    let (one, other) = (thumbnail(one).ok()?, thumbnail(other).ok()?);
    let sum: u64 = one.pixels.iter().zip(&other.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    (one.pixels.len() == other.pixels.len()).then(|| sum as f64 / one.pixels.len() as f64)
}

/// An eighth in each direction: the mean of each block.
fn thumbnail(jpeg: &[u8]) -> turbojpeg::Result<Image<Vec<u8>>> {
    let mut decompressor = Decompressor::new()?;
    let header = decompressor.read_header(jpeg)?.scaled(ScalingFactor::ONE_EIGHTH);
    decompressor.set_scaling_factor(ScalingFactor::ONE_EIGHTH)?;
    let (width, height, pitch) = (header.width, header.height, 3 * header.width);
    let format = turbojpeg::PixelFormat::RGB;
    let mut image = Image { pixels: vec![0; pitch * height], width, pitch, height, format };
    decompressor.decompress(jpeg, image.as_deref_mut())?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cameras::v4l2::m2m::peers::{self, Peer};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    fn mode(format: PixelFormat, width: u32, height: u32, stride: u32) -> Mode {
        Mode { format, width, height, stride, limited_range: true, frame_interval: Duration::ZERO }
    }

    fn frame(data: &[u8]) -> Frame<'_> {
        Frame { data, captured: Instant::now(), sequence: 0, corrupt: false, dmabuf: None }
    }

    fn ladder(peers: &[&Peer]) -> Ladder {
        let mut ladder = Ladder::new(90, 1 << 20, true).unwrap();
        ladder.hardware = Hardware::Found(peers.iter().map(|peer| peer.candidate()).collect(), None);
        ladder
    }

    /// Encodes one frame: by whom, and whether the picture is right.
    fn one(ladder: &mut Ladder, mode: &Mode) -> (String, bool) {
        let data = peers::picture(mode);
        let encoded = ladder.encode(mode, &frame(&data)).unwrap();
        let right = Encoder::new(90, 1 << 20).unwrap().encode(mode, &data).unwrap();
        (ladder.name().to_owned(), difference(&encoded.jpeg, &right.jpeg).is_some_and(|levels| levels < 2.0))
    }

    #[test]
    fn every_known_encoder_makes_the_right_picture_of_what_it_takes() {
        for (peer, formats) in [
            (peers::bcm2835(), &[PixelFormat::Yuyv, PixelFormat::Uyvy, PixelFormat::Nv12, PixelFormat::Yu12][..]),
            (peers::hantro(), &[PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Yu12]),
            (peers::mxc_jpeg(), &[PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Grey]),
        ] {
            // 1080 lines are no multiple of 16, 200 no multiple of 64, and a camera may pad its lines.
            for (width, height, padding) in [(320, 1080, 0), (200, 152, 0), (320, 180, 32)] {
                for &format in formats {
                    let bytes = if matches!(format, PixelFormat::Yuyv | PixelFormat::Uyvy) { 2 } else { 1 };
                    let mut mode = mode(format, width, height, width * bytes + padding);
                    for limited_range in [true, false] {
                        mode.limited_range = limited_range;
                        let mut ladder = ladder(&[&peer]);
                        assert_eq!(one(&mut ladder, &mode), (peer.name.into(), true), "{mode} {limited_range}");
                        assert_eq!(one(&mut ladder, &mode), (peer.name.into(), true), "{mode}, second frame");
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_hardware_is_not_made_for_is_encoded_in_software_and_the_next_mode_tried_anew() {
        let peer = peers::bcm2835();
        let mut ladder = ladder(&[&peer]);
        let turbo = ("turbojpeg".to_owned(), true);
        assert_eq!(one(&mut ladder, &mode(PixelFormat::Yuyv, 2560, 1440, 5120)), turbo);
        let opened = peer.opened();
        assert_eq!(one(&mut ladder, &mode(PixelFormat::Yuyv, 2560, 1440, 5120)), turbo);
        assert_eq!(peer.opened(), opened, "it was asked once for that mode");
        assert_eq!(one(&mut ladder, &mode(PixelFormat::Grey, 640, 480, 640)), turbo);
        assert_eq!(one(&mut ladder, &mode(PixelFormat::Yuyv, 640, 480, 1280)), (peer.name.into(), true));
    }

    #[test]
    fn an_encoder_that_fails_its_trial_is_passed_over_for_good() {
        for broken in peers::broken() {
            let (good, wanted) = (peers::hantro(), mode(PixelFormat::Nv12, 640, 480, 640));
            let mut alone = ladder(&[&broken]);
            assert_eq!(one(&mut alone, &wanted), ("turbojpeg".into(), true), "{}", broken.name);
            let opened = broken.opened();
            assert_eq!(one(&mut alone, &mode(PixelFormat::Nv12, 320, 240, 320)).0, "turbojpeg");
            assert_eq!(broken.opened(), opened, "{} is not asked again", broken.name);
            assert_eq!(one(&mut ladder(&[&broken, &good]), &wanted), (good.name.into(), true), "{}", broken.name);
        }
    }

    #[test]
    fn an_encoder_that_fails_later_is_dropped_and_no_frame_is_lost() {
        let (peer, mode) = (peers::failing_after(2), mode(PixelFormat::Yuyv, 320, 240, 640));
        let mut ladder = ladder(&[&peer]);
        let names: Vec<_> = (0..4).map(|_| one(&mut ladder, &mode)).collect();
        let expected = [peer.name, peer.name, "turbojpeg", "turbojpeg"];
        assert_eq!(names, expected.map(|name| (name.to_owned(), true)));
        assert_eq!((peer.opened(), peer.frames()), (1, 3), "after its failure it is not asked again");
    }

    #[test]
    fn frames_are_lent_where_both_sides_can_and_copied_else() {
        let mut mode = mode(PixelFormat::Nv12, 640, 480, 640);
        mode.limited_range = false;
        let data = peers::picture(&mode);
        let buffer = peers::lent(&data);
        let lent = |mode: &Mode, peer: &Peer| {
            let frame = Frame { dmabuf: Some(buffer.as_fd()), ..frame(&data) };
            let mut ladder = ladder(&[peer]);
            for _ in 0..2 {
                ladder.encode(mode, &frame).unwrap();
            }
            assert_eq!(ladder.name(), peer.name);
            peer.imported()
        };
        assert_eq!(lent(&mode, &peers::mxc_jpeg()), 2);
        assert_eq!(lent(&mode, &peers::bcm2835()), 0, "it refuses other devices' memory");
        assert_eq!(lent(&mode, &peers::hantro()), 0, "it wants two memory planes");
        mode.limited_range = true;
        assert_eq!(lent(&mode, &peers::mxc_jpeg()), 0, "somebody has to stretch the range");
    }

    #[test]
    fn the_limit_in_bytes_holds_for_hardware_too() {
        let mode = mode(PixelFormat::Yuyv, 640, 480, 1280);
        let data = peers::noise(&mode);
        let free = Encoder::new(90, usize::MAX).unwrap().encode(&mode, &data).unwrap().jpeg.len();
        for (peer, name) in [(peers::bcm2835(), "bcm2835-codec-encode_image"), (peers::without_quality(), "turbojpeg")]
        {
            let mut ladder = Ladder::new(90, free / 2, true).unwrap();
            ladder.hardware = Hardware::Found(vec![peer.candidate()], None);
            // The trial is passed with a picture that is small enough.
            ladder.encode(&mode, &frame(&peers::picture(&mode))).unwrap();
            assert_eq!(ladder.name(), peer.name);
            let encoded = ladder.encode(&mode, &frame(&data)).unwrap();
            assert!(encoded.jpeg.len() <= free / 2, "{name}: {}", encoded.jpeg.len());
            assert_eq!(ladder.name(), name);
            // Simple again: the hardware is back, and by and by so is its quality.
            for _ in 0..9 {
                ladder.encode(&mode, &frame(&peers::picture(&mode))).unwrap();
            }
            assert_eq!((ladder.name(), peer.quality()), (peer.name, 90));
        }
    }

    #[test]
    fn a_short_frame_is_the_cameras_fault_and_not_the_hardwares() {
        let (peer, mode) = (peers::bcm2835(), mode(PixelFormat::Nv12, 320, 240, 320));
        let mut ladder = ladder(&[&peer]);
        assert!(ladder.encode(&mode, &frame(&[0; 99])).is_err());
        assert_eq!(one(&mut ladder, &mode).0, peer.name);
        assert!(ladder.encode(&mode, &frame(&[0; 99])).is_err());
        assert_eq!(one(&mut ladder, &mode).0, peer.name);
    }

    #[test]
    fn the_hardware_is_free_while_nobody_watches() {
        let (peer, mode) = (peers::hantro(), mode(PixelFormat::Nv12, 320, 240, 320));
        let mut ladder = ladder(&[&peer]);
        one(&mut ladder, &mode);
        assert_eq!(peer.open(), 1);
        ladder.rest();
        assert_eq!(peer.open(), 0);
        assert_eq!(one(&mut ladder, &mode).0, peer.name);
        let off = &mut Ladder::new(90, 1 << 20, false).unwrap();
        assert_eq!(one(off, &mode).0, "turbojpeg");
    }
}
