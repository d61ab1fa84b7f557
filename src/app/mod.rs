//! The wiring: every task, every channel, the order of start and stop, and what a new configuration changes.
//!
//!     plan      configuration, data folder      a fault here is exit code 2, nothing has started
//!     running   what runs of it, part by part
//!     control   `vedette reload`, which becomes Hub::reload
//!     simulate  many uplinks in one process, for `vedette fleet simulate`
//!     reload    SIGHUP, or Hub::reload: a plan again; a fault and the old one keeps running, else the difference is made
//!
//! Nothing here can end the process after the start: a lost device, a broker that is away, a fault inside a protocol
//! crate are each the business of the task that meets it, and a configuration that is wrong is refused with its reason.
//!
//! The file is not watched: an editor that saves twice, or a person who is not done yet, must change nothing.

mod control;
mod plan;
mod running;
mod simulate;
mod version;

use crate::base::{self, Clock, Tasks, logs};
use crate::cameras::CameraConfig;
use crate::config::{self, Fault, Faults};
use crate::hub::{DeviceRequest, Hub};
use crate::model::EventKind;
use crate::opcua::trust;
use crate::sinks::ua_server;
use control::Control;
pub use control::{AskError, ask_to_reload};
use plan::Plan;
use running::{Changed, Running};
pub use simulate::{Counts, SimulateError, Simulated, Simulation};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use toml::Spanned;
use tracing::{info, warn};

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

/// Runs the appliance until SIGINT or SIGTERM.
pub async fn run(options: Options) -> Result<(), StartError> {
    let plan = prepare(&options)?;
    let mut end = End::listen().map_err(StartError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;

    let clock = Clock::real();
    let hub = Hub::new(clock.clone());
    let mut reloads = hub.demands();
    let (name, data_dir) = (plan.device.name.clone(), plan.data_dir.clone());
    let mut running = Running::start(plan, options, hub.clone(), &clock)?;
    let control = listen_to_the_shell(&data_dir, &hub);
    hub.raise(EventKind::ConfigurationApplied, "configuration", "The configuration was applied at start");
    version::note(&data_dir, &hub);
    base::notify_ready();
    info!(device = %name, version = env!("CARGO_PKG_VERSION"), "Vedette is up.");

    loop {
        let request = tokio::select! {
            () = end.asked() => break,
            _ = hangup.recv() => None,
            Some(request) = reloads.recv() => Some(request),
        };
        base::notify_reloading();
        // Whoever wants it to stop does not wait for a change.
        let is_stopped = tokio::select! {
            () = reload(&mut running, &hub, request) => false,
            () = end.asked() => true,
        };
        if is_stopped {
            break;
        }
        base::notify_ready();
    }
    info!("Stopping.");
    base::notify_stopping();
    control.stop(CONTROL_STOP).await;
    running.stop().await;
    Ok(())
}

/// How long a caller that waits for an answer can hold up the end.
const CONTROL_STOP: Duration = Duration::from_millis(100);

fn listen_to_the_shell(data_dir: &Path, hub: &Hub) -> Tasks {
    let tasks = Tasks::new("control");
    match Control::listen(data_dir) {
        Ok(control) => {
            let (control, hub) = (Arc::new(control), hub.clone());
            tasks.spawn("control", move |stop| {
                let (control, hub) = (control.clone(), hub.clone());
                async move { control.run(&hub, &stop).await }
            });
        }
        // SIGHUP and the method of the UA server are there all the same.
        Err(error) => warn!(%error, "There is no control socket; `vedette reload` will not work."),
    }
    tasks
}

/// The signals that end the program.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Applies the configuration as it is now in its file, and says so: in the log, as an event, and to who asked.
async fn reload(running: &mut Running, hub: &Hub, request: Option<DeviceRequest>) {
    let outcome = running.change().await;
    let answer = match &outcome {
        Ok(Some(Changed { summary, .. })) => {
            info!(%summary, "Applied the new configuration.");
            hub.raise(EventKind::ConfigurationApplied, "configuration", format!("Applied: {summary}"));
            Ok(summary.clone())
        }
        Ok(None) => {
            info!("Nothing in the configuration has changed.");
            Ok("nothing in the configuration has changed".to_owned())
        }
        Err(faults) => {
            for fault in &faults.0 {
                warn!("{fault}.");
            }
            warn!("Refused the new configuration; the last good one keeps running.");
            hub.raise(EventKind::ConfigurationRefused, "configuration", faults.to_string());
            Err(faults.to_string())
        }
    };
    if let Some(request) = request {
        // Whoever asked may have given up.
        let _ = request.reply.send(answer);
    }
    if let Ok(Some(changed)) = outcome {
        running.finish(changed).await;
    }
}

/// Checks the configuration without starting anything; what is allowed but should not stay so is said.
pub fn check(path: &Path) -> Result<Vec<Fault>, Faults> {
    Plan::load(&Options { config: path.into(), ..Options::default() }).map(|plan| plan.warnings)
}

/// The cameras that a configuration names.
pub fn cameras(path: &Path) -> Result<Vec<CameraConfig>, Faults> {
    let (config, _) = config::load(path)?;
    Ok(config.camera.into_iter().map(Spanned::into_inner).collect())
}

/// The folder with certificates and trust list. The configuration is only read if it is needed.
pub fn pki(config: &Path, data_dir: Option<&Path>) -> Result<PathBuf, Faults> {
    data_folder(config, data_dir).map(|data_dir| data_dir.join(trust::PKI))
}

/// Where data are kept, likewise.
pub fn data_folder(config: &Path, data_dir: Option<&Path>) -> Result<PathBuf, Faults> {
    match data_dir {
        Some(data_dir) => Ok(data_dir.to_owned()),
        None => Ok(config::load(config)?.0.device.data_dir),
    }
}

fn prepare(options: &Options) -> Result<Plan, StartError> {
    let plan = Plan::load(options)?;
    logs::start(options.log.as_deref().or(plan.device.log.as_deref()))?;
    plan.warn();
    std::fs::create_dir_all(&plan.data_dir)
        .map_err(|source| StartError::DataDir { path: plan.data_dir.clone(), source })?;
    Ok(plan)
}
