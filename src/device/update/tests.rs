//! From a URL to the question for a reboot, and what a start makes of what it finds.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::rauc::tests::{Bus, End, play};
use super::*;
use std::io::{Read as _, Write as _};

const CONTENT: &[u8] = b"a bundle";

fn serve() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/b", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\na bundle");
        }
    });
    url
}

fn wanted(bundle: String) -> Wanted {
    let digest = ring::digest::digest(&ring::digest::SHA256, CONTENT);
    let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Wanted { bundle, sha256: Some(sha256), version: Some("2.0".into()), id: Some("x".into()), ..Wanted::default() }
}

/// One that goes on where it is asked to.
fn serve_ranges() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/b", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut asked) = (stream.unwrap(), [0; 4096]);
            let length = stream.read(&mut asked).unwrap_or(0);
            let asked = String::from_utf8_lossy(&asked[..length]).to_lowercase();
            let from =
                asked.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
            let (status, from) = from.map_or(("200 OK", 0), |from| ("206 Partial Content", from));
            let rest: &[u8] = &CONTENT[from..];
            let (all, length) = (CONTENT.len(), rest.len());
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Range: bytes {from}-{}/{all}\r\nContent-Length: {length}\r\n\r\n",
                all - 1
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(rest));
        }
    });
    url
}

/// All of it, as the program and the command do it.
async fn work(
    updates: &Updates,
    lock: &Lock,
    mut pending: Pending,
    tell: &mut (dyn FnMut(String) + Send),
) -> Result<(), UpdateError> {
    updates.install(lock, &mut pending, tell).await?;
    updates.reboot(&pending, tell).await
}

#[tokio::test]
async fn it_is_fetched_installed_and_the_other_slot_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::start();
    let (_rauc, installed) = play(&bus, End::Good).await;
    let updates = Updates { bus: Some(bus.address.clone()), ..Updates::for_test(folder.path(), "A", "1") };
    let lock = updates.lock().unwrap();
    assert!(matches!(updates.lock(), Err(UpdateError::Busy)), "one at a time");
    let mut said = Vec::new();
    let pending = updates.begin(wanted(serve()));
    work(&updates, &lock, pending.clone(), &mut |text| said.push(text)).await.unwrap();
    let bundle = folder.path().join("update/bundle.raucb");
    assert_eq!((installed(), fs::read(&bundle).unwrap()), (vec![bundle.display().to_string()], CONTENT.to_vec()));
    assert!(folder.path().join("reboot").exists());
    assert!(said.iter().any(|text| text.starts_with("installing: 40 %")), "{said:?}");

    // The program starts again before the machine goes down; the machine has gone down; it has fallen back.
    let Found::Again(again) = updates.found() else { panic!("again") };
    assert_eq!(again.stage, Stage::Rebooting);
    fs::remove_file(folder.path().join("reboot")).unwrap();
    work(&updates, &lock, again.clone(), &mut |_| {}).await.unwrap();
    assert!(folder.path().join("reboot").exists() && installed().len() == 1, "not installed again");
    assert_eq!(Updates::for_test(folder.path(), "B", "2").found(), Found::Started(again));
    let fallen = Updates::for_test(folder.path(), "A", "3");
    assert!(matches!(fallen.found(), Found::Failed(_, why) if why.contains("slot A runs again")));
    fallen.end(&pending.wanted, Err("no".into())).unwrap();
    assert_eq!(fallen.found(), Found::Nothing);
    let last = fallen.last().unwrap();
    assert_eq!((last.id.as_deref(), &last.outcome), (Some("x"), &Err("no".into())));
    assert!(!bundle.exists());
}

#[tokio::test]
async fn what_is_cut_is_gone_on_with_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let updates = Updates::for_test(folder.path(), "A", "1");
    let lock = updates.lock().unwrap();
    // Nobody answers there; the power goes meanwhile.
    let mut wanted = wanted("http://127.0.0.1:9/b".into());
    let mut pending = updates.begin(wanted.clone());
    for attempt in 1..=ATTEMPTS {
        let mut nobody = |_| {};
        let work = work(&updates, &lock, pending.clone(), &mut nobody);
        assert!(tokio::time::timeout(Duration::from_millis(300), work).await.is_err());
        let left = updates.pending().unwrap();
        assert_eq!((left.stage, left.attempts), (Stage::Fetching, attempt));
        pending = left;
    }
    assert!(matches!(updates.found(), Found::Failed(_, why) if why == "it was interrupted 4 times"));

    // A state that cannot be read is none.
    fs::write(folder.path().join("update/state.json"), "{").unwrap();
    assert_eq!(updates.found(), Found::Nothing);
    // A stick that is gone, and another file.
    wanted.bundle = folder.path().join("b.raucb").display().to_string();
    let fail = |wanted: Wanted| {
        let (updates, lock) = (&updates, &lock);
        async move { work(updates, lock, updates.begin(wanted), &mut |_| {}).await.unwrap_err().to_string() }
    };
    assert!(fail(wanted.clone()).await.starts_with("cannot read the bundle"));
    fs::write(&wanted.bundle, "another").unwrap();
    assert!(fail(wanted.clone()).await.contains("the SHA-256 of"));
    drop(lock);
    assert!(matches!(Updates::for_test(folder.path(), "", "1").lock(), Err(UpdateError::NoSlots)));
}

