//! `run`, and the service: the relay itself, in the console or under the service manager.

use super::{complain, failed};
use crate::base::{Clock, Tasks, logs};
use crate::relay::com::catalog::{self, Listed};
use crate::relay::com::{Apartment, Class, View, proxies};
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
        let pc = ThisPc::look(config);
        let mut held: Vec<Held> = Vec::new();
        for (server, class) in config.servers().zip(&pc.classes).filter(|(server, _)| server.enabled) {
            let listed = pc.listed.iter().find(|listed| is_same(server, class, listed)).cloned();
            // Not all servers say in the registry that they are of DA.
            let listed = listed.or_else(|| Class::find(class.as_deref()?).ok().map(catalog::of_class));
            held.extend(hold(config, &pc, server.clone(), listed.as_ref()));
        }
        if config.discover {
            let is_known =
                |listed| config.servers().zip(&pc.classes).any(|(server, class)| is_same(server, class, listed));
            for listed in pc.listed.iter().filter(|listed| !is_known(listed)) {
                let held_by = of(listed).and_then(|server| hold(config, &pc, server, Some(listed)));
                // One that is configured is there without its program, too; who asks for it is told why.
                held.extend(held_by.filter(|held| {
                    let is_there = held.program.is_file();
                    if !is_there {
                        let program = held.program.display();
                        warn!(server = held.server.title(), %program, "A DA server is left out: the relay of its bitness is not there.");
                    }
                    is_there
                }));
            }
        }
        #[cfg(feature = "da-test-server")]
        self.test(config, &pc, &mut held);
        held
    }

    /// `PROGID=FILE`: that server of the configuration, or another.
    #[cfg(feature = "da-test-server")]
    fn test(&self, config: &Config, pc: &ThisPc, held: &mut Vec<Held>) {
        for (prog_id, file) in self.test_server.iter().filter_map(|text| text.split_once('=')) {
            held.retain(|held| held.server.prog_id.as_deref() != Some(prog_id));
            let of_config = config.servers().find(|server| server.prog_id.as_deref() == Some(prog_id)).cloned();
            let server = of_config.or_else(|| named(prog_id));
            held.extend(
                server
                    .and_then(|server| hold(config, pc, server, None))
                    .map(|held| Held { more: vec!["--test-server".into(), file.into()], ..held }),
            );
        }
    }
}

/// What the registry of this PC says.
struct ThisPc {
    listed: Vec<Listed>,
    /// Of each server of the configuration, if it is known.
    classes: Vec<Option<String>>,
    /// For which programs there are OPC's proxies, without which one process does not reach another.
    carried: Vec<View>,
}

impl ThisPc {
    fn look(config: &Config) -> Self {
        // COM is a thread's; the relay's other threads have none.
        let apartment = Apartment::enter();
        let class = |server: &Server| {
            let own = server.clsid.as_ref().map(|id| id.as_str().to_owned());
            own.or_else(|| catalog::clsid(server.prog_id.as_deref()?))
        };
        let listed = match &apartment {
            Ok(_) => catalog::list().servers,
            Err(failure) => {
                warn!(call = failure.call, hresult = failure.hresult, "Cannot look for the DA servers of this PC.");
                Vec::new()
            }
        };
        let carry = |proxy: &proxies::Proxy| proxy.interface == "IOPCServer" && proxy.library.is_some();
        let carried = proxies::list().into_iter().filter(carry).map(|proxy| proxy.view).collect();
        Self { listed, classes: config.servers().map(class).collect(), carried }
    }
}

fn is_same(server: &Server, class: &Option<String>, listed: &Listed) -> bool {
    server.is(class.as_deref(), &listed.clsid, &listed.prog_id)
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

/// With the program that holds it: a DLL's must have its bitness. For all others any will do that has OPC's proxies, if possible this
/// one.
fn hold(config: &Config, pc: &ThisPc, server: Server, listed: Option<&Listed>) -> Option<Held> {
    let name = server.title().to_owned();
    let own_file = match std::env::current_exe() {
        Ok(own_file) => own_file,
        Err(error) => {
            error!(%error, "Cannot find this program's own file.");
            return None;
        }
    };
    let inside =
        |view| listed.is_some_and(|listed| listed.homes.iter().any(|home| home.is_inside && home.view == view));
    let has_program = listed.is_some_and(|listed| listed.homes.iter().any(|home| !home.is_inside));
    let (own, other) = match cfg!(target_pointer_width = "64") {
        true => (View::Wide, View::Narrow),
        false => (View::Narrow, View::Wide),
    };
    let program_of = |view| if view == own { own_file.clone() } else { beside(&own_file, config, view) };
    let wanted = match server.worker {
        Bitness::Bits32 => View::Narrow,
        Bitness::Bits64 => View::Wide,
        Bitness::Auto if inside(own) => own,
        Bitness::Auto if has_program => {
            let is_carried = |view| pc.carried.contains(&view);
            let is_other = !is_carried(own) && is_carried(other) && program_of(other).is_file();
            if is_other {
                info!(
                    server = name,
                    bits = other.bits(),
                    "OPC's proxies are there for the other bitness alone, so it holds this DA server."
                );
            }
            if is_other { other } else { own }
        }
        Bitness::Auto => View::ALL.into_iter().find(|&view| inside(view)).unwrap_or(own),
    };
    let class = listed.map(|listed| listed.clsid.clone()).or_else(|| Some(server.clsid.as_ref()?.as_str().to_owned()));
    let class = class.or_else(|| server.prog_id.clone())?;
    let about = listed.map(|listed| listed.description.clone()).unwrap_or_default();
    Some(Held { server, program: program_of(wanted), class, about, more: Vec::new() })
}

/// The other relay: as the configuration says, or beside this one.
fn beside(own: &Path, config: &Config, wanted: View) -> PathBuf {
    let (said, usual) = match wanted {
        View::Narrow => (&config.worker_32, "vedette-da-relay-i686.exe"),
        View::Wide => (&config.worker_64, "vedette-da-relay-x86_64.exe"),
    };
    own.with_file_name("").join(said.as_deref().unwrap_or(Path::new(usual)))
}
