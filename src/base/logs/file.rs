//! The log in a file, for who has no journal: two files at most, so that it ends somewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

/// A cheap handle. When the file is as large as it may be, it becomes the one before (`.1`) and a new one begins.
#[derive(Clone)]
pub struct LogFile(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    limit: u64,
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Goes on where it ended.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner { path: path.to_owned(), limit, file, bytes }))))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Inner {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.limit {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            // Windows renames an open file, too, as std opens it. If somebody else holds it, the log stays bounded all the same.
            if fs::rename(&self.path, before).is_err() {
                File::create(&self.path)?;
            }
            self.file = append(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

/// tracing-subscriber writes a line at a time.
impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_line(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogFile {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_at_most_and_the_last_lines_are_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.log");
        let mut log = LogFile::open(&path, 20).unwrap();
        for line in ["one 456789\n", "two 456789\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        drop(log);
        let mut log = LogFile::open(&path, 20).unwrap();
        log.write_all(b"three 6789\n").unwrap();
        log.write_all(b"longer than a file may be\n").unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("relay.log.1"), read("relay.log")),
            ("three 6789\n".into(), "longer than a file may be\n".into())
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
