//! Which endpoints are offered, and under which names.

use crate::opcua::certificate::host_name;
use ::opcua::crypto::SecurityPolicy;
use ::opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerConfig, ServerEndpoint};
use ::opcua::types::MessageSecurityMode;
use std::net::SocketAddr;

/// Signed and encrypted ones first: clients that take the first endpoint take a good one. Basic128Rsa15 and Basic256 are
/// broken (OPC 10000-7) and never offered; the `rsa` crate's RUSTSEC-2023-0071 is about the former.
pub const POLICIES: [SecurityPolicy; 3] =
    [SecurityPolicy::Aes256Sha256RsaPss, SecurityPolicy::Basic256Sha256, SecurityPolicy::Aes128Sha256RsaOaep];

/// Endpoints.
pub fn add(config: &mut ServerConfig, with_none: bool) {
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

/// The host in the endpoint URLs that clients are told. Clients that came by another name keep theirs.
pub fn advertised_host(listen: &SocketAddr) -> String {
    match listen.ip() {
        ip if ip.is_loopback() => "localhost".into(),
        ip if ip.is_unspecified() => host_name(),
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
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
}
