//! Tags as variables of the types of Data Access, with the properties that those types want (OPC 10000-8, 5.3).
//!
//! | a tag that has            | is a                    | with the properties           |
//! |---------------------------|-------------------------|-------------------------------|
//! | a range                   | AnalogItemType          | EURange, EngineeringUnits     |
//! | a unit and no range       | AnalogUnitType          | EngineeringUnits              |
//! | two states, and is Boolean| TwoStateDiscreteType    | FalseState, TrueState         |
//! | states, and is unsigned   | MultiStateDiscreteType  | EnumStrings                   |
//! | none of these             | BaseDataVariableType    |                               |

use crate::model::{DataType, Range, TagSpec};
use crate::opcua::server::units;
use ::opcua::server::address_space::{AccessLevel, AddressSpace, VariableBuilder};
use ::opcua::types::{
    DataTypeId, ExtensionObject, Identifier, LocalizedText, NodeId, QualifiedName, ReferenceTypeId, VariableTypeId,
    Variant,
};

/// Changes of a tag are gathered for 10 ms; a live tag is asked for once a second while somebody monitors it.
const MINIMUM_SAMPLING: f64 = 10.0;
const MINIMUM_SAMPLING_LIVE: f64 = 1000.0;

/// Makes the node of a tag, or of its declaration in a type.
pub(super) fn add(address_space: &mut AddressSpace, id: &NodeId, parent: &NodeId, name: &str, spec: &TagSpec) {
    let access =
        if spec.writable { AccessLevel::CURRENT_READ | AccessLevel::CURRENT_WRITE } else { AccessLevel::CURRENT_READ };
    let definition = type_definition(spec);
    let mut node = VariableBuilder::new(id, QualifiedName::new(id.namespace, name), name)
        .data_type(NodeId::new(0, spec.data_type as u32))
        .access_level(access)
        .user_access_level(access)
        .minimum_sampling_interval(if spec.live { MINIMUM_SAMPLING_LIVE } else { MINIMUM_SAMPLING })
        .has_type_definition(definition)
        .component_of(parent.clone());
    if !spec.description.is_empty() {
        node = node.description(LocalizedText::new("en", &spec.description));
    }
    node = match spec.data_type {
        // BaseDataType: not known yet, and so neither is the rank.
        DataType::Variant => node.value_rank(-2),
        _ if spec.is_array => node.value_rank(1).array_dimensions(&[0]),
        _ => node.value_rank(-1),
    };
    node.insert(address_space);
    let text = |state: &str| Variant::from(LocalizedText::from(state));
    match definition {
        VariableTypeId::TwoStateDiscreteType => {
            for (name, state) in ["FalseState", "TrueState"].into_iter().zip(&spec.states) {
                property(address_space, id, name, DataTypeId::LocalizedText, text(state));
            }
        }
        VariableTypeId::MultiStateDiscreteType => {
            let states: Vec<LocalizedText> = spec.states.iter().map(|state| LocalizedText::from(&**state)).collect();
            property(address_space, id, "EnumStrings", DataTypeId::LocalizedText, states);
        }
        _ => {}
    }
    if let Some(range) = spec.range.filter(|_| definition == VariableTypeId::AnalogItemType) {
        eu_range(address_space, id, range);
    }
    if !spec.unit.is_empty() {
        let unit = ExtensionObject::from_message(units::information(&spec.unit));
        property(address_space, id, "EngineeringUnits", DataTypeId::EUInformation, unit);
    }
}

fn type_definition(spec: &TagSpec) -> VariableTypeId {
    let is_number = spec.data_type.is_number();
    match spec.data_type {
        _ if is_number && spec.range.is_some() => VariableTypeId::AnalogItemType,
        _ if is_number && !spec.unit.is_empty() => VariableTypeId::AnalogUnitType,
        DataType::Boolean if spec.states.len() == 2 => VariableTypeId::TwoStateDiscreteType,
        DataType::Byte | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 if !spec.states.is_empty() => {
            VariableTypeId::MultiStateDiscreteType
        }
        _ => VariableTypeId::BaseDataVariableType,
    }
}

pub(super) fn eu_range(address_space: &mut AddressSpace, of: &NodeId, Range { low, high }: Range) {
    let value = ExtensionObject::from_message(::opcua::types::Range { low, high });
    property(address_space, of, "EURange", DataTypeId::Range, value);
}

/// A property of the standard: its BrowseName is in namespace 0.
pub(super) fn property(
    address_space: &mut AddressSpace,
    of: &NodeId,
    name: &str,
    data_type: DataTypeId,
    value: impl Into<Variant>,
) {
    let (value, id) = (value.into(), below(of, name));
    let node = VariableBuilder::new(&id, QualifiedName::new(0, name), name)
        .data_type(data_type)
        .access_level(AccessLevel::CURRENT_READ)
        .user_access_level(AccessLevel::CURRENT_READ)
        .has_type_definition(VariableTypeId::PropertyType)
        .property_of(of.clone());
    let node = match &value {
        Variant::Array(array) => node.value_rank(1).array_dimensions(&[array.values.len() as u32]),
        _ => node.value_rank(-1),
    };
    node.value(value).insert(address_space);
}

/// Says which of the declarations of a type an instance must have (OPC 10000-3, 6.4.4).
pub(super) fn modelling_rule(address_space: &mut AddressSpace, id: &NodeId, rule: ::opcua::types::ObjectId) {
    address_space.insert_reference(id, &rule.into(), ReferenceTypeId::HasModellingRule);
}

/// The NodeId of what is below a node of ours.
pub(super) fn below(id: &NodeId, name: &str) -> NodeId {
    match &id.identifier {
        Identifier::String(path) => NodeId::new(id.namespace, format!("{path}/{name}")),
        _ => unreachable!("all our nodes have string ids"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TagName;

    fn spec(data_type: DataType) -> TagSpec {
        TagSpec::new(TagName::new("a").unwrap(), data_type)
    }

    #[test]
    fn the_type_follows_from_what_is_known_of_the_tag() {
        let states = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
        for (spec, definition) in [
            (spec(DataType::Double).range(0.0, 1.0).unit("K"), VariableTypeId::AnalogItemType),
            (spec(DataType::UInt64).unit("B"), VariableTypeId::AnalogUnitType),
            (spec(DataType::Boolean).states(states(&["off", "on"])), VariableTypeId::TwoStateDiscreteType),
            (spec(DataType::Boolean), VariableTypeId::BaseDataVariableType),
            (spec(DataType::UInt32).states(states(&["a", "b"])), VariableTypeId::MultiStateDiscreteType),
            // The type allows unsigned numbers only (OPC 10000-8, 5.3.3.3).
            (spec(DataType::Int32).states(states(&["a", "b"])), VariableTypeId::BaseDataVariableType),
            (spec(DataType::String).unit("m"), VariableTypeId::BaseDataVariableType),
            (spec(DataType::Double), VariableTypeId::BaseDataVariableType),
        ] {
            assert_eq!(type_definition(&spec), definition, "{spec:?}");
        }
    }
}
