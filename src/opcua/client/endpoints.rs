//! What a server offers (GetEndpoints, FindServers), and which of it we take.
//!
//! Both are asked without security, because nothing else is possible (OPC 10000-4, 5.5.4). So a stranger in between can
//! leave out what is secure, and that is why "the best there is" never means None. On a secure channel the server is asked
//! once more, so that he cannot leave out the better of two that are ([`confirm`]).

use super::error::{ConnectError, ServiceError};
use super::transport::Line;
use super::{Security, Target, User};
use opcua::client::transport::{SecureChannelEventLoop, Transport, TransportPollResult};
use opcua::client::{ClientBuilder, ClientConfig, Session};
use opcua::core::{RequestMessage, ResponseMessage};
use opcua::crypto::{CertificateStore, SecurityPolicy};
use opcua::sync::RwLock;
use opcua::types::{
    ApplicationDescription, DateTime, EndpointDescription, Error, FindServersRequest, GetEndpointsRequest,
    MessageSecurityMode, RequestHeader, StatusCode, UserTokenPolicy, UserTokenType,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An endpoint of a server, in words for people beside the server's own description.
#[derive(Clone, Debug)]
pub struct Offer {
    pub url: String,
    /// As in [`Security::parse`], or the server's URI if it is none that can be used.
    pub policy: String,
    pub mode: String,
    /// "anonymous", "name", "certificate", "token".
    pub logins: Vec<&'static str>,
    /// By the server's own judgement.
    pub level: u8,
    pub description: EndpointDescription,
}

/// The best first. Basic128Rsa15 and Basic256 are broken (OPC 10000-7).
const POLICIES: [SecurityPolicy; 3] =
    [SecurityPolicy::Aes256Sha256RsaPss, SecurityPolicy::Basic256Sha256, SecurityPolicy::Aes128Sha256RsaOaep];
const MODES: [MessageSecurityMode; 2] = [MessageSecurityMode::SignAndEncrypt, MessageSecurityMode::Sign];

/// Of a server, each as it says it.
pub async fn offers(url: &str, timeout: Duration) -> Result<Vec<Offer>, ConnectError> {
    let endpoints = get_endpoints(url, timeout).await?;
    let offer = |endpoint: EndpointDescription| Offer {
        url: endpoint.endpoint_url.to_string(),
        policy: policy_name(&endpoint),
        mode: endpoint.security_mode.to_string(),
        logins: tokens(&endpoint).iter().map(|token| token_name(token.token_type)).collect(),
        level: endpoint.security_level,
        description: endpoint,
    };
    Ok(endpoints.into_iter().map(offer).collect())
}

/// The servers that a server (a discovery server, as a rule) knows, with itself.
pub async fn find_servers(url: &str, timeout: Duration) -> Result<Vec<ApplicationDescription>, ConnectError> {
    let request =
        FindServersRequest { request_header: header(timeout), endpoint_url: url.into(), ..Default::default() };
    match ask(url, request.into(), timeout).await? {
        ResponseMessage::FindServers(response) => Ok(response.servers.unwrap_or_default()),
        other => Err(unexpected(url, &other)),
    }
}

pub(super) async fn get_endpoints(url: &str, timeout: Duration) -> Result<Vec<EndpointDescription>, ConnectError> {
    let request =
        GetEndpointsRequest { request_header: header(timeout), endpoint_url: url.into(), ..Default::default() };
    match ask(url, request.into(), timeout).await? {
        ResponseMessage::GetEndpoints(response) => Ok(response.endpoints.unwrap_or_default()),
        other => Err(unexpected(url, &other)),
    }
}

/// The same once more, where nobody in between can change the answer.
pub(super) async fn get_endpoints_on(
    session: &Session,
    target: &Target,
) -> Result<Vec<EndpointDescription>, ServiceError> {
    let timeout = target.times.request;
    let url = target.url.as_str().into();
    let request = GetEndpointsRequest { request_header: header(timeout), endpoint_url: url, ..Default::default() };
    let wrong = |error: Error| ServiceError::new("GetEndpoints", &error);
    match session.channel().send(request, timeout).await.map_err(wrong)? {
        ResponseMessage::GetEndpoints(response) => Ok(response.endpoints.unwrap_or_default()),
        other => Err(wrong(Error::new(service_result(&other), "no answer to GetEndpoints"))),
    }
}

/// One question on a channel of its own, without security.
async fn ask(url: &str, request: RequestMessage, timeout: Duration) -> Result<ResponseMessage, ConnectError> {
    let line = Line::new(url).map_err(|reason| ConnectError::Url { url: url.into(), reason })?;
    let unreachable = |error: Error| unreachable(url, &error);
    let exchange = async {
        let config = config(None, "", timeout);
        // A folder that nobody can make: without security nothing is read or written there.
        let store = Arc::new(RwLock::new(CertificateStore::new(Path::new("/dev/null/none"))));
        let builder = opcua::client::SessionBuilder::new(&config).connect_to_endpoint_directly(url);
        let channel = builder.and_then(|builder| builder.build_channel(store)).map_err(unreachable)?;
        let mut driver = channel.connect_no_retry(&line).await.map_err(unreachable)?;
        let outcome = tokio::select! {
            outcome = channel.send(request, timeout) => outcome.map_err(unreachable),
            error = closed(&mut driver) => Err(unreachable(error)),
        };
        channel.close_channel().await;
        // It goes out, or the connection is gone already.
        let _ = tokio::time::timeout(Duration::from_millis(500), closed(&mut driver)).await;
        outcome
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Timeout { url: url.into(), seconds: timeout.as_secs() }),
    }
}

