//! The OPC UA server: cameras and tags for any UA client.
//!
//!     Objects
//!     ├── Camera Device ── Camera Image          the first camera, where users of the original sample look for it
//!     ├── Cameras ── <name> ── Camera Image      every camera, the first too (there it is the same node)
//!     │                     ├─ Snapshot         a method: a picture of another size or quality
//!     │                     └─ State, Format ... the tags below `cameras/<name>/`
//!     └── Tags ── <folder> ── <tag>              all other tags, one folder for each segment of the name
//!
//! - `address_space.rs` makes these nodes, at start and when the hub announces new tags or cameras.
//! - `node_manager.rs` answers reads, writes and subscriptions; values come from the hub, pictures from a camera.
//! - `images.rs` samples pictures for each monitored item at its own interval; `filter.rs` reads its deadband.
//! - `snapshot.rs` is the method of that name.
//! - `items.rs` looks after monitored items on tags where the UA crate does not.
//! - `access/` says who may come in, and who may do what with which node.
//! - `endpoints.rs` says which security is offered where, and which limits hold.
//!
//! NodeIds are strings made of names (`s=Tags/system/load`), so they stay the same over restarts and changes of the
//! configuration.

mod access;
mod address_space;
mod config;
mod endpoints;
mod filter;
mod images;
mod items;
mod node_manager;
mod snapshot;

use crate::base::{Stop, net};
use crate::hub::{Hub, Latest};
use crate::opcua::certificate::CertificateError;
use crate::opcua::{certificate, data_value};
use crate::users::{self, Users};
use ::opcua::server::node_manager::memory::{InMemoryNodeManager, InMemoryNodeManagerBuilder};
use ::opcua::server::{ServerBuilder, ServerHandle, SubscriptionCache};
use ::opcua::types::{AttributeId, BuildInfo, DateTime};
pub use access::AccessRule;
use access::{Access, Authenticator, Guard, Seats};
use address_space::Nodes;
pub use config::Config;
use node_manager::{HubNodes, Sampling};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{error, info, warn};

