//! What a line and a unit tell of themselves, as tags: `<name>/status/...` and `<name>/<unit>/status/...`.
//!
//! Counted as things happen, published once a second where something has changed, and at once when it comes or goes.

use crate::hub::Hub;
use crate::model::{DataType, Sample, TagId, TagName, TagNameError, TagSpec, Timestamp, Value};
use std::time::Duration;

/// Of a line or of a unit; what only a line counts stays 0 for a unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub is_connected: bool,
    pub requests: u64,
    /// Answers that were exceptions or none at all.
    pub errors: u64,
    pub timeouts: u64,
    /// Of a line: how long the last scan took that was finished. Of a unit: the last answer.
    pub time: Duration,
    pub last_error: String,
    /// Scans that were not done when the next one was due.
    pub overruns: u64,
    pub reconnects: u64,
}

/// The tags of one [`Counts`].
#[derive(Clone, Debug)]
pub struct Status {
    tags: Vec<TagId>,
    told: Option<Counts>,
}

const OF_BOTH: usize = 6;
const OF_LINE: usize = 8;

/// Of a line, or of a unit, whose folder this is.
pub fn specs(folder: &str, is_line: bool) -> Result<Vec<TagSpec>, TagNameError> {
    let spec = |name: &str, data_type, description: &str| {
        Ok(TagSpec::new(TagName::new(&format!("{folder}/status/{name}"))?, data_type).described(description))
    };
    let (time, described) = match is_line {
        true => ("scan_time", "How long the last scan of a group took"),
        false => ("response_time", "How long the last answer took"),
    };
    let mut specs = vec![
        spec("connected", DataType::Boolean, "It answers")?.states(vec!["no".into(), "yes".into()]),
        spec("requests", DataType::UInt64, "Requests since start")?,
        spec("errors", DataType::UInt64, "Requests with an exception, a wrong answer or none")?,
        spec("timeouts", DataType::UInt64, "Requests without an answer")?,
        spec(time, DataType::Double, described)?.unit("ms"),
        spec("last_error", DataType::String, "The last of the errors, in words")?,
    ];
    if is_line {
        specs.push(spec("overruns", DataType::UInt64, "Scans that were not done when the next one was due")?);
        specs.push(spec("reconnects", DataType::UInt64, "Connections that were made again")?);
    }
    Ok(specs)
}

pub const fn count(is_line: bool) -> usize {
    if is_line { OF_LINE } else { OF_BOTH }
}

impl Status {
    /// In the order of [`specs`].
    pub fn new(tags: &[TagId]) -> Self {
        Self { tags: tags.to_vec(), told: None }
    }

    /// Adds what has changed since it was told last.
    pub fn tell(&mut self, counts: &Counts, now: Timestamp, batch: &mut Vec<Sample>) {
        if self.told.as_ref() == Some(counts) {
            return;
        }
        let (new, old) = (values(counts), self.told.as_ref().map(values));
        for (index, (tag, value)) in self.tags.iter().zip(new).enumerate() {
            if old.as_ref().is_none_or(|old| old[index] != value) {
                batch.push(Sample::good(*tag, value, now));
            }
        }
        self.told = Some(counts.clone());
    }

    pub fn tell_now(&mut self, counts: &Counts, hub: &Hub) {
        let mut batch = Vec::new();
        self.tell(counts, hub.now(), &mut batch);
        hub.publish(batch);
    }
}

fn values(counts: &Counts) -> [Value; OF_LINE] {
    [
        Value::Boolean(counts.is_connected),
        Value::UInt64(counts.requests),
        Value::UInt64(counts.errors),
        Value::UInt64(counts.timeouts),
        Value::Double(counts.time.as_micros() as f64 / 1000.0),
        Value::string(counts.last_error.as_str()),
        Value::UInt64(counts.overruns),
        Value::UInt64(counts.reconnects),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_values_as_tags_and_only_what_changed_is_told() {
        assert_eq!(specs("a", true).unwrap().len(), count(true));
        assert_eq!(specs("a/b", false).unwrap().len(), count(false));
        let tags: Vec<TagId> = (0..count(false) as u32).map(TagId).collect();
        let mut status = Status::new(&tags);
        let mut told = |counts: &Counts| {
            let mut batch = Vec::new();
            status.tell(counts, Timestamp::UNIX_EPOCH, &mut batch);
            batch.into_iter().map(|sample| sample.tag.0).collect::<Vec<_>>()
        };
        assert_eq!(told(&Counts::default()).len(), count(false));
        assert_eq!(told(&Counts { requests: 1, timeouts: 1, ..Counts::default() }), [1, 3]);
        assert!(told(&Counts { requests: 1, timeouts: 1, ..Counts::default() }).is_empty());
    }
}
