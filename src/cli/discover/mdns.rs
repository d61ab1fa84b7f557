//! Servers that announce themselves: `_opcua-tcp._tcp.local` (RFC 6763; OPC 10000-12, Annex C).

use crate::cli::show::printable;
use mdns_sd::{Error, ServiceDaemon, ServiceEvent};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const SERVICE: &str = "_opcua-tcp._tcp.local.";
/// Anybody on the network can announce any number.
const MOST: usize = 500;

/// URLs with names, as heard within that time.
pub(super) async fn listen(time: Duration) -> Result<BTreeMap<String, String>, Error> {
    let daemon = ServiceDaemon::new()?;
    let events = daemon.browse(SERVICE)?;
    let mut found = BTreeMap::new();
    let collect = async {
        while let Ok(event) = events.recv_async().await {
            let ServiceEvent::ServiceResolved(service) = event else { continue };
            if found.len() >= MOST {
                continue;
            }
            let path = service.get_property_val_str("path").unwrap_or_default();
            let addresses: Vec<IpAddr> = service.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
            if let Some(url) = url(&addresses, service.get_port(), path) {
                let name = service.get_fullname();
                let name = name.strip_suffix(SERVICE).unwrap_or(name).trim_end_matches('.');
                found.insert(url, printable(name));
            }
        }
    };
    // The time is how long there is to answer.
    let _ = tokio::time::timeout(time, collect).await;
    // An error means that its thread has ended already.
    let _ = daemon.shutdown();
    Ok(found)
}

/// With the address: names that end in .local need a resolver that knows mDNS, and many do not. IPv4 first, because a
/// link-local IPv6 address is nothing without its interface.
fn url(addresses: &[IpAddr], port: u16, path: &str) -> Option<String> {
    let is_local = |ip: &&IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let best = addresses.iter().filter(|ip| !is_local(ip)).min_by_key(|ip| (ip.is_ipv6(), **ip))?;
    let host = match best {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let path = path.trim_matches('/');
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    Some(format!("opc.tcp://{host}:{port}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_can_be_pasted_is_taken() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(url(&ips(&["2001:db8::1", "192.0.2.1"]), 4840, "/").unwrap(), "opc.tcp://192.0.2.1:4840");
        assert_eq!(url(&ips(&["2001:db8::1", "fe80::1"]), 4840, "/a/b").unwrap(), "opc.tcp://[2001:db8::1]:4840/a/b");
        assert_eq!(url(&ips(&["fe80::1"]), 4840, ""), None);
    }
}
