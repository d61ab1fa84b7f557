//! Which metrics there are, where, and what they are called: all that a birth says but the values.
//!
//! Made anew from the tags for each birth, without memory of the one before, so the same tags give the same layout. Of two tags
//! that would be one metric the later is left out, and so is one whose name Sparkplug uses itself. That goes for instances of
//! templates, too: each is one metric, which is its members' together.

use super::names::{self, spot};
use super::template::{Definition, Templates};
use crate::model::{DataType, NameMap, TagId, TagMap, TagName, TagSpec, folders};
use crate::mqtt::sparkplug::codec;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub(super) const BD_SEQ: &str = "bdSeq";
/// Names below it are Sparkplug's.
pub(super) const NODE_CONTROL: &str = "Node Control/";
/// The metric of a camera whose pictures are sent as metrics.
pub(super) const PICTURE: &str = "Image";

/// The node, or the device with this folder. The node comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    Node,
    Device(Arc<str>),
}

/// A tag as a metric, or as a member of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) spec: Arc<TagSpec>,
    pub(super) place: Place,
    /// Of the metric, or of the member.
    pub(super) name: String,
    pub(super) instance: Option<Arc<Instance>>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) template: Arc<str>,
    /// The least of its members.
    pub(super) first: TagId,
}

#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Ids of devices, by folder.
    pub(super) devices: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) entries: TagMap<Entry>,
    /// The entries of each place, in the order of their ids.
    places: BTreeMap<Place, Vec<TagId>>,
    pub(super) definitions: Vec<Definition>,
    /// By place, then by name; members as `INSTANCE/MEMBER`.
    metrics: BTreeMap<Place, HashMap<String, TagId>>,
    by_tag: NameMap<TagId>,
    /// For people, sentence by sentence.
    pub(super) notices: Vec<String>,
}

impl Layout {
    /// `cameras`: those whose pictures are metrics of their devices.
    pub(super) fn new(tags: &[(TagId, Arc<TagSpec>)], templates: &Templates, cameras: &BTreeSet<String>) -> Self {
        // A host cannot be told of a metric whose type is to come; when it has, there is another birth.
        let typed = || tags.iter().filter(|(_, spec)| spec.data_type != DataType::Variant);
        let mut devices: BTreeSet<Arc<str>> = cameras.iter().map(|camera| names::of_camera(camera).into()).collect();
        for folder in typed().filter_map(|(_, spec)| spot(spec.name.as_str()).0) {
            if !devices.contains(folder) {
                devices.insert(folder.into());
            }
        }
        let sorted = templates
            .sort(typed().map(|(_, spec)| (spec.name.as_str(), codec::metric_type(spec.data_type, spec.is_array))));
        let mut layout = Self { devices: names::devices(&devices), ..Self::default() };
        for (folder, template) in &sorted.misfits {
            layout.notices.push(format!(
                "The folder {folder} has other tags than most that are the template {template}, so it is no instance."
            ));
        }
        for folder in devices {
            layout.places.insert(Place::Device(folder), Vec::new());
        }
        let taken: BTreeSet<&str> = sorted.definitions.iter().map(|definition| definition.name.as_ref()).collect();
        let mut instances: HashMap<&str, Arc<Instance>> = HashMap::new();
        // Whose a metric is: the folder of an instance, or a tag alone.
        let mut owners: HashMap<(Place, String), (Option<&str>, TagId)> = HashMap::new();
        for (id, spec) in typed() {
            let (folder, metric) = spot(spec.name.as_str());
            let place = folder.map_or(Place::Node, |folder| Place::Device(folder.into()));
            let of = folders(spec.name.as_str()).find(|folder| sorted.instances.contains_key(folder));
            let instance = of.map(|folder| {
                let made = || instance(folder, &sorted.instances[folder], spec, &metric, *id);
                instances.get(folder).cloned().unwrap_or_else(|| Arc::new(made()))
            });
            let whole = instance.as_ref().map_or_else(|| metric.clone(), |instance| instance.name.clone());
            let (name, path) = match (of, &instance) {
                (Some(folder), Some(instance)) => {
                    let member = spec.name.as_str()[folder.len() + 1..].to_owned();
                    let path = format!("{}/{member}", instance.name);
                    (member, path)
                }
                _ => (metric.clone(), metric),
            };
            if is_reserved(&place, &path, &taken) || is_reserved(&place, &whole, &taken) {
                let notice =
                    format!("Sparkplug uses the name of the tag {} itself, so the tag is not sent.", spec.name);
                layout.notices.push(notice);
                continue;
            }
            let metrics = layout.metrics.entry(place.clone()).or_default();
            let whole = (place.clone(), whole);
            let owner = owners.get(&whole).filter(|(folder, _)| of.is_none() || *folder != of).map(|(_, id)| id);
            if let Some(other) = metrics.get(&path).or(owner) {
                let other = &layout.entries[other].spec.name;
                layout.notices.push(format!("The tag {} is not sent: it and {other} are one metric.", spec.name));
                continue;
            }
            metrics.insert(path, *id);
            owners.entry(whole).or_insert((of, *id));
            if let (Some(folder), Some(instance)) = (of, &instance) {
                instances.entry(folder).or_insert_with(|| instance.clone());
            }
            layout.by_tag.insert(spec.name.clone(), *id);
            layout.places.entry(place.clone()).or_default().push(*id);
            layout.entries.insert(*id, Entry { spec: spec.clone(), place, name, instance });
        }
        layout.definitions = sorted.definitions;
        layout.look_for_twins();
        layout
    }

