//! Names of tags from browse names.
//!
//! A browse name may be anything; a tag's name is a path with rules of its own (model/tag.rs). What is not allowed there
//! becomes `_`. Two nodes that come to one name are told apart by `~2`, and a variable that has variables below it gets the
//! name `Value` inside its own folder, because a tag and a folder cannot share a name.

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
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut taken: HashSet<String> = paths.iter().cloned().collect();
    let mut unique = Vec::with_capacity(paths.len());
    for path in paths {
        let count = counts.entry(path.clone()).or_default();
        *count += 1;
        if *count == 1 {
            unique.push(path);
            continue;
        }
        let mut number = *count;
        let mut other = format!("{path}~{number}");
        while !taken.insert(other.clone()) {
            number += 1;
            other = format!("{path}~{number}");
        }
        unique.push(other);
    }
    let mut folders: HashSet<&str> = HashSet::new();
    for path in &unique {
        folders.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    let inside = |path: &String| {
        let mut inside = format!("{path}/Value");
        while taken.contains(&inside) {
            inside.push('_');
        }
        inside
    };
    unique.iter().map(|path| if folders.contains(path.as_str()) { inside(path) } else { path.clone() }).collect()
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
        assert_eq!(distinct(paths), ["a", "a~3", "b/Value_", "b/c", "a~2", "b/Value"]);
    }

    proptest! {
        #[test]
        fn every_browse_name_becomes_a_tag_name(name in ".{0,60}") {
            let name = segment(&name);
            prop_assert!(TagName::new(&name).is_ok(), "{:?}", name);
        }

        #[test]
        fn no_name_is_twice_or_a_folder(paths in proptest::collection::vec("[ab](/[ab]){0,3}", 0..20)) {
            let made = distinct(paths);
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
