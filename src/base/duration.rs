//! Durations as people write them in a configuration: "500ms", "2s", "5m", "1h 30m".

use serde::{Deserialize, Deserializer, de::Error};
use std::time::Duration;

/// For `#[serde(deserialize_with = "duration::deserialize")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom(format!(
            "invalid duration {text:?}: write a number and a unit, as in \"500ms\", \"10s\", \"5m\""
        ))
    })
}
