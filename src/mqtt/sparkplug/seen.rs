//! A metric as a host reads it: any metric of any edge node, whose tags are not known here.
//!
//! Scalars and arrays become values of the type nearest to theirs. What has no place in a [`Value`] becomes text, as JSON: a
//! data set `{"columns": [...], "rows": [[...]]}`, a template `{"template": NAME, "members": {NAME: VALUE}}`.

use super::codec::{self, DecodeError};
use super::proto::DataType as Type;
use super::proto::payload::{DataSet, Metric, Template, data_set, metric};
use super::text;
use crate::model::{DataType, Value};
use serde_json::json;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    #[error("it is of type {0}, which no metric can be")]
    Type(u32),
    #[error("{0}")]
    Value(#[from] DecodeError),
    #[error("it is a {0:?} without one in it")]
    Missing(Type),
}

/// The value of a metric; [`Value::Empty`] if it is null. DATA names no type, so `born` is the one of the birth.
pub fn seen(metric: &Metric, born: Type) -> Result<Value, SeenError> {
    let found = match metric.datatype {
        None | Some(0) => born,
        Some(number) => {
            i32::try_from(number).ok().and_then(|n| Type::try_from(n).ok()).ok_or(SeenError::Type(number))?
        }
    };
    let Some(wire) = metric.value.as_ref().filter(|_| !metric.is_null()) else { return Ok(Value::Empty) };
    let (data_type, is_array) = match found {
        Type::Unknown | Type::PropertySet | Type::PropertySetList => return Err(SeenError::Type(found as u32)),
        Type::DataSet => {
            let metric::Value::DatasetValue(table) = wire else { return Err(SeenError::Missing(found)) };
            return Ok(Value::string(of_table(table).to_string()));
        }
        Type::Template => {
            let metric::Value::TemplateValue(template) = wire else { return Err(SeenError::Missing(found)) };
            return Ok(Value::string(of_template(template).to_string()));
        }
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
        // Not every UUID is one; as a text each can be shown.
        Type::String | Type::Text | Type::Uuid => (DataType::String, false),
        Type::DateTime => (DataType::DateTime, false),
        Type::Bytes | Type::File => (DataType::ByteString, false),
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
        Type::BooleanArray => (DataType::Boolean, true),
        Type::StringArray => (DataType::String, true),
        Type::DateTimeArray => (DataType::DateTime, true),
    };
    Ok(codec::decode_as(found, wire, data_type, is_array)?)
}

fn of_table(table: &DataSet) -> serde_json::Value {
    use data_set::data_set_value::Value as Cell;
    let cell = |(at, element): (usize, &data_set::DataSetValue)| {
        let datatype = table.types.get(at).copied();
        let value = element.value.as_ref().and_then(|cell| {
            Some(match cell {
                Cell::IntValue(v) => metric::Value::IntValue(*v),
                Cell::LongValue(v) => metric::Value::LongValue(*v),
                Cell::FloatValue(v) => metric::Value::FloatValue(*v),
                Cell::DoubleValue(v) => metric::Value::DoubleValue(*v),
                Cell::BooleanValue(v) => metric::Value::BooleanValue(*v),
                Cell::StringValue(v) => metric::Value::StringValue(v.clone()),
                Cell::ExtensionValue(_) => return None,
            })
        });
        of_metric(&Metric { datatype, value, ..Metric::default() })
    };
    let rows = table.rows.iter().map(|row| row.elements.iter().enumerate().map(cell).collect::<Vec<_>>());
    json!({ "columns": table.columns, "rows": rows.collect::<Vec<_>>() })
}

fn of_template(template: &Template) -> serde_json::Value {
    let members = template.metrics.iter().map(|member| (member.name().to_owned(), of_metric(member)));
    let members: serde_json::Map<_, _> = members.collect();
    json!({ "template": template.template_ref, "members": members })
}

/// Null also if it cannot be read; without a type as what it is on the line.
fn of_metric(metric: &Metric) -> serde_json::Value {
    let born = match metric.value {
        Some(metric::Value::IntValue(_)) => Type::Int32,
        Some(metric::Value::LongValue(_)) => Type::Int64,
        Some(metric::Value::FloatValue(_)) => Type::Float,
        Some(metric::Value::DoubleValue(_)) => Type::Double,
        Some(metric::Value::BooleanValue(_)) => Type::Boolean,
        Some(metric::Value::BytesValue(_)) => Type::Bytes,
        Some(metric::Value::DatasetValue(_)) => Type::DataSet,
        Some(metric::Value::TemplateValue(_)) => Type::Template,
        _ => Type::String,
    };
    // What is JSON already stays so, and is no text in a text.
    match (&metric.value, metric.is_null()) {
        (Some(metric::Value::DatasetValue(table)), false) => of_table(table),
        (Some(metric::Value::TemplateValue(template)), false) => of_template(template),
        _ => seen(metric, born).map_or(serde_json::Value::Null, |value| of_value(&value)),
    }
}

