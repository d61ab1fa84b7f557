//! Folders with the same tags in them, as instances of one template (`[[mqtt.template]]`; Sparkplug 3.0, 6.4.14).
//!
//! The definition is what most of the matching folders have in common; a folder with other tags is no instance, and its tags are
//! said one by one. Members are named by their path below the folder. An instance is a metric with the folder's name; if the
//! folder is the whole device, with the device's.

use super::names;
use crate::base::selection::Selection;
use crate::model::folders;
use crate::mqtt::sparkplug::proto::DataType as Type;
use crate::mqtt::sparkplug::proto::payload::{Metric, Template, metric};
use crate::sinks::mqtt::config::Template as Wanted;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct Templates(Vec<(Arc<str>, Selection)>);

/// Names and types of the members, in the order of the names.
type Shape = Vec<(String, Type)>;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Definition {
    pub(super) name: Arc<str>,
    members: Shape,
}

/// What was made of some tags.
pub(super) struct Sorted<'a> {
    pub(super) definitions: Vec<Definition>,
    /// Folders that are instances: of which template.
    pub(super) instances: BTreeMap<&'a str, Arc<str>>,
    /// Folders that match a template and have other tags, and the template.
    pub(super) misfits: Vec<(&'a str, Arc<str>)>,
}

impl Templates {
    pub(super) fn new(wanted: &[Wanted]) -> Self {
        Self(wanted.iter().map(|one| (one.name.as_str().into(), Selection::new(&one.folders))).collect())
    }

    /// The outermost folder above a tag that a template matches; the template by its place.
    fn folder<'a>(&self, name: &'a str) -> Option<(&'a str, usize)> {
        // An instance is in one place.
        folders(name).filter(|folder| !names::is_above_devices(folder)).find_map(|folder| {
            let found = self.0.iter().position(|(_, pattern)| pattern.contains(folder));
            found.map(|at| (folder, at))
        })
    }

    pub(super) fn sort<'a>(&self, tags: impl Iterator<Item = (&'a str, Type)>) -> Sorted<'a> {
        let mut found: BTreeMap<&str, (usize, Shape)> = BTreeMap::new();
        for (name, member) in tags {
            if let Some((folder, template)) = self.folder(name) {
                let members = &mut found.entry(folder).or_insert_with(|| (template, Vec::new())).1;
                members.push((name[folder.len() + 1..].to_owned(), member));
            }
        }
        found.values_mut().for_each(|(_, members)| members.sort());
        let mut sorted = Sorted { definitions: Vec::new(), instances: BTreeMap::new(), misfits: Vec::new() };
        for (at, (name, _)) in self.0.iter().enumerate() {
            let of_this = || found.iter().filter(|(_, (template, _))| *template == at);
            let mut counts: BTreeMap<&Shape, usize> = BTreeMap::new();
            of_this().for_each(|(_, (_, shape))| *counts.entry(shape).or_default() += 1);
            // Of equals the last is the greatest for max_by_key, and the first folder is to decide.
            let Some((_, (_, shape))) = of_this().rev().max_by_key(|(_, (_, shape))| counts[shape]) else { continue };
            for (folder, (_, other)) in of_this() {
                match other == shape {
                    true => drop(sorted.instances.insert(folder, name.clone())),
                    false => sorted.misfits.push((folder, name.clone())),
                }
            }
            sorted.definitions.push(Definition { name: name.clone(), members: shape.clone() });
        }
        sorted
    }
}

impl Definition {
    pub(super) fn metric(&self, millis: u64) -> Metric {
        let member = |(name, datatype): &(String, Type)| Metric {
            name: Some(name.clone()),
            timestamp: Some(millis),
            datatype: Some(*datatype as u32),
            is_null: Some(true),
            ..Metric::default()
        };
        Metric {
            name: Some(self.name.as_ref().to_owned()),
            timestamp: Some(millis),
            datatype: Some(Type::Template as u32),
            value: Some(metric::Value::TemplateValue(Template {
                metrics: self.members.iter().map(member).collect(),
                is_definition: Some(true),
                ..Template::default()
            })),
            ..Metric::default()
        }
    }
}

/// An instance with some of its members.
pub(super) fn instance(template: &str, members: Vec<Metric>) -> metric::Value {
    metric::Value::TemplateValue(Template {
        metrics: members,
        template_ref: Some(template.to_owned()),
        is_definition: Some(false),
        ..Template::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn templates(folders: &[&str]) -> Templates {
        let folders = folders.iter().map(|&folder| folder.to_owned()).collect();
        Templates::new(&[Wanted { name: "Motor".into(), folders }])
    }

    #[test]
    fn what_most_folders_have_is_the_template() {
        let tags = ["plc/m1/speed", "plc/m1/on", "plc/m2/on", "plc/m3/on", "plc/m3/speed", "plc/x"];
        let sorted = templates(&["plc/m*"]);
        let sorted = sorted.sort(tags.iter().map(|&tag| (tag, Type::Boolean)));
        let members = vec![("on".to_owned(), Type::Boolean), ("speed".to_owned(), Type::Boolean)];
        assert_eq!(sorted.definitions, [Definition { name: "Motor".into(), members }]);
        assert_eq!(sorted.instances.keys().collect::<Vec<_>>(), [&"plc/m1", &"plc/m3"]);
        assert_eq!(sorted.misfits, [("plc/m2", "Motor".into())]);
    }

    #[test]
    fn the_outermost_folder_counts_and_a_template_without_folders_is_none() {
        let sorted = templates(&["**"]);
        let sorted = sorted.sort([("plc/m1/speed", Type::Int32), ("alone", Type::Int32)].into_iter());
        assert_eq!(sorted.instances.keys().collect::<Vec<_>>(), [&"plc"]);
        let sorted = templates(&["nothing"]);
        assert!(sorted.sort([("plc/m1/speed", Type::Int32)].into_iter()).definitions.is_empty());
    }
}
