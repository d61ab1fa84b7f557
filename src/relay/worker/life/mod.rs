//! One life of a worker: from its first word to its last.
//!
//! A single loop reads, writes and looks at the time, so there is one order of things. Questions are numbered; what comes with a
//! number that was not asked, or is not an answer to what was asked, is no message and ends the life.
//!
//! A lane is stuck if something was asked in it and nothing has come since, for longer than the lane's patience: the worker
//! answers in order, so all that wait in it wait for the same call.
//!
//! Two things are not a frozen server, though they look like one from a single lane:
//!
//! - Most old DA servers have one thread for all their clients, so one slow call of ours (AddItems of a thousand, a read of a device that
//!   is off, a long list of names) holds GetStatus back. GetStatus is judged only when no other lane has a call under way within
//!   its own patience, and its time begins anew with each answer in any lane ([`Life::status_ends`]). The price: a server that
//!   freezes in such a call, or just before one, is found out when that call's patience ends and not that of GetStatus.
//! - A read or write of a slow device may take longer than its patience while GetStatus answers. Whoever waits for it is told
//!   BadTimeout; the worker goes on, until [`STUCK`] times the patience have passed.
//!
//! The first GetStatus makes a connection of its own, for which the server may need as long as for its start.

use super::pipe::{Incoming, Outgoing};
use super::{Ask, Launch, Listener, Phase, Pieces, Questions, Why};
use crate::base::Clock;
use crate::relay::hresults::has_ended;
use crate::relay::protocol::{Event, Failure, FromWorker, Hresult, Lane, Reply, Request, ToWorker};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

/// Questions that are not answered yet; further ones wait.
const UNANSWERED: usize = 1024;
/// Of what a worker says for the log, so much from one GetStatus to the next.
const WORDS: u32 = 20;
/// The longest text of a worker that is repeated in logs and states.
const LONGEST_TEXT: usize = 1000;
/// So many times its patience a call of the Data lane may take, while the server says that it lives.
const STUCK: u32 = 4;

/// ERROR_TIMEOUT: what is told to who does not wait any longer.
const TIMEOUT: Hresult = 0x8007_05B4_u32 as Hresult;

pub(super) struct Life<'a> {
    launch: &'a Launch,
    questions: &'a mut Questions,
    listener: &'a dyn Listener,
    clock: &'a Clock,
    waiting: HashMap<u32, Waiting>,
    next_id: u32,
    lanes: [LaneState; 4],
    running: bool,
    words: u32,
    status_due: Instant,
    /// When GetStatus was last answered in this life.
    status_at: Option<Instant>,
    /// When anything was last answered, in any lane.
    heard: Instant,
}

struct Waiting {
    lane: Lane,
    kind: Kind,
    asked: Instant,
    /// Nobody is there for the answer to a GetStatus, which goes into the state, nor for one that came too late.
    answer: Option<oneshot::Sender<Reply>>,
    pieces: Option<Pieces>,
}

/// What answers a request.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Status,
    Browse,
    Properties(usize),
    Values(usize),
    Written(usize),
    Group,
    Added(usize),
    Done,
}

impl Kind {
    fn of(request: &Request) -> Self {
        match request {
            Request::Status => Self::Status,
            Request::Browse { .. } => Self::Browse,
            Request::Properties { items, .. } => Self::Properties(items.len()),
            Request::Read { items, .. } => Self::Values(items.len()),
            Request::Write { items } => Self::Written(items.len()),
            Request::AddGroup { .. } | Request::SetGroup { .. } | Request::PollGroup { .. } => Self::Group,
            Request::AddItems { items, .. } => Self::Added(items.len()),
            Request::RemoveGroup { .. } | Request::RemoveItems { .. } | Request::Refresh { .. } => Self::Done,
        }
    }

