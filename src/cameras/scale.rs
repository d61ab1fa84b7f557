//! A picture of another size or quality, for the one client that asks for it (the method Snapshot).
//!
//! Never through RGB: libjpeg decodes to planes at the next larger eighth of the size, leaving out most of the inverse
//! transform; the planes are averaged down to the very size and encoded as they are, with the same chroma subsampling; grey
//! stays grey. Pictures are never made larger, which would cost bytes and show nothing more.
//!
//! For one call of one client, so buffers are not kept. What a header may claim is bounded by jpeg/walk.rs.

use super::encode::{EncodeError, Writer, decode};
use super::jpeg;
use crate::hub::frames::{Shape, Shot};
use crate::model::{Picture, Quality, Status};
use bytes::Bytes;
use turbojpeg::{Decompressor, ScalingFactor, Subsamp, YuvImage};

#[derive(Debug, thiserror::Error)]
enum ScaleError {
    #[error("{width}x{height} is larger than the picture; the most is {most_width}x{most_height}")]
    Larger { width: u32, height: u32, most_width: u32, most_height: u32 },
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

pub(super) fn reshape_picture(picture: &Picture, shape: Shape, limit: usize) -> Shot {
    reshape(picture, shape, limit).map_err(|error| {
        let status = match error {
            ScaleError::Larger { .. } => Status::BAD_OUT_OF_RANGE,
            ScaleError::Encode(EncodeError::Limit { .. }) => Status::BAD_RESOURCE_UNAVAILABLE,
            ScaleError::Encode(_) => Status::BAD_INTERNAL_ERROR,
        };
        Quality::new(status, error.to_string())
    })
}

fn reshape(picture: &Picture, shape: Shape, limit: usize) -> Result<Picture, ScaleError> {
    let mut mended = Vec::new();
    let (header, jpeg) = jpeg::repair(&picture.jpeg, &mut mended).map_err(EncodeError::from)?;
    let (width, height) = size(header.width, header.height, shape)?;
    if (width, height) == (header.width, header.height) && shape.quality == 0 {
        return Ok(picture.clone());
    }

    let mut reader = Decompressor::new().map_err(EncodeError::from)?;
    let is_enough = |scale: &ScalingFactor| {
        [(width, header.width), (height, header.height)]
            .iter()
            .all(|&(to, from)| scale.scale(from as usize) >= to as usize)
    };
    let scale = (1..=8).map(|eighths| ScalingFactor::new(eighths, 8)).find(is_enough).unwrap_or(ScalingFactor::ONE);
    reader.set_scaling_factor(scale).map_err(EncodeError::from)?;
    let mut decoded = Vec::new();
    let from = decode(&mut reader, jpeg, &mut decoded)?;
    let quality = if shape.quality == 0 { header.quality() } else { shape.quality };
    let jpeg = if (from.width, from.height) == (width as usize, height as usize) {
        encode(from, quality, limit)
    } else {
        let to = averaged(&from, width as usize, height as usize).map_err(EncodeError::from)?;
        encode(to.as_deref(), quality, limit)
    };
    Ok(Picture { jpeg: jpeg?, width, height, ..picture.clone() })
}

/// The size that is asked for, of a picture that has this one.
fn size(most_width: u32, most_height: u32, shape: Shape) -> Result<(u32, u32), ScaleError> {
    // Both sides of a JPEG fit 16 bits, so nothing here overflows.
    let in_proportion = |side: u32, of: u32, to: u32| {
        ((u64::from(side) * u64::from(of) + u64::from(to) / 2) / u64::from(to)).max(1) as u32
    };
    let (width, height) = match (shape.width, shape.height) {
        (0, 0) => (most_width, most_height),
        (width, 0) => (width, in_proportion(width, most_height, most_width)),
        (0, height) => (in_proportion(height, most_width, most_height), height),
        both => both,
    };
    if width > most_width || height > most_height {
        return Err(ScaleError::Larger { width, height, most_width, most_height });
    }
    Ok((width, height))
}

/// As encode.rs: at that quality, and lower if the limit asks for it.
fn encode(image: YuvImage<&[u8]>, quality: u8, limit: usize) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new(quality, limit)?;
    writer.write(image.width, image.height, image.subsamp, |compressor, output| {
        compressor.compress_yuv(image.as_deref(), output)
    })
}

