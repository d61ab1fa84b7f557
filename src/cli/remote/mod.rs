//! A server that somebody names at a shell: how it is reached, as whom, and what is said when it cannot be.
//!
//!     Server (arguments) ──► Access ──open──► Connection ──► the command's work ──► closed, also after Ctrl-C
//!
//! - `access.rs` makes the connection layer's Target of the arguments; `pin.rs` asks for trust and remembers it.
//! - `failure.rs` says what went wrong, what that means and what to try; `output.rs` prints.
//! - `about.rs` is what a server says of its nodes: types, units, names of enumerations.
//! - `walk.rs` goes through an address space, `feed.rs` follows values, `reading.rs` is one value.

mod about;
mod access;
mod failure;
mod feed;
mod output;
mod pin;
mod reading;
mod walk;

pub(super) use about::{About, about};
pub(super) use access::{Access, Server};
pub(super) use failure::{Failure, explain, meaning};
pub(super) use feed::{Deadband, Feed, News};
pub(super) use output::Output;
pub(super) use reading::Reading;
pub(super) use walk::{Below, Found, Walk, step};

use crate::opcua::client::{Connection, NodeRef, ServiceError};
use opcua::types::{NodeId, StatusCode};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs a command's work, and says how it ended.
pub(super) fn run<F: Future<Output = Result<(), Failure>> + Send>(work: F) -> ExitCode {
    // What a server sends may be nested on purpose, and it is decoded on whichever thread is at hand (super::STACK).
    let outcome = std::thread::scope(|scope| {
        let body = || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().thread_stack_size(super::STACK).build();
            let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
            let outcome = runtime.block_on(work);
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            outcome
        };
        let started = std::thread::Builder::new().stack_size(super::STACK).spawn_scoped(scope, body);
        let thread = started.map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        // A panic has said what it has to say.
        thread.join().unwrap_or_else(|_| Err(Failure::failed("a fault of this program".into())))
    });
    match outcome {
        Ok(()) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Said) => ExitCode::from(super::FAILED),
        Err(Failure::Unanswered) => ExitCode::from(super::UNANSWERED),
        Err(Failure::Silent(what)) => super::complain(super::UNANSWERED, &what),
        Err(Failure::Failed(what)) => super::complain(super::FAILED, &what),
        Err(Failure::Wrong(what)) => super::complain(super::WRONG, &what),
    }
}

/// Ctrl-C, or whoever wants the program to end.
pub(super) struct Interrupt([Signal; 3]);

impl Interrupt {
    /// From now on the signals end nothing by themselves.
    pub(super) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(on);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    pub(super) async fn received(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Connects, works, and closes the session in any case.
pub(super) async fn with<T>(
    access: &Access,
    work: impl AsyncFnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let connection = access.open().await?;
    let mut interrupt = Interrupt::new()?;
    let outcome = tokio::select! {
        outcome = work(&connection) => outcome,
        loss = connection.lost() => Err(failure::lost(&loss)),
        () = interrupt.received() => Err(Failure::failed("interrupted".into())),
    };
    connection.close().await;
    outcome
}

/// Nodes as somebody wrote them; what is not understood is a wrong command line.
pub(super) fn node_refs(written: &[String]) -> Result<Vec<NodeRef>, Failure> {
    let parse = |text: &String| NodeRef::parse(text).map_err(|error| Failure::Wrong(error.to_string()));
    written.iter().map(parse).collect()
}

/// Which nodes are meant, each or why it is none.
pub(super) async fn resolve(
    connection: &Connection,
    written: &[String],
) -> Result<Vec<Result<NodeId, StatusCode>>, Failure> {
    Ok(connection.resolve_all(&node_refs(written)?).await?)
}

/// What is known of each; nothing of one that is not there.
pub(super) async fn abouts(connection: &Connection, nodes: &[NodeRef]) -> Result<Vec<About>, Failure> {
    let found = connection.resolve_all(nodes).await?;
    let known: Vec<NodeId> = found.iter().flatten().cloned().collect();
    let mut abouts = about(connection, &known).await?.into_iter();
    Ok(found.into_iter().map(|node| node.ok().and_then(|_| abouts.next()).unwrap_or_default()).collect())
}

/// The one node that is meant.
pub(super) async fn resolve_one(connection: &Connection, written: &str) -> Result<NodeId, Failure> {
    let node = node_refs(&[written.to_owned()])?;
    let found: Result<_, ServiceError> = connection.resolve_all(&node).await;
    match found?.pop() {
        Some(Ok(id)) => Ok(id),
        Some(Err(status)) => Err(Failure::failed(failure::of_node(written, status))),
        None => Err(Failure::failed(failure::of_node(written, StatusCode::BadNoMatch))),
    }
}

pub(super) use failure::of_node;
