//! What is below nodes, however many pieces the server gives it in.
//!
//! A server holds only so many continuation points for a session (OPC 10000-4, 5.9.3). Where it runs out of them the nodes
//! that got none are asked for again, one by one. What a server can make us hold is bounded.

use super::connection::Connection;
use super::error::ServiceError;
use opcua::types::{
    BrowseDescription, BrowseDirection, BrowseResult, BrowseResultMask, ByteString, NodeClass, NodeClassMask, NodeId,
    ReferenceDescription, ReferenceTypeId, StatusCode,
};

/// The far end of a forward reference, on this server.
#[derive(Clone, Debug)]
pub struct Child {
    pub node: NodeId,
    pub name: opcua::types::QualifiedName,
    pub display_name: String,
    pub class: NodeClass,
    pub reference: NodeId,
    pub type_definition: NodeId,
}

/// Of one node. More is cut off.
const MOST_REFERENCES: usize = 500_000;
/// Answers to BrowseNext that bring nothing.
const MOST_EMPTY: usize = 10;

/// What [`Connection::browse`] is asked for of each node: hierarchical references forward, to nodes of any class.
pub fn children(node: NodeId) -> BrowseDescription {
    BrowseDescription {
        node_id: node,
        browse_direction: BrowseDirection::Forward,
        reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
        include_subtypes: true,
        node_class_mask: NodeClassMask::empty().bits(),
        result_mask: BrowseResultMask::All as u32,
    }
}

impl Connection {
    /// The children of each, in the order of the question, or the status with which the server refused that node. Nodes on
    /// other servers are left out.
    pub async fn browse(
        &self,
        wanted: &[BrowseDescription],
    ) -> Result<Vec<Result<Vec<Child>, StatusCode>>, ServiceError> {
        let mut results = Vec::with_capacity(wanted.len());
        // So many nodes at once that each can have a continuation point.
        let at_once = self.limits().browse.get().min(self.limits().continuation_points).max(1);
        for some in wanted.chunks(at_once) {
            let mut found = self.browse_some(some).await?;
            for (one, result) in some.iter().zip(&mut found) {
                if matches!(result, Err(StatusCode::BadNoContinuationPoints)) {
                    *result = self.browse_some(std::slice::from_ref(one)).await?.pop().unwrap_or(Ok(Vec::new()));
                }
            }
            results.extend(found);
        }
        Ok(results)
    }

    async fn browse_some(
        &self,
        wanted: &[BrowseDescription],
    ) -> Result<Vec<Result<Vec<Child>, StatusCode>>, ServiceError> {
        let session = &self.session;
        let call = |some: Vec<_>| async move { session.browse(&some, 0, None).await };
        let first = self.limits().browse.chunked("Browse", wanted, call).await?;
        let mut open: Vec<(usize, ByteString)> = Vec::new();
        let mut results: Vec<Result<Vec<Child>, StatusCode>> = Vec::with_capacity(first.len());
        for (index, BrowseResult { status_code, continuation_point, references }) in first.into_iter().enumerate() {
            if !continuation_point.is_null_or_empty() {
                open.push((index, continuation_point));
            }
            results.push(if status_code.is_bad() { Err(status_code) } else { Ok(local(references, self)) });
        }
        let mut empty = 0;
        while !open.is_empty() {
            let points: Vec<ByteString> = open.iter().map(|(_, point)| point.clone()).collect();
            let call = |some: Vec<_>| async move { session.browse_next(false, &some).await };
            let next = self.limits().browse.chunked("BrowseNext", &points, call).await?;
            let mut still = Vec::new();
            let mut is_empty = true;
            for ((index, _), BrowseResult { status_code, continuation_point, references }) in open.into_iter().zip(next)
            {
                let Ok(so_far) = &mut results[index] else { continue };
                if status_code.is_bad() {
                    results[index] = Err(status_code);
                    continue;
                }
                let more = local(references, self);
                is_empty &= more.is_empty();
                so_far.extend(more);
                if !continuation_point.is_null_or_empty() {
                    still.push((index, continuation_point));
                }
            }
            empty = if is_empty { empty + 1 } else { 0 };
            let is_enough = |(index, _): &(usize, ByteString)| {
                results[*index].as_ref().is_ok_and(|children| children.len() > MOST_REFERENCES)
            };
            if empty > MOST_EMPTY || still.iter().any(is_enough) {
                let points: Vec<ByteString> = still.into_iter().map(|(_, point)| point).collect();
                if !points.is_empty() {
                    // They are released, or time out with the session.
                    let _ = session.browse_next(true, &points).await;
                }
                break;
            }
            open = still;
        }
        Ok(results)
    }
}

fn local(references: Option<Vec<ReferenceDescription>>, connection: &Connection) -> Vec<Child> {
    let namespaces = connection.namespaces();
    let child = |reference: ReferenceDescription| {
        let node = namespaces.local(&reference.node_id)?;
        Some(Child {
            node,
            name: reference.browse_name,
            display_name: reference.display_name.text.to_string(),
            class: reference.node_class,
            reference: reference.reference_type_id,
            type_definition: namespaces.local(&reference.type_definition).unwrap_or_default(),
        })
    };
    references.into_iter().flatten().filter_map(child).collect()
}
