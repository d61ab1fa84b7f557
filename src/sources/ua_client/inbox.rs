//! What a server sends, on its way into the hub.
//!
//! The session's task calls [`Inbox::take`] once for each notification: one lock, one batch, one publish. The row of a value
//! is found by its handle, which is the row's number; so nothing is looked up and nothing is allocated but the batch.
//!
//! Invariant: after [`Inbox::close`] nothing that the session has still in its pockets is published, so what is Bad because
//! the server is lost stays Bad.

use crate::hub::Hub;
use crate::model::{DataType, Quality, Sample, Status, TagId, Value};
use crate::opcua;
use crate::opcua::client::Gap;
use ::opcua::types::{MonitoredItemNotification, StatusCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Inbox(Arc<Inner>);

struct Inner {
    hub: Hub,
    state: Mutex<State>,
    /// Rows have come to know their type.
    typed: Notify,
    /// Something is not as it should be with a subscription.
    cut: Notify,
}

#[derive(Default)]
struct State {
    is_open: bool,
    has_taken: bool,
    rows: Vec<Row>,
    good: u32,
    overflows: u64,
    /// Notifications that were taken in.
    takes: u64,
    /// Values of handles that are not ours.
    strange: u64,
    /// Rows whose first value has told the type.
    typed: Vec<(usize, DataType, bool)>,
    cut: Option<Cut>,
}

struct Row {
    tag: TagId,
    /// As the server said it last; `None` before its first value.
    status: Option<Status>,
    /// Its type is told by its first value.
    is_untyped: bool,
    /// Where its last value is: which notification, which place in its batch.
    newest: Option<(u64, usize)>,
}

/// Why what a subscription brings is not all there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cut {
    /// The server has ended it.
    Ended(StatusCode),
    /// A notification was lost.
    Gap(Gap),
}

/// Gaps that follow each other. A server that leaves numbers out all the time means nothing by them.
#[derive(Default)]
pub(super) struct Gaps {
    count: u32,
    last: Option<Instant>,
}

impl Gaps {
    /// So many are believed if each comes no later after the one before than this.
    const MOST: u32 = 3;
    const APART: Duration = Duration::from_secs(120);

    /// One more. Whether it means that a notification was lost.
    pub(super) fn is_believed(&mut self) -> bool {
        let is_again = self.last.replace(Instant::now()).is_some_and(|last| last.elapsed() < Self::APART);
        self.count = if is_again { self.count.saturating_add(1) } else { 1 };
        self.count <= Self::MOST
    }
}

/// What is counted for all to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub good: u32,
    pub bad: u32,
    pub overflows: u64,
    pub strange: u64,
}

