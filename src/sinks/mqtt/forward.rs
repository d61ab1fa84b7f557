//! When what was sent counts as arrived, and how much of the backlog may go beside the live samples. Policy alone: no I/O,
//! no disk, no clock.
//!
//!     QoS 0     sent ──1.5 keep-alives later, if the connection still stands──► due
//!     QoS 1     sent ──each of its messages acknowledged──► due
//!     due ──► settled in the store          lost ──► nothing of it is; the store owes it again
//!
//! At QoS 0 nobody says what arrived. A line that broke is noticed 1.5 keep-alives later at the latest (MQTT 5, 3.1.2.10), so
//! what was sent before that has arrived, and what was sent since goes again, as history.
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
pub enum Sent {
    /// Live rows by their numbers; numbers between them that the tail did not give do no harm.
    Live(Range<u64>),
    Backlog(Token),
}

/// For the acknowledgements of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

pub struct Forward {
    /// `None`: there are acknowledgements.
    window: Option<Duration>,
    /// Rows of the backlog per second.
    rate: f64,
    credit: f64,
    refilled: Option<Instant>,
    /// In the order of sending.
    sent: VecDeque<Entry>,
    next: u64,
}

struct Entry {
    ticket: Ticket,
    what: Sent,
    at: Instant,
    /// Not acknowledged yet.
    messages: usize,
}

impl Forward {
    /// With a window (1.5 keep-alives) for QoS 0, without one for QoS 1.
    pub fn new(window: Option<Duration>, rate: u32) -> Self {
        let rate = f64::from(rate);
        Self { window, rate, credit: (rate * BURST).max(1.0), refilled: None, sent: VecDeque::new(), next: 0 }
    }

    /// It went out in so many messages; none if there was nothing to say of it.
    pub fn sent(&mut self, what: Sent, messages: usize, now: Instant) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.sent.push_back(Entry { ticket, what, at: now, messages });
        ticket
    }

    /// One message has arrived.
    pub fn acknowledged(&mut self, ticket: Ticket) {
        // In the order of sending, so it is found by halving.
        if let Ok(at) = self.sent.binary_search_by_key(&ticket.0, |entry| entry.ticket.0) {
            self.sent[at].messages = self.sent[at].messages.saturating_sub(1);
        }
    }

    /// What may be settled now. Each is said once.
    pub fn due(&mut self, now: Instant) -> Vec<Sent> {
        let window = self.window;
        let is_due = |entry: &Entry| {
            entry.messages == 0 || window.is_some_and(|window| now.saturating_duration_since(entry.at) >= window)
        };
        let (due, left) = std::mem::take(&mut self.sent).into_iter().partition::<VecDeque<_>, _>(is_due);
        self.sent = left;
        due.into_iter().map(|entry| entry.what).collect()
    }

    /// When [`Forward::due`] will have something if nothing else happens.
    pub fn next_due(&self) -> Option<Instant> {
        let first = self.sent.front()?;
        if self.sent.iter().any(|entry| entry.messages == 0) {
            return Some(first.at);
        }
        Some(first.at + self.window?)
    }

    /// How many rows of the backlog may go now.
    pub fn may_take(&mut self, now: Instant) -> usize {
        let since = self.refilled.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.credit = (self.credit + since.as_secs_f64() * self.rate).min((self.rate * BURST).max(1.0));
        self.credit as usize
    }

    /// So many of them go.
    pub fn took(&mut self, rows: usize) {
        self.credit -= rows as f64;
    }

    /// The connection is lost, and what is not settled with it.
    pub fn lost(&mut self) {
        self.sent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first numbers of what is live.
    fn live(sent: Vec<Sent>) -> Vec<u64> {
        let first = |sent| if let Sent::Live(range) = sent { range.start } else { panic!("{sent:?}") };
        sent.into_iter().map(first).collect()
    }

    #[test]
    fn at_qos_0_what_was_sent_in_the_last_keep_alives_before_a_loss_is_not_settled() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut forward = Forward::new(Some(45 * second), 1000);
        for n in 0..100 {
            forward.sent(Sent::Live(n.into()..u64::from(n) + 1), 1, start + n * second);
        }
        assert_eq!(forward.next_due(), Some(start + 45 * second));
        let due = live(forward.due(start + 99 * second));
        assert_eq!((due.len(), due.last()), (55, Some(&54)), "up to the 54th second");
        assert!(forward.due(start + 99 * second).is_empty(), "each is said once");
        forward.lost();
        assert!(forward.due(start + 1000 * second).is_empty());
        assert_eq!(forward.next_due(), None);
    }

    #[test]
    fn at_qos_1_all_messages_have_to_be_acknowledged_in_whatever_order() {
        let now = Instant::now();
        let mut forward = Forward::new(None, 1000);
        let tickets = [2, 1, 0].map(|messages| forward.sent(Sent::Live(messages as u64..9), messages, now));
        assert_eq!(live(forward.due(now)), [0], "nothing was said of it");
        forward.acknowledged(tickets[1]);
        assert!(forward.next_due().is_some());
        assert_eq!(live(forward.due(now)), [1]);
        forward.acknowledged(tickets[0]);
        forward.acknowledged(tickets[1]);
        assert!(forward.due(now + Duration::from_secs(3600)).is_empty(), "one is missing");
        forward.acknowledged(tickets[0]);
        assert_eq!(live(forward.due(now)), [2]);
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
