//! Source timestamps after the clock was set back.
//!
//! The UA crate compares the source timestamps of an item's values with the sampling interval, and a value that is older than
//! the one before never passes. So a clock that is set back would silence items for as long as it was set back. A value
//! without a source timestamp passes; after it, one with a timestamp does, too. But only if the crate took it: it
//! drops what does not differ from the value before.

use ::opcua::types::{DateTime, Variant};
use std::time::Duration;

/// What one item has been sent.
#[derive(Default)]
pub struct Stamps {
    newest: Option<DateTime>,
    /// The first value that went without a timestamp.
    back: Option<Variant>,
}

impl Stamps {
    /// Whether the crate would keep a value with this timestamp back until the interval is over. If so it is to go without.
    pub fn is_early(&mut self, stamp: DateTime, interval: Duration) -> bool {
        // In ticks of 100 ns.
        let interval = i64::try_from(interval.as_nanos() / 100).unwrap_or(i64::MAX);
        let is_early = interval > 0 && self.newest.is_none_or(|newest| stamp.ticks() - newest.ticks() < interval);
        if is_early {
            self.newest = self.newest.max(Some(stamp));
        }
        is_early
    }

    /// The timestamp that a value goes out with. `is_filtered`: a deadband may drop values that differ.
    pub fn next(&mut self, stamp: Option<DateTime>, value: Option<&Variant>, is_filtered: bool) -> Option<DateTime> {
        let stamp = stamp?;
        if self.newest.is_none_or(|newest| stamp >= newest) {
            (self.newest, self.back) = (Some(stamp), None);
            return Some(stamp);
        }
        match &self.back {
            None => self.back = Some(value.cloned().unwrap_or_default()),
            // Two values that differ: the crate has taken the second one at the latest, and compares with nothing now.
            Some(first) if !is_filtered && Some(first) != value => (self.newest, self.back) = (None, None),
            Some(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_without_a_timestamp_until_the_crate_has_taken_one() {
        let at = |second| Some(DateTime::ymd_hms(2026, 1, 1, 0, 0, second));
        let (one, two) = (Variant::from(1), Variant::from(2));
        let mut stamps = Stamps::default();
        assert_eq!(stamps.next(at(30), Some(&one), false), at(30));
        assert_eq!(stamps.next(at(10), Some(&one), false), None, "set back");
        assert_eq!(stamps.next(at(11), Some(&one), false), None, "the crate may have dropped the one before");
        assert_eq!(stamps.next(at(12), Some(&two), false), None);
        assert_eq!(stamps.next(at(13), Some(&two), false), at(13));

        let mut filtered = Stamps::default();
        filtered.next(at(30), Some(&one), true);
        for second in 10..30 {
            assert_eq!(filtered.next(at(second), Some(&Variant::from(i32::from(second))), true), None);
        }
        assert_eq!(filtered.next(at(31), Some(&one), true), at(31));
    }
}
