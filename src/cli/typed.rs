//! A value as a person types it, made into what a node takes.
//!
//! One value by its DataType; arrays as JSON (`[1, 2, 3]`, `[[1, 2], [3, 4]]`). Nothing is rounded or cut to fit: what is out
//! of range is refused with the range. Enumerations are taken by name or number.

use super::show;
use crate::model::{Array, DataType, LocalizedText, NodeId, QualifiedName, Status, Timestamp, Value};
use crate::opcua::{timestamp, value};
use base64ct::{Base64, Encoding};
use opcua::types as ua;
use serde_json::Value as Json;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

/// What a node takes.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub data_type: DataType,
    /// OPC 10000-3, 5.6.2: -1 scalar, 0 an array, 1 and more that many dimensions, -2 anything, -3 scalar or a list.
    pub rank: i32,
    /// Names and numbers, if it is an enumeration.
    pub names: Vec<(i64, String)>,
}

impl Wanted {
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        let trimmed = text.trim_start();
        match self.rank {
            // A String may begin with a bracket, a scalar never is an array.
            -1 => self.scalar(text),
            0.. => self.array(trimmed),
            _ if trimmed.starts_with('[') => self.array(trimmed),
            _ => self.scalar(text),
        }
    }

    fn array(&self, text: &str) -> Result<Value, String> {
        let example = if self.rank > 1 { "[[1, 2], [3, 4]]" } else { "[1, 2, 3] or [\"a\", \"b\"]" };
        let wrong =
            |what: String| format!("{what}; this is an array of {}: write JSON, as in {example}", self.data_type);
        let parsed: Json = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let Json::Array(items) = &parsed else { return Err(wrong("there are no brackets".into())) };
        let mut dimensions = Vec::new();
        let mut inner = Some(items);
        while let Some(items) = inner {
            dimensions.push(u32::try_from(items.len()).map_err(|_| wrong("it is too long".into()))?);
            inner = items.first().and_then(Json::as_array);
        }
        if self.rank > 0 && usize::try_from(self.rank) != Ok(dimensions.len()) {
            return Err(wrong(format!("it has {} dimensions, and {} are wanted", dimensions.len(), self.rank)));
        }
        let mut values = Vec::new();
        self.elements(items, &dimensions, &mut values)?;
        let dimensions = (dimensions.len() > 1).then(|| dimensions.into_boxed_slice());
        Array::new(self.data_type, values, dimensions).map(Value::from).map_err(|error| error.to_string())
    }

    fn elements(&self, items: &[Json], dimensions: &[u32], values: &mut Vec<Value>) -> Result<(), String> {
        let Some((&length, inner)) = dimensions.split_first() else { return Ok(()) };
        if items.len() != length as usize {
            return Err(format!("rows of an array are of one length: here is one of {}, not {length}", items.len()));
        }
        for item in items {
            match (item, inner.is_empty()) {
                (Json::Array(row), false) => self.elements(row, inner, values)?,
                (Json::Array(_), true) | (_, false) => return Err("rows of an array are of one depth".into()),
                (Json::String(text), true) => values.push(self.at(values.len(), text)?),
                (Json::Object(_) | Json::Null, true) => return Err(format!("{item} is no element of an array")),
                (number, true) => values.push(self.at(values.len(), &number.to_string())?),
            }
        }
        Ok(())
    }

    fn at(&self, index: usize, text: &str) -> Result<Value, String> {
        self.scalar(text).map_err(|what| format!("element {index}: {what}"))
    }

    fn scalar(&self, text: &str) -> Result<Value, String> {
        if self.names.is_empty() {
            return scalar(self.data_type, text);
        }
        let number = match self.names.iter().find(|(_, name)| name.eq_ignore_ascii_case(text.trim())) {
            Some((number, _)) => number.to_string(),
            None => text.trim().to_owned(),
        };
        let is_known = number.parse().is_ok_and(|number: i64| self.names.iter().any(|(known, _)| *known == number));
        if !is_known {
            let known: Vec<_> =
                self.names.iter().map(|(number, name)| format!("{} ({number})", show::printable(name))).collect();
            return Err(format!("{text:?} is not one of the enumeration: {}", known.join(", ")));
        }
        scalar(self.data_type, &number)
    }
}

