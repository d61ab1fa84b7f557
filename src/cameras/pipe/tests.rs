//! With real programs.

use super::*;
use crate::cameras::encode::Encoder;
use std::path::{Path, PathBuf};

/// A busy machine is no fault of the program.
const PATIENCE: Duration = Duration::from_secs(20);

fn jpeg(width: usize) -> Vec<u8> {
    let image = turbojpeg::Image::mandelbrot(width, 16, turbojpeg::PixelFormat::RGB);
    turbojpeg::compress(image.as_deref(), 80, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
}

/// JPEGs in files named 1, 2, 3 ... by which `sh` can write them.
fn files(count: usize) -> (tempfile::TempDir, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<_> = (1..=count).map(|index| jpeg(16 * index)).collect();
    for (index, frame) in frames.iter().enumerate() {
        std::fs::write(folder.path().join((index + 1).to_string()), frame).unwrap();
    }
    (folder, frames)
}

fn camera(text: &str) -> CameraConfig {
    toml::from_str(&format!("name = 'a'\ndevice = 'pipe'\n{text}")).unwrap()
}

fn run(command: &[&str]) -> Result<PipeStream, CameraError> {
    let device = PipeDevice::new(&camera(&format!("command = {command:?}")));
    PipeStream::start(&device.command, device.mode)
}

fn shell(folder: &Path, script: &str) -> PipeStream {
    run(&["sh", "-c", &format!("cd {}; {script}", folder.display())]).unwrap()
}

/// The frames up to the error that ends them; only those whose bytes came.
fn frames_and_end(stream: &mut PipeStream) -> (Vec<(u32, Vec<u8>)>, CameraError) {
    let mut frames = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "it never ends");
        match stream.next(Duration::from_millis(100)) {
            Ok(Some(frame)) if !frame.corrupt => frames.push((frame.sequence, frame.data.to_vec())),
            Ok(_) => {}
            Err(error) => return (frames, error),
        }
    }
}

fn end_of(command: &[&str]) -> String {
    frames_and_end(&mut run(command).unwrap()).1.to_string()
}