/// Drives a connection until it ends.
async fn closed<T: Transport + Send + Sync + 'static>(driver: &mut SecureChannelEventLoop<T>) -> Error {
    loop {
        if let TransportPollResult::Closed(code) = driver.poll().await {
            return Error::new(code, "the connection was closed");
        }
    }
}

fn unreachable(url: &str, error: &Error) -> ConnectError {
    ConnectError::Unreachable { url: url.into(), status: error.status(), reason: error.to_string() }
}

fn unexpected(url: &str, response: &ResponseMessage) -> ConnectError {
    let status = service_result(response);
    ConnectError::Unreachable { url: url.into(), status, reason: super::name(status) }
}

/// Of what is no answer to the question.
fn service_result(response: &ResponseMessage) -> StatusCode {
    match response.response_header().service_result {
        good if good.is_good() => StatusCode::BadUnknownResponse,
        bad => bad,
    }
}

fn header(timeout: Duration) -> RequestHeader {
    let timeout_hint = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    RequestHeader { timestamp: DateTime::now(), request_handle: 1, timeout_hint, ..RequestHeader::default() }
}

/// How long a server may keep a question for the next notification.
const PUBLISH: Duration = Duration::from_secs(3600);
/// What a message may be: 64 MiB in chunks of 64 KiB. More is not ours to hold.
const MOST_CHUNKS: usize = 1024;
const MOST_BYTES: usize = 64 << 20;
/// The crate makes room for all that an array says to have before it has seen any of it.
const MOST_ELEMENTS: usize = 4 << 20;

pub(super) fn config(target: Option<&Target>, application: &str, timeout: Duration) -> ClientConfig {
    let own = target.and_then(|target| target.own.as_ref());
    let mut builder = ClientBuilder::new()
        .application_name(own.map_or(application, |own| &own.application_name))
        .application_uri(own.map_or("urn:vedette:client", |own| &own.application_uri))
        .product_uri("urn:vedette")
        .session_name(target.map_or("", |target| &target.session_name))
        .create_sample_keypair(false)
        .session_retry_limit(0)
        .recreate_subscriptions(false)
        .request_timeout(timeout)
        .channel_lifetime(60 * 60 * 1000)
        .session_timeout(60_000)
        // We judge that (connection.rs).
        .max_failed_keep_alive_count(0)
        // Whoever gives up a question that the server still answers loses the answer; connection.rs and subscription.rs judge silence.
        .publish_timeout(PUBLISH)
        // Over a slow line the crate has as many questions open as fit into its round trip.
        .min_publish_interval(Duration::from_millis(500))
        .max_message_size(MOST_BYTES)
        .max_chunk_count(MOST_CHUNKS)
        .max_array_length(MOST_ELEMENTS)
        .max_string_length(16 << 20)
        .max_byte_string_length(32 << 20);
    if let Some(target) = target {
        builder = builder.keep_alive_interval(target.times.silence / 3);
    }
    builder.into_config()
}

