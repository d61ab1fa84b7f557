//! What runs, part by part, each with tasks of its own: so one can change while the others go on.
//!
//!     start     register all tags and cameras, so that sinks see them all at once; then sinks; then sources
//!     change    try what can fail (a port, a certificate) ─► sources: stop, start ─► retire what nobody has any more
//!               ─► mqtt: stop ─► recorder, store: stop, start ─► mqtt: start ─► answer ─► ua_server: stop, start
//!     stop      cameras and sources, then sinks, which say good-bye with what is left, then the store
//!
//! A part whose table did not change is not touched, unless it could not be started before: its sessions, its leases and its values go on. The UA server comes
//! last, because whoever asked for the change may have asked through it.

use super::plan::Plan;
use super::report::Facts;
use super::{Options, StartError};
use crate::base::{Clock, Selection, Tasks, logs};
use crate::cameras::{self, Cameras};
use crate::config::Faults;
use crate::hub::Hub;
use crate::model::{EventKind, Timestamp};
use crate::sinks::history::{Recorder, RecorderError, Wanted};
use crate::sinks::mqtt::{self, Status, StatusError};
use crate::sinks::ua_server;
use crate::sources::{SourceError, Table};
use crate::store::{History, Store};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, warn};

/// How long a part gets to end.
const STOP: Duration = Duration::from_secs(5);
/// How long the answer to a change gets on its way to a UA client before the server that carries it stops.
const ANSWER: Duration = Duration::from_millis(300);

pub(super) struct Running {
    hub: Hub,
    clock: Clock,
    options: Options,
    plan: Plan,
    cameras: Cameras,
    /// By [`Table::label`].
    sources: HashMap<String, Tasks>,
    ua_server: Option<(Arc<ua_server::Setup>, Tasks)>,
    mqtt: Option<Tasks>,
    recording: Option<Recording>,
}

/// The recorder, for history and uplink, and the store that it fills, which ends after it.
struct Recording {
    wanted: Wanted,
    recorder: Tasks,
    store: Tasks,
}

/// Starts a source whose tags are registered.
type Starter = Box<dyn FnOnce() -> Tasks>;

/// A change that has been made but for the UA server.
pub(super) struct Changed {
    /// What changed, for people.
    pub(super) summary: String,
    ua_server: Option<NewServer>,
}

/// What the UA server becomes.
enum NewServer {
    None,
    Ready(Arc<ua_server::Setup>),
    /// It wants the port that the old one has at another address, so the old one has to end first.
    AfterOld,
}

impl Running {
    pub(super) fn start(plan: Plan, options: Options, hub: Hub, clock: &Clock) -> Result<Self, StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Register(error.to_string());
        let wanted = plan.store.as_ref().map(|_| wanted(&plan, new_store(&plan, clock)));
        let history = wanted.as_ref().and_then(|wanted| wanted.history.clone());
        let setup = match &plan.ua_server {
            Some(config) => Some(set_up(&plan, config, history, None).map_err(|error| match error {
                ua_server::SetupError::Bind(_) => Faults(vec![plan.ua_server_fault(&error)]).into(),
                other => StartError::Setup(other),
            })?),
            None => None,
        };
        let cameras = Cameras::start(&plan.cameras, &plan.camera, &hub, clock).map_err(|error| failed(&error))?;
        let sources = plan.sources.iter().map(|table| Ok((table.label(), source(table, &plan, &hub)?)));
        let sources: Vec<(String, Starter)> =
            sources.collect::<Result<_, SourceError>>().map_err(|error| failed(&error))?;
        let recording = wanted.map(|wanted| record(wanted, None, &hub)).transpose().map_err(|error| failed(&error))?;
        let store = recording.as_ref().map(|recording| recording.wanted.store.clone());
        let mqtt = uplink(&plan, store, &hub).map_err(|error| failed(&error))?;

