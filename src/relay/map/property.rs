//! Item properties as the type of a variable and its property nodes (OPC 10000-8, A.3.1.2).
//!
//! A server says what it likes: an analog item without limits, a range that is text, labels without values. What makes a
//! type is what that type cannot be without; the rest is there if it can be read.

use super::value::{data_type, variant};
use crate::opcua::server::units;
use crate::relay::protocol::{DaValue, Elements, Property};
use ::opcua::types::{
    DataTypeId, EUInformation, ExtensionObject, LocalizedText, NodeId, ObjectTypeId, Range, VariableTypeId, Variant,
};

/// Property ids of OPC DA 3.00, 5.4.2.
pub mod id {
    pub const DATA_TYPE: u32 = 1;
    pub const ACCESS_RIGHTS: u32 = 5;
    pub const SCAN_RATE: u32 = 6;
    pub const EU_TYPE: u32 = 7;
    pub const EU_INFO: u32 = 8;
    pub const EU_UNITS: u32 = 100;
    pub const DESCRIPTION: u32 = 101;
    pub const HIGH_EU: u32 = 102;
    pub const LOW_EU: u32 = 103;
    pub const HIGH_INSTRUMENT: u32 = 104;
    pub const LOW_INSTRUMENT: u32 = 105;
    pub const CLOSE_LABEL: u32 = 106;
    pub const OPEN_LABEL: u32 = 107;
    pub const TIME_ZONE: u32 = 108;
}

/// What decides the type of a variable.
pub const OF_TYPE: [u32; 7] =
    [id::DATA_TYPE, id::EU_TYPE, id::EU_INFO, id::HIGH_EU, id::LOW_EU, id::CLOSE_LABEL, id::OPEN_LABEL];

/// Values of [`id::EU_TYPE`].
const ANALOG: i64 = 1;
const ENUMERATED: i64 = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    Analog,
    TwoState,
    MultiState,
    #[default]
    DataItem,
}

impl Kind {
    pub fn type_id(self) -> VariableTypeId {
        match self {
            Self::Analog => VariableTypeId::AnalogItemType,
            Self::TwoState => VariableTypeId::TwoStateDiscreteType,
            Self::MultiState => VariableTypeId::MultiStateDiscreteType,
            Self::DataItem => VariableTypeId::DataItemType,
        }
    }
}

/// A property of a variable.
#[derive(Clone, Debug, PartialEq)]
pub struct PropertyNode {
    pub key: Key,
    pub name: String,
    pub data_type: NodeId,
    pub value: Variant,
}

/// What a property is called within its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Of the UA standard, made of one or more of DA's.
    EuRange,
    InstrumentRange,
    EngineeringUnits,
    EnumStrings,
    TrueState,
    FalseState,
    /// The vendor's byte of the quality.
    VendorQuality,
    /// As DA has it.
    Da(u32),
}

impl Key {
    /// One number for each; those of the standard lie where DA has no ids of its own (up to 4999 are the OPC Foundation's, which
    /// ended).
    pub fn number(self) -> u32 {
        match self {
            Self::EuRange => 4990,
            Self::InstrumentRange => 4991,
            Self::EngineeringUnits => 4992,
            Self::EnumStrings => 4993,
            Self::TrueState => 4994,
            Self::FalseState => 4995,
            Self::VendorQuality => 4996,
            Self::Da(id) => id,
        }
    }

    pub fn from_number(number: u32) -> Self {
        match number {
            4990 => Self::EuRange,
            4991 => Self::InstrumentRange,
            4992 => Self::EngineeringUnits,
            4993 => Self::EnumStrings,
            4994 => Self::TrueState,
            4995 => Self::FalseState,
            4996 => Self::VendorQuality,
            id => Self::Da(id),
        }
    }

    /// Whether its browse name is the UA standard's.
    pub fn is_standard(self) -> bool {
        !matches!(self, Self::VendorQuality | Self::Da(_))
    }
}

/// What there is to say of an item beside its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    pub kind: Kind,
    /// `None`: it may be anything.
    pub data_type: Option<DataTypeId>,
    pub is_array: bool,
    /// `None` if the server does not say.
    pub access: Option<Access>,
    pub text: String,
    /// In milliseconds.
    pub scan_rate: Option<f64>,
    pub properties: Vec<PropertyNode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub readable: bool,
    pub writable: bool,
}

impl Access {
    /// OPC_READABLE and OPC_WRITABLE.
    pub fn from_bits(bits: u32) -> Self {
        Self { readable: bits & 1 != 0, writable: bits & 2 != 0 }
    }
}

/// So much of a text of the server's is enough.
const LONGEST_NAME: usize = 200;

