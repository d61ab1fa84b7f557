//! Where what is said goes: names of tags as levels of topics.
//!
//! A tag's name is a path, and so is a topic; `plc/Speed` is said at `TOPIC/plc/Speed`. What MQTT or this device uses itself is
//! percent-encoded (RFC 3986, 2.1), which can be undone: `%`, `+`, `#` anywhere, `$` at the beginning, and the first letter of a
//! first level that is a word of ours (`status`, `data`, `command`, `answer`, `image`) or of a last level `set`.

use crate::model::{TagName, TagSpec};
use crate::mqtt::sparkplug::SparkplugId;
use std::collections::BTreeSet;

/// First levels below the root that are not tags: [`Topics::status`], [`Topics::data`], and what the uplink has there in its default root.
const OURS: [&str; 5] = ["status", "data", "command", "answer", "image"];

/// Last level of the topic at which a tag is written.
const SET: &str = "set";

pub(super) struct Topics {
    root: String,
}

impl Topics {
    /// `root` is that of the configuration.
    pub(super) fn new(root: &str, group: &SparkplugId, node: &SparkplugId) -> Self {
        let root = root.replace("{group}", group.as_str()).replace("{node}", node.as_str());
        Self { root: root.trim_end_matches('/').to_owned() }
    }

    pub(super) fn status(&self) -> String {
        format!("{}/status", self.root)
    }

    pub(super) fn data(&self) -> String {
        format!("{}/data", self.root)
    }

    pub(super) fn tag(&self, name: &TagName) -> String {
        format!("{}/{}", self.root, levels(name))
    }

    pub(super) fn set(&self, name: &TagName) -> String {
        format!("{}/{SET}", self.tag(name))
    }

    /// For the writes of all these tags: one filter for each depth, which takes in nothing that this device says.
    pub(super) fn filters<'a>(&self, writable: impl Iterator<Item = &'a TagSpec>) -> Vec<String> {
        let depths: BTreeSet<usize> = writable.map(|spec| spec.name.segments().count()).collect();
        depths.into_iter().map(|depth| format!("{}{}/{SET}", self.root, "/+".repeat(depth))).collect()
    }
}

fn levels(name: &TagName) -> String {
    let mut text = String::new();
    let count = name.segments().count();
    for (at, level) in name.segments().enumerate() {
        if at > 0 {
            text.push('/');
        }
        let is_ours = (at == 0 && OURS.contains(&level)) || (at + 1 == count && level == SET);
        for (place, character) in level.char_indices() {
            match character {
                '%' | '+' | '#' => encode(&mut text, character),
                '$' if at == 0 && place == 0 => encode(&mut text, character),
                _ if is_ours && place == 0 => encode(&mut text, character),
                _ => text.push(character),
            }
        }
    }
    text
}

/// All of these are ASCII.
fn encode(text: &mut String, character: char) {
    text.push_str(&format!("%{:02X}", u32::from(character)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DataType;
    use proptest::prelude::*;

    fn topics(root: &str) -> Topics {
        Topics::new(root, &SparkplugId::new("Plant 1").unwrap(), &SparkplugId::new("press-4").unwrap())
    }

    /// What somebody does who wants the name back.
    fn decode(topic: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = topic.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            if first == b'%' {
                let digits = std::str::from_utf8(&after[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &after[2..];
            } else {
                bytes.push(first);
                rest = after;
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn names_are_paths_below_the_root() {
        let topics = topics("vedette/{group}/{node}");
        let tag = |name: &str| topics.tag(&TagName::new(name).unwrap());
        assert_eq!(topics.status(), "vedette/Plant 1/press-4/status");
        for (name, levels) in [
            ("plc/Speed", "plc/Speed"),
            ("a+b/c#", "a%2Bb/c%23"),
            ("100 %", "100 %25"),
            ("$SYS/a", "%24SYS/a"),
            ("a/$b", "a/$b"),
            ("status", "%73tatus"),
            ("status/a", "%73tatus/a"),
            ("a/status", "a/status"),
            ("a/set", "a/%73et"),
            ("set/a", "set/a"),
            ("data", "%64ata"),
        ] {
            assert_eq!(tag(name), format!("vedette/Plant 1/press-4/{levels}"), "{name}");
        }
    }

    #[test]
    fn one_filter_for_each_depth() {
        let spec = |name: &str| TagSpec::new(TagName::new(name).unwrap(), DataType::Int32);
        let specs = [spec("a/b"), spec("c"), spec("d/e"), spec("f/g/h")];
        assert_eq!(topics("t/").filters(specs.iter()), ["t/+/set", "t/+/+/set", "t/+/+/+/set"]);
        assert!(topics("t").filters([].into_iter()).is_empty());
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in "[+#%$a-e/]{1,20}|[^\\p{C}]{1,40}|(status|set|data)(/set)?") {
            if let Ok(name) = TagName::new(&name) {
                let topic = topics("t").tag(&name);
                let levels = topic.strip_prefix("t/").unwrap();
                prop_assert!(!levels.contains(['+', '#']) && !levels.starts_with('$') && !levels.ends_with("/set"));
                prop_assert_eq!(decode(levels), name.as_str());
            }
        }
    }
}
