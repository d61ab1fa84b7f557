//! Values as text for people, and as JSON for scripts.
//!
//! Everything that comes from a server may hold anything, also what would make a terminal misbehave: text is shown with
//! control characters written out. For people long things are cut, and it is said how much there is; JSON has all of it.

use crate::model::{Array, Body, DataType, Identifier, NodeId, QualifiedName, Status, Structure, Timestamp, Value};
use crate::opcua::{self, status_code};
use base64ct::{Base64, Encoding};
use serde_json::{Value as Json, json};
use std::fmt::Write as _;

/// How much of a value people want to see.
#[derive(Clone, Copy)]
pub(super) struct Much {
    pub elements: usize,
    pub characters: usize,
}

impl Much {
    /// What fits into a line or two.
    pub(super) const LINE: Self = Self { elements: 16, characters: 200 };
    pub(super) const ALL: Self = Self { elements: usize::MAX, characters: usize::MAX };
}

/// As a person reads it.
pub(super) fn value(value: &Value, much: Much) -> String {
    match value {
        Value::Empty => "no value".into(),
        Value::Boolean(v) => v.to_string(),
        Value::SByte(v) => v.to_string(),
        Value::Byte(v) => v.to_string(),
        Value::Int16(v) => v.to_string(),
        Value::UInt16(v) => v.to_string(),
        Value::Int32(v) => v.to_string(),
        Value::UInt32(v) => v.to_string(),
        Value::Int64(v) => v.to_string(),
        Value::UInt64(v) => v.to_string(),
        Value::Float(v) => float(f64::from(*v), v.to_string()),
        Value::Double(v) => float(*v, v.to_string()),
        Value::String(v) | Value::XmlElement(v) => v.as_deref().map_or("null".into(), |text| quoted(text, much)),
        Value::DateTime(v) => v.to_string(),
        Value::Guid(v) => guid(v),
        Value::ByteString(None) => "null".into(),
        Value::ByteString(Some(bytes)) => bytes_of(bytes, much),
        Value::NodeId(v) => printable(&node_id(v)),
        Value::ExpandedNodeId(_) => printable(&opcua::variant(value).to_string()),
        Value::StatusCode(v) => status(*v),
        Value::QualifiedName(v) => qualified_name(v),
        Value::LocalizedText(v) => v.text.as_deref().map_or("null".into(), |text| quoted(text, much)),
        Value::Structure(v) => structure(v),
        Value::DataValue(v) => match &v.value {
            Some(inner) => self::value(inner, much),
            None => v.status.map_or("no value".into(), status),
        },
        Value::Variant(v) => self::value(v, much),
        Value::DiagnosticInfo(_) => "diagnostic information".into(),
        Value::Array(v) => array(v, much),
    }
}

/// What is no number is said in words.
fn float(number: f64, text: String) -> String {
    match number.abs() {
        size if !size.is_finite() => text,
        size if size != 0.0 && !(1e-4..1e15).contains(&size) => format!("{number:e}"),
        _ => text,
    }
}

/// `Double`, `Int32[3]`, `Byte[2x3]`
pub(super) fn data_type(value: &Value) -> String {
    let Some(data_type) = value.data_type() else { return "null".into() };
    match value {
        Value::Array(array) => format!("{data_type}[{}]", shape(array)),
        _ => data_type.to_string(),
    }
}

fn shape(array: &Array) -> String {
    match array.dimensions() {
        Some(dimensions) => dimensions.iter().map(u32::to_string).collect::<Vec<_>>().join("x"),
        None => array.values().len().to_string(),
    }
}

/// `[1, 2, 3]`; of one with dimensions `[[1, 2], [3, 4]]`.
fn array(array: &Array, much: Much) -> String {
    let mut text = String::new();
    let mut left = much.elements;
    let dimensions = array.dimensions().filter(|dimensions| dimensions.len() > 1);
    let whole = [u32::try_from(array.values().len()).unwrap_or(u32::MAX)];
    nested(&mut text, array.values(), dimensions.unwrap_or(&whole), &mut left, much);
    let hidden = array.values().len().saturating_sub(much.elements);
    if hidden > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, " ({} in all)", array.values().len());
    }
    text
}

fn nested(text: &mut String, values: &[Value], dimensions: &[u32], left: &mut usize, much: Much) {
    let Some((&outer, inner)) = dimensions.split_first() else { return };
    let step = if outer == 0 { 0 } else { values.len() / outer as usize };
    text.push('[');
    for index in 0..outer as usize {
        if index > 0 {
            text.push_str(", ");
        }
        if *left == 0 {
            text.push('…');
            break;
        }
        let part = &values[index * step..(index + 1) * step];
        match (inner.is_empty(), part) {
            (true, [one]) => {
                *left -= 1;
                text.push_str(&value(one, much));
            }
            _ => nested(text, part, inner, left, much),
        }
    }
    text.push(']');
}

