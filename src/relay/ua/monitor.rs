//! CreateMonitoredItems and ModifyMonitoredItems for nodes of DA servers.
//!
//! A client is told what the DA server thinks of an item, if it says so within [`SETTLE`]: that there is none. While the DA server is
//! not there every item is accepted, bad for now.
//!
//! The sampling interval that is asked for is the rate of the DA group. The one that is told is 0: the DA server says when there is a
//! value, and stamps it as it likes. The UA crate (0.19) would take any other for a promise that timestamps keep (`items/mod.rs`), and
//! it cannot tell one that is longer than was asked for, which is what DA servers make of it; so the revised rate is in the log.

use super::da::Da;
use super::ids::Address;
use super::items::{Client, Filtered, Setting, Standing};
use super::nodes::RelayNodes;
use crate::opcua::server::filter::{self, Deadband};
use ::opcua::server::node_manager::{MonitoredItemUpdateRef, RequestContext};
use ::opcua::server::{CreateMonitoredItem, MonitoredItemHandle};
use ::opcua::types::{AttributeId, MonitoringMode, NumericRange, StatusCode};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client waits for what a DA server says of its items.
const SETTLE: Duration = Duration::from_secs(3);
/// In milliseconds. The crate allows only to shorten an interval, and not to 0; but it counts in whole microseconds.
const NO_INTERVAL: f64 = f64::MIN_POSITIVE;

impl RelayNodes {
    pub(super) async fn create_items(&self, context: &RequestContext, items: &mut [&mut CreateMonitoredItem]) {
        self.describe_for_deadbands(items).await;
        let room = self.limits.monitored_items.saturating_sub(self.monitored());
        let mut taken = 0;
        // What goes into DA groups, by DA server.
        let mut joining: Vec<(Arc<Da>, &mut CreateMonitoredItem)> = Vec::new();
        for item in items.iter_mut() {
            let wanted = item.item_to_monitor();
            let Some((namespace, da, address)) = self.find(&wanted.node_id) else {
                item.set_status(StatusCode::BadNodeIdUnknown);
                continue;
            };
            let da = da.clone();
            match address {
                Address::Item(name) if wanted.attribute_id == AttributeId::Value => {
                    if !Self::may_read(context, &wanted.node_id) {
                        item.set_status(StatusCode::BadUserAccessDenied);
                    } else if taken >= room || da.items.count() >= da.served.items {
                        item.set_status(StatusCode::BadTooManyMonitoredItems);
                    } else if let Err(status) = check_filter(&da, &name, item) {
                        item.set_status(status);
                    } else {
                        taken += 1;
                        join(context, &da, &name, item);
                        joining.push((da, item));
                    }
                }
                address => {
                    let attribute = wanted.attribute_id;
                    let user = |level, id: &_| Self::level(context, level, id);
                    let value = da.attribute(namespace, &address, attribute, user).await;
                    match value.status() {
                        status @ (StatusCode::BadNodeIdUnknown
                        | StatusCode::BadNodeIdInvalid
                        | StatusCode::BadAttributeIdInvalid) => item.set_status(status),
                        _ => {
                            item.set_initial_value(value);
                            item.set_status(StatusCode::Good);
                        }
                    }
                }
            }
        }
        let until = Instant::now() + SETTLE;
        let by_da = self.das().map(|da| {
            let of_it =
                joining.iter().filter(|(other, item)| Arc::ptr_eq(other, da) && is_enabled(item.monitoring_mode()));
            let handles: Vec<MonitoredItemHandle> = of_it.map(|(_, item)| item.handle()).collect();
            settle(da, handles, until)
        });
        join_all(by_da).await;
        for (da, item) in joining {
            accept(&da, item);
        }
    }

