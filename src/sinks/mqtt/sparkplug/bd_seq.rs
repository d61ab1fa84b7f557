//! bdSeq: counts CONNECTs modulo 256 and survives restarts, so that a host can tell which NDEATH belongs to which
//! NBIRTH (Sparkplug 3.0, 6.4.25).
//!
//! One file, the last number used, in decimal. It is replaced by rename after its content is on the disk, so a power
//! cut leaves the old number or the new one. A disk that takes no writes does not stop the uplink: then the number is
//! right while the process lives.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tracing::warn;

pub(in crate::sinks::mqtt) struct BdSeq {
    path: PathBuf,
    last: Option<u8>,
    /// Said once, not at each CONNECT.
    is_faulty: bool,
}

impl BdSeq {
    /// Reads `mqtt/bdseq` below `data_dir`.
    pub(in crate::sinks::mqtt) fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("mqtt").join("bdseq");
        let last = match fs::read_to_string(&path) {
            Ok(text) => {
                let last = text.trim().parse().ok();
                if last.is_none() {
                    warn!(path = %path.display(), "The file with the last bdSeq holds no number; counting from 0.");
                }
                last
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "Could not read the last bdSeq; counting from 0.");
                None
            }
        };
        Self { path, last, is_faulty: false }
    }

    /// The number for the next CONNECT. Waits for the disk.
    pub(in crate::sinks::mqtt) fn next(&mut self) -> u8 {
        let next = self.last.map_or(0, |last| last.wrapping_add(1));
        self.last = Some(next);
        match self.write(next) {
            Ok(()) => self.is_faulty = false,
            Err(error) if !self.is_faulty => {
                self.is_faulty = true;
                warn!(path = %self.path.display(), %error, "Could not keep bdSeq; after a restart it may repeat.");
            }
            Err(_) => {}
        }
        next
    }

    fn write(&self, number: u8) -> io::Result<()> {
        let folder = self.path.parent().expect("bdseq lies in a folder");
        fs::create_dir_all(folder)?;
        let temporary = self.path.with_extension("new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{number}")?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_over_restarts_and_begins_again_after_255() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = BdSeq::open(folder.path());
        assert_eq!((first.next(), first.next()), (0, 1));
        assert_eq!(BdSeq::open(folder.path()).next(), 2, "after a restart");
        fs::write(folder.path().join("mqtt/bdseq"), "255\n").unwrap();
        assert_eq!(BdSeq::open(folder.path()).next(), 0);
        assert_eq!(fs::read_to_string(folder.path().join("mqtt/bdseq")).unwrap(), "0\n");
    }

    #[test]
    fn neither_nonsense_nor_a_disk_that_takes_nothing_stops_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mqtt"), "a file where the folder should be").unwrap();
        let mut faulty = BdSeq::open(folder.path());
        assert_eq!((faulty.next(), faulty.next()), (0, 1));

        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("mqtt")).unwrap();
        fs::write(folder.path().join("mqtt/bdseq"), "256").unwrap();
        assert_eq!(BdSeq::open(folder.path()).next(), 0);
    }
}
