//! How long to wait before trying again.
//!
//! Exponential, with equal jitter: each wait is between half of the current step and all of it. A thousand devices
//! that lose one broker at one moment so come back spread out, and none of them hammers.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    step: Duration,
}

impl Backoff {
    /// First wait at most `min`, doubling up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, step: min }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.max);
        step.div_f64(2.0) + step.mul_f64(fastrand::f64() / 2.0)
    }

    /// To be called after a success.
    pub fn reset(&mut self) {
        self.step = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_fall_back_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for step in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.wait();
            let step = Duration::from_secs(step);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} for {step:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_secs(1));
    }

    #[test]
    fn two_devices_do_not_wait_alike() {
        let waits = |_| Backoff::new(Duration::from_secs(60), Duration::from_secs(60)).wait();
        let first = waits(());
        assert!((0..100).map(|_| waits(())).any(|other| other != first));
    }
}
