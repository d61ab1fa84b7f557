//! A folder of certificates or revocation lists, read again when a file in it changes.
//!
//! One that can
//! no longer be read, as while it is being copied, keeps what it held before: a list that is half written must not let in
//! whom it had shut out. Names that begin with a dot are files on their way.

use super::TrustError;
use super::x509::{self, Cert, Crl, ParseError};
use crate::base::files::Stamp;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a folder can hold.
pub trait Entry: Sized {
    const WHAT: &'static str;
    /// Longer files are something else.
    const MAX_BYTES: u64;
    fn parse(file: &[u8]) -> Result<Vec<Self>, ParseError>;
}

impl Entry for Cert {
    const WHAT: &'static str = "a certificate (DER or PEM)";
    const MAX_BYTES: u64 = 1024 * 1024;

    fn parse(file: &[u8]) -> Result<Vec<Self>, ParseError> {
        x509::blocks(file, x509::CERTIFICATE)?.iter().map(|block| Self::from_der(block)).collect()
    }
}

impl Entry for Crl {
    const WHAT: &'static str = "a certificate revocation list (DER or PEM)";
    const MAX_BYTES: u64 = 32 * 1024 * 1024;

    fn parse(file: &[u8]) -> Result<Vec<Self>, ParseError> {
        x509::blocks(file, x509::CRL)?.iter().map(|block| Self::from_der(block)).collect()
    }
}

pub struct Folder<T> {
    path: PathBuf,
    files: BTreeMap<OsString, File<T>>,
    /// Whether the folder itself was readable.
    is_readable: bool,
}

struct File<T> {
    stamp: Stamp,
    entries: Vec<Arc<T>>,
}

/// What a look at a folder found.
#[derive(Default)]
pub struct News {
    pub is_changed: bool,
    /// What is wrong and was not wrong at the last look.
    pub faults: Vec<TrustError>,
}

impl<T: Entry> Folder<T> {
    pub fn new(path: PathBuf) -> Self {
        Self { path, files: BTreeMap::new(), is_readable: true }
    }

    pub fn entries(&self) -> impl Iterator<Item = &Arc<T>> {
        self.files.values().flat_map(|file| &file.entries)
    }

    pub fn look(&mut self) -> News {
        let mut news = News::default();
        let names = match list(&self.path) {
            Ok(names) => names,
            Err(error) => {
                if std::mem::replace(&mut self.is_readable, false) {
                    news.faults.push(error);
                }
                return news;
            }
        };
        self.is_readable = true;
        let before = self.files.len();
        self.files.retain(|name, _| names.iter().any(|(found, _)| found == name));
        news.is_changed = self.files.len() != before;
        for (name, metadata) in names {
            let stamp = Stamp::of(&metadata);
            if self.files.get(&name).is_some_and(|file| file.stamp == stamp) {
                continue;
            }
            match read(&self.path.join(&name), &metadata) {
                Ok(entries) => {
                    let entries = entries.into_iter().map(Arc::new).collect();
                    self.files.insert(name, File { stamp, entries });
                    news.is_changed = true;
                }
                Err(TrustError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => {
                    news.faults.push(fault);
                    self.files.entry(name).or_insert(File { stamp, entries: Vec::new() }).stamp = stamp;
                }
            }
        }
        news
    }
}

/// Names and what `stat` says of them. What goes away meanwhile is left out.
fn list(folder: &Path) -> Result<Vec<(OsString, Metadata)>, TrustError> {
    let failed = |source| TrustError::Unreadable { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match fs::metadata(folder.join(&name)) {
            Ok(metadata) => names.push((name, metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(TrustError::Unreadable { path: folder.join(&name), source }),
        }
    }
    Ok(names)
}

fn read<T: Entry>(path: &Path, metadata: &Metadata) -> Result<Vec<T>, TrustError> {
    let wrong = |reason: String| TrustError::Wrong { path: path.to_owned(), what: T::WHAT, reason };
    if !metadata.is_file() {
        return Err(wrong("it is no file; put the files themselves here".into()));
    }
    if metadata.len() > T::MAX_BYTES {
        return Err(wrong(format!("it has {} bytes", metadata.len())));
    }
    let bytes = fs::read(path).map_err(|source| TrustError::Unreadable { path: path.to_owned(), source })?;
    T::parse(&bytes).map_err(|error| wrong(error.to_string()))
}

/// A file, and the certificates in it or why there are none.
pub type FileOfCertificates = (PathBuf, Metadata, Result<Vec<Cert>, TrustError>);

/// All files of a folder.
pub fn certificates(folder: &Path) -> Result<Vec<FileOfCertificates>, TrustError> {
    let files = list(folder)?.into_iter().map(|(name, metadata)| {
        let path = folder.join(name);
        let found = read(&path, &metadata);
        (path, metadata, found)
    });
    Ok(files.collect())
}