        Ok(Self {
            ua_server: setup.map(|setup| serve(setup, &hub)),
            mqtt,
            recording,
            sources: sources.into_iter().map(|(label, start)| (label, start())).collect(),
            cameras,
            hub,
            clock: clock.clone(),
            options,
            plan,
        })
    }

    /// Reads the configuration anew and makes what runs be so. A fault, and everything stays as it is.
    pub(super) async fn change(&mut self) -> Result<Option<Changed>, Faults> {
        let mut plan = Plan::load(&self.options)?;
        if plan.data_dir != self.plan.data_dir {
            let (old, new) = (self.plan.data_dir.display(), plan.data_dir.display());
            let what = format!("cannot change from {old:?} to {new:?} while the program runs; restart it");
            return Err(Faults(vec![plan.device_fault("data_dir", what)]));
        }
        let mut changes = self.plan.changes_to(&plan);
        changes.extend(self.to_try_again(&plan));
        if changes.is_empty() {
            self.plan = plan;
            return Ok(None);
        }
        let is_store_other = self.is_store_other(&plan);
        let is_recording_other = is_store_other || self.is_recording_other(&plan);
        let store = self.recording.as_ref().map(|recording| recording.wanted.store.clone());
        let store = store.filter(|_| !is_store_other).unwrap_or_else(|| new_store(&plan, &self.clock));
        let wanted = plan.store.as_ref().map(|_| wanted(&plan, store));
        let history = wanted.as_ref().and_then(|wanted| wanted.history.clone());
        let ua_server =
            self.try_ua_server(&plan, history).map_err(|error| Faults(vec![plan.ua_server_fault(&error)]))?;
        // From here on nothing is refused.
        plan.warn();
        if self.options.log.is_none() && plan.device.log != self.plan.device.log {
            logs::set(plan.device.log.as_deref());
        }
        std::mem::swap(&mut self.plan, &mut plan);
        let mut problems = self.change_sources(&plan).await;
        // The uplink reads from the store, so it ends before it and begins after it.
        let is_uplink_other = is_store_other
            || self.plan.mqtt != plan.mqtt
            || self.plan.mqtt.is_some() != self.mqtt.is_some()
            || self.plan.device.name != plan.device.name;
        if is_uplink_other && let Some(tasks) = self.mqtt.take() {
            tasks.stop(STOP).await;
        }
        if is_recording_other {
            problems.extend(self.change_recording(wanted, is_store_other).await);
        }
        if is_uplink_other {
            let store = self.recording.as_ref().map(|recording| recording.wanted.store.clone());
            self.mqtt = uplink(&self.plan, store, &self.hub).unwrap_or_else(|error| {
                problems.push(format!("[mqtt]: {error}"));
                None
            });
            if self.mqtt.is_none() {
                self.hub.end_conditions("mqtt");
                self.hub.retire();
            }
        }
        let mut summary = changes.join(", ");
        for problem in problems {
            warn!(%problem, "A part of the configuration could not be applied.");
            summary = format!("{summary}; but: {problem}");
        }
        Ok(Some(Changed { summary, ua_server }))
    }

    /// Of the configuration that runs.
    pub(super) fn text(&self) -> &str {
        self.plan.text()
    }

    pub(super) fn facts(&self, applied: Timestamp) -> Facts {
        self.plan.facts(applied)
    }

    pub(super) fn led(&self) -> Option<&str> {
        self.plan.device.led.as_deref()
    }

    pub(super) fn update_ca_file(&self) -> Option<&std::path::Path> {
        self.plan.update.ca_file.as_deref()
    }

    /// As it was said on the command line, or in the configuration.
    pub(super) fn log_filter(&self) -> Option<&str> {
        self.options.log.as_deref().or(self.plan.device.log.as_deref())
    }

    /// What is left of a change, after it was answered.
    pub(super) async fn finish(&mut self, changed: Changed) {
        let Some(server) = changed.ua_server else { return };
        tokio::time::sleep(ANSWER).await;
        let old = match self.ua_server.take() {
            Some((old, tasks)) => {
                tasks.stop(STOP).await;
                Some(old)
            }
            None => None,
        };
        let setup = match server {
            NewServer::None => None,
            NewServer::Ready(setup) => Some(setup),
            NewServer::AfterOld => self.set_up_after(old),
        };
        self.ua_server = setup.map(|setup| serve(setup, &self.hub));
    }

    /// What is wanted as before but could not be started then, in the words of the file.
    fn to_try_again(&self, plan: &Plan) -> Vec<String> {
        let old = &self.plan;
        let tables = [
            ("[ua_server]", plan.ua_server.is_some() && plan.ua_server == old.ua_server && self.ua_server.is_none()),
            ("[mqtt]", plan.mqtt.is_some() && plan.mqtt == old.mqtt && self.mqtt.is_none()),
            ("[store]", plan.store.is_some() && plan.store == old.store && self.recording.is_none()),
        ];
        let tables = tables.into_iter().filter(|(_, is_missing)| *is_missing).map(|(table, _)| table.to_owned());
        let is_missing = |one: &&Table| old.sources.contains(one) && !self.sources.contains_key(&one.label());
        let sources = plan.sources.iter().filter(is_missing).map(in_words);
        tables.chain(sources).map(|what| format!("{what} tried again")).collect()
    }

    fn is_store_other(&self, plan: &Plan) -> bool {
        plan.store != self.plan.store || plan.store.is_some() != self.recording.is_some()
    }

    /// What is recorded, not where.
    fn is_recording_other(&self, plan: &Plan) -> bool {
        let sent = |plan: &Plan| plan.mqtt.as_ref().map(|mqtt| mqtt.tags.clone());
        plan.history != self.plan.history || sent(plan) != sent(&self.plan)
    }

    fn is_history_other(&self, plan: &Plan) -> bool {
        plan.history != self.plan.history || (plan.history.is_some() && self.is_store_other(plan))
    }

    /// `None`: it stays as it is.
    fn try_ua_server(&self, plan: &Plan, history: Option<History>) -> Result<Option<NewServer>, ua_server::SetupError> {
        let runs = plan.ua_server.is_some() == self.ua_server.is_some();
        let is_same = runs && plan.ua_server == self.plan.ua_server && !self.is_history_other(plan);
        if is_same && plan.device.name == self.plan.device.name {
            return Ok(None);
        }
        let Some(config) = &plan.ua_server else { return Ok(Some(NewServer::None)) };
        let old = self.ua_server.as_ref().map(|(setup, _)| &**setup);
        match set_up(plan, config, history, old) {
            Ok(setup) => Ok(Some(NewServer::Ready(setup))),
            Err(ua_server::SetupError::Bind(error)) if error.is_ours() => Ok(Some(NewServer::AfterOld)),
            Err(error) => Err(error),
        }
    }

    /// If it fails then the old one is made again.
    fn set_up_after(&mut self, old: Option<Arc<ua_server::Setup>>) -> Option<Arc<ua_server::Setup>> {
        let before = old.map(|old| old.config().clone());
        let config = self.plan.ua_server.clone()?;
        let error = match set_up(&self.plan, &config, self.history(), None) {
            Ok(setup) => return Some(setup),
            Err(error) => self.plan.ua_server_fault(&error),
        };
        error!(%error, "Could not change the UA server; going back to what it was.");
        self.hub.raise(EventKind::ConfigurationRefused, "configuration", error.to_string());
        self.plan.ua_server = before;
        let restored = set_up(&self.plan, self.plan.ua_server.as_ref()?, self.history(), None);
        restored.inspect_err(|error| error!(%error, "Could not go back either; there is no UA server now.")).ok()
    }

    /// Stops what is not in the plan or was otherwise in `old`, and starts what is. What went wrong.
    async fn change_sources(&mut self, old: &Plan) -> Vec<String> {
        let (plan, hub) = (&self.plan, &self.hub);
        let mut problems: Vec<String> = Vec::new();
        // Those that are gone first, because others may want the names of their tags.
        let is_other = |label: &str| !plan.sources.iter().any(|new| new.label() == label && old.sources.contains(new));
        let (is_gone, others): (Vec<String>, Vec<String>) = self
            .sources
            .keys()
            .filter(|label| is_other(label))
            .cloned()
            .partition(|label| plan.sources.iter().all(|new| new.label() != *label));
        end(&mut self.sources, &is_gone).await;
        // Before the others end: the tags of those that only change keep their places for their next owner.
        hub.retire();
        end(&mut self.sources, &others).await;
        for table in &plan.sources {
            let label = table.label();
            if self.sources.contains_key(&label) {
                continue;
            }
            match source(table, plan, hub) {
                Ok(start) => drop(self.sources.insert(label, start())),
                Err(error) => problems.push(format!("{}: {error}", in_words(table))),
            }
        }
        if plan.cameras != old.cameras || plan.camera != old.camera {
            let failed = self.cameras.apply(&plan.cameras, &plan.camera, STOP).await;
            problems.extend(failed.into_iter().map(|error| format!("[[camera]]: {error}")));
        }
        hub.retire();
        problems
    }

    fn history(&self) -> Option<History> {
        self.recording.as_ref()?.wanted.history.clone()
    }

    /// The old store, if it does not go on, lets go of its files before the new one takes them. What went wrong.
    async fn change_recording(&mut self, wanted: Option<Wanted>, is_store_other: bool) -> Option<String> {
        let mut store = None;
        if let Some(old) = self.recording.take() {
            old.recorder.stop(STOP).await;
            if is_store_other {
                old.store.stop(STOP).await;
            } else {
                store = Some(old.store);
            }
        }
        let recording = wanted.map(|wanted| record(wanted, store, &self.hub)).transpose();
        self.hub.retire();
        match recording {
            Ok(recording) => {
                self.recording = recording;
                None
            }
            Err(error) => Some(format!("[store]: {error}")),
        }
    }

    pub(super) async fn stop(self) {
        let sources = self.sources.into_values().map(|tasks| tasks.stop(STOP));
        tokio::join!(self.cameras.stop(STOP), join_all(sources));
        let sinks = self.ua_server.into_iter().map(|(_, tasks)| tasks).chain(self.mqtt);
        join_all(sinks.map(|tasks| tasks.stop(STOP))).await;
        if let Some(recording) = self.recording {
            recording.stop().await;
        }
    }
}

