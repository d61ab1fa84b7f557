//! Values as JSON, for the uplink, its commands and the command line tool.
//!
//! | value                                | JSON                                                                 |
//! |--------------------------------------|----------------------------------------------------------------------|
//! | Boolean, numbers, String, XmlElement | the same; integers of 64 bits with all digits                         |
//! | NaN and the infinities               | "NaN", "Infinity", "-Infinity"                                        |
//! | DateTime                             | ISO 8601 in UTC, with as much fraction as it has: 3 or 7 digits       |
//! | ByteString                           | base64                                                               |
//! | Guid, NodeId, QualifiedName          | as text (OPC 10000-6, 5.1.12)                                         |
//! | LocalizedText                        | its text                                                             |
//! | StatusCode                           | its name                                                             |
//! | Structure                            | {"encoding": "i=...", "body": base64, or text for XML, or null}        |
//! | arrays                               | arrays; of several dimensions, arrays of arrays                       |
//! | null, no value                       | null                                                                 |
//!
//! Integers beyond 2^53 are numbers nevertheless: most readers (Python, Go, Rust, Java, databases) take all digits, and one type for
//! one tag is worth more than the last digits in JavaScript.

use super::{status_code, variant};
use crate::model::{Body, Identifier, NodeId, Status, Timestamp, Value};
use base64ct::{Base64, Encoding as _};
use serde_json::{Value as Json, json};

pub fn json(value: &Value) -> Json {
    match value {
        Value::Empty | Value::String(None) | Value::XmlElement(None) | Value::ByteString(None) => Json::Null,
        Value::Boolean(v) => json!(v),
        Value::SByte(v) => json!(v),
        Value::Byte(v) => json!(v),
        Value::Int16(v) => json!(v),
        Value::UInt16(v) => json!(v),
        Value::Int32(v) => json!(v),
        Value::UInt32(v) => json!(v),
        Value::Int64(v) => json!(v),
        Value::UInt64(v) => json!(v),
        // The shortest decimal of a Float, not that of the Double it would become.
        Value::Float(v) => v.to_string().parse::<f64>().ok().map_or(Json::Null, double),
        Value::Double(v) => double(*v),
        Value::String(Some(v)) | Value::XmlElement(Some(v)) => json!(v.as_ref()),
        Value::DateTime(v) => json!(time(*v)),
        Value::ByteString(Some(v)) => json!(Base64::encode_string(v)),
        Value::NodeId(v) => json!(node_id(v)),
        Value::QualifiedName(v) => json!(match v.namespace {
            0 => v.name.as_deref().unwrap_or_default().to_owned(),
            namespace => format!("{namespace}:{}", v.name.as_deref().unwrap_or_default()),
        }),
        Value::LocalizedText(v) => json!(v.text.as_deref()),
        Value::StatusCode(v) => json!(status(*v)),
        Value::Guid(v) => json!(guid(v)),
        Value::Structure(v) => {
            let body = match &v.body {
                Body::None => Json::Null,
                Body::Binary(body) => json!(Base64::encode_string(body)),
                Body::Xml(body) => json!(body.as_ref()),
            };
            json!({ "encoding": node_id(&v.encoding), "body": body })
        }
        Value::Variant(v) => json(v),
        Value::DataValue(v) => v.value.as_ref().map_or(Json::Null, json),
        Value::ExpandedNodeId(_) => json!(variant(value).to_string()),
        Value::DiagnosticInfo(_) => json!("diagnostic information"),
        Value::Array(v) => match v.dimensions().filter(|dimensions| dimensions.len() > 1) {
            Some(dimensions) => nested(v.values(), dimensions),
            None => v.values().iter().map(json).collect(),
        },
    }
}

fn nested(values: &[Value], dimensions: &[u32]) -> Json {
    match dimensions.split_first() {
        Some((&outer, inner)) if !inner.is_empty() && outer > 0 => {
            let step = (values.len() / outer as usize).max(1);
            Json::Array(values.chunks(step).map(|part| nested(part, inner)).collect())
        }
        _ => values.iter().map(json).collect(),
    }
}

/// JSON has no infinity.
fn double(number: f64) -> Json {
    match serde_json::Number::from_f64(number) {
        Some(number) => Json::Number(number),
        None if number.is_nan() => json!("NaN"),
        None if number > 0.0 => json!("Infinity"),
        None => json!("-Infinity"),
    }
}

