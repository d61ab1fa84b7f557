//! The node manager of all DA servers' namespaces.
//!
//! It keeps no nodes. Each service is taken apart by DA server, and what one DA server is asked goes to it in as few calls as there can
//! be, all DA servers at a time. Stands last among the node managers, so that what it says of its nodes is the last word.

use super::browse::{Rest, add_all, below_objects};
use super::da::Da;
use super::ids::Address;
use super::status::{self, STATUS};
use crate::opcua::server::limits::Limits;
use crate::opcua::server::monitored::{self, saw_session};
use crate::opcua::server::ranges::finish;
use crate::relay::protocol::Origin;
use ::opcua::nodes::{DefaultTypeTree, TypeTree};
use ::opcua::server::CreateMonitoredItem;
use ::opcua::server::address_space::{AccessLevel, is_supported_data_encoding};
use ::opcua::server::diagnostics::NamespaceMetadata;
use ::opcua::server::node_manager::{
    BrowseNode, BrowsePathItem, ExternalReferenceRequest, MonitoredItemRef, MonitoredItemUpdateRef, NodeManager,
    NodeMetadata, ReadNode, RequestContext, ServerContext, WriteNode,
};
use ::opcua::types::{
    AttributeId, BrowseDirection, ExpandedNodeId, LocalizedText, MonitoringMode, NodeClass, NodeId, ObjectId,
    ReferenceTypeId, StatusCode, TimestampsToReturn,
};
use async_trait::async_trait;
use futures_util::future::join_all;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub struct RelayNodes {
    /// The relay's own namespace, which has index 1 (OPC 10000-3, 8.2.2) and no nodes.
    own: (u16, String),
    das: Vec<(u16, Arc<Da>)>,
    pub(super) context: ServerContext,
    pub(super) limits: Limits,
    /// As they were when the first client came; no type is added later.
    types: OnceLock<DefaultTypeTree>,
}

/// How often status variables are looked at for monitored items.
const STATUS_EVERY: Duration = Duration::from_millis(500);

impl RelayNodes {
    pub(super) fn new(own: String, das: &[Arc<Da>], limits: Limits, context: ServerContext) -> Self {
        let mut types = context.type_tree.write();
        let own = (types.namespaces_mut().add_namespace(&own), own);
        let das = das.iter().map(|da| (types.namespaces_mut().add_namespace(&da.served.uri), da.clone())).collect();
        drop(types);
        Self { own, das, context, limits, types: OnceLock::new() }
    }

    pub(super) fn das(&self) -> impl Iterator<Item = &Arc<Da>> {
        self.das.iter().map(|(_, da)| da)
    }

    /// A lock of the types cannot be held while a DA server is waited for.
    fn types(&self) -> &DefaultTypeTree {
        self.types.get_or_init(|| self.context.type_tree.read().clone())
    }

    /// Whose node it is; `None`: of nobody here.
    pub(super) fn find(&self, id: &NodeId) -> Option<(u16, &Arc<Da>, Address)> {
        let (namespace, da) = self.das.iter().find(|(namespace, _)| *namespace == id.namespace)?;
        Some((*namespace, da, Address::of(id, STATUS.len())?))
    }

    /// What a level becomes for who asks.
    pub(super) fn level(context: &RequestContext, level: AccessLevel, node: &NodeId) -> AccessLevel {
        context.authenticator.effective_user_access_level(&context.token, level, node)
    }

    pub(super) fn may_read(context: &RequestContext, node: &NodeId) -> bool {
        Self::level(context, AccessLevel::CURRENT_READ, node).contains(AccessLevel::CURRENT_READ)
    }

    /// Monitored items of all clients.
    pub(super) fn monitored(&self) -> usize {
        self.das.iter().map(|(_, da)| da.items.count()).sum()
    }

    /// Begins: all values go to the subscriptions of this server now.
    pub(super) fn serve(&self) {
        self.das.iter().for_each(|(_, da)| da.items.serve(self.context.subscriptions.clone()));
    }

    /// Brings the status variables to monitored items, and judges the others' owners anew, for ever.
    pub(super) async fn run(&self) {
        loop {
            tokio::time::sleep(STATUS_EVERY).await;
            for (namespace, da) in &self.das {
                let (level, folder) = (AccessLevel::CURRENT_READ, Address::Folder.node_id(*namespace));
                let who = &self.context.authenticator;
                da.items.judge(|token| !who.effective_user_access_level(token, level, &folder).is_empty());
                let state = da.worker.state().clone();
                let mut notifier = self.context.subscriptions.data_notifier();
                for index in 0..STATUS.len() {
                    let id = Address::Status(index).node_id(*namespace);
                    let Some(mut items) = notifier.notify_for(&id, AttributeId::Value) else { continue };
                    items.data_value(status::value(index, &state));
                }
            }
        }
    }

