//! What happens, from whoever notices it to the sinks that pass it on.
//!
//!     raise, set_condition ──► recent (the last 200) ──► Events: each as it comes (counts what it loses)
//!
//! [`Hub::recent`] is for who looks later. Nothing here is on disk: a restart looks at everything anew.

use super::{Hub, lock};
use crate::model::{Event, EventId, EventKind, Happening, Timestamp};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::broadcast;

/// A reader that is further behind than this loses the oldest.
const WAITING: usize = 256;
/// How many are kept for who looks later.
const RECENT: usize = 200;

pub(super) struct Log {
    start: Timestamp,
    state: Mutex<State>,
    sender: broadcast::Sender<Happening>,
}

#[derive(Default)]
struct State {
    count: u64,
    recent: VecDeque<Happening>,
}

impl Log {
    pub(super) fn new(start: Timestamp) -> Self {
        Self { start, state: Mutex::default(), sender: broadcast::Sender::new(WAITING) }
    }

    /// Never waits. `make` gets the id; all see what happens in the order of the ids.
    pub(super) fn add(&self, make: impl FnOnce(EventId) -> Happening) {
        let mut state = lock(&self.state);
        state.count += 1;
        let happening = make(EventId { start: self.start, number: state.count });
        if state.recent.len() == RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(happening.clone());
        // An error means that nobody listens.
        let _ = self.sender.send(happening);
    }
}

/// What happens from now on.
pub struct Events(broadcast::Receiver<Happening>);

impl Events {
    /// The next one, and how many were lost before it. Cancel safe.
    pub async fn next(&mut self) -> (Happening, u64) {
        let mut lost = 0;
        loop {
            match self.0.recv().await {
                Ok(happening) => return (happening, lost),
                Err(broadcast::error::RecvError::Lagged(count)) => lost += count,
                // The hub is gone, and with it everything that can happen.
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    /// One that has happened already, if there is one.
    pub fn try_next(&mut self) -> Option<Happening> {
        loop {
            match self.0.try_recv() {
                Ok(happening) => return Some(happening),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
        }
    }
}

impl Hub {
    /// Says that something happened, just now. Never waits.
    pub fn raise(&self, kind: EventKind, source: impl Into<Arc<str>>, message: impl Into<String>) {
        let (source, message, time) = (source.into(), message.into(), self.now());
        self.0.log.add(|id| Happening::Event(Arc::new(Event { id, kind, source, message, time })));
    }

    pub fn events(&self) -> Events {
        Events(self.0.log.sender.subscribe())
    }

    /// The last things that happened, the oldest first.
    pub fn recent(&self) -> Vec<Happening> {
        lock(&self.0.log.state).recent.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    #[tokio::test]
    async fn an_event_reaches_all_who_listen_and_who_is_slow_is_told() {
        let hub = Hub::new(Clock::real());
        hub.raise(EventKind::UplinkLost, "mqtt", "nobody hears this");
        let mut events = hub.events();
        hub.raise(EventKind::UplinkBack, "mqtt", "connected");
        let (Happening::Event(event), lost) = events.next().await else { panic!() };
        assert_eq!(
            (event.kind, &*event.source, &*event.message, lost, event.id.number),
            (EventKind::UplinkBack, "mqtt", "connected", 0, 2)
        );
        for _ in 0..WAITING + 3 {
            hub.raise(EventKind::UplinkBack, "mqtt", "connected");
        }
        assert_eq!(events.next().await.1, 3);
    }

    #[test]
    fn the_last_ones_are_kept() {
        let hub = Hub::new(Clock::real());
        for number in 0..RECENT + 5 {
            hub.raise(EventKind::UplinkBack, "mqtt", number.to_string());
        }
        let recent = hub.recent();
        let Happening::Event(first) = &recent[0] else { panic!() };
        assert_eq!((recent.len(), &*first.message), (RECENT, "5"));
    }
}
