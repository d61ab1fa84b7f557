//! DA's words for people and as JSON: values, types, qualities, times.
//!
//! What comes from a server may hold anything, so control characters are written out.

use super::protocol::{DaValue, Elements, Filetime, Reading};
use crate::model::Timestamp;
use serde_json::{Value as Json, json};

/// From 1601 to 1970, in ticks of 100 ns.
const UNIX_EPOCH: i64 = 116_444_736_000_000_000;

/// From 1899-12-30 to 1970, in days.
const DATE_EPOCH: f64 = 25_569.0;

/// So much of an array or a text fits into a line.
const LINE: usize = 16;
const CHARACTERS: usize = 200;

pub fn value(value: &DaValue) -> String {
    match value {
        DaValue::Empty => "nothing".into(),
        DaValue::Null => "null".into(),
        DaValue::Bool(v) => v.to_string(),
        DaValue::I1(v) => v.to_string(),
        DaValue::U1(v) => v.to_string(),
        DaValue::I2(v) => v.to_string(),
        DaValue::U2(v) => v.to_string(),
        DaValue::I4(v) => v.to_string(),
        DaValue::U4(v) => v.to_string(),
        DaValue::I8(v) => v.to_string(),
        DaValue::U8(v) => v.to_string(),
        DaValue::R4(v) => v.to_string(),
        DaValue::R8(v) | DaValue::Decimal(v) => v.to_string(),
        DaValue::Cy(v) => currency(*v),
        DaValue::Date(v) => date(*v),
        DaValue::Text(v) => match v.char_indices().nth(CHARACTERS) {
            Some((cut, _)) => format!("{:?}... ({} characters)", &v[..cut], v.chars().count()),
            None => format!("{v:?}"),
        },
        DaValue::Error(v) => super::hresults::name(*v).into_owned(),
        DaValue::Array { dimensions, elements } => array(dimensions, elements),
        DaValue::Unsupported(vt) => format!("(a value of {})", data_type(*vt)),
    }
}

