//! CameraType: what every camera has, so that a client can be written against the type and work with all of them.
//!
//!     CameraType (subtype of BaseObjectType)
//!     ├── Camera Image     Mandatory
//!     ├── Snapshot, Restart Mandatory
//!     ├── CameraLost       Optional: the alarm, once the camera has been looked at
//!     ├── State, Reason... Mandatory: the tags that every camera registers
//!     └── Controls         Optional: only cameras that have some
//!         └── <Control>    OptionalPlaceholder: named as the driver names it

use super::variables::{self, below, modelling_rule};
use super::{CAMERA_IMAGE, CONTROLS};
use crate::model::{ConditionKind, Range, TagSpec};
use crate::sinks::ua_server::{methods, snapshot};
use ::opcua::server::address_space::{AccessLevel, AddressSpace, ObjectBuilder, ObjectTypeBuilder, VariableBuilder};
use ::opcua::types::{DataTypeId, LocalizedText, NodeId, ObjectId, ObjectTypeId, QualifiedName, VariableTypeId};

pub(super) const NAME: &str = "CameraType";

/// Makes the type with its declarations; `tags` are those of every camera, without the camera's name.
pub(super) fn add(address_space: &mut AddressSpace, namespace: u16, tags: &[TagSpec]) -> NodeId {
    let id = NodeId::new(namespace, NAME);
    ObjectTypeBuilder::new(&id, QualifiedName::new(namespace, NAME), NAME)
        .description(LocalizedText::new("en", "A camera: its picture, its state, its controls"))
        .is_abstract(false)
        .subtype_of(ObjectTypeId::BaseObjectType)
        .insert(address_space);
    for spec in tags {
        let name = spec.name.as_str();
        let tag = below(&id, name);
        variables::add(address_space, &tag, &id, name, spec);
        modelling_rule(address_space, &tag, ObjectId::ModellingRule_Mandatory);
    }
    let picture = below(&id, CAMERA_IMAGE);
    image(address_space, &picture, &id, "A picture, captured when it is read or monitored");
    modelling_rule(address_space, &picture, ObjectId::ModellingRule_Mandatory);
    let method = below(&id, snapshot::NAME);
    snapshot::add_node(address_space, &method, QualifiedName::new(namespace, snapshot::NAME), &id);
    modelling_rule(address_space, &method, ObjectId::ModellingRule_Mandatory);
    let method = below(&id, methods::RESTART);
    methods::add_restart(address_space, &method, QualifiedName::new(namespace, methods::RESTART), &id);
    modelling_rule(address_space, &method, ObjectId::ModellingRule_Mandatory);
    let lost = ConditionKind::CameraLost.name();
    let alarm = below(&id, lost);
    ObjectBuilder::new(&alarm, QualifiedName::new(namespace, lost), lost)
        .has_type_definition(ObjectTypeId::OffNormalAlarmType)
        .component_of(id.clone())
        .insert(address_space);
    modelling_rule(address_space, &alarm, ObjectId::ModellingRule_Optional);
    let controls = below(&id, CONTROLS);
    ObjectBuilder::new(&controls, QualifiedName::new(namespace, CONTROLS), CONTROLS)
        .is_folder()
        .component_of(id.clone())
        .insert(address_space);
    modelling_rule(address_space, &controls, ObjectId::ModellingRule_Optional);
    let control = below(&controls, "<Control>");
    VariableBuilder::new(&control, QualifiedName::new(namespace, "<Control>"), "<Control>")
        .data_type(DataTypeId::BaseDataType)
        .value_rank(-2)
        .access_level(AccessLevel::CURRENT_READ | AccessLevel::CURRENT_WRITE)
        .user_access_level(AccessLevel::CURRENT_READ | AccessLevel::CURRENT_WRITE)
        .has_type_definition(VariableTypeId::BaseDataVariableType)
        .component_of(controls)
        .insert(address_space);
    modelling_rule(address_space, &control, ObjectId::ModellingRule_OptionalPlaceholder);
    id
}

/// The picture of a camera, or its declaration.
pub(super) fn image(address_space: &mut AddressSpace, id: &NodeId, camera: &NodeId, description: &str) {
    VariableBuilder::new(id, QualifiedName::new(id.namespace, CAMERA_IMAGE), CAMERA_IMAGE)
        .description(LocalizedText::new("en", description))
        // Clients show a picture only if the type says that it is one (OPC 10000-5, 12.2.12) and it is a scalar.
        .data_type(DataTypeId::ImageJPG)
        .value_rank(-1)
        .access_level(AccessLevel::CURRENT_READ)
        .user_access_level(AccessLevel::CURRENT_READ)
        // How fast a camera is shows only when it streams: indeterminate (OPC 10000-3, 5.6.2).
        .minimum_sampling_interval(-1.0)
        // Not an AnalogItemType: those are numbers. A property more is allowed to any variable.
        .has_type_definition(VariableTypeId::BaseDataVariableType)
        .component_of(camera.clone())
        .insert(address_space);
    // Without it a percent deadband is refused (OPC 10000-8, 6.2): of the difference of two pictures, in percent.
    variables::eu_range(address_space, id, Range { low: 0.0, high: 100.0 });
}
