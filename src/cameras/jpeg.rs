//! Motion JPEG as cameras send it, made into JPEGs that any viewer takes.
//!
//! What is seen in the field, and what is done about it:
//! - no Huffman tables, because AVI's MJPG implies the standard ones (ITU-T T.81, K.3): inserted before the scan;
//! - bytes after the end of the image, padding mostly: cut;
//! - no end of image, or no start: the frame is truncated or not a JPEG, and is refused.
//!
//! The parser walks the marker segments up to the scan (T.81, B.1) and takes nothing on trust: every length is
//! checked against what is there.

use std::borrow::Cow;

/// What is known about a JPEG without decoding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub width: u32,
    pub height: u32,
    has_huffman_tables: bool,
    /// Where the SOS marker stands.
    scan: usize,
    /// Behind the EOI marker.
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it does not begin with a start of image")]
    NoStart,
    #[error("it ends at byte {0}, within its header")]
    CutHeader(usize),
    #[error("its header is damaged at byte {0}")]
    Damaged(usize),
    #[error("it has no frame header before its scan")]
    NoFrameHeader,
    #[error("it has no end of image: the frame is truncated")]
    NoEnd,
}

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DHT: u8 = 0xC4;

/// Reads the header and finds the end.
pub fn inspect(data: &[u8]) -> Result<Header, Fault> {
    if data.first_chunk() != Some(&[0xFF, SOI]) {
        return Err(Fault::NoStart);
    }
    let (mut size, mut has_huffman_tables) = (None, false);
    let mut at = 2;
    loop {
        let [prefix, marker, high, low] = *data[at..].first_chunk().ok_or(Fault::CutHeader(data.len()))?;
        if prefix != 0xFF {
            return Err(Fault::Damaged(at));
        }
        if marker == 0xFF {
            // Fill bytes before a marker are allowed (T.81, B.1.1.2).
            at += 1;
            continue;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 2 || matches!(marker, 0x00 | SOI | EOI | 0xD0..=0xD7) {
            return Err(Fault::Damaged(at));
        }
        let segment = data.get(at + 4..at + 2 + length).ok_or(Fault::CutHeader(data.len()))?;
        match marker {
            SOS => break,
            DHT => has_huffman_tables = true,
            // Every start of frame: C0..CF without DHT, JPG and DAC. Precision, height, width.
            0xC0..=0xCF if marker != 0xC8 && marker != 0xCC => {
                let [_, h1, h0, w1, w0] = *segment.first_chunk().ok_or(Fault::Damaged(at))?;
                size = Some((u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])));
            }
            _ => {}
        }
        at += 2 + length;
    }
    let (width, height) = size.filter(|&(w, h)| w > 0 && h > 0).ok_or(Fault::NoFrameHeader)?;
    // Within the scan, FF is followed by 00 or a restart marker, so the first FF D9 is the end; what follows is padding,
    // or what an earlier, longer frame left in the buffer.
    let end = data[at..].windows(2).position(|pair| pair == [0xFF, EOI]).ok_or(Fault::NoEnd)?;
    Ok(Header { width: width.into(), height: height.into(), has_huffman_tables, scan: at, end: at + end + 2 })
}

/// The JPEG in `data`, whole and complete; borrowed if nothing had to be inserted.
pub fn repair(data: &[u8]) -> Result<(Header, Cow<'_, [u8]>), Fault> {
    let header = inspect(data)?;
    let jpeg = if header.has_huffman_tables {
        Cow::Borrowed(&data[..header.end])
    } else {
        let (before, scan) = data[..header.end].split_at(header.scan);
        Cow::Owned([before, &standard_huffman_tables(), scan].concat())
    };
    Ok((header, jpeg))
}

/// One DHT segment with the four tables of ITU-T T.81, K.3.3.
fn standard_huffman_tables() -> Vec<u8> {
    let mut segment = vec![0xFF, DHT, 0, 0];
    for (class_and_id, counts, symbols) in [
        (0x00, &DC_LUMA, &DC[..]),
        (0x10, &AC_LUMA_COUNTS, &AC_LUMA),
        (0x01, &DC_CHROMA, &DC),
        (0x11, &AC_CHROMA_COUNTS, &AC_CHROMA),
    ] {
        segment.push(class_and_id);
        segment.extend_from_slice(counts);
        segment.extend_from_slice(symbols);
    }
    let length = u16::try_from(segment.len() - 2).expect("the tables have 418 bytes");
    segment[2..4].copy_from_slice(&length.to_be_bytes());
    segment
}

