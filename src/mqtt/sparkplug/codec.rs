//! A tag's value as the value of a Sparkplug metric, and back.
//!
//! | tag                          | scalar   | array                                      |
//! |------------------------------|----------|--------------------------------------------|
//! | Boolean                      | Boolean  | BooleanArray                               |
//! | SByte Int16 Int32 Int64      | Int8..64 | Int8Array..Int64Array                      |
//! | Byte UInt16 UInt64           | UInt8..64| UInt8Array..UInt64Array                    |
//! | UInt32                       | Int64    | UInt32Array                                |
//! | Float, Double                | the same | FloatArray, DoubleArray                    |
//! | String                       | String   | StringArray                                |
//! | DateTime                     | DateTime | DateTimeArray (milliseconds: ticks are cut)|
//! | Guid                         | UUID     | StringArray                                |
//! | ByteString                   | Bytes    | none: Bytes, always null                   |
//! | XmlElement                   | Text     | StringArray                                |
//! | StatusCode                   | Int64    | UInt32Array                                |
//! | NodeId, ExpandedNodeId,      | String   | StringArray                                |
//! | QualifiedName, LocalizedText |          | (of a LocalizedText its text)              |
//! | Structure                    | Bytes: its encoded body | none: Bytes, always null    |
//! | DataValue, Variant,          | none: String, always null | none: String, always null |
//! | DiagnosticInfo               |          |                                            |
//!
//! A structure's body without the id of its encoding cannot be written, so commands for it are refused; so are those
//! for whatever is always null.
//!
//! A UInt32 goes out as Int64, which holds each of them. Sparkplug has a UInt32, in `int_value`; but the reference libraries, and the
//! hosts made with them, look for it in `long_value` and find 0 or nothing (so does the conformance kit of 3.0.0, which
//! calls such a birth a failure), while others look in `int_value` only. About Int64 all agree. From others both are understood.
//!
//! Integers up to 32 bits travel in `int_value`, 64-bit ones in `long_value` (Sparkplug 3.0, 6.4.17). Both fields are
//! unsigned and the standard does not say how a negative number gets in: here as the two's complement of the field's
//! width. Some hosts send an Int8 as the two's complement of 8 bits, so that is understood as well.

use super::array;
use super::proto::DataType as Type;
use super::proto::payload::{Metric, metric};
use super::text;
use crate::model::{Array, Body, DataType, LocalizedText, Status, Timestamp, Value};
use std::sync::Arc;

/// The Sparkplug type of a tag's metric; it never changes while the tag lives.
pub fn metric_type(data_type: DataType, is_array: bool) -> Type {
    match (data_type, is_array) {
        (DataType::Boolean, false) => Type::Boolean,
        (DataType::Boolean, true) => Type::BooleanArray,
        (DataType::SByte, false) => Type::Int8,
        (DataType::SByte, true) => Type::Int8Array,
        (DataType::Byte, false) => Type::UInt8,
        (DataType::Byte, true) => Type::UInt8Array,
        (DataType::Int16, false) => Type::Int16,
        (DataType::Int16, true) => Type::Int16Array,
        (DataType::UInt16, false) => Type::UInt16,
        (DataType::UInt16, true) => Type::UInt16Array,
        (DataType::Int32, false) => Type::Int32,
        (DataType::Int32, true) => Type::Int32Array,
        // See above.
        (DataType::UInt32 | DataType::StatusCode | DataType::Int64, false) => Type::Int64,
        (DataType::UInt32 | DataType::StatusCode, true) => Type::UInt32Array,
        (DataType::Int64, true) => Type::Int64Array,
        (DataType::UInt64, false) => Type::UInt64,
        (DataType::UInt64, true) => Type::UInt64Array,
        (DataType::Float, false) => Type::Float,
        (DataType::Float, true) => Type::FloatArray,
        (DataType::Double, false) => Type::Double,
        (DataType::Double, true) => Type::DoubleArray,
        (DataType::DateTime, false) => Type::DateTime,
        (DataType::DateTime, true) => Type::DateTimeArray,
        (DataType::Guid, false) => Type::Uuid,
        (DataType::XmlElement, false) => Type::Text,
        (DataType::ByteString | DataType::Structure, _) => Type::Bytes,
        (DataType::DataValue | DataType::Variant | DataType::DiagnosticInfo, _) => Type::String,
        (
            DataType::String
            | DataType::NodeId
            | DataType::ExpandedNodeId
            | DataType::QualifiedName
            | DataType::LocalizedText,
            false,
        ) => Type::String,
        (
            DataType::String
            | DataType::Guid
            | DataType::XmlElement
            | DataType::NodeId
            | DataType::ExpandedNodeId
            | DataType::QualifiedName
            | DataType::LocalizedText,
            true,
        ) => Type::StringArray,
    }
}

