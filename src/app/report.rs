//! What a fleet wants to know of each device, as tags `device/...` that are always there.
//!
//!     device/Version, Slot, Uptime, BootReason, Clock
//!     device/Configuration/Hash, Applied, Pending, PendingUntil
//!     device/Provisioning                               what became of vedette.toml on the boot partition
//!     device/UpdateKeys                                 whose signatures it takes: its own, or development keys
//!     device/DataLost                                   why nothing is kept, where the data partition could not be mounted
//!     device/Certificates/UA, MQTT                      when they expire
//!     device/Sources/<name>/State, LastError            of each source, and of each part of one that can be lost by itself
//!
//! Memory, disks and temperatures are `system/...`; the cameras say `cameras/<name>/State` themselves. A sample is published
//! when a value changes; only the uptime goes on by itself. What somebody else decides (the configuration) comes as
//! [`Facts`]; sources come from the hub, and their tags go when they go.

use crate::base::Stop;
use crate::device::{self, keys, provision};
use crate::hub::{Hub, RegisterError, Registration, SourceState};
use crate::model::{DataType, Quality, Sample, Status, TagId, TagName, TagNameError, TagSpec, Timestamp, Value};
use crate::opcua::certificate::STORE_CERTIFICATE;
use crate::opcua::trust;
use crate::opcua::trust::x509::{self, Cert};
use crate::sources::system::clock;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

/// The owner of these tags.
const OWNER: &str = "device";
/// A source that is lost is shown within it; one that begins anew may be gone for so long.
const LOOK: Duration = Duration::from_secs(1);
/// How often the uptime is said, and certificates are looked at.
const SELDOM: Duration = Duration::from_secs(60);

/// What of the configuration is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// SHA-256 of the text that runs.
    pub(super) hash: String,
    pub(super) applied: Timestamp,
    /// Until when the one that runs must be confirmed, if it is on trial.
    pub(super) pending_until: Option<Timestamp>,
    /// The uplink's certificate, if it has one.
    pub(super) mqtt_certificate: Option<PathBuf>,
    pub(super) has_ua_server: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error(transparent)]
    Tag(#[from] RegisterError),
}

pub(super) struct Reporter {
    hub: Hub,
    tags: Registration,
    facts: watch::Receiver<Facts>,
    data_dir: PathBuf,
    boot_reason: &'static str,
    slot: String,
    started: Instant,
    /// When what changes seldom was looked at.
    looked: Option<Instant>,
    sources: BTreeMap<Arc<str>, Source>,
}

struct Source {
    /// `None`: somebody else has these names.
    tags: Option<Registration>,
    /// It was not there at the last look.
    is_missing: bool,
}

fn specs() -> Result<Vec<TagSpec>, TagNameError> {
    let spec = |name: &str, data_type, description: &str| {
        Ok(TagSpec::new(TagName::new(&format!("{OWNER}/{name}"))?, data_type).described(description))
    };
    use DataType::{DateTime, String, UInt64};
    // In the order of `Reporter::values`.
    Ok(vec![
        spec("Version", String, "Version of this software")?,
        spec("Slot", String, "The slot of RAUC that runs; empty without RAUC")?,
        spec("Uptime", UInt64, "Time since this software started")?.unit("s"),
        spec("BootReason", String, "Why it started, as far as that can be known")?,
        spec("Clock", String, "synchronized, not set, or unknown")?,
        spec("Configuration/Hash", String, "SHA-256 of the configuration that runs")?,
        spec("Configuration/Applied", DateTime, "Since when it runs")?,
        spec("Configuration/Pending", String, "Its hash again while it is on trial; else empty")?,
        spec("Configuration/PendingUntil", String, "Until when it must be confirmed; else empty")?,
        spec("Certificates/UA", DateTime, "When the certificate of the UA server expires")?,
        spec("Certificates/MQTT", DateTime, "When the client certificate of the uplink expires")?,
        spec("Provisioning", String, "What became of vedette.toml on the boot partition; empty without one")?,
        spec("UpdateKeys", String, "own, development (whoever built an image may update it), or empty without RAUC")?,
        spec("DataLost", String, "Why it runs from memory and keeps nothing; empty where all is well")?,
    ])
}

impl Reporter {
    pub(super) fn register(
        hub: &Hub,
        data_dir: &Path,
        boot_reason: &'static str,
        facts: watch::Receiver<Facts>,
    ) -> Result<Self, ReportError> {
        let tags = hub.register(OWNER, specs()?)?;
        let mut reporter = Self {
            hub: hub.clone(),
            tags,
            facts,
            data_dir: data_dir.to_owned(),
            boot_reason,
            slot: device::slot(),
            started: Instant::now(),
            looked: None,
            sources: BTreeMap::new(),
        };
        reporter.look();
        Ok(reporter)
    }

