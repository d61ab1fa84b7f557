//! One metric as it was last told: value, quality, unit, time. And what a metric on the wire says.
//!
//! What is kept of a value is bounded: what is longer than the host keeps becomes its length, data sets and templates
//! become JSON text.

use crate::model::{DataType, Timestamp, Value};
use crate::mqtt::sparkplug::codec;
use crate::mqtt::sparkplug::proto::DataType as Type;
use crate::mqtt::sparkplug::proto::payload::{self, DataSet, PropertySet, Template, metric as wire, property_value};
use prost::Message as _;
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

/// A name that is longer is nobody's.
pub const LONGEST_NAME: usize = 1024;

/// Of a reason or a unit.
const LONGEST_WORDS: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub name: Arc<str>,
    /// As the birth said, or as the value looks.
    pub kind: Type,
    pub held: Held,
    pub quality: QualityCode,
    /// Why it is not good, in words; of ours only.
    pub reason: Option<Arc<str>>,
    pub unit: Option<Arc<str>>,
    /// When the value was so.
    pub time: Option<Timestamp>,
}

/// What is kept of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    Null,
    Value(Value),
    /// A data set or a template, as JSON.
    Json(Arc<str>),
    /// Bytes that are more than are kept.
    Long(usize),
    /// It is not what its type says.
    Unreadable,
}

/// Property `Quality`, Sparkplug 3.0, 6.4.9.1. Absent means good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QualityCode {
    Bad,
    #[default]
    Good,
    Stale,
}

/// What is beside the value in the properties.
#[derive(Default)]
pub struct Properties {
    pub quality: QualityCode,
    pub reason: Option<Arc<str>>,
    pub unit: Option<Arc<str>>,
}

impl Properties {
    pub fn read(set: Option<&PropertySet>) -> Self {
        let mut read = Self::default();
        let Some(set) = set else { return read };
        for (key, property) in set.keys.iter().zip(&set.values) {
            match (key.as_str(), &property.value) {
                ("Quality" | "quality", Some(property_value::Value::IntValue(code))) => {
                    read.quality = match code {
                        0 => QualityCode::Bad,
                        500 => QualityCode::Stale,
                        _ => QualityCode::Good,
                    };
                }
                ("Reason" | "reason", Some(property_value::Value::StringValue(text))) => read.reason = words(text),
                // Each vendor has a word of its own for it; the first is that of the most widespread host.
                (
                    "engUnit" | "EngUnit" | "engineeringUnit" | "Engineering Unit" | "unit" | "Unit" | "units",
                    Some(property_value::Value::StringValue(text)),
                ) => read.unit = words(text),
                _ => {}
            }
        }
        read
    }
}

fn words(text: &str) -> Option<Arc<str>> {
    (!text.is_empty() && text.len() <= LONGEST_WORDS).then(|| text.into())
}

/// The type that the metric names.
pub fn kind(metric: &payload::Metric) -> Option<Type> {
    known(metric.datatype?)
}

fn known(number: u32) -> Option<Type> {
    let number = i32::try_from(number).ok()?;
    Type::try_from(number).ok().filter(|kind| *kind != Type::Unknown)
}

/// The type that a value has by its looks, for one whose birth nobody heard.
pub fn likely_kind(value: Option<&wire::Value>) -> Type {
    match value {
        Some(wire::Value::IntValue(_)) => Type::Int32,
        Some(wire::Value::LongValue(_)) => Type::Int64,
        Some(wire::Value::FloatValue(_)) => Type::Float,
        Some(wire::Value::DoubleValue(_)) => Type::Double,
        Some(wire::Value::BooleanValue(_)) => Type::Boolean,
        Some(wire::Value::StringValue(_)) => Type::String,
        Some(wire::Value::BytesValue(_)) => Type::Bytes,
        Some(wire::Value::DatasetValue(_)) => Type::DataSet,
        Some(wire::Value::TemplateValue(_)) => Type::Template,
        Some(wire::Value::ExtensionValue(_)) | None => Type::Unknown,
    }
}

