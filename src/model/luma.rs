//! How much two pictures differ, in percent, as deadbands on images count it.
//!
//! A picture is reduced to the mean luma of the 64 x 36 cells of a grid, and grids are compared, not pictures:
//!
//!     difference = 100 % * sum(r, where r >= floor) / (cells * 255)          r = |bright - prediction(dark)|, per cell
//!
//! `dark` and `bright` are the two grids, the one with less light in all first. `floor` is the noise floor: what a cell
//! differs by less than that counts as nothing. The prediction is what the dark picture would look like in the other
//! one's light:
//!
//! - as it is, unless `ignore_brightness`;
//! - else dark + median(bright - dark), or dark * median(bright / dark), whichever leaves the smaller difference, and at
//!   most white. A black level or a brightness control adds; a lamp or an exposure multiplies.
//!
//! So 0 is equal, and 100 is black against white (0 with `ignore_brightness`, where that is a change of light). The
//! median, because an object that moves through less than half of the picture does not move it: what is left over is
//! the object, all of it. A mean would be drawn by the object, and would spread a part of it over the cells that stayed.
//!
//! The grid: at 1080p a cell has 30 x 30 pixels. Black on white, one such object counts 0.04 %; the measure is
//! proportional to area times contrast down to there, and smaller objects only thin out against the noise floor. The mean
//! of some hundred pixels takes a sensor's noise of five levels down to a third of one, so a noise floor of 1 % (2.5
//! levels) hides it. Cells keep 1/256 of a level, so rounding is no noise of its own.

/// The mean luma of a picture's cells, in 1/256 of a level, full range: 0 to [`LumaGrid::WHITE`]. 5 kB, copied in less
/// time than an allocation takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LumaGrid {
    width: u32,
    height: u32,
    cells: [u16; LumaGrid::CELLS],
}

impl LumaGrid {
    pub const COLUMNS: usize = 64;
    pub const ROWS: usize = 36;
    pub const CELLS: usize = Self::COLUMNS * Self::ROWS;
    pub const WHITE: u16 = 255 << 8;

    /// Of a picture of that size in pixels; the cells row by row, from the top left.
    pub fn new(width: u32, height: u32, cells: [u16; Self::CELLS]) -> Self {
        Self { width, height, cells }
    }

    /// In percent, by the formula above; so is the noise floor, of full scale. Pictures of two sizes differ by 100.
    pub fn difference(&self, other: &LumaGrid, noise_floor: f64, ignore_brightness: bool) -> f64 {
        if (self.width, self.height) != (other.width, other.height) {
            return 100.0;
        }
        let light = |cells: &[u16]| cells.iter().copied().map(u32::from).sum::<u32>();
        let (dark, bright) = if light(&self.cells) <= light(&other.cells) {
            (&self.cells, &other.cells)
        } else {
            (&other.cells, &self.cells)
        };
        // Saturates at both ends, and is nothing if not a number.
        let floor = (noise_floor / 100.0 * f64::from(Self::WHITE)).ceil() as u32;
        let residue = if ignore_brightness {
            let (offset, gain) = (offset(dark, bright), gain(dark, bright));
            let shifted = residue(dark, bright, floor, |cell| cell.saturating_add_signed(offset));
            shifted.min(residue(dark, bright, floor, |cell| ((u64::from(cell) * gain) >> GAIN_BITS) as u32))
        } else {
            residue(dark, bright, floor, |cell| cell)
        };
        100.0 * f64::from(residue) / (Self::CELLS as f64 * f64::from(Self::WHITE))
    }
}

type Cells = [u16; LumaGrid::CELLS];

/// At most 2304 * 65280, which fits.
fn residue(dark: &Cells, bright: &Cells, floor: u32, predict: impl Fn(u32) -> u32) -> u32 {
    let each = dark.iter().zip(bright).map(|(&dark, &bright)| {
        let residue = predict(dark.into()).min(LumaGrid::WHITE.into()).abs_diff(bright.into());
        if residue >= floor { residue } else { 0 }
    });
    each.sum()
}

/// The median of what the cells gained.
fn offset(dark: &Cells, bright: &Cells) -> i32 {
    let mut gained = [0; LumaGrid::CELLS];
    for (gained, (&dark, &bright)) in gained.iter_mut().zip(dark.iter().zip(bright)) {
        *gained = i32::from(bright) - i32::from(dark);
    }
    median(&mut gained)
}

/// Gains are whole numbers of 1 / 2^16.
const GAIN_BITS: u32 = 16;
/// Four levels: what is darker says nothing of a gain, and so votes for none.
const DARKEST: u16 = 4 << 8;

/// The median of the cells' gains.
fn gain(dark: &Cells, bright: &Cells) -> u64 {
    let mut gains = [0; LumaGrid::CELLS];
    for (gain, (&dark, &bright)) in gains.iter_mut().zip(dark.iter().zip(bright)) {
        *gain = (u32::from(bright.max(DARKEST)) << GAIN_BITS) / u32::from(dark.max(DARKEST));
    }
    median(&mut gains).into()
}

