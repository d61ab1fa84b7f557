//! Delivery that may skip: which tags changed since the reader last asked.
//!
//! A publish sets a bit and, for a tag not yet marked, appends to a list; nothing is copied and nothing waits. The
//! reader takes the list and reads current values from the table, so a slow reader sees fewer, newer values.

use crate::model::TagId;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::Notify;

/// A reader of newest values. Dropping it ends the delivery.
pub struct Latest(Arc<Marks>);

#[derive(Default)]
pub(super) struct Marks {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    marked: Vec<bool>,
    order: Vec<TagId>,
}

impl Latest {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Waits until at least one tag has changed, and returns all that have, each once, in the order of their first
    /// change. Cancel safe.
    pub async fn changed(&mut self) -> Vec<TagId> {
        loop {
            let tags = self.0.take();
            if !tags.is_empty() {
                return tags;
            }
            self.0.changed.notified().await;
        }
    }
}

impl Marks {
    fn take(&self) -> Vec<TagId> {
        let mut state = super::lock(&self.state);
        let tags = std::mem::take(&mut state.order);
        for tag in &tags {
            state.marked[tag.index()] = false;
        }
        tags
    }
}

pub(super) fn subscribe(readers: &mut Vec<Weak<Marks>>, latest: &Latest) {
    readers.push(Arc::downgrade(&latest.0));
}

pub(super) fn mark(readers: &mut Vec<Weak<Marks>>, tags: impl Iterator<Item = TagId> + Clone) {
    readers.retain(|reader| {
        let Some(reader) = reader.upgrade() else { return false };
        let mut state = super::lock(&reader.state);
        let State { marked, order } = &mut *state;
        for tag in tags.clone() {
            if marked.len() <= tag.index() {
                marked.resize(tag.index() + 1, false);
            }
            if !std::mem::replace(&mut marked[tag.index()], true) {
                order.push(tag);
            }
        }
        drop(state);
        reader.changed.notify_one();
        true
    });
}