fn structure(structure: &Structure) -> String {
    let length = match &structure.body {
        Body::None => 0,
        Body::Binary(body) => body.len(),
        Body::Xml(body) => body.len(),
    };
    format!("structure of encoding {} ({length} bytes)", printable(&node_id(&structure.encoding)))
}

fn bytes_of(bytes: &[u8], much: Much) -> String {
    if let Some((kind, size)) = picture(bytes) {
        let size = size.map_or(String::new(), |(width, height)| format!(" {width}x{height}"));
        return format!("{kind} picture{size}, {} bytes", bytes.len());
    }
    let shown = bytes.len().min(much.characters / 8);
    let digits: Vec<String> = bytes[..shown].iter().map(|byte| format!("{byte:02x}")).collect();
    let rest = if shown < bytes.len() { " …" } else { "" };
    match bytes.len() {
        0 => "0 bytes".into(),
        length => format!("{length} bytes: {}{rest}", digits.join(" ")),
    }
}

/// The kind of a picture, and its width and height where they are easy to find.
pub(super) fn picture(bytes: &[u8]) -> Option<(&'static str, Option<(u32, u32)>)> {
    let be32 = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let le16 = |at: usize| bytes.get(at..at + 2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])));
    let le32 = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => Some(("JPEG", jpeg_size(bytes))),
        [0x89, b'P', b'N', b'G', ..] => Some(("PNG", be32(16).zip(be32(20)))),
        [b'G', b'I', b'F', b'8', ..] => Some(("GIF", le16(6).zip(le16(8)))),
        // Height is negative where the first row is on top.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => {
            Some(("BMP", le32(18).zip(le32(22).map(|height| height.cast_signed().unsigned_abs()))))
        }
        _ => None,
    }
}

/// From the frame header (ITU-T T.81, B.2.2).
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let [0xFF, marker, high, low] = *bytes.get(at..at + 4)?.first_chunk::<4>()? else { return None };
        let is_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
        if is_frame {
            let sides = bytes.get(at + 5..at + 9)?;
            let side = |at: usize| u32::from(u16::from_be_bytes([sides[at], sides[at + 1]]));
            return Some((side(2), side(0)));
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
}

/// In quotes, cut, and with nothing in it that a terminal takes for a command.
fn quoted(text: &str, much: Much) -> String {
    let length = text.chars().count();
    let shown: String = text.chars().take(much.characters).collect();
    let shown = printable(&shown.replace('\\', "\\\\").replace('"', "\\\""));
    match length.saturating_sub(much.characters) {
        0 => format!("\"{shown}\""),
        _ => format!("\"{shown}…\" ({length} characters)"),
    }
}

/// What a terminal takes for a command, or what turns the direction of writing around.
fn is_unsafe(c: char) -> bool {
    let is_direction =
        matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_direction
}

/// Lines beside the output, each with the program's name before it.
pub(super) fn said(text: &str) -> String {
    lines(text, "vedette: ")
}

/// Printable, line by line.
pub(super) fn lines(text: &str, before: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| format!("{before}{}", printable(line))).collect();
    lines.join("\n")
}

/// JSON, or a string of TOML, on one line: in both all that is unsafe may be written as \u. C0 is already.
pub(super) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match is_unsafe(c) {
            // Writing to a String cannot fail.
            true => drop(write!(text, "\\u{:04x}", u32::from(c))),
            false => text.push(c),
        }
    }
    text
}

/// Without anything that a terminal takes for a command, or that turns the direction of writing around.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unsafe(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// The standard's name, and what its info bits say.
pub(super) fn status(status: Status) -> String {
    // The UA crate calls what the standard does not have Invalid.
    match status_code(status).to_string() {
        name if name.starts_with("Invalid") => format!("0x{:08X}", status.0),
        name => name,
    }
}

pub(super) fn qualified_name(name: &QualifiedName) -> String {
    let text = printable(name.name.as_deref().unwrap_or_default());
    match name.namespace {
        0 => text,
        namespace => format!("{namespace}:{text}"),
    }
}

