//! The nodes of namespace 0, answered before the UA crate's own node manager, and nodes that nobody has, after it.
//!
//! The crate asks the first node manager that says a node is its own. [`ServerNodes`] stands in front and takes all of
//! namespace 0 but methods: values that it knows better (`values.rs`) it answers, the rest it asks the crate's core node manager
//! for, whole, and gives IndexRange and timestamps their right form. The crate itself ignores TimestampsToReturn there, stamps
//! the time now with the time of its start, says BadServiceUnsupported to any write, and applies the IndexRange of a
//! monitored item twice. Browse is not its business: nodes and references stay where they are.
//!
//! `unknown.rs` stands last. `sessions.rs` counts sessions.

mod sessions;
mod unknown;
mod values;

use super::filter;
use super::monitored;
use super::ranges::finish;
use ::opcua::server::node_manager::memory::CoreNodeManager;
use ::opcua::server::node_manager::{
    BrowseNode, BrowsePathItem, MonitoredItemRef, MonitoredItemUpdateRef, NodeManager, ParsedReadValueId, ReadNode,
    RequestContext, ServerContext, WriteNode,
};
use ::opcua::server::{CreateMonitoredItem, ServerHandle, diagnostics::NamespaceMetadata};
use ::opcua::types::{
    AttributeId, DataValue, DateTime, MonitoringMode, NodeId, NumericRange, ObjectId, ReferenceTypeId, StatusCode,
    TimestampsToReturn, VariableId, Variant,
};
use async_trait::async_trait;
pub use sessions::Sessions;
use std::sync::Arc;
use std::time::Duration;
pub use unknown::UnknownNodes;
use values::CHANGING;

pub struct ServerNodes {
    context: ServerContext,
    sessions: Arc<Sessions>,
    further: Further,
}

/// What a server says of namespace 0 beyond what all say.
pub type Further = Box<dyn Fn(VariableId) -> Option<Variant> + Send + Sync>;

/// How often values that change by themselves are looked at for monitored items.
const SAMPLE: Duration = Duration::from_millis(100);

/// Parts of the Server object and its surroundings that describe what this server does not have. Their variables would
/// all be null and their methods fail.
const ABSENT: [ObjectId; 9] = [
    // Roles are told by UserAccessLevel and UserExecutable.
    ObjectId::Server_ServerCapabilities_RoleSet,
    ObjectId::ServerConfiguration,
    ObjectId::PublishSubscribe,
    ObjectId::ManagedApplications,
    ObjectId::Dictionaries,
    ObjectId::Resources,
    ObjectId::ProvisionableDevice,
    ObjectId::DefaultHAConfiguration,
    ObjectId::DefaultHEConfiguration,
];
const ABSENT_METHODS: [::opcua::types::MethodId; 2] = [
    ::opcua::types::MethodId::Server_SetSubscriptionDurable,
    ::opcua::types::MethodId::Server_RequestServerStateChange,
];
const ABSENT_VARIABLES: [VariableId; 2] = [VariableId::Server_UrisVersion, VariableId::Server_EstimatedReturnTime];

impl ServerNodes {
    pub fn new(context: ServerContext, sessions: Arc<Sessions>, further: Further) -> Self {
        Self { context, sessions, further }
    }

    fn core(&self) -> Result<Arc<CoreNodeManager>, StatusCode> {
        self.context.node_managers.get_of_type().ok_or(StatusCode::BadShutdown)
    }

    /// The Value of a node, or why it cannot be read, without IndexRange and with both timestamps.
    async fn whole(&self, context: &RequestContext, core: &CoreNodeManager, node: &ParsedReadValueId) -> DataValue {
        use ::opcua::server::node_manager::memory::InMemoryNodeManagerImpl;
        let whole = ParsedReadValueId { index_range: NumericRange::None, ..node.clone() };
        let (whole, both) = ([&whole], TimestampsToReturn::Both);
        let told = core.inner().read_values(context, core.address_space(), &whole, 0.0, both).await;
        let told = told.into_iter().next().unwrap_or_default();
        let own = node.node_id.as_variable_id().ok().and_then(|id| self.value(id));
        // Whether the user may read it at all, and the encoding asked for, the crate has looked at.
        let refused = matches!(told.status(), StatusCode::BadUserAccessDenied | StatusCode::BadDataEncodingInvalid);
        let now = Some(DateTime::now());
        match own {
            Some(own) if !refused || is_diagnostic(&node.node_id) => {
                let (value, status) = match own {
                    Ok(value) => (value, StatusCode::Good),
                    Err(status) => (Variant::Empty, status),
                };
                DataValue {
                    value: Some(value),
                    status: Some(status),
                    source_timestamp: now,
                    server_timestamp: now,
                    ..DataValue::default()
                }
            }
            _ => DataValue { server_timestamp: now, ..told },
        }
    }

