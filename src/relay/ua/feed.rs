//! Brings the DA server to have what `items/` wants: one step after the other, for ever.

use super::items::{Items, Step};
use crate::base::Stop;
use crate::relay::hresults;
use crate::relay::protocol::Reply;
use crate::relay::worker::{AskError, Worker};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// How often it is looked whether a subscription has expired.
const SWEEP: Duration = Duration::from_secs(10);

pub(super) async fn run(server: &str, items: &Items, worker: &Worker, stop: &Stop) {
    tokio::select! {
        () = steps(server, items, worker) => {}
        () = again(items) => {}
        () = sweep(items) => {}
        () = stop.stopped() => {}
    }
}

async fn steps(server: &str, items: &Items, worker: &Worker) {
    loop {
        match items.next_step() {
            Ok((life, step)) => match step.request() {
                Some(request) => {
                    let answer = worker.ask_in(life, request).await;
                    tell(server, &step, &answer);
                    if let (Step::AddGroup(_, asked) | Step::PollGroup(_, asked), Ok(Reply::Group { revised_rate, .. })) =
                        (&step, &answer)
                        && asked.rate != *revised_rate
                    {
                        // No client can be told (`monitor.rs`).
                        info!(
                            server,
                            asked = asked.rate,
                            revised = revised_rate,
                            "The DA server has another rate, in ms."
                        );
                    }
                    items.done(life, step, answer);
                }
                None => {
                    worker.is_silent(life);
                    items.work.notified().await;
                }
            },
            Err(until) => tokio::select! {
                () = items.work.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            },
        }
    }
}

fn tell(server: &str, step: &Step, answer: &Result<Reply, AskError>) {
    match (step, answer) {
        (Step::PollGroup(..), Ok(_)) => warn!(
            server,
            "The DA server took callbacks on, and none came: its cache is polled. It may lack the right to call this program: in \
             dcomcnfg, My Computer, COM Security, give the account that it runs as Access Permissions."
        ),
        (Step::Refresh(_), Err(AskError::Failed(failure))) => {
            info!(
                server,
                call = failure.call,
                hresult = hresults::name(failure.hresult).as_ref(),
                "A group cannot be asked for its values."
            );
        }
        _ => {}
    }
}

/// How often it is looked for items that began just now.
const LOOK: Duration = Duration::from_millis(25);

async fn again(items: &Items) {
    loop {
        let next = items.send_again();
        tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + LOOK)).await;
    }
}

async fn sweep(items: &Items) {
    loop {
        tokio::time::sleep(SWEEP).await;
        items.sweep();
    }
}
