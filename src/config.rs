//! The configuration file: a composition of each module's own `Config`, loaded, checked, and refused with a reason.
//!
//!     text ──toml──► Config (shape: keys and types) ──check──► Config (values, and names across tables)
//!
//! Every fault is a [`Fault`] with file, line and key, what is wrong and what would be right. All faults of the values
//! are said at once; a fault of the shape ends the reading, because what follows may be its consequence.

mod secrets;

use crate::sources::{Finding, Table};
use crate::{cameras, sinks, sources, store};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;

pub use secrets::hide as hide_secrets;

/// The whole file. Each table is documented where it is used.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub device: Device,
    pub ua_server: Option<Spanned<sinks::ua_server::Config>>,
    pub mqtt: Option<Spanned<sinks::mqtt::Config>>,
    pub store: Option<Spanned<store::Config>>,
    pub history: Option<Spanned<store::history::Config>>,
    #[serde(default)]
    pub cameras: Option<Spanned<cameras::Config>>,
    #[serde(default)]
    pub camera: Vec<Spanned<cameras::CameraConfig>>,
    pub system: Option<Spanned<sources::system::Config>>,
    #[serde(default)]
    pub simulator: Vec<Spanned<sources::simulator::Config>>,
    #[serde(default)]
    pub ua_client: Vec<Spanned<sources::ua_client::Config>>,
    #[serde(default)]
    pub modbus: Vec<Spanned<sources::modbus::Config>>,
    #[serde(default)]
    pub gpio: Vec<Spanned<sources::gpio::Config>>,
    #[serde(default)]
    pub sensors: Vec<Spanned<sources::sensors::Config>>,
    #[serde(default)]
    pub computed: Vec<Spanned<sources::computed::Config>>,
}

/// `[device]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    /// The device's name: the UA server's application name and the Sparkplug edge node. Default: "vedette".
    pub name: String,
    /// Where the device keeps what must survive a restart: keys, trust list, counters. Default: "/var/lib/vedette".
    pub data_dir: PathBuf,
    /// What is logged: a level, or levels by module as in "info,vedette::cameras=debug". Default: "info".
    pub log: Option<String>,
    /// The LED that blinks when somebody wants to see which device this is, by its name in /sys/class/leds. Example: "led0".
    /// Default: ACT, led0, or the only one there is.
    pub led: Option<String>,
}

impl Default for Device {
    fn default() -> Self {
        Self { name: "vedette".into(), data_dir: "/var/lib/vedette".into(), log: None, led: None }
    }
}

/// One thing that is wrong with a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub file: PathBuf,
    /// From 1; 0 if the fault is not in a line.
    pub line: usize,
    /// `[ua_server] listen`, or empty.
    pub key: String,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Everything that is wrong with a configuration file. Never empty.
#[derive(Debug)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Remembers where tables stand, to say later what is wrong with them.
pub struct Source {
    file: PathBuf,
    text: String,
}

/// Reads and checks a file.
pub fn load(file: &Path) -> Result<(Config, Source), Faults> {
    match std::fs::read_to_string(file) {
        Ok(text) => parse(file, text),
        Err(error) => {
            let what = format!("cannot read it ({error}); name a configuration file with --config");
            Err(Faults(vec![Fault { file: file.into(), line: 0, key: String::new(), what }]))
        }
    }
}

/// Checks what is or might be in a file.
pub fn parse(file: &Path, text: String) -> Result<(Config, Source), Faults> {
    let source = Source { file: file.into(), text };
    let config: Config = toml::from_str(&source.text).map_err(|error| Faults(vec![source.shape_fault(&error)]))?;
    let faults = config.check(&source);
    if faults.is_empty() { Ok((config, source)) } else { Err(Faults(faults)) }
}