/// Between RAUC's last word and the note of it.
#[test]
fn a_cut_when_rauc_was_done_does_not_install_over_the_good_slot() {
    let folder = tempfile::tempdir().unwrap();
    let before = Updates::for_test(folder.path(), "A", "1");
    let mut pending = before.begin(wanted("http://h/b".into()));
    pending.attempts = ATTEMPTS;
    before.keep(&mut pending, Stage::Installing).unwrap();
    // The other slot runs: it is as if that had been noted.
    assert_eq!(Updates::for_test(folder.path(), "B", "2").found(), Found::Started(pending.clone()));
    pending.attempts = 1;
    before.keep(&mut pending, Stage::Installing).unwrap();
    assert!(matches!(Updates::for_test(folder.path(), "A", "2").found(), Found::Again(_)));
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_leaves_what_runs_alone_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    for (end, version, why) in [
        (End::Refused, "2.0", "RAUC refuses this bundle: signature verification failed"),
        (End::Bad, "2.0", "RAUC could not install it: Failed updating slot rootfs.1: no space"),
        (End::Good, "3.0", "the bundle is version 2.0, but version 3.0 was asked for"),
        (End::Silent, "2.0", "does not say which version a bundle has"),
        (End::Other, "2.0", "the bundle is for vedette-rpi4, and this device is vedette-qemu"),
        (End::Dies, "2.0", "RAUC cannot be reached"),
    ] {
        let bus = Bus::start();
        let (rauc, installed) = play(&bus, end).await;
        let updates = Updates { bus: Some(bus.address.clone()), ..Updates::for_test(folder.path(), "A", "1") };
        let lock = updates.lock().unwrap();
        let pending = updates.begin(Wanted { version: Some(version.into()), ..wanted(serve()) });
        let mut tell = |_| {};
        let work = work(&updates, &lock, pending.clone(), &mut tell);
        let gone = async {
            while installed().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // With it goes its name.
            drop(rauc);
            std::future::pending::<()>().await
        };
        let error = match end {
            End::Dies => tokio::select! { outcome = work => outcome, () = gone => unreachable!() },
            _ => work.await,
        };
        let error = error.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!folder.path().join("reboot").exists(), "{why}");
        updates.end(&pending.wanted, Err(error)).unwrap();
        assert_eq!(updates.found(), Found::Nothing);
    }
    // The bus itself.
    let bus = Bus::start();
    let updates = Updates { bus: Some(bus.address.clone()), ..Updates::for_test(folder.path(), "A", "1") };
    drop(bus);
    let lock = updates.lock().unwrap();
    let error = work(&updates, &lock, updates.begin(wanted(serve())), &mut |_| {}).await.unwrap_err().to_string();
    assert!(error.starts_with("the system cannot be reached over D-Bus"), "{error}");
}

/// Who asks for its end is told that it is being installed only if that is so.
#[tokio::test]
async fn what_rauc_only_looks_at_is_not_being_installed() {
    let folder = tempfile::tempdir().unwrap();
    for (end, stage) in [(End::HangsAtInfo, Stage::Checking), (End::HangsAtInstall, Stage::Installing)] {
        let bus = Bus::start();
        let _rauc = play(&bus, end).await;
        let answer = Duration::from_millis(300);
        let updates = Updates { bus: Some(bus.address.clone()), answer, ..Updates::for_test(folder.path(), "A", "1") };
        let lock = updates.lock().unwrap();
        let error = work(&updates, &lock, updates.begin(wanted(serve())), &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, UpdateError::Rauc(RaucError::Silent)), "{error}");
        assert_eq!(updates.pending().unwrap().stage, stage);
    }
}

/// As on a full disk: what fills it goes in any case, and nothing is begun again.
#[test]
fn what_was_fetched_goes_also_when_how_it_ended_cannot_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let updates = Updates::for_test(folder.path(), "A", "1");
    updates.keep_fetching(wanted("http://h/b".into()));
    let file = |name| folder.path().join("update").join(name);
    fs::write(file(BUNDLE), CONTENT).unwrap();
    // Nothing can take the place of a folder.
    fs::create_dir(file(LAST)).unwrap();
    let error = updates.end(&wanted("http://h/b".into()), Err("no space".into())).unwrap_err().to_string();
    assert!(error.contains("last.json"), "{error}");
    assert!(!file(BUNDLE).exists() && updates.found() == Found::Nothing);
}

/// Who sent a command and has not heard its end yet still hears it.
#[test]
fn what_fails_at_the_device_does_not_take_the_place_of_a_commands_end() {
    let folder = tempfile::tempdir().unwrap();
    let updates = Updates::for_test(folder.path(), "A", "1");
    let address = Some("to".to_owned());
    updates.end(&Wanted { address, ..wanted("http://h/b".into()) }, Ok("done".into())).unwrap();
    let last = updates.last().unwrap();
    updates.end(&Wanted { id: None, ..wanted("/b".into()) }, Err("no".into())).unwrap();
    updates.note_failed_here("no", false).unwrap();
    assert_eq!((updates.last(), last.untold.as_deref()), (Some(last.clone()), Some("to")));
    assert_eq!(updates.take_failed_here().unwrap().unwrap().why, "no");
}

