//! A configuration with a key more, or another name: by its text, so that a person finds his own lines and comments again.
//!
//! Where a line belongs is guessed by what lines look like, which a text in quotes could deceive; so a guess counts only if what it
//! makes reads as the same configuration with that one change.

/// Lines that look like the header of a table, of which nobody has many.
const MOST_HEADERS: usize = 16;

pub(super) fn table(text: &str) -> toml::Table {
    toml::from_str(text).unwrap_or_default()
}

/// The text with `key` in `[name]`, unless it is there; or what has to be written in another way. The value needs no escaping.
pub(super) fn with_key(text: &str, name: &str, key: &str, value: &str) -> Result<String, String> {
    let mut wanted = table(text);
    let is_new = !wanted.contains_key(name);
    let inside = wanted.entry(name).or_insert_with(|| toml::Table::new().into());
    let Some(inside) = inside.as_table_mut() else { return Err(header(name)) };
    if inside.contains_key(key) {
        return Ok(text.to_owned());
    }
    inside.insert(key.to_owned(), value.into());
    let line = format!("{key} = \"{value}\"\n");
    let newline = |before: &str| if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    if is_new {
        // At the end: before it there may be keys above the first header.
        return Ok(format!("{text}{}\n[{name}]\n{line}", newline(text)));
    }
    let mut end = 0;
    let ends = text.split_inclusive('\n').filter_map(|line| {
        end += line.len();
        is_header(line, name).then_some(end)
    });
    let candidates = ends.take(MOST_HEADERS).map(|end| {
        let (before, after) = text.split_at(end);
        format!("{before}{}{line}{after}", newline(before))
    });
    candidates.into_iter().find(|candidate| table(candidate) == wanted).ok_or_else(|| header(name))
}

/// `[name]`, `[ name ]`, `["name"] # why`
fn is_header(line: &str, name: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    let inside = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    inside.is_some_and(|inside| inside.trim().trim_matches(['"', '\'']) == name)
}

fn header(name: &str) -> String {
    format!("[{name}]: write it as a header, [{name}], on a line of its own, with its keys below it")
}

/// The configuration with another `[device] name`, if it has the old one: a name that somebody chose stays.
pub(super) fn renamed(text: &str, old: &str, new: &str) -> Option<String> {
    let name = |text: &str| Some(table(text).get("device")?.get("name")?.as_str()?.to_owned());
    if name(text).as_deref() != Some(old) || old == new {
        return None;
    }
    // The first line that makes it so; a camera may have the same name.
    (0..text.lines().count()).find_map(|at| {
        let line = |(index, line): (usize, &str)| match line.split_once('=') {
            Some((key, value)) if index == at && key.trim() == "name" => {
                format!("{key}={}", value.replacen(old, new, 1))
            }
            _ => line.to_owned(),
        };
        let text: String = text.split_inclusive('\n').enumerate().map(line).collect();
        (name(&text).as_deref() == Some(new)).then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_put_into_tables_where_they_belong() {
        for (text, with) in [
            ("[a] # x\nb = 1", "[a] # x\nc = \"d\"\nb = 1"),
            ("[a]", "[a]\nc = \"d\"\n"),
            ("[ a ]\nb = 1\n", "[ a ]\nc = \"d\"\nb = 1\n"),
            ("[\"a\"]\n[e]\n", "[\"a\"]\nc = \"d\"\n[e]\n"),
            ("[b]\n", "[b]\n\n[a]\nc = \"d\"\n"),
            ("b.x = 1", "b.x = 1\n\n[a]\nc = \"d\"\n"),
            ("", "\n[a]\nc = \"d\"\n"),
            ("[a]\nc = 1\n", "[a]\nc = 1\n"),
            // What looks like the header and is none.
            ("x = '''\n[a]\n'''\n[a]\n", "x = '''\n[a]\n'''\n[a]\nc = \"d\"\n"),
        ] {
            assert_eq!(with_key(text, "a", "c", "d").as_deref(), Ok(with));
        }
        for text in ["a = {}\n", "a.b = 1\n", "[a.b]\n", "a = 1\n", "[[a]]\n"] {
            assert!(
                with_key(text, "a", "c", "d").unwrap_err().contains("write it as a header, [a], on a line"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_name_is_found_by_its_line() {
        let text = "[[camera]]\nname = \"a\"\n[device]\nname = \"a\"\n";
        assert_eq!(renamed(text, "a", "b").as_deref(), Some("[[camera]]\nname = \"a\"\n[device]\nname = \"b\"\n"));
        assert_eq!(renamed("device.name = 'a'\n", "a", "b"), None, "what cannot be done by the line is left alone");
    }
}
