//! What belongs to namespace 0 and the crate leaves out: the methods of conditions, and the history of events on Server.
//!
//! The crate brings a call to the owner of the *method's* id, whatever the object; clients use the ids that the standard
//! gives the methods of the types. So this node manager stands before the crate's own and owns those; whatever else
//! is asked of these nodes, it passes on.

use super::delivery::Delivery;
use super::{history, methods};
use crate::hub::Hub;
use ::opcua::nodes::DefaultTypeTree;
use ::opcua::server::CreateMonitoredItem;
use ::opcua::server::diagnostics::NamespaceMetadata;
use ::opcua::server::node_manager::memory::CoreNodeManager;
use ::opcua::server::node_manager::{
    BrowseNode, BrowsePathItem, HistoryNode, MethodCall, NodeManager, ReadNode, RequestContext, ServerContext,
    WriteNode,
};
use ::opcua::types::{NodeId, ReadEventDetails, StatusCode, TimestampsToReturn};
use async_trait::async_trait;
use std::sync::Arc;

pub(in crate::sinks::ua_server) struct ConditionMethods {
    hub: Hub,
    delivery: Arc<Delivery>,
    context: ServerContext,
}

impl ConditionMethods {
    pub(in crate::sinks::ua_server) fn new(hub: Hub, delivery: Arc<Delivery>, context: ServerContext) -> Self {
        Self { hub, delivery, context }
    }

    fn core(&self) -> Result<Arc<CoreNodeManager>, StatusCode> {
        self.context.node_managers.get_of_type().ok_or(StatusCode::BadShutdown)
    }

    fn namespace(&self) -> u16 {
        let types = self.context.type_tree.read();
        let index = types.namespaces().get_index(crate::sinks::ua_server::address_space::NAMESPACE);
        index.expect("our namespace is added before the server starts")
    }
}

#[async_trait]
impl NodeManager for ConditionMethods {
    fn owns_node(&self, id: &NodeId) -> bool {
        methods::ours(id).is_some()
    }

    fn name(&self) -> &str {
        "methods of conditions"
    }

    fn owns_server_events(&self) -> bool {
        true
    }

    fn namespaces_for_user(&self, _: &RequestContext) -> Vec<NamespaceMetadata> {
        Vec::new()
    }

    async fn init(&self, _: &mut DefaultTypeTree, _: ServerContext) {}

    // The nodes are the crate's, and so are these two.
    async fn browse(&self, _: &RequestContext, _: &mut [BrowseNode]) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn translate_browse_paths_to_node_ids(
        &self,
        _: &RequestContext,
        _: &mut [&mut BrowsePathItem],
    ) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn read(
        &self,
        context: &RequestContext,
        max_age: f64,
        timestamps: TimestampsToReturn,
        nodes: &mut [&mut ReadNode],
    ) -> Result<(), StatusCode> {
        self.core()?.read(context, max_age, timestamps, nodes).await
    }

    async fn write(&self, context: &RequestContext, nodes: &mut [&mut WriteNode]) -> Result<(), StatusCode> {
        self.core()?.write(context, nodes).await
    }

    async fn create_monitored_items(
        &self,
        context: &RequestContext,
        items: &mut [&mut CreateMonitoredItem],
    ) -> Result<(), StatusCode> {
        self.core()?.create_monitored_items(context, items).await
    }

    async fn call(&self, context: &RequestContext, calls: &mut [&mut MethodCall]) -> Result<(), StatusCode> {
        for call in calls {
            methods::call(&self.hub, &self.delivery, self.namespace(), context, call);
        }
        Ok(())
    }

    async fn history_read_events(
        &self,
        context: &RequestContext,
        details: &ReadEventDetails,
        nodes: &mut [&mut HistoryNode],
        _: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        history::read(&self.hub, self.delivery.access(), self.namespace(), context, details, nodes)
    }
}
