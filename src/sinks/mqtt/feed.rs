//! Samples on their way to the broker: live ones as they come, and what is owed from before.
//!
//!     store ── tail ──► waiting ──┐
//!        └──── backlog ───────────┴──► said ──window──► settled in the store
//!
//! What cannot be said now is parked in the store: it stays owed, and comes with the backlog.
//!
//! A device without a store (a simulated one) has live samples only.

use super::dialect::CanSay;
use super::forward::{Forward, Sent};
use crate::base::Selection;
use crate::hub::{Every, Hub};
use crate::model::{Sample, TagId, TagName};
use crate::store::{Chunk, Live, Store, StoreError, Tail};
use std::ops::Range;
use tokio::time::Instant;
use tracing::warn;

/// Live samples that wait for the end of an interval. With so many it is over.
const MUCH: usize = 8192;
/// Batches between the hub and a feed without a store.
const BATCHES: usize = 8192;

pub(super) struct Feed {
    source: Source,
    forward: Forward,
    waiting: Vec<Live>,
    /// The last attempt to read the backlog failed.
    is_faulty: bool,
}

enum Source {
    Store { store: Store, tail: Tail },
    Hub(Direct),
}

impl Source {
    fn try_next(&mut self) -> Option<Vec<Live>> {
        match self {
            Source::Store { tail, .. } => tail.try_next(),
            Source::Hub(direct) => direct.try_next(),
        }
    }
}

impl Feed {
    /// From now on. What an earlier feed has not settled is owed again.
    pub(super) fn begin(store: Option<&Store>, hub: &Hub, tags: &Selection, forward: Forward) -> Self {
        let source = match store {
            Some(store) => Source::Store { tail: store.rewind(), store: store.clone() },
            None => Source::Hub(Direct::new(hub.clone(), tags.clone())),
        };
        Self { source, forward, waiting: Vec::new(), is_faulty: false }
    }

    /// Waits for live samples and keeps them. Cancel safe.
    pub(super) async fn gather(&mut self) {
        let rows = match &mut self.source {
            Source::Store { tail, .. } => tail.next().await,
            Source::Hub(direct) => Some(direct.next().await),
        };
        match rows {
            Some(rows) => self.waiting.extend(rows),
            // The store has ended; so will this, in a moment.
            None => std::future::pending().await,
        }
    }

    pub(super) fn has_much(&self) -> bool {
        self.waiting.len() >= MUCH
    }

    /// What was gathered, and what waits to be: whoever is busy with the backlog may not have gathered for long.
    pub(super) fn take(&mut self) -> Vec<Live> {
        while !self.has_much()
            && let Some(rows) = self.source.try_next()
        {
            self.waiting.extend(rows);
        }
        std::mem::take(&mut self.waiting)
    }

    /// A piece of what is owed from before, as large as the rate allows now. What cannot be said is parked.
    pub(super) async fn backlog(&mut self, can_say: CanSay) -> Option<Chunk> {
        let Source::Store { store, tail } = &self.source else { return None };
        let at_most = self.forward.may_take(Instant::now());
        if at_most == 0 {
            return None;
        }
        let (reader, epoch) = (store.clone(), tail.epoch());
        let read = tokio::task::spawn_blocking(move || reader.backlog(epoch, at_most, &can_say)).await;
        let chunk = match read.expect("the store does not panic") {
            Ok(chunk) => chunk,
            // The archive is closed while its disk is at fault, which the store says.
            Err(StoreError::NotOpen) => None,
            Err(error) => {
                if !std::mem::replace(&mut self.is_faulty, true) {
                    warn!(%error, "What is owed to the MQTT broker cannot be read now; trying again.");
                }
                return None;
            }
        };
        self.is_faulty = false;
        self.forward.took(chunk.as_ref().map_or(0, |chunk| chunk.rows.len()));
        chunk.filter(|chunk| !chunk.rows.is_empty())
    }

    /// These live samples cannot be said now; they stay owed.
    pub(super) fn park(&self, numbers: impl Iterator<Item = u64>) {
        if let Source::Store { store, .. } = &self.source {
            store.park(numbers);
        }
    }

    /// Makes live samples part of the backlog; `false` without a store, which has none.
    pub(super) fn give_back(&self, numbers: impl Iterator<Item = u64>) -> bool {
        let Source::Store { store, .. } = &self.source else { return false };
        let mut numbers = numbers.peekable();
        if numbers.peek().is_some() {
            store.park(numbers);
            store.unpark();
        }
        true
    }

    /// What was parked may be said now, perhaps.
    pub(super) fn unpark(&self) {
        if let Source::Store { store, .. } = &self.source {
            store.unpark();
        }
    }

    /// The broker has answered to what was sent after `at`.
    pub(super) fn prove(&mut self, at: Instant) {
        self.forward.prove(at);
        self.settle();
    }

    /// These live samples are said; at QoS 1 that is acknowledged.
    pub(super) fn said(&mut self, numbers: Range<u64>) {
        self.forward.sent(Sent::Live(numbers), Instant::now());
        self.settle();
    }

    /// So is this piece of the backlog.
    pub(super) fn said_chunk(&mut self, chunk: Chunk) {
        self.forward.sent(Sent::Backlog(chunk.token), Instant::now());
        self.settle();
    }

    /// Forgets what has arrived, as far as one can know.
    pub(super) fn settle(&mut self) {
        for sent in self.forward.due(Instant::now()) {
            match (&self.source, sent) {
                (Source::Store { store, .. }, Sent::Live(numbers)) => store.settle(numbers),
                (Source::Store { store, .. }, Sent::Backlog(token)) => store.settle_chunk(&token),
                (Source::Hub(_), _) => {}
            }
        }
    }
}

/// Samples straight from the hub.
struct Direct {
    hub: Hub,
    tags: Selection,
    every: Every,
    /// Of each tag that is sent, as far as they are known.
    names: Vec<Option<TagName>>,
    number: u64,
}

impl Direct {
    fn new(hub: Hub, tags: Selection) -> Self {
        Self { every: hub.every(BATCHES), hub, tags, names: Vec::new(), number: 0 }
    }

    async fn next(&mut self) -> Vec<Live> {
        let batch = self.every.next().await.expect("this task holds the hub");
        self.rows(&batch)
    }

    fn try_next(&mut self) -> Option<Vec<Live>> {
        let batch = self.every.try_next()?;
        Some(self.rows(&batch))
    }

    fn rows(&mut self, batch: &[Sample]) -> Vec<Live> {
        let mark = self.every.mark();
        let newest = batch.iter().map(|sample| sample.tag.0 + 1).max().unwrap_or(0);
        // An id has one name as long as the process lives.
        for tag in self.names.len() as u32..newest {
            let name = self.hub.spec(TagId(tag)).name.clone();
            self.names.push(Some(name).filter(|name| self.tags.contains(name.as_str())));
        }
        let mut rows = Vec::with_capacity(batch.len());
        for sample in batch.iter() {
            let Some(tag) = self.names[sample.tag.index()].clone() else { continue };
            self.number += 1;
            rows.push(Live { number: self.number, mark, tag, sample: sample.clone() });
        }
        rows
    }
}