/// The endpoint to take, with the URL of the user and only those logins that can be used.
pub(super) fn choose(target: &Target, endpoints: &[EndpointDescription]) -> Result<EndpointDescription, ConnectError> {
    let security = target.security;
    let fits = |endpoint: &&EndpointDescription| {
        let policy = policy(endpoint);
        match security.is_none() {
            true => endpoint.security_mode == MessageSecurityMode::None,
            false => {
                policy.is_some_and(|policy| POLICIES.contains(&policy))
                    && security.policy.is_none_or(|wanted| policy == Some(wanted))
                    && security
                        .mode
                        .map_or(MODES.contains(&endpoint.security_mode), |wanted| endpoint.security_mode == wanted)
            }
        }
    };
    let is_tcp = |endpoint: &&EndpointDescription| endpoint.endpoint_url.as_ref().starts_with("opc.tcp:");
    let fitting: Vec<_> = endpoints.iter().filter(is_tcp).filter(fits).collect();
    let wanted_login = match target.user {
        User::Anonymous => UserTokenType::Anonymous,
        User::Name { .. } => UserTokenType::UserName,
        User::Certificate { .. } => UserTokenType::Certificate,
    };
    let login = |endpoint: &EndpointDescription| {
        let usable = |token: &&UserTokenPolicy| token.token_type == wanted_login && is_usable(token);
        tokens(endpoint).iter().find(usable).cloned()
    };
    if fitting.is_empty() {
        return Err(ConnectError::NoEndpoint {
            url: target.url.clone(),
            wanted: words(&security),
            offered: list(endpoints.iter().map(|one| format!("{} {}", policy_name(one), one.security_mode))),
        });
    }
    // Of two that are equal so far the one whose server thinks more of it.
    let best = fitting.iter().filter(|endpoint| login(endpoint).is_some() || wants_none(endpoint, wanted_login));
    let Some(best) = best.min_by_key(|endpoint| (rank(endpoint), u8::MAX - endpoint.security_level)) else {
        let tokens = fitting.iter().flat_map(|endpoint| tokens(endpoint));
        return Err(ConnectError::NoLogin {
            url: target.url.clone(),
            wanted: token_name(wanted_login),
            offered: list(tokens.map(|token| token_name(token.token_type).to_owned())),
        });
    };
    let mut chosen = (*best).clone();
    let mut token = login(best).unwrap_or_default();
    if token.security_policy_uri.is_empty() && wanted_login == UserTokenType::Certificate {
        // It means the endpoint's (OPC 10000-4, 7.41); the crate takes it for None.
        token.security_policy_uri = chosen.security_policy_uri.clone();
    }
    let effective =
        if token.security_policy_uri.is_empty() { &chosen.security_policy_uri } else { &token.security_policy_uri };
    let is_clear = effective.as_ref() == SecurityPolicy::None.to_uri();
    let is_readable = match chosen.security_mode {
        MessageSecurityMode::SignAndEncrypt => false,
        MessageSecurityMode::Sign => is_clear,
        // Also an encrypted one: the crate encrypts it for the certificate in the answer to CreateSession, which nobody has
        // proven there, and which nobody can judge before the password goes out.
        _ => true,
    };
    if wanted_login == UserTokenType::UserName && is_readable {
        return Err(ConnectError::PasswordInClear { url: target.url.clone() });
    }
    token.token_type = wanted_login;
    chosen.user_identity_tokens = Some(vec![token]);
    chosen.endpoint_url = with_path_of(&target.url, best.endpoint_url.as_ref()).into();
    Ok(chosen)
}

/// The smallest is the best.
fn rank(endpoint: &EndpointDescription) -> (Option<usize>, Option<usize>) {
    let mode = MODES.iter().position(|mode| *mode == endpoint.security_mode);
    (mode, POLICIES.iter().position(|one| policy(endpoint) == Some(*one)))
}

