//! `vedette trust`: which clients and CAs the UA server trusts, and which it turned away.

use crate::app;
use crate::opcua::trust::admin::{self, AdminError};
use crate::opcua::trust::program;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The certificate to trust, by its thumbprint or the beginning of it. Without one: list what there is.
    thumbprint: Option<String>,
    /// Trust it no longer; its connections end within seconds.
    #[arg(long, requires = "thumbprint")]
    remove: bool,
    /// The configuration file, which knows the data folder.
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_CONFIG)]
    config: PathBuf,
    /// Where the server keeps its data, instead of [device] data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let pki = match app::pki(&arguments.config, arguments.data_dir.as_deref()) {
        Ok(pki) => pki,
        Err(faults) => return super::complain(super::WRONG, &faults.to_string()),
    };
    let answer = match (&arguments.thumbprint, arguments.remove) {
        (None, _) => admin::list(&pki).map(|listing| listing.describe(&program())),
        (Some(thumbprint), false) => admin::trust(&pki, thumbprint).map(|entry| entry.said("Trusted")),
        (Some(thumbprint), true) => admin::distrust(&pki, thumbprint).map(|entry| entry.said("No longer trusted")),
    };
    match answer {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                super::complain(super::FAILED, &error.to_string())
            }
            _ => ExitCode::SUCCESS,
        },
        Err(error @ AdminError::NoThumbprint(_)) => super::complain(super::WRONG, &error.to_string()),
        Err(error) => super::complain(super::FAILED, &error.to_string()),
    }
}
