//! [`Value`] to Variant and back, [`Quality`] to StatusCode and back, [`Timestamp`] to DateTime and back.
//!
//! Both ways lose nothing, with one exception that is OPC UA's: a DateTime before 1601 or after 9999 is cut to those on
//! the wire (OPC 10000-6, 5.2.2.5). Structures stay encoded; a structure that the UA crate has decoded because it knows
//! the type is encoded again, which gives the same bytes.

use crate::model::{
    Array, Body, DataType, DataValue, DiagnosticInfo, ExpandedNodeId, Identifier, LocalizedText, NodeId, QualifiedName,
    Quality, Sample, Status, Structure, Timestamp, Value,
};
use opcua::types as ua;
use std::sync::Arc;

/// 100 ns ticks from 1601, where OPC UA begins to count, to 1970.
const EPOCHS_APART: i64 = 116_444_736_000_000_000;

/// The last second of the year 9999 in ticks from 1970, where OPC UA ends to count.
const END_OF_TIME: i64 = 253_402_300_799 * TICKS;

/// In a second.
const TICKS: i64 = 10_000_000;

pub fn timestamp(time: &ua::DateTime) -> Timestamp {
    Timestamp::from_ticks(time.ticks().saturating_sub(EPOCHS_APART))
}

/// By way of chrono's own epoch, because the crate's conversion of ticks computes the calendar of 1601 each time.
pub fn date_time(time: Timestamp) -> ua::DateTime {
    let ticks = time.ticks().clamp(-EPOCHS_APART, END_OF_TIME);
    let nanos = ticks.rem_euclid(TICKS) * 100;
    let time = ua::DateTimeUtc::from_timestamp(ticks.div_euclid(TICKS), nanos as u32);
    ua::DateTime::from(time.expect("it is between 1601 and 9999"))
}

pub fn status_code(status: Status) -> ua::StatusCode {
    ua::StatusCode::from(status.0)
}

pub fn quality(status: Option<ua::StatusCode>) -> Quality {
    Quality::from(Status(status.map_or(0, |status| status.bits())))
}

/// The status of a sample as it goes on the wire.
pub fn sample_status(sample: &Sample) -> ua::StatusCode {
    status_code(sample.quality.status)
}

/// A sample as a DataValue with both timestamps. Of a bad one the value stays away: with no data change filter the UA
/// crate compares values only, so that a value that turned bad and kept its number would not be reported; and the
/// standard lets a bad value be anything (OPC 10000-4, 7.11).
pub fn data_value(sample: &Sample) -> ua::DataValue {
    let value = if sample.quality.is_bad() { ua::Variant::Empty } else { variant(&sample.value) };
    ua::DataValue {
        value: Some(value),
        status: Some(sample_status(sample)),
        source_timestamp: sample.source_time.map(date_time),
        source_picoseconds: None,
        server_timestamp: Some(date_time(sample.server_time)),
        server_picoseconds: None,
    }
}

/// As OPC UA's Variant.
pub fn variant(value: &Value) -> ua::Variant {
    use ua::Variant;
    match value {
        Value::Empty => Variant::Empty,
        Value::Boolean(v) => Variant::Boolean(*v),
        Value::SByte(v) => Variant::SByte(*v),
        Value::Byte(v) => Variant::Byte(*v),
        Value::Int16(v) => Variant::Int16(*v),
        Value::UInt16(v) => Variant::UInt16(*v),
        Value::Int32(v) => Variant::Int32(*v),
        Value::UInt32(v) => Variant::UInt32(*v),
        Value::Int64(v) => Variant::Int64(*v),
        Value::UInt64(v) => Variant::UInt64(*v),
        Value::Float(v) => Variant::Float(*v),
        Value::Double(v) => Variant::Double(*v),
        Value::String(v) => Variant::String(ua_string(v)),
        Value::DateTime(v) => Variant::DateTime(Box::new(date_time(*v))),
        Value::Guid(v) => Variant::Guid(Box::new(ua_guid(v))),
        Value::ByteString(v) => Variant::ByteString(byte_string(v)),
        Value::XmlElement(v) => Variant::XmlElement(ua::XmlElement::from(ua_string(v))),
        Value::NodeId(v) => Variant::NodeId(Box::new(ua_node_id(v))),
        Value::ExpandedNodeId(v) => Variant::ExpandedNodeId(Box::new(ua_expanded_node_id(v))),
        Value::StatusCode(v) => Variant::StatusCode(status_code(*v)),
        Value::QualifiedName(v) => Variant::QualifiedName(Box::new(ua::QualifiedName {
            namespace_index: v.namespace,
            name: ua_string(&v.name),
        })),
        Value::LocalizedText(v) => Variant::LocalizedText(Box::new(ua::LocalizedText {
            locale: ua_string(&v.locale),
            text: ua_string(&v.text),
        })),
        Value::Structure(v) => Variant::ExtensionObject(extension_object(v)),
        Value::DataValue(v) => Variant::DataValue(Box::new(ua::DataValue {
            value: v.value.as_ref().map(variant),
            status: v.status.map(status_code),
            source_timestamp: v.source_time.map(date_time),
            source_picoseconds: v.source_picoseconds,
            server_timestamp: v.server_time.map(date_time),
            server_picoseconds: v.server_picoseconds,
        })),
        Value::Variant(v) => Variant::Variant(Box::new(variant(v))),
        Value::DiagnosticInfo(v) => Variant::DiagnosticInfo(Box::new(ua_diagnostic_info(v))),
        Value::Array(v) => Variant::Array(Box::new(ua::Array {
            value_type: scalar_type(v.data_type()),
            values: v.values().iter().map(variant).collect(),
            dimensions: v.dimensions().map(<[u32]>::to_vec),
        })),
    }
}

