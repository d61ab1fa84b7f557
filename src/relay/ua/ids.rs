//! NodeIds of the relay.
//!
//! Each DA server has a namespace of its own, and in it:
//!
//!     s=<ItemID>       an item: the ItemID verbatim, whatever characters it has
//!     i=1              the server's folder
//!     i=10...          its status variables
//!     b=...            branches, and properties of items
//!
//! All a NodeId stands for is in the NodeId, so each works without any browse before it. ItemIDs may be any text, so no other
//! node may be a string: branches and properties are opaque. A branch is all names from the root to it, each with the ItemID that
//! the server gave the branch, so that its parents' NodeIds can be told from it.
//!
//! No text here has a zero: COM's texts end at one, so `Valve\0.Setpoint` would be allowed by its whole and be `Valve` to the
//! DA server. What has one is no address.

use crate::relay::map::Key;
use crate::relay::protocol::{Branch, Entry};
use ::opcua::types::{ByteString, Identifier, NodeId};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Folder,
    /// By its place in `status.rs`.
    Status(usize),
    Branch(Path),
    Item(String),
    Property(String, Key),
}

/// From the root on; never empty in an [`Address`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Path(Vec<(String, Option<String>)>);

/// The longest NodeId, in bytes (OPC 10000-3, 8.2.4). Branches that go round in circles end here.
pub(super) const LONGEST: usize = 4096;
/// The longest name of a node, in characters (OPC 10000-3, 8.3).
const LONGEST_NAME: usize = 512;

const FOLDER: u32 = 1;
/// The number of the first status variable.
const STATUS: u32 = 10;
/// First bytes of opaque identifiers.
const BRANCH: u8 = b'b';
const PROPERTY: u8 = b'p';

impl Path {
    pub(super) fn child(&self, entry: &Entry) -> Self {
        let mut path = self.clone();
        path.0.push((entry.name.clone(), entry.item_id.clone()));
        path
    }

    /// `None` above the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    /// Whether COM can say all of it.
    fn is_text(&self) -> bool {
        self.0.iter().all(|(name, id)| is_text(name) && id.as_deref().is_none_or(is_text))
    }

    /// The last name.
    pub(super) fn name(&self) -> &str {
        self.0.last().map_or("", |(name, _)| name)
    }

    /// Whether it is short enough for a NodeId.
    pub(super) fn is_sayable(&self) -> bool {
        let numbers = 12 * self.0.len();
        let texts = self.0.iter().map(|(name, id)| name.len() + id.as_ref().map_or(0, String::len));
        numbers + texts.sum::<usize>() <= LONGEST
    }

    pub(super) fn branch(&self) -> Branch {
        let names = self.0.iter().map(|(name, _)| name.clone()).collect();
        Branch { names, item_id: self.0.last().and_then(|(_, id)| id.clone()) }
    }

    /// The node of this path.
    pub(super) fn address(self) -> Address {
        if self.0.is_empty() { Address::Folder } else { Address::Branch(self) }
    }
}

fn is_text(text: &str) -> bool {
    !text.contains('\0')
}

/// A name as nodes have it.
pub(super) fn clipped(name: &str) -> &str {
    name.char_indices().nth(LONGEST_NAME).map_or(name, |(end, _)| &name[..end])
}

impl Address {
    /// `None` for what can be no node of a DA server.
    pub(super) fn of(id: &NodeId, statuses: usize) -> Option<Self> {
        match &id.identifier {
            Identifier::String(item) => {
                Some(item.as_ref()).filter(|item| is_text(item)).map(|item| Self::Item(item.into()))
            }
            Identifier::Numeric(FOLDER) => Some(Self::Folder),
            Identifier::Numeric(number) => {
                let index = number.checked_sub(STATUS)? as usize;
                (index < statuses).then_some(Self::Status(index))
            }
            Identifier::ByteString(bytes) => Self::of_opaque(bytes.value.as_deref()?),
            Identifier::Guid(_) => None,
        }
    }

    fn of_opaque(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            BRANCH => {
                let (path, rest): (Path, _) = postcard::take_from_bytes(rest).ok()?;
                (rest.is_empty() && !path.0.is_empty() && path.is_text()).then_some(Self::Branch(path))
            }
            PROPERTY => {
                let (number, item) = rest.split_first_chunk()?;
                let item = std::str::from_utf8(item).ok().filter(|item| is_text(item))?.to_owned();
                Some(Self::Property(item, Key::from_number(u32::from_be_bytes(*number))))
            }
            _ => None,
        }
    }

    pub(super) fn node_id(&self, namespace: u16) -> NodeId {
        let opaque = |bytes: Vec<u8>| NodeId::new(namespace, ByteString::from(bytes));
        match self {
            Self::Folder => NodeId::new(namespace, FOLDER),
            Self::Status(index) => NodeId::new(namespace, STATUS + *index as u32),
            Self::Item(item) => NodeId::new(namespace, item.as_str()),
            Self::Branch(path) => {
                opaque(postcard::to_extend(path, vec![BRANCH]).expect("texts can be written to memory"))
            }
            Self::Property(item, key) => {
                opaque([&[PROPERTY], &key.number().to_be_bytes()[..], item.as_bytes()].concat())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = Address> {
        let text = "[^\u{0}]{0,9}";
        let names = proptest::collection::vec((text, proptest::option::of(text)), 1..5);
        prop_oneof![
            Just(Address::Folder),
            (0..9_usize).prop_map(Address::Status),
            names.prop_map(|names| Address::Branch(Path(names))),
            "[^\u{0}]{0,40}".prop_map(Address::Item),
            ("[^\u{0}]{0,40}", any::<u32>()).prop_map(|(item, key)| Address::Property(item, Key::from_number(key))),
        ]
    }

    proptest! {
        #[test]
        fn a_node_id_says_all(address in address(), other in address()) {
            let id = address.node_id(3);
            prop_assert_eq!(Address::of(&id, 9), Some(address.clone()));
            prop_assert_eq!(id == other.node_id(3), address == other);
        }

        #[test]
        fn any_bytes_are_some_node_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let id = NodeId::new(3, ByteString::from(bytes));
            if let Some(address) = Address::of(&id, 9) {
                prop_assert_eq!(Address::of(&address.node_id(3), 9), Some(address));
            }
        }
    }

    #[test]
    fn what_has_a_zero_is_no_address() {
        let item = "Line1.Valve\0.Setpoint";
        assert_eq!(Address::of(&NodeId::new(2, item), 9), None);
        let entry = |name: &str, item_id: Option<&str>| Entry {
            name: name.into(),
            item_id: item_id.map(str::to_owned),
            is_branch: true,
            is_item: false,
        };
        let branch = |entry| Address::Branch(Path::default().child(&entry));
        for address in [
            Address::Property(item.into(), Key::from_number(5)),
            branch(entry(item, None)),
            branch(entry("Line1", Some(item))),
        ] {
            assert_eq!(Address::of(&address.node_id(2), 9), None, "{address:?}");
        }
    }

    #[test]
    fn an_item_is_its_item_id() {
        for item in ["Random.Int4", "a b/c[1].d\\e", "", "i=1", "Süd"] {
            assert_eq!(Address::Item(item.into()).node_id(2), NodeId::new(2, item));
        }
    }
}
