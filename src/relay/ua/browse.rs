//! References of the relay's nodes: Browse, BrowseNext and TranslateBrowsePathsToNodeIds.
//!
//!     Objects ──Organizes──► folder of a DA server ──HasComponent──► status variables
//!                              └──Organizes──► branches and items ──Organizes──► ...
//!                                                        items ──HasProperty──► properties
//!
//! What lies below a branch comes page by page from `levels.rs`, as fast as the DA server says it; a page that takes too long is
//! sent with what there is, and the client comes back for more. What a level's items are (their type definitions) costs the DA
//! server a call or two for each, so that is asked only if the client wants to know, some at a time, and a page ends where it is
//! not known yet. Only if a server takes longer than a page for the first of them are those said to be DataItems.
//!
//! An item does not know its branch, but `places.rs` knows where it was seen.

use super::attributes::Node;
use super::da::Da;
use super::ids::{Address, Path, clipped};
use super::levels::Level;
use super::status::STATUS;
use crate::relay::map::{Description, Kind};
use crate::relay::protocol::{DESCRIBED_PER_CALL, Entry};
use ::opcua::nodes::TypeTree;
use ::opcua::server::node_manager::{AddReferenceResult, BrowseNode};
use ::opcua::types::{
    BrowseDescriptionResultMask, ExpandedNodeId, LocalizedText, NodeClass, NodeId, ObjectId, ObjectTypeId,
    ReferenceDescription, ReferenceTypeId, RelativePathElement, StatusCode,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client waits for a page; most give up after four seconds.
const PAGE: Duration = Duration::from_millis(2500);
/// How long a browse path waits for a level.
const LEVEL: Duration = Duration::from_secs(10);

/// What is left of a Browse for BrowseNext.
#[derive(Default)]
pub(super) struct Rest {
    ready: VecDeque<ReferenceDescription>,
    level: Option<(Arc<Level>, usize)>,
}

impl Rest {
    pub(super) fn of(ready: VecDeque<ReferenceDescription>) -> Self {
        Self { ready, level: None }
    }

    pub(super) fn ready(&mut self) -> &mut VecDeque<ReferenceDescription> {
        &mut self.ready
    }
}

fn reference(kind: ReferenceTypeId, is_forward: bool, node: &Node) -> ReferenceDescription {
    ReferenceDescription {
        reference_type_id: kind.into(),
        is_forward,
        node_id: ExpandedNodeId::new(node.id.clone()),
        browse_name: node.browse_name.clone(),
        display_name: LocalizedText::from(node.display_name.as_str()),
        node_class: node.class,
        type_definition: node.type_definition(),
    }
}

/// The folder of each DA server, below Objects.
pub(super) fn below_objects(das: &[(u16, Arc<Da>)]) -> VecDeque<ReferenceDescription> {
    das.iter().map(|(namespace, da)| reference(ReferenceTypeId::Organizes, true, &da.folder(*namespace))).collect()
}

/// From a node to the type that it is of.
fn type_reference(node: &Node) -> ReferenceDescription {
    let is_object = node.class == NodeClass::Object;
    let name = match &node.type_definition {
        id if *id == ObjectTypeId::FolderType => "FolderType",
        id => [Kind::Analog, Kind::TwoState, Kind::MultiState, Kind::DataItem]
            .iter()
            .find(|kind| *id == kind.type_id())
            .map_or("BaseDataVariableType", |kind| match kind {
                Kind::Analog => "AnalogItemType",
                Kind::TwoState => "TwoStateDiscreteType",
                Kind::MultiState => "MultiStateDiscreteType",
                Kind::DataItem => "DataItemType",
            }),
    };
    let name = if node.type_definition == crate::relay::map::PROPERTY_TYPE { "PropertyType" } else { name };
    ReferenceDescription {
        reference_type_id: ReferenceTypeId::HasTypeDefinition.into(),
        is_forward: true,
        node_id: node.type_definition(),
        browse_name: name.into(),
        display_name: name.into(),
        node_class: if is_object { NodeClass::ObjectType } else { NodeClass::VariableType },
        type_definition: ExpandedNodeId::null(),
    }
}

impl Da {
    /// All references of a node but those to what lies below it in the DA server.
    async fn own_references(
        &self,
        namespace: u16,
        address: &Address,
    ) -> Result<VecDeque<ReferenceDescription>, StatusCode> {
        let mut found = VecDeque::from([type_reference(&self.node(namespace, address).await?)]);
        match address {
            Address::Folder => {
                let objects = ReferenceDescription {
                    reference_type_id: ReferenceTypeId::Organizes.into(),
                    is_forward: false,
                    node_id: ExpandedNodeId::new(NodeId::from(ObjectId::ObjectsFolder)),
                    browse_name: "Objects".into(),
                    display_name: "Objects".into(),
                    node_class: NodeClass::Object,
                    type_definition: ExpandedNodeId::new(NodeId::from(ObjectTypeId::FolderType)),
                };
                found.push_back(objects);
                let status = (0..STATUS.len()).filter_map(|index| self.status_node(namespace, index));
                found.extend(status.map(|node| reference(ReferenceTypeId::HasComponent, true, &node)));
            }
            Address::Status(_) => {
                found.push_back(reference(ReferenceTypeId::HasComponent, false, &self.folder(namespace)));
            }
            Address::Branch(path) => {
                let above = path.parent().unwrap_or_default();
                let above = self.node(namespace, &above.address()).await?;
                found.push_back(reference(ReferenceTypeId::Organizes, false, &above));
            }
            Address::Item(item) => {
                for place in self.levels.places(item) {
                    let above = self.node(namespace, &(*place.above).clone().address()).await?;
                    found.push_back(reference(ReferenceTypeId::Organizes, false, &above));
                }
                let description = self.one(item).await?;
                let keys = description.properties.iter().map(|property| property.key);
                let nodes = keys.filter_map(|key| self.property(namespace, item, key, &description));
                found.extend(nodes.map(|node| reference(ReferenceTypeId::HasProperty, true, &node)));
            }
            Address::Property(item, _) => {
                let description = self.one(item).await?;
                let item = self.item(namespace, item, None, &description);
                found.push_back(reference(ReferenceTypeId::HasProperty, false, &item));
            }
        }
        Ok(found)
    }

    fn path(address: &Address) -> Option<Path> {
        match address {
            Address::Folder => Some(Path::default()),
            Address::Branch(path) => Some(path.clone()),
            _ => None,
        }
    }

    /// One Browse, or what is left of it.
    pub(super) async fn browse(
        &self,
        namespace: u16,
        address: &Address,
        types: &(dyn TypeTree + Sync),
        node: &mut BrowseNode,
    ) {
        let rest = match node.take_continuation_point::<Rest>() {
            Some(rest) => Ok(*rest),
            None => self.begin(namespace, address, types, node).await,
        };
        let outcome = match rest {
            Ok(rest) => self.go_on(namespace, address, rest, types, node).await,
            Err(status) => Err(status),
        };
        node.set_status(match outcome {
            Ok(()) => StatusCode::Good,
            // Of the folder there is at least what the relay itself knows.
            Err(_) if *address == Address::Folder && node.result_len() > 0 => StatusCode::GoodResultsMayBeIncomplete,
            Err(status) => status,
        });
    }

    async fn begin(
        &self,
        namespace: u16,
        address: &Address,
        types: &(dyn TypeTree + Sync),
        node: &BrowseNode,
    ) -> Result<Rest, StatusCode> {
        let mut ready = self.own_references(namespace, address).await?;
        ready.retain(|reference| if reference.is_forward { node.allows_forward() } else { node.allows_inverse() });
        let wants_level = node.allows_forward()
            && node.allows_reference_type(&ReferenceTypeId::Organizes.into(), types)
            && (node.allows_node_class(NodeClass::Object) || node.allows_node_class(NodeClass::Variable));
        let path = Self::path(address).filter(|_| wants_level);
        let level = path.map(|path| match self.absent() {
            Some(status) => Err((status, path)),
            None => Ok((self.levels.below(&path, &self.worker), 0)),
        });
        match level {
            Some(Err((status, path))) if path != Path::default() => Err(status),
            // The folder shows what it has; the level fails when it comes to it.
            Some(Err((_, path))) => Ok(Rest { ready, level: Some((self.levels.below(&path, &self.worker), 0)) }),
            Some(Ok(level)) => Ok(Rest { ready, level: Some(level) }),
            None => Ok(Rest { ready, level: None }),
        }
    }

    async fn go_on(
        &self,
        namespace: u16,
        address: &Address,
        mut rest: Rest,
        types: &(dyn TypeTree + Sync),
        node: &mut BrowseNode,
    ) -> Result<(), StatusCode> {
        let until = Instant::now() + PAGE;
        let above = Self::path(address).unwrap_or_default();
        let wants_types = node.result_mask().contains(BrowseDescriptionResultMask::RESULT_MASK_TYPE_DEFINITION);
        let mut outcome = Ok(());
        loop {
            add_all(&mut rest.ready, types, node);
            let Some((level, at)) = &mut rest.level else { break };
            if node.remaining() == 0 || Instant::now() >= until {
                break;
            }
            let patience = until.duration_since(Instant::now());
            let count = if wants_types { node.remaining().min(DESCRIBED_PER_CALL) } else { node.remaining() };
            match level.page(*at, count, patience).await {
                Ok((entries, has_more)) => {
                    let is_known = !wants_types || self.are_described(&entries, until).await;
                    if !is_known && node.result_len() > 0 {
                        break;
                    }
                    *at += entries.len();
                    self.show(namespace, &above, &entries, &mut rest.ready);
                    if !has_more {
                        rest.level = None;
                    }
                }
                Err(status) => {
                    (outcome, rest.level) = (Err(status), None);
                }
            }
        }
        if !rest.ready.is_empty() || rest.level.is_some() {
            node.set_next_continuation_point(Box::new(rest));
        }
        outcome
    }

    /// Whether the DA server has said in time what these are. What came of it is kept.
    async fn are_described(&self, entries: &[Arc<Entry>], until: Instant) -> bool {
        let items: Vec<&str> =
            entries.iter().filter(|entry| entry.is_item).filter_map(|entry| entry.item_id.as_deref()).collect();
        items.is_empty() || tokio::time::timeout_at(until, self.describe(&items, false)).await.is_ok()
    }

    /// Entries as references. One name can be a branch and an item.
    fn show(&self, namespace: u16, above: &Path, entries: &[Arc<Entry>], into: &mut VecDeque<ReferenceDescription>) {
        for entry in entries {
            if entry.is_branch {
                let branch = self.branch(namespace, &above.child(entry));
                into.push_back(reference(ReferenceTypeId::Organizes, true, &branch));
            }
            if let Some(item) = entry.item_id.as_deref().filter(|_| entry.is_item) {
                let known = self.known(item, false).and_then(Result::ok).unwrap_or_default();
                let item = self.item(namespace, item, Some(&entry.name), &known);
                into.push_back(reference(ReferenceTypeId::Organizes, true, &item));
            }
        }
    }

    /// Nodes that one element of a browse path leads to.
    pub(super) async fn follow(
        &self,
        namespace: u16,
        address: &Address,
        element: &RelativePathElement,
        types: &(dyn TypeTree + Sync),
    ) -> Result<Vec<NodeId>, StatusCode> {
        let wanted = &element.reference_type_id;
        let fits = |reference: &ReferenceDescription| {
            let kind = &reference.reference_type_id;
            reference.is_forward != element.is_inverse
                && reference.browse_name == element.target_name
                && (wanted.is_null() || kind == wanted || element.include_subtypes && types.is_subtype_of(kind, wanted))
        };
        let ids = |all: VecDeque<ReferenceDescription>| -> Vec<NodeId> {
            all.into_iter().filter(|reference| fits(reference)).map(|reference| reference.node_id.node_id).collect()
        };
        let mut found = ids(self.own_references(namespace, address).await?);
        if let Some(path) = Self::path(address).filter(|_| !element.is_inverse) {
            let name = element.target_name.name.as_ref();
            match self.levels.below(&path, &self.worker).named(|entry| clipped(&entry.name) == name, LEVEL).await {
                Ok(named) => {
                    let mut below = VecDeque::new();
                    self.show(namespace, &path, &named, &mut below);
                    found.extend(ids(below));
                }
                // What the relay itself knows is there all the same.
                Err(status) if found.is_empty() => return Err(status),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// What an item is, if nothing has to be asked for that.
    pub(super) fn guess(&self, item: &str) -> Arc<Description> {
        self.known(item, false).and_then(Result::ok).unwrap_or_default()
    }
}

/// Adds what fits; the rest stays.
pub(super) fn add_all(ready: &mut VecDeque<ReferenceDescription>, types: &dyn TypeTree, node: &mut BrowseNode) {
    while node.remaining() > 0 {
        let Some(next) = ready.pop_front() else { break };
        if let AddReferenceResult::Full(next) = node.add(types, next) {
            ready.push_front(next);
            break;
        }
    }
}
