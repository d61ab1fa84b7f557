//! Tags that are computed from other tags, and alarms on the limits of any tag.
//!
//!     expression.rs   what may be written: "{line 1/speed} * 0.06"
//!     names.rs        the tags in it
//!     evaluate.rs     its value, quality and time
//!     order.rs        what is computed after what; cycles
//!     limits.rs       high_high, high, low, low_low
//!     run.rs          when: an input changed, at most every `interval`
//!
//! A tag that is used need not exist when the configuration is checked: a source may find it later. Until then the tags
//! that need it are BadNodeIdUnknown and name it. Cycles are refused, also those through several `[[computed]]`.

mod evaluate;
mod expression;
mod limits;
mod names;
mod order;
mod run;

pub use limits::Config as LimitConfig;

use super::{Finding, Place, Source, SourceError};
use crate::base::duration;
use crate::hub::Hub;
use crate::model::{DataType, TagName, TagNameError, TagSpec};
use expression::Expression;
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;
use toml::Spanned;

/// `[[computed]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of its tags. Example: "calc".
    pub name: String,
    /// Least time between two values of a tag. Default: "100ms".
    #[serde(default = "default_interval", deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// Its tags.
    #[serde(default)]
    pub tag: Vec<Spanned<TagConfig>>,
    /// Alarms on the limits of any tags.
    #[serde(default)]
    pub limit: Vec<Spanned<LimitConfig>>,
}

/// `[[computed.tag]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagConfig {
    /// Below the folder; may have folders of its own. Example: "flow/total".
    pub name: String,
    /// Example: "{line 1/speed} * {line 1/width} * 0.06".
    pub expression: String,
    /// "Double", "Int64" (rounded), "Boolean" or "String". Default: what the expression gives; of a tag alone "Double".
    pub r#type: Option<Type>,
    /// Example: "m³/h". Default: none.
    #[serde(default)]
    pub unit: String,
    /// The least and the most in normal operation. Default: unknown.
    pub range: Option<[f64; 2]>,
    /// One sentence for people. Default: the expression.
    pub description: Option<String>,
    /// Of a Boolean: what false and what true mean. Default: none.
    pub states: Option<[String; 2]>,
    /// An alarm on its limits. Example: { high = 80, delay = "5s" }.
    pub limit: Option<LimitConfig>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Type {
    Double,
    Int64,
    Boolean,
    String,
}

const fn default_interval() -> Duration {
    Duration::from_millis(100)
}

impl super::Config for Config {
    fn table(&self) -> &'static str {
        "[[computed]]"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        if self.interval < Duration::from_millis(10) {
            findings.push(("interval", "it is too short; use \"10ms\" or more".to_owned()).into());
        }
        if self.tag.is_empty() && self.limit.is_empty() {
            findings.push(("name", "has nothing to do; add [[computed.tag]] or [[computed.limit]]".to_owned()).into());
        }
        for tag in &self.tag {
            let (at, tag) = (tag.span(), tag.get_ref());
            let found = tag.check(&self.name);
            findings.extend(found.into_iter().map(|(key, what)| Finding { at: Some(at.clone()), key, what }));
            findings.extend(tag.limit.iter().flat_map(|limit| limit.check(&at, true)));
        }
        for limit in &self.limit {
            findings.extend(limit.get_ref().check(&limit.span(), false));
        }
        findings
    }

    fn register(&self, _: &Place, hub: &Hub) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(run::Computed::register(self, hub)?))
    }
}

impl Config {
    /// The tags with limits: where that is said, under which key, and their names.
    fn watched(&self) -> impl Iterator<Item = (std::ops::Range<usize>, &'static str, String)> {
        let own = self.tag.iter().filter(|tag| tag.get_ref().limit.is_some());
        let own = own.map(|tag| (tag.span(), "limit", format!("{}/{}", self.name, tag.get_ref().name)));
        own.chain(self.limit.iter().filter_map(|limit| Some((limit.span(), "tag", limit.get_ref().tag.clone()?))))
    }
}

