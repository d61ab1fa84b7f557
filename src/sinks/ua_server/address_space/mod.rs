//! The nodes: one folder for each segment of a tag's name, one object for each camera.
//!
//! Nodes come and go with the hub's tags and cameras; one whose tag became another is made anew, under the same NodeId.
//! Whatever value they have is not here but in the hub; only the properties (EURange, EnumStrings, EngineeringUnits) hold
//! theirs.
//!
//! - `variables.rs` makes the variable of a tag, with its type and properties.
//! - `camera_type.rs` makes the type that all cameras are instances of.
//! - `namespaces.rs` tells of the namespaces.
//! - `removal.rs` takes nodes away.

mod camera_type;
mod namespaces;
mod removal;
mod variables;

use super::events::nodes as events;
use super::methods::{self, Method};
use super::{history, snapshot};
use crate::hub::Hub;
use crate::hub::frames::Camera;
use crate::model::{Condition, Limits, TagId, TagSpec};
use crate::store::History;
use ::opcua::server::address_space::{AddressSpace, ObjectBuilder};
use ::opcua::types::{LocalizedText, NodeId, ObjectId, ObjectTypeId, QualifiedName, ReferenceTypeId};
use removal::{children, path, remove};
use std::collections::{HashMap, HashSet};

/// All our nodes are in this namespace; its index is 2, after OPC UA's own and the application's.
pub(super) const NAMESPACE: &str = "urn:vedette:nodes";

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
    /// Also of tags that are gone, so that those who monitor them are told.
    tags: HashMap<TagId, NodeId>,
    /// What the hub said last ([`Hub::tags_since`]).
    known: u64,
    folders: HashSet<String>,
    /// By name.
    cameras: HashSet<String>,
    /// The picture that is also below `Camera Device`.
    first: Option<NodeId>,
    /// With the limits that they have, which are nodes.
    conditions: HashMap<NodeId, Option<Limits>>,
    camera_type: NodeId,
    /// Whose history there is.
    history: Option<History>,
}

/// The name that the original sample gave to the picture.
pub(super) const CAMERA_IMAGE: &str = "Camera Image";
const CAMERA_DEVICE: &str = "Camera Device";
const CAMERAS: &str = "Cameras";
const CONTROLS: &str = "Controls";
const TAGS: &str = "Tags";

impl Nodes {
    /// `namespaces` are (index, URI), ours last; `camera_tags` what every camera has below its name.
    pub(super) fn new(
        namespaces: &[(u16, &str)],
        camera_tags: &[TagSpec],
        history: Option<History>,
        address_space: &mut AddressSpace,
    ) -> Self {
        let namespace = namespaces.last().map_or(0, |(index, _)| *index);
        namespaces::add(address_space, namespace, namespaces);
        let camera_type = camera_type::add(address_space, namespace, camera_tags);
        let mut nodes = Self {
            namespace,
            targets: HashMap::new(),
            tags: HashMap::new(),
            known: 0,
            folders: HashSet::new(),
            cameras: HashSet::new(),
            first: None,
            conditions: HashMap::new(),
            camera_type,
            history,
        };
        for name in [CAMERAS, TAGS] {
            nodes.folder(address_space, name, name, ObjectId::ObjectsFolder.into(), ReferenceTypeId::Organizes);
        }
        events::add_base(address_space, namespace);
        let reload = nodes.id(&format!("{}/{}", events::DEVICE, methods::RELOAD));
        methods::add_reload(address_space, &reload, nodes.name(methods::RELOAD), &nodes.id(events::DEVICE));
        nodes.targets.insert(reload, Target::Method(Method::Reload));
        nodes
    }

    pub(super) fn namespace(&self) -> u16 {
        self.namespace
    }

    pub(super) fn target(&self, id: &NodeId) -> Option<&Target> {
        self.targets.get(id)
    }

