//! The configuration file: a composition of each module's own `Config`, loaded, checked, and refused with a reason.
//!
//!     text ──toml──► Config (shape: keys and types) ──check──► Config (values, and names across tables)
//!
//! Every fault is a [`Fault`] with file, line and key, what is wrong and what would be right (base/configuration.rs). All faults of the values
//! are said at once; a fault of the shape ends the reading, because what follows may be its consequence.

mod secrets;

pub use crate::base::configuration::{Fault, Faults, Source};
use crate::sources::{Finding, Table};
use crate::{cameras, sinks, sources, store};
use serde::Deserialize;
use std::collections::BTreeSet;
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
    #[serde(default)]
    pub update: Update,
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

/// `[update]`: how other firmware is fetched.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// Certificate authorities (PEM) that may have signed the server's certificate, beside the system's own.
    /// Example: "/data/vedette/secrets/update-ca.pem".
    pub ca_file: Option<PathBuf>,
}

/// Reads and checks a file.
pub fn load(file: &Path) -> Result<(Config, Source), Faults> {
    check(Source::read(file)?)
}

/// Checks what is or might be in a file.
pub fn parse(file: &Path, text: String) -> Result<(Config, Source), Faults> {
    check(Source::new(file, text))
}

fn check(source: Source) -> Result<(Config, Source), Faults> {
    let config: Config = source.parse(moved)?;
    let faults = config.check(&source);
    if faults.is_empty() { Ok((config, source)) } else { Err(Faults(faults)) }
}

/// Where a key is now that was in this table.
fn moved(table: &str, key: &str) -> Option<&'static str> {
    let is_moved = table == "[history]" && ["max_bytes", "max_age", "commit_interval"].contains(&key);
    is_moved.then_some("the table [store], for history and uplink")
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
        for span in secrets::hidden(source.text()) {
            let what = "it was hidden when this text was read from the device; write what belongs here, or use a file"
                .to_owned();
            faults.push(source.fault_at(span.start, what));
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

#[cfg(test)]
mod tests;
