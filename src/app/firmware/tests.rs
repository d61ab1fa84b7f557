//! Starts of a device in this and that slot, and who hears what became of an update.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::base::{Clock, Tasks};
use crate::model::Happening;
use std::time::Duration;

struct Device {
    folder: tempfile::TempDir,
    hub: Hub,
    gates: Gates,
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gates = Gates { healthy: watch::Sender::new(false), failed: Arc::default() };
        Self { folder, hub: Hub::new(Clock::real()), gates }
    }

    fn open(&self, slot: &str, boot_id: &str) -> (Counter, Firmware) {
        let data_dir = self.folder.path().to_owned();
        let updates = Updates::for_test(&data_dir, slot, boot_id);
        open(&self.hub, data_dir, updates, &self.gates)
    }

    /// One start, until it has said something final.
    async fn start(&self, slot: &str, boot_id: &str) -> News {
        let (_counter, mut firmware) = self.open(slot, boot_id);
        let stop = Tasks::new("test");
        let signal = stop.stop_signal();
        let report = async {
            loop {
                match self.hub.next_report().await.news {
                    News::Progress(_) => {}
                    news => return news,
                }
            }
        };
        tokio::select! {
            () = firmware.run(&signal) => unreachable!("it waits for orders"),
            news = tokio::time::timeout(Duration::from_secs(60), report) => news.unwrap(),
        }
    }

    fn last_event(&self) -> (EventKind, String) {
        let Some(Happening::Event(event)) = self.hub.recent().pop() else { panic!("an event") };
        (event.kind, event.message.clone())
    }

    /// As it is when the machine is told to reboot.
    fn rebooting(&self) {
        let updates = Updates::for_test(self.folder.path(), "A", "1");
        let wanted =
            Wanted { version: Some("2".into()), id: Some("x".into()), address: Some("to".into()), ..Wanted::default() };
        updates.keep_rebooting(wanted);
    }
}

#[tokio::test]
async fn the_new_slot_is_installed_when_it_is_healthy_and_who_asks_again_is_told_again() {
    let device = Device::new();
    device.rebooting();
    device.gates.healthy.send_replace(true);
    let News::Done(text) = device.start("B", "2").await else { panic!("done") };
    assert_eq!(text, "version 2 is installed and healthy, in slot B");
    assert_eq!(device.last_event().0, EventKind::UpdateInstalled);
    let (counter, _firmware) = device.open("B", "2");
    let update = Update {
        id: "x".into(),
        url: "http://h/b".into(),
        sha256: "0".repeat(64),
        version: "2".into(),
        address: "to".into(),
    };
    assert_eq!(counter.ask(update, None), Ok(String::new()));
    assert_eq!(device.hub.next_report().await.news, News::Done(text));
}

