//! One value in bytes, whatever its type, without loss.
//!
//! A byte for the type (0: none; 1 to 25: the built-in type, OPC 10000-6, 5.1.2; with [`ARRAY`] an array of them), then
//! the body. Integers are varints, floats their bits; a text or bytes that may be null have their length plus one in
//! front, and 0 is null.

use super::wire::{Damaged, Reader, put_bytes, put_signed, put_varint};
use crate::model::{
    Array, Body, DataType, DataValue, DiagnosticInfo, ExpandedNodeId, Identifier, LocalizedText, NodeId, QualifiedName,
    Status, Structure, Timestamp, Value,
};
use std::sync::Arc;

const ARRAY: u8 = 0x80;
/// Values inside values go no deeper than the UA crate lets them in.
const DEPTH: u8 = 100;

/// The byte for the type.
pub(super) fn tag_of(value: &Value) -> u8 {
    let data_type = value.data_type().map_or(0, |data_type| data_type as u8);
    if value.is_array() { data_type | ARRAY } else { data_type }
}

pub(super) fn put_value(out: &mut Vec<u8>, value: &Value) {
    out.push(tag_of(value));
    put_body(out, value);
}

pub(super) fn value(reader: &mut Reader<'_>) -> Result<Value, Damaged> {
    value_at(reader, DEPTH)
}

fn value_at(reader: &mut Reader<'_>, depth: u8) -> Result<Value, Damaged> {
    let tag = reader.byte()?;
    body(reader, tag, depth.checked_sub(1).ok_or(Damaged)?)
}

pub(super) fn put_body(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Empty => {}
        Value::Boolean(v) => out.push((*v).into()),
        Value::SByte(v) => put_signed(out, (*v).into()),
        Value::Byte(v) => out.push(*v),
        Value::Int16(v) => put_signed(out, (*v).into()),
        Value::UInt16(v) => put_varint(out, (*v).into()),
        Value::Int32(v) => put_signed(out, (*v).into()),
        Value::UInt32(v) => put_varint(out, (*v).into()),
        Value::Int64(v) => put_signed(out, *v),
        Value::UInt64(v) => put_varint(out, *v),
        Value::Float(v) => out.extend(v.to_bits().to_le_bytes()),
        Value::Double(v) => out.extend(v.to_bits().to_le_bytes()),
        Value::String(v) | Value::XmlElement(v) => put_text(out, v),
        Value::DateTime(v) => put_signed(out, v.ticks()),
        Value::Guid(v) => out.extend(v),
        Value::ByteString(v) => put_optional(out, v.as_deref()),
        Value::NodeId(v) => put_node_id(out, v),
        Value::ExpandedNodeId(v) => {
            put_node_id(out, &v.node_id);
            put_text(out, &v.namespace_uri);
            put_varint(out, v.server_index.into());
        }
        Value::StatusCode(v) => put_varint(out, v.0.into()),
        Value::QualifiedName(v) => {
            put_varint(out, v.namespace.into());
            put_text(out, &v.name);
        }
        Value::LocalizedText(v) => {
            put_text(out, &v.locale);
            put_text(out, &v.text);
        }
        Value::Structure(v) => put_structure(out, v),
        Value::DataValue(v) => put_data_value(out, v),
        Value::Variant(v) => put_value(out, v),
        Value::DiagnosticInfo(v) => put_diagnostic_info(out, v),
        Value::Array(v) => {
            put_varint(out, v.dimensions().map_or(0, |dimensions| dimensions.len() as u64 + 1));
            for dimension in v.dimensions().unwrap_or_default() {
                put_varint(out, (*dimension).into());
            }
            put_varint(out, v.values().len() as u64);
            for element in v.values() {
                put_body(out, element);
            }
        }
    }
}

