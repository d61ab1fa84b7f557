//! A frame's luma grid, from which the difference to other frames is told (model/luma.rs), before any encoding.
//!
//! - Raw formats: from the luma where it lies. Of each cell eight to fifteen lines are read, evenly spaced (1080p: every
//!   third), all their pixels: a driver's buffer may be uncached memory, where each byte read costs, and what is thinner than
//!   the gap is far below a percent of the picture. A fixed pattern that aliases with the lines does so in both pictures.
//! - Motion JPEG: from the DC coefficients, which are the means of the blocks of 8 x 8. libjpeg makes a pixel of each when
//!   it scales to 1/8, and passes over all others without an inverse transform (jidctred.c, jpeg_idct_1x1); for grey
//!   it passes over chroma as well. What remains is to read the Huffman codes. libjpeg-turbo fills up what a damaged scan
//!   lacks and only warns; here a warning is an error, so that the frame is dropped.
//!
//! One meter per stream: its buffers are kept.

use super::device::{Mode, PixelFormat};
use super::encode::EncodeError;
use super::jpeg;
use super::layout::Layout;
use crate::model::LumaGrid;
use turbojpeg::{Decompressor, Image, ScalingFactor};

pub struct Meter {
    decompressor: Decompressor,
    /// An MJPG frame at 1/8.
    small: Vec<u8>,
    /// The sum of some lines.
    sums: Vec<u16>,
    /// Of a JPEG that had to be mended.
    mended: Vec<u8>,
}

/// Lines that are read of a cell at least, if it has them. 257 would still fit the sums.
const LINES: usize = 8;

impl Meter {
    pub fn new() -> Result<Self, EncodeError> {
        let mut decompressor = Decompressor::new()?;
        decompressor.set_scaling_factor(ScalingFactor::ONE_EIGHTH)?;
        Ok(Self { decompressor, small: Vec::new(), sums: Vec::new(), mended: Vec::new() })
    }

    /// An error means that the frame is damaged.
    pub fn grid(&mut self, mode: &Mode, data: &[u8]) -> Result<LumaGrid, EncodeError> {
        let Self { sums, .. } = self;
        if mode.format == PixelFormat::Mjpg {
            return self.grid_of_jpeg(data);
        }
        let Layout { width, height, stride, .. } = Layout::of(mode, data.len())?;
        let mut cells = match mode.format {
            PixelFormat::Yuyv => means::<2, 0>(data, width, height, stride, sums),
            PixelFormat::Uyvy => means::<2, 1>(data, width, height, stride, sums),
            _ => means::<1, 0>(data, width, height, stride, sums),
        };
        if mode.limited_range {
            cells.iter_mut().for_each(|cell| *cell = full_range(*cell));
        }
        Ok(LumaGrid::new(width as u32, height as u32, cells))
    }

    fn grid_of_jpeg(&mut self, data: &[u8]) -> Result<LumaGrid, EncodeError> {
        let (header, jpeg) = jpeg::repair(data, &mut self.mended)?;
        let [width, height] = [header.width, header.height].map(|side| side.div_ceil(8) as usize);
        self.small.resize(width * height, 0);
        let format = turbojpeg::PixelFormat::GRAY;
        let image = Image { pixels: &mut self.small[..], width, pitch: width, height, format };
        jpeg::unless_harmless(self.decompressor.decompress(jpeg, image))?;
        let cells = means::<1, 0>(&self.small, width, height, width, &mut self.sums);
        Ok(LumaGrid::new(header.width, header.height, cells))
    }
}

