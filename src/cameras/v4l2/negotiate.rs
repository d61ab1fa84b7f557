//! Agreeing with a driver on format, size and rate, and going down from there if the bus is full.

use super::ioctl::{self, PlaneFormat, Queue, Sizes};
use super::{Wish, error, kinds};
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

/// All that the driver offers, in its order.
pub(super) fn offered(file: &File, queue: Queue) -> Vec<[u8; 4]> {
    (0..).map_while(|index| ioctl::format_at(file, queue, index)).map(|(code, _)| code).collect()
}

/// The formats among them that can become pictures, in the order of the ladder.
pub(super) fn ladder(offered: &[[u8; 4]]) -> Vec<[u8; 4]> {
    let of_rung = |rung: PixelFormat| {
        let mut codes: Vec<_> =
            offered.iter().copied().filter(|&code| PixelFormat::from_fourcc(code) == Some(rung)).collect();
        // One memory plane (NV12) before several (NM12), which would be copied together.
        codes.sort_by_key(|&code| code != rung.fourcc());
        codes
    };
    PixelFormat::LADDER.into_iter().flat_map(of_rung).collect()
}

/// Why there is nothing on the ladder.
pub(super) fn nothing_usable(device: &str, offered: &[[u8; 4]]) -> CameraError {
    let device = device.to_owned();
    let names: Vec<_> = offered.iter().map(|code| String::from_utf8_lossy(code).trim_end().to_owned()).collect();
    let list = names.join(", ");
    match offered {
        [] => CameraError::NoFormat { device, offered: "no format".into() },
        _ if offered.iter().any(|&code| kinds::is_bayer(code)) => {
            CameraError::NeedsIsp { device, found: format!("it gives only a sensor's raw data ({list})") }
        }
        _ => CameraError::NoFormat { device, offered: list },
    }
}

/// Agrees on a format and on the nearest to the wished size and rate; `None` if the driver insists on another format.
pub(super) fn agree(
    device: &str,
    file: &File,
    queue: Queue,
    code: [u8; 4],
    wish: &Wish,
) -> Result<Option<Agreed>, CameraError> {
    let got = ioctl::set_format(file, queue, code, (wish.width, wish.height), PlaneFormat::default())
        .map_err(|failure| error(device, "set format", &failure))?;
    let wanted = PixelFormat::from_fourcc(code);
    let Some(format) = wanted.filter(|_| PixelFormat::from_fourcc(got.fourcc) == wanted) else { return Ok(None) };
    let is_raw = format != PixelFormat::Mjpg;
    let stride = got.planes.first().map_or(0, |plane| plane.stride);
    let mode = Mode {
        format,
        width: got.width,
        height: got.height,
        stride: if is_raw { stride } else { 0 },
        limited_range: is_raw && got.limited_range,
        frame_interval: ioctl::frame_interval(file, queue, wish.rate).unwrap_or(Duration::ZERO),
    };
    Ok(Some(Agreed { queue, mode, planes: got.planes }))
}

/// A format with the sizes and rates (frames a second, may be none) that the driver lists for it.
pub(super) struct Offer {
    pub code: [u8; 4],
    pub sizes: Vec<((u32, u32), Vec<f64>)>,
}

pub(super) fn offers(file: &File, codes: &[[u8; 4]]) -> Vec<Offer> {
    let of = |&code: &[u8; 4]| {
        let spans = (0..).map_while(|index| ioctl::size_at(file, code, index));
        // Cameras on USB, which is where this is wanted, list their sizes one by one.
        let sizes = spans.filter_map(|span| if let Sizes::One(size) = span { Some(size) } else { None });
        let with_rates = |size| {
            let intervals = (0..).map_while(|index| ioctl::interval_at(file, code, size, index));
            let rates = intervals.filter(|interval| !interval.is_zero()).map(|interval| 1.0 / interval.as_secs_f64());
            (size, rates.collect())
        };
        Offer { code, sizes: sizes.map(with_rates).collect() }
    };
    codes.iter().map(of).collect()
}

/// A size without a list of rates is taken to run at this one.
const ASSUMED_RATE: f64 = 30.0;

