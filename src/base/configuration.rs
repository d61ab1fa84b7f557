//! A configuration file and what is wrong with it: by line and key, in words, with what would be right.
//!
//!     text ──[`Source::parse`]──► a struct of whoever has a configuration ──checked by it──► [`Source::fault`]

use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What the names of the files end with that stand beside a configuration while another is on trial (app/commit.rs): the one that
/// says so, and the one that comes back. Without the first there is no trial.
pub const ON_TRIAL: &str = ".trial";
pub const BEFORE_TRIAL: &str = ".before";

/// One thing that is wrong with a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub file: PathBuf,
    /// From 1; 0 if the fault is not in a line.
    pub line: usize,
    /// `[ua_server] listen`, or empty.
    pub key: String,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Everything that is wrong with a configuration file. Never empty.
#[derive(Debug)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Remembers where tables stand, to say later what is wrong with them.
pub struct Source {
    file: PathBuf,
    text: String,
}

impl Source {
    pub fn new(file: &Path, text: String) -> Self {
        Self { file: file.into(), text }
    }

    pub fn read(file: &Path) -> Result<Self, Faults> {
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Self::new(file, text)),
            Err(error) => {
                let what = format!("cannot read it ({error}); name a configuration file with --config");
                Err(Faults(vec![Fault { file: file.into(), line: 0, key: String::new(), what }]))
            }
        }
    }

    /// Keys and types. `moved` says where a key is now that once was in a table.
    pub fn parse<T: DeserializeOwned>(&self, moved: fn(&str, &str) -> Option<&'static str>) -> Result<T, Faults> {
        toml::from_str(&self.text).map_err(|error| Faults(vec![self.shape_fault(&error, moved)]))
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// A fault that was found only when the configuration was put to use, such as a port that is taken.
    pub fn fault(&self, table: &str, span: &Range<usize>, key: &str, what: String) -> Fault {
        Fault {
            file: self.file.clone(),
            line: self.line_of_key(span, key),
            key: format!("{table} {key}").trim().to_owned(),
            what: without_credentials(&what),
        }
    }

    /// A fault of what stands at this place.
    pub fn fault_at(&self, offset: usize, what: String) -> Fault {
        let what = without_credentials(&what);
        Fault { file: self.file.clone(), line: self.line_at(offset), key: self.table_around(offset), what }
    }

    /// Where a table begins that the configuration does not keep the place of.
    pub fn header(&self, table: &str) -> Range<usize> {
        let start = self.text.find(table).unwrap_or(0);
        start..start
    }

    /// The same for the `index`-th of several.
    pub fn nth_header(&self, table: &str, index: usize) -> Option<Range<usize>> {
        let is_header = |(start, _): &(usize, &str)| {
            let before = self.text[..*start].rsplit('\n').next().unwrap_or_default();
            before.trim().is_empty()
        };
        let start = self.text.match_indices(table).filter(is_header).nth(index)?.0;
        Some(start..start)
    }

    fn line_at(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count()
    }

    /// The line of a key within the table that begins at `span`, else of the table's header. toml gives as a table's
    /// span its header only, so the table ends where the next header begins; an inline table is taken for one line.
    pub fn line_of_key(&self, span: &Range<usize>, key: &str) -> usize {
        let mut offset = span.start;
        if self.text.get(offset..).is_some_and(|text| text.starts_with('{')) {
            return self.line_at(offset);
        }
        for line in self.text.get(span.start..).unwrap_or_default().split_inclusive('\n') {
            if offset > span.start && line.trim_start().starts_with('[') {
                break;
            }
            let is_key = line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
            if is_key {
                return self.line_at(offset);
            }
            offset += line.len();
        }
        self.line_at(span.start)
    }

    /// What toml says about keys and types, in the same words as the rest.
    fn shape_fault(&self, error: &toml::de::Error, moved: fn(&str, &str) -> Option<&'static str>) -> Fault {
        let span = error.span().unwrap_or(0..0);
        let message = error.message();
        let fault = |key: &str, what: String| Fault {
            file: self.file.clone(),
            line: self.line_at(span.start),
            key: key.to_owned(),
            what: without_credentials(&what),
        };
        let table = self.table_around(span.start);
        let word = self.text.get(span.clone()).unwrap_or_default();
        if let Some(rest) = message.strip_prefix("unknown field `")
            && let Some((unknown, known)) = rest.split_once("`, ")
        {
            if let Some(to) = moved(&table, unknown) {
                return fault(&table, format!("`{unknown}` has moved to {to}"));
            }
            let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            return fault(&table, unknown_key(unknown, &known));
        }
        if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            return fault(&table, format!("the key `{key}` is missing; add {key} = ..."));
        }
        let key = self.key_in_line(span.start).map_or(table.clone(), |key| format!("{table} {key}").trim().to_owned());
        let is_secret = self.is_of_secret(span.start);
        let what = match message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected ")) {
            Some((found, expected)) => {
                // "integer `5`": only what it is.
                let found =
                    if is_secret { found.split(['`', '"']).next().unwrap_or_default().trim_end() } else { found };
                format!("wrong type: {found} where {} belongs", plain_type(expected))
            }
            None if is_secret && message.starts_with("invalid value: ") => {
                let expected = message.rsplit_once(", expected ").map_or("another value", |(_, expected)| expected);
                format!("must be {}", plain_type(expected))
            }
            None if is_secret || word.is_empty() || message.contains(word) => message.to_owned(),
            None => {
                // As it stands in the file, where its quotes are others than those of what is said.
                let word = credentials(word)
                    .map_or(word.to_owned(), |hidden| format!("{}...{}", &word[..hidden.start], &word[hidden.end..]));
                format!("{word}: {message}")
            }
        };
        fault(&key, what.replace('\n', "; "))
    }

    /// The last header before a place: `[mqtt]`, or empty above the first.
    fn table_around(&self, offset: usize) -> String {
        let line_end = self.text[offset.min(self.text.len())..].find('\n').map_or(self.text.len(), |at| offset + at);
        let headers = self.text[..line_end].lines().rev().map(str::trim).filter(|line| line.starts_with('['));
        let header = headers.map(|line| line.split('#').next().unwrap_or(line).trim()).next();
        header.unwrap_or_default().to_owned()
    }

    /// What stands at this place may be a secret, by what its line calls it.
    fn is_of_secret(&self, offset: usize) -> bool {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let before = before.rsplit('\n').next().unwrap_or_default().to_lowercase();
        ["pass", "pwd", "secret", "token", "api_key", "apikey"].iter().any(|word| before.contains(word))
    }

    fn key_in_line(&self, offset: usize) -> Option<&str> {
        let line = self.text.lines().nth(self.line_at(offset).checked_sub(1)?)?;
        let (key, _) = line.split_once('=')?;
        Some(key.trim())
    }
}

