//! A server that breaks off, lies and trickles.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

/// What the server does with one request: it is given the start that was asked for.
type Act = fn(&mut TcpStream, &[u8], u64);

/// Answers one connection after the other, the last act for all that follow. What starts were asked for.
fn serve(content: &'static [u8], acts: Vec<Act>) -> (String, Arc<Mutex<Vec<u64>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/bundle.raucb", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let from = request(&stream);
            seen.lock().unwrap().push(from);
            acts[count.min(acts.len() - 1)](&mut stream, content, from);
        }
    });
    (url, asked)
}

fn request(stream: &TcpStream) -> u64 {
    let lines = BufReader::new(stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let range = lines.filter_map(|line| {
        let line = line.to_lowercase();
        Some(line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().unwrap())
    });
    range.last().unwrap_or(0)
}

fn say(stream: &mut TcpStream, head: &str, body: &[u8]) {
    // Whoever has heard enough hangs up.
    let _ = stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).and_then(|()| stream.write_all(body));
}

fn whole(stream: &mut TcpStream, content: &[u8], from: u64) {
    let (length, rest) = (content.len(), &content[usize::try_from(from).unwrap()..]);
    let head = match from {
        0 => format!("200 OK\r\nContent-Length: {length}"),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{length}\r\nContent-Length: {}",
            length - 1,
            rest.len()
        ),
    };
    say(stream, &head, rest);
}

/// Says how much there is, and gives a third of it.
fn break_off(stream: &mut TcpStream, content: &[u8], from: u64) {
    let rest = &content[usize::try_from(from).unwrap()..];
    let head = match from {
        0 => format!("200 OK\r\nContent-Length: {}", rest.len()),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-/{}\r\nContent-Length: {}",
            content.len(),
            rest.len()
        ),
    };
    say(stream, &head, &rest[..rest.len() / 3]);
}

const CONTENT: &[u8] = &[7; 3 << 20];

fn digest(content: &[u8]) -> String {
    hex(&ring::digest::digest(&SHA256, content))
}

fn fetch(url: &str, path: &Path, sha256: Option<&str>) -> Result<(), DownloadError> {
    fetch_with(url, path, sha256, None, &free)
}

fn fetch_with(
    url: &str,
    path: &Path,
    sha256: Option<&str>,
    ca_file: Option<&Path>,
    free: &dyn Fn(&Path) -> Option<u64>,
) -> Result<(), DownloadError> {
    let wait = (Duration::from_millis(1), Duration::from_millis(10));
    Download { url, path, sha256, ca_file, tell: &|_, _| {}, say: &|_| {}, is_stopped: &|| false, wait, free }.run()
}

struct Place {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    Place { path: folder.path().join("bundle"), _folder: folder }
}

#[test]
fn what_is_cut_goes_on_where_it_was_cut() {
    let (url, asked) = serve(CONTENT, vec![break_off, break_off, whole]);
    let Place { path, _folder } = place();
    fetch(&url, &path, Some(&digest(CONTENT))).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    let asked = asked.lock().unwrap();
    assert!(asked.len() == 3 && asked[0] == 0 && asked[1] > 0 && asked[2] > asked[1], "{asked:?}");
}

#[test]
fn what_is_whole_is_not_asked_for_again_and_what_is_half_from_there_on() {
    let (url, asked) = serve(CONTENT, vec![whole]);
    let Place { path, _folder } = place();
    fs::write(&path, &CONTENT[..1000]).unwrap();
    fetch(&url, &path, Some(&digest(CONTENT).to_uppercase())).unwrap();
    fetch(&url, &path, Some(&digest(CONTENT))).unwrap();
    assert_eq!(*asked.lock().unwrap(), [1000]);
}

