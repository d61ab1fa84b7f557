//! Monitored items on tags, and three faults of the UA crate (0.19) that concern them.
//!
//! - A value that comes less than one sampling interval after the one before is parked, and looked at again at the next
//!   publishing interval only; if it is still too early then, it stays parked until the next change. A last change could
//!   so stay unsaid for ever. So each tag that changed is sent once more when the sampling interval of its items is
//!   over ([`Items::due`]): by then the parked value goes out.
//! - When a subscription expires (its client died), nobody is told that its items are gone. [`exists`] finds out.
//! - Without a data change filter an item compares values and not statuses, though the standard's default trigger is
//!   StatusValue (OPC 10000-4, 7.22.2). A bad value is null, so two different faults in a row would look the same;
//!   [`Nulls`] tells them apart by the two ways there are to say null.

use crate::model::{Status, TagId};
use ::opcua::server::{MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::Variant;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// So that the sampling interval is over for certain when the value is sent again.
const MARGIN: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) struct Items(Mutex<State>);

#[derive(Default)]
struct State {
    items: HashMap<MonitoredItemHandle, Item>,
    watches: HashMap<(TagId, Duration), Watch>,
    queue: BTreeSet<(Instant, TagId, Duration)>,
}

struct Item {
    tag: TagId,
    session: u32,
    interval: Duration,
}

/// All items on one tag with one sampling interval.
#[derive(Default)]
struct Watch {
    items: usize,
    /// When the tag changed last since it was queued, if it is queued.
    queued: Option<Instant>,
}

impl Items {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code that holds the items panics")
    }

    /// An item begins. A zero interval is never parked and needs no care.
    pub(super) fn add(&self, handle: MonitoredItemHandle, session: u32, tag: TagId, interval: Duration) {
        self.lock().add(handle, Item { tag, session, interval });
    }

    pub(super) fn set_interval(&self, handle: MonitoredItemHandle, session: u32, interval: Duration) {
        let mut state = self.lock();
        if let Some(item) = state.remove(handle) {
            state.add(handle, Item { session, interval, ..item });
        }
    }

    pub(super) fn remove(&self, handle: MonitoredItemHandle) {
        self.lock().remove(handle);
    }

    /// These tags were sent just now.
    pub(super) fn sent(&self, tags: &[TagId], now: Instant) {
        let state = &mut *self.lock();
        if state.items.is_empty() {
            return;
        }
        for (&(tag, interval), watch) in state.watches.iter_mut().filter(|((tag, _), _)| tags.contains(tag)) {
            if watch.queued.replace(now).is_none() {
                state.queue.insert((now + interval + MARGIN, tag, interval));
            }
        }
    }

    /// When [`Items::due`] has something next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.lock().queue.first().map(|(at, ..)| *at)
    }

    /// Tags that must be sent once more now.
    pub(super) fn due(&self, now: Instant) -> Vec<TagId> {
        let state = &mut *self.lock();
        let mut tags = Vec::new();
        while let Some(&(at, tag, interval)) = state.queue.first().filter(|(at, ..)| *at <= now) {
            state.queue.pop_first();
            tags.push(tag);
            let Some(watch) = state.watches.get_mut(&(tag, interval)) else { continue };
            // It changed again meanwhile, so once more after that.
            let Some(changed) = watch.queued.take() else { continue };
            let again = changed + interval + MARGIN;
            if again > at {
                watch.queued = Some(changed);
                state.queue.insert((again, tag, interval));
            }
        }
        tags
    }

    /// Forgets the items whose subscription has expired.
    pub(super) fn sweep(&self, subscriptions: &SubscriptionCache) {
        let known: Vec<_> = self.lock().items.iter().map(|(handle, item)| (*handle, item.session)).collect();
        for (handle, session) in known {
            if !exists(subscriptions, session, handle) {
                self.remove(handle);
            }
        }
    }
}

impl State {
    fn add(&mut self, handle: MonitoredItemHandle, item: Item) {
        if !item.interval.is_zero() {
            self.watches.entry((item.tag, item.interval)).or_default().items += 1;
        }
        self.items.insert(handle, item);
    }

