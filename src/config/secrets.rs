//! What in a configuration is nobody's business who may see the rest of it: passwords that are written into it.
//!
//! Told by what it is called: the key, the parameter of a URL, the argument of a command before it; and user and password before
//! the `@` of a URL. A secret that nothing tells as one is shown: in a comment, in the path of a URL, in any other argument.
//!
//! Found by reading the text as TOML and not line by line, so that a value over several lines, in an inline table or under
//! a key in quotes is found as well.

use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// What stands in the place of a secret.
const HIDDEN: &str = "<hidden>";
/// How the names of secrets end.
const SECRET: [&str; 6] = ["password", "passphrase", "secret", "token", "api_key", "apikey"];
/// Too short to be looked for in the end of any word (`bypass`).
const SECRET_WORDS: [&str; 2] = ["pass", "pwd"];
/// Parameters of URLs whose names end so, because people who make cameras and web services call them anything.
const PARAMETERS: [&str; 7] = ["password", "pass", "pwd", "token", "key", "secret", "auth"];
/// Arguments of commands that are followed by a secret.
const OPTIONS: [&str; 3] = ["-u", "--user", "--password"];
/// Stands for each of them, where a key does.
const OPTION: &str = "password";

/// The text without its secrets. What is no TOML is all secret.
pub fn hide(text: &str) -> String {
    let Ok(table) = DeTable::parse(text) else { return String::new() };
    let mut found = Vec::new();
    for (key, value) in table.get_ref() {
        walk(key.get_ref(), value.span(), value.get_ref(), &mut |key, span, value| {
            let plain = match is_secret(key) {
                true => HIDDEN.to_owned(),
                false => without_parameters(without_credentials(without_argument(value))),
            };
            if plain != value {
                found.push((span, plain));
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

fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let last = key.rsplit(['_', '-']).next();
    SECRET.iter().any(|name| key.ends_with(name)) || last.is_some_and(|word| SECRET_WORDS.contains(&word))
}

/// All texts below a key, with the nearest key above each, which for one after an option of a command is that option.
fn walk(key: &str, span: Range<usize>, value: &DeValue<'_>, see: &mut impl FnMut(&str, Range<usize>, &str)) {
    match value {
        DeValue::String(text) => see(key, span, text),
        DeValue::Array(items) => {
            let mut before = key;
            for item in items {
                walk(before, item.span(), item.get_ref(), see);
                before = item.get_ref().as_str().filter(|text| OPTIONS.contains(text)).map_or(key, |_| OPTION);
            }
        }
        DeValue::Table(table) => {
            table.iter().for_each(|(key, value)| walk(key.get_ref(), value.span(), value.get_ref(), see));
        }
        _ => {}
    }
}

/// `--user=<hidden>` of `--user=me:password`.
fn without_argument(text: &str) -> String {
    match text.split_once('=') {
        Some((option, _)) if OPTIONS.contains(&option) => format!("{option}={HIDDEN}"),
        _ => text.to_owned(),
    }
}

/// `http://camera/1?user=me&pwd=<hidden>` of `http://camera/1?user=me&pwd=password`.
fn without_parameters(text: String) -> String {
    if !text.contains("://") {
        return text;
    }
    let (mut plain, mut rest) = (String::new(), text.as_str());
    while let Some(start) = rest.find(['?', '&', ';']).map(|at| at + 1) {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c: char| c.is_whitespace() || "?&;#\"'".contains(c)).unwrap_or(rest.len());
        if let Some((name, _)) = rest[..end].split_once('=')
            && PARAMETERS.iter().any(|word| name.to_lowercase().ends_with(word))
        {
            plain = plain + name + "=" + HIDDEN;
            rest = &rest[end..];
        }
    }
    plain + rest
}

/// `rtsp://<hidden>@camera/1` of `rtsp://user:password@camera/1`.
fn without_credentials(text: String) -> String {
    let (mut plain, mut rest) = (String::new(), text.as_str());
    while let Some(start) = rest.find("://").map(|at| at + 3) {
        let end = rest[start..].find(|c: char| "/ \"'?#".contains(c)).map_or(rest.len(), |at| start + at);
        plain.push_str(&rest[..start]);
        match rest[start..end].rfind('@') {
            Some(at) => plain = plain + HIDDEN + &rest[start + at..end],
            None => plain.push_str(&rest[start..end]),
        }
        rest = &rest[end..];
    }
    plain + rest
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
    fn parameters_of_urls_and_arguments_are_hidden_by_their_names() {
        for (text, wanted) in [
            ("a = 'http://c/1?user=me&Pwd=s3cret&x=1#a'", "a = \"http://c/1?user=me&Pwd=<hidden>&x=1#a\""),
            ("a = 'rtsp://u:p@c/1?access_token=s3cret'", "a = \"rtsp://<hidden>@c/1?access_token=<hidden>\""),
            ("a = ['http://c?key=s3&auth=s3', 'b?key=1']", "a = [\"http://c?key=<hidden>&auth=<hidden>\", 'b?key=1']"),
            ("a = ['curl', '-u', 'me:s3cret', 'x']", "a = ['curl', '-u', \"<hidden>\", 'x']"),
            (
                "a = ['curl', '--user=me:s3cret', '--user', 's']",
                "a = ['curl', \"--user=<hidden>\", '--user', \"<hidden>\"]",
            ),
            (
                "pass = 's'\nPWD = 's'\nmy-pass = 's'\nbypass = 'b'\napi_key = 's'",
                "pass = \"<hidden>\"\nPWD = \"<hidden>\"\nmy-pass = \"<hidden>\"\nbypass = 'b'\napi_key = \"<hidden>\"",
            ),
            ("user = 'u'\npassword_file = 'p'\nkey = 'k'", "user = 'u'\npassword_file = 'p'\nkey = 'k'"),
            // Nothing says that these are secrets.
            ("a = ['-p', 'shown', 'http://c/shown/1']", "a = ['-p', 'shown', 'http://c/shown/1']"),
        ] {
            assert_eq!(hide(text), wanted);
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        assert_eq!(hide("password = 's3cret"), "");
    }
}
