//! The payload of a request: `{"id": "...", "command": "...", "args": {...}}`, and nothing else.
//!
//! It comes from outside, so it is bounded before it is read: [`LARGEST`] bytes, an id of 64 characters that can be a level
//! of a topic and a word in a log. What cannot be read is answered if at least its id could be.

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json};
use std::fmt;

/// A configuration is the longest that anybody sends.
const LARGEST: usize = 256 * 1024;
const LONGEST_ID: usize = 64;

const RIGHT: &str = r#"a request is {"id": "1", "command": "status", "args": {}}"#;

#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) command: String,
    pub(super) args: Map<String, Json>,
}

/// Why there is no request, and whom to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) id: Option<String>,
    pub(super) what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    command: String,
    #[serde(default, deserialize_with = "each_once")]
    args: Map<String, Json>,
}

/// A map as it is written would keep the last of two values, and nobody would know which was meant.
fn each_once<'de, D: Deserializer<'de>>(source: D) -> Result<Map<String, Json>, D::Error> {
    struct EachOnce;
    impl<'de> Visitor<'de> for EachOnce {
        type Value = Map<String, Json>;

        fn expecting(&self, text: &mut fmt::Formatter) -> fmt::Result {
            text.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Self::Value, A::Error> {
            let mut args = Map::new();
            while let Some((name, value)) = source.next_entry::<String, Json>()? {
                if args.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("duplicate field `{name}` in args")));
                }
                args.insert(name, value);
            }
            Ok(args)
        }
    }
    source.deserialize_map(EachOnce)
}

pub(super) fn read(payload: &[u8]) -> Result<Request, Fault> {
    if payload.len() > LARGEST {
        let what = format!("a request of {} bytes is too large; {LARGEST} are the most", payload.len());
        return Err(Fault { id: id_of(payload), what });
    }
    let Written { id, command, args } = serde_json::from_slice(payload)
        .map_err(|error| Fault { id: id_of(payload), what: format!("it is not understood ({error}); {RIGHT}") })?;
    if !is_id(&id) {
        let what = format!("an id is 1 to {LONGEST_ID} letters, digits, '-', '_', '.' and ':'");
        return Err(Fault { id: None, what });
    }
    Ok(Request { id, command, args })
}

/// Of something that is JSON but no request.
fn id_of(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_slice(payload).ok().map(|Named { id }| id).filter(|id| is_id(id))
}

fn is_id(id: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (1..=LONGEST_ID).contains(&id.len()) && id.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(payload: &str) -> (Option<String>, String) {
        let Fault { id, what } = read(payload.as_bytes()).unwrap_err();
        (id, what)
    }

    #[test]
    fn id_and_command_are_enough() {
        let request = read(br#"{"id": "a-1", "command": "status"}"#).unwrap();
        assert_eq!((request.id.as_str(), request.command.as_str(), request.args.len()), ("a-1", "status", 0));
    }

    #[test]
    fn what_is_wrong_is_said_to_whom_it_can_be_said() {
        for (payload, id, words) in [
            ("", None, "a request is {"),
            ("reboot", None, "a request is {"),
            ("[]", None, "a request is {"),
            (r#"{"command": "status"}"#, None, "missing field `id`"),
            (r#"{"id": 7, "command": "status"}"#, None, "a request is {"),
            (r#"{"id": "a"}"#, Some("a"), "missing field `command`"),
            (r#"{"id": "a", "command": "status", "state": "done"}"#, Some("a"), "unknown field `state`"),
            (r#"{"id": "a", "command": "status", "args": 5}"#, Some("a"), "a request is {"),
            (r#"{"id": "a", "id": "b", "command": "status"}"#, None, "duplicate field `id`"),
            (
                r#"{"id": "a", "command": "write", "args": {"tag": "x", "tag": "y"}}"#,
                Some("a"),
                "duplicate field `tag`",
            ),
            (r#"{"id": "a/b", "command": "status"}"#, None, "an id is"),
            (r#"{"id": "", "command": "status"}"#, None, "an id is"),
            (r##"{"id": "#", "command": "status"}"##, None, "an id is"),
        ] {
            let (found, what) = fault(payload);
            assert_eq!(found.as_deref(), id, "{payload}");
            assert!(what.contains(words), "{payload}: {what}");
        }
        let large =
            format!(r#"{{"id": "a", "command": "config.apply", "args": {{"toml": "{}"}}}}"#, "x".repeat(LARGEST));
        let (id, what) = fault(&large);
        assert!(id.as_deref() == Some("a") && what.contains("too large"), "{what}");
        assert!(fault(&"[".repeat(100_000)).1.contains("a request is"), "depth is bounded");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&payload);
        }

        #[test]
        fn what_looks_like_a_request_is_read_or_refused(
            id in ".{0,70}", command in ".{0,20}", key in "[a-z_]{0,12}", text in ".{0,40}", number in any::<f64>(),
        ) {
            let payload = serde_json::json!({"id": id, "command": command, "args": {key: [text, number]}});
            if let Ok(request) = read(&serde_json::to_vec(&payload).unwrap()) {
                prop_assert!(is_id(&request.id));
                let _ = super::super::catalog::parse(&request);
            }
        }
    }
}
