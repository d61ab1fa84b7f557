//! A sample as a Sparkplug metric: name, time, value, and its quality as properties.
//!
//! A birth tells the type, unit, range and description as well; DATA does not, because they do not change.
//!
//! Quality is the property `Quality` (Sparkplug 3.0, 6.4.9.1): 0 bad, 192 good, 500 stale. Absent means good, so it is
//! sent while a tag is not good and once when it becomes good again. The reason in words is the property `Reason`,
//! which is ours.

use crate::model::{Quality, Sample, Status, TagId, TagSpec, Timestamp, Value};
use crate::mqtt::sparkplug::codec;
use crate::mqtt::sparkplug::proto::DataType as Type;
use crate::mqtt::sparkplug::proto::payload::{Metric, PropertySet, PropertyValue, metric, property_value};
use crate::store::Record;

/// Property `Quality`, Sparkplug 3.0, 6.4.9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QualityCode {
    Bad = 0,
    Good = 192,
    /// A value that was good once, or that is still to come.
    Stale = 500,
}

impl From<Status> for QualityCode {
    fn from(status: Status) -> Self {
        match status {
            _ if status.is_good() => QualityCode::Good,
            _ if status.is_uncertain() || status == Status::BAD_WAITING_FOR_INITIAL_DATA => QualityCode::Stale,
            _ => QualityCode::Bad,
        }
    }
}

/// One thing to be said of a tag.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) tag: TagId,
    pub(super) value: Value,
    pub(super) quality: Quality,
    pub(super) time: Timestamp,
    /// Older than what the host was shown as the newest.
    pub(super) is_historical: bool,
}

impl Item {
    pub(super) fn new(sample: &Sample, is_historical: bool) -> Self {
        let (value, quality) = (sample.value.clone(), sample.quality.clone());
        Self { tag: sample.tag, value, quality, time: time_of(sample), is_historical }
    }

    pub(super) fn kept(tag: TagId, record: &Record) -> Self {
        let (value, quality) = (record.value.clone(), record.status.into());
        Self { tag, value, quality, time: record.time(), is_historical: true }
    }
}

/// The metric of one item and the quality that it tells. `told` is what was told before; `birth` adds what does not change: the type,
/// and what is known about the tag.
pub(super) fn of_item(
    spec: &TagSpec,
    name: &str,
    item: &Item,
    told: QualityCode,
    birth: bool,
) -> (Metric, QualityCode) {
    let (value, quality) = checked(spec, item);
    let code = QualityCode::from(quality.status);
    let mut properties = Properties::default();
    if birth {
        properties.of_tag(spec);
    }
    if code != QualityCode::Good || told != QualityCode::Good {
        properties.of_quality(code, &quality);
    }
    let metric = Metric {
        name: Some(name.to_owned()),
        timestamp: Some(millis(item.time)),
        datatype: birth.then(|| codec::metric_type(spec.data_type, spec.is_array) as u32),
        is_historical: item.is_historical.then_some(true),
        is_null: value.is_none().then_some(true),
        properties: properties.into_set(),
        value,
        ..Metric::default()
    };
    (metric, code)
}

/// When the value was so: by the clock of whoever measured it, else by this device's.
pub(super) fn time_of(sample: &Sample) -> Timestamp {
    sample.source_time.unwrap_or(sample.server_time)
}

/// Sparkplug counts from 1970 and without a sign.
pub(super) fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.millis()).unwrap_or(0)
}

/// A metric of the node itself.
pub(super) fn of_node(name: &str, datatype: Type, value: metric::Value, now: Timestamp) -> Metric {
    Metric {
        name: Some(name.to_owned()),
        timestamp: Some(millis(now)),
        datatype: Some(datatype as u32),
        value: Some(value),
        ..Metric::default()
    }
}

/// Whether a value of this type can be told of the tag; none at all always can.
pub(super) fn fits(spec: &TagSpec, value: &Value) -> bool {
    value.data_type().is_none_or(|found| found == spec.data_type && value.is_array() == spec.is_array)
}

/// DATA carries no type, so a host would read a value of another type than the birth's as nonsense: rather null.
fn checked(spec: &TagSpec, item: &Item) -> (Option<metric::Value>, Quality) {
    match item.value.data_type() {
        Some(found) if !fits(spec, &item.value) => {
            let reason = format!("the source gives {found}, but the tag is of type {}", spec.data_type);
            (None, Quality::new(Status::BAD_TYPE_MISMATCH, reason))
        }
        _ => (codec::encode(&item.value), item.quality.clone()),
    }
}

#[derive(Default)]
struct Properties(PropertySet);

impl Properties {
    fn push(&mut self, key: &str, datatype: Type, value: property_value::Value) {
        self.0.keys.push(key.to_owned());
        self.0.values.push(PropertyValue { r#type: Some(datatype as u32), is_null: None, value: Some(value) });
    }

    fn push_text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.push(key, Type::String, property_value::Value::StringValue(text.to_owned()));
        }
    }