fn scalar(data_type: DataType, text: &str) -> Result<Value, String> {
    let trimmed = text.trim();
    let wrong = |way_out: &str| format!("{text:?} is no {data_type}: {way_out}");
    Ok(match data_type {
        DataType::Boolean => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Value::Boolean(true),
            "false" | "0" | "off" | "no" => Value::Boolean(false),
            _ => return Err(wrong("write true or false")),
        },
        DataType::SByte => Value::SByte(integer(data_type, trimmed, i8::MIN, i8::MAX)?),
        DataType::Byte => Value::Byte(integer(data_type, trimmed, u8::MIN, u8::MAX)?),
        DataType::Int16 => Value::Int16(integer(data_type, trimmed, i16::MIN, i16::MAX)?),
        DataType::UInt16 => Value::UInt16(integer(data_type, trimmed, u16::MIN, u16::MAX)?),
        DataType::Int32 => Value::Int32(integer(data_type, trimmed, i32::MIN, i32::MAX)?),
        DataType::UInt32 => Value::UInt32(integer(data_type, trimmed, u32::MIN, u32::MAX)?),
        DataType::Int64 => Value::Int64(integer(data_type, trimmed, i64::MIN, i64::MAX)?),
        DataType::UInt64 => Value::UInt64(integer(data_type, trimmed, u64::MIN, u64::MAX)?),
        DataType::Float => {
            let parsed: f32 = number(data_type, trimmed)?;
            // "inf" is meant, 1e39 is not.
            if parsed.is_infinite() && trimmed.contains(|c: char| c.is_ascii_digit()) {
                return Err(out_of_range(data_type, trimmed, f32::MIN, f32::MAX));
            }
            Value::Float(parsed)
        }
        DataType::Double => {
            let parsed: f64 = number(data_type, trimmed)?;
            if parsed.is_infinite() && trimmed.contains(|c: char| c.is_ascii_digit()) {
                return Err(out_of_range(data_type, trimmed, -1.797_693_134_862_315_7e308, 1.797_693_134_862_315_7e308));
            }
            Value::Double(parsed)
        }
        DataType::String => Value::string(text),
        DataType::XmlElement => Value::XmlElement(Some(text.into())),
        DataType::DateTime => {
            Value::DateTime(date_time(trimmed).ok_or_else(|| {
                wrong("write RFC 3339 with a time zone, as in 2026-11-21T14:30:00Z or 2026-11-21T15:30:00+01:00, between the years 1601 and 9999")
            })?)
        }
        DataType::Guid => {
            let guid = ua::Guid::from_str(trimmed).map_err(|_| wrong("as in 09087e75-8e5e-499b-954f-f2a9603db28a"))?;
            value(&ua::Variant::from(guid))?
        }
        DataType::ByteString => Value::bytes(bytes(trimmed).map_err(|way_out| wrong(&way_out))?),
        DataType::NodeId => Value::NodeId(Arc::new(node_id(trimmed).ok_or_else(|| wrong("as in ns=2;s=Speed"))?)),
        DataType::StatusCode => Value::StatusCode(status(trimmed).ok_or_else(|| wrong("as in BadOutOfRange or 0x803C0000"))?),
        DataType::QualifiedName => {
            let (namespace, name) = match trimmed.split_once(':') {
                Some((index, name)) if index.parse::<u16>().is_ok() => (index.parse().unwrap_or_default(), name),
                _ => (0, trimmed),
            };
            Value::QualifiedName(Arc::new(QualifiedName { namespace, name: Some(name.into()) }))
        }
        DataType::LocalizedText => Value::LocalizedText(Arc::new(LocalizedText { locale: None, text: Some(text.into()) })),
        DataType::ExpandedNodeId
        | DataType::Structure
        | DataType::DataValue
        | DataType::Variant
        | DataType::DiagnosticInfo => {
            return Err(format!("values of type {data_type} cannot be typed in; only those of plain types can"));
        }
    })
}

