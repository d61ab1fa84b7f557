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

/// What came of asking a driver for a format, size and rate.
pub(super) enum Attempt<S> {
    Started(S),
    /// It does another format instead.
    OtherFormat,
    /// It agreed to the mode and then did not start.
    Refused(CameraError, Mode),
}

/// The first format of the ladder that the driver accepts and starts, and what people should know about it.
/// `offers` and `none` are asked for only if it comes to that.
pub(super) fn first_that_starts<S>(
    ladder: &[[u8; 4]],
    wish: &Wish,
    mut attempt: impl FnMut([u8; 4], &Wish) -> Result<Attempt<S>, CameraError>,
    offers: impl FnOnce() -> Vec<Offer>,
    none: impl FnOnce() -> CameraError,
) -> Result<(S, String), CameraError> {
    let mut refused = None;
    let mut full = None;
    for &code in ladder {
        match attempt(code, wish)? {
            Attempt::Started(stream) => return Ok((stream, String::new())),
            Attempt::OtherFormat => {}
            // The pipeline before the node has another format than this one; the next may be it.
            Attempt::Refused(error @ CameraError::NeedsIsp { .. }, _) => refused = Some(error),
            Attempt::Refused(error @ CameraError::Bandwidth { .. }, mode) => {
                full = Some((error, mode));
                break;
            }
            Attempt::Refused(error, _) => return Err(error),
        }
    }
    let Some((mut error, wished)) = full else { return Err(refused.unwrap_or_else(none)) };
    for (code, less) in steps_below(&offers(), &wished) {
        match attempt(code, &less)? {
            Attempt::Started(stream) => {
                return Ok((stream, format!("less than {wished}, for which the USB bus has no bandwidth left")));
            }
            Attempt::OtherFormat => {}
            Attempt::Refused(full @ CameraError::Bandwidth { .. }, _) => error = full,
            Attempt::Refused(error, _) => return Err(error),
        }
    }
    Err(error)
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
fn steps_below(offers: &[Offer], refused: &Mode) -> Vec<([u8; 4], Wish)> {
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

    /// A driver with MJPG and YUYV in two sizes at 30 and 10 frames a second, that refuses what `refuse` says.
    fn run(refuse: impl Fn([u8; 4], &Mode) -> Option<CameraError>) -> (Result<(Mode, String), CameraError>, usize) {
        let rates = || vec![30.0, 10.0];
        let sizes = || vec![((1280, 720), rates()), ((320, 180), rates())];
        let offers = || [*b"MJPG", *b"YUYV"].map(|code| Offer { code, sizes: sizes() }).into();
        let mut attempts = 0;
        let attempt = |code, wish: &Wish| {
            attempts += 1;
            let mode = Mode {
                format: PixelFormat::from_fourcc(code).unwrap(),
                width: wish.width,
                height: wish.height,
                stride: 0,
                limited_range: false,
                frame_interval: Duration::from_secs_f64(1.0 / wish.rate.unwrap_or(30.0)),
            };
            Ok(match refuse(code, &mode) {
                Some(error) => Attempt::Refused(error, mode),
                None => Attempt::Started(mode),
            })
        };
        let wish = Wish { width: 1280, height: 720, rate: None, input: None };
        let none = || CameraError::NoFormat { device: "usb".into(), offered: "nothing".into() };
        (first_that_starts(&[*b"MJPG", *b"YUYV"], &wish, attempt, offers, none), attempts)
    }

    fn full(mode: &Mode) -> Option<CameraError> {
        Some(CameraError::Bandwidth { device: "usb".into(), mode: mode.to_string() })
    }

    #[test]
    fn a_stream_that_the_bus_cannot_carry_is_stepped_down_and_it_is_said() {
        let (started, attempts) = run(|_, _| None);
        assert_eq!((started.unwrap().1, attempts), (String::new(), 1));

        let (started, _) = run(|_, mode| if mode.width > 320 { full(mode) } else { None });
        let (mode, remark) = started.unwrap();
        assert_eq!(mode.to_string(), "MJPG 320x180 30 fps");
        assert_eq!(remark, "less than MJPG 1280x720 30 fps, for which the USB bus has no bandwidth left");

        let (started, _) = run(|code, mode| if &code == b"MJPG" { full(mode) } else { None });
        assert_eq!(started.unwrap().0.to_string(), "YUYV 1280x720 30 fps");

        let (failed, attempts) = run(|_, mode| full(mode));
        let error = failed.unwrap_err();
        assert!(error.to_string().starts_with("usb: the USB bus has no bandwidth left for YUYV 320x180"), "{error}");
        assert!(attempts < 10, "{attempts}");
    }

    #[test]
    fn what_is_no_matter_of_bandwidth_ends_the_search() {
        let busy = || Some(CameraError::Busy { device: "usb".into() });
        assert_eq!(run(|_, _| busy()).0.unwrap_err().state(), "in use by another program");
        let (outcome, attempts) =
            run(|_, mode| if mode.frame_interval < Duration::from_millis(50) { full(mode) } else { busy() });
        assert_eq!((outcome.unwrap_err().state(), attempts), ("in use by another program", 2));
    }

    #[test]
    fn a_pipeline_of_another_format_is_looked_for_along_the_ladder() {
        let pipe = || Some(CameraError::NeedsIsp { device: "csi".into(), found: "its media pipeline".into() });
        let (started, _) = run(|code, _| if &code == b"MJPG" { pipe() } else { None });
        assert_eq!(started.unwrap().0.format, PixelFormat::Yuyv);
        assert_eq!(run(|_, _| pipe()).0.unwrap_err().state(), "needs ISP");
    }
}
