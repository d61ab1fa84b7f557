//! Whether a value or a sample is news.
//!
//! Unlike `==`, a NaN is the same as itself: a sensor that measures nothing would else report at each sample.

use crate::model::{Sample, TagId, Value};
use crate::store::Record;

fn value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        (Value::Double(a), Value::Double(b)) => a == b || (a.is_nan() && b.is_nan()),
        (Value::Array(a), Value::Array(b)) => {
            a.data_type() == b.data_type()
                && a.dimensions() == b.dimensions()
                && a.values().len() == b.values().len()
                && a.values().iter().zip(b.values()).all(|(a, b)| value(a, b))
        }
        (a, b) => a == b,
    }
}

/// Whether a sample says what the one before said, at another time.
pub(super) fn says(before: &Sample, sample: &Sample) -> bool {
    before.quality.status == sample.quality.status && value(&before.value, &sample.value)
}

/// One and the same sample, not only the same value. The store keeps neither the reason nor the value of a bad one.
pub(super) fn sample(a: &Sample, b: &Sample) -> bool {
    let rest = |sample: &Sample| (sample.tag, sample.source_time, sample.server_time, sample.quality.status);
    rest(a) == rest(b) && (a.quality.is_bad() || value(&a.value, &b.value))
}

/// A record as the sample it was made of.
pub(super) fn as_sample(tag: TagId, record: &Record) -> Sample {
    let Record { value, status, source_time, server_time } = record.clone();
    Sample { tag, value, quality: status.into(), source_time, server_time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Array, DataType, Quality, Status, Timestamp};

    #[test]
    fn a_nan_is_no_news() {
        let array = |v: f64| Value::from(Array::new(DataType::Double, [Value::Double(v)], None).unwrap());
        assert!(value(&Value::Double(f64::NAN), &Value::Double(f64::NAN)));
        assert!(value(&array(f64::NAN), &array(f64::NAN)));
        assert!(!value(&array(f64::NAN), &array(0.0)));
        assert!(!value(&Value::Double(0.0), &Value::Float(0.0)), "another type is news");
        assert!(!value(&Value::Double(f64::NAN), &Value::Double(1.0)));
    }

    #[test]
    fn a_record_is_the_sample_it_was_made_of() {
        let now = Timestamp::from_millis(1);
        let good = Sample::good(TagId(1), Value::Int32(1), now);
        let quality = Quality::new(Status::BAD_NOT_CONNECTED, "unplugged");
        let bad = Sample { quality, ..good.clone() };
        for one in [&good, &bad] {
            assert!(sample(&as_sample(TagId(1), &Record::from(one)), one));
            assert!(!sample(&as_sample(TagId(2), &Record::from(one)), one));
        }
        assert!(!sample(&good, &bad) && !says(&good, &bad));
        assert!(says(&good, &Sample { server_time: Timestamp::from_millis(2), ..good.clone() }));
    }
}
