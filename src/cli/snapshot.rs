//! `vedette snapshot`: one picture straight from a camera.

use crate::app;
use crate::cameras::{self, CameraConfig, CameraError, SnapshotError};
use rustix::fs::FileType;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A name of the configuration or of `vedette cameras`, a device by its path, or "test-pattern".
    camera: String,
    /// Where the picture goes; "-" is the standard output. Default: the standard output if that is a pipe or a file,
    /// else CAMERA.jpg in this folder.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The configuration file that may know the camera. Default: /etc/vedette/vedette.toml if there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The size to ask the camera for; it takes the nearest it has. Default: as configured, else 1280x720.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    size: Option<(u32, u32)>,
    /// Of the JPEG, 1 to 100, unless the camera makes it. Default: as configured, else 80.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: Option<u8>,
    /// Frames to let pass first, while exposure and white balance settle. Default: 5 of a V4L2 camera, else 0.
    #[arg(long, value_name = "N")]
    skip: Option<u32>,
}

enum Output {
    Stdout,
    File(PathBuf),
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (camera, output) = match prepare(arguments) {
        Ok(prepared) => prepared,
        Err(fault) => return super::complain(super::WRONG, &fault),
    };
    match take(camera, arguments.skip, arguments.size, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => super::complain(super::FAILED, &fault),
    }
}

/// What is meant, or what is wrong with the command line.
fn prepare(arguments: &Arguments) -> Result<(CameraConfig, Output), String> {
    let configured = configured(arguments)?;
    let mut camera = cameras::find(&arguments.camera, &configured).map_err(|unknown| unknown.to_string())?;
    if let Some(size) = arguments.size {
        if camera.command.is_some() {
            return Err("--size: the size of a pipe camera's pictures is set in its command".into());
        }
        (camera.width, camera.height) = size;
    }
    camera.quality = arguments.quality.unwrap_or(camera.quality);
    let is_stdout = match &arguments.output {
        Some(path) => path.as_os_str() == "-",
        None => is_pipe_or_file(io::stdout()),
    };
    let output = match (is_stdout, &arguments.output) {
        (true, _) if io::stdout().is_terminal() => {
            return Err("-o -: a terminal cannot show a JPEG; name a file, or lead the output into one".into());
        }
        (true, _) => Output::Stdout,
        (false, Some(path)) => Output::File(path.clone()),
        (false, None) => Output::File(format!("{}.jpg", camera.name).into()),
    };
    Ok((camera, output))
}

/// The cameras of the configuration; none if there is no configuration, or none is needed to know what is meant.
fn configured(arguments: &Arguments) -> Result<Vec<CameraConfig>, String> {
    let default = Path::new(super::DEFAULT_CONFIG);
    let is_plain = arguments.camera.contains('/') || arguments.camera == "test-pattern";
    let file = match &arguments.config {
        Some(file) => file,
        None if default.exists() && !is_plain => default,
        None => return Ok(Vec::new()),
    };
    app::cameras(file).map_err(|faults| faults.to_string())
}

fn take(camera: CameraConfig, skip: Option<u32>, asked: Option<(u32, u32)>, output: &Output) -> Result<(), String> {
    let picture = interruptible(move |stop| cameras::snapshot(&camera, skip, stop)).map_err(|error| match error {
        SnapshotError::Camera(error @ CameraError::Busy { .. }) => {
            format!("{error}; if that is the running vedette, read the picture over OPC UA")
        }
        SnapshotError::Camera(error @ CameraError::Missing { .. }) => {
            format!("{error}; `vedette cameras` lists what there is")
        }
        error => error.to_string(),
    })?;
    let cannot = |what: &str, error: io::Error| format!("cannot write {what}: {error}");
    match output {
        Output::Stdout => io::stdout().write_all(&picture.jpeg).map_err(|error| cannot("the picture", error)),
        Output::File(path) => {
            let shown = path.display().to_string();
            std::fs::write(path, &picture.jpeg).map_err(|error| cannot(&shown, error))?;
            let size = (picture.width, picture.height);
            let other = if asked.is_some_and(|asked| asked != size) { ", the nearest the camera has" } else { "" };
            let bytes = picture.jpeg.len();
            // Not worth failing for if nobody listens.
            let _ = writeln!(io::stdout(), "{shown}: {}x{}{other}, {bytes} bytes", size.0, size.1);
            Ok(())
        }
    }
}

/// Runs `work` so that SIGINT and SIGTERM let it end by itself, which ends the program of a pipe camera as well.
fn interruptible<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    let failed = |error: io::Error| CameraError::Failed {
        device: "vedette".into(),
        operation: "listen for signals",
        reason: error.to_string(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let seen = stop.clone();
        let mut work = tokio::task::spawn_blocking(move || work(&seen));
        let done = tokio::select! {
            done = &mut work => done,
            _ = async { tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} } } => {
                stop.store(true, Ordering::Relaxed);
                work.await
            }
        };
        done.unwrap_or_else(|panic| Err(SnapshotError::Damaged(panic.to_string())))
    })
}

fn is_pipe_or_file(stdout: io::Stdout) -> bool {
    let kind = rustix::fs::fstat(stdout).map(|found| FileType::from_raw_mode(found.st_mode));
    matches!(kind, Ok(FileType::Fifo | FileType::RegularFile | FileType::Socket))
}

/// `1280x720`
fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once(['x', 'X']).and_then(|(width, height)| {
        let side = |text: &str| text.parse().ok().filter(|side| (16..=16384).contains(side));
        Some((side(width)?, side(height)?))
    });
    parsed.ok_or_else(|| "write width and height in pixels, 16 to 16384, as in 1280x720".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_two_numbers() {
        assert_eq!(size("640x480"), Ok((640, 480)));
        for text in ["", "640", "640x", "x480", "640x480x3", "8x8", "20000x480", "-640x480", "640*480"] {
            assert!(size(text).unwrap_err().contains("1280x720"), "{text}");
        }
    }
}
