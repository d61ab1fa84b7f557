//! Through an address space, depth first, in the order in which a tree is printed.
//!
//! Siblings are asked for their children some at a time, so that a tree of ten thousand nodes takes hundreds of requests and
//! its first lines are there after the first. References may lead in circles: a node is opened once, and named wherever it
//! is met. Held are the siblings on the way down and the ids of what was seen, no more than [`MOST`].

use super::Reading;
use crate::cli::glob::Glob;
use crate::cli::show;
use crate::opcua::client::{Child, Connection, ServiceError, children};
use opcua::types::{AttributeId, NodeClass, NodeId, ObjectId, QualifiedName, ReadValueId, StatusCode};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// Asked for at once. Small enough that the first lines come soon.
const SOME: usize = 100;
/// Then a server makes up nodes as it is asked.
const MOST: usize = 5_000_000;

pub(in crate::cli) struct Walk<'a> {
    connection: &'a Connection,
    levels: Vec<Level>,
    seen: HashSet<NodeId>,
    depth: usize,
    /// The Server object's inside is the same everywhere and larger than most address spaces.
    is_all: bool,
    has_values: bool,
}

struct Level {
    path: String,
    /// Browse names from where the walk began.
    way: Vec<String>,
    siblings: std::vec::IntoIter<Child>,
    ready: VecDeque<Ready>,
}

struct Ready {
    child: Child,
    below: Below,
    children: Vec<Child>,
    reading: Option<Reading>,
}

/// What is below a node.
#[derive(Debug)]
pub(in crate::cli) enum Below {
    /// So many children, which come next.
    Open(usize),
    /// Not looked at: too deep.
    Deep,
    /// It was opened elsewhere.
    Seen,
    /// Left closed; `--all` opens it.
    Closed,
    /// The server did not say.
    Refused(StatusCode),
}

pub(in crate::cli) struct Found {
    pub child: Child,
    /// From the root, as a NODE is written.
    pub path: String,
    /// The browse names from where the walk began, with its own.
    pub way: Vec<String>,
    /// 1 is directly below where the walk began.
    pub depth: usize,
    pub below: Below,
    /// Of a variable, if values were asked for.
    pub reading: Option<Reading>,
}

impl Found {
    /// By browse name, display name, NodeId, or path with dots.
    pub(in crate::cli) fn fits(&self, filter: &Glob) -> bool {
        let (id, dotted) = (self.child.node.to_string(), self.way.join("."));
        [self.child.name.name.as_ref(), &self.child.display_name, &id, &dotted]
            .into_iter()
            .any(|text| filter.fits(text))
    }
}

impl<'a> Walk<'a> {
    /// What is below a node whose path and children are known.
    pub(in crate::cli) fn new(connection: &'a Connection, path: String, start: Vec<Child>, depth: usize) -> Self {
        let level = Level { path, way: Vec::new(), siblings: start.into_iter(), ready: VecDeque::new() };
        Self { connection, levels: vec![level], seen: HashSet::new(), depth, is_all: false, has_values: false }
    }

    /// The Server object as well.
    pub(in crate::cli) fn all(self, is_all: bool) -> Self {
        Self { is_all, ..self }
    }

    /// Reads the variables on the way.
    pub(in crate::cli) fn values(self, has_values: bool) -> Self {
        Self { has_values, ..self }
    }

    /// The next node in the order of the tree; none at the end.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<Found>, ServiceError> {
        loop {
            let depth = self.levels.len();
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            if let Some(Ready { child, below, children, reading }) = level.ready.pop_front() {
                let path = format!("{}/{}", level.path, step(&child.name));
                let mut way = level.way.clone();
                way.push(child.name.name.to_string());
                if !children.is_empty() {
                    let (path, way, siblings) = (path.clone(), way.clone(), children.into_iter());
                    self.levels.push(Level { path, way, siblings, ready: VecDeque::new() });
                }
                return Ok(Some(Found { child, path, way, depth, below, reading }));
            }
            let some: Vec<Child> = level.siblings.by_ref().take(SOME).collect();
            if some.is_empty() {
                self.levels.pop();
                continue;
            }
            let readings = self.readings(&some).await?;
            let below = self.below(&some, depth).await?;
            let ready = some.into_iter().zip(below).zip(readings).map(|((child, (below, children)), reading)| Ready {
                child,
                below,
                children,
                reading,
            });
            if let Some(level) = self.levels.last_mut() {
                level.ready.extend(ready);
            }
        }
    }

    async fn below(&mut self, some: &[Child], depth: usize) -> Result<Vec<(Below, Vec<Child>)>, ServiceError> {
        let server = NodeId::from(ObjectId::Server);
        let mut wanted = Vec::new();
        let judge = |child: &Child| {
            if depth >= self.depth || self.seen.len() >= MOST {
                return Some(Below::Deep);
            }
            if child.node == server && !self.is_all {
                return Some(Below::Closed);
            }
            if !self.seen.insert(child.node.clone()) {
                return Some(Below::Seen);
            }
            wanted.push(children(child.node.clone()));
            None
        };
        let judged: Vec<Option<Below>> = some.iter().map(judge).collect();
        let mut found = self.connection.browse(&wanted).await?.into_iter();
        let open = |judged: Option<Below>| match judged {
            Some(below) => (below, Vec::new()),
            None => match found.next() {
                Some(Ok(children)) => (Below::Open(children.len()), children),
                Some(Err(status)) => (Below::Refused(status), Vec::new()),
                None => (Below::Open(0), Vec::new()),
            },
        };
        Ok(judged.into_iter().map(open).collect())
    }

    async fn readings(&self, some: &[Child]) -> Result<Vec<Option<Reading>>, ServiceError> {
        let is_read = |child: &&Child| self.has_values && child.class == NodeClass::Variable;
        let value = |child: &Child| ReadValueId {
            node_id: child.node.clone(),
            attribute_id: AttributeId::Value as u32,
            ..Default::default()
        };
        let wanted: Vec<ReadValueId> = some.iter().filter(is_read).map(value).collect();
        let mut found = self.connection.read(&wanted, Duration::ZERO).await?.into_iter();
        Ok(some
            .iter()
            .map(|child| is_read(&child).then(|| found.next()).flatten().as_ref().map(Reading::from))
            .collect())
    }
}

/// A browse name as part of a path that is read back as it was written: `2:Line 1`.
pub(in crate::cli) fn step(name: &QualifiedName) -> String {
    let mut text = match name.namespace_index {
        0 => String::new(),
        namespace => format!("{namespace}:"),
    };
    for c in name.name.as_ref().chars() {
        if matches!(c, '/' | '&' | ':') {
            text.push('&');
        }
        text.push(c);
    }
    show::printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opcua::client::NodeRef;

    #[test]
    fn a_path_is_read_back_as_it_was_written() {
        for (namespace, name) in [(2, "Line 1"), (0, "Objects"), (0, "1:2"), (3, "a/b&c:d"), (0, "/")] {
            let text = format!("/{}", step(&QualifiedName::new(namespace, name)));
            let NodeRef::Path(steps) = NodeRef::parse(&text).unwrap() else { panic!("{text}") };
            assert_eq!(steps.len(), 1, "{text}");
            assert_eq!((steps[0].namespace.unwrap_or(0), steps[0].name.as_str()), (namespace, name));
        }
    }
}