#[test]
fn the_beginning_of_another_file_is_thrown_away() {
    let (url, asked) = serve(CONTENT, vec![whole]);
    let Place { path, _folder } = place();
    fs::write(&path, [1; 1000]).unwrap();
    fetch(&url, &path, Some(&digest(CONTENT))).unwrap();
    assert_eq!(*asked.lock().unwrap(), [1000, 0]);
    // More than there is.
    let (url, _) = serve(CONTENT, vec![|stream, _, _| say(stream, "416 No\r\nContent-Length: 0", b""), whole]);
    fs::write(&path, vec![7; CONTENT.len() + 1]).unwrap();
    fetch(&url, &path, Some(&digest(CONTENT))).unwrap();
    // A server that knows no ranges.
    let (url, _) = serve(CONTENT, vec![|stream, content, _| whole(stream, content, 0)]);
    fs::write(&path, &CONTENT[..1000]).unwrap();
    fetch(&url, &path, Some(&digest(CONTENT))).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
}

#[test]
fn a_server_that_lies_is_found_out() {
    let Place { path, _folder } = place();
    let wrong = "0".repeat(64);
    let (url, asked) = serve(CONTENT, vec![whole]);
    let error = fetch(&url, &path, Some(&wrong)).unwrap_err();
    assert!(matches!(&error, DownloadError::Sum { found, .. } if *found == digest(CONTENT)), "{error}");
    assert!(!path.exists() && asked.lock().unwrap().len() == 1);

    let huge: Act = |stream, _, _| say(stream, "200 OK\r\nContent-Length: 99999999999999", b"x");
    let error = fetch(&serve(CONTENT, vec![huge]).0, &path, None).unwrap_err();
    assert!(matches!(error, DownloadError::TooLarge { .. }), "{error}");
    // It goes on in another place.
    let elsewhere: Act = |stream, content, from| match from {
        0 => break_off(stream, content, 0),
        _ => say(stream, "206 Partial Content\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5", b"xxxxx"),
    };
    let error = fetch(&serve(CONTENT, vec![elsewhere]).0, &path, None).unwrap_err();
    assert!(matches!(error, DownloadError::GivenUp { .. }), "{error}");
    let noise: Act = |stream, _, _| drop(stream.write_all(b"\x16\x03\x01garbage\r\n\r\n"));
    let error = fetch(&serve(CONTENT, vec![noise]).0, &path, None).unwrap_err();
    assert!(matches!(error, DownloadError::GivenUp { .. }), "{error}");
}

#[test]
fn what_is_not_there_is_said_at_once_and_what_is_busy_is_asked_again() {
    let Place { path, _folder } = place();
    let (url, asked) = serve(CONTENT, vec![|stream, _, _| say(stream, "404 Not Found\r\nContent-Length: 0", b"")]);
    let error = fetch(&url, &path, None).unwrap_err().to_string();
    assert!(error.ends_with("the server says 404 Not Found"), "{error}");
    assert_eq!(asked.lock().unwrap().len(), 1);
    let busy: Act = |stream, _, _| say(stream, "503 Service Unavailable\r\nContent-Length: 0", b"");
    fetch(&serve(CONTENT, vec![busy, busy, whole]).0, &path, None).unwrap();
    let error = fetch("http://127.0.0.1:9/x", &place().path, None).unwrap_err();
    assert!(matches!(error, DownloadError::GivenUp { .. } | DownloadError::Write(_)), "{error}");
}

