//! Nodes that nobody has: what the UA crate forgets to say of them.
//!
//! - Browse and TranslateBrowsePathsToNodeIds of a node that does not exist would be Good and empty; of a wrong reference
//!   type or direction, too (OPC 10000-4, 5.9.2.4).
//! - RegisterNodes would leave out NodeIds of foreign namespaces, so that the answer had fewer elements than the request.

use ::opcua::nodes::{DefaultTypeTree, TypeTree};
use ::opcua::server::CreateMonitoredItem;
use ::opcua::server::diagnostics::NamespaceMetadata;
use ::opcua::server::node_manager::memory::CoreNodeManager;
use ::opcua::server::node_manager::{
    BrowseNode, BrowsePathItem, MethodCall, NodeManager, ReadNode, RequestContext, ServerContext, WriteNode,
};
use ::opcua::types::{BrowseDirection, NodeClass, NodeId, StatusCode, TimestampsToReturn};
use async_trait::async_trait;

/// Stands last among the node managers.
pub struct UnknownNodes {
    context: ServerContext,
    shows: Shows,
}

/// Whether the server has this node, outside of namespace 0, and whoever asks may browse it.
pub type Shows = fn(&ServerContext, &RequestContext, &NodeId) -> bool;

impl UnknownNodes {
    pub fn new(context: ServerContext, shows: Shows) -> Self {
        Self { context, shows }
    }

    /// What the caller may not browse does not exist for them.
    fn exists(&self, context: &RequestContext, id: &NodeId) -> bool {
        let core = self.context.node_managers.get_of_type::<CoreNodeManager>();
        core.is_some_and(|manager| manager.address_space().read().node_exists(id))
            || (self.shows)(&self.context, context, id)
    }
}

#[async_trait]
impl NodeManager for UnknownNodes {
    /// The namespaces of nobody.
    fn owns_node(&self, id: &NodeId) -> bool {
        self.context.type_tree.read().namespaces().known_namespaces().values().all(|index| *index != id.namespace)
    }

    fn name(&self) -> &str {
        "unknown nodes"
    }

    fn namespaces_for_user(&self, _: &RequestContext) -> Vec<NamespaceMetadata> {
        Vec::new()
    }

    async fn init(&self, _: &mut DefaultTypeTree, _: ServerContext) {}

    async fn browse(&self, context: &RequestContext, nodes: &mut [BrowseNode]) -> Result<(), StatusCode> {
        for node in nodes {
            let reference = node.reference_type_id();
            if !self.exists(context, node.node_id()) {
                node.set_status(StatusCode::BadNodeIdUnknown);
            } else if node.browse_direction() == BrowseDirection::Invalid {
                node.set_status(StatusCode::BadBrowseDirectionInvalid);
            } else if !reference.is_null() && context.type_tree.read().get(reference) != Some(NodeClass::ReferenceType)
            {
                node.set_status(StatusCode::BadReferenceTypeIdInvalid);
            } else {
                // What is left for a BrowseNext may have come past nobody else.
                node.set_status(StatusCode::Good);
            }
        }
        Ok(())
    }

    async fn translate_browse_paths_to_node_ids(
        &self,
        context: &RequestContext,
        nodes: &mut [&mut BrowsePathItem],
    ) -> Result<(), StatusCode> {
        for node in nodes.iter_mut().filter(|node| !self.exists(context, node.node_id())) {
            node.set_status(StatusCode::BadNodeIdUnknown);
        }
        Ok(())
    }

    async fn read(
        &self,
        _: &RequestContext,
        _: f64,
        _: TimestampsToReturn,
        nodes: &mut [&mut ReadNode],
    ) -> Result<(), StatusCode> {
        nodes.iter_mut().for_each(|node| node.set_error(StatusCode::BadNodeIdUnknown));
        Ok(())
    }

    async fn write(&self, _: &RequestContext, nodes: &mut [&mut WriteNode]) -> Result<(), StatusCode> {
        nodes.iter_mut().for_each(|node| node.set_status(StatusCode::BadNodeIdUnknown));
        Ok(())
    }

    async fn create_monitored_items(
        &self,
        _: &RequestContext,
        items: &mut [&mut CreateMonitoredItem],
    ) -> Result<(), StatusCode> {
        items.iter_mut().for_each(|item| item.set_status(StatusCode::BadNodeIdUnknown));
        Ok(())
    }

    async fn call(&self, _: &RequestContext, calls: &mut [&mut MethodCall]) -> Result<(), StatusCode> {
        calls.iter_mut().for_each(|call| call.set_status(StatusCode::BadMethodInvalid));
        Ok(())
    }
}
