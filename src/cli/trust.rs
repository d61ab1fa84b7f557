//! `vedette trust`: which clients and CAs the UA server trusts, and which it turned away.

use crate::app;
use crate::model::Timestamp;
use crate::opcua::trust::admin::{self, AdminError, Entry, Listing};
use std::fmt::Write as _;
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
        (None, _) => admin::list(&pki).map(|listing| describe(&listing)),
        (Some(thumbprint), false) => admin::trust(&pki, thumbprint).map(|entry| said("Trusted", &entry)),
        (Some(thumbprint), true) => admin::distrust(&pki, thumbprint).map(|entry| said("No longer trusted", &entry)),
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

fn said(what: &str, entry: &Entry) -> String {
    let certificate = &entry.certificate;
    format!("{what}: {} {}\n{}\n", certificate.thumbprint(), certificate.title(), entry.file.display())
}

fn describe(listing: &Listing) -> String {
    let mut text = String::new();
    let folders = [
        ("Turned away; `vedette trust THUMBPRINT` lets one in", &listing.rejected),
        ("Trusted; `vedette trust --remove THUMBPRINT` ends that", &listing.trusted),
    ];
    for (title, entries) in folders {
        // Writing to a String cannot fail.
        let _ = match entries.is_empty() {
            true => writeln!(text, "{}: none", title.split(';').next().unwrap_or(title)),
            false => writeln!(text, "{title}:"),
        };
        for entry in entries {
            let _ = describe_entry(&mut text, entry);
        }
    }
    for fault in &listing.faults {
        let _ = writeln!(text, "Broken: {fault}");
    }
    text
}

fn describe_entry(text: &mut String, Entry { certificate, since, .. }: &Entry) -> std::fmt::Result {
    let kind = if certificate.is_authority() { "  (a CA: all its clients)" } else { "" };
    writeln!(text, "  {}{kind}", certificate.thumbprint())?;
    writeln!(text, "      subject         {}", certificate.title())?;
    if !certificate.is_self_issued() {
        writeln!(text, "      issued by       {}", certificate.issuer_title())?;
    }
    writeln!(text, "      ApplicationUri  {}", certificate.application_uri().unwrap_or("none"))?;
    let (from, until) = (Timestamp::from(certificate.not_before()), Timestamp::from(certificate.not_after()));
    writeln!(text, "      valid           {from} to {until}")?;
    writeln!(text, "      here since      {}", Timestamp::from(*since))
}
