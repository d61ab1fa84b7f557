//! `vedette-da-relay info`: what a DA server is, how it is and what it can do.

use super::Target;
use super::output::{Failed, line};
use crate::relay::protocol::{Capabilities, ServerStatus};
use crate::relay::show;
use serde_json::json;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// For scripts: one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failed> {
    let connection = arguments.target.open()?;
    let (can, status) = (connection.capabilities(), connection.status()?);
    let (major, minor, build) = status.version;
    if arguments.json {
        let object = json!({
            "clsid": can.clsid,
            "progId": can.prog_id,
            "vendor": status.vendor,
            "version": format!("{major}.{minor}.{build}"),
            "state": state(status.state),
            "start": show::time(status.start),
            "current": show::time(status.current),
            "lastUpdate": show::time(status.last_update),
            "groups": status.groups,
            "bandwidth": status.bandwidth,
            "browse": can.browse2,
            "browse3": can.browse3,
            "properties": can.properties,
            "itemIo": can.item_io,
        });
        return line(&object.to_string());
    }
    print(&can, &status)
}

fn print(can: &Capabilities, status: &ServerStatus) -> Result<(), Failed> {
    let (major, minor, build) = status.version;
    let has = |has: bool, what: &'static str| has.then_some(what);
    let interfaces = [
        has(can.browse2, "browsing (DA 2)"),
        has(can.browse3, "browsing (DA 3)"),
        has(can.properties, "properties"),
        has(can.item_io, "reading without groups (DA 3)"),
    ];
    let interfaces: Vec<&str> = interfaces.into_iter().flatten().collect();
    line(&format!("server     {}  {}", can.prog_id, can.clsid))?;
    line(&format!("vendor     {}", status.vendor))?;
    line(&format!("version    {major}.{minor}.{build}"))?;
    line(&format!("state      {}", state(status.state)))?;
    line(&format!("started    {}", show::time(status.start)))?;
    line(&format!("its clock  {}", show::time(status.current)))?;
    line(&format!("last value {}", show::time(status.last_update)))?;
    line(&format!("groups     {}", status.groups))?;
    line(&format!("bandwidth  {}", bandwidth(status.bandwidth)))?;
    line(&format!("offers     {}", if interfaces.is_empty() { "values only".into() } else { interfaces.join(", ") }))
}

fn bandwidth(percent: u32) -> String {
    if percent == u32::MAX { "unknown".into() } else { format!("{percent} %") }
}

pub fn state(state: u32) -> String {
    match state {
        1 => "running".into(),
        2 => "failed".into(),
        3 => "no configuration".into(),
        4 => "suspended".into(),
        5 => "test".into(),
        6 => "communication fault".into(),
        other => format!("unknown ({other})"),
    }
}
