//! What the device is asked to do about itself, done: a new configuration, one on trial, a blink, another log, a reboot.
//!
//!     Hub::demands ──► answer ──┬─► running.change
//!     SIGHUP ──► reload ────────┤
//!     due ──────────────────────┴─► a trial rolls back, the LED goes out, the log is as configured
//!
//!     no trial ──apply──► on trial ──confirm──► no trial        heard after the change: the way to the sender works
//!                            ├──limit───► rolled back           the file before, then as a reload; tried until it works
//!                            └──reload of another text──► over  whoever is at the device itself has the last word
//!
//! One thing at a time: this is one task's, and whoever else asks waits. What a trial needs to end well is on disk
//! before the change begins (`commit.rs`), so nothing here has to survive.

use super::Options;
use super::commit::{Files, Marker, hash};
use super::firmware::Counter;
use super::identify::{self, Blinking};
use super::plan::Plan;
use super::report::Facts;
use super::running::{Changed, Running};
use crate::base::{Tasks, logs};
use crate::config::{Faults, hide_secrets};
use crate::device::update::{REBOOT, ask_for_reboot};
use crate::hub::{Apply, Demand, DeviceRequest, Hub, News, Outcome};
use crate::model::{EventKind, Timestamp};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

/// How long an answer gets on its way before what carries it may end.
const ANSWER: Duration = Duration::from_millis(500);
/// Between two attempts to go back, or to say that something was confirmed.
const RETRY: Duration = Duration::from_secs(10);
/// Trials that ended and are still known by their ids.
const ENDED: usize = 16;

/// What is asked about configurations is about this.
const SOURCE: &str = "configuration";

pub(super) struct Steward {
    hub: Hub,
    running: Running,
    options: Options,
    files: Files,
    facts: watch::Sender<Facts>,
    firmware: Counter,
    trial: Option<Trial>,
    /// Ids and how they ended, the oldest first: who asks again is told again.
    ended: Vec<(String, News)>,
    /// The last that was confirmed.
    untold: watch::Sender<Option<(Marker, News)>>,
    /// Tells of it. Ends with this.
    _telling: Tasks,
    leds: PathBuf,
    blinking: Option<(Blinking, Instant)>,
    log_until: Option<Instant>,
}

struct Trial {
    marker: Marker,
    /// Whoever is heard from then on came through to the new configuration.
    applied: Instant,
    deadline: Instant,
    until: Timestamp,
    summary: String,
}

impl Steward {
    pub(super) fn new(
        hub: Hub,
        running: Running,
        options: Options,
        facts: watch::Sender<Facts>,
        firmware: Counter,
    ) -> Self {
        let files = Files::of(&options.config);
        let (untold, telling) = (watch::Sender::new(None), Tasks::new("configuration"));
        let (teller, news) = ((hub.clone(), files.clone()), untold.subscribe());
        telling.spawn("confirmation", move |stop| {
            let ((hub, files), news) = (teller.clone(), news.clone());
            async move {
                tokio::select! {
                    () = tell(&hub, &files, news) => {}
                    () = stop.stopped() => {}
                }
            }
        });
        let mut steward = Self {
            untold,
            _telling: telling,
            hub,
            running,
            options,
            facts,
            firmware,
            trial: None,
            ended: Vec::new(),
            leds: identify::LEDS.into(),
            blinking: None,
            log_until: None,
            files,
        };
        if let Some(marker) = steward.files.untold() {
            steward.say_confirmed(marker, News::Done("confirmed before this start".into()));
        }
        steward
    }

    pub(super) async fn stop(self) {
        drop(self.blinking);
        self.running.stop().await;
    }

