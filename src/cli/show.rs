//! Values as text for people. As JSON, for scripts, they are as everywhere: [`crate::opcua::json`].
//!
//! Everything that comes from a server may hold anything, also what would make a terminal misbehave: text is shown with
//! control characters written out. For people long things are cut, and it is said how much there is; JSON has all of it.

use crate::model::{Array, Body, DataType, QualifiedName, Structure, Value};
use crate::opcua;
use crate::opcua::json::guid;
pub(super) use crate::opcua::json::{json, node_id, status, time};
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

/// Says something beside the output. Whoever closed standard error does not want to hear.
pub(super) fn aside(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{}", said(text));
}

/// Lines beside the output, each with the program's name before it.
fn said(text: &str) -> String {
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

pub(super) fn qualified_name(name: &QualifiedName) -> String {
    let text = printable(name.name.as_deref().unwrap_or_default());
    match name.namespace {
        0 => text,
        namespace => format!("{namespace}:{text}"),
    }
}

/// The built-in types' names, for help and mistakes.
pub(super) fn type_names() -> String {
    DataType::ALL.iter().map(|data_type| data_type.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

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
            assert!(value(&numbers([], Some(dimensions.clone())), Much::ALL).starts_with('['), "{dimensions:?}");
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
}
