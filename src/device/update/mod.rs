//! Other firmware: fetched, checked, given to RAUC, started, and found healthy or not.
//!
//!     Fetching ──download──► Installing ──rauc──► Rebooting ──other slot, healthy──► installed
//!         └────────┴──────── a fault: failed ◄──────────┴──── the old slot again: fell back
//!
//! Where it stands is on the disk before each step ([`Pending`]), so after a loss of power the next start goes on: a download where it
//! was cut, an installation from its beginning (RAUC marks the slot as bad before it touches it). After [`ATTEMPTS`] starts it fails.
//! How the last one ended is kept as well: a command that comes twice is answered twice and done once.
//!
//! One at a time: whoever works holds a lock, which goes with the process.
//!
//! - `download.rs` brings a bundle here and checks its sum; `rauc.rs` is RAUC, which checks the signature.

mod download;
mod rauc;

use super::give;
use crate::base::files;
use crate::hub::News;
use download::Download;
pub use download::DownloadError;
pub use rauc::RaucError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use zbus::Connection;

/// Below the data folder.
const FOLDER: &str = "update";
const STATE: &str = "state.json";
const LAST: &str = "last.json";
const BUNDLE: &str = "bundle.raucb";

/// A device that asks for a reboot by a file: the folder in which it is looked for (vedette-reboot.path), and its name.
pub const REBOOT: &str = "/run/vedette-ctl";
const REBOOT_FILE: &str = "reboot";

/// Starts of the program that may go on with one update.
const ATTEMPTS: u32 = 4;
/// How often it is said how far a download is.
const TELL: Duration = Duration::from_secs(5);
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
    #[error("the state of the update cannot be kept in {path:?}: {source}")]
    State { path: PathBuf, source: io::Error },
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
    /// A URL, or a file's path.
    pub bundle: String,
    /// 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// That of the bundle, as its manifest has it.
    pub version: Option<String>,
    /// Of the command that asked for it, and where its answers go.
    pub id: Option<String>,
    pub address: Option<String>,
    /// Somebody at the device wants to choose the moment.
    #[serde(default)]
    pub no_reboot: bool,
}

impl Wanted {
    fn is_url(&self) -> bool {
        self.bundle.starts_with("http://") || self.bundle.starts_with("https://")
    }

