//! The relay's OPC UA server: DA servers' items for any UA client.
//!
//!     Objects
//!     └── <ProgID>                one for each DA server, with a namespace of its own
//!         ├── State, Vendor ...   the DA server itself (`status.rs`)
//!         └── <branch> ── <item> ── EURange, EngineeringUnits ...
//!
//! - `ids.rs` is what NodeIds say; a node is made of that and of what the DA server says when it is asked (`attributes.rs`).
//!   No node is kept, so there is none that is not known yet.
//! - `nodes.rs` is the node manager; `browse.rs`, `monitor.rs` and `write.rs` are its larger services.
//! - `da.rs` is one DA server as these ask it; `levels.rs` what lies below its branches, `places.rs` where items were seen there.
//! - `items.rs` are monitored items in DA groups, `feed.rs` brings them there.
//!
//! While a DA server is not there its items are bad, and never unknown.
//!
//! The DA servers outlive the UA server, which is made anew with each certificate.

mod attributes;
mod browse;
mod da;
mod feed;
mod ids;
mod items;
mod levels;
mod monitor;
mod nodes;
mod places;
mod status;
mod write;

use super::worker::{AskError, Launch, Phase};
use crate::base::{Clock, Stop, Tasks};
use crate::opcua::server::authenticator::{Authenticator, Rights};
use crate::opcua::server::gate::{self, Gate};
use crate::opcua::server::limits::Limits;
use crate::opcua::server::pki::Pki;
use crate::opcua::server::server_nodes::{self, ServerNodes, Sessions, UnknownNodes};
use crate::opcua::server::{self, Notices};
use crate::relay::map;
use ::opcua::server::node_manager::memory::{CoreNodeManagerBuilder, InMemoryNodeManagerBuilder};
use ::opcua::server::node_manager::{RequestContext, ServerContext};
use ::opcua::types::{NodeId, StatusCode};
pub use da::Da;
use nodes::RelayNodes;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info};
pub use write::Writable;

/// One DA server of the configuration.
#[derive(Clone, Debug)]
pub struct Served {
    pub launch: Launch,
    /// Its namespace.
    pub uri: String,
    /// Shown with its folder.
    pub text: String,
    /// Seconds that are added to its timestamps.
    pub time_offset: i64,
    pub writable: Writable,
    /// No rate is asked for that is faster.
    pub fastest: Duration,
    /// Monitored items, of all clients.
    pub items: usize,
    /// How long what it says of its address space is kept.
    pub keep: Duration,
}

/// The namespace of a DA server: the same after each restart, and on no other PC.
pub fn namespace_uri(host: &str, prog_id: &str) -> String {
    format!("urn:{host}:vedette-da-relay:{prog_id}")
}

/// All that the UA server needs, beside the DA servers.
pub struct Setup<R> {
    pub name: String,
    pub listen: SocketAddr,
    /// Stays open while the server is made anew.
    pub listener: TcpListener,
    pub pki: Pki,
    pub rights: R,
    pub notices: Arc<dyn Notices>,
    pub limits: Limits,
    /// Sessions without security, too.
    pub with_none: bool,
    pub clock: Clock,
}

/// Starts a worker for each DA server, and keeps them going.
pub fn start(served: Vec<Served>, tasks: &Tasks, clock: &Clock) -> Vec<Arc<Da>> {
    served
        .into_iter()
        .map(|served| {
            let name = served.launch.server.clone();
            let (da, questions) = Da::new(served);
            let (running, clock) = (da.clone(), clock.clone());
            let questions = Arc::new(tokio::sync::Mutex::new(questions));
            tasks.spawn(name, move |stop| {
                let (da, clock, questions) = (running.clone(), clock.clone(), questions.clone());
                async move { da.run(&mut *questions.lock().await, &clock, &stop).await }
            });
            da
        })
        .collect()
}