/// Decimal, or hexadecimal after 0x.
fn integer<T: TryFrom<i128> + Display>(data_type: DataType, text: &str, min: T, max: T) -> Result<T, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let has_sign_twice = digits.starts_with(['+', '-']);
    let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => i128::from_str_radix(digits, 16),
        None => digits.parse::<i128>(),
    };
    match parsed {
        Ok(number) if !has_sign_twice => {
            T::try_from(sign * number).map_err(|_| out_of_range(data_type, text, min, max))
        }
        // Too long for any integer.
        _ if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            Err(out_of_range(data_type, text, min, max))
        }
        _ => Err(format!("{text:?} is no {data_type}: write a whole number, {min} to {max}")),
    }
}

fn out_of_range(data_type: DataType, text: &str, min: impl Display, max: impl Display) -> String {
    format!("{text} is out of the range of {data_type}, which is {min} to {max}")
}

fn number<T: FromStr>(data_type: DataType, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no {data_type}: write a number, as in 12.5, -3 or 1e-6"))
}

fn date_time(text: &str) -> Option<Timestamp> {
    let time = ua::DateTime::parse_from_rfc3339(text).ok()?;
    // The crate cuts what it cannot say to its ends, and nobody means these.
    let is_cut = time == ua::DateTime::epoch() || time == ua::DateTime::endtimes();
    (!is_cut).then(|| timestamp(&time))
}

/// `hex:01ff`, `base64:Af8=`, `@FILE`
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    if let Some(digits) = text.strip_prefix("hex:") {
        let digits: Vec<u32> = digits.chars().filter(|c| !c.is_whitespace()).map_while(|c| c.to_digit(16)).collect();
        let is_whole = digits.len() == text["hex:".len()..].chars().filter(|c| !c.is_whitespace()).count();
        return match is_whole && digits.len().is_multiple_of(2) {
            true => Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()),
            false => Err("after hex: come pairs of hexadecimal digits".into()),
        };
    }
    if let Some(encoded) = text.strip_prefix("base64:") {
        return Base64::decode_vec(encoded).map_err(|_| "after base64: comes base64 with its padding".into());
    }
    if let Some(path) = text.strip_prefix('@') {
        return std::fs::read(path).map_err(|error| format!("{path}: {error}"));
    }
    Err("write hex:01ff, base64:Af8= or @FILE".into())
}

pub(super) fn node_id(text: &str) -> Option<NodeId> {
    let parsed = ua::NodeId::from_str(text).ok()?;
    match value(&ua::Variant::NodeId(Box::new(parsed))) {
        Ok(Value::NodeId(id)) => Some(Arc::unwrap_or_clone(id)),
        _ => None,
    }
}

