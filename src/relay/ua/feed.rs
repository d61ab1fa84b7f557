//! Brings the DA server to have what `items.rs` wants: one step after the other, for ever.

use super::items::Items;
use crate::base::Stop;
use crate::relay::worker::Worker;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether a subscription has expired.
const SWEEP: Duration = Duration::from_secs(10);

pub(super) async fn run(items: &Items, worker: &Worker, stop: &Stop) {
    tokio::select! {
        () = steps(items, worker) => {}
        () = again(items) => {}
        () = sweep(items) => {}
        () = stop.stopped() => {}
    }
}

async fn steps(items: &Items, worker: &Worker) {
    loop {
        match items.next_step() {
            Ok((life, step)) => match step.request() {
                Some(request) => {
                    let answer = worker.ask_in(life, request).await;
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
