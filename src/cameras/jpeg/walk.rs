//! The walk through a JPEG's segments (ITU-T T.81, annex B), from the start of image to its end.
//!
//!     SOI  tables, frame header, application data ...  (SOS  entropy-coded data with restart markers)...  EOI
//!
//! Between two scans there may be tables again. What is checked is what libjpeg-turbo (jdmarker.c, jdinput.c, jdhuff.c,
//! jdphuff.c) and Pillow (JpegImagePlugin.py) check, so that what passes here passes there. Stricter than they: 8 bits, one
//! or three components, Huffman coding, and everything that shows that a part is missing.

use super::huffman::{self, STANDARD};
use super::{DHT, EOI, Fault, Header, SOI, SOS};

/// A JPEG from the start of image to behind its end.
pub(super) struct Walked {
    pub(super) header: Header,
    pub(super) start: usize,
    /// Where the first SOS marker stands.
    pub(super) scan: usize,
    pub(super) end: usize,
    pub(super) lacks: Lacks,
}

/// Which of the standard tables are used and not there.
#[derive(Default)]
pub(super) struct Lacks([bool; STANDARD.len()]);

impl Lacks {
    pub(super) fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }

    /// As DHT segments.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (table, _) in STANDARD.iter().zip(self.0).filter(|(_, lacks)| *lacks) {
            table.write(out);
        }
    }
}

/// So many bytes may stand before the start of image.
const LEAD: usize = 64;
/// A width and a height claimed by a damaged header must not cost a client gigabytes. 8192 x 8192 is what the largest
/// hardware encoder makes (mxc-jpeg); Pillow takes 2.6 times that.
const PIXELS: u32 = 1 << 26;
/// libjpeg's own limits (jmorecfg.h, jpeglib.h).
const SIDE: u32 = 65500;
const BLOCKS_IN_MCU: u32 = 10;
/// Each may cost a client a pass over the picture; libjpeg's encoder makes 10.
const SCANS: usize = 64;

pub(super) fn walk(data: &[u8]) -> Result<Walked, Fault> {
    let is_start = |bytes: &[u8]| bytes == [0xFF, SOI, 0xFF];
    let start = data.windows(3).take(LEAD + 1).position(is_start).ok_or(Fault::NoStart)?;
    let mut state = State::default();
    let (mut at, mut scan) = (start + 2, None);
    loop {
        let segment = Segment::read(data, at)?;
        at = segment.end;
        match segment.marker {
            EOI => {
                let header = state.finish()?;
                let scan = scan.ok_or(Fault::Incomplete)?;
                return Ok(Walked { header, start, scan, end: segment.end, lacks: state.lacks });
            }
            SOS => {
                scan.get_or_insert(segment.at);
                let restarts = state.scan(&segment)?;
                at = state.entropy_coded(data, at, restarts)?;
            }
            DHT => state.huffman_tables(&segment)?,
            0xDB => state.quantization_tables(&segment)?,
            0xDD => match *segment.content {
                [high, low] => state.restart_interval = u16::from_be_bytes([high, low]).into(),
                _ => return Err(segment.bad("its length is not 4")),
            },
            0xC0..=0xC2 => state.frame(&segment)?,
            0xC8 | 0xCC | 0xDE..=0xDF | 0xF0..=0xFD => return Err(segment.misplaced()),
            0xC3..=0xCF => return Err(Fault::Coding(segment.marker & 0xF)),
            marker => application_data(&segment, marker)?,
        }
    }
}

/// From a marker to the end of what belongs to it.
struct Segment<'a> {
    marker: u8,
    at: usize,
    /// Behind the length.
    content: &'a [u8],
    end: usize,
}

