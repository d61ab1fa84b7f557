//! From a camera's frame to a JPEG, never through RGB.
//!
//! Motion JPEG passes as it is (jpeg.rs mends it). Raw formats are laid out as the planes that libjpeg-turbo's
//! encoder takes: planar ones in place, packed ones by a deinterleave. JPEG means full range (JFIF 1.02), cameras mostly
//! give limited range, so that is stretched on the way; else black would be dark grey.
//!
//! The buffers of the planes are kept from frame to frame.

use super::device::{Mode, PixelFormat};
use super::jpeg;
use bytes::Bytes;
use turbojpeg::{Compressor, OutputBuf, Subsamp, YuvPlanesImage};

pub struct Encoder {
    compressor: Compressor,
    /// What the configuration asks for, 1..=100.
    quality: u8,
    /// What the last frames needed to stay below the limit.
    lowered: u8,
    /// Bytes.
    limit: usize,
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

/// An encoded frame and its size in pixels.
#[derive(Debug)]
pub struct Encoded {
    pub jpeg: Bytes,
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("the camera's JPEG is unusable: {0}")]
    Jpeg(#[from] jpeg::Fault),
    #[error("the frame has {found} bytes; {mode} needs {needed}")]
    Short { found: usize, needed: usize, mode: String },
    #[error("the camera's JPEG says that it is {width}x{height}; {mode} was agreed")]
    Size { width: u32, height: u32, mode: String },
    #[error("libjpeg-turbo: {0}")]
    Turbo(#[from] turbojpeg::Error),
    #[error("the picture has {bytes} bytes even at quality {LOWEST}; the limit is {limit}")]
    Limit { bytes: usize, limit: usize },
}

/// Below this a picture is no longer one.
pub(super) const LOWEST: u8 = 10;
pub(super) const STEP: u8 = 10;

impl Encoder {
    /// `limit` bounds the size of a picture in bytes; it is met by lowering the quality.
    pub fn new(quality: u8, limit: usize) -> Result<Self, EncodeError> {
        let compressor = Compressor::new()?;
        Ok(Self { compressor, quality, lowered: quality, limit, y: Vec::new(), u: Vec::new(), v: Vec::new() })
    }

    /// The quality in force, if it had to be lowered to meet the limit.
    pub fn lowered_quality(&self) -> Option<u8> {
        (self.lowered < self.quality).then_some(self.lowered)
    }

    pub fn encode(&mut self, mode: &Mode, data: &[u8]) -> Result<Encoded, EncodeError> {
        if mode.format == PixelFormat::Mjpg {
            return self.pass(mode, data);
        }
        let Self { compressor, y, u, v, .. } = self;
        let layout = Layout::of(mode, data.len())?;
        let &Layout { width, height, stride, .. } = &layout;
        let jpeg = if mode.format == PixelFormat::Grey {
            // V4L2 defines GREY as luma alone; its range follows the quantization as for the others.
            let pixels = stretched(data, y, mode.limited_range, full_luma);
            let image = turbojpeg::Image { pixels, width, pitch: stride, height, format: turbojpeg::PixelFormat::GRAY };
            compressor.set_subsamp(Subsamp::Gray)?;
            bounded(compressor, self.quality, &mut self.lowered, self.limit, |compressor, output| {
                compressor.compress(image, output)
            })?
        } else {
            let planes = layout.planes(mode, data, y, u, v);
            bounded(compressor, self.quality, &mut self.lowered, self.limit, |compressor, output| {
                compressor.compress_yuv_planes(&planes, output)
            })?
        };
        Ok(Encoded { jpeg, width: width as u32, height: height as u32 })
    }

    fn pass(&mut self, mode: &Mode, data: &[u8]) -> Result<Encoded, EncodeError> {
        let (header, jpeg) = jpeg::repair(data)?;
        let (width, height) = (header.width, header.height);
        if jpeg.len() <= self.limit {
            return Ok(Encoded { jpeg: Bytes::copy_from_slice(&jpeg), width, height });
        }
        credible(mode, width, height)?;
        // Too large as the camera made it: the one case in which a camera's JPEG is decoded and encoded again.
        let image = turbojpeg::decompress_to_yuv(&jpeg)?;
        let quality = self.quality;
        let jpeg = bounded(&mut self.compressor, quality, &mut self.lowered, self.limit, |compressor, output| {
            compressor.compress_yuv(image.as_deref(), output)
        })?;
        Ok(Encoded { jpeg, width, height })
    }
}

/// A damaged header may claim any size, and decoding would believe it.
pub(super) fn credible(mode: &Mode, width: u32, height: u32) -> Result<(), EncodeError> {
    if u64::from(width) * u64::from(height) > 4 * u64::from(mode.width) * u64::from(mode.height) {
        return Err(EncodeError::Size { width, height, mode: mode.to_string() });
    }
    Ok(())
}

/// Encodes at the quality that sufficed last time, and lower until the limit is met.
fn bounded(
    compressor: &mut Compressor,
    quality: u8,
    lowered: &mut u8,
    limit: usize,
    mut encode: impl FnMut(&mut Compressor, &mut OutputBuf<'_>) -> turbojpeg::Result<()>,
) -> Result<Bytes, EncodeError> {
    loop {
        compressor.set_quality((*lowered).into())?;
        let mut output = OutputBuf::new_owned();
        encode(compressor, &mut output)?;
        if output.len() <= limit {
            // A scene that got simple again may have its quality back, step by step.
            if *lowered < quality && output.len() < limit / 2 {
                *lowered = (*lowered + STEP).min(quality);
            }
            return Ok(Bytes::copy_from_slice(&output));
        }
        if *lowered <= LOWEST {
            return Err(EncodeError::Limit { bytes: output.len(), limit });
        }
        *lowered = lowered.saturating_sub(STEP).max(LOWEST);
    }
}

/// Where the samples of a raw frame lie (Documentation/userspace-api/media/v4l/pixfmt-*.rst).
pub(super) struct Layout {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Lines of luma in the frame, of which `height` are used.
    rows: usize,
    pub(super) stride: usize,
    chroma_width: usize,
    chroma_height: usize,
}

impl Layout {
    pub(super) fn of(mode: &Mode, found: usize) -> Result<Self, EncodeError> {
        let (mut width, mut height) = (mode.width as usize, mode.height as usize);
        let rows = height;
        let chroma_width = width.div_ceil(2);
        let (line, chroma_height) = match mode.format {
            PixelFormat::Yuyv | PixelFormat::Uyvy => (chroma_width * 4, height),
            PixelFormat::Nv12 | PixelFormat::Yu12 => {
                // Drivers round 4:2:0 to even sizes. Should one not: the encoder wants whole 2x2 blocks, so an odd
                // last line or column goes.
                (width, height) = (width & !1, height & !1);
                (mode.width as usize, height / 2)
            }
            PixelFormat::Grey | PixelFormat::Mjpg => (width, 0),
        };
        // Drivers that do not pad may leave the stride at zero.
        let stride = (mode.stride as usize).max(line);
        let layout = Self { width, height, rows, stride, chroma_width, chroma_height };
        let needed = match mode.format {
            PixelFormat::Nv12 => stride * rows + stride * (chroma_height.saturating_sub(1)) + chroma_width * 2,
            PixelFormat::Yu12 => {
                layout.v_offset() + layout.chroma_stride() * chroma_height.saturating_sub(1) + chroma_width
            }
            _ => stride * height.saturating_sub(1) + line,
        };
        if found < needed {
            return Err(EncodeError::Short { found, needed, mode: mode.to_string() });
        }
        Ok(layout)
    }

    /// Of YU12: half of the luma's, padding included.
    fn chroma_stride(&self) -> usize {
        self.stride.div_ceil(2)
    }

    fn v_offset(&self) -> usize {
        self.stride * self.rows + self.chroma_stride() * self.rows.div_ceil(2)
    }

    fn planes<'a>(
        &self,
        mode: &Mode,
        data: &'a [u8],
        y: &'a mut Vec<u8>,
        u: &'a mut Vec<u8>,
        v: &'a mut Vec<u8>,
    ) -> YuvPlanesImage<&'a [u8]> {
        let &Self { width, height, rows, stride, chroma_width, chroma_height } = self;
        let limited = mode.limited_range;
        let (subsamp, y_stride, uv_stride);
        let (y, u, v): (&[u8], &[u8], &[u8]) = match mode.format {
            PixelFormat::Yuyv | PixelFormat::Uyvy => {
                (subsamp, y_stride, uv_stride) = (Subsamp::Sub2x1, chroma_width * 2, chroma_width);
                resize(y, y_stride * height);
                resize(u, uv_stride * height);
                resize(v, uv_stride * height);
                let order = if mode.format == PixelFormat::Yuyv { [0, 1, 2, 3] } else { [1, 0, 3, 2] };
                let lines = data.chunks(stride).zip(y.chunks_mut(y_stride));
                for ((line, y), (u, v)) in lines.zip(u.chunks_mut(uv_stride).zip(v.chunks_mut(uv_stride))) {
                    match (order, limited) {
                        ([0, ..], true) => unpack::<0, 1, 2, 3, true>(line, y, u, v),
                        ([0, ..], false) => unpack::<0, 1, 2, 3, false>(line, y, u, v),
                        (_, true) => unpack::<1, 0, 3, 2, true>(line, y, u, v),
                        (_, false) => unpack::<1, 0, 3, 2, false>(line, y, u, v),
                    }
                }
                (y, u, v)
            }
            PixelFormat::Nv12 => {
                (subsamp, uv_stride) = (Subsamp::Sub2x2, chroma_width);
                let (luma, chroma) = data.split_at(stride * rows);
                resize(u, uv_stride * chroma_height);
                resize(v, uv_stride * chroma_height);
                for (line, (u, v)) in chroma.chunks(stride).zip(u.chunks_mut(uv_stride).zip(v.chunks_mut(uv_stride))) {
                    for (pair, (u, v)) in line.chunks_exact(2).zip(u.iter_mut().zip(v)) {
                        (*u, *v) =
                            if limited { (full_chroma(pair[0]), full_chroma(pair[1])) } else { (pair[0], pair[1]) };
                    }
                }
                y_stride = stride;
                (stretched(luma, y, limited, full_luma), u, v)
            }
            PixelFormat::Yu12 => {
                (subsamp, y_stride, uv_stride) = (Subsamp::Sub2x2, stride, self.chroma_stride());
                let (luma, chroma) = data.split_at(stride * rows);
                let (first, second) = chroma.split_at(uv_stride * rows.div_ceil(2));
                let y = stretched(luma, y, limited, full_luma);
                (y, stretched(first, u, limited, full_chroma), stretched(second, v, limited, full_chroma))
            }
            PixelFormat::Grey | PixelFormat::Mjpg => unreachable!("encode() takes another way for these"),
        };
        YuvPlanesImage {
            y_plane: y,
            u_plane: u,
            v_plane: v,
            width,
            height,
            y_stride,
            u_stride: uv_stride,
            v_stride: uv_stride,
            subsamp,
        }
    }
}

fn resize(buffer: &mut Vec<u8>, length: usize) {
    buffer.resize(length, 0);
}

/// One line of packed 4:2:2; the constants say where in four bytes Y0, U, Y1 and V are. Written so that the compiler
/// makes vector code of it.
fn unpack<const Y0: usize, const U: usize, const Y1: usize, const V: usize, const LIMITED: bool>(
    line: &[u8],
    y: &mut [u8],
    u: &mut [u8],
    v: &mut [u8],
) {
    let out = y.chunks_exact_mut(2).zip(u).zip(v);
    for (four, ((y, u), v)) in line.chunks_exact(4).zip(out) {
        if LIMITED {
            (y[0], y[1]) = (full_luma(four[Y0]), full_luma(four[Y1]));
            (*u, *v) = (full_chroma(four[U]), full_chroma(four[V]));
        } else {
            (y[0], y[1]) = (four[Y0], four[Y1]);
            (*u, *v) = (four[U], four[V]);
        }
    }
}

/// The plane itself, or its copy stretched to full range.
fn stretched<'a>(plane: &'a [u8], buffer: &'a mut Vec<u8>, limited: bool, stretch: impl Fn(u8) -> u8) -> &'a [u8] {
    if !limited {
        return plane;
    }
    resize(buffer, plane.len());
    for (to, from) in buffer.iter_mut().zip(plane) {
        *to = stretch(*from);
    }
    buffer
}

/// 16..=235 to 0..=255, in integers that fit 16 bits: 255/219 is 1 + 42/256 to the last digit that counts.
pub(super) fn full_luma(y: u8) -> u8 {
    let above = u16::from(y.saturating_sub(16).min(219));
    (above + ((above * 42 + 128) >> 8)) as u8
}

/// 16..=240 around 128 to 0..=255 around 128: 255/224 is 1 + 35/256.
pub(super) fn full_chroma(c: u8) -> u8 {
    let off = (i16::from(c) - 128).clamp(-112, 112);
    (128 + off + ((off * 35 + 128) >> 8)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn mode(format: PixelFormat, width: u32, height: u32, stride: u32, limited_range: bool) -> Mode {
        Mode { format, width, height, stride, limited_range, frame_interval: Duration::ZERO }
    }

    /// A frame of one colour, with padding of another so that a wrong stride shows.
    fn solid(mode: &Mode, [y, u, v]: [u8; 3]) -> Vec<u8> {
        let (stride, height) = (mode.stride as usize, mode.height as usize);
        let half = height.div_ceil(2);
        match mode.format {
            PixelFormat::Yuyv => [y, u, y, v].repeat(stride / 4 * height),
            PixelFormat::Uyvy => [u, y, v, y].repeat(stride / 4 * height),
            PixelFormat::Nv12 => [vec![y; stride * height], [u, v].repeat(stride / 2 * half)].concat(),
            PixelFormat::Yu12 => {
                [vec![y; stride * height], vec![u; stride / 2 * half], vec![v; stride / 2 * half]].concat()
            }
            PixelFormat::Grey => vec![y; stride * height],
            PixelFormat::Mjpg => unreachable!(),
        }
    }

    fn centre(jpeg: &[u8]) -> [u8; 3] {
        let image = turbojpeg::decompress(jpeg, turbojpeg::PixelFormat::RGB).unwrap();
        let at = image.pitch * (image.height / 2) + 3 * (image.width / 2);
        image.pixels[at..at + 3].try_into().unwrap()
    }

    fn assert_near(found: [u8; 3], wanted: [u8; 3], what: impl std::fmt::Display) {
        let near = found.iter().zip(wanted).all(|(&f, w)| f.abs_diff(w) <= 4);
        assert!(near, "{what}: {found:?}, not {wanted:?}");
    }

    #[test]
    fn every_raw_format_keeps_its_colour() {
        // Red by BT.601, in both ranges.
        for (limited, yuv) in [(false, [76, 85, 255]), (true, [81, 90, 240])] {
            for format in &PixelFormat::LADDER[1..] {
                for (width, height) in [(64, 48), (66, 50), (2, 2), (98, 35)] {
                    let stride =
                        if matches!(format, PixelFormat::Yuyv | PixelFormat::Uyvy) { width * 2 + 8 } else { width + 6 };
                    let mode = mode(*format, width, height, stride, limited);
                    let encoded = Encoder::new(95, 1 << 20).unwrap().encode(&mode, &solid(&mode, yuv)).unwrap();
                    let wanted = if *format == PixelFormat::Grey { [76; 3] } else { [254, 0, 0] };
                    assert_near(centre(&encoded.jpeg), wanted, &mode);
                }
            }
        }
    }

    #[test]
    fn ranges_meet_at_both_ends() {
        assert_eq!([0, 16, 235, 255].map(full_luma), [0, 0, 255, 255]);
        assert_eq!([0, 16, 128, 240, 255].map(full_chroma), [1, 1, 128, 255, 255]);
        assert!((16..235).all(|y| full_luma(y) <= full_luma(y + 1)));
    }

    #[test]
    fn a_short_frame_is_an_error_and_not_a_panic() {
        for format in &PixelFormat::LADDER[1..] {
            let mode = mode(*format, 64, 48, 0, true);
            let error = Encoder::new(80, 1 << 20).unwrap().encode(&mode, &[0; 100]).unwrap_err();
            assert!(error.to_string().starts_with("the frame has 100 bytes"), "{error}");
        }
    }

    fn noise(mode: &Mode) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..mode.stride * mode.height).map(|_| random.u8(..)).collect()
    }

