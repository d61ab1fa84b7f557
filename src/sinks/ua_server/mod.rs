//! The OPC UA server: cameras and tags for any UA client.
//!
//!     Objects
//!     ├── Camera Device ── Camera Image          the first camera, where users of the original sample look for it
//!     ├── Cameras ── <name> ── Camera Image      every camera, the first too (there it is the same node)
//!     │                     ├─ Snapshot         a method: a picture of another size or quality
//!     │                     └─ State, Format ... the tags below `cameras/<name>/`
//!     └── Tags ── <folder> ── <tag>              all other tags, one folder for each segment of the name
//!
//! - `gate/` owns the port: who may come in, and at what pace. Behind it the UA crate's server has a port of its own.
//! - `address_space/` makes these nodes, and takes them away, as tags and cameras come and go.
//! - `node_manager.rs` answers reads, writes and subscriptions; values come from the hub, pictures from a camera.
//! - `images.rs` samples pictures for each monitored item at its own interval; `filter.rs` reads its deadband.
//! - `snapshot.rs` is the method of that name.
//! - `items.rs` looks after monitored items on tags where the UA crate does not; `stamps.rs` after their timestamps.
//! - `ranges.rs` are parts of values; `writes.rs` is what may be written.
//! - `server_nodes/` tells of the server itself, and of nodes that do not exist.
//! - `pki.rs` keeps our own certificate and the trust list.
//! - `endpoints.rs` says which security is offered where; `limits.rs` how much a client may cost.
//!
//! NodeIds are strings made of names (`s=Tags/system/load`), so they stay the same over restarts and changes of the
//! configuration.

mod address_space;
mod config;
mod endpoints;
mod filter;
mod gate;
mod images;
mod items;
mod limits;
mod node_manager;
mod pki;
mod ranges;
mod server_nodes;
mod snapshot;
mod stamps;
mod writes;

use crate::base::{Clock, Stop, net};
use crate::hub::{Hub, Latest};
use crate::model::{TagSpec, Timestamp};
use crate::opcua::certificate::{self, Application};
use crate::opcua::date_time;
use crate::opcua::trust::Rules;
use ::opcua::server::node_manager::memory::{CoreNodeManagerBuilder, InMemoryNodeManager, InMemoryNodeManagerBuilder};
use ::opcua::server::{ServerBuilder, ServerHandle, SubscriptionCache};
use ::opcua::types::{BuildInfo, DateTime};
use address_space::Nodes;
pub use config::Config;
use gate::Gate;
use node_manager::{HubNodes, Sampling};
use pki::{Pki, PkiError};
use server_nodes::{ServerNodes, Sessions, UnknownNodes};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{error, info};

