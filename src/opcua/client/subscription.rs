//! Items that a server watches for us.
//!
//! The crate publishes and acknowledges; it keeps no items, because we create them past its lists: those cost several
//! hundred bytes for each. What comes is handed to a callback whole, on the session's task. The callback must not wait.
//!
//! A server may answer everything and deliver nothing. So each notification, also an empty one, is a sign of life of its
//! subscription, and [`Subscription::is_overdue`] says when there should have been one. What it delivers is numbered, and an
//! empty one says which number is next (OPC 10000-4, 7.26), so what was lost on the way shows with the next sign of life.

use super::connection::Connection;
use super::error::ServiceError;
use opcua::client::services::{CreateMonitoredItems, DeleteMonitoredItems};
use opcua::client::{MonitoredItemMap, OnSubscriptionNotificationCore, Session, UARequest};
use opcua::types::{
    AttributeId, DataChangeNotification, EventFieldList, EventNotificationList, ExtensionObject,
    MonitoredItemCreateRequest, MonitoredItemNotification, MonitoringMode, MonitoringParameters, NodeId,
    NotificationMessage, ReadValueId, StatusChangeNotification, StatusCode, TimestampsToReturn,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What a server tells.
#[derive(Debug)]
pub enum Notice {
    /// With the handles of their items. Not checked: a server may send any.
    Data(Vec<MonitoredItemNotification>),
    Events(Vec<EventFieldList>),
    /// The subscription is another now; BadTimeout means that the server has ended it.
    Status(StatusCode),
    /// At least one was lost on its way before this one, so a value that is shown may be an old one.
    Gap(Gap),
}

/// Numbers of notifications that do not follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub expected: u32,
    pub came: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub publishing_interval: Duration,
    /// The server says at least that often that nothing has changed.
    pub keep_alive: Duration,
    pub priority: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { publishing_interval: Duration::from_millis(500), keep_alive: Duration::from_secs(5), priority: 0 }
    }
}

/// What is to be watched.
#[derive(Clone, Debug)]
pub struct Item {
    /// Comes back with each notification. Not 0.
    pub handle: u32,
    pub node: NodeId,
    pub attribute: AttributeId,
    /// In milliseconds; 0 is as fast as the server can, -1 the publishing interval.
    pub sampling_interval: f64,
    /// How many values the server keeps between two publications.
    pub queue_size: u32,
    /// A DataChangeFilter or an EventFilter, or nothing.
    pub filter: ExtensionObject,
}

impl Item {
    /// The value of a variable.
    pub fn value(handle: u32, node: NodeId, sampling_interval: f64, queue_size: u32) -> Self {
        let (attribute, filter) = (AttributeId::Value, ExtensionObject::null());
        Self { handle, node, attribute, sampling_interval, queue_size, filter }
    }
}

/// An item that the server watches, with what it made of the wishes.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub id: u32,
    pub sampling_interval: f64,
    pub queue_size: u32,
}

/// Ends with its connection, or with [`Subscription::delete`].
pub struct Subscription {
    session: Arc<Session>,
    id: u32,
    life: Arc<Life>,
    /// As the server revised it.
    pub publishing_interval: Duration,
    /// The longest time without a notification, by what the server says.
    pub keep_alive: Duration,
    /// The same as we wished it.
    wanted: Duration,
}

/// When it was last heard of.
struct Life {
    start: Instant,
    /// Milliseconds after the start.
    heard: AtomicU64,
}

