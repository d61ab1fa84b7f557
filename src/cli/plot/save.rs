//! Writing what a plot shows: CSV of all points that are kept, SVG and PNG of the window.
//!
//! The PNG is of colours with numbers (a palette), drawn here with plain lines and the 8x8 letters that the test pattern
//! has as well.

use super::figure::{Figure, Rgb, timestamp};
use super::series::Series;
use crate::cli::show;
use font8x8::UnicodeFonts;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Csv,
    Svg,
    Png,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Svg => "svg",
            Self::Png => "png",
        }
    }
}

/// A file that was not there: `plot-2026-11-21T14-30-00.svg`.
pub(super) fn save(folder: &Path, kind: Kind, now: f64, series: &[Series], figure: &Figure) -> io::Result<PathBuf> {
    let stamp = timestamp(now).to_string().replace(':', "-");
    let stamp = stamp.split('.').next().unwrap_or(&stamp);
    let content = match kind {
        Kind::Csv => csv(series).into_bytes(),
        Kind::Svg => svg(figure).into_bytes(),
        Kind::Png => png(figure),
    };
    for number in 0..100 {
        let more = if number == 0 { String::new() } else { format!("-{number}") };
        let path = folder.join(format!("plot-{stamp}{more}.{}", kind.extension()));
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => return file.write_all(&content).map(|()| path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }
    Err(io::Error::other("a hundred files of this second are there already"))
}

/// One line for each point (RFC 4180): time, node, value, unit, status.
fn csv(series: &[Series]) -> String {
    let mut text = String::from("time,node,value,unit,status\r\n");
    let mut points: Vec<_> =
        series.iter().flat_map(|series| series.points().map(move |point| (point, series))).collect();
    points.sort_by(|a, b| a.0.time.total_cmp(&b.0.time));
    for (point, series) in points {
        let value = point.value.map_or(String::new(), |value| value.to_string());
        let (time, name, unit) = (show::time(timestamp(point.time)), field(&series.name), field(&series.unit));
        // Writing to a String cannot fail.
        let _ = write!(text, "{time},{name},{value},{unit},{}\r\n", field(&show::status(point.status)));
    }
    text
}

fn field(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 600.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 20.0;
const BELOW: f64 = 40.0;
const ROW: f64 = 24.0;

/// Where a figure's parts are on a sheet.
struct Sheet<'a> {
    figure: &'a Figure,
    height: f64,
}

impl<'a> Sheet<'a> {
    fn new(figure: &'a Figure) -> Self {
        Self { figure, height: HEIGHT + ROW * figure.lines.len() as f64 }
    }

    fn bottom(&self) -> f64 {
        HEIGHT - BELOW
    }

    fn x(&self, time: f64) -> f64 {
        let Figure { from, to, .. } = self.figure;
        LEFT + (time - from) / (to - from) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        // Halves, because the whole range may be more than a number holds.
        let Figure { low, high, .. } = self.figure;
        let part = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
        self.bottom() - part.clamp(0.0, 1.0) * (self.bottom() - TOP)
    }

    fn row(&self, index: usize) -> f64 {
        HEIGHT + ROW * index as f64
    }
}

const PAPER: Rgb = (0x11, 0x14, 0x18);
const GRID: Rgb = (0x3A, 0x40, 0x48);
const INK: Rgb = (0xD8, 0xDC, 0xE0);

fn svg(figure: &Figure) -> String {
    let sheet = Sheet::new(figure);
    let colour = |(r, g, b): Rgb| format!("#{r:02x}{g:02x}{b:02x}");
    let (paper, grid, ink) = (colour(PAPER), colour(GRID), colour(INK));
    let (bottom, right, height) = (sheet.bottom(), WIDTH - RIGHT, sheet.height);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"15\" fill=\"{ink}\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"{paper}\"/>\n"
    );
    // Writing to a String cannot fail.
    for (value, label) in &figure.values {
        let y = sheet.y(*value);
        let _ = writeln!(text, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"{grid}\"/>");
        let _ = writeln!(text, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, y + 5.0);
    }
    for (time, label) in &figure.times {
        let x = sheet.x(*time);
        let _ = writeln!(text, "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"{grid}\"/>");
        let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 24.0);
    }
    for (index, line) in figure.lines.iter().enumerate() {
        let stroke = colour(line.colour);
        for piece in &line.pieces {
            let points: Vec<_> = piece.iter().map(|(t, v)| format!("{:.1},{:.1}", sheet.x(*t), sheet.y(*v))).collect();
            let points = points.join(" ");
            let _ =
                writeln!(text, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"2\"/>");
        }
        let y = sheet.row(index);
        let _ = writeln!(text, "<rect x=\"{LEFT}\" y=\"{y}\" width=\"14\" height=\"14\" fill=\"{stroke}\"/>");
        let legend = escaped(&line.legend);
        let _ = writeln!(text, "<text x=\"{}\" y=\"{}\" xml:space=\"preserve\">{legend}</text>", LEFT + 24.0, y + 12.0);
    }
    text + "</svg>\n"
}

