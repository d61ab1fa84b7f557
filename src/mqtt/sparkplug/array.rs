//! Arrays as Sparkplug packs them into `bytes_value` (Sparkplug 3.0, 6.4.17).
//!
//! Numbers: little-endian, one after the other. (Three of the standard's examples contradict its own rule, which is
//! followed here: FloatArray and DoubleArray show the bytes in the other order, DateTimeArray 6 bytes in place of 8.)
//! Booleans: the count as 4 bytes little-endian,
//! then 8 to a byte, the first in the highest bit. Strings: each ended by a zero byte.
//!
//! What Sparkplug has no place for: dimensions (elements go out in row-major order and come back as a plain array),
//! a null among strings (goes out empty) and a NUL inside a string (left out, or it would be two strings).

use super::codec::scalar_text;
use super::proto::DataType as Type;
use crate::model::{Status, Timestamp, Value};
use std::sync::Arc;

/// `values` are scalars of the tag's type; `None` if Sparkplug has no array for that type.
pub(super) fn pack(array: Type, values: &[Value]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match array {
        Type::BooleanArray => {
            let count = u32::try_from(values.len()).ok()?;
            out.extend_from_slice(&count.to_le_bytes());
            for eight in values.chunks(8) {
                let set = |(place, value): (usize, &Value)| match value {
                    Value::Boolean(true) => 0x80 >> place,
                    _ => 0,
                };
                out.push(eight.iter().enumerate().map(set).fold(0u8, |byte, bit| byte | bit));
            }
        }
        Type::StringArray => {
            for value in values {
                let text = scalar_text(value).unwrap_or_default();
                out.extend(text.bytes().filter(|&byte| byte != 0));
                out.push(0);
            }
        }
        _ => {
            for value in values {
                match *value {
                    Value::SByte(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::Byte(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::Int16(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::UInt16(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::Int32(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::UInt32(v) | Value::StatusCode(Status(v)) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::Int64(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::UInt64(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::Float(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::Double(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Value::DateTime(v) => out.extend_from_slice(&v.millis().to_le_bytes()),
                    _ => return None,
                }
            }
        }
    }
    Some(out)
}

/// The elements, as values of the type that the array holds: Int16Array gives `Int16`s, DateTimeArray `DateTime`s,
/// StringArray `String`s. `None` if the bytes are no such array.
pub(super) fn unpack(array: Type, bytes: &[u8]) -> Option<Vec<Value>> {
    match array {
        Type::Int8Array => each(bytes, |b| Value::SByte(i8::from_le_bytes(b))),
        Type::Int16Array => each(bytes, |b| Value::Int16(i16::from_le_bytes(b))),
        Type::Int32Array => each(bytes, |b| Value::Int32(i32::from_le_bytes(b))),
        Type::Int64Array => each(bytes, |b| Value::Int64(i64::from_le_bytes(b))),
        Type::UInt8Array => each(bytes, |b| Value::Byte(u8::from_le_bytes(b))),
        Type::UInt16Array => each(bytes, |b| Value::UInt16(u16::from_le_bytes(b))),
        Type::UInt32Array => each(bytes, |b| Value::UInt32(u32::from_le_bytes(b))),
        Type::UInt64Array => each(bytes, |b| Value::UInt64(u64::from_le_bytes(b))),
        Type::FloatArray => each(bytes, |b| Value::Float(f32::from_le_bytes(b))),
        Type::DoubleArray => each(bytes, |b| Value::Double(f64::from_le_bytes(b))),
        Type::DateTimeArray => each(bytes, |b| Value::DateTime(Timestamp::from_millis(i64::from_le_bytes(b)))),
        Type::BooleanArray => {
            let (count, bits) = bytes.split_first_chunk::<4>()?;
            let count = u32::from_le_bytes(*count) as usize;
            if bits.len() != count.div_ceil(8) {
                return None;
            }
            Some((0..count).map(|at| Value::Boolean(bits[at / 8] & (0x80 >> (at % 8)) != 0)).collect())
        }
        Type::StringArray => {
            if bytes.is_empty() {
                return Some(Vec::new());
            }
            // The last zero ends a string and begins none.
            let texts = std::str::from_utf8(bytes).ok()?.strip_suffix('\0')?;
            Some(texts.split('\0').map(|text| Value::String(Some(Arc::from(text)))).collect())
        }
        _ => None,
    }
}

fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> Value) -> Option<Vec<Value>> {
    let (elements, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| elements.iter().map(|&element| value(element)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        text.split(' ').filter(|byte| !byte.is_empty()).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    /// The examples of Sparkplug 3.0, 6.4.17, but for Float, Double and DateTime (see above).
    #[test]
    fn the_bytes_are_those_of_the_standard() {
        let booleans = [false, false, true, true, false, true, false, false, true, true, false, true];
        let strings = ["ABC", "hello"].map(Value::string);
        let times = [1_256_102_875_335, 1_656_107_875_000].map(Timestamp::from_millis).map(Value::DateTime);
        let cases: Vec<(Type, Vec<Value>, &str)> = vec![
            (Type::Int8Array, [-23, 123].map(Value::SByte).into(), "E9 7B"),
            (Type::Int16Array, [-30000, 30000].map(Value::Int16).into(), "D0 8A 30 75"),
            (Type::Int32Array, [-1, 315_338_746].map(Value::Int32).into(), "FF FF FF FF FA AF CB 12"),
            (Type::UInt8Array, [23, 250].map(Value::Byte).into(), "17 FA"),
            (Type::UInt16Array, [30, 52360].map(Value::UInt16).into(), "1E 00 88 CC"),
            (Type::UInt32Array, [52, 3_293_969_225].map(Value::UInt32).into(), "34 00 00 00 49 FB 55 C4"),
            (
                Type::Int64Array,
                [-4_270_929_666_821_191_986, -3_601_064_768_563_266_876].map(Value::Int64).into(),
                "CE 06 72 AC 18 9C BA C4 C4 BA 9C 18 AC 72 06 CE",
            ),
            (
                Type::UInt64Array,
                [52, 16_444_743_074_749_521_625].map(Value::UInt64).into(),
                "34 00 00 00 00 00 00 00 D9 9E 02 D1 B2 76 37 E4",
            ),
            (Type::FloatArray, [1.23, 89.341].map(Value::Float).into(), "A4 70 9D 3F 98 AE B2 42"),
            (Type::DoubleArray, [1.5].map(Value::Double).into(), "00 00 00 00 00 00 F8 3F"),
            (Type::BooleanArray, booleans.map(Value::Boolean).into(), "0C 00 00 00 34 D0"),
            (Type::BooleanArray, Vec::new(), "00 00 00 00"),
            (Type::StringArray, strings.into(), "41 42 43 00 68 65 6C 6C 6F 00"),
            (Type::StringArray, Vec::new(), ""),
            (Type::DateTimeArray, times.into(), "C7 D0 90 75 24 01 00 00 B8 BA B8 97 81 01 00 00"),
        ];
        for (array, values, golden) in cases {
            assert_eq!(pack(array, &values), Some(hex(golden)), "{array:?}");
            assert_eq!(unpack(array, &hex(golden)), Some(values), "{array:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_array_are_refused() {
        for (array, bytes) in [
            (Type::Int16Array, "01"),
            (Type::DoubleArray, "00 00 00 00 00 00 F8"),
            (Type::BooleanArray, "01 00 00"),
            (Type::BooleanArray, "09 00 00 00 FF"),
            (Type::BooleanArray, "FF FF FF FF 00"),
            (Type::StringArray, "41"),
            (Type::StringArray, "FF 00"),
            (Type::Int32, "00"),
        ] {
            assert_eq!(unpack(array, &hex(bytes)), None, "{array:?} {bytes}");
        }
    }

    #[test]
    fn a_nul_inside_a_string_does_not_make_two() {
        let packed = pack(Type::StringArray, &[Value::string("a\0b"), Value::String(None)]).unwrap();
        assert_eq!(unpack(Type::StringArray, &packed).unwrap(), [Value::string("ab"), Value::string("")]);
    }
}
