//! Points in time, as OPC UA counts them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: 100 ns ticks since 1970-01-01T00:00:00Z. Negative before that.
///
/// OPC UA counts the same ticks from 1601 (OPC 10000-6, 5.2.2.5), so the conversion is one subtraction and loses
/// nothing; Sparkplug B counts milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Ticks per second.
const TICKS: i64 = 10_000_000;

impl Timestamp {
    pub const UNIX_EPOCH: Timestamp = Timestamp(0);

    /// From 100 ns ticks since the Unix epoch.
    pub const fn from_ticks(ticks: i64) -> Self {
        Self(ticks)
    }

    /// 100 ns ticks since the Unix epoch.
    pub const fn ticks(self) -> i64 {
        self.0
    }

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(TICKS / 1000))
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(TICKS / 1000)
    }

    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(ticks_of(by)))
    }

    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(ticks_of(by)))
    }
}

fn ticks_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos() / 100).unwrap_or(i64::MAX)
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(ticks_of(after)),
            Err(before) => Self(-ticks_of(before.duration())),
        }
    }
}

/// RFC 3339 in UTC with the fraction to 100 ns cut to milliseconds: `2026-11-21T03:42:49.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let (hour, minute, second, milli) = self.time_of_day();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl Timestamp {
    /// Year, month (1..=12) and day (1..=31) in the proleptic Gregorian calendar, UTC.
    ///
    /// The method is that of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    pub fn date(self) -> (i64, u32, u32) {
        let days = self.0.div_euclid(TICKS * 86_400) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month as u32, day as u32)
    }

    /// Hour, minute, second, millisecond, UTC.
    pub fn time_of_day(self) -> (u32, u32, u32, u32) {
        let millis = self.0.rem_euclid(TICKS * 86_400) / (TICKS / 1000);
        let (seconds, milli) = (millis / 1000, millis % 1000);
        ((seconds / 3600) as u32, (seconds / 60 % 60) as u32, (seconds % 60) as u32, milli as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc3339() {
        assert_eq!(Timestamp::UNIX_EPOCH.to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(951_782_400_000).to_string(), "2000-02-29T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(1_795_232_569_123).to_string(), "2026-11-21T03:42:49.123Z");
        // The first moment that OPC UA can say.
        assert_eq!(Timestamp::from_ticks(-116_444_736_000_000_000).to_string(), "1601-01-01T00:00:00.000Z");
    }

    #[test]
    fn millis_round_down_also_before_1970() {
        assert_eq!(Timestamp::from_ticks(-1).millis(), -1);
        assert_eq!(Timestamp::from_ticks(19_999).millis(), 1);
    }

    #[test]
    fn system_time_survives_on_both_sides_of_the_epoch() {
        let after = UNIX_EPOCH + Duration::from_micros(1_500_001);
        assert_eq!(Timestamp::from(after).ticks(), 15_000_010);
        let before = UNIX_EPOCH - Duration::from_micros(3);
        assert_eq!(Timestamp::from(before).ticks(), -30);
    }
}