/// What follows the byte for the type.
pub(super) fn body(reader: &mut Reader<'_>, tag: u8, depth: u8) -> Result<Value, Damaged> {
    if tag & ARRAY != 0 {
        return array(reader, tag & !ARRAY, depth);
    }
    if tag == 0 {
        return Ok(Value::Empty);
    }
    let narrow = |value: i64| i32::try_from(value).map_err(|_| Damaged);
    Ok(match DataType::from_id(tag.into()).ok_or(Damaged)? {
        DataType::Boolean => Value::Boolean(reader.byte()? != 0),
        DataType::SByte => Value::SByte(i8::try_from(reader.signed()?).map_err(|_| Damaged)?),
        DataType::Byte => Value::Byte(reader.byte()?),
        DataType::Int16 => Value::Int16(i16::try_from(reader.signed()?).map_err(|_| Damaged)?),
        DataType::UInt16 => Value::UInt16(reader.number()?),
        DataType::Int32 => Value::Int32(narrow(reader.signed()?)?),
        DataType::UInt32 => Value::UInt32(reader.number()?),
        DataType::Int64 => Value::Int64(reader.signed()?),
        DataType::UInt64 => Value::UInt64(reader.varint()?),
        DataType::Float => Value::Float(f32::from_bits(u32::from_le_bytes(reader.array()?))),
        DataType::Double => Value::Double(f64::from_bits(u64::from_le_bytes(reader.array()?))),
        DataType::String => Value::String(text(reader)?),
        DataType::DateTime => Value::DateTime(Timestamp::from_ticks(reader.signed()?)),
        DataType::Guid => Value::Guid(reader.array()?),
        DataType::ByteString => Value::ByteString(optional(reader)?.map(Arc::from)),
        DataType::XmlElement => Value::XmlElement(text(reader)?),
        DataType::NodeId => Value::NodeId(Arc::new(node_id(reader)?)),
        DataType::ExpandedNodeId => Value::ExpandedNodeId(Arc::new(ExpandedNodeId {
            node_id: node_id(reader)?,
            namespace_uri: text(reader)?,
            server_index: reader.number()?,
        })),
        DataType::StatusCode => Value::StatusCode(Status(reader.number()?)),
        DataType::QualifiedName => {
            Value::QualifiedName(Arc::new(QualifiedName { namespace: reader.number()?, name: text(reader)? }))
        }
        DataType::LocalizedText => {
            Value::LocalizedText(Arc::new(LocalizedText { locale: text(reader)?, text: text(reader)? }))
        }
        DataType::Structure => Value::Structure(Arc::new(structure(reader)?)),
        DataType::DataValue => Value::DataValue(Arc::new(data_value(reader, depth)?)),
        DataType::Variant => Value::Variant(Arc::new(value_at(reader, depth)?)),
        DataType::DiagnosticInfo => Value::DiagnosticInfo(Arc::new(diagnostic_info(reader, depth)?)),
    })
}

fn array(reader: &mut Reader<'_>, element: u8, depth: u8) -> Result<Value, Damaged> {
    let data_type = DataType::from_id(element.into()).ok_or(Damaged)?;
    let dimensions = match reader.number::<usize>()? {
        0 => None,
        count => Some((1..count).map(|_| reader.number()).collect::<Result<Box<[u32]>, _>>()?),
    };
    let count: usize = reader.number()?;
    // Grows as elements are found, so that a wrong count costs nothing.
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(body(reader, element, depth.checked_sub(1).ok_or(Damaged)?)?);
    }
    Ok(Array::new(data_type, values, dimensions).map_err(|_| Damaged)?.into())
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(0, |bytes| bytes.len() as u64 + 1));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn optional<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Damaged> {
    match reader.number::<usize>()? {
        0 => Ok(None),
        length => reader.take(length - 1).map(Some),
    }
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &Option<Arc<str>>) {
    put_optional(out, text.as_deref().map(str::as_bytes));
}

pub(super) fn text(reader: &mut Reader<'_>) -> Result<Option<Arc<str>>, Damaged> {
    let bytes = optional(reader)?;
    bytes.map(|bytes| std::str::from_utf8(bytes).map(Arc::from).map_err(|_| Damaged)).transpose()
}

fn put_node_id(out: &mut Vec<u8>, id: &NodeId) {
    put_varint(out, id.namespace.into());
    match &id.identifier {
        Identifier::Numeric(v) => {
            out.push(0);
            put_varint(out, (*v).into());
        }
        Identifier::String(v) => {
            out.push(1);
            put_text(out, v);
        }
        Identifier::Guid(v) => {
            out.push(2);
            out.extend(v);
        }
        Identifier::Opaque(v) => {
            out.push(3);
            put_optional(out, v.as_deref());
        }
    }
}

fn node_id(reader: &mut Reader<'_>) -> Result<NodeId, Damaged> {
    let namespace = reader.number()?;
    let identifier = match reader.byte()? {
        0 => Identifier::Numeric(reader.number()?),
        1 => Identifier::String(text(reader)?),
        2 => Identifier::Guid(reader.array()?),
        3 => Identifier::Opaque(optional(reader)?.map(Arc::from)),
        _ => return Err(Damaged),
    };
    Ok(NodeId { namespace, identifier })
}

