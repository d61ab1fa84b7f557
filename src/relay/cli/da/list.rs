//! `vedette-da-relay list`: DA servers of this PC.

use super::output::{Failed, line, note};
use crate::base::selection::is_like;
use crate::relay::com::catalog::{self, Home, Listed};
use crate::relay::hresults;
use serde_json::json;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only those whose ProgID or description fits, as in '*Simulation*'.
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failed> {
    let catalog = catalog::list();
    let fits = |listed: &&Listed| {
        let Some(pattern) = arguments.pattern.as_ref().map(|pattern| pattern.to_lowercase()) else { return true };
        [&listed.prog_id, &listed.description, &listed.clsid].iter().any(|text| is_like(&pattern, &text.to_lowercase()))
    };
    let shown: Vec<&Listed> = catalog.servers.iter().filter(fits).collect();
    for listed in &shown {
        match arguments.json {
            true => line(&object(listed).to_string())?,
            false => {
                line(&format!("{}  {}  {}", name(listed), versions(listed), homes(listed)))?;
                line(&format!("    {}  {}", listed.clsid, listed.description))?;
            }
        }
    }
    if shown.is_empty() {
        note(if catalog.servers.is_empty() { "there are no DA servers on this PC" } else { "none fits" });
    }
    if let Some(failure) = catalog.opc_enum.filter(|_| !arguments.json) {
        let why = hresults::name(failure.hresult);
        note(&format!("OPCEnum cannot be asked ({}: {why}); this is from the registry", failure.call));
    }
    Ok(())
}

fn name(listed: &Listed) -> &str {
    if listed.prog_id.is_empty() { "(no ProgID)" } else { &listed.prog_id }
}

/// `DA 2, 3`
fn versions(listed: &Listed) -> String {
    let known: Vec<String> =
        listed.versions.iter().zip(1..).filter(|(has, _)| **has).map(|(_, version)| version.to_string()).collect();
    format!("DA {}", known.join(", "))
}

/// `32-bit DLL`, `program`, `service`: a program's bitness is not the registry's to know, nor ours to care about.
fn homes(listed: &Listed) -> String {
    let mut all: Vec<String> = Vec::new();
    for home in &listed.homes {
        let text = match home {
            Home { is_inside: true, view, .. } => format!("{}-bit DLL", view.bits()),
            Home { is_service: true, .. } => "service".into(),
            Home { .. } => "program".into(),
        };
        if !all.contains(&text) {
            all.push(text);
        }
    }
    if all.is_empty() { "not registered with a program".into() } else { all.join(", ") }
}

fn object(listed: &Listed) -> serde_json::Value {
    let homes = listed.homes.iter().map(|home| {
        json!({
            "view": home.view.bits(),
            "kind": if home.is_inside { "dll" } else if home.is_service { "service" } else { "program" },
            "program": home.program,
        })
    });
    json!({
        "progId": listed.prog_id,
        "clsid": listed.clsid,
        "description": listed.description,
        "da1": listed.versions[0],
        "da2": listed.versions[1],
        "da3": listed.versions[2],
        "homes": homes.collect::<Vec<_>>(),
    })
}