/// The value on the wire; `None` for null, and for what Sparkplug cannot carry.
pub fn encode(value: &Value) -> Option<metric::Value> {
    use metric::Value as Wire;
    // `as u32` on a signed number is the sign-extended two's complement that Sparkplug asks for.
    Some(match value {
        Value::Boolean(v) => Wire::BooleanValue(*v),
        Value::SByte(v) => Wire::IntValue(*v as u32),
        Value::Byte(v) => Wire::IntValue((*v).into()),
        Value::Int16(v) => Wire::IntValue(*v as u32),
        Value::UInt16(v) => Wire::IntValue((*v).into()),
        Value::Int32(v) => Wire::IntValue(*v as u32),
        Value::UInt32(v) | Value::StatusCode(Status(v)) => Wire::LongValue((*v).into()),
        Value::Int64(v) => Wire::LongValue(*v as u64),
        Value::UInt64(v) => Wire::LongValue(*v),
        Value::Float(v) => Wire::FloatValue(*v),
        Value::Double(v) => Wire::DoubleValue(*v),
        Value::DateTime(v) => Wire::LongValue(v.millis() as u64),
        Value::ByteString(bytes) => Wire::BytesValue(bytes.as_deref()?.to_vec()),
        Value::Structure(structure) => Wire::BytesValue(match &structure.body {
            Body::None => return None,
            Body::Binary(bytes) => bytes.to_vec(),
            Body::Xml(xml) => xml.as_bytes().to_vec(),
        }),
        Value::Array(array) => Wire::BytesValue(array::pack(metric_type(array.data_type(), true), array.values())?),
        Value::Empty | Value::DataValue(_) | Value::Variant(_) | Value::DiagnosticInfo(_) => return None,
        text => Wire::StringValue(scalar_text(text)?),
    })
}

/// Text of whatever travels as text; `None` for null and for all else.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) | Value::XmlElement(text) => text.as_deref().map(str::to_owned),
        Value::Guid(guid) => Some(text::guid(guid)),
        Value::NodeId(id) => Some(text::node_id(id)),
        Value::ExpandedNodeId(id) => Some(text::expanded_node_id(id)),
        Value::QualifiedName(name) => Some(text::qualified_name(name)),
        Value::LocalizedText(localized) => localized.text.as_deref().map(str::to_owned),
        _ => None,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a tag of type {0} cannot be written over Sparkplug")]
    NotWritable(DataType),
    #[error("the metric is null, which a tag of type {0} cannot be")]
    Null(DataType),
    #[error("the metric is a {found}, which is no {wanted}")]
    Type { found: String, wanted: String },
    #[error("the value does not fit into a tag of type {0}")]
    Range(String),
    #[error("the value is no {0}")]
    Malformed(String),
}

/// The value of a command, as a value of the tag's type. A metric that names no type is taken to be of the tag's;
/// a number of another type is taken if the tag's type can hold it exactly.
pub fn decode(metric: &Metric, data_type: DataType, is_array: bool) -> Result<Value, DecodeError> {
    let wanted = metric_type(data_type, is_array);
    let unpackable = is_array && matches!(wanted, Type::Bytes | Type::String);
    if unpackable
        || matches!(data_type, DataType::Structure | DataType::DataValue | DataType::Variant | DataType::DiagnosticInfo)
    {
        return Err(DecodeError::NotWritable(data_type));
    }
    let found = match metric.datatype {
        None | Some(0) => wanted,
        Some(number) => i32::try_from(number)
            .ok()
            .and_then(|number| Type::try_from(number).ok())
            .ok_or_else(|| DecodeError::Type { found: format!("type {number}"), wanted: name(data_type, is_array) })?,
    };
    match &metric.value {
        Some(wire) if !metric.is_null() => decode_as(found, wire, data_type, is_array),
        _ => null(data_type, is_array),
    }
}