/// The planes at that size, which is not larger.
fn averaged(from: &YuvImage<&[u8]>, width: usize, height: usize) -> turbojpeg::Result<YuvImage<Vec<u8>>> {
    let subsamp = from.subsamp;
    let length = turbojpeg::yuv_pixels_len(width, 1, height, subsamp)?;
    let mut to = YuvImage { pixels: Vec::with_capacity(length), width, align: 1, height, subsamp };
    let (luma, chroma) = from.pixels.split_at(from.y_width() * from.y_height());
    // Luma is padded to whole chroma samples, with what stands at the edge.
    let (stride, lines) = to.y_size();
    average(luma, from.y_width(), [from.width, from.height], &mut to.pixels, [width, height], stride);
    let last = to.pixels.len() - stride;
    (height..lines).for_each(|_| to.pixels.extend_from_within(last..last + stride));
    if subsamp != Subsamp::Gray {
        let (uv_width, uv_height) = from.uv_size();
        for plane in chroma.chunks_exact(uv_width * uv_height) {
            let to_size = to.uv_size().into();
            average(plane, uv_width, [uv_width, uv_height], &mut to.pixels, to_size, to_size[0]);
        }
    }
    Ok(to)
}

/// Appends to `to` what a plane of `from_size` looks like at `to_size`: each sample is the mean of the area that it covers,
/// parts of samples included; lines are filled up to `to_stride` with their last sample.
///
/// A line of `n` samples becomes one of `m`: with a length of `n * m`, samples are `m` long before and `n` long after, so
/// that all weights are whole.
fn average(
    from: &[u8],
    stride: usize,
    [n, lines]: [usize; 2],
    to: &mut Vec<u8>,
    [m, to_lines]: [usize; 2],
    to_stride: usize,
) {
    let area = (n * lines) as u64;
    let mut sums = vec![0u32; n];
    for y in 0..to_lines {
        sums.fill(0);
        for (line, weight) in overlaps(y, lines, to_lines) {
            for (sum, sample) in sums.iter_mut().zip(&from[line * stride..]) {
                *sum += weight as u32 * u32::from(*sample);
            }
        }
        for x in 0..m {
            let sum: u64 = overlaps(x, n, m).map(|(at, weight)| weight as u64 * u64::from(sums[at])).sum();
            to.push(((sum + area / 2) / area) as u8);
        }
        let last = to[to.len() - 1];
        (m..to_stride).for_each(|_| to.push(last));
    }
}

