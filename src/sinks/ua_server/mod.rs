//! The OPC UA server: cameras and tags for any UA client.
//!
//!     Objects
//!     ├── Camera Device ── Camera Image          the first camera, where users of the original sample look for it
//!     ├── Cameras ── <name> ── Camera Image      every camera, the first too (there it is the same node)
//!     │                     ├─ Snapshot         a method: a picture of another size or quality
//!     │                     ├─ Restart          a method: closes and opens the device
//!     │                     ├─ CameraLost       a condition
//!     │                     └─ State, Format ... the tags below `cameras/<name>/`
//!     ├── Device ── Events, ReloadConfiguration, UplinkDown ...   what happened, a method, conditions
//!     └── Tags ── <folder> ── <tag>              all other tags, one folder for each segment of the name
//!
//! - `address_space/` makes these nodes, and takes them away, as tags and cameras come and go.
//! - `node_manager.rs` answers reads, writes and subscriptions; values come from the hub, pictures from a camera.
//! - `images.rs` samples pictures for each monitored item at its own interval.
//! - `methods.rs` are our methods; `snapshot.rs` is the one of that name.
//! - `events/` are events, and conditions as alarms.
//! - `history/` answers HistoryRead from the store.
//! - `notify.rs` brings samples to monitored items; `items.rs` looks after items on tags where the UA crate does not.
//! - `writes.rs` is what may be written.
//! - `found/` makes it known: mDNS, discovery server, reverse connect.
//! - `access/` says who may come in, and who may do what with which node.
//!
//! The port and its gate, certificates, security and limits are those of every server of this program (`opcua/server`).
//!
//! NodeIds are strings made of names (`s=Tags/system/load`), so they stay the same over restarts and changes of the
//! configuration.

mod access;
mod address_space;
mod config;
mod events;
mod found;
mod history;
mod images;
mod items;
mod methods;
mod node_manager;
mod notify;
mod snapshot;
mod writes;

