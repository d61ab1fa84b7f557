//! `vedette-da-relay browse`: what is in a DA server's address space, printed while it comes in.

use super::Target;
use super::output::{Failed, line, note, refuse};
use super::walk::{self, Found};
use crate::relay::com::Connection;
use crate::relay::protocol::{Branch, Property};
use crate::relay::{hresults, show};
use serde_json::{Value as Json, json};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// A branch to begin at (Line 1/Pumps, Line 1.Pumps), or, with * and ?, which items are meant anywhere: '*.Temp*'.
    #[arg(value_name = "BRANCH|PATTERN")]
    place: Option<String>,
    /// Everything below, not one level. A pattern does that by itself.
    #[arg(short, long)]
    recursive: bool,
    /// How many levels.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    depth: Option<u16>,
    /// The ItemIDs of all items, one a line, and nothing else.
    #[arg(short, long)]
    flat: bool,
    /// With all properties of the items.
    #[arg(short, long)]
    properties: bool,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut connection = arguments.target.open()?;
    let pattern = arguments.place.as_deref().filter(|place| walk::is_pattern(place));
    let branch = match &arguments.place {
        Some(place) if pattern.is_none() => walk::branch(&mut connection, place)?,
        _ => Branch::default(),
    };
    let is_deep = arguments.recursive || arguments.flat || pattern.is_some();
    let depth = arguments.depth.map_or(if is_deep { usize::MAX } else { 1 }, usize::from);
    let (mut count, mut shown) = (0_u64, 0_u64);
    let mut see = |connection: &mut Connection, found: &Found<'_>| {
        count += 1;
        let is_wanted = pattern.is_none_or(|pattern| found.fits(pattern));
        if is_wanted && !((arguments.flat || pattern.is_some()) && !found.entry.is_item) {
            shown += 1;
            print(connection, arguments, found, branch.names.len(), pattern.is_some())?;
        }
        Ok(())
    };
    let mut is_whole = true;
    if depth == 1 && !arguments.properties {
        // As it comes in: nothing else is asked of the server meanwhile.
        stream(&mut connection, &branch, arguments, &mut shown)?;
        count = shown;
    } else {
        is_whole = walk::walk(&mut connection, &branch, depth, &mut see)?;
    }
    if shown == 0 {
        note(&match pattern {
            Some(pattern) => format!("none of {count} fits {pattern}"),
            None => "there is nothing here".into(),
        });
    }
    // What is missing was said.
    if is_whole { Ok(()) } else { Err(Failed::Said) }
}

fn stream(connection: &mut Connection, branch: &Branch, arguments: &Arguments, shown: &mut u64) -> Result<(), Failed> {
    let mut done = Ok(());
    connection.browse(branch, &mut |entries| {
        for entry in &entries {
            let names: Vec<String> = branch.names.iter().chain([&entry.name]).cloned().collect();
            *shown += 1;
            let found = Found { entry, names: &names };
            done = line(&if arguments.json { object(&found).to_string() } else { text(&found, 0) });
            if done.is_err() {
                return false;
            }
        }
        true
    })?;
    done
}

fn print(
    connection: &Connection,
    arguments: &Arguments,
    found: &Found<'_>,
    top: usize,
    is_list: bool,
) -> Result<(), Failed> {
    let item_id = found.entry.item_id.as_ref().filter(|_| found.entry.is_item && arguments.properties);
    let properties = match item_id {
        Some(item_id) => connection.item_properties(std::slice::from_ref(item_id), None)?.pop(),
        None => None,
    };
    if arguments.json {
        let mut object = object(found);
        if let Some(Ok(properties)) = &properties {
            object["properties"] = Json::Array(properties.iter().map(property_json).collect());
        }
        return line(&object.to_string());
    }
    let indent = if is_list { 0 } else { found.names.len() - top - 1 };
    if arguments.flat || is_list {
        line(found.entry.item_id.as_deref().unwrap_or(&found.entry.name))?;
    } else {
        line(&text(found, indent))?;
    }
    match properties {
        Some(Ok(properties)) => {
            for property in properties {
                line(&format!("{}    {}", "  ".repeat(indent), property_text(&property)))?;
            }
            Ok(())
        }
        Some(Err(error)) => refuse(&found.path(), error, false),
        None => Ok(()),
    }
}

/// `Pumps/` is a branch, `Speed  Line1.Speed` an item; one that is both has both.
fn text(found: &Found<'_>, indent: usize) -> String {
    let entry = found.entry;
    let branch = if entry.is_branch { "/" } else { "" };
    let item = match &entry.item_id {
        Some(item_id) if entry.is_item => format!("  {item_id}"),
        None if entry.is_item => "  (the server does not say its ItemID)".into(),
        _ => String::new(),
    };
    format!("{}{}{branch}{item}", "  ".repeat(indent), entry.name)
}

fn object(found: &Found<'_>) -> Json {
    let entry = found.entry;
    json!({
        "path": found.path(),
        "name": entry.name,
        "itemId": entry.item_id,
        "branch": entry.is_branch,
        "item": entry.is_item,
        "depth": found.names.len(),
    })
}

/// `101 Item Description = "Boiler"`
fn property_text(property: &Property) -> String {
    let value = match &property.value {
        Ok(value) => show::value(value),
        Err(error) => hresults::name(*error).into_owned(),
    };
    format!("{} {} = {value}", property.id, property.description)
}

fn property_json(property: &Property) -> Json {
    let mut object = json!({
        "id": property.id,
        "description": property.description,
        "type": show::data_type(property.data_type),
    });
    match &property.value {
        Ok(value) => object["value"] = show::json(value),
        Err(error) => object["error"] = json!(hresults::name(*error)),
    }
    object
}
