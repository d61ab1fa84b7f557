//! What the outbox needs of a disk. One folder, without folders in it; tests put a disk that fails and loses power in its
//! place.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

pub trait Disk: Send + 'static {
    /// Makes the folder if there is none. Names and bytes of its files; names that are not UTF-8 are nobody's here.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Returns when the parts are on the disk; whether the name is is known after [`Disk::sync`].
    fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()>;

    /// Replaces what has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// It may be gone already.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when what became of names is on the disk.
    fn sync(&self) -> io::Result<()>;
}

pub struct Folder(pub PathBuf);

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        fs::create_dir_all(&self.0)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                found.push((name, entry.metadata()?.len()));
            }
        }
        Ok(found)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut file = File::create(self.0.join(name))?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}
