//! Attributes of the relay's nodes, made when they are asked for: no node is kept.
//!
//! What a NodeId says by itself (class, names) is told of every item, also while the DA server is not there; what only the server
//! knows is not.

use super::da::Da;
use super::ids::{Address, Path, clipped};
use super::places::Place;
use super::status::{self, STATUS};
use crate::relay::map::{Access, Description, FOLDER_TYPE, Key, PROPERTY_TYPE, vendor_bits};
use crate::relay::protocol::Origin;
use ::opcua::server::address_space::AccessLevel;
use ::opcua::types::{
    AttributeId, DataTypeId, DataValue, DateTime, ExpandedNodeId, LocalizedText, NodeClass, NodeId, QualifiedName,
    StatusCode, VariableTypeId, Variant, WriteMask,
};
use std::sync::Arc;

/// A node without its value.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) class: NodeClass,
    pub(super) browse_name: QualifiedName,
    pub(super) display_name: String,
    pub(super) type_definition: NodeId,
    text: String,
    variable: Option<Variable>,
}

struct Variable {
    data_type: NodeId,
    value_rank: i32,
    access: AccessLevel,
    /// -1: not known.
    min_sampling: f64,
}

const SCALAR: i32 = -1;
/// One or more dimensions.
const ARRAY: i32 = 0;
const ANY: i32 = -2;

impl Da {
    pub(super) fn folder(&self, namespace: u16) -> Node {
        let name = &self.served.launch.server;
        Node {
            id: Address::Folder.node_id(namespace),
            class: NodeClass::Object,
            browse_name: QualifiedName::new(namespace, name.to_string()),
            display_name: name.to_string(),
            type_definition: FOLDER_TYPE.into(),
            text: self.served.text.clone(),
            variable: None,
        }
    }

    pub(super) fn branch(&self, namespace: u16, path: &Path) -> Node {
        Node {
            id: path.clone().address().node_id(namespace),
            class: NodeClass::Object,
            browse_name: QualifiedName::new(namespace, clipped(path.name())),
            display_name: clipped(path.name()).to_owned(),
            type_definition: FOLDER_TYPE.into(),
            text: String::new(),
            variable: None,
        }
    }

    pub(super) fn status_node(&self, namespace: u16, index: usize) -> Option<Node> {
        let variable = STATUS.get(index)?;
        Some(Node {
            id: Address::Status(index).node_id(namespace),
            class: NodeClass::Variable,
            browse_name: QualifiedName::new(namespace, variable.name),
            display_name: variable.name.to_owned(),
            type_definition: VariableTypeId::BaseDataVariableType.into(),
            text: String::new(),
            variable: Some(Variable {
                data_type: variable.data_type.into(),
                value_rank: SCALAR,
                access: AccessLevel::CURRENT_READ,
                min_sampling: 0.0,
            }),
        })
    }

    /// `name`: its leaf's, where it is seen just now. Else that under which it was seen last, if it was.
    pub(super) fn item(&self, namespace: u16, item: &str, name: Option<&str>, description: &Description) -> Node {
        let seen = if name.is_none() { self.levels.places(item).pop() } else { None };
        let name = clipped(name.or(seen.as_ref().map(Place::name)).unwrap_or(item));
        let access = description.access.unwrap_or(Access { readable: true, writable: true });
        let mut level = AccessLevel::empty();
        level.set(AccessLevel::CURRENT_READ, access.readable);
        level.set(AccessLevel::CURRENT_WRITE, access.writable && self.served.writable.allows(item));
        let data_type = description.data_type.unwrap_or(DataTypeId::BaseDataType);
        Node {
            id: NodeId::new(namespace, item),
            class: NodeClass::Variable,
            browse_name: QualifiedName::new(namespace, name),
            display_name: name.to_owned(),
            type_definition: description.kind.type_id().into(),
            text: description.text.clone(),
            variable: Some(Variable {
                data_type: data_type.into(),
                value_rank: match (description.data_type, description.is_array) {
                    (_, true) => ARRAY,
                    (Some(_), false) => SCALAR,
                    (None, false) => ANY,
                },
                access: level,
                min_sampling: description.scan_rate.unwrap_or(-1.0),
            }),
        }
    }

    pub(super) fn property(&self, namespace: u16, item: &str, key: Key, description: &Description) -> Option<Node> {
        let property = description.properties.iter().find(|property| property.key == key)?;
        let is_array = matches!(property.value, Variant::Array(_));
        // The UA standard's names are of its own namespace.
        let names = if key.is_standard() { 0 } else { namespace };
        Some(Node {
            id: Address::Property(item.to_owned(), key).node_id(namespace),
            class: NodeClass::Variable,
            browse_name: QualifiedName::new(names, property.name.as_str()),
            display_name: property.name.clone(),
            type_definition: PROPERTY_TYPE.into(),
            text: String::new(),
            variable: Some(Variable {
                data_type: property.data_type.clone(),
                value_rank: if is_array { ARRAY } else { SCALAR },
                access: AccessLevel::CURRENT_READ,
                min_sampling: 0.0,
            }),
        })
    }

