//! `vedette read`: values with quality, time and type.

use super::remote::{self, About, Failure, Output, Reading, Server, about};
use super::show::{self, Much};
use crate::model::Value;
use crate::opcua::client::Connection;
use opcua::types::{AttributeId, NodeId, ReadValueId, StatusCode};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// NodeIds (ns=2;s=Speed, nsu=urn:plant;s=Speed, i=2258) or browse paths (/Objects/2:Line 1/Speed).
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
    /// Long texts and arrays as a whole.
    #[arg(long)]
    full: bool,
    /// Write the bytes of the one ByteString that is read to this file; "-" is the standard output.
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    output: Option<PathBuf>,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.output.is_some() && arguments.nodes.len() > 1 {
        return super::complain(super::WRONG, "--output takes the bytes of one node");
    }
    remote::run(async {
        let access = arguments.server.access()?;
        remote::with(&access, async |connection| read(connection, arguments).await).await
    })
}

async fn read(connection: &Connection, arguments: &Arguments) -> Result<(), Failure> {
    let mut output = Output::new(arguments.json);
    let found = remote::resolve(connection, &arguments.nodes).await?;
    let known: Vec<NodeId> = found.iter().flatten().cloned().collect();
    let value = |node: &NodeId| ReadValueId {
        node_id: node.clone(),
        attribute_id: AttributeId::Value as u32,
        ..Default::default()
    };
    let wanted: Vec<ReadValueId> = known.iter().map(value).collect();
    let mut readings = connection.read(&wanted, Duration::ZERO).await?.into_iter();
    let mut abouts = about(connection, &known).await?.into_iter();
    let mut is_all = true;
    for (written, node) in arguments.nodes.iter().zip(found) {
        let (node, reading) = match node {
            Ok(node) => (node, readings.next().as_ref().map(Reading::from)),
            Err(status) => {
                is_all = false;
                refuse(&mut output, written, status)?;
                continue;
            }
        };
        let about = abouts.next().unwrap_or_default();
        let Some(reading) = reading else { continue };
        if reading.value == Value::Empty && reading.status.is_bad() {
            is_all = false;
            refuse(&mut output, written, StatusCode::from(reading.status.0))?;
            continue;
        }
        if let Some(file) = &arguments.output {
            return save(&mut output, written, &reading, file);
        }
        match output.is_json {
            true => output.json(&object(written, &node, &reading, &about))?,
            false => output.line(&line(written, &reading, &about, arguments.full))?,
        }
    }
    if is_all { Ok(()) } else { Err(Failure::Said) }
}

/// One of many; the others are read all the same.
fn refuse(output: &mut Output, written: &str, status: StatusCode) -> Result<(), Failure> {
    match output.is_json {
        true => output.json(&json!({
            "node": written,
            "status": show::status(crate::model::Status(status.bits())),
            "meaning": remote::meaning(status),
        })),
        false => {
            output.note(&remote::of_node(written, status));
            Ok(())
        }
    }
}

/// `Speed = 1500.2 rpm  Good  2026-11-21T14:30:00.000Z  Double`
fn line(written: &str, reading: &Reading, about: &About, is_full: bool) -> String {
    let much = if is_full { Much::ALL } else { Much::LINE };
    let time = reading.source_time.or(reading.server_time).map_or("no time".into(), |time| time.to_string());
    let value = value(reading, about, much);
    let data_type = data_type(reading, about);
    format!("{written} = {value}  {}  {time}  {data_type}", show::status(reading.status))
}

/// With unit, or with the name of an enumeration's number.
pub(super) fn value(reading: &Reading, about: &About, much: Much) -> String {
    let mut text = show::value(&reading.value, much);
    if let Some(name) = name(reading, about) {
        text += &format!(" ({})", show::printable(name));
    }
    if let Some(unit) = &about.unit {
        text += &format!(" {unit}");
    }
    text
}

fn name<'a>(reading: &Reading, about: &'a About) -> Option<&'a str> {
    let Value::Int32(number) = reading.value else { return None };
    about.names.iter().find(|(known, _)| *known == i64::from(number)).map(|(_, name)| name.as_str())
}

/// That of the value, and what the server calls it where that is another name.
fn data_type(reading: &Reading, about: &About) -> String {
    let sent = show::data_type(&reading.value);
    let is_same = about.type_name.is_empty() || sent.split('[').next() == Some(&about.type_name);
    if is_same { sent } else { format!("{sent} ({})", about.type_name) }
}

pub(super) fn object(written: &str, node: &NodeId, reading: &Reading, about: &About) -> Json {
    let mut object = json!({
        "node": written,
        "nodeId": node.to_string(),
        "value": show::json(&reading.value),
        "type": show::data_type(&reading.value),
        "status": show::status(reading.status),
        "sourceTime": reading.source_time.map(show::time),
        "serverTime": reading.server_time.map(show::time),
    });
    if !about.type_name.is_empty() {
        object["dataType"] = json!(about.type_name);
    }
    if let Some(unit) = &about.unit {
        object["unit"] = json!(unit);
    }
    if let Some(name) = name(reading, about) {
        object["name"] = json!(name);
    }
    object
}

fn save(output: &mut Output, written: &str, reading: &Reading, file: &Path) -> Result<(), Failure> {
    let Value::ByteString(Some(bytes)) = &reading.value else {
        let data_type = show::data_type(&reading.value);
        return Err(Failure::failed(format!("{written} is {data_type}; --output writes the bytes of a ByteString")));
    };
    if file.as_os_str() == "-" {
        use std::io::Write as _;
        let mut stdout = std::io::stdout().lock();
        return Ok(stdout.write_all(bytes).and_then(|()| stdout.flush())?);
    }
    let failed = |error| Failure::failed(format!("cannot write {}: {error}", file.display()));
    std::fs::write(file, bytes).map_err(failed)?;
    output.line(&format!("{}: {}", file.display(), show::value(&reading.value, Much { elements: 0, characters: 0 })))
}