impl Recording {
    async fn stop(self) {
        self.recorder.stop(STOP).await;
        self.store.stop(STOP).await;
    }
}

impl Plan {
    /// What another configuration has otherwise, in the words of the file.
    fn changes_to(&self, new: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let mut table = |name: &str, is_other: bool| {
            if is_other {
                changes.push(format!("{name} changed"));
            }
        };
        table("[device] name", self.device.name != new.device.name);
        table("[device] log", self.device.log != new.device.log);
        table("[update]", self.update != new.update);
        table("[ua_server]", self.ua_server != new.ua_server);
        table("[mqtt]", self.mqtt != new.mqtt);
        table("[store]", self.store.is_some() && new.store.is_some() && self.store != new.store);
        table("[history]", self.history != new.history);
        table("[cameras]", self.cameras != new.cameras);
        differences(&self.camera, &new.camera, |camera| format!("[[camera]] {}", camera.name), &mut changes);
        differences(&self.sources, &new.sources, in_words, &mut changes);
        changes
    }
}

/// `[system]`, `[[simulator]] demo`.
fn in_words(table: &Table) -> String {
    match table {
        Table::System(_) => table.table().to_owned(),
        other => format!("{} {}", other.table(), other.name()),
    }
}

fn differences<T: PartialEq>(old: &[T], new: &[T], name: fn(&T) -> String, changes: &mut Vec<String>) {
    let names = |all: &[T]| all.iter().enumerate().map(|(at, one)| (name(one), at)).collect::<HashMap<_, _>>();
    let (old_names, new_names) = (names(old), names(new));
    for name in old.iter().map(name).filter(|name| !new_names.contains_key(name)) {
        changes.push(format!("{name} removed"));
    }
    for one in new {
        let name = name(one);
        match old_names.get(&name) {
            None => changes.push(format!("{name} added")),
            Some(&at) if old[at] != *one => changes.push(format!("{name} changed")),
            Some(_) => {}
        }
    }
}

