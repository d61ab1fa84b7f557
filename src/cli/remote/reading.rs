//! A value with its status and times, as a server sent it.

use crate::model::{Status, Timestamp, Value};
use crate::opcua::{quality, timestamp, value};
use opcua::types::DataValue;

#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Reading {
    pub value: Value,
    pub status: Status,
    pub source_time: Option<Timestamp>,
    pub server_time: Option<Timestamp>,
}

impl From<&DataValue> for Reading {
    /// What cannot be read as a value has the status that says so.
    fn from(data: &DataValue) -> Self {
        let status = quality(data.status).status;
        let (value, status) = match data.value.as_ref().map(value) {
            None => (Value::Empty, status),
            Some(Ok(value)) => (value, status),
            Some(Err(_)) => (Value::Empty, Status(opcua::types::StatusCode::BadDecodingError.bits())),
        };
        let time = |time: &Option<opcua::types::DateTime>| time.as_ref().map(timestamp);
        Self { value, status, source_time: time(&data.source_timestamp), server_time: time(&data.server_timestamp) }
    }
}
