//! Lives of workers that answer, lie, freeze and go, without a process.

use super::*;
use crate::relay::protocol::{Branch, Capabilities, Entry, News, Origin, ServerStatus, frame, length, parse};
use crate::relay::worker::{AskError, Patience, Worker};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

#[derive(Default)]
struct Heard(Mutex<Vec<u32>>);

impl Listener for Heard {
    fn up(&self, _: u64) {}

    fn data(&self, group: u32, _: Vec<News>) {
        self.0.lock().unwrap().push(group);
    }

    fn down(&self, _: Phase) {}
}

/// The worker's end.
struct Fake {
    pipe: DuplexStream,
    /// What `answering` did not answer.
    seen: Option<ToWorker>,
}

impl Fake {
    async fn say(&mut self, message: FromWorker) {
        self.pipe.write_all(&frame(&message).unwrap()).await.unwrap();
    }

    async fn reply(&mut self, id: u32, reply: Reply) {
        self.say(FromWorker::Reply { id, reply }).await;
    }

    /// Never, once the other end is gone.
    async fn next(&mut self) -> ToWorker {
        let mut head = [0; 4];
        if self.pipe.read_exact(&mut head).await.is_err() {
            return std::future::pending().await;
        }
        let mut bytes = vec![0; length(head).unwrap()];
        self.pipe.read_exact(&mut bytes).await.unwrap();
        parse(&bytes).unwrap()
    }

    /// Answers a GetStatus, which is next.
    async fn status(&mut self) {
        let next = self.next().await;
        assert_eq!(next.request, Request::Status);
        self.reply(next.id, Reply::Status(ServerStatus::default())).await;
    }

    /// Answers GetStatus and nothing else while something is waited for.
    async fn answering<T>(&mut self, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            let asked = tokio::select! {
                done = &mut what => return done,
                asked = self.asked() => asked,
            };
            self.seen = Some(asked);
        }
    }

    /// The next question that is no GetStatus; those are answered.
    async fn asked(&mut self) -> ToWorker {
        loop {
            let next = self.next().await;
            if next.request != Request::Status {
                return next;
            }
            self.reply(next.id, Reply::Status(ServerStatus { vendor: "x".repeat(5000), ..ServerStatus::default() }))
                .await;
        }
    }
}