fn set_up(
    plan: &Plan,
    config: &ua_server::Config,
    history: Option<History>,
    before: Option<&ua_server::Setup>,
) -> Result<Arc<ua_server::Setup>, ua_server::SetupError> {
    let name = &plan.device.name;
    ua_server::Setup::new(config.clone(), name, cameras::specs(), history, &plan.data_dir, before, Clock::real())
        .map(Arc::new)
}

fn serve(setup: Arc<ua_server::Setup>, hub: &Hub) -> (Arc<ua_server::Setup>, Tasks) {
    let tasks = Tasks::new("ua_server");
    let (served, hub) = (setup.clone(), hub.clone());
    tasks.spawn("ua_server", move |stop| ua_server::run(served.clone(), hub.clone(), stop));
    (setup, tasks)
}

/// Opens nothing yet.
fn new_store(plan: &Plan, clock: &Clock) -> Store {
    // Where the history was before there was an uplink.
    Store::new(plan.store.clone().unwrap_or_default(), plan.data_dir.join("history"), clock.clone())
}

fn wanted(plan: &Plan, store: Store) -> Wanted {
    let uplink = plan.mqtt.as_ref().map(|mqtt| Selection::new(&mqtt.tags)).unwrap_or_default();
    let history = plan.history.as_ref().map(|config| History::new(config, store.clone()));
    Wanted { store, history, uplink }
}