// T.81, tables K.3 to K.6: for each code length 1..=16 how many codes, then the symbols in order.
const DC: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const DC_LUMA: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_CHROMA: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
const AC_LUMA_COUNTS: [u8; 16] = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D];
const AC_CHROMA_COUNTS: [u8; 16] = [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77];
#[rustfmt::skip]
const AC_LUMA: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
    0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0, 0x24, 0x33, 0x62, 0x72,
    0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x34, 0x35, 0x36, 0x37,
    0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
    0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3,
    0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
    0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
    0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
];
#[rustfmt::skip]
const AC_CHROMA: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
    0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0, 0x15, 0x62, 0x72, 0xD1,
    0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x35, 0x36,
    0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
    0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A,
    0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A,
    0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA,
    0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
    0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A picture with something in every block, encoded by libjpeg-turbo with the standard tables.
    fn sample() -> Vec<u8> {
        let image = turbojpeg::Image::mandelbrot(96, 64, turbojpeg::PixelFormat::RGB);
        turbojpeg::compress(image.as_deref(), 80, turbojpeg::Subsamp::Sub2x1).unwrap().to_vec()
    }

    fn pixels(jpeg: &[u8]) -> Vec<u8> {
        turbojpeg::decompress(jpeg, turbojpeg::PixelFormat::RGB).unwrap().pixels
    }

    /// Removes every DHT segment, as an AVI camera would.
    fn without_tables(jpeg: &[u8]) -> Vec<u8> {
        let mut out = jpeg[..2].to_vec();
        let mut at = 2;
        while jpeg[at + 1] != SOS {
            let next = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
            if jpeg[at + 1] != DHT {
                out.extend_from_slice(&jpeg[at..next]);
            }
            at = next;
        }
        out.extend_from_slice(&jpeg[at..]);
        out
    }

    #[test]
    fn a_whole_jpeg_passes_untouched() {
        let jpeg = sample();
        let (header, repaired) = repair(&jpeg).unwrap();
        assert_eq!((header.width, header.height), (96, 64));
        assert!(matches!(repaired, Cow::Borrowed(_)));
        assert_eq!(*repaired, *jpeg);
    }

    #[test]
    fn missing_tables_are_inserted_and_the_picture_is_the_same() {
        let jpeg = sample();
        let bare = without_tables(&jpeg);
        assert!(bare.len() < jpeg.len());
        assert!(turbojpeg::decompress(&bare, turbojpeg::PixelFormat::RGB).is_err() || pixels(&bare) == pixels(&jpeg));
        let (_, repaired) = repair(&bare).unwrap();
        assert_eq!(pixels(&repaired), pixels(&jpeg));
        assert!(inspect(&repaired).unwrap().has_huffman_tables);
    }

    #[test]
    fn padding_is_cut() {
        let jpeg = sample();
        let padded = [&jpeg[..], &[0; 100]].concat();
        assert_eq!(*repair(&padded).unwrap().1, *jpeg);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let jpeg = sample();
        assert_eq!(repair(&[]), Err(Fault::NoStart));
        assert_eq!(repair(b"\x89PNG"), Err(Fault::NoStart));
        assert_eq!(repair(&jpeg[..jpeg.len() - 2]), Err(Fault::NoEnd));
        assert_eq!(repair(&jpeg[..10]), Err(Fault::CutHeader(10)));
        let mut damaged = jpeg.clone();
        damaged[2] = 0;
        assert_eq!(repair(&damaged), Err(Fault::Damaged(2)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = repair(&data);
        }

        #[test]
        fn nor_does_a_damaged_jpeg(at in 0usize..1000, byte: u8, cut in 0usize..4000) {
            let mut jpeg = sample();
            let length = jpeg.len();
            jpeg[at % length] = byte;
            jpeg.truncate(cut.max(1));
            if let Ok((_, repaired)) = repair(&jpeg) {
                prop_assert!(repaired.starts_with(&[0xFF, SOI]) && repaired.ends_with(&[0xFF, EOI]));
            }
        }
    }
}