/// The cells' means in 1/256; pixels are `STEP` bytes apart and their luma is the byte `AT`. Pictures that have fewer pixels
/// than the grid has cells give a pixel to several.
///
/// Lines are summed first and cut into cells then: so the inner loop is one addition a pixel, without an end in sight every
/// thirty pixels, which the compiler makes vector code of.
fn means<const STEP: usize, const AT: usize>(
    data: &[u8],
    width: usize,
    height: usize,
    stride: usize,
    sums: &mut Vec<u16>,
) -> [u16; LumaGrid::CELLS] {
    let mut cells = [0; LumaGrid::CELLS];
    if width == 0 || height == 0 {
        return cells;
    }
    for (row, cells) in cells.chunks_exact_mut(LumaGrid::COLUMNS).enumerate() {
        let (first, last) = span(row, LumaGrid::ROWS, height);
        let step = ((last - first) / LINES).max(1);
        sums.clear();
        sums.resize(width, 0);
        let lines = (first..last).step_by(step);
        let count = lines.len() as u32;
        for line in lines {
            let pixels = data[line * stride..][..width * STEP].chunks_exact(STEP);
            for (sum, pixel) in sums.iter_mut().zip(pixels) {
                *sum += u16::from(pixel[AT]);
            }
        }
        for (column, cell) in cells.iter_mut().enumerate() {
            let (first, last) = span(column, LumaGrid::COLUMNS, width);
            let sum: u32 = sums[first..last].iter().copied().map(u32::from).sum();
            *cell = ((sum << 8) / (count * (last - first) as u32)) as u16;
        }
    }
    cells
}

/// The pixels of one cell among `cells` along a side.
fn span(cell: usize, cells: usize, pixels: usize) -> (usize, usize) {
    let first = cell * pixels / cells;
    (first, ((cell + 1) * pixels / cells).max(first + 1))
}

/// 16..=235 to 0..=255, in 1/256.
fn full_range(cell: u16) -> u16 {
    let above = u32::from(cell.saturating_sub(16 << 8).min(219 << 8));
    (above * 255 / 219) as u16
}

#[cfg(test)]
mod tests {
    use super::super::encode::Encoder;
    use super::*;
    use std::time::Duration;

    const RAW: &[PixelFormat] = PixelFormat::LADDER.split_at(1).1;

    fn mode(format: PixelFormat, width: u32, height: u32) -> Mode {
        let stride =
            if matches!(format, PixelFormat::Yuyv | PixelFormat::Uyvy) { width.div_ceil(2) * 4 } else { width };
        // Some padding, so that a wrong stride shows.
        Mode { format, width, height, stride: stride + 8, limited_range: false, frame_interval: Duration::ZERO }
    }

    fn frame(mode: &Mode, luma: impl Fn(u32, u32) -> u8) -> Vec<u8> {
        // Chroma and padding are of a luma of their own, so that reading them shows.
        let mut data = vec![77; (mode.stride * mode.height * 2) as usize];
        let (step, at) = match mode.format {
            PixelFormat::Yuyv => (2, 0),
            PixelFormat::Uyvy => (2, 1),
            _ => (1, 0),
        };
        for y in 0..mode.height {
            for x in 0..mode.width {
                data[(y * mode.stride + x * step + at) as usize] = luma(x, y);
            }
        }
        data
    }

    fn grid(mode: &Mode, luma: impl Fn(u32, u32) -> u8) -> LumaGrid {
        Meter::new().unwrap().grid(mode, &frame(mode, luma)).unwrap()
    }

    /// The same picture as the camera's own JPEG.
    fn grid_of_jpeg(width: u32, height: u32, luma: impl Fn(u32, u32) -> u8) -> LumaGrid {
        let raw = mode(PixelFormat::Grey, width, height);
        let jpeg = Encoder::new(90, usize::MAX).unwrap().encode(&raw, &frame(&raw, luma)).unwrap().jpeg;
        Meter::new().unwrap().grid(&mode(PixelFormat::Mjpg, width, height), &jpeg).unwrap()
    }

    fn gradient(x: u32, y: u32) -> u8 {
        ((x * 3 + y * 5) / 16 % 256) as u8
    }

    #[test]
    fn every_format_gives_the_same_grid() {
        // Of 4:2:0 an odd last line goes.
        for (width, height) in [(640, 480), (98, 34), (1282, 722)] {
            let expected = grid(&mode(PixelFormat::Grey, width, height), gradient);
            for &format in RAW {
                let mode = mode(format, width, height);
                assert_eq!(grid(&mode, gradient), expected, "{mode}");
            }
            // The means of the cells are not those of the blocks of 8 x 8, so there is a little difference.
            let found = grid_of_jpeg(width, height, gradient).difference(&expected, 0.0, false);
            assert!(found < 2.0, "{width}x{height}: {found}");
        }
    }