impl TagConfig {
    fn check(&self, folder: &str) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        // A folder that is wrong is said once.
        if let Err(error) = TagName::new(&self.name).and_then(|_| match TagName::new(folder) {
            Ok(_) => TagName::new(&format!("{folder}/{}", self.name)).map(|_| ()),
            Err(_) => Ok(()),
        }) {
            faults.push(("name", error.to_string()));
        }
        let expression = Expression::parse(&self.expression);
        if let Err(error) = &expression {
            faults.push(("expression", error.to_string()));
        }
        let Ok(expression) = expression else { return faults };
        let data_type = self.data_type(&expression);
        if let Some([low, high]) = self.range
            && (!low.is_finite() || !high.is_finite() || low >= high)
        {
            faults.push(("range", format!("[{low}, {high}] is no range; write the lower number first")));
        }
        if self.range.is_some() && !data_type.is_number() {
            faults.push(("range", format!("a {data_type} has none; leave it out")));
        }
        if self.states.is_some() && data_type != DataType::Boolean {
            faults.push(("states", format!("only a Boolean has them, and this is a {data_type}; leave them out")));
        }
        if self.limit.is_some() && data_type == DataType::String {
            faults.push(("limit", "a String has none; leave it out".into()));
        }
        faults
    }

    fn data_type(&self, expression: &Expression) -> DataType {
        match self.r#type {
            Some(Type::Double) => DataType::Double,
            Some(Type::Int64) => DataType::Int64,
            Some(Type::Boolean) => DataType::Boolean,
            Some(Type::String) => DataType::String,
            None => expression.data_type().unwrap_or(DataType::Double),
        }
    }

    fn spec(&self, folder: &str, expression: &Expression) -> Result<TagSpec, TagNameError> {
        let name = TagName::new(&format!("{folder}/{}", self.name))?;
        let description = self.description.as_deref().unwrap_or(&self.expression);
        let mut spec = TagSpec::new(name, self.data_type(expression)).described(description).unit(&*self.unit);
        if let Some([low, high]) = self.range {
            spec = spec.range(low, high);
        }
        Ok(match &self.states {
            Some(states) => spec.states(states.iter().map(|state| state.as_str().into()).collect()),
            None => spec,
        })
    }
}

/// Tags with more than one set of limits, in all tables: there is one alarm for each tag.
pub fn limited_twice(tables: &[&Config]) -> Vec<Finding> {
    let mut watched: HashMap<String, &str> = HashMap::new();
    let mut findings = Vec::new();
    for table in tables {
        for (at, key, tag) in table.watched() {
            if let Some(other) = watched.get(&tag) {
                let what = format!("{tag} has limits already, in {other:?}; each tag has one set of them");
                findings.push(Finding { at: Some(at), key, what });
            } else {
                watched.insert(tag, &table.name);
            }
        }
    }
    findings
}

