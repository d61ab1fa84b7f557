//! The names that Sparkplug gives to groups, edge nodes and devices.

use serde::Deserialize;
use std::fmt;

/// A group id or an edge node id: a level of a topic, so without `/`, `+`, `#` (Sparkplug 3.0, 4.1.2 and 4.1.4) and
/// without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SparkplugId(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SparkplugIdError {
    #[error("a Sparkplug id must not be empty")]
    Empty,
    #[error(
        "Sparkplug id {0:?} must not contain `/`, `+`, `#` or control characters: it is one level of an MQTT topic"
    )]
    Character(String),
}

impl SparkplugId {
    pub fn new(id: &str) -> Result<Self, SparkplugIdError> {
        match id {
            "" => Err(SparkplugIdError::Empty),
            _ if id.contains(is_forbidden) => Err(SparkplugIdError::Character(id.to_owned())),
            _ => Ok(Self(id.to_owned())),
        }
    }

    /// The id nearest to a name that was chosen without Sparkplug in mind: `press/4` becomes `press-4`.
    pub fn nearest(name: &str) -> Self {
        Self::new(&name.replace(is_forbidden, "-")).unwrap_or_else(|_| Self("vedette".into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_forbidden(c: char) -> bool {
    matches!(c, '/' | '+' | '#') || c.is_control()
}

impl TryFrom<String> for SparkplugId {
    type Error = SparkplugIdError;

    fn try_from(id: String) -> Result<Self, SparkplugIdError> {
        Self::new(&id)
    }
}

impl fmt::Display for SparkplugId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_level_of_a_topic() {
        for id in ["", "a/b", "a+", "#", "a\nb"] {
            let error = SparkplugId::new(id).unwrap_err().to_string();
            assert!(error.contains("Sparkplug id"), "{id:?}: {error}");
        }
        assert_eq!(SparkplugId::nearest("press/4+#").as_str(), "press-4--");
        assert_eq!(SparkplugId::nearest("").as_str(), "vedette");
        assert_eq!(SparkplugId::nearest("Werk 1").as_str(), "Werk 1");
    }
}
