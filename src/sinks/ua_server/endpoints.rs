//! Which endpoints are offered, and under which names.

use crate::base::interfaces;
use ::opcua::crypto::SecurityPolicy;
use ::opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerConfig, ServerEndpoint};
use ::opcua::types::MessageSecurityMode;
use std::net::SocketAddr;

/// Signed and encrypted ones first: clients that take the first endpoint take a good one. Basic128Rsa15 and Basic256 are
/// broken (OPC 10000-7) and never offered; the `rsa` crate's RUSTSEC-2023-0071 is about the former.
pub(super) const POLICIES: [SecurityPolicy; 3] =
    [SecurityPolicy::Aes256Sha256RsaPss, SecurityPolicy::Basic256Sha256, SecurityPolicy::Aes128Sha256RsaOaep];

/// Endpoints.
pub(super) fn add(config: &mut ServerConfig, with_none: bool) {
    let users = [ANONYMOUS_USER_TOKEN_ID.to_owned()];
    for policy in POLICIES {
        for mode in [MessageSecurityMode::SignAndEncrypt, MessageSecurityMode::Sign] {
            let endpoint = ServerEndpoint::new("/", policy, mode, &users);
            config.endpoints.insert(format!("{policy} {mode}"), endpoint);
        }
    }
    if with_none {
        config.endpoints.insert("none".into(), ServerEndpoint::new_none("/", &users));
    }
    config.discovery_urls = vec!["/".into()];
    // Count sessions, subscriptions and refused requests.
    config.diagnostics = true;
    // The trust list has judged that, and knows what a clock that is not set means.
    config.certificate_validation.check_time = false;
}

/// `urn:<host>:vedette:<device>`, so that two devices in one plant differ (OPC 10000-4, 7.2: globally unique).
pub(super) fn application_uri(device_name: &str) -> String {
    format!("urn:{}:vedette:{}", uri_part(&host_name()), uri_part(device_name))
}

/// A URI has only ASCII, and so has the certificate that carries it.
fn uri_part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }).collect()
}

/// Of this machine.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".into() } else { name }
}

/// The host in the endpoint URLs that clients are told. Clients that came by another name keep theirs.
pub(super) fn advertised_host(listen: &SocketAddr) -> String {
    match listen.ip() {
        ip if ip.is_loopback() => "localhost".into(),
        ip if ip.is_unspecified() => host_name(),
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// For the certificate: every name and address by which a client may come, as things are when it is made, and whatever
/// `listen` says today. Addresses may change later, and then a client that compares them needs a name: a new certificate for
/// each would have to be trusted anew by all.
pub(super) fn host_names(listen: &SocketAddr) -> Vec<String> {
    let host = host_name();
    // What mDNS calls it.
    let local = (!host.contains('.')).then(|| format!("{host}.local"));
    let mut names: Vec<String> = [host].into_iter().chain(local).collect();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.extend(interfaces::addresses().iter().map(ToString::to_string));
    // It may stand on an interface that is not up yet.
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_weak_is_offered_unless_asked_for() {
        let mut config = ServerConfig::default();
        add(&mut config, false);
        assert_eq!(config.endpoints.len(), 6);
        let policies: Vec<_> = config.endpoints.values().map(ServerEndpoint::security_policy).collect();
        assert!(policies.iter().all(|policy| POLICIES.contains(policy)), "{policies:?}");
        add(&mut config, true);
        assert_eq!(config.endpoints["none"].security_policy(), SecurityPolicy::None);
    }

    #[test]
    fn an_application_uri_has_no_blanks() {
        let uri = application_uri("Linie 1 / Süd");
        assert!(uri.starts_with("urn:") && uri.ends_with(":vedette:Linie-1---S-d"), "{uri}");
    }
}