    pub(super) fn node_id_of(&self, tag: TagId) -> Option<&NodeId> {
        self.tags.get(&tag)
    }

    /// Follows the hub: nodes for what is new, other nodes for what is now another, none for what is gone.
    pub(super) fn update(&mut self, hub: &Hub, address_space: &mut AddressSpace) {
        let (known, tags) = hub.tags_since(self.known);
        let cameras = hub.cameras();
        self.known = known;
        for (tag, _) in &tags {
            if let Some(id) = self.tags.get(tag).cloned() {
                self.remove(address_space, &id);
            }
        }
        let is_gone = |name: &&String| cameras.iter().all(|camera| camera.name() != *name);
        let gone: Vec<String> = self.cameras.iter().filter(is_gone).cloned().collect();
        for name in gone {
            self.remove_camera(address_space, &name);
        }
        for camera in &cameras {
            if self.cameras.insert(camera.name().to_owned()) {
                self.add_camera(address_space, camera.clone());
            }
        }
        for (tag, spec) in tags {
            if let Some(spec) = spec {
                let id = self.add_tag(address_space, tag, &spec);
                if self.history.as_ref().is_some_and(|history| history.tags.contains(spec.name.as_str())) {
                    history::nodes::mark(address_space, &id, Some(&spec));
                }
                self.tags.insert(tag, id);
            }
        }
        self.set_first(address_space, cameras.first());
        self.update_conditions(hub, address_space);
    }

    fn update_conditions(&mut self, hub: &Hub, address_space: &mut AddressSpace) {
        let conditions = hub.conditions();
        let limits = |condition: &Condition| condition.limit.map(|limit| limit.limits);
        let wanted: HashMap<NodeId, Option<Limits>> =
            conditions.iter().map(|one| (events::condition_id(one, self.namespace), limits(one))).collect();
        let others = self.conditions.iter().filter(|(id, limits)| wanted.get(*id) != Some(*limits));
        let others: Vec<NodeId> = others.map(|(id, _)| id.clone()).collect();
        for id in others {
            self.conditions.remove(&id);
            self.remove(address_space, &id);
        }
        for condition in conditions {
            let id = events::condition_id(&condition, self.namespace);
            if self.conditions.insert(id, limits(&condition)).is_none() {
                events::add_condition(address_space, &condition, self.namespace);
            }
        }
    }

    /// With the folders that have nothing in them any more.
    fn remove(&mut self, address_space: &mut AddressSpace, id: &NodeId) {
        for id in remove(address_space, id) {
            self.targets.remove(&id);
            // Of a tag that becomes another: it is made anew with it.
            self.conditions.remove(&id);
            if let Some(path) = path(&id) {
                self.folders.remove(path);
            }
        }
        let above = path(id).and_then(|path| path.rsplit_once('/')).map(|(above, _)| above.to_owned());
        // The folders right below Objects have no `/` and stay.
        if let Some(above) = above.filter(|above| above.contains('/') && self.folders.contains(above)) {
            let above = self.id(&above);
            if children(address_space, &above).is_empty() {
                self.remove(address_space, &above);
            }
        }
    }

    fn remove_camera(&mut self, address_space: &mut AddressSpace, name: &str) {
        self.cameras.remove(name);
        for own in [CAMERA_IMAGE, snapshot::NAME, methods::RESTART] {
            self.remove(address_space, &self.id(&format!("{CAMERAS}/{name}/{own}")));
        }
    }

    /// The first camera is also where the original sample had it.
    fn set_first(&mut self, address_space: &mut AddressSpace, camera: Option<&Camera>) {
        let first = camera.map(|camera| self.id(&format!("{CAMERAS}/{}/{CAMERA_IMAGE}", camera.name())));
        if first == self.first {
            return;
        }
        let sample = self.id(CAMERA_DEVICE);
        address_space.delete(&sample, true);
        if let Some(image) = &first {
            ObjectBuilder::new(&sample, self.name(CAMERA_DEVICE), CAMERA_DEVICE)
                .description(LocalizedText::new("en", "The first camera, where the original sample had it"))
                .has_type_definition(ObjectTypeId::BaseObjectType)
                .organized_by(ObjectId::ObjectsFolder)
                .insert(address_space);
            address_space.insert_reference(&sample, image, ReferenceTypeId::HasComponent);
        }
        self.first = first;
    }