    /// Until the stop.
    pub(super) async fn run(&mut self, stop: &Stop) {
        let mut ticks = tokio::time::interval(LOOK);
        let mut sources = self.hub.sources_changed();
        // Since the tags were registered everything has started, and a first start has made its certificate.
        self.looked = None;
        loop {
            let is_tick = tokio::select! {
                _ = ticks.tick() => true,
                Ok(()) = sources.changed() => false,
                Ok(()) = self.facts.changed() => {
                    self.looked = None;
                    false
                }
                () = stop.stopped() => return,
            };
            self.look();
            if is_tick {
                self.forget();
            }
        }
    }

    fn look(&mut self) {
        let mut samples = Vec::new();
        let is_seldom = self.looked.is_none_or(|at| at.elapsed() >= SELDOM);
        if is_seldom {
            self.looked = Some(Instant::now());
            let values = self.values();
            samples.extend(self.tags.tags().iter().copied().zip(values));
        }
        let states = self.hub.sources();
        for (name, source) in &mut self.sources {
            source.is_missing |= states.iter().all(|(known, _)| known != name);
        }
        for (name, state) in states {
            let hub = &self.hub;
            let source = self.sources.entry(name.clone()).or_insert_with(|| Source::register(hub, &name));
            source.is_missing = false;
            let tags = source.tags.iter().flat_map(|tags| tags.tags());
            samples.extend(tags.copied().zip(in_words(state).map(Ok)));
        }
        self.publish(samples);
    }

    /// The tags of sources that have been gone for a while.
    fn forget(&mut self) {
        let known = self.hub.sources();
        let is_gone =
            |name: &Arc<str>, source: &mut Source| source.is_missing && known.iter().all(|(known, _)| known != name);
        let gone = self.sources.extract_if(.., is_gone).filter_map(|(_, source)| source.tags);
        gone.for_each(Registration::retire);
    }

    /// What is otherwise than before.
    fn publish(&self, values: Vec<(TagId, Result<Value, Quality>)>) {
        let now = self.hub.now();
        let changed = values.into_iter().filter_map(|(tag, value)| {
            let sample = match value {
                Ok(value) => Sample::good(tag, value, now),
                Err(quality) => Sample::bad(tag, quality, now),
            };
            let before = self.hub.read(tag);
            ((before.value, before.quality) != (sample.value.clone(), sample.quality.clone())).then_some(sample)
        });
        self.hub.publish(changed.collect());
    }

    fn values(&self) -> Vec<Result<Value, Quality>> {
        let facts = self.facts.borrow().clone();
        let until = facts.pending_until.map(|until| until.to_string());
        let pending = if until.is_some() { facts.hash.clone() } else { String::new() };
        let ua = self.data_dir.join(trust::PKI).join(trust::STORE).join(STORE_CERTIFICATE);
        vec![
            Ok(Value::string(env!("CARGO_PKG_VERSION"))),
            Ok(Value::string(self.slot.as_str())),
            Ok(Value::UInt64(self.started.elapsed().as_secs())),
            Ok(Value::string(self.boot_reason)),
            Ok(Value::string(clock::state(self.hub.now(), Path::new(clock::TIMESYNC)))),
            Ok(Value::string(facts.hash)),
            Ok(Value::DateTime(facts.applied)),
            Ok(Value::string(pending)),
            Ok(Value::string(until.unwrap_or_default())),
            expiry(facts.has_ua_server.then_some(ua), "there is no UA server"),
            expiry(facts.mqtt_certificate, "the uplink has no client certificate"),
            Ok(Value::string(provision::outcome(&self.data_dir))),
            Ok(Value::string(keys::kind(Path::new(keys::KEYRING)))),
            Ok(Value::string(device::data_lost().unwrap_or_default())),
        ]
    }
}

impl Source {
    fn register(hub: &Hub, name: &str) -> Self {
        let spec = |tag: &str, description: &str| {
            let name = TagName::new(&format!("{OWNER}/Sources/{name}/{tag}"))?;
            Ok(TagSpec::new(name, DataType::String).described(description))
        };
        let specs = || -> Result<_, ReportError> {
            let state = spec("State", "running or lost");
            let error: Result<_, TagNameError> = spec("LastError", "Why it was lost last; empty if it never was");
            Ok(hub.register(OWNER, vec![state?, error?])?)
        };
        let tags = specs().inspect_err(|error| warn!(source = name, %error, "The state of a source can have no tags."));
        Self { tags: tags.ok(), is_missing: false }
    }
}

fn in_words(state: SourceState) -> [Value; 2] {
    let word = if state.is_lost { "lost" } else { "running" };
    [Value::string(word), Value::string(state.last_error.unwrap_or_default())]
}