fn status(text: &str) -> Option<Status> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u32::from_str_radix(digits, 16).ok().map(Status);
    }
    match text {
        "Good" => Some(Status::GOOD),
        _ => ua::SubStatusCode::from_str(text).ok().map(|code| Status(code as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(data_type: DataType, rank: i32) -> Wanted {
        Wanted { data_type, rank, names: Vec::new() }
    }

    fn one(data_type: DataType, text: &str) -> Result<Value, String> {
        wanted(data_type, -1).parse(text)
    }

    #[test]
    fn numbers_keep_to_their_range() {
        assert_eq!(one(DataType::Byte, "255"), Ok(Value::Byte(255)));
        assert_eq!(one(DataType::Byte, "0xff"), Ok(Value::Byte(255)));
        assert_eq!(one(DataType::SByte, "-128"), Ok(Value::SByte(-128)));
        assert_eq!(one(DataType::UInt64, "18446744073709551615"), Ok(Value::UInt64(u64::MAX)));
        assert_eq!(one(DataType::Byte, "256").unwrap_err(), "256 is out of the range of Byte, which is 0 to 255");
        assert!(one(DataType::Int64, "9".repeat(60).as_str()).unwrap_err().contains("-9223372036854775808 to"));
        for text in ["", "-", "1.5", "--1", "0x", "+-1", "1 2", "ten"] {
            let said = one(DataType::Int32, text).unwrap_err();
            assert!(said.ends_with("write a whole number, -2147483648 to 2147483647"), "{text}: {said}");
        }
        assert!(one(DataType::Float, "1e39").unwrap_err().contains("out of the range of Float"));
        assert!(one(DataType::Double, "1e999").unwrap_err().contains("out of the range of Double"));
        assert_eq!(one(DataType::Float, "-inf"), Ok(Value::Float(f32::NEG_INFINITY)));
        assert!(one(DataType::Double, "1,5").unwrap_err().contains("as in 12.5"));
    }

    #[test]
    fn each_plain_type_is_read_as_it_is_shown() {
        for (data_type, text) in [
            (DataType::Boolean, "true"),
            (DataType::Double, "12.5"),
            (DataType::DateTime, "2026-11-21T14:30:00.123Z"),
            (DataType::Guid, "09087e75-8e5e-499b-954f-f2a9603db28a"),
            (DataType::NodeId, "ns=2;s=Speed"),
            (DataType::StatusCode, "BadOutOfRange"),
            (DataType::QualifiedName, "2:Speed"),
        ] {
            let shown = show::value(&one(data_type, text).unwrap(), show::Much::LINE);
            assert_eq!(shown, text);
        }
        assert_eq!(one(DataType::String, " [1] "), Ok(Value::string(" [1] ")), "nothing is taken away from text");
        assert_eq!(one(DataType::Boolean, "Off"), Ok(Value::Boolean(false)));
        assert_eq!(
            one(DataType::DateTime, "2026-11-21T15:30:00+01:00"),
            one(DataType::DateTime, "2026-11-21T14:30:00Z")
        );
        assert!(one(DataType::DateTime, "yesterday").unwrap_err().contains("RFC 3339"));
        assert!(one(DataType::DateTime, "1500-01-01T00:00:00Z").is_err());
        assert_eq!(one(DataType::ByteString, "hex:01 fF"), Ok(Value::bytes(*b"\x01\xff")));
        assert_eq!(one(DataType::ByteString, "base64:Af8="), Ok(Value::bytes(*b"\x01\xff")));
        for text in ["hex:0", "hex:xy", "base64:!", "0102", "@/no such file"] {
            assert!(one(DataType::ByteString, text).is_err(), "{text}");
        }
        assert!(one(DataType::Structure, "{}").unwrap_err().contains("cannot be typed in"));
    }

    #[test]
    fn arrays_are_json() {
        let shown = |data_type, rank, text: &str| {
            wanted(data_type, rank)
                .parse(text)
                .map(|value| (show::value(&value, show::Much::LINE), show::data_type(&value)))
        };
        assert_eq!(shown(DataType::Int16, 1, "[1, -2]"), Ok(("[1, -2]".into(), "Int16[2]".into())));
        assert_eq!(
            shown(DataType::Double, 2, "[[1,2],[3,4.5]]"),
            Ok(("[[1, 2], [3, 4.5]]".into(), "Double[2x2]".into()))
        );
        assert_eq!(shown(DataType::String, 1, r#"["a, b", ""]"#), Ok((r#"["a, b", ""]"#.into(), "String[2]".into())));
        assert_eq!(shown(DataType::Boolean, -3, "[true]"), Ok(("[true]".into(), "Boolean[1]".into())));
        assert_eq!(shown(DataType::Int32, 1, "[]"), Ok(("[]".into(), "Int32[0]".into())));
        assert_eq!(
            shown(DataType::Byte, 1, "[1, 300]").unwrap_err(),
            "element 1: 300 is out of the range of Byte, which is 0 to 255"
        );
        assert!(shown(DataType::Int32, 1, "[[1]]").unwrap_err().contains("2 dimensions, and 1 are wanted"));
        assert!(shown(DataType::Int32, 2, "[[1, 2], [3]]").unwrap_err().contains("of one length"));
        assert!(shown(DataType::Int32, 2, "[[1, 2], 3]").unwrap_err().contains("of one depth"));
        assert!(shown(DataType::Int32, 1, "1").unwrap_err().contains("write JSON, as in [1, 2, 3]"));
        assert!(shown(DataType::Int32, 1, "[null]").is_err());
    }

    #[test]
    fn enumerations_go_by_name() {
        let names = vec![(0, "Stopped".into()), (1, "Running".into())];
        let state = Wanted { data_type: DataType::Int32, rank: -1, names };
        assert_eq!(state.parse("running"), Ok(Value::Int32(1)));
        assert_eq!(state.parse("0"), Ok(Value::Int32(0)));
        let said = state.parse("Broken").unwrap_err();
        assert_eq!(said, "\"Broken\" is not one of the enumeration: Stopped (0), Running (1)");
        assert!(state.parse("2").is_err());
    }
}