    /// Whoever asks for so many items gets as many answers.
    fn is_answered_by(self, reply: &Reply) -> bool {
        match (self, reply) {
            (_, Reply::Failed(_))
            | (Self::Status, Reply::Status(_))
            | (Self::Browse, Reply::Entries { .. })
            | (Self::Group, Reply::Group { .. })
            | (Self::Done, Reply::Done) => true,
            (Self::Properties(count), Reply::Properties(answers)) => answers.len() == count,
            (Self::Values(count), Reply::Values(answers)) => answers.len() == count,
            (Self::Written(count), Reply::Written(answers)) => answers.len() == count,
            (Self::Added(count), Reply::Added(answers)) => answers.len() == count,
            _ => false,
        }
    }
}

struct LaneState {
    waiting: usize,
    /// When it last got something to do, or did something.
    since: Instant,
}

fn name(lane: Lane) -> &'static str {
    match lane {
        Lane::Data => "a read, a write or a change of groups",
        Lane::Browse => "a browse",
        Lane::Describe => "a question for properties",
        Lane::Status => "GetStatus",
    }
}

const LANES: [Lane; 4] = [Lane::Data, Lane::Browse, Lane::Describe, Lane::Status];

impl<'a> Life<'a> {
    pub(super) fn new(
        launch: &'a Launch,
        questions: &'a mut Questions,
        listener: &'a dyn Listener,
        clock: &'a Clock,
    ) -> Self {
        let now = Instant::now();
        Self {
            launch,
            questions,
            listener,
            clock,
            waiting: HashMap::new(),
            next_id: 0,
            lanes: LANES.map(|_| LaneState { waiting: 0, since: now }),
            running: false,
            words: 0,
            status_due: now,
            status_at: None,
            heard: now,
        }
    }

