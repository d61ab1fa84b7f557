//! Which endpoints are offered, under which names, and with which limits.

use ::opcua::crypto::SecurityPolicy;
use ::opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerConfig, ServerEndpoint};
use ::opcua::types::MessageSecurityMode;
use std::net::SocketAddr;

/// Signed and encrypted ones first: clients that take the first endpoint take a good one. Basic128Rsa15 and Basic256 are
/// broken (OPC 10000-7) and never offered; the `rsa` crate's RUSTSEC-2023-0071 is about the former.
const POLICIES: [SecurityPolicy; 3] =
    [SecurityPolicy::Aes256Sha256RsaPss, SecurityPolicy::Basic256Sha256, SecurityPolicy::Aes128Sha256RsaOaep];

/// Endpoints and limits.
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

    // The crate's defaults fit numbers, not pictures: 64 KiB for a ByteString, five chunks of 64 KiB for a message.
    let limits = &mut config.limits;
    limits.max_byte_string_length = 16 * 1024 * 1024;
    limits.max_message_size = 64 * 1024 * 1024;
    limits.max_chunk_count = 1024;
    limits.max_array_length = 1_000_000;
    limits.max_string_length = 1024 * 1024;
    limits.subscriptions.min_sampling_interval_ms = 10.0;
    limits.subscriptions.min_publishing_interval_ms = 20.0;
    limits.subscriptions.max_monitored_items_per_sub = 100_000;
    limits.subscriptions.max_publish_requests_per_subscription = 10;
    // How often the crate looks for due notifications, which bounds every publishing interval from below.
    config.subscription_poll_interval_ms = 20;
}

/// `urn:<host>:vedette:<device>`, so that two devices in one plant differ (OPC 10000-4, 7.2: globally unique).
pub(super) fn application_uri(device_name: &str) -> String {
    let device: String =
        device_name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }).collect();
    format!("urn:{}:vedette:{device}", host_name())
}

fn host_name() -> String {
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

/// For the certificate: every name and address by which a client may come.
pub(super) fn host_names(listen: &SocketAddr) -> Vec<String> {
    let mut names = vec![host_name(), "localhost".into(), "127.0.0.1".into()];
    if !listen.ip().is_loopback() && !listen.ip().is_unspecified() {
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
