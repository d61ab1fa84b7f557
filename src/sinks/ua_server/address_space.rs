//! The nodes: one folder for each segment of a tag's name, one object for each camera.
//!
//! Nodes are added and never taken away, as in the hub. Whatever value they have is not here but in the hub; only the
//! properties (EURange, EnumStrings, EngineeringUnits) hold theirs.

use super::events::nodes as events;
use super::methods::{self, Method};
use super::snapshot;
use crate::hub::Hub;
use crate::hub::frames::Camera;
use crate::model::{Range, TagId, TagSpec};
use ::opcua::server::address_space::{AccessLevel, AddressSpace, ObjectBuilder, VariableBuilder};
use ::opcua::types::{
    DataTypeId, EUInformation, ExtensionObject, Identifier, LocalizedText, NodeId, ObjectId, ObjectTypeId,
    QualifiedName, VariableTypeId, Variant,
};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where the values of our variables come from.
#[derive(Clone)]
pub(super) enum Target {
    Tag(TagId),
    Image(Camera),
    Method(Method),
}

/// What has been made so far.
pub(super) struct Nodes {
    namespace: u16,
    targets: HashMap<NodeId, Target>,
    /// By tag id.
    tags: Vec<NodeId>,
    folders: HashSet<String>,
    cameras: usize,
    conditions: usize,
}

/// The name that the original sample gave to the picture.
const CAMERA_IMAGE: &str = "Camera Image";
const CAMERA_DEVICE: &str = "Camera Device";
const CAMERAS: &str = "Cameras";
const TAGS: &str = "Tags";

impl Nodes {
    pub(super) fn new(namespace: u16, address_space: &mut AddressSpace) -> Self {
        let mut nodes = Self {
            namespace,
            targets: HashMap::new(),
            tags: Vec::new(),
            folders: HashSet::new(),
            cameras: 0,
            conditions: 0,
        };
        for name in [CAMERAS, TAGS] {
            nodes.folder(address_space, name, name, ObjectId::ObjectsFolder.into());
        }
        events::add_base(address_space, namespace);
        let reload = nodes.id(&format!("{}/{}", events::DEVICE, methods::RELOAD));
        methods::add_reload(address_space, &reload, nodes.name(methods::RELOAD), &nodes.id(events::DEVICE));
        nodes.targets.insert(reload, Target::Method(Method::Reload));
        nodes
    }

    pub(super) fn target(&self, id: &NodeId) -> Option<&Target> {
        self.targets.get(id)
    }

    pub(super) fn node_id_of(&self, tag: TagId) -> Option<&NodeId> {
        self.tags.get(tag.index())
    }

    /// Makes nodes for what is new in the hub.
    pub(super) fn add_new(&mut self, hub: &Hub, address_space: &mut AddressSpace) {
        for camera in hub.cameras().into_iter().skip(self.cameras) {
            self.add_camera(address_space, camera);
        }
        for (tag, spec) in hub.tags_from(self.tags.len()) {
            let id = self.add_tag(address_space, tag, &spec);
            self.tags.push(id);
        }
        for condition in hub.conditions().iter().skip(self.conditions) {
            events::add_condition(address_space, condition, self.namespace);
            self.conditions += 1;
        }
    }

    fn id(&self, path: &str) -> NodeId {
        NodeId::new(self.namespace, path)
    }

    fn name(&self, name: &str) -> QualifiedName {
        QualifiedName::new(self.namespace, name)
    }

    fn add_camera(&mut self, address_space: &mut AddressSpace, camera: Camera) {
        let parent = self.camera_object(address_space, camera.name());
        let id = self.id(&format!("{CAMERAS}/{}/{CAMERA_IMAGE}", camera.name()));
        VariableBuilder::new(&id, self.name(CAMERA_IMAGE), CAMERA_IMAGE)
            .description(
                format!("A picture of camera {}, captured when it is read or monitored", camera.name()).as_str(),
            )
            // Clients show a picture only if the type says that it is one (OPC 10000-5, 12.2.12) and it is a scalar.
            .data_type(DataTypeId::ImageJPG)
            .value_rank(-1)
            .access_level(AccessLevel::CURRENT_READ)
            .user_access_level(AccessLevel::CURRENT_READ)
            .has_type_definition(VariableTypeId::AnalogItemType)
            .component_of(parent.clone())
            .insert(address_space);
        // Without it a percent deadband is refused (OPC 10000-8, 6.2): of the difference of two pictures, in percent.
        self.range(address_space, &id, Range { low: 0.0, high: 100.0 });
        if self.cameras == 0 {
            let sample = self.id(CAMERA_DEVICE);
            ObjectBuilder::new(&sample, self.name(CAMERA_DEVICE), CAMERA_DEVICE)
                .description("The first camera, where the original sample had it")
                .has_type_definition(ObjectTypeId::BaseObjectType)
                .organized_by(ObjectId::ObjectsFolder)
                .insert(address_space);
            let has_component = ::opcua::types::ReferenceTypeId::HasComponent;
            address_space.insert_reference(&sample, &id, has_component);
        }
        self.targets.insert(id, Target::Image(camera.clone()));
        let method = self.id(&format!("{CAMERAS}/{}/{}", camera.name(), snapshot::NAME));
        snapshot::add_node(address_space, &method, self.name(snapshot::NAME), &parent);
        self.targets.insert(method, Target::Method(Method::Snapshot(camera.clone())));
        let method = self.id(&format!("{CAMERAS}/{}/{}", camera.name(), methods::RESTART));
        methods::add_restart(address_space, &method, self.name(methods::RESTART), &parent);
        self.targets.insert(method, Target::Method(Method::Restart(camera)));
        self.cameras += 1;
    }

