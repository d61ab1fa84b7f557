//! Monitored items on tags, and faults of the UA crate (0.19) that concern them.
//!
//! - A value that comes less than one sampling interval after the one before is parked, and looked at again at the next
//!   publishing interval only; if it is still too early then, it stays parked until the next change. A last change could
//!   so stay unsaid for ever. So each tag that changed is sent once more when the sampling interval of its items is
//!   over ([`Items::due`]): by then the parked value goes out.
//! - When a subscription expires (its client died), nobody is told that its items are gone. [`exists`] finds out.
//! - Without a data change filter an item compares values and not statuses, though the standard's default trigger is
//!   StatusValue (OPC 10000-4, 7.22.2). A bad value is null, so two different faults in a row would look the same;
//!   [`Nulls`] tells them apart by the two ways there are to say null.
//! - A clock that is set back would silence items: `stamps.rs`. An IndexRange may end in a panic: `ranges.rs`.

use super::ranges;
use super::stamps::Stamps;
use crate::model::{Quality, Status, TagId};
use ::opcua::server::{MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::{DataValue, NumericRange, Variant};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// So that the sampling interval is over for certain when the value is sent again.
const MARGIN: Duration = Duration::from_millis(5);
/// An item that begins gets the value once more after this at the least: a change may have come between its initial value
/// and its entry in the subscription.
const SETTLE: Duration = Duration::from_millis(50);
/// Items that were announced just now may not be in their subscription yet.
const YOUNG: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Items {
    state: Mutex<State>,
    /// Something is due earlier than it was.
    earlier: Notify,
}

#[derive(Default)]
struct State {
    items: HashMap<MonitoredItemHandle, Item>,
    tags: HashMap<TagId, Tag>,
    queue: BTreeSet<(Instant, TagId, Duration)>,
}

struct Item {
    tag: TagId,
    since: Instant,
    wanted: Wanted,
    nulls: Nulls,
    stamps: Stamps,
}

/// What an item was created with.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) session: u32,
    pub(super) sampling: Sampling,
    pub(super) range: NumericRange,
    pub(super) has_deadband: bool,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sampling {
    Interval(Duration),
    /// -1: the publishing interval. The crate would give every value of such an item the source timestamp of its first
    /// one, so they go without.
    Publishing,
}

impl Sampling {
    fn interval(self) -> Duration {
        match self {
            Sampling::Interval(interval) => interval,
            Sampling::Publishing => Duration::ZERO,
        }
    }
}

#[derive(Default)]
struct Tag {
    items: Vec<MonitoredItemHandle>,
    /// One for each sampling interval that is not zero.
    watches: HashMap<Duration, Watch>,
}

#[derive(Default)]
struct Watch {
    items: usize,
    /// When the tag changed last since it was queued, if it is queued.
    queued: Option<Instant>,
}

impl Items {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds the items panics")
    }

    /// An item begins; `bad` is the status of its initial value if that is bad.
    pub(super) fn add(&self, handle: MonitoredItemHandle, tag: TagId, wanted: Wanted, bad: Option<Status>) {
        let now = Instant::now();
        let interval = wanted.sampling.interval();
        let mut state = self.lock();
        let (nulls, stamps) = (Nulls::after(bad), Stamps::default());
        state.add(handle, Item { tag, since: now, wanted, nulls, stamps });
        state.queue.insert((now + interval.max(SETTLE) + MARGIN, tag, interval));
        self.earlier.notify_one();
    }

    pub(super) fn modify(&self, handle: MonitoredItemHandle, session: u32, sampling: Sampling, has_deadband: bool) {
        let mut state = self.lock();
        if let Some(item) = state.remove(handle) {
            let wanted = Wanted { session, sampling, has_deadband, range: item.wanted.range };
            state.add(handle, Item { wanted, ..item });
        }
    }

    pub(super) fn remove(&self, handle: MonitoredItemHandle) {
        self.lock().remove(handle);
    }

    /// An item that was disabled wants the current value (OPC 10000-4, 5.13.1.3).
    pub(super) fn resend(&self, handle: MonitoredItemHandle) {
        let mut state = self.lock();
        if let Some((tag, interval)) = state.items.get(&handle).map(|item| (item.tag, item.wanted.sampling.interval()))
        {
            state.queue.insert((Instant::now() + SETTLE, tag, interval));
            self.earlier.notify_one();
        }
    }

    /// All tags that are monitored.
    pub(super) fn tags(&self) -> Vec<TagId> {
        self.lock().tags.keys().copied().collect()
    }

    /// These tags were sent just now.
    pub(super) fn sent(&self, tags: &[TagId], now: Instant) {
        let State { tags: known, queue, .. } = &mut *self.lock();
        for tag in tags {
            let Some(watches) = known.get_mut(tag).map(|known| &mut known.watches) else { continue };
            for (interval, watch) in watches {
                if watch.queued.replace(now).is_none() {
                    queue.insert((now + *interval + MARGIN, *tag, *interval));
                }
            }
        }
    }

    /// Waits until [`Items::due`] has something.
    pub(super) async fn wait(&self) {
        loop {
            let next = self.next_due();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => return,
                () = self.earlier.notified() => {}
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.lock().queue.first().map(|(at, ..)| *at)
    }

    /// Tags that must be sent once more now.
    pub(super) fn due(&self, now: Instant) -> Vec<TagId> {
        let state = &mut *self.lock();
        let mut tags = Vec::new();
        while let Some(&(at, tag, interval)) = state.queue.first().filter(|(at, ..)| *at <= now) {
            state.queue.pop_first();
            tags.push(tag);
            let Some(watch) = state.tags.get_mut(&tag).and_then(|tag| tag.watches.get_mut(&interval)) else { continue };
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

    /// The items that monitor a tag, and the value as each is to get it. The crate's own list of them is not used: it
    /// keeps the items of every subscription there ever was.
    pub(super) fn values(
        &self,
        tag: TagId,
        value: &DataValue,
        quality: &Quality,
    ) -> Vec<(MonitoredItemHandle, DataValue)> {
        let State { items, tags, .. } = &mut *self.lock();
        let Some(tag) = tags.get(&tag) else { return Vec::new() };
        let mut values = Vec::with_capacity(tag.items.len());
        for handle in &tag.items {
            let Some(item) = items.get_mut(handle) else { continue };
            let mut value = value.clone();
            if quality.is_bad() {
                value.value = item.nulls.null(quality.status);
            } else {
                item.nulls.reset();
            }
            let stamp = value.source_timestamp.filter(|_| item.wanted.sampling != Sampling::Publishing);
            value.source_timestamp = item.stamps.next(stamp, value.value.as_ref(), item.wanted.has_deadband);
            values.push((*handle, ranges::for_item(value, &item.wanted.range)));
        }
        values
    }

    /// Forgets the items whose subscription has expired.
    pub(super) fn sweep(&self, subscriptions: &SubscriptionCache) {
        let now = Instant::now();
        let is_old = |item: &Item| now.duration_since(item.since) >= YOUNG;
        let known: Vec<_> = {
            let state = self.lock();
            let old = state.items.iter().filter(|(_, item)| is_old(item));
            old.map(|(handle, item)| (*handle, item.wanted.session)).collect()
        };
        for (handle, session) in known {
            if !exists(subscriptions, session, handle) {
                self.remove(handle);
            }
        }
    }
}

impl State {
    fn add(&mut self, handle: MonitoredItemHandle, item: Item) {
        let tag = self.tags.entry(item.tag).or_default();
        tag.items.push(handle);
        let interval = item.wanted.sampling.interval();
        if !interval.is_zero() {
            tag.watches.entry(interval).or_default().items += 1;
        }
        self.items.insert(handle, item);
    }

    fn remove(&mut self, handle: MonitoredItemHandle) -> Option<Item> {
        let item = self.items.remove(&handle)?;
        if let Some(tag) = self.tags.get_mut(&item.tag) {
            tag.items.retain(|other| *other != handle);
            let interval = item.wanted.sampling.interval();
            if let Some(watch) = tag.watches.get_mut(&interval) {
                watch.items -= 1;
                if watch.items == 0 {
                    tag.watches.remove(&interval);
                }
            }
            if tag.items.is_empty() {
                self.tags.remove(&item.tag);
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
/// Sessions older than the newest ones by more are not asked: they are long gone, and looking through all that there ever
/// were would hold everybody up.
const OLD_SESSIONS: u32 = 10_000;

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
    let newest = NEWEST_SESSION.load(Ordering::Relaxed);
    has(session) || (newest.saturating_sub(OLD_SESSIONS)..=newest.saturating_add(UNSEEN_SESSIONS)).any(has)
}

/// How the null of a bad value is written: another status, the other way. One for each item.
pub(super) struct Nulls {
    last: Option<Status>,
    is_variant: bool,
}

impl Nulls {
    /// After an initial value, which is written as the null Variant if it is bad.
    pub(super) fn after(bad: Option<Status>) -> Self {
        Self { last: bad, is_variant: true }
    }

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

    fn wanted(sampling: Sampling) -> Wanted {
        Wanted { session: 1, sampling, range: NumericRange::None, has_deadband: false }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_sent_again_when_the_interval_is_over_and_again_if_it_changed_meanwhile() {
        let (items, tag) = (Items::default(), TagId(7));
        items.sent(&[tag], Instant::now());
        assert_eq!(items.next_due(), None, "nobody monitors it");

        items.add(handle(1), tag, wanted(Sampling::Interval(SECOND)), None);
        items.add(handle(2), tag, wanted(Sampling::Interval(SECOND)), None);
        items.wait().await;
        assert_eq!(items.due(Instant::now()), [tag], "once after the beginning");
        assert_eq!(items.next_due(), None);

        let start = Instant::now();
        items.sent(&[tag], start);
        items.sent(&[tag], start + SECOND / 2);
        assert_eq!(items.due(start + SECOND), []);
        assert_eq!(items.due(start + SECOND + MARGIN), [tag]);
        assert_eq!(items.next_due(), Some(start + SECOND / 2 + SECOND + MARGIN));
        assert_eq!(items.due(start + 2 * SECOND), [tag]);
        assert_eq!(items.next_due(), None);

        items.remove(handle(1));
        items.modify(handle(2), 1, Sampling::Interval(2 * SECOND), false);
        items.sent(&[tag], start);
        assert_eq!(items.next_due(), Some(start + 2 * SECOND + MARGIN));
        items.remove(handle(2));
        items.due(start + 3 * SECOND);
        items.sent(&[tag], start);
        assert_eq!(items.next_due(), None);
    }

    #[test]
    fn each_item_gets_the_value_as_it_needs_it() {
        let (items, tag) = (Items::default(), TagId(7));
        items.add(handle(1), tag, wanted(Sampling::Interval(SECOND)), None);
        items.add(handle(2), tag, wanted(Sampling::Publishing), Some(Status::BAD_TIMEOUT));
        let value = DataValue::new_now(5);
        let got = items.values(tag, &value, &Quality::GOOD);
        assert_eq!(got[0], (handle(1), value.clone()));
        assert_eq!(items.tags(), [tag]);
        assert_eq!((got[1].0, got[1].1.source_timestamp), (handle(2), None));
        assert!(items.values(TagId(8), &value, &Quality::GOOD).is_empty());
        items.remove(handle(1));
        assert_eq!(items.values(tag, &value, &Quality::GOOD).len(), 1);
    }

    #[test]
    fn faults_in_a_row_differ() {
        let (a, b) = (Status::BAD_NOT_CONNECTED, Status::BAD_DEVICE_FAILURE);
        let mut nulls = Nulls::after(Some(a));
        let null = Some(Variant::Empty);
        assert_eq!([a, b, b, a].map(|status| nulls.null(status)), [null.clone(), None, None, null.clone()]);
        nulls.reset();
        assert_eq!(nulls.null(a), None);
        assert_eq!(Nulls::after(None).null(a), None);
    }
}
