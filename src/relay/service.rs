//! The relay as a Windows service.
//!
//! [`install`], [`start`], [`stop`] and [`uninstall`] are what a person does, who has to be an administrator; [`dispatch`] is what the
//! process does that the service manager has started (`run --service`). Whether the relay has failed is the service manager's to
//! see: it starts it again after 5 s, 30 s, and then every minute.
//!
//! The data folder holds keys and users, and folders below ProgramData are for all to read. So at the installation it is given to
//! administrators, the system and the service's account alone; what is made in it later inherits that. An account of a person's gets
//! the right to log on as a service, as the service manager's own window gives it, or the service would not start (1069).

use crate::relay::com;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::error;
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
    ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo,
    ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};

pub const NAME: &str = "vedette-da-relay";
const TITLE: &str = "Vedette DA relay";
const ABOUT: &str = "OPC Classic (DA) servers of this PC as if they were OPC UA.";

const ERROR_ACCESS_DENIED: i32 = 5;

/// How long the service may take to stop.
const STOP: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("{what}: {}", words(source))]
    Manager { what: &'static str, source: windows_service::Error },
    #[error(
        "the service is installed, but {account} could not be given the right to log on as a service: {reason}; do it by hand: \
         secpol.msc, Local Policies, User Rights Assignment, Log on as a service"
    )]
    Right { account: String, reason: std::io::Error },
    #[error("cannot find this program's own file: {0}")]
    Program(std::io::Error),
    #[error("cannot make {folder:?} for the service alone: {reason}")]
    Folder { folder: String, reason: String },
    #[error("the service does not stop")]
    Stop,
}

