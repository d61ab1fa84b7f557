//! `[store]`: what the disk holds of samples, for the history and for the uplink.

use crate::base::{bytes, duration};
use serde::Deserialize;
use std::time::Duration;

/// `[store]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the samples may take on the disk; the oldest go. Default: "256MiB".
    #[serde(deserialize_with = "bytes::deserialize")]
    pub max_bytes: u64,
    /// Samples that are older go. Default: "30d".
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_age: Duration,
    /// Samples are gathered for so long before they are written; what a power cut loses at most, and how late the uplink
    /// has them. Default: "1s".
    #[serde(deserialize_with = "duration::deserialize")]
    pub commit_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_age: Duration::from_secs(30 * 86_400),
            commit_interval: Duration::from_secs(1),
        }
    }
}

/// Less would not hold what is gathered before it is put in order.
const LEAST_BYTES: u64 = 8 << 20;

impl Config {
    /// What is wrong with the values, as (key, what and what would be right).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.max_bytes < LEAST_BYTES {
            faults.push(("max_bytes", "must be \"8MiB\" or more".to_owned()));
        }
        if self.max_age < Duration::from_secs(60) {
            faults.push(("max_age", "must be \"1m\" or more".to_owned()));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&self.commit_interval) {
            faults.push(("commit_interval", "must be between \"10ms\" and \"1m\"".to_owned()));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let read = |text| toml::from_str::<Config>(text).unwrap().check();
        assert!(read("max_bytes = '8MiB'\nmax_age = '1h'\ncommit_interval = '10ms'").is_empty());
        let faults = read("max_bytes = '1kB'\nmax_age = '1s'\ncommit_interval = '1ms'");
        let keys: Vec<_> = faults.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["max_bytes", "max_age", "commit_interval"]);
    }
}
