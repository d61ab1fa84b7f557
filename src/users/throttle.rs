//! How long a login has to wait after others have failed.
//!
//! Each failure doubles the wait for its name, up to half a minute, and many of them make everybody wait a little. Waits
//! delay, and refuse only while others wait for the same name: a right password still comes in later, and what was counted is
//! forgotten with time, so nobody is locked out for good. Names that do not exist are counted like those that do.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Names that are remembered; beyond that the one that failed longest ago is forgotten.
const NAMES: usize = 1024;

/// For one name: people mistype.
const NAME: Terms = Terms {
    free: 3,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
    forget: Duration::from_secs(30),
};
/// For all together: a wave of guesses for many names.
const ALL: Terms = Terms {
    free: 20,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(2),
    forget: Duration::from_secs(1),
};

struct Terms {
    /// So many failures cost nothing.
    free: u32,
    /// The wait after the next; each further one doubles it.
    first: Duration,
    longest: Duration,
    /// After this time one failure is forgotten.
    forget: Duration,
}

#[derive(Default)]
pub(super) struct Throttle {
    names: HashMap<String, Strikes>,
    all: Option<Strikes>,
}

#[derive(Clone, Copy)]
struct Strikes {
    count: u32,
    last: Instant,
}

impl Throttle {
    /// How long a login for this name has to wait from now on.
    pub(super) fn wait(&self, name: &str, now: Instant) -> Duration {
        self.own_wait(name, now).max(self.all.map_or(Duration::ZERO, |strikes| strikes.wait(&ALL, now)))
    }

    /// The part of it that is for this name.
    pub(super) fn own_wait(&self, name: &str, now: Instant) -> Duration {
        self.names.get(name).map_or(Duration::ZERO, |strikes| strikes.wait(&NAME, now))
    }

    pub(super) fn failed(&mut self, name: &str, now: Instant) {
        if self.names.len() >= NAMES && !self.names.contains_key(name) {
            let oldest = self.names.iter().min_by_key(|(_, strikes)| strikes.last).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                self.names.remove(&oldest);
            }
        }
        let new = Strikes { count: 0, last: now };
        let strikes = self.names.entry(name.to_owned()).or_insert(new);
        *strikes = strikes.one_more(&NAME, now);
        self.all = Some(self.all.unwrap_or(new).one_more(&ALL, now));
    }

    pub(super) fn succeeded(&mut self, name: &str) {
        self.names.remove(name);
    }
}

impl Strikes {
    fn left(self, terms: &Terms, now: Instant) -> u32 {
        let forgotten = now.duration_since(self.last).as_millis() / terms.forget.as_millis();
        self.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    fn one_more(self, terms: &Terms, now: Instant) -> Self {
        // More would only take longer to be forgotten.
        let most = terms.free + 10;
        Self { count: (self.left(terms, now) + 1).min(most), last: now }
    }

    fn wait(self, terms: &Terms, now: Instant) -> Duration {
        let Some(beyond) = self.left(terms, now).checked_sub(terms.free).filter(|beyond| *beyond > 0) else {
            return Duration::ZERO;
        };
        let wait = terms.first.saturating_mul(1 << (beyond - 1).min(16)).min(terms.longest);
        wait.saturating_sub(now.duration_since(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_failure_doubles_the_wait_of_its_name_and_time_heals() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let waits: Vec<_> = (0..14)
            .map(|_| {
                throttle.failed("anna", now);
                throttle.wait("anna", now).as_millis()
            })
            .collect();
        assert_eq!(waits[..9], [0, 0, 0, 500, 1000, 2000, 4000, 8000, 16000]);
        assert_eq!(waits[9..], [30_000; 5]);
        assert_eq!(throttle.wait("bert", now), Duration::ZERO, "it was not his name");
        assert_eq!(throttle.wait("anna", now + Duration::from_secs(10)), Duration::from_secs(20));
        assert_eq!(throttle.wait("anna", now + Duration::from_secs(31)), Duration::ZERO);
        throttle.failed("anna", now + Duration::from_secs(600));
        assert_eq!(throttle.wait("anna", now + Duration::from_secs(600)), Duration::ZERO, "all was forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn success_clears_a_name_and_many_names_slow_everybody_a_little() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..5 {
            throttle.failed("anna", now);
        }
        throttle.succeeded("anna");
        assert_eq!(throttle.wait("anna", now), Duration::ZERO);
        for count in 0..5000 {
            throttle.failed(&format!("guess {count}"), now);
        }
        assert_eq!(throttle.names.len(), NAMES);
        assert_eq!(throttle.wait("anna", now), Duration::from_secs(2));
        assert_eq!(throttle.wait("anna", now + Duration::from_secs(2)), Duration::ZERO);
    }
}