impl Config {
    fn check(&self, source: &Source) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut add = |table: &str, span: Range<usize>, found: Vec<(&'static str, String)>| {
            faults.extend(found.into_iter().map(|(key, what)| source.fault(table, &span, key, what)));
        };
        if self.device.name.trim().is_empty() || self.device.name.chars().any(char::is_control) {
            let what = "must be a name without control characters, as in \"line1-gateway\"".to_owned();
            add("[device]", source.header("[device]"), vec![("name", what)]);
        }
        if let Some(led) =
            self.device.led.as_ref().filter(|led| led.is_empty() || led.contains('/') || led.starts_with('.'))
        {
            let what =
                format!("{led:?} is no name of an LED; it is that of a folder in /sys/class/leds, as in \"led0\"");
            add("[device]", source.header("[device]"), vec![("led", what)]);
        }
        for span in secrets::hidden(&source.text) {
            let what = "it was hidden when this text was read from the device; write what belongs here, or use a file"
                .to_owned();
            faults.push(Fault {
                file: source.file.clone(),
                line: source.line_at(span.start),
                key: source.table_around(span.start),
                what,
            });
        }
        let mut add = |table: &str, span: Range<usize>, found: Vec<(&'static str, String)>| {
            faults.extend(found.into_iter().map(|(key, what)| source.fault(table, &span, key, what)));
        };
        if let Some(table) = &self.ua_server {
            add("[ua_server]", table.span(), table.get_ref().check());
            for (index, rule) in table.get_ref().access.iter().enumerate() {
                add(ACCESS, source.nth_header(ACCESS, index).unwrap_or(table.span()), rule.check());
            }
            let limits = "[ua_server.limits]";
            add(limits, source.header(limits), table.get_ref().limits.check());
        }
        if let Some(table) = &self.mqtt {
            add("[mqtt]", table.span(), table.get_ref().validate());
        }
        if let Some(table) = &self.store {
            add("[store]", table.span(), table.get_ref().check());
        }
        if let Some(table) = &self.history {
            add("[history]", table.span(), table.get_ref().check());
        }
        if let Some(table) = &self.cameras {
            add("[cameras]", table.span(), table.get_ref().check());
        }
        for table in &self.camera {
            add("[[camera]]", table.span(), table.get_ref().check());
        }
        let tables = self.sources();
        for (span, table) in &tables {
            for Finding { at, key, what } in table.findings() {
                add(table.table(), at.unwrap_or(span.clone()), vec![(key, what)]);
            }
        }
        let computed: Vec<&sources::computed::Config> = self.computed.iter().map(Spanned::get_ref).collect();
        if let Some(Finding { at, key, what }) = sources::computed::cycle(&computed) {
            faults.push(source.fault("[[computed]]", &at.unwrap_or_default(), key, what));
        }
        for Finding { at, key, what } in sources::computed::limited_twice(&computed) {
            faults.push(source.fault("[[computed]]", &at.unwrap_or_default(), key, what));
        }
        let cameras = self.camera.iter().map(|table| (table.span(), table.get_ref().name.as_str()));
        faults.extend(duplicates(source, "[[camera]]", "name", cameras));
        let cameras = self.camera.iter().map(|table| (table.span(), table.get_ref()));
        let devices = cameras.filter_map(|(span, camera)| Some((span, camera.device_node()?)));
        faults.extend(duplicates(source, "[[camera]]", "device", devices));
        for kind in tables.iter().map(|(_, table)| table.table()).collect::<BTreeSet<_>>() {
            let same = tables.iter().filter(|(_, table)| table.table() == kind);
            faults.extend(duplicates(source, kind, "name", same.map(|(span, table)| (span.clone(), table.name()))));
        }
        faults.extend(tables.iter().filter_map(|(span, table)| folder_taken(source, span, table)));
        faults.sort_by_key(|fault| fault.line);
        faults
    }

    /// What is allowed and should not stay so.
    pub fn warnings(&self, source: &Source) -> Vec<Fault> {
        let table = self.ua_server.iter();
        let found = table.flat_map(|table| table.get_ref().warnings().into_iter().map(|found| (table.span(), found)));
        found.map(|(span, (key, what))| source.fault("[ua_server]", &span, key, what)).collect()
    }

    /// What makes tags, in the order in which they are started.
    pub fn sources(&self) -> Vec<(Range<usize>, Table)> {
        let mut tables: Vec<(Range<usize>, Table)> = Vec::new();
        tables.extend(self.system.iter().map(|table| (table.span(), Table::System(table.get_ref().clone()))));
        if let (None, Some(mqtt)) = (&self.system, &self.mqtt) {
            // Whoever looks after a fleet has to see its memory, disks and temperatures, whatever else is configured.
            tables.push((mqtt.span(), Table::System(sources::system::Config::seldom())));
        }
        tables.extend(self.simulator.iter().map(|table| (table.span(), Table::Simulator(table.get_ref().clone()))));
        tables.extend(
            self.ua_client.iter().map(|table| (table.span(), Table::UaClient(Box::new(table.get_ref().clone())))),
        );
        tables.extend(self.modbus.iter().map(|table| (table.span(), Table::Modbus(table.get_ref().clone()))));
        tables.extend(self.gpio.iter().map(|table| (table.span(), Table::Gpio(table.get_ref().clone()))));
        tables.extend(self.sensors.iter().map(|table| (table.span(), Table::Sensors(table.get_ref().clone()))));
        tables.extend(self.computed.iter().map(|table| (table.span(), Table::Computed(table.get_ref().clone()))));
        tables
    }
}

/// Folders that others fill.
fn folder_taken(source: &Source, span: &Range<usize>, table: &Table) -> Option<Fault> {
    let first = table.name().split('/').next()?;
    let is_own = matches!(table, Table::System(_));
    (!is_own && ["system", "cameras", "store", "mqtt", "device"].contains(&first)).then(|| {
        let what = format!("{first:?} is the folder of the device's own tags; choose another name");
        source.fault(table.table(), span, "name", what)
    })
}

/// A table within [ua_server], of which toml does not say the place.
const ACCESS: &str = "[[ua_server.access]]";