/// Another file takes the place of what was begun. Without a sum nothing else would tell.
#[test]
fn what_the_server_has_changed_begins_anew() {
    let Place { path, _folder } = place();
    let first: Act = |stream, content, _| {
        let head = format!("200 OK\r\nETag: \"1\"\r\nContent-Length: {}", content.len());
        say(stream, &head, &vec![1; content.len() / 2]);
    };
    let rest: Act = |stream, content, from| match from {
        0 => whole(stream, content, 0),
        _ => {
            let (length, rest) = (content.len(), &content[usize::try_from(from).unwrap()..]);
            let head = format!(
                "206 Partial Content\r\nETag: \"2\"\r\nContent-Range: bytes {from}-{}/{length}\r\nContent-Length: {}",
                length - 1,
                rest.len()
            );
            say(stream, &head, rest);
        }
    };
    let (url, asked) = serve(CONTENT, vec![first, rest]);
    fetch(&url, &path, None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    let asked = asked.lock().unwrap();
    assert!(asked.len() == 3 && asked[1] > 0 && asked[2] == 0, "{asked:?}");
}

#[test]
fn a_length_that_is_a_lie_ends_and_so_do_redirects_in_a_circle() {
    let Place { path, _folder } = place();
    // More than comes: each attempt brings nothing new.
    let more: Act = |stream, content, from| match from {
        0 => say(stream, &format!("200 OK\r\nContent-Length: {}", content.len() + 1), content),
        _ => say(stream, "416 No\r\nContent-Length: 0", b""),
    };
    let (url, asked) = serve(CONTENT, vec![more]);
    let error = fetch(&url, &path, Some(&"0".repeat(64))).unwrap_err();
    assert!(matches!(error, DownloadError::GivenUp { .. }), "{error}");
    assert!(asked.lock().unwrap().len() <= 2 * ATTEMPTS as usize, "{:?}", asked.lock());
    // Less: it is another file then.
    fs::remove_file(&path).unwrap_or_default();
    let less: Act = |stream, content, _| say(stream, "200 OK\r\nContent-Length: 1000", content);
    let error = fetch(&serve(CONTENT, vec![less]).0, &path, Some(&digest(CONTENT))).unwrap_err();
    assert!(matches!(error, DownloadError::Sum { .. }), "{error}");

    let circle: Act = |stream, _, _| say(stream, "302 Found\r\nLocation: /bundle.raucb\r\nContent-Length: 0", b"");
    let (url, asked) = serve(CONTENT, vec![circle]);
    let error = fetch(&url, &path, None).unwrap_err();
    assert!(matches!(error, DownloadError::Refused(_)) && asked.lock().unwrap().len() < 30, "{error}");
}

#[test]
fn a_partition_that_fills_up_is_left_its_rest() {
    let Place { path, _folder } = place();
    let (url, _) = serve(CONTENT, vec![whole]);
    let error = fetch_with(&url, &path, None, None, &|_| Some(SPARE + 100)).unwrap_err();
    assert!(matches!(error, DownloadError::NoRoom { bytes, .. } if bytes == CONTENT.len() as u64), "{error}");
    // It does not say how much, and what else is written there takes what was free.
    let endless: Act = |stream, _, _| {
        say(stream, "200 OK\r\nConnection: close", &[7; 1 << 20]);
        while stream.write_all(&[7; 1 << 16]).is_ok() {}
    };
    let left = |path: &Path| Some((SPARE + 3 * LOOK).saturating_sub(length(path)));
    let error = fetch_with(&serve(CONTENT, vec![endless]).0, &path, None, None, &left).unwrap_err();
    assert!(matches!(error, DownloadError::NoRoom { .. }) && length(&path) < 4 * LOOK, "{error}");
}

#[test]
fn authorities_of_the_plant_are_taken_from_a_file() {
    let Place { path, _folder } = place();
    let (url, _) = serve(CONTENT, vec![whole]);
    let with = |ca_file: &Path| fetch_with(&url, &path, None, Some(ca_file), &free);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rauc");
    with(&fixtures.join("own.pem")).unwrap();
    let missing = with(Path::new("/does/not/exist")).unwrap_err().to_string();
    assert!(missing.starts_with("ca_file = \"/does/not/exist\": No such file"), "{missing}");
    let empty = with(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(empty.contains("no certificate in PEM"), "{empty}");
}

#[test]
fn a_password_in_a_url_is_not_told() {
    let busy: Act = |stream, _, _| say(stream, "503 Service Unavailable\r\nContent-Length: 0", b"");
    let gone: Act = |stream, _, _| say(stream, "404 Not Found\r\nContent-Length: 0", b"");
    for (act, sum) in [(busy, None), (gone, None), (whole as Act, Some("0".repeat(64)))] {
        let (url, _) = serve(CONTENT, vec![act]);
        let url = url.replace("http://", "http://me:secret@");
        let said = fetch(&url, &place().path, sum.as_deref()).unwrap_err().to_string();
        assert!(said.contains("http://...@127.0.0.1") && !said.contains("secret"), "{said}");
    }
    let said = fetch("http://me:sec ret@h", &place().path, None).unwrap_err().to_string();
    assert!(!said.contains("sec ret"), "{said}");
}
