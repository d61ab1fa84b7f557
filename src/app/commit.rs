//! The files of a configuration on trial: what brings the one before back whatever happens, also a loss of power at any
//! moment.
//!
//!     vedette.toml           the one that counts
//!     vedette.toml.before    the one before, while another is on trial
//!     vedette.toml.trial     says that there is a trial; while this file is there, nothing is confirmed
//!     vedette.toml.confirmed what was `.trial`, until whoever asked for it has been told
//!
//!     begin:      .before written ─► .trial written ─► vedette.toml replaced
//!     confirm:    .trial renamed to .confirmed ─► .before removed ─► .confirmed removed when that has been told
//!     roll back:  .before renamed to vedette.toml ─► .trial removed        each step may be done twice; none needs space
//!
//! They stand beside the configuration because that place is known before anything else is, even when the configuration
//! on trial cannot be read after all. A start that finds `.trial` rolls back: whether it was a loss of power, a crash or a
//! person who restarted the program, nobody has confirmed. What somebody else has written to vedette.toml meanwhile is
//! kept as `vedette.toml.edited`.

use crate::base::configuration::{BEFORE_TRIAL, ON_TRIAL};
use crate::base::files::{remove, rename, write_whole};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What the file `.trial` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// What the confirmation names.
    pub(super) id: String,
    /// Where answers go.
    pub(super) address: String,
    /// For whoever looks at the file.
    pub(super) until: String,
    /// SHA-256.
    pub(super) before: String,
    pub(super) after: String,
}

/// Where the files of one configuration are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    config: PathBuf,
    before: PathBuf,
    trial: PathBuf,
    confirmed: PathBuf,
    edited: PathBuf,
}

/// What a start found and put right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recovered {
    /// To run with. Not the usual one if that could not be restored.
    pub(super) config: PathBuf,
    pub(super) address: Option<String>,
    /// What happened.
    pub(super) sentence: String,
}

