//! Names of tags from browse names.
//!
//! A browse name may be anything; a tag's name is a path with rules of its own (model/tag.rs). What is not allowed there
//! becomes `_`. Two nodes that come to one name are told apart by `~2`, and a variable that has variables below it gets the
//! name `Value` inside its own folder, because a tag and a folder cannot share a name. A name that is held is never changed:
//! where a folder would need it, the folder becomes another one (`b~2/c` beside `b`).

use crate::model::folders;
use std::collections::{HashMap, HashSet};

/// One segment.
pub fn segment(browse_name: &str) -> String {
    let plain: String = browse_name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    match plain.trim() {
        "" => "_".into(),
        trimmed => trimmed.into(),
    }
}

/// Makes paths that are all different, and of which none is the folder of another; in the order in which they come.
pub fn distinct(paths: Vec<String>) -> Vec<String> {
    Names::default().give(&paths)
}

/// Names that have been given, and are not given again.
#[derive(Default)]
pub struct Names {
    held: HashSet<String>,
    /// Nobody's names, because other names begin with them.
    folders: HashSet<String>,
    /// What folders are called whose names were held.
    moved: HashMap<String, String>,
    /// The last number after a name, so that a thousand of one name are not counted a thousand times.
    numbers: HashMap<String, u32>,
}

impl Names {
    /// It is somebody's already.
    pub fn hold(&mut self, name: &str) {
        self.held.insert(name.to_owned());
        self.folders.extend(folders(name).map(str::to_owned));
    }

    /// What was given is not used.
    pub fn release(&mut self, name: &str) {
        self.held.remove(name);
    }

    /// A name for each of these paths. Of those that want the same the first gets it.
    pub fn give(&mut self, paths: &[String]) -> Vec<String> {
        let wanted: Vec<String> = paths.iter().map(|path| self.beside(path)).collect();
        for path in &wanted {
            self.folders.extend(folders(path).map(str::to_owned));
        }
        // Who can have what he wants gets it before others get something like it.
        let is_first = |path: &String| !self.folders.contains(path) && self.held.insert(path.clone());
        let first: Vec<bool> = wanted.iter().map(is_first).collect();
        let give = |(path, is_first): (String, bool)| if is_first { path } else { self.other(&path) };
        wanted.into_iter().zip(first).map(give).collect()
    }

    /// Folders that are names already become others.
    fn beside(&mut self, path: &str) -> String {
        let mut beside = String::with_capacity(path.len());
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            beside.push_str(segment);
            if segments.peek().is_some() {
                if self.held.contains(&beside) {
                    // It becomes a folder now, and so it is never held.
                    let held = &self.held;
                    let moved = self.moved.entry(beside);
                    beside = moved.or_insert_with_key(|path| numbered(path, 2, |other| held.contains(other)).0).clone();
                }
                beside.push('/');
            }
        }
        beside
    }

    fn other(&mut self, path: &str) -> String {
        let is_taken = |other: &str| self.held.contains(other) || self.folders.contains(other);
        let inside = format!("{path}/Value");
        let is_folder = self.folders.contains(path);
        let name = if is_folder && !is_taken(&inside) {
            inside
        } else {
            let path = if is_folder { inside } else { path.to_owned() };
            let from = self.numbers.get(&path).map_or(2, |last| last + 1);
            let (name, number) = numbered(&path, from, is_taken);
            self.numbers.insert(path, number);
            name
        };
        self.held.insert(name.clone());
        name
    }
}

fn numbered(path: &str, from: u32, is_taken: impl Fn(&str) -> bool) -> (String, u32) {
    let other = (from..).map(|number| (format!("{path}~{number}"), number)).find(|(other, _)| !is_taken(other));
    other.expect("memory ends before the numbers do")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TagName;
    use proptest::prelude::*;

    #[test]
    fn names_are_made_fit_and_different() {
        assert_eq!([segment("Line 1"), segment(" a/b\n"), segment("")], ["Line 1", "a_b_", "_"]);
        let paths = ["a", "a", "b", "b/c", "a~2", "b/Value"].map(String::from).to_vec();
        assert_eq!(distinct(paths), ["a", "a~3", "b/Value~2", "b/c", "a~2", "b/Value"]);
    }

    #[test]
    fn names_that_are_held_stay() {
        let mut names = Names::default();
        names.hold("x/a");
        let mut give = |paths: &[&str]| names.give(&paths.iter().map(|path| path.to_string()).collect::<Vec<_>>());
        assert_eq!(give(&["b", "x/a", "x"]), ["b", "x/a~2", "x/Value"]);
        assert_eq!(give(&["b/c", "b/d/e", "b"]), ["b~2/c", "b~2/d/e", "b~3"]);
        assert_eq!(give(&["b/f", "b~2", "b/d"]), ["b~2/f", "b~2/Value", "b~2/d/Value"]);
    }

    proptest! {
        #[test]
        fn every_browse_name_becomes_a_tag_name(name in ".{0,60}") {
            let name = segment(&name);
            prop_assert!(TagName::new(&name).is_ok(), "{:?}", name);
        }

        #[test]
        fn no_name_is_twice_or_a_folder(
            paths in proptest::collection::vec("[ab](~2)?(/([ab]|Value)){0,3}", 0..20),
            later in proptest::collection::vec("[ab](~2)?(/([ab]|Value)){0,3}", 0..20),
        ) {
            let mut names = Names::default();
            let mut made = names.give(&paths);
            made.extend(names.give(&later));
            let all: HashSet<_> = made.iter().collect();
            prop_assert_eq!(all.len(), made.len());
            for path in &made {
                for (at, _) in path.match_indices('/') {
                    prop_assert!(!all.contains(&path[..at].to_owned()), "{:?}", made);
                }
            }
        }
    }
}