    /// The object of a camera, whether its tags or its picture come first.
    fn camera_object(&mut self, address_space: &mut AddressSpace, camera: &str) -> NodeId {
        let path = format!("{CAMERAS}/{camera}");
        let id = self.id(&path);
        if self.folders.insert(path) {
            ObjectBuilder::new(&id, self.name(camera), camera)
                .has_type_definition(ObjectTypeId::BaseObjectType)
                .organized_by(self.id(CAMERAS))
                .insert(address_space);
            events::add_notifier(address_space, &self.id(CAMERAS), &id);
        }
        id
    }

    fn folder(&mut self, address_space: &mut AddressSpace, path: &str, name: &str, parent: NodeId) -> NodeId {
        let id = self.id(path);
        if self.folders.insert(path.to_owned()) {
            ObjectBuilder::new(&id, self.name(name), name).is_folder().organized_by(parent).insert(address_space);
        }
        id
    }

    fn add_tag(&mut self, address_space: &mut AddressSpace, tag: TagId, spec: &TagSpec) -> NodeId {
        let segments: Vec<&str> = spec.name.segments().collect();
        let (name, folders) = segments.split_last().expect("a tag name has at least one segment");
        let (mut path, mut parent, folders) = match folders {
            ["cameras", camera, rest @ ..] => {
                (format!("{CAMERAS}/{camera}"), self.camera_object(address_space, camera), rest)
            }
            all => (TAGS.to_owned(), self.id(TAGS), all),
        };
        for folder in folders {
            path = format!("{path}/{folder}");
            parent = self.folder(address_space, &path, folder, parent);
        }
        let id = self.id(&format!("{path}/{name}"));
        let access = if spec.writable {
            AccessLevel::CURRENT_READ | AccessLevel::CURRENT_WRITE
        } else {
            AccessLevel::CURRENT_READ
        };
        let type_definition = if spec.range.is_some() {
            VariableTypeId::AnalogItemType
        } else if !spec.states.is_empty() {
            VariableTypeId::MultiStateDiscreteType
        } else {
            VariableTypeId::BaseDataVariableType
        };
        VariableBuilder::new(&id, self.name(name), *name)
            .description(spec.description.as_str())
            .data_type(NodeId::new(0, spec.data_type as u32))
            .value_rank(if spec.is_array { 1 } else { -1 })
            .access_level(access)
            .user_access_level(access)
            .has_type_definition(type_definition)
            .component_of(parent)
            .insert(address_space);
        if let Some(range) = spec.range {
            self.range(address_space, &id, range);
        }
        if !spec.states.is_empty() {
            self.states(address_space, &id, &spec.states);
        }
        if !spec.unit.is_empty() {
            self.unit(address_space, &id, &spec.unit);
        }
        self.targets.insert(id.clone(), Target::Tag(tag));
        id
    }

    fn range(&self, address_space: &mut AddressSpace, of: &NodeId, Range { low, high }: Range) {
        let value = ExtensionObject::from_message(::opcua::types::Range { low, high });
        self.property(address_space, of, "EURange", DataTypeId::Range, value.into());
    }

    /// OPC 10000-8, 5.3.3.3: the names of the states, by value.
    fn states(&self, address_space: &mut AddressSpace, of: &NodeId, states: &[Arc<str>]) {
        let states: Vec<LocalizedText> = states.iter().map(|state| LocalizedText::from(&**state)).collect();
        self.property(address_space, of, "EnumStrings", DataTypeId::LocalizedText, states.into());
    }

    fn unit(&self, address_space: &mut AddressSpace, of: &NodeId, unit: &str) {
        let value = ExtensionObject::from_message(EUInformation {
            namespace_uri: "http://www.opcfoundation.org/UA/units/un/cefact".into(),
            // No UNECE code is claimed (OPC 10000-8, 5.6.3: -1).
            unit_id: -1,
            display_name: LocalizedText::from(unit),
            description: LocalizedText::null(),
        });
        self.property(address_space, of, "EngineeringUnits", DataTypeId::EUInformation, value.into());
    }

    /// A property of the standard: its BrowseName is in namespace 0.
    fn property(
        &self,
        address_space: &mut AddressSpace,
        of: &NodeId,
        name: &str,
        data_type: DataTypeId,
        value: Variant,
    ) {
        let id = match &of.identifier {
            Identifier::String(path) => self.id(&format!("{path}/{name}")),
            _ => unreachable!("all our nodes have string ids"),
        };
        VariableBuilder::new(&id, QualifiedName::new(0, name), name)
            .data_type(data_type)
            .value_rank(if matches!(value, Variant::Array(_)) { 1 } else { -1 })
            .value(value)
            .has_type_definition(VariableTypeId::PropertyType)
            .property_of(of.clone())
            .insert(address_space);
    }
}
