//! Motion JPEG as cameras send it, made into JPEGs that any viewer takes, or refused.
//!
//! What is seen in the field, and what is done about it:
//! - no Huffman tables, because AVI's MJPG implies the standard ones (ITU-T T.81, K.3): those that lack are inserted before
//!   the scan;
//! - bytes before the start of the image (a driver's own header) or after its end (padding, or what an earlier, longer frame
//!   left in the buffer): cut;
//! - no end of image, a scan too short for the size that is claimed, restart markers that are missing or out of turn: a
//!   part was lost on the way, and the frame is refused;
//! - segments that contradict each other or T.81: refused, if libjpeg or Pillow would refuse them.
//!
//! walk.rs reads all segments, huffman.rs knows the tables. The entropy-coded data is looked through for markers only:
//! what is damaged within it decodes to a damaged picture, but no viewer refuses it. (difference.rs decodes it.)
//!
//! Nothing is taken on trust, and nothing is allocated but what is inserted into.

mod huffman;
mod walk;

/// What is known about a JPEG without decoding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub width: u32,
    pub height: u32,
    /// The sum of the 64 quantization steps of luma.
    steps: u32,
}

impl Header {
    /// The quality it was encoded with, 1..=100, as libjpeg counts it: the steps of T.81's table K.1, whose sum this is,
    /// times 200 - 2 q percent, and below q = 50 times 5000 / q percent.
    pub fn quality(&self) -> u8 {
        let percent = 100.0 * f64::from(self.steps) / 3688.0;
        let quality = if percent <= 100.0 { 100.0 - percent / 2.0 } else { 5000.0 / percent };
        quality.round().clamp(1.0, 100.0) as u8
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it does not begin with a start of image")]
    NoStart,
    #[error("it ends at byte {0}, within its header")]
    CutHeader(usize),
    #[error("a segment should begin at byte {0}")]
    NoSegment(usize),
    #[error("the marker FF{marker:02X} at byte {at} does not belong there")]
    Misplaced { marker: u8, at: usize },
    #[error("it is coded as SOF{0}, which most viewers cannot read")]
    Coding(u8),
    #[error("its {segment} at byte {at} is wrong: {why}")]
    Bad { segment: &'static str, at: usize, why: &'static str },
    #[error("it has no end of image: the frame is truncated")]
    NoEnd,
    #[error("a restart marker lacks before byte {at}: a part of the frame is lost")]
    Gap { at: usize },
    #[error("{width}x{height} pixels do not fit into a scan of {bytes} bytes: the frame is truncated")]
    Thin { width: u32, height: u32, bytes: usize },
    #[error("it ends before all of its components came: the frame is truncated")]
    Incomplete,
}

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DHT: u8 = 0xC4;

/// The JPEG in `data`, whole and complete; in `buffer` if something had to be inserted.
pub fn repair<'a>(data: &'a [u8], buffer: &'a mut Vec<u8>) -> Result<(Header, &'a [u8]), Fault> {
    let found = walk::walk(data)?;
    if found.lacks.is_empty() {
        return Ok((found.header, &data[found.start..found.end]));
    }
    buffer.clear();
    buffer.extend_from_slice(&data[found.start..found.scan]);
    found.lacks.write(buffer);
    buffer.extend_from_slice(&data[found.scan..found.end]);
    Ok((found.header, buffer))
}

/// libjpeg-turbo reports warnings as errors, after it has decoded all the same. Two are seen with cameras whose pictures are
/// whole: padding before a marker, and a scan header whose spectrum is left zero. The texts are those of its jerror.h.
pub(super) fn unless_harmless(decoded: turbojpeg::Result<()>) -> turbojpeg::Result<()> {
    match decoded {
        Err(turbojpeg::Error::TurboJpegError(text))
            if text.contains("extraneous bytes before marker") || text.contains("Invalid SOS parameters") =>
        {
            Ok(())
        }
        decoded => decoded,
    }
}

#[cfg(test)]
mod tests;