/// Zombies have ended.
fn is_running(id: &str) -> bool {
    std::fs::read_to_string(PathBuf::from(format!("/proc/{id}/stat")))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// The kernel takes its time with what was killed.
fn assert_ends(id: &str) {
    let deadline = Instant::now() + PATIENCE;
    while is_running(id) {
        assert!(Instant::now() < deadline, "process {id} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The number that the program says on stderr.
fn said(stream: &mut PipeStream) -> String {
    let deadline = Instant::now() + PATIENCE;
    while stream.process.last_words().is_empty() {
        assert!(Instant::now() < deadline, "it never says a word");
        stream.next(Duration::from_millis(10)).unwrap();
    }
    stream.process.last_words().to_owned()
}

#[test]
fn a_slow_program_gives_every_frame_and_a_reason_at_its_end() {
    let (folder, frames) = files(3);
    // The second in two parts, each after the one before was taken.
    let script = "go() { until [ -e go$1 ]; do sleep 0.02; done; }
                  cat 1; go 1; head -c 100 2; sleep 0.1; tail -c +101 2; go 2; cat 3; go 3; exit 3";
    let mut stream = shell(folder.path(), script);
    for (index, frame) in (1..).zip(frames) {
        let got = stream.next(PATIENCE).unwrap().unwrap();
        assert_eq!((got.sequence, got.data, got.corrupt), (index, &*frame, false));
        std::fs::write(folder.path().join(format!("go{index}")), "").unwrap();
    }
    let end = stream.next(PATIENCE).map(|_| ()).unwrap_err();
    assert_eq!(end.to_string(), "`sh` ended with status 3");
    assert_eq!((end.state(), end.quality().status), ("failed", crate::model::Status::BAD_DEVICE_FAILURE));
}

#[test]
fn of_frames_that_waited_only_the_newest_is_taken_and_the_others_are_dropped() {
    let (folder, frames) = files(2);
    let count = (4 * CHUNK / frames[0].len()) as u32;
    std::fs::write(folder.path().join("many"), frames[0].repeat(count as usize)).unwrap();
    let mut stream = shell(folder.path(), "cat many 2; echo 1 >&2; sleep 1000");
    while stream.process.last_words().is_empty() {
        stream.process.look();
    }
    let frame = stream.next(PATIENCE).unwrap().unwrap();
    assert_eq!((frame.data, frame.sequence), (&frames[1][..], count + 1));
}

#[test]
fn no_picture_is_older_than_it_says() {
    let (folder, _) = files(2);
    let script = "cat 1; echo 1 >&2; until [ -e go ]; do sleep 0.02; done; cat 2; sleep 1000";
    let mut stream = shell(folder.path(), script);
    while stream.process.last_words().is_empty() {
        stream.process.look();
    }
    let written = Instant::now();
    std::thread::sleep(Duration::from_millis(50));
    assert!(stream.next(PATIENCE).unwrap().unwrap().captured <= written, "it waited in the pipe");
    let (asked, go) = (Instant::now(), folder.path().join("go"));
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        std::fs::write(go, "").unwrap();
    });
    assert!(stream.next(PATIENCE).unwrap().unwrap().captured > asked, "it was written while we waited for it");
}

#[test]
fn the_size_of_jpegs_is_that_of_the_first_good_one() {
    let (folder, frames) = files(2);
    let script = format!("cd {}; head -c -5 1; sleep 0.2; cat 2; sleep 1000", folder.path().display());
    let mut stream = PipeDevice::new(&camera(&format!("command = ['sh', '-c', '{script}']"))).open().unwrap();
    assert_eq!((stream.mode().width, stream.mode().height), (32, 16));
    let mut corrupt = 0;
    while let Some(frame) = stream.next(Duration::ZERO).unwrap() {
        corrupt += u32::from(frame.corrupt);
        assert!(frame.corrupt || frame.data == frames[1]);
    }
    assert_eq!(corrupt, 1, "it is counted all the same");
}

#[test]
fn last_words_are_the_reason() {
    let words = "echo starting >&2; printf 'ERROR:\\033[0m no cameras available\\n\\n' >&2; exit 255";
    assert_eq!(end_of(&["sh", "-c", words]), "`sh` ended with status 255: ERROR:[0m no cameras available");
    assert_eq!(end_of(&["false"]), "`false` ended with status 1");
    assert_eq!(end_of(&["sh", "-c", "kill -9 $$"]), "`sh` was ended by signal 9");
    assert_eq!(end_of(&["sh", "-c", "exec >&-; sleep 1000"]), "`sh` closed its output");
    assert_eq!(end_of(&["sh", "-c", "sleep 1000 & exit 3"]), "`sh` ended with status 3");
}

#[test]
fn the_program_and_what_it_started_end_with_the_stream() {
    let (folder, _) = files(0);
    let mut stream = shell(folder.path(), "trap 'touch asked; exit' TERM; sleep 1000 & echo $! >&2; wait");
    let (child, leader) = (said(&mut stream), stream.process.id().to_string());
    assert!(is_running(&child) && is_running(&leader));
    drop(stream);
    assert!(folder.path().join("asked").exists(), "before it is killed it is asked");
    assert!(!Path::new(&format!("/proc/{leader}")).exists(), "not even as a zombie");
    assert_ends(&child);
}

#[test]
fn one_that_does_not_want_to_end_is_killed_with_its_children() {
    let mut stream = run(&["sh", "-c", "trap '' TERM; sleep 1000 & echo $! >&2; wait; wait"]).unwrap();
    let (child, leader) = (said(&mut stream), stream.process.id().to_string());
    drop(stream);
    assert!(!Path::new(&format!("/proc/{leader}")).exists(), "not even as a zombie");
    assert_ends(&child);
}

#[test]
fn where_orphans_become_ours_they_are_reaped() {
    // As for process 1 of a container.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut stream = run(&["sh", "-c", "sleep 1000 & echo $! >&2; wait"]).unwrap();
    let child = said(&mut stream);
    drop(stream);
    assert!(!Path::new(&format!("/proc/{child}")).exists(), "not even as a zombie");
}

#[test]
fn one_that_ended_leaves_nothing_behind() {
    let mut stream = run(&["sh", "-c", "sleep 1000 & echo $! >&2; sleep 0.2; exit 3"]).unwrap();
    let child = said(&mut stream);
    frames_and_end(&mut stream);
    assert!(is_running(&child));
    drop(stream);
    assert_ends(&child);
}

#[test]
fn a_flood_of_anything_else_is_damaged_frames_and_little_memory() {
    let mut stream = run(&["yes"]).unwrap();
    for _ in 0..50 {
        let began = Instant::now();
        if let Some(frame) = stream.next(Duration::from_millis(100)).unwrap() {
            assert!(frame.corrupt && frame.data.is_empty());
        }
        assert!(began.elapsed() < PATIENCE);
    }
    assert!(stream.cutter.buffer().capacity() < 1 << 20);
}

#[test]
fn a_flood_of_words_keeps_no_picture_back() {
    let (folder, frames) = files(1);
    let mut stream = shell(folder.path(), "yes >&2 & sleep 0.2; cat 1; wait");
    assert_eq!(stream.next(PATIENCE).unwrap().unwrap().data, frames[0]);
}

#[test]
fn what_cannot_be_started_is_said_before_and_when_it_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let no_interpreter = folder.path().join("script");
    std::fs::write(&no_interpreter, "#!/does/not/exist\n").unwrap();
    let plain = plain.to_str().unwrap();
    for (program, wanted) in [
        ("no-such-program", "`no-such-program` is not in PATH ("),
        ("/no/such/program", "`/no/such/program` does not exist"),
        (plain, &format!("`{plain}` is not executable")),
        ("/", "`/` does not exist"),
    ] {
        let mut device = PipeDevice::new(&camera(&format!("command = ['{program}']")));
        for error in [device.probe().unwrap_err(), device.open().map(|_| ()).unwrap_err()] {
            assert!(error.to_string().starts_with(wanted), "{error}");
            assert_eq!(error.quality().status, crate::model::Status::BAD_CONFIGURATION_ERROR);
        }
    }
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&no_interpreter, permissions).unwrap();
    let error = run(&[no_interpreter.to_str().unwrap()]).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cannot be started: No such file"), "{error}");
    assert_eq!(PipeDevice::new(&camera("command = ['sh']")).probe(), Ok(()));
}

