//! Who is asked for a birth, and when.
//!
//! A host that comes late knows little of nodes that were born before it, and could ask all of them. A fleet of ten
//! thousand would answer at once, to every host: a storm that somebody who only wanted to look has made. So they are asked
//! one at a time, [`PER_SECOND`] at most; the friendliest default asks a few only; and none is asked again and again.

use crate::model::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Births that all hosts of the fleet have to bear because of this one.
const PER_SECOND: u32 = 10;
const GAP: Duration = Duration::from_millis(1000 / PER_SECOND as u64);

/// How many are asked in all, unless all are to be.
const FEW: u32 = 50;

/// A node that did not answer is asked again after this, then after twice this, and so on.
const AGAIN: Duration = Duration::from_secs(60);
/// Whoever does not answer so often does not understand.
const TRIES: u32 = 4;

/// When nodes are asked for a birth that was not heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Never: only listen.
    No,
    /// The first 50 nodes that speak without a birth.
    #[default]
    Few,
    /// All of them, ten a second.
    All,
}

pub struct Rebirths {
    policy: Policy,
    queue: VecDeque<String>,
    next: Timestamp,
    left: u32,
    /// When, and how often before.
    asked: BTreeMap<String, (Timestamp, u32)>,
}

impl Rebirths {
    pub fn new(policy: Policy) -> Self {
        let left = match policy {
            Policy::No => 0,
            Policy::Few => FEW,
            Policy::All => u32::MAX,
        };
        Self { policy, queue: VecDeque::new(), next: Timestamp::UNIX_EPOCH, left, asked: BTreeMap::new() }
    }

    /// Its birth is missing.
    pub fn want(&mut self, node: &str, now: Timestamp) {
        let may_ask = match self.asked.get(node) {
            Some((at, times)) => *times < TRIES && now >= at.saturating_add(AGAIN * (1 << (times - 1))),
            None => true,
        };
        if self.left > 0 && may_ask {
            self.left -= if self.policy == Policy::All { 0 } else { 1 };
            self.push(node, now);
            self.queue.push_back(node.to_owned());
        }
    }

    /// A person wants it now; not more often than once in ten seconds.
    pub fn insist(&mut self, node: &str, now: Timestamp) {
        let is_fresh = |at: &Timestamp| now < at.saturating_add(Duration::from_secs(10));
        if !self.asked.get(node).is_some_and(|(at, _)| is_fresh(at)) {
            self.push(node, now);
            self.queue.push_front(node.to_owned());
        }
    }

    fn push(&mut self, node: &str, now: Timestamp) {
        let asked = self.asked.entry(node.to_owned()).or_insert((now, 0));
        *asked = (now, asked.1 + 1);
    }

    /// The next one whose turn has come.
    pub fn due(&mut self, now: Timestamp) -> Option<String> {
        // A clock that was set back must not stop it for hours.
        if now < self.next && self.next <= now.saturating_add(GAP) {
            return None;
        }
        let node = self.queue.pop_front()?;
        self.next = now.saturating_add(GAP);
        Some(node)
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn born(&mut self, node: &str) {
        self.asked.remove(node);
        self.queue.retain(|waiting| waiting != node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn asked(rebirths: &mut Rebirths, from: i64, to: i64) -> Vec<String> {
        (from..to).step_by(10).filter_map(|now| rebirths.due(at(now))).collect()
    }

    #[test]
    fn ten_a_second_and_none_twice() {
        let mut rebirths = Rebirths::new(Policy::All);
        for _ in 0..3 {
            (0..100).for_each(|node| rebirths.want(&format!("G/{node}"), at(0)));
        }
        assert_eq!(asked(&mut rebirths, 0, 1000).len(), 10);
        rebirths.born("G/10");
        let rest = asked(&mut rebirths, 1000, 60_000);
        assert!(rest.len() == 89 && !rest.contains(&"G/10".to_owned()) && rebirths.is_idle());
        rebirths.want("G/10", at(60_000));
        assert_eq!(asked(&mut rebirths, 60_000, 61_000), ["G/10"], "after a birth it may be missed again");
    }

    #[test]
    fn whoever_does_not_answer_is_asked_ever_less_and_then_no_more() {
        let mut rebirths = Rebirths::new(Policy::All);
        let mut times = Vec::new();
        for second in 0..3600 {
            rebirths.want("G/N", at(second * 1000));
            if rebirths.due(at(second * 1000)).is_some() {
                times.push(second);
            }
        }
        assert_eq!(times, [0, 60, 180, 420]);
    }

    #[test]
    fn few_are_few_and_none_is_none_but_for_a_person() {
        let mut few = Rebirths::new(Policy::Few);
        (0..1000).for_each(|node| few.want(&format!("G/{node}"), at(0)));
        assert_eq!(asked(&mut few, 0, 60_000).len(), FEW as usize);
        let mut none = Rebirths::new(Policy::No);
        none.want("G/N", at(0));
        assert_eq!(none.due(at(0)), None);
        (0..100).for_each(|_| none.insist("G/N", at(0)));
        assert_eq!(asked(&mut none, 0, 9000), ["G/N"]);
    }
}