/// Whether what was chosen is the best also of what the server says where nobody can change it.
pub(super) fn confirm(
    target: &Target,
    chosen: &EndpointDescription,
    offered: &[EndpointDescription],
) -> Result<(), ConnectError> {
    let best = choose(target, offered)?;
    if rank(chosen) <= rank(&best) {
        return Ok(());
    }
    let words = |endpoint: &EndpointDescription| format!("{} {}", policy_name(endpoint), endpoint.security_mode);
    Err(ConnectError::Downgraded { url: target.url.clone(), used: words(chosen), better: words(&best) })
}

/// Servers without logins sometimes do not say that they need none.
fn wants_none(endpoint: &EndpointDescription, wanted: UserTokenType) -> bool {
    wanted == UserTokenType::Anonymous && tokens(endpoint).is_empty()
}

/// The URL of the user; but if that has no path then the server's.
fn with_path_of(url: &str, endpoint: &str) -> String {
    let path = |url: &str| url.splitn(4, '/').nth(3).unwrap_or("").to_owned();
    match (path(url), path(endpoint)) {
        (own, theirs) if own.is_empty() && !theirs.is_empty() => format!("{}/{theirs}", url.trim_end_matches('/')),
        _ => url.to_owned(),
    }
}

fn tokens(endpoint: &EndpointDescription) -> &[UserTokenPolicy] {
    endpoint.user_identity_tokens.as_deref().unwrap_or_default()
}

fn is_usable(token: &UserTokenPolicy) -> bool {
    let uri = token.security_policy_uri.as_ref();
    uri.is_empty() || uri == SecurityPolicy::None.to_uri() || POLICIES.iter().any(|policy| policy.to_uri() == uri)
}

/// `None` if it is no policy that can be used. Not by the crate's parser, which logs an error for each it does not know.
fn policy(endpoint: &EndpointDescription) -> Option<SecurityPolicy> {
    let uri = endpoint.security_policy_uri.as_ref();
    POLICIES.into_iter().chain([SecurityPolicy::None]).find(|policy| policy.to_uri() == uri)
}

fn policy_name(endpoint: &EndpointDescription) -> String {
    let uri = endpoint.security_policy_uri.as_ref();
    uri.rsplit_once('#').map_or(uri, |(_, name)| name).to_owned()
}

fn token_name(token: UserTokenType) -> &'static str {
    match token {
        UserTokenType::Anonymous => "anonymous",
        UserTokenType::UserName => "name",
        UserTokenType::Certificate => "certificate",
        UserTokenType::IssuedToken => "token",
    }
}

fn words(security: &Security) -> String {
    let policy = security.policy.map_or("a security policy that is not broken", |policy| policy.to_str());
    match security.mode {
        None => policy.to_owned(),
        Some(mode) => format!("{policy} {mode}"),
    }
}

