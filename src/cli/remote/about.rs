//! What a server says of its variables: which type they take, in which unit, and how an enumeration's numbers are called.
//!
//! Whatever a server does not say is left open: none of this is needed to read a value.

use crate::cli::show;
use crate::model::DataType;
use crate::opcua::client::{Connection, ServiceError};
use opcua::types::{
    self as ua, AttributeId, BrowseDescription, BrowseDirection, BrowsePath, BrowseResultMask, DataTypeId,
    EUInformation, EnumValueType, NodeId, ReadValueId, ReferenceTypeId, RelativePath, RelativePathElement, Variant,
};
use std::collections::HashMap;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct About {
    /// As the server calls it.
    pub type_name: String,
    /// That values are sent as; `None` if it is abstract (Number) or not known.
    pub built_in: Option<DataType>,
    pub rank: i32,
    pub unit: Option<String>,
    /// Of an enumeration.
    pub names: Vec<(i64, String)>,
}

#[derive(Clone, Default)]
struct Kind {
    name: String,
    built_in: Option<DataType>,
    names: Vec<(i64, String)>,
}

/// Types derived from types derived from types: more than any companion specification has.
const DEPTH: usize = 20;
const SCALAR_OR_LIST: i32 = -3;

/// In the order of the nodes.
pub(in crate::cli) async fn about(connection: &Connection, nodes: &[NodeId]) -> Result<Vec<About>, ServiceError> {
    let attributes = [AttributeId::DataType, AttributeId::ValueRank];
    let wanted: Vec<ReadValueId> =
        nodes.iter().flat_map(|node| attributes.map(|attribute| attribute_of(node, attribute))).collect();
    let found = connection.read(&wanted, Duration::ZERO).await?;
    let units = units(connection, nodes).await?;
    let mut kinds: HashMap<NodeId, Kind> = HashMap::new();
    let mut all = Vec::with_capacity(nodes.len());
    for (pair, unit) in found.chunks(2).zip(units) {
        let rank = match pair.get(1).and_then(|rank| rank.value.as_ref()) {
            Some(Variant::Int32(rank)) => *rank,
            _ => SCALAR_OR_LIST,
        };
        let kind = match pair.first().and_then(|data_type| data_type.value.as_ref()) {
            Some(Variant::NodeId(id)) => match kinds.get(id.as_ref()) {
                Some(kind) => kind.clone(),
                None => {
                    let kind = kind(connection, id).await?;
                    kinds.insert(id.as_ref().clone(), kind.clone());
                    kind
                }
            },
            _ => Kind::default(),
        };
        all.push(About { type_name: kind.name, built_in: kind.built_in, rank, unit, names: kind.names });
    }
    Ok(all)
}

fn attribute_of(node: &NodeId, attribute: AttributeId) -> ReadValueId {
    ReadValueId { node_id: node.clone(), attribute_id: attribute as u32, ..Default::default() }
}

async fn kind(connection: &Connection, data_type: &NodeId) -> Result<Kind, ServiceError> {
    let mut kind = Kind { name: name(connection, data_type).await?, ..Kind::default() };
    let mut at = data_type.clone();
    for _ in 0..DEPTH {
        if at == DataTypeId::Enumeration {
            kind.built_in = Some(DataType::Int32);
            kind.names = names(connection, data_type).await?;
            break;
        }
        if let Some(built_in) = built_in(&at) {
            kind.built_in = Some(built_in);
            break;
        }
        let up =
            BrowseDescription { browse_direction: BrowseDirection::Inverse, ..below(&at, ReferenceTypeId::HasSubtype) };
        let found = connection.browse(&[up]).await?.pop();
        match found.and_then(Result::ok).and_then(|supertypes| supertypes.into_iter().next()) {
            Some(supertype) => at = supertype.node,
            None => break,
        }
    }
    Ok(kind)
}