fn array(dimensions: &[u32], elements: &Elements) -> String {
    let shown = (0..elements.len().min(LINE)).map(|index| value(&elements.get(index)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = if elements.len() > LINE { ", ..." } else { "" };
    match dimensions {
        [_] if more.is_empty() => format!("[{shown}]"),
        _ => {
            let shape: Vec<String> = dimensions.iter().map(u32::to_string).collect();
            format!("[{shown}{more}] ({})", shape.join("x"))
        }
    }
}

/// Nothing is cut; rows of arrays are arrays.
pub fn json(value: &DaValue) -> Json {
    match value {
        DaValue::Empty | DaValue::Null | DaValue::Unsupported(_) => Json::Null,
        DaValue::Bool(v) => json!(v),
        DaValue::I1(v) => json!(v),
        DaValue::U1(v) => json!(v),
        DaValue::I2(v) => json!(v),
        DaValue::U2(v) => json!(v),
        DaValue::I4(v) | DaValue::Error(v) => json!(v),
        DaValue::U4(v) => json!(v),
        DaValue::I8(v) => json!(v),
        DaValue::U8(v) => json!(v),
        DaValue::R4(v) => number(f64::from(*v), v.to_string()),
        DaValue::R8(v) | DaValue::Decimal(v) => number(*v, v.to_string()),
        DaValue::Cy(v) => json!(currency(*v)),
        DaValue::Date(v) => json!(date(*v)),
        DaValue::Text(v) => json!(v),
        DaValue::Array { dimensions, elements } => rows(dimensions, elements, &mut 0),
    }
}

/// As short as it was: 0.1 of 32 bits is 0.1. JSON has no word for what is no number.
fn number(value: f64, text: String) -> Json {
    if value.is_finite() { text.parse::<f64>().map_or(Json::Null, |value| json!(value)) } else { json!(text) }
}

fn rows(dimensions: &[u32], elements: &Elements, next: &mut usize) -> Json {
    let Some((&length, inner)) = dimensions.split_first() else {
        let element = json(&elements.get(*next));
        *next += 1;
        return element;
    };
    Json::Array((0..length).map(|_| rows(inner, elements, next)).collect())
}

fn currency(value: i64) -> String {
    let (whole, part) = (value.unsigned_abs() / 10_000, value.unsigned_abs() % 10_000);
    format!("{}{whole}.{part:04}", if value < 0 { "-" } else { "" })
}

/// In no time zone, so without a letter for one.
fn date(days: f64) -> String {
    let ticks = (days - DATE_EPOCH) * 864e9;
    // Half a millisecond up: a DATE is not exact.
    Timestamp::from_ticks(ticks as i64 + 5000).to_string().trim_end_matches('Z').to_owned()
}

/// As the server gave it, also if it is nonsense.
pub fn time(time: Filetime) -> String {
    if time == 0 {
        return "no time".into();
    }
    Timestamp::from_ticks(i64::try_from(time).unwrap_or(i64::MAX).saturating_sub(UNIX_EPOCH)).to_string()
}

/// `R8`, `I4[]`
pub fn data_type(vt: u16) -> String {
    let name = match vt & 0x0FFF {
        0 => "EMPTY",
        1 => "NULL",
        2 => "I2",
        3 => "I4",
        4 => "R4",
        5 => "R8",
        6 => "CY",
        7 => "DATE",
        8 => "BSTR",
        10 => "ERROR",
        11 => "BOOL",
        12 => "VARIANT",
        14 => "DECIMAL",
        16 => "I1",
        17 => "UI1",
        18 => "UI2",
        19 => "UI4",
        20 => "I8",
        21 => "UI8",
        22 => "INT",
        23 => "UINT",
        64 => "FILETIME",
        _ => return format!("VT 0x{vt:04X}"),
    };
    if vt & 0x2000 != 0 { format!("{name}[]") } else { name.into() }
}

/// The VARTYPE that the value has.
pub fn type_of(value: &DaValue) -> String {
    data_type(match value {
        DaValue::Empty => 0,
        DaValue::Null => 1,
        DaValue::Bool(_) => 11,
        DaValue::I1(_) => 16,
        DaValue::U1(_) => 17,
        DaValue::I2(_) => 2,
        DaValue::U2(_) => 18,
        DaValue::I4(_) => 3,
        DaValue::U4(_) => 19,
        DaValue::I8(_) => 20,
        DaValue::U8(_) => 21,
        DaValue::R4(_) => 4,
        DaValue::R8(_) => 5,
        DaValue::Cy(_) => 6,
        DaValue::Date(_) => 7,
        DaValue::Text(_) => 8,
        DaValue::Error(_) => 10,
        DaValue::Decimal(_) => 14,
        DaValue::Array { elements, .. } => 0x2000 | elements.vartype(),
        DaValue::Unsupported(vt) => *vt,
    })
}

/// QQSSSSLL in words, and the vendor's bits if there are any.
pub fn quality(quality: u16) -> String {
    let status = match quality & 0xFC {
        0x00 => "bad",
        0x04 => "bad, configuration error",
        0x08 => "bad, not connected",
        0x0C => "bad, device failure",
        0x10 => "bad, sensor failure",
        0x14 => "bad, last known value",
        0x18 => "bad, communication failure",
        0x1C => "bad, out of service",
        0x20 => "bad, waiting for initial data",
        0x40 => "uncertain",
        0x44 => "uncertain, last usable value",
        0x50 => "uncertain, sensor not accurate",
        0x54 => "uncertain, engineering units exceeded",
        0x58 => "uncertain, sub-normal",
        0xC0 => "good",
        0xD8 => "good, local override",
        other if other & 0xC0 == 0xC0 => "good",
        other if other & 0xC0 == 0x40 => "uncertain",
        _ => "bad",
    };
    let limit = ["", ", low limited", ", high limited", ", constant"][usize::from(quality & 3)];
    let vendor = if quality >> 8 == 0 { String::new() } else { format!(", vendor 0x{:02X}", quality >> 8) };
    format!("{status}{limit}{vendor}")
}

/// `12.5  good  2026-11-21T14:30:00.000Z  R8`
pub fn reading(reading: &Reading) -> String {
    let Reading { value, quality, time } = reading;
    let (text, quality, time) = (self::value(value), self::quality(*quality), self::time(*time));
    format!("{text}  {quality}  {time}  {}", type_of(value))
}

pub fn reading_json(reading: &Reading) -> Json {
    json!({
        "value": json(&reading.value),
        "type": type_of(&reading.value),
        "quality": reading.quality,
        "meaning": quality(reading.quality),
        "time": time(reading.time),
    })
}

/// Without what would make a terminal misbehave.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown() {
        assert_eq!(value(&DaValue::Cy(-12_345)), "-1.2345");
        assert_eq!(value(&DaValue::Text("a\u{7}b".into())), r#""a\u{7}b""#);
        assert_eq!(value(&DaValue::Date(45_000.25)), "2023-03-15T06:00:00.000");
        let cube = DaValue::Array { dimensions: vec![2, 3], elements: Elements::I4(vec![1, 2, 3, 4, 5, 6]) };
        assert_eq!(value(&cube), "[1, 2, 3, 4, 5, 6] (2x3)");
        assert_eq!(json(&cube), json!([[1, 2, 3], [4, 5, 6]]));
        assert_eq!(json(&DaValue::R4(0.1)).to_string(), "0.1");
        assert_eq!(json(&DaValue::R8(f64::NAN)), json!("NaN"));
        assert_eq!(type_of(&cube), "I4[]");
    }

    #[test]
    fn qualities_and_times_are_said() {
        assert_eq!(quality(0xC0), "good");
        assert_eq!(quality(0x56), "uncertain, engineering units exceeded, high limited");
        assert_eq!(quality(0x12C0), "good, vendor 0x12");
        assert_eq!(time(0), "no time");
        assert_eq!(time(116_444_736_000_000_000), "1970-01-01T00:00:00.000Z");
        assert!(time(u64::MAX).ends_with('Z'));
    }
}
