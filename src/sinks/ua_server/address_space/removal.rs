//! Taking nodes out of the address space when what they stood for is not configured any more.
//!
//! Our NodeIds are paths, so what belongs to a node is what it refers to and what has its path before its own. The UA
//! crate sends nothing to those who monitor a node that goes; node_manager.rs does, with the last quality of the tag.

use ::opcua::nodes::DefaultTypeTree;
use ::opcua::server::address_space::AddressSpace;
use ::opcua::types::{BrowseDirection, Identifier, NodeId};

/// Removes a node with all that is below it, and says which they were.
pub(super) fn remove(address_space: &mut AddressSpace, id: &NodeId) -> Vec<NodeId> {
    let mut removed = vec![id.clone()];
    let mut next = 0;
    while let Some(id) = removed.get(next).cloned() {
        for child in children(address_space, &id) {
            if !removed.contains(&child) {
                removed.push(child);
            }
        }
        // With the references from both sides.
        address_space.delete(&id, true);
        next += 1;
    }
    removed
}

/// What a node refers to that has its path before its own.
pub(super) fn children(address_space: &AddressSpace, id: &NodeId) -> Vec<NodeId> {
    let Some(path) = path(id) else { return Vec::new() };
    let is_below = |child: &NodeId| {
        let rest = self::path(child).and_then(|child| child.strip_prefix(path));
        child.namespace == id.namespace && rest.is_some_and(|rest| rest.starts_with('/'))
    };
    // Only asked when references are filtered by type, which these are not.
    let types = DefaultTypeTree::new();
    let filter: Option<(NodeId, bool)> = None;
    let references = address_space.find_references(id, filter, &types, BrowseDirection::Forward);
    references.map(|reference| reference.target_node).filter(|child| is_below(child)).cloned().collect()
}

pub(super) fn path(id: &NodeId) -> Option<&str> {
    match &id.identifier {
        Identifier::String(path) => Some(path.as_ref()),
        _ => None,
    }
}
