//! The wiring: every task, every channel, the order of start and stop, and what a new configuration changes.
//!
//!     commit    a configuration that was on trial when the program ended is rolled back, before anything is read
//!     plan      configuration, data folder      a fault here is exit code 2, nothing has started
//!     running   what runs of it, part by part
//!     report    the tags device/..., always there; boot finds out why the program runs again
//!     control   `vedette reload`, which becomes Hub::reload
//!     steward   SIGHUP, or what comes through the hub: a plan again; a fault and the old one keeps running, else the
//!               difference is made; a configuration on trial (commit); a blink (identify), another log, a reboot
//!     health    what works now, and what worked, for the gate of a new slot
//!     firmware  updates: what was asked for, what was cut, what became of it
//!     simulate  many uplinks in one process, for `vedette fleet simulate`
//!
//! Nothing here can end the process after the start: a lost device, a broker that is away, a fault inside a protocol
//! crate are each the business of the task that meets it, and a configuration that is wrong is refused with its reason.
//!
//! The file is not watched: an editor that saves twice, or a person who is not done yet, must change nothing.

mod plan;
mod running;
mod steward;

mod boot;
mod commit;
mod control;
mod firmware;
mod health;
mod identify;
mod report;
mod simulate;
mod version;

use crate::base::{self, Clock, Tasks, logs};
use crate::cameras::CameraConfig;
use crate::config::{self, Fault, Faults};
use crate::device::update::Updates;
use crate::device::{self, provision};
use crate::hub::{DeviceRequest, Hub, News};
use crate::model::EventKind;
use crate::opcua::trust;
use crate::sinks::ua_server;
use crate::sources::system::clock;
use boot::Run;
pub use commit::hash;
use commit::{Files, Recovered};
pub use control::{AskError, ask_for_health, ask_to_reload, tell_failed, tell_passed};
use control::{Control, Gates};
use plan::Plan;
use report::Reporter;
use running::{Running, shared};
pub use simulate::{Counts, SimulateError, Simulated, Simulation};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use steward::Steward;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
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
pub async fn run(mut options: Options) -> Result<(), StartError> {
    let recovered = Files::of(&options.config).recover(&options.config);
    if let Some(Recovered { config, .. }) = &recovered {
        options.config.clone_from(config);
    }
    let plan = prepare(&options)?;
    let mut end = End::listen().map_err(StartError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;

    let clock = Clock::real();
    let hub = Hub::new(clock.clone());
    let mut demands = hub.demands();
    let (name, data_dir) = (plan.device.name.clone(), plan.data_dir.clone());
    let this_run = Run::begin(&data_dir, Path::new("/"));
    // Before what runs, so that all see these tags from the start.
    let (facts, shown) = watch::channel(plan.facts(hub.now()));
    let reporter = Reporter::register(&hub, &data_dir, this_run.reason, shown);
    let reporter = reporter.map_err(|error| StartError::Register(error.to_string()))?;
    let running = Running::start(plan, options.clone(), hub.clone(), &clock)?;
    let reporting = report(reporter);
    let gates = Gates { healthy: watch::Sender::new(device::health::is_kept(&data_dir)), failed: Arc::default() };
    let control = listen_to_the_shell(&data_dir, &hub, &gates);
    let updates = Updates::new(&data_dir);
    // What is on trial is not installed yet.
    let is_update = updates.pending().is_some();
    let (counter, firmware) = firmware::open(&hub, data_dir.clone(), updates, &gates);
    let keeper = health::Keeper { hub: hub.clone(), data_dir: data_dir.clone(), healthy: gates.healthy.subscribe() };
    let keeping = keep_up(keeper, firmware);
    let mut steward = Steward::new(hub.clone(), running, options, facts, counter);
    hub.raise(EventKind::ConfigurationApplied, "configuration", "The configuration was applied at start");
    if !is_update {
        version::note(&data_dir, &hub);
    }
    tell_provisioning(&data_dir, &hub);
    if let Some(warning) = device::keys::warning(&device::keys::kind(Path::new(device::keys::KEYRING))) {
        warn!("{warning}.");
    }
    if let Some(recovered) = recovered {
        tell(recovered, &hub);
    }
    base::notify_ready();
    info!(device = %name, version = env!("CARGO_PKG_VERSION"), boot = this_run.reason, "Vedette is up.");

    // Polled here and nowhere else: the watchdog is about this loop, which everything that is asked of the device passes.
    let mut alive = pin!(base::keep_watchdog_quiet());
    enum Next {
        Reload,
        Demand(DeviceRequest),
        Due,
    }
    loop {
        let next = tokio::select! {
            () = end.asked() => break,
            _ = hangup.recv() => Next::Reload,
            Some(request) = demands.recv() => Next::Demand(request),
            () = steward.due() => Next::Due,
            never = &mut alive => match never {},
        };
        base::notify_reloading();
        let work = async {
            match next {
                Next::Reload => steward.reload(None).await,
                Next::Demand(request) => steward.answer(request).await,
                Next::Due => steward.do_due().await,
            }
        };
        // Whoever wants it to stop does not wait for a change.
        let is_stopped = tokio::select! {
            () = work => false,
            () = end.asked() => true,
            never = &mut alive => match never {},
        };
        if is_stopped {
            break;
        }
        base::notify_ready();
    }
    info!("Stopping.");
    base::notify_stopping();
    control.stop(CONTROL_STOP).await;
    reporting.stop(CONTROL_STOP).await;
    keeping.stop(CONTROL_STOP).await;
    steward.stop().await;
    this_run.end();
    Ok(())
}

/// What became of a configuration that was on trial when the program ended.
fn tell(recovered: Recovered, hub: &Hub) {
    let Recovered { address, sentence, .. } = recovered;
    warn!("At this start {sentence}.");
    hub.raise(EventKind::ConfigurationRefused, "configuration", sentence.as_str());
    if let Some(address) = address {
        hub.report(address, News::Failed(format!("not confirmed; {sentence}")));
    }
}

/// A file on the boot partition that was refused before this start is one that somebody waits for.
fn tell_provisioning(data_dir: &Path, hub: &Hub) {
    let outcome = provision::outcome(data_dir);
    if outcome.starts_with(provision::REFUSED) {
        hub.raise(EventKind::ConfigurationRefused, "provisioning", format!("Provisioning: {outcome}"));
    }
}

fn keep_up(keeper: health::Keeper, firmware: firmware::Firmware) -> Tasks {
    let tasks = Tasks::new("firmware");
    let (keeper, firmware) = (shared(keeper), shared(firmware));
    tasks.spawn("health", move |stop| {
        let keeper = keeper.clone();
        async move { keeper.lock().await.run(&stop).await }
    });
    tasks.spawn("update", move |stop| {
        let firmware = firmware.clone();
        async move { firmware.lock().await.run(&stop).await }
    });
    tasks
}

fn report(reporter: Reporter) -> Tasks {
    let tasks = Tasks::new("device");
    let reporter = shared(reporter);
    tasks.spawn("device", move |stop| {
        let reporter = reporter.clone();
        async move { reporter.lock().await.run(&stop).await }
    });
    tasks
}

/// How long a caller that waits for an answer can hold up the end.
const CONTROL_STOP: Duration = Duration::from_millis(100);

fn listen_to_the_shell(data_dir: &Path, hub: &Hub, gates: &Gates) -> Tasks {
    let tasks = Tasks::new("control");
    match Control::listen(data_dir, gates.clone()) {
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

/// Checks the configuration without starting anything; what is allowed but should not stay so is said.
pub fn check(path: &Path) -> Result<Vec<Fault>, Faults> {
    Plan::load(&Options { config: path.into(), ..Options::default() }).map(|plan| plan.warnings)
}

/// Checks what might be in a file.
pub fn check_text(path: &Path, text: &str) -> Result<(), Faults> {
    Plan::of_text(&Options { config: path.into(), ..Options::default() }, text.to_owned()).map(drop)
}

/// As far as the system says so; one that says nothing is believed.
pub fn is_clock_set() -> bool {
    clock::fault(Clock::real().now().into(), Path::new(clock::TIMESYNC)).is_none()
}

/// Where the UA server of a configuration listens, if there is one.
pub fn ua_server_address(config: &Path) -> Result<Option<SocketAddr>, Faults> {
    Ok(config::load(config)?.0.ua_server.map(|table| table.into_inner().listen))
}

/// Which authorities a configuration trusts for updates, beside the system's own.
pub fn update_ca_file(config: &Path) -> Result<Option<PathBuf>, Faults> {
    Ok(config::load(config)?.0.update.ca_file)
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
