//! Lines on standard output, and how a command ends.

use crate::relay::com::Connection;
use crate::relay::hresults;
use crate::relay::protocol::{Failure, Hresult};
use crate::relay::show::printable;
use serde_json::json;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

const PIPE_NOT_CONNECTED: i32 = 233;

pub enum Failed {
    /// The command line; nothing was done.
    Wrong(String),
    Because(String),
    /// It failed, and that was said already.
    Said,
    /// Whoever read the output wants no more of it.
    BrokenPipe,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::Because(format!("{}: {}", failure.call, hresults::explained(failure.hresult)))
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        // Windows has several words for it.
        match (error.kind(), error.raw_os_error()) {
            (ErrorKind::BrokenPipe, _) | (_, Some(PIPE_NOT_CONNECTED)) => Self::BrokenPipe,
            _ => Self::Because(format!("cannot write the output: {error}")),
        }
    }
}

pub fn ended(done: Result<(), Failed>) -> ExitCode {
    let (code, what) = match done {
        Ok(()) | Err(Failed::BrokenPipe) => return ExitCode::SUCCESS,
        Err(Failed::Said) => return ExitCode::FAILURE,
        Err(Failed::Because(what)) => (ExitCode::FAILURE, what),
        Err(Failed::Wrong(what)) => (ExitCode::from(2), what),
    };
    note(&what);
    code
}

/// Written out at once. Control characters are a server's doing and written as what they are.
pub fn line(text: &str) -> Result<(), Failed> {
    let mut stdout = io::stdout().lock();
    Ok(writeln!(stdout, "{}", printable(text)).and_then(|()| stdout.flush())?)
}

/// Beside the output.
pub fn note(text: &str) {
    eprintln!("vedette-da-relay: {}", printable(text));
}

/// One of many; the others go on.
pub fn refuse(item: &str, error: Hresult, is_json: bool) -> Result<(), Failed> {
    refuse_as(item, error, None, is_json)
}

/// `own` is what the server says of an error that nobody else knows.
pub fn refuse_as(item: &str, error: Hresult, own: Option<&str>, is_json: bool) -> Result<(), Failed> {
    let meaning = hresults::meaning(error).or(own);
    if is_json {
        return line(&json!({ "item": item, "error": hresults::name(error), "meaning": meaning }).to_string());
    }
    match own.filter(|_| hresults::meaning(error).is_none()) {
        Some(own) => note(&format!("{item}: 0x{error:08X}: {own}")),
        None => note(&format!("{item}: {}", hresults::explained(error))),
    }
    Ok(())
}

/// What only the server itself can explain.
pub fn own_words(connection: &Connection, error: Hresult) -> Option<String> {
    if hresults::meaning(error).is_some() { None } else { connection.error_text(error) }
}
