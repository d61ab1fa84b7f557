//! The wiring: every task, every channel, the order of start and stop.
//!
//!     prepare   configuration, data folder, port, certificate      a fault here is exit code 2, nothing has started
//!     register  all tags and cameras, so that sinks see them all at once; idle cameras do nothing
//!     start     sinks, then sources
//!     stop      cameras and sources, then sinks, which say good-bye with what is left
//!
//! Nothing here can fail after the start: a lost device, a broker that is away, a fault inside a protocol crate are
//! each the business of the task that meets it.

mod version;

use crate::base::{self, Clock, Tasks, logs};
use crate::cameras::CameraConfig;
use crate::config::{Config, Fault, Faults, Source};
use crate::hub::Hub;
use crate::model::EventKind;
use crate::sinks::history::Recorder;
use crate::sinks::{mqtt, ua_server};
use crate::sources::simulator::Simulator;
use crate::sources::system::System;
use crate::store::History;
use crate::{cameras, config};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use toml::Spanned;
use tracing::info;

/// What the command line says on top of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub config: PathBuf,
    pub data_dir: Option<PathBuf>,
    pub ua_port: Option<u16>,
    pub log: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Faults(#[from] Faults),
    #[error(transparent)]
    Log(#[from] logs::FilterError),
    #[error("cannot make the data folder {path:?}: {source}; name another with --data-dir or [device] data_dir")]
    DataDir { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Setup(#[from] ua_server::SetupError),
    #[error("cannot start: {0}")]
    Register(String),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
}

/// What there is to run, with everything tried that could be wrong with it.
struct Plan {
    config: Config,
    source: Source,
    data_dir: PathBuf,
    ua_server: Option<Arc<ua_server::Setup>>,
}

/// How long each group of tasks gets to end.
const STOP: Duration = Duration::from_secs(5);

/// Runs the appliance until SIGINT or SIGTERM.
pub async fn run(options: Options) -> Result<(), StartError> {
    let plan = prepare(&options)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;

    let clock = Clock::real();
    let hub = Hub::new(clock.clone());
    let (sources, sinks) = (Tasks::new("sources"), Tasks::new("sinks"));
    let history =
        plan.config.history.as_ref().map(|table| History::new(table.get_ref(), &plan.data_dir, clock.clone()));
    let starters = register(&plan, &hub, &clock, &sources)?;
    // Ends last, because it takes what the others still have.
    let store = Tasks::new("store");
    if let Some(history) = &history {
        start_history(history, &hub, &store, &sinks)?;
    }
    start_sinks(&plan, &hub, history, &sinks);
    for start in starters {
        start(&sources);
    }
    hub.raise(EventKind::ConfigurationApplied, "configuration", "The configuration was applied at start");
    version::note(&plan.data_dir, &hub);
    base::notify_ready();
    info!(device = %plan.config.device.name, version = env!("CARGO_PKG_VERSION"), "Vedette is up.");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("Stopping.");
    base::notify_stopping();
    sources.stop(STOP).await;
    sinks.stop(STOP).await;
    store.stop(STOP).await;
    Ok(())
}

/// Checks the configuration without starting anything.
pub fn check(path: &Path) -> Result<(), Faults> {
    config::load(path).map(|_| ())
}

/// The cameras that a configuration names.
pub fn cameras(path: &Path) -> Result<Vec<CameraConfig>, Faults> {
    let (config, _) = config::load(path)?;
    Ok(config.camera.into_iter().map(Spanned::into_inner).collect())
}

fn prepare(options: &Options) -> Result<Plan, StartError> {
    let (mut config, source) = config::load(&options.config)?;
    logs::start(options.log.as_deref().or(config.device.log.as_deref()))?;
    let data_dir = options.data_dir.clone().unwrap_or_else(|| config.device.data_dir.clone());
    std::fs::create_dir_all(&data_dir).map_err(|source| StartError::DataDir { path: data_dir.clone(), source })?;
    let ua_server = match config.ua_server.take() {
        Some(table) => Some(Arc::new(set_up_ua_server(table, options, &config, &source, &data_dir)?)),
        None => None,
    };
    warn_of_missing_devices(&config, &source);
    Ok(Plan { config, source, data_dir, ua_server })
}

fn set_up_ua_server(
    table: Spanned<ua_server::Config>,
    options: &Options,
    config: &Config,
    source: &Source,
    data_dir: &Path,
) -> Result<ua_server::Setup, StartError> {
    let span = table.span();
    let mut ua_config = table.into_inner();
    if let Some(port) = options.ua_port {
        ua_config.listen.set_port(port);
    }
    ua_server::Setup::new(ua_config, &config.device.name, cameras::specs(), data_dir).map_err(|error| match error {
        ua_server::SetupError::Bind(bind) => {
            let what = format!("{bind}; choose another with `listen`, or with --ua-port");
            let fault: Fault = source.fault("[ua_server]", &span, "listen", what);
            Faults(vec![fault]).into()
        }
        other => other.into(),
    })
}

/// Not a fault: a camera may be plugged in later. But it may as well be a typing error.
fn warn_of_missing_devices(config: &Config, source: &Source) {
    for table in &config.camera {
        let camera = table.get_ref();
        if camera.device.is_absolute() && !camera.device.exists() {
            let what =
                format!("{} does not exist (yet); `vedette cameras` lists what there is", camera.device.display());
            let fault = source.fault("[[camera]]", &table.span(), "device", what);
            tracing::warn!("{fault}.");
        }
    }
}

/// Starts a source whose tags are registered.
type Starter = Box<dyn FnOnce(&Tasks)>;

fn register(plan: &Plan, hub: &Hub, clock: &Clock, tasks: &Tasks) -> Result<Vec<Starter>, StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Register(error.to_string());
    let Config { cameras: common, camera, system, simulator, .. } = &plan.config;
    let common = common.as_ref().map(|table| table.get_ref().clone()).unwrap_or_default();
    let camera: Vec<_> = camera.iter().map(|table| table.get_ref().clone()).collect();
    cameras::spawn(&common, &camera, hub, clock, tasks).map_err(|error| failed(&error))?;

    let mut starters: Vec<Starter> = Vec::new();
    if let Some(table) = system {
        let system = System::register(table.get_ref().clone(), plan.data_dir.clone(), hub);
        let system = shared(system.map_err(|error| failed(&error))?);
        let hub = hub.clone();
        starters.push(Box::new(move |tasks| {
            tasks.spawn("system", move |stop| {
                let (system, hub) = (system.clone(), hub.clone());
                async move {
                    let _running = hub.source_runs("system", &stop);
                    system.lock().await.run(&stop).await
                }
            });
        }));
    }
    for table in simulator {
        let name = table.get_ref().name.clone();
        let simulator = Simulator::register(table.get_ref().clone(), hub);
        let fault = |error: &dyn std::fmt::Display| {
            Faults(vec![plan.source.fault("[[simulator]]", &table.span(), "name", error.to_string())])
        };
        let simulator = shared(simulator.map_err(|error| fault(&error))?);
        let (hub, source) = (hub.clone(), name.clone());
        starters.push(Box::new(move |tasks| {
            tasks.spawn(format!("simulator {name}"), move |stop| {
                let (simulator, hub, source) = (simulator.clone(), hub.clone(), source.clone());
                async move {
                    let _running = hub.source_runs(&source, &stop);
                    simulator.lock().await.run(&stop).await
                }
            });
        }));
    }
    Ok(starters)
}

/// A source outlives a failure of its task, because its tags are its own: the next run of the task takes it up again.
fn shared<T>(source: T) -> Arc<tokio::sync::Mutex<T>> {
    Arc::new(tokio::sync::Mutex::new(source))
}

fn start_history(history: &History, hub: &Hub, store: &Tasks, sinks: &Tasks) -> Result<(), StartError> {
    let recorder = Recorder::register(history.clone(), hub).map_err(|error| StartError::Register(error.to_string()))?;
    let writer = history.store.clone();
    store.spawn_thread("store", move |stop| writer.run(stop));
    let recorder = Arc::new(recorder);
    sinks.spawn("history", move |stop| {
        let recorder = recorder.clone();
        async move { recorder.run(&stop).await }
    });
    Ok(())
}

fn start_sinks(plan: &Plan, hub: &Hub, history: Option<History>, tasks: &Tasks) {
    if let Some(setup) = &plan.ua_server {
        setup.set_history(history);
        let (setup, hub) = (setup.clone(), hub.clone());
        tasks.spawn("ua_server", move |stop| ua_server::run(setup.clone(), hub.clone(), stop));
    }
    if let Some(table) = &plan.config.mqtt {
        let setup = Arc::new(mqtt::Setup {
            config: table.get_ref().clone(),
            device_name: plan.config.device.name.clone(),
            data_dir: plan.data_dir.clone(),
        });
        let hub = hub.clone();
        tasks.spawn("mqtt", move |stop| mqtt::run(setup.clone(), hub.clone(), stop));
    }
}
