//! From a camera's frame to a JPEG, never through RGB.
//!
//! Motion JPEG passes as it is (jpeg/ mends it). Raw formats become the planes that libjpeg-turbo's encoder takes
//! (layout.rs).
//!
//! All buffers are kept from frame to frame; a frame costs one allocation, of the JPEG that is handed out.

use super::device::{Mode, PixelFormat};
use super::jpeg;
use super::layout::{Layout, Planes, full_luma, stretched};
use bytes::Bytes;
use turbojpeg::{Colorspace, Compressor, Decompressor, OutputBuf, Subsamp, YuvImage};

pub struct Encoder {
    writer: Writer,
    planes: Planes,
    reader: Decompressor,
    /// Of a JPEG that had to be mended.
    mended: Vec<u8>,
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
    #[error("the camera's JPEG cannot be encoded anew: its {0}")]
    Unusual(&'static str),
    #[error("libjpeg-turbo: {0}")]
    Turbo(#[from] turbojpeg::Error),
    #[error("the picture has {bytes} bytes even at quality {LOWEST}; the limit is {limit}")]
    Limit { bytes: usize, limit: usize },
}

impl Encoder {
    /// `limit` bounds the size of a picture in bytes; it is met by lowering the quality.
    pub fn new(quality: u8, limit: usize) -> Result<Self, EncodeError> {
        Ok(Self {
            writer: Writer::new(quality, limit)?,
            planes: Planes::default(),
            reader: Decompressor::new()?,
            mended: Vec::new(),
        })
    }

    /// The quality in force, if it had to be lowered to meet the limit.
    pub fn lowered_quality(&self) -> Option<u8> {
        (self.writer.lowered < self.writer.quality).then_some(self.writer.lowered)
    }

    pub fn encode(&mut self, mode: &Mode, data: &[u8]) -> Result<Encoded, EncodeError> {
        if mode.format == PixelFormat::Mjpg {
            return self.pass(data);
        }
        let layout = Layout::of(mode, data.len())?;
        let &Layout { width, height, stride, .. } = &layout;
        let jpeg = if mode.format == PixelFormat::Grey {
            // V4L2 defines GREY as luma alone; its range follows the quantization as for the others.
            let pixels = stretched(data, &mut self.planes.y, mode.limited_range, full_luma);
            let image = turbojpeg::Image { pixels, width, pitch: stride, height, format: turbojpeg::PixelFormat::GRAY };
            self.writer.write(width, height, Subsamp::Gray, |compressor, output| {
                compressor.set_subsamp(Subsamp::Gray)?;
                compressor.compress(image, output)
            })?
        } else {
            let image = layout.planes(mode, data, &mut self.planes);
            let write = |compressor: &mut Compressor, output: &mut OutputBuf<'_>| {
                compressor.compress_yuv_planes(&image, output)
            };
            self.writer.write(width, height, image.subsamp, write)?
        };
        Ok(Encoded { jpeg, width: width as u32, height: height as u32 })
    }

    fn pass(&mut self, data: &[u8]) -> Result<Encoded, EncodeError> {
        let (header, jpeg) = jpeg::repair(data, &mut self.mended)?;
        let (width, height) = (header.width, header.height);
        if jpeg.len() <= self.writer.limit {
            return Ok(Encoded { jpeg: Bytes::copy_from_slice(jpeg), width, height });
        }
        // Too large as the camera made it: the one case in which a camera's JPEG is decoded and encoded again.
        let image = decode(&mut self.reader, jpeg, &mut self.planes.y)?;
        let write =
            |compressor: &mut Compressor, output: &mut OutputBuf<'_>| compressor.compress_yuv(image.as_deref(), output);
        let jpeg = self.writer.write(image.width, image.height, image.subsamp, write)?;
        Ok(Encoded { jpeg, width, height })
    }
}

/// Decodes to planes, at the reader's scale, and into a buffer that is kept.
pub(super) fn decode<'a>(
    reader: &mut Decompressor,
    jpeg: &[u8],
    buffer: &'a mut Vec<u8>,
) -> Result<YuvImage<&'a [u8]>, EncodeError> {
    let header = reader.read_header(jpeg)?;
    if header.subsamp == Subsamp::Unknown {
        return Err(EncodeError::Unusual("chroma is sampled in no usual way"));
    }
    if !matches!(header.colorspace, Colorspace::YCbCr | Colorspace::Gray) {
        return Err(EncodeError::Unusual("colours are not YCbCr"));
    }
    let header = header.scaled(reader.scaling_factor());
    let (width, height, subsamp) = (header.width, header.height, header.subsamp);
    buffer.resize(turbojpeg::yuv_pixels_len(width, 1, height, subsamp)?, 0);
    let image = YuvImage { pixels: &mut buffer[..], width, align: 1, height, subsamp };
    jpeg::unless_harmless(reader.decompress_to_yuv(jpeg, image))?;
    Ok(YuvImage { pixels: buffer, width, align: 1, height, subsamp })
}

/// Encodes within a limit.
pub(super) struct Writer {
    compressor: Compressor,
    /// As long as a JPEG can get.
    output: Vec<u8>,
    /// What the configuration asks for, 1..=100.
    quality: u8,
    /// What the last frames needed to stay below the limit.
    lowered: u8,
    /// Bytes.
    limit: usize,
}

/// Below this a picture is no longer one.
pub(super) const LOWEST: u8 = 10;
pub(super) const STEP: u8 = 10;

impl Writer {
    pub(super) fn new(quality: u8, limit: usize) -> Result<Self, EncodeError> {
        Ok(Self { compressor: Compressor::new()?, output: Vec::new(), quality, lowered: quality, limit })
    }

    /// Encodes at the quality that sufficed last time, and lower until the limit is met.
    pub(super) fn write(
        &mut self,
        width: usize,
        height: usize,
        subsamp: Subsamp,
        encode: impl Fn(&mut Compressor, &mut OutputBuf<'_>) -> turbojpeg::Result<()>,
    ) -> Result<Bytes, EncodeError> {
        let Self { compressor, output, quality, lowered, limit } = self;
        let most = turbojpeg::compressed_buf_len(width, height, subsamp)?;
        if output.len() < most {
            // Not resize(): zeroed pages from the kernel stay untouched until they are written, and most never are.
            *output = vec![0; most];
        }
        loop {
            compressor.set_quality((*lowered).into())?;
            let mut output = OutputBuf::borrowed(output);
            encode(compressor, &mut output)?;
            if output.len() <= *limit {
                // A scene that got simple again may have its quality back, step by step.
                if *lowered < *quality && output.len() < *limit / 2 {
                    *lowered = (*lowered + STEP).min(*quality);
                }
                return Ok(Bytes::copy_from_slice(&output));
            }
            if *lowered <= LOWEST {
                return Err(EncodeError::Limit { bytes: output.len(), limit: *limit });
            }
            *lowered = lowered.saturating_sub(STEP).max(LOWEST);
        }
    }
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
