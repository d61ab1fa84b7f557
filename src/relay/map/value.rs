//! VARIANTs as Variants and back (OPC 10000-8, A.3.2.2, and A.4 for writes).
//!
//! What has no type of its own in OPC UA becomes the nearest one that loses nothing of what DA servers send: VT_CY and VT_DECIMAL a
//! Double, VT_ERROR an Int32. VT_DATE is in no time zone and is taken as it is. On the way back the worker brings each value to the
//! item's own type, so the nearest type is good enough.

use crate::relay::protocol::{DaValue, Elements};
use ::opcua::types::{Array, DataTypeId, DateTime, UAString, Variant, VariantScalarTypeId};

/// VT_ARRAY; the low bits are the type of the elements.
const VT_ARRAY: u16 = 0x2000;

/// The DataType of a VARTYPE, and whether it is an array; `None` if it has none, or may be anything.
pub fn data_type(vartype: u16) -> (Option<DataTypeId>, bool) {
    let data_type = match vartype & 0x0FFF {
        2 => DataTypeId::Int16,
        3 | 10 | 22 => DataTypeId::Int32,
        4 => DataTypeId::Float,
        5 | 6 | 14 => DataTypeId::Double,
        7 => DataTypeId::DateTime,
        8 => DataTypeId::String,
        11 => DataTypeId::Boolean,
        16 => DataTypeId::SByte,
        17 => DataTypeId::Byte,
        18 => DataTypeId::UInt16,
        19 | 23 => DataTypeId::UInt32,
        20 => DataTypeId::Int64,
        21 => DataTypeId::UInt64,
        _ => return (None, vartype & VT_ARRAY != 0),
    };
    (Some(data_type), vartype & VT_ARRAY != 0)
}

pub fn variant(value: &DaValue) -> Variant {
    match value {
        DaValue::Empty | DaValue::Null | DaValue::Unsupported(_) => Variant::Empty,
        DaValue::Bool(v) => Variant::Boolean(*v),
        DaValue::I1(v) => Variant::SByte(*v),
        DaValue::U1(v) => Variant::Byte(*v),
        DaValue::I2(v) => Variant::Int16(*v),
        DaValue::U2(v) => Variant::UInt16(*v),
        DaValue::I4(v) | DaValue::Error(v) => Variant::Int32(*v),
        DaValue::U4(v) => Variant::UInt32(*v),
        DaValue::I8(v) => Variant::Int64(*v),
        DaValue::U8(v) => Variant::UInt64(*v),
        DaValue::R4(v) => Variant::Float(*v),
        DaValue::R8(v) | DaValue::Decimal(v) => Variant::Double(*v),
        DaValue::Cy(v) => Variant::Double(currency(*v)),
        DaValue::Date(v) => Variant::from(from_days(*v)),
        DaValue::Text(v) => Variant::String(UAString::from(v.as_str())),
        DaValue::Array { dimensions, elements } => array(dimensions, elements),
    }
}

