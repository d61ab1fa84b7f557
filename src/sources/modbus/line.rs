//! The loop of one line: who is asked what, and when.
//!
//!     run:      open ─► session ─► lost: all tags bad, wait (backoff) ─► open ...
//!     session:  a write, but not two in a row; the scan that is due longest; a probe of a silent unit; else wait
//!
//! - A line is up from the first answer on. It is lost when its wire cannot be had again, or when nobody on it answers any
//!   more: three units in a row, or the last that is left, whatever it is asked.
//! - A unit that does not answer takes `timeout` once or twice; then it is silent and gets one question now and then, which
//!   takes not much longer than others take to answer, so that at most a fifth of the line's time goes into probes. Each
//!   fourth is patient.
//! - While one question after another is not answered, units that are known to be quick get less time: so that a line that is
//!   frozen is known to be within a second.
//!
//! Invariant: a scan is begun on the grid of its interval or counted as overrun; a block leaves its scan when it was asked.

use super::fault;
use super::link::{Fault, Link};
use super::plan::Limits;
use super::status::{Counts, Status};
use super::unit::{Habits, Health, Scan, Silence, Unit};
use crate::base::Backoff;
use crate::hub::{Hub, WriteRequest};
use crate::model::{Quality, Status as Code};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_modbus::{Request, Response};
use tracing::{debug, info, warn};

pub struct Line {
    /// For events and logs.
    pub label: String,
    pub hub: Hub,
    pub link: Link,
    pub timeout: Duration,
    pub retries: u8,
    pub limits: Limits,
    pub units: Vec<Unit>,
    pub counts: Counts,
    pub status: Status,
    /// Units that did not answer since somebody did, and how many questions that were.
    pub unanswered: (BTreeSet<usize>, u32),
    /// No probe before this while the line has other work to do.
    pub probe_after: Instant,
    /// When the status tags were told.
    pub told: Instant,
    /// Why the line is lost, as its tags say.
    pub lost: Option<String>,
}

/// First and longest wait before a line is opened again.
const REOPEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// A wire on which nobody answers for so long is made anew: the other side may have forgotten it.
const STALE: Duration = Duration::from_secs(10);
/// Even a quick unit is given this time.
pub const LEAST: Duration = Duration::from_millis(100);
const TELL: Duration = Duration::from_secs(1);
/// As many units in a row are taken for the whole line.
const WITNESSES: usize = 3;

/// What to do next.
enum Work {
    Read { unit: usize, job: usize },
    Probe { unit: usize },
    Wait(Instant),
}

impl Line {
    pub async fn run(&mut self, writes: &mut mpsc::Receiver<WriteRequest>) {
        let mut backoff = Backoff::new(REOPEN.0, REOPEN.1);
        loop {
            let reason = match self.link.open().await {
                Ok(()) => {
                    let reason = self.session(writes).await;
                    if self.counts.is_connected {
                        backoff.reset();
                    }
                    reason
                }
                Err(reason) => reason,
            };
            self.lose(&reason);
            let until = Instant::now() + backoff.wait();
            loop {
                tokio::select! {
                    () = sleep_until(until) => break,
                    Some(write) = writes.recv() => {
                        // Whoever asked may have given up.
                        let _ = write.reply.send(Err(Quality::new(Code::BAD_NOT_CONNECTED, reason.as_str())));
                    }
                }
            }
        }
    }

    /// Until the line is lost: why.
    async fn session(&mut self, writes: &mut mpsc::Receiver<WriteRequest>) -> String {
        let opened = Instant::now();
        self.unanswered = (BTreeSet::new(), 0);
        for unit in &mut self.units {
            unit.unanswered = 0;
            // It may be another device now.
            unit.habits = Habits::default();
            for job in &mut unit.jobs {
                job.forget();
                job.due = opened;
            }
        }
        // Those who write all the time must not keep the others from reading.
        let mut has_written = false;
        loop {
            self.tell(false);
            let is_stale = !self.counts.is_connected && opened.elapsed() > STALE;
            if is_stale && self.units.iter().all(|unit| !unit.is_good()) {
                return self.nobody();
            }
            let write = if has_written { None } else { writes.try_recv().ok() };
            has_written = write.is_some();
            let done = if let Some(write) = write {
                self.write(write).await
            } else {
                match self.next(Instant::now()) {
                    Work::Read { unit, job } => self.read(unit, job).await,
                    Work::Probe { unit } => self.probe(unit).await,
                    Work::Wait(until) => tokio::select! {
                        biased;
                        Some(write) = writes.recv() => {
                            has_written = true;
                            self.write(write).await
                        }
                        reason = self.link.closed() => self.reopen(reason).await,
                        () = sleep_until(until) => Ok(()),
                    },
                }
            };
            if let Err(reason) = done {
                return reason;
            }
        }
    }

    pub fn nobody(&self) -> String {
        let last = &self.counts.last_error;
        if self.units.len() == 1 { last.clone() } else { format!("nobody on the line answers; {last}") }
    }

