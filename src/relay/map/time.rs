//! FILETIME as SourceTimestamp.
//!
//! Both count 100 ns from 1601, nominally in UTC. Seen: servers that give local time, for which there is an offset in the
//! configuration, and times of 1601 and 2300, which mean that there is none. Instead of those the time is taken at which the value
//! came; that is said once for each server.

use crate::relay::protocol::Filetime;
use ::opcua::types::DateTime;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::warn;

/// Ticks of 100 ns.
const SECOND: i64 = 10_000_000;
const YEAR: i64 = 31_556_952 * SECOND;
/// DA is of 1996; what is older than PCs is no time of a value.
const FIRST: i64 = 379 * YEAR;
/// How far ahead a clock may be.
const AHEAD: i64 = YEAR;

/// The clock of one DA server.
pub struct Times {
    server: Arc<str>,
    /// Added to what it says.
    offset: i64,
    said: AtomicBool,
}

impl Times {
    /// `offset` in seconds: -7200 for a server that gives the local time of UTC+2.
    pub fn new(server: impl Into<Arc<str>>, offset: i64) -> Self {
        Self { server: server.into(), offset: offset.saturating_mul(SECOND), said: AtomicBool::new(false) }
    }

    pub fn source_time(&self, time: Filetime, now: DateTime) -> DateTime {
        let ticks = i64::try_from(time).unwrap_or(i64::MAX).saturating_add(self.offset);
        if (FIRST..=now.ticks().saturating_add(AHEAD)).contains(&ticks) {
            return DateTime::from(ticks);
        }
        if !self.said.swap(true, Ordering::Relaxed) {
            warn!(server = %self.server, said = %date_time(time), "No time of a value can be that; taking that of its arrival.");
        }
        now
    }
}

/// As it is, from 1601 to 9999.
pub fn date_time(time: Filetime) -> DateTime {
    DateTime::from(i64::try_from(time).unwrap_or(i64::MAX).min(DateTime::endtimes_ticks()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_the_time_of_arrival() {
        let now = DateTime::ymd(2026, 5, 5);
        let times = Times::new("test", 0);
        for (year, is_kept) in [(1601, false), (1970, false), (1981, true), (2026, true), (2027, true), (2300, false)] {
            let time = DateTime::ymd(year, 1, 1);
            let read = times.source_time(time.ticks() as u64, now);
            assert_eq!(read, if is_kept { time } else { now }, "{year}");
        }
        assert_eq!(times.source_time(u64::MAX, now), now);
    }

    #[test]
    fn local_time_is_brought_to_utc() {
        let now = DateTime::ymd_hms(2026, 5, 5, 12, 0, 0);
        let local = DateTime::ymd_hms(2026, 5, 5, 14, 0, 0);
        assert_eq!(Times::new("test", -7200).source_time(local.ticks() as u64, now), now);
    }

    proptest! {
        #[test]
        fn every_time_becomes_one_that_can_be(time in any::<u64>(), offset in any::<i64>()) {
            let now = DateTime::ymd(2026, 5, 5);
            let read = Times::new("test", offset).source_time(time, now);
            prop_assert!(read.ticks() >= FIRST && read.ticks() <= now.ticks() + AHEAD);
            prop_assert!(date_time(time) <= DateTime::endtimes());
        }
    }
}
