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
//! more concern us: a value that comes a little less than a sampling interval after the last is held back, and DA servers
//! are not that punctual, so its timestamp is moved to the full interval ([`Client::stamp`]); and without a filter a change of
//! status alone is no change, so it goes out twice, first without its value ([`Member::take`]).
//!
//! A handle is never used twice, so nothing that comes late can meet another item's member.

use super::status_of_phase;
use crate::model::Status;
use crate::opcua::server::monitored::{Nulls, exists};
use crate::opcua::server::ranges;
use crate::opcua::server::stamps::Stamps;
use crate::relay::map::{self, Times};
use crate::relay::protocol::{AddedItem, GroupSettings, Hresult, ITEMS_PER_CALL, NewItem, Reading, Reply, Request};
use crate::relay::worker::{AskError, Listener, Phase};
use ::opcua::server::{MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::{AttributeId, DataValue, DateTime, NodeId, NumericRange, StatusCode};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// An item that begins gets the value once more after this: one may have come between its initial value and its entry in
/// the subscription.
const SETTLE: Duration = Duration::from_millis(50);
/// Items that were announced just now may not be in their subscription yet.
const YOUNG: Duration = Duration::from_secs(10);
/// What the DA server refused is tried again: it may not have loaded its items yet.
const RETRY: Duration = Duration::from_secs(30);
/// So long a group may say nothing, or ten times its rate, before it is asked whether it still lives.
const QUIET: Duration = Duration::from_secs(30);
/// And so long it may take to say something then.
const PROBE: Duration = Duration::from_secs(10);
/// So many values are handed over at once; others wait for the subscriptions meanwhile.
const AT_ONCE: usize = 1000;
/// DA groups of one server, with and without a deadband each. Whoever wants another rate then gets that of the next faster one.
const GROUPS: usize = 100;

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

#[derive(Default)]
struct State {
    /// 0 while the DA server is not there.
    life: u64,
    /// What members have that have no value yet.
    absent: StatusCode,
    groups: BTreeMap<u32, Group>,
    members: HashMap<u32, Member>,
    monitored: HashMap<MonitoredItemHandle, u32>,
    /// Groups in the DA server that nobody wants any more.
    dead: Vec<u32>,
    /// Items that are to get their value again, and when.
    young: VecDeque<(Instant, MonitoredItemHandle)>,
    last_handle: u32,
    last_group: u32,
}

/// What makes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// In milliseconds.
    rate: u32,
    /// In hundredths of a percent.
    deadband: u32,
}

impl Setting {
    /// Two digits of a rate are enough, and keep the groups few: 1234 ms are 1200 ms.
    pub(super) fn new(interval: Duration, percent: Option<f64>) -> Self {
        let rate = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let unit = 10_u32.pow(rate.checked_ilog10().unwrap_or(0).saturating_sub(1));
        let deadband = percent.unwrap_or(0.0).clamp(0.0, 100.0) * 100.0;
        Self { rate: rate / unit * unit, deadband: deadband as u32 }
    }

    fn for_da(self) -> GroupSettings {
        GroupSettings { rate: self.rate, deadband: self.deadband as f32 / 100.0, active: true }
    }
}

struct Group {
    setting: Setting,
    by_item: HashMap<Arc<str>, u32>,
    /// In the DA server.
    is_there: bool,
    revised: Option<u32>,
    to_add: Vec<u32>,
    to_remove: Vec<u32>,
    /// Members that the DA server took.
    added: usize,
    /// To be sent all values again.
    to_refresh: bool,
    /// When what was refused is tried again.
    retry: Option<Instant>,
    /// When it last said something in this life; without that silence means nothing.
    heard: Option<Instant>,
    asked_to_speak: Option<Instant>,
}

impl Group {
    fn quiet(&self) -> Duration {
        let rate = u64::from(self.revised.unwrap_or(self.setting.rate));
        QUIET.max(Duration::from_millis(rate.saturating_mul(10)))
    }
}

