//! The command line.
//!
//! - the appliance: `run`, `check`, `trust`, `user`, `reload`; its cameras: `cameras`, `snapshot`; what an image runs and is given:
//!   `provision`, `health`, `update`;
//! - the tool for any OPC UA server: `browse`, `read`, `write`, `watch`, `plot`, `discover`, `import`, on `remote/`;
//! - the tool for a fleet: `fleet`.
//!
//! Exit codes: 0 done, 1 it failed, 2 the configuration or the command line is wrong and nothing was started,
//! 3 a device of a fleet did not answer in time.

mod cameras;
mod health;
mod provision;
mod snapshot;
mod trust;
mod update;
mod user;

mod browse;
mod discover;
mod fleet;
mod import;
mod plot;
mod read;
mod watch;
mod write;

mod glob;
mod password;
mod progress;
mod remote;
mod show;
mod typed;

use crate::app::{self, AskError, Options, StartError};
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Cameras and tags of an edge device, over OPC UA and MQTT.
#[derive(Parser)]
#[command(name = "vedette", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the appliance until it is told to stop (SIGINT, SIGTERM).
    Run(Run),
    /// Say what is wrong with a configuration file, by line; start nothing.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Have the running vedette read its configuration anew; a wrong one is refused as a whole, with the reasons.
    Reload {
        /// The configuration file, which knows the data folder.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
        /// Where the running vedette keeps its data, instead of [device] data_dir.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// List the cameras of this machine: driver, bus, formats, sizes, rates.
    Cameras(cameras::Arguments),
    /// Take one picture straight from a camera; no running vedette is needed.
    Snapshot(snapshot::Arguments),
    /// List the clients that the UA server trusts or turned away; trust one, or no longer.
    Trust(trust::Arguments),
    /// Say who may log in to the OPC UA server, and as what; a running vedette follows at once.
    User(user::Arguments),
    /// Install other firmware into the slot that does not run, and start it: a RAUC bundle from a file or a URL.
    Update(update::Arguments),
    /// Say whether this device works as well as it did before; the gate that a new slot must pass to be kept.
    Health(health::Arguments),
    /// Take in vedette.toml from the boot partition, and tell the system its network, name and open ports (run by the image).
    Provision(provision::Arguments),
    /// Show what is in an OPC UA server's address space, as a tree.
    Browse(browse::Arguments),
    /// Read values of an OPC UA server, with quality, time and type.
    Read(read::Arguments),
    /// Write a value to an OPC UA server.
    Write(write::Arguments),
    /// Follow values of an OPC UA server: a line for each change, until Ctrl-C.
    Watch(watch::Arguments),
    /// Plot values of an OPC UA server in the terminal.
    Plot(plot::Arguments),
    /// Find OPC UA servers: on the network by mDNS, or on one host.
    Discover(discover::Arguments),
    /// Write the configuration that collects the variables below a node of an OPC UA server.
    Import(import::Arguments),
    /// Watch and steer all devices of an MQTT broker: Sparkplug B, of any make.
    Fleet(fleet::Arguments),
}

const DEFAULT_CONFIG: &str = "/etc/vedette/vedette.toml";

#[derive(Args)]
struct Run {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Where keys, trust list and counters are kept, instead of [device] data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The OPC UA server's port, instead of the one in [ua_server] listen.
    #[arg(long, value_name = "PORT")]
    ua_port: Option<u16>,
    /// What is logged, instead of [device] log: "debug", "info,vedette::cameras=debug".
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// The whole program.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(Run { config, data_dir, ua_port, log }) => run(Options { config, data_dir, ua_port, log }),
        Command::Check { config } => check(&config),
        Command::Reload { config, data_dir } => reload(&config, data_dir.as_deref()),
        Command::Cameras(arguments) => cameras::run(&arguments),
        Command::Snapshot(arguments) => snapshot::run(&arguments),
        Command::Trust(arguments) => trust::run(&arguments),
        Command::User(arguments) => user::run(arguments),
        Command::Update(arguments) => update::run(arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Provision(arguments) => provision::run(arguments),
        Command::Browse(arguments) => browse::run(&arguments),
        Command::Read(arguments) => read::run(&arguments),
        Command::Write(arguments) => write::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        Command::Plot(arguments) => plot::run(&arguments),
        Command::Discover(arguments) => discover::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Fleet(arguments) => fleet::run(&arguments),
    }
}

const FAILED: u8 = 1;
const WRONG: u8 = 2;
const UNANSWERED: u8 = 3;

/// The UA crate's decoder calls itself up to once for each byte of a request that is nested on purpose (docs/upstream.md),
/// and each call takes up to 704 bytes: this is enough for 256 KiB, the default of `[ua_server.limits] request_bytes`.
/// It is address space only; memory is taken when a stack grows.
const STACK: usize = 256 << 20;

fn run(options: Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, &format!("cannot start the runtime: {error}")),
    };
    let outcome = runtime.block_on(app::run(options));
    // Threads that sit in a driver are not waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (StartError::Faults(_) | StartError::Log(_))) => complain(WRONG, &error.to_string()),
        Err(error) => complain(FAILED, &error.to_string()),
    }
}

#[allow(clippy::print_stdout, reason = "the answer to the command")]
fn check(config: &Path) -> ExitCode {
    match app::check(config) {
        Ok(warnings) => {
            for warning in warnings {
                eprintln!("vedette: warning: {warning}");
            }
            println!("{}: good", config.display());
            ExitCode::SUCCESS
        }
        Err(faults) => complain(WRONG, &faults.to_string()),
    }
}

#[allow(clippy::print_stdout, reason = "the answer to the command")]
fn reload(config: &Path, data_dir: Option<&Path>) -> ExitCode {
    let data_dir = match app::data_folder(config, data_dir) {
        Ok(data_dir) => data_dir,
        // What the running one would say as well.
        Err(faults) => return complain(WRONG, &faults.to_string()),
    };
    match app::ask_to_reload(&data_dir) {
        Ok(applied) => {
            println!("{applied}");
            ExitCode::SUCCESS
        }
        Err(error @ AskError::Refused(_)) => complain(WRONG, &error.to_string()),
        Err(error) => complain(FAILED, &error.to_string()),
    }
}

fn complain(code: u8, what: &str) -> ExitCode {
    show::aside(what);
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