/// The first cycle among the tags of all tables.
pub fn cycle(tables: &[&Config]) -> Option<Finding> {
    let tags = || tables.iter().flat_map(|table| table.tag.iter().map(move |tag| (&table.name, tag)));
    let names: Vec<String> = tags().map(|(folder, tag)| format!("{folder}/{}", tag.get_ref().name)).collect();
    let places: HashMap<&str, usize> = names.iter().zip(0..).map(|(name, place)| (name.as_str(), place)).collect();
    let needs = tags().map(|(_, tag)| {
        // One that cannot be understood is another fault.
        let inputs = Expression::parse(&tag.get_ref().expression).map(|expression| expression.inputs);
        let known = inputs.unwrap_or_default().into_iter().filter_map(|input| places.get(input.as_str()).copied());
        known.collect()
    });
    let cycle = order::order(&needs.collect::<Vec<_>>()).err()?;
    let (_, first) = tags().nth(*cycle.first()?)?;
    let way: Vec<&str> = cycle.iter().chain(&cycle[..1]).map(|&place| names[place].as_str()).collect();
    let what = format!("it needs itself: {}", way.join(" -> "));
    Some(Finding { at: Some(first.span()), key: "expression", what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Config as _;

    pub(super) fn config(toml: &str) -> Config {
        toml::from_str(toml).unwrap()
    }

    fn said(toml: &str) -> Vec<String> {
        config(toml).findings().into_iter().map(|finding| format!("{}: {}", finding.key, finding.what)).collect()
    }

    #[test]
    fn what_is_wrong_is_said_at_its_tag() {
        let toml = "name = 'c'\n[[tag]]\nname = 'a'\nexpression = '1'\n[[tag]]\nname = 'b'\nexpression = '1 +'\n";
        let finding = config(toml).check().pop().unwrap();
        assert_eq!((finding.key, finding.at.unwrap().start), ("expression", toml.rfind("[[tag]]").unwrap()));
        for (toml, words) in [
            ("name = 'c'", "name: has nothing to do"),
            ("name = 'c//d'\n[[tag]]\nname = 'a'\nexpression = '1'", "name: tag name \"c//d\" has an empty segment"),
            ("name = 'c'\n[[tag]]\nname = '/a'\nexpression = '1'", "name: tag name \"/a\" has an empty segment"),
            ("name = 'c'\ninterval = '1ms'\n[[tag]]\nname = 'a'\nexpression = '1'", "interval: it is too short"),
            ("name = 'c'\n[[tag]]\nname = 'a'\nexpression = '1'\nrange = [2, 1]", "range: [2, 1] is no range"),
            ("name = 'c'\n[[tag]]\nname = 'a'\nexpression = '1<2'\nrange = [0, 1]", "range: a Boolean has none"),
            ("name = 'c'\n[[tag]]\nname = 'a'\nexpression = '1'\nstates = ['x', 'y']", "states: only a Boolean"),
            ("name = 'c'\n[[tag]]\nname = 'a'\nexpression = 'text(1)'\nlimit = {high = 1}", "limit: a String has none"),
        ] {
            let said = said(toml);
            assert!(said.len() == 1 && said[0].starts_with(words), "{toml}: {said:?}");
        }
    }

    #[test]
    fn a_tag_has_one_set_of_limits_in_all_tables() {
        let a = config("name = 'a'\n[[limit]]\ntag = 'demo/x'\nhigh = 1\n[[limit]]\ntag = 'b/y'\nhigh = 1");
        let b = config("name = 'b'\n[[tag]]\nname = 'y'\nexpression = '1'\nlimit = { high = 2 }");
        assert!(limited_twice(&[&a]).is_empty() && limited_twice(&[&b]).is_empty());
        let found = limited_twice(&[&a, &b]).pop().unwrap();
        assert_eq!((found.key, found.at), ("limit", Some(b.tag[0].span())));
        assert_eq!(found.what, "b/y has limits already, in \"a\"; each tag has one set of them");
        assert_eq!(limited_twice(&[&a, &a]).len(), 2);
    }

    #[test]
    fn cycles_are_named_also_across_tables() {
        let tag = |name: &str, expression: &str| format!("[[tag]]\nname = '{name}'\nexpression = '{expression}'\n");
        let a = config(&format!("name = 'a'\n{}{}", tag("x", "{a/y} + {b/z}"), tag("y", "{demo/sine}")));
        let b = config(&format!("name = 'b'\n{}", tag("z", "{a/x}")));
        assert!(cycle(&[&a]).is_none() && cycle(&[&b]).is_none());
        assert_eq!(cycle(&[&a, &b]).unwrap().what, "it needs itself: a/x -> b/z -> a/x");
        let own = config(&format!("name = 'a'\n{}", tag("x", "{a/x} + 1")));
        assert_eq!(cycle(&[&own]).unwrap().what, "it needs itself: a/x -> a/x");
    }
}
