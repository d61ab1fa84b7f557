use super::*;
use crate::model::{ExpandedNodeId, Identifier, NodeId, QualifiedName, Structure};
use proptest::prelude::*;
use prost::Message;

fn metric(datatype: Type, value: metric::Value) -> Metric {
    Metric { datatype: Some(datatype as u32), value: Some(value), ..Metric::default() }
}

/// The bytes of a metric that has only this value: field number and wire type, then the value (protobuf's encoding).
fn bytes(value: &Value) -> Vec<u8> {
    Metric { value: encode(value), ..Metric::default() }.encode_to_vec()
}

#[test]
fn the_bytes_of_each_kind_of_value() {
    let cases: &[(Value, &[u8])] = &[
        // int_value is field 10: sign-extended to 32 bits, so five bytes as a varint.
        (Value::SByte(-1), &[0x50, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
        (Value::Int16(-2), &[0x50, 0xFE, 0xFF, 0xFF, 0xFF, 0x0F]),
        (Value::Int32(i32::MIN), &[0x50, 0x80, 0x80, 0x80, 0x80, 0x08]),
        (Value::Byte(255), &[0x50, 0xFF, 0x01]),
        // As an Int64, in long_value: field 11.
        (Value::UInt32(u32::MAX), &[0x58, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
        (Value::StatusCode(Status::BAD), &[0x58, 0x80, 0x80, 0x80, 0x80, 0x08]),
        // long_value is field 11.
        (Value::Int64(-1), &[0x58, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]),
        (Value::UInt64(300), &[0x58, 0xAC, 0x02]),
        (Value::DateTime(Timestamp::from_millis(300)), &[0x58, 0xAC, 0x02]),
        (Value::Float(1.5), &[0x65, 0x00, 0x00, 0xC0, 0x3F]),
        (Value::Double(1.5), &[0x69, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F]),
        (Value::Boolean(true), &[0x70, 0x01]),
        (Value::string("é"), &[0x7A, 0x02, 0xC3, 0xA9]),
        (Value::bytes([7u8].as_slice()), &[0x82, 0x01, 0x01, 0x07]),
        (Array::new(DataType::Int16, [Value::Int16(-2)], None).unwrap().into(), &[0x82, 0x01, 0x02, 0xFE, 0xFF]),
    ];
    for (value, golden) in cases {
        assert_eq!(&bytes(value), golden, "{value:?}");
    }
}

#[test]
fn what_sparkplug_has_no_word_for_is_null() {
    let structure = |body| Value::Structure(Arc::new(Structure { encoding: node(1), body }));
    for null in [
        Value::Empty,
        Value::String(None),
        Value::ByteString(None),
        Value::DataValue(Arc::default()),
        Value::Variant(Arc::new(Value::Int32(1))),
        Value::DiagnosticInfo(Arc::default()),
        structure(Body::None),
        Array::new(DataType::ByteString, [Value::bytes([1u8].as_slice())], None).unwrap().into(),
        Array::new(DataType::Structure, [structure(Body::None)], None).unwrap().into(),
    ] {
        assert_eq!(encode(&null), None, "{null:?}");
    }
    let body = structure(Body::Binary([1u8, 2].as_slice().into()));
    assert_eq!(encode(&body), Some(metric::Value::BytesValue(vec![1, 2])));
}

#[test]
fn each_type_of_tag_has_a_type_of_metric() {
    for &data_type in DataType::ALL {
        for is_array in [false, true] {
            assert_ne!(metric_type(data_type, is_array), Type::Unknown, "{data_type}");
        }
    }
    assert_eq!(metric_type(DataType::SByte, false), Type::Int8);
    assert_eq!(metric_type(DataType::Byte, false), Type::UInt8);
    assert_eq!(metric_type(DataType::Guid, false), Type::Uuid);
    assert_eq!(metric_type(DataType::StatusCode, true), Type::UInt32Array);
}

#[test]
fn a_number_of_another_type_is_taken_if_it_fits_exactly() {
    use metric::Value::{DoubleValue, IntValue, LongValue};
    let read = |found, wire, wanted| decode(&metric(found, wire), wanted, false);
    assert_eq!(read(Type::Int32, IntValue(5), DataType::Double), Ok(Value::Double(5.0)));
    assert_eq!(read(Type::Int64, LongValue(5), DataType::Byte), Ok(Value::Byte(5)));
    assert_eq!(read(Type::Double, DoubleValue(5.0), DataType::Int16), Ok(Value::Int16(5)));
    assert_eq!(read(Type::Double, DoubleValue(0.5), DataType::Float), Ok(Value::Float(0.5)));
    for (found, wire, wanted) in [
        (Type::Int32, IntValue(256), DataType::Byte),
        (Type::Int32, IntValue(-1i32 as u32), DataType::UInt64),
        (Type::Double, DoubleValue(0.5), DataType::Int32),
        (Type::Double, DoubleValue(0.1), DataType::Float),
        (Type::Double, DoubleValue(f64::NAN), DataType::Int32),
        (Type::Double, DoubleValue(1e300), DataType::UInt64),
        (Type::Double, DoubleValue(18_446_744_073_709_551_616.0), DataType::UInt64),
        (Type::UInt64, LongValue(u64::MAX), DataType::Double),
    ] {
        let error = read(found, wire.clone(), wanted).unwrap_err();
        assert_eq!(error, DecodeError::Range(wanted.to_string()), "{wire:?}");
    }
}

#[test]
fn signed_integers_come_in_two_spellings() {
    for wire in [0xFFFF_FFFF, 0xFF] {
        let metric = metric(Type::Int8, metric::Value::IntValue(wire));
        assert_eq!(decode(&metric, DataType::SByte, false), Ok(Value::SByte(-1)), "{wire:x}");
    }
    for wire in [0xFFFF_8000, 0x8000] {
        let metric = metric(Type::Int16, metric::Value::IntValue(wire));
        assert_eq!(decode(&metric, DataType::Int16, false), Ok(Value::Int16(i16::MIN)), "{wire:x}");
    }
    let beyond = metric(Type::Int8, metric::Value::IntValue(0x1FF));
    assert!(decode(&beyond, DataType::SByte, false).is_err());
}

#[test]
fn what_does_not_fit_says_so() {
    use metric::Value as Wire;
    let text = || metric(Type::String, Wire::StringValue("x".into()));
    let say = |metric: &Metric, data_type, is_array| decode(metric, data_type, is_array).unwrap_err().to_string();
    assert_eq!(say(&text(), DataType::Guid, false), "the value is no Guid");
    assert_eq!(say(&text(), DataType::Int32, false), "the metric is a String, which is no Int32");
    assert_eq!(say(&text(), DataType::Int32, true), "the value is no array of Int32");
    assert_eq!(say(&text(), DataType::Variant, false), "a tag of type Variant cannot be written over Sparkplug");
    assert_eq!(say(&text(), DataType::ByteString, true), "a tag of type ByteString cannot be written over Sparkplug");
    let packed = metric(Type::Int16Array, Wire::BytesValue(vec![0; 4]));
    assert_eq!(say(&packed, DataType::Int32, true), "the metric is a Int16Array, which is no array of Int32");
    let null = Metric { is_null: Some(true), ..Metric::default() };
    assert_eq!(say(&null, DataType::Int32, false), "the metric is null, which a tag of type Int32 cannot be");
    assert_eq!(decode(&null, DataType::String, false), Ok(Value::String(None)));
    let time = metric(Type::DateTime, Wire::LongValue(1));
    assert_eq!(say(&time, DataType::Int64, false), "the metric is a DateTime, which is no Int64");
    let unknown = Metric { datatype: Some(99), ..text() };
    assert_eq!(say(&unknown, DataType::String, false), "the metric is a type 99, which is no String");
}

#[test]
fn a_metric_without_a_type_is_of_the_tags() {
    let plain = Metric { value: Some(metric::Value::IntValue(7)), ..Metric::default() };
    assert_eq!(decode(&plain, DataType::UInt16, false), Ok(Value::UInt16(7)));
    let text = Metric { value: Some(metric::Value::StringValue("i=85".into())), ..Metric::default() };
    assert_eq!(decode(&text, DataType::NodeId, false), Ok(Value::NodeId(Arc::new(node(85)))));
}

fn node(number: u32) -> NodeId {
    NodeId { namespace: 0, identifier: Identifier::Numeric(number) }
}

/// A scalar of a type that can be read back. Without NUL, which a StringArray cannot hold.
fn scalar(data_type: DataType) -> BoxedStrategy<Value> {
    let text = || "[^\u{0}]*";
    match data_type {
        DataType::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        DataType::SByte => any::<i8>().prop_map(Value::SByte).boxed(),
        DataType::Byte => any::<u8>().prop_map(Value::Byte).boxed(),
        DataType::Int16 => any::<i16>().prop_map(Value::Int16).boxed(),
        DataType::UInt16 => any::<u16>().prop_map(Value::UInt16).boxed(),
        DataType::Int32 => any::<i32>().prop_map(Value::Int32).boxed(),
        DataType::UInt32 => any::<u32>().prop_map(Value::UInt32).boxed(),
        DataType::Int64 => any::<i64>().prop_map(Value::Int64).boxed(),
        DataType::UInt64 => any::<u64>().prop_map(Value::UInt64).boxed(),
        DataType::Float => any::<f32>().prop_map(Value::Float).boxed(),
        DataType::Double => any::<f64>().prop_map(Value::Double).boxed(),
        DataType::String => text().prop_map(Value::string).boxed(),
        DataType::DateTime => {
            // From 1601 to 9999, as OPC UA has it.
            (-11_644_473_600_000..253_402_300_800_000i64)
                .prop_map(|millis| Value::DateTime(Timestamp::from_millis(millis)))
                .boxed()
        }
        DataType::Guid => any::<[u8; 16]>().prop_map(Value::Guid).boxed(),
        DataType::ByteString => any::<Vec<u8>>().prop_map(Value::bytes).boxed(),
        DataType::XmlElement => text().prop_map(|xml| Value::XmlElement(Some(xml.into()))).boxed(),
        DataType::NodeId => any::<u32>().prop_map(|number| Value::NodeId(Arc::new(node(number)))).boxed(),
        DataType::ExpandedNodeId => (any::<u32>(), text())
            .prop_map(|(server_index, uri)| {
                let namespace_uri = Some(uri.into());
                Value::ExpandedNodeId(Arc::new(ExpandedNodeId { node_id: node(1), namespace_uri, server_index }))
            })
            .boxed(),
        DataType::StatusCode => any::<u32>().prop_map(|code| Value::StatusCode(Status(code))).boxed(),
        DataType::QualifiedName => (any::<u16>(), text())
            .prop_map(|(namespace, name)| {
                Value::QualifiedName(Arc::new(QualifiedName { namespace, name: Some(name.into()) }))
            })
            .boxed(),
        DataType::LocalizedText => text()
            .prop_map(|text| Value::LocalizedText(Arc::new(LocalizedText { locale: None, text: Some(text.into()) })))
            .boxed(),
        _ => unreachable!("not writable"),
    }
}

fn writable() -> impl Strategy<Value = (DataType, bool, Value)> {
    let types: Vec<DataType> = DataType::ALL.iter().copied().filter(|&t| (t as u8) <= 21).collect();
    (proptest::sample::select(types), any::<bool>()).prop_flat_map(|(data_type, is_array)| {
        let is_array = is_array && data_type != DataType::ByteString;
        let value = match is_array {
            false => scalar(data_type),
            true => proptest::collection::vec(scalar(data_type), 0..20)
                .prop_map(move |values| Array::new(data_type, values, None).unwrap().into())
                .boxed(),
        };
        value.prop_map(move |value| (data_type, is_array, value))
    })
}

proptest! {
    #[test]
    fn what_is_sent_is_what_a_command_with_it_would_set((data_type, is_array, value) in writable()) {
        let datatype = metric_type(data_type, is_array);
        let sent = metric(datatype, encode(&value).unwrap()).encode_to_vec();
        let received = Metric::decode(sent.as_slice()).unwrap();
        prop_assert_eq!(decode(&received, data_type, is_array), Ok(value));
    }

    #[test]
    fn no_command_is_a_panic_and_what_it_sets_is_sent_as_it_is(
        bytes in any::<Vec<u8>>(),
        datatype in proptest::option::of(0u32..40),
        data_type in proptest::sample::select(DataType::ALL),
        is_array in any::<bool>(),
        kind in 0..6,
        number in any::<u64>(),
    ) {
        let value = match kind {
            0 => metric::Value::BytesValue(bytes),
            1 => metric::Value::LongValue(number),
            2 => metric::Value::IntValue(number as u32),
            3 => metric::Value::DoubleValue(f64::from_bits(number)),
            4 => metric::Value::FloatValue(f32::from_bits(number as u32)),
            _ => metric::Value::StringValue(String::from_utf8_lossy(&bytes).into_owned()),
        };
        let Ok(value) = decode(&Metric { datatype, value: Some(value), ..Metric::default() }, data_type, is_array) else {
            return Ok(());
        };
        let Some(wire) = encode(&value) else { return Ok(()) };
        let again = decode(&metric(metric_type(data_type, is_array), wire.clone()), data_type, is_array);
        // On the wire, because a time at the end of its range has no whole milliseconds; as text, because a NaN is not itself.
        prop_assert_eq!(format!("{:?}", again.map(|again| encode(&again))), format!("{:?}", Ok::<_, DecodeError>(Some(wire))));
    }
}