pub fn describe(properties: &[Property]) -> Description {
    let value = |id: u32| properties.iter().find(|property| property.id == id)?.value.as_ref().ok();
    let number = |id: u32| value(id).and_then(number);
    let text = |id: u32| value(id).and_then(text).filter(|text| !text.is_empty());
    let vartype = number(id::DATA_TYPE).map(|vartype| vartype as i64 as u16);
    let (data_type, is_array) = vartype.map_or((None, false), data_type);
    let eu_type = number(id::EU_TYPE).map(|eu_type| eu_type as i64);

    let mut found = Vec::new();
    let mut add = |key, name: &str, data_type: DataTypeId, value| {
        found.push(PropertyNode { key, name: name.into(), data_type: data_type.into(), value });
    };
    let range = |low, high| Some(range(number(low)?, number(high)?));
    let eu_range =
        range(id::LOW_EU, id::HIGH_EU).or_else(|| of_info(value(id::EU_INFO)?).filter(|_| eu_type == Some(ANALOG)));
    let states = (text(id::CLOSE_LABEL), text(id::OPEN_LABEL));
    let names = value(id::EU_INFO).and_then(texts).filter(|_| eu_type == Some(ENUMERATED));
    let kind = match () {
        () if eu_range.is_some() => Kind::Analog,
        () if states.0.is_some() || states.1.is_some() => Kind::TwoState,
        () if names.is_some() => Kind::MultiState,
        () => Kind::DataItem,
    };
    if let Some(range) = eu_range {
        add(Key::EuRange, "EURange", DataTypeId::Range, range);
    }
    if let Some(range) = range(id::LOW_INSTRUMENT, id::HIGH_INSTRUMENT) {
        add(Key::InstrumentRange, "InstrumentRange", DataTypeId::Range, range);
    }
    if let Some(unit) = text(id::EU_UNITS) {
        let unit: EUInformation = units::information(unit);
        let unit = Variant::from(ExtensionObject::from_message(unit));
        add(Key::EngineeringUnits, "EngineeringUnits", DataTypeId::EUInformation, unit);
    }
    if kind == Kind::TwoState {
        for (key, name, state) in [(Key::TrueState, "TrueState", states.0), (Key::FalseState, "FalseState", states.1)] {
            add(key, name, DataTypeId::LocalizedText, Variant::from(LocalizedText::from(state.unwrap_or_default())));
        }
    }
    if let Some(names) = names {
        let names: Vec<LocalizedText> = names.iter().map(|name| LocalizedText::from(name.as_str())).collect();
        add(Key::EnumStrings, "EnumStrings", DataTypeId::LocalizedText, Variant::from(names));
    }
    add(Key::VendorQuality, "VendorQuality", DataTypeId::Byte, Variant::Empty);
    let vendors = properties.iter().filter(|property| property.id >= id::TIME_ZONE);
    found.extend(vendors.filter_map(of_vendor));
    let mut description = text(id::DESCRIPTION).unwrap_or_default().to_owned();
    description.truncate(description.floor_char_boundary(4096));
    Description {
        kind,
        data_type,
        is_array,
        access: number(id::ACCESS_RIGHTS).map(|bits| Access::from_bits(bits as u32)),
        text: description,
        scan_rate: number(id::SCAN_RATE).filter(|rate| rate.is_finite() && *rate >= 0.0),
        properties: found,
    }
}

/// A property of the vendor's, by its VARIANT.
fn of_vendor(property: &Property) -> Option<PropertyNode> {
    let key = Key::Da(property.id);
    // What the UA standard's own would be taken for.
    if Key::from_number(property.id) != key {
        return None;
    }
    let value = property.value.as_ref().ok()?;
    let (data_type, _) = data_type(property.data_type);
    let name = property.description.trim();
    let name = if name.is_empty() { format!("Property {}", property.id) } else { name.to_owned() };
    let name = name[..name.floor_char_boundary(LONGEST_NAME)].to_owned();
    let data_type = data_type.unwrap_or(DataTypeId::BaseDataType).into();
    Some(PropertyNode { key, name, data_type, value: variant(value) })
}

fn range(low: f64, high: f64) -> Variant {
    Variant::from(ExtensionObject::from_message(Range { low, high }))
}

/// The EUInfo of an analog item: low and high (OPC DA 3.00, 4.5.2.10).
fn of_info(info: &DaValue) -> Option<Variant> {
    let Variant::Array(array) = variant(info) else { return None };
    let [low, high] = &array.values[..] else { return None };
    let number = |value: &Variant| match value {
        Variant::Float(v) => Some(f64::from(*v)),
        Variant::Double(v) => Some(*v),
        _ => None,
    };
    Some(range(number(low)?, number(high)?))
}

fn number(value: &DaValue) -> Option<f64> {
    Some(match value {
        DaValue::I1(v) => f64::from(*v),
        DaValue::U1(v) => f64::from(*v),
        DaValue::I2(v) => f64::from(*v),
        DaValue::U2(v) => f64::from(*v),
        DaValue::I4(v) => f64::from(*v),
        DaValue::U4(v) => f64::from(*v),
        DaValue::I8(v) => *v as f64,
        DaValue::U8(v) => *v as f64,
        DaValue::R4(v) => f64::from(*v),
        DaValue::R8(v) | DaValue::Decimal(v) => *v,
        DaValue::Cy(v) => *v as f64 / 1e4,
        // Seen: limits as text.
        DaValue::Text(v) => v.trim().parse().ok()?,
        _ => return None,
    })
    .filter(|number| number.is_finite())
}

