//! Passwords: asked for on the terminal, unseen, or one line of a file or of standard input; never an argument, where
//! every process could read it.

use crate::users::{LINE, line_of};
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex};
use std::io::{BufReader, IsTerminal};
use std::path::Path;

/// What SIGINT's key sends.
const INTERRUPT: u8 = 3;

/// The first line of standard input.
pub(super) fn from_stdin() -> Result<String, String> {
    line_of(std::io::stdin().lock()).map_err(|error| format!("cannot read the password: {error}"))
}

/// The first line of a file; "-" is standard input.
pub(super) fn from_file(path: &Path) -> Result<String, String> {
    if path.as_os_str() == "-" {
        return from_stdin();
    }
    let read = std::fs::File::open(path).and_then(|file| line_of(BufReader::new(file)));
    read.map_err(|error| format!("cannot read the password from {}: {error}", path.display()))
}

/// A line from the terminal, unseen. Ctrl-C ends the line instead of the program, which would leave the terminal mute.
/// `option` is the way out where there is no terminal.
pub(super) fn ask(prompt: &str, option: &str) -> Result<String, String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(format!("there is no terminal to ask for the password; give it with {option}"));
    }
    let failed = |error: rustix::io::Errno| format!("cannot ask for the password: {error}");
    let before = termios::tcgetattr(&stdin).map_err(failed)?;
    let mut mute = before.clone();
    mute.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
    mute.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
    termios::tcsetattr(&stdin, OptionalActions::Flush, &mute).map_err(failed)?;
    eprint!("{prompt}");
    // A terminal gives one line at a time, also one that does not end with a newline.
    let mut line = [0; LINE];
    let read = rustix::io::read(&stdin, &mut line);
    eprintln!();
    termios::tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(failed)?;
    let line = &line[..read.map_err(failed)?];
    if line.is_empty() || line.contains(&INTERRUPT) {
        return Err("interrupted; nothing was changed".into());
    }
    let line = std::str::from_utf8(line).map_err(|_| "the password is no UTF-8".to_owned())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