/// Serves until the stop. Returns early only if the server failed, to be started again.
pub async fn run<R: Rights + Clone>(setup: &Setup<R>, das: &[Arc<Da>], stop: &Stop) {
    while !stop.is_stopped() {
        if let Err(error) = run_once(setup, das, stop).await {
            error!(%error, "The UA server ended.");
            return;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    #[error("the UA crate: {0}")]
    Crate(String),
}

/// Until the stop, or until another certificate counts.
async fn run_once<R: Rights + Clone>(setup: &Setup<R>, das: &[Arc<Da>], stop: &Stop) -> Result<(), RunError> {
    let listener = tokio::net::TcpListener::from_std(setup.listener.try_clone()?)?;
    let address = listener.local_addr()?;
    let authenticator = Authenticator::new(setup.rights.clone(), setup.notices.clone(), setup.clock.clone());
    let sessions = Arc::new(Sessions::default());
    // A DA server says itself how fast it can be.
    let limits = Limits { min_sampling_interval: Duration::ZERO, ..setup.limits.clone() };
    let (das, of_nodes) = (das.to_vec(), limits.clone());
    let own_uri = setup.pki.identity().application_uri;
    let ports = (setup.listen, address.port());
    let (server, handle) =
        server::builder(&setup.name, "Vedette DA relay", &setup.pki, ports, &limits, setup.with_none)
            .with_authenticator(Arc::new(authenticator))
            // The first that owns a node answers for it.
            .with_node_manager(move |context| ServerNodes::new(context, sessions, Box::new(|_| None)))
            .with_node_manager(InMemoryNodeManagerBuilder::new(CoreNodeManagerBuilder))
            .with_node_manager(|context| UnknownNodes::new(context, shows))
            .with_node_manager(move |context| RelayNodes::new(own_uri, &das, of_nodes, context))
            .build()
            .map_err(RunError::Crate)?;
    let absent = |what| RunError::Crate(format!("{what} is not there"));
    let nodes = handle.node_managers().get_of_type::<RelayNodes>().ok_or_else(|| absent("our node manager"))?;
    let own =
        handle.node_managers().get_of_type::<ServerNodes>().ok_or_else(|| absent("that of the server's nodes"))?;
    server_nodes::tidy(&handle);
    nodes.serve();
    let behind = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let behind_address = behind.local_addr()?;
    gate::guard(&handle.info().type_loaders);
    let key_bytes = server::key_bytes(&handle).ok_or_else(|| absent("a certificate"))?;
    let (notices, trust) = (setup.notices.clone(), setup.pki.trust.clone());
    let gate = Gate::new(&setup.limits, setup.with_none, notices, trust, behind_address, key_bytes);
    let gate = async {
        server::advertise(&handle, behind_address.port(), address.port()).await;
        gate.run(&listener, stop).await;
    };
    info!(%address, insecure = setup.with_none, "Serving OPC UA.");
    let serve = server.run_with(behind);
    tokio::pin!(serve);
    tokio::select! {
        outcome = &mut serve => return outcome.map_err(RunError::Crate),
        () = gate => {}
        () = own.run() => {}
        () = nodes.run() => {}
        () = setup.pki.replaced(&*setup.notices) => {}
        () = stop.stopped() => {}
    }
    handle.cancel();
    // Sessions get a moment to be closed; whoever does not listen is cut off.
    let _ = tokio::time::timeout(Duration::from_secs(2), serve).await;
    Ok(())
}

/// Whether a node can be one of ours.
fn shows(server: &ServerContext, _: &RequestContext, id: &NodeId) -> bool {
    server.node_managers.get_of_type::<RelayNodes>().is_some_and(|nodes| nodes.find(id).is_some())
}

/// Of items whose DA server is not there.
fn status_of_phase(phase: Phase) -> StatusCode {
    match phase {
        // It has just come, or is about to.
        Phase::Starting | Phase::Running => StatusCode::BadWaitingForInitialData,
        Phase::Frozen => StatusCode::BadNoCommunication,
        Phase::Down | Phase::Waiting => StatusCode::BadNotConnected,
    }
}

/// Why there is no answer, for UA clients.
fn status_of_ask(error: &AskError) -> StatusCode {
    match error {
        AskError::NotRunning(phase) => status_of_phase(*phase),
        AskError::Failed(failure) => map::status_of_failure(failure.hresult),
        AskError::Other => StatusCode::BadInternalError,
    }
}
