//! `vedette update`: other firmware, from a file or by HTTP; from a stick by itself, as vedette-usb@.service does it
//! (`device::update`).
//!
//! The running program is told what it cannot know: before the reboot it is asked what works, and a failure is for it to tell
//! upstream. Without a running one the update goes on all the same.

use super::health::places;
use super::progress::Progress;
use super::remote::{self, Failure, Interrupt};
use crate::app;
use crate::device::health;
use crate::device::update::{Lock, Pending, Stage, UpdateError, Updates, Wanted};
use clap::Args;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Arguments {
    /// The bundle: a file's path, or http://... or https://...
    #[arg(value_name = "FILE|URL", required_unless_present = "stick")]
    bundle: Option<String>,
    /// Instead of a bundle: the folder where a USB stick is mounted. Takes the first vedette-*.raucb at its top that is for this
    /// device and was never taken from a stick before.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["bundle", "sha256", "version", "ca_file"])]
    stick: Option<PathBuf>,
    /// What its SHA-256 must be, 64 hexadecimal digits. Its signature is looked at in any case.
    #[arg(long, value_name = "DIGITS", value_parser = sha256)]
    sha256: Option<String>,
    /// Which version it must be.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Certificate authorities (PEM) for https://, beside the system's own. Default: [update] ca_file of the configuration.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Do not reboot; the next start takes the new slot.
    #[arg(long)]
    no_reboot: bool,
    /// The configuration. Default: /data/vedette/vedette.toml, where an image has it, or /etc/vedette/vedette.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where vedette keeps its data. Default: /data/vedette, where an image has it, or what the configuration says.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

fn sha256(text: &str) -> Result<String, String> {
    match text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(text.to_owned()),
        false => Err("must be 64 hexadecimal digits, as sha256sum shows them".into()),
    }
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    remote::run(update(arguments))
}

#[allow(clippy::print_stdout, reason = "the answer to the command")]
async fn update(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { bundle, stick, sha256, version, ca_file, no_reboot, config, data_dir } = arguments;
    let (config, data_dir) = places(config, data_dir)?;
    let updates = Updates::new(&data_dir);
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let mut interrupt = Interrupt::new()?;
    let lock = updates.lock().map_err(|error| failed(&error))?;
    if !health::is_kept(&data_dir) {
        return Err(failed(&UpdateError::OnTrial));
    }
    let wanted = match bundle {
        Some(bundle) => Wanted { sha256, version, no_reboot, ..of(bundle, ca_file, &config)? },
        None => Wanted::default(),
    };
    // A stick's are looked at first, whether there is a new one at all.
    if stick.is_none() && updates.make_way(&lock).map_err(|error| failed(&error))? {
        // Perhaps nobody runs who could tell it.
        let _ = app::tell_failed(&data_dir);
    }
    let mut progress = Progress::new();
    let is_stick = stick.is_some();
    let mut tell = |text: String| match is_stick {
        // Nobody sits there; what is printed is for the journal and the console.
        true => println!("{text}"),
        // What is more than progress stays.
        false if text.starts_with("WARNING") => eprintln!("vedette: {text}"),
        false => progress.tell(|| text),
    };
    let outcome = {
        let mut work = pin!(async {
            let pending = match stick {
                Some(folder) => updates.install_from_stick(&lock, &folder, &mut tell).await?,
                None => Some(install(&updates, &lock, wanted.clone(), &mut tell).await?),
            };
            let Some(pending) = pending else { return Ok(None) };
            keep_what_works(&data_dir).await;
            updates.reboot(&pending, &mut tell).await.map(|()| Some(pending.wanted))
        });
        loop {
            tokio::select! {
                outcome = &mut work => break outcome.map_err(Ended::By),
                () = interrupt.received() => match updates.pending().map(|pending| pending.stage) {
                    // RAUC is at it, and would go on without us: the next start would take what nobody knows of.
                    Some(Stage::Installing | Stage::Rebooting) => {
                        eprintln!("vedette: it is being installed, which goes on to its end");
                    }
                    _ => break Err(Ended::Interrupted),
                },
            }
        }
    };
    progress.hide();
    match outcome {
        Ok(Some(wanted)) => {
            let next = if no_reboot { "the next start takes it" } else { "the device reboots now" };
            println!("{} is installed into the other slot; {next}. It is kept if it is found healthy.", wanted.name());
            Ok(())
        }
        Ok(None) => {
            println!("there is nothing new on this stick");
            Ok(())
        }
        // How it comes up is found out whenever that is.
        Err(Ended::By(error @ UpdateError::Reboot(_))) => Err(failed(&error)),
        // Whoever is at it, it is his.
        Err(Ended::By(error @ UpdateError::Busy)) => Err(failed(&error)),
        // The stick was pulled out, or the machine goes down: it is begun anew, so what it left goes. What a command left does not.
        Err(why @ Ended::Interrupted) if is_stick => {
            let left = updates.pending().is_some_and(|pending| pending.wanted.is_on_stick);
            match if left { updates.forget() } else { Ok(()) } {
                Ok(()) => Err(failed(&why)),
                Err(error) => Err(Failure::failed(format!("{why}; but {error}"))),
            }
        }
        Err(why) => {
            let why = why.to_string();
            // The stick's own is noted already.
            let kept = match is_stick {
                true => Ok(()),
                false => updates.end(&wanted, Err(why.clone())).and(updates.note_failed_here(&why, false)),
            };
            // Perhaps nobody runs who could tell it.
            let _ = app::tell_failed(&data_dir);
            Err(match kept {
                Ok(()) => Failure::failed(why),
                Err(error) => Failure::failed(format!("{why}; and that it ended so cannot be kept: {error}")),
            })
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    By(UpdateError),
    #[error("interrupted; what runs is as it was")]
    Interrupted,
}

/// What was said on the command line, so that a service in another folder understands it.
fn of(bundle: String, ca_file: Option<PathBuf>, config: &Path) -> Result<Wanted, Failure> {
    let wanted = Wanted { bundle, ..Wanted::default() };
    if wanted.is_url().map_err(|error| Failure::failed(error.to_string()))? {
        let ca_file = match ca_file {
            Some(file) => Some(file),
            None => app::update_ca_file(config).map_err(|faults| Failure::Wrong(faults.to_string()))?,
        };
        return Ok(Wanted { ca_file, ..wanted });
    }
    let bundle = &wanted.bundle;
    match std::fs::canonicalize(bundle) {
        Ok(path) => Ok(Wanted { bundle: path.display().to_string(), ..Wanted::default() }),
        Err(error) => Err(Failure::failed(format!("cannot read the bundle {bundle:?}: {error}"))),
    }
}

async fn install(
    updates: &Updates,
    lock: &Lock,
    wanted: Wanted,
    tell: &mut (dyn FnMut(String) + Send),
) -> Result<Pending, UpdateError> {
    let mut pending = updates.begin(wanted);
    updates.install(lock, &mut pending, tell).await?;
    Ok(pending)
}

/// In the last moment before the new slot: what is gone by now is not its fault.
async fn keep_what_works(data_dir: &Path) {
    let asked = data_dir.to_owned();
    let present = tokio::task::spawn_blocking(move || app::ask_for_health(&asked)).await;
    let kept = match present {
        Ok(Ok(present)) => present.save(data_dir).map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = kept {
        eprintln!("vedette: the update will be judged by what was known before: {error}");
    }
}
