//! Everything that a file without a fault leads to, on the data partition: all of it or nothing, as far as that can be had.
//!
//!     each file beside its place, and the users ──► all into their places
//!
//! What can fail for want of space or rights comes first, and then nothing is told otherwise than before. Putting them into their
//! places needs neither; if it fails in between all the same, or the power goes, the file is still on the boot partition, and all of
//! it is done again at the next start.

use super::file::{self, Provision};
use super::system::System;
use super::{BROKER_PASSWORD, CONFIG, KEPT_SYSTEM, Provisioning, SECRETS, TRUSTED, certificate, hash};
use crate::base::configuration::{BEFORE_TRIAL, ON_TRIAL};
use crate::base::files::{self, Staged};
use crate::users::{self, UsersFile};
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::PathBuf;
use toml::Spanned;

/// Why it is not all written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// All is as it was.
    Nothing(String),
    /// Some of it is new.
    Rest(String),
}

enum Step {
    Place(Staged),
    Remove(PathBuf),
}

/// A step, and what is not done if it fails.
type Steps = Vec<(String, Step)>;

fn failed(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what} cannot be written ({error})")
}

impl Provisioning<'_> {
    pub(super) fn write(
        &mut self,
        wanted: Provision,
        configuration: Option<&str>,
        system: &mut System,
    ) -> Result<(), Unwritten> {
        let Provision { host_name, network, ntp, user, ssh_keys, broker_password, trusted, file } = wanted;
        let mut secrets: Vec<(String, String)> =
            file.into_iter().map(Spanned::into_inner).map(|file| (file.name, file.content)).collect();
        secrets.extend(broker_password.map(|password| (BROKER_PASSWORD.to_owned(), password.into_inner() + "\n")));
        let mut next = system.clone();
        next.host_name = host_name.map(Spanned::into_inner).or(next.host_name);
        if let Some(network) = network {
            next.network = network.into_iter().map(Spanned::into_inner).collect();
        }
        if let Some(ntp) = ntp {
            next.ntp = ntp.into_iter().map(Spanned::into_inner).collect();
        }
        let trusted = trusted.into_iter().map(Spanned::into_inner).collect();
        let ssh_keys = ssh_keys.map(|keys| keys.into_iter().map(Spanned::into_inner).collect());
        let steps = self.prepare(secrets, trusted, ssh_keys, &next, configuration).map_err(Unwritten::Nothing)?;
        // They are written whole by who knows how, with a lock; so they are the first that is new, or nothing is.
        self.users(user.into_iter().map(Spanned::into_inner).collect()).map_err(Unwritten::Nothing)?;
        let ends_trial = configuration.is_some() && self.beside_configuration(ON_TRIAL).exists();
        let placed = place(steps).map_err(Unwritten::Rest);
        if ends_trial && placed.is_ok() {
            self.say("a configuration from afar was on trial; that is over, this one counts".into());
        }
        if placed.is_ok() || System::load(&self.kept(KEPT_SYSTEM)).is_ok_and(|kept| kept == next) {
            *system = next;
        }
        placed
    }

    /// In an order in which each step can use what is before it.
    fn prepare(
        &self,
        secrets: Vec<(String, String)>,
        trusted: Vec<String>,
        ssh_keys: Option<Vec<String>>,
        system: &System,
        configuration: Option<&str>,
    ) -> Result<Steps, String> {
        let owner =
            fs::metadata(self.service()).map_err(|error| format!("there is no place for the data ({error})"))?;
        let mut steps = Steps::new();
        let mut stage = |what: &str, path: PathBuf, mode: u32, like: Option<&Metadata>, content: &[u8]| {
            let staged = files::stage(&path, mode, like, content).map_err(failed(what))?;
            steps.push((what.to_owned(), Step::Place(staged)));
            Ok::<(), String>(())
        };
        if !secrets.is_empty() {
            self.folder(&owner, SECRETS).map_err(failed("the folder of secrets"))?;
        }
        for (name, content) in secrets {
            stage(&format!("the secret {name}"), self.secret(&name), 0o600, Some(&owner), content.as_bytes())?;
        }
        if !trusted.is_empty() {
            self.folder(&owner, "pki").map_err(failed("the trust list"))?;
            let folder = self.folder(&owner, TRUSTED).map_err(failed("the trust list"))?;
            // By what they are, so that the same one again makes no second file.
            let name = |pem: &String| format!("provisioned-{}.pem", &hash(pem.trim().as_bytes())[..16]);
            let trusted: BTreeMap<String, String> = trusted.into_iter().map(|pem| (name(&pem), pem)).collect();
            for (name, pem) in trusted {
                let whole = certificate::from_pem(&pem).map_err(|what| format!("a trusted certificate: {what}"))?;
                stage("a trusted certificate", folder.join(name), 0o644, Some(&owner), whole.as_bytes())?;
            }
        }
        let mut remove = None;
        if let Some(keys) = ssh_keys {
            let folder = self.places.data.join("ssh");
            files::make_folder(&folder, 0o700).map_err(failed("the SSH key"))?;
            let path = folder.join("authorized_keys");
            match keys.as_slice() {
                [] => remove = Some(path),
                keys => stage("the SSH key", path, 0o600, None, (keys.join("\n") + "\n").as_bytes())?,
            }
        }
        let configuration = configuration.map(|text| {
            let path = self.service().join(CONFIG);
            files::stage(&path, 0o600, Some(&owner), text.as_bytes()).map_err(failed("the configuration"))
        });
        let configuration = configuration.transpose()?;
        let what = "what the system is to be";
        let kept = system.stage(&self.kept(KEPT_SYSTEM)).map_err(failed(what))?;
        steps.extend(remove.map(|path| ("the SSH key".to_owned(), Step::Remove(path))));
        steps.push((what.to_owned(), Step::Place(kept)));
        if let Some(staged) = configuration {
            let what = "the configuration";
            // Whoever stands at the device has the last word: a start that finds a trial would put the one before in the place of
            // this one. The mark goes first; what is left without it is no trial.
            for suffix in [ON_TRIAL, BEFORE_TRIAL] {
                steps.push((what.to_owned(), Step::Remove(self.beside_configuration(suffix))));
            }
            steps.push((what.to_owned(), Step::Place(staged)));
        }
        Ok(steps)
    }

    fn users(&self, wanted: Vec<file::User>) -> Result<(), String> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut hashed = Vec::new();
        for file::User { name, role, password } in wanted {
            let hash = users::hash(&name, &password).map_err(|error| format!("user {name}: {error}"))?;
            hashed.push((name, role, hash));
        }
        let edited = UsersFile::new(&self.service()).edit(|users| {
            for (name, role, hash) in hashed {
                match users.iter_mut().find(|user| user.name == name) {
                    Some(user) => (user.role, user.password) = (role, Some(hash)),
                    None => users.push(users::User { name, role, password: Some(hash), certificates: Vec::new() }),
                }
            }
            Ok(())
        });
        edited.map_err(|error| error.to_string())
    }
}

fn place(steps: Steps) -> Result<(), String> {
    for (what, step) in steps {
        let done = match step {
            Step::Place(staged) => staged.place(),
            Step::Remove(path) => files::remove(&path),
        };
        done.map_err(failed(&what))?;
    }
    Ok(())
}
