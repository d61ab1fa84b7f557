//! A look at the server: which node is behind each tag that has none yet, and what the rules find.
//!
//! It knows the configuration and the connection only, so that writes are answered while it takes its time.

use super::config::RuleConfig;
use super::learn::{self, Learned, Types, learn};
use super::rules::{self, Harvest};
use crate::opcua::client::{Connection, NodeRef, ServiceError};
use ::opcua::types::{NodeId, StatusCode};
use tracing::debug;

/// What is to be found out.
pub(super) struct Task {
    /// Rows of tags whose node is not known, or was not there.
    pub tags: Vec<(usize, NodeRef)>,
    /// Rows that have items. Some servers take a node away and do not say so on its items.
    pub monitored: Vec<(usize, NodeId)>,
    /// Rules with their numbers.
    pub rules: Vec<(usize, RuleConfig)>,
    pub types: Types,
}

/// The node behind a tag, or why there is none.
pub(super) type SeenTag = Result<(NodeId, Learned), StatusCode>;

pub(super) struct Seen {
    pub tags: Vec<(usize, SeenTag)>,
    /// Rows that are monitored, and whose nodes are not there any more.
    pub gone: Vec<usize>,
    pub rules: Vec<(usize, Result<Harvest, ServiceError>)>,
    pub types: Types,
}

/// Errors are those after which the session is of no use.
pub(super) async fn look(connection: &Connection, task: Task) -> Result<Seen, ServiceError> {
    let Task { tags, monitored, rules, mut types } = task;
    match connection.renew_namespaces().await {
        Err(error) if is_fatal(error.status) || error.status == StatusCode::BadInvalidState => return Err(error),
        Err(error) => debug!(%error, "The namespaces from before hold."),
        Ok(()) => {}
    }
    let (rows, nodes): (Vec<usize>, Vec<NodeRef>) = tags.into_iter().unzip();
    let resolved = connection.resolve_all(&nodes).await?;
    let known: Vec<NodeId> = resolved.iter().filter_map(|node| node.as_ref().ok().cloned()).collect();
    let mut learned = learn(connection, &mut types, &known).await?.into_iter();
    let with_learned = |node: Result<NodeId, StatusCode>| {
        let node = node?;
        let learned = learned.next().unwrap_or(Err(StatusCode::BadNoMatch))?;
        Ok((node, learned))
    };
    let tags = rows.into_iter().zip(resolved.into_iter().map(with_learned)).collect();
    let gone = learn::gone(connection, &monitored).await?;
    let mut harvests = Vec::with_capacity(rules.len());
    for (number, rule) in rules {
        let harvest = match rules::follow(connection, &mut types, &rule).await {
            Ok(harvest) => harvest.map_err(|status| ServiceError {
                service: "Browse",
                status,
                detail: format!("of {}", rule.below),
            }),
            Err(error) if is_fatal(error.status) => return Err(error),
            Err(error) => Err(error),
        };
        harvests.push((number, harvest));
    }
    Ok(Seen { tags, gone, rules: harvests, types })
}

/// Whether a session that answers so is over, or had better be.
pub(super) fn is_fatal(status: StatusCode) -> bool {
    use StatusCode as Code;
    let fatal = [
        Code::BadSessionIdInvalid,
        Code::BadSessionClosed,
        Code::BadSessionNotActivated,
        Code::BadConnectionClosed,
        Code::BadCommunicationError,
        Code::BadNotConnected,
        Code::BadSecureChannelClosed,
        Code::BadSecureChannelIdInvalid,
        Code::BadServerHalted,
        Code::BadShutdown,
        Code::BadTimeout,
    ];
    fatal.contains(&status)
}
