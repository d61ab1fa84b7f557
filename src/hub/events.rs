//! Events from whoever notices something to the sinks that pass it on.

use super::Hub;
use crate::model::{Event, EventKind};
use std::sync::Arc;
use tokio::sync::broadcast;

/// A reader that is further behind than this loses the oldest.
const WAITING: usize = 256;

pub(super) fn channel() -> broadcast::Sender<Arc<Event>> {
    broadcast::Sender::new(WAITING)
}

/// What happens from now on.
pub struct Events(broadcast::Receiver<Arc<Event>>);

impl Events {
    /// The next event, and how many were lost before it. Cancel safe.
    pub async fn next(&mut self) -> (Arc<Event>, u64) {
        let mut lost = 0;
        loop {
            match self.0.recv().await {
                Ok(event) => return (event, lost),
                Err(broadcast::error::RecvError::Lagged(count)) => lost += count,
                // The hub is gone, and with it everything that can happen.
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            }
        }
    }
}

impl Hub {
    /// Says that something happened, just now. Never waits.
    pub fn raise(&self, kind: EventKind, source: impl Into<Arc<str>>, message: impl Into<String>) {
        let event = Event { kind, source: source.into(), message: message.into(), time: self.now() };
        // An error means that nobody listens.
        let _ = self.0.events.send(Arc::new(event));
    }

    pub fn events(&self) -> Events {
        Events(self.0.events.subscribe())
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
        let (event, lost) = events.next().await;
        assert_eq!(
            (event.kind, &*event.source, &*event.message, lost),
            (EventKind::UplinkBack, "mqtt", "connected", 0)
        );
        for _ in 0..WAITING + 3 {
            hub.raise(EventKind::UplinkBack, "mqtt", "connected");
        }
        assert_eq!(events.next().await.1, 3);
    }
}
