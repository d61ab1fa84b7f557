//! Agreeing with a driver on format, size and rate.

use super::ioctl::{self, PlaneFormat, Queue};
use super::{Wish, error};
use crate::cameras::device::{CameraError, Mode, PixelFormat};
use std::fs::File;
use std::time::Duration;

/// What the driver will deliver.
pub(super) struct Agreed {
    pub queue: Queue,
    pub mode: Mode,
    /// Memory planes.
    pub planes: Vec<PlaneFormat>,
}

/// Walks the ladder of formats; the first that the driver offers and accepts is taken.
pub(super) fn negotiate(device: &str, file: &File, queue: Queue, wish: &Wish) -> Result<Agreed, CameraError> {
    let offered: Vec<[u8; 4]> =
        (0..).map_while(|index| ioctl::format_at(file, queue, index)).map(|(code, _)| code).collect();
    for rung in PixelFormat::LADDER {
        let mut codes: Vec<_> =
            offered.iter().copied().filter(|&code| PixelFormat::from_fourcc(code) == Some(rung)).collect();
        // One memory plane (NV12) before several (NM12), which would be copied together.
        codes.sort_by_key(|&code| code != rung.fourcc());
        for code in codes {
            let got = ioctl::set_format(file, queue, code, (wish.width, wish.height), PlaneFormat::default())
                .map_err(|failure| error(device, "set format", &failure))?;
            let Some(format) = PixelFormat::from_fourcc(got.fourcc).filter(|&format| format == rung) else { continue };
            let stride = got.planes.first().map_or(0, |plane| plane.stride);
            let mode = Mode {
                format,
                width: got.width,
                height: got.height,
                stride: if format == PixelFormat::Mjpg { 0 } else { stride },
                limited_range: got.limited_range && format != PixelFormat::Mjpg,
                frame_interval: ioctl::frame_interval(file, queue, wish.rate).unwrap_or(Duration::ZERO),
            };
            return Ok(Agreed { queue, mode, planes: got.planes });
        }
    }
    let names: Vec<_> = offered.iter().map(|code| String::from_utf8_lossy(code).into_owned()).collect();
    let offered = if names.is_empty() { "no format".into() } else { names.join(", ") };
    Err(CameraError::NoFormat { device: device.into(), offered })
}
