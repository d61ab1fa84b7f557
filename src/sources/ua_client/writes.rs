//! A write on its way to the server, and its answer.

use super::look::is_fatal;
use crate::hub::WriteRequest;
use crate::model::{Quality, Status};
use crate::opcua;
use crate::opcua::client::{Connection, hint, name};
use ::opcua::types::{AttributeId, DataValue, NodeId, ReadValueId, StatusCode, WriteValue};
use std::time::Duration;
use tokio::sync::oneshot;

/// Sends the value alone: many servers refuse a write that brings a status or a timestamp (OPC 10000-4, 5.11.4).
pub(super) async fn write(connection: &Connection, node: NodeId, request: WriteRequest, read_back: bool) {
    let WriteRequest { value, reply, .. } = request;
    let reply = Reply(Some(reply));
    let variant = opcua::variant(&value);
    let attribute_id = AttributeId::Value as u32;
    let wanted = WriteValue {
        node_id: node.clone(),
        attribute_id,
        value: DataValue { value: Some(variant.clone()), ..DataValue::null() },
        ..Default::default()
    };
    let outcome = async {
        let results = connection.write(vec![wanted]).await.map_err(|error| {
            match is_fatal(error.status) && error.status != StatusCode::BadTimeout {
                true => unknown(),
                false => Quality::new(error.status(), error.to_string()),
            }
        })?;
        match results.first() {
            Some(status) if status.is_bad() => return Err(refused(*status)),
            Some(_) => {}
            None => return Err(refused(StatusCode::BadUnknownResponse)),
        }
        if !read_back {
            return Ok(());
        }
        let wanted = ReadValueId { node_id: node, attribute_id, ..Default::default() };
        let found = connection.read(&[wanted], Duration::ZERO).await;
        let found = found.map_err(|error| Quality::new(error.status(), format!("reading it back: {error}")))?;
        match found.into_iter().next() {
            Some(DataValue { value: Some(found), status, .. }) if !status.is_some_and(|status| status.is_bad()) => {
                if found == variant {
                    return Ok(());
                }
                let reason = format!("the server took the value, but then had {found} instead of {variant}");
                Err(Quality::new(Status::BAD_INVALID_STATE, reason))
            }
            other => {
                let status = other.and_then(|data| data.status).unwrap_or(StatusCode::BadNoData);
                Err(Quality::new(Status(status.bits()), format!("reading it back: {}", name(status))))
            }
        }
    };
    reply.send(outcome.await);
}

/// Answers also when the session ends before the server has.
struct Reply(Option<oneshot::Sender<Result<(), Quality>>>);

impl Reply {
    fn send(mut self, outcome: Result<(), Quality>) {
        self.answer(outcome);
    }

    fn answer(&mut self, outcome: Result<(), Quality>) {
        if let Some(reply) = self.0.take() {
            // Whoever asked may have given up.
            let _ = reply.send(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Err(unknown()));
    }
}

fn unknown() -> Quality {
    let reason = "the session with the server was lost; it is not known whether the value was written";
    Quality::new(Status::BAD_NO_COMMUNICATION, reason)
}

fn refused(status: StatusCode) -> Quality {
    let what = name(status);
    let reason = match hint(status) {
        Some(hint) => format!("the server refused the write: {what}; {hint}"),
        None => format!("the server refused the write: {what}"),
    };
    Quality::new(Status(status.bits()), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_whose_session_ends_is_answered() {
        let (sender, answer) = oneshot::channel();
        drop(Reply(Some(sender)));
        let quality = answer.await.unwrap().unwrap_err();
        assert_eq!(quality.status, Status::BAD_NO_COMMUNICATION);
        assert!(quality.reason.unwrap().contains("not known whether"));
        let (sender, answer) = oneshot::channel();
        Reply(Some(sender)).send(Ok(()));
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
}
