//! `vedette browse`: what is in a server's address space, as a tree that is printed while it comes in.

use super::glob::Glob;
use super::remote::{self, Below, Failure, Found, Output, Server, Walk};
use super::show::{self, Much};
use crate::opcua::client::{Connection, children};
use opcua::types::NodeClass;
use serde_json::json;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Where to begin: a NodeId (ns=2;s=Line1, i=85) or a browse path (/Objects/2:Line 1).
    #[arg(value_name = "PATH", default_value = "/Objects")]
    path: String,
    /// How many levels. Default: all of them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    depth: Option<u16>,
    /// Only nodes whose name, NodeId or dotted path fits, as in '*.Temp*'; * is any text, ? any character.
    #[arg(long, value_name = "PATTERN")]
    filter: Option<Glob>,
    /// With type and value of the variables.
    #[arg(long)]
    values: bool,
    /// The inside of the Server object as well.
    #[arg(long)]
    all: bool,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(async {
        let access = arguments.server.access()?;
        remote::with(&access, async |connection| browse(connection, arguments).await).await
    })
}

async fn browse(connection: &Connection, arguments: &Arguments) -> Result<(), Failure> {
    let mut output = Output::new(arguments.json);
    let start = remote::resolve_one(connection, &arguments.path).await?;
    let below = connection.browse(&[children(start.clone())]).await?.pop();
    let below = match below {
        Some(Err(status)) => return Err(Failure::failed(remote::of_node(&arguments.path, status))),
        Some(Ok(below)) => below,
        None => Vec::new(),
    };
    let depth = arguments.depth.map_or(usize::MAX, usize::from);
    // A NodeId is no path; below one, paths begin with it.
    let root = arguments.path.trim_end_matches('/').to_owned();
    let mut walk = Walk::new(connection, root, below, depth).all(arguments.all).values(arguments.values);
    let mut tree = Tree { filter: arguments.filter.as_ref(), has_values: arguments.values, way: Vec::new() };
    let (mut count, mut shown) = (0_u64, 0_u64);
    while let Some(found) = walk.next().await? {
        count += 1;
        output.progress.tell(|| format!("{count} nodes, {}", found.path));
        let lines = tree.lines(found, output.is_json);
        shown += u64::from(!lines.is_empty());
        for line in lines {
            output.line(&line)?;
        }
    }
    if shown == 0 {
        output.note(&match &arguments.filter {
            Some(_) => format!("none of {count} nodes below {} fits the filter", arguments.path),
            None => format!("there is nothing below {}", arguments.path),
        });
    }
    Ok(())
}

struct Tree<'a> {
    filter: Option<&'a Glob>,
    has_values: bool,
    /// The nodes from the top to the last one, printed or not.
    way: Vec<(String, bool)>,
}

impl Tree<'_> {
    /// What is printed for a node: nothing, or the way to it as far as it was not printed yet, and itself.
    fn lines(&mut self, found: Found, is_json: bool) -> Vec<String> {
        let is_wanted = self.filter.is_none_or(|filter| found.fits(filter));
        if is_json {
            return if is_wanted { vec![object(&found)] } else { Vec::new() };
        }
        self.way.truncate(found.depth - 1);
        let indent = "  ".repeat(found.depth - 1);
        self.way.push((format!("{indent}{}", self.text(&found)), false));
        if !is_wanted {
            return Vec::new();
        }
        let fresh = self.way.iter_mut().filter(|(_, is_printed)| !is_printed);
        fresh
            .map(|(text, is_printed)| {
                *is_printed = true;
                text.clone()
            })
            .collect()
    }

    fn text(&self, found: &Found) -> String {
        let child = &found.child;
        let mut text = format!("{}  {}", remote::step(&child.name), show::printable(&child.node.to_string()));
        if child.class != NodeClass::Object && !(child.class == NodeClass::Variable && self.has_values) {
            text += &format!("  {:?}", child.class);
        }
        if let Some(reading) = &found.reading {
            text += &format!("  {} = {}", show::data_type(&reading.value), show::value(&reading.value, Much::LINE));
            if !reading.status.is_good() {
                text += &format!("  {}", show::status(reading.status));
            }
        }
        match &found.below {
            Below::Seen => text += "  (see above)",
            Below::Closed => text += "  (closed; --all opens it)",
            Below::Refused(status) => text += &format!("  (cannot be opened: {status})"),
            Below::Open(_) | Below::Deep => {}
        }
        text
    }
}

fn object(found: &Found) -> String {
    let child = &found.child;
    let mut object = json!({
        "path": found.path,
        "nodeId": child.node.to_string(),
        "browseName": child.name.name.to_string(),
        "namespace": child.name.namespace_index,
        "displayName": child.display_name,
        "class": format!("{:?}", child.class),
        "depth": found.depth,
    });
    if let Below::Open(count) = found.below {
        object["children"] = json!(count);
    }
    if let Some(reading) = &found.reading {
        object["type"] = json!(show::data_type(&reading.value));
        object["value"] = show::json(&reading.value);
        object["status"] = json!(show::status(reading.status));
        object["sourceTime"] = json!(reading.source_time.map(show::time));
    }
    object.to_string()
}
