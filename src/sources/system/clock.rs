//! Whether the clock is set, as far as that can be told without asking the kernel: adjtimex(2) has its STA_UNSYNC, but
//! nothing among the dependencies offers that without `unsafe`.
//!
//! Two signs are certain: a time before this program existed, and systemd-timesyncd running without ever having heard a
//! server (it makes the file `synchronized` then: systemd-timesyncd.service(8)). With chrony or ntpd only the first
//! is looked for.

use crate::model::Timestamp;
use std::path::Path;

/// Where systemd-timesyncd keeps its state while it runs.
pub const TIMESYNC: &str = "/run/systemd/timesync";

/// 2026-01-01T00:00:00Z: this program is younger.
const EARLIEST: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// What is wrong, if something is.
pub fn fault(now: Timestamp, timesync: &Path) -> Option<&'static str> {
    if now < EARLIEST {
        return Some("The clock is not set: it shows a time before this program was made");
    }
    if timesync.is_dir() && !timesync.join("synchronized").exists() {
        return Some("The clock is not set: systemd-timesyncd has not heard a time server yet");
    }
    None
}

/// `synchronized`, `not set`, or `unknown`: nothing speaks against it, and nothing for it.
pub fn state(now: Timestamp, timesync: &Path) -> &'static str {
    match fault(now, timesync) {
        Some(_) => "not set",
        None if timesync.join("synchronized").exists() => "synchronized",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_the_past_or_never_synchronized_is_not_set() {
        let folder = tempfile::tempdir().unwrap();
        let (none, some) = (folder.path().join("none"), folder.path());
        assert_eq!(EARLIEST.to_string(), "2026-01-01T00:00:00.000Z");
        assert_eq!(fault(EARLIEST, &none), None);
        assert!(fault(Timestamp::UNIX_EPOCH, &none).unwrap().contains("before"));
        assert!(fault(EARLIEST, some).unwrap().contains("timesyncd"));
        std::fs::write(some.join("synchronized"), "").unwrap();
        assert_eq!(fault(EARLIEST, some), None);
        let states = [(EARLIEST, some), (EARLIEST, &none), (Timestamp::UNIX_EPOCH, some)];
        assert_eq!(states.map(|(now, folder)| state(now, folder)), ["synchronized", "unknown", "not set"]);
    }
}
