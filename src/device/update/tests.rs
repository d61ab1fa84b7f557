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
    Wanted {
        bundle,
        sha256: Some(sha256),
        version: Some("2.0".into()),
        id: Some("x".into()),
        address: None,
        no_reboot: false,
    }
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
    updates.work(&lock, pending.clone(), &mut |text| said.push(text)).await.unwrap();
    let bundle = folder.path().join("update/bundle.raucb");
    assert_eq!((installed(), fs::read(&bundle).unwrap()), (vec![bundle.display().to_string()], CONTENT.to_vec()));
    assert!(folder.path().join("reboot").exists());
    assert!(said.iter().any(|text| text.starts_with("installing: 40 %")), "{said:?}");

    // The program starts again before the machine goes down; the machine has gone down; it has fallen back.
    let Found::Again(again) = updates.found() else { panic!("again") };
    assert_eq!(again.stage, Stage::Rebooting);
    fs::remove_file(folder.path().join("reboot")).unwrap();
    updates.work(&lock, again.clone(), &mut |_| {}).await.unwrap();
    assert!(folder.path().join("reboot").exists() && installed().len() == 1, "not installed again");
    assert_eq!(Updates::for_test(folder.path(), "B", "2").found(), Found::Started(again));
    let fallen = Updates::for_test(folder.path(), "A", "3");
    assert!(matches!(fallen.found(), Found::Failed(_, why) if why.contains("slot A runs again")));
    fallen.end(&pending.wanted, Err("no".into())).unwrap();
    assert_eq!(fallen.found(), Found::Nothing);
    assert_eq!(fallen.last().unwrap(), Last { id: Some("x".into()), outcome: Err("no".into()) });
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
        let work = updates.work(&lock, pending.clone(), &mut nobody);
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
    let work = |wanted: Wanted| {
        let (updates, lock) = (&updates, &lock);
        async move { updates.work(lock, updates.begin(wanted), &mut |_| {}).await.unwrap_err().to_string() }
    };
    assert!(work(wanted.clone()).await.starts_with("cannot read the bundle"));
    fs::write(&wanted.bundle, "another").unwrap();
    assert!(work(wanted.clone()).await.contains("the SHA-256 of"));
    drop(lock);
    assert!(matches!(Updates::for_test(folder.path(), "", "1").lock(), Err(UpdateError::NoSlots)));
}
