//! The variables below a node: what `[[ua_client.rule]]` finds.
//!
//! Level by level, each node once, whatever circles the server's references make. Properties are left out, and the Server
//! object, which every server has and which is about itself. How much is held is bounded, however large the server is.

use super::config::{RuleConfig, data_type};
use super::learn::{Learned, Types, learn};
use crate::base::selection::is_like;
use crate::model::DataType;
use crate::opcua::client::{Connection, NodeRef, ServiceError, children, segment};
use ::opcua::types::{NodeClass, NodeId, ObjectId, ReferenceTypeId, StatusCode};
use std::collections::HashSet;

/// A variable that a rule has found.
pub(super) struct Found {
    /// What it would be called below the folder of the source if all names were free.
    pub path: String,
    pub node: NodeId,
    /// [`crate::opcua::client::Namespaces::identity`].
    pub identity: String,
    pub learned: Learned,
}

/// What became of a rule.
pub(super) struct Harvest {
    pub found: Vec<Found>,
    pub rest: Option<Rest>,
}

/// Why there is more than it was given.
#[derive(Clone, Copy)]
pub(super) enum Rest {
    TooMany,
    TooDeep,
}

/// Looked at for one rule.
const MOST_NODES: usize = 500_000;
/// A tag's name has 32 segments at most.
pub(super) const DEEPEST: usize = 30;
/// Browsed before the next are.
const AT_ONCE: usize = 1000;

/// What is there now; an error of the inner kind if the node where it begins is not.
pub(super) async fn follow(
    connection: &Connection,
    types: &mut Types,
    rule: &RuleConfig,
) -> Result<Result<Harvest, StatusCode>, ServiceError> {
    let below = NodeRef::parse(&rule.below).expect("the configuration was checked");
    let start = match connection.resolve_all(&[below]).await?.pop() {
        Some(Ok(start)) => start,
        Some(Err(status)) => return Ok(Err(status)),
        None => return Ok(Err(StatusCode::BadNoMatch)),
    };
    let (candidates, mut rest) = match variables(connection, rule, start).await? {
        Ok(found) => found,
        Err(status) => return Ok(Err(status)),
    };
    let (paths, nodes): (Vec<String>, Vec<NodeId>) = candidates.into_iter().unzip();
    let learned = learn(connection, types, &nodes).await?;
    let wanted: Vec<DataType> = rule.types.iter().filter_map(|name| data_type(name)).collect();
    let fits = |learned: &Learned| wanted.is_empty() || wanted.contains(&learned.data_type);
    let namespaces = connection.namespaces();
    let one = |((path, node), learned): ((String, NodeId), Result<Learned, StatusCode>)| {
        let learned = learned.ok().filter(fits)?;
        let path = rule.folder.as_ref().map_or(path.clone(), |folder| format!("{folder}/{path}"));
        Some(Found { path, identity: namespaces.identity(&node), node, learned })
    };
    let mut found: Vec<Found> = paths.into_iter().zip(nodes).zip(learned).filter_map(one).collect();
    if found.len() > rule.at_most {
        rest = Some(Rest::TooMany);
    }
    found.truncate(rule.at_most);
    Ok(Ok(Harvest { found, rest }))
}

type Candidates = (Vec<(String, NodeId)>, Option<Rest>);

/// Paths and nodes of variables that the pattern fits, and why there are more.
async fn variables(
    connection: &Connection,
    rule: &RuleConfig,
    start: NodeId,
) -> Result<Result<Candidates, StatusCode>, ServiceError> {
    // Types are known later, so all that have another would count.
    let most = if rule.types.is_empty() { rule.at_most } else { MOST_NODES };
    let mut seen: HashSet<NodeId> = HashSet::from([start.clone(), ObjectId::Server.into()]);
    let mut level: Vec<(String, NodeId)> = vec![(String::new(), start)];
    let mut found = Vec::new();
    for depth in 0..DEEPEST {
        let mut next = Vec::new();
        for some in level.chunks(AT_ONCE) {
            let wanted: Vec<_> = some.iter().map(|(_, node)| children(node.clone())).collect();
            for ((path, _), answer) in some.iter().zip(connection.browse(&wanted).await?) {
                let children = match answer {
                    Ok(children) => children,
                    Err(status) if depth == 0 => return Ok(Err(status)),
                    // A part of the tree that we may not see, or that has just gone.
                    Err(_) => continue,
                };
                for child in children {
                    let is_property = child.reference == ReferenceTypeId::HasProperty;
                    let is_wanted = matches!(child.class, NodeClass::Object | NodeClass::Variable) && !is_property;
                    if !is_wanted || seen.len() >= MOST_NODES || !seen.insert(child.node.clone()) {
                        continue;
                    }
                    let name = segment(child.name.name.as_ref());
                    let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                    let fits =
                        rule.pattern.as_ref().is_none_or(|pattern| is_like(pattern, &name) || is_like(pattern, &path));
                    if child.class == NodeClass::Variable && fits {
                        if found.len() >= most {
                            return Ok(Ok((found, Some(Rest::TooMany))));
                        }
                        found.push((path.clone(), child.node.clone()));
                    }
                    next.push((path, child.node));
                }
            }
        }
        level = next;
        if level.is_empty() {
            break;
        }
    }
    let rest = match (seen.len() >= MOST_NODES, level.is_empty()) {
        (true, _) => Some(Rest::TooMany),
        (_, false) => Some(Rest::TooDeep),
        (false, true) => None,
    };
    Ok(Ok((found, rest)))
}
