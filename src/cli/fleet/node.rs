//! Nodes as somebody writes them at a shell, and finding those that are meant.

use super::super::glob::Glob;
use super::super::remote::Failure;
use super::broker::{Broker, explain};
use super::host::{Host, Limits};
use super::session;
use crate::mqtt::sparkplug::SparkplugId;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// One node, by its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub group: String,
    pub node: String,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.group, self.node)
    }
}

/// `group/node`, `node`, or either as a pattern.
#[derive(Clone, Debug)]
pub(super) struct Written {
    group: Option<String>,
    node: String,
}

/// For clap.
pub(super) fn parse(text: &str) -> Result<Written, String> {
    let (group, node) = match text.split_once('/') {
        Some((group, node)) => (Some(group), node),
        None => (None, text),
    };
    for id in group.iter().chain([&node]) {
        SparkplugId::new(id).map_err(|error| format!("{error}; write GROUP/NODE, or NODE"))?;
    }
    Ok(Written { group: group.map(str::to_owned), node: node.to_owned() })
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{group}/{}", self.node),
            None => f.write_str(&self.node),
        }
    }
}

impl Written {
    /// The node, if it is written in full.
    pub(super) fn address(&self) -> Option<Address> {
        let group = self.group.clone().filter(|group| !is_pattern(group))?;
        (!is_pattern(&self.node)).then(|| Address { group, node: self.node.clone() })
    }

    fn fits(&self, group: &str, node: &str) -> bool {
        let fits = |pattern: &str, text: &str| match is_pattern(pattern) {
            true => pattern.parse::<Glob>().is_ok_and(|glob| glob.fits(text)),
            false => pattern == text,
        };
        self.group.as_deref().is_none_or(|pattern| fits(pattern, group)) && fits(&self.node, node)
    }

    /// What to listen to.
    fn filters(&self) -> Vec<String> {
        let level = |text: &str| if is_pattern(text) { "+".to_owned() } else { text.to_owned() };
        let group = self.group.as_deref().map(level);
        let node = level(&self.node);
        session::node(group.as_deref(), &node)
    }
}

/// All nodes that are meant. Those that are not written in full have to be heard, for which there is `time`.
pub(super) async fn find(broker: &Broker, written: &Written, time: Duration) -> Result<Vec<Address>, Failure> {
    if let Some(address) = written.address() {
        return Ok(vec![address]);
    }
    // Only listening: who is to be told something need not be born anew for it.
    let mut session = broker.open_quietly(Limits::FLEET, written.filters()).await?;
    let until = Instant::now() + time;
    let mut found = BTreeSet::new();
    while let Some(received) = session.next_until(until).await.map_err(|error| Failure::failed(explain(&error)))? {
        if let Some((group, node)) = Host::speaker(&received.topic)
            && written.fits(group, node)
        {
            found.insert(Address { group: group.to_owned(), node: node.to_owned() });
        }
    }
    if found.is_empty() {
        return Err(Failure::failed(format!(
            "{written}: nothing was heard of such a node within {} s\nwrite GROUP/NODE to do without listening, or listen longer \
             with --for; `vedette fleet ls` shows who speaks",
            time.as_secs_f64()
        )));
    }
    Ok(found.into_iter().collect())
}

/// The one node that is meant.
pub(super) async fn find_one(broker: &Broker, written: &Written, time: Duration) -> Result<Address, Failure> {
    let mut found = find(broker, written, time).await?;
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (_, others) => Err(Failure::Wrong(format!("{written}: {} nodes are called so; write GROUP/NODE", others + 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_written_in_full_or_in_part() {
        let full = parse("Plant 1/line1").unwrap();
        assert_eq!(full.address().unwrap().to_string(), "Plant 1/line1");
        assert!(full.fits("Plant 1", "line1") && !full.fits("Plant 2", "line1") && !full.fits("Plant 1", "LINE1"));
        for (text, filter, fits) in [
            ("line1", "spBv1.0/+/+/line1/#", true),
            ("line*", "spBv1.0/+/+/+/#", true),
            ("Plant*/line?", "spBv1.0/+/+/+/#", true),
            ("Plant 1/*", "spBv1.0/Plant 1/+/+/#", true),
            ("line2", "spBv1.0/+/+/line2/#", false),
        ] {
            let written = parse(text).unwrap();
            assert_eq!(written.filters(), [filter], "{text}");
            assert_eq!((written.address(), written.fits("Plant 1", "line1")), (None, fits), "{text}");
        }
        for wrong in ["", "/", "a/", "/b", "a/b/c", "a/#", "+"] {
            assert!(parse(wrong).unwrap_err().contains("write GROUP/NODE"), "{wrong}");
        }
    }
}
