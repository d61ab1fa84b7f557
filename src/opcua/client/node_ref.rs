//! How people write nodes: `nsu=urn:plant;s=Line1.Speed`, `ns=2;i=5`, `i=2258`, or a path, `/Objects/2:Line 1/Speed`.
//!
//! A namespace's URI is the same after a restart of the server, its index need not be (OPC 10000-3, 8.2.2). In a path a name
//! without an index fits in any namespace, and `&` makes the character after it an ordinary one (OPC 10000-4, A.2).

use super::browse::children;
use super::connection::Connection;
use super::error::ServiceError;
use opcua::types::{
    BrowseDescription, ByteString, ExpandedNodeId, Guid, Identifier, NodeId, ObjectId, QualifiedName, StatusCode,
};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;

/// A node as somebody wrote it.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeRef {
    Id {
        namespace: Namespace,
        identifier: Identifier,
    },
    /// From the root folder, or from Objects if it does not begin with the name of one of the root's folders.
    Path(Vec<Step>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Namespace {
    Index(u16),
    Uri(String),
}

/// A browse name on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// `None`: any.
    pub namespace: Option<u16>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no node ({reason}); write \"nsu=urn:plant;s=Line1\", \"ns=2;i=5\", \"i=2258\" or a path, \
     \"/Objects/2:Line 1/Speed\""
)]
pub struct NodeRefError {
    text: String,
    reason: &'static str,
}

/// The server's NamespaceArray.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<String>);

impl Namespaces {
    /// Whether all that was known of `earlier` still holds: a server may add namespaces at the end while it runs.
    pub(super) fn continues(&self, earlier: &Self) -> bool {
        self.0.starts_with(&earlier.0)
    }

    pub(super) fn new(uris: impl Iterator<Item = String>) -> Self {
        Self(uris.take(usize::from(u16::MAX)).collect())
    }

    pub fn index(&self, uri: &str) -> Option<u16> {
        self.0.iter().position(|one| one == uri).and_then(|index| u16::try_from(index).ok())
    }

    pub fn uri(&self, index: u16) -> Option<&str> {
        self.0.get(usize::from(index)).map(String::as_str)
    }

    /// As [`NodeRef::parse`] reads it back, also when the indices have changed.
    pub fn write(&self, node: &NodeId) -> String {
        let uri = self.uri(node.namespace).filter(|uri| !uri.contains(';'));
        text(node, uri)
    }

    /// The same for one node whatever the indices are, and different for each two. Not to be read back.
    pub fn identity(&self, node: &NodeId) -> String {
        // OPC 10000-6, 5.3.1.11.
        let uri = self.uri(node.namespace).map(|uri| uri.replace('%', "%25").replace(';', "%3B"));
        text(node, uri.as_deref())
    }

    /// `None` if it is on another server, or in a namespace that this server does not know.
    pub fn local(&self, node: &ExpandedNodeId) -> Option<NodeId> {
        if node.server_index != 0 {
            return None;
        }
        match node.namespace_uri.value() {
            None => Some(node.node_id.clone()),
            Some(uri) if uri.is_empty() => Some(node.node_id.clone()),
            Some(uri) => Some(NodeId { namespace: self.index(uri)?, identifier: node.node_id.identifier.clone() }),
        }
    }
}

fn text(node: &NodeId, uri: Option<&str>) -> String {
    let mut text = match (node.namespace, uri) {
        (0, _) => String::new(),
        (_, Some(uri)) if !uri.is_empty() => format!("nsu={uri};"),
        (index, _) => format!("ns={index};"),
    };
    // Writing to a String cannot fail.
    let _ = match &node.identifier {
        Identifier::Numeric(v) => write!(text, "i={v}"),
        Identifier::String(v) => write!(text, "s={v}"),
        Identifier::Guid(v) => write!(text, "g={v}"),
        Identifier::ByteString(v) => write!(text, "b={}", v.as_base64()),
    };
    text
}

