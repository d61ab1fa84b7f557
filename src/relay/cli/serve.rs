//! `run`, and the service: the relay itself, in the console or under the service manager.

use super::{complain, failed};
use crate::base::{Clock, Tasks, logs};
use crate::relay::com::catalog::{self, Listed};
use crate::relay::com::{Apartment, View};
use crate::relay::config::{self, Bitness, Config, Server};
use crate::relay::run::{self, Held};
use crate::relay::service;
use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing::{error, info, warn};

/// Of the service's log, in the data folder.
const LOG: &str = "vedette-da-relay.log";

#[derive(clap::Args)]
pub struct Run {
    /// The configuration file, instead of da-relay.toml in the data folder, which need not be there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Started by the service manager.
    #[arg(long, hide = true)]
    service: bool,
    /// A DA server of our own that does what a file says.
    #[cfg(feature = "da-test-server")]
    #[arg(long, value_name = "PROGID=FILE", hide = true)]
    test_server: Vec<String>,
}

#[derive(clap::Args)]
pub struct Install {
    /// The account that the service runs as: "NT AUTHORITY\LocalService", "DOMAIN\user", ".\user". Many DA servers let in
    /// only the user who installed them. Default: LocalSystem.
    #[arg(long)]
    account: Option<OsString>,
    /// Read the account's password from standard input, one line.
    #[arg(long, requires = "account")]
    password_stdin: bool,
    /// The configuration file, instead of da-relay.toml in the data folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn install(arguments: &Install) -> ExitCode {
    let config = match config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return complain(&faults.to_string()),
    };
    let password = match arguments.password_stdin.then(super::access::password_from_stdin).transpose() {
        Ok(password) => password.map(OsString::from),
        Err(what) => return failed(&what),
    };
    // The service manager's folder is not this one.
    let file = match arguments.config.as_deref().map(std::path::absolute).transpose() {
        Ok(file) => file,
        Err(error) => return failed(&error.to_string()),
    };
    said(service::install(arguments.account.as_deref(), password.as_deref(), file.as_deref(), &config.data_dir))
}

pub fn said(outcome: Result<(), service::ServiceError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

pub fn run(arguments: Run) -> ExitCode {
    let config = match config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return complain(&faults.to_string()),
    };
    if let Err(what) = start_log(&config, arguments.service) {
        return failed(&what);
    }
    if !arguments.service {
        let held = arguments.held(&config);
        let ctrl_c = async {
            // An error means that there is no console, and so nobody to press it.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        return if serve(&config, held, ctrl_c) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let work = Box::new(move |stop: tokio::sync::oneshot::Receiver<()>| {
        let held = arguments.held(&config);
        serve(&config, held, async {
            // An error means that the service manager has let go of it, which is a stop as well.
            let _ = stop.await;
        })
    });
    said(service::dispatch(work))
}

fn start_log(config: &Config, is_service: bool) -> Result<(), String> {
    let filter = config.log.as_deref();
    if !is_service {
        return logs::start(filter).map_err(|error| error.to_string());
    }
    let path = config.data_dir.join(LOG);
    let opened = std::fs::create_dir_all(&config.data_dir).and_then(|()| logs::LogFile::open(&path, config.log_bytes));
    let file = opened.map_err(|error| format!("{}: {error}", path.display()))?;
    logs::start_in(file, filter).map_err(|error| error.to_string())
}

/// Until the end. `false` if it failed.
fn serve(config: &Config, held: Vec<Held>, end: impl Future<Output = ()>) -> bool {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "Cannot start.");
            return false;
        }
    };
    runtime.block_on(async {
        let tasks = Tasks::new("relay");
        let stop = tasks.stop_signal();
        if held.is_empty() {
            warn!("There is no DA server to serve; `vedette-da-relay list` shows what this PC has.");
        }
        tokio::pin!(end);
        let running = run::run(config, held, Clock::real(), &stop);
        tokio::pin!(running);
        let outcome = tokio::select! {
            outcome = &mut running => outcome,
            () = &mut end => {
                info!("Stopping.");
                tasks.stop(std::time::Duration::ZERO).await;
                running.await
            }
        };
        if let Err(error) = &outcome {
            error!(%error, "Cannot serve.");
        }
        outcome.is_ok()
    })
}

