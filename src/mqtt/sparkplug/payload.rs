//! Reads a payload of somebody else's, in bounded memory.
//!
//! An empty metric is two bytes on the line and some 300 in memory, and may be nested, so a payload within the line's
//! limit could take half a gigabyte. Its parts are counted before it is decoded.

use super::proto::Payload;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};

#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("it is no Sparkplug B payload: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("it has more than {0} parts")]
    TooMany(usize),
}

/// Messages of the schema that hold further ones, or texts in numbers.
#[derive(Clone, Copy)]
enum Part {
    Payload,
    Metric,
    Template,
    Properties,
    PropertyList,
    Property,
    DataSet,
    Row,
    /// Nothing further.
    Leaf,
}

impl Part {
    fn below(self, field: u32) -> Part {
        match (self, field) {
            (Part::Payload | Part::Template, 2) => Part::Metric,
            (Part::Metric, 9) | (Part::Property, 9) | (Part::PropertyList, 1) => Part::Properties,
            (Part::Metric, 17) => Part::DataSet,
            (Part::Metric, 18) => Part::Template,
            (Part::Properties, 2) => Part::Property,
            (Part::Property, 10) => Part::PropertyList,
            (Part::DataSet, 4) => Part::Row,
            _ => Part::Leaf,
        }
    }
}

/// As prost has it for itself.
const DEEPEST: usize = 100;

/// A payload with at most `most` fields in all its messages.
pub fn read(payload: &[u8], most: usize) -> Result<Payload, PayloadError> {
    let mut left = most;
    if count(payload, Part::Payload, &mut left, DEEPEST).is_none() {
        return Err(PayloadError::TooMany(most));
    }
    Ok(Payload::decode(payload)?)
}

/// `None` if there are more than `left`. What is malformed ends the count: decoding will say so.
fn count(mut bytes: &[u8], part: Part, left: &mut usize, deep: usize) -> Option<()> {
    while !bytes.is_empty() {
        let Ok((field, wire)) = decode_key(&mut bytes) else { break };
        *left = left.checked_sub(1)?;
        let length = match wire {
            WireType::Varint => {
                if decode_varint(&mut bytes).is_err() {
                    break;
                }
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => match decode_varint(&mut bytes) {
                Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
                Err(_) => break,
            },
            WireType::StartGroup | WireType::EndGroup => 0,
        };
        let Some((inner, rest)) = bytes.split_at_checked(length) else { break };
        let below = part.below(field);
        match (wire, below) {
            (WireType::LengthDelimited, Part::Leaf) => {
                // The types of a data set may be packed: each is a part.
                if matches!(part, Part::DataSet) && field == 3 {
                    *left = left.checked_sub(inner.len())?;
                }
                if matches!(part, Part::Row) {
                    count(inner, Part::Leaf, left, deep.saturating_sub(1))?;
                }
            }
            (WireType::LengthDelimited, below) if deep > 0 => count(inner, below, left, deep - 1)?,
            _ => {}
        }
        bytes = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::sparkplug::proto::payload::{
        DataSet, Metric, PropertySet, PropertySetList, PropertyValue, Template,
    };
    use crate::mqtt::sparkplug::proto::payload::{data_set, metric, property_value};

    fn parts(payload: &Payload, most: usize) -> bool {
        match read(&payload.encode_to_vec(), most) {
            Ok(read) => {
                assert_eq!(&read, payload);
                true
            }
            Err(PayloadError::TooMany(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn of(value: metric::Value) -> Payload {
        Payload { metrics: vec![Metric { value: Some(value), ..Metric::default() }], ..Payload::default() }
    }

    #[test]
    fn what_takes_much_memory_is_counted_wherever_it_is() {
        let many = vec![Metric::default(); 1000];
        let flat = Payload { metrics: many.clone(), ..Payload::default() };
        let nested = of(metric::Value::TemplateValue(Template { metrics: many, ..Template::default() }));
        let rows = vec![data_set::Row { elements: vec![data_set::DataSetValue::default(); 10] }; 100];
        let table = of(metric::Value::DatasetValue(DataSet { rows, ..DataSet::default() }));
        let columns = vec![String::new(); 1000];
        let heads = of(metric::Value::DatasetValue(DataSet { columns, ..DataSet::default() }));
        let types = of(metric::Value::DatasetValue(DataSet { types: vec![1; 1000], ..DataSet::default() }));
        let set = PropertySet { keys: Vec::new(), values: vec![PropertyValue::default(); 500] };
        let list = PropertySetList { propertyset: vec![set.clone(), set] };
        let value = PropertyValue { value: Some(property_value::Value::PropertysetsValue(list)), ..Default::default() };
        let properties = PropertySet { keys: vec!["a".into()], values: vec![value] };
        let metric = Metric { properties: Some(properties), ..Metric::default() };
        let listed = Payload { metrics: vec![metric], ..Payload::default() };
        for payload in [flat, nested, table, heads, types, listed] {
            assert!(parts(&payload, 3000), "{payload:?}");
            assert!(!parts(&payload, 999), "{payload:?}");
        }
    }

    #[test]
    fn nesting_without_end_and_garbage_are_malformed() {
        let mut deep = Payload::default();
        let mut metric = Metric::default();
        for _ in 0..60 {
            let template = Template { metrics: vec![metric], ..Template::default() };
            metric = Metric { value: Some(metric::Value::TemplateValue(template)), ..Metric::default() };
        }
        deep.metrics.push(metric);
        assert!(matches!(read(&deep.encode_to_vec(), 1000), Err(PayloadError::Malformed(_))));
        for garbage in [&b"\xFF\xFF\xFF"[..], b"\x12\x05\x00", b"\x12\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", b"{}"] {
            assert!(matches!(read(garbage, 1000), Err(PayloadError::Malformed(_))), "{garbage:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = read(&bytes, 20);
        }
    }
}