impl NodeRef {
    pub fn parse(text: &str) -> Result<Self, NodeRefError> {
        let wrong = |reason| NodeRefError { text: text.into(), reason };
        if let Some(rest) = text.strip_prefix("nsu=") {
            let split = rest.split_once(';').filter(|(uri, _)| !uri.is_empty());
            let (uri, rest) = split.ok_or_else(|| wrong("after nsu= comes a URI and a semicolon"))?;
            let identifier = identifier(rest).ok_or_else(|| wrong("its identifier is not understood"))?;
            return Ok(Self::Id { namespace: Namespace::Uri(uri.into()), identifier });
        }
        if let Some(rest) = text.strip_prefix("ns=") {
            let (index, rest) =
                rest.split_once(';').ok_or_else(|| wrong("after ns= comes a number and a semicolon"))?;
            let index = index.parse().map_err(|_| wrong("the namespace is no number up to 65535"))?;
            let identifier = identifier(rest).ok_or_else(|| wrong("its identifier is not understood"))?;
            return Ok(Self::Id { namespace: Namespace::Index(index), identifier });
        }
        if let Some(identifier) = identifier(text) {
            return Ok(Self::Id { namespace: Namespace::Index(0), identifier });
        }
        let steps = steps(text).map_err(wrong)?;
        if steps.is_empty() {
            return Err(wrong("it is empty"));
        }
        Ok(Self::Path(steps))
    }
}

fn identifier(text: &str) -> Option<Identifier> {
    let (kind, value) = text.split_once('=')?;
    Some(match kind {
        "i" => Identifier::Numeric(value.parse().ok()?),
        "s" if !value.is_empty() => Identifier::String(value.into()),
        "g" => Identifier::Guid(Guid::from_str(value).ok()?),
        "b" => Identifier::ByteString(ByteString::from_base64(value)?),
        _ => return None,
    })
}

fn steps(text: &str) -> Result<Vec<Step>, &'static str> {
    let mut steps = Vec::new();
    // The name so far, and the index before its colon.
    let (mut namespace, mut name) = (None, String::new());
    let mut characters = text.strip_prefix('/').unwrap_or(text).chars();
    let mut is_escaped = false;
    loop {
        match characters.next() {
            Some('&') => {
                name.push(characters.next().ok_or("nothing follows its last &")?);
                is_escaped = true;
            }
            Some(':')
                if namespace.is_none()
                    && !is_escaped
                    && !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_digit()) =>
            {
                namespace = Some(name.parse().map_err(|_| "a namespace is no number up to 65535")?);
                name.clear();
            }
            Some(other) if other != '/' => name.push(other),
            end => {
                if name.is_empty() {
                    // A slash at the end is forgiven.
                    if end.is_none() && namespace.is_none() {
                        return Ok(steps);
                    }
                    return Err("a name on its way is empty");
                }
                steps.push(Step { namespace, name: std::mem::take(&mut name) });
                (namespace, is_escaped) = (None, false);
                if end.is_none() {
                    return Ok(steps);
                }
            }
        }
    }
}

impl Step {
    fn fits(&self, name: &QualifiedName) -> bool {
        name.name.as_ref() == self.name && self.namespace.is_none_or(|namespace| namespace == name.namespace_index)
    }
}

impl Connection {
    /// Which node it is, or why it is none: BadNodeIdUnknown for a namespace that the server does not know, BadNoMatch for a
    /// path that leads nowhere, BadBrowseNameDuplicated for one that leads to several. Whether a NodeId exists is not asked.
    pub async fn resolve(&self, node: &NodeRef) -> Result<NodeId, ServiceError> {
        let found = self.resolve_all(std::slice::from_ref(node)).await?.pop();
        found.unwrap_or(Err(StatusCode::BadNoMatch)).map_err(|status| ServiceError {
            service: "Browse",
            status,
            detail: String::new(),
        })
    }

