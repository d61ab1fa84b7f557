//! The node manager that clients reach: hides from each user what they may not browse, and passes on the rest.
//!
//! The UA crate asks the authenticator only about values and calls. Browse and TranslateBrowsePaths are answered here,
//! because the results of the crate's own cannot be filtered; of the other services, hidden nodes are held back, so that
//! the crate answers for them as for nodes that do not exist. Whoever has no role any more gets BadUserAccessDenied.
//!
//! What a user may not read is denied for the Value only: the crate would deny all other attributes with it, so those are
//! read here.
//!
//! Absent on purpose: anything about monitored items that exist; seats.rs follows their users.

use super::{Access, Action};
use crate::model::Role;
use crate::sinks::ua_server::node_manager::HubNodes;
use ::opcua::nodes::DefaultTypeTree;
use ::opcua::server::CreateMonitoredItem;
use ::opcua::server::address_space::{
    AddressSpace, NodeType, ReferenceDirection, is_supported_data_encoding, read_node_value,
};
use ::opcua::server::diagnostics::NamespaceMetadata;
use ::opcua::server::node_manager::memory::InMemoryNodeManager;
use ::opcua::server::node_manager::{
    AddReferenceResult, BrowseNode, BrowsePathItem, ExternalReference, ExternalReferenceRequest, HistoryNode,
    HistoryUpdateNode, MethodCall, MonitoredItemRef, MonitoredItemUpdateRef, NodeManager, NodeManagerBuilder,
    ParsedReadValueId, ReadNode, RegisterNodeItem, RequestContext, ServerContext, WriteNode,
};
use ::opcua::types::{
    AttributeId, BrowseDescriptionResultMask, BrowseDirection, DataValue, ExpandedNodeId, MonitoringMode, NodeClass,
    NodeId, NumericRange, ReadAnnotationDataDetails, ReadAtTimeDetails, ReadEventDetails, ReadProcessedDetails,
    ReadRawModifiedDetails, ReferenceDescription, ReferenceTypeId, StatusCode, TimestampsToReturn, Variant,
};
use async_trait::async_trait;
use std::collections::HashSet;
use std::sync::Arc;

type Nodes = InMemoryNodeManager<HubNodes>;

pub(in crate::sinks::ua_server) struct Guard {
    nodes: Arc<Nodes>,
    access: Access,
}

/// What one caller sees.
struct View<'a> {
    access: &'a Access,
    role: Role,
    /// Without rules everybody sees and reads everything.
    is_open: bool,
}

impl View<'_> {
    fn sees(&self, node: &NodeId) -> bool {
        self.is_open || self.access.role_may(self.role, Action::Browse, node)
    }

    fn visible<'a, T>(&self, items: &'a mut [&mut T], node: impl Fn(&T) -> &NodeId) -> Vec<&'a mut T> {
        items.iter_mut().map(|item| &mut **item).filter(|item| self.sees(node(item))).collect()
    }
}

/// What is left of a Browse for BrowseNext.
struct Rest(Vec<ReferenceDescription>);

impl Guard {
    /// Around the node manager that `nodes` builds.
    pub(in crate::sinks::ua_server) fn builder(
        nodes: impl NodeManagerBuilder,
        access: Access,
    ) -> impl NodeManagerBuilder {
        move |context: ServerContext| {
            let built = Box::new(nodes).build(context).into_any_arc().downcast();
            let nodes = built.unwrap_or_else(|_| unreachable!("it builds what it was made for"));
            Guard { nodes, access }
        }
    }

    pub(in crate::sinks::ua_server) fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    /// Whether the caller sees that there is such a node.
    pub(in crate::sinks::ua_server) fn shows(&self, context: &RequestContext, node: &NodeId) -> bool {
        self.nodes.address_space().read().node_exists(node) && self.view(context).is_ok_and(|view| view.sees(node))
    }

    fn view(&self, context: &RequestContext) -> Result<View<'_>, StatusCode> {
        let role = self.access.role(&context.token).ok_or(StatusCode::BadUserAccessDenied)?;
        Ok(View { access: &self.access, role, is_open: self.access.rules().is_empty() })
    }
}

