//! What a person does with the trust list: look, trust, take trust back. From another process than the server's, which
//! notices it by itself.
//!
//! Certificates are moved, never copied or made: a move is whole or not at all, and leaves them their owner, so that root
//! may do it for a service that is not root.

use super::folder::certificates;
use super::x509::Cert;
use super::{REJECTED, TRUSTED, TrustError};
use crate::model::Timestamp;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A certificate in a folder.
pub struct Entry {
    pub certificate: Cert,
    pub file: PathBuf,
    /// When it was put there.
    pub since: SystemTime,
    /// The file holds others too.
    is_one_of_many: bool,
}

/// What there is.
pub struct Listing {
    pub rejected: Vec<Entry>,
    pub trusted: Vec<Entry>,
    pub faults: Vec<TrustError>,
}

impl Entry {
    /// What was done with it, for people.
    pub fn said(&self, what: &str) -> String {
        let certificate = &self.certificate;
        format!("{what}: {} {}\n{}\n", certificate.thumbprint(), certificate.title(), self.file.display())
    }

    fn describe(&self, text: &mut String) -> std::fmt::Result {
        let Entry { certificate, since, .. } = self;
        let kind = if certificate.is_authority() { "  (a CA: all its clients)" } else { "" };
        writeln!(text, "  {}{kind}", certificate.thumbprint())?;
        writeln!(text, "      subject         {}", certificate.title())?;
        if !certificate.is_self_issued() {
            writeln!(text, "      issued by       {}", certificate.issuer_title())?;
        }
        writeln!(text, "      ApplicationUri  {}", certificate.application_uri().unwrap_or("none"))?;
        let (from, until) = (Timestamp::from(certificate.not_before()), Timestamp::from(certificate.not_after()));
        writeln!(text, "      valid           {from} to {until}")?;
        writeln!(text, "      here since      {}", Timestamp::from(*since))
    }
}

impl Listing {
    /// For people; `program` is whose command `trust` is.
    pub fn describe(&self, program: &str) -> String {
        let mut text = String::new();
        let folders = [
            ("Turned away", format!("; `{program} trust THUMBPRINT` lets one in"), &self.rejected),
            ("Trusted", format!("; `{program} trust --remove THUMBPRINT` ends that"), &self.trusted),
        ];
        for (title, hint, entries) in folders {
            // Writing to a String cannot fail.
            let _ = match entries.is_empty() {
                true => writeln!(text, "{title}: none"),
                false => writeln!(text, "{title}{hint}:"),
            };
            for entry in entries {
                let _ = entry.describe(&mut text);
            }
        }
        for fault in &self.faults {
            let _ = writeln!(text, "Broken: {fault}");
        }
        text
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("{path:?} is not there; has the server run with this data folder? (--data-dir, --config)")]
    NoFolder { path: PathBuf },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("{0:?} is no thumbprint: write hexadecimal digits, at least 4")]
    NoThumbprint(String),
    #[error("no certificate under {folder}/ has a thumbprint that begins with {thumbprint}; {there}")]
    Unknown { thumbprint: String, folder: &'static str, there: String },
    #[error("{thumbprint} is trusted already: {subject}")]
    Already { thumbprint: String, subject: String },
    #[error("{thumbprint} is the beginning of several: {there}")]
    Ambiguous { thumbprint: String, there: String },
    #[error("{file:?} holds other certificates too; take the one out of it with an editor")]
    OneOfMany { file: PathBuf },
    #[error("cannot move {from:?} to {to:?}: {source}; may this user write there?")]
    Move { from: PathBuf, to: PathBuf, source: io::Error },
}

pub fn list(pki: &Path) -> Result<Listing, AdminError> {
    let mut faults = Vec::new();
    let rejected = entries(&pki.join(REJECTED), &mut faults)?;
    let trusted = entries(&pki.join(TRUSTED), &mut faults)?;
    Ok(Listing { rejected, trusted, faults })
}