    /// The same for many. Paths with a common beginning walk it once.
    pub async fn resolve_all(&self, nodes: &[NodeRef]) -> Result<Vec<Result<NodeId, StatusCode>>, ServiceError> {
        let root = NodeId::from(ObjectId::RootFolder);
        let namespaces = self.namespaces();
        // Where each path is, and how many of its steps are done.
        let mut at: Vec<Result<(NodeId, usize), StatusCode>> = nodes
            .iter()
            .map(|node| match node {
                NodeRef::Id { namespace, identifier } => {
                    let namespace = match namespace {
                        Namespace::Index(index) => *index,
                        Namespace::Uri(uri) => namespaces.index(uri).ok_or(StatusCode::BadNodeIdUnknown)?,
                    };
                    Ok((NodeId { namespace, identifier: identifier.clone() }, 0))
                }
                NodeRef::Path(steps) => match steps.first().map(|step| step.name.as_str()) {
                    Some("Root") => Ok((root.clone(), 1)),
                    Some("Objects" | "Types" | "Views") => Ok((root.clone(), 0)),
                    _ => Ok((ObjectId::ObjectsFolder.into(), 0)),
                },
            })
            .collect();
        let steps = |index: usize| match &nodes[index] {
            NodeRef::Id { .. } => &[][..],
            NodeRef::Path(steps) => steps.as_slice(),
        };
        loop {
            // Each place is browsed once for all who go on from there.
            let mut waiting: HashMap<NodeId, Vec<usize>> = HashMap::new();
            for (index, one) in at.iter().enumerate() {
                if let Ok((node, done)) = one
                    && *done < steps(index).len()
                {
                    waiting.entry(node.clone()).or_default().push(index);
                }
            }
            if waiting.is_empty() {
                return Ok(at.into_iter().map(|one| one.map(|(node, _)| node)).collect());
            }
            let waiting: Vec<_> = waiting.into_iter().collect();
            let wanted: Vec<BrowseDescription> = waiting.iter().map(|(node, _)| children(node.clone())).collect();
            for ((_, indices), found) in waiting.iter().zip(self.browse(&wanted).await?) {
                for &index in indices {
                    let Ok((_, done)) = at[index] else { continue };
                    let step = &steps(index)[done];
                    at[index] = match &found {
                        Err(status) => Err(*status),
                        Ok(children) => {
                            let mut fitting: Vec<&NodeId> = children
                                .iter()
                                .filter(|child| step.fits(&child.name))
                                .map(|child| &child.node)
                                .collect();
                            // Two references may lead to one node.
                            fitting.dedup();
                            match fitting.as_slice() {
                                [] => Err(StatusCode::BadNoMatch),
                                [one] => Ok(((*one).clone(), done + 1)),
                                _ => Err(StatusCode::BadBrowseNameDuplicated),
                            }
                        }
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nodes_are_read_as_the_standard_writes_them() {
        let id = |text: &str| NodeRef::parse(text).unwrap();
        let uri = Namespace::Uri("urn:plant".into());
        assert_eq!(
            id("nsu=urn:plant;s=a;b"),
            NodeRef::Id { namespace: uri, identifier: Identifier::String("a;b".into()) }
        );
        let numeric = |namespace, id| NodeRef::Id { namespace, identifier: Identifier::Numeric(id) };
        assert_eq!(id("ns=2;i=5"), numeric(Namespace::Index(2), 5));
        assert_eq!(id("i=2258"), numeric(Namespace::Index(0), 2258));
        let step = |namespace, name: &str| Step { namespace, name: name.into() };
        let path = NodeRef::Path(vec![step(None, "Objects"), step(Some(2), "Line 1"), step(None, "a/b:c")]);
        assert_eq!(id("/Objects/2:Line 1/a&/b:c/"), path);
        for wrong in ["", "/", "ns=x;i=1", "ns=1", "nsu=;i=1", "nsu=u;q=1", "a//b", "a/2:", "a&", "70000:a"] {
            assert!(NodeRef::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_is_the_same_when_the_indices_are_others() {
        let namespaces = |uris: &[&str]| Namespaces::new(uris.iter().map(|uri| uri.to_string()));
        let (before, after) = (namespaces(&["0", "a", "b;s=x"]), namespaces(&["0", "b;s=x", "a"]));
        let node = |index| NodeId::new(index, "y");
        assert_eq!(before.identity(&node(2)), after.identity(&node(1)));
        assert_ne!(before.identity(&node(1)), after.identity(&node(1)));
        assert_ne!(before.identity(&node(2)), namespaces(&["0", "b"]).identity(&NodeId::new(1, "x;s=y")));
        assert!(!after.continues(&before) && namespaces(&["0", "a", "b;s=x", "c"]).continues(&before));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_or_refused_and_what_we_write_is_read_back(text in ".{0,40}", name in "[^;]{1,20}") {
            let _ = NodeRef::parse(&text);
            let namespaces = Namespaces::new(["http://opcfoundation.org/UA/".into(), "urn:plant".into()].into_iter());
            let node = NodeId::new(1, name.as_str());
            let expected = NodeRef::Id { namespace: Namespace::Uri("urn:plant".into()), identifier: node.identifier.clone() };
            prop_assert_eq!(NodeRef::parse(&namespaces.write(&node)).unwrap(), expected);
        }
    }
}
