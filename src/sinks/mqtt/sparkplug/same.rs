//! Whether a value or a sample is news.
//!
//! Unlike `==`, a NaN is the same as itself: a sensor that measures nothing would else report at each sample.

use crate::model::{Sample, Value};

pub(super) fn value(a: &Value, b: &Value) -> bool {
    a.is_same(b)
}

/// One and the same sample, not only the same value.
pub(super) fn sample(a: &Sample, b: &Sample) -> bool {
    let rest = |sample: &Sample| (sample.tag, sample.source_time, sample.server_time);
    rest(a) == rest(b) && a.quality == b.quality && value(&a.value, &b.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Array, DataType};

    #[test]
    fn a_nan_is_no_news() {
        let array = |v: f64| Value::from(Array::new(DataType::Double, [Value::Double(v)], None).unwrap());
        assert!(value(&Value::Double(f64::NAN), &Value::Double(f64::NAN)));
        assert!(value(&array(f64::NAN), &array(f64::NAN)));
        assert!(!value(&array(f64::NAN), &array(0.0)));
        assert!(!value(&Value::Double(0.0), &Value::Float(0.0)), "another type is news");
        assert!(!value(&Value::Double(f64::NAN), &Value::Double(1.0)));
    }
}