fn array(dimensions: &[u32], elements: &Elements) -> Variant {
    use VariantScalarTypeId as Type;
    fn all<T>(values: &[T], make: impl Fn(&T) -> Variant) -> Vec<Variant> {
        values.iter().map(make).collect()
    }
    let (value_type, values) = match elements {
        Elements::Bool(v) => (Type::Boolean, all(v, |v| Variant::Boolean(*v))),
        Elements::I1(v) => (Type::SByte, all(v, |v| Variant::SByte(*v))),
        Elements::U1(v) => (Type::Byte, all(v, |v| Variant::Byte(*v))),
        Elements::I2(v) => (Type::Int16, all(v, |v| Variant::Int16(*v))),
        Elements::U2(v) => (Type::UInt16, all(v, |v| Variant::UInt16(*v))),
        Elements::I4(v) | Elements::Error(v) => (Type::Int32, all(v, |v| Variant::Int32(*v))),
        Elements::U4(v) => (Type::UInt32, all(v, |v| Variant::UInt32(*v))),
        Elements::I8(v) => (Type::Int64, all(v, |v| Variant::Int64(*v))),
        Elements::U8(v) => (Type::UInt64, all(v, |v| Variant::UInt64(*v))),
        Elements::R4(v) => (Type::Float, all(v, |v| Variant::Float(*v))),
        Elements::R8(v) => (Type::Double, all(v, |v| Variant::Double(*v))),
        Elements::Cy(v) => (Type::Double, all(v, |v| Variant::Double(currency(*v)))),
        Elements::Date(v) => (Type::DateTime, all(v, |v| Variant::from(from_days(*v)))),
        Elements::Text(v) => (Type::String, all(v, |v| Variant::String(UAString::from(v.as_str())))),
        Elements::Variant(v) => (Type::Variant, all(v, |v| Variant::Variant(Box::new(variant(v))))),
    };
    // Dimensions that do not fit come from a worker that lies; the values are still there.
    let fits = dimensions.iter().try_fold(1_u32, |all, one| all.checked_mul(*one)) == u32::try_from(values.len()).ok();
    let dimensions = (dimensions.len() > 1 && fits).then(|| dimensions.to_vec());
    Variant::Array(Box::new(Array { value_type, values, dimensions }))
}

/// What a client writes; `None` if DA has nothing like it.
pub fn da_value(value: &Variant) -> Option<DaValue> {
    Some(match value {
        Variant::Empty => DaValue::Empty,
        Variant::Boolean(v) => DaValue::Bool(*v),
        Variant::SByte(v) => DaValue::I1(*v),
        Variant::Byte(v) => DaValue::U1(*v),
        Variant::Int16(v) => DaValue::I2(*v),
        Variant::UInt16(v) => DaValue::U2(*v),
        Variant::Int32(v) => DaValue::I4(*v),
        Variant::UInt32(v) => DaValue::U4(*v),
        Variant::Int64(v) => DaValue::I8(*v),
        Variant::UInt64(v) => DaValue::U8(*v),
        Variant::Float(v) => DaValue::R4(*v),
        Variant::Double(v) => DaValue::R8(*v),
        Variant::DateTime(v) => DaValue::Date(to_days(v)),
        Variant::String(v) => DaValue::Text(text(v)),
        Variant::LocalizedText(v) => DaValue::Text(text(&v.text)),
        Variant::ByteString(v) => {
            let bytes = v.value.clone().unwrap_or_default();
            DaValue::Array { dimensions: vec![bytes.len() as u32], elements: Elements::U1(bytes) }
        }
        Variant::Variant(v) => da_value(v)?,
        Variant::Array(array) => da_array(array)?,
        _ => return None,
    })
}

fn da_array(array: &Array) -> Option<DaValue> {
    use VariantScalarTypeId as Type;
    /// All of the elements, if each is what it should be.
    fn all<T>(values: &[Variant], of: impl Fn(&Variant) -> Option<T>) -> Option<Vec<T>> {
        values.iter().map(of).collect()
    }
    macro_rules! simple {
        ($kind:ident, $to:ident) => {
            Elements::$to(all(&array.values, |value| match value {
                Variant::$kind(v) => Some(v.clone()),
                _ => None,
            })?)
        };
    }
    let elements = match array.value_type {
        Type::Boolean => simple!(Boolean, Bool),
        Type::SByte => simple!(SByte, I1),
        Type::Byte => simple!(Byte, U1),
        Type::Int16 => simple!(Int16, I2),
        Type::UInt16 => simple!(UInt16, U2),
        Type::Int32 => simple!(Int32, I4),
        Type::UInt32 => simple!(UInt32, U4),
        Type::Int64 => simple!(Int64, I8),
        Type::UInt64 => simple!(UInt64, U8),
        Type::Float => simple!(Float, R4),
        Type::Double => simple!(Double, R8),
        Type::DateTime => Elements::Date(all(&array.values, |value| match value {
            Variant::DateTime(v) => Some(to_days(v)),
            _ => None,
        })?),
        Type::String | Type::LocalizedText => Elements::Text(all(&array.values, |value| match value {
            Variant::String(v) => Some(text(v)),
            Variant::LocalizedText(v) => Some(text(&v.text)),
            _ => None,
        })?),
        Type::Variant => Elements::Variant(all(&array.values, |value| {
            let value = da_value(value)?;
            // A VARIANT in an array may be an array, but that is as far as a client may go.
            let is_deep = matches!(&value, DaValue::Array { elements: Elements::Variant(_), .. });
            (!is_deep).then_some(value)
        })?),
        _ => return None,
    };
    let length = u32::try_from(array.values.len()).ok()?;
    let dimensions = array.dimensions.clone().filter(|dimensions| dimensions.len() > 1);
    if let Some(dimensions) = &dimensions
        && dimensions.iter().try_fold(1_u32, |all, one| all.checked_mul(*one)) != Some(length)
    {
        return None;
    }
    Some(DaValue::Array { dimensions: dimensions.unwrap_or_else(|| vec![length]), elements })
}