/// The value of a metric of this type. `longest` is how many bytes of it are kept.
pub fn held(metric: &mut payload::Metric, kind: Type, longest: usize) -> Held {
    if metric.is_null() {
        return Held::Null;
    }
    match &metric.value {
        None => return Held::Null,
        Some(wire::Value::StringValue(text)) if text.len() > longest => return Held::Long(text.len()),
        Some(wire::Value::BytesValue(bytes)) if bytes.len() > longest => return Held::Long(bytes.len()),
        Some(wire::Value::DatasetValue(set)) => {
            return match set.encoded_len() {
                length if length > longest => Held::Long(length),
                _ => Held::Json(data_set(set).to_string().into()),
            };
        }
        Some(wire::Value::TemplateValue(template)) => {
            return match template.encoded_len() {
                length if length > longest => Held::Long(length),
                _ => Held::Json(self::template(template).to_string().into()),
            };
        }
        Some(wire::Value::BytesValue(bytes)) if matches!(kind, Type::Bytes | Type::File) => {
            return Held::Value(Value::bytes(bytes.as_slice()));
        }
        Some(_) => {}
    }
    let Some((data_type, is_array)) = tag_type(kind) else { return Held::Unreadable };
    metric.datatype = u32::try_from(kind as i32).ok();
    codec::decode(metric, data_type, is_array).map_or(Held::Unreadable, Held::Value)
}

/// The type of a tag that holds such a metric; text of any kind is a String. `None`: no value of a tag is like it.
pub fn tag_type(kind: Type) -> Option<(DataType, bool)> {
    Some(match kind {
        Type::Boolean => (DataType::Boolean, false),
        Type::Int8 => (DataType::SByte, false),
        Type::Int16 => (DataType::Int16, false),
        Type::Int32 => (DataType::Int32, false),
        Type::Int64 => (DataType::Int64, false),
        Type::UInt8 => (DataType::Byte, false),
        Type::UInt16 => (DataType::UInt16, false),
        Type::UInt32 => (DataType::UInt32, false),
        Type::UInt64 => (DataType::UInt64, false),
        Type::Float => (DataType::Float, false),
        Type::Double => (DataType::Double, false),
        Type::DateTime => (DataType::DateTime, false),
        Type::String | Type::Text | Type::Uuid => (DataType::String, false),
        Type::Bytes | Type::File => (DataType::ByteString, false),
        Type::BooleanArray => (DataType::Boolean, true),
        Type::Int8Array => (DataType::SByte, true),
        Type::Int16Array => (DataType::Int16, true),
        Type::Int32Array => (DataType::Int32, true),
        Type::Int64Array => (DataType::Int64, true),
        Type::UInt8Array => (DataType::Byte, true),
        Type::UInt16Array => (DataType::UInt16, true),
        Type::UInt32Array => (DataType::UInt32, true),
        Type::UInt64Array => (DataType::UInt64, true),
        Type::FloatArray => (DataType::Float, true),
        Type::DoubleArray => (DataType::Double, true),
        Type::DateTimeArray => (DataType::DateTime, true),
        Type::StringArray => (DataType::String, true),
        Type::Unknown | Type::DataSet | Type::Template | Type::PropertySet | Type::PropertySetList => return None,
    })
}

fn name_of(kind: u32) -> &'static str {
    known(kind).unwrap_or(Type::Unknown).as_str_name()
}

fn data_set(set: &DataSet) -> Json {
    use payload::data_set::data_set_value::Value as Cell;
    let cell = |(column, cell): (usize, &payload::data_set::DataSetValue)| match &cell.value {
        Some(Cell::IntValue(v)) => whole(set.types.get(column).and_then(|kind| known(*kind)), (*v).into()),
        Some(Cell::LongValue(v)) => whole(set.types.get(column).and_then(|kind| known(*kind)), *v),
        Some(Cell::FloatValue(v)) => json!(v),
        Some(Cell::DoubleValue(v)) => json!(v),
        Some(Cell::BooleanValue(v)) => json!(v),
        Some(Cell::StringValue(v)) => json!(v),
        Some(Cell::ExtensionValue(_)) | None => Json::Null,
    };
    let rows: Vec<Vec<Json>> = set.rows.iter().map(|row| row.elements.iter().enumerate().map(cell).collect()).collect();
    let types: Vec<&str> = set.types.iter().map(|kind| name_of(*kind)).collect();
    json!({ "columns": set.columns, "types": types, "rows": rows })
}

/// On the wire it has no sign.
fn whole(kind: Option<Type>, number: u64) -> Json {
    match kind {
        Some(Type::Int8) => json!(number as i8),
        Some(Type::Int16) => json!(number as i16),
        Some(Type::Int32) => json!(number as i32),
        Some(Type::Int64) => json!(number as i64),
        _ => json!(number),
    }
}

/// Its members by name; templates in templates end with the decoder's own limit of depth.
fn template(template: &Template) -> Json {
    let mut members = Map::new();
    for metric in &template.metrics {
        members.insert(metric.name().to_owned(), member(metric));
    }
    let mut shown = json!({ "metrics": members });
    if let Some(definition) = &template.template_ref {
        shown["template"] = json!(definition);
    }
    if template.is_definition() {
        shown["definition"] = json!(true);
    }
    shown
}

