//! The nodes of events: types, notifiers, the instances of conditions, and what happened last.
//!
//!     Server ── HasNotifier ──► Cameras ── HasNotifier ──► <camera> ── HasCondition ──► CameraLost
//!        └───── HasNotifier ──► Device ── HasCondition ──► UplinkDown, DiskNearlyFull, ClockNotSet
//!                                 └────── HasEventSource ──► <tag> ── HasCondition ──► Limit
//!
//! A Variable can have no object as component (OPC 10000-3, 7.7), so the Limit of a tag is a component of Device.

use super::kinds;
use super::notice::{Field, condition_fields, is_for_viewers};
use crate::hub::Hub;
use crate::model::{Condition, ConditionKind, Happening};
use crate::opcua::date_time;
use crate::sinks::ua_server::access::Access;
use ::opcua::nodes::{EventNotifier, NodeType, ObjectTypeBuilder};
use ::opcua::server::address_space::{AccessLevel, AddressSpace, ObjectBuilder, VariableBuilder};
use ::opcua::types::{
    DataTypeId, DataValue, MethodId, NodeId, ObjectId, ObjectTypeId, QualifiedName, ReferenceTypeId, VariableTypeId,
    Variant, VariantScalarTypeId, VariantTypeId,
};

pub(in crate::sinks::ua_server) const DEVICE: &str = "Device";
const CAMERAS: &str = "Cameras";
const EVENTS: &str = "Device/Events";
const TAGS: &str = "Tags";

/// The node that an event is about.
pub(super) fn source_node(source: &str, namespace: u16) -> NodeId {
    NodeId::new(namespace, source_path(source))
}

fn source_path(source: &str) -> String {
    match source.split_once('/') {
        Some(("cameras", camera)) => format!("{CAMERAS}/{camera}"),
        Some(("tags", tag)) => format!("{TAGS}/{tag}"),
        _ => DEVICE.to_owned(),
    }
}

/// The nodes on which events about this source can be monitored: the source and those above it.
pub(super) fn notifiers(source: &str, namespace: u16) -> Vec<NodeId> {
    let above: &[&str] = match source.split_once('/') {
        Some(("cameras", camera)) => &[CAMERAS, &format!("{CAMERAS}/{camera}")],
        _ => &[DEVICE],
    };
    let above = above.iter().map(|path| NodeId::new(namespace, *path));
    std::iter::once(ObjectId::Server.into()).chain(above).collect()
}

pub(in crate::sinks::ua_server) fn condition_id(condition: &Condition, namespace: u16) -> NodeId {
    NodeId::new(namespace, format!("{}/{}", source_path(&condition.source), condition.kind.name()))
}

fn field_id(condition: &Condition, path: &str, namespace: u16) -> NodeId {
    match condition_id(condition, namespace).identifier {
        ::opcua::types::Identifier::String(id) => NodeId::new(namespace, format!("{id}/{path}")),
        _ => unreachable!("all our nodes have string ids"),
    }
}

/// The event types, the object Device, and Cameras as a notifier. To be called once, when Cameras is there.
pub(in crate::sinks::ua_server) fn add_base(address_space: &mut AddressSpace, namespace: u16) {
    for kind in kinds::EVENTS {
        let (name, description) = kinds::name(kind);
        let id = NodeId::new(namespace, name);
        ObjectTypeBuilder::new(&id, QualifiedName::new(namespace, name), name)
            .description(description)
            .subtype_of(kinds::parent(kind))
            .insert(address_space);
    }
    let device = NodeId::new(namespace, DEVICE);
    ObjectBuilder::new(&device, QualifiedName::new(namespace, DEVICE), DEVICE)
        .description("This device: what happens to it, and what is off normal")
        .has_type_definition(ObjectTypeId::BaseObjectType)
        .organized_by(ObjectId::ObjectsFolder)
        .insert(address_space);
    let events = NodeId::new(namespace, EVENTS);
    VariableBuilder::new(&events, QualifiedName::new(namespace, "Events"), "Events")
        .description("What happened last, the oldest first; HistoryRead of events on Server has them with all fields")
        .data_type(DataTypeId::String)
        .value_rank(1)
        .value(Variant::from(Vec::<String>::new()))
        .access_level(AccessLevel::CURRENT_READ)
        .user_access_level(AccessLevel::CURRENT_READ)
        .has_type_definition(VariableTypeId::BaseDataVariableType)
        .component_of(device.clone())
        .insert(address_space);
    add_notifier(address_space, &ObjectId::Server.into(), &device);
    add_notifier(address_space, &ObjectId::Server.into(), &NodeId::new(namespace, CAMERAS));
}

/// In the address space of the standard: what happened on Server can be asked for later.
pub(super) fn add_history(standard: &mut AddressSpace) {
    if let Some(NodeType::Object(server)) = standard.find_mut(ObjectId::Server) {
        server.set_event_notifier(EventNotifier::SUBSCRIBE_TO_EVENTS | EventNotifier::HISTORY_READ);
    }
}

/// Makes an object one on which events can be monitored, below another (OPC 10000-3, 7.16: HasNotifier).
pub(in crate::sinks::ua_server) fn add_notifier(address_space: &mut AddressSpace, above: &NodeId, object: &NodeId) {
    if let Some(NodeType::Object(node)) = address_space.find_mut(object) {
        node.set_event_notifier(EventNotifier::SUBSCRIBE_TO_EVENTS);
    }
    address_space.insert_reference(above, object, ReferenceTypeId::HasNotifier);
}