fn of_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Boolean(v) => json!(v),
        Value::SByte(v) => json!(v),
        Value::Byte(v) => json!(v),
        Value::Int16(v) => json!(v),
        Value::UInt16(v) => json!(v),
        Value::Int32(v) => json!(v),
        Value::UInt32(v) => json!(v),
        Value::Int64(v) => json!(v),
        Value::UInt64(v) => json!(v),
        Value::Float(v) => json!(v),
        Value::Double(v) => json!(v),
        Value::String(Some(text)) => json!(text.as_ref()),
        Value::DateTime(time) => json!(time.to_string()),
        Value::ByteString(Some(bytes)) => json!(text::base64(bytes)),
        Value::Array(array) => array.values().iter().map(of_value).collect(),
        _ => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::mqtt::sparkplug::codec::{encode, metric_type};
    use data_set::data_set_value::Value as Cell;

    fn metric(datatype: Option<Type>, value: metric::Value) -> Metric {
        Metric { datatype: datatype.map(|t| t as u32), value: Some(value), ..Metric::default() }
    }

    #[test]
    fn scalars_and_arrays_come_back_as_they_were() {
        let array = |values: Vec<Value>| {
            Value::from(crate::model::Array::new(values[0].data_type().unwrap(), values, None).unwrap())
        };
        for value in [
            Value::Boolean(true),
            Value::SByte(-1),
            Value::Int16(-2),
            Value::Int32(i32::MIN),
            Value::Int64(-1),
            Value::Byte(255),
            Value::UInt16(65535),
            Value::UInt64(u64::MAX),
            Value::Float(1.5),
            Value::Double(-0.25),
            Value::string("é"),
            Value::DateTime(Timestamp::from_millis(1_668_114_759_262)),
            Value::bytes([0u8, 255].as_slice()),
            array(vec![Value::Int16(-2), Value::Int16(3)]),
            array(vec![Value::UInt32(u32::MAX)]),
            array(vec![Value::Boolean(true), Value::Boolean(false)]),
            array(vec![Value::string("a"), Value::string("b")]),
        ] {
            let born = metric_type(value.data_type().unwrap(), value.is_array());
            let wire = encode(&value).unwrap();
            assert_eq!(seen(&metric(None, wire.clone()), born), Ok(value.clone()), "by the birth's type");
            assert_eq!(seen(&metric(Some(born), wire), Type::Unknown), Ok(value), "by its own");
        }
        let null = Metric { is_null: Some(true), ..metric(Some(Type::Int8), metric::Value::IntValue(1)) };
        assert_eq!(seen(&null, Type::Unknown), Ok(Value::Empty));
        let long = metric(Some(Type::UInt32), metric::Value::LongValue(u32::MAX.into()));
        assert_eq!(seen(&long, Type::Unknown), Ok(Value::UInt32(u32::MAX)), "as older libraries write it");
    }

    #[test]
    fn tables_and_templates_are_json() {
        let cell = |value| data_set::DataSetValue { value: Some(value) };
        let table = DataSet {
            num_of_columns: Some(3),
            columns: vec!["n".into(), "t".into(), "x".into()],
            types: vec![Type::Int8 as u32, Type::String as u32, Type::Double as u32],
            rows: vec![data_set::Row {
                elements: vec![
                    cell(Cell::IntValue(-5i32 as u32)),
                    cell(Cell::StringValue("a\"b".into())),
                    cell(Cell::DoubleValue(f64::NAN)),
                ],
            }],
        };
        let text = r#"{"columns":["n","t","x"],"rows":[[-5,"a\"b",null]]}"#;
        let wire = metric::Value::DatasetValue(table);
        assert_eq!(seen(&metric(None, wire.clone()), Type::DataSet), Ok(Value::string(text)));

        let inner = Metric { name: Some("table".into()), ..metric(Some(Type::DataSet), wire) };
        let speed = Metric { name: Some("speed".into()), ..metric(None, metric::Value::FloatValue(1.5)) };
        let template =
            Template { metrics: vec![speed, inner], template_ref: Some("Motor".into()), ..Template::default() };
        let text = format!(r#"{{"members":{{"speed":1.5,"table":{text}}},"template":"Motor"}}"#);
        let wire = metric::Value::TemplateValue(template);
        assert_eq!(seen(&metric(Some(Type::Template), wire), Type::Unknown), Ok(Value::string(text)));
    }

    #[test]
    fn what_is_none_is_refused() {
        let int = || metric::Value::IntValue(1);
        for wrong in [0, 20, 21, 99, u32::MAX] {
            let metric = Metric { datatype: Some(wrong), ..metric(None, int()) };
            assert_eq!(seen(&metric, Type::Unknown), Err(SeenError::Type(wrong)));
        }
        for wrong in [Type::DataSet, Type::Template] {
            assert_eq!(seen(&metric(Some(wrong), int()), Type::Unknown), Err(SeenError::Missing(wrong)));
        }
        for wrong in [Type::String, Type::Int64, Type::Bytes, Type::Int16Array, Type::Boolean, Type::Float] {
            assert!(matches!(seen(&metric(Some(wrong), int()), Type::Unknown), Err(SeenError::Value(_))), "{wrong:?}");
        }
    }
}
