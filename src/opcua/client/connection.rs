//! One session, from its certificate check to its end.
//!
//!     open: endpoints ─► choose ─► ServerTrust ─► session ─► limits, namespaces ─► Connection
//!     then: driven by a task ─► lost (once): the socket closed, the server was silent, or it was closed by us
//!
//! The task is the only one that polls the crate's event loop. Every message of the server is a sign of life, whatever it
//! answers; the crate asks for the server's state three times within [`Times::silence`], so a server that is there is never
//! silent for so long.

use super::error::{ConnectError, ServiceError};
use super::limits::OperationLimits;
use super::node_ref::Namespaces;
use super::transport::Line;
use super::trust::{ServerCertificate, ServerTrust};
use super::{Target, Times, User, endpoints};
use crate::base::{Clock, Tasks};
use crate::model::{Quality, Status};
use futures_util::StreamExt;
use opcua::client::transport::TransportPollResult;
use opcua::client::{ConnectionSource, IdentityToken, Session, SessionBuilder, SessionEventLoop, SessionPollResult};
use opcua::crypto::CertificateStore;
use opcua::sync::RwLock;
use opcua::types::{
    AttributeId, EndpointDescription, Error, MessageSecurityMode, NodeId, ReadValueId, StatusCode, TimestampsToReturn,
    VariableId, Variant,
};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Dropping it ends it; [`Connection::close`] says good-bye.
pub struct Connection {
    pub(super) session: Arc<Session>,
    limits: OperationLimits,
    namespaces: Mutex<Arc<Namespaces>>,
    endpoint: EndpointDescription,
    lost: watch::Receiver<Option<Loss>>,
    /// Its task ends with it.
    _tasks: Tasks,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    pub status: Status,
    /// For people.
    pub reason: String,
}

impl Loss {
    pub fn quality(&self) -> Quality {
        Quality::new(self.status, self.reason.as_str())
    }
}

/// How long a good-bye may take.
const GOODBYE: Duration = Duration::from_secs(2);

impl Connection {
    pub async fn open(target: &Target, trust: &dyn ServerTrust) -> Result<Self, ConnectError> {
        let Times { connect, .. } = target.times;
        let endpoints = endpoints::get_endpoints(&target.url, connect).await?;
        let endpoint = endpoints::choose(target, &endpoints)?;
        let is_secure = endpoint.security_mode != MessageSecurityMode::None;
        // Without security no password is sent (endpoints::choose), so there is nobody to judge.
        if is_secure {
            let chain = endpoint.server_certificate.as_ref();
            let judged =
                ServerCertificate::read(&target.url, chain).and_then(|shown| trust.judge(&shown, Clock::real().now()));
            judged.map_err(|untrusted| ConnectError::Untrusted(Box::new(untrusted)))?;
        }
        if is_secure && target.own.is_none() {
            return Err(ConnectError::NoCertificate { url: target.url.clone() });
        }
        match tokio::time::timeout(connect, Self::begin(target, endpoint)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::Timeout { url: target.url.clone(), seconds: connect.as_secs() }),
        }
    }

    async fn begin(target: &Target, endpoint: EndpointDescription) -> Result<Self, ConnectError> {
        let refused = |status| ConnectError::Session { url: target.url.clone(), status };
        let config = endpoints::config(Some(target), "Vedette", target.times.request);
        let builder = SessionBuilder::new(&config)
            .with_connector(Lines(
                Line::new(endpoint.endpoint_url.as_ref())
                    .map_err(|reason| ConnectError::Url { url: endpoint.endpoint_url.to_string(), reason })?,
            ))
            .user_identity_token(token(&target.user)?)
            .connect_to_endpoint_directly(endpoint.clone())
            .map_err(|error| refused(error.status()))?;
        let (session, event_loop) = builder.build(store(target)?).map_err(|error| refused(error.status()))?;

        let (lost_sender, mut lost) = watch::channel(None);
        let (there_sender, mut there) = watch::channel(false);
        let tasks = Tasks::new("opcua client");
        let mut once = Some((event_loop, Report { lost: lost_sender, there: there_sender }));
        let silence = target.times.silence;
        tasks.spawn("opcua session", move |stop| {
            let taken = once.take();
            async move {
                if let Some((event_loop, report)) = taken {
                    tokio::select! {
                        loss = drive(event_loop, &report, silence) => report.say(loss),
                        () = stop.stopped() => report.say(closed_by_us()),
                    }
                }
                stop.stopped().await;
            }
        });
        tokio::select! {
            biased;
            outcome = there.wait_for(|there| *there) => { let _ = outcome; }
            _ = lost.wait_for(Option::is_some) => {}
        }
        if let Some(loss) = lost.borrow().clone() {
            return Err(refused(StatusCode::from(loss.status.0)));
        }
        let unfit = |error: ServiceError| refused(error.status);
        if endpoint.security_mode != MessageSecurityMode::None {
            // What was said at first was said to anybody, and through anybody (OPC 10000-4, 5.7.2).
            let offered = endpoints::get_endpoints_on(&session, target).await.map_err(unfit)?;
            endpoints::confirm(target, &endpoint, &offered)?;
        }
        let limits = read_limits(&session).await.map_err(unfit)?;
        let namespaces = Mutex::new(Arc::new(read_namespaces(&session).await.map_err(unfit)?));
        Ok(Self { session, limits, namespaces, endpoint, lost, _tasks: tasks })
    }

    pub fn limits(&self) -> &OperationLimits {
        &self.limits
    }

    /// As they were read last.
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Servers add namespaces while they run. An error with BadInvalidState: those from before have other indices now, so
    /// that no NodeId of this session holds any more.
    pub async fn renew_namespaces(&self) -> Result<(), ServiceError> {
        let renewed = read_namespaces(&self.session).await?;
        if !renewed.continues(&self.namespaces()) {
            let detail = "the server has changed the order of its namespaces".to_owned();
            return Err(ServiceError { service: "Read", status: StatusCode::BadInvalidState, detail });
        }
        *self.namespaces.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(())
    }

    /// The endpoint in use: policy, mode, and what the server says of itself.
    pub fn endpoint(&self) -> &EndpointDescription {
        &self.endpoint
    }

    /// When the session has ended: how. Cancel safe.
    pub async fn lost(&self) -> Loss {
        let mut lost = self.lost.clone();
        let outcome = lost.wait_for(Option::is_some).await.map(|loss| loss.clone());
        outcome.ok().flatten().unwrap_or_else(failed)
    }

    pub fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }

    /// Deletes the subscriptions, closes the session, and waits for that a moment.
    pub async fn close(self) {
        let mut lost = self.lost.clone();
        if !self.is_lost() {
            // A server that does not answer is left as it is.
            let _ = tokio::time::timeout(GOODBYE, async {
                tokio::select! { _ = self.session.disconnect() => {}, _ = lost.wait_for(Option::is_some) => {} }
            })
            .await;
        }
    }
}

