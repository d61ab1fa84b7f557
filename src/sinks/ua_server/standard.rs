//! The namespace of the standard: the crate's own nodes, and what it leaves out of them.
//!
//! All is the crate's, except the methods of conditions and the history of events on Server. The crate asks the owner of a
//! *method's* id for a call, whatever the object, so calls by the ids of the standard come here and nowhere else.

use super::events::delivery::Delivery;
use super::events::{history, methods, nodes};
use crate::hub::Hub;
use ::opcua::nodes::{EventNotifier, NodeType};
use ::opcua::server::CreateMonitoredItem;
use ::opcua::server::address_space::AddressSpace;
use ::opcua::server::diagnostics::NamespaceMetadata;
use ::opcua::server::node_manager::memory::{
    CoreNodeManagerBuilder, CoreNodeManagerImpl, InMemoryNodeManagerImpl, InMemoryNodeManagerImplBuilder,
};
use ::opcua::server::node_manager::{
    HistoryNode, MethodCall, MonitoredItemRef, MonitoredItemUpdateRef, ParsedReadValueId, RequestContext, ServerContext,
};
use ::opcua::sync::RwLock;
use ::opcua::types::{DataValue, MonitoringMode, ObjectId, ReadEventDetails, StatusCode, TimestampsToReturn};
use async_trait::async_trait;
use std::sync::Arc;

pub(super) struct StandardNodes {
    crates: CoreNodeManagerImpl,
    hub: Hub,
    delivery: Arc<Delivery>,
}

impl StandardNodes {
    pub(super) fn new(hub: Hub, delivery: Arc<Delivery>, context: ServerContext, space: &mut AddressSpace) -> Self {
        let crates = CoreNodeManagerBuilder.build(context, space);
        if let Some(NodeType::Object(server)) = space.find_mut(ObjectId::Server) {
            server.set_event_notifier(EventNotifier::SUBSCRIBE_TO_EVENTS | EventNotifier::HISTORY_READ);
        }
        Self { crates, hub, delivery }
    }

    fn namespace(context: &RequestContext) -> u16 {
        let types = context.type_tree.read();
        let index = types.namespaces().get_index(super::node_manager::NAMESPACE);
        index.expect("our namespace is added before the server starts")
    }

    /// Gives new conditions their methods.
    pub(super) fn add_new(&self, hub: &Hub, space: &mut AddressSpace, namespace: u16) {
        nodes::add_methods(space, hub, namespace);
    }
}

#[async_trait]
impl InMemoryNodeManagerImpl for StandardNodes {
    async fn init(&self, space: &mut AddressSpace, context: ServerContext) {
        self.crates.init(space, context).await;
    }

    fn name(&self) -> &str {
        self.crates.name()
    }

    fn namespaces(&self) -> Vec<NamespaceMetadata> {
        self.crates.namespaces()
    }

    fn owns_server_events(&self) -> bool {
        true
    }

    async fn read_values(
        &self,
        context: &RequestContext,
        space: &RwLock<AddressSpace>,
        nodes: &[&ParsedReadValueId],
        max_age: f64,
        timestamps: TimestampsToReturn,
    ) -> Vec<DataValue> {
        self.crates.read_values(context, space, nodes, max_age, timestamps).await
    }

    async fn create_value_monitored_items(
        &self,
        context: &RequestContext,
        space: &RwLock<AddressSpace>,
        items: &mut [&mut &mut CreateMonitoredItem],
    ) {
        self.crates.create_value_monitored_items(context, space, items).await;
    }

    async fn modify_monitored_items(&self, context: &RequestContext, items: &[&MonitoredItemUpdateRef]) {
        self.crates.modify_monitored_items(context, items).await;
    }

    async fn set_monitoring_mode(&self, context: &RequestContext, mode: MonitoringMode, items: &[&MonitoredItemRef]) {
        self.crates.set_monitoring_mode(context, mode, items).await;
    }

    async fn delete_monitored_items(&self, context: &RequestContext, items: &[&MonitoredItemRef]) {
        self.crates.delete_monitored_items(context, items).await;
    }

    async fn history_read_events(
        &self,
        context: &RequestContext,
        details: &ReadEventDetails,
        nodes: &mut [&mut &mut HistoryNode],
        _: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        history::read(&self.hub, Self::namespace(context), context, details, nodes)
    }

    async fn call(
        &self,
        context: &RequestContext,
        space: &RwLock<AddressSpace>,
        calls: &mut [&mut &mut MethodCall],
    ) -> Result<(), StatusCode> {
        for call in calls {
            let method = call.method_id().as_method_id().ok();
            match method.filter(|method| methods::role(*method).is_some()) {
                Some(method) => {
                    methods::call(&self.hub, &self.delivery, Self::namespace(context), context, method, call);
                }
                None => self.crates.call(context, space, std::slice::from_mut(call)).await?,
            }
        }
        Ok(())
    }
}
