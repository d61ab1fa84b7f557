//! `vedette provision`: what an image runs before anything else (`device::provision`). Ends well whatever it finds: the device must
//! come up. With --check it is the tool of whoever writes the file, and its exit code says what it found.

use super::{FAILED, WRONG, complain};
use crate::app;
use crate::device::provision::{self, Places};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Arguments {
    /// The boot partition, on which there may be a vedette.toml.
    #[arg(long, value_name = "DIR", default_value = "/boot")]
    boot: PathBuf,
    /// The data partition.
    #[arg(long, value_name = "DIR", default_value = "/data")]
    data: PathBuf,
    /// Where the system looks for network, time servers and open ports.
    #[arg(long, value_name = "DIR", default_value = "/run")]
    run: PathBuf,
    /// The file that takes the host name.
    #[arg(long, value_name = "FILE", default_value = "/proc/sys/kernel/hostname")]
    host_name: PathBuf,
    /// Below which sys/ and etc/ are.
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    /// Say what this vedette.toml would do to a new device, or what is wrong with it, by line; touch nothing.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Only write which ports are open, as the configuration has them now.
    #[arg(long, conflicts_with = "check")]
    ports: bool,
}

#[allow(clippy::print_stdout, reason = "the answer to the command")]
pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { boot, data, run, host_name, root, check: file, ports } = arguments;
    let check = |path: &Path, text: &str| {
        app::check_text(path, text).map_err(|faults| faults.0.iter().map(ToString::to_string).collect())
    };
    if let Some(file) = file {
        return match provision::dry_run(&file, &check) {
            Ok(told) => {
                told.iter().for_each(|line| println!("{line}"));
                println!("{}: good", file.display());
                ExitCode::SUCCESS
            }
            Err(faults) => complain(WRONG, &faults.join("\n")),
        };
    }
    if ports {
        return match provision::write_ports(&Places { boot, data, run, host_name, root }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(FAILED, &format!("the open ports cannot be written: {error}")),
        };
    }
    for line in provision::run(&Places { boot, data, run, host_name, root }, &check) {
        eprintln!("vedette: provision: {line}");
    }
    ExitCode::SUCCESS
}