    /// Items whose descriptions are wanted soon, asked for in as few calls as there can be.
    async fn prepare(&self, nodes: &[&mut ReadNode]) {
        let of = |namespace: u16| {
            let nodes = nodes.iter().map(|node| node.node());
            nodes.filter(|node| node.attribute_id != AttributeId::Value).filter_map(move |node| {
                match self.find(&node.node_id) {
                    Some((of, _, Address::Item(item) | Address::Property(item, _))) if of == namespace => Some(item),
                    _ => None,
                }
            })
        };
        join_all(self.das.iter().map(|(namespace, da)| async move {
            let items: Vec<String> = of(*namespace).collect();
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            if items.len() > 1 {
                da.describe(&items, true).await;
            }
        }))
        .await;
    }
}

#[async_trait]
impl NodeManager for RelayNodes {
    fn owns_node(&self, id: &NodeId) -> bool {
        id.namespace == self.own.0 || self.das.iter().any(|(namespace, _)| *namespace == id.namespace)
    }

    fn name(&self) -> &str {
        "DA servers"
    }

    fn namespaces_for_user(&self, _: &RequestContext) -> Vec<NamespaceMetadata> {
        let das = self.das.iter().map(|(namespace, da)| (*namespace, &da.served.uri));
        let metadata = |(namespace, uri): (u16, &String)| NamespaceMetadata {
            namespace_uri: uri.clone(),
            namespace_index: namespace,
            ..NamespaceMetadata::default()
        };
        [(self.own.0, &self.own.1)].into_iter().chain(das).map(metadata).collect()
    }

    async fn init(&self, _: &mut DefaultTypeTree, _: ServerContext) {}

    async fn resolve_external_references(&self, _: &RequestContext, items: &mut [&mut ExternalReferenceRequest]) {
        for item in items {
            let Some((namespace, da, address)) = self.find(item.node_id()) else { continue };
            let node = match &address {
                Address::Item(name) => da.item(namespace, name, None, &da.guess(name)),
                _ => match da.node(namespace, &address).await {
                    Ok(node) => node,
                    Err(_) => continue,
                },
            };
            item.set(NodeMetadata {
                node_id: ExpandedNodeId::new(node.id.clone()),
                type_definition: node.type_definition(),
                display_name: LocalizedText::from(node.display_name.as_str()),
                browse_name: node.browse_name,
                node_class: node.class,
            });
        }
    }

    async fn read(
        &self,
        context: &RequestContext,
        max_age: f64,
        timestamps: TimestampsToReturn,
        nodes: &mut [&mut ReadNode],
    ) -> Result<(), StatusCode> {
        saw_session(context.session_id);
        self.prepare(nodes).await;
        let from = if max_age == 0.0 { Origin::Device } else { Origin::Cache };
        // Values of items, by DA server; all else one by one.
        let mut values: Vec<Vec<(String, &mut ReadNode)>> = self.das.iter().map(|_| Vec::new()).collect();
        for node in nodes.iter_mut() {
            let wanted = node.node();
            let Some((namespace, da, address)) = self.find(&wanted.node_id) else { continue };
            let is_value = wanted.attribute_id == AttributeId::Value;
            if is_value && !Self::may_read(context, &wanted.node_id) {
                node.set_error(StatusCode::BadUserAccessDenied);
                continue;
            }
            if !is_supported_data_encoding(&wanted.data_encoding) {
                node.set_error(StatusCode::BadDataEncodingInvalid);
                continue;
            }
            match address {
                Address::Item(item) if is_value => {
                    let place = self.das.iter().position(|(other, _)| *other == namespace).unwrap_or_default();
                    values[place].push((item, node));
                }
                address => {
                    let user = |level, id: &NodeId| Self::level(context, level, id);
                    let value = da.attribute(namespace, &address, wanted.attribute_id, user).await;
                    let value = finish(value, &wanted.index_range, timestamps);
                    node.set_result(value);
                }
            }
        }
        join_all(self.das.iter().zip(values).map(|((_, da), nodes)| async move {
            let items = nodes.iter().map(|(item, _)| item.clone()).collect();
            for ((_, node), value) in nodes.into_iter().zip(da.read(items, from).await) {
                let range = node.node().index_range.clone();
                node.set_result(finish(value, &range, timestamps));
            }
        }))
        .await;
        Ok(())
    }

    async fn write(&self, context: &RequestContext, nodes: &mut [&mut WriteNode]) -> Result<(), StatusCode> {
        saw_session(context.session_id);
        self.write_values(context, nodes).await;
        Ok(())
    }