/// Which of `n` samples lie under sample `at` of `m`, and by how much of `m`.
fn overlaps(at: usize, n: usize, m: usize) -> impl Iterator<Item = (usize, usize)> {
    let (first, last) = (at * n, (at + 1) * n);
    (first / m..last.div_ceil(m)).map(move |sample| (sample, last.min((sample + 1) * m) - first.max(sample * m)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use turbojpeg::PixelFormat;

    const LIMIT: usize = 1 << 20;

    /// Red on the left, blue on the right, above black on the left and white on the right.
    fn picture(width: u32, height: u32, subsamp: Subsamp, quality: i32) -> Picture {
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                pixels.extend(match (x < width / 2, y < height / 2) {
                    (true, true) => [255, 0, 0],
                    (false, true) => [0, 0, 255],
                    (true, false) => [0; 3],
                    (false, false) => [255; 3],
                });
            }
        }
        let (w, h) = (width as usize, height as usize);
        let image =
            turbojpeg::Image { pixels: &pixels[..], width: w, pitch: 3 * w, height: h, format: PixelFormat::RGB };
        let jpeg = Bytes::copy_from_slice(&turbojpeg::compress(image, quality, subsamp).unwrap());
        Picture { jpeg, width, height, sequence: 7, captured: Timestamp::UNIX_EPOCH }
    }

    fn shape(width: u32, height: u32, quality: u8) -> Shape {
        Shape { width, height, quality }
    }

    fn size_of(picture: &Picture) -> (u32, u32) {
        let header = turbojpeg::read_header(&picture.jpeg).unwrap();
        assert_eq!((picture.width as usize, picture.height as usize), (header.width, header.height));
        (picture.width, picture.height)
    }

    /// The colours a quarter into each quarter of the picture.
    fn corners(picture: &Picture) -> [[u8; 3]; 4] {
        let image = turbojpeg::decompress(&picture.jpeg, PixelFormat::RGB).unwrap();
        [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| {
            let at = image.pitch * (image.height * y / 4) + 3 * (image.width * x / 4);
            image.pixels[at..at + 3].try_into().unwrap()
        })
    }

    #[test]
    fn zero_leaves_as_it_is() {
        let whole = picture(320, 240, Subsamp::Sub2x2, 90);
        for shape in [shape(0, 0, 0), shape(320, 0, 0), shape(320, 240, 0)] {
            assert_eq!(reshape(&whole, shape, LIMIT).unwrap(), whole);
        }
        assert_eq!(size_of(&reshape(&whole, shape(160, 0, 0), LIMIT).unwrap()), (160, 120));
        assert_eq!(size_of(&reshape(&whole, shape(0, 80, 0), LIMIT).unwrap()), (107, 80));
        assert_eq!(size_of(&reshape(&whole, shape(1, 0, 0), LIMIT).unwrap()), (1, 1));
        assert_eq!(size_of(&reshape(&whole, shape(320, 120, 0), LIMIT).unwrap()), (320, 120));
    }

    #[test]
    fn the_quality_stays_unless_another_is_asked_for() {
        let whole = picture(320, 240, Subsamp::Sub2x1, 65);
        let quality =
            |shape| jpeg::repair(&reshape(&whole, shape, LIMIT).unwrap().jpeg, &mut Vec::new()).unwrap().0.quality();
        assert_eq!([quality(shape(100, 0, 0)), quality(shape(100, 0, 30)), quality(shape(0, 0, 95))], [65, 30, 95]);
    }

    #[test]
    fn every_size_and_subsampling_keeps_the_picture() {
        use Subsamp::*;
        for subsamp in [None, Sub2x1, Sub2x2, Sub1x2, Sub4x1, Sub1x4, Gray] {
            for (width, height) in [(320, 240), (323, 241), (64, 33)] {
                let whole = picture(width, height, subsamp, 95);
                for (w, h) in [
                    (width, height - 1),
                    (width * 7 / 8, height * 7 / 8),
                    (161, 97),
                    (width / 2, 33),
                    (40, 30),
                    (13, 7),
                ] {
                    let (w, h) = (w.min(width), h.min(height));
                    let small = reshape(&whole, shape(w, h, 95), LIMIT).unwrap();
                    assert_eq!(size_of(&small), (w, h));
                    assert_eq!(turbojpeg::read_header(&small.jpeg).unwrap().subsamp, subsamp);
                    if w > 30 {
                        for (found, wanted) in corners(&small).as_flattened().iter().zip(corners(&whole).as_flattened())
                        {
                            assert!(
                                found.abs_diff(*wanted) < 12,
                                "{subsamp:?} {width}x{height} to {w}x{h}: {found} {wanted}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn larger_is_an_error_that_says_the_most() {
        let whole = picture(320, 240, Subsamp::Sub2x2, 90);
        for shape in [shape(321, 0, 0), shape(0, 241, 0), shape(10, 241, 0), shape(65535, 65535, 1)] {
            let error = reshape_picture(&whole, shape, LIMIT).unwrap_err();
            assert_eq!(error.status, Status::BAD_OUT_OF_RANGE);
            assert!(error.to_string().contains("the most is 320x240"), "{error}");
        }
    }

    #[test]
    fn the_mean_is_of_the_area() {
        let mut to = Vec::new();
        // Three become two: each is one and a half of them.
        average(&[0, 90, 240], 3, [3, 1], &mut to, [2, 1], 3);
        assert_eq!(to, [30, 190, 190]);
        let covered =
            |n, m| (0..m).map(|at| overlaps(at, n, m).map(|(_, weight)| weight).sum::<usize>()).collect::<Vec<_>>();
        assert_eq!(covered(7, 5), [7; 5]);
    }
}