struct Member {
    group: u32,
    item: Arc<str>,
    node: NodeId,
    standing: Standing,
    value: DataValue,
    clients: Vec<Client>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing {
    Waiting,
    Asked,
    There(AddedItem),
    Refused(StatusCode),
}

/// One monitored item of a client's.
pub(super) struct Client {
    pub(super) handle: MonitoredItemHandle,
    pub(super) session: u32,
    /// `None`: the publishing interval. The crate would give each value of such an item the timestamp of its first one, so they go
    /// without.
    pub(super) interval: Option<Duration>,
    pub(super) range: NumericRange,
    pub(super) filter: Filtered,
    pub(super) enabled: bool,
    nulls: Nulls,
    stamps: Stamps,
    newest: Option<i64>,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filtered {
    /// The crate compares values only.
    No,
    Filter,
    Deadband,
}

impl Client {
    pub(super) fn new(
        handle: MonitoredItemHandle,
        session: u32,
        interval: Option<Duration>,
        range: NumericRange,
        filter: Filtered,
        enabled: bool,
    ) -> Self {
        Self {
            handle,
            session,
            interval,
            range,
            filter,
            enabled,
            nulls: Nulls::after(None),
            stamps: Stamps::default(),
            newest: None,
            since: Instant::now(),
        }
    }

    fn restart(&mut self) {
        (self.nulls, self.stamps, self.newest) = (Nulls::after(None), Stamps::default(), None);
    }

    /// The timestamp that a value goes out with. One that is early is moved by less than an interval; if that is not enough,
    /// because the server is faster than it says or sets its clock back, it goes without.
    fn stamp(&mut self, value: &DataValue) -> Option<DateTime> {
        let Some(stamp) = value.source_timestamp else {
            // After one without a timestamp the crate takes any.
            (self.stamps, self.newest) = (Stamps::default(), None);
            return None;
        };
        let (interval, stamp) = (self.interval?, stamp.ticks());
        let interval = i64::try_from(interval.as_nanos() / 100).unwrap_or(i64::MAX);
        let stamp = match self.newest {
            Some(newest) if stamp >= newest => stamp.max(newest.saturating_add(interval)),
            _ => stamp,
        };
        let is_filtered = self.filter == Filtered::Deadband;
        let given = self.stamps.next(Some(DateTime::from(stamp)), value.value.as_ref(), is_filtered);
        self.newest = given.map(|given| given.ticks());
        given
    }

    /// A value as this client gets it.
    fn of(&mut self, value: &DataValue) -> DataValue {
        let mut value = value.clone();
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
    fn is_wanted(&self) -> bool {
        self.clients.iter().any(|client| client.enabled)
    }

    /// Another value; `to` gives it to each client.
    fn take(&mut self, value: DataValue, mut to: impl FnMut(DataValue, &MonitoredItemHandle)) {
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
    fn again(&mut self, handle: MonitoredItemHandle) -> Option<DataValue> {
        let client = self.clients.iter_mut().find(|client| client.handle == handle)?;
        let mut value = DataValue { source_timestamp: None, ..self.value.clone() };
        if value.status().is_bad() {
            value.value = client.nulls.null(Status(value.status().bits()));
        } else {
            value.source_timestamp = client.interval.and(self.value.source_timestamp);
        }
        Some(ranges::for_item(value, &client.range))
    }
}

/// What is to be done in the DA server next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    AddGroup(u32, GroupSettings),
    AddItems(u32, Vec<NewItem>),
    RemoveItems(u32, Vec<u32>),
    RemoveGroup(u32),
    Refresh(u32),
    /// Nothing comes any more, though it should.
    Silent,
}

impl Step {
    /// `None` if there is nothing to ask.
    pub(super) fn request(&self) -> Option<Request> {
        Some(match self.clone() {
            Self::AddGroup(group, settings) => Request::AddGroup { group, settings },
            Self::AddItems(group, items) => Request::AddItems { group, items },
            Self::RemoveItems(group, handles) => Request::RemoveItems { group, handles },
            Self::RemoveGroup(group) => Request::RemoveGroup { group },
            Self::Refresh(group) => Request::Refresh { group },
            Self::Silent => return None,
        })
    }
}

/// What a client gets to know of an item that it begins to monitor.
pub(super) struct Joined {
    pub(super) standing: Standing,
    pub(super) value: DataValue,
    /// The sampling interval that the client is told, if it is another one than it asked for.
    pub(super) told: Option<Duration>,
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
        let State { groups, members, monitored, .. } = &mut *state;
        let member = members.get_mut(monitored.get(&handle)?)?;
        let revised = groups.get(&member.group).and_then(|group| group.revised);
        let client = member.clients.iter_mut().find(|client| client.handle == handle)?;
        let revised = revised.map(|millis| Duration::from_millis(millis.into()));
        // A longer one cannot be told (`monitor.rs`), but if as fast as can be was asked for.
        let told = revised.filter(|rate| client.interval.is_some_and(|asked| asked.is_zero() || *rate < asked));
        client.interval = told.or(client.interval);
        // What has come since it joined did not reach it.
        client.restart();
        Some(Joined { standing: member.standing, value: client.of(&member.value), told })
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
            old.map(|client| (client.handle, client.session)).collect()
        };
        for (handle, session) in known {
            if !exists(&subscriptions, session, handle) {
                self.leave(handle);
            }
        }
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

