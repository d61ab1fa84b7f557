//! `list`, `browse`, `read`, `write`, `watch`, `info`, `check`: a DA server as it is, through COM and nothing else. And `worker`, which
//! the relay starts for each DA server.
//!
//! A command that waits for a DA server waits for ever if that is frozen; Ctrl-C ends it.

mod browse;
mod check;
mod info;
mod list;
mod output;
mod read;
mod walk;
mod watch;
mod write;

use crate::relay::com::{Apartment, Connection, Server};
use crate::relay::lanes;
use clap::{Args, Subcommand};
use output::Failed;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// List the DA servers of this PC, for 32 and 64 bits.
    List(list::Arguments),
    /// Show what is in a DA server's address space.
    Browse(browse::Arguments),
    /// Read items, with quality, time and type.
    Read(read::Arguments),
    /// Write a value to an item.
    Write(write::Arguments),
    /// Follow items: a line for each change, until Ctrl-C.
    Watch(watch::Arguments),
    /// Say what a DA server is, how it is and what it can do.
    Info(info::Arguments),
    /// Say in words what is wrong: with this PC, or with the way to one DA server.
    Check(check::Arguments),
    /// Started by the relay itself.
    #[command(hide = true)]
    Worker(Target),
}

/// Which DA server.
#[derive(Args)]
pub struct Target {
    /// Its ProgID (Vendor.Server.1), or its CLSID in braces; `list` shows them.
    #[arg(value_name = "SERVER")]
    server: String,
    /// The server is one of our own that does what this file says, whatever its name.
    #[cfg(feature = "da-test-server")]
    #[arg(long, value_name = "FILE", hide = true)]
    test_server: Option<std::path::PathBuf>,
}

impl Target {
    #[cfg(not(feature = "da-test-server"))]
    fn server(&self) -> Result<Server, Failed> {
        Ok(Server::Named(self.server.clone()))
    }

    #[cfg(feature = "da-test-server")]
    fn server(&self) -> Result<Server, Failed> {
        let Some(file) = &self.test_server else { return Ok(Server::Named(self.server.clone())) };
        let wrong = |what: String| Failed::Wrong(format!("{}: {what}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        toml::from_str(&text).map(Server::Test).map_err(|error| wrong(error.to_string()))
    }

    fn open(&self) -> Result<Connection, Failed> {
        let class = self.server()?.class()?;
        Ok(Connection::open(class, None)?)
    }
}

pub fn run(command: Command) -> ExitCode {
    // On standard error, so that what is asked for stays clean.
    if let Err(error) = crate::base::logs::start(None) {
        eprintln!("vedette-da-relay: {error}");
    }
    let done = match &command {
        Command::Worker(target) => match target.server() {
            Ok(server) => return lanes::run(&server),
            Err(failed) => Err(failed),
        },
        Command::List(arguments) => in_apartment(|| list::run(arguments)),
        Command::Browse(arguments) => in_apartment(|| browse::run(arguments)),
        Command::Read(arguments) => in_apartment(|| read::run(arguments)),
        Command::Write(arguments) => in_apartment(|| write::run(arguments)),
        Command::Watch(arguments) => in_apartment(|| watch::run(arguments)),
        Command::Info(arguments) => in_apartment(|| info::run(arguments)),
        Command::Check(arguments) => in_apartment(|| check::run(arguments)),
    };
    output::ended(done)
}

fn in_apartment(command: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    let apartment = Apartment::enter()?;
    apartment.secure()?;
    command()
}