/// RFC 3339 to 100 ns, which is all that OPC UA has.
pub fn time(time: Timestamp) -> String {
    let to_milli = time.to_string();
    let rest = time.ticks().rem_euclid(10_000);
    match to_milli.strip_suffix('Z') {
        Some(front) if rest != 0 => format!("{front}{rest:04}Z"),
        _ => to_milli,
    }
}

/// The standard's name, and what its info bits say.
pub fn status(status: Status) -> String {
    // The UA crate calls what the standard does not have Invalid.
    match status_code(status).to_string() {
        name if name.starts_with("Invalid") => format!("0x{:08X}", status.0),
        name => name,
    }
}

/// `ns=2;s=Line 1`, `i=85`; as OPC 10000-6, 5.3.1.10 writes it.
pub fn node_id(id: &NodeId) -> String {
    let identifier = match &id.identifier {
        Identifier::Numeric(v) => format!("i={v}"),
        Identifier::String(v) => format!("s={}", v.as_deref().unwrap_or_default()),
        Identifier::Guid(v) => format!("g={}", guid(v)),
        Identifier::Opaque(v) => format!("b={}", Base64::encode_string(v.as_deref().unwrap_or_default())),
    };
    match id.namespace {
        0 => identifier,
        namespace => format!("ns={namespace};{identifier}"),
    }
}

pub fn guid(bytes: &[u8; 16]) -> String {
    let digits = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parts = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
    parts.map(digits).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Array, DataType};
    use std::sync::Arc;

    fn numbers(values: impl IntoIterator<Item = i32>, dimensions: Option<Vec<u32>>) -> Value {
        let values: Vec<_> = values.into_iter().map(Value::Int32).collect();
        Array::new(DataType::Int32, values, dimensions.map(Vec::into_boxed_slice)).unwrap().into()
    }

    #[test]
    fn scripts_read_json() {
        assert_eq!(json(&Value::Float(0.1)), json!(0.1));
        assert_eq!(json(&Value::UInt64(u64::MAX)), json!(u64::MAX));
        assert_eq!(json(&Value::Double(f64::NEG_INFINITY)), json!("-Infinity"));
        assert_eq!(json(&Value::bytes(*b"abc")), json!("YWJj"));
        assert_eq!(json(&numbers(0..6, Some(vec![3, 2]))), json!([[0, 1], [2, 3], [4, 5]]));
        assert_eq!(json(&Value::StatusCode(Status::BAD_NODE_ID_UNKNOWN)), json!("BadNodeIdUnknown"));
    }

    #[test]
    fn empty_dimensions_divide_by_nothing() {
        for dimensions in [vec![0, 3], vec![3, 0], vec![0]] {
            assert!(json(&numbers([], Some(dimensions.clone()))).is_array(), "{dimensions:?}");
        }
    }

    #[test]
    fn ids_are_written_as_the_standard_has_it() {
        let id = |namespace, identifier| node_id(&NodeId { namespace, identifier });
        assert_eq!(id(0, Identifier::Numeric(85)), "i=85");
        assert_eq!(id(2, Identifier::String(Some(Arc::from("a;b")))), "ns=2;s=a;b");
        assert_eq!(id(1, Identifier::Opaque(Some(Arc::from(&b"abc"[..])))), "ns=1;b=YWJj");
        let guid = [0x09, 0x08, 0x7e, 0x75, 0x8e, 0x5e, 0x49, 0x9b, 0x95, 0x4f, 0xf2, 0xa9, 0x60, 0x3d, 0xb2, 0x8a];
        assert_eq!(id(1, Identifier::Guid(guid)), "ns=1;g=09087e75-8e5e-499b-954f-f2a9603db28a");
    }

    #[test]
    fn times_have_all_their_digits() {
        assert_eq!(time(Timestamp::from_ticks(12_345_678)), "1970-01-01T00:00:01.2345678Z");
        assert_eq!(time(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn unknown_codes_are_numbers() {
        assert_eq!(status(Status(0x8034_0000)), "BadNodeIdUnknown");
        assert_eq!(status(Status(0x80FE_0000)), "0x80FE0000");
    }
}
