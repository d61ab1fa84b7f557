//! How clients find the server without being told its address (OPC 10000-12), and how it finds clients that wait for it.
//!
//! - `mdns.rs` announces it on the local network.
//! - `lds.rs` registers it with a local discovery server, if there is one.
//! - `reverse.rs` connects to clients that cannot connect to it, because a firewall is between them.
//!
//! Nothing here can end the server: what fails is logged when it begins and when it is over, and tried again.

mod lds;
mod mdns;
mod reverse;

use super::Setup;
use crate::base::Stop;
use crate::base::net::HostPort;
use crate::opcua::server::endpoints;
use crate::opcua::server::gate::Gate;
use crate::opcua::server::pki::Pki;
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::Arc;

/// `[ua_server] mdns`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "true, false, or a list of interfaces as in [\"eth0\"]")]
pub enum Mdns {
    /// On the interfaces that `listen` is about, but for loopback.
    Switch(bool),
    /// On these interfaces, by name.
    Interfaces(Vec<String>),
}

/// `[ua_server] discovery_server`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a URL as in \"opc.tcp://localhost:4840\", or false")]
pub enum DiscoveryServer {
    /// `true`: the one of this machine, at its usual port, if there is one.
    Switch(bool),
    Url(String),
}

/// `[[ua_server.reverse]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reverse {
    /// Where the client listens for servers. Example: "opc.tcp://scada.example.com:4843".
    pub client: String,
}

/// Where a discovery server listens (OPC 10000-12, 4.2.2).
const DISCOVERY_PORT: u16 = 4840;

/// What is wrong with the values, as (key, what and what would be right).
pub(super) fn check(
    mdns: &Mdns,
    discovery_server: &DiscoveryServer,
    reverse: &[Reverse],
) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    if matches!(mdns, Mdns::Interfaces(names) if names.is_empty() || names.iter().any(String::is_empty)) {
        faults.push(("mdns", "names no interface; use false for none, or names as in [\"eth0\"]".to_owned()));
    }
    if let DiscoveryServer::Url(url) = discovery_server
        && let Err(reason) = target(url)
    {
        faults.push(("discovery_server", reason));
    }
    faults.extend(reverse.iter().filter_map(|reverse| Some(("client", target(&reverse.client).err()?))));
    faults
}

/// Host and port of a URL.
fn target(url: &str) -> Result<HostPort, String> {
    let wanted = "write it as \"opc.tcp://host:4840\"";
    let rest = url.strip_prefix("opc.tcp://").ok_or_else(|| format!("{url:?} is no address of OPC UA; {wanted}"))?;
    let authority = rest.split('/').next().unwrap_or(rest);
    HostPort::parse(authority, DISCOVERY_PORT).ok_or_else(|| format!("{url:?} has no host or a wrong port; {wanted}"))
}

/// What this server is able to, in the words of OPC 10000-12, Annex D; for clients that look for one that is.
fn capabilities(has_history: bool) -> Vec<&'static str> {
    // Current data, alarms and conditions.
    let mut capabilities = vec!["DA", "AC"];
    if has_history {
        capabilities.push("HD");
    }
    capabilities
}

/// Who the server is, for all three.
struct Identity {
    name: String,
    uri: String,
    address: SocketAddr,
    /// As in the endpoints.
    url: String,
    capabilities: Vec<&'static str>,
}

/// Until the stop, and then until all that have been told of the server are told that it is gone.
pub(super) async fn run(setup: Arc<Setup>, gate: Gate, stop: Stop) {
    let address = setup.address;
    let identity = Identity {
        name: setup.device_name.clone(),
        uri: setup.pki.identity().application_uri,
        address,
        url: format!("opc.tcp://{}:{}/", endpoints::advertised_host(&setup.config.listen), address.port()),
        capabilities: capabilities(setup.history.is_some()),
    };
    let config = &setup.config;
    tokio::join!(
        mdns::run(&config.mdns, &identity, &stop),
        lds::run(&config.discovery_server, &setup.pki, &identity, &stop),
        reverse::run(&config.reverse, &identity, |stream, peer| gate.clone().receive(stream, peer), &stop),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_by_key() {
        let reverse = |client: &str| vec![Reverse { client: client.into() }];
        let keys = |mdns: Mdns, url: &str, reverse: &[Reverse]| {
            let faults = check(&mdns, &DiscoveryServer::Url(url.into()), reverse);
            faults.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert!(keys(Mdns::Switch(true), "opc.tcp://localhost", &reverse("opc.tcp://[::1]:4843/x")).is_empty());
        assert_eq!(
            keys(Mdns::Interfaces(vec![]), "http://a", &reverse("opc.tcp://a:0")),
            ["mdns", "discovery_server", "client"]
        );
    }
}