    /// When there is something to do without being asked. Cancel safe.
    pub(super) async fn due(&self) {
        let trial = self.trial.as_ref().map(|trial| trial.deadline);
        let blinking = self.blinking.as_ref().map(|(_, until)| *until);
        match [trial, blinking, self.log_until].into_iter().flatten().min() {
            Some(next) => tokio::time::sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// Does it.
    pub(super) async fn do_due(&mut self) {
        let now = Instant::now();
        self.blinking.take_if(|(_, until)| *until <= now);
        if self.log_until.take_if(|until| *until <= now).is_some() {
            logs::set(self.running.log_filter());
            info!("The log is as configured again.");
        }
        if self.trial.as_ref().is_some_and(|trial| trial.deadline <= now) {
            self.roll_back().await;
        }
    }

    pub(super) async fn answer(&mut self, request: DeviceRequest) {
        let DeviceRequest { demand, reply } = request;
        if reply.is_closed() {
            // Whoever asked was told that it failed while something else was being done. It must not happen after that.
            return warn!("Nobody waits for a command any more, so it is not done.");
        }
        let outcome = match demand {
            Demand::Reload => return self.reload(Some(reply)).await,
            Demand::Apply(apply) => return self.apply(apply, reply).await,
            Demand::Confirm { id, heard } => self.confirm(&id, heard),
            Demand::Configuration => Ok(hide_secrets(self.running.text())),
            Demand::Identify { lasts } => self.identify(lasts),
            Demand::Log { filter, lasts } => self.log(&filter, lasts),
            Demand::Reboot => {
                let outcome = ask_for_reboot(Path::new(REBOOT)).await;
                let outcome = outcome.map_err(|error| format!("this device cannot be rebooted from here: {error}"));
                let is_accepted = outcome.is_ok();
                let _ = reply.send(outcome);
                if is_accepted {
                    // The system is about to say stop; the answer is to be on its way by then.
                    tokio::time::sleep(ANSWER).await;
                }
                return;
            }
            Demand::Update(update) => self.firmware.ask(update, self.running.update_ca_file()),
        };
        // Whoever asked may have given up.
        let _ = reply.send(outcome);
    }

    /// Applies the configuration as it is now in its file, and says so: in the log, as an event, and to who asked.
    pub(super) async fn reload(&mut self, reply: Option<oneshot::Sender<Outcome>>) {
        let outcome = self.running.change().await;
        let answer = match &outcome {
            Ok(Some(Changed { summary, .. })) => {
                info!(%summary, "Applied the new configuration.");
                self.hub.raise(EventKind::ConfigurationApplied, SOURCE, format!("Applied: {summary}"));
                Ok(summary.clone())
            }
            Ok(None) => {
                info!("Nothing in the configuration has changed.");
                Ok("nothing in the configuration has changed".to_owned())
            }
            Err(faults) => {
                for fault in &faults.0 {
                    warn!("{fault}.");
                }
                warn!("Refused the new configuration; the last good one keeps running.");
                self.hub.raise(EventKind::ConfigurationRefused, SOURCE, faults.to_string());
                Err(faults.to_string())
            }
        };
        if outcome.is_ok() {
            self.show();
            if self.trial.as_ref().is_some_and(|trial| trial.marker.after != hash(self.running.text())) {
                self.end_trial(News::Failed("replaced by a change at the device itself".into()));
            }
        }
        if let Some(reply) = reply {
            // Whoever asked may have given up.
            let _ = reply.send(answer);
        }
        if let Ok(Some(changed)) = outcome {
            self.running.finish(changed).await;
        }
    }

    async fn apply(&mut self, apply: Apply, reply: oneshot::Sender<Outcome>) {
        let Apply { id, toml, confirm_within, address } = apply;
        if let Some(news) = self.known(&id) {
            self.hub.report(address, news);
            let _ = reply.send(Ok(String::new()));
            return;
        }
        let marker = match self.begin(id, &toml, confirm_within, address) {
            Ok(marker) => marker,
            Err(why) => {
                warn!(%why, "Refused a configuration that was to be tried.");
                self.hub.raise(EventKind::ConfigurationRefused, SOURCE, why.as_str());
                let _ = reply.send(Err(why));
                return;
            }
        };
        // What follows is told by reports, because the change may end the connection.
        let _ = reply.send(Ok(String::new()));
        tokio::time::sleep(ANSWER).await;
        let (summary, changed) = match self.running.change().await {
            Ok(Some(changed)) => (changed.summary.clone(), Some(changed)),
            Ok(None) => ("nothing that runs has changed".to_owned(), None),
            Err(faults) => return self.give_up(marker, &faults).await,
        };
        let until = self.hub.now().saturating_add(confirm_within);
        let applied = Instant::now();
        info!(%summary, %until, "Applied a configuration on trial; it must be confirmed.");
        self.hub.raise(EventKind::ConfigurationApplied, SOURCE, format!("On trial until {until}: {summary}"));
        let trial = Trial { marker, applied, deadline: applied + confirm_within, until, summary };
        self.hub.report(trial.marker.address.clone(), trial.progress());
        self.trial = Some(trial);
        self.show();
        if let Some(changed) = changed {
            self.running.finish(changed).await;
        }
    }

    /// What there is to say about an id that was here before.
    fn known(&self, id: &str) -> Option<News> {
        let trial = self.trial.as_ref().filter(|trial| trial.marker.id == id).map(Trial::progress);
        trial.or_else(|| self.ended.iter().find(|(known, _)| known == id).map(|(_, news)| news.clone()))
    }

    /// Everything that can be said without touching what runs, and then the files. Or why not.
    fn begin(&self, id: String, toml: &str, within: Duration, address: String) -> Result<Marker, String> {
        if let Some(Trial { marker, until, .. }) = &self.trial {
            return Err(format!(
                "another configuration is on trial until {until} (id {}); confirm it or wait until then",
                marker.id
            ));
        }
        Plan::of_text(&self.options, toml.to_owned()).map_err(|faults| faults.to_string())?;
        let before = self.running.text();
        let found = self.files.read().map_err(|error| format!("the configuration cannot be read: {error}"))?;
        if found != before {
            return Err("the file on the device is not the configuration that runs: somebody is editing it; \
                        `vedette reload` takes it in"
                .into());
        }
        let until = self.hub.now().saturating_add(within).to_string();
        let marker = Marker { id, address, until, before: hash(before), after: hash(toml) };
        let failed = |error: std::io::Error| format!("the configuration on the device cannot be replaced: {error}");
        self.files.begin(&marker, before, toml).map_err(failed)?;
        Ok(marker)
    }

    /// It could not be put to use, so nothing has changed but the file.
    async fn give_up(&mut self, marker: Marker, faults: &Faults) {
        let restored = self.files.restore(Some(&marker)).and_then(|()| self.files.end());
        if let Err(error) = restored {
            // The next start does it.
            error!(%error, "The configuration before cannot be put back in its place; it runs, though.");
        }
        warn!("Refused a configuration that was to be tried: {faults}.");
        self.hub.raise(EventKind::ConfigurationRefused, SOURCE, faults.to_string());
        let news = News::Failed(faults.to_string());
        self.hub.report(marker.address, news.clone());
        self.remember(marker.id, news);
    }

    fn confirm(&mut self, id: &str, heard: Instant) -> Outcome {
        let Some(trial) = &self.trial else {
            return match self.ended.iter().find(|(known, _)| known == id) {
                Some((_, News::Done(_))) => Ok("it is confirmed already".into()),
                Some(_) => Err(format!("the trial of {id} is over; the configuration before it runs")),
                None => Err("no configuration is on trial".into()),
            };
        };
        if trial.marker.id != id {
            return Err(format!("another configuration is on trial; its id is {}", trial.marker.id));
        }
        if heard < trial.applied {
            return Err(
                "this was sent before the configuration was in force, so it proves nothing; confirm it again".into()
            );
        }
        // Somebody at the device is about to change it again, or has already gone back.
        if self.files.read().ok().as_deref().map(hash).as_ref() != Some(&trial.marker.after) {
            return Err(
                "the file on the device is not the configuration on trial any more; it will be rolled back".into()
            );
        }
        self.files.confirm().map_err(|error| format!("the confirmation cannot be written down: {error}"))?;
        info!("The configuration on trial is confirmed.");
        let summary = trial.summary.clone();
        self.hub.raise(EventKind::ConfigurationApplied, SOURCE, format!("Confirmed: {summary}"));
        self.end_trial(News::Done(format!("confirmed: {summary}")));
        Ok("confirmed".into())
    }

    async fn roll_back(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        // Should it fail.
        trial.deadline = Instant::now() + RETRY;
        let marker = trial.marker.clone();
        warn!("The configuration on trial was not confirmed; going back to the one before.");
        if let Err(error) = self.files.restore(Some(&marker)) {
            return error!(%error, "The configuration before cannot be put back in its place; trying again.");
        }
        match self.running.change().await {
            Ok(changed) => {
                let why = "not confirmed; rolled back";
                self.hub.raise(
                    EventKind::ConfigurationRefused,
                    SOURCE,
                    format!("The configuration on trial was {why}"),
                );
                self.end_trial(News::Failed(why.into()));
                if let Some(changed) = changed {
                    self.running.finish(changed).await;
                }
            }
            Err(faults) => error!("The configuration before cannot be applied again ({faults}); trying again."),
        }
    }

    fn end_trial(&mut self, news: News) {
        let Some(Trial { marker, .. }) = self.trial.take() else { return };
        if let Err(error) = self.files.end() {
            error!(%error, "The trial is over, but its files cannot be removed; the next start would roll back.");
        }
        if let News::Done(_) = news {
            self.say_confirmed(marker, news);
        } else {
            self.hub.report(marker.address, news.clone());
            self.remember(marker.id, news);
        }
        self.show();
    }

    /// Until it has arrived, also if this process ends before: whoever asked would take the device for lost.
    fn say_confirmed(&mut self, marker: Marker, news: News) {
        self.remember(marker.id.clone(), news.clone());
        self.untold.send_replace(Some((marker, news)));
    }

    fn remember(&mut self, id: String, news: News) {
        self.ended.push((id, news));
        if self.ended.len() > ENDED {
            self.ended.remove(0);
        }
    }

    /// What a fleet sees of it.
    fn show(&self) {
        let pending_until = self.trial.as_ref().map(|trial| trial.until);
        let applied = self.hub.now();
        self.facts.send_if_modified(|facts| {
            let mut next = self.running.facts(applied);
            if next.hash == facts.hash {
                next.applied = facts.applied;
            }
            next.pending_until = pending_until;
            *facts != next && {
                *facts = next;
                true
            }
        });
    }

    fn identify(&mut self, lasts: Duration) -> Outcome {
        let until = Instant::now() + lasts;
        let blinking = match self.blinking.take() {
            Some((blinking, _)) => blinking,
            None => Blinking::start(&self.leds, self.running.led())?,
        };
        let said = format!("the LED {} blinks for {} s", blinking.name(), lasts.as_secs());
        self.blinking = Some((blinking, until));
        Ok(said)
    }

    fn log(&mut self, filter: &str, lasts: Option<Duration>) -> Outcome {
        logs::check(filter).map_err(|error| error.to_string())?;
        logs::set(Some(filter));
        self.log_until = lasts.map(|lasts| Instant::now() + lasts);
        Ok(match lasts {
            Some(lasts) => format!("logged by {filter:?} for {} s", lasts.as_secs()),
            None => format!("logged by {filter:?} until the next start, or until [device] log changes"),
        })
    }
}

/// Says of each configuration that was confirmed that it was, until that has arrived.
async fn tell(hub: &Hub, files: &Files, mut untold: watch::Receiver<Option<(Marker, News)>>) {
    loop {
        let next = untold.borrow_and_update().clone();
        if let Some((marker, news)) = next {
            while !hub.report_until_arrived(marker.address.as_str(), news.clone()).await {
                tokio::time::sleep(RETRY).await;
            }
            if let Err(error) = files.told(&marker) {
                warn!(%error, "That a confirmation was told cannot be kept; it will be told again.");
            }
        }
        if untold.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

impl Trial {
    fn progress(&self) -> News {
        News::Progress(format!("applied; confirm until {}: {}", self.until, self.summary))
    }
}

#[cfg(test)]
mod tests;
