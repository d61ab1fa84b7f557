//! One DA server, through the process that holds it.
//!
//!     down ──► starting ──Started──► running ──silence──► frozen ─┐
//!                 ▲                     └──end, Shutdown, garbage─┴──► waiting (backoff) ──► starting ...
//!
//! - [`supervise`] owns the process: starts it, ends it, and starts it again. `life.rs` is what happens from one start to its
//!   end; `pipe.rs` brings frames through its pipes.
//! - [`Worker`] asks. It is cheap to clone, and what it asks ends: with an answer, or with the life of the process.
//! - A [`Listener`] hears what comes unasked, on the supervisor's own task, so that nothing lies between a worker's pipe and the
//!   queues of subscriptions. While it is busy the pipe fills up, and the worker is who waits.
//!
//! Whatever takes too long is ended with the whole process, because nothing else ends a call that is stuck in COM. So each of the
//! worker's lanes has a time limit, counted from the last answer in it. Beside that only reads and writes have one of their own, for
//! servers that live and have slow devices: whoever waits is told, and the process goes on (`life.rs`).
//!
//! Everything belongs to one life, which has a number: what was asked of an earlier one is never answered by a later one.

mod life;
mod pipe;

use crate::base::{Backoff, Clock, Stop};
use crate::relay::protocol::{Capabilities, Entry, Failure, Hresult, Lane, News, Reply, Request, ServerStatus};
use life::Life;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

/// How a worker is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// For logs, and what the worker is told to hold: a ProgID or a CLSID.
    pub server: Arc<str>,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub patience: Patience,
}

/// How long is too long.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the start of the process until the DA server is there; some take long to come up.
    pub start: Duration,
    /// How often GetStatus is asked, and how long it may take when nothing else is under way; the first one has `start`.
    pub status_every: Duration,
    pub status: Duration,
    /// For an answer to anything about groups, reads and writes. Then reads and writes fail; the worker ends if GetStatus was not
    /// answered meanwhile, and after four times as long.
    pub data: Duration,
    /// For the next part of a browse, and for the properties of some items.
    pub browse: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            status_every: Duration::from_secs(2),
            status: Duration::from_secs(5),
            data: Duration::from_secs(30),
            browse: Duration::from_secs(60),
        }
    }
}

impl Patience {
    fn of(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Data => self.data,
            Lane::Browse | Lane::Describe => self.browse,
            Lane::Status => self.status,
        }
    }
}

/// What comes unasked. Called in order, never for long.
pub trait Listener: Send + Sync {
    /// The DA server is there; nothing of an earlier life is left in it.
    fn up(&self, life: u64);
    fn data(&self, group: u32, values: Vec<News>);
    /// Nothing more comes from this life.
    fn down(&self, phase: Phase);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Down,
    Starting,
    Running,
    Frozen,
    Waiting,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Waiting => "waiting",
        }
    }
}

/// What there is to tell of a DA server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub phase: Phase,
    /// Counts from 1.
    pub life: u64,
    pub capabilities: Capabilities,
    /// Of the last GetStatus; stays when the server is gone.
    pub status: Option<ServerStatus>,
    pub status_at: Option<SystemTime>,
    /// How often it came back.
    pub reconnects: u32,
    pub last_error: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AskError {
    #[error("the DA server is {}", .0.name())]
    NotRunning(Phase),
    #[error("{}: {:08X}", .0.call, .0.hresult)]
    Failed(Failure),
    #[error("the worker answers something else")]
    Other,
}

/// A question on its way to the worker.
struct Ask {
    request: Request,
    /// Of which life, if that matters.
    life: Option<u64>,
    pieces: Option<Pieces>,
    answer: oneshot::Sender<Reply>,
}

/// Takes each part of a browse as it comes.
pub type Pieces = Box<dyn FnMut(Vec<Entry>) + Send>;

/// Questions that wait to be sent. When they are so many whoever asks waits, too.
const QUESTIONS: usize = 256;

/// Asks a worker.
#[derive(Clone)]
pub struct Worker {
    asks: mpsc::Sender<Ask>,
    state: watch::Receiver<State>,
    silent: watch::Sender<u64>,
}

/// The other end of a [`Worker`], for [`supervise`].
pub struct Questions {
    asks: mpsc::Receiver<Ask>,
    state: watch::Sender<State>,
    /// The last life of which somebody said that it is silent.
    silent: watch::Receiver<u64>,
}

impl Worker {
    pub fn new() -> (Self, Questions) {
        let (asks, receiver) = mpsc::channel(QUESTIONS);
        let (state, silent) = (watch::Sender::new(State::default()), watch::Sender::new(0));
        let questions = Questions { asks: receiver, silent: silent.subscribe(), state };
        (Self { asks, state: questions.state.subscribe(), silent }, questions)
    }

