//! Sources that are lost and back: each said once, however often it is noticed.

use super::{Hub, lock};
use crate::base::Stop;
use crate::model::EventKind;
use std::sync::Arc;

/// Held by the task of a source while it runs. If it ends before it was asked to, the source is lost.
pub struct Running {
    hub: Hub,
    source: Arc<str>,
    stop: Stop,
}

impl Hub {
    /// A source has lost what it reads, or has ended.
    pub fn source_lost(&self, source: &str, reason: &str) {
        if lock(&self.0.lost).insert(source.into()) {
            self.raise(EventKind::SourceLost, source, format!("Source {source} is lost: {reason}"));
        }
    }

    /// It works (again). The first time is no event.
    pub fn source_back(&self, source: &str) {
        if lock(&self.0.lost).remove(source) {
            self.raise(EventKind::SourceBack, source, format!("Source {source} is back"));
        }
    }

    /// To be held by the task of a source for as long as it runs.
    pub fn source_runs(&self, source: &str, stop: &Stop) -> Running {
        self.source_back(source);
        Running { hub: self.clone(), source: source.into(), stop: stop.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.stop.is_stopped() {
            let reason = if std::thread::panicking() { "its task failed" } else { "its task ended" };
            self.hub.source_lost(&self.source, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};
    use crate::model::Happening;
    use std::time::Duration;

    fn kinds(hub: &Hub) -> Vec<EventKind> {
        let event = |happening| match happening {
            Happening::Event(event) => event.kind,
            Happening::Condition(_) => unreachable!("there are none"),
        };
        hub.recent().into_iter().map(event).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_is_a_source_lost_until_it_runs_again_and_a_stop_is_none() {
        let (hub, tasks) = (Hub::new(Clock::real()), Tasks::new("test"));
        let (inner, mut runs) = (hub.clone(), 0);
        tasks.spawn("flaky", move |stop| {
            let hub = inner.clone();
            runs += 1;
            async move {
                let _running = hub.source_runs("flaky", &stop);
                assert!(runs > 2, "fails twice");
                stop.stopped().await;
            }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        tasks.stop(Duration::from_secs(1)).await;
        use EventKind::{SourceBack as Back, SourceLost as Lost};
        assert_eq!(kinds(&hub), [Lost, Back, Lost, Back]);
    }

    #[test]
    fn a_loss_is_said_once() {
        let hub = Hub::new(Clock::real());
        hub.source_back("plc");
        hub.source_lost("plc", "no route to host");
        hub.source_lost("plc", "timeout");
        assert_eq!(kinds(&hub), [EventKind::SourceLost]);
    }
}
