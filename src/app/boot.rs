//! Why the program runs again: what can be known of the end before this start.
//!
//!     data_dir/last-run    the machine's boot id (proc(5), random/boot_id), and whether that run ended in order
//!
//! The same boot id: only the program was restarted. Another one: the machine was, and the kernel may know why, from
//! its watchdog (Documentation/watchdog/watchdog-api.rst, WDIOF_*) or from what it kept of a crash (pstore).

use crate::base::files::write_whole;
use std::fs;
use std::path::{Path, PathBuf};
use tracing::warn;

/// Below the data folder.
const FILE: &str = "last-run";
const RUNNING: &str = "running";
const STOPPED: &str = "stopped";

/// Bits of a watchdog's bootstatus that say that it, or what it watches, has reset the machine.
const RESET_BITS: [(u32, &str); 5] = [
    (0x20, "watchdog reset"),
    (0x01, "reset because of heat"),
    (0x02, "reset because of a fan"),
    (0x10, "reset because of low voltage"),
    (0x40, "reset because of high voltage"),
];

/// This run. To be told when it ends in order.
pub(super) struct Run {
    file: PathBuf,
    boot_id: String,
    /// Why it began: `first start`, `program restarted`, `program failed`, `machine restarted`, `power loss or crash`,
    /// `kernel crash`, `watchdog reset` or another reset.
    pub(super) reason: &'static str,
}

impl Run {
    /// `root` is `/`.
    pub(super) fn begin(data_dir: &Path, root: &Path) -> Self {
        let file = data_dir.join(FILE);
        let boot_id = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let last = fs::read_to_string(&file).unwrap_or_default();
        let reason = match last.trim().split_once(' ') {
            None => "first start",
            Some((id, STOPPED)) if id == boot_id => "program restarted",
            Some((id, _)) if id == boot_id => "program failed",
            Some((_, STOPPED)) => "machine restarted",
            Some(_) => reset(root),
        };
        let run = Self { file, boot_id, reason };
        run.note(RUNNING);
        run
    }

    pub(super) fn end(&self) {
        self.note(STOPPED);
    }

    fn note(&self, state: &str) {
        if let Err(error) = write_whole(&self.file, 0o644, format!("{} {state}\n", self.boot_id).as_bytes()) {
            warn!(file = ?self.file, %error, "Cannot note how this run goes; the next start may give a wrong reason.");
        }
    }
}

/// The machine went down without the program being told.
fn reset(root: &Path) -> &'static str {
    let watchdogs = fs::read_dir(root.join("sys/class/watchdog")).into_iter().flatten().flatten();
    for watchdog in watchdogs {
        let bits = fs::read_to_string(watchdog.path().join("bootstatus")).unwrap_or_default();
        let bits: u32 = bits.trim().parse().unwrap_or(0);
        if let Some((_, what)) = RESET_BITS.iter().find(|(bit, _)| bits & bit != 0) {
            return what;
        }
    }
    let mut kept = fs::read_dir(root.join("sys/fs/pstore")).into_iter().flatten().flatten();
    if kept.any(|entry| entry.file_name().to_string_lossy().starts_with("dmesg-")) {
        return "kernel crash";
    }
    "power loss or crash"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    const ID: &str = "proc/sys/kernel/random/boot_id";

    #[test]
    fn each_end_has_its_reason() {
        let data = tempfile::tempdir().unwrap();
        let begin = |machine: &tempfile::TempDir| Run::begin(data.path(), machine.path());
        let (a, b) = (machine(&[(ID, "a\n")]), machine(&[(ID, "b\n")]));
        let run = begin(&a);
        assert_eq!(run.reason, "first start");
        run.end();
        let run = begin(&a);
        assert_eq!((run.reason, begin(&a).reason), ("program restarted", "program failed"));
        run.end();
        assert_eq!((begin(&b).reason, begin(&a).reason), ("machine restarted", "power loss or crash"));
        let c =
            machine(&[(ID, "c"), ("sys/class/watchdog/watchdog0/bootstatus", "32\n"), ("sys/fs/pstore/dmesg-1", "")]);
        assert_eq!(begin(&c).reason, "watchdog reset");
        let d =
            machine(&[(ID, "d"), ("sys/class/watchdog/watchdog0/bootstatus", "0\n"), ("sys/fs/pstore/dmesg-1", "")]);
        assert_eq!(begin(&d).reason, "kernel crash");
    }
}
