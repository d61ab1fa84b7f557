//! Sticks with one bundle, with several, with none, and one that stays in its socket.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::super::Found;
use super::super::rauc::tests::{Bus, End, play};
use super::*;

/// What ends like a bundle. Each `signature` is another one.
fn bundle(signature: &str) -> Vec<u8> {
    [b"squashfs", signature.as_bytes(), &(signature.len() as u64).to_be_bytes()].concat()
}

struct Device {
    data: tempfile::TempDir,
    stick: tempfile::TempDir,
}

impl Device {
    fn new(files: &[(&str, &str)]) -> Self {
        let (data, stick) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, signature) in files {
            fs::write(stick.path().join(name), bundle(signature)).unwrap();
        }
        Self { data, stick }
    }

    /// Plugged in, or found at a start. What was said, what came of it, and what RAUC was given.
    async fn plug(&self, end: End, runs: &str) -> (Vec<String>, Result<Option<Pending>, UpdateError>, Vec<String>) {
        let bus = Bus::start();
        let (_rauc, installed) = play(&bus, end).await;
        let updates = self.updates();
        let updates = Updates { bus: Some(bus.address.clone()), version: Some(runs.into()), ..updates };
        let lock = updates.lock().unwrap();
        let mut said = Vec::new();
        let outcome = updates.install_from_stick(&lock, self.stick.path(), &mut |text| said.push(text)).await;
        (said, outcome, installed())
    }

    fn updates(&self) -> Updates {
        Updates::for_test(self.data.path(), "A", "1")
    }
}

#[tokio::test]
async fn a_bundle_is_copied_installed_and_not_taken_again_when_the_stick_stays() {
    let device =
        Device::new(&[("Vedette-qemu.RAUCB", "Vedette development CA"), ("other.raucb", "x"), ("vedette-1.txt", "x")]);
    fs::create_dir(device.stick.path().join("vedette-folder.raucb")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", device.stick.path().join("vedette-link.raucb")).unwrap();
    let (said, outcome, installed) = device.plug(End::Good, "1.0").await;
    let pending = outcome.unwrap().unwrap();
    let copy = device.data.path().join("update/bundle.raucb");
    assert_eq!(
        (installed, fs::read(&copy).unwrap()),
        (vec![copy.display().to_string()], bundle("Vedette development CA"))
    );
    assert_eq!(pending.wanted.version.as_deref(), Some("2.0"));
    assert!(said[0] == "taking Vedette-qemu.RAUCB" && said[1].starts_with("WARNING"), "{said:?}");
    // It is not started yet.
    assert!(matches!(device.plug(End::Good, "1.0").await.1, Err(UpdateError::Busy)));
    assert_eq!(device.updates().take_failed_here().unwrap(), None);
    // The new slot did not come up; the stick is still there.
    device.updates().end(&pending.wanted, Err("fell back".into())).unwrap();
    let (said, outcome, installed) = device.plug(End::Good, "1.0").await;
    assert!(outcome.unwrap().is_none() && installed.is_empty());
    assert_eq!(said, ["Vedette-qemu.RAUCB was here before (installed); it is not taken again"]);
}

#[tokio::test]
async fn what_is_for_others_or_runs_already_is_no_fault_and_what_is_bad_is_one_once() {
    let device = Device::new(&[("vedette-a.raucb", "a")]);
    let (_, outcome, installed) = device.plug(End::Other, "1.0").await;
    assert!(outcome.unwrap().is_none() && installed.is_empty());
    assert_eq!(device.updates().take_failed_here().unwrap(), None);
    fs::write(device.stick.path().join("vedette-b.raucb"), bundle("b")).unwrap();
    let (said, outcome, installed) = device.plug(End::Good, "2.0").await;
    assert!(outcome.unwrap().is_none() && installed.is_empty(), "{said:?}");
    assert!(said.iter().any(|text| text == "vedette-b.raucb: version 2.0 runs already"), "{said:?}");
    assert_eq!(device.updates().found(), Found::Nothing);

    fs::write(device.stick.path().join("vedette-c.raucb"), bundle("c")).unwrap();
    let (_, outcome, _) = device.plug(End::Refused, "1.0").await;
    assert!(outcome.unwrap_err().to_string().contains("signature verification failed"));
    let failed = device.updates().take_failed_here().unwrap().unwrap();
    assert!(failed.is_from_stick && failed.why.contains("signature verification failed"));
    let (said, outcome, _) = device.plug(End::Refused, "1.0").await;
    assert!(outcome.unwrap().is_none() && said.len() == 3, "{said:?}");
}

#[tokio::test]
async fn what_is_cut_is_begun_again_but_not_for_ever() {
    let device = Device::new(&[("vedette-a.raucb", "a")]);
    for _ in 0..ATTEMPTS {
        // There is no bus: as if the power went, nothing of it is known afterwards.
        let updates = Updates { bus: Some("unix:path=/does/not/exist".into()), ..device.updates() };
        let lock = updates.lock().unwrap();
        let error = updates.install_from_stick(&lock, device.stick.path(), &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, UpdateError::Bus(_)), "{error}");
    }
    let (said, outcome, _) = device.plug(End::Good, "1.0").await;
    assert!(outcome.unwrap().is_none() && said[0].contains("was begun 4 times"), "{said:?}");
}

#[tokio::test]
async fn a_stick_that_is_none_is_said() {
    let device = Device::new(&[]);
    assert!(device.plug(End::Good, "1.0").await.1.unwrap().is_none());
    fs::write(device.stick.path().join("vedette-a.raucb"), "no bundle").unwrap();
    let error = device.plug(End::Good, "1.0").await.1.unwrap_err().to_string();
    assert!(error.contains("is no bundle"), "{error}");
    assert!(device.updates().take_failed_here().unwrap().unwrap().is_from_stick);
    // The whole one beside it is taken all the same.
    fs::write(device.stick.path().join("vedette-b.raucb"), bundle("b")).unwrap();
    assert!(device.plug(End::Good, "1.0").await.1.unwrap().is_some());
    device.updates().forget().unwrap();
    for number in 0..MOST {
        fs::write(device.stick.path().join(format!("vedette-b{number}.raucb")), bundle("b")).unwrap();
    }
    let error = device.plug(End::Good, "1.0").await.1.unwrap_err().to_string();
    assert!(error.contains("more than 8"), "{error}");
    // Also what goes wrong before there is a bundle; it is told once.
    assert_eq!(device.updates().take_failed_here().unwrap().unwrap().why, error);
    assert_eq!(device.updates().take_failed_here().unwrap(), None);
}