    /// Sparkplug names none of these keys; hosts know the first three.
    fn of_tag(&mut self, spec: &TagSpec) {
        self.push_text("engUnit", &spec.unit);
        if let Some(range) = spec.range {
            self.push("engLow", Type::Double, property_value::Value::DoubleValue(range.low));
            self.push("engHigh", Type::Double, property_value::Value::DoubleValue(range.high));
        }
        self.push_text("description", &spec.description);
    }

    fn of_quality(&mut self, code: QualityCode, quality: &Quality) {
        self.push("Quality", Type::Int32, property_value::Value::IntValue(code as u32));
        self.push_text("Reason", quality.reason.as_deref().unwrap_or_default());
    }

    fn into_set(self) -> Option<PropertySet> {
        (!self.0.keys.is_empty()).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DataType, TagName};

    fn spec() -> TagSpec {
        TagSpec::new(TagName::new("a/b").unwrap(), DataType::Int32)
    }

    fn item(value: Value, quality: Quality) -> Item {
        Item { tag: TagId(0), value, quality, time: Timestamp::from_millis(4000), is_historical: false }
    }

    fn of(item: &Item, told: QualityCode, birth: bool) -> (Metric, QualityCode) {
        of_item(&spec(), "b", item, told, birth)
    }

    fn quality_of(metric: &Metric) -> Option<u32> {
        let properties = metric.properties.as_ref()?;
        assert_eq!(properties.keys.len(), properties.values.len());
        let at = properties.keys.iter().position(|key| key == "Quality")?;
        match properties.values[at].value {
            Some(property_value::Value::IntValue(code)) => Some(code),
            _ => None,
        }
    }

    #[test]
    fn quality_is_told_while_it_is_not_good_and_once_when_it_is_again() {
        let good = item(Value::Int32(1), Quality::GOOD);
        let lost = item(Value::Int32(1), Quality::new(Status::BAD_NOT_CONNECTED, "unplugged"));
        let old = item(Value::Int32(1), Status::UNCERTAIN_LAST_USABLE_VALUE.into());
        let waiting = item(Value::Empty, Status::BAD_WAITING_FOR_INITIAL_DATA.into());
        let told = |item, told| quality_of(&of(item, told, false).0);
        assert_eq!(told(&good, QualityCode::Good), None);
        assert_eq!(told(&lost, QualityCode::Good), Some(0));
        assert_eq!(told(&old, QualityCode::Good), Some(500));
        assert_eq!(told(&waiting, QualityCode::Good), Some(500));
        assert_eq!(told(&good, QualityCode::Bad), Some(192));

        let (metric, _) = of(&lost, QualityCode::Good, false);
        let properties = metric.properties.unwrap();
        assert_eq!(properties.keys, ["Quality", "Reason"]);
        assert_eq!(properties.values[1].value, Some(property_value::Value::StringValue("unplugged".into())));
        assert_eq!(metric.value, Some(metric::Value::IntValue(1)), "the last value is kept");
    }

    #[test]
    fn only_a_birth_tells_what_does_not_change_and_each_metric_its_own_time() {
        let good = item(Value::Int32(1), Quality::GOOD);
        let (birth, _) = of(&good, QualityCode::Good, true);
        let (data, _) = of(&good, QualityCode::Good, false);
        assert_eq!((birth.datatype, data.datatype), (Some(Type::Int32 as u32), None));
        assert_eq!((data.name.as_deref(), data.timestamp, data.alias), (Some("b"), Some(4000), None));
        assert_eq!((birth.properties, data.properties), (None, None));
        let before_1970 = Item { time: Timestamp::from_millis(-1), ..good.clone() };
        assert_eq!(of(&before_1970, QualityCode::Good, false).0.timestamp, Some(0));

        let described = spec().unit("mm").range(-1.0, 4.0).described("How far");
        let (birth, _) = of_item(&described, "b", &good, QualityCode::Bad, true);
        let properties = birth.properties.unwrap();
        assert_eq!(properties.keys, ["engUnit", "engLow", "engHigh", "description", "Quality"]);
        assert_eq!(properties.values[2].value, Some(property_value::Value::DoubleValue(4.0)));
        assert_eq!(of_item(&described, "b", &good, QualityCode::Good, false).0.properties, None);
    }

    #[test]
    fn a_value_of_another_type_than_the_tags_is_null_and_says_why() {
        for other in [Value::Double(1.0), Value::from(crate::model::Array::new(DataType::Int32, [], None).unwrap())] {
            let (metric, code) = of(&item(other, Quality::GOOD), QualityCode::Good, false);
            assert_eq!((metric.is_null, metric.value, code), (Some(true), None, QualityCode::Bad));
        }
    }
}