    fn remove(&mut self, handle: MonitoredItemHandle) -> Option<Item> {
        let item = self.items.remove(&handle)?;
        let key = (item.tag, item.interval);
        if let Some(watch) = self.watches.get_mut(&key) {
            watch.items -= 1;
            if watch.items == 0 {
                self.watches.remove(&key);
            }
        }
        Some(item)
    }
}

/// The newest session that has asked anything of our nodes. The UA crate numbers sessions from 1, in one count for the
/// whole process.
static NEWEST_SESSION: AtomicU32 = AtomicU32::new(0);

/// Sessions that have not asked anything yet may own a subscription that was transferred to them.
const UNSEEN_SESSIONS: u32 = 1000;

/// To be called for each request.
pub(super) fn saw_session(session: u32) {
    NEWEST_SESSION.fetch_max(session, Ordering::Relaxed);
}

/// Whether a monitored item is still there. `session` is where it was created; subscriptions can be transferred, and the
/// crate shows subscriptions only by session, so if it is not there all others are asked. That is done once for an item
/// that is gone.
pub(super) fn exists(subscriptions: &SubscriptionCache, session: u32, handle: MonitoredItemHandle) -> bool {
    let has = |session: u32| {
        let Some(session) = subscriptions.get_session_subscriptions(session) else { return false };
        let session = session.lock();
        session.get(handle.subscription_id).is_some_and(|sub| sub.contains_key(&handle.monitored_item_id))
    };
    let newest = NEWEST_SESSION.load(Ordering::Relaxed).saturating_add(UNSEEN_SESSIONS);
    has(session) || (1..=newest).any(has)
}

/// How the null of a bad value is written: another status, the other way.
pub(super) struct Nulls {
    last: Option<Status>,
    is_variant: bool,
}

impl Default for Nulls {
    fn default() -> Self {
        // The first value of an item is written as the null Variant.
        Self { last: None, is_variant: true }
    }
}

impl Nulls {
    /// For a bad value with this status.
    pub(super) fn null(&mut self, status: Status) -> Option<Variant> {
        if self.last != Some(status) {
            self.is_variant = !self.is_variant;
            self.last = Some(status);
        }
        self.is_variant.then_some(Variant::Empty)
    }

    /// After a value that is not bad.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn handle(id: u32) -> MonitoredItemHandle {
        MonitoredItemHandle { subscription_id: 1, monitored_item_id: id }
    }

    #[test]
    fn a_change_is_sent_again_when_the_interval_is_over_and_again_if_it_changed_meanwhile() {
        let (items, tag, start) = (Items::default(), TagId(7), Instant::now());
        items.sent(&[tag], start);
        assert_eq!(items.next_due(), None, "nobody monitors it");

        items.add(handle(1), 1, tag, SECOND);
        items.add(handle(2), 1, tag, SECOND);
        items.sent(&[tag], start);
        items.sent(&[tag], start + SECOND / 2);
        assert_eq!(items.due(start + SECOND), []);
        assert_eq!(items.due(start + SECOND + MARGIN), [tag]);
        assert_eq!(items.next_due(), Some(start + SECOND / 2 + SECOND + MARGIN));
        assert_eq!(items.due(start + 2 * SECOND), [tag]);
        assert_eq!(items.next_due(), None);

        items.remove(handle(1));
        items.set_interval(handle(2), 1, 2 * SECOND);
        items.sent(&[tag], start);
        assert_eq!(items.next_due(), Some(start + 2 * SECOND + MARGIN));
        items.remove(handle(2));
        items.due(start + 3 * SECOND);
        items.sent(&[tag], start);
        assert_eq!(items.next_due(), None);
    }

    #[test]
    fn faults_in_a_row_differ() {
        let mut nulls = Nulls::default();
        let (a, b) = (Status::BAD_NOT_CONNECTED, Status::BAD_DEVICE_FAILURE);
        let written = [a, a, b, a].map(|status| nulls.null(status));
        assert_eq!(written, [None, None, Some(Variant::Empty), None]);
        nulls.reset();
        assert_eq!(nulls.null(a), Some(Variant::Empty));
    }
}
