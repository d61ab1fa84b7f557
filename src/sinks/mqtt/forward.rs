//! When what was sent counts as arrived, and how much of the backlog may go beside the live samples. Policy alone: no I/O,
//! no disk, no clock.
//!
//!     QoS 0     sent ──the broker has answered to what came after it, and 1.5 keep-alives have passed──► due
//!     QoS 1     acknowledged ──► due at once
//!     due ──► settled in the store          lost ──► nothing of it is; the store owes it again
//!
//! At QoS 0 nobody says what arrived, and a line that is cut takes in what is sent for minutes. So the broker is asked
//! something now and then: its answer proves that all before has arrived, because one connection keeps the order.
//!
//! The backlog is a bucket of a quarter of a second: bursts are no larger than that, and live samples never wait longer
//! behind them.

use crate::store::Token;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// Of the rate: what may go at once.
const BURST: f64 = 0.25;

/// What went out together, in one or more messages.
#[derive(Debug)]
pub(super) enum Sent {
    /// Live rows by their numbers; numbers between them that the tail did not give do no harm.
    Live(Range<u64>),
    Backlog(Token),
}

pub(super) struct Forward {
    /// From the sending to the settling, at least. `None`: what is sent is acknowledged.
    window: Option<Duration>,
    /// What was sent until then has arrived.
    proved: Option<Instant>,
    /// Rows of the backlog per second.
    rate: f64,
    credit: f64,
    refilled: Option<Instant>,
    /// In the order of sending.
    sent: VecDeque<(Instant, Sent)>,
}

impl Forward {
    /// With a window (1.5 keep-alives) for QoS 0, without one for QoS 1, where what is sent is acknowledged.
    pub(super) fn new(window: Option<Duration>, rate: u32) -> Self {
        let rate = f64::from(rate);
        Self { window, proved: None, rate, credit: (rate * BURST).max(1.0), refilled: None, sent: VecDeque::new() }
    }

    pub(super) fn sent(&mut self, what: Sent, now: Instant) {
        self.sent.push_back((now, what));
    }

    /// The broker has answered to something that was sent after `at`.
    pub(super) fn prove(&mut self, at: Instant) {
        self.proved = Some(at);
    }

    /// What may be settled now. Each is said once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Sent> {
        let is_due = |at: Instant| match self.window {
            Some(window) => Some(at) <= self.proved && now.saturating_duration_since(at) >= window,
            None => true,
        };
        let count = self.sent.iter().take_while(|(at, _)| is_due(*at)).count();
        self.sent.drain(..count).map(|(_, what)| what).collect()
    }

    /// How many rows of the backlog may go now.
    pub(super) fn may_take(&mut self, now: Instant) -> usize {
        let since = self.refilled.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.credit = (self.credit + since.as_secs_f64() * self.rate).min((self.rate * BURST).max(1.0));
        self.credit as usize
    }

    /// So many of them go.
    pub(super) fn took(&mut self, rows: usize) {
        self.credit -= rows as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn live(sent: Vec<Sent>) -> Vec<Range<u64>> {
        let range = |sent| if let Sent::Live(range) = sent { range } else { panic!("{sent:?}") };
        sent.into_iter().map(range).collect()
    }

    #[test]
    fn at_qos_0_what_was_sent_in_the_last_keep_alives_before_a_loss_is_not_settled() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut forward = Forward::new(Some(45 * second), 1000);
        (0..100u32).for_each(|n| forward.sent(Sent::Live(n.into()..u64::from(n) + 1), start + n * second));
        assert!(forward.due(start + 99 * second).is_empty(), "nothing says that anything has arrived");
        forward.prove(start + 10 * second);
        assert_eq!(forward.due(start + 99 * second).len(), 11);
        forward.prove(start + 99 * second);
        let due = live(forward.due(start + 99 * second));
        assert_eq!((due.len(), due.last()), (44, Some(&(54..55))), "up to the 54th second");
        assert!(forward.due(start + 99 * second).is_empty(), "each is said once");
    }

    #[test]
    fn at_qos_1_what_was_sent_was_acknowledged() {
        let now = Instant::now();
        let mut forward = Forward::new(None, 1000);
        forward.sent(Sent::Live(0..9), now);
        assert_eq!(live(forward.due(now)).first(), Some(&(0..9)));
    }

    proptest! {
        #[test]
        fn the_backlog_keeps_its_rate(rate in 1..10_000u32, steps in proptest::collection::vec(0..3000u64, 1..100)) {
            let (start, mut now) = (Instant::now(), Instant::now());
            let mut forward = Forward::new(None, rate);
            let mut taken = 0.0;
            for step in steps {
                now += Duration::from_millis(step);
                let rows = forward.may_take(now);
                forward.took(rows);
                taken += rows as f64;
                let seconds = now.duration_since(start).as_secs_f64();
                let most = f64::from(rate) * (seconds + BURST) + 1.0;
                prop_assert!(taken <= most, "{taken} of {most}");
            }
            // And it does not starve.
            prop_assert!(forward.may_take(now + Duration::from_secs(1)) >= 1);
        }
    }
}