/// A life whose worker has started, beside what happens in it. Why it ended.
async fn live<F: Future<Output = ()>>(script: impl FnOnce(Fake, Worker) -> F) -> (Why, Vec<u32>) {
    let launch =
        Launch { server: "test".into(), program: "none".into(), arguments: Vec::new(), patience: Patience::default() };
    let (worker, mut questions) = Worker::new();
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (output, input) = tokio::io::split(ours);
    let (heard, clock) = (Arc::new(Heard::default()), Clock::simulated(std::time::UNIX_EPOCH));
    let mut fake = Fake { pipe: theirs, seen: None };
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
async fn a_server_whose_own_process_ends_is_lost_at_the_next_call() {
    let failed = |hresult: u32| Reply::Failed(Failure { call: "GetStatus".into(), hresult: hresult as Hresult });
    let (why, _) = live(|mut fake, worker| async move {
        running(&worker).await;
        // What a server may answer, and live.
        for hresult in [0x8001_0105, 0x8000_4005, 0x8007_06BA] {
            let next = fake.next().await;
            assert_eq!(next.request, Request::Status, "{hresult:08X}");
            fake.reply(next.id, failed(hresult)).await;
        }
    })
    .await;
    assert!(matches!(why, Why::Lost(Failure { hresult: -2_147_023_174, .. })), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_frozen_and_whoever_asked_is_told() {
    let patience = Patience::default();
    let (why, _) = live(|mut fake, worker| async move {
        running(&worker).await;
        fake.status().await;
        let began = Instant::now();
        // Nothing else is under way.
        let _ = worker.follow().wait_for(|state| state.phase != Phase::Running).await;
        let bound = patience.status_every + patience.status + Duration::from_millis(100);
        assert!(began.elapsed() <= bound, "{:?}", began.elapsed());
        drop(fake);
    })
    .await;
    assert!(matches!(why, Why::Frozen("GetStatus", _)), "{why}");
    let (why, _) = live(|mut fake, worker| async move {
        running(&worker).await;
        fake.status().await;
        let began = Instant::now();
        // It may be the read that takes long, so that is waited for, and no longer.
        assert!(matches!(worker.ask(read(1)).await, Err(AskError::NotRunning(_))));
        assert!(began.elapsed() <= patience.data + Duration::from_millis(100), "{:?}", began.elapsed());
        drop(fake);
    })
    .await;
    assert!(matches!(why, Why::Frozen(..)), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_server_of_one_thread_is_not_frozen_by_a_slow_call() {
    let (why, _) = live(|mut fake, worker| async move {
        running(&worker).await;
        // Its connection for GetStatus takes long to make.
        let first = fake.next().await;
        tokio::time::sleep(Duration::from_secs(40)).await;
        fake.reply(first.id, Reply::Status(ServerStatus::default())).await;
        let script = async {
            for _ in 0..3 {
                // Whichever comes first holds the other back.
                let (one, other) = (fake.next().await, fake.next().await);
                tokio::time::sleep(Duration::from_secs(20)).await;
                for asked in [one, other] {
                    let reply = match asked.request {
                        Request::Status => Reply::Status(ServerStatus::default()),
                        _ => Reply::Values(vec![Err(-1)]),
                    };
                    fake.reply(asked.id, reply).await;
                    // Behind the slow call GetStatus has its whole time again.
                    tokio::time::sleep(Duration::from_secs(4)).await;
                }
            }
        };
        let asked = async {
            for _ in 0..3 {
                assert_eq!(worker.ask(read(1)).await, Ok(Reply::Values(vec![Err(-1)])));
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
        };
        tokio::join!(script, asked);
        assert_eq!(worker.state().phase, Phase::Running);
        drop(fake);
    })
    .await;
    assert!(matches!(why, Why::Gone), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_everything_but_getstatus_is_frozen() {
    let (why, _) = live(|mut fake, worker| async move {
        running(&worker).await;
        fake.status().await;
        let answered = async {
            loop {
                let next = fake.next().await;
                if next.request != Request::Status {
                    fake.reply(next.id, Reply::Values(vec![Err(-1)])).await;
                }
            }
        };
        let asking = async {
            while worker.ask(read(1)).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = answered => {}
            () = asking => {}
        }
        drop(fake);
    })
    .await;
    assert!(matches!(why, Why::Frozen("GetStatus", _)), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_takes_too_long_is_given_up_while_the_server_lives() {
    let (why, _) = live(|mut fake, worker| async move {
        running(&worker).await;
        let failure = |answer| match answer {
            Err(AskError::Failed(Failure { hresult, .. })) => hresult,
            other => panic!("{other:?}"),
        };
        let began = Instant::now();
        let late = fake.answering(worker.ask(read(1))).await;
        assert_eq!(failure(late), TIMEOUT);
        assert!(began.elapsed() < Duration::from_secs(31));
        // It comes back all the same: then nobody wants it, and the next is answered.
        let slow = fake.seen.take().unwrap();
        fake.reply(slow.id, Reply::Values(vec![Err(-1)])).await;
        let (next, ()) = tokio::join!(worker.ask(read(2)), async {
            let next = fake.asked().await;
            fake.reply(next.id, Reply::Values(vec![Err(-1), Err(-1)])).await;
        });
        assert_eq!(next, Ok(Reply::Values(vec![Err(-1), Err(-1)])));
        // What changes groups is waited for, and what never comes ends the worker.
        let began = Instant::now();
        let stuck = fake.answering(worker.ask(Request::Refresh { group: 1 })).await;
        assert!(matches!(stuck, Err(AskError::NotRunning(_))), "{stuck:?}");
        let limit = Patience::default().data * STUCK;
        assert!((limit..limit + Duration::from_secs(1)).contains(&began.elapsed()));
    })
    .await;
    assert!(matches!(why, Why::Frozen("a read, a write or a change of groups", _)), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_lies_is_ended() {
    for lie in
        [FromWorker::Reply { id: 77, reply: Reply::Done }, FromWorker::Event(Event::Started(Capabilities::default()))]
    {
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
