//! A write to a tag: what of it can be stored (OPC 10000-4, 5.11.4).
//!
//! A source says by itself when its value was and how good it is. So a status other than Good and a server timestamp are
//! BadWriteNotSupported, as the standard has it for what is not stored. A source timestamp should be so, too, but is not
//! refused: the older `opcua` package sends one with every write, and its users could write nothing.

use crate::hub::Hub;
use crate::model::{Array, DataType, TagId, Value};
use crate::opcua::server::ranges;
use crate::opcua::{status_code, value, variant};
use ::opcua::server::node_manager::ParsedWriteValue;
use ::opcua::types::{NumericRange, StatusCode, Variant};

pub(super) async fn write(hub: &Hub, tag: TagId, written: &ParsedWriteValue) -> StatusCode {
    let given = &written.value;
    if given.server_timestamp.is_some() || given.status.is_some_and(|status| status != StatusCode::Good) {
        return StatusCode::BadWriteNotSupported;
    }
    let whole = match &given.value {
        Some(part) => whole(hub, tag, &written.index_range, part),
        None => Err(StatusCode::BadTypeMismatch),
    };
    let value = whole.and_then(|whole| value(&whole).map_err(|_| StatusCode::BadTypeMismatch));
    let value = match value {
        Ok(value) => value,
        Err(status) => return status,
    };
    let spec = hub.spec(tag);
    let value = if spec.is_array && spec.data_type == DataType::Byte { as_byte_array(value) } else { value };
    match hub.write(tag, value).await {
        Ok(()) => StatusCode::Good,
        Err(quality) => status_code(quality.status),
    }
}

/// The value that a tag is to have after a part of it was written.
fn whole(hub: &Hub, tag: TagId, range: &NumericRange, part: &Variant) -> Result<Variant, StatusCode> {
    if *range == NumericRange::None {
        return Ok(part.clone());
    }
    ranges::replaced(&variant(&hub.read(tag).value), range, part)
}

/// A ByteString is as good as an array of Byte (OPC 10000-4, 5.11.4).
fn as_byte_array(value: Value) -> Value {
    let Value::ByteString(bytes) = value else { return value };
    let bytes = bytes.iter().flat_map(|bytes| bytes.iter()).map(|&byte| Value::Byte(byte));
    Array::new(DataType::Byte, bytes.collect::<Vec<_>>(), None).expect("all are of type Byte").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_may_be_written_as_a_byte_string() {
        let array = |values: &[u8]| {
            let values: Vec<_> = values.iter().map(|&byte| Value::Byte(byte)).collect();
            Value::from(Array::new(DataType::Byte, values, None).unwrap())
        };
        assert_eq!(as_byte_array(Value::bytes([1, 2])), array(&[1, 2]));
        assert_eq!(as_byte_array(Value::ByteString(None)), array(&[]));
        assert_eq!(as_byte_array(array(&[3])), array(&[3]));
        assert_eq!(as_byte_array(Value::Int32(4)), Value::Int32(4));
    }
}