impl Run {
    /// The DA servers of the configuration and, if it says so, all others of this PC.
    fn held(&self, config: &Config) -> Vec<Held> {
        let listed = listed();
        let mut held: Vec<Held> = Vec::new();
        for server in config.servers().filter(|server| server.enabled) {
            let known = listed.iter().find(|listed| is_same(server, listed));
            held.extend(hold(config, server.clone(), known));
        }
        if config.discover {
            let is_new = |listed: &&Listed| !config.servers().any(|server| is_same(server, listed));
            held.extend(listed.iter().filter(is_new).filter_map(|listed| hold(config, of(listed)?, Some(listed))));
        }
        #[cfg(feature = "da-test-server")]
        self.test(config, &mut held);
        held
    }

    /// `PROGID=FILE`: that server of the configuration, or another.
    #[cfg(feature = "da-test-server")]
    fn test(&self, config: &Config, held: &mut Vec<Held>) {
        for (prog_id, file) in self.test_server.iter().filter_map(|text| text.split_once('=')) {
            held.retain(|held| held.server.prog_id.as_deref() != Some(prog_id));
            let of_config = config.servers().find(|server| server.prog_id.as_deref() == Some(prog_id)).cloned();
            let server = of_config.or_else(|| named(prog_id));
            held.extend(
                server
                    .and_then(|server| hold(config, server, None))
                    .map(|held| Held { more: vec!["--test-server".into(), file.into()], ..held }),
            );
        }
    }
}

fn listed() -> Vec<Listed> {
    // COM is a thread's; the relay's other threads have none.
    match Apartment::enter() {
        Ok(_apartment) => catalog::list().servers,
        Err(failure) => {
            warn!(call = failure.call, hresult = failure.hresult, "Cannot look for the DA servers of this PC.");
            Vec::new()
        }
    }
}

fn is_same(server: &Server, listed: &Listed) -> bool {
    let same_class = server.clsid.as_ref().is_some_and(|id| id.as_str().eq_ignore_ascii_case(&listed.clsid));
    let same_name = server.prog_id.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(&listed.prog_id));
    same_class || same_name
}

/// A server of which nothing is said.
fn of(listed: &Listed) -> Option<Server> {
    named(if listed.prog_id.is_empty() { &listed.clsid } else { &listed.prog_id })
}

fn named(name: &str) -> Option<Server> {
    let key = if name.starts_with('{') { "clsid" } else { "prog_id" };
    let table = toml::Table::from_iter([(key.to_owned(), toml::Value::from(name))]);
    let server = table.try_into();
    server.inspect_err(|error| warn!(name, %error, "A DA server is left out: its name cannot be written.")).ok()
}

/// With the program that holds it: a DLL's must have its bitness; for all others any will do, so this one.
fn hold(config: &Config, server: Server, listed: Option<&Listed>) -> Option<Held> {
    let inside =
        |view| listed.is_some_and(|listed| listed.homes.iter().any(|home| home.is_inside && home.view == view));
    let has_program = listed.is_some_and(|listed| listed.homes.iter().any(|home| !home.is_inside));
    let own = if cfg!(target_pointer_width = "64") { View::Wide } else { View::Narrow };
    let wanted = match server.worker {
        Bitness::Bits32 => View::Narrow,
        Bitness::Bits64 => View::Wide,
        Bitness::Auto if has_program || inside(own) => own,
        Bitness::Auto => View::ALL.into_iter().find(|&view| inside(view)).unwrap_or(own),
    };
    let name = server.title().to_owned();
    let own_file = match std::env::current_exe() {
        Ok(own_file) => own_file,
        Err(error) => {
            error!(%error, "Cannot find this program's own file.");
            return None;
        }
    };
    let program = if wanted == own { own_file } else { beside(&own_file, config, wanted) };
    if !program.is_file() {
        warn!(server = name, program = %program.display(), "A DA server is left out: the relay of its bitness is not there.");
        return None;
    }
    let class = server.clsid.as_ref().map_or_else(|| server.prog_id.clone(), |id| Some(id.as_str().to_owned()))?;
    let about = listed.map(|listed| listed.description.clone()).unwrap_or_default();
    Some(Held { server, program, class, about, more: Vec::new() })
}

/// The other relay: as the configuration says, or beside this one.
fn beside(own: &Path, config: &Config, wanted: View) -> PathBuf {
    let (said, usual) = match wanted {
        View::Narrow => (&config.worker_32, "vedette-da-relay-i686.exe"),
        View::Wide => (&config.worker_64, "vedette-da-relay-x86_64.exe"),
    };
    own.with_file_name("").join(said.as_deref().unwrap_or(Path::new(usual)))
}