    /// Until it ends, or has to be ended.
    pub(super) async fn run(mut self, output: impl AsyncRead + Unpin, input: impl AsyncWrite + Unpin) -> Why {
        match self.try_run(output, input).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn try_run(
        &mut self,
        output: impl AsyncRead + Unpin,
        input: impl AsyncWrite + Unpin,
    ) -> Result<std::convert::Infallible, Why> {
        let (mut incoming, mut outgoing) = (Incoming::new(output), Outgoing::new(input));
        let began = Instant::now();
        loop {
            let has_room = outgoing.has_room() && self.waiting.len() < UNANSWERED;
            let until = self.next_look(began);
            tokio::select! {
                message = incoming.next() => match message.map_err(|error| Why::Broken(error.to_string()))? {
                    Some(message) => self.take(message)?,
                    None => return Err(Why::Gone),
                },
                Ok(()) = self.questions.silent.changed() => {
                    if *self.questions.silent.borrow_and_update() == self.questions.state.borrow().life {
                        return Err(Why::Silent);
                    }
                }
                // Its end is seen where it is read from.
                _ = outgoing.write() => {}
                ask = self.questions.asks.recv(), if has_room => match ask {
                    Some(ask) => self.send(ask, &mut outgoing),
                    None => return Err(Why::Stopped),
                },
                () = tokio::time::sleep_until(until) => {
                    self.look(began)?;
                    if self.running && self.status_due <= Instant::now() && has_room {
                        self.status_due = Instant::now() + self.launch.patience.status_every;
                        self.words = 0;
                        if self.lane(Lane::Status).waiting == 0 {
                            self.push(Request::Status, None, None, &mut outgoing);
                        }
                    }
                }
            }
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[lane as usize]
    }

    /// When it is next to be looked whether anything is late, or a GetStatus due.
    fn next_look(&self, began: Instant) -> Instant {
        let patience = &self.launch.patience;
        if !self.running {
            return began + patience.start;
        }
        let late = self.busy().map(|(lane, state)| match lane {
            Lane::Status => self.status_ends(state.since),
            Lane::Data if self.is_slow(state) => self.next_to_give_up().min(state.since + patience.data * STUCK),
            lane => state.since + patience.of(lane),
        });
        // A status that is due and finds no room is tried again soon.
        late.chain([self.status_due.max(Instant::now() + Duration::from_millis(10))]).min().expect("there is one")
    }

    fn look(&mut self, began: Instant) -> Result<(), Why> {
        let patience = &self.launch.patience;
        if !self.running {
            let is_late = began.elapsed() >= patience.start;
            return if is_late { Err(Why::Frozen("its start", patience.start)) } else { Ok(()) };
        }
        let now = Instant::now();
        let mut is_slow = false;
        for (lane, state) in self.busy() {
            let (ends, limit) = match lane {
                Lane::Status => {
                    let ends = self.status_ends(state.since);
                    // In whole milliseconds, for people.
                    (ends, Duration::from_millis((ends - state.since).as_millis() as u64))
                }
                Lane::Data if self.is_slow(state) => {
                    is_slow = true;
                    (state.since + patience.data * STUCK, patience.data * STUCK)
                }
                lane => (state.since + patience.of(lane), patience.of(lane)),
            };
            if now >= ends {
                return Err(Why::Frozen(name(lane), limit));
            }
        }
        if is_slow {
            self.give_up(now);
        }
        Ok(())
    }

    fn busy(&self) -> impl Iterator<Item = (Lane, &LaneState)> {
        LANES.into_iter().zip(&self.lanes).filter(|(_, state)| state.waiting > 0)
    }

    /// When a GetStatus that was asked at `asked` is late.
    fn status_ends(&self, asked: Instant) -> Instant {
        let (patience, now) = (&self.launch.patience, Instant::now());
        let own = if self.status_at.is_some() { patience.status } else { patience.start };
        let others = self.busy().filter(|(lane, _)| *lane != Lane::Status);
        let held_back_until = others.map(|(lane, state)| state.since + patience.of(lane)).filter(|until| *until > now);
        let until = held_back_until.max().unwrap_or(asked).max(asked.max(self.heard) + own);
        // A server that answers everything but this is none to rely on.
        until.min(asked + own + patience.data.max(patience.browse))
    }

    /// Whether the call of the Data lane takes long and the server lives all the same.
    fn is_slow(&self, data: &LaneState) -> bool {
        data.since.elapsed() >= self.launch.patience.data && self.status_at.is_some_and(|at| at > data.since)
    }

    /// Reads and writes that somebody waits for. What brings groups into the server is not given up: it may be done yet.
    fn may_be_given_up(waiting: &Waiting) -> bool {
        waiting.answer.is_some() && matches!(waiting.kind, Kind::Values(_) | Kind::Written(_))
    }

    fn next_to_give_up(&self) -> Instant {
        let data = self.launch.patience.data;
        let waiting = self.waiting.values().filter(|waiting| Self::may_be_given_up(waiting));
        waiting.map(|waiting| waiting.asked + data).min().unwrap_or(Instant::now() + data)
    }

    fn give_up(&mut self, now: Instant) {
        let data = self.launch.patience.data;
        let mut count = 0;
        for waiting in self.waiting.values_mut().filter(|waiting| Self::may_be_given_up(waiting)) {
            if now >= waiting.asked + data
                && let Some(answer) = waiting.answer.take()
            {
                count += 1;
                let failure = Failure { call: "(it takes too long)".into(), hresult: TIMEOUT };
                // Whoever asked may have gone.
                drop(answer.send(Reply::Failed(failure)));
            }
        }
        if count > 0 {
            warn!(server = %self.launch.server, count, after = ?data, "The DA server is slow; reads and writes were given up.");
        }
    }

    fn send(&mut self, ask: Ask, outgoing: &mut Outgoing<impl AsyncWrite + Unpin>) {
        let is_of_now = ask.life.is_none_or(|life| life == self.questions.state.borrow().life);
        // Dropped otherwise, which tells whoever asked.
        if self.running && is_of_now && !ask.answer.is_closed() {
            self.push(ask.request, Some(ask.answer), ask.pieces, outgoing);
        }
    }

    fn push(
        &mut self,
        request: Request,
        answer: Option<oneshot::Sender<Reply>>,
        pieces: Option<Pieces>,
        outgoing: &mut Outgoing<impl AsyncWrite + Unpin>,
    ) {
        let (lane, kind) = (request.lane(), Kind::of(&request));
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        if let Err(error) = outgoing.push(&ToWorker { id, request }) {
            // A value of a client's that is too long; it is told that there is no answer.
            warn!(server = %self.launch.server, %error, "Cannot ask.");
            return;
        }
        let state = self.lane(lane);
        if state.waiting == 0 {
            state.since = Instant::now();
        }
        state.waiting += 1;
        self.waiting.insert(id, Waiting { lane, kind, asked: Instant::now(), answer, pieces });
    }

    fn take(&mut self, message: FromWorker) -> Result<(), Why> {
        match message {
            FromWorker::Reply { id, reply } => self.answer(id, reply),
            FromWorker::Event(event) => self.hear(event),
        }
    }

    fn answer(&mut self, id: u32, reply: Reply) -> Result<(), Why> {
        let Some(waiting) = self.waiting.get_mut(&id) else {
            return Err(Why::Broken(format!("an answer to question {id}, which was not asked")));
        };
        if !waiting.kind.is_answered_by(&reply) {
            return Err(Why::Broken(format!("another answer than question {id} wants")));
        }
        let (lane, now) = (waiting.lane, Instant::now());
        (self.lanes[lane as usize].since, self.heard) = (now, now);
        if lane == Lane::Status {
            self.status_at = Some(now);
        }
        let lost = match &reply {
            Reply::Failed(failure) if has_ended(failure.hresult) => Some(failure.clone()),
            _ => None,
        };
        let (reply, is_last) = match reply {
            Reply::Entries { entries, more } => match &mut waiting.pieces {
                Some(pieces) => {
                    pieces(entries);
                    (Reply::Done, !more)
                }
                None => (Reply::Entries { entries, more }, !more),
            },
            reply => (reply, true),
        };
        if !is_last {
            return Ok(());
        }
        self.lanes[lane as usize].waiting -= 1;
        let waiting = self.waiting.remove(&id).expect("it was there just now");
        match waiting.answer {
            // Whoever asked may have gone.
            Some(answer) => drop(answer.send(reply)),
            None if lane == Lane::Status => self.note(reply),
            // It came too late.
            None => {}
        }
        // A DA server in a process of its own takes no worker with it.
        lost.map_or(Ok(()), |failure| Err(Why::Lost(failure)))
    }

    /// The answer to a GetStatus.
    fn note(&mut self, reply: Reply) {
        let now = self.clock.now();
        match reply {
            Reply::Status(mut status) => {
                clip(&mut status.vendor);
                self.questions.state.send_modify(|state| {
                    state.status = Some(status);
                    state.status_at = Some(now);
                });
            }
            Reply::Failed(failure) => self.questions.state.send_modify(|state| {
                state.last_error = format!("{}: {:08X}", failure.call, failure.hresult);
            }),
            _ => {}
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), Why> {
        match event {
            Event::Started(capabilities) if !self.running => {
                self.running = true;
                self.status_due = Instant::now();
                info!(server = %self.launch.server, browse3 = capabilities.browse3, "The DA server is there.");
                let mut life = 0;
                self.questions.state.send_modify(|state| {
                    state.phase = Phase::Running;
                    state.reconnects += u32::from(state.life > 0);
                    state.life += 1;
                    state.capabilities = capabilities;
                    life = state.life;
                });
                self.listener.up(life);
            }
            Event::Started(_) => return Err(Why::Broken("it started twice".into())),
            Event::NotStarted(failure) => return Err(Why::NotStarted(failure)),
            // Of before the start nothing can have been asked.
            Event::Data { .. } if !self.running => {}
            Event::Data { group, values } => self.listener.data(group, values),
            Event::Shutdown { mut reason } => {
                clip(&mut reason);
                return Err(Why::Shutdown(reason));
            }
            Event::Said { mut text } => {
                self.words += 1;
                if self.words <= WORDS {
                    clip(&mut text);
                    info!(server = %self.launch.server, text, "The worker says.");
                }
            }
        }
        Ok(())
    }
}

fn clip(text: &mut String) {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
    }
}

#[cfg(test)]
mod tests;