/// From OPC UA's Variant. Errors are those of arrays that are not what they say they are.
pub fn value(variant: &ua::Variant) -> Result<Value, String> {
    use ua::Variant;
    Ok(match variant {
        Variant::Empty => Value::Empty,
        Variant::Boolean(v) => Value::Boolean(*v),
        Variant::SByte(v) => Value::SByte(*v),
        Variant::Byte(v) => Value::Byte(*v),
        Variant::Int16(v) => Value::Int16(*v),
        Variant::UInt16(v) => Value::UInt16(*v),
        Variant::Int32(v) => Value::Int32(*v),
        Variant::UInt32(v) => Value::UInt32(*v),
        Variant::Int64(v) => Value::Int64(*v),
        Variant::UInt64(v) => Value::UInt64(*v),
        Variant::Float(v) => Value::Float(*v),
        Variant::Double(v) => Value::Double(*v),
        Variant::String(v) => Value::String(text(v)),
        Variant::DateTime(v) => Value::DateTime(timestamp(v)),
        Variant::Guid(v) => Value::Guid(guid(v)),
        Variant::ByteString(v) => Value::ByteString(bytes(v)),
        Variant::XmlElement(v) => Value::XmlElement(xml_text(v)),
        Variant::NodeId(v) => Value::NodeId(Arc::new(node_id(v))),
        Variant::ExpandedNodeId(v) => Value::ExpandedNodeId(Arc::new(ExpandedNodeId {
            node_id: node_id(&v.node_id),
            namespace_uri: text(&v.namespace_uri),
            server_index: v.server_index,
        })),
        Variant::StatusCode(v) => Value::StatusCode(Status(v.bits())),
        Variant::QualifiedName(v) => {
            Value::QualifiedName(Arc::new(QualifiedName { namespace: v.namespace_index, name: text(&v.name) }))
        }
        Variant::LocalizedText(v) => {
            Value::LocalizedText(Arc::new(LocalizedText { locale: text(&v.locale), text: text(&v.text) }))
        }
        Variant::ExtensionObject(v) => Value::Structure(Arc::new(structure(v)?)),
        Variant::DataValue(v) => Value::DataValue(Arc::new(DataValue {
            value: v.value.as_ref().map(value).transpose()?,
            status: v.status.map(|status| Status(status.bits())),
            source_time: v.source_timestamp.as_ref().map(timestamp),
            source_picoseconds: v.source_picoseconds,
            server_time: v.server_timestamp.as_ref().map(timestamp),
            server_picoseconds: v.server_picoseconds,
        })),
        Variant::Variant(v) => Value::Variant(Arc::new(value(v)?)),
        Variant::DiagnosticInfo(v) => Value::DiagnosticInfo(Arc::new(diagnostic_info(v))),
        Variant::Array(v) => {
            let data_type = DataType::from_id(v.value_type as u32).ok_or("an array of no known type")?;
            let values = v.values.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            // The UA crate decodes a plain array with no elements as one with no dimensions.
            let dimensions =
                v.dimensions.clone().filter(|dimensions| !dimensions.is_empty()).map(Vec::into_boxed_slice);
            Array::new(data_type, values, dimensions).map_err(|error| error.to_string())?.into()
        }
    })
}

