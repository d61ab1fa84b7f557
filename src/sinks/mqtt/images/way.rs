//! Pictures on their way to one broker, and what is known of how large they may be there.
//!
//!     Outbox ── next ──► fits? ──► begun ──► arrived: acknowledged, or proved by a later answer
//!                         │ no                  │ the connection ends on it, three times
//!                         └──► dropped, counted ◄┘ and its size is too large for an hour
//!
//! A broker of MQTT 3.1.1 does not say how much it takes, nor do all of MQTT 5: it closes the connection. The oldest picture goes
//! first, so the same one would end every connection, and nothing else would get through.

use super::{Outbox, Queued};
use crate::mqtt::BrokerUrl;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Connections that one picture may end.
const STRIKES: u32 = 3;
/// A connection that lasts longer after it did not end because of it.
const SOON: Duration = Duration::from_secs(10);
/// Then one as large is tried again: somebody may have changed the broker.
const HOLDS: Duration = Duration::from_secs(60 * 60);

/// What the broker of the present connection seems to take; outlives connections.
#[derive(Default)]
pub struct Sizes {
    broker: String,
    /// What the last connection ended on, and how many did.
    suspect: Option<(u64, u32)>,
    /// So many bytes are too many, as of then.
    limit: Option<(usize, Instant)>,
}

/// A picture that is on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sent {
    pub id: u64,
    pub bytes: usize,
    pub at: Instant,
}

/// Those of one connection.
pub struct Way<'a> {
    pictures: &'a Outbox,
    /// Pictures of so many bytes are not sent.
    limit: Option<usize>,
    /// Waits for its acknowledgement.
    begun: Option<Sent>,
    /// Those that are metrics, until the broker has answered to something after them.
    shown: VecDeque<Sent>,
    /// Those whose cameras are lost.
    unshown: Vec<u64>,
}

impl Sizes {
    fn is_at(&mut self, broker: &BrokerUrl) {
        let broker = broker.to_string();
        if self.broker != broker {
            *self = Self { broker, ..Self::default() };
        }
    }

    /// Pictures of so many bytes or more are not for this broker now.
    pub fn limit(&mut self, broker: &BrokerUrl) -> Option<usize> {
        self.is_at(broker);
        self.limit.filter(|(_, since)| since.elapsed() < HOLDS).map(|(bytes, _)| bytes)
    }

    /// A connection has ended on this picture. Whether it is to be given up.
    pub fn strike(&mut self, broker: &BrokerUrl, sent: &Sent) -> bool {
        self.is_at(broker);
        if sent.at.elapsed() > SOON {
            return false;
        }
        let before = self.suspect.filter(|(id, _)| *id == sent.id).map_or(0, |(_, count)| count);
        let is_known = self.limit.is_some_and(|(bytes, _)| sent.bytes >= bytes);
        let is_over = is_known || before + 1 >= STRIKES;
        self.suspect = (!is_over).then_some((sent.id, before + 1));
        if is_over {
            self.limit = Some((sent.bytes, Instant::now()));
        }
        is_over
    }
}

impl<'a> Way<'a> {
    /// Of a new connection: whatever was on its way goes again.
    pub fn new(pictures: &'a Outbox, limit: Option<usize>) -> Self {
        pictures.rewind();
        Self { pictures, limit, begun: None, shown: VecDeque::new(), unshown: Vec::new() }
    }

    /// The next that is not too large. Cancel safe.
    pub async fn next(&self) -> Queued {
        loop {
            let picture = self.pictures.next().await;
            match self.limit {
                Some(limit) if picture.snap.jpeg.len() >= limit => self.pictures.refuse(picture.id),
                _ => return picture,
            }
        }
    }

    pub fn begin(&mut self, id: u64, bytes: usize) {
        self.begun = Some(Sent { id, bytes, at: Instant::now() });
    }

    /// The one that was begun is on the line; only what is answered later proves that it has arrived.
    pub fn is_shown(&mut self) {
        self.shown.extend(self.begun.take());
    }

    /// So is known of the one that was begun.
    pub fn has_arrived(&mut self) {
        if let Some(sent) = self.begun.take() {
            self.pictures.arrived(sent.id);
        }
    }

    /// The broker does not take the one that was begun.
    pub fn is_refused(&mut self) {
        if let Some(sent) = self.begun.take() {
            self.pictures.refuse(sent.id);
        }
    }

    /// Nobody could say it now: its camera is lost.
    pub fn wait_for_its_camera(&mut self) {
        self.unshown.extend(self.begun.take().map(|sent| sent.id));
    }

    /// Cameras may be back.
    pub fn retry(&mut self) {
        self.unshown.drain(..).for_each(|id| self.pictures.release(id));
    }

    /// What was sent until then has arrived.
    pub fn prove(&mut self, at: Instant) {
        while let Some(sent) = self.shown.pop_front_if(|sent| sent.at <= at) {
            self.pictures.arrived(sent.id);
        }
    }

    /// The largest that was on its way when the connection ended.
    pub fn largest(&self) -> Option<Sent> {
        self.begun.iter().chain(&self.shown).max_by_key(|sent| sent.bytes).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_ends_three_connections_is_too_large_for_an_hour_and_then_tried_once() {
        let [one, other] = ["mqtt://one", "mqtt://other"].map(|url| BrokerUrl::try_from(url.to_owned()).unwrap());
        let sent = |id, bytes| Sent { id, bytes, at: Instant::now() };
        let mut sizes = Sizes::default();
        // A line that just breaks breaks on others, too, or long after.
        assert!(!sizes.strike(&one, &sent(1, 9000)) && !sizes.strike(&one, &sent(2, 9000)));
        assert!(!sizes.strike(&one, &sent(1, 9000)) && !sizes.strike(&one, &sent(1, 9000)));
        let late = sent(1, 9000);
        tokio::time::advance(SOON * 2).await;
        assert!(!sizes.strike(&one, &late) && sizes.limit(&one).is_none());
        assert!(sizes.strike(&one, &sent(1, 9000)));
        assert_eq!(sizes.limit(&one), Some(9000));
        tokio::time::advance(HOLDS).await;
        assert_eq!(sizes.limit(&one), None);
        assert!(!sizes.strike(&one, &sent(3, 8000)), "a smaller one is another matter");
        assert!(sizes.strike(&one, &sent(4, 9000)));
        assert_eq!((sizes.limit(&one), sizes.limit(&other)), (Some(9000), None));
    }
}
