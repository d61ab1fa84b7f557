//! Updates of this device's firmware, for as long as the program runs (`device::update` does them).
//!
//!     Demand::Update ──► Counter::ask ──► Firmware, one at a time ──► reports to who asked, an event at the end
//!     a start ──────────────────────────────┘ goes on with what was cut; tells what became of what was started
//!
//! Whoever asked hears `done` when the new slot has been found healthy, over the reboot, and `failed` at any time.

use super::version;
use crate::base::Stop;
use crate::device::update::{Found, Pending, UpdateError, Updates, Wanted, news};
use crate::hub::{Hub, News, Outcome, Update};
use crate::model::EventKind;
use std::path::PathBuf;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

/// What events about it are about.
const SOURCE: &str = "system";

/// Takes orders.
#[derive(Clone)]
pub(super) struct Counter {
    hub: Hub,
    updates: Updates,
    /// One at a time; whoever comes meanwhile is refused by the lock.
    orders: mpsc::Sender<Wanted>,
    healthy: watch::Receiver<bool>,
}

pub(super) struct Firmware {
    hub: Hub,
    updates: Updates,
    data_dir: PathBuf,
    orders: mpsc::Receiver<Wanted>,
    healthy: watch::Receiver<bool>,
}

/// `healthy` is true once this slot is not on trial.
pub(super) fn open(
    hub: &Hub,
    data_dir: PathBuf,
    updates: Updates,
    healthy: watch::Receiver<bool>,
) -> (Counter, Firmware) {
    let (sender, orders) = mpsc::channel(1);
    let counter = Counter { hub: hub.clone(), updates: updates.clone(), orders: sender, healthy: healthy.clone() };
    (counter, Firmware { hub: hub.clone(), updates, data_dir, orders, healthy })
}

impl Counter {
    /// Whether it begins; all else is told by reports.
    pub(super) fn ask(&self, update: Update) -> Outcome {
        let Update { id, url, sha256, version, address } = update;
        let id = Some(id);
        // A message may come twice, also after the reboot that it led to.
        if let Some(last) = self.updates.last().filter(|last| last.id == id) {
            self.hub.report(address, news(&last.outcome));
            return Ok(String::new());
        }
        match self.updates.pending() {
            Some(pending) if pending.wanted.id == id => {
                self.hub.report(address, News::Progress("it is under way".into()));
                return Ok(String::new());
            }
            Some(_) => return Err(UpdateError::Busy.to_string()),
            None => {}
        }
        // Tells also whether there are slots at all.
        drop(self.updates.lock().map_err(|error| error.to_string())?);
        if !*self.healthy.borrow() {
            // The slot that would be written is the only one that is known to be good.
            return Err("the slot that runs is on trial itself; ask again when it has been found healthy".into());
        }
        let wanted = Wanted {
            bundle: url,
            sha256: Some(sha256),
            version: Some(version),
            id,
            address: Some(address),
            no_reboot: false,
        };
        self.orders.try_send(wanted).map_err(|_| UpdateError::Busy.to_string())?;
        Ok(String::new())
    }
}

impl Firmware {
    /// Until the stop.
    pub(super) async fn run(&mut self, stop: &Stop) {
        tokio::select! {
            () = self.work() => {}
            // What is cut here goes on at the next start.
            () = stop.stopped() => {}
        }
    }

    async fn work(&mut self) {
        match self.updates.found() {
            Found::Nothing => {}
            Found::Again(pending) => {
                info!(update = %pending.wanted.name(), "Going on with an update that was cut.");
                self.update(pending).await;
            }
            Found::Started(pending) => {
                // An error means that nobody will ever say so; the program is about to end then.
                if self.healthy.wait_for(|is_healthy| *is_healthy).await.is_err() {
                    return;
                }
                let said =
                    format!("{} is installed and healthy, in slot {}", pending.wanted.name(), self.updates.slot());
                version::keep(&self.data_dir);
                self.end(&pending.wanted, Ok(said));
            }
            Found::Failed(pending, why) => self.end(&pending.wanted, Err(why)),
        }
        while let Some(wanted) = self.orders.recv().await {
            // Of two that came at one moment; or the first is installed, and the machine is about to go down.
            if self.updates.pending().is_some() {
                self.tell(&wanted, News::Failed(UpdateError::Busy.to_string()));
                continue;
            }
            let pending = self.updates.begin(wanted);
            self.update(pending).await;
        }
    }