    /// For people.
    pub fn name(&self) -> String {
        match &self.version {
            Some(version) => format!("version {version}"),
            None => self.bundle.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Fetching,
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

/// How one ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    pub id: Option<String>,
    /// What was done, or why not.
    pub outcome: Result<String, String>,
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
    /// Instead of the system's bus.
    bus: Option<String>,
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
            bus: None,
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

    pub fn slot(&self) -> &str {
        &self.slot
    }

    pub fn lock(&self) -> Result<Lock, UpdateError> {
        if self.slot.is_empty() {
            return Err(UpdateError::NoSlots);
        }
        let path = self.folder.join("lock");
        let opened = self.make_folder().and_then(|()| {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
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
            Stage::Fetching | Stage::Installing if pending.attempts >= ATTEMPTS => {
                failed(&format!("it was interrupted {ATTEMPTS} times"))
            }
            Stage::Fetching | Stage::Installing => Found::Again(pending),
        }
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

    /// From where it stands to the question for a reboot. Dropped before its end, the state stays as it
    /// is, to be gone on with.
    pub async fn work(
        &self,
        _lock: &Lock,
        mut pending: Pending,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), UpdateError> {
        if pending.stage != Stage::Rebooting {
            pending.attempts += 1;
            self.keep(&mut pending, Stage::Fetching)?;
            let bundle = self.fetch(&pending.wanted, tell).await?;
            self.keep(&mut pending, Stage::Installing)?;
            let bus = match &self.bus {
                Some(address) => zbus::connection::Builder::address(address.as_str()).build().await,
                None => Connection::system().await,
            };
            let (bus, mut last) = (bus.map_err(UpdateError::Bus)?, -1);
            let mut tell_step = |percent: i32, what: &str| {
                // A step of ten, because each is a message upstream.
                if percent / 10 != last {
                    last = percent / 10;
                    tell(format!("installing: {percent} % ({what})"));
                }
            };
            rauc::install(&bus, &bundle, pending.wanted.version.as_deref(), &mut tell_step).await?;
            pending.boot_id.clone_from(&self.boot_id);
            self.keep(&mut pending, Stage::Rebooting)?;
        }
        if !pending.wanted.no_reboot {
            tell("installed into the other slot; rebooting".into());
            ask_for_reboot(&self.reboot).await.map_err(UpdateError::Reboot)?;
        }
        Ok(())
    }

    /// It is over: what was for it goes, how it ended stays.
    pub fn end(&self, wanted: &Wanted, outcome: Result<String, String>) -> Result<(), UpdateError> {
        let last = Last { id: wanted.id.clone(), outcome };
        self.write(LAST, &serde_json::to_vec(&last).expect("texts are JSON"))?;
        let removed = [STATE, BUNDLE].map(|name| (name, files::remove(&self.folder.join(name))));
        for (name, outcome) in removed {
            outcome.map_err(|source| UpdateError::State { path: self.folder.join(name), source })?;
        }
        Ok(())
    }

    async fn fetch(&self, wanted: &Wanted, tell: &mut (dyn FnMut(String) + Send)) -> Result<PathBuf, UpdateError> {
        if !wanted.is_url() {
            let path = PathBuf::from(&wanted.bundle);
            let read = |source| UpdateError::Read { path: path.clone(), source };
            let found = tokio::task::spawn_blocking({
                let path = path.clone();
                move || download::sum(&path)
            });
            let found = found.await.map_err(|error| read(io::Error::other(error)))?.map_err(read)?;
            return match &wanted.sha256 {
                Some(sum) if !found.eq_ignore_ascii_case(sum) => {
                    Err(UpdateError::Sum { path, found, wanted: sum.clone() })
                }
                _ => Ok(path),
            };
        }
        let path = self.folder.join(BUNDLE);
        // Whether nobody waits any more; how much there is, and of how much.
        let shared = Arc::new((AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0)));
        let (wait, wanted, target, told) = (self.wait, wanted.clone(), path.clone(), shared.clone());
        let mut thread = tokio::task::spawn_blocking(move || {
            let download = Download {
                url: &wanted.bundle,
                path: &target,
                sha256: wanted.sha256.as_deref(),
                tell: &|got, total| {
                    told.1.store(got, Ordering::Relaxed);
                    told.2.store(total.unwrap_or(0), Ordering::Relaxed);
                },
                is_stopped: &|| told.0.load(Ordering::Relaxed),
                wait,
            };
            download.run()
        });
        let _end = SetOnDrop(shared.clone());
        let (mut looks, mut last) = (tokio::time::interval(Duration::from_millis(200)), tokio::time::Instant::now());
        loop {
            tokio::select! {
                ended = &mut thread => {
                    ended.map_err(|error| UpdateError::Read { path: path.clone(), source: io::Error::other(error) })??;
                    return Ok(path);
                }
                _ = looks.tick() => {
                    let (got, total) = (shared.1.load(Ordering::Relaxed), shared.2.load(Ordering::Relaxed));
                    if got > 0 && last.elapsed() >= TELL {
                        last = tokio::time::Instant::now();
                        tell(how_far(got, total));
                    }
                }
            }
        }
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

/// Tells the thread of a download that nobody waits for it any more.
struct SetOnDrop(Arc<(AtomicBool, AtomicU64, AtomicU64)>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

fn how_far(got: u64, total: u64) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match total {
        0 => format!("downloading: {} MiB", mib(got)),
        total => format!("downloading: {} % of {} MiB", got.saturating_mul(100) / total.max(1), mib(total)),
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
