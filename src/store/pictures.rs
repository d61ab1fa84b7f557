//! The last pictures of cameras: one file for each, `pictures/<camera>/<time>.jpg`, the time in ticks of 100 ns since 1970.
//!
//! A file appears under its name when it is whole and synced, so a power cut leaves the picture or none. Of each camera
//! the newest `snapshots` are kept, and of all together what fits in `snapshot_bytes`; the oldest go first. Everything here
//! waits for the disk.

use super::history::Config;
use crate::model::{Picture, Timestamp};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[derive(Clone)]
pub struct Pictures(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    most: usize,
    max_bytes: u64,
    /// Held while files come and go.
    keeping: Mutex<()>,
}

/// A picture that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    pub captured: Timestamp,
    pub bytes: u64,
}

impl Pictures {
    pub fn new(config: &Config, folder: &Path) -> Self {
        let (most, max_bytes) = (config.snapshots, config.snapshot_bytes);
        Self(Arc::new(Inner { folder: folder.join("pictures"), most, max_bytes, keeping: Mutex::default() }))
    }

    /// Writes a picture and removes what is too much after that.
    pub fn keep(&self, camera: &str, picture: &Picture) -> io::Result<()> {
        let _keeping = self.0.keeping.lock().expect("no code that holds this lock panics");
        let folder = self.folder(camera);
        fs::create_dir_all(&folder)?;
        // A picture that does not fit even alone would drive out all others and itself.
        if picture.jpeg.len() as u64 > self.0.max_bytes {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the picture is larger than snapshot_bytes"));
        }
        let new = folder.join("picture.new");
        let mut file = File::create(&new)?;
        file.write_all(&picture.jpeg)?;
        file.sync_all()?;
        fs::rename(&new, path(&folder, picture.captured))?;
        File::open(&folder)?.sync_all()?;
        self.retain(&folder)
    }

    fn retain(&self, folder: &Path) -> io::Result<()> {
        let kept = list(folder)?;
        for old in &kept[..kept.len().saturating_sub(self.0.most)] {
            fs::remove_file(path(folder, old.captured))?;
        }
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.0.folder)? {
            let folder = entry?.path();
            all.extend(list(&folder)?.into_iter().map(|kept| (kept, folder.clone())));
        }
        all.sort();
        let mut bytes: u64 = all.iter().map(|(kept, _)| kept.bytes).sum();
        for (kept, folder) in all {
            if bytes <= self.0.max_bytes {
                break;
            }
            fs::remove_file(path(&folder, kept.captured))?;
            bytes -= kept.bytes;
        }
        Ok(())
    }

    /// The pictures of a camera, the oldest first.
    pub fn list(&self, camera: &str) -> io::Result<Vec<Kept>> {
        match list(&self.folder(camera)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// A picture; `None` if it has been removed meanwhile.
    pub fn load(&self, camera: &str, captured: Timestamp) -> io::Result<Option<Vec<u8>>> {
        match fs::read(path(&self.folder(camera), captured)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn folder(&self, camera: &str) -> PathBuf {
        self.0.folder.join(file_name(camera))
    }
}

/// What cannot stand in a file's name, and a dot, is written as % and two digits.
fn file_name(camera: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    camera.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn path(folder: &Path, captured: Timestamp) -> PathBuf {
    folder.join(format!("{}.jpg", captured.ticks()))
}

fn list(folder: &Path) -> io::Result<Vec<Kept>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let ticks = name.to_str().and_then(|name| name.strip_suffix(".jpg")?.parse().ok());
        if let Some(ticks) = ticks {
            found.push(Kept { captured: Timestamp::from_ticks(ticks), bytes: entry.metadata()?.len() });
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(second: i64, bytes: usize) -> Picture {
        let captured = Timestamp::from_millis(second * 1000);
        Picture { jpeg: vec![second as u8; bytes].into(), width: 1, height: 1, sequence: 0, captured }
    }

    #[test]
    fn the_newest_are_kept_by_number_and_by_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { snapshots: 3, snapshot_bytes: 100, ..Config::default() };
        let pictures = Pictures::new(&config, folder.path());
        let seconds = |camera: &str| {
            let list = pictures.list(camera).unwrap();
            list.iter().map(|kept| kept.captured.millis() / 1000).collect::<Vec<_>>()
        };
        assert!(seconds("../a/b").is_empty());
        for second in [5, 1, 2, 3, 4] {
            pictures.keep("../a/b", &picture(second, 10)).unwrap();
        }
        assert_eq!(seconds("../a/b"), [3, 4, 5], "by the time of capture");
        assert_eq!(pictures.load("../a/b", Timestamp::from_millis(4000)).unwrap(), Some(vec![4; 10]));
        assert_eq!(pictures.load("../a/b", Timestamp::from_millis(1000)).unwrap(), None);
        assert_eq!(fs::read_dir(folder.path().join("pictures")).unwrap().count(), 1, "no name leads elsewhere");

        pictures.keep("c", &picture(9, 85)).unwrap();
        assert_eq!((seconds("../a/b"), seconds("c")), (vec![5], vec![9]));
        assert!(pictures.keep("c", &picture(10, 101)).is_err());
        assert_eq!(seconds("c"), [9]);
    }
}