fn median<T: Ord + Copy>(values: &mut [T; LumaGrid::CELLS]) -> T {
    *values.select_nth_unstable(LumaGrid::CELLS / 2).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grid(luma: impl Fn(usize, usize) -> u16) -> LumaGrid {
        let cells = std::array::from_fn(|at| luma(at % LumaGrid::COLUMNS, at / LumaGrid::COLUMNS));
        LumaGrid::new(1920, 1080, cells)
    }

    fn flat(level: u16) -> LumaGrid {
        grid(|_, _| level << 8)
    }

    /// A scene from dark to bright with texture, lit by `light`.
    fn scene(light: impl Fn(u16) -> u16) -> LumaGrid {
        grid(|x, y| light(((20 + x * 2 + (y * 7) % 30) << 8) as u16))
    }

    /// White, over a tenth of the cells.
    fn with_object(mut grid: LumaGrid) -> LumaGrid {
        grid.cells[300..530].fill(LumaGrid::WHITE);
        grid
    }

    #[test]
    fn nothing_is_equal_and_black_to_white_is_all() {
        assert_eq!(flat(7).difference(&flat(7), 0.0, false), 0.0);
        assert_eq!(flat(0).difference(&flat(255), 0.0, false), 100.0);
        assert_eq!(flat(0).difference(&flat(255), 0.0, true), 0.0);
        assert_eq!(flat(0).difference(&flat(51), 0.0, false), 20.0);
    }

    #[test]
    fn an_object_counts_by_its_area_and_contrast() {
        let found = flat(0).difference(&with_object(flat(0)), 0.0, false);
        assert!((found - 100.0 * 230.0 / 2304.0).abs() < 1e-9, "{found}");
    }

    #[test]
    fn the_noise_floor_is_per_cell() {
        // Two levels are 0.78 % of full scale.
        assert_eq!(flat(100).difference(&flat(102), 1.0, false), 0.0);
        assert!(flat(100).difference(&flat(102), 0.7, false) > 0.7);
        // What is above it counts whole.
        let with = with_object(flat(102));
        let found = with.difference(&flat(100), 1.0, false);
        assert!((found - 100.0 * 230.0 / 2304.0 * 155.0 / 255.0).abs() < 1e-9, "{found}");
        assert_eq!(flat(0).difference(&flat(255), 100.0, false), 100.0);
        assert_eq!(flat(0).difference(&flat(1), f64::NAN, false), 100.0 / 255.0);
    }

    #[test]
    fn a_change_of_light_is_nothing_if_the_brightness_is_ignored() {
        let before = scene(|y| y);
        let brighter = scene(|y| y + (25 << 8));
        let flicker = scene(|y| (f64::from(y) * 1.15) as u16);
        let darker = scene(|y| (f64::from(y) * 0.6) as u16);
        let overexposed = scene(|y| (f64::from(y) * 1.7).min(f64::from(LumaGrid::WHITE)) as u16);
        for after in [brighter, flicker, darker, overexposed] {
            assert!(before.difference(&after, 0.0, false) > 4.0);
            let found = before.difference(&after, 0.0, true);
            assert!(found < 0.01, "{found}");
        }
    }

    #[test]
    fn an_object_counts_also_if_the_brightness_is_ignored() {
        let before = scene(|y| y);
        let plain = before.difference(&with_object(scene(|y| y)), 0.0, false);
        let still = before.difference(&with_object(scene(|y| y)), 0.0, true);
        assert!((plain - still).abs() < 1e-9, "in the same light nothing is taken off: {plain} {still}");
        let both = before.difference(&with_object(scene(|y| y + (25 << 8))), 0.0, true);
        assert!(both > 0.8 * plain, "{plain} {both}");
    }

    #[test]
    fn an_object_that_moves_through_the_dark_is_not_taken_for_a_lamp() {
        let (here, there) = (with_object(flat(0)), grid(|_, y| if y > 30 { 200 << 8 } else { 0 }));
        assert_eq!(here.difference(&there, 0.0, true), here.difference(&there, 0.0, false));
    }

    #[test]
    fn pictures_of_two_shapes_are_wholly_different() {
        let small = LumaGrid::new(640, 480, flat(0).cells);
        assert_eq!(flat(0).difference(&small, 50.0, true), 100.0);
    }

    proptest! {
        #[test]
        fn it_is_symmetric_and_within_bounds(
            levels in proptest::collection::vec((0..=LumaGrid::WHITE, 0..=LumaGrid::WHITE), LumaGrid::CELLS),
            floor in 0.0..10.0,
            ignore: bool,
        ) {
            let at = |x: usize, y: usize| levels[y * LumaGrid::COLUMNS + x];
            let (a, b) = (grid(|x, y| at(x, y).0), grid(|x, y| at(x, y).1));
            let found = a.difference(&b, floor, ignore);
            prop_assert!((0.0..=100.0).contains(&found));
            prop_assert_eq!(found, b.difference(&a, floor, ignore));
            prop_assert!(found <= a.difference(&b, 0.0, ignore));
            prop_assert_eq!(a.difference(&a, floor, ignore), 0.0);
        }
    }
}
