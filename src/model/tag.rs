//! What a tag is called and what is known about it before its first value.

use super::DataType;
use serde::Deserialize;
use std::fmt;
use std::sync::Arc;

/// A tag's name: segments divided by `/`, as in `system/memory/free`. It is the path below `Objects/Tags` in the
/// UA server and the metric name in Sparkplug B.
///
/// Rules, so that it can be all of those: 1 to 32 segments, none empty, none with leading or trailing blanks, no
/// control characters, 255 bytes in all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TagName(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagNameError {
    #[error("a tag name must not be empty")]
    Empty,
    #[error("tag name {0:?} is longer than 255 bytes")]
    TooLong(String),
    #[error("tag name {0:?} has more than 32 segments")]
    TooDeep(String),
    #[error("tag name {0:?} has an empty segment; write it as `folder/name`, without `//` and without `/` at an end")]
    EmptySegment(String),
    #[error("tag name {0:?} has a segment that begins or ends with a blank")]
    Blank(String),
    #[error("tag name {0:?} has a control character")]
    Control(String),
}

impl TryFrom<String> for TagName {
    type Error = TagNameError;

    fn try_from(name: String) -> Result<Self, TagNameError> {
        Self::new(&name)
    }
}

impl TagName {
    pub fn new(name: &str) -> Result<Self, TagNameError> {
        let is_blank = |segment: &str| segment.trim() != segment;
        match name {
            "" => Err(TagNameError::Empty),
            _ if name.len() > 255 => Err(TagNameError::TooLong(name.into())),
            _ if name.split('/').count() > 32 => Err(TagNameError::TooDeep(name.into())),
            _ if name.split('/').any(str::is_empty) => Err(TagNameError::EmptySegment(name.into())),
            _ if name.split('/').any(is_blank) => Err(TagNameError::Blank(name.into())),
            _ if name.chars().any(char::is_control) => Err(TagNameError::Control(name.into())),
            _ => Ok(Self(name.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path, outermost folder first; the last segment is the tag itself.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

/// All folders above a name, outermost first: `a` and `a/b` for `a/b/c`.
pub fn folders(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

/// Lets maps keyed by name be asked with a plain string; `Hash` and `Eq` are those of the string.
impl std::borrow::Borrow<str> for TagName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The span of a value in normal operation; becomes `EURange` in OPC UA and a percent deadband's 100 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub low: f64,
    pub high: f64,
}

/// What is known about a tag before its first value.
#[derive(Clone, Debug, PartialEq)]
pub struct TagSpec {
    pub name: TagName,
    pub data_type: DataType,
    /// An array of any length rather than a scalar.
    pub is_array: bool,
    pub writable: bool,
    /// One sentence for people; may be empty.
    pub description: String,
    /// Engineering unit as people write it: `°C`, `%`, `B`. Empty if the value has none.
    pub unit: String,
    pub range: Option<Range>,
    /// The names of the values 0, 1, 2... of an unsigned number that is a choice of states; a gap is an empty name. Of a
    /// Boolean: what false and what true mean. Empty if the value is none. Becomes `EnumStrings`, or `FalseState` and
    /// `TrueState`, in OPC UA.
    pub states: Vec<Arc<str>>,
    /// The value may change without a sample: readers have to ask for one first.
    pub live: bool,
}

impl TagSpec {
    /// A read-only scalar without unit or range.
    pub fn new(name: TagName, data_type: DataType) -> Self {
        Self {
            name,
            data_type,
            is_array: false,
            writable: false,
            description: String::new(),
            unit: String::new(),
            range: None,
            states: Vec::new(),
            live: false,
        }
    }

    pub fn described(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some(Range { low, high });
        self
    }

    pub fn states(mut self, states: Vec<Arc<str>>) -> Self {
        self.states = states;
        self
    }

    pub fn live(mut self) -> Self {
        self.live = true;
        self
    }

    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths() {
        let name = TagName::new("system/memory/free").unwrap();
        assert_eq!(name.segments().collect::<Vec<_>>(), ["system", "memory", "free"]);
        assert!(TagName::new("Linie 1/Füllstand").is_ok());
    }

    #[test]
    fn what_cannot_be_a_path_is_refused_with_the_reason() {
        for (bad, word) in [
            ("", "empty"),
            ("/a", "empty segment"),
            ("a//b", "empty segment"),
            ("a/", "empty segment"),
            (" a", "blank"),
            ("a\n", "blank"),
            ("a\tb", "control"),
            (&"x".repeat(256), "longer"),
            (&["x"; 33].join("/"), "segments"),
        ] {
            let error = TagName::new(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad:?}: {error}");
        }
    }
}
