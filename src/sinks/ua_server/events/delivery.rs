//! Notices on their way to the monitored items.
//!
//!     news ──► waiting (here, 256 for each item) ──► the crate's queue of the item ──► publish
//!
//! The crate (0.19) gives an item the queue that its client asked for, and one place if it asked for 0 or 1, where the
//! standard lets the server choose (OPC 10000-4, 7.21.3); common clients ask for 0, and would see only the last event
//! of each publishing interval. So no more is handed to an item than it has room for, and the rest waits here.
//! When that overflows too, the client is told by an EventQueueOverflowEventType.
//!
//! The crate's own way to notify an item on Server and one on another node is not used: an event is to reach all
//! notifiers above its source, and some reach one subscription only.

use super::filters::Subscribers;
use super::notice::Notice;
use crate::hub::Hub;
use crate::sinks::ua_server::access::Access;
use ::opcua::nodes::TypeTree;
use ::opcua::server::{MonitoredItem, MonitoredItemHandle, Subscription, SubscriptionCache};
use ::opcua::types::{AttributeId, NodeId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// Notices that wait for one item; pointers to what all items share.
const WAITING: usize = 256;

/// A notice and who is to get it.
pub(super) struct News {
    pub(super) notice: Arc<Notice>,
    pub(super) to: To,
}

#[derive(Clone, Copy)]
pub(super) enum To {
    All,
    Subscription(u32),
    Item(MonitoredItemHandle),
}

impl News {
    pub(super) fn all(notice: Notice) -> Self {
        Self { notice: Arc::new(notice), to: To::All }
    }

    fn is_for(&self, item: &Item) -> bool {
        let is_addressed = match self.to {
            To::All => true,
            To::Subscription(subscription) => subscription == item.handle.subscription_id,
            To::Item(handle) => handle == item.handle,
        };
        is_addressed && self.notice.is_for(&item.node)
    }
}

pub(in crate::sinks::ua_server) struct Delivery {
    hub: Hub,
    access: Access,
    sessions: Arc<Subscribers>,
    queues: Mutex<HashMap<MonitoredItemHandle, Queue>>,
    /// Somebody else than the task that empties the queues has put something in.
    stirred: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Notice>>,
    /// How many of ours are in the crate's queue at most.
    handed: usize,
    /// Notices were lost since this was last said.
    has_overflowed: bool,
}

/// What there is to know of a monitored item for events.
struct Item {
    handle: MonitoredItemHandle,
    node: NodeId,
    size: usize,
    discard_oldest: bool,
    is_empty: bool,
}

impl Item {
    fn of(subscription: u32, item: &MonitoredItem) -> Self {
        Self {
            handle: MonitoredItemHandle { subscription_id: subscription, monitored_item_id: item.id() },
            node: item.item_to_monitor().node_id.clone(),
            size: item.queue_size(),
            discard_oldest: item.discard_oldest(),
            is_empty: !item.has_notifications(),
        }
    }
}

impl Queue {
    fn add(&mut self, notice: &Arc<Notice>, discard_oldest: bool) {
        if self.waiting.len() == WAITING {
            self.has_overflowed = true;
            if discard_oldest {
                self.waiting.pop_front();
            } else {
                self.waiting.pop_back();
            }
        }
        self.waiting.push_back(notice.clone());
    }

    /// The next to hand over, if there is room. What was lost is said where it was lost: before the rest if the oldest
    /// were thrown away, after it if the newest were.
    fn next(&mut self, item: &Item, overflow: impl FnOnce() -> Notice) -> Option<Arc<Notice>> {
        if self.handed >= item.size {
            return None;
        }
        if self.has_overflowed && (item.discard_oldest || self.waiting.is_empty()) {
            self.has_overflowed = false;
            return Some(Arc::new(overflow()));
        }
        self.waiting.pop_front()
    }
}

impl Delivery {
    pub(in crate::sinks::ua_server) fn new(hub: Hub, access: Access) -> Self {
        let sessions = Arc::default();
        Self { hub, access, sessions, queues: Mutex::default(), stirred: Notify::new() }
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    pub(in crate::sinks::ua_server) fn subscribers(&self) -> &Arc<Subscribers> {
        &self.sessions
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MonitoredItemHandle, Queue>> {
        self.queues.lock().expect("no code that holds the queues panics")
    }

    /// Something waits for an item to have room.
    pub(super) fn is_waiting(&self) -> bool {
        self.lock().values().any(|queue| !queue.waiting.is_empty() || queue.has_overflowed)
    }

    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// As [`Delivery::pump`], from outside the task that empties the queues.
    pub(super) fn send(&self, subscriptions: &SubscriptionCache, types: &dyn TypeTree, news: &[News]) {
        self.pump(subscriptions, types, news);
        self.stirred.notify_one();
    }

    /// Queues news, and hands over what there is room for; whether there was any.
    pub(super) fn pump(&self, subscriptions: &SubscriptionCache, types: &dyn TypeTree, news: &[News]) -> bool {
        let mut has_moved = false;
        let mut queues = self.lock();
        let mut left: HashMap<MonitoredItemHandle, Queue> = HashMap::new();
        for session in self.sessions.all() {
            let Some(session_subscriptions) = subscriptions.get_session_subscriptions(session.0) else {
                self.sessions.forget(session);
                continue;
            };
            // Not under the lock of its subscriptions: the crate takes the session's own first.
            let owner = session_subscriptions.lock().session().clone();
            let role = owner.read().user_token().and_then(|token| self.access.role(token));
            let is_allowed = |notice: &Notice| notice.is_allowed(&self.access, role);
            let mut session_subscriptions = session_subscriptions.lock();
            for id in session_subscriptions.subscription_ids() {
                let Some(subscription) = session_subscriptions.get_mut(id) else { continue };
                let is_ours = |item: &&MonitoredItem| {
                    item.item_to_monitor().attribute_id == AttributeId::EventNotifier && item.is_sampling()
                };
                let items: Vec<Item> = subscription.items().filter(is_ours).map(|item| Item::of(id, item)).collect();
                for item in items {
                    let mut queue = queues.remove(&item.handle).unwrap_or_default();
                    for one in news.iter().filter(|one| one.is_for(&item) && is_allowed(&one.notice)) {
                        queue.add(&one.notice, item.discard_oldest);
                    }
                    // Who lost a right while it waited does not get it any more.
                    queue.waiting.retain(|notice| is_allowed(notice));
                    has_moved |= self.hand_over(&mut queue, &item, subscription, types);
                    left.insert(item.handle, queue);
                }
            }
        }
        // What is not there any more, or disabled, is forgotten.
        *queues = left;
        has_moved
    }

    /// Whether there was something, and room for it.
    fn hand_over(&self, queue: &mut Queue, item: &Item, subscription: &mut Subscription, types: &dyn TypeTree) -> bool {
        let mut has_moved = false;
        if item.is_empty {
            queue.handed = 0;
        }
        let id = item.handle.monitored_item_id;
        while let Some(notice) = queue.next(item, || Notice::overflow(self.hub.now())) {
            subscription.notify_event(&id, &*notice, types);
            // The filter may have refused it. If others are there already, that cannot be told, and it counts.
            let is_taken = subscription.get(&id).is_some_and(MonitoredItem::has_notifications);
            queue.handed += usize::from(is_taken);
            has_moved = true;
        }
        has_moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn notice() -> Arc<Notice> {
        Arc::new(Notice::refresh_start(Timestamp::UNIX_EPOCH))
    }

    fn item(size: usize, discard_oldest: bool) -> Item {
        let handle = MonitoredItemHandle { subscription_id: 1, monitored_item_id: 1 };
        Item { handle, node: NodeId::null(), size, discard_oldest, is_empty: true }
    }

    fn overflow() -> Notice {
        Notice::overflow(Timestamp::UNIX_EPOCH)
    }

    fn is_overflow(notice: &Notice) -> bool {
        use ::opcua::nodes::Event;
        notice.event_type_id() == &NodeId::from(::opcua::types::ObjectTypeId::EventQueueOverflowEventType)
    }

    #[test]
    fn no_more_is_handed_over_than_there_is_room_for() {
        let (mut queue, item) = (Queue::default(), item(1, true));
        queue.add(&notice(), true);
        queue.add(&notice(), true);
        assert!(queue.next(&item, overflow).is_some());
        queue.handed = 1;
        assert!(queue.next(&item, overflow).is_none());
        assert_eq!(queue.waiting.len(), 1);
    }

    #[test]
    fn an_overflow_is_said_once_and_where_it_happened() {
        for discard_oldest in [true, false] {
            let (mut queue, item) = (Queue::default(), item(WAITING * 2, discard_oldest));
            for _ in 0..WAITING + 7 {
                queue.add(&notice(), discard_oldest);
            }
            let all: Vec<_> = std::iter::from_fn(|| queue.next(&item, overflow)).collect();
            assert_eq!(all.len(), WAITING + 1);
            assert_eq!(all.iter().filter(|notice| is_overflow(notice)).count(), 1);
            let place = if discard_oldest { 0 } else { WAITING };
            assert!(is_overflow(&all[place]));
        }
    }
}
