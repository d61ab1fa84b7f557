//! JSON as a value for a tag. The other way round, and which form is which: [`crate::opcua::json`].
//!
//! Taken are numbers, Booleans, texts, DateTime, ByteString and arrays of them; nothing is rounded or cut to fit.

use crate::model::{Array, DataType, TagSpec, Timestamp, Value};
use base64ct::{Base64, Encoding as _};
use serde_json::Value as Json;

/// What the tag takes, or what it would take.
pub(super) fn from_json(json: &Json, spec: &TagSpec) -> Result<Value, String> {
    let wrong = |what: String| format!("{}: {what}", spec.name);
    if spec.data_type == DataType::Variant {
        return guess(json).ok_or_else(|| wrong("write true, false, a number or a text".into()));
    }
    match (json, spec.is_array) {
        (Json::Array(items), true) => {
            let values: Result<Vec<Value>, String> = items.iter().map(|item| scalar(item, spec.data_type)).collect();
            let array = Array::new(spec.data_type, values.map_err(wrong)?, None);
            array.map(Value::from).map_err(|error| wrong(error.to_string()))
        }
        (_, true) => Err(wrong(format!("it is an array of {}: write [...]", spec.data_type))),
        (json, false) => scalar(json, spec.data_type).map_err(wrong),
    }
}

/// Of what its owner takes as it comes.
fn guess(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Bool(v) => Value::Boolean(*v),
        Json::String(v) => Value::string(v.as_str()),
        Json::Number(v) => v.as_i64().map(Value::Int64).or_else(|| v.as_f64().map(Value::Double))?,
        _ => return None,
    })
}

fn scalar(json: &Json, data_type: DataType) -> Result<Value, String> {
    fn whole<T: TryFrom<i128>>(json: &Json) -> Option<T> {
        let Json::Number(number) = json else { return None };
        let number = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))?;
        T::try_from(number).ok()
    }
    let text = json.as_str();
    let (value, way_out) = match data_type {
        DataType::Boolean => (json.as_bool().map(Value::Boolean), "write true or false"),
        DataType::SByte => (whole(json).map(Value::SByte), "write a whole number from -128 to 127"),
        DataType::Byte => (whole(json).map(Value::Byte), "write a whole number from 0 to 255"),
        DataType::Int16 => (whole(json).map(Value::Int16), "write a whole number from -32768 to 32767"),
        DataType::UInt16 => (whole(json).map(Value::UInt16), "write a whole number from 0 to 65535"),
        DataType::Int32 => (whole(json).map(Value::Int32), "write a whole number of 32 bits"),
        DataType::UInt32 => (whole(json).map(Value::UInt32), "write a whole number of 32 bits without a sign"),
        DataType::Int64 => (whole(json).map(Value::Int64), "write a whole number of 64 bits"),
        DataType::UInt64 => (whole(json).map(Value::UInt64), "write a whole number of 64 bits without a sign"),
        DataType::Float => {
            let fits = |v: &f64| !v.is_finite() || v.abs() <= f32::MAX.into();
            (double(json).filter(fits).map(|v| Value::Float(v as f32)), "write a number of single precision")
        }
        DataType::Double => (double(json).map(Value::Double), "write a number"),
        DataType::String => (text.map(Value::string), "write a text"),
        DataType::XmlElement => (text.map(|text| Value::XmlElement(Some(text.into()))), "write a text"),
        DataType::DateTime => {
            let time = text.and_then(|text| humantime::parse_rfc3339_weak(text).ok());
            (
                time.map(|time| Value::DateTime(Timestamp::from(time))),
                "write a time in UTC, as in \"2026-11-21T14:30:00Z\"",
            )
        }
        DataType::ByteString => (text.and_then(|text| Base64::decode_vec(text).ok()).map(Value::bytes), "write base64"),
        _ => (None, "values of this type cannot be written by JSON"),
    };
    let shown = || json.to_string().chars().take(64).collect::<String>();
    value.ok_or_else(|| format!("{} is no {data_type}: {way_out}", shown()))
}

/// Also what JSON has no number for.
fn double(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TagName, TagSpec};
    use crate::opcua::json::json as to_json;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(data_type: DataType, is_array: bool) -> TagSpec {
        TagSpec { is_array, ..TagSpec::new(TagName::new("a").unwrap(), data_type) }
    }

    #[test]
    fn what_goes_out_comes_back() {
        for value in [
            Value::Boolean(true),
            Value::SByte(-128),
            Value::UInt64(u64::MAX),
            Value::Int64(i64::MIN),
            Value::Float(0.1),
            Value::Double(f64::INFINITY),
            Value::string("ü"),
            Value::bytes([0, 255, 3]),
            Value::DateTime(Timestamp::from_ticks(17_952_325_691_234_567)),
        ] {
            let spec = spec(value.data_type().unwrap(), false);
            assert_eq!(from_json(&to_json(&value), &spec), Ok(value));
        }
        let array = Value::from(Array::new(DataType::Int16, vec![Value::Int16(1), Value::Int16(-2)], None).unwrap());
        assert_eq!(to_json(&array), json!([1, -2]));
        assert_eq!(from_json(&json!([1, -2]), &spec(DataType::Int16, true)), Ok(array));
        assert_eq!(to_json(&Value::Float(0.1)).to_string(), "0.1");
        assert_eq!(to_json(&Value::Empty), Json::Null);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_way_out() {
        for (json, data_type, is_array, words) in [
            (json!(256), DataType::Byte, false, "from 0 to 255"),
            (json!(1.5), DataType::Int32, false, "32 bits"),
            (json!("5"), DataType::Int32, false, "32 bits"),
            (json!(1), DataType::Boolean, false, "true or false"),
            (json!(1e39), DataType::Float, false, "single precision"),
            (json!("soon"), DataType::DateTime, false, "2026-11-21T14:30:00Z"),
            (json!(null), DataType::String, false, "a text"),
            (json!(1), DataType::Int32, true, "write [...]"),
            (json!([1, "x"]), DataType::Int32, true, "\"x\" is no Int32"),
            (json!("i=1"), DataType::NodeId, false, "cannot be written by JSON"),
            (json!({}), DataType::Variant, false, "a number or a text"),
        ] {
            let error = from_json(&json, &spec(data_type, is_array)).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_number_comes_back(double in any::<f64>(), float in any::<f32>(), long in any::<i64>()) {
            prop_assume!(!double.is_nan() && !float.is_nan());
            for value in [Value::Double(double), Value::Float(float), Value::Int64(long)] {
                let text = to_json(&value).to_string();
                let back = from_json(&serde_json::from_str(&text).unwrap(), &spec(value.data_type().unwrap(), false));
                // serde_json reads a double to the last bit or next to it.
                if let (Value::Double(a), Ok(Value::Double(b))) = (&value, &back) {
                    prop_assert!(a == b || (a - b).abs() <= a.abs() * 1e-15, "{a} {b}");
                } else {
                    prop_assert_eq!(back, Ok(value));
                }
            }
        }
    }
}
