//! Subscriptions and monitored items: one subscription for each group, or several where a server takes only so many items in
//! one.
//!
//! What the server refuses is refused for one item, with its status, and tried again by the next look. A deadband that the
//! server does not take for a node (no number, no EURange) is left away for that node.

use super::config::{Deadband, GroupConfig};
use super::inbox::{Cut, Inbox};
use super::look::is_fatal;
use crate::opcua::client::{Connection, Item, Notice, ServiceError, Settings, Subscription};
use ::opcua::types::{DataChangeFilter, DataChangeTrigger, DeadbandType, ExtensionObject, NodeId, StatusCode};
use tracing::debug;

/// What a session has open.
#[derive(Default)]
pub(super) struct Monitors(Vec<Open>);

struct Open {
    group: usize,
    subscription: Subscription,
    count: usize,
}

/// To be monitored.
pub(super) struct Wish {
    pub row: usize,
    pub group: usize,
    pub node: NodeId,
    /// A deadband has a meaning.
    pub is_number: bool,
}

/// Where an item is: its subscription and the server's number.
pub(super) type Seat = (usize, u32);

pub(super) struct Watched {
    pub monitors: Monitors,
    pub rows: Vec<(usize, Result<Seat, StatusCode>)>,
}

impl Monitors {
    /// One that should have been heard of.
    pub(super) fn is_overdue(&self) -> bool {
        self.0.iter().any(|open| open.subscription.is_overdue())
    }
}

/// Errors are those after which the session is of no use.
pub(super) async fn watch(
    connection: &Connection,
    mut monitors: Monitors,
    groups: &[GroupConfig],
    inbox: &Inbox,
    wishes: Vec<Wish>,
    gone: Vec<Seat>,
) -> Result<Watched, ServiceError> {
    for (number, open) in monitors.0.iter_mut().enumerate() {
        let ids: Vec<u32> = gone.iter().filter(|(of, _)| *of == number).map(|(_, id)| *id).collect();
        if !ids.is_empty() {
            open.count -= ids.len().min(open.count);
            // The server may have taken them away with their nodes.
            if let Err(error) = connection.unmonitor(&open.subscription, &ids).await {
                debug!(%error, "Cannot take monitored items away.");
            }
        }
    }
    let mut rows = Vec::with_capacity(wishes.len());
    let most = connection.limits().items_per_subscription;
    for (number, group) in groups.iter().enumerate() {
        let wishes: Vec<&Wish> = wishes.iter().filter(|wish| wish.group == number).collect();
        let mut rest = wishes.as_slice();
        while !rest.is_empty() {
            let at = match monitors.0.iter().position(|open| open.group == number && open.count < most) {
                Some(at) => at,
                None => match subscribe(connection, group, inbox).await {
                    Ok(subscription) => {
                        monitors.0.push(Open { group: number, subscription, count: 0 });
                        monitors.0.len() - 1
                    }
                    Err(error) if is_fatal(error.status) => return Err(error),
                    Err(error) => {
                        rows.extend(rest.iter().map(|wish| (wish.row, Err(error.status))));
                        break;
                    }
                },
            };
            let open = &mut monitors.0[at];
            let (now, later) = rest.split_at((most - open.count).min(rest.len()));
            let results = match monitor(connection, &open.subscription, group, now).await {
                Ok(results) => results,
                Err(error) if is_fatal(error.status) => return Err(error),
                Err(error) => vec![Err(error.status); now.len()],
            };
            open.count += results.iter().filter(|result| result.is_ok()).count();
            rows.extend(now.iter().zip(results).map(|(wish, result)| (wish.row, result.map(|id| (at, id)))));
            rest = later;
        }
    }
    Ok(Watched { monitors, rows })
}

async fn subscribe(connection: &Connection, group: &GroupConfig, inbox: &Inbox) -> Result<Subscription, ServiceError> {
    let settings = Settings { publishing_interval: group.publishing_interval, ..Settings::default() };
    let inbox = inbox.clone();
    let notice = move |notice| match notice {
        Notice::Data(values) => inbox.take(values),
        Notice::Status(status) => inbox.end(status),
        Notice::Gap(gap) => inbox.cut(Cut::Gap(gap)),
        Notice::Events(_) => {}
    };
    connection.subscribe(&settings, notice).await
}

async fn monitor(
    connection: &Connection,
    subscription: &Subscription,
    group: &GroupConfig,
    wishes: &[&Wish],
) -> Result<Vec<Result<u32, StatusCode>>, ServiceError> {
    let sampling = group.sampling_interval.as_secs_f64() * 1000.0;
    let filter = group.deadband.map(filter);
    let item = |wish: &Wish, filter: Option<&ExtensionObject>| {
        let item = Item::value(Inbox::handle(wish.row), wish.node.clone(), sampling, group.queue_size);
        Item { filter: filter.cloned().unwrap_or_default(), ..item }
    };
    let items: Vec<Item> = wishes.iter().map(|wish| item(wish, filter.as_ref().filter(|_| wish.is_number))).collect();
    let mut results: Vec<_> =
        connection.monitor(subscription, &items).await?.into_iter().map(|made| Ok(made?.id)).collect();
    let is_refused = |index: &usize| matches!(&results[*index], Err(status) if is_of_filter(*status));
    let again: Vec<usize> = (0..results.len()).filter(is_refused).collect();
    if filter.is_some() && !again.is_empty() {
        debug!(group = group.name, count = again.len(), "The server takes no such deadband for some nodes.");
        let items: Vec<Item> = again.iter().map(|&index| item(wishes[index], None)).collect();
        for (&index, made) in again.iter().zip(connection.monitor(subscription, &items).await?) {
            results[index] = made.map(|made| made.id);
        }
    }
    Ok(results)
}

fn is_of_filter(status: StatusCode) -> bool {
    use StatusCode as Code;
    let of_filter = [
        Code::BadFilterNotAllowed,
        Code::BadMonitoredItemFilterInvalid,
        Code::BadMonitoredItemFilterUnsupported,
        Code::BadDeadbandFilterInvalid,
    ];
    of_filter.contains(&status)
}

fn filter(deadband: Deadband) -> ExtensionObject {
    let (kind, width) = match deadband {
        Deadband::Absolute(width) => (DeadbandType::Absolute, width),
        Deadband::Percent(width) => (DeadbandType::Percent, width),
    };
    ExtensionObject::from_message(DataChangeFilter {
        trigger: DataChangeTrigger::StatusValue,
        deadband_type: kind as u32,
        deadband_value: width,
    })
}