/// toml speaks of Rust's types; people do not.
fn plain_type(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number".into(),
        "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        other if other.starts_with("struct ") => "a table".into(),
        "a string" | "path string" => "text in quotes".into(),
        other => other.to_owned(),
    }
}

fn unknown_key(unknown: &str, known: &[&str]) -> String {
    let similar = known.iter().map(|key| (strsim::jaro_winkler(unknown, key), key));
    let nearest = similar.filter(|(likeness, _)| *likeness > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, key)) => format!("unknown key `{unknown}`; did you mean `{key}`?"),
        None => format!("unknown key `{unknown}`; known are {}", known.join(", ")),
    }
}

/// What is told of a fault goes to the console, to logs and upstream, and often quotes what it is about: user and password are left
/// out of URLs, also of such that are not quite URLs. A password may have anything in it but what ends the quoted text.
fn without_credentials(what: &str) -> String {
    let mut plain = String::with_capacity(what.len());
    let mut rest = what;
    while !rest.is_empty() {
        let end = end_of_quoted(rest);
        let (piece, after) = rest.split_at(end);
        match credentials(piece) {
            Some(hidden) => plain = plain + &piece[..hidden.start] + "..." + &piece[hidden.end..],
            None => plain.push_str(piece),
        }
        let quote = usize::from(!after.is_empty());
        plain.push_str(&after[..quote]);
        rest = &after[quote..];
    }
    plain
}