/// What the task says.
struct Report {
    lost: watch::Sender<Option<Loss>>,
    there: watch::Sender<bool>,
}

impl Report {
    fn say(&self, loss: Loss) {
        self.lost.send_if_modified(|lost| {
            let is_first = lost.is_none();
            lost.get_or_insert(loss);
            is_first
        });
    }
}

/// Also when the task fails.
impl Drop for Report {
    fn drop(&mut self) {
        self.say(failed());
    }
}

fn failed() -> Loss {
    Loss { status: Status::BAD_INTERNAL_ERROR, reason: "the session's task failed".into() }
}

fn closed_by_us() -> Loss {
    Loss { status: Status::BAD_SHUTDOWN, reason: "the session was closed".into() }
}

async fn drive(event_loop: SessionEventLoop<Line>, report: &Report, silence: Duration) -> Loss {
    let events = event_loop.enter();
    tokio::pin!(events);
    let mut heard = Instant::now();
    loop {
        let is_there = *report.there.borrow();
        let event = tokio::select! {
            event = events.next() => event,
            // Until the session is there the time for connecting counts.
            () = tokio::time::sleep_until(heard + silence), if is_there => {
                let reason = format!("the server was silent for {} s", silence.as_secs_f32());
                return Loss { status: Status::BAD_TIMEOUT, reason };
            }
        };
        let ended = |code: StatusCode| Loss { status: Status(bad(code).bits()), reason: why(code) };
        match event {
            None => return closed_by_us(),
            Some(Err(code)) => return ended(code),
            Some(Ok(SessionPollResult::ConnectionLost(code))) => return ended(code),
            Some(Ok(SessionPollResult::Transport(TransportPollResult::IncomingMessage))) => heard = Instant::now(),
            Some(Ok(SessionPollResult::Reconnected(_))) => {
                heard = Instant::now();
                report.there.send_replace(true);
            }
            Some(Ok(_)) => {}
        }
    }
}

/// The crate ends some connections that the server closed with Good.
fn bad(code: StatusCode) -> StatusCode {
    if code.is_bad() { code } else { StatusCode::BadConnectionClosed }
}

fn why(code: StatusCode) -> String {
    match bad(code) {
        StatusCode::BadCommunicationError | StatusCode::BadConnectionClosed => {
            "the server closed the connection".into()
        }
        other => format!("the session ended with {}", super::name(other)),
    }
}

/// How the crate is given our line.
struct Lines(Line);

impl ConnectionSource for Lines {
    type Builder = Line;

    fn get_connector(&self, _: &EndpointDescription) -> Result<Line, Error> {
        Ok(self.0.clone())
    }
}

