//! What a configuration asks for, with everything tried that can be tried without touching what runs.
//!
//!     file ──config::load──► tables ──trial──► Plan
//!
//! The trial registers all tags on a hub of its own, so that two sources that want one name are found here, with the line,
//! and not after the old configuration has been given up.

use super::Options;
use super::commit::hash;
use super::report::Facts;
use crate::base::{Clock, logs};
use crate::cameras::{self, CameraConfig};
use crate::config::{self, Config, Device, Fault, Faults, Source};
use crate::hub::Hub;
use crate::model::Timestamp;
use crate::sinks::history::Recorder;
use crate::sinks::{mqtt, ua_server};
use crate::sources::{Place, Table};
use crate::store;
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;

pub(super) struct Plan {
    pub(super) device: Device,
    pub(super) update: config::Update,
    /// Where the program keeps its data, by command line or configuration.
    pub(super) data_dir: PathBuf,
    pub(super) cameras: cameras::Config,
    pub(super) camera: Vec<CameraConfig>,
    pub(super) sources: Vec<Table>,
    pub(super) ua_server: Option<ua_server::Config>,
    pub(super) mqtt: Option<mqtt::Config>,
    /// If anything is recorded.
    pub(super) store: Option<store::Config>,
    pub(super) history: Option<store::history::Config>,
    source: Source,
    ua_server_at: Range<usize>,
    missing: Vec<Fault>,
    /// What is allowed and should not stay so.
    pub(super) warnings: Vec<Fault>,
}

impl Plan {
    pub(super) fn load(options: &Options) -> Result<Self, Faults> {
        Self::of(options, config::load(&options.config)?)
    }

    /// Of a text that is not in the file yet.
    pub(super) fn of_text(options: &Options, text: String) -> Result<Self, Faults> {
        Self::of(options, config::parse(&options.config, text)?)
    }

    fn of(options: &Options, (config, source): (Config, Source)) -> Result<Self, Faults> {
        let warnings = config.warnings(&source);
        let tables = config.sources();
        let Config { device, update, ua_server, mqtt, store, history, cameras, camera, .. } = config;
        let mut faults = Vec::new();
        if let Some(Err(error)) = device.log.as_deref().map(logs::check) {
            faults.push(source.fault("[device]", &source.header("[device]"), "log", error.to_string()));
        }
        let data_dir = options.data_dir.clone().unwrap_or_else(|| device.data_dir.clone());
        let place = Place { data_dir: data_dir.clone(), device_name: device.name.clone() };
        let records = history.as_ref().map(|table| ("[history]", table.span()));
        let records = records.or(mqtt.as_ref().map(|table| ("[mqtt]", table.span())));
        let store = records.is_some().then(|| store.map(Spanned::into_inner).unwrap_or_default());
        faults.extend(trial(&source, records, &tables, &place));
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let missing = missing_devices(&camera, &source);
        let ua_server_at = ua_server.as_ref().map(Spanned::span).unwrap_or_default();
        let ua_server = ua_server.map(|table| {
            let mut table = table.into_inner();
            if let Some(port) = options.ua_port {
                table.listen.set_port(port);
            }
            table
        });
        Ok(Self {
            device,
            update,
            data_dir,
            cameras: cameras.map(Spanned::into_inner).unwrap_or_default(),
            camera: camera.into_iter().map(Spanned::into_inner).collect(),
            sources: tables.into_iter().map(|(_, table)| table).collect(),
            ua_server,
            mqtt: mqtt.map(Spanned::into_inner),
            store,
            history: history.map(Spanned::into_inner),
            source,
            ua_server_at,
            missing,
            warnings,
        })
    }

    pub(super) fn text(&self) -> &str {
        self.source.text()
    }

    pub(super) fn facts(&self, applied: Timestamp) -> Facts {
        Facts {
            hash: hash(self.text()),
            applied,
            pending_until: None,
            mqtt_certificate: self.mqtt.as_ref().and_then(|mqtt| mqtt.client_cert_file.clone()),
            has_ua_server: self.ua_server.is_some(),
        }
    }

    pub(super) fn place(&self) -> Place {
        Place { data_dir: self.data_dir.clone(), device_name: self.device.name.clone() }
    }

    pub(super) fn warn(&self) {
        for fault in self.warnings.iter().chain(&self.missing) {
            tracing::warn!("{fault}.");
        }
    }

    /// A port that is taken is a fault of the line that names it.
    pub(super) fn ua_server_fault(&self, error: &ua_server::SetupError) -> Fault {
        let fault = |key, what| self.source.fault("[ua_server]", &self.ua_server_at, key, what);
        match error {
            ua_server::SetupError::Bind(bind) => {
                fault("listen", format!("{bind}; choose another with `listen`, or with --ua-port"))
            }
            other => fault("", other.to_string()),
        }
    }

    /// Of a key that cannot change while the program runs.
    pub(super) fn device_fault(&self, key: &'static str, what: String) -> Fault {
        self.source.fault("[device]", &self.source.header("[device]"), key, what)
    }
}

/// Whether all sources can have the tags that they want. Cameras have a folder and names of their own.
fn trial(
    source: &Source,
    records: Option<(&'static str, Range<usize>)>,
    tables: &[(Range<usize>, Table)],
    place: &Place,
) -> Vec<Fault> {
    let hub = Hub::new(Clock::real());
    let mut faults = Vec::new();
    let recorder = records.map(|(table, span)| (table, span, Recorder::register_tags(&hub)));
    if let Some((table, span, Err(error))) = &recorder {
        faults.push(source.fault(table, span, "", error.to_string()));
    }
    // Kept, because a source that ends leaves its tags to others.
    let mut registered = Vec::with_capacity(tables.len());
    for (span, table) in tables {
        match table.register(place, &hub) {
            Ok(one) => registered.push(one),
            Err(error) => faults.push(source.fault(table.table(), span, "name", error.to_string())),
        }
    }
    faults
}

/// Devices that do not exist. Not a fault: a camera may be plugged in later. But it may as well be a typing error.
fn missing_devices(cameras: &[Spanned<CameraConfig>], source: &Source) -> Vec<Fault> {
    let missing = cameras.iter().filter(|table| {
        let device = &table.get_ref().device;
        device.is_absolute() && !device.exists()
    });
    let fault = |table: &Spanned<CameraConfig>| {
        let device = table.get_ref().device.display();
        let what = format!("{device} does not exist (yet); `vedette cameras` lists what there is");
        source.fault("[[camera]]", &table.span(), "device", what)
    };
    missing.map(fault).collect()
}
