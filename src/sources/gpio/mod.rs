//! Lines of GPIO chips: contacts, buttons, relays, lamps.
//!
//!     chip.rs   Linux's GPIO character device, through gpiocdev: finds a chip and takes its lines
//!     line.rs   one line: its configuration, its edges
//!     run.rs    edges become samples, writes become levels; chips that come and go
//!
//! An input is a Boolean that follows its edges, with the kernel's timestamps; with `count` a second tag counts them.
//! An output is a Boolean that can be written. Each line is requested by itself, so that one that somebody else has takes
//! no other with it.

mod chip;
mod line;
mod run;

pub use line::Config as LineConfig;

use super::{Finding, Place, Source, SourceError};
use crate::base::duration;
use crate::hub::Hub;
use serde::Deserialize;
use std::time::Duration;
use toml::Spanned;

/// `[[gpio]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of its tags. Example: "io".
    pub name: String,
    /// By name ("gpiochip0"), path, or label as `gpiodetect` shows it ("pinctrl-bcm2711"). Names can change from boot to
    /// boot, labels do not.
    pub chip: String,
    /// How often lines are looked at that tell no edges, and whether the chip is still there. Default: "500ms".
    #[serde(default = "default_interval", deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// Its lines.
    #[serde(default)]
    pub line: Vec<Spanned<LineConfig>>,
}

const fn default_interval() -> Duration {
    Duration::from_millis(500)
}

impl super::Config for Config {
    fn table(&self) -> &'static str {
        "[[gpio]]"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        let mut add = |key, what: &str| findings.push((key, what.to_owned()).into());
        if self.chip.trim().is_empty() {
            add("chip", "names none; write it as in \"gpiochip0\", or a label that gpiodetect shows");
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(1)).contains(&self.interval) {
            add("interval", "is out of range; use \"10ms\" to \"1s\"");
        }
        if self.line.is_empty() {
            add("name", "has no lines; add [[gpio.line]]");
        }
        for (index, line) in self.line.iter().enumerate() {
            let (at, line) = (line.span(), line.get_ref());
            let mut found = line.check(&self.name);
            if self.line[..index].iter().any(|other| other.get_ref().line == line.line) {
                found.push(("line", format!("{} is another's already; a line can be taken once", line.line)));
            }
            findings.extend(found.into_iter().map(|(key, what)| Finding { at: Some(at.clone()), key, what }));
        }
        findings
    }

    fn register(&self, _: &Place, hub: &Hub) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(run::Gpio::register(self.clone(), hub)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Config as _;

    #[test]
    fn what_is_wrong_is_said() {
        let io = |more: &str| format!("name = 'io'\nchip = 'gpiochip0'\n{more}");
        let line = |more: &str| io(&format!("[[line]]\nname = 'a'\nline = 1\n{more}"));
        for (toml, words) in [
            (io(""), "name: has no lines"),
            (line("").replace("gpiochip0", ""), "chip: names none"),
            (line("").replace("'io'", "'i//o'"), "name: tag name \"i//o\""),
            (format!("interval = '5s'\n{}", line("")), "interval: is out of range"),
            (line("[[line]]\nname = 'b'\nline = 1"), "line: 1 is another's already"),
            (line("initial = true"), "initial: only an output has it"),
            (line("drive = 'open-drain'"), "drive: only an output has it"),
            (line("direction = 'out'\ndebounce = '1ms'"), "debounce: only an input has it"),
            (line("direction = 'out'\ncount = true"), "count: only an input has it"),
            (line("edges = 'rising'"), "edges: chooses what `count` counts"),
            (line("debounce = '2m'"), "debounce: is too long"),
            (line("").replace("line = 1", "line = ''"), "line: names none"),
        ] {
            let found = toml::from_str::<Config>(&toml).unwrap().findings();
            let found: Vec<String> = found.into_iter().map(|one| format!("{}: {}", one.key, one.what)).collect();
            assert!(found.len() == 1 && found[0].starts_with(words), "{toml}: {found:?}");
        }
        assert!(toml::from_str::<Config>(&line("bias = 'up'")).unwrap_err().to_string().contains("pull-up"));
    }
}
