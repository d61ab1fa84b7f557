//! When a camera that came or went is an event.
//!
//! At once, as long as that is rare. A camera that flaps (a loose plug, a signal at the edge) is told of when it has been
//! the same for a while, and only if that is not what was told last; what it did meanwhile is a count.
//!
//! Time comes from outside, so that this can be tested by hand.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many changes in the window are told at once.
const FEW: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// What flaps is told when it has been the same for so long.
const CALM: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    NoSignal,
    Lost,
}

impl Health {
    /// By the camera's `State`.
    pub(super) fn of(state: &str) -> Self {
        match state {
            "idle" | "streaming" => Health::Well,
            "no cable" | "no signal" | "no sync" => Health::NoSignal,
            _ => Health::Lost,
        }
    }
}

#[derive(Default)]
pub(super) struct News {
    told: Option<Health>,
    seen: Option<(Health, Instant)>,
    /// When something was told.
    times: VecDeque<Instant>,
    /// Changes since something was told last.
    changes: usize,
}

impl News {
    pub(super) fn see(&mut self, health: Health, now: Instant) {
        if self.seen.is_none_or(|(seen, _)| seen != health) {
            self.seen = Some((health, now));
            self.changes += 1;
        }
    }

    /// What is to be told now, and how many changes before it were not.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Health, usize)> {
        let (health, since) = self.seen?;
        self.times.retain(|time| now.duration_since(*time) < WINDOW);
        let is_calm = now.duration_since(since) >= CALM;
        if self.told == Some(health) {
            if is_calm {
                self.changes = 0;
            }
            return None;
        }
        if self.times.len() >= FEW && !is_calm {
            return None;
        }
        self.told = Some(health);
        self.times.push_back(now);
        Some((health, std::mem::take(&mut self.changes) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Health::{Lost, NoSignal, Well};

    #[test]
    fn a_change_is_told_at_once_and_once() {
        let (mut news, start) = (News::default(), Instant::now());
        assert_eq!(news.due(start), None, "nothing has been seen yet");
        news.see(Well, start);
        assert_eq!(news.due(start), Some((Well, 0)));
        news.see(Well, start);
        assert_eq!(news.due(start), None);
        news.see(NoSignal, start);
        assert_eq!(news.due(start), Some((NoSignal, 0)));
    }

    #[test]
    fn what_flaps_is_told_when_it_has_calmed_down() {
        let (mut news, start) = (News::default(), Instant::now());
        let mut told = Vec::new();
        let at = |millis| start + Duration::from_millis(millis);
        for step in 0..100 {
            news.see(if step % 2 == 0 { Lost } else { Well }, at(step * 100));
            told.extend(news.due(at(step * 100)));
        }
        assert_eq!(told, [(Lost, 0), (Well, 0), (Lost, 0)]);
        assert_eq!(news.due(at(9_900) + CALM - Duration::from_millis(1)), None);
        assert_eq!(news.due(at(9_900) + CALM), Some((Well, 96)));
        news.see(Lost, at(120_000));
        assert_eq!(news.due(at(120_000)), Some((Lost, 0)), "rare again");
    }

    #[test]
    fn what_is_as_it_was_told_is_no_news() {
        let (mut news, start) = (News::default(), Instant::now());
        for health in [Lost, Well, Lost, Well, Lost] {
            news.see(health, start);
            news.due(start);
        }
        assert_eq!(news.due(start + CALM), None);
        news.see(Well, start + WINDOW);
        assert_eq!(news.due(start + WINDOW), Some((Well, 0)));
    }
}
