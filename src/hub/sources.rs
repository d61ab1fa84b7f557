//! Sources that are lost and back: each said once, however often it is noticed. And which there are, with the last error
//! of each, for whoever shows that.

use super::{Hub, lock};
use crate::base::Stop;
use crate::model::EventKind;
use std::sync::Arc;
use tokio::sync::watch;

/// Held by the task of a source while it runs. If it ends before it was asked to, the source is lost.
pub struct Running {
    hub: Hub,
    source: Arc<str>,
    stop: Stop,
}

/// A source, or a part of one that can be lost by itself, as seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    pub is_lost: bool,
    /// Why it was lost last; stays when it is back.
    pub last_error: Option<Arc<str>>,
    /// It runs, and has yet to say whether it reaches what it reads.
    pub is_untried: bool,
    /// It has a task of its own, and is no part of another.
    runs: bool,
}

impl Hub {
    /// A source has lost what it reads, or has ended.
    pub fn source_lost(&self, source: &str, reason: &str) {
        let was_lost = self.change_source(source, |state| {
            state.last_error = Some(reason.into());
            state.is_untried = false;
            std::mem::replace(&mut state.is_lost, true)
        });
        if !was_lost {
            self.raise(EventKind::SourceLost, source, format!("Source {source} is lost: {reason}"));
        }
    }

    /// It works (again). The first time is no event.
    pub fn source_back(&self, source: &str) {
        let was_lost = self.change_source(source, |state| {
            state.is_untried = false;
            std::mem::take(&mut state.is_lost)
        });
        if was_lost {
            self.raise(EventKind::SourceBack, source, format!("Source {source} is back"));
        }
    }

    /// To be held by the task of a source for as long as it runs. `tells`: it says itself when it has reached what it reads.
    pub fn source_runs(&self, source: &str, tells: bool, stop: &Stop) -> Running {
        self.source_back(source);
        self.change_source(source, |state| (state.runs, state.is_untried) = (true, tells));
        Running { hub: self.clone(), source: source.into(), stop: stop.clone() }
    }

    /// All that were heard of, by name.
    pub fn sources(&self) -> Vec<(Arc<str>, SourceState)> {
        lock(&self.0.sources).iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    /// Those that are lost now, by name, and why.
    pub fn lost_sources(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let lost = |(name, state): (Arc<str>, SourceState)| {
            state.is_lost.then(|| (name, state.last_error.unwrap_or_default()))
        };
        self.sources().into_iter().filter_map(lost).collect()
    }

    /// Changes when [`Hub::sources`] does.
    pub fn sources_changed(&self) -> watch::Receiver<u64> {
        self.0.sources_changed.subscribe()
    }

    fn change_source<T>(&self, source: &str, change: impl FnOnce(&mut SourceState) -> T) -> T {
        let mut sources = lock(&self.0.sources);
        let before = sources.get(source).cloned();
        let state = sources.entry(source.into()).or_default();
        let outcome = change(state);
        let is_other = before.as_ref() != Some(&*state);
        drop(sources);
        if is_other {
            self.0.sources_changed.send_modify(|count| *count += 1);
        }
        outcome
    }

    /// It was asked to end, with all its parts.
    fn forget_source(&self, source: &str) {
        let is_part = |name: &str| name.strip_prefix(source).is_some_and(|rest| rest.starts_with('/'));
        lock(&self.0.sources).retain(|name, state| !(**name == *source || is_part(name) && !state.runs));
        self.0.sources_changed.send_modify(|count| *count += 1);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop.is_stopped() {
            return self.hub.forget_source(&self.source);
        }
        let reason = if std::thread::panicking() { "its task failed" } else { "its task ended" };
        self.hub.source_lost(&self.source, reason);
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

    fn names(hub: &Hub) -> Vec<String> {
        hub.sources().into_iter().map(|(name, _)| name.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_is_a_source_lost_until_it_runs_again_and_a_stop_is_none() {
        let (hub, tasks) = (Hub::new(Clock::real()), Tasks::new("test"));
        let (inner, mut runs) = (hub.clone(), 0);
        tasks.spawn("flaky", move |stop| {
            let hub = inner.clone();
            runs += 1;
            async move {
                let _running = hub.source_runs("flaky", false, &stop);
                assert!(runs > 2, "fails twice");
                stop.stopped().await;
            }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        let state = hub.sources().pop().unwrap().1;
        assert_eq!((state.is_lost, state.last_error.as_deref()), (false, Some("its task failed")));
        tasks.stop(Duration::from_secs(1)).await;
        use EventKind::{SourceBack as Back, SourceLost as Lost};
        assert_eq!(kinds(&hub), [Lost, Back, Lost, Back]);
        assert!(hub.sources().is_empty(), "it is not there any more");
    }

    #[test]
    fn one_that_reads_something_afar_is_untried_until_it_has_said_how_that_goes() {
        let (hub, tasks) = (Hub::new(Clock::real()), Tasks::new("test"));
        let stop = tasks.stop_signal();
        let untried = |hub: &Hub| hub.sources().into_iter().map(|(_, state)| state.is_untried).collect::<Vec<_>>();
        let _running = (hub.source_runs("a", true, &stop), hub.source_runs("b", false, &stop));
        assert_eq!(untried(&hub), [true, false]);
        hub.source_back("a");
        assert_eq!(untried(&hub), [false, false]);
        let _again = hub.source_runs("a", true, &stop);
        hub.source_lost("a", "no route to host");
        assert_eq!(untried(&hub), [false, false]);
    }

    #[test]
    fn a_loss_is_said_once_and_the_newest_reason_is_known() {
        let hub = Hub::new(Clock::real());
        hub.source_back("plc");
        let mut changed = hub.sources_changed();
        hub.source_lost("plc", "no route to host");
        hub.source_lost("plc", "timeout");
        assert_eq!(kinds(&hub), [EventKind::SourceLost]);
        assert_eq!(hub.lost_sources(), [("plc".into(), "timeout".into())]);
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        hub.source_lost("plc", "timeout");
        assert!(!changed.has_changed().unwrap(), "the same again is no news");
    }

    #[test]
    fn what_ends_takes_its_parts_along_but_not_others_of_such_a_name() {
        let (hub, tasks) = (Hub::new(Clock::real()), Tasks::new("test"));
        let stop = tasks.stop_signal();
        let (plc, other) = (hub.source_runs("plc", false, &stop), hub.source_runs("plc/other", false, &stop));
        hub.source_lost("plc/unit1", "timeout");
        hub.source_back("plc2");
        drop(tasks);
        drop(plc);
        assert_eq!(names(&hub), ["plc/other", "plc2"]);
        drop(other);
    }
}