/// Everything that can fail has been tried: the port is bound and the certificate is there.
pub struct Setup {
    config: Config,
    device_name: String,
    pki: PathBuf,
    users: Users,
    /// The first listener; after a restart of the server a new one is bound.
    listener: Mutex<Option<TcpListener>>,
    pub address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Bind(#[from] net::BindError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the users: {0}")]
    Users(#[from] users::OpenError),
}

impl Setup {
    /// Binds the port and makes or checks the certificate below `data_dir`/pki.
    pub fn new(config: Config, device_name: &str, data_dir: &std::path::Path) -> Result<Self, SetupError> {
        let pki = data_dir.join("pki");
        let uri = endpoints::application_uri(device_name);
        let hosts = endpoints::host_names(&config.listen);
        certificate::ensure(&pki, &certificate::Application { name: device_name, uri: &uri, hosts })?;
        let users = Users::open(data_dir)?;
        let listener = net::listen(config.listen)?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let device_name = device_name.into();
        Ok(Self { config, device_name, pki, users, listener: Mutex::new(Some(listener)), address })
    }

    fn take_listener(&self) -> Result<TcpListener, SetupError> {
        let first = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(listener) => Ok(listener),
            None => Ok(net::listen(self.address)?),
        }
    }
}

/// Serves until the stop. Returns early only if the server failed, to be started again.
pub async fn run(setup: Arc<Setup>, hub: Hub, stop: Stop) {
    if let Err(error) = run_once(&setup, &hub, &stop).await {
        error!(%error, "The UA server ended.");
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

async fn run_once(setup: &Setup, hub: &Hub, stop: &Stop) -> Result<(), RunError> {
    let listener = tokio::net::TcpListener::from_std(setup.take_listener()?).map_err(RunError::Listen)?;
    let (sampling, pump) = images::pump();
    // Taken before the nodes are made, so that nothing that comes meanwhile is missed.
    let (latest, structure) = (hub.latest(), hub.structure());
    let access = Access::new(setup.config.anonymous, &setup.config.access, setup.users.clone());
    let seats = Arc::new(Seats::default());
    let (server, handle) = build(setup, hub, sampling, &access, &seats)?;
    let guard = handle.node_managers().get_of_type::<Guard>();
    let nodes = guard.ok_or_else(|| RunError::Crate("our node manager is not there".into()))?.nodes().clone();
    info!(address = %setup.address, insecure = setup.config.insecure_on_loopback, "Serving OPC UA.");

    let notify = notify(hub, latest, &nodes, &handle);
    let follow = follow(hub, structure, &nodes);
    let sweep = sweep(&nodes, handle.subscriptions());
    let refresh = refresh(hub, &nodes);
    let follow_users = setup.users.follow();
    let rights = rights(&setup.users, &seats, &nodes);
    let images = pump.run(handle.subscriptions().clone(), access);
    let serve = server.run_with(listener);
    tokio::pin!(serve);
    tokio::select! {
        outcome = &mut serve => return outcome.map_err(RunError::Crate),
        () = notify => {}
        () = follow => {}
        () = sweep => {}
        () = refresh => {}
        () = images => {}
        () = follow_users => {}
        () = rights => {}
        () = stop.stopped() => {}
    }
    handle.cancel();
    // Sessions get a moment to be closed; whoever does not listen is cut off.
    let _ = tokio::time::timeout(Duration::from_secs(2), serve).await;
    Ok(())
}

fn build(
    setup: &Setup,
    hub: &Hub,
    sampling: Sampling,
    access: &Access,
    seats: &Arc<Seats>,
) -> Result<(::opcua::server::Server, ServerHandle), RunError> {
    let (access, seats) = (access.clone(), seats.clone());
    let authenticator = Arc::new(Authenticator::new(access.clone(), hub.clone()));
    let (hub, guard) = (hub.clone(), (access.clone(), seats.clone()));
    let nodes = InMemoryNodeManagerBuilder::new(move |context, address_space: &mut _| {
        HubNodes::new(hub, access, seats, sampling, &context, address_space)
    });
    let nodes = Guard::builder(nodes, guard.0, guard.1);
    let mut builder = ServerBuilder::new()
        .application_name(setup.device_name.clone())
        .application_uri(endpoints::application_uri(&setup.device_name))
        .product_uri("urn:vedette")
        .build_info(BuildInfo {
            product_uri: "urn:vedette".into(),
            manufacturer_name: "Vedette".into(),
            product_name: "Vedette".into(),
            software_version: env!("CARGO_PKG_VERSION").into(),
            build_number: env!("CARGO_PKG_VERSION").into(),
            build_date: DateTime::null(),
        })
        .pki_dir(setup.pki.clone())
        .certificate_path(certificate::CERTIFICATE)
        .private_key_path(certificate::PRIVATE_KEY)
        .create_sample_keypair(false)
        .host(endpoints::advertised_host(&setup.config.listen))
        .port(setup.address.port())
        .with_authenticator(authenticator)
        .with_node_manager(nodes);
    endpoints::add(builder.config_mut(), setup.config.insecure_on_loopback);
    builder.build().map_err(RunError::Crate)
}

/// How long changes are gathered before they are handed to the subscriptions; no client samples faster.
const GATHER: Duration = Duration::from_millis(10);

/// Brings changed tags to the subscriptions, for ever.
async fn notify(hub: &Hub, mut latest: Latest, nodes: &InMemoryNodeManager<HubNodes>, handle: &ServerHandle) {
    let (nodes, subscriptions) = (nodes.inner(), handle.subscriptions());
    loop {
        let changed = tokio::select! {
            changed = latest.changed() => changed,
            () = nodes.items().wait() => Vec::new(),
        };
        let now = Instant::now();
        let mut tags = nodes.items().due(now);
        nodes.items().sent(&changed, now);
        tags.extend(changed);
        {
            let mut notifier = subscriptions.data_notifier();
            for sample in hub.read_many(&tags) {
                let Some(id) = nodes.node_id_of(sample.tag) else { continue };
                // Values nobody monitors are not even converted.
                let Some(mut batch) = notifier.notify_for(&id, AttributeId::Value) else { continue };
                for (item, value) in nodes.items().values(sample.tag, &data_value(&sample), &sample.quality) {
                    batch.data_value_to_item(value, &item);
                }
            }
        }
        tokio::time::sleep(GATHER).await;
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
async fn rights(users: &Users, seats: &Seats, nodes: &InMemoryNodeManager<HubNodes>) {
    let (mut users, mut seats) = (users.changed(), seats.changed());
    // The senders are ours, so they cannot be gone.
    while tokio::select! { changed = users.changed() => changed, changed = seats.changed() => changed }.is_ok() {
        nodes.inner().recheck().await;
    }
}

/// Adds nodes for new tags and cameras, for ever.
async fn follow(hub: &Hub, mut structure: tokio::sync::watch::Receiver<u64>, nodes: &InMemoryNodeManager<HubNodes>) {
    let mut nameless = Vec::new();
    loop {
        nodes.inner().add_new(hub, &mut nodes.address_space().write());
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