impl Life {
    fn touch(&self) {
        self.heard.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn silent(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }
}

/// Which number comes next.
#[derive(Default)]
struct Numbers(Option<u32>);

impl Numbers {
    /// What is missing before this one. A server that repeats itself, or counts otherwise when nothing has changed, loses nothing.
    fn take(&mut self, came: u32, has_data: bool) -> Option<Gap> {
        let expected = self.0.unwrap_or(came);
        // The numbers go round.
        let is_ahead = (1..1 << 31).contains(&came.wrapping_sub(expected));
        let newest = if is_ahead { came } else { expected };
        self.0 = Some(match has_data && newest == came {
            true => came.checked_add(1).unwrap_or(1),
            false => newest,
        });
        is_ahead.then_some(Gap { expected, came })
    }
}

/// What the crate calls.
struct Feed<F> {
    life: Arc<Life>,
    numbers: Numbers,
    notice: F,
}

impl<F: FnMut(Notice) + Send + Sync> OnSubscriptionNotificationCore for Feed<F> {
    fn on_subscription_notification(&mut self, message: NotificationMessage, _: MonitoredItemMap<'_>) {
        self.life.touch();
        let has_data = message.notification_data.as_ref().is_some_and(|data| !data.is_empty());
        if let Some(gap) = self.numbers.take(message.sequence_number, has_data) {
            (self.notice)(Notice::Gap(gap));
        }
        for data in message.notification_data.into_iter().flatten() {
            let notice = if data.inner_is::<DataChangeNotification>() {
                let data = data.into_inner_as::<DataChangeNotification>();
                data.and_then(|data| data.monitored_items).map(Notice::Data)
            } else if data.inner_is::<EventNotificationList>() {
                data.into_inner_as::<EventNotificationList>().and_then(|list| list.events).map(Notice::Events)
            } else {
                data.into_inner_as::<StatusChangeNotification>().map(|change| Notice::Status(change.status))
            };
            if let Some(notice) = notice {
                (self.notice)(notice);
            }
        }
    }
}

/// In one answer to Publish.
const MOST_NOTIFICATIONS: u32 = 10_000;
/// Without an answer to give the server keeps it so long.
const LIFETIME: Duration = Duration::from_secs(60);
/// More than we wished a server may keep us waiting between two signs of life, but no longer than this.
const LONGEST: Duration = Duration::from_secs(120);
/// The fastest that can be counted in.
const TICK: Duration = Duration::from_millis(1);

impl Connection {
    /// Without items yet. `notice` is called on the session's task, in the order in which things come.
    pub async fn subscribe(
        &self,
        settings: &Settings,
        notice: impl FnMut(Notice) + Send + Sync + 'static,
    ) -> Result<Subscription, ServiceError> {
        let interval = settings.publishing_interval.max(TICK);
        let count = |time: Duration| time.as_nanos().div_ceil(interval.as_nanos()).clamp(1, 1_000_000) as u32;
        let keep_alive = count(settings.keep_alive);
        let wanted = interval.saturating_mul(keep_alive);
        let lifetime = count(LIFETIME).max(keep_alive.saturating_mul(3));
        let life = Arc::new(Life { start: Instant::now(), heard: AtomicU64::new(0) });
        let feed = Feed { life: life.clone(), numbers: Numbers::default(), notice };
        let (session, priority) = (&self.session, settings.priority);
        let id = session
            .create_subscription(interval, lifetime, keep_alive, MOST_NOTIFICATIONS, priority, true, feed)
            .await
            .map_err(|error| ServiceError::new("CreateSubscription", &error))?;
        let (publishing_interval, keep_alive_count) = match session.subscription_state().lock().get(id) {
            Some(made) => (made.publishing_interval().max(TICK), made.max_keep_alive_count()),
            None => (interval, keep_alive),
        };
        let keep_alive = publishing_interval.saturating_mul(keep_alive_count.max(1));
        Ok(Subscription { session: session.clone(), id, life, publishing_interval, keep_alive, wanted })
    }

    /// Adds items, each made or refused with a status of its own.
    pub async fn monitor(
        &self,
        subscription: &Subscription,
        items: &[Item],
    ) -> Result<Vec<Result<Made, StatusCode>>, ServiceError> {
        let (session, id) = (&self.session, subscription.id);
        let call = |some: Vec<Item>| async move {
            let requests = some.into_iter().map(request).collect();
            let create = CreateMonitoredItems::new(id, session)
                .timestamps_to_return(TimestampsToReturn::Both)
                .items_to_create(requests);
            let made = create.send(session.channel()).await?;
            Ok(made.results.into_iter().map(|one| one.result).collect())
        };
        let made = self.limits().monitored_items.chunked("CreateMonitoredItems", items, call).await?;
        let judge = |one: opcua::types::MonitoredItemCreateResult| match one.status_code.is_bad() {
            true => Err(one.status_code),
            false => Ok(Made {
                id: one.monitored_item_id,
                sampling_interval: one.revised_sampling_interval,
                queue_size: one.revised_queue_size,
            }),
        };
        Ok(made.into_iter().map(judge).collect())
    }