    fn next(&mut self, now: Instant) -> Work {
        let mut wait = self.told + TELL;
        let mut first: Option<(bool, Instant, Work)> = None;
        for (index, unit) in self.units.iter_mut().enumerate() {
            if !unit.is_good() {
                continue;
            }
            // One that did not answer comes after the others.
            let is_doubtful = unit.unanswered > 0;
            for (job_index, job) in unit.jobs.iter_mut().enumerate() {
                if job.due <= now {
                    self.counts.overruns += job.begin(now, &self.limits, now >= self.probe_after);
                }
                match &job.scan {
                    Some(Scan { began, .. }) => {
                        if first.as_ref().is_none_or(|(doubt, at, _)| (is_doubtful, *began) < (*doubt, *at)) {
                            first = Some((is_doubtful, *began, Work::Read { unit: index, job: job_index }));
                        }
                    }
                    None => wait = wait.min(job.due),
                }
            }
        }
        let is_up = self.counts.is_connected;
        // A line that is never idle has to spare the time nevertheless.
        let allowed = match (&first, is_up) {
            (_, false) => now,
            (None, true) => self.probe_after,
            (Some(_), true) => self.probe_after + Duration::from_secs(10),
        };
        let silent = self.units.iter().enumerate().filter_map(|(index, unit)| match &unit.health {
            Health::Silent(silence) => Some((silence.next, index)),
            Health::Good => None,
        });
        let probe = silent.min();
        match (first, probe) {
            (_, Some((at, unit))) if at.max(allowed) <= now && is_up => Work::Probe { unit },
            (Some((_, _, work)), _) => work,
            (None, Some((at, unit))) if at.max(allowed) <= now => Work::Probe { unit },
            (None, Some((at, _))) => Work::Wait(wait.min(at.max(allowed))),
            (None, None) => Work::Wait(wait),
        }
    }

    /// Less than `timeout` only if others did not answer either.
    pub fn patience(&self, unit: usize) -> Duration {
        match self.units[unit].pace {
            Some(pace) if self.unanswered.1 > 0 => (pace * 4).max(LEAST).min(self.timeout),
            _ => self.timeout,
        }
    }

    /// One question to a unit, counted; an answer of any kind shows that it is there.
    pub async fn ask(
        &mut self,
        unit: usize,
        question: &Request<'static>,
        patience: Duration,
    ) -> Result<Response, Fault> {
        let (began, id) = (Instant::now(), self.units[unit].id);
        let had_answered = self.link.has_answered();
        let mut outcome = self.link.ask(id, question, patience).await;
        if let Err(Fault::Lost { was_sent, .. }) = outcome
            && had_answered
            && (!was_sent || is_read(question))
        {
            // Some devices close after each answer. Whoever cannot be reached again is lost.
            outcome = match self.link.open().await {
                Ok(()) => {
                    self.counts.reconnects += 1;
                    self.link.ask(id, question, patience).await
                }
                Err(reason) => Err(Fault::Lost { reason, was_sent }),
            };
        }
        let own = &mut self.units[unit];
        own.counts.requests += 1;
        self.counts.requests += 1;
        match &outcome {
            Ok(_) => {}
            Err(fault) => {
                let told = fault::of_unit(fault);
                debug!(line = %self.label, unit = own.id, error = %told, "A request failed.");
                let timeouts = u64::from(matches!(fault, Fault::Timeout(_)));
                for counts in [&mut own.counts, &mut self.counts] {
                    counts.errors += 1;
                    counts.timeouts += timeouts;
                }
                own.counts.last_error.clone_from(&told);
                self.counts.last_error =
                    if matches!(fault, Fault::Lost { .. }) { told } else { format!("unit {}: {told}", own.id) };
            }
        }
        match &outcome {
            Ok(_) | Err(Fault::Exception(_)) => {
                own.took(began.elapsed());
                self.unanswered = (BTreeSet::new(), 0);
                self.is_up();
                let is_gateway = matches!(&outcome, Err(Fault::Exception(code)) if fault::is_of_gateway(*code));
                if !is_gateway {
                    self.is_there(unit);
                }
            }
            Err(_) => {}
        }
        outcome
    }

    pub fn is_up(&mut self) {
        if self.counts.is_connected {
            return;
        }
        self.counts.is_connected = true;
        self.lost = None;
        info!(line = %self.label, "The line answers.");
        self.hub.source_back(&self.label);
        // They may have fallen silent because the line was.
        for unit in &mut self.units {
            if let Health::Silent(silence) = &mut unit.health {
                silence.next = Instant::now();
                let reason = format!("unit {}: {}", unit.id, unit.counts.last_error);
                self.hub.degrade(&unit.tags(), &Quality::new(Code::BAD_NO_COMMUNICATION, reason));
            }
        }
        self.tell(true);
    }

    fn is_there(&mut self, unit: usize) {
        let own = &mut self.units[unit];
        own.unanswered = 0;
        if !own.counts.is_connected {
            own.counts.is_connected = true;
            own.status.tell_now(&own.counts, &self.hub);
        }
        if !own.is_good() {
            own.health = Health::Good;
            info!(line = %self.label, unit = own.id, "The unit answers.");
            self.hub.source_back(&own.folder);
            let now = Instant::now();
            own.jobs.iter_mut().for_each(|job| job.due = now);
        }
    }

