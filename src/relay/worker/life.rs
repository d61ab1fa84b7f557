//! One life of a worker: from its first word to its last.
//!
//! A single loop reads, writes and looks at the time, so there is one order of things. Questions are numbered; what comes with a
//! number that was not asked, or is not an answer to what was asked, is no message and ends the life.
//!
//! A lane is stuck if something was asked in it and nothing has come since, for longer than the lane's patience: the worker
//! answers in order, so all that wait in it wait for the same call.

use super::pipe::{Incoming, Outgoing};
use super::{Ask, Launch, Listener, Phase, Pieces, Questions, Why};
use crate::base::Clock;
use crate::relay::protocol::{Event, FromWorker, Lane, Reply, Request, ToWorker};
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

pub(super) struct Life<'a> {
    launch: &'a Launch,
    questions: &'a mut Questions,
    listener: &'a dyn Listener,
    clock: &'a Clock,
    waiting: HashMap<u32, Waiting>,
    next_id: u32,
    lanes: [LaneState; 3],
    running: bool,
    words: u32,
    status_due: Instant,
}

struct Waiting {
    lane: Lane,
    kind: Kind,
    /// Nobody is there for the answer to a GetStatus: it goes into the state.
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
            Request::AddGroup { .. } | Request::SetGroup { .. } => Self::Group,
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
        Lane::Status => "GetStatus",
    }
}

const LANES: [Lane; 3] = [Lane::Data, Lane::Browse, Lane::Status];

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
        let busy = LANES.iter().zip(&self.lanes).filter(|(_, state)| state.waiting > 0);
        let late = busy.map(|(lane, state)| state.since + patience.of(*lane));
        // A status that is due and finds no room is tried again soon.
        late.chain([self.status_due.max(Instant::now() + Duration::from_millis(10))]).min().expect("there is one")
    }

    fn look(&self, began: Instant) -> Result<(), Why> {
        let patience = &self.launch.patience;
        if !self.running {
            let is_late = began.elapsed() >= patience.start;
            return if is_late { Err(Why::Frozen("its start", patience.start)) } else { Ok(()) };
        }
        for (lane, state) in LANES.iter().zip(&self.lanes) {
            if state.waiting > 0 && state.since.elapsed() >= patience.of(*lane) {
                return Err(Why::Frozen(name(*lane), patience.of(*lane)));
            }
        }
        Ok(())
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
        self.waiting.insert(id, Waiting { lane, kind, answer, pieces });
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
        let lane = waiting.lane;
        self.lanes[lane as usize].since = Instant::now();
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
            None => self.note(reply),
        }
        Ok(())
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
mod tests {
    use super::*;
    use crate::relay::protocol::{
        Branch, Capabilities, Entry, Failure, Hresult, Origin, Reading, ServerStatus, frame, length, parse,
    };
    use crate::relay::worker::{AskError, Patience, Worker};
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    #[derive(Default)]
    struct Heard(Mutex<Vec<u32>>);

    impl Listener for Heard {
        fn up(&self, _: u64) {}

        fn data(&self, group: u32, _: Vec<(u32, Result<Reading, Hresult>)>) {
            self.0.lock().unwrap().push(group);
        }

        fn down(&self, _: Phase) {}
    }

    /// The worker's end.
    struct Fake(DuplexStream);

    impl Fake {
        async fn say(&mut self, message: FromWorker) {
            self.0.write_all(&frame(&message).unwrap()).await.unwrap();
        }

        async fn reply(&mut self, id: u32, reply: Reply) {
            self.say(FromWorker::Reply { id, reply }).await;
        }

        /// Never, once the other end is gone.
        async fn next(&mut self) -> ToWorker {
            let mut head = [0; 4];
            if self.0.read_exact(&mut head).await.is_err() {
                return std::future::pending().await;
            }
            let mut bytes = vec![0; length(head).unwrap()];
            self.0.read_exact(&mut bytes).await.unwrap();
            parse(&bytes).unwrap()
        }

        /// The next question that is no GetStatus; those are answered.
        async fn asked(&mut self) -> ToWorker {
            loop {
                let next = self.next().await;
                if next.request != Request::Status {
                    return next;
                }
                self.reply(
                    next.id,
                    Reply::Status(ServerStatus { vendor: "x".repeat(5000), ..ServerStatus::default() }),
                )
                .await;
            }
        }
    }

    /// A life whose worker has started, beside what happens in it. Why it ended.
    async fn live<F: Future<Output = ()>>(script: impl FnOnce(Fake, Worker) -> F) -> (Why, Vec<u32>) {
        let launch = Launch {
            server: "test".into(),
            program: "none".into(),
            arguments: Vec::new(),
            patience: Patience::default(),
        };
        let (worker, mut questions) = Worker::new();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (output, input) = tokio::io::split(ours);
        let (heard, clock) = (Arc::new(Heard::default()), Clock::simulated(std::time::UNIX_EPOCH));
        let mut fake = Fake(theirs);
        fake.say(FromWorker::Event(Event::Started(Capabilities::default()))).await;
        let script = script(fake, worker.clone());
        let life = async {
            let why = Life::new(&launch, &mut questions, &*heard, &clock).run(output, input).await;
            drop(questions);
            why
        };
        let (why, ()) = tokio::join!(life, script);
        let heard = heard.0.lock().unwrap().clone();
        (why, heard)
    }

