//! STATE: a host application says whether it is there (Sparkplug 3.0, 6.4.26), as JSON: `{"online": true, "timestamp": 1668114759262}`.

use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostState {
    pub online: bool,
    /// Of the host's CONNECT, in milliseconds since 1970. A death has that of the birth it ends, or a later one.
    pub timestamp: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("it is no {{\"online\": true|false, \"timestamp\": MILLISECONDS}}: {0}")]
pub struct HostStateError(String);

/// A STATE is some 50 bytes; what is much longer is none.
const LONGEST: usize = 4096;

#[derive(Deserialize)]
struct Json {
    online: bool,
    timestamp: serde_json::Number,
}

impl HostState {
    pub fn read(payload: &[u8]) -> Result<Self, HostStateError> {
        if payload.len() > LONGEST {
            return Err(HostStateError(format!("it is {} bytes long", payload.len())));
        }
        let Json { online, timestamp } =
            serde_json::from_slice(payload).map_err(|error| HostStateError(error.to_string()))?;
        // Languages without integers write 1668114759262.0.
        let whole = |number: f64| (number.fract() == 0.0 && (0.0..=9e15).contains(&number)).then_some(number as u64);
        let millis = timestamp.as_u64().or_else(|| timestamp.as_f64().and_then(whole));
        let timestamp = millis.ok_or_else(|| HostStateError(format!("the timestamp is {timestamp}")))?;
        Ok(Self { online, timestamp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_hosts_are_read() {
        let read = |text: &str| HostState::read(text.as_bytes()).ok().map(|state| (state.online, state.timestamp));
        assert_eq!(read(r#"{"online":true,"timestamp":1668114759262}"#), Some((true, 1_668_114_759_262)));
        assert_eq!(read(r#" {"timestamp" : 16.0, "online" : false, "more": [1] } "#), Some((false, 16)));
    }

    #[test]
    fn garbage_is_none() {
        let long = format!(r#"{{"online":true,"timestamp":1,"x":"{}"}}"#, "x".repeat(LONGEST));
        for text in [
            "",
            "ONLINE",
            "OFFLINE",
            "true",
            "[]",
            r#"{"online":true}"#,
            r#"{"timestamp":1}"#,
            r#"{"online":"true","timestamp":1}"#,
            r#"{"online":1,"timestamp":1}"#,
            r#"{"online":true,"timestamp":"1"}"#,
            r#"{"online":true,"timestamp":-1}"#,
            r#"{"online":true,"timestamp":1.5}"#,
            r#"{"online":true,"timestamp":1e300}"#,
            r#"{"online":true,"timestamp":null}"#,
            r#"{"online":true,"timestamp":1"#,
            &long,
        ] {
            assert!(HostState::read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(HostState::read(b"\xFF\xFE").is_err());
    }
}
