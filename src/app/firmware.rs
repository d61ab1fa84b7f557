//! Updates of this device's firmware, for as long as the program runs (`device::update` does them).
//!
//!     Demand::Update ──► Counter::ask ──► Firmware, one at a time ──► reports to who asked, an event at the end
//!     a start ──────────────────────────────┘ goes on with what was cut; tells what became of what was started
//!
//! Whoever asked hears `done` when the new slot has been found healthy, over the reboot, and `failed` at any time. That is on the
//! disk until it has arrived at the broker, so a loss of power or of the line in between costs no answer. What was begun
//! at the shell or by a stick is told as an event; whoever stands there with a stick sees it by the LED.

use super::control::Gates;
use super::{health, version};
use crate::base::Stop;
use crate::device::update::{FailedHere, Found, Pending, Stage, UpdateError, Updates, Wanted, news};
use crate::hub::{Demand, Hub, News, Outcome, Update};
use crate::model::EventKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, error, info, warn};

/// What events about it are about.
const SOURCE: &str = "system";
/// How long the LED blinks when the bundle of a stick is installed and healthy, and when it is not.
const GOOD: Duration = Duration::from_secs(10);
const BAD: Duration = Duration::from_secs(120);
/// Before the last word is said again, when it was lost on its way.
const AGAIN: Duration = Duration::from_secs(10);

/// Takes orders.
#[derive(Clone)]
pub(super) struct Counter {
    hub: Hub,
    updates: Updates,
    /// One at a time; whoever comes meanwhile is refused by the lock.
    orders: mpsc::Sender<Wanted>,
    healthy: watch::Receiver<bool>,
    /// One that somebody is to be told of.
    ended: Arc<Notify>,
}

pub(super) struct Firmware {
    hub: Hub,
    updates: Updates,
    data_dir: PathBuf,
    orders: mpsc::Receiver<Wanted>,
    /// True once this slot is not on trial.
    healthy: watch::Receiver<bool>,
    /// One that was begun at the shell.
    failed: Arc<Notify>,
    /// One that somebody is to be told of.
    ended: Arc<Notify>,
}

pub(super) fn open(hub: &Hub, data_dir: PathBuf, updates: Updates, gates: &Gates) -> (Counter, Firmware) {
    let (sender, orders) = mpsc::channel(1);
    let (healthy, failed) = (gates.healthy.subscribe(), gates.failed.clone());
    let ended = Arc::<Notify>::default();
    let counter = Counter {
        hub: hub.clone(),
        updates: updates.clone(),
        orders: sender,
        healthy: healthy.clone(),
        ended: ended.clone(),
    };
    (counter, Firmware { hub: hub.clone(), updates, data_dir, orders, healthy, failed, ended })
}

impl Counter {
    /// Whether it begins; all else is told by reports.
    pub(super) fn ask(&self, update: Update, ca_file: Option<&Path>) -> Outcome {
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
            _ => {}
        }
        // Tells also whether there are slots at all.
        let lock = self.updates.lock().map_err(|error| error.to_string())?;
        if !*self.healthy.borrow() {
            return Err(UpdateError::OnTrial.to_string());
        }
        // Nobody is at what is left: whoever began it at the shell was killed.
        if self.updates.make_way(&lock).map_err(|error| error.to_string())? {
            self.ended.notify_one();
        }
        drop(lock);
        let wanted = Wanted {
            bundle: url,
            sha256: Some(sha256),
            version: Some(version),
            id,
            address: Some(address),
            ca_file: ca_file.map(Path::to_owned),
            ..Wanted::default()
        };
        self.orders.try_send(wanted).map_err(|_| UpdateError::Busy.to_string())?;
        Ok(String::new())
    }
}

impl Firmware {
    /// Until the stop.
    pub(super) async fn run(&mut self, stop: &Stop) {
        let telling = tell_how_they_end(self.hub.clone(), self.updates.clone(), self.ended.clone());
        tokio::select! {
            () = self.work() => {}
            () = telling => {}
            // What is cut here goes on at the next start.
            () = stop.stopped() => {}
        }
    }