    pub(super) fn id(&self, path: &str) -> NodeId {
        NodeId::new(self.namespace, path)
    }

    fn name(&self, name: &str) -> QualifiedName {
        QualifiedName::new(self.namespace, name)
    }

    fn add_camera(&mut self, address_space: &mut AddressSpace, camera: Camera) {
        let parent = self.camera_object(address_space, camera.name());
        let id = self.id(&format!("{CAMERAS}/{}/{CAMERA_IMAGE}", camera.name()));
        let description = format!("A picture of camera {}, captured when it is read or monitored", camera.name());
        camera_type::image(address_space, &id, &parent, &description);
        if self.history.as_ref().is_some_and(|history| history.cameras.contains(camera.name())) {
            history::nodes::mark(address_space, &id, None);
        }
        self.targets.insert(id, Target::Image(camera.clone()));
        let method = self.id(&format!("{CAMERAS}/{}/{}", camera.name(), snapshot::NAME));
        snapshot::add_node(address_space, &method, self.name(snapshot::NAME), &parent);
        self.targets.insert(method, Target::Method(Method::Snapshot(camera.clone())));
        let method = self.id(&format!("{CAMERAS}/{}/{}", camera.name(), methods::RESTART));
        methods::add_restart(address_space, &method, self.name(methods::RESTART), &parent);
        self.targets.insert(method, Target::Method(Method::Restart(camera)));
    }

    /// The object of a camera, whether its tags or its picture come first.
    fn camera_object(&mut self, address_space: &mut AddressSpace, camera: &str) -> NodeId {
        let path = format!("{CAMERAS}/{camera}");
        let id = self.id(&path);
        if self.folders.insert(path) {
            ObjectBuilder::new(&id, self.name(camera), camera)
                .has_type_definition(self.camera_type.clone())
                .organized_by(self.id(CAMERAS))
                .insert(address_space);
            events::add_notifier(address_space, &self.id(CAMERAS), &id);
        }
        id
    }

    fn folder(
        &mut self,
        address_space: &mut AddressSpace,
        path: &str,
        name: &str,
        parent: NodeId,
        reference: ReferenceTypeId,
    ) -> NodeId {
        let id = self.id(path);
        if self.folders.insert(path.to_owned()) {
            ObjectBuilder::new(&id, self.name(name), name).is_folder().insert(address_space);
            address_space.insert_reference(&parent, &id, reference);
        }
        id
    }

