//! `vedette fleet`: all devices of a broker, ours and others, watched and steered from a shell.
//!
//!     broker (arguments) ──► session (line + host) ──► watch, ls, get          what they say: Sparkplug B
//!                                └─────────────────► cmd, config, image        what they are told: JSON commands, NCMD, DCMD
//!
//! - `host/` is what all that is said adds up to, without I/O; `say.rs` what a host says; `words.rs` how it is shown.
//! - A node is written `group/node`, or `node` if its group can be heard.

mod broker;
mod call;
pub mod host;
mod node;
mod say;
mod session;
mod steer;
mod words;

mod cmd;
mod config;
mod get;
mod image;
mod ls;
mod simulate;
mod watch;

use crate::mqtt::sparkplug::SparkplugId;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A live table of all nodes: state, version, uptime, queue, cameras. Lines where there is no terminal.
    Watch(watch::Arguments),
    /// Listen for a while, and list who spoke.
    Ls(ls::Arguments),
    /// Show the metrics of a node and its devices: value, unit, quality, time.
    Get(get::Arguments),
    /// Give nodes a command and wait for the answer; or write metrics of any Sparkplug node.
    Cmd(cmd::Arguments),
    /// Read or change the configuration of a device.
    Config(config::Arguments),
    /// Take a picture with a camera of a device.
    Image(image::Arguments),
    /// Be many devices at once: a load for a broker, with births, reconnects and data as real ones have.
    Simulate(simulate::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match &arguments.command {
        Command::Watch(arguments) => watch::run(arguments),
        Command::Ls(arguments) => ls::run(arguments),
        Command::Get(arguments) => get::run(arguments),
        Command::Cmd(arguments) => cmd::run(arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Image(arguments) => image::run(arguments),
        Command::Simulate(arguments) => simulate::run(arguments),
    }
}

/// A group is one level of a topic, so that nobody listens to more than was meant.
fn group(text: &str) -> Result<String, String> {
    SparkplugId::new(text).map(|group| group.to_string()).map_err(|error| error.to_string())
}
