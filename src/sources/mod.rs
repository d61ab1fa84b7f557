//! Where values come from. One folder each; none knows another, and none knows a sink.
//!
//!     table of the configuration ──check──► good values ──register──► its tags are there, nothing is opened ──► run
//!
//! A new source is a folder with a [`Config`], a line in [`Table`] and one in the root of the configuration.

pub mod computed;
pub mod gpio;
pub mod modbus;
pub mod sensors;
pub mod simulator;
pub mod system;
pub mod ua_client;

use crate::base::Stop;
use crate::hub::{Hub, RegisterError};
use crate::model::{TagName, TagNameError};
use async_trait::async_trait;
use std::ops::Range;
use std::path::PathBuf;

/// A table of the configuration that makes tags.
pub trait Config {
    /// As the file has it: `[[simulator]]`.
    fn table(&self) -> &'static str;

    /// Tells tables of one kind apart, and is the folder of its tags.
    fn name(&self) -> &str;

    /// What is wrong with the values, but for the name.
    fn check(&self) -> Vec<Finding>;

    /// All that is wrong with the table by itself.
    fn findings(&self) -> Vec<Finding> {
        let name = TagName::new(self.name()).err().map(|error| ("name", error.to_string()).into());
        name.into_iter().chain(self.check()).collect()
    }

    /// Registers its tags. Opens nothing: it is also called for a trial, on a hub that nobody reads, before a configuration
    /// is taken.
    fn register(&self, place: &Place, hub: &Hub) -> Result<Box<dyn Source>, SourceError>;
}

/// A source whose tags are registered. If its task fails then it is run again.
#[async_trait]
pub trait Source: Send {
    /// Until the stop.
    async fn run(&mut self, stop: &Stop);
}

/// What a source may know of the device that it runs on.
#[derive(Clone, Debug)]
pub struct Place {
    /// What must survive a restart: keys, trust list.
    pub data_dir: PathBuf,
    pub device_name: String,
}

/// Something wrong with a value of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Where the table within the table is that holds the value; `None` if it is the table itself.
    pub at: Option<Range<usize>>,
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub what: String,
}

impl From<(&'static str, String)> for Finding {
    fn from((key, what): (&'static str, String)) -> Self {
        Self { at: None, key, what }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error(transparent)]
    Tag(#[from] RegisterError),
}

/// One table of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Table {
    System(system::Config),
    Simulator(simulator::Config),
    UaClient(Box<ua_client::Config>),
    Modbus(modbus::Config),
    Gpio(gpio::Config),
    Sensors(sensors::Config),
    Computed(computed::Config),
}

impl std::ops::Deref for Table {
    type Target = dyn Config;

    fn deref(&self) -> &Self::Target {
        match self {
            Table::System(config) => config,
            Table::Simulator(config) => config,
            Table::UaClient(config) => &**config,
            Table::Modbus(config) => config,
            Table::Gpio(config) => config,
            Table::Sensors(config) => config,
            Table::Computed(config) => config,
        }
    }
}

impl Table {
    /// As logs and people call it: `system`, `simulator demo`.
    /// Whether it says itself when it has reached what it reads, or has lost it ([`Hub::source_back`], [`Hub::source_lost`]).
    pub fn tells(&self) -> bool {
        matches!(self, Table::UaClient(_) | Table::Modbus(_) | Table::Gpio(_))
    }

    pub fn label(&self) -> String {
        match (self.table().trim_matches(['[', ']']), self.name()) {
            (kind, name) if kind == name => kind.to_owned(),
            (kind, name) => format!("{kind} {name}"),
        }
    }
}