/// The end of the first certificate in a file, DER or PEM.
fn expiry(file: Option<PathBuf>, why_none: &str) -> Result<Value, Quality> {
    let Some(file) = file else { return Err(Quality::new(Status::BAD_NOT_SUPPORTED, why_none)) };
    let bad = |error: &dyn std::fmt::Display| {
        Quality::new(Status::BAD_CERTIFICATE_INVALID, format!("{}: {error}", file.display()))
    };
    let bytes = fs::read(&file).map_err(|error| bad(&error))?;
    let blocks = x509::blocks(&bytes, x509::CERTIFICATE).map_err(|error| bad(&error))?;
    let first = blocks.first().ok_or_else(|| bad(&"there is no certificate in it"))?;
    let certificate = Cert::from_der(first).map_err(|error| bad(&error))?;
    Ok(Value::DateTime(certificate.not_after().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};
    use std::time::UNIX_EPOCH;

    struct Device {
        hub: Hub,
        facts: watch::Sender<Facts>,
        reporter: Reporter,
    }

    fn device(data_dir: &Path) -> Device {
        let hub = Hub::new(Clock::simulated(UNIX_EPOCH + Duration::from_secs(1_795_232_569)));
        let first = Facts {
            hash: "a".into(),
            applied: hub.now(),
            pending_until: None,
            mqtt_certificate: None,
            has_ua_server: false,
        };
        let (facts, receiver) = watch::channel(first);
        let reporter = Reporter::register(&hub, data_dir, "first start", receiver).unwrap();
        Device { hub, facts, reporter }
    }

    fn text(hub: &Hub, name: &str) -> Option<String> {
        let sample = hub.read(hub.find(&TagName::new(&format!("device/{name}")).unwrap())?);
        match sample.value {
            Value::String(Some(text)) => Some(text.to_string()),
            Value::DateTime(time) => Some(time.to_string()),
            _ => sample.quality.reason.map(|reason| reason.to_string()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_device_is_and_runs_is_there_from_the_start_and_changes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let Device { hub, facts, mut reporter } = device(folder.path());
        assert_eq!(text(&hub, "Version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(text(&hub, "BootReason").as_deref(), Some("first start"));
        assert_eq!(text(&hub, "Certificates/MQTT").as_deref(), Some("the uplink has no client certificate"));
        let pem = folder.path().join("own.pem");
        fs::write(&pem, "no certificate").unwrap();
        let tasks = Tasks::new("test");
        let (stop, seen) = (tasks.stop_signal(), hub.clone());
        tokio::select! {
            () = reporter.run(&stop) => {}
            () = async move {
                tokio::time::sleep(LOOK / 2).await;
                let mut every = seen.every(8);
                facts.send_modify(|facts| {
                    facts.pending_until = Some(Timestamp::UNIX_EPOCH);
                    facts.mqtt_certificate = Some(pem.clone());
                });
                tokio::time::sleep(LOOK / 4).await;
                assert_eq!(text(&seen, "Configuration/Pending").as_deref(), Some("a"));
                assert_eq!(text(&seen, "Configuration/PendingUntil").as_deref(), Some("1970-01-01T00:00:00.000Z"));
                assert!(text(&seen, "Certificates/MQTT").unwrap().contains("own.pem"));
                assert_eq!(every.try_next().unwrap().len(), 3, "what did not change is not said again");
                tokio::time::sleep(LOOK * 10).await;
                assert!(every.try_next().is_none());
                fs::write(&pem, include_bytes!("../../tests/fixtures/pki/direct.der")).unwrap();
                tokio::time::sleep(SELDOM).await;
                assert!(text(&seen, "Certificates/MQTT").unwrap().ends_with('Z'));
            } => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_the_start_makes_is_seen_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let Device { hub, facts, mut reporter } = device(folder.path());
        facts.send_modify(|facts| facts.has_ua_server = true);
        let own = folder.path().join(trust::PKI).join(trust::STORE).join(STORE_CERTIFICATE);
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        fs::write(own, include_bytes!("../../tests/fixtures/pki/direct.der")).unwrap();
        let tasks = Tasks::new("test");
        let stop = tasks.stop_signal();
        tokio::select! {
            () = reporter.run(&stop) => {}
            () = tokio::time::sleep(LOOK / 2) => {}
        }
        assert!(text(&hub, "Certificates/UA").unwrap().ends_with('Z'));
    }

    #[tokio::test(start_paused = true)]
    async fn each_source_has_its_state_while_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let Device { hub, mut reporter, facts: _facts } = device(folder.path());
        let tasks = Tasks::new("test");
        let (stop, plc) = (tasks.stop_signal(), Tasks::new("plc"));
        let running = hub.source_runs("plc", false, &plc.stop_signal());
        let (own, seen) = (hub.clone(), hub.clone());
        tokio::select! {
            () = reporter.run(&stop) => {}
            () = async move {
                tokio::time::sleep(LOOK).await;
                assert_eq!(text(&seen, "Sources/plc/State").as_deref(), Some("running"));
                assert_eq!(text(&seen, "Sources/plc/LastError").as_deref(), Some(""));
                own.source_lost("plc", "no route to host");
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert_eq!(text(&seen, "Sources/plc/State").as_deref(), Some("lost"));
                own.source_back("plc");
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert_eq!(text(&seen, "Sources/plc/State").as_deref(), Some("running"));
                assert_eq!(text(&seen, "Sources/plc/LastError").as_deref(), Some("no route to host"));
                drop(plc);
                drop(running);
                tokio::time::sleep(LOOK * 3).await;
                assert_eq!(text(&seen, "Sources/plc/State"), None, "gone with its source");
            } => {}
        }
    }
}
