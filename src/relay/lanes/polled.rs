//! A group of a server that cannot call back, or will not: when its cache is to be read, and what of it is new.

use crate::relay::protocol::{Hresult, News, Reading};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often a group is polled, at most.
const FASTEST: Duration = Duration::from_millis(50);

pub struct Polled {
    every: Duration,
    next: Instant,
    is_active: bool,
    last: HashMap<u32, Result<Reading, Hresult>>,
}

impl Polled {
    /// `rate` in milliseconds.
    pub fn new(rate: u32, is_active: bool, now: Instant) -> Self {
        let every = Duration::from_millis(rate.into()).max(FASTEST);
        Self { every, next: now, is_active, last: HashMap::new() }
    }

    /// Everything is new at the next poll, which is now.
    pub fn refresh(&mut self, now: Instant) {
        self.last.clear();
        self.next = now;
    }

    /// How long until the next poll.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Whether its cache is to be read now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.next > now {
            return false;
        }
        self.next = now + self.every;
        self.is_active
    }

    /// Those that are not as they were; of the others, times do not count.
    pub fn changed(&mut self, values: Vec<News>) -> Vec<News> {
        let is_same = |old: &Result<Reading, Hresult>, new: &Result<Reading, Hresult>| match (old, new) {
            (Ok(old), Ok(new)) => old.value == new.value && old.quality == new.quality,
            (old, new) => old == new,
        };
        let mut changed = Vec::new();
        for (number, value) in values {
            if !self.last.get(&number).is_some_and(|last| is_same(last, &value)) {
                self.last.insert(number, value.clone());
                changed.push((number, value));
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::protocol::DaValue;

    fn value(number: u32, value: f64, quality: u16, time: u64) -> News {
        (number, Ok(Reading { value: DaValue::R8(value), quality, time }))
    }

    #[test]
    fn only_what_is_new_is_told_and_all_of_it_after_a_refresh() {
        let now = Instant::now();
        let mut polled = Polled::new(100, true, now);
        let first = vec![value(1, 1.0, 192, 5), value(2, 2.0, 192, 5), (3, Err(-1))];
        assert_eq!(polled.changed(first.clone()), first);
        let second = vec![value(1, 1.0, 192, 6), value(2, 2.0, 24, 6), (3, Err(-1))];
        assert_eq!(polled.changed(second.clone()), [second[1].clone()]);
        polled.refresh(now);
        assert_eq!(polled.changed(second.clone()), second);
    }

    #[test]
    fn it_is_polled_at_its_rate_if_it_is_active() {
        let now = Instant::now();
        let mut polled = Polled::new(100, true, now);
        assert!(polled.is_due(now) && !polled.is_due(now));
        assert_eq!(polled.wait(now), Duration::from_millis(100));
        assert!(polled.is_due(now + Duration::from_millis(100)));
        assert_eq!(Polled::new(0, true, now).every, FASTEST);
        let mut idle = Polled::new(100, false, now);
        assert!(!idle.is_due(now));
        assert_eq!(idle.wait(now), Duration::from_millis(100), "nobody is woken all the time");
    }
}