fn scalar_type(data_type: DataType) -> ua::VariantScalarTypeId {
    ua::VariantScalarTypeId::try_from(data_type as u32).expect("both number the built-in types as the standard does")
}

fn ua_string(text: &Option<Arc<str>>) -> ua::UAString {
    text.as_deref().map_or_else(ua::UAString::null, ua::UAString::from)
}

fn text(string: &ua::UAString) -> Option<Arc<str>> {
    string.value().as_deref().map(Arc::from)
}

/// The UA crate shows the text of an XmlElement only through its encoding.
fn xml_text(element: &ua::XmlElement) -> Option<Arc<str>> {
    let string = with_context(|context| {
        let encoded = ua::BinaryEncodable::encode_to_vec(element, context);
        <ua::UAString as ua::BinaryDecodable>::decode(&mut encoded.as_slice(), context)
    });
    string.ok().as_ref().and_then(text)
}

/// The UA crate gives a Guid's bytes as they are on the wire, where the first three parts begin with their last byte.
fn swapped([a, b, c, d, e, f, g, h, rest @ ..]: [u8; 16]) -> [u8; 16] {
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

fn ua_guid(written: &[u8; 16]) -> ua::Guid {
    ua::Guid::from_bytes(swapped(*written))
}

fn guid(guid: &ua::Guid) -> [u8; 16] {
    swapped(guid.to_bytes())
}

fn byte_string(bytes: &Option<Arc<[u8]>>) -> ua::ByteString {
    bytes.as_deref().map_or_else(ua::ByteString::null, |bytes| ua::ByteString::from(bytes.to_vec()))
}

fn bytes(string: &ua::ByteString) -> Option<Arc<[u8]>> {
    string.value.as_deref().map(Arc::from)
}

fn ua_node_id(id: &NodeId) -> ua::NodeId {
    let identifier = match &id.identifier {
        Identifier::Numeric(v) => ua::Identifier::Numeric(*v),
        Identifier::String(v) => ua::Identifier::String(ua_string(v)),
        Identifier::Guid(v) => ua::Identifier::Guid(ua_guid(v)),
        Identifier::Opaque(v) => ua::Identifier::ByteString(byte_string(v)),
    };
    ua::NodeId { namespace: id.namespace, identifier }
}

fn node_id(id: &ua::NodeId) -> NodeId {
    let identifier = match &id.identifier {
        ua::Identifier::Numeric(v) => Identifier::Numeric(*v),
        ua::Identifier::String(v) => Identifier::String(text(v)),
        ua::Identifier::Guid(v) => Identifier::Guid(guid(v)),
        ua::Identifier::ByteString(v) => Identifier::Opaque(bytes(v)),
    };
    NodeId { namespace: id.namespace, identifier }
}

fn ua_expanded_node_id(id: &ExpandedNodeId) -> ua::ExpandedNodeId {
    ua::ExpandedNodeId {
        node_id: ua_node_id(&id.node_id),
        namespace_uri: ua_string(&id.namespace_uri),
        server_index: id.server_index,
    }
}

fn ua_diagnostic_info(info: &DiagnosticInfo) -> ua::DiagnosticInfo {
    ua::DiagnosticInfo {
        symbolic_id: info.symbolic_id,
        namespace_uri: info.namespace_uri,
        locale: info.locale,
        localized_text: info.localized_text,
        additional_info: info.additional_info.as_ref().map(ua_string),
        inner_status_code: info.inner_status.map(status_code),
        inner_diagnostic_info: info.inner.as_deref().map(|inner| Box::new(ua_diagnostic_info(inner))),
    }
}

fn diagnostic_info(info: &ua::DiagnosticInfo) -> DiagnosticInfo {
    DiagnosticInfo {
        symbolic_id: info.symbolic_id,
        namespace_uri: info.namespace_uri,
        locale: info.locale,
        localized_text: info.localized_text,
        additional_info: info.additional_info.as_ref().map(text),
        inner_status: info.inner_status_code.map(|status| Status(status.bits())),
        inner: info.inner_diagnostic_info.as_deref().map(|inner| Arc::new(diagnostic_info(inner))),
    }
}

fn extension_object(structure: &Structure) -> ua::ExtensionObject {
    let encoding = ua_node_id(&structure.encoding);
    match &structure.body {
        Body::None => ua::ExtensionObject::null(),
        Body::Binary(body) => {
            ua::ExtensionObject::new(ua::type_loader::ByteStringBody::new(body.to_vec().into(), encoding))
        }
        Body::Xml(body) => {
            let body = body.as_bytes().to_vec();
            ua::ExtensionObject::new(ua::type_loader::XmlBody::new(body, encoding, "XmlElement".into()))
        }
    }
}

fn structure(object: &ua::ExtensionObject) -> Result<Structure, String> {
    let Some(body) = &object.body else {
        return Ok(Structure {
            encoding: NodeId { namespace: 0, identifier: Identifier::Numeric(0) },
            body: Body::None,
        });
    };
    let encoding = node_id(&body.binary_type_id().node_id);
    if let Some(xml) = body.as_dyn_any_ref().downcast_ref::<ua::type_loader::XmlBody>() {
        let text = std::str::from_utf8(xml.raw_body()).map_err(|_| "an XML body that is not UTF-8")?;
        return Ok(Structure { encoding: node_id(xml.encoding_id()), body: Body::Xml(text.into()) });
    }
    let mut encoded = Vec::new();
    with_context(|context| body.encode_binary(&mut encoded, context)).map_err(|error| error.to_string())?;
    Ok(Structure { encoding, body: Body::Binary(encoded.into()) })
}

fn with_context<T>(run: impl FnOnce(&ua::Context<'_>) -> T) -> T {
    run(&ua::ContextOwned::default().context())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::str::FromStr;

    #[test]
    fn the_first_byte_of_a_guid_is_the_first_that_is_written() {
        let written = "72962b91-fa75-4ae6-8d28-b404dc7daf63";
        let read = value(&ua::Variant::from(ua::Guid::from_str(written).unwrap())).unwrap();
        let Value::Guid(bytes) = read else { panic!("{read:?}") };
        assert_eq!(bytes[..4], [0x72, 0x96, 0x2b, 0x91]);
        assert_eq!(bytes[4..8], [0xfa, 0x75, 0x4a, 0xe6]);
        assert_eq!(variant(&read).to_string(), written);
    }

    fn text() -> impl Strategy<Value = Option<Arc<str>>> {
        proptest::option::of(".{0,8}".prop_map(Arc::from))
    }

    /// The UA crate sends an empty part of a LocalizedText as an absent one.
    fn part() -> impl Strategy<Value = Option<Arc<str>>> {
        proptest::option::of(".{1,8}".prop_map(Arc::from))
    }

    fn blob() -> impl Strategy<Value = Option<Arc<[u8]>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..8).prop_map(Arc::from))
    }

    /// From 1601 to 9999, which is what OPC UA can say.
    fn time() -> impl Strategy<Value = Timestamp> {
        (0..ua::DateTime::endtimes_ticks()).prop_map(|ticks| Timestamp::from_ticks(ticks - EPOCHS_APART))
    }

    fn node() -> impl Strategy<Value = NodeId> {
        let identifier = prop_oneof![
            any::<u32>().prop_map(Identifier::Numeric),
            text().prop_map(Identifier::String),
            any::<[u8; 16]>().prop_map(Identifier::Guid),
            blob().prop_map(Identifier::Opaque),
        ];
        (any::<u16>(), identifier).prop_map(|(namespace, identifier)| NodeId { namespace, identifier })
    }

    fn simple() -> impl Strategy<Value = Value> {
        let numbers = prop_oneof![
            any::<bool>().prop_map(Value::Boolean),
            any::<i8>().prop_map(Value::SByte),
            any::<u8>().prop_map(Value::Byte),
            any::<i16>().prop_map(Value::Int16),
            any::<u16>().prop_map(Value::UInt16),
            any::<i32>().prop_map(Value::Int32),
            any::<u32>().prop_map(Value::UInt32),
            any::<i64>().prop_map(Value::Int64),
            any::<u64>().prop_map(Value::UInt64),
            any::<f32>().prop_map(Value::Float),
            any::<f64>().prop_map(Value::Double),
        ];
        let texts = prop_oneof![
            text().prop_map(Value::String),
            text().prop_map(Value::XmlElement),
            blob().prop_map(Value::ByteString),
            time().prop_map(Value::DateTime),
            any::<[u8; 16]>().prop_map(Value::Guid),
            any::<u32>().prop_map(|code| Value::StatusCode(Status(code))),
        ];
        let names = prop_oneof![
            node().prop_map(|id| Value::NodeId(Arc::new(id))),
            (node(), text(), any::<u32>()).prop_map(|(node_id, namespace_uri, server_index)| {
                Value::ExpandedNodeId(Arc::new(ExpandedNodeId { node_id, namespace_uri, server_index }))
            }),
            (any::<u16>(), text())
                .prop_map(|(namespace, name)| Value::QualifiedName(Arc::new(QualifiedName { namespace, name }))),
            (part(), part()).prop_map(|(locale, text)| Value::LocalizedText(Arc::new(LocalizedText { locale, text }))),
            (node(), proptest::collection::vec(any::<u8>(), 1..8)).prop_map(|(encoding, body)| {
                Value::Structure(Arc::new(Structure { encoding, body: Body::Binary(body.into()) }))
            }),
            (any::<Option<i32>>(), proptest::option::of(text()), any::<Option<u32>>()).prop_map(
                |(id, info, status)| {
                    let inner = DiagnosticInfo { localized_text: id, ..DiagnosticInfo::default() };
                    Value::DiagnosticInfo(Arc::new(DiagnosticInfo {
                        symbolic_id: id,
                        additional_info: info,
                        inner_status: status.map(Status),
                        inner: Some(Arc::new(inner)),
                        ..DiagnosticInfo::default()
                    }))
                }
            ),
        ];
        prop_oneof![numbers, texts, names]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let array = proptest::collection::vec(simple(), 1..6).prop_map(|mut values| {
            let data_type = values[0].data_type().unwrap();
            values.retain(|value| value.data_type() == Some(data_type));
            let dimensions = (values.len() % 2 == 0).then(|| Box::from([2, values.len() as u32 / 2]));
            Value::from(Array::new(data_type, values, dimensions).unwrap())
        });
        let variants = proptest::collection::vec(simple(), 0..4).prop_map(|values| {
            let values: Vec<_> = values.into_iter().map(|value| Value::Variant(Arc::new(value))).collect();
            Value::from(Array::new(DataType::Variant, values, None).unwrap())
        });
        let data_values = (simple(), any::<Option<u32>>(), time()).prop_map(|(value, status, time)| {
            let (value, status) = (Some(value), status.map(Status));
            Value::DataValue(Arc::new(DataValue { value, status, source_time: Some(time), ..DataValue::default() }))
        });
        prop_oneof![4 => simple(), 2 => array, 1 => variants, 1 => data_values, 1 => Just(Value::Empty)]
    }

    /// NaN is equal to itself here: the bits must survive, and Debug shows whether they are NaN.
    fn same(left: &Value, right: &Value) -> bool {
        left == right || format!("{left:?}") == format!("{right:?}")
    }

    proptest! {
        #[test]
        fn every_value_survives_the_way_there_and_back(original in any_value()) {
            let back = value(&variant(&original)).unwrap();
            prop_assert!(same(&original, &back), "{original:?} became {back:?}");
        }

        #[test]
        fn and_the_way_over_the_wire(original in any_value()) {
            let context = ua::ContextOwned::default();
            let context = context.context();
            let bytes = ua::BinaryEncodable::encode_to_vec(&variant(&original), &context);
            let received = <ua::Variant as ua::BinaryDecodable>::decode(&mut bytes.as_slice(), &context);
            // Structures of namespace 0 with a known id are decoded as what they say they are, which random bytes are not.
            prop_assume!(received.is_ok());
            let back = value(&received.unwrap()).unwrap();
            prop_assert!(same(&original, &back), "{original:?} became {back:?}");
        }
    }

    #[test]
    fn a_structure_that_the_crate_knows_keeps_its_bytes() {
        let range = ua::Range { low: -1.5, high: 2.5 };
        let Value::Structure(structure) =
            value(&ua::Variant::from(ua::ExtensionObject::from_message(range.clone()))).unwrap()
        else {
            panic!("not a structure")
        };
        // Range_Encoding_DefaultBinary.
        assert_eq!(structure.encoding, NodeId { namespace: 0, identifier: Identifier::Numeric(886) });
        let expected: Vec<u8> = [range.low, range.high].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(structure.body, Body::Binary(expected.into()));
    }

    #[test]
    fn a_bad_sample_has_a_status_and_no_value() {
        let tag = crate::model::TagId(0);
        let mut sample = Sample::good(tag, Value::Int32(5), Timestamp::from_millis(1000));
        assert_eq!(data_value(&sample).value, Some(ua::Variant::Int32(5)));
        sample.quality = Quality::new(Status::BAD_NOT_CONNECTED, "unplugged");
        let bad = data_value(&sample);
        assert_eq!((bad.value, bad.status), (Some(ua::Variant::Empty), Some(ua::StatusCode::BadNotConnected)));
        assert_eq!(timestamp(&bad.source_timestamp.unwrap()), Timestamp::from_millis(1000));
    }
}
