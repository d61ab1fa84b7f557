//! The device around the program: what an image needs so that a box without keyboard and screen comes up, stays up, and can be
//! given other firmware.
//!
//!     provision   vedette.toml on the boot partition ──► configuration, users, secrets, network, host name, open ports
//!     health      what worked before, what works now, and what of it is missed: whether a slot on trial is kept
//!     update      a bundle from a file, a stick or by HTTP ──► checked ──► RAUC (D-Bus) ──► reboot ──► kept, or fallen back
//!     keys        whose signature it obeys, and whether those keys are for development
//!
//! `provision` runs as root before anything else and reads nothing of a network. The other two are asked by `vedette run`, which
//! has no rights, and by whoever is at the shell. All state is on the data partition, each file of it written whole or not at
//! all, and each step can be done again: the power may go at any moment.

pub mod health;
pub mod keys;
pub mod provision;
pub mod update;

use rustix::fs::OFlags;
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// Root makes files for a service that is not root; they are that one's. `like` is what is already. A link is not followed: the
/// service, if somebody took it over, could have put it there.
fn give(path: &Path, like: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let file = OpenOptions::new().read(true).custom_flags(NO_LINK).open(path)?;
    fchown(file, Some(like.uid()), Some(like.gid()))
}

/// For opening what must be no link, and no pipe that one waits for (open(2)).
const NO_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// The word after `key=` on the kernel's command line.
fn kernel_word(cmdline: &Path, key: &str) -> Option<String> {
    let line = fs::read_to_string(cmdline).ok()?;
    line.split_whitespace().find_map(|word| Some(word.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
}

/// Where the kernel shows its command line.
const CMDLINE: &str = "/proc/cmdline";

/// The slot of RAUC that runs (RAUC's manual, "Kernel Command Line"); empty without RAUC.
pub fn slot() -> String {
    kernel_word(Path::new(CMDLINE), "rauc.slot").unwrap_or_default()
}

/// The boot loader gave this slot a few tries, and takes the other one unless it is found healthy (config/device/boot/boot.cmd).
pub fn is_on_trial() -> bool {
    kernel_word(Path::new(CMDLINE), "vedette.trial").is_some()
}

/// Tells one boot from another (proc(5)).
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Of the image that runs, as its bundle's manifest has it (os-release(5)).
fn image_version() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let version = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    Some(version.trim_matches('"').to_owned())
}

/// Where `preinit` says why the data partition is not there (config/device/root/usr/lib/vedette/preinit).
const DATA_LOST: &str = "/run/vedette/data-lost";

/// Why nothing is kept: the data partition could not be mounted, and the system runs from memory.
pub fn data_lost() -> Option<String> {
    lost(Path::new(DATA_LOST))
}

fn lost(mark: &Path) -> Option<String> {
    // A mark that cannot be read is still one.
    let why = mark.exists().then(|| fs::read_to_string(mark).unwrap_or_default())?;
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(if why.is_empty() { "/data cannot be mounted".into() } else { format!("/data cannot be mounted: {why}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_lost_where_preinit_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("data-lost");
        assert_eq!(lost(&mark), None);
        fs::write(&mark, "").unwrap();
        assert_eq!(lost(&mark).as_deref(), Some("/data cannot be mounted"));
        fs::write(&mark, "mount: /data: wrong fs type,\n  bad superblock.\n").unwrap();
        assert_eq!(
            lost(&mark).as_deref(),
            Some("/data cannot be mounted: mount: /data: wrong fs type, bad superblock.")
        );
    }

    #[test]
    fn what_root_gives_away_is_what_it_made() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let like = fs::metadata(folder.path()).unwrap();
        give(&file, &like).unwrap();
        give(folder.path(), &like).unwrap();
        // Whoever is not root gives nothing away.
        assert_eq!(give(&link, &like).is_err(), rustix::process::geteuid().is_root());
    }

    #[test]
    fn words_of_the_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cmdline");
        fs::write(&file, "root=/dev/sda2 rauc.slot=B quiet xvedette.trial=1\n").unwrap();
        assert_eq!(kernel_word(&file, "rauc.slot").as_deref(), Some("B"));
        assert_eq!(kernel_word(&file, "vedette.trial"), None);
        assert_eq!(kernel_word(Path::new("/does/not/exist"), "rauc.slot"), None);
    }
}
