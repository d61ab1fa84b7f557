//! From the first frame to the last.

use super::Output;
use super::lane::{self, Queue};
use crate::relay::com::{Apartment, Server};
use crate::relay::protocol::{Event, Failure, Hresult, Lane, Reply, ToWorker, length, parse};
use std::io::{self, ErrorKind, Read};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Requests that may wait in one lane. The relay has fewer under way, unless the lane is stuck.
const QUEUE: usize = 4096;

/// For the lanes to let go of the server, and for the last words.
const PATIENCE: Duration = Duration::from_secs(2);

const RPC_E_SERVERCALL_RETRYLATER: Hresult = 0x8001_010A_u32 as Hresult;

/// Until standard input ends. `server` is a ProgID or a CLSID.
pub fn run(server: &Server) -> ExitCode {
    let output = Arc::new(Output::default());
    let writer = Arc::clone(&output);
    thread::spawn(move || {
        if let Err(error) = writer.write_to(io::stdout().lock()) {
            tracing::warn!(%error, "The relay no longer listens.");
        }
    });
    let ended = serve(server, &output);
    if let Err(failure) = &ended {
        output.event(Event::NotStarted(failure.clone()));
    }
    output.close();
    output.drained(PATIENCE);
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(server: &Server, output: &Arc<Output>) -> Result<(), Failure> {
    // Held for as long as any lane may have a pointer.
    let apartment = Apartment::enter()?;
    apartment.secure()?;
    let class = server.class()?;
    let (started, has_started) = sync_channel(1);
    let (ended, has_ended) = sync_channel(4);
    let queues = [Lane::Data, Lane::Browse, Lane::Describe, Lane::Status].map(|name| {
        let (sender, receiver): (_, Queue) = sync_channel(QUEUE);
        let (output, started, ended) = (Arc::clone(output), started.clone(), ended.clone());
        thread::spawn(move || {
            lane::run(name, class, receiver, &output, &started);
            let _ = ended.send(());
        });
        sender
    });
    has_started.recv().unwrap_or_else(|_| Err(Failure { call: "(the lane ended)".into(), hresult: -1 }))?;
    let mut input = io::stdin().lock();
    while let Some(ToWorker { id, request }) = next(&mut input) {
        let queue = match request.lane() {
            Lane::Data => &queues[0],
            Lane::Browse => &queues[1],
            Lane::Describe => &queues[2],
            Lane::Status => &queues[3],
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send((id, request)) {
            let failure = Failure { call: "(its queue is full)".into(), hresult: RPC_E_SERVERCALL_RETRYLATER };
            // Not by waiting: this thread has to see the end of the input.
            output.refuse(id, Reply::Failed(failure));
        }
    }
    drop(queues);
    // Politely if it can be had: a server that is told needs no six minutes to find out.
    for _ in 0..4 {
        if has_ended.recv_timeout(PATIENCE).is_err() {
            tracing::warn!("The DA server does not answer; it is left as it is.");
            break;
        }
    }
    Ok(())
}

/// None when the relay has closed the pipe, or sends what is no frame.
fn next(input: &mut impl Read) -> Option<ToWorker> {
    let mut head = [0; 4];
    let read = |input: &mut dyn Read, bytes: &mut [u8]| match input.read_exact(bytes) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
            tracing::warn!(%error, "The relay cannot be heard.");
            None
        }
        other => other.ok(),
    };
    read(input, &mut head)?;
    let parsed = length(head).and_then(|length| {
        let mut bytes = vec![0; length];
        Ok(match read(input, &mut bytes) {
            Some(()) => Some(parse(&bytes)?),
            None => None,
        })
    });
    parsed.unwrap_or_else(|error| {
        tracing::error!(%error, "The relay sent what is no request.");
        None
    })
}