    /// Brings what changes by itself to monitored items, for ever.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(SAMPLE).await;
            let mut notifier = self.context.subscriptions.data_notifier();
            for id in CHANGING {
                let node = NodeId::from(id);
                let Some(mut items) = notifier.notify_for(&node, AttributeId::Value) else { continue };
                if let Some(Ok(value)) = self.value(id) {
                    items.data_value(DataValue::new_now(value));
                }
            }
        }
    }
}

/// The crate's permission to read counts is for users of its own; ours are no secret.
fn is_diagnostic(node: &NodeId) -> bool {
    node.as_variable_id().is_ok_and(|id| CHANGING[4..].contains(&id))
}

/// Takes away what is not there.
pub fn tidy(handle: &ServerHandle) {
    let Some(core) = handle.node_managers().get_of_type::<CoreNodeManager>() else { return };
    let mut address_space = core.address_space().write();
    let type_tree = handle.type_tree().read();
    let mut doomed: Vec<NodeId> = ABSENT.map(NodeId::from).to_vec();
    doomed.extend(ABSENT_METHODS.map(NodeId::from));
    doomed.extend(ABSENT_VARIABLES.map(NodeId::from));
    while let Some(id) = doomed.pop() {
        for reference in [ReferenceTypeId::HasComponent, ReferenceTypeId::HasProperty] {
            let below = address_space.find_references(
                &id,
                Some((reference, false)),
                &*type_tree,
                ::opcua::types::BrowseDirection::Forward,
            );
            doomed.extend(below.map(|below| below.target_node.clone()));
        }
        address_space.delete(&id, true);
    }
}

#[async_trait]
impl NodeManager for ServerNodes {
    fn owns_node(&self, id: &NodeId) -> bool {
        id.namespace == 0 && id.as_method_id().is_err()
    }

    fn name(&self) -> &str {
        "server nodes"
    }

    fn namespaces_for_user(&self, _: &RequestContext) -> Vec<NamespaceMetadata> {
        Vec::new()
    }

    async fn init(&self, _: &mut ::opcua::nodes::DefaultTypeTree, _: ServerContext) {}

    async fn browse(&self, context: &RequestContext, _: &mut [BrowseNode]) -> Result<(), StatusCode> {
        self.sessions.saw(context);
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
        self.sessions.saw(context);
        let core = self.core()?;
        let (mut values, mut others): (Vec<_>, Vec<_>) =
            nodes.iter_mut().map(|node| &mut **node).partition(|node| node.node().attribute_id == AttributeId::Value);
        for node in &mut values {
            let whole = self.whole(context, &core, node.node()).await;
            node.set_result(finish(whole, &node.node().index_range, timestamps));
        }
        if others.is_empty() {
            return Ok(());
        }
        core.read(context, max_age, timestamps, &mut others).await
    }

    async fn write(&self, context: &RequestContext, nodes: &mut [&mut WriteNode]) -> Result<(), StatusCode> {
        self.sessions.saw(context);
        let core = self.core()?;
        let address_space = core.address_space().read();
        for node in nodes {
            let exists = address_space.node_exists(&node.value().node_id);
            node.set_status(if exists { StatusCode::BadNotWritable } else { StatusCode::BadNodeIdUnknown });
        }
        Ok(())
    }

    async fn create_monitored_items(
        &self,
        context: &RequestContext,
        items: &mut [&mut CreateMonitoredItem],
    ) -> Result<(), StatusCode> {
        self.sessions.saw(context);
        let core = self.core()?;
        let (values, mut others): (Vec<_>, Vec<_>) = items
            .iter_mut()
            .map(|item| &mut **item)
            .partition(|item| item.item_to_monitor().attribute_id == AttributeId::Value);
        for item in values {
            let value = self.whole(context, &core, item.item_to_monitor()).await;
            let refusals = [
                StatusCode::BadUserAccessDenied,
                StatusCode::BadNodeIdUnknown,
                StatusCode::BadAttributeIdInvalid,
                StatusCode::BadDataEncodingInvalid,
            ];
            if refusals.contains(&value.status()) {
                item.set_status(value.status());
                continue;
            }
            if let Err(status) = filter::check(item, value.value.as_ref().is_some_and(filter::is_number)) {
                item.set_status(status);
                continue;
            }
            // Whole: the crate applies the IndexRange to every value of an item by itself.
            item.set_initial_value(value);
            item.set_status(StatusCode::Good);
        }
        if others.is_empty() {
            return Ok(());
        }
        core.create_monitored_items(context, &mut others).await
    }

    // Nothing is kept for an item, so there is nothing to do when it changes.
    async fn modify_monitored_items(&self, _: &RequestContext, _: &[&MonitoredItemUpdateRef]) {}

    async fn set_monitoring_mode(&self, _: &RequestContext, _: MonitoringMode, _: &[&MonitoredItemRef]) {}

    async fn delete_monitored_items(&self, context: &RequestContext, _: &[&MonitoredItemRef]) {
        monitored::tidied(context).await;
    }
}
