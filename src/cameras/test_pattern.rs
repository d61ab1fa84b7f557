//! A camera that needs no hardware: colour bars, a block that moves, the time and the frame number.
//!
//! For the first evening and for tests. It goes the same way as any camera, and says in its picture what it is, so
//! that nobody takes it for one.

use super::device::{CameraError, Description, Device, Frame, Identity, Mode, PixelFormat, Stream};
use crate::base::Clock;
use crate::model::Timestamp;
use font8x8::UnicodeFonts;
use std::thread;
use std::time::{Duration, Instant};

pub struct TestPattern {
    pub width: u32,
    pub height: u32,
    /// Frames a second.
    pub rate: f64,
    pub clock: Clock,
}

impl Device for TestPattern {
    fn probe(&self) -> Result<(), CameraError> {
        Ok(())
    }

    fn describe(&self) -> Result<Description, CameraError> {
        let format = format!("{} {}x{} at {} fps", PixelFormat::Yu12, self.width, self.height, self.rate);
        Ok(Description { path: "test-pattern".into(), identity: identity(), formats: vec![format], fault: None })
    }

    fn open(&mut self) -> Result<Box<dyn Stream>, CameraError> {
        // 4:2:0 takes even sizes.
        let (width, height) = (self.width.next_multiple_of(2), self.height.next_multiple_of(2));
        let mode = Mode {
            format: PixelFormat::Yu12,
            width,
            height,
            stride: width,
            limited_range: false,
            frame_interval: Duration::from_secs_f64(1.0 / self.rate),
        };
        let canvas = Canvas::bars(width as usize, height as usize);
        Ok(Box::new(Pattern {
            picture: canvas.clone(),
            background: canvas,
            mode,
            clock: self.clock.clone(),
            sequence: 0,
            due: Instant::now(),
        }))
    }
}

fn identity() -> Identity {
    Identity { driver: "vedette".into(), card: "Test pattern".into(), bus: "none".into() }
}

struct Pattern {
    mode: Mode,
    clock: Clock,
    background: Canvas,
    picture: Canvas,
    sequence: u32,
    due: Instant,
}

impl Stream for Pattern {
    fn mode(&self) -> &Mode {
        &self.mode
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<Frame<'_>>, CameraError> {
        let now = Instant::now();
        let wait = self.due.saturating_duration_since(now);
        if wait > timeout {
            thread::sleep(timeout);
            return Ok(None);
        }
        thread::sleep(wait);
        let captured = Instant::now();
        self.due = (self.due + self.mode.frame_interval).max(captured);
        self.draw(self.clock.now().into());
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Ok(Some(Frame { data: &self.picture.data, captured, sequence, corrupt: false, dmabuf: None }))
    }
}

impl Pattern {
    fn draw(&mut self, now: Timestamp) {
        self.picture.data.copy_from_slice(&self.background.data);
        let Canvas { width, height, .. } = self.picture;
        let side = (height / 6).max(2);
        let travel = (width - side.min(width)).max(1);
        // There and back in about six seconds at 25 frames a second.
        let step = self.sequence as usize * (travel / 75).max(1) % (2 * travel);
        let x = if step < travel { step } else { 2 * travel - step };
        self.picture.fill(x, height - side, side, side, WHITE);
        let (year, month, day) = now.date();
        let (hour, minute, second, milli) = now.time_of_day();
        let lines = [
            "VEDETTE TEST PATTERN".to_owned(),
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03} UTC"),
            format!("FRAME {:06}", self.sequence),
        ];
        let scale = (width / (8 * 30)).max(1);
        for (row, line) in lines.iter().enumerate() {
            self.picture.text(scale * 8, height / 4 + row * scale * 12, scale, line);
        }
    }
}

/// Y'CbCr, full range.
type Colour = [u8; 3];
const WHITE: Colour = [255, 128, 128];
const BLACK: Colour = [0, 128, 128];
/// White, yellow, cyan, green, magenta, red, blue at 75 %.
const BARS: [Colour; 7] =
    [[191, 128, 128], [169, 32, 143], [134, 160, 32], [112, 64, 48], [79, 192, 208], [57, 96, 224], [22, 224, 112]];

/// Planes of Y, U and V, 4:2:0, without padding. Width and height are even.
#[derive(Clone)]
struct Canvas {
    data: Vec<u8>,
    width: usize,
    height: usize,
}

impl Canvas {
    fn bars(width: usize, height: usize) -> Self {
        let mut canvas = Self { data: vec![0; width * height * 3 / 2], width, height };
        for (index, colour) in BARS.into_iter().enumerate() {
            let (from, to) = (width * index / BARS.len(), width * (index + 1) / BARS.len());
            canvas.fill(from, 0, to - from, height, colour);
        }
        canvas
    }

    /// A rectangle, cut at the edges. Chroma is set for each 2x2 block that it touches.
    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, [luma, u, v]: Colour) {
        let (right, bottom) = ((x + width).min(self.width), (y + height).min(self.height));
        if x >= right || y >= bottom {
            return;
        }
        for row in y..bottom {
            self.data[row * self.width..][x..right].fill(luma);
        }
        let (half, plane) = (self.width / 2, self.width * self.height);
        for row in y / 2..bottom.div_ceil(2) {
            for (index, value) in [u, v].into_iter().enumerate() {
                let start = plane + index * plane / 4 + row * half;
                self.data[start..][x / 2..right.div_ceil(2)].fill(value);
            }
        }
    }

    /// White on black, each dot of the 8x8 font `scale` pixels wide.
    fn text(&mut self, x: usize, y: usize, scale: usize, line: &str) {
        self.fill(x, y, line.chars().count() * 8 * scale + scale, 9 * scale, BLACK);
        for (column, letter) in line.chars().enumerate() {
            let Some(rows) = font8x8::BASIC_FONTS.get(letter) else { continue };
            for (row, bits) in rows.into_iter().enumerate() {
                for dot in (0..8).filter(|dot| bits >> dot & 1 == 1) {
                    self.fill(x + (column * 8 + dot) * scale, y + (row + 1) * scale, scale, scale, WHITE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cameras::encode::Encoder;

    fn frames(width: u32, height: u32, count: usize) -> Vec<Vec<u8>> {
        let clock = Clock::real();
        let mut stream = TestPattern { width, height, rate: 1000.0, clock }.open().unwrap();
        (0..count).map(|_| stream.next(Duration::from_secs(1)).unwrap().unwrap().data.to_vec()).collect()
    }

    #[test]
    fn frames_have_their_size_and_differ() {
        for (width, height) in [(640, 480), (2, 2), (17, 9), (1920, 1080)] {
            let frames = frames(width, height, 2);
            let (width, height) = (width.next_multiple_of(2), height.next_multiple_of(2));
            assert_eq!(frames[0].len() as u32, width * height * 3 / 2);
            assert!(width < 32 || frames[0] != frames[1], "it moves");
        }
    }

    #[test]
    fn the_first_bar_is_light_grey() {
        let mut stream = TestPattern { width: 640, height: 480, rate: 1000.0, clock: Clock::real() }.open().unwrap();
        let mode = stream.mode().clone();
        let frame = stream.next(Duration::from_secs(1)).unwrap().unwrap();
        let jpeg = Encoder::new(90, 1 << 20).unwrap().encode(&mode, frame.data).unwrap().jpeg;
        let image = turbojpeg::decompress(&jpeg, turbojpeg::PixelFormat::RGB).unwrap();
        let pixel = &image.pixels[image.pitch * 8 + 3 * 8..][..3];
        assert!(pixel.iter().all(|&channel| channel.abs_diff(191) < 4), "{pixel:?}");
    }
}
