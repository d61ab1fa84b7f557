//! The command line of `vedette-da-relay`.

use clap::Parser;
use std::process::ExitCode;

/// OPC Classic (DA) servers of this PC as if they were OPC UA.
#[derive(Parser)]
#[command(name = "vedette-da-relay", version, arg_required_else_help = true)]
struct Arguments {}

pub fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    ExitCode::SUCCESS
}
