//! A Sparkplug host's view of a fleet: what all that is said adds up to. No I/O, no clock.
//!
//!     topic, payload ──► Host ──► nodes, devices, metrics
//!                          └────► whom to ask for a birth (due)
//!
//! - `topic.rs` who speaks; `metric.rs` what a metric says; `metrics.rs` all of one device, and the budget of memory.
//! - `node.rs` is the life of a node: births, deaths, gaps. `summary.rs` what a table shows of one.
//! - `rebirths.rs` keeps the questions few.
//!
//! Invariants: nothing that anybody sends is a panic; memory is bounded ([`Limits`]), and what is left out is counted; what
//! makes no sense is counted with the node that sent it, if there is one.

pub mod metric;
mod metrics;
pub mod node;
pub mod rebirths;
pub mod summary;
mod topic;

pub use node::{Life, Node, State};
pub use rebirths::Policy;

use crate::model::Timestamp;
use crate::mqtt::sparkplug;
use metrics::Store;
use node::Outcome;
use rebirths::Rebirths;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use topic::{Kind, Topic};

/// Host applications that are shown.
const HOSTS: usize = 1000;

/// Fields of one payload: a birth of some ten thousand metrics with unit and range. What says more in the four megabytes that
/// the line takes is nobody's birth, and would take a hundred times its size.
const PARTS: usize = 200_000;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub nodes: usize,
    /// All metrics together.
    pub bytes: usize,
    /// One value.
    pub longest: usize,
}

impl Limits {
    /// Many nodes, of each what fits on a screen.
    pub const FLEET: Self = Self { nodes: 100_000, bytes: 512 << 20, longest: 512 };
    /// Few nodes, and all of what they say.
    pub const FEW: Self = Self { nodes: 1000, bytes: 256 << 20, longest: 4 << 20 };
}

pub struct Host {
    nodes: BTreeMap<Arc<str>, Node>,
    hosts: BTreeMap<String, Primary>,
    store: Store,
    limits: Limits,
    rebirths: Rebirths,
    pub counts: Counts,
}

/// What a host application says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Primary {
    pub is_online: bool,
    pub time: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub messages: u64,
    /// Neither a topic nor a payload of Sparkplug.
    pub garbage: u64,
    /// Deaths that belong to a connection before.
    pub old_deaths: u64,
    /// Of nodes that there was no room for.
    pub left_out: u64,
}

/// Sparkplug 3.0, 6.4.26.
#[derive(Deserialize)]
struct StatePayload {
    online: bool,
    timestamp: Option<i64>,
}

impl Host {
    pub fn new(limits: Limits, policy: Policy) -> Self {
        Self {
            nodes: BTreeMap::new(),
            hosts: BTreeMap::new(),
            store: Store::new(limits.bytes, limits.longest),
            limits,
            rebirths: Rebirths::new(policy),
            counts: Counts::default(),
        }
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.values_mut()
    }

    /// The group and the node that a message is about.
    pub fn speaker(topic: &str) -> Option<(&str, &str)> {
        match Topic::parse(topic) {
            Topic::Edge { group, node, .. } => Some((group, node)),
            Topic::State(_) | Topic::Other | Topic::Wrong => None,
        }
    }

    pub fn node_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.nodes.get_mut(key)
    }

    /// By `group/node`.
    pub fn node(&self, key: &str) -> Option<&Node> {
        self.nodes.get(key)
    }

    pub fn hosts(&self) -> impl Iterator<Item = (&str, Primary)> {
        self.hosts.iter().map(|(name, primary)| (name.as_str(), *primary))
    }

    /// Takes in what somebody said.
    pub fn receive(&mut self, topic: &str, payload: &[u8], now: Timestamp) {
        self.counts.messages += 1;
        let (kind, group, node, device) = match Topic::parse(topic) {
            Topic::Edge { kind, group, node, device } => (kind, group, node, device),
            Topic::State(host) => {
                self.state(host, payload);
                return;
            }
            Topic::Other => return,
            Topic::Wrong => {
                self.counts.garbage += 1;
                return;
            }
        };
        let key = format!("{group}/{node}");
        let Ok(payload) = sparkplug::read(payload, PARTS) else {
            self.counts.garbage += 1;
            if let Some(node) = self.nodes.get_mut(key.as_str()) {
                node.faulty += 1;
            }
            return;
        };
        if !self.nodes.contains_key(key.as_str()) {
            if self.nodes.len() >= self.limits.nodes {
                self.counts.left_out += 1;
                return;
            }
            let new = Node::new(self.store.name(group), self.store.name(node), now);
            self.nodes.insert(key.as_str().into(), new);
        }
        let node = self.nodes.get_mut(key.as_str()).expect("it was put in above");
        let outcome = node.take(kind, device, payload, &mut self.store, now);
        match outcome {
            Outcome::NeedsBirth => self.rebirths.want(&key, now),
            Outcome::OldDeath => self.counts.old_deaths += 1,
            Outcome::Taken if kind == Kind::Birth && device.is_none() => self.rebirths.born(&key),
            Outcome::Taken => {}
        }
    }

    /// An empty payload takes a retained one back.
    fn state(&mut self, host: &str, payload: &[u8]) {
        if payload.is_empty() {
            self.hosts.remove(host);
            return;
        }
        let told = match (payload, serde_json::from_slice::<StatePayload>(payload)) {
            (_, Ok(told)) => Primary { is_online: told.online, time: told.timestamp.map(Timestamp::from_millis) },
            // Sparkplug 2.2.
            (b"ONLINE", _) => Primary { is_online: true, time: None },
            (b"OFFLINE", _) => Primary { is_online: false, time: None },
            _ => {
                self.counts.garbage += 1;
                return;
            }
        };
        let is_full = self.hosts.len() >= HOSTS;
        match self.hosts.get_mut(host) {
            // An older one comes late.
            Some(known) if told.time.is_some() && told.time < known.time => {}
            Some(known) => *known = told,
            None if is_full => self.counts.left_out += 1,
            None => drop(self.hosts.insert(host.to_owned(), told)),
        }
    }

    /// Who looks at all of it sees nothing that is no more.
    pub fn forget(&mut self, now: Timestamp) {
        for node in self.nodes.values_mut() {
            node.forget(&mut self.store, now);
        }
    }

    /// Somebody wants to see all of this node.
    pub fn insist(&mut self, key: &str, now: Timestamp) {
        if self.nodes.get(key).is_some_and(|node| matches!(node.life, Life::Heard | Life::Missed)) {
            self.rebirths.insist(key, now);
        }
    }

    /// Whom to ask for a birth now: group and node.
    pub fn due(&mut self, now: Timestamp) -> Option<(Arc<str>, Arc<str>)> {
        let key = self.rebirths.due(now)?;
        self.nodes.get(key.as_str()).map(|node| (node.group.clone(), node.name.clone()))
    }

    /// Nobody waits to be asked.
    pub fn is_idle(&self) -> bool {
        self.rebirths.is_idle()
    }

    /// The connection was lost: what was said meanwhile was missed. Nodes that died are not heard of again.
    pub fn lost(&mut self) {
        for node in self.nodes.values_mut() {
            node.miss();
        }
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.store.used()
    }
}

#[cfg(test)]
mod tests;
