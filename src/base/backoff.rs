//! How long to wait before trying again.
//!
//! Exponential, with jitter, of one of two kinds:
//!
//! - [`Backoff::new`]: each wait is between half of the current step and all of it. For who is alone with what he waits for,
//!   such as a device on a bus: it gets its rest.
//! - [`Backoff::spread`]: each wait is anything up to the current step, the first one too. For who waits in a crowd: a
//!   thousand devices that lose one broker, or get their power back, at one moment come evenly over the whole step,
//!   which is a thousand by the step's seconds. With a wait of at least half a step it would be twice as many in half the
//!   time.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    step: Duration,
    /// The part of each step that is always waited.
    floor: f64,
}

impl Backoff {
    /// First wait at most `min`, doubling up to `max`; never less than half of that.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, step: min, floor: 0.5 }
    }

    /// The same from nothing on. To be waited before the first try as well, if a crowd may make it at one moment.
    pub fn spread(min: Duration, max: Duration) -> Self {
        Self { min, max, step: min, floor: 0.0 }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.max);
        step.mul_f64(self.floor + (1.0 - self.floor) * fastrand::f64())
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

    /// When each of a crowd comes that lost its broker at 0, which is back after `away` seconds.
    fn arrivals(away: f64, make: impl Fn() -> Backoff) -> Vec<f64> {
        let arrive = |_| {
            let (mut backoff, mut now) = (make(), 0.0);
            while now < away || now == 0.0 {
                now += backoff.wait().as_secs_f64();
            }
            now - away
        };
        (0..10_000).map(arrive).collect()
    }

    fn most_in_a_second(arrivals: &[f64]) -> usize {
        let second = |start: f64| arrivals.iter().filter(|at| (start..start + 1.0).contains(*at)).count();
        (0..1200).map(|tenth| second(f64::from(tenth) / 10.0)).max().unwrap()
    }

    #[test]
    fn a_crowd_comes_back_evenly() {
        let spread = || Backoff::spread(Duration::from_secs(5), Duration::from_secs(60));
        // A fifth in each second of the first step; four times the deviation of the count is room enough.
        let at_once = arrivals(0.0, spread);
        assert!(most_in_a_second(&at_once) < 2000 + 4 * 45, "{}", most_in_a_second(&at_once));
        assert!(at_once.iter().all(|at| *at <= 5.0) && at_once.iter().any(|at| *at < 0.1));
        // The longer it was away, the further apart they are.
        let (minute, hour) = (most_in_a_second(&arrivals(60.0, spread)), most_in_a_second(&arrivals(3600.0, spread)));
        assert!(minute < 500 && hour < 450, "{minute} {hour}");
        // And without a spread all come at the end of the step.
        let alone = || Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
        assert!(most_in_a_second(&arrivals(0.0, alone)) > 3700);
    }

    #[test]
    fn two_devices_do_not_wait_alike() {
        let waits = |_| Backoff::new(Duration::from_secs(60), Duration::from_secs(60)).wait();
        let first = waits(());
        assert!((0..100).map(|_| waits(())).any(|other| other != first));
    }
}
