//! Monitored items on tags, and faults of the UA crate (0.19) that concern them.
//!
//! - A value that comes less than one sampling interval after the one before is parked, and looked at again at the next
//!   publishing interval only; if it is still too early then, it stays parked until the next change. A last change could
//!   so stay unsaid for ever. So each tag whose change may have been parked is sent once more when the sampling interval
//!   of its items is over ([`State::due`]): by then the parked value goes out. [`Watch`] knows which may.
//! - Subscriptions that expire, and faults in a row: `monitored.rs`.
//! - A clock that is set back would silence items: `stamps.rs`. An IndexRange may end in a panic: `ranges.rs`.
//!
//! All values of all clients pass here, a million a second if they want, so a value costs no lookup by hash.

use super::access::{Seat, denied};
use crate::model::{Sample, Status, TagId, Timestamp};
use crate::opcua::server::monitored::{Nulls, gone};
use crate::opcua::server::ranges;
use crate::opcua::server::stamps::Stamps;
use ::opcua::server::authenticator::UserToken;
use ::opcua::server::{MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::{DataValue, NumericRange};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
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
pub(super) struct State {
    items: HashMap<MonitoredItemHandle, TagId>,
    /// By tag id.
    tags: Vec<Tag>,
    /// What is to be sent again and when: always, or if a change may be parked by items of that interval.
    queue: BTreeSet<(Instant, TagId, Option<Duration>)>,
}

struct Item {
    handle: MonitoredItemHandle,
    since: Instant,
    wanted: Wanted,
    nulls: Nulls,
    stamps: Stamps,
}

/// What an item was created with.
pub(super) struct Wanted {
    pub(super) owner: Owner,
    pub(super) sampling: Sampling,
    pub(super) range: NumericRange,
    pub(super) has_deadband: bool,
}

/// Who an item belongs to.
pub(super) struct Owner {
    pub(super) session: u32,
    pub(super) seat: Arc<Seat>,
    pub(super) may_read: bool,
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
    items: Vec<Item>,
    /// One for each sampling interval that is not zero.
    watches: Vec<Watch>,
}

impl Tag {
    fn watch(&mut self, interval: Duration) -> Option<&mut Watch> {
        self.watches.iter_mut().find(|watch| watch.interval == interval)
    }
}

/// Foresees which values the crate parks for the items of one interval.
///
/// It compares source timestamps with that of the last value that it let through, and gives a parked value that timestamp
/// plus the interval. What it let through depends on filters and on when it looked, so here are the latest timestamps
/// that it may have: a value that is no interval later than those may be parked, any other is not.
struct Watch {
    interval: Duration,
    items: usize,
    /// Of the last value that went through.
    last: Option<Timestamp>,
    /// Of a value that may be parked: it goes through by itself when it is that late.
    parked: Option<Timestamp>,
    /// When the tag last changed to what may be parked, if that is to be sent again.
    queued: Option<Instant>,
}

impl Watch {
    /// A value goes to the items. Whether it may be parked.
    fn may_park(&mut self, stamp: Option<Timestamp>, now: Timestamp) -> bool {
        // Without a timestamp there is nothing to compare.
        let Some(stamp) = stamp else { return false };
        if let Some(parked) = self.parked.take_if(|parked| *parked <= now) {
            self.last = Some(parked);
        }
        match self.last.map(|last| last.saturating_add(self.interval)) {
            Some(next) if stamp < next => {
                self.parked = Some(next);
                true
            }
            _ => {
                (self.last, self.parked) = (Some(stamp), None);
                false
            }
        }
    }
}

impl Items {
    /// For a round of values.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds the items panics")
    }

    /// An item begins, with this as its initial value.
    pub(super) fn add(&self, handle: MonitoredItemHandle, wanted: Wanted, initial: &Sample) {
        let (now, tag) = (Instant::now(), initial.tag);
        let bad = if wanted.owner.may_read {
            initial.quality.is_bad().then_some(initial.quality.status)
        } else {
            Some(Status::BAD_USER_ACCESS_DENIED)
        };
        let item = Item { handle, since: now, wanted, nulls: Nulls::after(bad), stamps: Stamps::default() };
        let mut state = self.lock();
        state.add(tag, item, initial.source_time, now);
        self.earlier.notify_one();
    }

    pub(super) fn modify(&self, handle: MonitoredItemHandle, session: u32, sampling: Sampling, has_deadband: bool) {
        let mut state = self.lock();
        if let Some((tag, item, last)) = state.remove(handle) {
            let owner = Owner { session, ..item.wanted.owner };
            let wanted = Wanted { owner, sampling, has_deadband, range: item.wanted.range };
            state.add(tag, Item { wanted, ..item }, last, Instant::now());
            self.earlier.notify_one();
        }
    }

    pub(super) fn remove(&self, handle: MonitoredItemHandle) {
        self.lock().remove(handle);
    }

    /// An item that was disabled wants the current value (OPC 10000-4, 5.13.1.3).
    pub(super) fn resend(&self, handle: MonitoredItemHandle) {
        let mut state = self.lock();
        if let Some(&tag) = state.items.get(&handle) {
            state.queue.insert((Instant::now() + SETTLE, tag, None));
            self.earlier.notify_one();
        }
    }

    /// Rights have changed: whoever may read now gets the value, and who may not any more is told so.
    pub(super) fn recheck(&self, may_read: impl Fn(&UserToken, TagId) -> bool) {
        let State { tags, queue, .. } = &mut *self.lock();
        for (tag, id) in tags.iter_mut().zip(0..).map(|(tag, id)| (tag, TagId(id))) {
            for Owner { seat, may_read: before, .. } in tag.items.iter_mut().map(|item| &mut item.wanted.owner) {
                let now = may_read(&seat.token(), id);
                if std::mem::replace(before, now) != now {
                    queue.insert((Instant::now(), id, None));
                    self.earlier.notify_one();
                }
            }
        }
    }

    /// How many there are, all clients together.
    pub(super) fn count(&self) -> usize {
        self.lock().items.len()
    }

    /// All tags that are monitored.
    pub(super) fn tags(&self) -> Vec<TagId> {
        let state = self.lock();
        let monitored = state.tags.iter().zip(0..).filter(|(tag, _)| !tag.items.is_empty());
        monitored.map(|(_, id)| TagId(id)).collect()
    }

    /// Waits until [`State::due`] has something.
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

    /// Forgets the items whose subscription has expired.
    pub(super) fn sweep(&self, subscriptions: &SubscriptionCache) {
        let now = Instant::now();
        let is_old = |item: &&Item| now.duration_since(item.since) >= YOUNG;
        let known: Vec<_> = {
            let state = self.lock();
            let old = state.tags.iter().flat_map(|tag| &tag.items).filter(is_old);
            old.map(|item| (item.wanted.owner.session, item.handle)).collect()
        };
        gone(subscriptions, known).for_each(|handle| self.remove(handle));
    }
}

