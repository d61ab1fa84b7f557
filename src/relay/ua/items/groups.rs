//! Who wants which item, at which rate and with which deadband.

use super::member::{Client, Member, Standing};
use crate::relay::map;
use crate::relay::protocol::GroupSettings;
use ::opcua::server::MonitoredItemHandle;
use ::opcua::types::{DateTime, NodeId, StatusCode};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// DA groups of one server, with and without a deadband each. Whoever wants another rate then gets that of the next faster one.
pub const GROUPS: usize = 100;

#[derive(Default)]
pub struct State {
    /// 0 while the DA server is not there.
    pub life: u64,
    /// What members have that have no value yet.
    pub absent: StatusCode,
    pub groups: BTreeMap<u32, Group>,
    pub members: HashMap<u32, Member>,
    pub monitored: HashMap<MonitoredItemHandle, u32>,
    /// Groups in the DA server that nobody wants any more.
    pub dead: Vec<u32>,
    /// Items that are to get their value again, and when.
    pub young: VecDeque<(Instant, MonitoredItemHandle)>,
    pub last_handle: u32,
    pub last_group: u32,
}

/// What makes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// In milliseconds.
    pub rate: u32,
    /// In hundredths of a percent.
    pub deadband: u32,
}

impl Setting {
    /// Two digits of a rate are enough, and keep the groups few: 1234 ms are 1200 ms.
    pub fn new(interval: Duration, percent: Option<f64>) -> Self {
        let rate = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let unit = 10_u32.pow(rate.checked_ilog10().unwrap_or(0).saturating_sub(1));
        let deadband = percent.unwrap_or(0.0).clamp(0.0, 100.0) * 100.0;
        Self { rate: rate / unit * unit, deadband: deadband as u32 }
    }

    pub fn for_da(self) -> GroupSettings {
        GroupSettings { rate: self.rate, deadband: self.deadband as f32 / 100.0, active: true }
    }
}

pub struct Group {
    pub setting: Setting,
    pub by_item: HashMap<Arc<str>, u32>,
    /// In the DA server.
    pub is_there: bool,
    pub revised: Option<u32>,
    pub to_add: Vec<u32>,
    pub to_remove: Vec<u32>,
    /// Members that the DA server took.
    pub added: usize,
    /// To be sent all values again.
    pub to_refresh: bool,
    /// When what was refused is tried again.
    pub retry: Option<Instant>,
    /// When the DA server last took items; one that is still being filled may be too busy to speak.
    pub filled: Option<Instant>,
    /// When it last said something in this life.
    pub heard: Option<Instant>,
    pub probe: Probe,
    /// It could not be asked, and was made anew for that.
    pub is_renewed: bool,
    /// It cannot be asked at all: its silence says nothing.
    pub is_unjudged: bool,
    /// Its callbacks never came, so the worker reads its cache.
    pub is_polled: bool,
}

/// Whether a group that says nothing was asked for its values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Probe {
    #[default]
    No,
    /// The question is on its way since then.
    Asked(Instant),
    /// It was answered then, so values have to come.
    Answered(Instant),
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
            filled: None,
            heard: None,
            probe: Probe::No,
            is_renewed: false,
            is_unjudged: false,
            is_polled: false,
        };
        self.groups.insert(self.last_group, group);
        self.last_group
    }

    pub fn join(&mut self, item: &str, node: &NodeId, setting: Setting, client: Client) {
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

    pub fn enable(&mut self, client: MonitoredItemHandle, enabled: bool) {
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

    pub fn take_out(&mut self, client: MonitoredItemHandle) -> Option<(Arc<str>, NodeId, Client)> {
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

    pub fn leave(&mut self, client: MonitoredItemHandle) {
        self.take_out(client);
    }

    pub fn heard(&mut self, group: u32, now: Instant) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.heard = Some(now);
            if matches!(group.probe, Probe::Answered(_)) {
                group.probe = Probe::No;
            }
        }
    }

    pub fn up(&mut self, life: u64) {
        let is_again = life > 1;
        (self.life, self.absent) = (life, StatusCode::BadWaitingForInitialData);
        self.dead.clear();
        let Self { groups, members, .. } = self;
        for group in groups.values_mut() {
            group.begin(members);
            group.to_refresh = is_again;
            (group.is_renewed, group.is_unjudged, group.is_polled) = (false, false, false);
        }
    }

    /// Who is to be told so.
    pub fn down(&mut self, status: StatusCode) -> Vec<(u32, StatusCode)> {
        (self.life, self.absent) = (0, status);
        self.members.keys().map(|handle| (*handle, status)).collect()
    }
}

impl Group {
    /// Nothing of it is in the DA server.
    pub fn begin(&mut self, members: &mut HashMap<u32, Member>) {
        (self.is_there, self.added, self.to_refresh) = (false, 0, false);
        (self.retry, self.filled, self.heard, self.probe) = (None, None, None, Probe::No);
        self.to_remove.clear();
        self.to_add = self.by_item.values().copied().filter(|handle| members[handle].is_wanted()).collect();
        // In the order in which they were asked for.
        self.to_add.sort_unstable();
        for handle in self.by_item.values() {
            if let Some(member) = members.get_mut(handle) {
                member.standing = Standing::Waiting;
            }
        }
    }

    /// A member that nobody wants any more.
    pub fn give_up(&mut self, handle: u32, member: &mut Member) {
        if matches!(member.standing, Standing::There(_)) {
            self.to_remove.push(handle);
            self.added -= 1;
            member.standing = Standing::Waiting;
        }
    }
}