/// Where the crate finds our certificate. What it is asked to trust has been judged already, so it notes whatever comes.
/// It takes relative paths for ones below its folder, and panics later if it cannot read what is there.
fn store(target: &Target) -> Result<Arc<RwLock<CertificateStore>>, ConnectError> {
    let Some(own) = &target.own else {
        return Ok(Arc::new(RwLock::new(CertificateStore::new(Path::new("/dev/null/none")))));
    };
    let absolute = |path: &Path, what| std::path::absolute(path).map_err(|error| unread(path, what, error.to_string()));
    let certificate = absolute(&own.certificate, OWN_CERTIFICATE)?;
    let key = absolute(&own.key, OWN_KEY)?;
    let scratch = absolute(&own.scratch, "the folder for what was decided")?;
    let (mut store, ..) = CertificateStore::new_with_x509_data::<opcua::crypto::X509Data>(
        &scratch,
        false,
        Some(&certificate),
        Some(&key),
        None,
    );
    store.read_own_cert().map_err(|reason| unread(&certificate, OWN_CERTIFICATE, reason))?;
    store.read_own_pkey().map_err(|reason| unread(&key, OWN_KEY, reason))?;
    store.set_skip_verify_certs(true);
    store.set_trust_unknown_certs(true);
    Ok(Arc::new(RwLock::new(store)))
}

const OWN_CERTIFICATE: &str = "our own certificate";
const OWN_KEY: &str = "the key of our own certificate";

fn unread(path: &Path, what: &'static str, reason: String) -> ConnectError {
    ConnectError::File { path: path.into(), what, reason }
}

fn token(user: &User) -> Result<IdentityToken, ConnectError> {
    match user {
        User::Anonymous => Ok(IdentityToken::Anonymous),
        User::Name { user, password } => Ok(IdentityToken::UserName(user.clone(), password.clone())),
        User::Certificate { certificate, key } => {
            let x509 = CertificateStore::read_cert(certificate)
                .map_err(|reason| unread(certificate, "the certificate of the user", reason))?;
            let private = CertificateStore::read_pkey(key)
                .map_err(|reason| unread(key, "the key of the user's certificate", reason))?;
            Ok(IdentityToken::X509(Box::new(x509), Box::new(private)))
        }
    }
}

/// In the order in which [`OperationLimits::new`] takes them.
pub(super) const LIMITS: [VariableId; 7] = [
    VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite,
    VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
    VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIds,
    VariableId::Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    VariableId::Server_ServerCapabilities_MaxMonitoredItemsPerSubscription,
    VariableId::Server_ServerCapabilities_MaxBrowseContinuationPoints,
];

/// One by one if the server's limit is smaller than their number.
async fn read_limits(session: &Session) -> Result<OperationLimits, ServiceError> {
    let limit = super::limits::Limit::new(0);
    let wanted: Vec<ReadValueId> = LIMITS.iter().map(|id| value_of(NodeId::from(*id))).collect();
    let found = limit.chunked("Read", &wanted, |some| read(session, some)).await?;
    let number = |value: &opcua::types::DataValue| match value.value {
        Some(Variant::UInt32(number)) => number,
        Some(Variant::UInt16(number)) => number.into(),
        _ => 0,
    };
    let said: Vec<u32> = found.iter().map(number).collect();
    Ok(OperationLimits::new(said.try_into().unwrap_or_default()))
}

async fn read_namespaces(session: &Session) -> Result<Namespaces, ServiceError> {
    let wanted = vec![value_of(VariableId::Server_NamespaceArray.into())];
    let found = read(session, wanted).await.map_err(|error| ServiceError::new("Read", &error))?;
    let uris = match found.into_iter().next().and_then(|value| value.value) {
        Some(Variant::Array(uris)) => uris.values,
        _ => return Err(ServiceError::wrong("Read", "the server has no NamespaceArray")),
    };
    Ok(Namespaces::new(uris.iter().map(|uri| match uri {
        Variant::String(uri) => uri.to_string(),
        _ => String::new(),
    })))
}

async fn read(session: &Session, wanted: Vec<ReadValueId>) -> Result<Vec<opcua::types::DataValue>, Error> {
    session.read(&wanted, TimestampsToReturn::Neither, 0.0).await
}

pub(super) fn value_of(node: NodeId) -> ReadValueId {
    ReadValueId { node_id: node, attribute_id: AttributeId::Value as u32, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::super::{Own, Security, tests::identity};
    use super::*;

    #[test]
    fn relative_paths_are_from_here_and_what_cannot_be_read_is_an_error() {
        // Tests run in the project's folder.
        let folder = tempfile::tempdir_in("target").unwrap();
        let folder = folder.path().strip_prefix(std::env::current_dir().unwrap()).unwrap_or(folder.path());
        let (certificate, key) = identity(folder);
        let scratch = folder.join("scratch");
        let own = Own { application_name: "x".into(), application_uri: "urn:x".into(), certificate, key, scratch };
        let target = |own: &Own| Target {
            url: "opc.tcp://plc".into(),
            security: Security::default(),
            user: User::Anonymous,
            own: Some(own.clone()),
            session_name: String::new(),
            times: Times::default(),
        };
        let found = store(&target(&own)).unwrap();
        assert!(own.certificate.is_relative() && found.read().read_own_cert().is_ok());
        assert!(found.read().read_own_pkey().is_ok());
        for missing in
            [Own { certificate: "missing.der".into(), ..own.clone() }, Own { key: "missing.pem".into(), ..own.clone() }]
        {
            let error = store(&target(&missing)).err().unwrap();
            assert!(matches!(error, ConnectError::File { .. }) && error.to_string().contains("missing"), "{error}");
        }
    }
}
