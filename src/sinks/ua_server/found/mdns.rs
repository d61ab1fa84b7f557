//! Announces the server by multicast DNS (RFC 6762, 6763): `<name> on <host>._opcua-tcp._tcp.local`, with the TXT
//! records `path` and `caps` (OPC 10000-12, Annex C).
//!
//! The crate has a thread that answers queries, follows the addresses of the interfaces, and takes another name when ours
//! is somebody else's. It shares port 5353 with others who do as much.

use super::{Identity, Mdns};
use crate::base::Stop;
use mdns_sd::{DaemonEvent, IfKind, IfPredicate, Receiver, ServiceDaemon, ServiceInfo};
use std::net::IpAddr;
use std::time::Duration;
use tracing::{info, warn};

const SERVICE: &str = "_opcua-tcp._tcp.local.";
/// Of a DNS label (RFC 1035, 2.3.4).
const LABEL: usize = 63;
/// For the good-bye to be sent.
const GOODBYE: Duration = Duration::from_secs(1);

/// Until the stop, with a good-bye. What fails is a warning.
pub(super) async fn run(config: &Mdns, identity: &Identity, stop: &Stop) {
    let interfaces = interfaces(config, identity.address.ip());
    if interfaces.is_empty() {
        return;
    }
    match announce(interfaces, identity) {
        Ok((announced, events)) => {
            tokio::select! {
                () = follow(&events) => {}
                () = stop.stopped() => {}
            }
            announced.withdraw().await;
        }
        Err(error) => warn!(%error, "Cannot announce the server by mDNS."),
    }
}

/// Ends the crate's thread also if nobody waits for the good-bye.
struct Announced {
    daemon: ServiceDaemon,
    name: String,
}

impl Drop for Announced {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.daemon.shutdown();
    }
}

impl Announced {
    async fn withdraw(self) {
        if let Ok(done) = self.daemon.unregister(&self.name) {
            // Whoever misses the good-bye forgets the server when its records are too old.
            let _ = tokio::time::timeout(GOODBYE, done.recv_async()).await;
        }
    }
}

fn announce(
    interfaces: Vec<IfKind>,
    identity: &Identity,
) -> Result<(Announced, Receiver<DaemonEvent>), mdns_sd::Error> {
    let host = crate::opcua::certificate::host_name();
    let label = host.split('.').next().unwrap_or(&host);
    let txt = [("path", "/".to_owned()), ("caps", identity.capabilities.join(","))];
    let name = instance(&identity.name, label);
    let (ip, port) = (identity.address.ip(), identity.address.port());
    // Who listens on one address is found at that one only.
    let addresses = if ip.is_unspecified() { String::new() } else { ip.to_string() };
    let service = ServiceInfo::new(SERVICE, &name, &format!("{label}.local."), addresses, port, &txt[..])?;
    let service = if ip.is_unspecified() { service.enable_addr_auto() } else { service };
    let daemon = ServiceDaemon::new()?;
    let announced = Announced { daemon, name: service.get_fullname().to_owned() };
    let daemon = &announced.daemon;
    let events = daemon.monitor()?;
    daemon.disable_interface(IfKind::All)?;
    daemon.enable_interface(interfaces)?;
    daemon.register(service)?;
    info!(name, "Announcing the server by mDNS.");
    Ok((announced, events))
}

/// Says what the crate has to say, for as long as it works.
async fn follow(events: &Receiver<DaemonEvent>) {
    let mut is_said = false;
    while let Ok(event) = events.recv_async().await {
        match event {
            DaemonEvent::NameChange(change) => {
                info!(name = change.new_name, "The name was taken; announcing the server by another one.");
            }
            DaemonEvent::Error(error) if !std::mem::replace(&mut is_said, true) => {
                warn!(%error, "Trouble with mDNS; said once.");
            }
            _ => {}
        }
    }
    warn!("The server is not announced by mDNS any more: its thread has ended.");
}

/// Where to announce.
fn interfaces(config: &Mdns, listen: IpAddr) -> Vec<IfKind> {
    match config {
        Mdns::Switch(false) => Vec::new(),
        // Who listens there is not for others.
        Mdns::Switch(true) if listen.is_loopback() => Vec::new(),
        Mdns::Switch(true) if !listen.is_unspecified() => vec![IfKind::Addr(listen)],
        // [::] takes IPv4 as well, as Linux has it (bindv6only is 0).
        Mdns::Switch(true) => {
            let is_v6 = listen.is_ipv6();
            let covered = IfPredicate::new(move |found| !found.is_loopback() && (is_v6 || found.ip().is_ipv4()));
            vec![IfKind::Predicate(covered)]
        }
        Mdns::Interfaces(names) => names.iter().map(|name| IfKind::Name(name.clone())).collect(),
    }
}

/// `<name> on <host>`, cut to what a label holds.
fn instance(name: &str, host: &str) -> String {
    let mut instance = format!("{name} on {host}");
    let mut end = instance.len().min(LABEL);
    while !instance.is_char_boundary(end) {
        end -= 1;
    }
    instance.truncate(end);
    instance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_fits_into_a_label() {
        assert_eq!(instance("Line 1", "gateway"), "Line 1 on gateway");
        let long = instance(&"ü".repeat(40), "gateway");
        assert!(long.len() <= LABEL && long.starts_with('ü'), "{long}");
    }

    #[test]
    fn loopback_is_announced_only_on_request() {
        let at = |config: Mdns, ip: &str| interfaces(&config, ip.parse().unwrap()).len();
        assert_eq!([at(Mdns::Switch(true), "127.0.0.1"), at(Mdns::Switch(true), "::1")], [0, 0]);
        assert_eq!([at(Mdns::Switch(true), "0.0.0.0"), at(Mdns::Switch(true), "192.0.2.1")], [1, 1]);
        assert_eq!(at(Mdns::Switch(false), "0.0.0.0"), 0);
        assert_eq!(at(Mdns::Interfaces(vec!["lo".into(), "eth0".into()]), "127.0.0.1"), 2);
    }
}
