//! A write on its way to the server, and its answer.

use crate::hub::WriteRequest;
use crate::model::{Quality, Status};
use crate::opcua;
use crate::opcua::client::{Connection, hint, name};
use ::opcua::types::{AttributeId, DataValue, NodeId, ReadValueId, StatusCode, WriteValue};
use std::time::Duration;

/// Sends the value alone: many servers refuse a write that brings a status or a timestamp (OPC 10000-4, 5.11.4).
pub(super) async fn write(connection: &Connection, node: NodeId, request: WriteRequest, read_back: bool) {
    let WriteRequest { value, reply, .. } = request;
    let variant = opcua::variant(&value);
    let attribute_id = AttributeId::Value as u32;
    let wanted = WriteValue {
        node_id: node.clone(),
        attribute_id,
        value: DataValue { value: Some(variant.clone()), ..DataValue::null() },
        ..Default::default()
    };
    let outcome = async {
        let results =
            connection.write(vec![wanted]).await.map_err(|error| Quality::new(error.status(), error.to_string()))?;
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
    // Whoever asked may have given up.
    let _ = reply.send(outcome.await);
}

fn refused(status: StatusCode) -> Quality {
    let what = name(status);
    let reason = match hint(status) {
        Some(hint) => format!("the server refused the write: {what}; {hint}"),
        None => format!("the server refused the write: {what}"),
    };
    Quality::new(Status(status.bits()), reason)
}
