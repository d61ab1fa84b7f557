//! What the address space says of history: the access level of nodes that have some, their HA Configuration (OPC
//! 10000-11, 5.2), and what the server can compute.

use super::VALUES;
use super::aggregates::Function;
use super::processed::is_stepped;
use crate::model::TagSpec;
use ::opcua::nodes::NodeType;
use ::opcua::server::ServerHandle;
use ::opcua::server::address_space::{AccessLevel, AddressSpace, ObjectBuilder, VariableBuilder};
use ::opcua::server::node_manager::memory::CoreNodeManager;
use ::opcua::types::{
    DataTypeId, Identifier, NodeId, ObjectId, ObjectTypeId, QualifiedName, ReferenceTypeId, VariableId, VariableTypeId,
    Variant,
};

/// Marks a variable as one whose history can be read. `spec` is that of a tag; a picture has none.
pub(in crate::sinks::ua_server) fn mark(address_space: &mut AddressSpace, id: &NodeId, spec: Option<&TagSpec>) {
    if let Some(NodeType::Variable(variable)) = address_space.find_mut(id) {
        variable.set_access_level(variable.access_level() | AccessLevel::HISTORY_READ);
        variable.set_user_access_level(variable.user_access_level() | AccessLevel::HISTORY_READ);
        variable.set_historizing(true);
    }
    let Identifier::String(path) = &id.identifier else { return };
    let below = |name: &str| NodeId::new(id.namespace, format!("{path}/{name}"));
    let configuration = below("HA Configuration");
    ObjectBuilder::new(&configuration, QualifiedName::new(0, "HA Configuration"), "HA Configuration")
        .has_type_definition(ObjectTypeId::HistoricalDataConfigurationType)
        .insert(address_space);
    address_space.insert_reference(id, &configuration, ReferenceTypeId::HasHistoricalConfiguration);
    let stepped = spec.is_none_or(is_stepped);
    property(address_space, &configuration, below("HA Configuration/Stepped"), "Stepped", stepped);
    let aggregates = below("HA Configuration/AggregateConfiguration");
    ObjectBuilder::new(&aggregates, QualifiedName::new(0, "AggregateConfiguration"), "AggregateConfiguration")
        .has_type_definition(ObjectTypeId::AggregateConfigurationType)
        .component_of(configuration)
        .insert(address_space);
    let mut add = |name: &str, value: Variant| {
        let data_type = if matches!(value, Variant::Boolean(_)) { DataTypeId::Boolean } else { DataTypeId::Byte };
        let id = below(&format!("HA Configuration/AggregateConfiguration/{name}"));
        typed(address_space, &aggregates, id, name, data_type, value);
    };
    // The defaults of OPC 10000-13, 4.2.1.2, which processed.rs uses.
    add("TreatUncertainAsBad", true.into());
    add("PercentDataBad", 100u8.into());
    add("PercentDataGood", 100u8.into());
    add("UseSlopedExtrapolation", false.into());
}

fn property(address_space: &mut AddressSpace, of: &NodeId, id: NodeId, name: &str, value: bool) {
    typed(address_space, of, id, name, DataTypeId::Boolean, value.into());
}

fn typed(address_space: &mut AddressSpace, of: &NodeId, id: NodeId, name: &str, data_type: DataTypeId, value: Variant) {
    VariableBuilder::new(&id, QualifiedName::new(0, name), name)
        .data_type(data_type)
        .value_rank(-1)
        .value(value)
        .has_type_definition(VariableTypeId::PropertyType)
        .property_of(of.clone())
        .insert(address_space);
}

/// HistoryServerCapabilities (OPC 10000-11, 5.4.2), of which the crate lets nothing be set.
pub(in crate::sinks::ua_server) fn capability(id: VariableId, has_history: bool) -> Option<Variant> {
    use VariableId as V;
    Some(match id {
        V::HistoryServerCapabilities_AccessHistoryDataCapability
        | V::HistoryServerCapabilities_ServerTimestampSupported => has_history.into(),
        V::HistoryServerCapabilities_MaxReturnDataValues => (VALUES as u32).into(),
        _ => return None,
    })
}

/// Lists the aggregates where clients look for them.
pub(in crate::sinks::ua_server) fn announce(handle: &ServerHandle) {
    let Some(core) = handle.node_managers().get_of_type::<CoreNodeManager>() else { return };
    let mut address_space = core.address_space().write();
    let folders = [
        ObjectId::HistoryServerCapabilities_AggregateFunctions,
        ObjectId::Server_ServerCapabilities_AggregateFunctions,
    ];
    for folder in folders.map(NodeId::from) {
        for (_, aggregate) in Function::ALL {
            address_space.insert_reference(&folder, &NodeId::from(aggregate), ReferenceTypeId::Organizes);
        }
    }
}
