//! Samples on their way from the hub to the monitored items of their tags: each of them, so that an item with a queue misses
//! none.
//!
//!     hub.every() ──┐
//!     registered  ──┼──► gathered for 10 ms ──► items of the tags
//!     due again   ──┘
//!
//! If there were more samples than could be taken in then all items get the newest. What was registered anew has another
//! sample that nobody published; what the crate may have parked is sent again (`items.rs`).
//!
//! Invariant: an item never gets an older sample after a newer one. So what is sent again is read before the last batch is
//! taken, and only if no batch has the tag.

use super::node_manager::HubNodes;
use crate::hub::{Every, Hub, Latest};
use crate::model::{Sample, TagId};
use ::opcua::server::ServerHandle;
use ::opcua::server::node_manager::memory::InMemoryNodeManager;
use std::time::Duration;
use tokio::time::Instant;

/// How long changes are gathered before they are handed to the subscriptions; no client samples faster.
const GATHER: Duration = Duration::from_millis(10);
/// So many tags are handed over at once. Each client of each gets a copy of about 100 bytes, and others wait meanwhile.
const AT_ONCE: usize = 500;

/// Batches that wait to be gathered; beyond them, samples are skipped until the newest.
pub(super) const BATCHES: usize = 8192;

/// For ever.
pub(super) async fn run(
    hub: &Hub,
    mut every: Every,
    mut registered: Latest,
    nodes: &InMemoryNodeManager<HubNodes>,
    handle: &ServerHandle,
) {
    let (nodes, subscriptions) = (nodes.inner(), handle.subscriptions());
    let mut lost = 0;
    loop {
        let mut batches = Vec::new();
        let mut changed = Vec::new();
        tokio::select! {
            batch = every.next() => batches.extend(batch),
            tags = registered.changed() => changed = tags,
            () = nodes.items().wait() => {}
            () = std::future::ready(()), if every.lost() > lost => {}
        }
        let due = nodes.items().lock().due(Instant::now());
        if std::mem::replace(&mut lost, every.lost()) < lost {
            changed = nodes.items().tags();
        }
        let (changed, due) = (hub.read_many(&changed), hub.read_many(&due));
        batches.extend(std::iter::from_fn(|| every.try_next()));
        let fresh: Vec<&Sample> = batches.iter().flat_map(|batch| batch.iter()).collect();
        let mut is_fresh = TagSet::default();
        if !(due.is_empty() && changed.is_empty()) {
            fresh.iter().for_each(|sample| is_fresh.add(sample.tag));
        }
        let is_old = |sample: &&Sample| !is_fresh.has(sample.tag);
        let due = due.iter().filter(is_old).collect();
        let changed = changed.iter().filter(is_old).collect();
        for (samples, is_change) in [(due, false), (changed, true), (fresh, true)] {
            let samples: Vec<&Sample> = samples;
            for samples in samples.chunks(AT_ONCE) {
                nodes.deliver(samples, is_change, subscriptions);
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Tags of one round.
#[derive(Default)]
struct TagSet(Vec<bool>);

impl TagSet {
    fn add(&mut self, tag: TagId) {
        if self.0.len() <= tag.index() {
            self.0.resize(tag.index() + 1, false);
        }
        self.0[tag.index()] = true;
    }

    fn has(&self, tag: TagId) -> bool {
        self.0.get(tag.index()).is_some_and(|has| *has)
    }
}