    fn data(&self, group: u32, values: Vec<(u32, Result<Reading, Hresult>)>) {
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

impl State {
    fn group(&mut self, setting: Setting) -> u32 {
        if let Some((id, _)) = self.groups.iter().find(|(_, group)| group.setting == setting) {
            return *id;
        }
        let has_deadband = |setting: Setting| setting.deadband > 0;
        let alike = self.groups.values().filter(|group| has_deadband(group.setting) == has_deadband(setting));
        if alike.count() >= GROUPS {
            let like = self.groups.iter().filter(|(_, group)| group.setting.deadband <= setting.deadband);
            // The slowest that is fast enough, else the fastest.
            let nearest = like.min_by_key(|(_, group)| match group.setting.rate {
                rate if rate <= setting.rate => setting.rate - rate,
                rate => rate.saturating_add(1 << 31),
            });
            return match nearest {
                Some((id, _)) => *id,
                // The crate looks after the deadband as well.
                None => self.group(Setting { deadband: 0, ..setting }),
            };
        }
        self.last_group += 1;
        let group = Group {
            setting,
            by_item: HashMap::new(),
            is_there: false,
            revised: None,
            to_add: Vec::new(),
            to_remove: Vec::new(),
            added: 0,
            to_refresh: false,
            retry: None,
            heard: None,
            asked_to_speak: None,
        };
        self.groups.insert(self.last_group, group);
        self.last_group
    }

    fn join(&mut self, item: &str, node: &NodeId, setting: Setting, client: Client) {
        let id = self.group(setting);
        let group = self.groups.get_mut(&id).expect("it was found or made");
        let handle = match group.by_item.get(item) {
            Some(handle) => *handle,
            None => {
                self.last_handle += 1;
                let (handle, item) = (self.last_handle, Arc::<str>::from(item));
                group.by_item.insert(item.clone(), handle);
                let member = Member {
                    group: id,
                    item,
                    node: node.clone(),
                    standing: Standing::Waiting,
                    value: map::bad(self.absent, DateTime::now()),
                    clients: Vec::new(),
                };
                self.members.insert(handle, member);
                handle
            }
        };
        self.monitored.insert(client.handle, handle);
        let member = self.members.get_mut(&handle).expect("it was found or made");
        let was_wanted = member.is_wanted();
        member.clients.push(client);
        // While the DA server is not there all is to be added, once it is.
        if member.is_wanted() && !was_wanted && self.life > 0 {
            group.to_add.push(handle);
        }
    }

    fn enable(&mut self, client: MonitoredItemHandle, enabled: bool) {
        let Some(&handle) = self.monitored.get(&client) else { return };
        let Some(member) = self.members.get_mut(&handle) else { return };
        let was_wanted = member.is_wanted();
        if let Some(client) = member.clients.iter_mut().find(|other| other.handle == client) {
            client.enabled = enabled;
        }
        let Some(group) = self.groups.get_mut(&member.group) else { return };
        match (was_wanted, member.is_wanted()) {
            (false, true) if self.life > 0 => group.to_add.push(handle),
            (true, false) => group.give_up(handle, member),
            _ => {}
        }
    }

    fn take_out(&mut self, client: MonitoredItemHandle) -> Option<(Arc<str>, NodeId, Client)> {
        let handle = self.monitored.remove(&client)?;
        let member = self.members.get_mut(&handle)?;
        let at = member.clients.iter().position(|other| other.handle == client)?;
        let was_wanted = member.is_wanted();
        let client = member.clients.swap_remove(at);
        let (item, node, id) = (member.item.clone(), member.node.clone(), member.group);
        let group = self.groups.get_mut(&id)?;
        if was_wanted && !member.is_wanted() {
            group.give_up(handle, member);
        }
        if member.clients.is_empty() {
            group.by_item.remove(&item);
            self.members.remove(&handle);
        }
        Some((item, node, client))
    }

    fn leave(&mut self, client: MonitoredItemHandle) {
        self.take_out(client);
    }

    fn heard(&mut self, group: u32, now: Instant) {
        if let Some(group) = self.groups.get_mut(&group) {
            (group.heard, group.asked_to_speak) = (Some(now), None);
        }
    }

    fn up(&mut self, life: u64) {
        let is_again = life > 1;
        (self.life, self.absent) = (life, StatusCode::BadWaitingForInitialData);
        self.dead.clear();
        let Self { groups, members, .. } = self;
        for group in groups.values_mut() {
            (group.is_there, group.added, group.to_refresh) = (false, 0, is_again);
            (group.retry, group.heard, group.asked_to_speak) = (None, None, None);
            group.to_remove.clear();
            group.to_add = group.by_item.values().copied().filter(|handle| members[handle].is_wanted()).collect();
            // In the order in which they were asked for.
            group.to_add.sort_unstable();
        }
        members.values_mut().for_each(|member| member.standing = Standing::Waiting);
    }

    /// Who is to be told so.
    fn down(&mut self, status: StatusCode) -> Vec<(u32, StatusCode)> {
        (self.life, self.absent) = (0, status);
        self.members.keys().map(|handle| (*handle, status)).collect()
    }

    fn next_step(&mut self, now: Instant) -> Result<(u64, Step), Instant> {
        let mut wait = now + QUIET;
        if self.life == 0 {
            return Err(wait);
        }
        let Self { groups, members, dead, .. } = self;
        groups.retain(|id, group| {
            let is_wanted = !group.by_item.is_empty();
            if !is_wanted && group.is_there {
                dead.push(*id);
            }
            is_wanted
        });
        if let Some(id) = dead.pop() {
            return Ok((self.life, Step::RemoveGroup(id)));
        }
        for (id, group) in groups.iter_mut() {
            match group.retry {
                Some(at) if at > now => wait = wait.min(at),
                Some(_) => {
                    let refused = |handle: &u32| matches!(members[handle].standing, Standing::Refused(_));
                    let again = group.by_item.values().copied().filter(refused);
                    group.to_add.extend(again.filter(|handle| members[handle].is_wanted()));
                    group.retry = None;
                }
                None => {}
            }
            if !group.is_there {
                if group.to_add.is_empty() {
                    continue;
                }
                return Ok((self.life, Step::AddGroup(*id, group.setting.for_da())));
            }
            if !group.to_remove.is_empty() {
                let some = group.to_remove.len().min(ITEMS_PER_CALL);
                let handles = group.to_remove.drain(..some).collect();
                return Ok((self.life, Step::RemoveItems(*id, handles)));
            }
            let some = group.to_add.len().min(ITEMS_PER_CALL);
            let mut new = Vec::with_capacity(some);
            for handle in group.to_add.drain(..some) {
                let Some(member) = members.get_mut(&handle).filter(|member| member.is_wanted()) else { continue };
                if matches!(member.standing, Standing::Waiting | Standing::Refused(_)) {
                    member.standing = Standing::Asked;
                    new.push(NewItem { handle, item_id: member.item.to_string() });
                }
            }
            if !new.is_empty() {
                return Ok((self.life, Step::AddItems(*id, new)));
            }
            if std::mem::take(&mut group.to_refresh) && group.added > 0 {
                return Ok((self.life, Step::Refresh(*id)));
            }
            let Some(heard) = group.heard.filter(|_| group.added > 0) else { continue };
            match group.asked_to_speak {
                None if now >= heard + group.quiet() => {
                    group.asked_to_speak = Some(now);
                    return Ok((self.life, Step::Refresh(*id)));
                }
                None => wait = wait.min(heard + group.quiet()),
                Some(asked) if now >= asked + PROBE => return Ok((self.life, Step::Silent)),
                Some(asked) => wait = wait.min(asked + PROBE),
            }
        }
        Err(wait)
    }

    /// Members that were refused, and why.
    fn done(&mut self, step: Step, answer: Result<Reply, AskError>) -> Vec<(u32, StatusCode)> {
        let Self { groups, members, .. } = self;
        let mut bad = Vec::new();
        match (step, answer) {
            (Step::AddGroup(id, _), Ok(Reply::Group { revised_rate, .. })) => {
                if let Some(group) = groups.get_mut(&id) {
                    (group.is_there, group.revised) = (true, Some(revised_rate));
                } else {
                    self.dead.push(id);
                }
            }
            (Step::AddGroup(id, _), Err(error)) => {
                let status = super::status_of_ask(&error);
                let Some(group) = groups.get_mut(&id) else { return bad };
                group.retry = Some(Instant::now() + RETRY);
                for handle in group.to_add.drain(..) {
                    if let Some(member) = members.get_mut(&handle) {
                        member.standing = Standing::Refused(status);
                        bad.push((handle, status));
                    }
                }
            }
            (Step::AddItems(id, items), answer) => {
                let answers = match answer {
                    Ok(Reply::Added(answers)) => {
                        answers.into_iter().map(|added| added.map_err(map::status_of_failure)).collect()
                    }
                    Ok(_) => vec![Err(StatusCode::BadInternalError); items.len()],
                    Err(error) => vec![Err(super::status_of_ask(&error)); items.len()],
                };
                for (item, answer) in items.iter().zip(answers) {
                    let group = groups.get_mut(&id);
                    let Some(member) = members.get_mut(&item.handle) else {
                        // It has gone meanwhile.
                        if answer.is_ok()
                            && let Some(group) = group
                        {
                            group.to_remove.push(item.handle);
                        }
                        continue;
                    };
                    let Some(group) = group else { continue };
                    match answer {
                        Ok(added) if !member.is_wanted() => {
                            member.standing = Standing::There(added);
                            group.added += 1;
                            group.give_up(item.handle, member);
                        }
                        Ok(added) => {
                            group.added += 1;
                            member.standing = Standing::There(added);
                        }
                        Err(status) => {
                            member.standing = Standing::Refused(status);
                            group.retry.get_or_insert(Instant::now() + RETRY);
                            bad.push((item.handle, status));
                        }
                    }
                }
            }
            // What could not be removed or refreshed does no harm; if the server is gone that is heard elsewhere.
            _ => {}
        }
        bad
    }
}

impl Group {
    /// A member that nobody wants any more.
    fn give_up(&mut self, handle: u32, member: &mut Member) {
        if matches!(member.standing, Standing::There(_)) {
            self.to_remove.push(handle);
            self.added -= 1;
            member.standing = Standing::Waiting;
        }
    }
}

#[cfg(test)]
mod tests;