#[test]
fn raw_frames_are_cut_by_their_length_and_have_their_colour() {
    // Red, of 20x16, with lines padded by green as rpicam-vid pads them.
    let line = |value, pad, length: usize| [vec![value; length], vec![pad; length / 5 * 2]].concat();
    let planes = |(y, u, v)| [line(y, 150, 20).repeat(16), line(u, 0, 10).repeat(8), line(v, 0, 10).repeat(8)].concat();
    for (range, red) in [("full", (76, 85, 255)), ("limited", (81, 90, 240))] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frames");
        std::fs::write(&path, [planes((16, 128, 128)), planes(red), vec![1; 100]].concat()).unwrap();
        let camera = camera(&format!(
            "command = ['cat', '{}']\nformat = 'yuv420'\nwidth = 20\nheight = 16\nstride = 28\nrange = '{range}'",
            path.display()
        ));
        assert_eq!(camera.check(), []);
        let mut device = PipeDevice::new(&camera);
        let mut stream = PipeStream::start(&device.command, device.mode.clone()).unwrap();
        let (frames, _) = frames_and_end(&mut stream);
        let (_, last) = frames.last().unwrap();
        assert_eq!(*last, planes(red));
        let mode = device.open().unwrap().mode().clone();
        let picture = Encoder::new(95, 1 << 20).unwrap().encode(&mode, last).unwrap();
        let image = turbojpeg::decompress(&picture.jpeg, turbojpeg::PixelFormat::RGB).unwrap();
        assert_eq!((image.width, image.height), (20, 16));
        let pixel = &image.pixels[image.pitch * 8 + 3 * 10..][..3];
        assert!(pixel[0] > 250 && pixel[1] < 5 && pixel[2] < 5, "{range}: {pixel:?}");
    }
}

#[test]
fn what_was_read_of_the_next_raw_frame_is_kept() {
    let mode = PipeDevice::new(&camera("command = ['cat']\nformat = 'nv12'\nwidth = 16\nheight = 16")).mode;
    let (mut cutter, mut frame) = (Cutter::new(&mode), Vec::new());
    cutter.buffer().extend_from_slice(&[[1; 384], [2; 384]].concat()[..400]);
    assert_eq!((cutter.cut(&mut frame), &*frame), (Some(Cut::Frame), &[1; 384][..]));
    assert_eq!(cutter.cut(&mut frame), None);
    cutter.buffer().extend_from_slice(&[2; 368]);
    assert_eq!((cutter.cut(&mut frame), &*frame), (Some(Cut::Frame), &[2; 384][..]));
    assert!(cutter.is_between_frames());
}

#[test]
fn bad_combinations_are_refused_by_key() {
    let pipe = "command = ['cat']\n";
    for (text, wanted) in [
        ("", &[("command", "a pipe camera needs it; write the program")][..]),
        ("command = []", &[("command", "it names no program; write")]),
        ("command = ['']", &[("command", "it names no program; write")]),
        ("command = ['a\\u0000']", &[("command", "it contains a NUL")]),
        (&format!("{pipe}stride = 5"), &[("stride", "it is of raw frames; remove it, or set format to")]),
        (&format!("{pipe}range = 'full'"), &[("range", "it is of raw frames")]),
        (&format!("{pipe}format = 'nv12'\nwidth = 641\nheight = 481"), &[("width", "641 is odd"), ("height", "481")]),
        (&format!("{pipe}format = 'yuyv'\nwidth = 641\nheight = 481"), &[("width", "641 is odd")]),
        (
            &format!("{pipe}format = 'yuyv'\nstride = 1280"),
            &[("stride", "1280 is out of range; use an even number from 2560 to")],
        ),
        (&format!("{pipe}format = 'yuv420'\nstride = 1281"), &[("stride", "1281 is out of range")]),
        (&format!("{pipe}format = 'mjpeg'"), &[]),
        (&format!("{pipe}format = 'yuyv'\nheight = 481"), &[]),
    ] {
        let text = text.replace('\'', "\"");
        let found = camera(&text).check();
        assert_eq!(found.len(), wanted.len(), "{text}: {found:?}");
        for ((key, what), (wanted_key, start)) in found.iter().zip(wanted) {
            assert!(key == wanted_key && what.starts_with(start), "{text}: {key}: {what}");
        }
    }
    let keys = "command = ['cat']\nformat = 'mjpeg'\nstride = 64\nrange = 'full'";
    let other: CameraConfig = toml::from_str(&format!("name = 'a'\ndevice = '/dev/video0'\n{keys}")).unwrap();
    let found: Vec<_> = other.check().into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, ["command", "format", "stride", "range"]);
}
