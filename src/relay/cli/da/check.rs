//! `vedette-da-relay check`: step by step, what works on the way to a DA server, and in words what does not.

use super::Target;
use super::output::{Failed, line};
use crate::relay::com::{Class, Connection, Group, Listener, View, catalog, proxies};
use crate::relay::hresults;
use crate::relay::protocol::{Failure, GroupSettings};
use std::env;
use std::sync::Arc;

#[derive(clap::Args)]
pub struct Arguments {
    /// Its ProgID (Vendor.Server.1), or its CLSID in braces. Without it, only this PC is looked at.
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// The server is one of our own that does what this file says, whatever its name.
    #[cfg(feature = "da-test-server")]
    #[arg(long, value_name = "FILE", hide = true)]
    test_server: Option<std::path::PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failed> {
    let mut report = Report { problems: 0 };
    this_pc(&mut report)?;
    if let Some(server) = &arguments.server {
        let target = Target {
            server: server.clone(),
            #[cfg(feature = "da-test-server")]
            test_server: arguments.test_server.clone(),
        };
        one(&mut report, &target)?;
    }
    match report.problems {
        0 => Ok(()),
        _ => Err(Failed::Said),
    }
}

struct Report {
    problems: usize,
}

impl Report {
    fn good(&self, what: &str) -> Result<(), Failed> {
        line(&format!("ok       {what}"))
    }

    /// Worth knowing, and no reason to fail.
    fn note(&self, what: &str) -> Result<(), Failed> {
        line(&format!("note     {what}"))
    }

    fn bad(&mut self, what: &str) -> Result<(), Failed> {
        self.problems += 1;
        line(&format!("PROBLEM  {what}"))
    }

    fn failure(&mut self, what: &str, failure: &Failure) -> Result<(), Failed> {
        self.bad(&format!("{what}: {}: {}", failure.call, hresults::explained(failure.hresult)))
    }
}

fn own_view() -> View {
    if cfg!(target_pointer_width = "64") { View::Wide } else { View::Narrow }
}

fn this_pc(report: &mut Report) -> Result<(), Failed> {
    let account = env::var("USERNAME").unwrap_or_else(|_| "(unknown)".into());
    let domain = env::var("USERDOMAIN").unwrap_or_default();
    report.good(&format!("this is a program of {} bits, run by {domain}\\{account}", own_view().bits()))?;
    // A machine account's name ends so: LocalSystem and NetworkService.
    if account.ends_with('$') || account.eq_ignore_ascii_case("SYSTEM") {
        report.note(
            "a service account: servers whose identity is \"The interactive user\" will not start for it; \
             choose another account with `install --account`",
        )?;
    }
    let catalog = catalog::list();
    match &catalog.opc_enum {
        None => report.good("OPCEnum answers")?,
        Some(failure) => report.note(&format!(
            "OPCEnum does not answer ({}: {}); only `list` and other PCs need it",
            failure.call,
            hresults::name(failure.hresult)
        ))?,
    }
    report.good(&format!("{} DA servers are registered", catalog.servers.len()))?;
    for view in View::ALL {
        let missing: Vec<&str> = proxies::list()
            .into_iter()
            .filter(|proxy| proxy.view == view && proxy.library.is_none())
            .map(|proxy| proxy.interface)
            .collect();
        let bits = view.bits();
        match (missing.is_empty(), view == own_view()) {
            (true, _) => report.good(&format!("OPC's proxies for {bits} bits are registered"))?,
            // In-process servers need none, so it is no failure by itself.
            (false, true) => report.note(&format!(
                "OPC's proxies for {bits} bits are missing ({}): DA servers that are programs of their own cannot be \
                 reached; install the OPC Core Components Redistributable",
                missing.join(", ")
            ))?,
            (false, false) => {
                report.note(&format!("OPC's proxies for {bits} bits are missing; this program needs none"))?
            }
        }
    }
    Ok(())
}

fn one(report: &mut Report, target: &Target) -> Result<(), Failed> {
    let class = match target.server()?.class() {
        Ok(class) => class,
        Err(failure) => return report.failure(&target.server, &failure),
    };
    report.good(&format!("{} is {class}", target.server))?;
    registration(report, class)?;
    let connection = match Connection::open(class, None) {
        Ok(connection) => connection,
        Err(failure) => {
            let what = if failure.call == "CoCreateInstance" {
                "it cannot be created"
            } else {
                "it was created, and then could not be spoken to"
            };
            return report.failure(what, &failure);
        }
    };
    report.good("it can be created")?;
    match connection.status() {
        Err(failure) => return report.failure("it does not say how it is", &failure),
        Ok(status) if status.state == 1 => report.good(&format!("it is running: {}", status.vendor))?,
        Ok(status) => report.note(&format!("it says that it is not running: {}", super::info::state(status.state)))?,
    }
    let settings = GroupSettings { rate: 1000, deadband: 0.0, active: true };
    let silent: Listener = Arc::new(|_| {});
    match Group::add(&connection, settings, Some((0, silent))) {
        // Whether that gets through is seen only with items: a server without rights on this side takes it on as well.
        Ok(_) => report.good("it takes callbacks on; whether they come, `watch` with an item shows")?,
        Err(failure) if failure.call == "AddGroup" => report.failure("it makes no group", &failure)?,
        Err(failure) => report.note(&format!(
            "it does not call back ({}: {}); the relay will poll its cache",
            failure.call,
            hresults::explained(failure.hresult)
        ))?,
    }
    let can = connection.capabilities();
    if !can.browse2 && !can.browse3 {
        report.note("it cannot be browsed: clients have to know the ItemIDs")?;
    }
    Ok(())
}

/// Where the registry says that it lives, and whether this program can get there.
fn registration(report: &mut Report, class: Class) -> Result<(), Failed> {
    let listed = catalog::of_class(class);
    let own = own_view();
    for home in &listed.homes {
        let kind = match (home.is_inside, home.is_service) {
            (true, _) => format!("a DLL for {} bits", home.view.bits()),
            (_, true) => "a service".into(),
            _ => "a program".into(),
        };
        report.good(&format!("it is {kind}: {}", home.program))?;
    }
    let is_reachable = listed.homes.iter().any(|home| !home.is_inside || home.view == own);
    if !listed.homes.is_empty() && !is_reachable {
        let (bits, file) = match own {
            View::Wide => (32, "vedette-da-relay-i686.exe"),
            View::Narrow => (64, "vedette-da-relay-x86_64.exe"),
        };
        report.bad(&format!(
            "it lives only inside programs of {bits} bits: try it out with {file}; a running relay takes that by itself \
             if it lies beside it"
        ))?;
    }
    Ok(())
}
