//! Which video nodes come and go, for people who watch: `vedette cameras --watch`.
//!
//! A look at /dev is cheap and opens nothing, so it is taken twice a second, and at once when there is news of a device.
//! A node that came is opened once, when udev is done with it, or after a while without that.

use super::discover::{NodeStamp, describe, nodes};
use super::{Node, Uevents, is_settled};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const GLANCE: Duration = Duration::from_millis(500);
const SETTLE: Duration = Duration::from_secs(10);

pub struct Watch {
    /// Without news it only takes longer.
    uevents: Option<Uevents>,
    seen: BTreeMap<PathBuf, Seen>,
}

struct Seen {
    stamp: NodeStamp,
    since: Instant,
    /// None until udev is done with it.
    node: Option<Node>,
}

#[derive(Debug)]
pub enum Change {
    Added(Node),
    Removed(Node),
}

impl Watch {
    pub fn start() -> Self {
        Self { uevents: Uevents::open().ok(), seen: BTreeMap::new() }
    }

    /// Waits a moment for something to come or go.
    pub fn wait(&self) {
        match &self.uevents {
            // An error says that news was lost; the look that follows finds out.
            Some(uevents) => drop(uevents.wait(GLANCE)),
            None => std::thread::sleep(GLANCE),
        }
    }

    /// What came and went since the last look; at the first, all that is there came.
    pub fn look(&mut self) -> Vec<Change> {
        let is_settled = |path: &Path, since: Instant| is_settled(path) || since.elapsed() >= SETTLE;
        self.compare(&nodes(), is_settled, |path| Node { listing: describe(path), path: path.into() })
    }

    fn compare(
        &mut self,
        found: &[(PathBuf, NodeStamp)],
        is_settled: impl Fn(&Path, Instant) -> bool,
        describe: impl Fn(&Path) -> Node,
    ) -> Vec<Change> {
        // A node with another stamp is another node.
        let gone = self.seen.extract_if(.., |path, seen| !found.contains(&(path.clone(), seen.stamp)));
        let mut changes: Vec<_> = gone.filter_map(|(_, seen)| seen.node).map(Change::Removed).collect();
        for (path, stamp) in found {
            let new = Seen { stamp: *stamp, since: Instant::now(), node: None };
            let seen = self.seen.entry(path.clone()).or_insert(new);
            if seen.node.is_none() && is_settled(path, seen.since) {
                let node = describe(path);
                seen.node = Some(node.clone());
                changes.push(Change::Added(node));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::super::Listing;
    use super::*;

    #[test]
    fn nodes_come_and_go_and_are_replaced() {
        let mut watch = Watch { uevents: None, seen: BTreeMap::new() };
        let mut look = |found: &[(&str, u64)], settled: bool| {
            let found: Vec<_> = found.iter().map(|&(path, inode)| (path.into(), NodeStamp::new(inode))).collect();
            let describe = |path: &Path| Node { path: path.into(), listing: Listing::Unknown { error: "?".into() } };
            let changes = watch.compare(&found, |_, _| settled, describe);
            let line = |change: &Change| match change {
                Change::Added(node) => format!("+{}", node.path.display()),
                Change::Removed(node) => format!("-{}", node.path.display()),
            };
            changes.iter().map(line).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(look(&[("2", 1), ("10", 1)], true), "+2 +10");
        assert_eq!(look(&[("2", 1), ("10", 1)], true), "");
        assert_eq!(look(&[("2", 1), ("10", 1), ("11", 1)], false), "");
        assert_eq!(look(&[("2", 1), ("10", 1), ("11", 1)], true), "+11");
        assert_eq!(look(&[("2", 2), ("11", 1)], true), "-10 -2 +2");
        assert_eq!(look(&[("3", 1)], false), "-11 -2");
        assert_eq!(look(&[], true), "", "what was never shown does not go");
    }
}