/// A value on the wire that is of type `found`, as a value of the tag's type.
fn decode_as(found: Type, wire: &metric::Value, data_type: DataType, is_array: bool) -> Result<Value, DecodeError> {
    let wanted = metric_type(data_type, is_array);
    let malformed = || DecodeError::Malformed(name(data_type, is_array));
    if is_array {
        let metric::Value::BytesValue(bytes) = wire else { return Err(malformed()) };
        if found != wanted {
            return Err(DecodeError::Type { found: format!("{found:?}"), wanted: name(data_type, true) });
        }
        let elements = array::unpack(wanted, bytes).ok_or_else(malformed)?;
        let elements = elements.into_iter().map(|element| match element {
            Value::String(Some(text)) => from_text(&text, data_type).ok_or_else(malformed),
            Value::UInt32(code) if data_type == DataType::StatusCode => Ok(Value::StatusCode(Status(code))),
            element => Ok(element),
        });
        let elements = elements.collect::<Result<Vec<_>, _>>()?;
        return Array::new(data_type, elements, None).map(Value::from).map_err(|_| malformed());
    }
    match wire {
        metric::Value::StringValue(text) if is_text(found) && is_text(wanted) => {
            from_text(text, data_type).ok_or_else(malformed)
        }
        metric::Value::BytesValue(bytes) if found == Type::Bytes && data_type == DataType::ByteString => {
            Ok(Value::bytes(bytes.as_slice()))
        }
        metric::Value::BooleanValue(v) if found == Type::Boolean && data_type == DataType::Boolean => {
            Ok(Value::Boolean(*v))
        }
        wire => {
            let mismatch = || match found == wanted {
                true => malformed(),
                false => DecodeError::Type { found: format!("{found:?}"), wanted: name(data_type, false) },
            };
            let number = Number::read(found, wire).ok_or_else(mismatch)?;
            let is_time = |is_time: bool| is_time == (found == Type::DateTime);
            if !is_time(data_type == DataType::DateTime) {
                return Err(mismatch());
            }
            number.into_value(data_type).ok_or_else(mismatch)?.ok_or(DecodeError::Range(name(data_type, false)))
        }
    }
}

fn is_text(metric: Type) -> bool {
    matches!(metric, Type::String | Type::Text | Type::Uuid)
}

fn null(data_type: DataType, is_array: bool) -> Result<Value, DecodeError> {
    match data_type {
        DataType::String if !is_array => Ok(Value::String(None)),
        DataType::ByteString if !is_array => Ok(Value::ByteString(None)),
        DataType::XmlElement if !is_array => Ok(Value::XmlElement(None)),
        _ => Err(DecodeError::Null(data_type)),
    }
}

fn name(data_type: DataType, is_array: bool) -> String {
    if is_array { format!("array of {data_type}") } else { data_type.to_string() }
}

fn from_text(text: &str, data_type: DataType) -> Option<Value> {
    Some(match data_type {
        DataType::String => Value::string(text),
        DataType::XmlElement => Value::XmlElement(Some(text.into())),
        DataType::Guid => Value::Guid(text::parse_guid(text)?),
        DataType::NodeId => Value::NodeId(Arc::new(text::parse_node_id(text)?)),
        DataType::ExpandedNodeId => Value::ExpandedNodeId(Arc::new(text::parse_expanded_node_id(text)?)),
        DataType::QualifiedName => Value::QualifiedName(Arc::new(text::parse_qualified_name(text))),
        DataType::LocalizedText => {
            Value::LocalizedText(Arc::new(LocalizedText { locale: None, text: Some(text.into()) }))
        }
        _ => return None,
    })
}