    #[test]
    fn black_is_black_and_white_is_white_in_both_ranges() {
        for (limited_range, black, white) in [(false, 0, 255), (true, 16, 235), (true, 0, 255)] {
            for &format in RAW {
                let mode = Mode { limited_range, ..mode(format, 640, 480) };
                let difference = grid(&mode, |_, _| black).difference(&grid(&mode, |_, _| white), 0.0, false);
                assert_eq!(difference, 100.0, "{mode}");
            }
        }
        let difference = grid_of_jpeg(640, 480, |_, _| 0).difference(&grid_of_jpeg(640, 480, |_, _| 255), 0.0, false);
        assert_eq!(difference, 100.0);
    }

    #[test]
    fn a_small_object_in_a_large_picture_is_seen() {
        let object = |x, y| if (900..960).contains(&x) && (500..560).contains(&y) { 255 } else { 0 };
        let share = 100.0 * 60.0 * 60.0 / (1920.0 * 1080.0);
        for &format in RAW {
            let mode = mode(format, 1920, 1080);
            let found = grid(&mode, object).difference(&grid(&mode, |_, _| 0), 1.0, false);
            assert!((found / share - 1.0).abs() < 0.1, "{mode}: {found} of {share}");
        }
        let found = grid_of_jpeg(1920, 1080, object).difference(&grid_of_jpeg(1920, 1080, |_, _| 0), 1.0, false);
        // Some cells have 3 x 3 blocks and some 4 x 4, but each counts the same.
        assert!((found / share - 1.0).abs() < 0.3, "{found} of {share}");
    }

    #[test]
    fn tiny_pictures_have_a_grid_too() {
        for &format in RAW {
            for (width, height) in [(1, 1), (2, 2), (16, 16), (70, 3)] {
                let mode = mode(format, width, height);
                let (black, white) = (grid(&mode, |_, _| 0), grid(&mode, |_, _| 255));
                // Without whole blocks of 2 x 2 there is nothing left of 4:2:0.
                let is_empty = width == 1 && matches!(format, PixelFormat::Nv12 | PixelFormat::Yu12);
                assert_eq!(black.difference(&white, 0.0, false), if is_empty { 0.0 } else { 100.0 }, "{mode}");
            }
        }
        assert_eq!(grid_of_jpeg(3, 3, |_, _| 0).difference(&grid_of_jpeg(3, 3, |_, _| 255), 0.0, false), 100.0);
    }

    #[test]
    fn damaged_frames_are_errors() {
        let mut meter = Meter::new().unwrap();
        for &format in RAW {
            let error = meter.grid(&mode(format, 64, 48), &[0; 100]).unwrap_err();
            assert!(matches!(error, EncodeError::Short { .. }), "{error}");
        }
        let raw = mode(PixelFormat::Grey, 640, 480);
        let jpeg = Encoder::new(90, usize::MAX).unwrap().encode(&raw, &frame(&raw, gradient)).unwrap().jpeg;
        let mjpg = mode(PixelFormat::Mjpg, 640, 480);
        assert!(matches!(meter.grid(&mjpg, &jpeg[..jpeg.len() / 2]), Err(EncodeError::Jpeg(_))));
        // A driver that puts an end where the data ended.
        let cut = [&jpeg[..jpeg.len() / 2], &[0xFF, 0xD9]].concat();
        assert!(matches!(meter.grid(&mjpg, &cut), Err(EncodeError::Turbo(_))));
        // And the next whole one is fine, also if zeros pad it (Logitech).
        let padded = [&jpeg[..jpeg.len() - 2], &[0, 0, 0, 0xFF, 0xD9]].concat();
        assert_eq!(meter.grid(&mjpg, &padded).unwrap(), meter.grid(&mjpg, &jpeg).unwrap());
    }
}
