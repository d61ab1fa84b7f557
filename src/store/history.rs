//! `[history]`: which samples and pictures are kept for those who ask for them later.

use super::Store;
use super::pictures::Pictures;
use crate::base::selection::{Selection, check_pattern};
use crate::base::{bytes, duration};
use serde::Deserialize;
use std::time::Duration;

/// `[history]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Tags whose samples are kept, by name. In a pattern `*` stands for any part of a segment, `?` for one character, and
    /// `**` as a segment for any number of segments: "system/**", "line1/*". Default: none.
    pub tags: Vec<String>,
    /// Cameras whose pictures are kept, by the same patterns: those that the method Snapshot takes, and those of
    /// `snapshot_interval`. Default: none.
    pub cameras: Vec<String>,
    /// Pictures kept of each of those cameras at most. Default: 20.
    pub snapshots: usize,
    /// What the pictures of all cameras may take on the disk; the oldest go. Default: "64MiB".
    #[serde(deserialize_with = "bytes::deserialize")]
    pub snapshot_bytes: u64,
    /// Take and keep a picture of each of those cameras so often. Default: never.
    #[serde(deserialize_with = "duration::deserialize_some")]
    pub snapshot_interval: Option<Duration>,
}

/// What `[history]` asks for, for those who write it and those who read it.
#[derive(Clone)]
pub struct History {
    pub store: Store,
    pub pictures: Pictures,
    /// Whose samples are kept.
    pub tags: Selection,
    /// Whose pictures are kept.
    pub cameras: Selection,
    pub snapshot_interval: Option<Duration>,
}

impl History {
    /// In the folder of the store.
    pub fn new(config: &Config, store: Store) -> Self {
        Self {
            pictures: Pictures::new(config, store.folder()),
            tags: config.tags(),
            cameras: config.cameras(),
            snapshot_interval: config.snapshot_interval,
            store,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { tags: Vec::new(), cameras: Vec::new(), snapshots: 20, snapshot_bytes: 64 << 20, snapshot_interval: None }
    }
}

impl Config {
    /// What is wrong with the values, as (key, what and what would be right).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for (key, patterns) in [("tags", &self.tags), ("cameras", &self.cameras)] {
            faults.extend(patterns.iter().filter_map(|pattern| Some((key, check_pattern(pattern)?))));
        }
        if !(1..=10_000).contains(&self.snapshots) {
            faults.push(("snapshots", "must be between 1 and 10000; for none leave `cameras` out".to_owned()));
        }
        if self.snapshot_bytes < 1 << 20 {
            faults.push(("snapshot_bytes", "must be \"1MiB\" or more".to_owned()));
        }
        if self.snapshot_interval.is_some_and(|interval| interval < Duration::from_secs(1)) {
            faults.push(("snapshot_interval", "must be \"1s\" or more".to_owned()));
        }
        faults
    }

    /// Which tags are kept.
    pub fn tags(&self) -> Selection {
        Selection::new(&self.tags)
    }

    /// Of which cameras pictures are kept.
    pub fn cameras(&self) -> Selection {
        Selection::new(&self.cameras)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let read = |text| toml::from_str::<Config>(text).unwrap().check();
        assert!(read("tags = ['system/**']\nsnapshot_interval = '1m'").is_empty());
        let keys = |text| read(text).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(
            keys("snapshots = 0\nsnapshot_bytes = '1kB'\nsnapshot_interval = '1ms'"),
            ["snapshots", "snapshot_bytes", "snapshot_interval"]
        );
        assert_eq!(keys("tags = ['a//b']\ncameras = ['']"), ["tags", "cameras"]);
    }
}
