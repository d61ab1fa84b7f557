//! Monitored items, as members of DA groups.
//!
//!     monitored items of many clients ──► members, one for each item of a group ──► groups, one for each rate and deadband
//!
//! What should be in the DA server is kept here, and what is there: `feed.rs` asks for the next [`Step`] between the two, does it,
//! and says what came of it. After a reconnect nothing is there and all is to be done again.
//!
//! Values come from the worker's pipe straight into [`Listener::data`], and leave from there into the queues of subscriptions. A
//! member keeps the last one, for clients that join later.
//!
//! Faults of the UA crate (0.19) are met as in the appliance's server (`opcua/server/monitored.rs`, `stamps.rs`, `ranges.rs`). Two
//! more concern us. A value whose timestamp is less than a sampling interval after the last one is held back, and its timestamp
//! changed; but a DA server's timestamps have nothing to do with the rate of its groups, so the crate is told an interval of 0
//! (`monitor.rs`). And without a filter a change of status alone is no change, so it goes out twice, first without its value
//! ([`Member::take`]).
//!
//! A handle is never used twice, so nothing that comes late can meet another item's member.
//!
//! - `member.rs` is one item of a group, and the clients that monitor it: what each gets of a value.
//! - `groups.rs` is who wants which item at which rate; `steps.rs` what the DA server is to be asked for that.

mod groups;
mod member;
mod steps;