    fn add_tag(&mut self, address_space: &mut AddressSpace, tag: TagId, spec: &TagSpec) -> NodeId {
        let segments: Vec<&str> = spec.name.segments().collect();
        let (name, folders) = segments.split_last().expect("a tag name has at least one segment");
        // A folder below a camera is one of its components, as its type declares Controls.
        let (mut path, mut parent, folders, reference) = match folders {
            ["cameras", camera, rest @ ..] => {
                let object = self.camera_object(address_space, camera);
                (format!("{CAMERAS}/{camera}"), object, rest, ReferenceTypeId::HasComponent)
            }
            all => (TAGS.to_owned(), self.id(TAGS), all, ReferenceTypeId::Organizes),
        };
        for folder in folders {
            path = format!("{path}/{folder}");
            parent = self.folder(address_space, &path, folder, parent, reference);
        }
        let id = self.id(&format!("{path}/{name}"));
        variables::add(address_space, &id, &parent, name, spec);
        self.targets.insert(id.clone(), Target::Tag(tag));
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::model::{ConditionKind, DataType, TagName};
    use ::opcua::server::address_space::NodeType;

    fn data_type(address_space: &AddressSpace, id: &NodeId) -> Option<NodeId> {
        match address_space.find_node(id)? {
            NodeType::Variable(variable) => Some(variable.data_type()),
            _ => None,
        }
    }

    #[test]
    fn a_limit_stays_when_its_tag_becomes_another() {
        let hub = Hub::new(Clock::real());
        let mut address_space = AddressSpace::new();
        address_space.add_namespace(NAMESPACE, 2);
        let mut nodes = Nodes::new(&[(2, NAMESPACE)], &[], None, &mut address_space);
        let mut register = |data_type| {
            let tags = hub.register("one", vec![TagSpec::new(TagName::new("a").unwrap(), data_type)]).unwrap();
            hub.declare_limit("tags/a", Limits { high: Some(1.0), ..Limits::default() }, 500);
            nodes.update(&hub, &mut address_space);
            let id = nodes.id("Tags/a/Limit");
            assert!(address_space.node_exists(&id) && address_space.node_exists(&nodes.id("Tags/a/Limit/HighLimit")));
            drop(tags);
        };
        register(DataType::Double);
        register(DataType::Int16);
        hub.declare_limit("tags/a", Limits { low: Some(0.0), ..Limits::default() }, 500);
        nodes.update(&hub, &mut address_space);
        assert!(address_space.node_exists(&nodes.id("Tags/a/Limit/LowLimit")));
        assert!(!address_space.node_exists(&nodes.id("Tags/a/Limit/HighLimit")));
        hub.withdraw_condition(ConditionKind::Limit, "tags/a");
        nodes.update(&hub, &mut address_space);
        assert!(!address_space.node_exists(&nodes.id("Tags/a/Limit/LowLimit")));
        assert!(address_space.node_exists(&nodes.id("Tags/a")));
    }

    #[test]
    fn nodes_follow_their_tags() {
        let hub = Hub::new(Clock::real());
        let mut address_space = AddressSpace::new();
        address_space.add_namespace(NAMESPACE, 2);
        let mut nodes = Nodes::new(&[(2, NAMESPACE)], &[], None, &mut address_space);
        let spec = |name: &str, data_type| TagSpec::new(TagName::new(name).unwrap(), data_type);
        let number = hub.register("one", vec![spec("a/b/x", DataType::Double).range(0.0, 1.0)]).unwrap();
        let other = hub.register("other", vec![spec("a/y", DataType::Double)]).unwrap();
        nodes.update(&hub, &mut address_space);
        let id = nodes.id("Tags/a/b/x");
        let range = variables::below(&id, "EURange");
        assert_eq!(data_type(&address_space, &id), Some(NodeId::new(0, DataType::Double as u32)));
        assert!(address_space.node_exists(&range));

        let tag = number.tags()[0];
        drop(number);
        let text = hub.register("two", vec![spec("a/b/x", DataType::String)]).unwrap();
        nodes.update(&hub, &mut address_space);
        assert_eq!(text.tags(), [tag]);
        assert_eq!(data_type(&address_space, &id), Some(NodeId::new(0, DataType::String as u32)));
        assert!(!address_space.node_exists(&range), "it was of the number");

        drop(text);
        hub.retire();
        nodes.update(&hub, &mut address_space);
        assert!(!address_space.node_exists(&id) && nodes.target(&id).is_none());
        assert!(!address_space.node_exists(&nodes.id("Tags/a/b")), "it is empty");
        assert!(address_space.node_exists(&nodes.id("Tags/a")), "another tag is there");
        assert_eq!(nodes.node_id_of(tag), Some(&id), "so that who monitors it is told");

        drop(other);
        hub.retire();
        nodes.update(&hub, &mut address_space);
        assert!(!address_space.node_exists(&nodes.id("Tags/a")) && address_space.node_exists(&nodes.id("Tags")));
    }
}
