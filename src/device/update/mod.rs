//! Other firmware: fetched, checked, given to RAUC, started, and found healthy or not.
//!
//!     Fetching ──download──► Checking ──signature──► Installing ──rauc──► Rebooting ──other slot, healthy──► installed
//!         └─────────┴──────────────┴──────── a fault: failed ◄──────────────┴──── the old slot again: fell back
//!
//! Where it stands is on the disk before each step ([`Pending`]), so after a loss of power the next start goes on: a download where it
//! was cut, an installation from its beginning (RAUC marks the slot as bad before it touches it). After [`ATTEMPTS`] starts it fails.
//! If RAUC was done and the power went before that was noted, the other slot runs all the same. How the last one ended is kept as
//! well: a command that comes twice is answered twice and done once.
//!
//! One at a time: whoever works holds a lock, which goes with the process. Never from a slot on trial: what would be written
//! is the only slot that is known to be good.
//!
//! - `fetch.rs` brings a bundle here, by `download.rs` if it is far, and its sum is checked; `stick.rs` knows which bundle of a
//!   USB stick is taken, and which was before; `rauc.rs` is RAUC, which checks the signature.

mod download;
mod fetch;
mod rauc;
mod stick;

use super::{give, keys};
use crate::base::files;
use crate::base::net::hide_userinfo;
use crate::hub::News;
pub use download::DownloadError;
use rauc::About;
pub use rauc::RaucError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Below the data folder.
const FOLDER: &str = "update";
const STATE: &str = "state.json";
const LAST: &str = "last.json";
const AT_DEVICE: &str = "failed.json";
const BUNDLE: &str = "bundle.raucb";

/// A device that asks for a reboot by a file: the folder in which it is looked for (vedette-reboot.path), and its name.
pub const REBOOT: &str = "/run/vedette-ctl";
const REBOOT_FILE: &str = "reboot";

/// Starts of the program that may go on with one update.
const ATTEMPTS: u32 = 4;
/// Between attempts to go on with a download.
const WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error(
        "this device has no update slots (rauc.slot= is not on the kernel's command line), so nothing can be installed"
    )]
    NoSlots,
    #[error("another update is under way")]
    Busy,
    #[error(
        "the slot that runs is on trial itself, and the other one is the only one that is known to be good; ask again when it has been found healthy"
    )]
    OnTrial,
    #[error("version {0} runs already")]
    Runs(String),
    #[error("cannot take the bundle from the stick: {0}")]
    Stick(io::Error),
    #[error("the state of the update cannot be kept in {path:?}: {source}")]
    State { path: PathBuf, source: io::Error },
    #[error("cannot fetch the bundle {url:?}: it must be http:// or https://, or the path of a file")]
    Scheme { url: String },
    #[error("cannot read the bundle {path:?}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the SHA-256 of {path:?} is {found}, not {wanted}")]
    Sum { path: PathBuf, found: String, wanted: String },
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error(transparent)]
    Rauc(#[from] RaucError),
    #[error("the system cannot be reached over D-Bus: {0}")]
    Bus(zbus::Error),
    #[error("it is installed, but this device cannot be rebooted from here: {0}")]
    Reboot(String),
}

/// What is to be installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// A URL, or a file's path. Users and passwords can stand in it: [`Wanted::shown`] is what others may see.
    pub bundle: String,
    /// 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// That of the bundle, as its manifest has it.
    pub version: Option<String>,
    /// Of the command that asked for it, and where its answers go.
    pub id: Option<String>,
    pub address: Option<String>,
    /// Authorities (PEM) for https://, beside the system's own.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Somebody at the device wants to choose the moment.
    #[serde(default)]
    pub no_reboot: bool,
    /// It is on a stick that may be gone in a moment, so it is copied first. The version that runs is not taken.
    #[serde(default)]
    pub is_on_stick: bool,
}

