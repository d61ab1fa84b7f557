//! `vedette update`: other firmware, from a file (on a stick, say) or by HTTP (`device::update`).

use super::health::places;
use super::progress::Progress;
use super::remote::{self, Failure, Interrupt};
use crate::device::update::{Updates, Wanted};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Arguments {
    /// The bundle: a file's path, or http://... or https://...
    #[arg(value_name = "FILE|URL")]
    bundle: String,
    /// What its SHA-256 must be, 64 hexadecimal digits. Its signature is looked at in any case.
    #[arg(long, value_name = "DIGITS", value_parser = sha256)]
    sha256: Option<String>,
    /// Which version it must be.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Do not reboot; the next start takes the new slot.
    #[arg(long)]
    no_reboot: bool,
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
    let Arguments { bundle, sha256, version, no_reboot, data_dir } = arguments;
    let (_, data_dir) = places(None, data_dir)?;
    let updates = Updates::new(&data_dir);
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let mut interrupt = Interrupt::new()?;
    let lock = updates.lock().map_err(|error| failed(&error))?;
    // It is read by a service that stands in another folder.
    let bundle = match bundle.contains("://") {
        true => bundle,
        false => match std::fs::canonicalize(&bundle) {
            Ok(path) => path.display().to_string(),
            Err(error) => return Err(failed(&format!("cannot read the bundle {bundle:?}: {error}"))),
        },
    };
    let wanted = Wanted { bundle, sha256, version, id: None, address: None, no_reboot };
    let mut progress = Progress::new();
    let pending = updates.begin(wanted.clone());
    let mut tell = |text: String| progress.tell(|| text);
    let outcome = tokio::select! {
        outcome = updates.work(&lock, pending, &mut tell) => outcome.map_err(|error| error.to_string()),
        () = interrupt.received() => Err("interrupted; what runs is as it was".into()),
    };
    progress.hide();
    if let Err(why) = outcome {
        updates.end(&wanted, Err(why.clone())).map_err(|error| failed(&error))?;
        return Err(Failure::failed(why));
    }
    let next = if no_reboot { "the next start takes it" } else { "the device reboots now" };
    println!("{} is installed into the other slot; {next}. It is kept if it is found healthy.", wanted.name());
    Ok(())
}
