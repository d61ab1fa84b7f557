//! A command to a device of ours and its answers: JSON over MQTT (docs/uplink.md).
//!
//!     vedette/GROUP/NODE/command/ROLE   {"id", "command", "args"}
//!     vedette/GROUP/NODE/answer/ROLE/ID accepted, any number of progress, then done or failed
//!
//! The answers are subscribed to before the request goes out. One that is not to be understood is passed over: what
//! counts is the end.

use super::node::Address;
use super::session::Session;
use crate::mqtt::line::{ClientError, Message, QoS, Received};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::time::Duration;
use tokio::time::Instant;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub id: String,
    pub command: String,
    pub args: Json,
    pub role: String,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The first one.
    pub answer: Duration,
    /// The last one, from the request on.
    pub end: Duration,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ending {
    Done(Json),
    Failed(String),
    /// Why nothing is known of it.
    Unanswered(String),
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(super) struct Answer {
    id: String,
    pub state: AnswerState,
    pub progress: Option<f64>,
    pub reason: Option<String>,
    #[serde(default)]
    pub result: Json,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum AnswerState {
    Accepted,
    Progress,
    Done,
    Failed,
}

/// Who may do what, by command.
pub(super) fn role(command: &str) -> Option<&'static str> {
    Some(match command {
        "status" | "list" | "read" | "snapshot" | "log" => "viewer",
        "write" | "rebirth" | "identify" => "operator",
        "reboot" | "log_level" | "update" | "config.get" | "config.apply" | "config.confirm" => "admin",
        _ => return None,
    })
}

impl Request {
    /// With an id that nobody else has.
    pub(super) fn new(command: &str, args: Json, role: &str) -> Self {
        let id = format!("{:016x}", fastrand::u64(..));
        Self { id, command: command.into(), args, role: role.into() }
    }

    fn message(&self, to: &Address) -> Message {
        let request = json!({ "id": self.id, "command": self.command, "args": self.args });
        Message {
            topic: format!("vedette/{to}/command/{}", self.role),
            payload: request.to_string().into(),
            qos: QoS::AtLeastOnce,
            ..Message::default()
        }
    }

    fn topic(&self, of: &Address) -> String {
        format!("vedette/{of}/answer/{}/{}", self.role, self.id)
    }

    fn answer(&self, received: &Received, from: &Address) -> Option<Answer> {
        if received.topic != self.topic(from) {
            return None;
        }
        serde_json::from_slice(&received.payload).ok().filter(|answer: &Answer| answer.id == self.id)
    }
}

/// Asks, and waits for the end. `beside` sees all that is said meanwhile; whatever it returns ends the waiting.
pub(super) async fn call(
    session: &mut Session,
    to: &Address,
    request: &Request,
    patience: Patience,
    mut beside: impl FnMut(&Received, Option<&Answer>) -> Option<Ending>,
) -> Result<Ending, ClientError> {
    session.subscribe(&request.topic(to)).await?;
    session.publish(request.message(to)).await?;
    await_end(session, to, request, patience, &mut beside).await
}

/// For a request that is out already.
pub(super) async fn await_end(
    session: &mut Session,
    to: &Address,
    request: &Request,
    patience: Patience,
    beside: &mut impl FnMut(&Received, Option<&Answer>) -> Option<Ending>,
) -> Result<Ending, ClientError> {
    let (began, mut is_heard) = (Instant::now(), false);
    loop {
        let limit = if is_heard { patience.end } else { patience.answer };
        let Some(received) = session.next_until(began + limit).await? else {
            let what = match is_heard {
                true => "it took the command, and its end was not heard",
                false => "no answer",
            };
            return Ok(Ending::Unanswered(format!("{what} within {} s", limit.as_secs_f64())));
        };
        let answer = request.answer(&received, to);
        if let Some(ending) = beside(&received, answer.as_ref()) {
            return Ok(ending);
        }
        let Some(answer) = answer else { continue };
        is_heard = true;
        match answer.state {
            AnswerState::Accepted | AnswerState::Progress => {}
            AnswerState::Done => return Ok(Ending::Done(answer.result)),
            AnswerState::Failed => {
                return Ok(Ending::Failed(answer.reason.unwrap_or_else(|| "it gave no reason".into())));
            }
        }
    }
}

/// `accepted`, `40 %: writing the slot`
pub(super) fn progress(answer: &Answer) -> Option<String> {
    let reason = answer.reason.as_deref().unwrap_or_default();
    match (answer.state, answer.progress) {
        (AnswerState::Accepted, _) => Some("accepted".into()),
        (AnswerState::Progress, Some(percent)) if reason.is_empty() => Some(format!("{percent:.0} %")),
        (AnswerState::Progress, Some(percent)) => Some(format!("{percent:.0} %: {reason}")),
        (AnswerState::Progress, None) => Some(reason.into()),
        (AnswerState::Done | AnswerState::Failed, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_this_request_from_this_device_count() {
        let to = Address { group: "G".into(), node: "N".into() };
        let request = Request { id: "7".into(), ..Request::new("status", json!({}), "viewer") };
        let message = request.message(&to);
        assert_eq!((message.topic.as_str(), message.retain), ("vedette/G/N/command/viewer", false));
        let sent: Json = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(sent, json!({ "id": "7", "command": "status", "args": {} }));
        let answer = |topic: &str, text: &str| {
            let payload = text.to_owned().into();
            let received = Received { topic: topic.into(), payload, retain: false, properties: Default::default() };
            request.answer(&received, &to)
        };
        let done = r#"{"id":"7","command":"status","state":"done","time":"2026-11-21T03:42:49.123Z","result":{"a":1}}"#;
        assert_eq!(answer("vedette/G/N/answer/viewer/7", done).unwrap().result, json!({ "a": 1 }));
        assert_eq!(answer("vedette/G/M/answer/viewer/7", done), None);
        for wrong in [r#"{"id":"8","state":"done"}"#, r#"{"id":"7","state":"perhaps"}"#, "[]", "\u{0}"] {
            assert_eq!(answer("vedette/G/N/answer/viewer/7", wrong), None, "{wrong}");
        }
        let said = |text: &str| progress(&answer("vedette/G/N/answer/viewer/7", text).unwrap());
        let half = r#"{"id":"7","state":"progress","progress":50,"reason":"writing"}"#;
        assert_eq!(said(half).as_deref(), Some("50 %: writing"));
        assert_eq!(said(r#"{"id":"7","state":"accepted"}"#).as_deref(), Some("accepted"));
        assert_eq!(said(done), None);
    }
}