    #[test]
    fn the_limit_is_met_by_lowering_the_quality_and_given_back_when_the_scene_is_simple() {
        let mode = mode(PixelFormat::Grey, 256, 256, 256, false);
        let noise = noise(&mode);
        let mut free = Encoder::new(90, usize::MAX).unwrap();
        let full = free.encode(&mode, &noise).unwrap().jpeg.len();
        assert_eq!(free.lowered_quality(), None);

        let mut bound = Encoder::new(90, full / 2).unwrap();
        assert!(bound.encode(&mode, &noise).unwrap().jpeg.len() <= full / 2);
        assert!(bound.lowered_quality().is_some());
        for _ in 0..9 {
            bound.encode(&mode, &solid(&mode, [128; 3])).unwrap();
        }
        assert_eq!(bound.lowered_quality(), None);

        let error = Encoder::new(90, 100).unwrap().encode(&mode, &noise).unwrap_err();
        assert!(matches!(error, EncodeError::Limit { limit: 100, .. }));
    }

    #[test]
    fn a_cameras_own_jpeg_passes_unless_it_is_too_large() {
        let raw = mode(PixelFormat::Grey, 256, 256, 256, false);
        let jpeg = Encoder::new(90, usize::MAX).unwrap().encode(&raw, &noise(&raw)).unwrap().jpeg;
        let mjpg = mode(PixelFormat::Mjpg, 256, 256, 0, false);
        let passed = Encoder::new(10, usize::MAX).unwrap().encode(&mjpg, &jpeg).unwrap();
        assert_eq!(passed.jpeg, jpeg);
        let smaller = Encoder::new(90, jpeg.len() / 2).unwrap().encode(&mjpg, &jpeg).unwrap();
        assert!(smaller.jpeg.len() <= jpeg.len() / 2);
        assert_eq!((smaller.width, smaller.height), (256, 256));
    }
}