impl Inbox {
    pub(super) fn new(hub: Hub) -> Self {
        Self(Arc::new(Inner { hub, state: Mutex::default(), typed: Notify::new(), cut: Notify::new() }))
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Whether a value has come since it was opened.
    pub(super) fn has_taken(&self) -> bool {
        self.state().has_taken
    }

    /// Adds a row; its handle is its number and one.
    pub(super) fn add(&self, tag: TagId) {
        self.state().rows.push(Row { tag, status: None, is_untyped: false, newest: None });
    }

    pub(super) fn handle(row: usize) -> u32 {
        u32::try_from(row + 1).expect("memory ends before 2^32 tags")
    }

    pub(super) fn open(&self) {
        let mut state = self.state();
        (state.is_open, state.has_taken) = (true, false);
        state.cut = None;
    }

    /// Nothing is taken any more, and what is not known is said of all tags.
    pub(super) fn close(&self, quality: &Quality) {
        let mut state = self.state();
        state.is_open = false;
        state.good = 0;
        let tags: Vec<TagId> = state.rows.iter().map(|row| row.tag).collect();
        state.rows.iter_mut().for_each(|row| row.status = None);
        self.0.hub.degrade(&tags, quality);
    }

    /// What is wrong with one item.
    pub(super) fn refuse(&self, row: usize, quality: &Quality) {
        let mut state = self.state();
        if !state.is_open {
            return;
        }
        let tag = state.rows[row].tag;
        state.note(row, quality.status);
        self.0.hub.degrade(&[tag], quality);
    }

    /// The first value is to tell the type.
    pub(super) fn untyped(&self, row: usize) {
        self.state().rows[row].is_untyped = true;
    }

    /// Rows of which the server says, after it has taken them, that there is no such node.
    pub(super) fn vanished(&self) -> Vec<usize> {
        let is_gone =
            |row: &Row| row.status.is_some_and(|status| status.0 & 0xFFFF_0000 == Status::BAD_NODE_ID_UNKNOWN.0);
        let state = self.state();
        state.rows.iter().enumerate().filter(|(_, row)| is_gone(row)).map(|(index, _)| index).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state();
        let bad = state.rows.len() as u32 - state.good;
        Counts { good: state.good, bad, overflows: state.overflows, strange: state.strange }
    }

    /// Rows that have come to know their type, with it. Cancel safe.
    pub(super) async fn typed(&self) -> Vec<(usize, DataType, bool)> {
        loop {
            let typed = std::mem::take(&mut self.state().typed);
            if !typed.is_empty() {
                return typed;
            }
            self.0.typed.notified().await;
        }
    }

    /// A subscription has become another on the server: its end, if it is bad.
    pub(super) fn end(&self, status: StatusCode) {
        if status.is_bad() {
            self.cut(Cut::Ended(status));
        }
    }

    /// What a subscription brings is not all there is.
    pub(super) fn cut(&self, cut: Cut) {
        let mut state = self.state();
        if state.is_open {
            state.cut.get_or_insert(cut);
            self.0.cut.notify_one();
        }
    }

    /// When something has cut a subscription; said once. Cancel safe.
    pub(super) async fn next_cut(&self) -> Cut {
        loop {
            if let Some(cut) = self.state().cut.take() {
                return cut;
            }
            self.0.cut.notified().await;
        }
    }

    /// Takes in what one notification brings.
    pub(super) fn take(&self, notifications: Vec<MonitoredItemNotification>) {
        let hub = &self.0.hub;
        let now = hub.now();
        let mut state = self.state();
        if !state.is_open {
            return;
        }
        state.has_taken = true;
        state.takes += 1;
        let mut batch: Vec<Sample> = Vec::with_capacity(notifications.len());
        for MonitoredItemNotification { client_handle, value: data } in notifications {
            let index = (client_handle as usize).wrapping_sub(1);
            let Some(row) = state.rows.get(index) else {
                state.strange += 1;
                continue;
            };
            let tag = row.tag;
            let status = Status(data.status.map_or(0, |status| status.bits()));
            let (value, quality) = match data.value.as_ref().map(opcua::value) {
                Some(Ok(value)) => (value, Quality::from(status)),
                None => (Value::Empty, Quality::from(status)),
                Some(Err(what)) => (Value::Empty, Quality::new(Status(StatusCode::BadDecodingError.bits()), what)),
            };
            if data.status.is_some_and(|status| status.overflow()) {
                state.overflows += 1;
            }
            if state.rows[index].is_untyped
                && let Some(data_type) = value.data_type()
            {
                state.rows[index].is_untyped = false;
                state.typed.push((index, data_type, value.is_array()));
                self.0.typed.notify_one();
            }
            // The last value is kept while there is no better.
            let value = match quality.is_bad() && value == Value::Empty {
                true => match state.rows[index].newest {
                    // What the same notification has brought before.
                    Some((take, at)) if take == state.takes => batch[at].value.clone(),
                    _ => hub.read(tag).value,
                },
                false => value,
            };
            state.note(index, quality.status);
            state.rows[index].newest = Some((state.takes, batch.len()));
            let source_time = data.source_timestamp.as_ref().map(opcua::timestamp);
            batch.push(Sample { tag, value, quality, source_time, server_time: now });
        }
        hub.publish(batch);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, row: usize, status: Status) {
        let row = &mut self.rows[row];
        let was_good = row.status.is_some_and(|status| !status.is_bad());
        row.status = Some(status);
        match (was_good, !status.is_bad()) {
            (false, true) => self.good += 1,
            (true, false) => self.good -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::hub::Registration;
    use crate::model::{TagName, TagSpec, Timestamp};
    use ::opcua::types::{DataValue, DateTime, Variant};
    use std::time::UNIX_EPOCH;

    fn inbox(count: u32) -> (Hub, Registration, Inbox) {
        let hub = Hub::new(Clock::simulated(UNIX_EPOCH));
        let name = |n| TagName::new(&format!("plc/{n}")).unwrap();
        let specs = (0..count).map(|n| TagSpec::new(name(n), DataType::Variant)).collect();
        let tags = hub.register("plc", specs).unwrap();
        let inbox = Inbox::new(hub.clone());
        tags.tags().iter().for_each(|tag| inbox.add(*tag));
        inbox.open();
        (hub, tags, inbox)
    }

    fn told(client_handle: u32, value: impl Into<Variant>, status: StatusCode) -> MonitoredItemNotification {
        let source_timestamp = Some(DateTime::ymd(1999, 1, 1));
        let value =
            DataValue { value: Some(value.into()), status: Some(status), source_timestamp, ..DataValue::null() };
        MonitoredItemNotification { client_handle, value }
    }

    #[test]
    fn values_keep_their_time_and_status_and_strange_handles_are_counted() {
        let (hub, tags, inbox) = inbox(2);
        let overflow = StatusCode::Good.set_overflow(true);
        inbox.take(vec![
            told(1, 5.5, overflow),
            told(2, 7_i32, StatusCode::BadSensorFailure),
            told(0, 1_i32, StatusCode::Good),
            told(99, 1_i32, StatusCode::Good),
        ]);
        let first = hub.read(tags.tags()[0]);
        assert_eq!((first.value, first.quality.status.0), (Value::Double(5.5), overflow.bits()));
        assert_eq!(first.source_time, Some(Timestamp::from_millis(915_148_800_000)));
        assert_eq!(hub.read(tags.tags()[1]).quality.status, Status::BAD_SENSOR_FAILURE);
        assert_eq!(inbox.counts(), Counts { good: 1, bad: 1, overflows: 1, strange: 2 });
    }

    #[test]
    fn a_bad_status_without_a_value_keeps_the_last_one() {
        let (hub, tags, inbox) = inbox(1);
        inbox.take(vec![told(1, 5.5, StatusCode::Good)]);
        inbox.take(vec![told(1, Variant::Empty, StatusCode::BadNoCommunication)]);
        let sample = hub.read(tags.tags()[0]);
        assert_eq!((sample.value, sample.quality.status), (Value::Double(5.5), Status::BAD_NO_COMMUNICATION));
        inbox.take(vec![told(1, Variant::Empty, StatusCode::BadNodeIdUnknown)]);
        assert_eq!(inbox.vanished(), [0]);
        // Also one that came with it.
        inbox.take(vec![told(1, 7.5, StatusCode::Good), told(1, Variant::Empty, StatusCode::BadNoCommunication)]);
        let sample = hub.read(tags.tags()[0]);
        assert_eq!((sample.value, sample.quality.status), (Value::Double(7.5), Status::BAD_NO_COMMUNICATION));
    }

    #[test]
    fn what_comes_after_the_end_is_not_published() {
        let (hub, tags, inbox) = inbox(1);
        assert!(!inbox.has_taken());
        inbox.take(vec![told(1, 5.5, StatusCode::Good)]);
        assert!(inbox.has_taken());
        inbox.close(&Quality::new(Status::BAD_NOT_CONNECTED, "gone"));
        inbox.take(vec![told(1, 6.5, StatusCode::Good)]);
        let sample = hub.read(tags.tags()[0]);
        assert_eq!((sample.value, sample.quality.status), (Value::Double(5.5), Status::BAD_NOT_CONNECTED));
        assert_eq!(inbox.counts().good, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_that_are_left_out_all_the_time_mean_nothing() {
        let mut gaps = Gaps::default();
        for is_believed in [true, true, true, false, false] {
            assert_eq!(gaps.is_believed(), is_believed);
            tokio::time::advance(Gaps::APART / 2).await;
        }
        tokio::time::advance(Gaps::APART).await;
        assert!(gaps.is_believed());
    }

    #[tokio::test]
    async fn the_first_value_tells_the_type() {
        let (_hub, _tags, inbox) = inbox(2);
        inbox.untyped(1);
        inbox.take(vec![
            told(2, Variant::Empty, StatusCode::BadWaitingForInitialData),
            told(1, 1_i32, StatusCode::Good),
        ]);
        inbox.take(vec![told(2, vec![1_u8, 2], StatusCode::Good), told(2, 5.5, StatusCode::Good)]);
        assert_eq!(inbox.typed().await, [(1, DataType::Byte, true)]);
    }
}