    async fn browse(&self, context: &RequestContext, nodes: &mut [BrowseNode]) -> Result<(), StatusCode> {
        saw_session(context.session_id);
        let objects = NodeId::from(ObjectId::ObjectsFolder);
        let (types, objects) = (self.types(), &objects);
        join_all(nodes.iter_mut().map(|node| async move {
            if node.node_id() == objects {
                if node.allows_forward() {
                    let rest = node.take_continuation_point::<Rest>().map(|rest| *rest);
                    if rest.is_some() {
                        // Nobody else is asked again.
                        node.set_status(StatusCode::Good);
                    }
                    let mut rest = rest.unwrap_or_else(|| Rest::of(below_objects(&self.das)));
                    add_all(rest.ready(), types, node);
                    if !rest.ready().is_empty() {
                        node.set_next_continuation_point(Box::new(rest));
                    }
                }
                return;
            }
            let Some((namespace, da, address)) = self.find(node.node_id()) else {
                if self.owns_node(node.node_id()) {
                    node.set_status(StatusCode::BadNodeIdUnknown);
                }
                return;
            };
            let wanted = node.reference_type_id();
            if node.browse_direction() == BrowseDirection::Invalid {
                node.set_status(StatusCode::BadBrowseDirectionInvalid);
            } else if !wanted.is_null() && types.get(wanted) != Some(NodeClass::ReferenceType) {
                node.set_status(StatusCode::BadReferenceTypeIdInvalid);
            } else {
                da.browse(namespace, &address, types, node).await;
            }
        }))
        .await;
        Ok(())
    }

    async fn translate_browse_paths_to_node_ids(
        &self,
        _: &RequestContext,
        items: &mut [&mut BrowsePathItem],
    ) -> Result<(), StatusCode> {
        join_all(items.iter_mut().map(|item| self.translate(self.types(), item))).await;
        Ok(())
    }

    async fn create_monitored_items(
        &self,
        context: &RequestContext,
        items: &mut [&mut CreateMonitoredItem],
    ) -> Result<(), StatusCode> {
        saw_session(context.session_id);
        self.create_items(context, items).await;
        Ok(())
    }

    async fn modify_monitored_items(&self, context: &RequestContext, items: &[&MonitoredItemUpdateRef]) {
        saw_session(context.session_id);
        self.modify_items(context, items);
    }

    async fn set_monitoring_mode(&self, _: &RequestContext, mode: MonitoringMode, items: &[&MonitoredItemRef]) {
        for item in items {
            if let Some((_, da, _)) = self.find(item.node_id()) {
                da.items.enable(item.handle(), mode != MonitoringMode::Disabled);
            }
        }
    }

    async fn delete_monitored_items(&self, context: &RequestContext, items: &[&MonitoredItemRef]) {
        for item in items {
            if let Some((_, da, _)) = self.find(item.node_id()) {
                da.items.leave(item.handle());
            }
        }
        monitored::tidied(context).await;
    }
}

impl RelayNodes {
    /// Follows a browse path from a node of ours, or from Objects, to its end: no node of another manager lies below ours.
    async fn translate(&self, types: &DefaultTypeTree, item: &mut BrowsePathItem<'_>) {
        let mut reached: Vec<NodeId> = Vec::new();
        let path = item.path();
        let is_objects = *item.node_id() == ObjectId::ObjectsFolder;
        if item.unmatched_browse_name().is_some() {
            return;
        }
        if !is_objects {
            if !self.owns_node(item.node_id()) {
                return;
            }
            if self.find(item.node_id()).is_none() {
                return item.set_status(StatusCode::BadNodeIdUnknown);
            }
            reached.push(item.node_id().clone());
        }
        for (depth, element) in path.iter().enumerate() {
            if depth == 0 && is_objects {
                let organizes = NodeId::from(ReferenceTypeId::Organizes);
                let wanted = &element.reference_type_id;
                let fits = wanted.is_null()
                    || *wanted == organizes
                    || element.include_subtypes && types.is_subtype_of(&organizes, wanted);
                let folders =
                    below_objects(&self.das).into_iter().filter(|folder| folder.browse_name == element.target_name);
                reached.extend(folders.filter(|_| fits && !element.is_inverse).map(|folder| folder.node_id.node_id));
                continue;
            }
            let mut next = Vec::new();
            for node in &reached {
                let Some((namespace, da, address)) = self.find(node) else { continue };
                match da.follow(namespace, &address, element, types).await {
                    Ok(found) => next.extend(found),
                    Err(status) if !is_objects => return item.set_status(status),
                    Err(_) => {}
                }
            }
            reached = next;
        }
        let depth = path.len();
        for node in reached {
            item.add_element(node, depth, None);
        }
    }
}