use crate::base::{Clock, Stop, net};
use crate::hub::Hub;
use crate::model::{EventKind, TagSpec};
use crate::opcua::certificate::Application;
use crate::opcua::server::authenticator::Authenticator;
use crate::opcua::server::gate::{self, Gate};
use crate::opcua::server::pki::{Pki, PkiError};
use crate::opcua::server::server_nodes::{self, ServerNodes, Sessions, UnknownNodes};
use crate::opcua::server::{self, Notices};
use crate::opcua::trust::{PKI, Rules};
use crate::store::History;
use crate::users::{self, Users};
use ::opcua::server::node_manager::memory::{CoreNodeManagerBuilder, InMemoryNodeManager, InMemoryNodeManagerBuilder};
use ::opcua::server::node_manager::{RequestContext, ServerContext};
use ::opcua::server::{ServerHandle, SubscriptionCache};
use ::opcua::types::NodeId;
use access::{Access, Guard};
use address_space::Nodes;
pub use config::Config;
use events::delivery::Delivery;
use events::manager::ConditionMethods;
use node_manager::{HubNodes, Sampling};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// Everything that can fail has been tried: the port is bound, the certificate is there, the trust list was read.
pub struct Setup {
    config: Config,
    device_name: String,
    /// What every camera has below its name: the declarations of CameraType.
    camera_tags: Vec<TagSpec>,
    pki: Pki,
    users: Users,
    /// What there is of history.
    history: Option<History>,
    /// Stays open while the server is started again, so that clients who come back meanwhile wait and are not refused.
    listener: TcpListener,
    pub address: SocketAddr,
    clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Bind(#[from] net::BindError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("the users: {0}")]
    Users(#[from] users::OpenError),
}

impl Setup {
    /// Binds the port, makes or checks the certificate below `data_dir`/pki, and reads trust list and users. `camera_tags` are the
    /// tags that every camera has, without the camera's name; `before` is what runs now, whose port it may take over.
    pub fn new(
        config: Config,
        device_name: &str,
        camera_tags: Vec<TagSpec>,
        history: Option<History>,
        data_dir: &std::path::Path,
        before: Option<&Setup>,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let application = Application::of_device(device_name, Some(config.listen.ip()));
        let rules = Rules { require_crls: config.require_crls, ..Rules::default() };
        let pki = Pki::open(&data_dir.join(PKI), application, rules, clock.clone())?;
        let users = Users::open(data_dir)?;
        let listener = match before.filter(|before| before.config.listen == config.listen) {
            Some(before) => before.listener()?,
            None => net::listen(config.listen)?,
        };
        let address = listener.local_addr().unwrap_or(config.listen);
        Ok(Self { config, device_name: device_name.into(), camera_tags, pki, users, history, listener, address, clock })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    fn listener(&self) -> Result<TcpListener, SetupError> {
        self.listener
            .try_clone()
            .map_err(|source| net::BindError { address: self.address, source, holder: None }.into())
    }
}

/// Serves until the stop. Returns early only if the server failed, to be started again.
pub async fn run(setup: Arc<Setup>, hub: Hub, stop: Stop) {
    while !stop.is_stopped() {
        if let Err(error) = run_once(&setup, &hub, &stop).await {
            error!(%error, "The UA server ended.");
            return;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("cannot listen: {0}")]
    Listen(std::io::Error),
    #[error("the UA crate: {0}")]
    Crate(String),
}

/// Until the stop, or until another certificate counts.
async fn run_once(setup: &Arc<Setup>, hub: &Hub, stop: &Stop) -> Result<(), RunError> {
    let listener = tokio::net::TcpListener::from_std(setup.listener()?).map_err(RunError::Listen)?;
    let (sampling, pump) = images::pump();
    // Taken before the nodes are made, so that nothing that comes meanwhile is missed.
    let (every, registered) = (hub.every(notify::BATCHES), hub.registered());
    let (structure, events) = (hub.structure(), hub.events());
    let access = Access::new(setup.config.anonymous, &setup.config.access, setup.users.clone());
    let delivery = Arc::new(Delivery::new(hub.clone(), access.clone()));
    let (server, handle) = build(setup, hub, sampling, &access, &delivery)?;
    let guard = handle.node_managers().get_of_type::<Guard>();
    let nodes = guard.ok_or_else(|| RunError::Crate("our node manager is not there".into()))?.nodes().clone();
    let server_nodes = handle
        .node_managers()
        .get_of_type::<ServerNodes>()
        .ok_or_else(|| RunError::Crate("the nodes of the server are not there".into()))?;
    server_nodes::tidy(&handle);
    events::set_up(&handle);
    if setup.history.is_some() {
        history::nodes::announce(&handle);
    }
    info!(address = %setup.address, insecure = setup.config.insecure_on_loopback, "Serving OPC UA.");

    let notify = notify::run(hub, every, registered, &nodes, &handle);
    let follow = follow(hub, structure, &nodes);
    let events = events::run(hub, events, &delivery, &nodes, &handle);
    let sweep = sweep(&nodes, handle.subscriptions());
    let refresh = refresh(hub, &nodes);
    let rights = rights(access.clone(), &nodes);
    let owners = owners(access.clone(), &delivery, handle.subscriptions());
    let images = pump.run(handle.subscriptions().clone(), access);
    let behind = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(RunError::Listen)?;
    let behind_address = behind.local_addr().map_err(RunError::Listen)?;
    gate::guard(&handle.info().type_loaders);
    let key_bytes = server::key_bytes(&handle).ok_or_else(|| RunError::Crate("it has no certificate".into()))?;
    let (with_none, trust) = (setup.config.insecure_on_loopback, setup.pki.trust.clone());
    let gate = Gate::new(&setup.config.limits, with_none, Arc::new(hub.clone()), trust, behind_address, key_bytes);
    // Beside the rest, because its good-bye takes longer than the stop.
    let mut found = JoinSet::new();
    found.spawn(found::run(setup.clone(), gate.clone(), stop.clone()));
    let gate = async {
        server::advertise(&handle, behind_address.port(), setup.address.port()).await;
        gate.run(&listener, stop).await;
    };
    let serve = server.run_with(behind);
    tokio::pin!(serve);
    tokio::select! {
        outcome = &mut serve => return outcome.map_err(RunError::Crate),
        () = gate => {}
        () = notify => {}
        () = follow => {}
        () = sweep => {}
        () = refresh => {}
        () = images => {}
        () = server_nodes.run() => {}
        () = events => {}
        () = setup.users.follow() => {}
        () = rights => {}
        () = owners => {}
        () = setup.pki.replaced(hub) => {}
        () = stop.stopped() => {}
    }
    handle.cancel();
    // Sessions get a moment to be closed; whoever does not listen is cut off.
    let said_good_bye = async {
        // Who starts again at once is not gone.
        if stop.is_stopped() {
            found.join_next().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), async { tokio::join!(serve, said_good_bye) }).await;
    Ok(())
}

fn build(
    setup: &Arc<Setup>,
    hub: &Hub,
    sampling: Sampling,
    access: &Access,
    delivery: &Arc<Delivery>,
) -> Result<(::opcua::server::Server, ServerHandle), RunError> {
    let authenticator = Arc::new(Authenticator::new(access.clone(), Arc::new(hub.clone()), setup.clock.clone()));
    let (guard, access) = (access.clone(), access.clone());
    let (hub_of_methods, of_methods) = (hub.clone(), delivery.clone());
    let (hub, sessions, has_history) = (hub.clone(), Arc::new(Sessions::default()), setup.history.is_some());
    let (shown, seen) = (setup.clone(), sessions.clone());
    let nodes = InMemoryNodeManagerBuilder::new(move |context, address_space: &mut _| {
        HubNodes::new(hub, access, sampling, &shown, seen, &context, address_space)
    });
    let nodes = Guard::builder(nodes, guard);
    let further = Box::new(move |id| history::nodes::capability(id, has_history));
    let (config, ports) = (&setup.config, (setup.config.listen, setup.address.port()));
    server::builder(&setup.device_name, "Vedette", &setup.pki, ports, &config.limits, config.insecure_on_loopback)
        .with_authenticator(authenticator)
        .with_type_tree_getter(delivery.subscribers().clone())
        // The first that owns a node answers for it.
        .with_node_manager(move |context| ConditionMethods::new(hub_of_methods, of_methods, context))
        .with_node_manager(move |context| ServerNodes::new(context, sessions, further))
        .with_node_manager(InMemoryNodeManagerBuilder::new(CoreNodeManagerBuilder))
        .with_node_manager(nodes)
        .with_node_manager(|context| UnknownNodes::new(context, shows))
        .build()
        .map_err(RunError::Crate)
}

/// Whether a node is ours, and its user may browse it.
fn shows(server: &ServerContext, context: &RequestContext, id: &NodeId) -> bool {
    server.node_managers.get_of_type::<Guard>().is_some_and(|guard| guard.shows(context, id))
}

impl Notices for Hub {
    fn raise(&self, kind: EventKind, message: String) {
        self.raise(kind, "ua_server", message);
    }
}

/// How often it is looked whether a subscription has expired.
const SWEEP: Duration = Duration::from_secs(10);

/// Forgets monitored items of expired subscriptions, for ever.
async fn sweep(nodes: &InMemoryNodeManager<HubNodes>, subscriptions: &SubscriptionCache) {
    loop {
        tokio::time::sleep(SWEEP).await;
        nodes.inner().items().sweep(subscriptions);
    }
}

/// How often live tags are asked for while they are monitored.
const REFRESH: Duration = Duration::from_secs(1);

/// Keeps live tags up to date while they are monitored, for ever.
async fn refresh(hub: &Hub, nodes: &InMemoryNodeManager<HubNodes>) {
    loop {
        tokio::time::sleep(REFRESH).await;
        // What a reader has just asked for is new enough.
        hub.refresh(&nodes.inner().items().tags(), REFRESH / 2).await;
    }
}

/// Judges monitored items anew when users or their roles have changed, for ever.
async fn rights(access: Access, nodes: &InMemoryNodeManager<HubNodes>) {
    let (mut users, mut seats) = (access.users().changed(), access.seats().changed());
    // The senders are ours, so they cannot be gone.
    while tokio::select! { changed = users.changed() => changed, changed = seats.changed() => changed }.is_ok() {
        nodes.inner().recheck().await;
    }
}

/// How often it is looked who owns which subscription.
const OWNERS: Duration = Duration::from_millis(250);

/// Follows subscriptions that are transferred to another user, for ever.
async fn owners(access: Access, delivery: &Delivery, subscriptions: &SubscriptionCache) {
    loop {
        tokio::time::sleep(OWNERS).await;
        let sessions = delivery.subscribers().all();
        access.seats().look(subscriptions, sessions.into_iter().map(|(session, _)| session));
    }
}

/// Makes and takes away nodes as tags and cameras come and go, for ever.
async fn follow(hub: &Hub, mut structure: tokio::sync::watch::Receiver<u64>, nodes: &InMemoryNodeManager<HubNodes>) {
    let mut nameless = Vec::new();
    loop {
        nodes.inner().update(hub, &mut nodes.address_space().write());
        let missing = nodes.inner().rules_without_node(&nodes.address_space().read());
        if missing != nameless {
            if !missing.is_empty() {
                warn!(paths = ?missing, "No node has such a path; its [[ua_server.access]] is for nothing yet.");
            }
            nameless = missing;
        }
        if structure.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What the other files of this folder share.
type NodesLock = std::sync::RwLock<Nodes>;