/// XML has no control characters at all.
fn escaped(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    clean.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Pixels by the number of their colour.
struct Raster {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    palette: Vec<Rgb>,
}

impl Raster {
    fn new(width: f64, height: f64) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self { width, height, pixels: vec![0; width * height], palette: vec![PAPER] }
    }

    fn colour(&mut self, colour: Rgb) -> u8 {
        let at = self.palette.iter().position(|known| *known == colour).unwrap_or_else(|| {
            self.palette.push(colour);
            self.palette.len() - 1
        });
        at as u8
    }

    fn dot(&mut self, x: i64, y: i64, colour: u8) {
        if let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y))
            && x < self.width
            && y < self.height
        {
            self.pixels[y * self.width + x] = colour;
        }
    }

    fn line(&mut self, (x0, y0): (f64, f64), (x1, y1): (f64, f64), thickness: i64, colour: u8) {
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0) as i64;
        for step in 0..=steps {
            let part = step as f64 / steps as f64;
            let (x, y) = ((x0 + (x1 - x0) * part).round() as i64, (y0 + (y1 - y0) * part).round() as i64);
            for dx in 0..thickness {
                for dy in 0..thickness {
                    self.dot(x + dx, y + dy, colour);
                }
            }
        }
    }

    /// Letters are 8 wide and 16 high, each of their rows twice.
    fn text(&mut self, x: f64, y: f64, text: &str, colour: u8) {
        for (index, letter) in text.chars().enumerate() {
            let glyph = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::LATIN_FONTS.get(letter));
            let Some(rows) = glyph.or_else(|| font8x8::BASIC_FONTS.get('?')) else { continue };
            for (row, bits) in rows.iter().enumerate() {
                for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                    let (x, y) = (x as i64 + (index * 8 + column) as i64, y as i64 + row as i64 * 2);
                    self.dot(x, y, colour);
                    self.dot(x, y + 1, colour);
                }
            }
        }
    }

    /// PNG (ISO/IEC 15948) with a palette.
    fn encode(&self) -> Vec<u8> {
        let mut rows = Vec::with_capacity((self.width + 1) * self.height);
        for row in self.pixels.chunks(self.width) {
            // No filter.
            rows.push(0);
            rows.extend_from_slice(row);
        }
        let mut header = Vec::new();
        header.extend((self.width as u32).to_be_bytes());
        header.extend((self.height as u32).to_be_bytes());
        // Eight bits, by palette, the only compression, filtering and no interlacing.
        header.extend([8, 3, 0, 0, 0]);
        let palette: Vec<u8> = self.palette.iter().flat_map(|(r, g, b)| [*r, *g, *b]).collect();
        let packed = miniz_oxide::deflate::compress_to_vec_zlib(&rows, 6);
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        for (name, body) in [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", packed), (b"IEND", Vec::new())] {
            file.extend((body.len() as u32).to_be_bytes());
            let begin = file.len();
            file.extend_from_slice(name);
            file.extend_from_slice(&body);
            let sum = crc(&file[begin..]);
            file.extend(sum.to_be_bytes());
        }
        file
    }
}

/// ISO/IEC 15948, Annex D.
fn crc(bytes: &[u8]) -> u32 {
    let fold = |sum: u32, byte: &u8| {
        let mut sum = sum ^ u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        }
        sum
    };
    !bytes.iter().fold(u32::MAX, fold)
}

fn png(figure: &Figure) -> Vec<u8> {
    let sheet = Sheet::new(figure);
    let mut raster = Raster::new(WIDTH, sheet.height);
    let (grid, ink) = (raster.colour(GRID), raster.colour(INK));
    for (value, label) in &figure.values {
        let y = sheet.y(*value);
        raster.line((LEFT, y), (WIDTH - RIGHT, y), 1, grid);
        raster.text(LEFT - 8.0 - 8.0 * label.chars().count() as f64, y - 8.0, label, ink);
    }
    for (time, label) in &figure.times {
        let x = sheet.x(*time);
        raster.line((x, TOP), (x, sheet.bottom()), 1, grid);
        raster.text(x - 4.0 * label.chars().count() as f64, sheet.bottom() + 10.0, label, ink);
    }
    for (index, line) in figure.lines.iter().enumerate() {
        let colour = raster.colour(line.colour);
        for piece in &line.pieces {
            let at = |(time, value): (f64, f64)| (sheet.x(time), sheet.y(value));
            for pair in piece.windows(2) {
                raster.line(at(pair[0]), at(pair[1]), 2, colour);
            }
        }
        let y = sheet.row(index);
        for row in 0..14 {
            raster.line((LEFT, y + f64::from(row)), (LEFT + 14.0, y + f64::from(row)), 1, colour);
        }
        raster.text(LEFT + 24.0, y, &line.legend, ink);
    }
    raster.encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::remote::Reading;
    use crate::model::{Status, Value};

    #[test]
    fn the_sum_is_that_of_the_standard() {
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn letters_keep_their_place_in_csv_and_svg() {
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(escaped("a<b>&\u{1b}"), "a&lt;b&gt;&amp;");
    }

    #[test]
    fn nothing_that_exists_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let figure = Figure::new(&[], 0.0, 60.0, None, 100);
        let first = save(folder.path(), Kind::Png, 0.0, &[], &figure).unwrap();
        let second = save(folder.path(), Kind::Png, 0.0, &[], &figure).unwrap();
        assert!(first.ends_with("plot-1970-01-01T00-00-00.png") && second.ends_with("plot-1970-01-01T00-00-00-1.png"));
        assert!(std::fs::read(first).unwrap().starts_with(b"\x89PNG"));
    }

    /// The largest range does not make a number that is none.
    #[test]
    fn any_line_is_drawn() {
        let mut series = Series::new("a<b".into(), "°C".into(), 1.0);
        for (time, value) in [(1.0, f64::MIN), (2.0, f64::MAX), (3.0, 0.0)] {
            let source_time = Some(timestamp(time));
            let reading = Reading { value: Value::Double(value), status: Status::GOOD, source_time, server_time: None };
            series.take(&reading, time);
        }
        let figure = Figure::new(&[series], 0.0, 10.0, None, 100);
        let drawn = svg(&figure);
        assert!(!drawn.contains("NaN") && !drawn.contains("inf") && drawn.contains("a&lt;b"), "{drawn}");
        assert!(png(&figure).len() > 1000);
    }
}