/// The crate's own words for most errors are "IO error in winapi call".
fn words(error: &windows_service::Error) -> String {
    match error {
        windows_service::Error::Winapi(error) if error.raw_os_error() == Some(ERROR_ACCESS_DENIED) => {
            format!("{error}; do it as an administrator")
        }
        windows_service::Error::Winapi(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn failed(what: &'static str) -> impl FnOnce(windows_service::Error) -> ServiceError {
    move |source| ServiceError::Manager { what, source }
}

/// Installs it, to be started with Windows. `account` is "NT AUTHORITY\LocalService", "DOMAIN\user" or ".\user"; without one it is
/// LocalSystem. Then the data folder is for it alone.
pub fn install(
    account: Option<&OsStr>,
    password: Option<&OsStr>,
    config: Option<&Path>,
    data_dir: &Path,
) -> Result<(), ServiceError> {
    let mut launch_arguments: Vec<OsString> = vec!["run".into(), "--service".into()];
    if let Some(config) = config {
        launch_arguments.extend(["--config".into(), config.into()]);
    }
    let info = ServiceInfo {
        name: NAME.into(),
        display_name: TITLE.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: std::env::current_exe().map_err(ServiceError::Program)?,
        launch_arguments,
        dependencies: Vec::new(),
        account_name: account.map(OsStr::to_owned),
        account_password: password.map(OsStr::to_owned),
    };
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager =
        ServiceManager::local_computer(None::<&str>, access).map_err(failed("cannot reach the service manager"))?;
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START | ServiceAccess::DELETE;
    let service = manager.create_service(&info, access).map_err(failed("cannot create the service"))?;
    // Only now: who may not install is not to shut the folder from whoever else runs the relay. And no service with an open one.
    if let Err(error) = close(data_dir, account) {
        service.delete().map_err(failed("cannot remove the service again"))?;
        return Err(error);
    }
    service.set_description(ABOUT).map_err(failed("cannot describe the service"))?;
    let again =
        |seconds| ServiceAction { action_type: ServiceActionType::Restart, delay: Duration::from_secs(seconds) };
    let actions = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(Duration::from_secs(3600)),
        reboot_msg: None,
        command: None,
        actions: Some([5, 30, 60].map(again).to_vec()),
    };
    service.update_failure_actions(actions).map_err(failed("cannot have the service started again"))?;
    service.set_failure_actions_on_non_crash_failures(true).map_err(failed("cannot have the service started again"))?;
    match account.map(|account| account.to_string_lossy()).filter(|account| is_a_persons(account)) {
        None => Ok(()),
        Some(account) => com::rights::let_log_on_as_service(&local(&account))
            .map_err(|reason| ServiceError::Right { account: account.into_owned(), reason }),
    }
}

/// The system's own have the right already.
fn is_a_persons(account: &str) -> bool {
    let account = account.to_ascii_uppercase();
    account != "LOCALSYSTEM" && !account.starts_with("NT AUTHORITY\\") && !account.starts_with("NT SERVICE\\")
}

/// The service manager alone knows that a dot is this PC.
fn local(account: &str) -> String {
    match (account.strip_prefix(r".\"), std::env::var("COMPUTERNAME")) {
        (Some(user), Ok(pc)) => format!(r"{pc}\{user}"),
        (Some(user), Err(_)) => user.to_owned(),
        (None, _) => account.to_owned(),
    }
}

pub fn start() -> Result<(), ServiceError> {
    open(ServiceAccess::START)?.start::<&OsStr>(&[]).map_err(failed("cannot start the service"))
}

/// Returns when it has stopped.
pub fn stop() -> Result<(), ServiceError> {
    let service = open(ServiceAccess::STOP | ServiceAccess::QUERY_STATUS)?;
    let state = || service.query_status().map(|status| status.current_state).map_err(failed("cannot ask the service"));
    if state()? == ServiceState::Stopped {
        return Ok(());
    }
    service.stop().map_err(failed("cannot stop the service"))?;
    let began = Instant::now();
    while state()? != ServiceState::Stopped {
        if began.elapsed() > STOP {
            return Err(ServiceError::Stop);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Stops it first. The data folder stays.
pub fn uninstall() -> Result<(), ServiceError> {
    stop()?;
    open(ServiceAccess::DELETE)?.delete().map_err(failed("cannot remove the service"))
}

fn open(access: ServiceAccess) -> Result<Service, ServiceError> {
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT);
    let manager = manager.map_err(failed("cannot reach the service manager"))?;
    manager.open_service(NAME, access).map_err(failed("cannot open the service"))
}

/// By the system's own tool, which is there since Windows Vista; S-1-5-18 is the system, S-1-5-32-544 are administrators.
fn close(folder: &Path, account: Option<&OsStr>) -> Result<(), ServiceError> {
    let wrong = |reason: String| ServiceError::Folder { folder: folder.display().to_string(), reason };
    std::fs::create_dir_all(folder).map_err(|error| wrong(error.to_string()))?;
    let mut tool = Command::new("icacls.exe");
    tool.arg(folder).args(["/inheritance:r", "/grant:r", "*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F"]);
    if let Some(account) = account {
        let mut grant = local(&account.to_string_lossy());
        grant.push_str(":(OI)(CI)F");
        tool.arg(grant);
    }
    let output = tool.output().map_err(|error| wrong(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(wrong(format!("icacls says {:?}", String::from_utf8_lossy(&output.stdout).trim())))
}

/// What the service does: until the stop comes. `false` if it failed.
pub type Work = Box<dyn FnOnce(oneshot::Receiver<()>) -> bool + Send>;

/// The service manager calls a function without arguments.
static WORK: OnceLock<Mutex<Option<Work>>> = OnceLock::new();

/// Serves under the service manager, until it says stop.
pub fn dispatch(work: Work) -> Result<(), ServiceError> {
    WORK.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner).replace(work);
    service_dispatcher::start(NAME, service_main).map_err(failed("this is not the service manager's process"))
}

define_windows_service!(service_main, serve);

fn serve(_: Vec<OsString>) {
    if let Err(error) = serve_once() {
        error!(%error, "The service failed.");
    }
}

fn serve_once() -> windows_service::Result<()> {
    let (sender, stop) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let handle = service_control_handler::register(NAME, move |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            if let Some(sender) = sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // Whoever does not listen has ended.
                let _ = sender.send(());
            }
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    })?;
    let status = |current_state, controls_accepted, exit_code| ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state,
        controls_accepted,
        exit_code,
        checkpoint: 0,
        wait_hint: STOP,
        process_id: None,
    };
    let accepted = ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN;
    handle.set_service_status(status(ServiceState::Running, accepted, ServiceExitCode::Win32(0)))?;
    let work = WORK.get().and_then(|work| work.lock().unwrap_or_else(PoisonError::into_inner).take());
    let is_good = work.is_some_and(|work| work(stop));
    let exit = if is_good { ServiceExitCode::Win32(0) } else { ServiceExitCode::ServiceSpecific(1) };
    handle.set_service_status(status(ServiceState::Stopped, ServiceControlAccept::empty(), exit))
}