#[tokio::test(start_paused = true)]
async fn how_it_ended_is_told_at_each_start_until_it_has_arrived() {
    let device = Device::new();
    device.rebooting();
    device.gates.healthy.send_replace(true);
    let tasks = Tasks::new("test");
    let stop = tasks.stop_signal();
    // The power goes before the broker has it; then the line, on which it was; then it arrives.
    for arrives in [false, true] {
        let (_counter, mut firmware) = device.open("B", "2");
        let heard = async {
            let first = device.hub.next_report().await;
            assert!(matches!(first.news, News::Done(_)) && first.address == "to");
            if arrives {
                drop(first.arrived);
                let again = device.hub.next_report().await;
                again.arrived.unwrap().send(()).unwrap();
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        };
        tokio::select! {
            () = firmware.run(&stop) => unreachable!("it waits for orders"),
            () = heard => {}
        }
    }
    let (_counter, mut firmware) = device.open("B", "2");
    tokio::select! {
        () = firmware.run(&stop) => unreachable!("it waits for orders"),
        _ = device.hub.next_report() => panic!("it was told already"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    assert!(device.open("B", "2").1.updates.last().unwrap().outcome.is_ok(), "who asks again is told again");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_while_it_is_on_trial_and_a_fall_back_is_a_failure() {
    let device = Device::new();
    device.rebooting();
    let (_counter, mut firmware) = device.open("B", "2");
    let tasks = Tasks::new("test");
    let stop = tasks.stop_signal();
    let waited = tokio::time::timeout(Duration::from_secs(900), firmware.run(&stop)).await;
    assert!(waited.is_err() && device.hub.recent().is_empty());
    let News::Failed(why) = device.start("A", "3").await else { panic!("failed") };
    assert_eq!(why, "the other slot did not come up healthy; slot A runs again");
    let (kind, message) = device.last_event();
    assert_eq!((kind, message), (EventKind::UpdateFailed, format!("Update to version 2 failed: {why}")));
}

#[test]
fn a_slot_on_trial_does_not_overwrite_the_good_one() {
    let device = Device::new();
    let (counter, _firmware) = device.open("B", "1");
    let ask = || {
        counter.ask(
            Update {
                id: "x".into(),
                url: "http://h/b".into(),
                sha256: "0".repeat(64),
                version: "2".into(),
                address: "to".into(),
            },
            None,
        )
    };
    assert!(ask().unwrap_err().contains("on trial itself"));
    device.gates.healthy.send_replace(true);
    assert_eq!(ask(), Ok(String::new()));
    assert!(ask().unwrap_err().contains("another update"), "it waits already");
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_does_not_go_on_over_the_only_good_slot() {
    let device = Device::new();
    let updates = Updates::for_test(device.folder.path(), "A", "1");
    updates.keep_fetching(Wanted { bundle: "/does/not/exist".into(), ..Wanted::default() });
    let (_counter, mut firmware) = device.open("A", "2");
    let tasks = Tasks::new("test");
    let stop = tasks.stop_signal();
    let waited = tokio::time::timeout(Duration::from_secs(900), firmware.run(&stop)).await;
    assert!(waited.is_err() && updates.pending().is_some() && device.hub.recent().is_empty());
    // Healthy: it goes on, and fails, for the file is gone.
    device.gates.healthy.send_replace(true);
    let failed = async {
        while device.hub.recent().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (_counter, mut firmware) = device.open("A", "2");
    tokio::select! {
        () = firmware.run(&stop) => unreachable!("it waits for orders"),
        () = failed => {}
    }
    assert!(device.last_event().1.contains("cannot read the bundle"));
}

#[tokio::test(start_paused = true)]
async fn what_failed_at_the_shell_is_told_upstream_and_what_a_stick_left_is_cleared_away() {
    let device = Device::new();
    device.gates.healthy.send_replace(true);
    let updates = Updates::for_test(device.folder.path(), "A", "1");
    updates.keep_fetching(Wanted { is_on_stick: true, ..Wanted::default() });
    let (_counter, mut firmware) = device.open("A", "1");
    let tasks = Tasks::new("test");
    let stop = tasks.stop_signal();
    tokio::select! {
        () = firmware.run(&stop) => unreachable!("it waits for orders"),
        () = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(updates.pending().is_none() && device.hub.recent().is_empty());
            updates.note_failed_here("no bundle", true).unwrap();
            device.gates.failed.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        } => {}
    }
    assert_eq!(device.last_event(), (EventKind::UpdateFailed, "Update from a stick failed: no bundle".to_owned()));
}

/// One that is told again, or another one that is told in its place, sends somebody to the wrong device.
#[tokio::test(start_paused = true)]
async fn what_failed_at_the_device_is_told_once_and_is_never_another_one() {
    let device = Device::new();
    device.gates.healthy.send_replace(true);
    let updates = Updates::for_test(device.folder.path(), "A", "1");
    // Nobody ran then.
    updates.note_failed_here("no room", false).unwrap();
    let other = Wanted { id: Some("x".into()), ..Wanted::default() };
    updates.end(&other, Err("the camera is gone".into())).unwrap();
    let (_counter, mut firmware) = device.open("A", "1");
    let tasks = Tasks::new("test");
    let stop = tasks.stop_signal();
    tokio::select! {
        () = firmware.run(&stop) => unreachable!("it waits for orders"),
        () = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            device.gates.failed.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        } => {}
    }
    let told = "Update at the device failed: no room".to_owned();
    assert_eq!((device.hub.recent().len(), device.last_event()), (1, (EventKind::UpdateFailed, told)));
}

#[test]
fn what_a_killed_shell_left_does_not_block_a_device_for_ever() {
    let device = Device::new();
    device.gates.healthy.send_replace(true);
    let updates = Updates::for_test(device.folder.path(), "A", "1");
    updates.keep_fetching(Wanted::default());
    let (counter, _firmware) = device.open("A", "1");
    let update = Update {
        id: "x".into(),
        url: "http://h/b".into(),
        sha256: "0".repeat(64),
        version: "2".into(),
        address: "to".into(),
    };
    let at_it = updates.lock().unwrap();
    assert!(counter.ask(update.clone(), None).unwrap_err().contains("another update"));
    drop(at_it);
    assert_eq!(counter.ask(update, None), Ok(String::new()));
    assert!(updates.pending().is_none());
}

#[test]
fn a_device_without_slots_takes_no_update() {
    let device = Device::new();
    let (counter, _firmware) = device.open("", "1");
    let update = Update {
        id: "x".into(),
        url: "http://h/b".into(),
        sha256: "0".repeat(64),
        version: "2".into(),
        address: "to".into(),
    };
    assert!(counter.ask(update, None).unwrap_err().contains("no update slots"));
}

#[tokio::test(start_paused = true)]
async fn who_sent_what_the_shell_found_cut_is_told() {
    let device = Device::new();
    device.gates.healthy.send_replace(true);
    let (_counter, mut firmware) = device.open("A", "1");
    let tasks = Tasks::new("test");
    let stop = tasks.stop_signal();
    let told = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let updates = Updates::for_test(device.folder.path(), "A", "1");
        let (id, address) = (Some("x".into()), Some("to".into()));
        updates.keep_fetching(Wanted { id, address, ..Wanted::default() });
        assert!(updates.make_way(&updates.lock().unwrap()).unwrap());
        device.gates.failed.notify_one();
        device.hub.next_report().await
    };
    let report = tokio::select! {
        () = firmware.run(&stop) => unreachable!("it waits for orders"),
        report = tokio::time::timeout(Duration::from_secs(60), told) => report.unwrap(),
    };
    assert!(matches!(report.news, News::Failed(why) if why.contains("another one was begun instead")));
    assert_eq!(report.address, "to");
}
