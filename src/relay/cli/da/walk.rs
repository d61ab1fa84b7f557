//! A walk through a DA server's address space, depth first, and the finding of branches and items by what people write.
//!
//! A branch that cannot be browsed is said, and ends the walk only if it is the first or if the server is lost.

use super::output::{Failed, note};
use crate::base::selection::is_like;
use crate::relay::com::Connection;
use crate::relay::hresults::{explained, is_gone};
use crate::relay::protocol::{Branch, Entry};

/// Deeper than anybody's tree: one that goes round in circles.
const DEEPEST: usize = 64;

/// Something on the way.
pub struct Found<'a> {
    pub entry: &'a Entry,
    /// With the entry's own name.
    pub names: &'a [String],
}

impl Found<'_> {
    /// For people: names with slashes between.
    pub fn path(&self) -> String {
        self.names.join("/")
    }

    /// Upper and lower case alike.
    pub fn fits(&self, pattern: &str) -> bool {
        let pattern = pattern.to_lowercase();
        let item_id = self.entry.item_id.as_deref().unwrap_or_default();
        [item_id, &self.entry.name, &self.path(), &self.names.join(".")]
            .iter()
            .any(|text| is_like(&pattern, &text.to_lowercase()))
    }
}

/// What is done with what is found.
type Seen<'a> = &'a mut dyn FnMut(&mut Connection, &Found<'_>) -> Result<(), Failed>;

/// Everything below `branch`, `depth` levels of it. Whether that is all there is: what could not be browsed was said.
pub fn walk(connection: &mut Connection, branch: &Branch, depth: usize, seen: Seen<'_>) -> Result<bool, Failed> {
    let mut walk = Walk { is_first: true, is_whole: true };
    below(connection, branch, depth, seen, &mut walk)?;
    Ok(walk.is_whole)
}

struct Walk {
    is_first: bool,
    is_whole: bool,
}

fn below(
    connection: &mut Connection,
    branch: &Branch,
    depth: usize,
    seen: Seen<'_>,
    walk: &mut Walk,
) -> Result<(), Failed> {
    if depth == 0 || branch.names.len() >= DEEPEST {
        return Ok(());
    }
    let mut entries = Vec::new();
    let browsed = connection.browse(branch, &mut |some| {
        entries.extend(some);
        true
    });
    match browsed {
        Err(failure) if !walk.is_first && !is_gone(failure.hresult) => {
            walk.is_whole = false;
            note(&format!("{}: {}: {}", branch.names.join("/"), failure.call, explained(failure.hresult)));
        }
        other => other?,
    }
    walk.is_first = false;
    for entry in entries {
        let names: Vec<String> = branch.names.iter().chain([&entry.name]).cloned().collect();
        seen(connection, &Found { entry: &entry, names: &names })?;
        if entry.is_branch {
            let branch = Branch { names, item_id: entry.item_id };
            below(connection, &branch, depth - 1, seen, walk)?;
        }
    }
    Ok(())
}

pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// The branch that people call `Line 1/Pumps` or `Line 1.Pumps`; its names may hold slashes and dots themselves.
pub fn branch(connection: &mut Connection, written: &str) -> Result<Branch, Failed> {
    let mut here = Branch::default();
    let mut rest = written.trim_matches('/');
    while !rest.is_empty() {
        let mut best: Option<Entry> = None;
        connection.browse(&here, &mut |some| {
            let longer = |entry: &Entry| best.as_ref().is_none_or(|best| best.name.len() < entry.name.len());
            let next = some.into_iter().filter(|entry| entry.is_branch && after(rest, &entry.name).is_some());
            if let Some(next) = next.max_by_key(|entry| entry.name.len()).filter(longer) {
                best = Some(next);
            }
            true
        })?;
        let Some(entry) = best else {
            return Err(Failed::Because(format!("there is no branch {rest:?} below {:?}", here.names.join("/"))));
        };
        rest = after(rest, &entry.name).unwrap_or_default();
        here.names.push(entry.name);
        here.item_id = entry.item_id;
    }
    Ok(here)
}

/// What follows the name in the path.
fn after<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(name).filter(|_| !name.is_empty())?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(['/', '.']) }
}

/// ItemIDs: as they are, and those that fit where there are `*` or `?`. An ItemID may hold those itself, so one that fits nothing
/// is taken as it is. And whether all could be looked through.
pub fn items(connection: &mut Connection, written: &[String]) -> Result<(Vec<String>, bool), Failed> {
    let (mut all, mut is_whole) = (Vec::new(), true);
    for text in written {
        let before = all.len();
        if is_pattern(text) {
            is_whole &= walk(connection, &Branch::default(), usize::MAX, &mut |_, found| {
                if let (true, Some(item_id), true) = (found.entry.is_item, &found.entry.item_id, found.fits(text)) {
                    all.push(item_id.clone());
                }
                Ok(())
            })?;
        }
        if all.len() == before {
            all.push(text.clone());
        }
    }
    Ok((all, is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_off_paths() {
        assert_eq!(after("Line 1/Pumps", "Line 1"), Some("Pumps"));
        assert_eq!(after("with/slash.x", "with/slash"), Some("x"));
        assert_eq!(after("Line 1", "Line 1"), Some(""));
        assert_eq!(after("Line 12", "Line 1"), None);
        assert_eq!(after("x", ""), None);
    }
}