/// Up to the next quote that is none of the quoted text's own.
fn end_of_quoted(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().find(|&(_, c)| {
        let is_end = matches!(c, '"' | '`') && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// `user:password` of `scheme://user:password@host`, of `scheme:/...@host`, of `//...@host`, and of `user:password@host`.
fn credentials(piece: &str) -> Option<Range<usize>> {
    let end = piece.rfind('@')?;
    let before = &piece[..end];
    let start = ["//", ":/"].iter().find_map(|mark| before.find(mark).map(|at| at + mark.len()));
    let is_bare = || !before.contains(char::is_whitespace) && before.contains(':');
    let start = start.or_else(|| is_bare().then_some(0))?;
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::num::NonZeroU8;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Whole {
        #[serde(rename = "mqtt")]
        _mqtt: Mqtt,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Mqtt {
        #[serde(rename = "broker")]
        _broker: Option<Broker>,
        #[serde(rename = "password_file")]
        _password_file: Option<PathBuf>,
        #[serde(rename = "secret")]
        _secret: Option<NonZeroU8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Broker;

    impl TryFrom<String> for Broker {
        type Error = String;

        fn try_from(_: String) -> Result<Self, String> {
            Err("it is not understood".into())
        }
    }

    fn said(mqtt: &str) -> String {
        let source = Source::new(Path::new("x.toml"), format!("[mqtt]\n{mqtt}\n"));
        source.parse::<Whole>(|_, _| None).unwrap_err().to_string()
    }

    #[test]
    fn what_is_said_of_a_fault_tells_no_secret() {
        for (text, what) in [
            ("broker = \"mqtts://line1:hunter2@b\"", "[mqtt] broker: \"mqtts://...@b\": it is not understood"),
            ("broker = 'mqtts://line1:hun\"ter2 @@b'", "[mqtt] broker: 'mqtts://...@b': it is not understood"),
            ("password_file = 12345678", "[mqtt] password_file: wrong type: integer where text in quotes belongs"),
            ("secret = 0", "[mqtt] secret: must be "),
            ("password_file = hunter2", "[mqtt] password_file: "),
            ("broker = 5", "[mqtt] broker: wrong type: integer `5` where text in quotes belongs"),
        ] {
            let said = said(text);
            assert!(said.starts_with(&format!("x.toml:2: {what}")), "{said}");
            assert!(!["hunter2", "ter2", "12345678"].iter().any(|secret| said.contains(secret)), "{said}");
        }
        let source = Source::new(Path::new("x.toml"), String::new());
        let fault = source.fault("[[ua_client]]", &(0..0), "url", "\"opc.tcp//me:SECRET@b\" is no URL".into());
        assert_eq!(fault.what, "\"opc.tcp//...@b\" is no URL");
        assert_eq!(source.fault_at(0, "rtsp://me:SECRET@b/x".into()).what, "rtsp://...@b/x");
    }

    #[test]
    fn only_credentials_are_left_out() {
        for (text, plain) in [
            (
                "\"opc.tcp//me:S@b\" is none, as in \"opc.tcp://plc:4840\"",
                "\"opc.tcp//...@b\" is none, as in \"opc.tcp://plc:4840\"",
            ),
            ("`rtsp:/me:SEC RET@b/x`", "`rtsp:/...@b/x`"),
            ("\"a://u:p\\\"q@b\"", "\"a://...@b\""),
            ("\"me:SECRET@b\"", "\"...@b\""),
            ("\"anna@plant\" is no user; write to me@plant", "\"anna@plant\" is no user; write to me@plant"),
            ("mqtt://b: it is not there", "mqtt://b: it is not there"),
        ] {
            assert_eq!(without_credentials(text), plain);
        }
    }
}
