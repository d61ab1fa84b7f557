//! Bundles on a USB stick that somebody plugged in: vedette-usb@.service has mounted it, read-only.
//!
//!     vedette-*.raucb at its top ──► known? ──► copied to the data partition ──► an update like any other
//!                                      └─ looked at to its end before, or ATTEMPTS times: not again
//!
//! A stick stays in its socket over the reboot that its bundle led to, and the next start finds it again. So each bundle is
//! taken from a stick once, whatever came of it; it is known by its signature, which is another one for each bundle. Whoever
//! wants it once more says so (`vedette update FILE`).

use super::download::{BUFFER, LARGEST, SPARE, free};
use super::{ATTEMPTS, Lock, Pending, RaucError, Stage, UpdateError, Updates, Wanted};
use crate::base::files;
use crate::device::keys;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// In the folder of updates.
const KNOWN: &str = "sticks.json";
/// The oldest are forgotten.
const MOST_KNOWN: usize = 32;
/// Of one stick, for several boards.
const MOST: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    id: String,
    attempts: u32,
    /// `None` if it has not come to an end yet.
    outcome: Option<String>,
}

impl Updates {
    /// Installs the first bundle of a stick that is for this device and new to it. `None`: there is none. Whatever goes wrong is
    /// noted for the program that runs, because nobody reads here what is said.
    pub async fn install_from_stick(
        &self,
        lock: &Lock,
        folder: &Path,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<Option<Pending>, UpdateError> {
        // Installed and not started yet, or started and not judged yet. A stick that stays in its socket is no fault.
        if self.pending().is_some_and(|pending| pending.stage == Stage::Rebooting) {
            return Err(UpdateError::Busy);
        }
        let outcome = self.take_first(lock, folder, tell).await;
        if let Err(error) = &outcome
            && let Err(another) = self.note_failed_here(&error.to_string(), true)
        {
            tell(format!("that it failed is not told by others: {another}"));
        }
        outcome
    }

    async fn take_first(
        &self,
        lock: &Lock,
        folder: &Path,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<Option<Pending>, UpdateError> {
        let mut fault = None;
        for bundle in bundles(folder).map_err(UpdateError::Stick)? {
            let name = printable(&bundle);
            let id = match keys::signature(&bundle) {
                Ok(id) => id,
                // Another one may be whole.
                Err(error) => {
                    let what = format!("{name}: {error}");
                    tell(what.clone());
                    fault = Some(UpdateError::Stick(io::Error::other(what)));
                    continue;
                }
            };
            let mut known = self.known();
            let at = known.iter().position(|known| known.id == id);
            let mut this = at.map_or(Known { id, attempts: 0, outcome: None }, |at| known.remove(at));
            if let Some(outcome) = &this.outcome {
                tell(format!("{name} was here before ({outcome}); it is not taken again"));
                continue;
            }
            if this.attempts >= ATTEMPTS {
                tell(format!("{name} was begun {ATTEMPTS} times and never ended; it is not taken again"));
                continue;
            }
            this.attempts += 1;
            known.push(this);
            self.keep_known(&known)?;
            self.make_way(lock)?;
            tell(format!("taking {name}"));
            let bundle = bundle.display().to_string();
            let mut pending = self.begin(Wanted { bundle, is_on_stick: true, ..Wanted::default() });
            match self.install(lock, &mut pending, tell).await {
                Ok(()) => {
                    self.end_known(known, "installed")?;
                    return Ok(Some(pending));
                }
                Err(error) => {
                    let why = error.to_string();
                    tell(format!("{name}: {why}"));
                    // First, for the copy may be what fills the disk.
                    self.forget()?;
                    if is_final(&error) {
                        self.end_known(known, &why)?;
                    }
                    // That it is for another board, or here already, is no fault.
                    if !matches!(error, UpdateError::Runs(_) | UpdateError::Rauc(RaucError::Compatible { .. })) {
                        fault = Some(error);
                    }
                }
            }
        }
        fault.map_or(Ok(None), Err)
    }

    fn known(&self) -> Vec<Known> {
        let json = fs::read(self.folder.join(KNOWN)).unwrap_or_default();
        serde_json::from_slice(&json).unwrap_or_default()
    }

    fn end_known(&self, mut known: Vec<Known>, outcome: &str) -> Result<(), UpdateError> {
        if let Some(this) = known.last_mut() {
            this.outcome = Some(outcome.to_owned());
        }
        self.keep_known(&known)
    }

    fn keep_known(&self, known: &[Known]) -> Result<(), UpdateError> {
        let known = &known[known.len().saturating_sub(MOST_KNOWN)..];
        self.write(KNOWN, &serde_json::to_vec(known).expect("texts and numbers are JSON"))
    }
}

/// Another attempt would end the same way.
fn is_final(error: &UpdateError) -> bool {
    match error {
        UpdateError::Rauc(error) => !matches!(error, RaucError::Bus(_) | RaucError::Silent | RaucError::Slow),
        UpdateError::Runs(_) => true,
        _ => false,
    }
}

/// `vedette-*.raucb` at the top of a stick, in the order of their names. What is no file is none.
fn bundles(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if name.starts_with("vedette-") && name.ends_with(".raucb") && entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.len() > MOST {
        let what = format!("{} files vedette-*.raucb are on it, more than {MOST}", found.len());
        return Err(io::Error::other(what));
    }
    Ok(found)
}

/// What is on a stick may be called anything; it goes to the console.
fn printable(bundle: &Path) -> String {
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// To where it can be read when the stick is gone. No more than its length: a stick may be no stick.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), UpdateError> {
    let source = File::open(from).map_err(UpdateError::Stick)?;
    let length = source.metadata().map_err(UpdateError::Stick)?.len();
    if length > LARGEST {
        return Err(super::DownloadError::TooLarge { bytes: length }.into());
    }
    // What RAUC has taken for its own may not be written any more.
    files::remove(to).map_err(UpdateError::Stick)?;
    let mut target = File::create_new(to).map_err(UpdateError::Stick)?;
    match free(to) {
        Some(free) if length + SPARE > free => {
            return Err(super::DownloadError::NoRoom { bytes: length, free }.into());
        }
        _ => {}
    }
    let (mut source, mut buffer) = (source.take(length), vec![0; BUFFER]);
    loop {
        match source.read(&mut buffer).map_err(UpdateError::Stick)? {
            0 => break,
            count => target.write_all(&buffer[..count]).map_err(UpdateError::Stick)?,
        }
    }
    target.sync_all().map_err(UpdateError::Stick)
}

#[cfg(test)]
mod tests;