    /// Names that differ in upper and lower case only (Sparkplug 3.0, 5.2: SHOULD NOT).
    fn look_for_twins(&mut self) {
        let mut notices = Vec::new();
        let mut twins = |what: &str, names: &mut dyn Iterator<Item = &str>| {
            let mut seen: HashMap<String, &str> = HashMap::new();
            for name in names {
                if let Some(other) = seen.insert(name.to_lowercase(), name) {
                    notices.push(format!("The {what} {other} and {name} differ in case only; some hosts mix them up."));
                }
            }
        };
        twins("devices", &mut self.devices.values().map(AsRef::as_ref));
        for metrics in self.metrics.values() {
            let mut names: Vec<&str> = metrics.keys().map(String::as_str).collect();
            names.sort_unstable();
            twins("metrics", &mut names.into_iter());
        }
        self.notices.extend(notices);
    }

    pub(super) fn of(&self, place: &Place) -> impl Iterator<Item = (TagId, &Entry)> {
        let ids = self.places.get(place).map_or(&[][..], Vec::as_slice);
        ids.iter().map(|id| (*id, &self.entries[id]))
    }

    /// A metric of a command.
    pub(super) fn metric(&self, place: &Place, name: &str) -> Option<TagId> {
        self.metrics.get(place)?.get(name).copied()
    }

    pub(super) fn tag(&self, name: &TagName) -> Option<TagId> {
        self.by_tag.get(name).copied()
    }

    /// The device with this id.
    pub(super) fn device(&self, id: &str) -> Option<&Arc<str>> {
        self.devices.iter().find(|(_, other)| other.as_ref() == id).map(|(folder, _)| folder)
    }

    /// Whether the birth of a place would say what it said before.
    pub(super) fn is_same(&self, other: &Layout, place: &Place) -> bool {
        let id = |layout: &Layout| match place {
            Place::Node => None,
            Place::Device(folder) => Some(layout.devices.get(folder).cloned()),
        };
        id(self) == id(other) && self.of(place).eq(other.of(place))
    }
}

fn is_reserved(place: &Place, name: &str, definitions: &BTreeSet<&str>) -> bool {
    match place {
        Place::Node => name == BD_SEQ || name.starts_with(NODE_CONTROL) || definitions.contains(name),
        Place::Device(folder) => name == PICTURE && folder.starts_with("cameras/"),
    }
}

