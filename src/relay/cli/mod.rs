//! The command line of `vedette-da-relay`.
//!
//! - `serve.rs`: the relay, in the console or as a service; `access.rs`: who may come in.
//! - `da/`: the tool for DA servers, straight through COM, for trying out. It needs no running relay.
//!
//! Exit codes: 0 done, 1 it failed, 2 the command line is wrong.

mod access;
#[cfg(windows)]
mod da;
#[cfg(windows)]
mod serve;

use super::hresults;
use super::protocol::Hresult;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// OPC Classic (DA) servers of this PC as if they were OPC UA.
#[derive(Parser)]
#[command(name = "vedette-da-relay", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the DA servers of this PC over OPC UA, in the console, until Ctrl-C.
    #[cfg(windows)]
    Run(serve::Run),
    /// Install the relay as a service that starts with Windows; as an administrator.
    #[cfg(windows)]
    Install(serve::Install),
    /// Start the service.
    #[cfg(windows)]
    Start,
    /// Stop the service.
    #[cfg(windows)]
    Stop,
    /// Remove the service. Keys, users and configuration stay.
    #[cfg(windows)]
    Uninstall,
    /// List the clients that were turned away or are trusted; trust one, or no longer.
    Trust(access::Trust),
    /// Say who may log in, and as what.
    User(access::Who),
    #[cfg(windows)]
    #[command(flatten)]
    Da(da::Command),
    /// Say what an HRESULT means and what helps: 80070005, 0x80040154.
    Explain {
        /// As COM and DA servers show it, in hexadecimal.
        #[arg(value_name = "HRESULT", value_parser = hresult)]
        hresult: Hresult,
    },
}

pub fn main() -> ExitCode {
    match Arguments::parse().command {
        #[cfg(windows)]
        Command::Run(arguments) => serve::run(arguments),
        #[cfg(windows)]
        Command::Install(arguments) => serve::install(&arguments),
        #[cfg(windows)]
        Command::Start => serve::said(super::service::start()),
        #[cfg(windows)]
        Command::Stop => serve::said(super::service::stop()),
        #[cfg(windows)]
        Command::Uninstall => serve::said(super::service::uninstall()),
        Command::Trust(arguments) => access::trust(&arguments),
        Command::User(arguments) => access::user(arguments),
        #[cfg(windows)]
        Command::Da(command) => da::run(command),
        Command::Explain { hresult } => explain(hresult),
    }
}

/// What is wrong with the command line or the configuration.
fn complain(what: &str) -> ExitCode {
    eprintln!("vedette-da-relay: {what}");
    ExitCode::from(2)
}

fn failed(what: &str) -> ExitCode {
    eprintln!("vedette-da-relay: {what}");
    ExitCode::FAILURE
}

fn hresult(text: &str) -> Result<Hresult, String> {
    let digits = text.trim_start_matches("0x").trim_start_matches("0X");
    match (digits.len(), u32::from_str_radix(digits, 16)) {
        (1..=8, Ok(number)) => Ok(number as Hresult),
        _ => Err("write eight hexadecimal digits, as in 80070005".into()),
    }
}

#[allow(clippy::print_stdout, reason = "the answer to the command")]
fn explain(hresult: Hresult) -> ExitCode {
    println!("{}", hresults::explained(hresult));
    if hresults::meaning(hresult).is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn hresults_are_read() {
        assert_eq!(hresult("80070005"), Ok(-2_147_024_891));
        assert_eq!(hresult("0x80070005"), Ok(-2_147_024_891));
        assert!(hresult("").is_err() && hresult("800700050").is_err() && hresult("E_FAIL").is_err());
    }
}