fn put_structure(out: &mut Vec<u8>, structure: &Structure) {
    put_node_id(out, &structure.encoding);
    match &structure.body {
        Body::None => out.push(0),
        Body::Binary(bytes) => {
            out.push(1);
            put_bytes(out, bytes);
        }
        Body::Xml(text) => {
            out.push(2);
            put_bytes(out, text.as_bytes());
        }
    }
}

fn structure(reader: &mut Reader<'_>) -> Result<Structure, Damaged> {
    let encoding = node_id(reader)?;
    let body = match reader.byte()? {
        0 => Body::None,
        1 => Body::Binary(reader.bytes()?.into()),
        2 => Body::Xml(reader.text()?.into()),
        _ => return Err(Damaged),
    };
    Ok(Structure { encoding, body })
}

/// A byte in which each bit says that the part of that place follows.
fn mask(parts: &[bool]) -> u8 {
    parts.iter().enumerate().fold(0, |mask, (bit, part)| mask | (u8::from(*part) << bit))
}

fn put_data_value(out: &mut Vec<u8>, v: &DataValue) {
    out.push(mask(&[
        v.value.is_some(),
        v.status.is_some(),
        v.source_time.is_some(),
        v.source_picoseconds.is_some(),
        v.server_time.is_some(),
        v.server_picoseconds.is_some(),
    ]));
    if let Some(value) = &v.value {
        put_value(out, value);
    }
    if let Some(status) = v.status {
        put_varint(out, status.0.into());
    }
    for (time, picoseconds) in [(v.source_time, v.source_picoseconds), (v.server_time, v.server_picoseconds)] {
        if let Some(time) = time {
            put_signed(out, time.ticks());
        }
        if let Some(picoseconds) = picoseconds {
            put_varint(out, picoseconds.into());
        }
    }
}

fn data_value(reader: &mut Reader<'_>, depth: u8) -> Result<DataValue, Damaged> {
    let mask = reader.byte()?;
    let has = |bit: u8| mask & (1 << bit) != 0;
    Ok(DataValue {
        value: has(0).then(|| value_at(reader, depth)).transpose()?,
        status: has(1).then(|| reader.number().map(Status)).transpose()?,
        source_time: has(2).then(|| reader.signed().map(Timestamp::from_ticks)).transpose()?,
        source_picoseconds: has(3).then(|| reader.number()).transpose()?,
        server_time: has(4).then(|| reader.signed().map(Timestamp::from_ticks)).transpose()?,
        server_picoseconds: has(5).then(|| reader.number()).transpose()?,
    })
}

fn put_diagnostic_info(out: &mut Vec<u8>, v: &DiagnosticInfo) {
    let numbers = [v.symbolic_id, v.namespace_uri, v.locale, v.localized_text];
    out.push(mask(&[
        numbers[0].is_some(),
        numbers[1].is_some(),
        numbers[2].is_some(),
        numbers[3].is_some(),
        v.additional_info.is_some(),
        v.inner_status.is_some(),
        v.inner.is_some(),
    ]));
    for number in numbers.into_iter().flatten() {
        put_signed(out, number.into());
    }
    if let Some(info) = &v.additional_info {
        put_text(out, info);
    }
    if let Some(status) = v.inner_status {
        put_varint(out, status.0.into());
    }
    if let Some(inner) = &v.inner {
        put_diagnostic_info(out, inner);
    }
}

fn diagnostic_info(reader: &mut Reader<'_>, depth: u8) -> Result<DiagnosticInfo, Damaged> {
    let mask = reader.byte()?;
    let has = |bit: u8| mask & (1 << bit) != 0;
    let mut number = |bit| {
        let number = |value: i64| i32::try_from(value).map_err(|_| Damaged);
        has(bit).then(|| reader.signed().and_then(number)).transpose()
    };
    let (symbolic_id, namespace_uri, locale, localized_text) = (number(0)?, number(1)?, number(2)?, number(3)?);
    Ok(DiagnosticInfo {
        symbolic_id,
        namespace_uri,
        locale,
        localized_text,
        additional_info: has(4).then(|| text(reader)).transpose()?,
        inner_status: has(5).then(|| reader.number().map(Status)).transpose()?,
        inner: match has(6) {
            true => Some(Arc::new(diagnostic_info(reader, depth.checked_sub(1).ok_or(Damaged)?)?)),
            false => None,
        },
    })
}
