//! One image of a camera, encoded.

use super::Timestamp;
use bytes::Bytes;

/// A JPEG as a sink hands it out. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// A complete JFIF/EXIF stream, SOI to EOI.
    pub jpeg: Bytes,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Counts the frames that the camera captured since its stream started; gaps are frames nobody asked for.
    pub sequence: u64,
    /// When the frame was captured (not when it was encoded).
    pub captured: Timestamp,
}
