//! Identifiers of OPC UA as text, for metrics of type String and UUID.
//!
//! As in OPC 10000-6, 5.1.12: NodeId and ExpandedNodeId (`ns=2;s=Line 1`, `svr=1;nsu=urn:x;i=85`; the namespace 0 is
//! left out) and QualifiedName (`2:Name`, in namespace 0 just `Name`). What is written here can be read
//! back: a null string or a null opaque identifier comes back empty, nothing else changes.

use crate::model::{ExpandedNodeId, Identifier, NodeId, QualifiedName};
use std::fmt::Write as _;

/// `72962b91-fa75-4ae6-8d28-b404dc7daf63`
pub(super) fn guid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

pub(super) fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    if !groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) {
        return None;
    }
    let digits = groups.concat();
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

pub(super) fn node_id(id: &NodeId) -> String {
    match id.namespace {
        0 => identifier(&id.identifier),
        namespace => format!("ns={namespace};{}", identifier(&id.identifier)),
    }
}

pub(super) fn parse_node_id(text: &str) -> Option<NodeId> {
    let (namespace, rest) = match text.strip_prefix("ns=") {
        Some(rest) => rest.split_once(';')?,
        None => ("0", text),
    };
    Some(NodeId { namespace: namespace.parse().ok()?, identifier: parse_identifier(rest)? })
}

pub(super) fn expanded_node_id(id: &ExpandedNodeId) -> String {
    let mut text = String::new();
    if id.server_index != 0 {
        write!(text, "svr={};", id.server_index).expect("a String takes everything");
    }
    match &id.namespace_uri {
        Some(uri) => {
            // OPC 10000-6, 5.1.12: a `;` in the URI is percent-encoded, and so is what encodes.
            let uri = uri.replace('%', "%25").replace(';', "%3B");
            write!(text, "nsu={uri};{}", identifier(&id.node_id.identifier)).expect("a String takes everything");
        }
        None => text.push_str(&node_id(&id.node_id)),
    }
    text
}

pub(super) fn parse_expanded_node_id(text: &str) -> Option<ExpandedNodeId> {
    let (server_index, rest) = match text.strip_prefix("svr=") {
        Some(rest) => rest.split_once(';').and_then(|(index, rest)| Some((index.parse().ok()?, rest)))?,
        None => (0, text),
    };
    let Some(rest) = rest.strip_prefix("nsu=") else {
        return Some(ExpandedNodeId { node_id: parse_node_id(rest)?, namespace_uri: None, server_index });
    };
    let (uri, rest) = rest.split_once(';')?;
    let uri = uri.replace("%3B", ";").replace("%3b", ";").replace("%25", "%");
    // With a URI the index says nothing.
    let node_id = NodeId { namespace: 0, identifier: parse_identifier(rest)? };
    Some(ExpandedNodeId { node_id, namespace_uri: Some(uri.into()), server_index })
}

fn identifier(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Numeric(number) => format!("i={number}"),
        Identifier::String(text) => format!("s={}", text.as_deref().unwrap_or_default()),
        Identifier::Guid(bytes) => format!("g={}", guid(bytes)),
        Identifier::Opaque(bytes) => format!("b={}", base64(bytes.as_deref().unwrap_or_default())),
    }
}

fn parse_identifier(text: &str) -> Option<Identifier> {
    let (kind, text) = text.split_once('=')?;
    Some(match kind {
        "i" => Identifier::Numeric(text.parse().ok()?),
        "s" => Identifier::String(Some(text.into())),
        "g" => Identifier::Guid(parse_guid(text)?),
        "b" => Identifier::Opaque(Some(parse_base64(text)?.into())),
        _ => return None,
    })
}

pub(super) fn qualified_name(name: &QualifiedName) -> String {
    let text = name.name.as_deref().unwrap_or_default();
    match name.namespace {
        // Without its index a name such as `3:x` in namespace 0 would read as `x` in namespace 3.
        0 if split_index(text).is_none() => text.to_owned(),
        namespace => format!("{namespace}:{text}"),
    }
}

pub(super) fn parse_qualified_name(text: &str) -> QualifiedName {
    let (namespace, name) = split_index(text).unwrap_or((0, text));
    QualifiedName { namespace, name: Some(name.into()) }
}

