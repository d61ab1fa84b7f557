//! Pictures for monitored items: each item has a lease of its own, at its own interval and with its own deadband.
//!
//!     node manager ──Command──► Pump ── one small task an item ── lease.next() ──► the item's queue in the UA crate
//!
//! The pump owns the leases. An item's end, also by the end of its subscription or session, drops its lease; when the
//! last lease of a camera is gone the camera stops (cameras::capture).
//!
//! The UA crate holds a value back that is stamped less than one sampling interval after the one before. Frames come on
//! the camera's grid and not on the item's, so a picture that is due a few milliseconds early is stamped on the item's
//! grid; never more than half a frame interval from when it was captured.

use super::items::{Nulls, exists};
use crate::hub::frames::{Camera, Lease, Shot, Terms};
use crate::model::{Quality, Sample, TagId, Timestamp, Value};
use crate::opcua::data_value;
use ::opcua::server::{MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::{AttributeId, ByteString, DataValue, NodeId, Variant};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Commands come as fast as clients create items; when the pump is behind, the client's request waits.
const COMMANDS: usize = 256;

/// What happens to a monitored item on an image.
pub(super) enum Command {
    /// It begins. `first` is when the picture that the item already has was stamped.
    Add {
        handle: MonitoredItemHandle,
        /// The session that created it.
        session: u32,
        node: NodeId,
        camera: Camera,
        wish: Wish,
        lease: Option<(Lease, Option<Timestamp>)>,
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
    session: u32,
    since: Instant,
    camera: Camera,
    /// Followed by the task.
    wish: watch::Sender<Wish>,
    /// Runs while the item is enabled.
    task: Option<AbortHandle>,
}

impl Item {
    fn lease(&self) -> Lease {
        self.camera.lease(self.wish.borrow().terms)
    }
}

impl Pump {
    /// For ever.
    pub(super) async fn run(mut self, subscriptions: Arc<SubscriptionCache>) {
        let mut items: HashMap<MonitoredItemHandle, Item> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                now = sweep.tick() => {
                    // An expired subscription says nothing, and its leases would keep the camera running. An item that
                    // was announced just now may not be in its subscription yet.
                    items.retain(|handle, item| {
                        let stays = now.duration_since(item.since) < SWEEP || exists(&subscriptions, item.session, *handle);
                        if let (false, Some(task)) = (stays, &item.task) {
                            task.abort();
                        }
                        stays
                    });
                    continue;
                }
            };
            let Some(command) = command else { return };
            // Ended tasks are aborted ones; nothing is to be learned from them.
            while tasks.try_join_next().is_some() {}
            let mut sample = |handle, item: &Item, lease, stamp| {
                let task =
                    deliver(subscriptions.clone(), handle, item.node.clone(), lease, item.wish.subscribe(), stamp);
                tasks.spawn(task)
            };
            match command {
                Command::Add { handle, session, node, camera, wish, lease } => {
                    let wish = watch::Sender::new(wish);
                    let mut item = Item { node, session, since: Instant::now(), camera, wish, task: None };
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
                    match (&item.task, enabled) {
                        (None, true) => item.task = Some(sample(handle, item, item.lease(), None)),
                        (Some(task), false) => {
                            task.abort();
                            item.task = None;
                        }
                        _ => {}
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

/// Brings each picture of the lease to the item, for ever.
async fn deliver(
    subscriptions: Arc<SubscriptionCache>,
    handle: MonitoredItemHandle,
    node: NodeId,
    mut lease: Lease,
    mut wish: watch::Receiver<Wish>,
    mut stamp: Option<Timestamp>,
) {
    let mut nulls = Nulls::after(None);
    loop {
        let shot = tokio::select! {
            shot = lease.next() => shot,
            Ok(()) = wish.changed() => {
                lease.set_terms(wish.borrow_and_update().terms);
                continue;
            }
        };
        let Wish { terms, is_publishing } = *wish.borrow();
        let captured = shot.as_ref().ok().map(|picture| picture.captured);
        let earliest = stamp.map(|stamp| stamp.saturating_add(terms.interval));
        let stamped = captured.max(captured.and(earliest));
        stamp = stamped.or(stamp);
        let mut value = image_value(&shot, stamped);
        match &shot {
            Ok(_) => nulls.reset(),
            Err(quality) => {
                value.value = nulls.null(quality.status);
                // It has no source time, so nothing is compared with the next one.
                stamp = None;
            }
        }
        if is_publishing {
            value.source_timestamp = None;
        }
        let mut notifier = subscriptions.data_notifier();
        if let Some(mut items) = notifier.notify_for(&node, AttributeId::Value) {
            items.data_value_to_item(value, &handle);
        }
    }
}

/// A picture as the Value attribute; `stamped` replaces the time of capture.
pub(super) fn image_value(shot: &Shot, stamped: Option<Timestamp>) -> DataValue {
    let now = ::opcua::types::DateTime::now();
    match shot {
        Ok(picture) => {
            let time = stamped.unwrap_or(picture.captured);
            let mut value = data_value(&Sample::good(TagId(0), Value::Empty, time));
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
