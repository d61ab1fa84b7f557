//! One picture straight from a camera, without a server: opened and read as the capture thread does it, and encoded in
//! software, because for one picture a hardware encoder is not worth its trial.

use super::device::CameraError;
use super::encode::{Encoded, Encoder};
use super::v4l2::{self, Listing, Place};
use super::{CameraConfig, TEST_PATTERN};
use crate::base::Clock;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a picture is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a stop may take to be seen.
const GLANCE: Duration = Duration::from_millis(200);
/// The first frames of a camera are often dark or green, until its exposure and white balance have settled.
const UNSETTLED: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Camera(#[from] CameraError),
    #[error("no picture was whole: {0}")]
    Damaged(String),
    #[error("stopped before there was a picture")]
    Stopped,
}

/// Takes a picture once `skip` frames have passed, but not more than half of the time is spent on those. Without `skip`
/// as many as a camera of this kind needs.
pub fn snapshot(camera: &CameraConfig, skip: Option<u32>, stop: &AtomicBool) -> Result<Encoded, SnapshotError> {
    let is_v4l2 = !camera.is_test_pattern() && !camera.is_pipe();
    let mut skip = skip.unwrap_or(if is_v4l2 { UNSETTLED } else { 0 });
    let began = Instant::now();
    let mut stream = camera.open(&Place::fixed(&camera.device), &Clock::real()).open()?;
    let mode = stream.mode().clone();
    let failed = |error: super::encode::EncodeError| SnapshotError::Damaged(error.to_string());
    // A file may be of any size.
    let mut encoder = Encoder::new(camera.quality, usize::MAX).map_err(failed)?;
    let mut fault = None;
    while began.elapsed() < PATIENCE {
        if stop.load(Ordering::Relaxed) {
            return Err(SnapshotError::Stopped);
        }
        let Some(frame) = stream.next(GLANCE)? else { continue };
        if frame.corrupt {
            fault = Some("the frames were damaged".to_owned());
        } else if skip > 0 && began.elapsed() < PATIENCE / 2 {
            skip -= 1;
        } else {
            match encoder.encode(&mode, frame.data) {
                Ok(encoded) => return Ok(encoded),
                Err(error) => fault = Some(error.to_string()),
            }
        }
    }
    Err(match fault {
        Some(fault) => SnapshotError::Damaged(fault),
        None => CameraError::Silent { device: camera.name.clone(), seconds: PATIENCE.as_secs() }.into(),
    })
}

/// No camera has this name.
#[derive(Debug)]
pub struct Unknown {
    wanted: String,
    known: Vec<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, known } = self;
        let similar =
            known.iter().map(|name| (strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase()), name));
        let nearest = similar.filter(|(likeness, _)| *likeness > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((_, name)) => write!(f, "no camera has the name {wanted:?}; did you mean {name:?}?"),
            None => {
                write!(f, "no camera has the name {wanted:?}; there are {}, or a device by its path", known.join(", "))
            }
        }
    }
}

/// The camera that is meant: of the configuration, by the path of its device, the test pattern, or one that is found.
pub fn find(wanted: &str, configured: &[CameraConfig]) -> Result<CameraConfig, Unknown> {
    if let Some(camera) = configured.iter().find(|camera| camera.name == wanted) {
        return Ok(camera.clone());
    }
    if wanted == TEST_PATTERN {
        return Ok(CameraConfig::plain(wanted.into(), wanted.into()));
    }
    if wanted.contains('/') {
        let name = Path::new(wanted).file_name().unwrap_or_default().to_string_lossy();
        return Ok(CameraConfig::plain(name.into(), wanted.into()));
    }
    let found = v4l2::list().into_iter().filter_map(|node| match node.listing {
        Listing::Camera { name, .. } => Some((name, node.path)),
        _ => None,
    });
    let mut known: Vec<_> = configured.iter().map(|camera| camera.name.clone()).collect();
    for (name, path) in found {
        // The later of two that cannot be told apart has its node's name behind it, as in the server.
        let node = path.file_name().unwrap_or_default().to_string_lossy();
        let name = if known.contains(&name) { format!("{name} {node}") } else { name };
        if name == wanted {
            return Ok(CameraConfig::plain(name, path));
        }
        known.push(name);
    }
    known.push(TEST_PATTERN.into());
    Err(Unknown { wanted: wanted.into(), known })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(script: &str) -> CameraConfig {
        toml::from_str(&format!("name = 'line1'\ndevice = 'pipe'\ncommand = ['sh', '-c', '{script}']")).unwrap()
    }

    #[test]
    fn a_name_is_of_the_configuration_or_found_or_a_path() {
        let configured = [pipe("")];
        let find = |wanted| find(wanted, &configured);
        assert!(find("line1").unwrap().is_pipe());
        assert!(find("test-pattern").unwrap().is_test_pattern());
        let by_path = find("/dev/video77").unwrap();
        assert_eq!((&*by_path.name, by_path.device.to_str()), ("video77", Some("/dev/video77")));
        let said = |wanted| find(wanted).unwrap_err().to_string();
        assert_eq!(said("Lin1"), "no camera has the name \"Lin1\"; did you mean \"line1\"?");
        let other = said("xyz");
        assert!(other.contains("there are line1, ") && other.contains("test-pattern"), "{other}");
    }

    #[test]
    fn a_picture_is_taken_after_those_that_were_skipped() {
        let folder = tempfile::tempdir().unwrap();
        for (name, width) in [("a", 16), ("b", 32)] {
            let image = turbojpeg::Image::mandelbrot(width, 16, turbojpeg::PixelFormat::RGB);
            let jpeg = turbojpeg::compress(image.as_deref(), 80, turbojpeg::Subsamp::Sub2x2).unwrap();
            std::fs::write(folder.path().join(name), &jpeg).unwrap();
        }
        let script =
            format!("cd {}; cat a; sleep 0.1; cat a; while sleep 0.1; do cat b; done", folder.path().display());
        let take = |skip| snapshot(&pipe(&script), skip, &AtomicBool::new(false)).unwrap().width;
        assert_eq!((take(None), take(Some(2))), (16, 32));
    }

    #[test]
    fn why_there_is_none_is_said() {
        let stop = AtomicBool::new(false);
        let error = snapshot(&pipe("echo no camera >&2; exit 3"), None, &stop).unwrap_err();
        assert_eq!(error.to_string(), "`sh` ended with status 3: no camera");
        stop.store(true, Ordering::Relaxed);
        let error = snapshot(&find("test-pattern", &[]).unwrap(), None, &stop).unwrap_err();
        assert_eq!(error.to_string(), "stopped before there was a picture");
    }
}
