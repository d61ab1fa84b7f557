//! `vedette import`: the configuration that collects the variables below a node, ready to paste.
//!
//! Nodes are written with the URI of their namespace, which stays when indices change. Tags get the names that a rule of
//! `[[ua_client]]` would give them.

use super::glob::Glob;
use super::remote::{self, Failure, Output, Server, Walk};
use super::show;
use crate::opcua::client::{Child, Connection, children, distinct, segment};
use opcua::types::{NodeClass, NodeId, ReferenceTypeId};
use std::collections::HashSet;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Whose variables are wanted: a NodeId (ns=2;s=Line1) or a browse path (/Objects/2:Line 1).
    #[arg(value_name = "PATH")]
    path: String,
    /// How many levels. Default: all of them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    depth: Option<u16>,
    /// Only variables whose name, NodeId or dotted path fits, as in '*.Temp*'; * is any text, ? any character.
    #[arg(long, value_name = "PATTERN")]
    filter: Option<Glob>,
    /// The name of the table, and so the folder of its tags.
    #[arg(long, value_name = "NAME", default_value = "imported")]
    name: String,
    /// Also properties, such as EURange and EngineeringUnits.
    #[arg(long)]
    properties: bool,
    /// Fail if there are more variables than this.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    at_most: usize,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(async {
        let access = arguments.server.access()?;
        remote::with(&access, async |connection| import(connection, arguments).await).await
    })
}

async fn import(connection: &Connection, arguments: &Arguments) -> Result<(), Failure> {
    let mut output = Output::new(false);
    let start = remote::resolve_one(connection, &arguments.path).await?;
    let below = match connection.browse(&[children(start.clone())]).await?.pop() {
        Some(Err(status)) => return Err(Failure::failed(remote::of_node(&arguments.path, status))),
        below => below.and_then(Result::ok).unwrap_or_default(),
    };
    let depth = arguments.depth.map_or(usize::MAX, usize::from);
    let mut walk = Walk::new(connection, String::new(), below, depth);
    let (mut paths, mut nodes) = (Vec::new(), Vec::new());
    let mut seen: HashSet<NodeId> = HashSet::new();
    let mut count = 0_u64;
    while let Some(found) = walk.next().await? {
        count += 1;
        output.progress.tell(|| format!("{count} nodes, {} variables, {}", nodes.len(), found.path));
        let way: Vec<String> = found.way.iter().map(|name| segment(name)).collect();
        let is_wanted = found.child.class == NodeClass::Variable
            && (arguments.properties || !is_property(&found.child))
            && arguments.filter.as_ref().is_none_or(|filter| found.fits(filter));
        // A node that is found again on another way is one tag.
        if is_wanted && seen.insert(found.child.node.clone()) {
            paths.push(way.join("/"));
            nodes.push(connection.namespaces().write(&found.child.node));
        }
        if nodes.len() > arguments.at_most {
            let most = arguments.at_most;
            let what = format!("there are more than {most} variables below {}", arguments.path);
            return Err(Failure::failed(format!("{what}: narrow it with --filter or --depth, or raise --at-most")));
        }
    }
    if nodes.is_empty() {
        return Err(Failure::failed(format!("no variable below {} fits", arguments.path)));
    }
    let (policy, mode) = arguments.server.security();
    output.line(&format!("[[ua_client]]\nname = {}\nurl = {}", text(&arguments.name), text(arguments.server.url())))?;
    for (key, value) in [("security_policy", policy), ("security_mode", mode)] {
        if value != "best" {
            output.line(&format!("{key} = {}", text(value)))?;
        }
    }
    if let Some(user) = arguments.server.user_name() {
        output.line(&format!(
            "user = {}\n# password_file = \"/etc/vedette/{}.password\"",
            text(user),
            segment(&arguments.name)
        ))?;
    }
    for (name, node) in distinct(paths).iter().zip(&nodes) {
        output.line(&format!("\n[[ua_client.tag]]\nname = {}\nnode = {}", text(name), text(node)))?;
    }
    Ok(())
}

fn is_property(child: &Child) -> bool {
    child.reference == ReferenceTypeId::HasProperty
}

/// A TOML string. JSON's escapes are among TOML's, but TOML wants DEL escaped as well, which is.
fn text(text: &str) -> String {
    show::escaped(&serde_json::Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_a_string_of_toml() {
        for odd in ["a\"b\\c", "tab\tnewline\n", "\u{7f}\u{1}", "\u{9b}2J\u{202e}", "ü°"] {
            let line = format!("x = {}", text(odd));
            assert!(!line.contains(['\u{7f}', '\u{9b}', '\u{202e}']), "{line}");
            let table: toml::Table = toml::from_str(&line).unwrap();
            assert_eq!(table["x"].as_str(), Some(odd));
        }
    }
}