fn text(value: &DaValue) -> Option<&str> {
    match value {
        DaValue::Text(text) => Some(text),
        _ => None,
    }
}

fn texts(value: &DaValue) -> Option<Vec<String>> {
    let DaValue::Array { elements, .. } = value else { return None };
    match elements {
        Elements::Text(texts) => Some(texts.clone()),
        Elements::Variant(values) => values.iter().map(|value| text(value).map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The type of properties.
pub const PROPERTY_TYPE: VariableTypeId = VariableTypeId::PropertyType;
/// The type of branches.
pub const FOLDER_TYPE: ObjectTypeId = ObjectTypeId::FolderType;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn property(id: u32, value: DaValue) -> Property {
        Property { id, description: format!("Property of {id}"), data_type: 5, value: Ok(value) }
    }

    fn text(text: &str) -> DaValue {
        DaValue::Text(text.into())
    }

    fn of(properties: &[(u32, DaValue)]) -> Description {
        describe(&properties.iter().map(|(id, value)| property(*id, value.clone())).collect::<Vec<_>>())
    }

    fn names(description: &Description) -> Vec<&str> {
        description.properties.iter().map(|property| &property.name[..]).collect()
    }

    fn range_of(description: &Description, key: Key) -> Range {
        let property = description.properties.iter().find(|property| property.key == key).unwrap();
        let Variant::ExtensionObject(object) = &property.value else { panic!("{property:?}") };
        object.inner_as::<Range>().unwrap().clone()
    }

    #[test]
    fn limits_make_an_analog_item() {
        let analog = of(&[
            (1, DaValue::I2(5)),
            (5, DaValue::I4(3)),
            (6, DaValue::R4(250.0)),
            (100, text("bar")),
            (101, text("Pressure in the boiler")),
            (102, DaValue::R8(16.0)),
            (103, DaValue::R8(0.5)),
            (104, text("20")),
            (105, DaValue::I4(-1)),
            (5001, DaValue::I4(7)),
        ]);
        assert_eq!((analog.kind, analog.data_type), (Kind::Analog, Some(DataTypeId::Double)));
        assert_eq!(analog.access, Some(Access { readable: true, writable: true }));
        assert_eq!((analog.scan_rate, &analog.text[..]), (Some(250.0), "Pressure in the boiler"));
        assert_eq!(range_of(&analog, Key::EuRange), Range { low: 0.5, high: 16.0 });
        assert_eq!(range_of(&analog, Key::InstrumentRange), Range { low: -1.0, high: 20.0 });
        let expected = ["EURange", "InstrumentRange", "EngineeringUnits", "VendorQuality", "Property of 5001"];
        assert_eq!(names(&analog), expected);
        let info = DaValue::Array { dimensions: vec![2], elements: Elements::R8(vec![-5.0, 5.0]) };
        let analog = of(&[(7, DaValue::I4(1)), (8, info.clone())]);
        assert_eq!(range_of(&analog, Key::EuRange), Range { low: -5.0, high: 5.0 });
        assert_eq!(of(&[(7, DaValue::I4(0)), (8, info)]).kind, Kind::DataItem);
    }

    #[test]
    fn labels_make_a_discrete_item() {
        let two = of(&[(106, text("open")), (107, text("shut"))]);
        assert_eq!((two.kind, names(&two)), (Kind::TwoState, vec!["TrueState", "FalseState", "VendorQuality"]));
        assert_eq!(two.properties[1].value, Variant::from(LocalizedText::from("shut")));
        let names_of =
            DaValue::Array { dimensions: vec![2], elements: Elements::Text(vec!["off".into(), "on".into()]) };
        let many = of(&[(7, DaValue::I4(2)), (8, names_of)]);
        assert_eq!((many.kind, names(&many)), (Kind::MultiState, vec!["EnumStrings", "VendorQuality"]));
    }

    #[test]
    fn what_a_server_does_not_say_is_left_out() {
        assert_eq!(names(&of(&[])), ["VendorQuality"]);
        let nonsense =
            of(&[(102, DaValue::Bool(true)), (103, DaValue::R8(f64::NAN)), (106, DaValue::I4(1)), (1, text("x"))]);
        assert_eq!(
            (nonsense.kind, nonsense.data_type, names(&nonsense)),
            (Kind::DataItem, None, vec!["VendorQuality"])
        );
        let failed = Property { value: Err(-1), ..property(5001, DaValue::Empty) };
        assert_eq!(names(&describe(&[failed])), ["VendorQuality"]);
        let nameless = Property { description: " ".into(), ..property(5001, DaValue::Empty) };
        assert_eq!(names(&describe(&[nameless]))[1], "Property 5001");
    }

    proptest! {
        #[test]
        fn no_property_is_two(ids in proptest::collection::vec(0..6000_u32, 0..50)) {
            let description = of(&ids.iter().map(|id| (*id, DaValue::I4(1))).collect::<Vec<_>>());
            for property in &description.properties {
                prop_assert_eq!(Key::from_number(property.key.number()), property.key);
            }
        }
    }
}