impl Wanted {
    /// Or a file's path. Upper and lower case are one in a scheme (RFC 3986, 3.1).
    pub fn is_url(&self) -> Result<bool, UpdateError> {
        match self.bundle.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
                Ok(true)
            }
            // A folder may be called so.
            Some((scheme, _)) if !scheme.is_empty() && !scheme.contains('/') => {
                Err(UpdateError::Scheme { url: self.shown() })
            }
            _ => Ok(false),
        }
    }

    /// For people.
    pub fn name(&self) -> String {
        match &self.version {
            Some(version) => format!("version {version}"),
            None => self.shown(),
        }
    }

    /// Where it is, for people: without a password.
    pub fn shown(&self) -> String {
        hide_userinfo(&self.bundle)
    }
}

/// What is told of a bundle that anybody may have made.
const DEVELOPMENT: &str =
    "WARNING: this bundle is signed with development keys, which whoever has built an image may have";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Fetching,
    /// The bundle is here. RAUC looks at it, and writes nothing yet.
    Checking,
    Installing,
    Rebooting,
}

/// An update under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub wanted: Wanted,
    pub stage: Stage,
    pub attempts: u32,
    /// In which it began.
    pub slot: String,
    pub boot_id: String,
}

impl Pending {
    /// A stick that was pulled out, or the power went while it was read: whoever looks after sticks begins anew.
    pub fn is_left_on_stick(&self) -> bool {
        self.wanted.is_on_stick && self.stage == Stage::Fetching
    }
}

/// How one ended that a command asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    pub id: Option<String>,
    /// Where that is to be told; none once it has arrived there.
    #[serde(default)]
    pub untold: Option<String>,
    /// What was done, or why not.
    pub outcome: Result<String, String>,
}

/// Why one failed that was begun at the device; kept until the program that runs has told it. Beside [`Last`], because whoever sent
/// a command may still wait for that one's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedHere {
    pub why: String,
    /// Nobody sits at the device; it is to be seen there how it ended.
    pub is_from_stick: bool,
}

/// What a start finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// To be gone on with.
    Again(Pending),
    /// The other slot runs; is it healthy?
    Started(Pending),
    /// It is over, and this is why.
    Failed(Pending, String),
}

/// The updates of this device.
#[derive(Clone, Debug)]
pub struct Updates {
    data_dir: PathBuf,
    folder: PathBuf,
    slot: String,
    boot_id: String,
    /// Version of the image that runs.
    version: Option<String>,
    /// Instead of the system's bus.
    bus: Option<String>,
    /// How long RAUC may take to answer.
    answer: Duration,
    reboot: PathBuf,
    wait: (Duration, Duration),
}

