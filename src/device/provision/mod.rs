//! Provisioning: what whoever sets up a device writes on its boot partition becomes the device's own.
//!
//!     boot/vedette.toml ──file──► faults? ──► boot/vedette-errors.txt, console, data_dir/provisioning (shown upstream)
//!          │                        └─ none ─► secrets, users, trust, SSH key, system.json, vedette.toml; then `taken`,
//!          └─────────── erased ◄───────────── the file overwritten and removed, then `taken` gone
//!     data/provision/system.json ──at each start──► host name, networkd, chrony, nftables below run/
//!
//! - A file with a fault is refused as a whole: what the device was told before goes on, on a first start safe defaults and DHCP. It
//!   stays where it is, to be corrected, and is looked at again at each start.
//! - Its name may be in capitals, and `vedette.toml.txt`, because that is what a PC makes of it. What is no ordinary file (a link,
//!   a pipe) is refused.
//! - Certificates beside it, `NAME.der`, go to the trust list.
//! - The power may go between any two steps: what is written is written whole, and the file is still there until all is written.
//!   `taken` has its hash while it is being erased, so that a file that cannot be erased is not taken again at each start. A file that
//!   begins with a zero is one whose erasing was cut, if there is a `taken`; else one that never got onto the card.
//! - Where the data partition is lost and all is in memory, the file is obeyed and stays where it is.
//! - What the system obeys (network, keys for SSH) is kept outside of the service's own folder, so that the service, if somebody
//!   took it over, cannot change it.
//! - Nothing here fails: a device that does not come up cannot even be asked why. What goes wrong is said.

mod boot;
mod certificate;
mod dry_run;
mod edit;
mod erase;
mod file;
mod network;
mod system;
mod writing;

use crate::base::configuration::{BEFORE_TRIAL, ON_TRIAL};
use crate::base::files;
use boot::read_bounded;
pub use dry_run::dry_run;
use edit::{renamed, table, with_key};
use erase::erase;
use file::{Fault, Provision, Wanted};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use system::System;
use toml::Spanned;
use writing::Unwritten;

/// On the boot partition.
const FILE: &str = "vedette.toml";
const ERRORS: &str = "vedette-errors.txt";
/// Of the service, below the data partition.
const SERVICE: &str = "vedette";
const CONFIG: &str = "vedette.toml";
const SECRETS: &str = "secrets";
const TRUSTED: &str = "pki/trusted";
/// One of the secrets.
const BROKER_PASSWORD: &str = "broker-password";
/// What became of the last provisioning, in the service's data folder: a sentence, for whoever shows it upstream.
const OUTCOME: &str = "provisioning";
/// How [`OUTCOME`] begins if there was a fault.
pub const REFUSED: &str = "refused";
/// Kept for the next starts.
const KEPT: &str = "provision";
const TAKEN: &str = "taken";
const KEPT_SYSTEM: &str = "system.json";
/// What could not be read of it, for whoever wants to know what it was.
const BROKEN_SYSTEM: &str = "system.json.bad";
/// Below `run`: of [`super::DATA_LOST`].
const MARK: &str = "vedette/data-lost";

/// Where everything is; on a device `/boot`, `/data`, `/run`, `/proc/sys/kernel/hostname`, `/`.
#[derive(Clone, Debug)]
pub struct Places {
    pub boot: PathBuf,
    pub data: PathBuf,
    pub run: PathBuf,
    /// Takes the host name.
    pub host_name: PathBuf,
    /// Below which sys/ and etc/ tell one device from another.
    pub root: PathBuf,
}

/// Whether a text is a configuration, or what is wrong with it: sentences that begin with `FILE:LINE: `.
pub type Check<'a> = &'a dyn Fn(&Path, &str) -> Result<(), Vec<String>>;

/// All of it. What there is to say, for the console.
pub fn run(places: &Places, check: Check<'_>) -> Vec<String> {
    let data_lost = super::lost(&places.run.join(MARK));
    let mut provisioning = Provisioning { places, check, said: Vec::new(), faults: Vec::new(), data_lost };
    provisioning.all();
    provisioning.said
}

/// What became of it, for whoever shows it upstream; empty where there is no provisioning.
pub fn outcome(data_dir: &Path) -> String {
    fs::read_to_string(data_dir.join(OUTCOME)).unwrap_or_default()
}

/// Which ports are open, anew, after the configuration has changed.
pub fn write_ports(places: &Places) -> io::Result<()> {
    let configuration = fs::read_to_string(places.data.join(SERVICE).join(CONFIG))?;
    system::write_ports(places, &configuration)
}