/// Tables of one kind that have the same value under a key that tells them apart.
fn duplicates<'a>(
    source: &Source,
    table: &str,
    key: &'static str,
    values: impl Iterator<Item = (Range<usize>, &'a str)>,
) -> Vec<Fault> {
    let mut seen: Vec<(usize, &str)> = Vec::new();
    let mut faults = Vec::new();
    for (span, value) in values {
        let line = source.line_of_key(&span, key);
        match seen.iter().find(|(_, other)| *other == value) {
            Some((first, _)) => {
                let what = format!("{value:?} is the {key} of the one in line {first}; each needs its own");
                faults.push(source.fault(table, &span, key, what));
            }
            None => seen.push((line, value)),
        }
    }
    faults
}

impl Source {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A fault that was found only when the configuration was put to use, such as a port that is taken.
    pub fn fault(&self, table: &str, span: &Range<usize>, key: &str, what: String) -> Fault {
        Fault {
            file: self.file.clone(),
            line: self.line_of_key(span, key),
            key: format!("{table} {key}").trim().to_owned(),
            what,
        }
    }

    /// Where a table begins that the configuration does not keep the place of.
    pub fn header(&self, table: &str) -> Range<usize> {
        let start = self.text.find(table).unwrap_or(0);
        start..start
    }

    /// The same for the `index`-th of several.
    fn nth_header(&self, table: &str, index: usize) -> Option<Range<usize>> {
        let is_header = |(start, _): &(usize, &str)| {
            let before = self.text[..*start].rsplit('\n').next().unwrap_or_default();
            before.trim().is_empty()
        };
        let start = self.text.match_indices(table).filter(is_header).nth(index)?.0;
        Some(start..start)
    }

    fn line_at(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count()
    }

    /// The line of a key within the table that begins at `span`, else of the table's header. toml gives as a table's
    /// span its header only, so the table ends where the next header begins; an inline table is taken for one line.
    fn line_of_key(&self, span: &Range<usize>, key: &str) -> usize {
        let mut offset = span.start;
        if self.text.get(offset..).is_some_and(|text| text.starts_with('{')) {
            return self.line_at(offset);
        }
        for line in self.text.get(span.start..).unwrap_or_default().split_inclusive('\n') {
            if offset > span.start && line.trim_start().starts_with('[') {
                break;
            }
            let is_key = line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
            if is_key {
                return self.line_at(offset);
            }
            offset += line.len();
        }
        self.line_at(span.start)
    }

    /// What toml says about keys and types, in the same words as the rest.
    fn shape_fault(&self, error: &toml::de::Error) -> Fault {
        let span = error.span().unwrap_or(0..0);
        let message = error.message();
        let fault = |key: &str, what: String| Fault {
            file: self.file.clone(),
            line: self.line_at(span.start),
            key: key.to_owned(),
            what,
        };
        let table = self.table_around(span.start);
        let word = self.text.get(span.clone()).unwrap_or_default();
        if let Some(rest) = message.strip_prefix("unknown field `")
            && let Some((unknown, known)) = rest.split_once("`, ")
        {
            if table == "[history]" && ["max_bytes", "max_age", "commit_interval"].contains(&unknown) {
                return fault(&table, format!("`{unknown}` has moved to the table [store], for history and uplink"));
            }
            let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            return fault(&table, unknown_key(unknown, &known));
        }
        if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            return fault(&table, format!("the key `{key}` is missing; add {key} = ..."));
        }
        let key = self.key_in_line(span.start).map_or(table.clone(), |key| format!("{table} {key}").trim().to_owned());
        let what = match message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected ")) {
            Some((found, expected)) => format!("wrong type: {found} where {} belongs", plain_type(expected)),
            None if word.is_empty() || message.contains(word) => message.to_owned(),
            None => format!("{word}: {message}"),
        };
        fault(&key, what.replace('\n', "; "))
    }

    /// The last header before a place: `[mqtt]`, or empty above the first.
    fn table_around(&self, offset: usize) -> String {
        let line_end = self.text[offset.min(self.text.len())..].find('\n').map_or(self.text.len(), |at| offset + at);
        let headers = self.text[..line_end].lines().rev().map(str::trim).filter(|line| line.starts_with('['));
        let header = headers.map(|line| line.split('#').next().unwrap_or(line).trim()).next();
        header.unwrap_or_default().to_owned()
    }

    fn key_in_line(&self, offset: usize) -> Option<&str> {
        let line = self.text.lines().nth(self.line_at(offset).checked_sub(1)?)?;
        let (key, _) = line.split_once('=')?;
        Some(key.trim())
    }
}

/// toml speaks of Rust's types; people do not.
fn plain_type(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number".into(),
        "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        other if other.starts_with("struct ") => "a table".into(),
        "a string" | "path string" => "text in quotes".into(),
        other => other.to_owned(),
    }
}

fn unknown_key(unknown: &str, known: &[&str]) -> String {
    let similar = known.iter().map(|key| (strsim::jaro_winkler(unknown, key), key));
    let nearest = similar.filter(|(likeness, _)| *likeness > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, key)) => format!("unknown key `{unknown}`; did you mean `{key}`?"),
        None => format!("unknown key `{unknown}`; known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