fn list(parts: impl Iterator<Item = String>) -> String {
    let mut parts: Vec<String> = parts.collect();
    parts.sort();
    parts.dedup();
    if parts.is_empty() { "none at all".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(policy: &str, mode: MessageSecurityMode, level: u8, tokens: &[UserTokenType]) -> EndpointDescription {
        let token = |&token_type: &UserTokenType| UserTokenPolicy { token_type, ..Default::default() };
        EndpointDescription {
            endpoint_url: "opc.tcp://inside:4840/Server".into(),
            security_policy_uri: format!("http://opcfoundation.org/UA/SecurityPolicy#{policy}").into(),
            security_mode: mode,
            security_level: level,
            user_identity_tokens: Some(tokens.iter().map(token).collect()),
            ..Default::default()
        }
    }

    fn target(security: Security, user: User) -> Target {
        let url = "opc.tcp://outside:4841".into();
        Target { url, security, user, own: None, session_name: String::new(), times: super::super::Times::default() }
    }

    use MessageSecurityMode::{None as Clear, Sign, SignAndEncrypt as Both};
    use UserTokenType::{Anonymous, UserName};

    fn all() -> Vec<EndpointDescription> {
        vec![
            endpoint("None", Clear, 0, &[Anonymous, UserName]),
            endpoint("Basic128Rsa15", Both, 200, &[Anonymous]),
            endpoint("Basic256Sha256", Sign, 90, &[Anonymous, UserName]),
            endpoint("Basic256Sha256", Both, 10, &[Anonymous, UserName]),
            endpoint("Aes256_Sha256_RsaPss", Both, 20, &[UserName]),
        ]
    }

    #[test]
    fn the_best_that_takes_the_login_is_taken_and_never_one_without_security() {
        let chosen = choose(&target(Security::default(), User::Anonymous), &all()).unwrap();
        assert_eq!((policy_name(&chosen).as_str(), chosen.security_mode), ("Basic256Sha256", Both));
        assert_eq!(chosen.endpoint_url.as_ref(), "opc.tcp://outside:4841/Server");
        let named = User::Name { user: "a".into(), password: "b".into() };
        let chosen = choose(&target(Security::default(), named), &all()).unwrap();
        assert_eq!(policy_name(&chosen), "Aes256_Sha256_RsaPss");
        let error = choose(&target(Security::default(), User::Anonymous), &all()[..2]).unwrap_err().to_string();
        assert!(error.contains("Basic128Rsa15") && error.contains("None"), "{error}");
    }

    #[test]
    fn what_is_asked_for_is_taken_or_nothing() {
        let sign = Security { policy: None, mode: Some(Sign) };
        let chosen = choose(&target(sign, User::Anonymous), &all()).unwrap();
        assert_eq!(chosen.security_mode, Sign);
        let clear = choose(&target(Security::NONE, User::Anonymous), &all()).unwrap();
        assert_eq!(clear.security_mode, Clear);
        let rare = Security { policy: Some(SecurityPolicy::Aes128Sha256RsaOaep), mode: None };
        assert!(matches!(choose(&target(rare, User::Anonymous), &all()), Err(ConnectError::NoEndpoint { .. })));
    }

    #[test]
    fn what_was_left_out_at_first_is_missed_later() {
        let target = target(Security::default(), User::Anonymous);
        let chosen = choose(&target, &all()[..3]).unwrap();
        confirm(&target, &chosen, &all()[..3]).unwrap();
        let error = confirm(&target, &chosen, &all()).unwrap_err().to_string();
        assert!(error.contains("somebody in between") && error.contains("Basic256Sha256 SignAndEncrypt"), "{error}");
        // What was asked for in words is what was taken.
        let sign = Target { security: Security { policy: None, mode: Some(Sign) }, ..target };
        confirm(&sign, &chosen, &all()).unwrap();
    }

    #[test]
    fn a_password_goes_nowhere_in_clear() {
        let named = User::Name { user: "a".into(), password: "b".into() };
        let mut signed = endpoint("Basic256Sha256", Sign, 0, &[UserName]);
        let with = |policy: SecurityPolicy, mut endpoint: EndpointDescription| {
            let tokens = endpoint.user_identity_tokens.iter_mut().flatten();
            tokens.for_each(|token| token.security_policy_uri = policy.to_uri().into());
            endpoint
        };
        let clear = with(SecurityPolicy::None, signed.clone());
        signed = with(SecurityPolicy::Basic256Sha256, signed);
        // Whoever is in between answers with a certificate of his own where nothing is signed.
        let encrypted = with(SecurityPolicy::Basic256Sha256, endpoint("None", Clear, 0, &[UserName]));
        for (security, offered) in
            [(Security::NONE, all()), (Security::NONE, vec![encrypted]), (Security::default(), vec![clear])]
        {
            let refused = choose(&target(security, named.clone()), &offered);
            assert!(matches!(refused, Err(ConnectError::PasswordInClear { .. })), "{refused:?}");
        }
        choose(&target(Security::default(), named), &[signed]).unwrap();
        let nobody = User::Certificate { certificate: "/a".into(), key: "/b".into() };
        assert!(matches!(choose(&target(Security::NONE, nobody), &all()), Err(ConnectError::NoLogin { .. })));
    }
}