fn text(text: &UAString) -> String {
    text.as_ref().to_owned()
}

fn currency(ten_thousandths: i64) -> f64 {
    ten_thousandths as f64 / 1e4
}

/// Ticks of 100 ns.
const DAY: i64 = 864_000_000_000;
/// From 1601-01-01 to 1899-12-30.
const DAYS_BEFORE: i64 = 109_205;

/// Before 1899-12-30 the days count back and their hours still forward: -1.25 is 06:00 of the day before.
fn from_days(days: f64) -> DateTime {
    let (whole, part) = (days.trunc(), days.fract().abs());
    let whole = (whole as i64).saturating_add(DAYS_BEFORE).saturating_mul(DAY);
    let ticks = whole.saturating_add((part * DAY as f64).round() as i64);
    DateTime::from(ticks.clamp(0, DateTime::endtimes_ticks()))
}

fn to_days(time: &DateTime) -> f64 {
    let ticks = time.ticks();
    let (whole, part) = (ticks.div_euclid(DAY) - DAYS_BEFORE, ticks.rem_euclid(DAY) as f64 / DAY as f64);
    if whole < 0 { whole as f64 - part } else { whole as f64 + part }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::opcua::types::NodeId;
    use proptest::prelude::*;

    #[test]
    fn dates_are_read_as_automation_writes_them() {
        assert_eq!(from_days(0.0), DateTime::ymd(1899, 12, 30));
        assert_eq!(from_days(2.0), DateTime::ymd(1900, 1, 1));
        assert_eq!(from_days(46_023.75), DateTime::ymd_hms(2026, 1, 1, 18, 0, 0));
        assert_eq!(from_days(-1.25), DateTime::ymd_hms(1899, 12, 29, 6, 0, 0));
        assert_eq!(to_days(&from_days(-1.25)), -1.25);
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            let _ = from_days(nonsense);
        }
    }

    #[test]
    fn arrays_keep_their_dimensions_if_those_can_be() {
        let array = |dimensions: &[u32]| {
            let elements = Elements::I4(vec![1, 2, 3, 4, 5, 6]);
            variant(&DaValue::Array { dimensions: dimensions.to_vec(), elements })
        };
        let dimensions = |value: &Variant| match value {
            Variant::Array(array) => array.dimensions.clone(),
            _ => panic!("{value:?}"),
        };
        assert_eq!(dimensions(&array(&[2, 3])), Some(vec![2, 3]));
        for other in [&[6][..], &[2, 2], &[], &[u32::MAX, u32::MAX, 6]] {
            assert_eq!(dimensions(&array(other)), None, "{other:?}");
        }
    }

    #[test]
    fn what_da_does_not_have_is_refused() {
        assert_eq!(da_value(&Variant::from(NodeId::null())), None);
        assert_eq!(da_value(&Variant::from(vec![NodeId::null()])), None);
        let lies =
            Array { value_type: VariantScalarTypeId::Int32, values: vec![1.into()], dimensions: Some(vec![2, 2]) };
        assert_eq!(da_value(&Variant::Array(Box::new(lies))), None);
        let mixed = Array { value_type: VariantScalarTypeId::Int32, values: vec!["a".into()], dimensions: None };
        assert_eq!(da_value(&Variant::Array(Box::new(mixed))), None);
    }

    #[test]
    fn types_of_variables_are_those_of_their_values() {
        for (vartype, value) in [
            (2, DaValue::I2(1)),
            (3, DaValue::I4(1)),
            (4, DaValue::R4(1.0)),
            (5, DaValue::R8(1.0)),
            (6, DaValue::Cy(1)),
            (7, DaValue::Date(1.0)),
            (8, DaValue::Text("a".into())),
            (10, DaValue::Error(1)),
            (11, DaValue::Bool(true)),
            (14, DaValue::Decimal(1.0)),
            (16, DaValue::I1(1)),
            (17, DaValue::U1(1)),
            (18, DaValue::U2(1)),
            (19, DaValue::U4(1)),
            (20, DaValue::I8(1)),
            (21, DaValue::U8(1)),
        ] {
            let (expected, is_array) = data_type(vartype);
            let found = variant(&value).scalar_type_id().unwrap() as u32;
            assert_eq!((expected.unwrap() as u32, is_array), (found, false), "{vartype}");
            assert!(data_type(vartype | VT_ARRAY).1);
        }
        assert_eq!(data_type(0), (None, false));
        assert_eq!(data_type(12 | VT_ARRAY), (None, true));
    }

    /// Values whose type is the same on both sides.
    fn scalar() -> impl Strategy<Value = DaValue> {
        prop_oneof![
            any::<bool>().prop_map(DaValue::Bool),
            any::<i8>().prop_map(DaValue::I1),
            any::<u8>().prop_map(DaValue::U1),
            any::<i16>().prop_map(DaValue::I2),
            any::<u16>().prop_map(DaValue::U2),
            any::<i32>().prop_map(DaValue::I4),
            any::<u32>().prop_map(DaValue::U4),
            any::<i64>().prop_map(DaValue::I8),
            any::<u64>().prop_map(DaValue::U8),
            any::<f32>().prop_map(DaValue::R4),
            any::<f64>().prop_map(DaValue::R8),
            ".{0,20}".prop_map(DaValue::Text),
            Just(DaValue::Empty),
        ]
    }

    fn same() -> impl Strategy<Value = DaValue> {
        let elements = prop_oneof![
            proptest::collection::vec(any::<bool>(), 0..20).prop_map(Elements::Bool),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Elements::U1),
            proptest::collection::vec(any::<i16>(), 0..20).prop_map(Elements::I2),
            proptest::collection::vec(any::<u64>(), 0..20).prop_map(Elements::U8),
            proptest::collection::vec(any::<f32>(), 0..20).prop_map(Elements::R4),
            proptest::collection::vec(".{0,9}", 0..20).prop_map(Elements::Text),
            proptest::collection::vec(scalar(), 0..20).prop_map(Elements::Variant),
        ];
        let array = elements.prop_map(|elements| {
            let length = match variant(&DaValue::Array { dimensions: vec![], elements: elements.clone() }) {
                Variant::Array(array) => array.values.len() as u32,
                other => panic!("{other:?}"),
            };
            let dimensions = if length % 2 == 0 && length > 0 { vec![length / 2, 2] } else { vec![length] };
            DaValue::Array { dimensions, elements }
        });
        prop_oneof![scalar(), array]
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written_back(value in same()) {
            let there = variant(&value);
            prop_assert_eq!(da_value(&there), Some(value));
        }

        #[test]
        fn dates_go_there_and_back(days in -100_000.0..2_900_000.0) {
            prop_assert!((to_days(&from_days(days)) - days).abs() < 1e-6);
        }

        #[test]
        fn currencies_keep_their_places(amount in -1_000_000_000_000_i64..1_000_000_000_000) {
            let Variant::Double(read) = variant(&DaValue::Cy(amount)) else { panic!() };
            prop_assert_eq!((read * 1e4).round() as i64, amount);
        }
    }
}