/// What a configuration is known by: SHA-256 in hexadecimal digits.
pub fn hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Files {
    pub(super) fn of(config: &Path) -> Self {
        // A link stays one: what it leads to is replaced.
        let config = fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
        let beside = |suffix: &str| {
            let mut name = OsString::from(config.file_name().unwrap_or_default());
            name.push(suffix);
            config.with_file_name(name)
        };
        Self {
            before: beside(BEFORE_TRIAL),
            trial: beside(ON_TRIAL),
            confirmed: beside(".confirmed"),
            edited: beside(".edited"),
            config,
        }
    }

    pub(super) fn read(&self) -> io::Result<String> {
        fs::read_to_string(&self.config)
    }

    /// From here on the new text counts, and the old one comes back unless it is confirmed.
    pub(super) fn begin(&self, marker: &Marker, before: &str, after: &str) -> io::Result<()> {
        // Like the one that they replace: who may read it is the business of whoever put it there.
        let mode = fs::metadata(&self.config)?.permissions().mode() & 0o777;
        write_whole(&self.before, mode, before.as_bytes())?;
        let text = serde_json::to_vec(marker).expect("texts are JSON");
        let begun =
            write_whole(&self.trial, 0o600, &text).and_then(|()| write_whole(&self.config, mode, after.as_bytes()));
        if begun.is_err() {
            // Nothing has been replaced yet.
            self.end()?;
        }
        begun
    }

    /// The one that counts is the one that stays.
    pub(super) fn confirm(&self) -> io::Result<()> {
        rename(&self.trial, &self.confirmed)?;
        remove(&self.before)
    }

    /// The last that was confirmed, if nobody has been told.
    pub(super) fn untold(&self) -> Option<Marker> {
        serde_json::from_slice(&fs::read(&self.confirmed).ok()?).ok()
    }

    /// That this one was confirmed has been told.
    pub(super) fn told(&self, marker: &Marker) -> io::Result<()> {
        if self.untold().as_ref() == Some(marker) { remove(&self.confirmed) } else { Ok(()) }
    }

    /// There is no trial any more, and the one that counts stays.
    pub(super) fn end(&self) -> io::Result<()> {
        remove(&self.trial)?;
        remove(&self.before)
    }

    /// The one before counts again; the trial is over with [`Files::end`], when that runs. May be called again.
    pub(super) fn restore(&self, marker: Option<&Marker>) -> io::Result<()> {
        let found = self.read().map(|text| hash(&text)).ok();
        if !self.before.exists() {
            return match marker {
                Some(marker) if found.as_ref() == Some(&marker.before) => Ok(()),
                _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is gone", self.before.display()))),
            };
        }
        let is_known = |marker: &Marker| [&marker.before, &marker.after].map(Some).contains(&found.as_ref());
        if found.is_some() && marker.is_some_and(|marker| !is_known(marker)) {
            rename(&self.config, &self.edited)?;
        }
        rename(&self.before, &self.config)
    }

    /// Before anything is read: a trial that a start finds was not confirmed.
    pub(super) fn recover(&self, config: &Path) -> Option<Recovered> {
        let text = match fs::read(&self.trial) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A loss of power before the trial began, or after it was confirmed.
                let _ = fs::remove_file(&self.before);
                return None;
            }
            Err(_) => Vec::new(),
        };
        let marker: Option<Marker> = serde_json::from_slice(&text).ok();
        let address = marker.as_ref().map(|marker| marker.address.clone());
        let restored = self.restore(marker.as_ref()).and_then(|()| self.end());
        let (config, sentence) = match restored {
            Ok(()) => (
                config.to_owned(),
                "the configuration on trial was not confirmed before this start; rolled back".into(),
            ),
            Err(error) if self.before.exists() => {
                let what = format!(
                    "the configuration on trial was not confirmed; the one before runs, but could not be put back in its place ({error})"
                );
                (self.before.clone(), what)
            }
            Err(error) => {
                let what = format!("the configuration on trial was not confirmed, and cannot be rolled back ({error})");
                (config.to_owned(), what)
            }
        };
        Some(Recovered { config, address, sentence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        files: Files,
        marker: Marker,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("vedette.toml");
            fs::write(&config, "old").unwrap();
            fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
            let marker = Marker {
                id: "1".into(),
                address: "there".into(),
                until: String::new(),
                before: hash("old"),
                after: hash("new"),
            };
            Self { files: Files::of(&config), folder, marker }
        }

        fn begin(&self) {
            self.files.begin(&self.marker, "old", "new").unwrap();
        }

        fn recover(&self) -> Option<Recovered> {
            self.files.recover(&self.folder.path().join("vedette.toml"))
        }

        /// Text of the configuration, and how many files there are.
        fn now(&self) -> (String, usize) {
            (self.files.read().unwrap(), fs::read_dir(self.folder.path()).unwrap().count())
        }
    }

    #[test]
    fn confirmed_stays_and_rolled_back_goes_without_a_trace() {
        let place = Place::new();
        place.begin();
        assert_eq!(place.now(), ("new".into(), 3));
        let mode = fs::metadata(place.folder.path().join("vedette.toml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        place.files.confirm().unwrap();
        assert_eq!((place.now(), place.recover()), (("new".into(), 2), None));
        assert_eq!(place.files.untold().as_ref(), Some(&place.marker));
        let other = Marker { id: "2".into(), ..place.marker.clone() };
        for (marker, files) in [(&other, 2), (&place.marker, 1), (&place.marker, 1)] {
            place.files.told(marker).unwrap();
            assert_eq!(place.now(), ("new".into(), files));
        }

        let place = Place::new();
        place.begin();
        for _ in 0..2 {
            place.files.restore(Some(&place.marker)).unwrap();
        }
        place.files.end().unwrap();
        assert_eq!((place.now(), place.recover()), (("old".into(), 1), None));
    }

    #[test]
    fn a_start_rolls_back_wherever_the_power_went() {
        type Cut = fn(&Files, &Marker);
        let cuts: [Cut; 6] = [
            |files, _| fs::write(&files.before, "ol").unwrap(),
            |files, _| fs::write(&files.before, "old").unwrap(),
            |files, marker| {
                fs::write(&files.before, "old").unwrap();
                fs::write(&files.trial, serde_json::to_vec(marker).unwrap()).unwrap();
            },
            |files, marker| files.begin(marker, "old", "new").unwrap(),
            |files, marker| {
                files.begin(marker, "old", "new").unwrap();
                fs::write(&files.trial, "{").unwrap();
            },
            |files, marker| {
                files.begin(marker, "old", "new").unwrap();
                files.restore(Some(marker)).unwrap();
            },
        ];
        for (number, cut) in cuts.into_iter().enumerate() {
            let place = Place::new();
            cut(&place.files, &place.marker);
            let recovered = place.recover();
            assert_eq!((place.now(), recovered.is_some()), (("old".into(), 1), number > 1), "{number}");
            assert_eq!(place.recover(), None);
        }
        let place = Place::new();
        place.begin();
        let recovered = place.recover().unwrap();
        assert_eq!(recovered.address.as_deref(), Some("there"));
        assert!(recovered.sentence.ends_with("rolled back") && recovered.config.ends_with("vedette.toml"));
        // After the confirmation, before the last file was gone.
        let place = Place::new();
        place.begin();
        fs::rename(&place.files.trial, &place.files.confirmed).unwrap();
        assert_eq!((place.recover(), place.now()), (None, ("new".into(), 2)));
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_is_kept_aside_and_a_loss_is_said() {
        let place = Place::new();
        place.begin();
        fs::write(&place.files.config, "mine").unwrap();
        place.files.restore(Some(&place.marker)).unwrap();
        assert_eq!(place.now().0, "old");
        assert_eq!(fs::read_to_string(&place.files.edited).unwrap(), "mine");

        let place = Place::new();
        place.begin();
        fs::remove_file(&place.files.before).unwrap();
        let recovered = place.recover().unwrap();
        assert!(recovered.sentence.contains("cannot be rolled back"), "{}", recovered.sentence);
    }

    #[test]
    fn what_cannot_be_written_leaves_everything_as_it_was() {
        let place = Place::new();
        // A folder in the place of the file cannot be replaced by one.
        fs::create_dir(&place.files.trial).unwrap();
        assert!(place.files.begin(&place.marker, "old", "new").is_err());
        assert_eq!(place.files.read().unwrap(), "old");
    }

    #[test]
    fn a_link_stays_one() {
        let place = Place::new();
        let link = place.folder.path().join("link.toml");
        std::os::unix::fs::symlink("vedette.toml", &link).unwrap();
        Files::of(&link).begin(&place.marker, "old", "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&link).unwrap(), "new");
    }
}