/// With the tasks of the store if it runs already.
fn record(wanted: Wanted, store: Option<Tasks>, hub: &Hub) -> Result<Recording, RecorderError> {
    let own = Arc::new(Recorder::register(wanted.clone(), hub)?);
    let store = store.unwrap_or_else(|| {
        let (tasks, writer) = (Tasks::new("store"), wanted.store.clone());
        tasks.spawn_thread("store", move |stop| writer.run(stop));
        tasks
    });
    let recorder = Tasks::new("history");
    recorder.spawn("history", move |stop| {
        let own = own.clone();
        async move { own.run(&stop).await }
    });
    Ok(Recording { wanted, recorder, store })
}

/// With its tags registered.
fn uplink(plan: &Plan, store: Option<Store>, hub: &Hub) -> Result<Option<Tasks>, StatusError> {
    let Some(config) = plan.mqtt.clone() else { return Ok(None) };
    let setup = Arc::new(mqtt::Setup {
        config,
        device_name: plan.device.name.clone(),
        data_dir: plan.data_dir.clone(),
        store,
        status: Status::register(hub)?,
    });
    let (tasks, hub) = (Tasks::new("mqtt"), hub.clone());
    tasks.spawn("mqtt", move |stop| mqtt::run(setup.clone(), hub.clone(), stop));
    Ok(Some(tasks))
}

/// Stops these sources.
async fn end(sources: &mut HashMap<String, Tasks>, labels: &[String]) {
    let ending = labels.iter().filter_map(|label| sources.remove(label)).map(|tasks| tasks.stop(STOP));
    join_all(ending).await;
}

/// Registers its tags; it runs when the starter is called.
fn source(table: &Table, plan: &Plan, hub: &Hub) -> Result<Starter, SourceError> {
    let source = shared(table.register(&plan.place(), hub)?);
    let (label, name, tells, hub) = (table.label(), table.name().to_owned(), table.tells(), hub.clone());
    Ok(Box::new(move || {
        let tasks = Tasks::new(label.clone());
        tasks.spawn(label, move |stop| {
            let (source, hub, name) = (source.clone(), hub.clone(), name.clone());
            async move {
                let _running = hub.source_runs(&name, tells, &stop);
                source.lock().await.run(&stop).await
            }
        });
        tasks
    }))
}

/// A source outlives a failure of its task, because its tags are its own: the next run of the task takes it up again.
pub(super) fn shared<T>(source: T) -> Arc<tokio::sync::Mutex<T>> {
    Arc::new(tokio::sync::Mutex::new(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_could_not_be_started_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("vedette.toml");
        std::fs::write(&config, "[device]\nname = \"test\"\n[history]\n[[simulator]]\nname = \"demo\"\n").unwrap();
        let data_dir = Some(folder.path().to_owned());
        let options = Options { config, data_dir, ua_port: None, log: None };
        let (clock, plan) = (Clock::real(), Plan::load(&options).unwrap());
        let mut running = Running::start(plan, options, Hub::new(clock.clone()), &clock).unwrap();
        assert!(running.change().await.unwrap().is_none());

        running.sources.remove("simulator demo").unwrap().stop(STOP).await;
        running.recording.take().unwrap().stop().await;
        let changed = running.change().await.unwrap().unwrap();
        assert_eq!(changed.summary, "[store] tried again, [[simulator]] demo tried again");
        assert!(running.recording.is_some() && running.sources.contains_key("simulator demo"));
        assert!(running.change().await.unwrap().is_none());
        running.stop().await;
    }
}
