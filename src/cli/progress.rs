//! One line on a terminal that says how far long work is, and is gone when anything else is printed.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Faster than this nobody reads.
const OFTEN: Duration = Duration::from_millis(200);
/// Work that is shorter needs no progress.
const LONG: Duration = Duration::from_millis(700);

/// Silent unless standard error is a terminal.
pub(super) struct Progress {
    is_wanted: bool,
    began: Instant,
    last: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { is_wanted: std::io::stderr().is_terminal(), began: Instant::now(), last: None, is_shown: false }
    }

    /// `what` is asked for only when it is time to show it.
    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= OFTEN);
        if self.is_wanted && is_due && self.began.elapsed() >= LONG {
            // Cut to what is one line nearly everywhere: else a wrapped line would stay.
            let line: String = what().chars().take(76).collect();
            eprint!("\r\x1b[K{line}");
            // A terminal that does not take it is not worth a word.
            let _ = std::io::stderr().flush();
            self.last = Some(Instant::now());
            self.is_shown = true;
        }
    }

    /// Before anything else is printed.
    pub(super) fn hide(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}