    pub fn state(&self) -> watch::Ref<'_, State> {
        self.state.borrow()
    }

    /// To be said if values should have come in this life and do not. It is ended.
    pub fn is_silent(&self, life: u64) {
        self.silent.send_replace(life);
    }

    /// To wait for changes of [`Worker::state`].
    pub fn follow(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    pub async fn ask(&self, request: Request) -> Result<Reply, AskError> {
        self.put(request, None, None).await
    }

    /// Only of this life.
    pub async fn ask_in(&self, life: u64, request: Request) -> Result<Reply, AskError> {
        self.put(request, Some(life), None).await
    }

    /// A browse whose parts come as they are there.
    pub async fn browse(&self, request: Request, pieces: Pieces) -> Result<Reply, AskError> {
        self.put(request, None, Some(pieces)).await
    }

    async fn put(&self, request: Request, life: Option<u64>, pieces: Option<Pieces>) -> Result<Reply, AskError> {
        let gone = || {
            let phase = self.state.borrow().phase;
            // By now it may run again.
            AskError::NotRunning(if phase == Phase::Running { Phase::Waiting } else { phase })
        };
        if self.state.borrow().phase != Phase::Running {
            return Err(gone());
        }
        let (answer, reply) = oneshot::channel();
        self.asks.send(Ask { request, life, pieces, answer }).await.map_err(|_| gone())?;
        match reply.await {
            Ok(Reply::Failed(failure)) => Err(AskError::Failed(failure)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(gone()),
        }
    }
}

/// A worker that lived for so long did not fail at once.
const CALM: Duration = Duration::from_secs(10);
/// How long a worker may take to let go of its DA server, once its input is closed. One that is ended before that leaves
/// its groups in the server until COM misses it, which takes six minutes.
const GOODBYE: Duration = Duration::from_secs(2);

/// Keeps the worker going until the stop.
pub async fn supervise(
    launch: &Launch,
    questions: &mut Questions,
    listener: &dyn Listener,
    clock: &Clock,
    stop: &Stop,
) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    while !stop.is_stopped() {
        let Ended { why, lived, child } = live(launch, questions, listener, clock, stop).await;
        let phase = if matches!(why, Why::Frozen(..)) { Phase::Frozen } else { Phase::Waiting };
        questions.state.send_modify(|state| {
            state.phase = phase;
            if !matches!(why, Why::Stopped) {
                state.last_error = why.to_string();
            }
        });
        // Before all else: whoever has its values is told that they are none any more.
        listener.down(phase);
        if matches!(why, Why::Stopped) {
            goodbye(child, launch).await;
            break;
        }
        if lived > CALM {
            backoff.reset();
        }
        let wait = backoff.wait();
        warn!(server = %launch.server, why = %why, again_in = ?wait, "The DA server is gone.");
        tokio::select! {
            // Not two of them at a time: there are DA servers that stand only one.
            _ = async { tokio::join!(goodbye(child, launch), tokio::time::sleep(wait)) } => {}
            () = stop.stopped() => {}
            // Whoever asks now gets no answer.
            () = async { while questions.asks.recv().await.is_some() {} } => {}
        }
    }
    questions.state.send_modify(|state| state.phase = Phase::Down);
}

/// Why a worker's life ended.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("stopped")]
    Stopped,
    #[error("the worker {0:?} cannot be started: {1}")]
    NoProcess(PathBuf, std::io::Error),
    #[error("the DA server could not be created: {}: {:08X}{}", .0.call, .0.hresult, said(.0.hresult))]
    NotStarted(Failure),
    #[error("the worker ended")]
    Gone,
    #[error("the DA server's process is lost: {}: {:08X}{}", .0.call, .0.hresult, said(.0.hresult))]
    Lost(Failure),
    #[error("no answer to {0} for {1:?}")]
    Frozen(&'static str, Duration),
    #[error("the DA server says that it shuts down: {0}")]
    Shutdown(String),
    #[error("the worker is not to be understood: {0}")]
    Broken(String),
    #[error("nothing comes from a group that should say something")]
    Silent,
}

/// What an HRESULT means, for whoever reads the log.
fn said(hresult: Hresult) -> String {
    crate::relay::hresults::meaning(hresult).map_or_else(String::new, |words| format!(" ({words})"))
}

struct Ended {
    why: Why,
    lived: Duration,
    /// Its input is closed.
    child: Option<Child>,
}

/// From the start of one process until nothing is to be had of it any more, or until the stop.
async fn live(
    launch: &Launch,
    questions: &mut Questions,
    listener: &dyn Listener,
    clock: &Clock,
    stop: &Stop,
) -> Ended {
    questions.state.send_modify(|state| state.phase = Phase::Starting);
    let began = tokio::time::Instant::now();
    let spawned = Command::new(&launch.program)
        .args(&launch.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let why = Why::NoProcess(launch.program.clone(), error);
            return Ended { why, lived: Duration::ZERO, child: None };
        }
    };
    let (stdin, stdout) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
    info!(server = %launch.server, process = child.id(), "Worker started.");
    let why = tokio::select! {
        why = Life::new(launch, questions, listener, clock).run(stdout, stdin) => why,
        () = stop.stopped() => Why::Stopped,
    };
    Ended { why, lived: began.elapsed(), child: Some(child) }
}

/// Until the process has ended by itself, or was ended because it did not: it may be stuck in a call of its DA server.
async fn goodbye(child: Option<Child>, launch: &Launch) {
    let Some(mut child) = child else { return };
    if tokio::time::timeout(GOODBYE, child.wait()).await.is_ok() {
        return;
    }
    info!(server = %launch.server, process = child.id(), "The worker does not end by itself; it is ended.");
    // That is not waited for: what is stuck in the system may stay so.
    if let Err(error) = child.start_kill() {
        warn!(server = %launch.server, %error, "The worker cannot be ended.");
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
