//! What the crate asks when it parses and evaluates event filters, answered where it would go wrong; and which sessions
//! have subscriptions, which it tells by asking.
//!
//! The crate (0.19) leaves a select clause that it does not accept out of the list, so that all fields behind it are shifted
//! in every event; the standard wants a null in its place (OPC 10000-4, 7.22.3). And it accepts only fields that the
//! named type has itself, not those it inherits. So here each field is known of each type that is known: what an event
//! does not have is null. The price is that a misspelt field is null instead of BadNodeIdUnknown.

use ::opcua::nodes::{DefaultTypeTree, NamespaceMap, TypeProperty, TypeTree, TypeTreeNode};
use ::opcua::server::node_manager::{RequestContext, TypeTreeForUser, TypeTreeForUserStatic, TypeTreeReadContext};
use ::opcua::sync::RwLock;
use ::opcua::types::{NodeClass, NodeId, QualifiedName};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

/// The sessions that may have subscriptions. The crate shows subscriptions by session only, and no list of sessions; but it
/// asks for the types of each session that begins to have some.
#[derive(Default)]
pub(in crate::sinks::ua_server) struct Subscribers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By session: which announcement it was, so that one that comes while the session is forgotten is kept.
    known: HashMap<u32, u64>,
    count: u64,
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds the sessions panics")
    }

    fn add(&self, session: u32) {
        let mut state = self.lock();
        state.count += 1;
        let count = state.count;
        state.known.insert(session, count);
    }

    /// Each with its announcement.
    pub(in crate::sinks::ua_server) fn all(&self) -> Vec<(u32, u64)> {
        self.lock().known.iter().map(|(session, announcement)| (*session, *announcement)).collect()
    }

    /// It has no subscriptions any more, as of that announcement.
    pub(super) fn forget(&self, (session, announcement): (u32, u64)) {
        let known = &mut self.lock().known;
        if known.get(&session) == Some(&announcement) {
            known.remove(&session);
        }
    }
}

impl TypeTreeForUser for Subscribers {
    fn get_type_tree_for_user<'a>(&'a self, context: &'a RequestContext) -> Box<dyn TypeTreeReadContext + 'a> {
        Box::new(Reader(context.type_tree.read()))
    }

    /// Called when a session gets its first subscription, by creation or transfer.
    fn get_type_tree_static(&self, context: &RequestContext) -> Arc<dyn TypeTreeForUserStatic> {
        self.add(context.session_id);
        Arc::new(Shared(context.type_tree.clone()))
    }
}

struct Shared(Arc<RwLock<DefaultTypeTree>>);

impl TypeTreeForUserStatic for Shared {
    fn get_type_tree<'a>(&'a self) -> Box<dyn TypeTreeReadContext + 'a> {
        Box::new(Reader(self.0.read()))
    }
}

/// The types, with a lock on them.
pub(super) struct Reader<G>(pub(super) G);

impl<G: Deref<Target = DefaultTypeTree>> TypeTreeReadContext for Reader<G> {
    fn get(&self) -> &dyn TypeTree {
        self
    }
}

fn property(node_class: NodeClass) -> TypeProperty {
    TypeProperty { node_id: NodeId::null(), node_class }
}

static VARIABLE: LazyLock<TypeProperty> = LazyLock::new(|| property(NodeClass::Variable));
static OBJECT: LazyLock<TypeProperty> = LazyLock::new(|| property(NodeClass::Object));

impl<G: Deref<Target = DefaultTypeTree>> TypeTree for Reader<G> {
    fn find_type_prop_by_browse_path(&self, type_id: &NodeId, path: &[QualifiedName]) -> Option<&TypeProperty> {
        let own = self.0.find_type_prop_by_browse_path(type_id, path);
        if own.is_some() || !(type_id.is_null() || self.0.get(type_id).is_some()) {
            return own;
        }
        // An empty path is the event itself: of a condition its ConditionId (OPC 10000-9, 5.5.2).
        Some(if path.is_empty() { &OBJECT } else { &VARIABLE })
    }

    fn is_subtype_of(&self, child: &NodeId, ancestor: &NodeId) -> bool {
        self.0.is_subtype_of(child, ancestor)
    }

    fn get_node<'a>(&'a self, node: &NodeId) -> Option<TypeTreeNode<'a>> {
        self.0.get_node(node)
    }

    fn get(&self, node: &NodeId) -> Option<NodeClass> {
        self.0.get(node)
    }

    fn get_supertype<'a>(&'a self, node: &NodeId) -> Option<&'a NodeId> {
        self.0.get_supertype(node)
    }

    fn namespaces(&self) -> &NamespaceMap {
        self.0.namespaces()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::opcua::types::ObjectTypeId;

    #[test]
    fn every_field_is_known_of_every_type_that_is_known() {
        let tree = DefaultTypeTree::new();
        let reader = Reader(&tree);
        let class = |of: NodeId, path: &[&str]| {
            let path: Vec<QualifiedName> = path.iter().map(|name| (*name).into()).collect();
            reader.find_type_prop_by_browse_path(&of, &path).map(|property| property.node_class)
        };
        let known = NodeId::from(ObjectTypeId::BaseObjectType);
        assert_eq!(class(known.clone(), &["Severity"]), Some(NodeClass::Variable));
        assert_eq!(class(known, &[]), Some(NodeClass::Object));
        assert_eq!(class(NodeId::null(), &["Severity"]), Some(NodeClass::Variable));
        assert_eq!(class(NodeId::new(7, "unknown"), &["Severity"]), None);
    }

    #[test]
    fn a_session_that_is_announced_again_is_not_forgotten() {
        let sessions = Subscribers::default();
        sessions.add(5);
        let first = sessions.all()[0];
        sessions.add(5);
        sessions.forget(first);
        assert_eq!(sessions.all().len(), 1);
        sessions.forget(sessions.all()[0]);
        assert!(sessions.all().is_empty());
    }
}
