//! A sample as a Sparkplug metric: name, time, value, and its quality as properties.
//!
//! Quality is the property `Quality` (Sparkplug 3.0, 6.4.9.1): 0 bad, 192 good, 500 stale. Absent means good, so it is
//! sent while a tag is not good and once when it becomes good again. The reason in words is the property `Reason`,
//! which is ours.

use crate::model::{Quality, Sample, Status, TagSpec, Timestamp};
use crate::mqtt::sparkplug::codec;
use crate::mqtt::sparkplug::proto::DataType as Type;
use crate::mqtt::sparkplug::proto::payload::{Metric, PropertySet, PropertyValue, metric, property_value};

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

/// The metric of one sample and the quality that it tells. `last` is what was told before; `birth` adds the type.
pub(super) fn of_sample(spec: &TagSpec, sample: &Sample, last: QualityCode, birth: bool) -> (Metric, QualityCode) {
    let (value, quality) = checked(spec, sample);
    let code = QualityCode::from(quality.status);
    let datatype = birth.then(|| codec::metric_type(spec.data_type, spec.is_array) as u32);
    let is_null = value.is_none().then_some(true);
    let properties = (code != QualityCode::Good || last != QualityCode::Good).then(|| properties(code, &quality));
    let metric = Metric {
        name: Some(spec.name.as_str().to_owned()),
        timestamp: Some(millis(time_of(sample))),
        datatype,
        is_null,
        properties,
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

/// DATA carries no type, so a host would read a value of another type than the birth's as nonsense: rather null.
fn checked(spec: &TagSpec, sample: &Sample) -> (Option<metric::Value>, Quality) {
    match sample.value.data_type() {
        Some(found) if found != spec.data_type || sample.value.is_array() != spec.is_array => {
            let reason = format!("the source gives {found}, but the tag is of type {}", spec.data_type);
            (None, Quality::new(Status::BAD_TYPE_MISMATCH, reason))
        }
        _ => (codec::encode(&sample.value), sample.quality.clone()),
    }
}

fn properties(code: QualityCode, quality: &Quality) -> PropertySet {
    let property = |datatype: Type, value| PropertyValue { r#type: Some(datatype as u32), is_null: None, value };
    let mut set = PropertySet {
        keys: vec!["Quality".to_owned()],
        values: vec![property(Type::Int32, Some(property_value::Value::IntValue(code as u32)))],
    };
    if let Some(reason) = &quality.reason {
        set.keys.push("Reason".to_owned());
        set.values.push(property(Type::String, Some(property_value::Value::StringValue(reason.to_string()))));
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DataType, TagId, TagName, Value};

    fn spec() -> TagSpec {
        TagSpec::new(TagName::new("a/b").unwrap(), DataType::Int32)
    }

    fn sample(value: Value, quality: Quality) -> Sample {
        let now = Timestamp::from_millis(5000);
        Sample { tag: TagId(0), value, quality, source_time: Some(Timestamp::from_millis(4000)), server_time: now }
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
        let good = sample(Value::Int32(1), Quality::GOOD);
        let lost = sample(Value::Int32(1), Quality::new(Status::BAD_NOT_CONNECTED, "unplugged"));
        let old = sample(Value::Int32(1), Status::UNCERTAIN_LAST_USABLE_VALUE.into());
        let waiting = sample(Value::Empty, Status::BAD_WAITING_FOR_INITIAL_DATA.into());
        let told = |sample, last| quality_of(&of_sample(&spec(), sample, last, false).0);
        assert_eq!(told(&good, QualityCode::Good), None);
        assert_eq!(told(&lost, QualityCode::Good), Some(0));
        assert_eq!(told(&old, QualityCode::Good), Some(500));
        assert_eq!(told(&waiting, QualityCode::Good), Some(500));
        assert_eq!(told(&good, QualityCode::Bad), Some(192));

        let (metric, _) = of_sample(&spec(), &lost, QualityCode::Good, false);
        let properties = metric.properties.unwrap();
        assert_eq!(properties.keys, ["Quality", "Reason"]);
        assert_eq!(properties.values[1].value, Some(property_value::Value::StringValue("unplugged".into())));
        assert_eq!(metric.value, Some(metric::Value::IntValue(1)), "the last value is kept");
    }

    #[test]
    fn only_a_birth_tells_the_type_and_each_metric_its_own_time() {
        let good = sample(Value::Int32(1), Quality::GOOD);
        let (birth, _) = of_sample(&spec(), &good, QualityCode::Good, true);
        let (data, _) = of_sample(&spec(), &good, QualityCode::Good, false);
        assert_eq!((birth.datatype, data.datatype), (Some(Type::Int32 as u32), None));
        assert_eq!((data.name.as_deref(), data.timestamp, data.alias), (Some("a/b"), Some(4000), None));
        let before_1970 = Sample { source_time: Some(Timestamp::from_millis(-1)), ..good };
        assert_eq!(of_sample(&spec(), &before_1970, QualityCode::Good, false).0.timestamp, Some(0));
    }

    #[test]
    fn a_value_of_another_type_than_the_tags_is_null_and_says_why() {
        let (metric, code) = of_sample(&spec(), &sample(Value::Double(1.0), Quality::GOOD), QualityCode::Good, false);
        assert_eq!((metric.is_null, metric.value, code), (Some(true), None, QualityCode::Bad));
    }
}
