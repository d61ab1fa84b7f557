//! `vedette cameras`: what video devices there are.

use crate::cameras::v4l2::{Change, Fault, Listing, Node, NodeFormat, Watch, list};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// For scripts: one JSON array; with --watch a line for each event ("present", "added", "removed").
    #[arg(long)]
    json: bool,
    /// Go on, and say what comes and goes, until told to stop (Ctrl-C).
    #[arg(long)]
    watch: bool,
    /// Every format, also those this program makes no pictures from.
    #[arg(long)]
    all: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let done = if arguments.watch { watch(arguments) } else { once(arguments) };
    match done {
        // Who leads the output into `head` wants no more of it.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => super::complain(super::FAILED, &error.to_string()),
    }
}

fn once(arguments: &Arguments) -> io::Result<()> {
    let nodes = list();
    let mut stdout = io::stdout();
    match arguments.json {
        true => writeln!(stdout, "{}", serde_json::to_string_pretty(&nodes)?),
        false => write!(stdout, "{}", describe(&nodes, arguments.all)),
    }
}

/// Until a signal ends the program.
fn watch(arguments: &Arguments) -> io::Result<()> {
    let (mut watch, mut stdout) = (Watch::start(), io::stdout());
    let present = watch.look().into_iter().map(|change| match change {
        Change::Added(node) | Change::Removed(node) => node,
    });
    let present: Vec<_> = present.collect();
    if arguments.json {
        for node in &present {
            writeln!(stdout, "{}", json_line("present", node)?)?;
        }
    } else {
        write!(stdout, "{}", describe(&present, arguments.all))?;
    }
    loop {
        watch.wait();
        for change in watch.look() {
            let (event, sign, node) = match &change {
                Change::Added(node) => ("added", '+', node),
                Change::Removed(node) => ("removed", '-', node),
            };
            match arguments.json {
                true => writeln!(stdout, "{}", json_line(event, node)?)?,
                false => writeln!(stdout, "{sign} {}", title(node))?,
            }
        }
    }
}

fn json_line(event: &str, node: &Node) -> serde_json::Result<String> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        event: &'a str,
        #[serde(flatten)]
        node: &'a Node,
    }
    serde_json::to_string(&Line { event, node })
}

fn describe(nodes: &[Node], all: bool) -> String {
    if nodes.is_empty() {
        return "No video devices (/dev/video*). For a camera without hardware: device = \"test-pattern\".\n".into();
    }
    let mut text = String::new();
    for node in nodes {
        // Writing to a String cannot fail.
        let _ = describe_node(&mut text, node, all);
    }
    text
}

/// One line.
fn title(node: &Node) -> String {
    let path = node.path.display();
    match &node.listing {
        Listing::Other { what } => format!("{path}: no camera: {what}"),
        Listing::Unknown { error } => format!("{path}: {error}"),
        Listing::Camera { name, .. } => format!("{path}: {name}"),
    }
}

fn describe_node(text: &mut String, node: &Node, all: bool) -> std::fmt::Result {
    writeln!(text, "{}", title(node))?;
    let Listing::Camera { stable_path, identity, formats, fault, .. } = &node.listing else { return Ok(()) };
    writeln!(text, "    card    {}", identity.card)?;
    writeln!(text, "    driver  {}", identity.driver)?;
    writeln!(text, "    bus     {}", identity.bus)?;
    if let Some(stable) = stable_path {
        writeln!(text, "    device  {}    (stays the same)", stable.display())?;
    }
    let shown: Vec<_> = formats.iter().filter(|format| all || format.usable).collect();
    if let Some(Fault { state, reason }) = fault {
        writeln!(text, "    {state}: {reason}")?;
    }
    for format in &shown {
        describe_format(text, format)?;
    }
    match formats.len() - shown.len() {
        0 => Ok(()),
        hidden => writeln!(text, "    and {hidden} formats that are not used; --all shows them"),
    }
}

fn describe_format(text: &mut String, format: &NodeFormat) -> std::fmt::Result {
    writeln!(text, "    {}  {}", format.fourcc, format.description)?;
    for size in &format.sizes {
        writeln!(text, "          {size}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cameras::v4l2::NodeSize;

    #[test]
    fn people_see_what_a_camera_offers() {
        let size = NodeSize { width: 640, height: 480, rates: vec![30.0, 15.0], from: None };
        let format = |fourcc: &str, usable| NodeFormat {
            fourcc: fourcc.into(),
            description: "a format".into(),
            usable,
            sizes: vec![size.clone()],
        };
        let listing = Listing::Camera {
            name: "C920".into(),
            stable_path: None,
            identity: Default::default(),
            formats: vec![format("YUYV", true), format("H264", false)],
            fault: None,
        };
        let text = describe(&[Node { path: "/dev/video0".into(), listing }], false);
        assert!(text.starts_with("/dev/video0: C920\n"), "{text}");
        assert!(
            text.contains("640x480 at 30, 15 fps") && !text.contains("H264") && text.contains("1 formats"),
            "{text}"
        );
    }

    #[test]
    fn people_see_why_a_sensor_gives_no_pictures() {
        let fault = Fault { state: "needs ISP", reason: "it gives only raw data".into() };
        let listing = Listing::Camera {
            name: "imx219".into(),
            stable_path: None,
            identity: Default::default(),
            formats: vec![],
            fault: Some(fault),
        };
        let text = describe(&[Node { path: "/dev/video0".into(), listing }], false);
        assert!(text.contains("    needs ISP: it gives only raw data\n"), "{text}");
    }
}
