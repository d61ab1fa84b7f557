//! Strangers: each is named once, and its certificate is kept, so that somebody can decide to trust it.
//!
//! Anybody who reaches the port can make certificates by the thousand, so both are bounded: so many files, the oldest go;
//! so many new names a minute; so many names remembered.

use super::x509::Cert;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::warn;

/// Files under rejected/.
pub const MAX_FILES: usize = 100;
/// Remembered as named.
const MAX_NAMED: usize = 1000;
/// New ones in [`MINUTE`]; a plant does not bring more devices to life at once.
const MAX_NEW: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);

pub struct Rejected {
    folder: PathBuf,
    /// Thumbprint and reason, so that a client that is refused for something else is named again.
    named: VecDeque<(String, String)>,
    new: VecDeque<Instant>,
}

impl Rejected {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, named: VecDeque::new(), new: VecDeque::new() }
    }

    /// Whether this is the first time and is to be named. Beyond the rate it is not, and counts as not yet seen.
    pub fn is_new(&mut self, thumbprint: &str, reason: String) -> bool {
        let seen = (thumbprint.to_owned(), reason);
        if self.named.contains(&seen) {
            return false;
        }
        let now = Instant::now();
        while self.new.front().is_some_and(|&then| now.duration_since(then) >= MINUTE) {
            self.new.pop_front();
        }
        if self.new.len() >= MAX_NEW {
            return false;
        }
        self.new.push_back(now);
        if self.named.len() >= MAX_NAMED {
            self.named.pop_front();
        }
        self.named.push_back(seen);
        true
    }

    /// Nobody has to decide any more: somebody may have copied it to trusted/, or its CA. Refused again, it is news.
    pub fn forget(&mut self, certificate: &Cert) {
        self.named.retain(|(named, _)| named != certificate.thumbprint());
        if let Err(error) = fs::remove_file(self.folder.join(file_name(certificate)))
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(thumbprint = certificate.thumbprint(), %error, "Cannot remove a trusted certificate from rejected/.");
        }
    }

    /// Keeps the certificate, unless it is there already.
    pub fn keep(&self, certificate: &Cert) -> io::Result<()> {
        let path = self.folder.join(file_name(certificate));
        if path.exists() {
            return Ok(());
        }
        self.make_room()?;
        super::write(&path, 0o644, certificate.der())
    }

    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push((metadata.modified()?, entry.path()));
            }
        }
        files.sort();
        let surplus = (files.len() + 1).saturating_sub(MAX_FILES);
        files[..surplus].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// `<common name> [<thumbprint>].der`, as other UA programs name such files.
pub fn file_name(certificate: &Cert) -> String {
    let title = certificate.title();
    let common = title.split(',').find_map(|part| part.trim().strip_prefix("CN=")).unwrap_or("");
    let is_plain = |c: &char| c.is_alphanumeric() || "-_.@ ".contains(*c);
    let common: String = common.chars().filter(is_plain).take(40).collect();
    match common.trim_matches(['.', ' ']) {
        "" => format!("{}.der", certificate.thumbprint()),
        common => format!("{common} [{}].der", certificate.thumbprint()),
    }
}