    /// A deadband is for numbers only, so what these items are is asked, of all together. What the DA server does not say in time may be
    /// a number.
    async fn describe_for_deadbands(&self, items: &[&mut CreateMonitoredItem]) {
        let of = |wanted: &Arc<Da>| {
            let with = items.iter().filter(|item| {
                item.item_to_monitor().attribute_id == AttributeId::Value
                    && filter::deadband(item.filter()) != Deadband::None
            });
            let names = with.filter_map(|item| match self.find(&item.item_to_monitor().node_id) {
                Some((_, da, Address::Item(name))) if Arc::ptr_eq(da, wanted) => Some(name),
                _ => None,
            });
            names.collect::<Vec<_>>()
        };
        let by_da: Vec<_> = self.das().map(|da| (da, of(da))).filter(|(_, names)| !names.is_empty()).collect();
        join_all(by_da.iter().map(|(da, names)| async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            // What has come by then is kept; the rest is not known.
            let _ = tokio::time::timeout(SETTLE, da.describe(&names, false)).await;
        }))
        .await;
    }

    pub(super) fn modify_items(&self, context: &RequestContext, items: &[&MonitoredItemUpdateRef]) {
        for item in items.iter().filter(|item| item.attribute() == AttributeId::Value && item.status_code().is_good()) {
            let Some((_, da, Address::Item(_))) = self.find(item.node_id()) else { continue };
            let (handle, session) = (item.handle(), context.session_id);
            let deadband = filter::deadband_of_item(&context.subscriptions, session, handle);
            let interval = interval(item.update().revised_sampling_interval);
            let setting = setting(context, da, handle, interval, deadband);
            // Whether there is a filter without a deadband is not to be seen here; a null too much does no harm.
            let filter = if deadband == Deadband::None { Filtered::No } else { Filtered::Deadband };
            da.items.modify(handle, session, setting, interval, filter);
        }
    }
}

fn is_enabled(mode: MonitoringMode) -> bool {
    mode != MonitoringMode::Disabled
}

/// `None`: the publishing interval.
fn interval(millis: f64) -> Option<Duration> {
    (millis >= 0.0).then(|| Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX))
}

fn setting(
    context: &RequestContext,
    da: &Da,
    handle: MonitoredItemHandle,
    interval: Option<Duration>,
    deadband: Deadband,
) -> Setting {
    let publishing = || {
        let session = context.subscriptions.get_session_subscriptions(context.session_id)?;
        let session = session.lock();
        Some(session.get(handle.subscription_id)?.publishing_interval())
    };
    let interval = interval.or_else(publishing).unwrap_or(Duration::from_secs(1));
    Setting::new(interval.max(da.served.fastest), deadband.percent())
}

fn check_filter(da: &Da, name: &str, item: &CreateMonitoredItem) -> Result<(), StatusCode> {
    let is_number = match filter::deadband(item.filter()) {
        Deadband::None => true,
        // If nobody knows what it is it may be a number.
        _ => da.known(name, false).and_then(Result::ok).and_then(|known| known.data_type).is_none_or(is_number),
    };
    filter::check(item, is_number)
}

fn is_number(data_type: ::opcua::types::DataTypeId) -> bool {
    use ::opcua::types::DataTypeId as Type;
    (Type::SByte as u32..=Type::Double as u32).contains(&(data_type as u32))
}

fn join(context: &RequestContext, da: &Da, name: &str, item: &CreateMonitoredItem) {
    let (wanted, handle) = (item.item_to_monitor(), item.handle());
    let deadband = filter::deadband(item.filter());
    let asked = interval(item.sampling_interval());
    let filter = match deadband {
        Deadband::None if filter::is_none(item.filter()) => Filtered::No,
        Deadband::None => Filtered::Filter,
        _ => Filtered::Deadband,
    };
    let range: NumericRange = wanted.index_range.clone();
    let of_crate = asked.map(|_| Duration::ZERO);
    let client = Client::new(
        handle,
        context.session_id,
        context.token.clone(),
        of_crate,
        range,
        filter,
        is_enabled(item.monitoring_mode()),
    );
    da.items.join(name, &wanted.node_id, setting(context, da, handle, asked, deadband), client);
}

/// Waits until the DA server has said of all of them what it thinks.
async fn settle(da: &Arc<Da>, handles: Vec<MonitoredItemHandle>, until: Instant) {
    loop {
        let settled = da.items.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        if da.items.are_settled(&handles) || tokio::time::timeout_at(until, settled).await.is_err() {
            return;
        }
    }
}

fn accept(da: &Da, item: &mut CreateMonitoredItem) {
    let handle = item.handle();
    let Some(joined) = da.items.joined(handle) else {
        return item.set_status(StatusCode::BadNodeIdUnknown);
    };
    if let Standing::Refused(status @ (StatusCode::BadNodeIdUnknown | StatusCode::BadNodeIdInvalid)) = joined.standing {
        da.items.leave(handle);
        return item.set_status(status);
    }
    if item.sampling_interval() > 0.0 {
        item.revise_sampling_interval(NO_INTERVAL);
    }
    item.set_initial_value(joined.value);
    item.set_status(StatusCode::Good);
}
