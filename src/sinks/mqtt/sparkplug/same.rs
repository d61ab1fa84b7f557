//! Whether a sample is news, or one that was seen already.

use crate::model::{Sample, TagId};
use crate::store::Record;

/// Whether a sample says what the one before said, at another time.
pub(super) fn says(before: &Sample, sample: &Sample) -> bool {
    before.quality.status == sample.quality.status && before.value.is_same(&sample.value)
}

/// One and the same sample, not only the same value. The store keeps neither the reason nor the value of a bad one.
pub(super) fn sample(a: &Sample, b: &Sample) -> bool {
    let rest = |sample: &Sample| (sample.tag, sample.source_time, sample.server_time, sample.quality.status);
    rest(a) == rest(b) && (a.quality.is_bad() || a.value.is_same(&b.value))
}

/// A record as the sample it was made of.
pub(super) fn as_sample(tag: TagId, record: &Record) -> Sample {
    let Record { value, status, source_time, server_time } = record.clone();
    Sample { tag, value, quality: status.into(), source_time, server_time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Quality, Status, Timestamp, Value};

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