/// What was installed by a command, and how that ends, was lost when somebody at the device tried another one.
#[test]
fn what_waits_for_its_reboot_is_not_pushed_aside_and_what_was_cut_has_failed_by_that() {
    let folder = tempfile::tempdir().unwrap();
    let updates = Updates::for_test(folder.path(), "A", "1");
    let lock = updates.lock().unwrap();
    assert!(!updates.make_way(&lock).unwrap());
    let sent = Wanted { address: Some("to".into()), ..wanted("http://h/b".into()) };
    updates.keep_rebooting(sent.clone());
    assert!(matches!(updates.make_way(&lock), Err(UpdateError::Busy)));
    let new_slot = Updates::for_test(folder.path(), "B", "2");
    assert!(matches!(new_slot.make_way(&lock), Err(UpdateError::Busy)), "it is not judged yet");
    assert!(updates.pending().is_some() && updates.last().is_none());
    // It fell back, and nobody has told it yet.
    assert!(Updates::for_test(folder.path(), "A", "3").make_way(&lock).unwrap());
    assert!(updates.last().unwrap().outcome.unwrap_err().contains("slot A runs again"));

    updates.keep_fetching(sent);
    assert!(updates.make_way(&lock).unwrap());
    let last = updates.last().unwrap();
    assert_eq!((last.id.as_deref(), last.untold.as_deref()), (Some("x"), Some("to")));
    assert_eq!(last.outcome.unwrap_err(), "it was cut, and another one was begun instead");
    // Nobody waits for what a killed shell left.
    updates.keep_fetching(Wanted::default());
    assert!(!updates.make_way(&lock).unwrap() && updates.found() == Found::Nothing);
}

/// Without a sum two bundles were glued together.
#[tokio::test]
async fn what_another_download_left_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let updates = Updates::for_test(folder.path(), "A", "1");
    let _lock = updates.lock().unwrap();
    let bundle = folder.path().join("update").join(BUNDLE);
    let without = || Wanted { sha256: None, ..wanted(serve_ranges()) };
    // The first start of one; a later one, when the server may have another file by now.
    for attempts in [1, 2] {
        fs::write(&bundle, "xx").unwrap();
        let mut pending = Pending { attempts, ..updates.begin(without()) };
        updates.fetch(&mut pending, &mut |_| {}).await.unwrap();
        assert_eq!(fs::read(&bundle).unwrap(), CONTENT, "{attempts}");
    }
    // With a sum it is gone on with, and here it really is the beginning.
    fs::write(&bundle, &CONTENT[..3]).unwrap();
    let mut pending = Pending { attempts: 2, ..updates.begin(wanted(serve_ranges())) };
    updates.fetch(&mut pending, &mut |_| {}).await.unwrap();
    assert_eq!(fs::read(&bundle).unwrap(), CONTENT);
}

#[test]
fn a_password_in_a_url_is_not_shown_but_used() {
    let wanted = Wanted { bundle: "https://me:secret@h/b".into(), ..Wanted::default() };
    assert_eq!((wanted.name().as_str(), wanted.shown().as_str()), ("https://...@h/b", "https://...@h/b"));
    let folder = tempfile::tempdir().unwrap();
    let updates = Updates::for_test(folder.path(), "A", "1");
    updates.keep_fetching(wanted.clone());
    assert_eq!(updates.pending().unwrap().wanted, wanted);
}

/// It was silent for three minutes, and then it was given up.
#[tokio::test]
async fn why_a_download_is_cut_is_told_while_it_still_tries() {
    let folder = tempfile::tempdir().unwrap();
    let updates = Updates::for_test(folder.path(), "A", "1");
    let lock = updates.lock().unwrap();
    let mut said = Vec::new();
    let mut tell = |text| said.push(text);
    let mut pending = updates.begin(wanted("http://127.0.0.1:9/b".into()));
    let work = updates.install(&lock, &mut pending, &mut tell);
    assert!(tokio::time::timeout(Duration::from_millis(1500), work).await.is_err());
    assert!(said[0].starts_with("the download was cut, and goes on in a while: "), "{said:?}");
}

#[test]
fn what_is_a_url_and_what_is_a_file() {
    let is_url = |bundle: &str| Wanted { bundle: bundle.into(), ..Wanted::default() }.is_url();
    for url in ["http://h/b", "HTTPS://h/b", "Http://h/b"] {
        assert!(is_url(url).unwrap(), "{url}");
    }
    for path in ["/data/b.raucb", "b.raucb", "./http://b", "://b"] {
        assert!(!is_url(path).unwrap(), "{path}");
    }
    let said = is_url("ftp://me:secret@h/b").unwrap_err().to_string();
    assert_eq!(
        said,
        r#"cannot fetch the bundle "ftp://...@h/b": it must be http:// or https://, or the path of a file"#
    );
}