impl<'a> Segment<'a> {
    fn read(data: &'a [u8], at: usize) -> Result<Self, Fault> {
        let rest = data.get(at..).unwrap_or_default();
        // Fill bytes before a marker are allowed (T.81, B.1.1.2).
        let fill = rest.iter().take_while(|&&byte| byte == 0xFF).count();
        let marker = *rest.get(fill).ok_or(Fault::CutHeader(data.len()))?;
        if fill == 0 {
            return Err(Fault::NoSegment(at));
        }
        let at = at + fill - 1;
        let segment = Self { marker, at, content: &[], end: at + 2 };
        if marker == EOI {
            return Ok(segment);
        }
        // Reserved, restart and start of image: nothing that has a length.
        if matches!(marker, 0x00..=0xBF | 0xD0..=SOI) {
            return Err(segment.misplaced());
        }
        let length = data.get(at + 2..at + 4).ok_or(Fault::CutHeader(data.len()))?;
        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if end < at + 4 {
            return Err(segment.bad("its length is below 2"));
        }
        let content = data.get(at + 4..end).ok_or(Fault::CutHeader(data.len()))?;
        Ok(Self { content, end, ..segment })
    }

    fn misplaced(&self) -> Fault {
        Fault::Misplaced { marker: self.marker, at: self.at }
    }

    fn bad(&self, why: &'static str) -> Fault {
        let segment = match self.marker {
            DHT => "Huffman table",
            0xC0..=0xCF => "frame header",
            0xDB => "quantization table",
            0xDD => "restart interval",
            SOS => "scan header",
            _ => "application data",
        };
        Fault::Bad { segment, at: self.at, why }
    }
}

/// What has been read.
#[derive(Default)]
struct State {
    frame: Option<Frame>,
    /// By class and identifier.
    huffman: [[bool; 4]; 2],
    quantization: [Option<Quantization>; 4],
    /// In MCUs; zero is none.
    restart_interval: u32,
    lacks: Lacks,
    /// The sum of luma's quantization steps.
    steps: u32,
    scans: usize,
    /// Bytes of entropy-coded data.
    coded: usize,
}

#[derive(Clone, Copy)]
struct Quantization {
    has_16_bits: bool,
    sum: u32,
}

struct Frame {
    is_baseline: bool,
    is_progressive: bool,
    width: u32,
    height: u32,
    components: [Component; 3],
    /// How many components there are.
    count: usize,
}

#[derive(Clone, Copy, Default)]
struct Component {
    id: u8,
    /// Sampling factors, horizontal and vertical.
    sampling: [u32; 2],
    quantization: usize,
    /// The scan with its DC coefficients was there.
    has_come: bool,
}

impl Frame {
    /// T.81, B.2.2.
    fn read(segment: &Segment<'_>) -> Result<Self, Fault> {
        let [bits, h1, h0, w1, w0, count, ref rest @ ..] = *segment.content else {
            return Err(segment.bad("it is too short"));
        };
        let [width, height] = [[w1, w0], [h1, h0]].map(|side| u32::from(u16::from_be_bytes(side)));
        let count = usize::from(count);
        if bits != 8 {
            return Err(segment.bad("its samples have not 8 bits"));
        }
        if width == 0 || height == 0 || width > SIDE || height > SIDE || width * height > PIXELS {
            return Err(segment.bad("no camera has that many pixels"));
        }
        if count != 1 && count != 3 {
            return Err(segment.bad("it has neither one component nor three"));
        }
        if rest.len() != 3 * count {
            return Err(segment.bad("its length does not match its components"));
        }
        let mut components = [Component::default(); 3];
        for (at, (component, bytes)) in components.iter_mut().zip(rest.chunks_exact(3)).enumerate() {
            let sampling = [bytes[1] >> 4, bytes[1] & 0xF].map(u32::from);
            *component = Component { id: bytes[0], sampling, quantization: bytes[2].into(), has_come: false };
            if sampling.iter().any(|factor| !(1..=4).contains(factor)) {
                return Err(segment.bad("a sampling factor is not 1 to 4"));
            }
            if component.quantization > 3 {
                return Err(segment.bad("a quantization table is not 0 to 3"));
            }
            if rest.chunks_exact(3).take(at).any(|before| before[0] == bytes[0]) {
                return Err(segment.bad("two components have one identifier"));
            }
        }
        let is_progressive = segment.marker == 0xC2;
        let frame = Self { is_baseline: segment.marker == 0xC0, is_progressive, width, height, components, count };
        // Between two sampling rates libjpeg and others only know whole factors.
        let most = frame.most_sampling();
        let is_whole = |component: &Component| (0..2).all(|side| most[side].is_multiple_of(component.sampling[side]));
        if !frame.components().iter().all(is_whole) {
            return Err(segment.bad("its sampling factors are not multiples"));
        }
        Ok(frame)
    }