/// Everything that can fail has been tried: the port is bound, the certificate is there, the trust list was read.
pub struct Setup {
    config: Config,
    device_name: String,
    /// What every camera has below its name: the declarations of CameraType.
    camera_tags: Vec<TagSpec>,
    pki: Pki,
    /// Stays open while the server is started again, so that clients who come back meanwhile wait and are not refused.
    listener: TcpListener,
    pub address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Bind(#[from] net::BindError),
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Below the data folder.
pub const PKI: &str = "pki";

impl Setup {
    /// Binds the port, makes or checks the certificate below `data_dir`/pki, and reads the trust list. `camera_tags` are the
    /// tags that every camera has, without the camera's name; `before` is what runs now, whose port it may take over.
    pub fn new(
        config: Config,
        device_name: &str,
        camera_tags: Vec<TagSpec>,
        data_dir: &std::path::Path,
        before: Option<&Setup>,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let application = Application {
            name: device_name.into(),
            uri: endpoints::application_uri(device_name),
            hosts: endpoints::host_names(&config.listen),
        };
        let rules = Rules { require_crls: config.require_crls };
        let pki = Pki::open(&data_dir.join(PKI), application, rules, clock)?;
        let listener = match before.filter(|before| before.config.listen == config.listen) {
            Some(before) => before.listener()?,
            None => net::listen(config.listen)?,
        };
        let address = listener.local_addr().unwrap_or(config.listen);
        Ok(Self { config, device_name: device_name.into(), camera_tags, pki, listener, address })
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
async fn run_once(setup: &Setup, hub: &Hub, stop: &Stop) -> Result<(), RunError> {
    let listener = tokio::net::TcpListener::from_std(setup.listener()?).map_err(RunError::Listen)?;
    let (sampling, pump) = images::pump();
    // Taken before the nodes are made, so that nothing that comes meanwhile is missed.
    let (latest, structure) = (hub.latest(), hub.structure());
    let (server, handle) = build(setup, hub, sampling)?;
    let nodes = handle
        .node_managers()
        .get_of_type::<InMemoryNodeManager<HubNodes>>()
        .ok_or_else(|| RunError::Crate("our node manager is not there".into()))?;
    let server_nodes = handle
        .node_managers()
        .get_of_type::<ServerNodes>()
        .ok_or_else(|| RunError::Crate("the nodes of the server are not there".into()))?;
    server_nodes::tidy(&handle);
    info!(address = %setup.address, insecure = setup.config.insecure_on_loopback, "Serving OPC UA.");

    let notify = notify(hub, latest, &nodes, &handle);
    let follow = follow(hub, structure, &nodes);
    let sweep = sweep(&nodes, handle.subscriptions());
    let refresh = refresh(hub, &nodes);
    let images = pump.run(handle.subscriptions().clone());
    let behind = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(RunError::Listen)?;
    let behind_address = behind.local_addr().map_err(RunError::Listen)?;
    gate::guard(&handle.info().type_loaders);
    let key_bytes = key_bytes(&handle)?;
    let gate = Gate::new(&setup.config, hub.clone(), setup.pki.trust.clone(), behind_address, key_bytes);
    let gate = async {
        advertise(&handle, behind_address.port(), setup.address.port()).await;
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
        () = setup.pki.replaced(hub) => {}
        () = stop.stopped() => {}
    }
    handle.cancel();
    // Sessions get a moment to be closed; whoever does not listen is cut off.
    let _ = tokio::time::timeout(Duration::from_secs(2), serve).await;
    Ok(())
}

/// Bytes of the server's key.
fn key_bytes(handle: &ServerHandle) -> Result<usize, RunError> {
    let certificate = handle.info().server_certificate.as_ref();
    let bits = certificate.and_then(|certificate| certificate.key_length().ok());
    bits.map(|bits| bits / 8).ok_or_else(|| RunError::Crate("it has no certificate".into()))
}

/// Clients are told the port that the crate listens on, and it is the gate's that they are to come to. The crate sets it
/// when it begins to listen.
async fn advertise(handle: &ServerHandle, behind: u16, public: u16) {
    while handle.info().port.compare_exchange(behind, public, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn build(setup: &Setup, hub: &Hub, sampling: Sampling) -> Result<(::opcua::server::Server, ServerHandle), RunError> {
    let (hub, limits, sessions) = (hub.clone(), setup.config.limits.clone(), Arc::new(Sessions::default()));
    let (camera_tags, seen) = (setup.camera_tags.clone(), sessions.clone());
    let nodes = InMemoryNodeManagerBuilder::new(move |context, address_space: &mut _| {
        HubNodes::new(hub, sampling, limits, &camera_tags, seen, &context, address_space)
    });
    let mut builder = ServerBuilder::new()
        .application_name(setup.device_name.clone())
        .application_uri(setup.pki.identity().application_uri)
        .product_uri("urn:vedette")
        .build_info(BuildInfo {
            product_uri: "urn:vedette".into(),
            manufacturer_name: "Vedette".into(),
            product_name: "Vedette".into(),
            software_version: env!("CARGO_PKG_VERSION").into(),
            build_number: env!("CARGO_PKG_VERSION").into(),
            build_date: build_date(),
        })
        .pki_dir(setup.pki.trust.store())
        .certificate_path(certificate::STORE_CERTIFICATE)
        .private_key_path(certificate::STORE_KEY)
        .create_sample_keypair(false)
        .host(endpoints::advertised_host(&setup.config.listen))
        .port(setup.address.port())
        // The first that owns a node answers for it.
        .without_node_managers()
        .with_node_manager(move |context| ServerNodes::new(context, sessions))
        .with_node_manager(InMemoryNodeManagerBuilder::new(CoreNodeManagerBuilder))
        .with_node_manager(nodes)
        .with_node_manager(UnknownNodes::new);
    endpoints::add(builder.config_mut(), setup.config.insecure_on_loopback);
    setup.config.limits.apply(builder.config_mut());
    builder.build().map_err(RunError::Crate)
}

/// When this program was built: the time that its file has.
fn build_date() -> DateTime {
    let file = std::env::current_exe().and_then(std::fs::metadata).and_then(|file| file.modified());
    let since_1970 = file.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since_1970.map_or_else(DateTime::null, |since| date_time(Timestamp::UNIX_EPOCH.saturating_add(since)))
}

/// How long changes are gathered before they are handed to the subscriptions; no client samples faster.
const GATHER: Duration = Duration::from_millis(10);
/// So many tags are handed over at once. Each client of each gets a copy of about 100 bytes, and others wait meanwhile.
const AT_ONCE: usize = 500;

/// Brings changed tags to the subscriptions, for ever.
async fn notify(hub: &Hub, mut latest: Latest, nodes: &InMemoryNodeManager<HubNodes>, handle: &ServerHandle) {
    let (nodes, subscriptions) = (nodes.inner(), handle.subscriptions());
    loop {
        let changed = tokio::select! {
            changed = latest.changed() => changed,
            () = nodes.items().wait() => Vec::new(),
        };
        let due = nodes.items().lock().due(Instant::now());
        for (tags, is_change) in [(due, false), (changed, true)] {
            for tags in tags.chunks(AT_ONCE) {
                nodes.deliver(&hub.read_many(tags), is_change, subscriptions);
                tokio::task::yield_now().await;
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

/// Makes and takes away nodes as tags and cameras come and go, for ever.
async fn follow(hub: &Hub, mut structure: tokio::sync::watch::Receiver<u64>, nodes: &InMemoryNodeManager<HubNodes>) {
    loop {
        nodes.inner().update(hub, &mut nodes.address_space().write());
        if structure.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What the other files of this folder share.
type NodesLock = std::sync::RwLock<Nodes>;
