//! Lines on standard output: for people, or one JSON object each.

use super::Failure;
use crate::cli::progress::Progress;
use crate::cli::show;
use serde_json::Value as Json;
use std::io::Write;

pub(in crate::cli) struct Output {
    pub is_json: bool,
    pub progress: Progress,
}

impl Output {
    pub(in crate::cli) fn new(is_json: bool) -> Self {
        Self { is_json, progress: Progress::new() }
    }

    /// Written out at once.
    pub(in crate::cli) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.progress.hide();
        let mut stdout = std::io::stdout().lock();
        Ok(writeln!(stdout, "{text}").and_then(|()| stdout.flush())?)
    }

    pub(in crate::cli) fn json(&mut self, object: &Json) -> Result<(), Failure> {
        self.line(&show::escaped(&object.to_string()))
    }

    /// Beside the output: what is wrong with one of many, or what happened meanwhile.
    pub(in crate::cli) fn note(&mut self, text: &str) {
        self.progress.hide();
        show::aside(text);
    }
}