/// What happened last, with the time of the last change. All readers see one value, so it has what every viewer may know.
pub(super) fn recent(hub: &Hub, access: &Access, namespace: u16) -> (NodeId, DataValue) {
    let mut recent = hub.recent();
    recent.retain(|happening| is_for_viewers(happening, access, namespace));
    let lines: Vec<String> = recent.iter().map(line).collect();
    let time = recent.last().map_or_else(
        || hub.now(),
        |last| match last {
            Happening::Event(event) => event.time,
            Happening::Condition(condition) => condition.time,
        },
    );
    (NodeId::new(namespace, EVENTS), DataValue::new_at(lines, date_time(time)))
}

fn line(happening: &Happening) -> String {
    match happening {
        Happening::Event(event) => {
            format!("{} {} {:?}: {}", event.time, event.kind.severity(), event.kind, event.message)
        }
        Happening::Condition(condition) => {
            let Condition { time, kind, message, source, severity, .. } = condition.as_ref();
            let state = match (condition.is_enabled, condition.is_active, condition.is_acked) {
                (false, ..) => "disabled",
                (true, true, false) => "active",
                (true, true, true) => "active, acknowledged",
                (true, false, false) => "over, not acknowledged",
                (true, false, true) => "normal",
            };
            format!("{time} {severity} {} of {source} is {state}: {message}", kind.name())
        }
    }
}

/// The variables of a condition's instance and their values.
pub(super) fn values(condition: &Condition, namespace: u16) -> Vec<(NodeId, DataValue)> {
    let time = date_time(condition.time);
    let value = |(path, value): Field| (field_id(condition, path, namespace), DataValue::new_at(value, time));
    condition_fields(condition, namespace).into_iter().map(value).collect()
}

/// The methods of a condition, by the ids that the standard gives them on the types (OPC 10000-9, 5.5.3 to 5.5.7, 5.7.3).
pub(super) const METHODS: [MethodId; 6] = [
    MethodId::AcknowledgeableConditionType_Acknowledge,
    MethodId::ConditionType_AddComment,
    MethodId::ConditionType_Enable,
    MethodId::ConditionType_Disable,
    MethodId::ConditionType_ConditionRefresh,
    MethodId::ConditionType_ConditionRefresh2,
];

/// The instance of a condition below its source, with all its variables.
pub(in crate::sinks::ua_server) fn add_condition(
    address_space: &mut AddressSpace,
    condition: &Condition,
    namespace: u16,
) {
    let (id, source) = (condition_id(condition, namespace), source_node(&condition.source, namespace));
    let kind = condition.kind.name();
    let device = NodeId::new(namespace, DEVICE);
    let (name, above) = match condition.source.strip_prefix("tags/") {
        Some(tag) => (format!("{tag} {kind}"), device.clone()),
        None => (kind.to_owned(), source.clone()),
    };
    ObjectBuilder::new(&id, QualifiedName::new(namespace, name.as_str()), name.as_str())
        .has_type_definition(kinds::condition_type(condition.kind))
        .component_of(above)
        .insert(address_space);
    if condition.kind == ConditionKind::Limit {
        address_space.insert_reference(&device, &source, ReferenceTypeId::HasEventSource);
        let state = field_id(condition, "LimitState", namespace);
        ObjectBuilder::new(&state, QualifiedName::new(0, "LimitState"), "LimitState")
            .has_type_definition(ObjectTypeId::ExclusiveLimitStateMachineType)
            .component_of(id.clone())
            .insert(address_space);
    }
    address_space.insert_reference(&source, &id, ReferenceTypeId::HasCondition);
    // An instance shares the methods of its type, which are nodes of the crate's; a refresh is called on the type.
    for method in &METHODS[..4] {
        address_space.insert_reference(&id, &(*method).into(), ReferenceTypeId::HasComponent);
    }
    for (path, value) in condition_fields(condition, namespace) {
        add_field(address_space, condition, path, value, namespace);
    }
}

fn add_field(
    address_space: &mut AddressSpace,
    condition: &Condition,
    path: &'static str,
    value: Variant,
    namespace: u16,
) {
    let (above, name) = match path.rsplit_once('/') {
        Some((above, name)) => (field_id(condition, above, namespace), name),
        None => (condition_id(condition, namespace), path),
    };
    let id = field_id(condition, path, namespace);
    let type_definition = match path {
        "EnabledState" | "AckedState" | "ActiveState" => VariableTypeId::TwoStateVariableType,
        "LimitState/CurrentState" => VariableTypeId::FiniteStateVariableType,
        "Quality" | "LastSeverity" | "Comment" => VariableTypeId::ConditionVariableType,
        _ => VariableTypeId::PropertyType,
    };
    let data_type = match value.type_id() {
        VariantTypeId::Scalar(VariantScalarTypeId::DateTime) => DataTypeId::UtcTime.into(),
        // The numbers of the built-in types are those of their DataTypes (OPC 10000-6, 5.1.2).
        VariantTypeId::Scalar(scalar) => NodeId::new(0, scalar as u32),
        _ => DataTypeId::BaseDataType.into(),
    };
    let is_property = type_definition == VariableTypeId::PropertyType;
    let variable = VariableBuilder::new(&id, QualifiedName::new(0, name), name)
        .data_type(data_type)
        .value_rank(-1)
        .value(value)
        .access_level(AccessLevel::CURRENT_READ)
        .user_access_level(AccessLevel::CURRENT_READ)
        .has_type_definition(type_definition);
    let variable = if is_property { variable.property_of(above) } else { variable.component_of(above) };
    variable.insert(address_space);
}