/// What to try when the bus has no bandwidth left for `refused`: in its own format first, then in those below it on
/// the ladder. Size matters more than rate, so a size is given up only when its lowest rate is too much; and each step
/// halves the load at least, so that there are few of them.
pub(super) fn steps_below(offers: &[Offer], refused: &Mode) -> Vec<([u8; 4], Wish)> {
    let mut steps = Vec::new();
    let rung = |format| PixelFormat::LADDER.iter().position(|&other| Some(other) == format);
    for offer in offers {
        let format = PixelFormat::from_fourcc(offer.code);
        if rung(format) < rung(Some(refused.format)) {
            continue;
        }
        let load = |(width, height): (u32, u32), rate: f64| f64::from(width) * f64::from(height) * rate;
        let mut last = f64::INFINITY;
        if format == Some(refused.format) {
            let interval = refused.frame_interval;
            let rate = if interval.is_zero() { ASSUMED_RATE } else { 1.0 / interval.as_secs_f64() };
            last = load((refused.width, refused.height), rate);
        }
        let mut sizes: Vec<_> = offer.sizes.iter().collect();
        sizes.retain(|((width, height), _)| *width <= refused.width && *height <= refused.height);
        sizes.sort_by_key(|((width, height), _)| std::cmp::Reverse(u64::from(*width) * u64::from(*height)));
        for &(size, ref rates) in sizes {
            let mut rates: Vec<_> = rates.iter().map(|&rate| Some(rate)).collect();
            rates.sort_by(|a, b| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal));
            if rates.is_empty() {
                rates.push(None);
            }
            for rate in rates {
                let next = load(size, rate.unwrap_or(ASSUMED_RATE));
                if next <= last / 2.0 {
                    last = next;
                    steps.push((offer.code, Wish { width: size.0, height: size.1, rate, input: None }));
                }
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_memory_plane_goes_before_several_and_quality_before_all() {
        let offered = [*b"NM12", *b"RG10", *b"NV12", *b"UYVY", *b"JPEG"];
        assert_eq!(ladder(&offered), [*b"JPEG", *b"UYVY", *b"NV12", *b"NM12"]);
        assert!(ladder(&[*b"RG10"]).is_empty());
    }

    #[test]
    fn only_raw_sensor_data_is_said_to_need_an_isp() {
        let error = nothing_usable("/dev/video0", &[*b"pBAA", *b"RG10"]);
        assert_eq!(error.state(), "needs ISP");
        assert_eq!(
            error.to_string(),
            "/dev/video0 needs an ISP: it gives only a sensor's raw data (pBAA, RG10); use a `pipe` camera with \
             `rpicam-vid --codec mjpeg -o -`, see README"
        );
        assert_eq!(nothing_usable("/dev/video0", &[*b"H264"]).state(), "not supported");
    }

    #[test]
    fn a_full_bus_is_met_by_the_rate_first_then_the_size_then_the_format() {
        let offers = [
            Offer { code: *b"MJPG", sizes: vec![((1280, 720), vec![30.0, 25.0, 10.0]), ((640, 360), vec![30.0, 5.0])] },
            Offer {
                code: *b"YUYV",
                sizes: vec![((1920, 1080), vec![5.0]), ((640, 360), vec![15.0]), ((320, 180), vec![])],
            },
        ];
        let mode = |format, fps: f64| Mode {
            format,
            width: 1280,
            height: 720,
            stride: 0,
            limited_range: false,
            frame_interval: Duration::from_secs_f64(1.0 / fps),
        };
        let steps = |refused: &Mode| -> Vec<String> {
            let steps = steps_below(&offers, refused).into_iter();
            let text = |(code, Wish { width, height, rate, .. }): ([u8; 4], Wish)| {
                format!("{} {width}x{height} {rate:?}", String::from_utf8_lossy(&code))
            };
            steps.map(text).collect()
        };
        assert_eq!(
            steps(&mode(PixelFormat::Mjpg, 30.0)),
            ["MJPG 1280x720 Some(10.0)", "MJPG 640x360 Some(5.0)", "YUYV 640x360 Some(15.0)", "YUYV 320x180 None"]
        );
        // From YUYV there is no way back to a format above it.
        assert_eq!(steps(&mode(PixelFormat::Yuyv, 10.0)), ["YUYV 640x360 Some(15.0)", "YUYV 320x180 None"]);
    }
}
