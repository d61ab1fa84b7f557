//! Pictures for monitored items: each item has a lease of its own, at its own interval and with its own deadband.
//!
//!     node manager ──Command──► Pump ── one small task an item ── lease.next() ──► the item's queue in the UA crate
//!
//! The pump owns the leases. An item's end, also by the end of its subscription or session, drops its lease; when the
//! last lease of a camera is gone the camera stops (cameras::capture).
//!
//! The UA crate holds a value back that is stamped less than one sampling interval after the one before. Frames come on
//! the camera's grid and not on the item's, so a picture that is due a few milliseconds early is stamped on the item's
//! grid. What comes much earlier than that, because the item was modified or enabled again or the clock was set back, has
//! no source timestamp: the crate lets it pass, and nothing is stamped in the future.

use super::access::{Access, Action, denied};
use super::items::Owner;
use crate::hub::frames::{Camera, Lease, Shot, Terms};
use crate::model::{Quality, Sample, Status, TagId, Timestamp, Value};
use crate::opcua::server::monitored::{Nulls, gone};
use crate::opcua::server::ranges;
use crate::opcua::{data_value, date_time};
use ::opcua::server::{MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::{AttributeId, ByteString, DataValue, NodeId, NumericRange, Variant};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Commands come as fast as clients create items; when the pump is behind, the client's request waits.
const COMMANDS: usize = 256;

/// What happens to a monitored item on an image.
pub(super) enum Command {
    /// It begins. `first` is when the picture that the item already has was stamped.
    Add {
        handle: MonitoredItemHandle,
        owner: Owner,
        node: NodeId,
        camera: Camera,
        range: NumericRange,
        wish: Wish,
        /// There are only so many.
        permit: OwnedSemaphorePermit,
        enabled: bool,
        lease: Option<(Lease, Last)>,
    },
    Modify {
        handle: MonitoredItemHandle,
        wish: Wish,
    },
    /// Disabled items want no pictures; sampling and reporting ones do.
    Enable {
        handle: MonitoredItemHandle,
        enabled: bool,
    },
    Remove {
        handle: MonitoredItemHandle,
    },
    /// Rights have changed.
    Recheck,
}

/// What the crate compares the next picture's timestamp with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Last {
    /// Nothing: there was no picture, or it had no timestamp.
    None,
    At(Timestamp),
    /// Some time that is not known here, or that was of another interval.
    Unknown,
}

impl Last {
    /// The timestamp of a picture captured at `captured`; `None` if it has to go without.
    fn next(self, captured: Timestamp, interval: Duration) -> Option<Timestamp> {
        match self {
            Last::None => Some(captured),
            Last::At(last) => {
                let stamp = captured.max(last.saturating_add(interval));
                (stamp <= captured.saturating_add(EARLY)).then_some(stamp)
            }
            Last::Unknown => None,
        }
    }
}

/// What an item asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wish {
    pub(super) terms: Terms,
    /// The client asked for the publishing interval (-1): see [`super::items::Sampling::Publishing`].
    pub(super) is_publishing: bool,
}

/// How often it is looked whether an item's subscription has expired.
const SWEEP: Duration = Duration::from_secs(5);

/// How much later than captured a picture may be stamped: half the interval of a slow camera's frames.
const EARLY: Duration = Duration::from_millis(100);

/// The node manager's end.
pub(super) type Sampling = mpsc::Sender<Command>;

pub(super) struct Pump {
    commands: mpsc::Receiver<Command>,
}

pub(super) fn pump() -> (Sampling, Pump) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    (sender, Pump { commands })
}

struct Item {
    node: NodeId,
    owner: Owner,
    since: Instant,
    camera: Camera,
    range: NumericRange,
    /// Followed by the task.
    wish: watch::Sender<Wish>,
    enabled: bool,
    /// Used by the task, and when there is none.
    nulls: Arc<Mutex<Nulls>>,
    /// Runs while the item is enabled and its user may read the picture.
    task: Option<AbortHandle>,
    /// Given back with the item.
    _permit: OwnedSemaphorePermit,
}

impl Item {
    fn lease(&self) -> Lease {
        self.camera.lease(self.wish.borrow().terms)
    }
}