/// Moves a certificate from rejected/ to trusted/; `thumbprint` may be its beginning.
pub fn trust(pki: &Path, thumbprint: &str) -> Result<Entry, AdminError> {
    let Listing { rejected, trusted, .. } = list(pki)?;
    let wanted = wanted(thumbprint)?;
    match find(rejected, &wanted, REJECTED) {
        Err(AdminError::Unknown { thumbprint, folder, there }) => match find(trusted, &wanted, TRUSTED) {
            Ok(Entry { certificate, .. }) => {
                let thumbprint = certificate.thumbprint().to_owned();
                Err(AdminError::Already { thumbprint, subject: certificate.title() })
            }
            Err(_) => Err(AdminError::Unknown { thumbprint, folder, there }),
        },
        found => carry(found?, &pki.join(TRUSTED)),
    }
}

/// Moves it back. The server ends the client's connections within seconds.
pub fn distrust(pki: &Path, thumbprint: &str) -> Result<Entry, AdminError> {
    let entry = find(list(pki)?.trusted, &wanted(thumbprint)?, TRUSTED)?;
    carry(entry, &pki.join(REJECTED))
}

fn entries(folder: &Path, faults: &mut Vec<TrustError>) -> Result<Vec<Entry>, AdminError> {
    let files = match certificates(folder) {
        Err(TrustError::Unreadable { path, source }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(AdminError::NoFolder { path });
        }
        files => files?,
    };
    let mut entries = Vec::new();
    for (file, metadata, found) in files {
        match found {
            Ok(found) => {
                let is_one_of_many = found.len() > 1;
                let since = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.extend(found.into_iter().map(|certificate| Entry {
                    certificate,
                    file: file.clone(),
                    since,
                    is_one_of_many,
                }));
            }
            Err(fault) => faults.push(fault),
        }
    }
    entries.sort_by_key(|entry| entry.since);
    Ok(entries)
}

/// As it stands in other programs: in small letters, with colons or blanks.
fn wanted(thumbprint: &str) -> Result<String, AdminError> {
    let digits: String = thumbprint.chars().filter(|c| !": ".contains(*c)).collect::<String>().to_uppercase();
    let is_hex = digits.chars().all(|c| c.is_ascii_hexdigit());
    if is_hex && (4..=40).contains(&digits.len()) {
        Ok(digits)
    } else {
        Err(AdminError::NoThumbprint(thumbprint.into()))
    }
}

fn find(entries: Vec<Entry>, wanted: &str, folder: &'static str) -> Result<Entry, AdminError> {
    let show = |entries: &mut dyn Iterator<Item = &Entry>| {
        let each: Vec<_> = entries
            .map(|entry| format!("{} ({})", entry.certificate.thumbprint(), entry.certificate.title()))
            .collect();
        each.join(", ")
    };
    let fits = |entry: &Entry| entry.certificate.thumbprint().starts_with(wanted);
    let thumbprint = wanted.to_owned();
    match entries.iter().filter(|entry| fits(entry)).count() {
        0 => {
            let all = show(&mut entries.iter());
            let there = if all.is_empty() { "there is none at all".into() } else { format!("there is {all}") };
            Err(AdminError::Unknown { thumbprint, folder, there })
        }
        1 => entries.into_iter().find(fits).ok_or(AdminError::NoThumbprint(thumbprint)),
        _ => Err(AdminError::Ambiguous { thumbprint, there: show(&mut entries.iter().filter(|entry| fits(entry))) }),
    }
}

fn carry(entry: Entry, folder: &Path) -> Result<Entry, AdminError> {
    if entry.is_one_of_many {
        return Err(AdminError::OneOfMany { file: entry.file });
    }
    let to = folder.join(super::rejected::file_name(&entry.certificate));
    match fs::rename(&entry.file, &to) {
        Ok(()) => Ok(Entry { file: to, ..entry }),
        Err(source) => Err(AdminError::Move { from: entry.file, to, source }),
    }
}
