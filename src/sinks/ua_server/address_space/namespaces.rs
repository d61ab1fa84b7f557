//! What Server/Namespaces says of our two namespaces (OPC 10000-5, 6.3.13).
//!
//! In place of the UA crate's DiagnosticsNodeManager: that one loses references when they come in parts, and says of the
//! properties that they are objects.

use super::NAMESPACE;
use super::variables::{below, property};
use ::opcua::server::address_space::{AddressSpace, ObjectBuilder};
use ::opcua::types::{
    DataTypeId, DateTime, IdType, NodeId, ObjectId, ObjectTypeId, QualifiedName, Variant, VariantScalarTypeId,
};

/// Of [`NAMESPACE`]: raised when a type in it changes.
const VERSION: &str = "1.0.0";
const PUBLISHED: (u16, u16, u16) = (2026, 11, 21);

/// Adds one object for each (index, URI); their nodes are in our own namespace, whatever they tell of.
pub(super) fn add(address_space: &mut AddressSpace, own: u16, namespaces: &[(u16, &str)]) {
    for (index, uri) in namespaces {
        let id = NodeId::new(own, format!("Namespaces/{uri}"));
        ObjectBuilder::new(&id, QualifiedName::new(*index, *uri), *uri)
            .has_type_definition(ObjectTypeId::NamespaceMetadataType)
            .component_of(ObjectId::Server_Namespaces)
            .insert(address_space);
        let has_types = *uri == NAMESPACE;
        let (year, month, day) = PUBLISHED;
        let published = if has_types { DateTime::ymd(year, month, day) } else { DateTime::null() };
        // Static nodes are the same on each server that has the namespace: our types. All else is this device's own.
        let (static_ids, pattern) = if has_types {
            (vec![Variant::Int32(IdType::String as i32)], format!("{}%", super::camera_type::NAME))
        } else {
            (Vec::new(), String::new())
        };
        let mut add = |name, data_type, value| property(address_space, &id, name, data_type, value);
        add("NamespaceUri", DataTypeId::String, Variant::from(*uri));
        add("NamespaceVersion", DataTypeId::String, Variant::from(if has_types { VERSION } else { "" }));
        add("NamespacePublicationDate", DataTypeId::DateTime, published.into());
        add("IsNamespaceSubset", DataTypeId::Boolean, false.into());
        add("StaticNodeIdTypes", DataTypeId::IdType, (VariantScalarTypeId::Int32, static_ids).into());
        add(
            "StaticNumericNodeIdRange",
            DataTypeId::NumericRange,
            (VariantScalarTypeId::String, Vec::<Variant>::new()).into(),
        );
        add("StaticStringNodeIdPattern", DataTypeId::String, Variant::from(pattern));
        debug_assert!(address_space.node_exists(&below(&id, "NamespaceUri")));
    }
}
