//! JPEG frames out of a stream of bytes, in which nothing but the frames themselves says where they end.
//!
//!     Between ──SOI──► Header ──SOS──► Scan ──EOI──► a frame; Between again
//!        ▲               │              │
//!        └─ damaged, or too long ───────┴─ SOI: the frame was cut short, the next begins here
//!
//! - Header: segments are stepped over by their length (ITU-T T.81, B.1.1.4) and not searched, because the preview in
//!   EXIF's APP1 has a start and an end of its own.
//! - Scan: its first FF D9 is the end (T.81, B.1.1.5: data bytes FF are followed by 00).
//! - Between: padding and text, such as the part headers of multipart/x-mixed-replace, are no fault. Anything else is
//!   what is left of a lost frame.
//!
//! Every byte is looked at once, however the stream is cut into reads, and nothing is kept but the frame at hand. So a
//! frame that was cut in its header may take the next one with it: reading goes on where the damage was found, and what was
//! pieced together is left to the decoder to refuse.

/// What the bytes so far brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A whole frame.
    Frame,
    /// What was to be one.
    Damaged,
}

pub(super) struct Splitter {
    /// What came, from some point before `start` on.
    data: Vec<u8>,
    /// Where the frame at hand begins.
    start: usize,
    /// Looked at up to here; may be beyond `data` when a segment has not come yet.
    at: usize,
    state: State,
    /// What is between frames has been counted as a lost one.
    is_counted: bool,
    /// Bytes since the last frame, or since the last that were counted.
    between: usize,
    /// Bytes of a frame at most.
    limit: usize,
}

#[derive(Clone, Copy)]
enum State {
    Between,
    Header,
    Scan,
}

enum Step {
    /// On with the state that is set now.
    On,
    /// More bytes are needed.
    Wait,
    Cut(Cut),
}

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// No padding and no part header is so long: a program that writes no JPEG at all.
const NO_FRAME: usize = 1 << 20;

impl Splitter {
    pub(super) fn new(limit: usize) -> Self {
        Self { data: Vec::new(), start: 0, at: 0, state: State::Between, is_counted: false, between: 0, limit }
    }

    /// Where the next bytes go, at the end.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.data.drain(..self.start);
        self.at -= self.start;
        self.start = 0;
        &mut self.data
    }

    /// The next thing found; a whole frame is put in `frame`. `None`: more bytes are needed.
    pub(super) fn cut(&mut self, frame: &mut Vec<u8>) -> Option<Cut> {
        loop {
            let step = match self.state {
                State::Between => self.find_start(),
                State::Header => self.step_over_segment(),
                State::Scan => self.find_end(),
            };
            match step {
                Step::On => {}
                Step::Wait if self.data.len() - self.start > self.limit => return Some(self.give_up()),
                Step::Wait => return None,
                Step::Cut(Cut::Frame) => {
                    frame.clear();
                    frame.extend_from_slice(&self.data[self.start..self.at]);
                    self.start = self.at;
                    self.state = State::Between;
                    return Some(Cut::Frame);
                }
                Step::Cut(Cut::Damaged) => return Some(Cut::Damaged),
            }
        }
    }

    pub(super) fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Between)
    }

    fn find_start(&mut self) -> Step {
        if self.between >= NO_FRAME {
            self.between -= NO_FRAME;
            return Step::Cut(Cut::Damaged);
        }
        let rest = &self.data[self.at..];
        // A marker follows, so the third byte is known as well, and random data is not taken for a start.
        let found = rest.windows(3).position(|three| three == [0xFF, SOI, 0xFF]);
        let skipped = &rest[..found.unwrap_or(rest.len().saturating_sub(2))];
        let is_lost_frame = !self.is_counted && skipped.iter().any(|&byte| !is_padding_or_text(byte));
        self.between += skipped.len();
        self.at += skipped.len();
        self.start = self.at;
        if is_lost_frame {
            self.is_counted = true;
            return Step::Cut(Cut::Damaged);
        }
        if self.between >= NO_FRAME {
            return Step::On;
        }
        if found.is_none() {
            return Step::Wait;
        }
        (self.state, self.is_counted, self.between) = (State::Header, false, 0);
        self.at += 2;
        Step::On
    }

    fn step_over_segment(&mut self) -> Step {
        let Some(&[prefix, marker, high, low]) = self.data.get(self.at..).and_then(|rest| rest.first_chunk()) else {
            return Step::Wait;
        };
        if prefix == 0xFF && marker == 0xFF {
            // Fill bytes before a marker are allowed (T.81, B.1.1.2).
            self.at += 1;
            return Step::On;
        }
        let next = self.at + 2 + usize::from(u16::from_be_bytes([high, low]));
        let has_no_length = matches!(marker, 0x00 | 0x01 | 0xD0..=EOI);
        if prefix != 0xFF || has_no_length || next < self.at + 4 || next - self.start > self.limit {
            return Step::Cut(self.give_up());
        }
        if marker == SOS {
            self.state = State::Scan;
        }
        self.at = next;
        Step::On
    }

    fn find_end(&mut self) -> Step {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let Some(found) = rest.windows(2).position(|pair| pair[0] == 0xFF && matches!(pair[1], SOI | EOI)) else {
            // The last byte may be the first of a marker.
            self.at += rest.len().saturating_sub(1);
            return Step::Wait;
        };
        let is_end = rest[found + 1] == EOI;
        self.at += found;
        if !is_end {
            return Step::Cut(self.give_up());
        }
        self.at += 2;
        if self.at - self.start > self.limit { Step::Cut(self.give_up()) } else { Step::Cut(Cut::Frame) }
    }

    /// The frame at hand is none; the next is looked for from here on.
    fn give_up(&mut self) -> Cut {
        self.at = self.at.min(self.data.len());
        (self.start, self.state, self.is_counted) = (self.at, State::Between, true);
        Cut::Damaged
    }
}