/// An attribute other than Value, which whoever sees the node may read.
fn attribute(
    context: &RequestContext,
    address_space: &AddressSpace,
    wanted: &ParsedReadValueId,
    timestamps: TimestampsToReturn,
) -> Result<DataValue, StatusCode> {
    let node = address_space.find(&wanted.node_id).ok_or(StatusCode::BadNodeIdUnknown)?;
    if wanted.index_range != NumericRange::None {
        return Err(StatusCode::BadIndexRangeDataMismatch);
    }
    if !is_supported_data_encoding(&wanted.data_encoding) {
        return Err(StatusCode::BadDataEncodingInvalid);
    }
    Ok(read_node_value(node, context, wanted, 0.0, timestamps))
}

fn browse(
    address_space: &AddressSpace,
    types: &DefaultTypeTree,
    view: &View<'_>,
    owned: &Nodes,
    node: &mut BrowseNode,
) {
    let source = node.node_id().clone();
    if owned.owns_node(&source) {
        if !address_space.node_exists(&source) || !view.sees(&source) {
            return node.set_status(StatusCode::BadNodeIdUnknown);
        }
        node.set_status(StatusCode::Good);
    }
    let mut rest = Vec::new();
    if let Some(left) = node.take_continuation_point::<Rest>() {
        // The session may have another user by now.
        let left = left.0.into_iter().filter(|reference| view.sees(&reference.node_id.node_id));
        for reference in left {
            if node.remaining() > 0 { node.add_unchecked(reference) } else { rest.push(reference) }
        }
    } else {
        let wanted = node.reference_type_id().clone();
        let filter = (!wanted.is_null()).then(|| (wanted, node.include_subtypes()));
        for reference in address_space.find_references(&source, filter, types, node.browse_direction()) {
            let Some(target) = address_space.find_node(reference.target_node) else {
                // Of another node manager, which is asked for it.
                if !owned.owns_node(reference.target_node) {
                    let (id, reference_type) = (reference.target_node.into(), reference.reference_type.clone());
                    node.push_external_reference(ExternalReference::new(id, reference_type, reference.direction));
                }
                continue;
            };
            if !view.sees(reference.target_node) {
                continue;
            }
            let description = describe(address_space, types, target, node.result_mask());
            let description = ReferenceDescription {
                reference_type_id: reference.reference_type.clone(),
                is_forward: matches!(reference.direction, ReferenceDirection::Forward),
                ..description
            };
            if let AddReferenceResult::Full(description) = node.add(types, description) {
                rest.push(description);
            }
        }
    }
    // It may be another manager's, which a BrowseNext does not ask again.
    if node.result_len() > 0 {
        node.set_status(StatusCode::Good);
    }
    if !rest.is_empty() {
        node.set_next_continuation_point(Box::new(Rest(rest)));
    }
}

/// A node as the target of a reference. Only objects and variables have a type definition (OPC 10000-4, 7.30).
fn describe(
    address_space: &AddressSpace,
    types: &DefaultTypeTree,
    node: &NodeType,
    mask: BrowseDescriptionResultMask,
) -> ReferenceDescription {
    let node = node.as_node();
    let has_type = matches!(node.node_class(), NodeClass::Object | NodeClass::Variable)
        && mask.contains(BrowseDescriptionResultMask::RESULT_MASK_TYPE_DEFINITION);
    let filter = Some((ReferenceTypeId::HasTypeDefinition, false));
    let of_type = has_type.then(|| {
        let mut found = address_space.find_references(node.node_id(), filter, types, BrowseDirection::Forward);
        found.next().map(|reference| ExpandedNodeId::new(reference.target_node.clone()))
    });
    ReferenceDescription {
        node_id: ExpandedNodeId::new(node.node_id().clone()),
        browse_name: node.browse_name().clone(),
        display_name: node.display_name().clone(),
        node_class: node.node_class(),
        type_definition: of_type.flatten().unwrap_or_else(ExpandedNodeId::null),
        ..ReferenceDescription::default()
    }
}