impl State {
    /// Tags that must be sent once more now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<TagId> {
        let mut tags = Vec::new();
        while let Some(&(at, tag, interval)) = self.queue.first().filter(|(at, ..)| *at <= now) {
            self.queue.pop_first();
            let Some(interval) = interval else {
                tags.push(tag);
                continue;
            };
            let watch = self.tags.get_mut(tag.index()).and_then(|tag| tag.watch(interval));
            // A later value went through, or nobody monitors it any more.
            let Some((watch, changed)) = watch.and_then(|watch| watch.queued.take().map(|changed| (watch, changed)))
            else {
                continue;
            };
            tags.push(tag);
            // It changed again meanwhile, so once more after that.
            let again = changed + interval + MARGIN;
            if again > at {
                watch.queued = Some(changed);
                self.queue.insert((again, tag, Some(interval)));
            }
        }
        tags
    }

    /// A changed value goes to the items of its tag.
    pub(super) fn changed(&mut self, sample: &Sample, now: Instant, time: Timestamp) {
        let Some(tag) = self.tags.get_mut(sample.tag.index()) else { return };
        for watch in &mut tag.watches {
            if !watch.may_park(sample.source_time, time) {
                watch.queued = None;
            } else if watch.queued.replace(now).is_none() {
                self.queue.insert((now + watch.interval + MARGIN, sample.tag, Some(watch.interval)));
            }
        }
    }

    pub(super) fn is_monitored(&self, tag: TagId) -> bool {
        self.tags.get(tag.index()).is_some_and(|tag| !tag.items.is_empty())
    }

    /// Gives each item of a tag the value as it is to get it. The crate's own list of them is not used: it keeps the items
    /// of every subscription there ever was.
    pub(super) fn give(
        &mut self,
        sample: &Sample,
        value: &DataValue,
        mut to: impl FnMut(DataValue, &MonitoredItemHandle),
    ) {
        let Some(tag) = self.tags.get_mut(sample.tag.index()) else { return };
        for item in &mut tag.items {
            let (mut value, bad) = if item.wanted.owner.may_read {
                (value.clone(), sample.quality.is_bad().then_some(sample.quality.status))
            } else {
                (denied(), Some(Status::BAD_USER_ACCESS_DENIED))
            };
            match bad {
                Some(status) => value.value = item.nulls.null(status),
                None => item.nulls.reset(),
            }
            let Wanted { sampling, range, .. } = &item.wanted;
            // The crate takes the part again of a part that it has parked. What has no timestamp is not parked.
            let is_part = *range != NumericRange::None;
            let stamp = value.source_timestamp.filter(|_| *sampling != Sampling::Publishing);
            let stamp = stamp.filter(|stamp| !(is_part && item.stamps.is_early(*stamp, sampling.interval())));
            value.source_timestamp = item.stamps.next(stamp, value.value.as_ref(), item.wanted.has_deadband);
            to(ranges::for_item(value, &item.wanted.range), &item.handle);
        }
    }

    /// `last` is the source timestamp of the item's last value, or a later one.
    fn add(&mut self, id: TagId, item: Item, last: Option<Timestamp>, now: Instant) {
        if self.tags.len() <= id.index() {
            self.tags.resize_with(id.index() + 1, Tag::default);
        }
        let tag = &mut self.tags[id.index()];
        let interval = item.wanted.sampling.interval();
        if !interval.is_zero() {
            match tag.watch(interval) {
                Some(watch) => {
                    watch.items += 1;
                    watch.last = watch.last.max(last);
                }
                None => tag.watches.push(Watch { interval, items: 1, last, parked: None, queued: None }),
            }
        }
        // What came meanwhile, or is parked and was another watch's to send again.
        self.queue.insert((now + interval.max(SETTLE) + MARGIN, id, None));
        self.items.insert(item.handle, id);
        tag.items.push(item);
    }

    /// The item, its tag, and what [`State::add`] wants to know.
    fn remove(&mut self, handle: MonitoredItemHandle) -> Option<(TagId, Item, Option<Timestamp>)> {
        let id = self.items.remove(&handle)?;
        let tag = &mut self.tags[id.index()];
        let item = tag.items.swap_remove(tag.items.iter().position(|item| item.handle == handle)?);
        let mut last = None;
        if let Some(watch) = tag.watch(item.wanted.sampling.interval()) {
            watch.items -= 1;
            last = watch.parked.max(watch.last);
        }
        tag.watches.retain(|watch| watch.items > 0);
        Some((id, item, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;
    use crate::sinks::ua_server::access::Seats;

    const SECOND: Duration = Duration::from_secs(1);

    fn handle(id: u32) -> MonitoredItemHandle {
        MonitoredItemHandle { subscription_id: 1, monitored_item_id: id }
    }

    fn wanted(sampling: Sampling) -> Wanted {
        let seat = Seats::default().seat(1, &UserToken("anna".into()));
        let owner = Owner { session: 1, seat, may_read: true };
        Wanted { owner, sampling, range: NumericRange::None, has_deadband: false }
    }

    /// Of the time so many milliseconds after the epoch.
    fn sample(tag: TagId, millis: i64) -> Sample {
        Sample::good(tag, Value::Double(1.0), Timestamp::from_millis(millis))
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_parked_is_sent_again_when_the_interval_is_over_and_again_if_it_changed_meanwhile() {
        let (items, tag) = (Items::default(), TagId(7));
        let start = Instant::now();
        // A change so many milliseconds after the start, of a source whose clock is right.
        let change = |millis: i64| {
            let at = start + Duration::from_millis(millis as u64);
            items.lock().changed(&sample(tag, millis), at, Timestamp::from_millis(millis));
        };
        let due = |millis: u64| items.lock().due(start + Duration::from_millis(millis));
        change(0);
        assert_eq!(items.next_due(), None, "nobody monitors it");

        items.add(handle(1), wanted(Sampling::Interval(SECOND)), &sample(tag, 0));
        items.add(handle(2), wanted(Sampling::Interval(SECOND)), &sample(tag, 0));
        items.wait().await;
        assert_eq!(items.lock().due(Instant::now()), [tag], "once after the beginning");
        assert_eq!(items.next_due(), None);

        change(1500);
        assert_eq!(items.next_due(), None, "an interval after the last one, so it went through");
        change(2000);
        change(2400);
        assert_eq!(due(3000), []);
        assert_eq!(due(3005), [tag]);
        assert_eq!(due(3404), []);
        assert_eq!(due(3405), [tag], "it changed again meanwhile");
        assert_eq!(items.next_due(), None);

        change(4500);
        change(5000);
        change(6600);
        assert_eq!(due(6700), [], "the last one went through, which says it all");

        items.remove(handle(1));
        items.modify(handle(2), 1, Sampling::Interval(2 * SECOND), false);
        assert_eq!(due(7000), [tag], "what was held back before it");
        change(7000);
        assert_eq!(due(9004), []);
        assert_eq!(due(9005), [tag]);
        change(9100);
        items.remove(handle(2));
        assert_eq!(due(99_000), []);
        change(99_000);
        assert_eq!((items.next_due(), items.tags()), (None, vec![]));
    }

    #[test]
    fn each_item_gets_the_value_as_it_needs_it() {
        let (items, tag) = (Items::default(), TagId(7));
        let good = sample(tag, 5000);
        items.add(handle(1), wanted(Sampling::Interval(SECOND)), &good);
        let bad = Sample::bad(tag, Status::BAD_TIMEOUT.into(), Timestamp::UNIX_EPOCH);
        items.add(handle(2), wanted(Sampling::Publishing), &bad);
        let value = DataValue::new_now(5);
        let give = |sample: &Sample| {
            let mut got = Vec::new();
            items.lock().give(sample, &value, |value, handle| got.push((*handle, value)));
            got
        };
        let got = give(&good);
        assert_eq!(got[0], (handle(1), value.clone()));
        assert_eq!((got[1].0, got[1].1.source_timestamp), (handle(2), None));
        assert_eq!(items.tags(), [tag]);
        assert!(give(&sample(TagId(8), 5000)).is_empty());
        items.remove(handle(1));
        assert_eq!(give(&good).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_read_any_more_is_told_so_and_gets_the_value_again_later() {
        let (items, tag) = (Items::default(), TagId(7));
        let good = sample(tag, 5000);
        items.add(handle(1), wanted(Sampling::Interval(SECOND)), &good);
        items.wait().await;
        items.lock().due(Instant::now());
        let value = DataValue::new_now(5);
        let got = || {
            let mut got = Vec::new();
            items.lock().give(&good, &value, |value, _| got.push(value));
            got.remove(0)
        };
        items.recheck(|token, tag| token.0 == "anna" && tag == TagId(7));
        assert_eq!((items.next_due(), got()), (None, value.clone()), "nothing has changed");
        items.recheck(|_, _| false);
        assert_eq!(items.lock().due(Instant::now()), [tag]);
        assert_eq!((got().status, got().value), (Some(::opcua::types::StatusCode::BadUserAccessDenied), None));
        items.recheck(|_, _| true);
        assert_eq!(items.lock().due(Instant::now()), [tag]);
        assert_eq!(got(), value);
    }
}
