//! One item of a group, and the clients that monitor it: what each of them gets of a value.

use crate::model::Status;
use crate::opcua::server::monitored::Nulls;
use crate::opcua::server::ranges;
use crate::opcua::server::stamps::Stamps;
use crate::relay::map;
use crate::relay::protocol::AddedItem;
use ::opcua::server::MonitoredItemHandle;
use ::opcua::server::authenticator::UserToken;
use ::opcua::types::{DataValue, DateTime, NodeId, NumericRange, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub struct Member {
    pub group: u32,
    pub item: Arc<str>,
    pub node: NodeId,
    pub standing: Standing,
    pub value: DataValue,
    pub clients: Vec<Client>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    Waiting,
    Asked,
    There(AddedItem),
    Refused(StatusCode),
}

/// One monitored item of a client's.
pub struct Client {
    pub handle: MonitoredItemHandle,
    pub session: u32,
    /// Who it is, and whether he may not read any more.
    pub token: UserToken,
    pub is_denied: bool,
    /// What the crate has as its sampling interval. `None`: the publishing interval; it would give each value of such an item the
    /// timestamp of the first one, so they go without.
    pub interval: Option<Duration>,
    pub range: NumericRange,
    pub filter: Filtered,
    pub enabled: bool,
    pub nulls: Nulls,
    pub stamps: Stamps,
    pub since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// The crate compares values only.
    No,
    Filter,
    Deadband,
}

impl Client {
    pub fn new(
        handle: MonitoredItemHandle,
        session: u32,
        token: UserToken,
        interval: Option<Duration>,
        range: NumericRange,
        filter: Filtered,
        enabled: bool,
    ) -> Self {
        Self {
            handle,
            session,
            token,
            is_denied: false,
            interval,
            range,
            filter,
            enabled,
            nulls: Nulls::after(None),
            stamps: Stamps::default(),
            since: Instant::now(),
        }
    }

    pub fn restart(&mut self) {
        (self.nulls, self.stamps) = (Nulls::after(None), Stamps::default());
    }

    /// The timestamp that a value goes out with: the DA server's own. Or none, if the crate would change it: because the server has set
    /// its clock back, or because the client has asked for an interval by ModifyMonitoredItems, which nobody here can answer.
    fn stamp(&mut self, value: &DataValue) -> Option<DateTime> {
        let interval = self.interval?;
        let Some(stamp) = value.source_timestamp else {
            // After one without a timestamp the crate takes any.
            self.stamps = Stamps::default();
            return None;
        };
        if self.stamps.is_early(stamp, interval) {
            return None;
        }
        let is_filtered = self.filter == Filtered::Deadband;
        self.stamps.next(Some(stamp), value.value.as_ref(), is_filtered)
    }

    /// A value as this client gets it.
    pub fn of(&mut self, value: &DataValue) -> DataValue {
        let mut value = match self.is_denied {
            true => map::bad(StatusCode::BadUserAccessDenied, DateTime::now()),
            false => value.clone(),
        };
        let status = value.status();
        if status.is_bad() {
            value.value = self.nulls.null(Status(status.bits()));
        } else {
            self.nulls.reset();
        }
        value.source_timestamp = self.stamp(&value);
        ranges::for_item(value, &self.range)
    }
}

impl Member {
    pub fn is_wanted(&self) -> bool {
        self.clients.iter().any(|client| client.enabled)
    }

    /// Another value; `to` gives it to each client.
    pub fn take(&mut self, value: DataValue, mut to: impl FnMut(DataValue, &MonitoredItemHandle)) {
        let told = |value: &DataValue| (value.status, value.source_timestamp);
        if self.value.value == value.value && told(&self.value) == told(&value) {
            // Of a Refresh.
            return;
        }
        let before = std::mem::replace(&mut self.value, value);
        let value = &self.value;
        // Limit bits may change often, and are not worth a null.
        let is_other = before.status().bits() >> 16 != value.status().bits() >> 16;
        let only_status = is_other && !value.status().is_bad() && before.value == value.value;
        for client in self.clients.iter_mut().filter(|client| client.enabled) {
            if only_status && client.filter == Filtered::No {
                let null = DataValue { value: None, ..client.of(value) };
                to(null, &client.handle);
            }
            to(client.of(value), &client.handle);
        }
    }

    /// The value once more, for one of its clients. If it has come already then it is no change.
    pub fn again(&mut self, handle: MonitoredItemHandle) -> Option<DataValue> {
        let client = self.clients.iter_mut().find(|client| client.handle == handle)?;
        let mut value = DataValue { source_timestamp: None, ..self.value.clone() };
        if value.status().is_bad() {
            value.value = client.nulls.null(Status(value.status().bits()));
        } else {
            value.source_timestamp = client.interval.filter(Duration::is_zero).and(self.value.source_timestamp);
        }
        Some(ranges::for_item(value, &client.range))
    }
}
