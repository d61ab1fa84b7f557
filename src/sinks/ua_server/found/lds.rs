//! Registers the server with a local discovery server (OPC 10000-12, 4.2.2; OPC 10000-4, 5.5.5 and 5.5.6).
//!
//!     absent ──answers──► registered ── again every 5 min ──► registered ──stop──► isOnline = false
//!        └─ again every minute
//!
//! Over the best secure endpoint that it has, with our application certificate; its own certificate must be trusted as any
//! client's, and is kept below rejected/ until it is. The UA crate asks that of sessions only, so it is asked here. RegisterServer2 first, which tells it our capabilities, then
//! RegisterServer for older ones.

use super::{DISCOVERY_PORT, DiscoveryServer, Identity, Pki, target};
use crate::base::Stop;
use crate::base::net::{self, HostPort};
use crate::opcua::{certificate, trust};
use ::opcua::client::transport::{ConnectorBuilder, TransportPollResult};
use ::opcua::client::{Client, ClientBuilder};
use ::opcua::core::ResponseMessage;
use ::opcua::crypto::SecurityPolicy;
use ::opcua::types::{
    ApplicationType, EndpointDescription, Error, ExtensionObject, MdnsDiscoveryConfiguration, MessageSecurityMode,
    RegisterServer2Request, RegisterServerRequest, RegisteredServer, RequestHeader, StatusCode, UAString,
};
use std::io;
use std::str::FromStr;
use std::time::Duration;
use tracing::{debug, info, warn};

/// At least every ten minutes (OPC 10000-4, 5.5.5.1).
const AGAIN: Duration = Duration::from_secs(5 * 60);
const RETRY: Duration = Duration::from_secs(60);
/// One registration in all.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The last one, when the program wants to end.
const GOODBYE: Duration = Duration::from_millis(1500);