fn member(metric: &payload::Metric) -> Json {
    match &metric.value {
        _ if metric.is_null() => Json::Null,
        None | Some(wire::Value::ExtensionValue(_)) => Json::Null,
        Some(wire::Value::IntValue(v)) => whole(kind(metric), (*v).into()),
        Some(wire::Value::LongValue(v)) => whole(kind(metric), *v),
        Some(wire::Value::FloatValue(v)) => json!(v),
        Some(wire::Value::DoubleValue(v)) => json!(v),
        Some(wire::Value::BooleanValue(v)) => json!(v),
        Some(wire::Value::StringValue(v)) => json!(v),
        Some(wire::Value::BytesValue(v)) => json!(format!("{} bytes", v.len())),
        Some(wire::Value::DatasetValue(v)) => data_set(v),
        Some(wire::Value::TemplateValue(v)) => template(v),
    }
}

impl Metric {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let held = match &self.held {
            Held::Json(text) => text.len(),
            Held::Value(Value::String(Some(text))) => text.len(),
            Held::Value(Value::ByteString(Some(bytes))) => bytes.len(),
            Held::Value(Value::Array(array)) => {
                let texts = array.values().iter().map(|value| match value {
                    Value::String(Some(text)) => text.len(),
                    _ => 0,
                });
                size_of_val(array.values()) + texts.sum::<usize>()
            }
            _ => 0,
        };
        size_of::<Self>() + held
    }

    pub fn as_f64(&self) -> Option<f64> {
        match &self.held {
            Held::Value(value) => value.as_f64(),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.held {
            Held::Value(Value::String(Some(text))) => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(kind: Type, value: wire::Value) -> payload::Metric {
        payload::Metric { datatype: Some(kind as u32), value: Some(value), ..Default::default() }
    }

    fn read(kind: Type, value: wire::Value) -> Held {
        held(&mut metric(kind, value), kind, 16)
    }

    #[test]
    fn values_are_what_their_types_say() {
        assert_eq!(read(Type::Int8, wire::Value::IntValue(0xFFFF_FFFF)), Held::Value(Value::SByte(-1)));
        assert_eq!(read(Type::Uuid, wire::Value::StringValue("x".into())), Held::Value(Value::string("x")));
        assert_eq!(read(Type::File, wire::Value::BytesValue(vec![1])), Held::Value(Value::bytes([1])));
        assert_eq!(read(Type::Int32, wire::Value::StringValue("x".into())), Held::Unreadable);
        assert_eq!(read(Type::Int16Array, wire::Value::BytesValue(vec![1])), Held::Unreadable);
        assert_eq!(read(Type::String, wire::Value::StringValue("x".repeat(17))), Held::Long(17));
        let mut null = payload::Metric { is_null: Some(true), ..metric(Type::Int8, wire::Value::IntValue(1)) };
        assert_eq!(held(&mut null, Type::Int8, 16), Held::Null);
    }

    #[test]
    fn a_data_set_and_a_template_are_json() {
        use payload::data_set::{DataSetValue, Row, data_set_value::Value as Cell};
        let cell = |value| DataSetValue { value: Some(value) };
        let set = DataSet {
            num_of_columns: Some(2),
            columns: vec!["a".into(), "b".into()],
            types: vec![Type::Int32 as u32, 99],
            rows: vec![
                Row { elements: vec![cell(Cell::IntValue(1)), cell(Cell::StringValue("x".into()))] },
                Row { elements: vec![cell(Cell::IntValue(-2i32 as u32)), cell(Cell::IntValue(-2i32 as u32))] },
            ],
        };
        let shown = held(&mut metric(Type::DataSet, wire::Value::DatasetValue(set)), Type::DataSet, 100);
        let text = r#"{"columns":["a","b"],"rows":[[1,"x"],[-2,4294967294]],"types":["Int32","Unknown"]}"#;
        assert_eq!(shown, Held::Json(text.into()));
        let member =
            payload::Metric { name: Some("Speed".into()), ..metric(Type::Int16, wire::Value::IntValue(0xFFFF)) };
        let template = Template { metrics: vec![member], template_ref: Some("Motor".into()), ..Default::default() };
        let shown = held(&mut metric(Type::Template, wire::Value::TemplateValue(template)), Type::Template, 100);
        assert_eq!(shown, Held::Json(r#"{"metrics":{"Speed":-1},"template":"Motor"}"#.into()));
    }
}