    /// Takes items away, by [`Made::id`].
    pub async fn unmonitor(&self, subscription: &Subscription, ids: &[u32]) -> Result<Vec<StatusCode>, ServiceError> {
        let (session, id) = (&self.session, subscription.id);
        let call = |some: Vec<u32>| async move {
            let response = DeleteMonitoredItems::new(id, session).items_to_delete(some).send(session.channel()).await?;
            Ok(response.results.unwrap_or_default())
        };
        self.limits().monitored_items.chunked("DeleteMonitoredItems", ids, call).await
    }
}

impl Subscription {
    /// Whether the server should have been heard of by now.
    pub fn is_overdue(&self) -> bool {
        self.life.silent() > patience(self.keep_alive, self.wanted)
    }

    /// Ends it on the server.
    pub async fn delete(self) -> Result<(), ServiceError> {
        match self.session.delete_subscription(self.id).await {
            Ok(status) if status.is_bad() => {
                Err(ServiceError { service: "DeleteSubscriptions", status, detail: String::new() })
            }
            Ok(_) => Ok(()),
            Err(error) => Err(ServiceError::new("DeleteSubscriptions", &error)),
        }
    }
}

/// A server may revise what it likes, but not until it need not say anything any more.
fn patience(keep_alive: Duration, wanted: Duration) -> Duration {
    let keep_alive = keep_alive.min(wanted.max(LONGEST));
    keep_alive.saturating_mul(2).saturating_add(Duration::from_secs(5))
}

fn request(item: Item) -> MonitoredItemCreateRequest {
    MonitoredItemCreateRequest {
        item_to_monitor: ReadValueId { node_id: item.node, attribute_id: item.attribute as u32, ..Default::default() },
        monitoring_mode: MonitoringMode::Reporting,
        requested_parameters: MonitoringParameters {
            client_handle: item.handle,
            sampling_interval: item.sampling_interval,
            filter: item.filter,
            queue_size: item.queue_size,
            discard_oldest: true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_left_out_is_a_gap_and_a_keep_alive_says_the_next() {
        let gap = |expected, came| Some(Gap { expected, came });
        let mut numbers = Numbers::default();
        let told =
            [(1, true), (2, false), (2, false), (2, true), (3, false), (4, false), (4, true), (7, true), (8, true)];
        let found = told.map(|(came, has_data)| numbers.take(came, has_data));
        assert_eq!(found, [None, None, None, None, None, gap(3, 4), None, gap(5, 7), None]);
        // The last again, as some say when nothing has changed; a repetition.
        assert_eq!([(8, false), (8, true), (9, true)].map(|(came, has_data)| numbers.take(came, has_data)), [None; 3]);
        // 0 is left out.
        let mut numbers = Numbers(Some(u32::MAX));
        assert_eq!(
            [(u32::MAX, true), (1, false), (1, true)].map(|(came, has_data)| numbers.take(came, has_data)),
            [None; 3]
        );
    }

    #[test]
    fn whatever_the_server_revises_it_has_to_be_heard_of() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(seconds(5), seconds(5)), seconds(15));
        assert_eq!(patience(seconds(60), seconds(5)), seconds(125));
        assert_eq!(patience(Duration::MAX, seconds(5)), seconds(245));
        // What was wished for counts.
        assert_eq!(patience(seconds(3600), seconds(3600)), seconds(7205));
        assert_eq!(patience(Duration::MAX, Duration::MAX), Duration::MAX);
    }
}
