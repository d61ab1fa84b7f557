//! `vedette write`: a value, typed in, as the node wants it.

use super::remote::{self, About, Failure, Output, Reading, Server, about};
use super::show::{self, Much};
use super::typed::Wanted;
use crate::model::{DataType, Status};
use crate::opcua::client::Connection;
use crate::opcua::variant;
use opcua::types::{AttributeId, DataValue, NodeId, ReadValueId, StatusCode, WriteValue};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// A NodeId (ns=2;s=Speed) or a browse path (/Objects/2:Line 1/Speed).
    #[arg(value_name = "NODE")]
    node: String,
    /// The value: 12.5, true, a text, 2026-11-21T14:30:00Z, hex:01ff or @FILE for bytes, the name of an enumeration's value,
    /// and JSON for arrays, [1, 2, 3].
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: String,
    /// Send this type (Double, Int16...) instead of the node's.
    #[arg(long = "type", value_name = "TYPE", value_parser = data_type)]
    data_type: Option<DataType>,
    /// For scripts: one JSON object.
    #[arg(long)]
    json: bool,
}

fn data_type(text: &str) -> Result<DataType, String> {
    let found = DataType::ALL.iter().find(|data_type| data_type.name().eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| format!("there are {}", show::type_names()))
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(async {
        let access = arguments.server.access()?;
        remote::with(&access, async |connection| write(connection, arguments).await).await
    })
}

async fn write(connection: &Connection, arguments: &Arguments) -> Result<(), Failure> {
    let mut output = Output::new(arguments.json);
    let node = remote::resolve_one(connection, &arguments.node).await?;
    let about = about(connection, std::slice::from_ref(&node)).await?.pop().unwrap_or_default();
    let wanted = wanted(connection, arguments, &node, &about).await?;
    let value = wanted.parse(&arguments.value).map_err(Failure::Wrong)?;
    let request = WriteValue {
        node_id: node.clone(),
        attribute_id: AttributeId::Value as u32,
        value: DataValue { value: Some(variant(&value)), ..DataValue::default() },
        ..Default::default()
    };
    let status = connection.write(vec![request]).await?.pop().unwrap_or_default();
    let (shown, sent) = (show::value(&value, Much::LINE), show::data_type(&value));
    if output.is_json {
        output.json(&json!({
            "node": arguments.node,
            "nodeId": node.to_string(),
            "value": show::json(&value),
            "type": sent,
            "status": show::status(Status(status.bits())),
        }))?;
        return if status.is_bad() { Err(Failure::Said) } else { Ok(()) };
    }
    if status.is_bad() {
        let taken =
            if about.type_name.is_empty() { String::new() } else { format!("; the node takes {}", about.type_name) };
        let refused = remote::of_node(&arguments.node, status);
        return Err(Failure::failed(format!("{refused} (sent was {shown} as {sent}{taken})")));
    }
    let unit = about.unit.map_or(String::new(), |unit| format!(" {unit}"));
    output.line(&format!("{} = {shown}{unit}  {}  {sent}", arguments.node, show::status(Status(status.bits()))))
}

/// What the node takes; of one that takes anything, what it holds now.
async fn wanted(
    connection: &Connection,
    arguments: &Arguments,
    node: &NodeId,
    about: &About,
) -> Result<Wanted, Failure> {
    let (rank, names) = (about.rank, about.names.clone());
    match (arguments.data_type, about.built_in) {
        (Some(data_type), _) => Ok(Wanted { data_type, rank, names: Vec::new() }),
        (None, Some(data_type)) => Ok(Wanted { data_type, rank, names }),
        (None, None) => {
            let value =
                ReadValueId { node_id: node.clone(), attribute_id: AttributeId::Value as u32, ..Default::default() };
            let found = connection.read(&[value], Duration::ZERO).await?;
            let now = found.first().map(Reading::from);
            let data_type = now.as_ref().and_then(|now| now.value.data_type());
            let status = now.map_or(0, |now| now.status.0);
            match data_type {
                Some(data_type) => Ok(Wanted { data_type, rank, names }),
                None if about.type_name.is_empty() && status != 0 => {
                    Err(Failure::failed(remote::of_node(&arguments.node, StatusCode::from(status))))
                }
                None => {
                    let what = format!("{} takes any {} and holds none now", arguments.node, about.type_name);
                    Err(Failure::failed(format!("{what}: say which type to send with --type")))
                }
            }
        }
    }
}