    /// The node at an address, if there is one.
    pub(super) async fn node(&self, namespace: u16, address: &Address) -> Result<Node, StatusCode> {
        match address {
            Address::Folder => Ok(self.folder(namespace)),
            Address::Branch(path) => Ok(self.branch(namespace, path)),
            Address::Status(index) => self.status_node(namespace, *index).ok_or(StatusCode::BadNodeIdUnknown),
            Address::Item(item) => {
                let description = self.one(item).await?;
                Ok(self.item(namespace, item, None, &description))
            }
            Address::Property(item, key) => {
                let description = self.one(item).await?;
                self.property(namespace, item, *key, &description).ok_or(StatusCode::BadNodeIdUnknown)
            }
        }
    }

    pub(super) async fn one(&self, item: &str) -> Result<Arc<Description>, StatusCode> {
        let mut described = self.describe(&[item], true).await;
        described.pop().unwrap_or(Err(StatusCode::BadInternalError))
    }

    /// An attribute other than the Value of an item. `user`: what a level becomes for who asks.
    pub(super) async fn attribute(
        &self,
        namespace: u16,
        address: &Address,
        attribute: AttributeId,
        user: impl Fn(AccessLevel, &NodeId) -> AccessLevel,
    ) -> DataValue {
        let node = match (address, self.node(namespace, address).await) {
            (_, Ok(node)) => node,
            // The NodeId says so much.
            (Address::Item(item), Err(status)) if !is_unknown(status) && is_of_id(attribute) => {
                self.item(namespace, item, None, &Description::default())
            }
            (_, Err(status)) => return refusal(status),
        };
        if attribute == AttributeId::Value {
            return self.own_value(address).await;
        }
        match node.attribute(attribute, user) {
            Ok(value) => DataValue { value: Some(value), status: Some(StatusCode::Good), ..refusal(StatusCode::Good) },
            Err(status) => refusal(status),
        }
    }

    /// The Value of what is not an item.
    async fn own_value(&self, address: &Address) -> DataValue {
        match address {
            Address::Status(index) => status::value(*index, &self.worker.state()),
            Address::Property(item, Key::VendorQuality) => {
                let readings = self.readings(vec![item.clone()], Origin::Cache).await;
                match readings.into_iter().next() {
                    Some(Ok(Ok(reading))) => DataValue::new_now(vendor_bits(reading.quality)),
                    Some(Ok(Err(hresult))) => refusal(crate::relay::map::status_of_failure(hresult)),
                    Some(Err(status)) => refusal(status),
                    None => refusal(StatusCode::BadInternalError),
                }
            }
            Address::Property(item, key) => match self.one(item).await {
                Ok(description) => {
                    let found = description.properties.iter().find(|property| property.key == *key);
                    found.map_or_else(
                        || refusal(StatusCode::BadNodeIdUnknown),
                        |property| DataValue::new_now(property.value.clone()),
                    )
                }
                Err(status) => refusal(status),
            },
            Address::Folder | Address::Branch(_) | Address::Item(_) => refusal(StatusCode::BadAttributeIdInvalid),
        }
    }
}

fn is_unknown(status: StatusCode) -> bool {
    matches!(status, StatusCode::BadNodeIdUnknown | StatusCode::BadNodeIdInvalid)
}

/// Attributes that a NodeId of an item tells.
fn is_of_id(attribute: AttributeId) -> bool {
    use AttributeId::{BrowseName, DisplayName, NodeClass, NodeId, WriteMask};
    matches!(attribute, NodeId | NodeClass | BrowseName | DisplayName | WriteMask)
}

/// Of a read that has no value.
pub(super) fn refusal(status: StatusCode) -> DataValue {
    DataValue { status: Some(status), server_timestamp: Some(DateTime::now()), ..DataValue::default() }
}

impl Node {
    fn attribute(
        &self,
        attribute: AttributeId,
        user: impl Fn(AccessLevel, &NodeId) -> AccessLevel,
    ) -> Result<Variant, StatusCode> {
        match attribute {
            AttributeId::NodeId => return Ok(self.id.clone().into()),
            AttributeId::NodeClass => return Ok(Variant::Int32(self.class as i32)),
            AttributeId::BrowseName => return Ok(self.browse_name.clone().into()),
            AttributeId::DisplayName => return Ok(LocalizedText::from(self.display_name.as_str()).into()),
            AttributeId::Description if !self.text.is_empty() => {
                return Ok(LocalizedText::from(self.text.as_str()).into());
            }
            AttributeId::WriteMask | AttributeId::UserWriteMask => return Ok(WriteMask::empty().bits().into()),
            _ => {}
        }
        let Some(variable) = &self.variable else {
            return match attribute {
                AttributeId::EventNotifier => Ok(Variant::Byte(0)),
                _ => Err(StatusCode::BadAttributeIdInvalid),
            };
        };
        Ok(match attribute {
            AttributeId::DataType => variable.data_type.clone().into(),
            AttributeId::ValueRank => variable.value_rank.into(),
            AttributeId::AccessLevel => Variant::Byte(variable.access.bits()),
            AttributeId::UserAccessLevel => Variant::Byte(user(variable.access, &self.id).bits()),
            AttributeId::Historizing => false.into(),
            AttributeId::MinimumSamplingInterval if variable.min_sampling >= 0.0 => variable.min_sampling.into(),
            _ => return Err(StatusCode::BadAttributeIdInvalid),
        })
    }

    pub(super) fn type_definition(&self) -> ExpandedNodeId {
        ExpandedNodeId::new(self.type_definition.clone())
    }
}
