//! `vedette import`: the configuration that collects the variables below a node, ready to paste.
//!
//! Nodes are written with the URI of their namespace, which stays when indices change. Browse names may be anything and
//! tags may not: what is not allowed in a tag's name becomes `_`, and of two that come to one name, or to the folder of
//! another, the later one gets a number.

use super::glob::Glob;
use super::remote::{self, Failure, Output, Server, Walk};
use crate::opcua::client::{Child, Connection, children};
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
    let mut tags = Tags::default();
    let mut count = 0_u64;
    while let Some(found) = walk.next().await? {
        count += 1;
        output.progress.tell(|| format!("{count} nodes, {} variables, {}", tags.lines.len(), found.path));
        let way: Vec<String> = found.way.iter().map(|name| segment(name)).collect();
        let is_wanted = found.child.class == NodeClass::Variable
            && (arguments.properties || !is_property(&found.child))
            && arguments.filter.as_ref().is_none_or(|filter| found.fits(filter));
        if is_wanted {
            tags.add(way.join("/"), &found.child.node, connection);
        }
        if tags.lines.len() > arguments.at_most {
            let most = arguments.at_most;
            let what = format!("there are more than {most} variables below {}", arguments.path);
            return Err(Failure::failed(format!("{what}: narrow it with --filter or --depth, or raise --at-most")));
        }
    }
    if tags.lines.is_empty() {
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
    for (name, node) in &tags.lines {
        output.line(&format!("\n[[ua_client.tag]]\nname = {}\nnode = {}", text(name), text(node)))?;
    }
    Ok(())
}

/// Tags with their nodes; no name twice, and none that is a folder of others.
#[derive(Default)]
struct Tags {
    lines: Vec<(String, String)>,
    names: HashSet<String>,
    folders: HashSet<String>,
    nodes: HashSet<NodeId>,
}

impl Tags {
    /// A node that is found again on another way is one tag.
    fn add(&mut self, name: String, node: &NodeId, connection: &Connection) {
        if self.nodes.insert(node.clone()) {
            self.put(name, connection.namespaces().write(node));
        }
    }

    fn put(&mut self, name: String, node: String) {
        let is_taken = |tags: &Self, name: &str| {
            tags.names.contains(name)
                || tags.folders.contains(name)
                || folders(name).any(|folder| tags.names.contains(folder))
        };
        let mut unique = name.clone();
        let mut number = 2;
        while is_taken(self, &unique) {
            // Below a tag there is no folder: the folder gets the number.
            unique = match folders(&name).find(|folder| self.names.contains(*folder)) {
                Some(folder) => format!("{folder}~{number}{}", &name[folder.len()..]),
                None => format!("{name}~{number}"),
            };
            number += 1;
        }
        self.folders.extend(folders(&unique).map(str::to_owned));
        self.names.insert(unique.clone());
        self.lines.push((unique, node));
    }
}

fn folders(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

fn is_property(child: &Child) -> bool {
    child.reference == ReferenceTypeId::HasProperty
}

/// One part of a tag's name.
fn segment(browse_name: &str) -> String {
    let plain: String = browse_name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    match plain.trim() {
        "" => "_".into(),
        trimmed => trimmed.to_owned(),
    }
}

/// A TOML string. JSON's escapes are among TOML's, but TOML wants DEL escaped as well.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_there_twice_or_is_a_folder_of_another() {
        let mut tags = Tags::default();
        for name in ["a", "a", "b/c", "b", "a/x", "a/x", "b/c/d"] {
            tags.put(name.into(), String::new());
        }
        let names: Vec<_> = tags.lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "a~2", "b/c", "b~2", "a~3/x", "a~4/x", "b/c~2/d"]);
    }

    #[test]
    fn any_text_is_a_string_of_toml() {
        for odd in ["a\"b\\c", "tab\tnewline\n", "\u{7f}\u{1}", "ü°"] {
            let line = format!("x = {}", text(odd));
            let table: toml::Table = toml::from_str(&line).unwrap();
            assert_eq!(table["x"].as_str(), Some(odd));
        }
        assert_eq!(segment(" a/b\n"), "a_b_");
        assert_eq!(segment("  "), "_");
    }
}
