//! The last lines of the log, in memory: what the filter lets through, as text, 1000 lines and 256 KiB at most.

use crate::base::Clock;
use serde::Deserialize;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const LINES: usize = 1000;
const BYTES: usize = 256 * 1024;
/// Of one line; what is longer is cut.
const LONGEST: usize = 4096;

static KEPT: Mutex<Kept> = Mutex::new(Kept { lines: VecDeque::new(), bytes: 0 });

/// How much a line matters, the most important first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339.
    pub time: String,
    pub level: Level,
    pub module: String,
    /// The sentence, then the fields.
    pub text: String,
}

/// The last lines of this level and those that matter more, the oldest first.
pub fn recent(lines: usize, level: Level) -> Vec<Line> {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut newest: Vec<Line> =
        kept.lines.iter().rev().filter(|line| line.level <= level).take(lines).cloned().collect();
    newest.reverse();
    newest
}

struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Kept {
    fn push(&mut self, line: Line) {
        self.bytes += size(&line);
        self.lines.push_back(line);
        while self.lines.len() > LINES || self.bytes > BYTES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= size(&oldest);
        }
    }
}

fn size(line: &Line) -> usize {
    size_of::<Line>() + line.time.len() + line.module.len() + line.text.len()
}

/// Keeps what passes the filter above it.
pub(super) struct Ring;

impl<S: Subscriber> Layer<S> for Ring {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        };
        let line = Line {
            time: humantime::format_rfc3339_millis(Clock::real().now()).to_string(),
            level,
            module: event.metadata().target().to_owned(),
            text: text.finish(),
        };
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // What the bridge from the `log` crate adds.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("a String takes everything");
    }
}

impl Text {
    fn finish(self) -> String {
        let mut text = self.message + &self.fields;
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text.push_str(" ...");
        }
        text
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn the_last_lines_are_kept_as_they_are_written_and_by_level() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Ring), || {
            tracing::warn!(camera = %"ring-test", width = 640, "Lost.");
            tracing::debug!("ring-test detail");
        });
        let own = |level| -> Vec<String> {
            recent(LINES, level).into_iter().map(|line| line.text).filter(|text| text.contains("ring-test")).collect()
        };
        assert_eq!(own(Level::Trace), ["Lost. camera=ring-test width=640", "ring-test detail"]);
        assert_eq!(own(Level::Info).len(), 1);
        assert!(own(Level::Error).is_empty());
    }

    #[test]
    fn lines_and_bytes_are_bounded() {
        let line = |text: String| Line { time: String::new(), level: Level::Info, module: String::new(), text };
        let mut kept = Kept { lines: VecDeque::new(), bytes: 0 };
        (0..2 * LINES).for_each(|number| kept.push(line(number.to_string())));
        assert_eq!((kept.lines.len(), kept.lines[0].text.as_str()), (LINES, "1000"));
        (0..200).for_each(|_| kept.push(line("x".repeat(LONGEST))));
        assert!(kept.bytes <= BYTES && kept.lines.len() < 70);
        let long = Text { message: "ü".repeat(LONGEST), fields: String::new() }.finish();
        assert!(long.len() <= LONGEST + 4 && long.ends_with(" ..."));
    }
}