/// Named as the folder is within its place; the device itself as its last folder.
fn instance(folder: &str, template: &Arc<str>, spec: &TagSpec, metric: &str, first: TagId) -> Instance {
    let member = spec.name.as_str().len() - folder.len();
    let name = match metric.len().checked_sub(member) {
        Some(end) if end > 0 => &metric[..end],
        _ => folder.rsplit('/').next().unwrap_or(folder),
    };
    Instance { name: name.to_owned(), template: template.clone(), first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::mqtt::config::Template;

    fn layout(names: &[&str], templates: &[Template], cameras: &[&str]) -> Layout {
        let spec = |name: &&str| Arc::new(TagSpec::new(TagName::new(name).unwrap(), DataType::Int32));
        let tags: Vec<_> = names.iter().enumerate().map(|(at, name)| (TagId(at as u32), spec(name))).collect();
        let cameras = cameras.iter().map(|&camera| camera.to_owned()).collect();
        Layout::new(&tags, &Templates::new(templates), &cameras)
    }

    fn shown(layout: &Layout, folder: &str) -> Vec<String> {
        let place = if folder.is_empty() { Place::Node } else { Place::Device(folder.into()) };
        let show = |(_, entry): (TagId, &Entry)| match &entry.instance {
            Some(instance) => format!("{}:{}.{}", instance.template, instance.name, entry.name),
            None => entry.name.clone(),
        };
        layout.of(&place).map(show).collect()
    }

    #[test]
    fn tags_stand_with_their_device() {
        let layout = layout(&["plc/a/b", "system/cpu/usage", "cameras/x/State", "alone"], &[], &["y"]);
        assert_eq!(shown(&layout, "plc"), ["a/b"]);
        assert_eq!(shown(&layout, "cameras/x"), ["State"]);
        assert_eq!(shown(&layout, ""), ["Properties/system/cpu/usage", "alone"]);
        let devices: Vec<_> = layout.devices.values().map(AsRef::as_ref).collect();
        assert_eq!(devices, ["x", "y", "plc"], "y has pictures only");
        assert_eq!(layout.metric(&Place::Device("plc".into()), "a/b"), Some(TagId(0)));
        assert!(layout.notices.is_empty());
    }

    #[test]
    fn names_that_cannot_be_are_left_out_and_told() {
        let layout = layout(
            &[
                "bdSeq",
                "Node Control/Rebirth",
                "device/system/x",
                "system/x",
                "plc/a",
                "plc/A",
                "PLC/a",
                "cameras/x/Image",
            ],
            &[],
            &[],
        );
        assert_eq!(shown(&layout, ""), ["Properties/system/x"]);
        assert_eq!(shown(&layout, "Node Control"), ["Rebirth"], "a folder is a device");
        let told = |word: &str| layout.notices.iter().filter(|notice| notice.contains(word)).count();
        assert_eq!(layout.notices.len(), 5, "{:?}", layout.notices);
        assert_eq!((told("uses the name"), told("are one metric"), told("differ in case only")), (2, 1, 2));
    }

    #[test]
    fn an_instance_and_another_metric_of_its_name_are_not_both_said() {
        let templates = |folder: &str| [Template { name: "Motor".into(), folders: vec![folder.into()] }];
        let beside = layout(&["plc/m1", "plc/m1/a", "plc/m1/b"], &templates("plc/m*"), &[]);
        assert_eq!((shown(&beside, "plc"), beside.notices.len()), (vec!["m1".to_owned()], 2));
        let beside = layout(&["plc/m1/a", "plc/m1", "plc/m1/b"], &templates("plc/m*"), &[]);
        assert_eq!(shown(&beside, "plc"), ["Motor:m1.a", "Motor:m1.b"]);
        let twice = layout(&["device/net/up", "Properties"], &templates("device/net"), &[]);
        assert_eq!(shown(&twice, ""), ["Motor:Properties/net.up", "Properties"]);
        let pictures = layout(&["cameras/Image/a", "cameras/x/a"], &templates("cameras/*"), &["Image"]);
        assert_eq!(
            (shown(&pictures, "cameras/Image").len(), shown(&pictures, "cameras/x")),
            (0, vec!["Motor:x.a".to_owned()])
        );
        // One that is left out is not the first of its instance.
        let names = ["device/system/e0/up", "system/e0/up", "system/e0/down"];
        let first = layout(&names, &templates("system/e0"), &[]);
        assert_eq!(shown(&first, ""), ["Properties/system/e0/up", "Motor:Properties/system/e0.down"]);
        let entry = &first.entries[&TagId(2)];
        assert_eq!(entry.instance.as_ref().map(|instance| instance.first), Some(TagId(2)));
    }

    #[test]
    fn folders_of_a_template_become_instances() {
        let templates = |folder: &str| [Template { name: "Motor".into(), folders: vec![folder.into()] }];
        let names = ["plc/m1/a", "plc/m1/b/c", "plc/m2/a", "plc/m2/b/c", "plc/x"];
        let layout1 = layout(&names, &templates("plc/m*"), &[]);
        assert_eq!(shown(&layout1, "plc"), ["Motor:m1.a", "Motor:m1.b/c", "Motor:m2.a", "Motor:m2.b/c", "x"]);
        assert_eq!(layout1.metric(&Place::Device("plc".into()), "m2/b/c"), Some(TagId(3)));
        let layout2 = layout(&["m1/a", "cameras/c/a"], &templates("**"), &[]);
        assert_eq!(shown(&layout2, "cameras/c"), ["Motor:c.a"], "no instance is in several devices");
        assert_eq!(shown(&layout2, "m1"), ["Motor:m1.a"]);
        let layout3 = layout(&["system/net/e0/up", "system/net/e1/up"], &templates("system/net/*"), &[]);
        let instances = ["Motor:Properties/system/net/e0.up", "Motor:Properties/system/net/e1.up"];
        assert_eq!(shown(&layout3, ""), instances);
    }
}