    fn components(&self) -> &[Component] {
        &self.components[..self.count]
    }

    fn most_sampling(&self) -> [u32; 2] {
        [0, 1].map(|side| self.components().iter().map(|component| component.sampling[side]).max().unwrap_or(1))
    }

    /// How many blocks of 8 x 8 there are of a component that is sampled so often; of `[1, 1]`, how many interleaved MCUs.
    fn blocks(&self, sampling: [u32; 2]) -> u32 {
        let most = self.most_sampling();
        (self.width * sampling[0]).div_ceil(8 * most[0]) * (self.height * sampling[1]).div_ceil(8 * most[1])
    }
}

impl State {
    fn frame(&mut self, segment: &Segment<'_>) -> Result<(), Fault> {
        if self.frame.is_some() {
            return Err(segment.misplaced());
        }
        self.frame = Some(Frame::read(segment)?);
        Ok(())
    }

    /// T.81, B.2.4.2.
    fn huffman_tables(&mut self, segment: &Segment<'_>) -> Result<(), Fault> {
        let mut rest = segment.content;
        while let [class_and_id, after @ ..] = rest {
            let (class, id) = (usize::from(class_and_id >> 4), usize::from(class_and_id & 0xF));
            if class > 1 || id > 3 {
                return Err(segment.bad("there is no such table"));
            }
            let (counts, after) = after.split_first_chunk().ok_or(segment.bad("it is too short"))?;
            let count = counts.iter().copied().map(usize::from).sum();
            let (symbols, after) = after.split_at_checked(count).ok_or(segment.bad("it is too short"))?;
            if let Some(why) = huffman::fault(class, counts, symbols) {
                return Err(segment.bad(why));
            }
            self.huffman[class][id] = true;
            rest = after;
        }
        Ok(())
    }

    /// T.81, B.2.4.1.
    fn quantization_tables(&mut self, segment: &Segment<'_>) -> Result<(), Fault> {
        let mut rest = segment.content;
        while let [precision_and_id, after @ ..] = rest {
            let (precision, id) = (precision_and_id >> 4, usize::from(precision_and_id & 0xF));
            if precision > 1 || id > 3 {
                return Err(segment.bad("there is no such table"));
            }
            let bytes = 1 + usize::from(precision);
            let (steps, after) = after.split_at_checked(64 * bytes).ok_or(segment.bad("it is too short"))?;
            let sum =
                steps.chunks_exact(bytes).map(|step| step.iter().fold(0, |high, &low| high << 8 | u32::from(low)));
            self.quantization[id] = Some(Quantization { has_16_bits: precision == 1, sum: sum.sum() });
            rest = after;
        }
        Ok(())
    }