    async fn work(&mut self) {
        match self.updates.found() {
            Found::Nothing => {}
            // Whoever looks after sticks finds it again; if he is at it, it is his.
            Found::Again(pending) if pending.is_left_on_stick() => {
                if let Ok(_lock) = self.updates.lock()
                    && let Err(error) = self.updates.forget()
                {
                    warn!(%error, "Cannot clear away what a stick left.");
                }
            }
            Found::Again(pending) => {
                // The slot that would be written may be the only good one.
                if pending.stage != Stage::Rebooting && self.healthy.wait_for(|is_healthy| *is_healthy).await.is_err() {
                    return;
                }
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
                self.end(&pending.wanted, Ok(said)).await;
            }
            Found::Failed(pending, why) => self.end(&pending.wanted, Err(why)).await,
        }
        // What failed at the device while nobody ran who could tell it.
        self.tell_of_shell().await;
        loop {
            let wanted = tokio::select! {
                Some(wanted) = self.orders.recv() => wanted,
                () = self.failed.notified() => {
                    // It can be one that a command asked for, and that the shell found cut.
                    self.ended.notify_one();
                    self.tell_of_shell().await;
                    continue;
                }
            };
            // Of two that came at one moment; or the first is installed, and the machine is about to go down.
            if self.updates.pending().is_some() {
                self.tell(&wanted, News::Failed(UpdateError::Busy.to_string()));
                continue;
            }
            let pending = self.updates.begin(wanted);
            self.update(pending).await;
        }
    }

    /// One that was begun there has failed; why is on the disk.
    async fn tell_of_shell(&self) {
        let FailedHere { why, is_from_stick } = match self.updates.take_failed_here() {
            Ok(Some(failed)) => failed,
            Ok(None) => return,
            Err(error) => {
                warn!(%error, "How an update that was begun at the device failed cannot be told.");
                return;
            }
        };
        warn!(%why, "An update that was begun at the device failed.");
        let way = if is_from_stick { "from a stick" } else { "at the device" };
        self.hub.raise(EventKind::UpdateFailed, SOURCE, format!("Update {way} failed: {why}"));
        if is_from_stick {
            self.blink(BAD).await;
        }
    }

    /// Nothing depends on it: not every device has an LED.
    async fn blink(&self, lasts: Duration) {
        if let Err(why) = self.hub.ask(Demand::Identify { lasts }).await {
            debug!(%why, "How the update from a stick ended is not shown by an LED.");
        }
    }

    async fn update(&mut self, mut pending: Pending) {
        let wanted = pending.wanted.clone();
        let lock = match self.updates.lock() {
            Ok(lock) => lock,
            // Somebody at the shell was faster, or has begun it and is at it: it is his to tell.
            Err(error) => return self.tell(&wanted, News::Failed(error.to_string())),
        };
        info!(update = %wanted.name(), from = %wanted.shown(), "Updating.");
        let (hub, address) = (self.hub.clone(), wanted.address.clone());
        let mut tell = |text: String| {
            info!("Update: {text}.");
            if let Some(address) = &address {
                hub.report(address.as_str(), News::Progress(text));
            }
        };
        let outcome = match self.updates.install(&lock, &mut pending, &mut tell).await {
            Ok(()) => {
                self.keep_what_works().await;
                self.updates.reboot(&pending, &mut tell).await
            }
            error => error,
        };
        match outcome {
            Ok(()) => {}
            // It starts whenever somebody restarts the machine, and is judged then.
            Err(error @ UpdateError::Reboot(_)) => {
                warn!(update = %wanted.name(), %error, "An update waits for a reboot.");
                self.tell(&wanted, News::Progress(error.to_string()));
            }
            Err(error) => self.end(&wanted, Err(error.to_string())).await,
        }
    }

    /// In the last moment before the new slot: what is gone by now is not its fault.
    async fn keep_what_works(&self) {
        if !*self.healthy.borrow() {
            return;
        }
        if let Err(error) = health::tried(&self.hub).await.save(&self.data_dir) {
            warn!(%error, "Cannot keep what works; the update will be judged by what was kept before.");
        }
    }

    async fn end(&self, wanted: &Wanted, outcome: Result<String, String>) {
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
        let lasts = if outcome.is_ok() { GOOD } else { BAD };
        match self.updates.end(wanted, outcome.clone()) {
            Ok(()) => self.ended.notify_one(),
            Err(error) => {
                error!(%error, "How the update ended cannot be kept.");
                self.tell(wanted, news(&outcome));
            }
        }
        if wanted.is_on_stick {
            self.blink(lasts).await;
        }
    }

    fn tell(&self, wanted: &Wanted, news: News) {
        if let Some(address) = &wanted.address {
            self.hub.report(address.as_str(), news);
        }
    }
}

/// How the last one ended, until that has arrived; then the next.
async fn tell_how_they_end(hub: Hub, updates: Updates, ended: Arc<Notify>) {
    loop {
        while let Some(last) = updates.last()
            && let Some(address) = &last.untold
        {
            if !hub.report_until_arrived(address.as_str(), news(&last.outcome)).await {
                tokio::time::sleep(AGAIN).await;
            } else if let Err(error) = updates.told(last) {
                warn!(%error, "That an update's end was told cannot be kept; it will be told again.");
                break;
            }
        }
        ended.notified().await;
    }
}

#[cfg(test)]
mod tests;