/// Follows a path as far as our nodes go. What is reached on the way is a result too: other node managers go on from it.
fn translate(
    address_space: &AddressSpace,
    types: &DefaultTypeTree,
    view: &View<'_>,
    owned: &Nodes,
    manager: usize,
    item: &mut BrowsePathItem<'_>,
) {
    if owned.owns_node(item.node_id()) {
        let start = address_space.find_node(item.node_id()).filter(|_| view.sees(item.node_id()));
        let Some(start) = start else { return item.set_status(StatusCode::BadNodeIdUnknown) };
        if let Some(name) = item.unmatched_browse_name() {
            if !name.is_null() && start.as_node().browse_name() != name {
                return;
            }
            item.set_browse_name_matched(manager);
        }
    } else if item.unmatched_browse_name().is_some() {
        return;
    }
    let mut reached = HashSet::from([item.node_id().clone()]);
    let mut results = Vec::new();
    for (depth, element) in (1..).zip(item.path()) {
        let wanted = &element.reference_type_id;
        let direction = if element.is_inverse { BrowseDirection::Inverse } else { BrowseDirection::Forward };
        let mut next = HashSet::new();
        for node in &reached {
            let filter = (!wanted.is_null()).then(|| (wanted.clone(), element.include_subtypes));
            for reference in address_space.find_references(node, filter, types, direction) {
                let target = reference.target_node;
                match address_space.find_node(target) {
                    None if !owned.owns_node(target) => {
                        results.push((target.clone(), depth, Some(element.target_name.clone())));
                    }
                    Some(found)
                        if view.sees(target)
                            && (element.target_name.is_null()
                                || *found.as_node().browse_name() == element.target_name)
                            && next.insert(target.clone()) =>
                    {
                        results.push((target.clone(), depth, None));
                    }
                    _ => {}
                }
            }
        }
        reached = next;
    }
    for (node, depth, unmatched) in results {
        item.add_element(node, depth, unmatched);
    }
}

#[async_trait]
impl NodeManager for Guard {
    fn owns_node(&self, id: &NodeId) -> bool {
        self.nodes.owns_node(id)
    }

    fn name(&self) -> &str {
        self.nodes.name()
    }

    fn owns_server_events(&self) -> bool {
        self.nodes.owns_server_events()
    }

    /// Also called when a session is activated, which is how a change of its user is noticed.
    fn namespaces_for_user(&self, context: &RequestContext) -> Vec<NamespaceMetadata> {
        self.access.seats().seat_session(context);
        self.nodes.namespaces_for_user(context)
    }

    async fn init(&self, types: &mut DefaultTypeTree, context: ServerContext) {
        self.nodes.init(types, context).await;
    }

    async fn resolve_external_references(&self, context: &RequestContext, items: &mut [&mut ExternalReferenceRequest]) {
        let Ok(view) = self.view(context) else { return };
        let mut visible = view.visible(items, ExternalReferenceRequest::node_id);
        self.nodes.resolve_external_references(context, &mut visible).await;
    }

    async fn read(
        &self,
        context: &RequestContext,
        max_age: f64,
        timestamps: TimestampsToReturn,
        nodes: &mut [&mut ReadNode],
    ) -> Result<(), StatusCode> {
        let view = self.view(context)?;
        if view.is_open {
            return self.nodes.read(context, max_age, timestamps, nodes).await;
        }
        let visible = view.visible(nodes, |node| &node.node().node_id);
        let (mut values, attributes): (Vec<_>, Vec<_>) =
            visible.into_iter().partition(|node| node.node().attribute_id == AttributeId::Value);
        {
            let address_space = self.nodes.address_space().read();
            for node in attributes {
                let read = attribute(context, &address_space, node.node(), timestamps);
                node.set_result(read.unwrap_or_else(|status| DataValue::new_now_status(Variant::Empty, status)));
            }
        }
        self.nodes.read(context, max_age, timestamps, &mut values).await
    }

