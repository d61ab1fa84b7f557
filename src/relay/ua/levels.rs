//! What lies below a branch: browsed when it is asked for, shown as it comes, and kept for a while.
//!
//! A [`Level`] fills up while others already read it. Whoever pages through it holds it, so a page and the next are of the same
//! browse, however long the client takes. A level that failed is asked for anew by the next who wants it. One is kept for a while from
//! its end on: large ones take longer to fill than they are kept, and would be browsed again and again, each beside the others.
//!
//! Bounds: entries of one level, and of all levels that are kept; what is longer than a NodeId may be. A level that is cut says so.

use super::ids::{self, Path};
use super::places::{Place, Places};
use super::status_of_ask;
use crate::relay::protocol::{Entry, Request};
use crate::relay::worker::Worker;
use ::opcua::types::StatusCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

/// Bytes of names and ItemIDs, about, of one level and of all that are kept.
const LEVEL_BYTES: usize = 256 << 20;
const KEPT_BYTES: usize = 512 << 20;

const PLACES: &str = "no code that holds the places panics";

pub(super) struct Levels {
    server: Arc<str>,
    keep: Duration,
    kept: Mutex<HashMap<Path, Arc<Level>>>,
    places: Arc<Mutex<Places>>,
    fills: Mutex<JoinSet<()>>,
}

pub(super) struct Level {
    entries: Mutex<Entries>,
    grown: watch::Sender<()>,
}

#[derive(Default)]
struct Entries {
    all: Vec<Arc<Entry>>,
    bytes: usize,
    /// How it ended, if it has, and when.
    end: Option<Result<(), StatusCode>>,
    ended: Option<Instant>,
}