#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("it cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("{0}")]
    Ua(#[from] Error),
    #[error("its certificate is not good enough: {0}")]
    Untrusted(Box<trust::Refusal>),
    #[error("it offers no endpoint that signs, and without that nobody can be registered (OPC 10000-4, 5.5.5.1)")]
    NoEndpoint,
    #[error("no client can be made: {0}")]
    Client(String),
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// Until the stop; then the server is said to be gone.
pub(super) async fn run(config: &DiscoveryServer, pki: &Pki, identity: &Identity, stop: &Stop) {
    let (url, is_asked_for) = match config {
        DiscoveryServer::Switch(false) => return,
        DiscoveryServer::Switch(true) => (format!("opc.tcp://localhost:{DISCOVERY_PORT}"), false),
        DiscoveryServer::Url(url) => (url.clone(), true),
    };
    // The port of a discovery server may be our own.
    let Ok(target) = target(&url) else { return };
    if target.port == identity.address.port() && (target.host == "localhost" || !is_asked_for) {
        return;
    }
    let mut last: Option<String> = None;
    let mut is_registered = false;
    while !stop.is_stopped() {
        let attempt = tokio::time::timeout(TIMEOUT, register(&url, pki, identity, true));
        let outcome = tokio::select! {
            outcome = attempt => outcome.unwrap_or(Err(RegisterError::Timeout)),
            () = stop.stopped() => break,
        };
        let said = outcome.as_ref().map_or_else(ToString::to_string, |()| String::new());
        if last.as_ref() != Some(&said) {
            match &outcome {
                Ok(()) => info!(url, "Registered with the discovery server."),
                Err(error) if is_asked_for || is_registered => {
                    warn!(url, %error, "Cannot register with the discovery server; trying again.");
                }
                Err(error) => debug!(url, %error, "There is no discovery server that takes registrations."),
            }
        }
        is_registered |= outcome.is_ok();
        last = Some(said);
        stop.sleep(if outcome.is_ok() { AGAIN } else { RETRY }).await;
    }
    if is_registered {
        match tokio::time::timeout(GOODBYE, register(&url, pki, identity, false)).await {
            Ok(Ok(())) => info!(url, "Said goodbye to the discovery server."),
            Ok(Err(error)) => warn!(url, %error, "Could not say goodbye to the discovery server."),
            Err(_) => warn!(url, "Could not say goodbye to the discovery server in time."),
        }
    }
}

async fn reach(url: &str) -> io::Result<()> {
    let HostPort { host, port } = target(url).map_err(io::Error::other)?;
    net::connect(&host, port).await.map(drop)
}

async fn register(url: &str, pki: &Pki, identity: &Identity, is_online: bool) -> Result<(), RegisterError> {
    // Else the UA crate says in the log that it could not connect, each time, which where there is no such server is as it should be.
    reach(url).await.map_err(RegisterError::Unreachable)?;
    let client = client(pki, identity)?;
    let endpoints = client.get_server_endpoints_from_url(url).await?;
    let mut endpoint = best(endpoints).ok_or(RegisterError::NoEndpoint)?;
    // What follows is encrypted for the owner of this certificate.
    pki.check(endpoint.server_certificate.as_ref()).map_err(|refusal| RegisterError::Untrusted(Box::new(refusal)))?;
    // It may call itself by a name that is not known here.
    endpoint.endpoint_url = url.into();
    let server = RegisteredServer {
        server_uri: identity.uri.as_str().into(),
        product_uri: "urn:vedette".into(),
        server_names: Some(vec![identity.name.as_str().into()]),
        server_type: ApplicationType::Server,
        gateway_server_uri: UAString::null(),
        discovery_urls: Some(vec![identity.url.as_str().into()]),
        semaphore_file_path: UAString::null(),
        is_online,
    };
    let channel = client
        .session_builder()
        .connect_to_endpoint_directly(endpoint)?
        .build_channel(client.certificate_store().clone())?;
    let connector = url.to_owned().build()?;
    let mut line = channel.connect_no_retry(&connector).await?;
    let header = || RequestHeader {
        timestamp: ::opcua::types::DateTime::now(),
        request_handle: channel.request_handle(),
        timeout_hint: 10_000,
        ..RequestHeader::default()
    };
    let exchange = async {
        let mdns = MdnsDiscoveryConfiguration {
            mdns_server_name: identity.name.as_str().into(),
            server_capabilities: Some(identity.capabilities.iter().map(|&capability| capability.into()).collect()),
        };
        let request = RegisterServer2Request {
            request_header: header(),
            server: server.clone(),
            discovery_configuration: Some(vec![ExtensionObject::from_message(mdns)]),
        };
        match status(channel.send(request, TIMEOUT).await?) {
            StatusCode::BadServiceUnsupported | StatusCode::BadNotImplemented | StatusCode::BadDecodingError => {}
            code if code.is_bad() => return Err(refused(code)),
            _ => return Ok(()),
        }
        let request = RegisterServerRequest { request_header: header(), server: server.clone() };
        match status(channel.send(request, TIMEOUT).await?) {
            code if code.is_bad() => Err(refused(code)),
            _ => Ok(()),
        }
    };
    let outcome = tokio::select! {
        outcome = exchange => outcome,
        error = closed(&mut line) => Err(error),
    };
    channel.close_channel().await;
    closed(&mut line).await;
    Ok(outcome?)
}

/// Drives the connection until it ends.
async fn closed<T: ::opcua::client::transport::Transport + Send + Sync + 'static>(
    line: &mut ::opcua::client::transport::SecureChannelEventLoop<T>,
) -> Error {
    loop {
        if let TransportPollResult::Closed(code) = line.poll().await {
            return Error::new(code, "the connection was closed");
        }
    }
}

fn refused(code: StatusCode) -> Error {
    Error::new(code, "the registration was refused")
}

fn status(response: ResponseMessage) -> StatusCode {
    response.response_header().service_result
}

/// With our own certificate; what is not trusted is not talked to.
fn client(pki: &Pki, identity: &Identity) -> Result<Client, RegisterError> {
    ClientBuilder::new()
        .application_name(identity.name.clone())
        .application_uri(identity.uri.clone())
        .product_uri("urn:vedette")
        .pki_dir(pki.trust.store())
        .certificate_path(certificate::STORE_CERTIFICATE)
        .private_key_path(certificate::STORE_KEY)
        .create_sample_keypair(false)
        .trust_server_certs(false)
        .session_retry_limit(0)
        .client()
        .map_err(|reasons| RegisterError::Client(reasons.join("; ")))
}

/// The one of those that sign whose security its server thinks most of.
fn best(endpoints: Vec<EndpointDescription>) -> Option<EndpointDescription> {
    let is_secure = |endpoint: &EndpointDescription| {
        let policy = SecurityPolicy::from_str(endpoint.security_policy_uri.as_ref());
        let is_good = policy.is_ok_and(|policy| super::endpoints::POLICIES.contains(&policy));
        let modes = [MessageSecurityMode::Sign, MessageSecurityMode::SignAndEncrypt];
        is_good && modes.contains(&endpoint.security_mode)
    };
    endpoints.into_iter().filter(is_secure).max_by_key(|endpoint| endpoint.security_level)
}
