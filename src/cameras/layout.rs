//! Raw frames as the planes that a JPEG encoder takes, never through RGB.
//!
//! Planar formats are taken in place, packed ones are pulled apart. JPEG means full range (JFIF 1.02), cameras mostly give
//! limited range, so that is stretched on the way; else black would be dark grey.
//!
//! The loops over samples are written so that the compiler makes vector code of them, which `scripts/bench encode` shows.

use super::device::{Mode, PixelFormat};
use super::encode::EncodeError;
use turbojpeg::{Subsamp, YuvPlanesImage};

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

/// The buffers of what must be laid out anew.
#[derive(Default)]
pub(super) struct Planes {
    pub(super) y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
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

    pub(super) fn planes<'a>(&self, mode: &Mode, data: &'a [u8], buffers: &'a mut Planes) -> YuvPlanesImage<&'a [u8]> {
        let Planes { y, u, v } = buffers;
        let &Self { width, height, rows, stride, chroma_width, chroma_height } = self;
        let limited = mode.limited_range;
        let (subsamp, y_stride, uv_stride);
        let (y, u, v): (&[u8], &[u8], &[u8]) = match mode.format {
            PixelFormat::Yuyv | PixelFormat::Uyvy => {
                (subsamp, y_stride, uv_stride) = (Subsamp::Sub2x1, chroma_width * 2, chroma_width);
                resize(y, y_stride * height);
                resize(u, uv_stride * height);
                resize(v, uv_stride * height);
                let unpack = match (mode.format, limited) {
                    (PixelFormat::Yuyv, true) => unpack::<0, true>,
                    (PixelFormat::Yuyv, false) => unpack::<0, false>,
                    (_, true) => unpack::<1, true>,
                    (_, false) => unpack::<1, false>,
                };
                let lines = data.chunks(stride).zip(y.chunks_mut(y_stride));
                for ((line, y), (u, v)) in lines.zip(u.chunks_mut(uv_stride).zip(v.chunks_mut(uv_stride))) {
                    unpack(line, y, u, v);
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
                        let pair = [pair[0], pair[1]];
                        [*u, *v] = if limited { pair.map(full_chroma) } else { pair };
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

/// One line of packed 4:2:2, luma in the even bytes (`LUMA` is 0) or in the odd ones. One loop with steps of a whole group:
/// on AArch64 the compiler makes `ld4` and `st2` of it; two loops, or arrays, took longer there and on x86-64.
fn unpack<const LUMA: usize, const LIMITED: bool>(line: &[u8], y: &mut [u8], u: &mut [u8], v: &mut [u8]) {
    let out = y.chunks_exact_mut(2).zip(u).zip(v);
    for (four, ((y, u), v)) in line.chunks_exact(4).zip(out) {
        let (luma, chroma) = ([four[LUMA], four[2 + LUMA]], [four[1 - LUMA], four[3 - LUMA]]);
        [y[0], y[1]] = if LIMITED { luma.map(full_luma) } else { luma };
        [*u, *v] = if LIMITED { chroma.map(full_chroma) } else { chroma };
    }
}

/// The plane itself, or its copy stretched to full range.
pub(super) fn stretched<'a>(
    plane: &'a [u8],
    buffer: &'a mut Vec<u8>,
    limited: bool,
    stretch: impl Fn(u8) -> u8,
) -> &'a [u8] {
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

    #[test]
    fn ranges_meet_at_both_ends() {
        assert_eq!([0, 16, 235, 255].map(full_luma), [0, 0, 255, 255]);
        assert_eq!([0, 16, 128, 240, 255].map(full_chroma), [1, 1, 128, 255, 255]);
        assert!((16..235).all(|y| full_luma(y) <= full_luma(y + 1)));
    }
}
