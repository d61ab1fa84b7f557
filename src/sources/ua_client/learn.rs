//! What a server says of its variables: type, rank, who may write, unit, range, names of states, description.
//!
//! A DataType that is not built in is followed up to one that is (OPC 10000-3, 5.8.3): Duration is a Double, an enumeration an
//! Int32. Where that ends at an abstract one (Number, BaseDataType), or where the rank is left open, the first value tells.

use crate::model::{DataType, Range};
use crate::opcua::client::{Connection, ServiceError};
use ::opcua::types::{
    AttributeId, BrowseDescription, BrowseDirection, BrowseResultMask, DataTypeId, DataValue, EUInformation,
    Identifier, NodeId, ReadValueId, ReferenceTypeId, StatusCode, Variant,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Of one variable.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Learned {
    /// `DataType::Variant`: the first value tells.
    pub data_type: DataType,
    pub is_array: bool,
    pub is_writable: bool,
    pub description: String,
    pub unit: String,
    pub range: Option<Range>,
    pub states: Vec<Arc<str>>,
}

/// Types that were followed up. Of one session: indices of namespaces do not outlive it.
#[derive(Default)]
pub(super) struct Types(HashMap<NodeId, DataType>);

const ATTRIBUTES: [AttributeId; 4] =
    [AttributeId::DataType, AttributeId::ValueRank, AttributeId::UserAccessLevel, AttributeId::Description];
const PROPERTIES: [&str; 5] = ["EURange", "EngineeringUnits", "EnumStrings", "FalseState", "TrueState"];
/// Nodes whose answers are held at once.
const AT_ONCE: usize = 5000;
/// No type is that far from a built-in one.
const DEEPEST: usize = 30;
/// A text of a server that is longer is cut.
const LONGEST: usize = 1000;

/// Of each: what it is, or why that cannot be said (no such node; not a variable).
pub(super) async fn learn(
    connection: &Connection,
    types: &mut Types,
    nodes: &[NodeId],
) -> Result<Vec<Result<Learned, StatusCode>>, ServiceError> {
    let mut learned = Vec::with_capacity(nodes.len());
    for nodes in nodes.chunks(AT_ONCE) {
        learned.extend(learn_some(connection, types, nodes).await?);
    }
    Ok(learned)
}

/// Those whose nodes are not there.
pub(super) async fn gone(connection: &Connection, rows: &[(usize, NodeId)]) -> Result<Vec<usize>, ServiceError> {
    let mut gone = Vec::new();
    for rows in rows.chunks(AT_ONCE) {
        let class = |(_, node): &(usize, NodeId)| ReadValueId {
            node_id: node.clone(),
            attribute_id: AttributeId::NodeClass as u32,
            ..Default::default()
        };
        let wanted: Vec<_> = rows.iter().map(class).collect();
        let answers = connection.read(&wanted, Duration::ZERO).await?;
        let is_gone = |answer: &DataValue| answer.status == Some(StatusCode::BadNodeIdUnknown);
        gone.extend(rows.iter().zip(answers).filter(|(_, answer)| is_gone(answer)).map(|((row, _), _)| *row));
    }
    Ok(gone)
}

async fn learn_some(
    connection: &Connection,
    types: &mut Types,
    nodes: &[NodeId],
) -> Result<Vec<Result<Learned, StatusCode>>, ServiceError> {
    let attribute = |node: &NodeId, id: AttributeId| ReadValueId {
        node_id: node.clone(),
        attribute_id: id as u32,
        ..Default::default()
    };
    let wanted: Vec<_> = nodes.iter().flat_map(|node| ATTRIBUTES.map(|id| attribute(node, id))).collect();
    let answers = connection.read(&wanted, Duration::ZERO).await?;
    let answers: Vec<&[DataValue]> = answers.chunks(ATTRIBUTES.len()).collect();
    types.follow(connection, answers.iter().filter_map(|answer| declared(answer).ok())).await?;

    let mut learned: Vec<Result<Learned, StatusCode>> = answers
        .iter()
        .map(|answer| {
            let declared = types.get(&declared(answer)?);
            let rank = match answer[1].value {
                Some(Variant::Int32(rank)) => rank,
                _ => -2,
            };
            let is_open = matches!(rank, ..-1);
            Ok(Learned {
                data_type: if is_open { DataType::Variant } else { declared },
                is_array: rank >= 0,
                // OPC 10000-3, 5.6.2: CurrentWrite.
                is_writable: matches!(answer[2].value, Some(Variant::Byte(level)) if level & 2 != 0),
                description: text(answer[3].value.as_ref()),
                unit: String::new(),
                range: None,
                states: Vec::new(),
            })
        })
        .collect();
    let with_properties = |(index, one): (usize, &Result<Learned, StatusCode>)| {
        let one = one.as_ref().ok()?;
        let has = one.data_type.is_number() || matches!(one.data_type, DataType::Boolean | DataType::Variant);
        has.then_some(index)
    };
    let asked: Vec<usize> = learned.iter().enumerate().filter_map(with_properties).collect();
    properties(connection, nodes, &asked, &mut learned).await?;
    Ok(learned)
}

/// Adds what is below the nodes at `asked`.
async fn properties(
    connection: &Connection,
    nodes: &[NodeId],
    asked: &[usize],
    learned: &mut [Result<Learned, StatusCode>],
) -> Result<(), ServiceError> {
    let wanted: Vec<_> = asked.iter().map(|&index| properties_of(nodes[index].clone())).collect();
    let mut found: Vec<(usize, &str, ReadValueId)> = Vec::new();
    for (&index, answer) in asked.iter().zip(connection.browse(&wanted).await?) {
        // Properties are a courtesy of the server.
        for child in answer.unwrap_or_default() {
            let name = PROPERTIES.iter().find(|name| child.name.name.as_ref() == **name);
            let node_id = child.node;
            let value = ReadValueId { node_id, attribute_id: AttributeId::Value as u32, ..Default::default() };
            found.extend(name.map(|name| (index, *name, value)));
        }
    }
    let wanted: Vec<ReadValueId> = found.iter().map(|(.., value)| value.clone()).collect();
    let values = connection.read(&wanted, Duration::ZERO).await?;
    for ((index, name, _), value) in found.into_iter().zip(values) {
        if let (Ok(one), Some(value)) = (&mut learned[index], &value.value) {
            one.add(name, value);
        }
    }
    Ok(())
}

impl Learned {
    fn add(&mut self, property: &str, value: &Variant) {
        match (property, value) {
            ("EURange", Variant::ExtensionObject(object)) => {
                let range = object.inner_as::<::opcua::types::Range>();
                let range =
                    range.filter(|range| range.low.is_finite() && range.high.is_finite() && range.low < range.high);
                self.range = range.map(|range| Range { low: range.low, high: range.high });
            }
            ("EngineeringUnits", Variant::ExtensionObject(object)) => {
                let unit = object.inner_as::<EUInformation>();
                self.unit = unit.map(|unit| cut(unit.display_name.text.as_ref())).unwrap_or_default();
            }
            ("EnumStrings", Variant::Array(names)) => {
                self.states = names.values.iter().take(LONGEST).map(|name| text(Some(name)).into()).collect();
            }
            ("FalseState" | "TrueState", state) => {
                self.states.resize(2, "".into());
                self.states[usize::from(property == "TrueState")] = text(Some(state)).into();
            }
            _ => {}
        }
    }
}

fn properties_of(node: NodeId) -> BrowseDescription {
    BrowseDescription {
        reference_type_id: ReferenceTypeId::HasProperty.into(),
        result_mask: BrowseResultMask::BrowseName as u32,
        ..crate::opcua::client::children(node)
    }
}

fn declared(answer: &[DataValue]) -> Result<NodeId, StatusCode> {
    match (&answer[0].value, answer[0].status) {
        (_, Some(status)) if status.is_bad() => Err(status),
        (Some(Variant::NodeId(declared)), _) => Ok((**declared).clone()),
        _ => Err(StatusCode::BadAttributeIdInvalid),
    }
}

fn text(value: Option<&Variant>) -> String {
    match value {
        Some(Variant::LocalizedText(text)) => cut(text.text.as_ref()),
        _ => String::new(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

impl Types {
    fn get(&self, declared: &NodeId) -> DataType {
        built_in(declared).or_else(|| self.0.get(declared).copied()).unwrap_or(DataType::Variant)
    }

    /// Asks for the supertypes of those that are not known, all of them one level at a time.
    async fn follow(
        &mut self,
        connection: &Connection,
        declared: impl Iterator<Item = NodeId>,
    ) -> Result<(), ServiceError> {
        let is_new = |node: &NodeId| built_in(node).is_none() && !self.0.contains_key(node);
        // The type, and how far up we are.
        let mut open: Vec<(NodeId, NodeId)> = Vec::new();
        for node in declared.filter(is_new) {
            if !open.iter().any(|(known, _)| *known == node) {
                open.push((node.clone(), node));
            }
        }
        for _ in 0..DEEPEST {
            if open.is_empty() {
                return Ok(());
            }
            let wanted: Vec<_> = open.iter().map(|(_, at)| supertype_of(at.clone())).collect();
            let found = connection.browse(&wanted).await?;
            let mut higher = Vec::new();
            for ((node, _), supertypes) in open.into_iter().zip(found) {
                match supertypes.unwrap_or_default().into_iter().next() {
                    Some(supertype) => match built_in(&supertype.node).or_else(|| self.0.get(&supertype.node).copied())
                    {
                        Some(known) => _ = self.0.insert(node, known),
                        None => higher.push((node, supertype.node)),
                    },
                    None => _ = self.0.insert(node, DataType::Variant),
                }
            }
            open = higher;
        }
        self.0.extend(open.into_iter().map(|(node, _)| (node, DataType::Variant)));
        Ok(())
    }
}

fn supertype_of(node: NodeId) -> BrowseDescription {
    BrowseDescription {
        browse_direction: BrowseDirection::Inverse,
        reference_type_id: ReferenceTypeId::HasSubtype.into(),
        ..crate::opcua::client::children(node)
    }
}

/// A built-in type, or one that is known without asking.
fn built_in(node: &NodeId) -> Option<DataType> {
    let Identifier::Numeric(id) = node.identifier else { return None };
    if node.namespace != 0 {
        return None;
    }
    match DataTypeId::try_from(id) {
        Ok(DataTypeId::BaseDataType | DataTypeId::Number | DataTypeId::Integer | DataTypeId::UInteger) => {
            Some(DataType::Variant)
        }
        Ok(DataTypeId::Enumeration) => Some(DataType::Int32),
        Ok(DataTypeId::UtcTime) => Some(DataType::DateTime),
        Ok(DataTypeId::Duration) => Some(DataType::Double),
        _ => DataType::from_id(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::opcua::types::{ExtensionObject, LocalizedText};

    #[test]
    fn abstract_types_wait_for_a_value_and_enumerations_are_numbers() {
        let of = |id: DataTypeId| built_in(&id.into());
        assert_eq!(of(DataTypeId::Double), Some(DataType::Double));
        assert_eq!(of(DataTypeId::Number), Some(DataType::Variant));
        assert_eq!(of(DataTypeId::Enumeration), Some(DataType::Int32));
        assert_eq!(of(DataTypeId::ImageJPG), None);
        assert_eq!(built_in(&NodeId::new(1, 11)), None);
    }

    #[test]
    fn properties_say_what_the_numbers_mean() {
        let mut one = Learned {
            data_type: DataType::Double,
            is_array: false,
            is_writable: false,
            description: String::new(),
            unit: String::new(),
            range: None,
            states: Vec::new(),
        };
        let range = |low, high| Variant::from(ExtensionObject::from_message(::opcua::types::Range { low, high }));
        one.add("EURange", &range(1.0, 5.0));
        assert_eq!(one.range, Some(Range { low: 1.0, high: 5.0 }));
        one.add("EURange", &range(f64::NAN, 5.0));
        assert_eq!(one.range, None);
        let unit = EUInformation { display_name: LocalizedText::from("°C"), ..Default::default() };
        one.add("EngineeringUnits", &Variant::from(ExtensionObject::from_message(unit)));
        one.add("TrueState", &Variant::from(LocalizedText::from("on")));
        assert_eq!((one.unit.as_str(), &*one.states[0], &*one.states[1]), ("°C", "", "on"));
    }
}