fn split_index(text: &str) -> Option<(u16, &str)> {
    let (index, name) = text.split_once(':')?;
    Some((index.parse().ok()?, name))
}

/// RFC 4648, 4.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let sextet = (word >> (18 - 6 * place)) & 63;
            text.push(if place <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

fn parse_base64(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.as_bytes().chunks(4) {
        let mut word = 0u32;
        for digit in group {
            let sextet = ALPHABET.iter().position(|known| known == digit)?;
            word = word << 6 | sextet as u32;
        }
        word <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GUID: [u8; 16] =
        [0x72, 0x96, 0x2b, 0x91, 0xfa, 0x75, 0x4a, 0xe6, 0x8d, 0x28, 0xb4, 0x04, 0xdc, 0x7d, 0xaf, 0x63];

    #[test]
    fn ids_read_as_the_standard_writes_them() {
        let id = |namespace, identifier| NodeId { namespace, identifier };
        assert_eq!(node_id(&id(0, Identifier::Numeric(85))), "i=85");
        assert_eq!(node_id(&id(2, Identifier::String(Some("Line 1;x=y".into())))), "ns=2;s=Line 1;x=y");
        assert_eq!(node_id(&id(1, Identifier::Guid(GUID))), "ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63");
        let opaque = id(1, Identifier::Opaque(Some([0x33, 0x1d, 0x06].as_slice().into())));
        assert_eq!(node_id(&opaque), "ns=1;b=Mx0G");
        let expanded = ExpandedNodeId {
            node_id: id(0, Identifier::Numeric(13)),
            namespace_uri: Some("urn:a;50%".into()),
            server_index: 1,
        };
        assert_eq!(expanded_node_id(&expanded), "svr=1;nsu=urn:a%3B50%25;i=13");
        let name = |namespace, name: &str| qualified_name(&QualifiedName { namespace, name: Some(name.into()) });
        assert_eq!([name(0, "Name"), name(2, "Name"), name(0, "3:x")], ["Name", "2:Name", "0:3:x"]);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(parse_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        for wrong in ["Zg", "Zg=", "====", "Z===", "Z*==", "Zg==Zg=="] {
            assert_eq!(parse_base64(wrong).filter(|bytes| !bytes.is_empty()), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for wrong in ["", "85", "x=1", "ns=1", "ns=x;i=1", "i=-1", "g=7296", "i=4294967296"] {
            assert_eq!(parse_node_id(wrong), None, "{wrong}");
            assert_eq!(parse_expanded_node_id(wrong), None, "{wrong}");
        }
        assert_eq!(parse_guid("72962b91-fa75-4ae6-8d28-b404dc7daf6+"), None);
    }

    fn any_identifier() -> impl Strategy<Value = Identifier> {
        prop_oneof![
            any::<u32>().prop_map(Identifier::Numeric),
            any::<String>().prop_map(|text| Identifier::String(Some(text.into()))),
            any::<[u8; 16]>().prop_map(Identifier::Guid),
            any::<Vec<u8>>().prop_map(|bytes| Identifier::Opaque(Some(bytes.into()))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(
            identifier in any_identifier(),
            namespace in any::<u16>(),
            uri in proptest::option::of(any::<String>()),
            server_index in any::<u32>(),
            name in any::<String>(),
        ) {
            let id = NodeId { namespace, identifier: identifier.clone() };
            prop_assert_eq!(parse_node_id(&node_id(&id)), Some(id));
            let namespace_of = if uri.is_some() { 0 } else { namespace };
            let node_id = NodeId { namespace: namespace_of, identifier };
            let expanded = ExpandedNodeId { node_id, namespace_uri: uri.map(Into::into), server_index };
            prop_assert_eq!(parse_expanded_node_id(&expanded_node_id(&expanded)), Some(expanded));
            let name = QualifiedName { namespace, name: Some(name.into()) };
            prop_assert_eq!(parse_qualified_name(&qualified_name(&name)), name);
        }

        #[test]
        fn no_text_is_a_panic(text in any::<String>()) {
            let _ = (parse_node_id(&text), parse_expanded_node_id(&text), parse_guid(&text), parse_base64(&text));
        }
    }
}
