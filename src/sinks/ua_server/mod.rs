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
//! - `history/` answers HistoryRead from the store.
//! - `items.rs` looks after monitored items on tags where the UA crate does not; `stamps.rs` after their timestamps.
//! - `ranges.rs` are parts of values; `writes.rs` is what may be written.
//! - `server_nodes/` tells of the server itself, and of nodes that do not exist.
//! - `endpoints.rs` says which security is offered where, and which limits hold.
//!
//! NodeIds are strings made of names (`s=Tags/system/load`), so they stay the same over restarts and changes of the
//! configuration.

mod address_space;
mod config;
mod endpoints;
mod filter;
mod history;
mod images;
mod items;
mod node_manager;
mod ranges;
mod server_nodes;
mod snapshot;
mod stamps;
mod writes;

use crate::base::{Stop, net};
use crate::hub::{Hub, Latest};
use crate::model::{TagSpec, Timestamp};
use crate::opcua::certificate::CertificateError;
use crate::opcua::{certificate, data_value, date_time};
use crate::store::History;
use ::opcua::server::node_manager::memory::{CoreNodeManagerBuilder, InMemoryNodeManager, InMemoryNodeManagerBuilder};
use ::opcua::server::{ServerBuilder, ServerHandle, SubscriptionCache};
use ::opcua::types::{AttributeId, BuildInfo, DateTime};
use address_space::Nodes;
pub use config::Config;
use node_manager::{HubNodes, Sampling};
use server_nodes::{ServerNodes, Sessions, UnknownNodes};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{error, info};

/// Everything that can fail has been tried: the port is bound and the certificate is there.
pub struct Setup {
    config: Config,
    device_name: String,
    /// What every camera has below its name: the declarations of CameraType.
    camera_tags: Vec<TagSpec>,
    pki: PathBuf,
    /// What there is of history.
    history: OnceLock<History>,
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
}

impl Setup {
    /// Binds the port and makes or checks the certificate below `data_dir`/pki.
    /// `camera_tags` are the tags that every camera has, without the camera's name.
    pub fn new(
        config: Config,
        device_name: &str,
        camera_tags: Vec<TagSpec>,
        data_dir: &std::path::Path,
    ) -> Result<Self, SetupError> {
        let pki = data_dir.join("pki");
        let uri = endpoints::application_uri(device_name);
        let hosts = endpoints::host_names(&config.listen);
        certificate::ensure(&pki, &certificate::Application { name: device_name, uri: &uri, hosts })?;
        let listener = net::listen(config.listen)?;
        let address = listener.local_addr().unwrap_or(config.listen);
        Ok(Self {
            config,
            device_name: device_name.into(),
            camera_tags,
            pki,
            history: OnceLock::new(),
            listener: Mutex::new(Some(listener)),
            address,
        })
    }

    /// What there is of history, before the first run.
    pub fn set_history(&self, history: Option<History>) {
        if let Some(history) = history {
            // It is set once, at start.
            let _ = self.history.set(history);
        }
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
    if setup.history.get().is_some() {
        history::nodes::announce(&handle);
    }
    info!(address = %setup.address, insecure = setup.config.insecure_on_loopback, "Serving OPC UA.");

    let notify = notify(hub, latest, &nodes, &handle);
    let follow = follow(hub, structure, &nodes);
    let sweep = sweep(&nodes, handle.subscriptions());
    let refresh = refresh(hub, &nodes);
    let images = pump.run(handle.subscriptions().clone());
    let serve = server.run_with(listener);
    tokio::pin!(serve);
    tokio::select! {
        outcome = &mut serve => return outcome.map_err(RunError::Crate),
        () = notify => {}
        () = follow => {}
        () = sweep => {}
        () = refresh => {}
        () = images => {}
        () = server_nodes.run() => {}
        () = stop.stopped() => {}
    }
    handle.cancel();
    // Sessions get a moment to be closed; whoever does not listen is cut off.
    let _ = tokio::time::timeout(Duration::from_secs(2), serve).await;
    Ok(())
}

fn build(setup: &Setup, hub: &Hub, sampling: Sampling) -> Result<(::opcua::server::Server, ServerHandle), RunError> {
    let (hub, sessions) = (hub.clone(), Arc::new(Sessions::default()));
    let (camera_tags, seen) = (setup.camera_tags.clone(), sessions.clone());
    let (history, has_history) = (setup.history.get().cloned(), setup.history.get().is_some());
    let nodes = InMemoryNodeManagerBuilder::new(move |context, address_space: &mut _| {
        HubNodes::new(hub, sampling, &camera_tags, history, seen, &context, address_space)
    });
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
            build_date: build_date(),
        })
        .pki_dir(setup.pki.clone())
        .certificate_path(certificate::CERTIFICATE)
        .private_key_path(certificate::PRIVATE_KEY)
        .create_sample_keypair(false)
        .host(endpoints::advertised_host(&setup.config.listen))
        .port(setup.address.port())
        // The first that owns a node answers for it.
        .without_node_managers()
        .with_node_manager(move |context| ServerNodes::new(context, sessions, has_history))
        .with_node_manager(InMemoryNodeManagerBuilder::new(CoreNodeManagerBuilder))
        .with_node_manager(nodes)
        .with_node_manager(UnknownNodes::new);
    endpoints::add(builder.config_mut(), setup.config.insecure_on_loopback);
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

/// Adds nodes for new tags and cameras, for ever.
async fn follow(hub: &Hub, mut structure: tokio::sync::watch::Receiver<u64>, nodes: &InMemoryNodeManager<HubNodes>) {
    loop {
        nodes.inner().add_new(hub, &mut nodes.address_space().write());
        if structure.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What the other files of this folder share.
type NodesLock = std::sync::RwLock<Nodes>;