/// Only those whose values are of this very type: BaseDataType (24) may be anything.
fn built_in(id: &NodeId) -> Option<DataType> {
    match (&id.identifier, id.namespace) {
        (ua::Identifier::Numeric(number), 0) => DataType::from_id(*number).filter(|found| *found != DataType::Variant),
        _ => None,
    }
}

async fn name(connection: &Connection, node: &NodeId) -> Result<String, ServiceError> {
    let found = connection.read(&[attribute_of(node, AttributeId::BrowseName)], Duration::ZERO).await?;
    Ok(match found.into_iter().next().and_then(|name| name.value) {
        Some(Variant::QualifiedName(name)) => show::printable(name.name.as_ref()),
        _ => show::printable(&node.to_string()),
    })
}

fn below(node: &NodeId, reference: ReferenceTypeId) -> BrowseDescription {
    BrowseDescription {
        node_id: node.clone(),
        browse_direction: BrowseDirection::Forward,
        reference_type_id: reference.into(),
        include_subtypes: true,
        node_class_mask: 0,
        result_mask: BrowseResultMask::All as u32,
    }
}

/// EnumStrings count from zero, EnumValues say their numbers (OPC 10000-3, 8.14).
async fn names(connection: &Connection, data_type: &NodeId) -> Result<Vec<(i64, String)>, ServiceError> {
    let found = connection.browse(&[below(data_type, ReferenceTypeId::HasProperty)]).await?.pop();
    let properties = found.and_then(Result::ok).unwrap_or_default();
    let is_meant = |name: &str| ["EnumStrings", "EnumValues"].contains(&name);
    let Some(property) = properties.into_iter().find(|child| is_meant(child.name.name.as_ref())) else {
        return Ok(Vec::new());
    };
    let found = connection.read(&[attribute_of(&property.node, AttributeId::Value)], Duration::ZERO).await?;
    let Some(Variant::Array(values)) = found.into_iter().next().and_then(|value| value.value) else {
        return Ok(Vec::new());
    };
    let named = values.values.iter().enumerate().filter_map(|(index, value)| match value {
        Variant::LocalizedText(text) => Some((index as i64, text.text.to_string())),
        Variant::ExtensionObject(object) => {
            object.inner_as::<EnumValueType>().map(|value| (value.value, value.display_name.text.to_string()))
        }
        _ => None,
    });
    Ok(named.collect())
}

/// The EngineeringUnits of each, where it has one.
async fn units(connection: &Connection, nodes: &[NodeId]) -> Result<Vec<Option<String>>, ServiceError> {
    let path = |node: &NodeId| BrowsePath {
        starting_node: node.clone(),
        relative_path: RelativePath {
            elements: Some(vec![RelativePathElement {
                reference_type_id: ReferenceTypeId::HasProperty.into(),
                is_inverse: false,
                include_subtypes: true,
                target_name: ua::QualifiedName::new(0, "EngineeringUnits"),
            }]),
        },
    };
    let paths: Vec<BrowsePath> = nodes.iter().map(path).collect();
    // A server without this service has no units for us.
    let Ok(found) = connection.translate(&paths).await else { return Ok(vec![None; nodes.len()]) };
    let targets: Vec<Option<NodeId>> = found
        .into_iter()
        .map(|result| {
            let target = result.targets.into_iter().flatten().next()?;
            connection.namespaces().local(&target.target_id)
        })
        .collect();
    let wanted: Vec<ReadValueId> =
        targets.iter().flatten().map(|node| attribute_of(node, AttributeId::Value)).collect();
    let mut values = connection.read(&wanted, Duration::ZERO).await?.into_iter();
    let unit = |target: &Option<NodeId>| {
        target.as_ref()?;
        match values.next()?.value? {
            Variant::ExtensionObject(object) => {
                let unit = object.inner_as::<EUInformation>()?.display_name.text.to_string();
                (!unit.is_empty()).then(|| show::printable(&unit))
            }
            _ => None,
        }
    };
    Ok(targets.iter().map(unit).collect())
}
