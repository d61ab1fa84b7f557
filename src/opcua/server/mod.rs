//! What every OPC UA server of this program stands on: the appliance's (`sinks/ua_server`) and the relay's (`relay/ua`).
//!
//!     client ──► gate/ ──► the UA crate's server ──► node managers of whoever serves
//!                 │              │
//!              limits.rs      pki.rs, endpoints.rs, authenticator.rs
//!
//! - `gate/` owns the port: who may come in, and at what pace. Behind it the UA crate's server has a port of its own.
//! - `pki.rs` keeps our own certificate and the trust list; `endpoints.rs` says which security is offered where.
//! - `authenticator.rs` is who comes in, as the UA crate asks it; `limits.rs` how much a client may cost.
//! - `server_nodes/` tells of the server itself, and of nodes that do not exist.
//! - `filter.rs`, `monitored.rs`, `ranges.rs`, `stamps.rs`, `units.rs` look after values where the UA crate does not.
//!
//! What there is to serve nobody knows here, nor who the users are ([`authenticator::Rights`]) and where news go ([`Notices`]).

pub mod authenticator;
pub mod endpoints;
pub mod filter;
pub mod gate;
pub mod limits;
pub mod monitored;
pub mod pki;
pub mod ranges;
pub mod server_nodes;
pub mod stamps;
pub mod units;

use crate::model::{EventKind, Timestamp};
use crate::opcua::certificate;
use crate::opcua::date_time;
use ::opcua::server::{ServerBuilder, ServerHandle};
use ::opcua::types::{BuildInfo, DateTime};
use limits::Limits;
use pki::Pki;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where a server tells what somebody may want to know later.
pub trait Notices: Send + Sync {
    fn raise(&self, kind: EventKind, message: String);
}

/// A server by its name and that of its product, without users and without node managers. `listen` is what was
/// configured, `port` the one that clients are told.
pub fn builder(
    name: &str,
    product: &str,
    pki: &Pki,
    (listen, port): (SocketAddr, u16),
    limits: &Limits,
    with_none: bool,
) -> ServerBuilder {
    let product_uri = format!("urn:{}", product.to_lowercase().replace(' ', "-"));
    let mut builder = ServerBuilder::new()
        .application_name(name)
        .application_uri(pki.identity().application_uri)
        .product_uri(&product_uri)
        .build_info(BuildInfo {
            product_uri: product_uri.into(),
            manufacturer_name: "Vedette".into(),
            product_name: product.into(),
            software_version: env!("CARGO_PKG_VERSION").into(),
            build_number: env!("CARGO_PKG_VERSION").into(),
            build_date: build_date(),
        })
        .pki_dir(pki.trust.store())
        .certificate_path(certificate::STORE_CERTIFICATE)
        .private_key_path(certificate::STORE_KEY)
        .create_sample_keypair(false)
        .host(endpoints::advertised_host(&listen))
        .port(port)
        .without_node_managers();
    endpoints::add(builder.config_mut(), with_none);
    limits.apply(builder.config_mut());
    builder
}

/// When this program was built: the time that its file has.
fn build_date() -> DateTime {
    let file = std::env::current_exe().and_then(std::fs::metadata).and_then(|file| file.modified());
    let since_1970 = file.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since_1970.map_or_else(DateTime::null, |since| date_time(Timestamp::UNIX_EPOCH.saturating_add(since)))
}

/// Bytes of the server's key; `None` if it has no certificate.
pub fn key_bytes(handle: &ServerHandle) -> Option<usize> {
    let certificate = handle.info().server_certificate.as_ref()?;
    Some(certificate.key_length().ok()? / 8)
}

/// Clients are told the port that the crate listens on, and it is the gate's that they are to come to. The crate sets it
/// when it begins to listen.
pub async fn advertise(handle: &ServerHandle, behind: u16, public: u16) {
    while handle.info().port.compare_exchange(behind, public, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