/// A number as a host sent it, before it becomes one of the tag's type.
enum Number {
    Whole(i128),
    Float(f32),
    Double(f64),
}

impl Number {
    fn read(found: Type, wire: &metric::Value) -> Option<Self> {
        Some(match (found, wire) {
            (Type::Int8, metric::Value::IntValue(v)) => Number::Whole(narrow::<i8>(*v, 0xFF, |v| v as u8 as i8)?),
            (Type::Int16, metric::Value::IntValue(v)) => Number::Whole(narrow::<i16>(*v, 0xFFFF, |v| v as u16 as i16)?),
            (Type::Int32, metric::Value::IntValue(v)) => Number::Whole((*v as i32).into()),
            (Type::UInt8 | Type::UInt16 | Type::UInt32, metric::Value::IntValue(v)) => Number::Whole((*v).into()),
            (Type::Int64 | Type::DateTime, metric::Value::LongValue(v)) => Number::Whole((*v as i64).into()),
            (Type::UInt64, metric::Value::LongValue(v)) => Number::Whole((*v).into()),
            // Not by the standard, but some hosts have no unsigned 32 bits to hold it.
            (Type::UInt32, metric::Value::LongValue(v)) => Number::Whole((*v).into()),
            (Type::Float, metric::Value::FloatValue(v)) => Number::Float(*v),
            (Type::Double, metric::Value::DoubleValue(v)) => Number::Double(*v),
            _ => return None,
        })
    }

    /// `None`: the type is no number. `Some(None)`: it cannot hold this one.
    fn into_value(self, data_type: DataType) -> Option<Option<Value>> {
        fn whole<T: TryFrom<i128>>(number: &Number, value: impl Fn(T) -> Value) -> Option<Value> {
            T::try_from(number.as_whole()?).ok().map(value)
        }
        Some(match data_type {
            DataType::SByte => whole(&self, Value::SByte),
            DataType::Byte => whole(&self, Value::Byte),
            DataType::Int16 => whole(&self, Value::Int16),
            DataType::UInt16 => whole(&self, Value::UInt16),
            DataType::Int32 => whole(&self, Value::Int32),
            DataType::UInt32 => whole(&self, Value::UInt32),
            DataType::StatusCode => whole(&self, |code| Value::StatusCode(Status(code))),
            DataType::Int64 => whole(&self, Value::Int64),
            DataType::UInt64 => whole(&self, Value::UInt64),
            DataType::DateTime => whole(&self, |millis| Value::DateTime(Timestamp::from_millis(millis))),
            DataType::Float => match self {
                Number::Float(v) => Some(Value::Float(v)),
                Number::Double(v) => Some(v as f32).filter(|f| f64::from(*f) == v || v.is_nan()).map(Value::Float),
                Number::Whole(v) => Some(v as f32).filter(|f| *f as i128 == v).map(Value::Float),
            },
            DataType::Double => match self {
                Number::Float(v) => Some(Value::Double(v.into())),
                Number::Double(v) => Some(Value::Double(v)),
                Number::Whole(v) => Some(v as f64).filter(|f| *f as i128 == v).map(Value::Double),
            },
            _ => return None,
        })
    }

    fn as_whole(&self) -> Option<i128> {
        let real = match *self {
            Number::Whole(v) => return Some(v),
            Number::Float(v) => f64::from(v),
            Number::Double(v) => v,
        };
        // Beyond 2^64 no type of ours can hold it; below, the cast is exact.
        (real.fract() == 0.0 && real.abs() <= 18_446_744_073_709_551_616.0).then_some(real as i128)
    }
}

/// A small signed integer in either spelling: sign-extended to 32 bits, or two's complement of its own width.
fn narrow<T: TryFrom<i32> + Into<i128>>(wire: u32, mask: u32, short: impl Fn(u32) -> T) -> Option<i128> {
    T::try_from(wire as i32).ok().or_else(|| (wire <= mask).then(|| short(wire))).map(Into::into)
}

#[cfg(test)]
mod tests;
