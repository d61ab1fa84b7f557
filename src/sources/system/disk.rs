//! Whether the disk is nearly full.

use std::io;
use std::path::PathBuf;

/// Percent: so much less must be in use for it to be over, so that a file that comes and goes is not a row of alarms.
pub(super) const HYSTERESIS: f64 = 2.0;

pub(super) struct Disk {
    path: PathBuf,
    /// Percent.
    limit: f64,
    is_nearly_full: bool,
}

impl Disk {
    /// `is_nearly_full`: as it was seen last.
    pub(super) fn new(path: PathBuf, limit: f64, is_nearly_full: bool) -> Self {
        Self { path, limit, is_nearly_full }
    }

    /// What is wrong, if something is.
    pub(super) fn look(&mut self) -> io::Result<Option<String>> {
        let disk = rustix::fs::statvfs(&self.path)?;
        // Of what this program may use: the rest is root's (statvfs(3): f_bavail), as df counts.
        let used = (disk.f_blocks - disk.f_bfree) as f64;
        let all = used + disk.f_bavail as f64;
        let percent = if all > 0.0 { used / all * 100.0 } else { 0.0 };
        Ok(self.judge(percent))
    }

    fn judge(&mut self, percent: f64) -> Option<String> {
        let from = if self.is_nearly_full { self.limit - HYSTERESIS } else { self.limit };
        self.is_nearly_full = percent >= from;
        // Without the figure, which would be a change each time; it is in the tags.
        let (path, limit) = (self.path.display(), self.limit);
        self.is_nearly_full.then(|| format!("The file system of {path} is more than {limit} % full"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_only_well_below_the_limit() {
        let mut disk = Disk::new("/data".into(), 90.0, false);
        let mut is_full = |percent| disk.judge(percent).is_some();
        assert_eq!([89.9, 90.0, 89.0, 88.0, 87.9, 89.0].map(&mut is_full), [false, true, true, true, false, false]);
        let words = disk.judge(95.0).unwrap();
        assert!(words.contains("/data") && words.contains("90 %"), "{words}");
        assert!(Disk::new("/data".into(), 90.0, true).judge(89.0).is_some(), "it goes on where it was");
    }

    #[test]
    fn this_disk_can_be_looked_at_and_a_missing_one_not() {
        assert!(Disk::new("/".into(), 101.0, false).look().unwrap().is_none());
        assert!(Disk::new("/does/not/exist".into(), 90.0, false).look().is_err());
    }
}