/// `ns=2;s=Line 1`, `i=85`; as OPC 10000-6, 5.3.1.10 writes it.
pub(super) fn node_id(id: &NodeId) -> String {
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

fn guid(bytes: &[u8; 16]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// For scripts: numbers are numbers, what JSON has no number for is a string, ByteStrings are base64.
pub(super) fn json(value: &Value) -> Json {
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
        Value::ExpandedNodeId(_) | Value::DiagnosticInfo(_) => json!(self::value(value, Much::ALL)),
        Value::Array(v) => match v.dimensions().filter(|dimensions| dimensions.len() > 1) {
            Some(dimensions) => json_nested(v.values(), dimensions),
            None => v.values().iter().map(json).collect(),
        },
    }
}

fn json_nested(values: &[Value], dimensions: &[u32]) -> Json {
    match dimensions.split_first() {
        Some((&outer, inner)) if !inner.is_empty() && outer > 0 => {
            let step = (values.len() / outer as usize).max(1);
            Json::Array(values.chunks(step).map(|part| json_nested(part, inner)).collect())
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
pub(super) fn time(time: Timestamp) -> String {
    let to_milli = time.to_string();
    let rest = time.ticks().rem_euclid(10_000);
    match to_milli.strip_suffix('Z') {
        Some(front) if rest != 0 => format!("{front}{rest:04}Z"),
        _ => to_milli,
    }
}

/// The built-in types' names, for help and mistakes.
pub(super) fn type_names() -> String {
    DataType::ALL.iter().map(|data_type| data_type.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn numbers(values: impl IntoIterator<Item = i32>, dimensions: Option<Vec<u32>>) -> Value {
        let values: Vec<_> = values.into_iter().map(Value::Int32).collect();
        Array::new(DataType::Int32, values, dimensions.map(Vec::into_boxed_slice)).unwrap().into()
    }

    #[test]
    fn people_read_short_lines() {
        let show = |shown: &Value| value(shown, Much::LINE);
        assert_eq!(show(&Value::Double(12.5)), "12.5");
        assert_eq!(show(&Value::Float(0.1)), "0.1");
        assert_eq!(show(&Value::Double(1e300)), "1e300");
        assert_eq!(show(&Value::Double(f64::NAN)), "NaN");
        assert_eq!(show(&Value::string("a \"b\"\u{1b}[2J\n")), r#""a \"b\"\u{1b}[2J\n""#);
        assert_eq!(show(&Value::bytes(*b"\x01\x02")), "2 bytes: 01 02");
        assert_eq!(show(&numbers(0..3, None)), "[0, 1, 2]");
        assert_eq!(show(&numbers(0..6, Some(vec![2, 3]))), "[[0, 1, 2], [3, 4, 5]]");
        assert!(show(&numbers(0..1000, None)).ends_with("14, 15, …] (1000 in all)"));
        assert_eq!(show(&numbers([], None)), "[]");
        assert_eq!(data_type(&numbers(0..6, Some(vec![2, 3]))), "Int32[2x3]");
        assert!(show(&Value::string("x".repeat(5000))).ends_with("…\" (5000 characters)"));
    }

    #[test]
    fn no_text_of_a_server_paints_on_a_terminal() {
        let evil = "a\u{1b}[31m\u{9b}2J\u{7f}\u{85}\u{202e}\u{61c}\u{2066}ü°";
        let harmless = |text: &str| !text.chars().any(|c| c != '\n' && is_unsafe(c));
        let said = said(&format!("{evil}\n{evil}"));
        assert!(harmless(&said) && said.matches("vedette: a").count() == 2 && said.contains("ü°"), "{said}");
        let json = escaped(&json!({ evil: [evil] }).to_string());
        assert!(harmless(&json) && json.contains("\\u009b2J\\u007f\\u0085\\u202e"), "{json}");
        assert_eq!(serde_json::from_str::<Json>(&json).unwrap(), json!({ evil: [evil] }));
    }

    #[test]
    fn empty_dimensions_divide_by_nothing() {
        for dimensions in [vec![0, 3], vec![3, 0], vec![0]] {
            let empty = numbers([], Some(dimensions.clone()));
            assert!(value(&empty, Much::ALL).starts_with('['), "{dimensions:?}");
            assert!(json(&empty).is_array(), "{dimensions:?}");
        }
    }

    #[test]
    fn pictures_are_named_by_kind_and_size() {
        let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &640u32.to_be_bytes(), &480u32.to_be_bytes()].concat();
        assert_eq!(value(&Value::bytes(png), Much::LINE), "PNG picture 640x480, 24 bytes");
        let jpeg = b"\xFF\xD8\xFF\xE0\0\x04ab\xFF\xC0\0\x0B\x08\x01\xE0\x02\x80\x01\x01\x11\0";
        assert_eq!(picture(jpeg), Some(("JPEG", Some((640, 480)))));
        // Broken ones are still pictures, of no known size.
        assert_eq!(picture(b"\xFF\xD8\xFF\xE0\xFF"), Some(("JPEG", None)));
        assert_eq!(picture(b"\xFF\xD8\xFF\xE0\0\0\0\0"), Some(("JPEG", None)));
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