    async fn history_read_raw_modified(
        &self,
        context: &RequestContext,
        details: &ReadRawModifiedDetails,
        nodes: &mut [&mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        let mut visible = self.view(context)?.visible(nodes, HistoryNode::node_id);
        self.nodes.history_read_raw_modified(context, details, &mut visible, timestamps).await
    }

    async fn history_read_processed(
        &self,
        context: &RequestContext,
        details: &ReadProcessedDetails,
        nodes: &mut [&mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        let mut visible = self.view(context)?.visible(nodes, HistoryNode::node_id);
        self.nodes.history_read_processed(context, details, &mut visible, timestamps).await
    }

    async fn history_read_at_time(
        &self,
        context: &RequestContext,
        details: &ReadAtTimeDetails,
        nodes: &mut [&mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        let mut visible = self.view(context)?.visible(nodes, HistoryNode::node_id);
        self.nodes.history_read_at_time(context, details, &mut visible, timestamps).await
    }

    async fn history_read_events(
        &self,
        context: &RequestContext,
        details: &ReadEventDetails,
        nodes: &mut [&mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        let mut visible = self.view(context)?.visible(nodes, HistoryNode::node_id);
        self.nodes.history_read_events(context, details, &mut visible, timestamps).await
    }

    async fn history_read_annotations(
        &self,
        context: &RequestContext,
        details: &ReadAnnotationDataDetails,
        nodes: &mut [&mut HistoryNode],
        timestamps: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        let mut visible = self.view(context)?.visible(nodes, HistoryNode::node_id);
        self.nodes.history_read_annotations(context, details, &mut visible, timestamps).await
    }

    async fn history_update(
        &self,
        context: &RequestContext,
        nodes: &mut [&mut HistoryUpdateNode],
    ) -> Result<(), StatusCode> {
        let mut visible = self.view(context)?.visible(nodes, |node| node.details().node_id());
        self.nodes.history_update(context, &mut visible).await
    }

    async fn write(&self, context: &RequestContext, nodes: &mut [&mut WriteNode]) -> Result<(), StatusCode> {
        let mut visible = self.view(context)?.visible(nodes, |node| &node.value().node_id);
        self.nodes.write(context, &mut visible).await
    }

    async fn browse(&self, context: &RequestContext, nodes: &mut [BrowseNode]) -> Result<(), StatusCode> {
        let view = self.view(context)?;
        let address_space = self.nodes.address_space().read();
        let types = context.type_tree.read();
        for node in nodes.iter_mut().filter(|node| !node.node_id().is_null()) {
            browse(&address_space, &types, &view, &self.nodes, node);
        }
        Ok(())
    }

    async fn translate_browse_paths_to_node_ids(
        &self,
        context: &RequestContext,
        nodes: &mut [&mut BrowsePathItem],
    ) -> Result<(), StatusCode> {
        let view = self.view(context)?;
        let address_space = self.nodes.address_space().read();
        let types = context.type_tree.read();
        for item in nodes {
            translate(&address_space, &types, &view, &self.nodes, context.current_node_manager_index, item);
        }
        Ok(())
    }

    /// Says nothing about a node, so there is nothing to hide.
    async fn register_nodes(
        &self,
        context: &RequestContext,
        nodes: &mut [&mut RegisterNodeItem],
    ) -> Result<(), StatusCode> {
        self.nodes.register_nodes(context, nodes).await
    }

    async fn unregister_nodes(&self, context: &RequestContext, nodes: &[&NodeId]) -> Result<(), StatusCode> {
        self.nodes.unregister_nodes(context, nodes).await
    }

    async fn create_monitored_items(
        &self,
        context: &RequestContext,
        items: &mut [&mut CreateMonitoredItem],
    ) -> Result<(), StatusCode> {
        let view = self.view(context)?;
        if view.is_open {
            return self.nodes.create_monitored_items(context, items).await;
        }
        let visible = view.visible(items, |item| &item.item_to_monitor().node_id);
        let (mut passed_on, attributes): (Vec<_>, Vec<_>) = visible.into_iter().partition(|item| {
            matches!(item.item_to_monitor().attribute_id, AttributeId::Value | AttributeId::EventNotifier)
        });
        {
            let address_space = self.nodes.address_space().read();
            for item in attributes {
                match attribute(context, &address_space, item.item_to_monitor(), item.timestamps_to_return()) {
                    Ok(value) => {
                        item.set_initial_value(value);
                        item.set_status(StatusCode::Good);
                    }
                    Err(status) => item.set_status(status),
                }
            }
        }
        self.nodes.create_monitored_items(context, &mut passed_on).await
    }

    async fn modify_monitored_items(&self, context: &RequestContext, items: &[&MonitoredItemUpdateRef]) {
        self.nodes.modify_monitored_items(context, items).await;
    }

    async fn set_monitoring_mode(&self, context: &RequestContext, mode: MonitoringMode, items: &[&MonitoredItemRef]) {
        self.nodes.set_monitoring_mode(context, mode, items).await;
    }

    async fn delete_monitored_items(&self, context: &RequestContext, items: &[&MonitoredItemRef]) {
        self.nodes.delete_monitored_items(context, items).await;
    }

    async fn call(&self, context: &RequestContext, methods: &mut [&mut MethodCall]) -> Result<(), StatusCode> {
        let view = self.view(context)?;
        for method in methods.iter_mut() {
            let object = method.object_id();
            let is_there = view.sees(object) && self.nodes.address_space().read().node_exists(object);
            if self.owns_node(object) && !is_there {
                method.set_status(StatusCode::BadNodeIdUnknown);
            }
        }
        let mut known = view.visible(methods, MethodCall::method_id);
        known.retain(|method| method.status() != StatusCode::BadNodeIdUnknown);
        self.nodes.call(context, &mut known).await
    }
}