    /// A question was not answered. `Err` if the line is lost with it.
    pub async fn unanswered(
        &mut self,
        unit: usize,
        fault: &Fault,
        culprit: Option<(usize, usize)>,
    ) -> Result<(), String> {
        let own = &mut self.units[unit];
        own.unanswered = own.unanswered.saturating_add(1);
        let reason = fault::of_unit(fault);
        if !matches!(fault, Fault::Exception(_)) {
            self.unanswered.0.insert(unit);
            self.unanswered.1 += 1;
        }
        if !self.link.is_open() {
            if !self.counts.is_connected {
                // Another one is asked first the next time.
                self.silence(unit, &reason, culprit);
            }
            match fault {
                Fault::Garbled(_) => self.link.open().await?,
                _ => self.reopen(reason.clone()).await?,
            }
        }
        let (units, questions) = &self.unanswered;
        if self.counts.is_connected && units.len() >= WITNESSES && *questions > self.retries.into() {
            return Err(self.nobody());
        }
        if !self.units[unit].is_good() {
            Ok(())
        } else if self.units[unit].unanswered > self.retries || !self.counts.is_connected {
            self.silence(unit, &reason, culprit);
            self.last_witness(unit)
        } else {
            if let Some((job, first)) = culprit {
                // At once again: on a line of RTU frames an answer that is only late is then the right one.
                self.ask_again(unit, job, first);
            }
            Ok(())
        }
    }

    /// If nobody is left that answers, the last one is asked something else at once, if it can be; else the line is lost.
    fn last_witness(&mut self, unit: usize) -> Result<(), String> {
        if !self.counts.is_connected || self.units.iter().any(Unit::is_good) {
            return Ok(());
        }
        let own = &mut self.units[unit];
        let blocks: usize = own.jobs.iter().map(|job| job.blocks(&self.limits).len()).sum();
        match &mut own.health {
            Health::Silent(silence) if blocks > 1 => {
                silence.next = Instant::now();
                self.probe_after = silence.next;
                Ok(())
            }
            _ => Err(self.nobody()),
        }
    }

    fn ask_again(&mut self, unit: usize, job: usize, first: usize) {
        let own = &mut self.units[unit].jobs[job];
        let block = own.blocks(&self.limits).into_iter().find(|block| block.extents.start == first);
        if let (Some(block), Some(scan)) = (block, &mut own.scan) {
            scan.todo.push_front(block);
        }
    }

    fn silence(&mut self, unit: usize, reason: &str, culprit: Option<(usize, usize)>) {
        let own = &mut self.units[unit];
        own.health = Health::Silent(Silence::new(culprit));
        own.counts.is_connected = false;
        own.jobs.iter_mut().for_each(|job| job.scan = None);
        let reason = format!("unit {}: {reason}", own.id);
        if self.lost.is_none() {
            self.hub.degrade(&own.tags(), &Quality::new(Code::BAD_NO_COMMUNICATION, reason.as_str()));
        }
        own.status.tell_now(&own.counts, &self.hub);
        // While nobody answers it is the line that is lost.
        if self.counts.is_connected && self.units.len() > 1 {
            warn!(line = %self.label, unit = self.units[unit].id, %reason, "A unit does not answer.");
            self.hub.source_lost(&self.units[unit].folder, &reason);
        }
    }

    /// Some devices close after each answer; others have been ended. `Err` if the wire cannot be had again.
    pub async fn reopen(&mut self, reason: String) -> Result<(), String> {
        self.link.close();
        if !self.counts.is_connected {
            return Err(reason);
        }
        self.link.open().await?;
        self.counts.reconnects += 1;
        Ok(())
    }

    fn lose(&mut self, reason: &str) {
        self.link.close();
        let is_news = self.lost.as_deref() != Some(reason);
        self.lost = Some(reason.to_owned());
        if is_news {
            warn!(line = %self.label, %reason, "The line is lost; trying again.");
        }
        self.counts.is_connected = false;
        self.counts.last_error = reason.to_owned();
        self.hub.source_lost(&self.label, reason);
        let quality = Quality::new(Code::BAD_NOT_CONNECTED, reason);
        for unit in &mut self.units {
            unit.counts.is_connected = false;
            if is_news {
                self.hub.degrade(&unit.tags(), &quality);
            }
        }
        self.tell(true);
    }

    fn tell(&mut self, is_urgent: bool) {
        if !is_urgent && self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let (now, mut batch) = (self.hub.now(), Vec::new());
        self.status.tell(&self.counts, now, &mut batch);
        for unit in &mut self.units {
            unit.status.tell(&unit.counts, now, &mut batch);
        }
        self.hub.publish(batch);
    }
}

fn is_read(question: &Request<'_>) -> bool {
    matches!(
        question,
        Request::ReadCoils(..)
            | Request::ReadDiscreteInputs(..)
            | Request::ReadInputRegisters(..)
            | Request::ReadHoldingRegisters(..)
    )
}