fn is_padding_or_text(byte: u8) -> bool {
    matches!(byte, 0x00 | 0xFF | b'\t' | b'\r' | b'\n' | b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 20_000;

    fn jpeg(width: usize) -> Vec<u8> {
        let image = turbojpeg::Image::mandelbrot(width, 16, turbojpeg::PixelFormat::RGB);
        turbojpeg::compress(image.as_deref(), 80, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
    }

    /// With an EXIF segment that holds a whole JPEG of its own.
    fn with_preview(jpeg: &[u8], preview: &[u8]) -> Vec<u8> {
        let length = u16::try_from(2 + 6 + preview.len()).unwrap().to_be_bytes();
        [&jpeg[..2], &[0xFF, 0xE1], &length, b"Exif\0\0", preview, &jpeg[2..]].concat()
    }

    /// Frames and the count of damaged ones.
    fn split(stream: &[u8], sizes: &[usize]) -> (Vec<Vec<u8>>, usize) {
        let mut splitter = Splitter::new(LIMIT);
        let (mut frames, mut damaged, mut frame) = (Vec::new(), 0, Vec::new());
        let mut rest = stream;
        for size in sizes.iter().chain(std::iter::repeat(&usize::MAX)) {
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            splitter.buffer().extend_from_slice(chunk);
            assert!(splitter.data.len() <= LIMIT + chunk.len(), "it grows without bound");
            while let Some(cut) = splitter.cut(&mut frame) {
                match cut {
                    Cut::Frame => frames.push(frame.clone()),
                    Cut::Damaged => damaged += 1,
                }
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        (frames, damaged)
    }

    #[test]
    fn frames_back_to_back_and_in_parts_are_the_same() {
        let frames = [jpeg(16), with_preview(&jpeg(32), &jpeg(16)), jpeg(48)];
        let part = b"\r\n--boundary\r\nContent-Type: image/jpeg\r\nContent-Length: 1234\r\n\r\n";
        for between in [&b""[..], part, &[0; 100], &[0xFF; 3]] {
            let stream: Vec<u8> = frames.iter().flat_map(|frame| [between, frame].concat()).collect();
            assert_eq!(split(&stream, &[]), (frames.to_vec(), 0), "{between:?}");
        }
    }

    #[test]
    fn what_is_damaged_is_counted_and_the_next_frame_is_whole() {
        let (one, two) = (jpeg(16), jpeg(32));
        let mut bad_header = one.clone();
        bad_header[2] = 0;
        let cut_in_its_scan = &one[..one.len() - 10];
        let without_start = &one[2..];
        let too_long = [&one[..one.len() - 2], &[1; LIMIT], &[0xFF, EOI]].concat();
        let noise = (0..5000).map(|index| (index * 7) as u8).collect::<Vec<_>>();
        for bad in [&bad_header[..], cut_in_its_scan, without_start, &too_long, &noise] {
            let stream = [&one, bad, &two, &one].concat();
            for sizes in [&[][..], &[1000; 100]] {
                assert_eq!(split(&stream, sizes), (vec![one.clone(), two.clone(), one.clone()], 1));
            }
        }
    }

    #[test]
    fn a_frame_cut_anywhere_takes_no_more_than_the_next_with_it() {
        let one = with_preview(&jpeg(16), &jpeg(32));
        for cut in 3..one.len() {
            let stream = [&one[..cut], &one, &one, &one].concat();
            let (frames, damaged) = split(&stream, &[]);
            let [rest @ .., two, three] = &frames[..] else { panic!("cut at {cut}") };
            assert!(*two == one && *three == one, "cut at {cut}");
            assert!(rest.len() + damaged >= 1, "cut at {cut}: it goes unseen");
        }
    }

    #[test]
    fn a_program_that_writes_no_jpeg_is_noticed() {
        assert_eq!(split(&b"y\n".repeat(NO_FRAME + 1), &[4096; 512]), (vec![], 2));
    }

    /// Things that come down a pipe.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let (small, large) = (jpeg(16), with_preview(&jpeg(40), &jpeg(16)));
        let cut = large.clone();
        prop_oneof![
            Just(small),
            Just(large),
            (0..cut.len()).prop_map(move |length| cut[..length].to_vec()),
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(prop_oneof![Just(0xFF), Just(SOI), Just(EOI), Just(SOS), Just(0)], 0..60),
            "[ -~]{0,80}\r\n".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn any_cutting_into_reads_gives_the_same(
            pieces in proptest::collection::vec(piece(), 0..12),
            sizes in proptest::collection::vec(1usize..700, 0..60),
        ) {
            let stream = pieces.concat();
            prop_assert_eq!(split(&stream, &sizes), split(&stream, &[]));
            let (frames, _) = split(&stream, &vec![1; stream.len()]);
            prop_assert_eq!(&frames, &split(&stream, &[]).0);
            for frame in frames {
                prop_assert!(frame.starts_with(&[0xFF, SOI, 0xFF]) && frame.ends_with(&[0xFF, EOI]));
            }
        }
    }
}
