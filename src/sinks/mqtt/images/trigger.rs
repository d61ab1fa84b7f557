//! Pictures from before and after a tag's edge.
//!
//!     lease(every) ─► fit ─► ring of `before` ──────┐ as it is at the edge
//!     edge ─► event: a lease of its own ─► `after` ─┴─► queue ─► put
//!
//! Each edge is an event with its own pictures, numbered from 1 to before + after; two in quick succession share what the ring
//! has. Pictures from before are in the order in which they came, whatever the clock did. If the ring is not full yet, or the
//! camera gives no more pictures, those numbers are missing, and the log says why.
//!
//! Memory: the ring and up to [`AT_ONCE`] events have before + after pictures each at most, of `max_bytes` at most. The ring is
//! there only with `before`, and keeps the camera open.

use super::edge::Edges;
use super::taker::Post;
use super::{Cause, PATIENCE};
use crate::hub::frames::{Lease, Shot};
use crate::model::{Picture, Quality, Status};
use crate::sinks::mqtt::config::Trigger;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Events of one trigger at the same time. Further edges bring no pictures until one has ended.
const AT_ONCE: usize = 4;

pub(super) async fn serve(post: &Post<'_>) {
    if let Some(trigger) = &post.image.trigger {
        let ring = Mutex::new(VecDeque::new());
        tokio::join!(fill(post, trigger, &ring), watch(post, trigger, &ring));
    }
}

async fn fill(post: &Post<'_>, trigger: &Trigger, ring: &Mutex<VecDeque<Picture>>) {
    if trigger.before == 0 {
        return;
    }
    let mut lease = post.camera.lease(trigger.every);
    loop {
        if let Ok(picture) = lease.next().await
            && let Ok(picture) = post.fit(picture).await
        {
            let mut ring = lock(ring);
            if ring.len() == trigger.before {
                ring.pop_front();
            }
            ring.push_back(picture);
        }
    }
}

async fn watch(post: &Post<'_>, trigger: &Trigger, ring: &Mutex<VecDeque<Picture>>) {
    let mut edges = Edges::new(post.hub, &trigger.tag, &trigger.becomes);
    let mut events = FuturesUnordered::new();
    let mut ignored: u64 = 0;
    loop {
        tokio::select! {
            () = edges.next() => {
                if events.len() < AT_ONCE {
                    let before = lock(ring).iter().cloned().collect();
                    events.push(event(post, trigger, before));
                } else {
                    if ignored == 0 {
                        let camera = post.camera.name();
                        warn!(camera, tag = %trigger.tag, "A tag brings pictures about faster than they can be taken.");
                    }
                    ignored += 1;
                }
            }
            Some(()) = events.next() => {
                if std::mem::take(&mut ignored) > 0 {
                    info!(camera = post.camera.name(), ignored, "Some edges brought no pictures about.");
                }
            }
        }
    }
}

/// One edge. The camera is asked at once; that the disk is slow does not cost a picture.
async fn event(post: &Post<'_>, trigger: &Trigger, before: Vec<Picture>) {
    let of = trigger.before + trigger.after;
    let (queue, mut queued) = mpsc::channel(of);
    let absent = trigger.before - before.len();
    let take = async move {
        for (at, picture) in before.into_iter().enumerate() {
            queue.try_send((absent + at + 1, picture)).expect("there is room for all of them");
        }
        if absent > 0 {
            tell(post, trigger, absent, "they were not taken yet");
        }
        if trigger.after == 0 {
            return;
        }
        let mut lease = post.camera.lease(trigger.every);
        for index in trigger.before + 1..=of {
            match next(post, trigger, &mut lease).await {
                Ok(picture) => queue.try_send((index, picture)).expect("there is room for all of them"),
                Err(quality) => {
                    return tell(post, trigger, of + 1 - index, quality.reason.as_deref().unwrap_or("unknown"));
                }
            }
        }
    };
    let tag: Box<str> = trigger.tag.as_str().into();
    let keep = async {
        while let Some((index, picture)) = queued.recv().await {
            post.put(picture, Cause::Trigger { tag: tag.clone(), index, of }).await;
        }
    };
    tokio::join!(take, keep);
}

async fn next(post: &Post<'_>, trigger: &Trigger, lease: &mut Lease) -> Shot {
    let patience = trigger.every + PATIENCE;
    match tokio::time::timeout(patience, lease.next()).await {
        Ok(shot) => post.fit(shot?).await,
        Err(_) => Err(Quality::new(Status::BAD_TIMEOUT, format!("no frame within {patience:?}"))),
    }
}

fn tell(post: &Post<'_>, trigger: &Trigger, missing: usize, reason: &str) {
    let camera = post.camera.name();
    warn!(camera, tag = %trigger.tag, missing, reason, "Some pictures of a trigger are missing.");
}

fn lock(ring: &Mutex<VecDeque<Picture>>) -> MutexGuard<'_, VecDeque<Picture>> {
    ring.lock().expect("no code that holds this lock panics")
}