struct Provisioning<'a> {
    places: &'a Places,
    check: Check<'a>,
    said: Vec<String>,
    /// What somebody has to correct.
    faults: Vec<String>,
    /// What is written now is gone with the power: so what it comes from must stay.
    data_lost: Option<String>,
}

impl Provisioning<'_> {
    fn all(&mut self) {
        for folder in [self.service(), self.places.data.join(KEPT)] {
            // On a device the service's folder is there (tmpfiles.d) and belongs to the service.
            let made = files::make_folder(&folder, 0o750);
            self.tried(&format!("cannot make {}", folder.display()), made);
        }
        let mut system = self.system();
        let outcome = self.take(&mut system);
        self.trust_files();
        self.defaults(&system);
        let done = system.apply(self.places, &self.configuration());
        self.said.extend(done);
        if let Some(outcome) = outcome {
            self.note(&outcome);
        }
        self.tell_boot();
    }

    /// What the system was told before. What cannot be read is not written over.
    fn system(&mut self) -> System {
        let path = self.kept(KEPT_SYSTEM);
        let (mut system, may_save) = match System::load(&path) {
            Ok(system) => (system, true),
            Err(error) => {
                let what = "host name, network and time servers are the defaults until a file tells them again";
                self.say(format!("{} cannot be read ({error}); {what}", path.display()));
                // What is no JSON will not become it; what could not be read may be there at the next start.
                let is_broken =
                    error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::UnexpectedEof;
                let moved = is_broken.then(|| files::rename(&path, &self.kept(BROKEN_SYSTEM)));
                (System::default(), matches!(moved, Some(Ok(()))))
            }
        };
        if system.own_name.is_empty() {
            system.own_name = system::own_name(&self.places.root);
            let saved = if may_save { system.stage(&path).and_then(files::Staged::place) } else { Ok(()) };
            self.tried("the name of this device cannot be kept", saved);
        }
        system
    }

    /// Takes in the file, if there is one. What became of it, if that is news.
    fn take(&mut self, system: &mut System) -> Option<String> {
        let path = match boot::find(&self.places.boot) {
            Ok(Some(path)) => path,
            Ok(None) => {
                let taken = fs::read_to_string(self.kept(TAKEN)).ok();
                self.forget_taken();
                if let Some(taken) = taken {
                    // The power went after its name had gone.
                    return Some(outcome_of(&taken));
                }
                // Whoever took a bad file away does not want to hear of it any more.
                let last = fs::read_to_string(self.service().join(OUTCOME)).ok();
                return match last {
                    Some(last) if !last.starts_with(REFUSED) => None,
                    Some(_) => Some("the file with a fault was taken away; the device goes on as before".into()),
                    None => Some("no file yet; the device has its defaults".into()),
                };
            }
            Err(what) => return Some(self.refuse(vec![what])),
        };
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) => return Some(self.refuse(vec![format!("{FILE}: cannot read it ({error})")])),
        };
        let hash = hash(&bytes);
        let taken = fs::read_to_string(self.kept(TAKEN)).ok();
        let is_taken = taken.as_ref() == Some(&hash);
        let is_zeros = bytes.first() == Some(&0);
        let is_empty = bytes.iter().all(u8::is_ascii_whitespace);
        if let Some(taken) = taken.filter(|_| is_taken || is_zeros || is_empty) {
            let outcome = outcome_of(&taken);
            self.note(&outcome);
            self.end_with(&path);
            return Some(outcome);
        }
        if is_empty {
            let what = "it is empty; write it again, and eject the card before you pull it";
            return Some(self.refuse(vec![format!("{FILE}: {what}")]));
        }
        if is_zeros {
            let what = "there are zeros in it instead of text; write it again, as UTF-8, and eject the card before you pull it";
            return Some(self.refuse(vec![format!("{FILE}: {what}")]));
        }
        let faults = |faults: Vec<Fault>| faults.into_iter().map(|fault| in_words(&fault)).collect();
        let wanted = file::read(&bytes).map_err(faults).and_then(|wanted| self.complete(wanted, system));
        let (wanted, configuration) = match wanted {
            Ok(wanted) => wanted,
            Err(faults) => return Some(self.refuse(faults)),
        };
        match self.write(wanted, configuration.as_deref(), system) {
            Ok(()) => {}
            // Also when it is tried at the next start; so the file stays.
            Err(Unwritten::Nothing(what)) => return Some(self.refuse(vec![what])),
            Err(Unwritten::Rest(what)) => {
                let what = format!("taken in part, the rest is tried at the next start: {what}");
                self.say(what.clone());
                self.faults.push(format!("{FILE}: {what}"));
                return Some(what);
            }
        }
        if let Some(why) = self.data_lost.clone() {
            let what = format!("taken for this start only, and the file stays, because {why}");
            self.say(what.clone());
            return Some(what);
        }
        self.say("the file is taken".into());
        if let Err(error) = files::write_whole(&self.kept(TAKEN), 0o600, hash.as_bytes()) {
            self.say(format!("cannot note that the file is taken ({error})"));
        }
        let outcome = outcome_of(&hash);
        // Before the file goes: after a cut nothing else could tell.
        self.note(&outcome);
        self.end_with(&path);
        Some(outcome)
    }

    fn refuse(&mut self, faults: Vec<String>) -> String {
        for fault in &faults {
            self.say(fault.clone());
        }
        self.say(
            "the file is refused as a whole; the device goes on with what it was told before, or its defaults".into(),
        );
        let outcome = format!("{REFUSED}: {}", faults.join("; "));
        self.faults.extend(faults);
        outcome
    }

    /// The configuration as it will be, with what the rest of the file says about it, looked at by who knows.
    fn complete(&self, wanted: Wanted, system: &System) -> Result<(Provision, Option<String>), Vec<String>> {
        let Wanted { provision, configuration } = wanted;
        let host_name = provision.host_name.as_ref().map(Spanned::get_ref);
        let Some(text) = configuration else {
            let standing = self.standing();
            if provision.broker_password.is_some() && !standing.contains(BROKER_PASSWORD) {
                let what =
                    format!("{FILE}: [provision] broker_password: there is no [mqtt] in this file that it is for");
                return Err(vec![what]);
            }
            let renamed = host_name.and_then(|name| renamed(&standing, system.name(), name));
            return Ok((provision, renamed));
        };
        // Before lines move.
        (self.check)(Path::new(FILE), &text)?;
        let name = host_name.map_or(system.name(), String::as_str);
        let fault = |what: String| vec![format!("{FILE}: {what}")];
        let text = with_key(&text, "device", "data_dir", &self.service().display().to_string()).map_err(fault)?;
        let mut text = with_key(&text, "device", "name", name).map_err(fault)?;
        let whole = table(&text);
        let mqtt = whole.get("mqtt");
        let has = |key: &str| mqtt.is_some_and(|mqtt| mqtt.get(key).is_some());
        let path = self.secret(BROKER_PASSWORD);
        if provision.broker_password.is_some() {
            let fault = |what: &str| vec![format!("{FILE}: [provision] broker_password: {what}")];
            if mqtt.is_none() {
                return Err(fault("there is no [mqtt] that it is for"));
            }
            if has("password_file") {
                return Err(fault("[mqtt] has a password_file of its own; leave one of the two out"));
            }
        }
        // A password of an earlier file is what it was, as all that is not in this one.
        let is_kept = has("username") && !has("password_file") && path.exists();
        if provision.broker_password.is_some() || is_kept {
            text = with_key(&text, "mqtt", "password_file", &path.display().to_string()).map_err(fault)?;
        }
        (self.check)(Path::new(FILE), &text)?;
        Ok((provision, Some(text.trim_start().to_owned())))
    }

    /// Certificates that lie beside the file, as UA clients write theirs: `NAME.der`. Each is moved to the trust list.
    fn trust_files(&mut self) {
        let entries = fs::read_dir(&self.places.boot).into_iter().flatten().flatten();
        let is_one = |path: &PathBuf| {
            // A Mac writes `._NAME.der` beside each, with what FAT cannot hold of it.
            let is_of_mac = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("der")) && !is_of_mac
        };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match self.trust_file(&path) {
                Ok(None) => self.say(format!("{name} is trusted")),
                Ok(Some(why)) => self.say(format!("{name} is trusted, and stays on the card ({why})")),
                Err(error) => {
                    let what = format!("{name}: {error}");
                    self.say(what.clone());
                    self.faults.push(what);
                }
            }
        }
    }

    /// Why it is still on the card, if it is.
    fn trust_file(&self, path: &Path) -> io::Result<Option<String>> {
        let der = read_bounded(path)?;
        if let Some(what) = certificate::fault(&der) {
            return Err(io::Error::other(what));
        }
        let owner = fs::metadata(self.service())?;
        self.folder(&owner, "pki")?;
        let place = self.folder(&owner, TRUSTED)?.join(format!("provisioned-{}.der", &hash(&der)[..16]));
        files::write_whole_as(&place, 0o644, Some(&owner), &der)?;
        if let Some(why) = &self.data_lost {
            return Ok(Some(why.clone()));
        }
        Ok(files::remove(path).err().map(|error| error.to_string()))
    }

    /// A first start without a file, or with a bad one: a device that can be looked at and named.
    fn defaults(&mut self, system: &System) {
        let path = self.service().join(CONFIG);
        if path.exists() {
            return;
        }
        let name = system.name();
        let text = format!(
            "# Made at the first start; docs of vedette.toml say what else there is. A vedette.toml on the boot partition replaces it.\n\
             [device]\nname = \"{name}\"\ndata_dir = \"{}\"\n\n[ua_server]\n\n[system]\n",
            self.service().display()
        );
        let owner = fs::metadata(self.service()).ok();
        let written = files::write_whole_as(&path, 0o600, owner.as_ref(), text.as_bytes());
        self.tried("the first configuration cannot be written", written);
    }

    fn end_with(&mut self, path: &Path) {
        match erase(path) {
            Ok(()) => self.forget_taken(),
            Err(error) => {
                let what =
                    format!("{FILE} is taken, but cannot be erased ({error}): its secrets are still on the card");
                self.say(what.clone());
                self.faults.push(what);
            }
        }
    }

    fn forget_taken(&mut self) {
        let removed = files::remove(&self.kept(TAKEN));
        self.tried("cannot forget what was taken", removed);
    }

    /// For the service, which shows it upstream.
    fn note(&mut self, outcome: &str) {
        let path = self.service().join(OUTCOME);
        if fs::read_to_string(&path).is_ok_and(|last| last == outcome) {
            return;
        }
        let owner = fs::metadata(self.service()).ok();
        let written = files::write_whole_as(&path, 0o640, owner.as_ref(), outcome.as_bytes());
        self.tried("the outcome cannot be written", written);
    }

    /// What is wrong, where whoever wrote the file looks; or nothing any more.
    fn tell_boot(&mut self) {
        let path = self.places.boot.join(ERRORS);
        if self.faults.is_empty() {
            let removed = files::remove(&path);
            return self.tried("the old errors cannot be removed", removed);
        }
        let mut text = String::from(
            "What is wrong. Nothing of these files was taken unless it says so; correct them and start the device again.\n\n",
        );
        self.faults.iter().for_each(|fault| text += &format!("{fault}\n"));
        // For an editor of Windows, because that is where such cards are read.
        let text = text.replace('\n', "\r\n");
        if fs::read_to_string(&path).is_ok_and(|last| last == text) {
            return;
        }
        let written = files::write_whole(&path, 0o644, text.as_bytes());
        self.tried(&format!("{ERRORS} cannot be written"), written);
    }

    /// The configuration as it is on the data partition.
    fn configuration(&self) -> String {
        fs::read_to_string(self.service().join(CONFIG)).unwrap_or_default()
    }

    /// The one that the service will start with: while another is on trial, the one before (app/commit.rs).
    fn standing(&self) -> String {
        let before = || fs::read_to_string(self.beside_configuration(BEFORE_TRIAL)).ok();
        let is_on_trial = self.beside_configuration(ON_TRIAL).exists();
        is_on_trial.then(before).flatten().unwrap_or_else(|| self.configuration())
    }

    fn beside_configuration(&self, suffix: &str) -> PathBuf {
        self.service().join(format!("{CONFIG}{suffix}"))
    }

    fn service(&self) -> PathBuf {
        self.places.data.join(SERVICE)
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.places.data.join(KEPT).join(name)
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.service().join(SECRETS).join(name)
    }

    /// A folder of the service.
    fn folder(&self, owner: &Metadata, name: &str) -> io::Result<PathBuf> {
        let folder = self.service().join(name);
        files::make_folder(&folder, 0o750)?;
        super::give(&folder, owner)?;
        Ok(folder)
    }

    fn tried(&mut self, what: &str, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.say(format!("{what} ({error})"));
        }
    }

    fn say(&mut self, what: String) {
        self.said.push(what);
    }
}

fn in_words(fault: &Fault) -> String {
    match fault.line {
        0 => format!("{FILE}: {}", fault.what),
        line => format!("{FILE}:{line}: {}", fault.what),
    }
}

fn hash(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn outcome_of(hash: &str) -> String {
    format!("taken, SHA-256 {hash}")
}

#[cfg(test)]
mod tests;
