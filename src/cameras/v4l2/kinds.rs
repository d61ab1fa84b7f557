//! Telling nodes apart: what is a camera, what only looks like one, and what is a sensor without the processing that
//! makes pictures of it.
//!
//! Capabilities tell most of it. Image signal processors are the exception: their outputs are capture nodes as any
//! camera's, but without libcamera nobody feeds them.

use super::ioctl::{Capability, Queue};
use std::path::Path;

/// Capture nodes that are no cameras: driver (its beginning), name of the node in sysfs (its beginning), what it is.
const NO_CAMERAS: &[(&str, &str, &str)] = &[
    ("bcm2835-isp", "", "an image signal processor, which libcamera drives"),
    ("pispbe", "", "an image signal processor, which libcamera drives"),
    ("ipu3-imgu", "", "an image signal processor, which libcamera drives"),
    // Of the Raspberry Pi 5's receiver, channel 0 has the sensor's picture.
    ("rp1-cfe", "rp1-cfe-csi2_ch1", "a further channel of a CSI-2 receiver"),
    ("rp1-cfe", "rp1-cfe-csi2_ch2", "a further channel of a CSI-2 receiver"),
    ("rp1-cfe", "rp1-cfe-csi2_ch3", "a further channel of a CSI-2 receiver"),
    ("rp1-cfe", "rp1-cfe-fe_", "the front end of an image signal processor, which libcamera drives"),
    // Rockchip's own kernels.
    ("rkisp", "rkisp_raw", "the raw side of an image signal processor"),
];

/// The queue that a camera's pictures come from, or what the node is instead.
pub(super) fn camera_queue(found: &Capability, path: &Path) -> Result<Queue, &'static str> {
    let queue = found.capture_queue().ok_or_else(|| found.kind())?;
    let name = name(path).unwrap_or_default();
    let entry = NO_CAMERAS.iter().find(|(driver, node, _)| found.driver.starts_with(driver) && name.starts_with(node));
    entry.map_or(Ok(queue), |(.., what)| Err(what))
}

/// What the driver calls the node, which says more than the card when one device has several.
fn name(path: &Path) -> Option<String> {
    let node = path.canonicalize().ok()?;
    let name = Path::new("/sys/class/video4linux").join(node.file_name()?).join("name");
    Some(std::fs::read_to_string(name).ok()?.trim().to_owned())
}

/// A sensor's raw mosaic of red, green and blue samples (Documentation/userspace-api/media/v4l/pixfmt-bayer.rst and
/// the pixfmt-srggb*.rst), in plain, packed and compressed variants. Pictures from it need an ISP.
pub(super) fn is_bayer(fourcc: [u8; 4]) -> bool {
    match &fourcc {
        b"BA81" | b"GBRG" | b"GRBG" | b"RGGB" | b"BYR2" => true,
        // BG10, GB12, BA14, RG16, GR16; but RG24 and BA24 are RGB.
        [b'B', b'A' | b'G', b'1', b'0' | b'2' | b'4' | b'6'] => true,
        [b'G', b'B' | b'R', b'1', b'0' | b'2' | b'4' | b'6'] => true,
        [b'R', b'G', b'1', b'0' | b'2' | b'4' | b'6'] => true,
        // MIPI-packed pBAA, pgCC, pREE; A-law and DPCM aBA8, bRA8; Intel's ip3b.
        [b'p', b'B' | b'G' | b'g' | b'R', b'A' | b'C' | b'E', b'A' | b'C' | b'E'] => true,
        [b'a' | b'b', b'B' | b'G' | b'g' | b'R', b'A', b'8'] | b"BD10" => true,
        [b'i', b'p', b'3', _] => true,
        // The Raspberry Pi 5's compressed PC1R, PC2g.
        [b'P', b'C', b'1' | b'2', b'B' | b'G' | b'g' | b'R'] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v4l::v4l_sys as sys;

    fn node(driver: &str, flags: u32) -> Result<Queue, &'static str> {
        let found = Capability { driver: driver.into(), card: String::new(), bus: String::new(), flags };
        camera_queue(&found, Path::new("/dev/none"))
    }

    #[test]
    fn capabilities_tell_cameras_from_the_rest() {
        let streaming = sys::V4L2_CAP_STREAMING;
        let capture = streaming | sys::V4L2_CAP_VIDEO_CAPTURE;
        assert_eq!(node("uvcvideo", capture), Ok(Queue::Capture));
        assert_eq!(node("mxc-isi", streaming | sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE), Ok(Queue::CaptureMplane));
        // A capture card's node has a tuner as well.
        assert_eq!(node("bttv", capture | sys::V4L2_CAP_TUNER), Ok(Queue::Capture));
        for (flags, what) in [
            (capture | sys::V4L2_CAP_TOUCH, "touch panel"),
            (streaming | sys::V4L2_CAP_META_CAPTURE, "metadata of a camera"),
            (streaming | sys::V4L2_CAP_VIDEO_OUTPUT, "video output"),
            (streaming | sys::V4L2_CAP_VIDEO_M2M_MPLANE, "memory-to-memory device (encoder, decoder or scaler)"),
            (streaming | sys::V4L2_CAP_VBI_CAPTURE, "teletext (VBI)"),
            (sys::V4L2_CAP_RADIO | sys::V4L2_CAP_TUNER, "radio"),
            (sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_READWRITE, "video capture without streaming"),
        ] {
            assert_eq!(node("any", flags), Err(what));
        }
        assert!(node("bcm2835-isp", capture).is_err_and(|what| what.contains("image signal processor")));
        // The nodes of these that matter have other names.
        assert_eq!([node("rp1-cfe", capture), node("rkisp_v6", capture)], [Ok(Queue::Capture); 2]);
    }

    #[test]
    fn raw_sensor_data_is_known_by_its_code() {
        for code in [b"pBAA", b"pgCC", b"RG10", b"BA81", b"BG12", b"GR16", b"BYR2", b"bBA8", b"PC1R"] {
            assert!(is_bayer(*code), "{}", String::from_utf8_lossy(code));
        }
        for code in [b"YUYV", b"RGB3", b"BA24", b"RG24", b"GR24", b"pal8", b"GREY", b"H264", b"RGBP"] {
            assert!(!is_bayer(*code), "{}", String::from_utf8_lossy(code));
        }
    }
}
