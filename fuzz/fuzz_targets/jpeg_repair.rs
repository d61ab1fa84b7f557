//! What the repair of Motion JPEG lets through is taken by libjpeg, from start to end of image, and is not changed by being
//! repaired again.
//!
//! The module is compiled in alone: the whole program would take minutes to build and is no part of what is tried.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};

#[allow(dead_code, reason = "a part of it is for those who decode")]
#[path = "../../src/cameras/jpeg/mod.rs"]
mod jpeg;

/// JWRN_* in libjpeg-turbo's jerror.h: it decodes all the same.
const WARNINGS: [&str; 6] = [
    "Corrupt JPEG data",
    "Inconsistent progression sequence",
    "Invalid SOS parameters for sequential JPEG",
    "Unknown Adobe color transform code",
    "Warning: unknown JFIF revision number",
    "Premature end of JPEG file",
];

fn decode(data: &[u8], width: usize, height: usize) -> turbojpeg::Result<()> {
    thread_local! {
        static READER: RefCell<(Decompressor, Vec<u8>)> = {
            let mut reader = Decompressor::new().expect("a decompressor");
            reader.set_scaling_factor(ScalingFactor::ONE_EIGHTH).expect("a scale that it has");
            RefCell::new((reader, Vec::new()))
        };
    }
    READER.with_borrow_mut(|(reader, pixels)| {
        let (width, height) = (width.div_ceil(8), height.div_ceil(8));
        pixels.resize(3 * width * height, 0);
        reader.decompress(data, Image { pixels, width, pitch: 3 * width, height, format: PixelFormat::RGB })
    })
}

fuzz_target!(|data: &[u8]| {
    let (mut buffer, mut again) = (Vec::new(), Vec::new());
    let Ok((header, found)) = jpeg::repair(data, &mut buffer) else { return };
    assert!(found.starts_with(&[0xFF, 0xD8]) && found.ends_with(&[0xFF, 0xD9]));
    assert_eq!(jpeg::repair(found, &mut again).map(|(header, jpeg)| (header, jpeg)), Ok((header.clone(), found)));
    assert!((1..=100).contains(&header.quality()));
    if let Err(error) = decode(found, header.width as usize, header.height as usize) {
        let error = error.to_string();
        assert!(WARNINGS.iter().any(|warning| error.contains(warning)), "libjpeg refuses it: {error}");
    }
});