impl Levels {
    pub(super) fn new(server: Arc<str>, keep: Duration) -> Self {
        Self { server, keep, kept: Mutex::default(), places: Arc::default(), fills: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Path, Arc<Level>>> {
        self.kept.lock().expect("no code that holds the levels panics")
    }

    /// Where an item was seen.
    pub(super) fn places(&self, item: &str) -> Vec<Place> {
        self.places.lock().expect(PLACES).of(item).to_vec()
    }

    /// What lies below `path`; it may be on its way yet.
    pub(super) fn below(&self, path: &Path, worker: &Worker) -> Arc<Level> {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.retain(|_, level| !level.is_over(now, self.keep));
        if let Some(level) = kept.get(path) {
            return level.clone();
        }
        if kept.values().map(|level| level.lock().bytes).sum::<usize>() > KEPT_BYTES {
            kept.clear();
        }
        let level = Arc::new(Level { entries: Mutex::default(), grown: watch::Sender::new(()) });
        kept.insert(path.clone(), level.clone());
        drop(kept);
        self.fill(path, level.clone(), worker.clone());
        level
    }

    fn fill(&self, path: &Path, level: Arc<Level>, worker: Worker) {
        let (server, branch, above) = (self.server.clone(), path.branch(), Arc::new(path.clone()));
        let (filled, places) = (level.clone(), self.places.clone());
        let mut is_said = false;
        let pieces = Box::new(move |mut entries: Vec<Entry>| {
            let before = entries.len();
            entries.iter_mut().for_each(|entry| leave_out_what_is_too_long(&above, entry));
            entries.retain(|entry| entry.is_branch || entry.is_item);
            if entries.len() < before && !std::mem::replace(&mut is_said, true) {
                warn!(%server, branch = ?branch.names, "Some of a level is longer than NodeIds may be; it is left out.");
            }
            let entries: Vec<Arc<Entry>> = entries.into_iter().map(Arc::new).collect();
            places.lock().expect(PLACES).see(&above, &entries);
            if filled.add(entries) {
                warn!(%server, branch = ?branch.names, "A level has more entries than are kept; the rest is left out.");
            }
        });
        let request = Request::Browse { branch: path.branch() };
        // Goes on when the client who asked first has gone; it ends with the worker's answer or with its life.
        let mut fills = self.fills.lock().expect("no code that holds them panics");
        while fills.try_join_next().is_some() {}
        fills.spawn(async move {
            let end = worker.browse(request, pieces).await.map(drop);
            level.end(end.map_err(|error| status_of_ask(&error)));
        });
    }
}

fn leave_out_what_is_too_long(above: &Path, entry: &mut Entry) {
    entry.is_item &= entry.item_id.as_ref().is_some_and(|item| item.len() <= ids::LONGEST);
    entry.is_branch = entry.is_branch && above.child(entry).is_sayable();
}

impl Level {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().expect("no code that holds the entries panics")
    }

    /// Whether something had to be left out, for the first time.
    fn add(&self, entries: Vec<Arc<Entry>>) -> bool {
        let mut state = self.lock();
        let was_full = state.bytes > LEVEL_BYTES;
        for entry in entries {
            let bytes = 100 + entry.name.len() + entry.item_id.as_ref().map_or(0, String::len);
            if state.bytes <= LEVEL_BYTES {
                state.bytes += bytes;
                state.all.push(entry);
            }
        }
        let is_full = state.bytes > LEVEL_BYTES;
        drop(state);
        self.grown.send_replace(());
        is_full && !was_full
    }

    fn end(&self, end: Result<(), StatusCode>) {
        let mut state = self.lock();
        (state.end, state.ended) = (Some(end), Some(Instant::now()));
        drop(state);
        self.grown.send_replace(());
    }

    /// Whether the next who wants it gets another one.
    fn is_over(&self, now: Instant, keep: Duration) -> bool {
        let state = self.lock();
        let is_old = state.ended.is_some_and(|ended| now.duration_since(ended) >= keep);
        is_old || matches!(state.end, Some(Err(_)))
    }

    /// Up to `count` entries from `from` on, and whether there may be more: as soon as there are so many or the level is whole;
    /// what has come if that takes longer than `patience`. An error if the browse failed before `from`.
    pub(super) async fn page(
        &self,
        from: usize,
        count: usize,
        patience: Duration,
    ) -> Result<(Vec<Arc<Entry>>, bool), StatusCode> {
        let mut grown = self.grown.subscribe();
        let until = Instant::now() + patience;
        loop {
            grown.borrow_and_update();
            let is_late = Instant::now() >= until;
            {
                let state = self.lock();
                let here = state.all.get(from..).unwrap_or_default();
                let is_enough = here.len() >= count || state.end.is_some() || is_late;
                if is_enough {
                    let has_more = here.len() > count || !matches!(state.end, Some(Ok(())));
                    return match state.end {
                        Some(Err(status)) if here.is_empty() => Err(status),
                        _ => Ok((here[..here.len().min(count)].to_vec(), has_more)),
                    };
                }
            }
            // The sender is ours, so only the time may run out.
            let _ = tokio::time::timeout_at(until, grown.changed()).await;
        }
    }

    /// Entries of a name, as soon as there is one; none only if the level is whole and has none.
    pub(super) async fn named(
        &self,
        is_it: impl Fn(&Entry) -> bool,
        patience: Duration,
    ) -> Result<Vec<Arc<Entry>>, StatusCode> {
        let mut grown = self.grown.subscribe();
        let until = Instant::now() + patience;
        let mut seen = 0;
        loop {
            grown.borrow_and_update();
            let is_late = Instant::now() >= until;
            let (found, end) = {
                let state = self.lock();
                let new = &state.all[seen..];
                seen = state.all.len();
                (new.iter().filter(|entry| is_it(entry)).cloned().collect::<Vec<_>>(), state.end)
            };
            match end {
                _ if !found.is_empty() => return Ok(found),
                Some(Ok(())) => return Ok(Vec::new()),
                Some(Err(status)) => return Err(status),
                None if is_late => return Err(StatusCode::BadTimeout),
                None => {}
            }
            // The sender is ours, so only the time may run out.
            let _ = tokio::time::timeout_at(until, grown.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Arc<Entry> {
        Arc::new(Entry { name: name.into(), item_id: Some(name.into()), is_branch: false, is_item: true })
    }

    fn level() -> Arc<Level> {
        Arc::new(Level { entries: Mutex::default(), grown: watch::Sender::new(()) })
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_page_is_there_as_soon_as_its_entries_are() {
        let level = level();
        level.add(vec![entry("a"), entry("b"), entry("c")]);
        let names = |page: &[Arc<Entry>]| page.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
        let (page, more) = level.page(0, 2, SECOND).await.unwrap();
        assert_eq!((names(&page), more), (vec!["a".to_owned(), "b".to_owned()], true));
        let (page, more) = level.page(2, 2, SECOND).await.unwrap();
        assert_eq!((names(&page), more), (vec!["c".to_owned()], true), "late, so what there is");
        let (next, ()) = tokio::join!(level.page(3, 2, SECOND), async {
            level.add(vec![entry("d")]);
            level.end(Ok(()));
        });
        let (page, more) = next.unwrap();
        assert_eq!((names(&page), more), (vec!["d".to_owned()], false));
        assert_eq!(level.page(4, 2, SECOND).await.unwrap(), (vec![], false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_says_so_after_what_had_come() {
        let level = level();
        level.add(vec![entry("a")]);
        level.end(Err(StatusCode::BadNotConnected));
        assert_eq!(level.page(0, 5, SECOND).await.unwrap(), (vec![entry("a")], true));
        assert_eq!(level.page(1, 5, SECOND).await, Err(StatusCode::BadNotConnected));
        assert!(level.is_over(Instant::now(), SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_is_kept_from_its_end_on() {
        let level = level();
        tokio::time::advance(10 * SECOND).await;
        assert!(!level.is_over(Instant::now(), SECOND), "it still fills up");
        level.end(Ok(()));
        assert!(!level.is_over(Instant::now(), SECOND));
        tokio::time::advance(SECOND).await;
        assert!(level.is_over(Instant::now(), SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_found_before_the_level_is_whole() {
        let level = level();
        level.add(vec![entry("a")]);
        let find = |name: &'static str| level.named(move |entry| entry.name == name, SECOND);
        assert_eq!(find("a").await, Ok(vec![entry("a")]));
        assert_eq!(find("b").await, Err(StatusCode::BadTimeout), "it may come yet");
        let (found, ()) = tokio::join!(find("b"), async {
            tokio::task::yield_now().await;
            level.add(vec![entry("b")]);
        });
        assert_eq!(found, Ok(vec![entry("b")]));
        level.end(Ok(()));
        assert_eq!(find("c").await, Ok(vec![]));
    }

    #[test]
    fn what_is_longer_than_a_node_id_is_left_out() {
        let branch =
            |name: &str| Entry { name: name.into(), item_id: Some(name.into()), is_branch: true, is_item: true };
        let mut above = Path::default();
        let mut depth = 0;
        loop {
            let mut below = branch("round and round");
            leave_out_what_is_too_long(&above, &mut below);
            assert!(below.is_item);
            if !below.is_branch {
                break;
            }
            above = above.child(&below);
            depth += 1;
        }
        assert!((50..200).contains(&depth), "{depth}");
        let mut long = branch(&"x".repeat(64 << 10));
        leave_out_what_is_too_long(&Path::default(), &mut long);
        assert!(!long.is_item && !long.is_branch);
    }
}
