//! Writing a file so that a loss of power leaves the old one or the new one, and what else systems have their own ways of.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
use windows as imp;

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Whole or not at all, also if the power goes: beside it, to disk, then in its place.
pub fn write_whole(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    write_whole_as(path, mode, None, content)
}

/// Likewise, and if root writes it, it is given to the owner of `like`.
pub fn write_whole_as(path: &Path, mode: u32, like: Option<&Metadata>, content: &[u8]) -> io::Result<()> {
    stage(path, mode, like, content)?.place()
}

/// A file on the disk beside its place. If it is not put there it is removed: for several that are to be written all or none.
#[must_use = "it is not in its place yet"]
#[derive(Debug)]
pub struct Staged {
    /// `None` once it is in its place.
    beside: Option<PathBuf>,
    path: PathBuf,
}

/// What of [`write_whole_as`] can fail for want of space or rights.
pub fn stage(path: &Path, mode: u32, like: Option<&Metadata>, content: &[u8]) -> io::Result<Staged> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let beside = folder(path).join(name);
    // What a power cut left behind may have other permissions.
    let _ = fs::remove_file(&beside);
    let mut file = imp::options(mode).write(true).create_new(true).open(&beside)?;
    let staged = Staged { beside: Some(beside), path: path.to_owned() };
    file.write_all(content)?;
    if let Some(like) = like {
        imp::give_to_owner_of(like, &file)?;
    }
    file.sync_all()?;
    Ok(staged)
}

impl Staged {
    pub fn place(mut self) -> io::Result<()> {
        let Some(beside) = self.beside.take() else { return Ok(()) };
        let placed = rename(&beside, &self.path);
        if placed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        placed
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Half a file would take the space that the next try needs.
        if let Some(beside) = &self.beside {
            let _ = fs::remove_file(beside);
        }
    }
}

/// Done when it is on the disk. Needs no space there.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    imp::sync_folder(&folder(to))
}

/// Likewise. What is not there has been removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => imp::sync_folder(&folder(path)),
    }
}

/// Held by one at a time, until the file is closed. If root takes it, it is given to the owner of `like`. A link is not followed:
/// whoever may write to the folder could have put it there, and what it leads to would be given away.
pub fn lock(path: &Path, mode: u32, like: &Metadata) -> io::Result<File> {
    let file = imp::options_without_links(mode).create(true).truncate(false).write(true).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no ordinary file; remove it"));
    }
    imp::give_to_owner_of(like, &file)?;
    file.lock()?;
    Ok(file)
}

/// With those above it. `mode` of those that are new, where a system has modes.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    imp::make_folder(path, mode)
}

/// By which it is seen that a file has changed, also one that is overwritten in its place: inode, size and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([i64; 7]);

impl Stamp {
    pub fn of(file: &Metadata) -> Self {
        Self(imp::stamp(file))
    }
}

/// Nobody but its owner may read it.
pub fn is_private(file: &Metadata) -> bool {
    imp::is_private(file)
}

/// Takes a file's rights from those who are neither its owner nor in its group. `true` if they had any.
pub fn shut_out_everybody(path: &Path) -> io::Result<bool> {
    imp::shut_out_everybody(path)
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_replaces_what_was_there_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(folder.path().join(".a.new"), "half").unwrap();
        for content in ["one", "two"] {
            write_whole(&path, 0o600, content.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_staged_and_not_placed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        drop(stage(&path, 0o600, None, b"one").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let staged = stage(&path, 0o600, None, b"one").unwrap();
        assert!(!path.exists());
        staged.place().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        // A place that is taken by a folder.
        fs::create_dir(folder.path().join("b")).unwrap();
        assert!(write_whole(&folder.path().join("b"), 0o600, b"two").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_lock_is_no_way_to_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.lock"), folder.path().join("other"));
        let like = fs::metadata(folder.path()).unwrap();
        for target in ["other", "not yet there"] {
            fs::write(&other, "root's").unwrap();
            std::os::unix::fs::symlink(folder.path().join(target), &path).unwrap();
            assert!(lock(&path, 0o600, &like).is_err());
            assert!(!folder.path().join("not yet there").exists());
            fs::remove_file(&path).unwrap();
        }
        // Nor is it waited for who reads a pipe.
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(lock(&path, 0o600, &like).is_err());
        fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            lock(&path, 0o600, &like).unwrap();
        }
    }
}
