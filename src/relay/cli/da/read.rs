//! `vedette-da-relay read`: items with quality, time and type.

use super::Target;
use super::output::{Failed, line, own_words, refuse_as};
use super::walk;
use crate::relay::com::Io;
use crate::relay::protocol::Origin;
use crate::relay::show;
use serde_json::json;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// ItemIDs; with * and ?, all items that fit.
    #[arg(value_name = "ITEM", required = true)]
    items: Vec<String>,
    /// From the server's cache, not from the device.
    #[arg(long)]
    cache: bool,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut connection = arguments.target.open()?;
    let (items, mut is_all) = walk::items(&mut connection, &arguments.items)?;
    let from = if arguments.cache { Origin::Cache } else { Origin::Device };
    for (item, reading) in items.iter().zip(Io::default().read(&mut connection, &items, from)?) {
        match reading {
            Ok(reading) if arguments.json => {
                let mut object = show::reading_json(&reading);
                object["item"] = json!(item);
                line(&object.to_string())?;
            }
            Ok(reading) => line(&format!("{item} = {}", show::reading(&reading)))?,
            Err(error) => {
                is_all = false;
                refuse_as(item, error, own_words(&connection, error).as_deref(), arguments.json)?;
            }
        }
    }
    if is_all { Ok(()) } else { Err(Failed::Said) }
}