/// Held by who works on an update.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Updates {
    pub fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            folder: data_dir.join(FOLDER),
            slot: super::slot(),
            boot_id: super::boot_id(),
            version: super::image_version(),
            bus: None,
            answer: rauc::ANSWER,
            reboot: REBOOT.into(),
            wait: WAIT,
        }
    }

    #[cfg(test)]
    pub fn for_test(data_dir: &Path, slot: &str, boot_id: &str) -> Self {
        let (slot, boot_id) = (slot.to_owned(), boot_id.to_owned());
        Self { slot, boot_id, reboot: data_dir.to_owned(), ..Self::new(data_dir) }
    }

    /// As it is when the machine is told to reboot.
    #[cfg(test)]
    pub fn keep_rebooting(&self, wanted: Wanted) {
        let mut pending = self.begin(wanted);
        self.keep(&mut pending, Stage::Rebooting).expect("a folder to write to");
    }

    /// As it is while a bundle is brought here.
    #[cfg(test)]
    pub fn keep_fetching(&self, wanted: Wanted) {
        let mut pending = self.begin(wanted);
        self.keep(&mut pending, Stage::Fetching).expect("a folder to write to");
    }

    pub fn slot(&self) -> &str {
        &self.slot
    }

    pub fn lock(&self) -> Result<Lock, UpdateError> {
        if self.slot.is_empty() {
            return Err(UpdateError::NoSlots);
        }
        let path = self.folder.join("lock");
        let opened = self.make_folder().and_then(|()| {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).custom_flags(super::NO_LINK).open(&path)?;
            give(&path, &fs::metadata(&self.data_dir)?)?;
            Ok(file)
        });
        let file = opened.map_err(|source| UpdateError::State { path, source })?;
        file.try_lock().map_err(|_| UpdateError::Busy)?;
        Ok(Lock { _file: file })
    }

    /// What the last run of the program, or the power, left.
    pub fn found(&self) -> Found {
        let Some(pending) = self.pending() else { return Found::Nothing };
        let failed = |why: &str| Found::Failed(pending.clone(), why.to_owned());
        match pending.stage {
            // Asked for and not done yet, or the program was restarted in between.
            Stage::Rebooting if pending.boot_id == self.boot_id => Found::Again(pending),
            Stage::Rebooting if pending.slot == self.slot => {
                failed(&format!("the other slot did not come up healthy; slot {} runs again", self.slot))
            }
            Stage::Rebooting => Found::Started(pending),
            // RAUC was done, and the power went before that was noted.
            Stage::Installing if pending.slot != self.slot => Found::Started(pending),
            Stage::Fetching | Stage::Checking | Stage::Installing if pending.attempts >= ATTEMPTS => {
                failed(&format!("it was interrupted {ATTEMPTS} times"))
            }
            Stage::Fetching | Stage::Checking | Stage::Installing => Found::Again(pending),
        }
    }

    /// For another one. What is installed already waits for its reboot, or to be found healthy; what was cut and at which nobody is
    /// has failed by this, and who sent it is told so. Whether there is something to tell.
    pub fn make_way(&self, _lock: &Lock) -> Result<bool, UpdateError> {
        let (pending, why) = match self.found() {
            Found::Nothing => return Ok(false),
            Found::Started(_) | Found::Again(Pending { stage: Stage::Rebooting, .. }) => return Err(UpdateError::Busy),
            Found::Failed(pending, why) => (pending, why),
            Found::Again(pending) => (pending, "it was cut, and another one was begun instead".to_owned()),
        };
        self.end(&pending.wanted, Err(why))?;
        Ok(pending.wanted.address.is_some())
    }

    pub fn pending(&self) -> Option<Pending> {
        serde_json::from_slice(&fs::read(self.folder.join(STATE)).ok()?).ok()
    }

    pub fn last(&self) -> Option<Last> {
        serde_json::from_slice(&fs::read(self.folder.join(LAST)).ok()?).ok()
    }

    pub fn begin(&self, wanted: Wanted) -> Pending {
        let (slot, boot_id) = (self.slot.clone(), self.boot_id.clone());
        Pending { wanted, stage: Stage::Fetching, attempts: 0, slot, boot_id }
    }

    /// From where it stands to what the next start will take. Dropped before its end, the state stays as it is, to be gone on with.
    pub async fn install(
        &self,
        _lock: &Lock,
        pending: &mut Pending,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), UpdateError> {
        if pending.stage == Stage::Rebooting {
            return Ok(());
        }
        pending.attempts += 1;
        self.keep(pending, Stage::Fetching)?;
        let bundle = self.fetch(pending, tell).await?;
        self.keep(pending, Stage::Checking)?;
        if keys::is_signed_for_development(&bundle) {
            tell(DEVELOPMENT.into());
        }
        let bus = rauc::connect(self.bus.as_deref(), self.answer).await.map_err(UpdateError::Bus)?;
        let about = rauc::inspect(&bus, &bundle).await?;
        match &about {
            Some(about) if pending.wanted.is_on_stick && self.version.as_ref() == Some(&about.version) => {
                return Err(UpdateError::Runs(about.version.clone()));
            }
            Some(about) if pending.wanted.version.is_none() => pending.wanted.version = Some(about.version.clone()),
            _ => {}
        }
        About::check(about, pending.wanted.version.as_deref())?;
        let mut last = -1;
        let mut tell_step = |percent: i32, what: &str| {
            // A step of ten, because each is a message upstream.
            if percent / 10 != last {
                last = percent / 10;
                tell(format!("installing: {percent} % ({what})"));
            }
        };
        // From here on RAUC goes on to the end, whoever waits for it.
        self.keep(pending, Stage::Installing)?;
        rauc::install(&bus, &bundle, &mut tell_step).await?;
        pending.boot_id.clone_from(&self.boot_id);
        self.keep(pending, Stage::Rebooting)
    }

    /// What is installed is started.
    pub async fn reboot(&self, pending: &Pending, tell: &mut (dyn FnMut(String) + Send)) -> Result<(), UpdateError> {
        if pending.wanted.no_reboot {
            return Ok(());
        }
        tell("installed into the other slot; rebooting".into());
        ask_for_reboot(&self.reboot).await.map(drop).map_err(UpdateError::Reboot)
    }

    /// It is over: what was for it goes, how it ended stays, if a command asked for it. The bundle goes first, for it may be what
    /// fills the disk.
    pub fn end(&self, wanted: &Wanted, outcome: Result<String, String>) -> Result<(), UpdateError> {
        let (id, untold) = (wanted.id.clone(), wanted.address.clone());
        let emptied = self.remove(BUNDLE);
        let kept = match id {
            Some(_) => self.keep_last(&Last { id, untold, outcome }),
            None => Ok(()),
        };
        // Also if how it ended is lost: or the next start would begin it again.
        let forgotten = self.remove(STATE);
        kept.and(emptied).and(forgotten)
    }

    /// Whoever asked for this one has heard how it ended.
    pub fn told(&self, last: Last) -> Result<(), UpdateError> {
        // Another one may have ended meanwhile.
        if self.last().as_ref() != Some(&last) {
            return Ok(());
        }
        self.keep_last(&Last { untold: None, ..last })
    }

    /// For [`Updates::take_failed_here`].
    pub fn note_failed_here(&self, why: &str, is_from_stick: bool) -> Result<(), UpdateError> {
        let failed = FailedHere { why: why.to_owned(), is_from_stick };
        self.write(AT_DEVICE, &serde_json::to_vec(&failed).expect("texts are JSON"))
    }

    /// Each is told once.
    pub fn take_failed_here(&self) -> Result<Option<FailedHere>, UpdateError> {
        let failed = fs::read(self.folder.join(AT_DEVICE)).ok();
        self.remove(AT_DEVICE)?;
        Ok(failed.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    fn keep_last(&self, last: &Last) -> Result<(), UpdateError> {
        self.write(LAST, &serde_json::to_vec(last).expect("texts are JSON"))
    }

    /// What was for an update goes.
    pub fn forget(&self) -> Result<(), UpdateError> {
        let (state, bundle) = (self.remove(STATE), self.remove(BUNDLE));
        state.and(bundle)
    }

    fn remove(&self, name: &str) -> Result<(), UpdateError> {
        let path = self.folder.join(name);
        files::remove(&path).map_err(|source| UpdateError::State { path, source })
    }

    fn keep(&self, pending: &mut Pending, stage: Stage) -> Result<(), UpdateError> {
        pending.stage = stage;
        self.write(STATE, &serde_json::to_vec(pending).expect("texts and numbers are JSON"))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), UpdateError> {
        let path = self.folder.join(name);
        let written = self.make_folder().and_then(|()| {
            let owner = fs::metadata(&self.data_dir)?;
            files::write_whole_as(&path, 0o600, Some(&owner), content)
        });
        written.map_err(|source| UpdateError::State { path, source })
    }

    fn make_folder(&self) -> io::Result<()> {
        files::make_folder(&self.folder, 0o750)?;
        give(&self.folder, &fs::metadata(&self.data_dir)?)
    }
}

/// What became of one, for whoever asked for it.
pub fn news(outcome: &Result<String, String>) -> News {
    match outcome {
        Ok(text) => News::Done(text.clone()),
        Err(text) => News::Failed(text.clone()),
    }
}

/// By the file that the image looks for; elsewhere by systemd itself, which may say no. What was done.
pub async fn ask_for_reboot(folder: &Path) -> Result<String, String> {
    if folder.is_dir() {
        let file = folder.join(REBOOT_FILE);
        fs::write(&file, "").map_err(|error| format!("{}: {error}", file.display()))?;
        return Ok("the device reboots now".into());
    }
    let ask = || std::process::Command::new("systemctl").args(["--no-ask-password", "reboot"]).output();
    let output = tokio::task::spawn_blocking(ask).await.map_err(|error| error.to_string())?;
    let output = output.map_err(|error| format!("systemctl: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or("no reason given").to_owned();
        return Err(format!("systemctl refused to reboot: {said}"));
    }
    Ok("the device reboots now".into())
}

#[cfg(test)]
mod tests;
