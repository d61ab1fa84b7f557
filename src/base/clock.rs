//! What time it is.
//!
//! The one place that asks the operating system (clippy.toml bans it elsewhere), so that a test can decide it. The
//! simulated clock follows tokio's time: under `#[tokio::test(start_paused = true)]` a sleep of an hour moves it by
//! an hour, at once.

use std::time::SystemTime;
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Real,
    Simulated { origin: SystemTime, start: Instant },
}

impl Clock {
    pub fn real() -> Self {
        Self(Kind::Real)
    }

    /// Reads `origin` now and moves with tokio's time.
    pub fn simulated(origin: SystemTime) -> Self {
        Self(Kind::Simulated { origin, start: Instant::now() })
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that asks")]
    pub fn now(&self) -> SystemTime {
        match self.0 {
            Kind::Real => SystemTime::now(),
            Kind::Simulated { origin, start } => origin + start.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[tokio::test(start_paused = true)]
    async fn simulated_time_moves_with_sleep() {
        let clock = Clock::simulated(UNIX_EPOCH);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), UNIX_EPOCH + Duration::from_secs(3600));
    }
}
