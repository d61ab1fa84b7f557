//! `vedette provision`: what an image runs before anything else (`device::provision`). Ends well whatever it finds: the device must
//! come up.

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
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { boot, data, run, host_name, root } = arguments;
    let check = |path: &Path, text: &str| {
        app::check_text(path, text).map_err(|faults| faults.0.iter().map(ToString::to_string).collect())
    };
    for line in provision::run(&Places { boot, data, run, host_name, root }, &check) {
        eprintln!("vedette: provision: {line}");
    }
    ExitCode::SUCCESS
}
