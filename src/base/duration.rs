//! Durations as people write them in a configuration: `500ms`, `10s`, `5m`, `1h 30m`.

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::time::Duration;

/// For `#[serde(deserialize_with = "crate::base::duration::deserialize")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    /// A bare number is the usual slip, so it is taken in to be refused with the way out.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Integer(i64),
        Float(f64),
    }
    let text = match Written::deserialize(deserializer) {
        Ok(Written::Text(text)) => text,
        Ok(Written::Integer(number)) => number.to_string(),
        Ok(Written::Float(number)) => number.to_string(),
        Err(_) => return Err(Error::custom(r#"invalid duration: write a text, as in "500ms", "10s", "5m""#)),
    };
    parse(&text).map_err(Error::custom)
}

/// The same for an `Option<Duration>`, which is `Some` where something is written.
pub fn deserialize_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    deserialize(deserializer).map(Some)
}

/// Longer is a slip, and no moment can be so far from now.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The same from a command line.
pub fn parse(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        // humantime takes a bare "0"; elsewhere a number without a unit is refused, so here as well.
        Ok(duration) if duration > LONGEST => Err(format!("invalid duration {text:?}: at most 100 years")),
        Ok(duration) if text.trim().chars().any(char::is_alphabetic) => Ok(duration),
        _ => Err(format!(r#"invalid duration {text:?}: write a number and a unit, as in "500ms", "10s", "5m""#)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Config {
        #[serde(deserialize_with = "deserialize")]
        every: Duration,
    }

    fn read(toml: &str) -> Result<Duration, String> {
        toml::from_str::<Config>(toml).map(|config| config.every).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_number_and_a_unit() {
        assert_eq!(read(r#"every = "500ms""#), Ok(Duration::from_millis(500)));
        assert_eq!(read(r#"every = "1h 30m""#), Ok(Duration::from_secs(5400)));
        assert_eq!(read(r#"every = "0s""#), Ok(Duration::ZERO));
        assert!(read(r#"every = "18446744073709551615s""#).unwrap_err().contains("at most 100 years"));
    }

    #[test]
    fn anything_else_is_refused_with_the_way_out() {
        for toml in [r#"every = "5""#, "every = 5"] {
            let wanted = r#"invalid duration "5": write a number and a unit, as in "500ms", "10s", "5m""#;
            assert_eq!(read(toml).unwrap_err(), wanted, "{toml}");
        }
        for toml in [r#"every = "soon""#, r#"every = "-1s""#, r#"every = """#, r#"every = "0""#, "every = 1.5"] {
            assert!(read(toml).unwrap_err().starts_with("invalid duration \""), "{toml}");
        }
        assert!(read("every = []").unwrap_err().starts_with("invalid duration: write a text"));
    }
}