    async fn running(worker: &Worker) {
        worker.follow().wait_for(|state| state.phase == Phase::Running).await.unwrap();
    }

    fn read(items: usize) -> Request {
        Request::Read { items: vec!["a".into(); items], from: Origin::Cache }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_find_who_asked_in_any_order_of_lanes() {
        let (why, heard) = live(|mut fake, worker| async move {
            running(&worker).await;
            let pieces = Arc::new(Mutex::new(Vec::new()));
            let seen = pieces.clone();
            let browse = worker.browse(
                Request::Browse { branch: Branch::default() },
                Box::new(move |entries: Vec<Entry>| seen.lock().unwrap().push(entries.len())),
            );
            let script = async {
                let (browse, read) = (fake.asked().await, fake.asked().await);
                fake.say(FromWorker::Event(Event::Data { group: 9, values: vec![] })).await;
                fake.reply(browse.id, Reply::Entries { entries: vec![], more: true }).await;
                fake.reply(read.id, Reply::Values(vec![Err(-1)])).await;
                fake.reply(browse.id, Reply::Entries { entries: vec![], more: false }).await;
                let refused = fake.asked().await;
                fake.reply(refused.id, Reply::Failed(Failure { call: "Read".into(), hresult: -2 })).await;
            };
            let asked = async {
                let read_one = worker.ask(read(1));
                let (browsed, read_one) = tokio::join!(biased; browse, read_one);
                assert_eq!((browsed, read_one), (Ok(Reply::Done), Ok(Reply::Values(vec![Err(-1)]))));
                assert!(matches!(worker.ask(read(1)).await, Err(AskError::Failed(_))));
                assert!(matches!(worker.ask_in(7, read(1)).await, Err(AskError::NotRunning(_))), "of another life");
            };
            tokio::join!(script, asked);
            assert_eq!(*pieces.lock().unwrap(), [0, 0]);
            let mut state = worker.follow();
            tokio::select! {
                asked = fake.asked() => panic!("{asked:?}"),
                state = state.wait_for(|state| state.status.is_some()) => {
                    assert_eq!(state.unwrap().status.as_ref().unwrap().vendor.len(), LONGEST_TEXT);
                }
            }
        })
        .await;
        assert!(matches!(why, Why::Gone), "{why}");
        assert_eq!(heard, [9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_frozen_and_whoever_asked_is_told() {
        let (why, _) = live(|fake, worker| async move {
            running(&worker).await;
            assert!(matches!(worker.ask(read(1)).await, Err(AskError::NotRunning(_))));
            drop(fake);
        })
        .await;
        assert!(matches!(why, Why::Frozen("GetStatus", _)), "{why}");
        let (why, _) = live(|mut fake, worker| async move {
            running(&worker).await;
            // The server lives, but the read does not come back.
            tokio::select! {
                answer = worker.ask(read(1)) => assert!(matches!(answer, Err(AskError::NotRunning(_)))),
                _ = async { loop { fake.asked().await; } } => {}
            }
        })
        .await;
        assert!(matches!(why, Why::Frozen("a read, a write or a change of groups", _)), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_lies_is_ended() {
        for lie in [
            FromWorker::Reply { id: 77, reply: Reply::Done },
            FromWorker::Event(Event::Started(Capabilities::default())),
        ] {
            let (why, _) = live(|mut fake, worker| async move {
                running(&worker).await;
                fake.say(lie).await;
                let _ = worker.follow().changed().await;
            })
            .await;
            assert!(matches!(why, Why::Broken(_)), "{why}");
        }
        let (why, _) = live(|mut fake, worker| async move {
            running(&worker).await;
            let script = async {
                let asked = fake.asked().await;
                fake.reply(asked.id, Reply::Values(vec![Err(-1)])).await;
            };
            let (answer, ()) = tokio::join!(worker.ask(read(2)), script);
            assert!(matches!(answer, Err(AskError::NotRunning(_))), "one value for two items");
        })
        .await;
        assert!(matches!(why, Why::Broken(_)), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_that_it_shuts_down_or_is_silent_is_left() {
        let (why, _) = live(|mut fake, worker| async move {
            running(&worker).await;
            fake.say(FromWorker::Event(Event::Shutdown { reason: "maintenance".into() })).await;
        })
        .await;
        assert!(matches!(why, Why::Shutdown(reason) if reason == "maintenance"));
        let (why, _) = live(|fake, worker| async move {
            running(&worker).await;
            worker.is_silent(5);
            worker.is_silent(1);
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(fake);
        })
        .await;
        assert!(matches!(why, Why::Silent), "{why}");
    }
}