use super::status_of_phase;
use crate::opcua::server::monitored::gone;
use crate::relay::map::{self, Times};
use crate::relay::protocol::{News, Reply};
use crate::relay::worker::{AskError, Listener, Phase};
use ::opcua::server::authenticator::UserToken;
use ::opcua::server::{MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::{AttributeId, DataValue, DateTime, NodeId, StatusCode};
pub(super) use groups::Setting;
use groups::State;
pub(super) use member::{Client, Filtered, Standing};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
pub(super) use steps::Step;
use tokio::sync::Notify;
use tokio::time::Instant;

/// An item that begins gets the value once more after this: one may have come between its initial value and its entry in
/// the subscription.
const SETTLE: Duration = Duration::from_millis(50);
/// Items that were announced just now may not be in their subscription yet.
const YOUNG: Duration = Duration::from_secs(10);
/// So many values are handed over at once; others wait for the subscriptions meanwhile.
const AT_ONCE: usize = 1000;

pub(super) struct Items {
    times: Times,
    /// Of the server that runs now.
    subscriptions: Mutex<Option<Arc<SubscriptionCache>>>,
    state: Mutex<State>,
    /// There may be something to do for `feed.rs`.
    pub(super) work: Notify,
    /// Members were accepted or refused.
    pub(super) settled: Notify,
}

/// What a client gets to know of an item that it begins to monitor.
pub(super) struct Joined {
    pub(super) standing: Standing,
    pub(super) value: DataValue,
}

impl Items {
    pub(super) fn new(times: Times) -> Self {
        let state = State { absent: StatusCode::BadWaitingForInitialData, ..State::default() };
        Self {
            times,
            subscriptions: Mutex::default(),
            state: Mutex::new(state),
            work: Notify::new(),
            settled: Notify::new(),
        }
    }

    pub(super) fn times(&self) -> &Times {
        &self.times
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds the items panics")
    }

    fn subscriptions(&self) -> Option<Arc<SubscriptionCache>> {
        self.subscriptions.lock().expect("no code that holds it panics").clone()
    }

    /// Another server begins, with the clients of none before.
    pub(super) fn serve(&self, subscriptions: Arc<SubscriptionCache>) {
        *self.subscriptions.lock().expect("no code that holds it panics") = Some(subscriptions);
        let mut state = self.lock();
        let all: Vec<_> = state.monitored.keys().copied().collect();
        all.into_iter().for_each(|handle| state.leave(handle));
        self.work.notify_one();
    }

    /// A client begins to monitor an item.
    pub(super) fn join(&self, item: &str, node: &NodeId, setting: Setting, client: Client) {
        let handle = client.handle;
        let mut state = self.lock();
        state.join(item, node, setting, client);
        state.young.push_back((Instant::now() + SETTLE, handle));
        self.work.notify_one();
    }

    /// How it stands with what a client has begun to monitor, and its first value.
    pub(super) fn joined(&self, handle: MonitoredItemHandle) -> Option<Joined> {
        let mut state = self.lock();
        let State { members, monitored, .. } = &mut *state;
        let member = members.get_mut(monitored.get(&handle)?)?;
        let client = member.clients.iter_mut().find(|client| client.handle == handle)?;
        // What has come since it joined did not reach it.
        client.restart();
        Some(Joined { standing: member.standing, value: client.of(&member.value) })
    }

    /// Whether the DA server has said of all of them what it thinks, or is not there.
    pub(super) fn are_settled(&self, handles: &[MonitoredItemHandle]) -> bool {
        let state = self.lock();
        let standing = |handle| Some(state.members.get(state.monitored.get(handle)?)?.standing);
        state.life == 0
            || handles.iter().all(|handle| !matches!(standing(handle), Some(Standing::Waiting | Standing::Asked)))
    }

    pub(super) fn leave(&self, handle: MonitoredItemHandle) {
        self.lock().leave(handle);
        self.work.notify_one();
    }

    /// Another rate or another filter.
    pub(super) fn modify(
        &self,
        handle: MonitoredItemHandle,
        session: u32,
        setting: Setting,
        interval: Option<Duration>,
        filter: Filtered,
    ) {
        let mut state = self.lock();
        let Some((item, node, client)) = state.take_out(handle) else { return };
        state.join(&item, &node, setting, Client { session, interval, filter, ..client });
        self.work.notify_one();
    }

    pub(super) fn enable(&self, handle: MonitoredItemHandle, enabled: bool) {
        let mut state = self.lock();
        state.enable(handle, enabled);
        if enabled {
            state.young.push_back((Instant::now() + SETTLE, handle));
        }
        self.work.notify_one();
    }

    /// Who may not read any more is told that and nothing else; who may again gets what there is.
    pub(super) fn judge(&self, may_read: impl Fn(&UserToken) -> bool) {
        let mut judged: Vec<(UserToken, bool)> = Vec::new();
        let mut other = Vec::new();
        for member in self.lock().members.values_mut() {
            for client in &mut member.clients {
                let at = judged.iter().position(|(token, _)| *token == client.token).unwrap_or_else(|| {
                    judged.push((client.token.clone(), !may_read(&client.token)));
                    judged.len() - 1
                });
                if client.is_denied != judged[at].1 {
                    client.is_denied = judged[at].1;
                    other.push(client.handle);
                }
            }
        }
        let Some(subscriptions) = self.subscriptions() else { return };
        for handles in other.chunks(AT_ONCE) {
            let mut notifier = subscriptions.data_notifier();
            let mut state = self.lock();
            for handle in handles {
                let State { members, monitored, .. } = &mut *state;
                if let Some(member) = monitored.get(handle).and_then(|member| members.get_mut(member))
                    && let Some(client) = member.clients.iter_mut().find(|client| client.handle == *handle)
                    && let Some(mut batch) = notifier.notify_for(&member.node, AttributeId::Value)
                {
                    batch.data_value_to_item(client.of(&member.value), handle);
                }
            }
            // Before the notifier hands over what it has.
            drop(state);
        }
    }

    /// All clients together.
    pub(super) fn count(&self) -> usize {
        self.lock().monitored.len()
    }

    /// Forgets the items whose subscription has expired.
    pub(super) fn sweep(&self) {
        let Some(subscriptions) = self.subscriptions() else { return };
        let now = Instant::now();
        let known: Vec<_> = {
            let state = self.lock();
            let clients = state.members.values().flat_map(|member| &member.clients);
            let old = clients.filter(|client| now.duration_since(client.since) >= YOUNG);
            old.map(|client| (client.session, client.handle)).collect()
        };
        gone(&subscriptions, known).for_each(|handle| self.leave(handle));
    }

    /// Sends values again to items that began just now. When there are more to come.
    pub(super) fn send_again(&self) -> Option<Instant> {
        let subscriptions = self.subscriptions()?;
        let mut notifier = subscriptions.data_notifier();
        let mut state = self.lock();
        let now = Instant::now();
        while let Some(&(at, handle)) = state.young.front() {
            if at > now {
                return Some(at);
            }
            state.young.pop_front();
            let State { members, monitored, .. } = &mut *state;
            if let Some(member) = monitored.get(&handle).and_then(|member| members.get_mut(member))
                && let Some(value) = member.again(handle)
                && let Some(mut batch) = notifier.notify_for(&member.node, AttributeId::Value)
            {
                batch.data_value_to_item(value, &handle);
            }
        }
        None
    }

    /// What is to be done in the DA server, and in which life of it. `Err`: nothing, until then.
    pub(super) fn next_step(&self) -> Result<(u64, Step), Instant> {
        self.lock().next_step(Instant::now())
    }

    /// What came of a step.
    pub(super) fn done(&self, life: u64, step: Step, answer: Result<Reply, AskError>) {
        let bad = {
            let mut state = self.lock();
            if state.life != life {
                return;
            }
            state.done(step, answer)
        };
        self.give_bad(bad);
        self.settled.notify_waiters();
    }

    /// Members that have no value any more, and why.
    fn give_bad(&self, members: Vec<(u32, StatusCode)>) {
        let Some(subscriptions) = self.subscriptions() else { return };
        let now = DateTime::now();
        for members in members.chunks(AT_ONCE) {
            let mut notifier = subscriptions.data_notifier();
            let mut state = self.lock();
            for (member, status) in members {
                let Some(member) = state.members.get_mut(member) else { continue };
                let value = map::bad(*status, now);
                match notifier.notify_for(&member.node, AttributeId::Value) {
                    Some(mut batch) => member.take(value, |value, item| batch.data_value_to_item(value, item)),
                    None => member.take(value, |_, _| {}),
                }
            }
            // Before the notifier hands over what it has.
            drop(state);
        }
    }
}

impl Listener for Items {
    fn up(&self, life: u64) {
        self.lock().up(life);
        self.work.notify_one();
    }

    fn data(&self, group: u32, values: Vec<News>) {
        self.lock().heard(group, Instant::now());
        let Some(subscriptions) = self.subscriptions() else { return };
        let now = DateTime::now();
        for values in values.chunks(AT_ONCE) {
            let mut notifier = subscriptions.data_notifier();
            let mut state = self.lock();
            for (handle, reading) in values {
                let Some(member) = state.members.get_mut(handle) else { continue };
                let value = map::data_value(reading, &self.times, now);
                match notifier.notify_for(&member.node, AttributeId::Value) {
                    Some(mut batch) => member.take(value, |value, item| batch.data_value_to_item(value, item)),
                    None => member.take(value, |_, _| {}),
                }
            }
            drop(state);
        }
    }

    fn down(&self, phase: Phase) {
        let bad = self.lock().down(status_of_phase(phase));
        self.give_bad(bad);
        self.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
