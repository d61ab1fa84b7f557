//! What a source says of itself, as tags below `<name>/status`.

use super::config::STATUS;
use super::inbox::Counts;
use crate::hub::{Hub, Registration};
use crate::model::{DataType, Sample, TagName, TagNameError, TagSpec, Value};

/// The numbers behind the tags.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    pub connected: bool,
    /// Sessions after the first.
    pub reconnects: u32,
    pub counts: Counts,
    /// Seconds by which the server's clock is ahead of ours.
    pub clock_offset: Option<f64>,
    /// Empty while there was none.
    pub last_error: String,
}

/// In the order of [`specs`].
const TAGS: usize = 7;

pub(super) fn specs(name: &str) -> Result<Vec<TagSpec>, TagNameError> {
    let spec = |tag: &str, data_type, description: &str| {
        Ok(TagSpec::new(TagName::new(&format!("{name}/{STATUS}/{tag}"))?, data_type).described(description))
    };
    Ok(vec![
        spec("connected", DataType::Boolean, "There is a session with the server")?,
        spec("reconnects", DataType::UInt32, "Sessions after the first since the start")?,
        spec("items_good", DataType::UInt32, "Tags whose value is not bad")?,
        spec("items_bad", DataType::UInt32, "Tags without a value, or with a bad one")?,
        spec(
            "overflows",
            DataType::UInt64,
            "Values that the server threw away because its queue was full, as it tells",
        )?,
        spec("clock_offset", DataType::Double, "How far the server's clock is ahead of this device's")?.unit("s"),
        spec("last_error", DataType::String, "Why there was no session, the last time that there was none")?,
    ])
}

/// Publishes what has changed.
#[derive(Default)]
pub(super) struct Said(Option<Vec<Value>>);

impl Said {
    pub(super) fn publish(&mut self, status: &Status, tags: &Registration, hub: &Hub) {
        let Status { connected, reconnects, counts, clock_offset, last_error } = status;
        let values = vec![
            Value::Boolean(*connected),
            Value::UInt32(*reconnects),
            Value::UInt32(counts.good),
            Value::UInt32(counts.bad),
            Value::UInt64(counts.overflows),
            clock_offset.map_or(Value::Empty, Value::Double),
            Value::string(last_error.as_str()),
        ];
        let now = hub.now();
        let before = self.0.take();
        let is_news = |index: usize| before.as_ref().is_none_or(|before| before[index] != values[index]);
        let samples = tags.tags()[..TAGS].iter().zip(&values).enumerate();
        let samples = samples.filter(|(index, (_, value))| is_news(*index) && **value != Value::Empty);
        hub.publish(samples.map(|(_, (tag, value))| Sample::good(*tag, value.clone(), now)).collect());
        self.0 = Some(values);
    }
}
