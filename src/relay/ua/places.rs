//! Where items were seen while branches were browsed, so that there is a way back from an item, and a name.
//!
//! An ItemID says neither: it may lie below several branches, or below none, and DA has no way to ask. So nothing is known of an
//! item before its branch was browsed; its name is then its ItemID. What was seen stays for as long as the relay runs, within
//! [`MOST_BYTES`].

use super::ids::Path;
use crate::relay::protocol::Entry;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// About; beyond it all is forgotten and begins anew.
const MOST_BYTES: usize = 128 << 20;
/// Of one item's.
const MOST_PLACES: usize = 16;

#[derive(Default)]
pub(super) struct Places {
    seen: HashMap<ById, Vec<Place>>,
    bytes: usize,
}

#[derive(Clone)]
pub(super) struct Place {
    pub(super) above: Arc<Path>,
    entry: Arc<Entry>,
}

impl Place {
    /// What the item is called there.
    pub(super) fn name(&self) -> &str {
        &self.entry.name
    }
}

/// An entry that is found by its ItemID.
struct ById(Arc<Entry>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        self.0.item_id.as_deref().unwrap_or_default()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<str>::borrow(self).hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<str>::borrow(self) == Borrow::<str>::borrow(other)
    }
}

impl Eq for ById {}

impl Places {
    pub(super) fn see(&mut self, above: &Arc<Path>, entries: &[Arc<Entry>]) {
        for entry in entries.iter().filter(|entry| entry.is_item) {
            let Some(item) = &entry.item_id else { continue };
            let place = Place { above: above.clone(), entry: entry.clone() };
            if let Some(places) = self.seen.get_mut(item.as_str()) {
                match places.iter().position(|place| place.above == *above) {
                    Some(at) => places[at] = place,
                    None if places.len() < MOST_PLACES => places.push(place),
                    None => {}
                }
                continue;
            }
            let bytes = 200 + entry.name.len() + item.len();
            if self.bytes + bytes > MOST_BYTES {
                (self.seen, self.bytes) = (HashMap::new(), 0);
            }
            self.bytes += bytes;
            self.seen.insert(ById(entry.clone()), vec![place]);
        }
    }

    /// Empty if it was not seen.
    pub(super) fn of(&self, item: &str) -> &[Place] {
        self.seen.get(item).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, item_id: &str) -> Arc<Entry> {
        Arc::new(Entry { name: name.into(), item_id: Some(item_id.into()), is_branch: false, is_item: true })
    }

    #[test]
    fn an_item_may_have_several_places_and_each_once() {
        let (mut places, root) = (Places::default(), Arc::new(Path::default()));
        let below = Arc::new(root.child(&entry("a", "a")));
        places.see(&root, &[entry("x", "a.x"), entry("y", "a.y")]);
        places.see(&below, &[entry("x", "a.x")]);
        places.see(&below, &[entry("renamed", "a.x")]);
        let names = |item| places.of(item).iter().map(|place| place.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names("a.x"), ["x", "renamed"]);
        assert_eq!(*places.of("a.x")[1].above, *below);
        assert_eq!(names("a.y"), ["y"]);
        assert!(places.of("a").is_empty());
    }
}