    /// T.81, B.2.3. How many restart markers the scan must have.
    fn scan(&mut self, segment: &Segment<'_>) -> Result<u32, Fault> {
        let Self { frame: Some(frame), .. } = self else { return Err(segment.misplaced()) };
        self.scans += 1;
        if self.scans > SCANS {
            return Err(segment.bad("there are too many"));
        }
        let [count, ref rest @ ..] = *segment.content else { return Err(segment.bad("it is too short")) };
        let count = usize::from(count);
        if !(1..=frame.count).contains(&count) || rest.len() != 2 * count + 3 {
            return Err(segment.bad("its length does not match its components"));
        }
        let (selectors, spectrum) = rest.split_at(2 * count);
        // T.81, table B.3.
        let (first, last, high, low) = (spectrum[0], spectrum[1], spectrum[2] >> 4, spectrum[2] & 0xF);
        let (is_step, has_dc, has_ac) = if frame.is_progressive {
            let is_band = if first == 0 { last == 0 } else { count == 1 && first <= last && last <= 63 };
            (is_band && low <= 13 && (high == 0 || low + 1 == high), first == 0, first != 0)
        } else {
            // Old IP cameras leave these zero, and no decoder minds.
            (matches!(spectrum, [0, 63 | 0, 0]), true, true)
        };
        if !is_step {
            return Err(segment.bad("there is no such part of a spectrum"));
        }
        let mut blocks = 0;
        let mut unit = [1, 1];
        let mut next = 0;
        for selector in selectors.chunks_exact(2) {
            let mut components = frame.components[..frame.count].iter_mut().enumerate();
            let component = components.find(|(_, component)| component.id == selector[0]);
            let (index, component) = component.ok_or(segment.bad("it has a component that the frame has not"))?;
            if index < next {
                return Err(segment.bad("its components come twice or not in the frame's order"));
            }
            next = index + 1;
            if component.has_come && !frame.is_progressive {
                return Err(segment.misplaced());
            }
            component.has_come |= has_dc;
            let quantization = self.quantization[component.quantization];
            let quantization = quantization.filter(|table| !(table.has_16_bits && frame.is_baseline));
            let quantization = quantization.ok_or(segment.bad("a quantization table lacks"))?;
            if index == 0 {
                self.steps = quantization.sum;
            }
            // A scan that refines DC coefficients has no codes.
            let tables = [(0, selector[1] >> 4, has_dc && high == 0), (1, selector[1] & 0xF, has_ac)];
            for (class, id, _) in tables.into_iter().filter(|&(_, _, is_used)| is_used) {
                let id = usize::from(id);
                if self.huffman[class].get(id) == Some(&true) {
                    continue;
                }
                // Nobody implies tables for progressive JPEGs.
                let mut standard = STANDARD.iter().filter(|_| !frame.is_progressive);
                let standard = standard.position(|table| table.class == class && table.id == id);
                self.lacks.0[standard.ok_or(segment.bad("a Huffman table lacks"))?] = true;
            }
            blocks += component.sampling[0] * component.sampling[1];
            if count == 1 {
                // Without interleaving a block is an MCU (T.81, A.2.2).
                unit = component.sampling;
            }
        }
        if count > 1 && blocks > BLOCKS_IN_MCU {
            return Err(segment.bad("it interleaves too many blocks"));
        }
        let mcus = frame.blocks(unit);
        Ok(mcus.div_ceil(self.restart_interval.max(1)) - 1)
    }

    /// Passes over a scan that shall have that many restart markers; where the next segment begins.
    fn entropy_coded(&mut self, data: &[u8], from: usize, restarts: u32) -> Result<usize, Fault> {
        let mut seen = 0;
        for at in memchr::memchr_iter(0xFF, &data[from..]).map(|at| from + at) {
            match data.get(at + 1) {
                None => break,
                // A byte FF of data, and a fill byte.
                Some(0x00 | 0xFF) => {}
                Some(&marker @ 0xD0..=0xD7) => {
                    // One too many stands before the end of some, which is harmless.
                    if self.restart_interval == 0 || seen > restarts {
                        return Err(Fault::Misplaced { marker, at });
                    }
                    if u32::from(marker & 7) != seen % 8 {
                        return Err(Fault::Gap { at });
                    }
                    seen += 1;
                }
                Some(_) if self.restart_interval != 0 && seen < restarts => return Err(Fault::Gap { at }),
                Some(_) => {
                    self.coded += at - from;
                    return Ok(at);
                }
            }
        }
        Err(Fault::NoEnd)
    }

    fn finish(&self) -> Result<Header, Fault> {
        let frame = self.frame.as_ref().ok_or(Fault::Incomplete)?;
        if !frame.components().iter().all(|component| component.has_come) {
            return Err(Fault::Incomplete);
        }
        let &Frame { width, height, .. } = frame;
        // A block of a component takes a bit at least.
        if self.coded * 8 < frame.blocks(frame.components[0].sampling) as usize {
            return Err(Fault::Thin { width, height, bytes: self.coded });
        }
        Ok(Header { width, height, steps: self.steps })
    }
}

/// Pillow refuses the picture if these are cut short; libjpeg passes over them then.
fn application_data(segment: &Segment<'_>, marker: u8) -> Result<(), Fault> {
    let least = match marker {
        0xE0 if segment.content.starts_with(b"JFIF") => 14,
        0xE2 if segment.content.starts_with(b"ICC_PROFILE\0") => 14,
        0xEE if segment.content.starts_with(b"Adobe") => 12,
        _ => 0,
    };
    if segment.content.len() < least { Err(segment.bad("it is too short")) } else { Ok(()) }
}
