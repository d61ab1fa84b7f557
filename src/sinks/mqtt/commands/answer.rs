//! Where answers go, and what they say.
//!
//! To the response topic of the request with its correlation data, if it has one (MQTT 5), else to
//! `<base>/answer/<role>/<id>`, so that the broker's access list can keep the answers to one role from another. QoS 1, never
//! retained.

use super::request::Request;
use crate::model::{Role, Timestamp};
use crate::mqtt::line::{Message, Properties, QoS, Received};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Longer ones are of nobody who only wants an answer.
const LONGEST_TOPIC: usize = 1024;
const LONGEST_CORRELATION: usize = 1024;

/// Of one request. As text it survives the uplink and the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    pub(super) id: String,
    pub(super) command: String,
    asked: Asked,
    topic: String,
    correlation: Option<Vec<u8>>,
}

/// What was asked and by which role: another request with the same id is another one, of somebody else or about something
/// else, and must not get the answer to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    role: Role,
    hash: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Accepted,
    Progress,
    Done,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    pub(super) id: String,
    command: String,
    pub(super) state: State,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Json>,
    #[serde(skip)]
    asked: Asked,
}

impl Asked {
    /// Of a request as it was read, or of the payload that is none.
    pub(super) fn new(role: Role, request: Result<&Request, &[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        match request {
            // Members are sorted, so who writes them in another order asks for the same.
            Ok(Request { command, args, .. }) => (command, Json::Object(args.clone()).to_string()).hash(&mut hasher),
            Err(payload) => payload.hash(&mut hasher),
        }
        Self { role, hash: hasher.finish() }
    }
}

impl Address {
    /// Of a request with this id for this command.
    pub(super) fn of(base: &str, id: &str, command: &str, asked: Asked, received: &Received) -> Result<Self, String> {
        let role = asked.role;
        let topic = match &received.properties.response_topic {
            Some(topic) => check(topic, role).map(|()| topic.clone())?,
            None => format!("{base}/answer/{role}/{id}"),
        };
        let correlation = received.properties.correlation_data.as_ref().map(|bytes| bytes.to_vec());
        if correlation.as_ref().is_some_and(|bytes| bytes.len() > LONGEST_CORRELATION) {
            return Err(format!("correlation data of more than {LONGEST_CORRELATION} bytes"));
        }
        // A name that is none is not worth keeping.
        let command = command.chars().take(32).collect();
        Ok(Self { id: id.to_owned(), command, asked, topic, correlation })
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON")
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn message(&self, answer: &Answer) -> Message {
        Message {
            topic: self.topic.clone(),
            payload: serde_json::to_vec(answer).expect("an answer is JSON").into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties {
                content_type: Some("application/json".into()),
                correlation_data: self.correlation.clone().map(Into::into),
                ..Properties::default()
            },
        }
    }
}

/// A response topic comes from whoever may send a request. It must not make this device command others in its own name, or
/// answer in the place where another role listens.
fn check(topic: &str, role: Role) -> Result<(), String> {
    let levels: Vec<&str> = topic.split('/').collect();
    let is_topic = (1..=LONGEST_TOPIC).contains(&topic.len()) && !topic.contains(['+', '#', '\0']);
    let is_ours = |kind: &str| levels.first() == Some(&"vedette") && levels.get(3) == Some(&kind);
    let is_of_others = is_ours("answer") && levels.get(4) != Some(&role.to_string().as_str());
    let is_sparkplug = levels[0].starts_with("spBv");
    if !is_topic || is_ours("command") || is_of_others || is_sparkplug || topic.starts_with('$') {
        return Err(format!("{topic:?} is no topic for answers"));
    }
    Ok(())
}

impl Answer {
    pub(super) fn new(
        address: &Address,
        state: State,
        now: Timestamp,
        reason: Option<String>,
        result: Option<Json>,
    ) -> Self {
        let (id, command) = (address.id.clone(), address.command.clone());
        let (time, result) = (now.to_string(), result.filter(|result| !result.is_null()));
        Self { id, command, state, time, reason, result, asked: address.asked }
    }

    /// Whether it is one to that request.
    pub(super) fn is_to(&self, address: &Address) -> bool {
        self.asked == address.asked
    }

    /// About as many bytes as it takes.
    pub(super) fn size(&self) -> usize {
        fn size(json: &Json) -> usize {
            match json {
                Json::String(text) => text.len(),
                Json::Array(items) => items.iter().map(size).sum(),
                Json::Object(members) => members.iter().map(|(key, value)| key.len() + size(value)).sum(),
                _ => 8,
            }
        }
        self.reason.as_ref().map_or(0, String::len) + self.result.as_ref().map_or(0, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_as_text_and_a_bad_one_is_none() {
        let properties = Properties { correlation_data: Some(vec![0, 255, 7].into()), ..Properties::default() };
        let received = Received { topic: String::new(), payload: Default::default(), retain: false, properties };
        let asked = Asked::new(Role::Viewer, Err(b""));
        let address = Address::of("vedette/G/n", "a", "status", asked, &received).unwrap();
        assert_eq!(address.topic, "vedette/G/n/answer/viewer/a");
        assert_eq!(Address::from_text(&address.to_text()), Some(address));
        assert_eq!(Address::from_text("x"), None);
    }

    #[test]
    fn no_answer_goes_where_it_would_be_a_command() {
        for topic in
            ["", "a/+", "#", "$SYS/x", "spBv1.0/G/NCMD/n", "vedette/G/n/command/admin", "vedette/G/other/command"]
        {
            assert!(check(topic, Role::Admin).is_err(), "{topic}");
        }
        for topic in ["answers/7", "vedette/G/n/answer/viewer/a", "vedette/command", "hosts/vedette/a/command"] {
            assert!(check(topic, Role::Viewer).is_ok(), "{topic}");
        }
        for topic in ["vedette/G/n/answer/admin/a", "vedette/G/n/answer/a", "vedette/G/n/answer"] {
            assert!(check(topic, Role::Viewer).is_err(), "{topic}");
        }
    }
}