impl Pump {
    /// For ever.
    pub(super) async fn run(mut self, subscriptions: Arc<SubscriptionCache>, access: Access) {
        let mut items: HashMap<MonitoredItemHandle, Item> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                now = sweep.tick() => {
                    // An expired subscription says nothing, and its leases would keep the camera running. An item that
                    // was announced just now may not be in its subscription yet.
                    let old = items.iter().filter(|(_, item)| now.duration_since(item.since) >= SWEEP);
                    let old = old.map(|(handle, item)| (item.owner.session, *handle)).collect();
                    for item in gone(&subscriptions, old).filter_map(|handle| items.remove(&handle)) {
                        if let Some(task) = item.task {
                            task.abort();
                        }
                    }
                    continue;
                }
            };
            let Some(command) = command else { return };
            // Ended tasks are aborted ones; nothing is to be learned from them.
            while tasks.try_join_next().is_some() {}
            let mut sample = |handle, item: &Item, lease, stamp| {
                let to = To { handle, node: item.node.clone(), range: item.range.clone() };
                let (subscriptions, nulls) = (subscriptions.clone(), item.nulls.clone());
                tasks.spawn(deliver(subscriptions, to, lease, item.wish.subscribe(), nulls, stamp))
            };
            match command {
                Command::Add { handle, owner, node, camera, range, wish, permit, enabled, lease } => {
                    let (since, wish) = (Instant::now(), watch::Sender::new(wish));
                    let bad = (!owner.may_read).then_some(Status::BAD_USER_ACCESS_DENIED);
                    let nulls = Arc::new(Mutex::new(Nulls::after(bad)));
                    let (task, _permit) = (None, permit);
                    let mut item = Item { node, owner, since, camera, range, wish, enabled, nulls, task, _permit };
                    item.task = lease.map(|(lease, stamp)| sample(handle, &item, lease, stamp));
                    items.insert(handle, item);
                }
                Command::Modify { handle, wish } => {
                    if let Some(item) = items.get(&handle) {
                        item.wish.send_replace(wish);
                    }
                }
                Command::Enable { handle, enabled } => {
                    let Some(item) = items.get_mut(&handle) else { continue };
                    item.enabled = enabled;
                    match (&item.task, enabled && item.owner.may_read) {
                        (None, true) => item.task = Some(sample(handle, item, item.lease(), Last::Unknown)),
                        (Some(task), false) => {
                            task.abort();
                            item.task = None;
                        }
                        _ => {}
                    }
                }
                Command::Recheck => {
                    for (&handle, item) in &mut items {
                        item.owner.may_read = access.may(&item.owner.seat.token(), Action::Read, &item.node);
                        match (&item.task, item.enabled && item.owner.may_read) {
                            (None, true) => item.task = Some(sample(handle, item, item.lease(), Last::Unknown)),
                            (Some(task), false) => {
                                task.abort();
                                item.task = None;
                                deny(&subscriptions, handle, item);
                            }
                            _ => {}
                        }
                    }
                }
                Command::Remove { handle } => {
                    if let Some(task) = items.remove(&handle).and_then(|item| item.task) {
                        task.abort();
                    }
                }
            }
        }
    }
}

/// Tells an item that its user may not see the picture any more.
fn deny(subscriptions: &SubscriptionCache, handle: MonitoredItemHandle, item: &Item) {
    let value = lock(&item.nulls).null(Status::BAD_USER_ACCESS_DENIED);
    let mut notifier = subscriptions.data_notifier();
    if let Some(mut items) = notifier.notify_for(&item.node, AttributeId::Value) {
        items.data_value_to_item(DataValue { value, ..denied() }, &handle);
    }
}

fn lock(nulls: &Mutex<Nulls>) -> MutexGuard<'_, Nulls> {
    nulls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where pictures go.
struct To {
    handle: MonitoredItemHandle,
    node: NodeId,
    /// The crate applies it.
    range: NumericRange,
}

/// Brings each picture of the lease to the item, for ever.
async fn deliver(
    subscriptions: Arc<SubscriptionCache>,
    to: To,
    mut lease: Lease,
    mut wish: watch::Receiver<Wish>,
    nulls: Arc<Mutex<Nulls>>,
    mut last: Last,
) {
    loop {
        let shot = tokio::select! {
            shot = lease.next() => shot,
            Ok(()) = wish.changed() => {
                lease.set_terms(wish.borrow_and_update().terms);
                last = Last::Unknown;
                continue;
            }
        };
        let Wish { terms, is_publishing } = *wish.borrow();
        let captured = shot.as_ref().ok().map(|picture| picture.captured);
        let stamp = captured.and_then(|captured| last.next(captured, terms.interval)).filter(|_| !is_publishing);
        last = stamp.map_or(Last::None, Last::At);
        let mut value = image_value(&shot);
        value.source_timestamp = stamp.map(date_time);
        match &shot {
            Ok(_) => lock(&nulls).reset(),
            Err(quality) => value.value = lock(&nulls).null(quality.status),
        }
        let mut notifier = subscriptions.data_notifier();
        if let Some(mut items) = notifier.notify_for(&to.node, AttributeId::Value) {
            items.data_value_to_item(ranges::for_item(value, &to.range), &to.handle);
        }
    }
}

/// A picture as the Value attribute.
pub(super) fn image_value(shot: &Shot) -> DataValue {
    let now = ::opcua::types::DateTime::now();
    match shot {
        Ok(picture) => {
            let mut value = data_value(&Sample::good(TagId(0), Value::Empty, picture.captured));
            value.value = Some(Variant::ByteString(ByteString { value: Some(picture.jpeg.to_vec()) }));
            value.server_timestamp = Some(now);
            value
        }
        Err(quality) => bad_value(quality),
    }
}

/// No picture, and the status that says why; the reason in words is on the camera's Reason tag.
///
/// Without a source timestamp: no source has said anything, and the UA crate holds back what it can compare with the
/// sampling interval, but a loss must be known at once.
fn bad_value(quality: &Quality) -> DataValue {
    DataValue {
        value: Some(Variant::Empty),
        status: Some(crate::opcua::status_code(quality.status)),
        server_timestamp: Some(::opcua::types::DateTime::now()),
        ..DataValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_stamped_on_the_grid_or_not_at_all() {
        let (second, captured) =
            (Duration::from_secs(1), Timestamp::UNIX_EPOCH.saturating_add(Duration::from_secs(99)));
        let before = |duration| Last::At(captured.saturating_sub(duration));
        assert_eq!(Last::None.next(captured, second), Some(captured));
        assert_eq!(before(2 * second).next(captured, second), Some(captured));
        let early = before(second - Duration::from_millis(20)).next(captured, second);
        assert_eq!(early, Some(captured.saturating_add(Duration::from_millis(20))));
        assert_eq!(before(second / 2).next(captured, second), None, "half a second ahead would be a lie");
        assert_eq!(Last::At(captured.saturating_add(second)).next(captured, second), None, "the clock was set back");
        assert_eq!(Last::Unknown.next(captured, second), None);
    }
}
