//! What in a configuration is nobody's business who may see the rest of it: passwords that are written into it.
//!
//! Found by reading the text as TOML and not line by line, so that a value over several lines, in an inline table or under
//! a key in quotes is found as well.

use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// What stands in the place of a secret.
const HIDDEN: &str = "<hidden>";
/// How the names of secrets end.
const SECRET: [&str; 4] = ["password", "passphrase", "secret", "token"];

/// The text without its secrets. What is no TOML is all secret.
pub fn hide(text: &str) -> String {
    let Ok(table) = DeTable::parse(text) else { return String::new() };
    let mut found = Vec::new();
    for (key, value) in table.get_ref() {
        walk(key.get_ref(), value.span(), value.get_ref(), &mut |key, span, value| {
            let is_secret = SECRET.iter().any(|name| key.to_lowercase().ends_with(name));
            match without_credentials(value) {
                _ if is_secret => found.push((span, HIDDEN.to_owned())),
                Some(plain) => found.push((span, plain)),
                None => {}
            }
        });
    }
    found.sort_by_key(|(span, _)| span.start);
    let (mut hidden, mut at) = (String::with_capacity(text.len()), 0);
    for (span, value) in found {
        hidden.push_str(&text[at..span.start]);
        hidden.push_str(&toml_string(&value));
        at = span.end;
    }
    hidden + &text[at..]
}

/// Where something hidden has come back.
pub(super) fn hidden(text: &str) -> Vec<Range<usize>> {
    let Ok(table) = DeTable::parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    for (key, value) in table.get_ref() {
        walk(key.get_ref(), value.span(), value.get_ref(), &mut |_, span, value| {
            if value.contains(HIDDEN) {
                found.push(span);
            }
        });
    }
    found
}

/// All texts below a key, with the nearest key above each.
fn walk(key: &str, span: Range<usize>, value: &DeValue<'_>, see: &mut impl FnMut(&str, Range<usize>, &str)) {
    match value {
        DeValue::String(text) => see(key, span, text),
        DeValue::Array(items) => items.iter().for_each(|item| walk(key, item.span(), item.get_ref(), see)),
        DeValue::Table(table) => {
            table.iter().for_each(|(key, value)| walk(key.get_ref(), value.span(), value.get_ref(), see));
        }
        _ => {}
    }
}

/// `rtsp://<hidden>@camera/1` of `rtsp://user:password@camera/1`; `None` if there are none in it.
fn without_credentials(text: &str) -> Option<String> {
    let (mut plain, mut rest, mut is_found) = (String::new(), text, false);
    while let Some(start) = rest.find("://").map(|at| at + 3) {
        let end = rest[start..].find(|c: char| "/ \"'?#".contains(c)).map_or(rest.len(), |at| start + at);
        plain.push_str(&rest[..start]);
        match rest[start..end].rfind('@') {
            Some(at) => {
                is_found = true;
                plain = plain + HIDDEN + &rest[start + at..end];
            }
            None => plain.push_str(&rest[start..end]),
        }
        rest = &rest[end..];
    }
    is_found.then(|| plain + rest)
}

/// A basic string (TOML 1.0, "String").
fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_they_are_written_and_the_rest_stays() {
        let text = r#"# A comment with password = "x" stays.
[[ua_client]]
name = "plc" # password
password = 's3cret' # end
a = { user = "u", "pass_phrase" = "stays", Password = "s3cret" }
b.token = """
s3cret
more"""
command = ["ffmpeg", "-i", "rtsp://me:s3cret@camera/1?x=\"1\"", "http://plain/2"]
"#;
        let hidden_text = hide(text);
        assert!(!hidden_text.contains("s3cret") && !hidden_text.contains("more"), "{hidden_text}");
        let wanted = text
            .replace("'s3cret'", "\"<hidden>\"")
            .replace("Password = \"s3cret\"", "Password = \"<hidden>\"")
            .replace("\"\"\"\ns3cret\nmore\"\"\"", "\"<hidden>\"")
            .replace("me:s3cret@", "<hidden>@");
        assert_eq!(hidden_text, wanted);
        assert_eq!(hidden(&hidden_text).len(), 4);
        assert!(hidden(text).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        assert_eq!(hide("password = 's3cret"), "");
    }
}