    async fn update(&mut self, pending: Pending) {
        let wanted = pending.wanted.clone();
        let lock = match self.updates.lock() {
            Ok(lock) => lock,
            // Somebody at the shell was faster, or has begun it and is at it: it is his to tell.
            Err(error) => return self.tell(&wanted, News::Failed(error.to_string())),
        };
        info!(update = %wanted.name(), from = %wanted.bundle, "Updating.");
        let (hub, address) = (self.hub.clone(), wanted.address.clone());
        let mut tell = |text: String| {
            info!("Update: {text}.");
            if let Some(address) = &address {
                hub.report(address.as_str(), News::Progress(text));
            }
        };
        if let Err(error) = self.updates.work(&lock, pending, &mut tell).await {
            self.end(&wanted, Err(error.to_string()));
        }
    }

    fn end(&self, wanted: &Wanted, outcome: Result<String, String>) {
        match &outcome {
            Ok(text) => {
                info!("Update: {text}.");
                self.hub.raise(EventKind::UpdateInstalled, SOURCE, format!("Update: {text}"));
            }
            Err(why) => {
                warn!(update = %wanted.name(), %why, "An update failed.");
                self.hub.raise(EventKind::UpdateFailed, SOURCE, format!("Update to {} failed: {why}", wanted.name()));
            }
        }
        self.tell(wanted, news(&outcome));
        if let Err(error) = self.updates.end(wanted, outcome) {
            error!(%error, "How the update ended cannot be kept.");
        }
    }

    fn tell(&self, wanted: &Wanted, news: News) {
        if let Some(address) = &wanted.address {
            self.hub.report(address.as_str(), news);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};
    use crate::model::Happening;
    use std::time::Duration;

    struct Device {
        folder: tempfile::TempDir,
        hub: Hub,
        healthy: watch::Sender<bool>,
    }

    impl Device {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder, hub: Hub::new(Clock::real()), healthy: watch::Sender::new(false) }
        }

        fn open(&self, slot: &str, boot_id: &str) -> (Counter, Firmware) {
            let data_dir = self.folder.path().to_owned();
            let updates = Updates::for_test(&data_dir, slot, boot_id);
            open(&self.hub, data_dir, updates, self.healthy.subscribe())
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
            let wanted = Wanted {
                version: Some("2".into()),
                id: Some("x".into()),
                address: Some("to".into()),
                ..Wanted::default()
            };
            updates.keep_rebooting(wanted);
        }
    }

    #[tokio::test]
    async fn the_new_slot_is_installed_when_it_is_healthy_and_who_asks_again_is_told_again() {
        let device = Device::new();
        device.rebooting();
        device.healthy.send_replace(true);
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
        assert_eq!(counter.ask(update), Ok(String::new()));
        assert_eq!(device.hub.next_report().await.news, News::Done(text));
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
            counter.ask(Update {
                id: "x".into(),
                url: "http://h/b".into(),
                sha256: "0".repeat(64),
                version: "2".into(),
                address: "to".into(),
            })
        };
        assert!(ask().unwrap_err().contains("on trial itself"));
        device.healthy.send_replace(true);
        assert_eq!(ask(), Ok(String::new()));
        assert!(ask().unwrap_err().contains("another update"), "it waits already");
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
        assert!(counter.ask(update).unwrap_err().contains("no update slots"));
    }
}
