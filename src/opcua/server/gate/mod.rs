//! The gate: owns the public port, and lets through to the UA crate's server only what it can take.
//!
//!     client ── TCP ──► gate ── loopback ──► the crate's server, on a port that nobody is told
//!                        │
//!                        ├─ doors.rs       how many may be inside, and who has to go for others
//!                        ├─ frame.rs       Hello, chunks and OpenSecureChannel as they are on the wire
//!                        ├─ walk.rs        the body of a request that is not encrypted
//!                        ├─ bodies.rs      structures in requests, encrypted or not, when the crate decodes them
//!                        ├─ connection.rs  one client: its state, its times, its requests
//!                        └─ responses.rs   what it gets, at its own pace; stream.rs reads, writes and closes
//!
//! The crate (0.19) asks for a client's certificate at CreateSession only, accepts any number of connections, holds
//! responses without a bound for a client that does not read, never lets a secure channel expire, and takes a gigabyte
//! of unfinished messages from anybody. It cannot be hooked, but it listens where it is told. So a client meets the
//! crate only after its Hello was sound, its OpenSecureChannel named an offered policy and a certificate that is trusted;
//! and then only chunks that are whole, in limits, and one response at a time are between the two.
//!
//! Another process of this machine could connect to the crate's port. It would pass by the limits, not by the security:
//! the crate offers no policy None unless the whole server does, and holds certificates against its own copy of the
//! trust list.

mod bodies;
mod connection;
mod doors;
pub(super) mod frame;
mod responses;
mod stream;
mod walk;

use super::limits::Limits;
use super::{Notices, endpoints};
use crate::base::Stop;
use crate::opcua::trust::TrustList;
pub use bodies::guard;
use connection::Connection;
use doors::Doors;
use frame::Refusal;
use responses::Buffers;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// How long to wait when the system has no socket left for the next client.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

/// Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

/// What all connections have in common.
struct Shared {
    limits: Limits,
    notices: Arc<dyn Notices>,
    /// Where the crate listens.
    server: SocketAddr,
    trust: TrustList,
    /// URIs of the policies that are offered, without None.
    policies: Vec<&'static str>,
    /// Sessions without security.
    with_none: bool,
    /// Bytes of our own key, and so of each block that a client encrypts for us.
    key_bytes: usize,
    doors: Mutex<Doors>,
    /// Bytes of requests of which the end has not come yet.
    unfinished: AtomicUsize,
    buffers: Buffers,
}

impl Gate {
    /// A gate before the server at `server`, whose key has `key_bytes` bytes. `with_none`: sessions without security, too.
    pub fn new(
        limits: &Limits,
        with_none: bool,
        notices: Arc<dyn Notices>,
        trust: TrustList,
        server: SocketAddr,
        key_bytes: usize,
    ) -> Self {
        let doors = Mutex::new(Doors::new(limits));
        Self(Arc::new(Shared {
            limits: limits.clone(),
            notices,
            server,
            trust,
            policies: endpoints::POLICIES.iter().map(|policy| policy.to_uri()).collect(),
            with_none,
            key_bytes,
            doors,
            unfinished: AtomicUsize::new(0),
            buffers: Buffers::default(),
        }))
    }

    /// Lets in a client that we connected to, as if it had come by itself; until it goes.
    pub async fn receive(self, stream: TcpStream, peer: SocketAddr) {
        self.0.receive(stream, peer).await;
    }

    /// Lets clients in until the stop. When this is dropped all connections end.
    pub async fn run(&self, listener: &TcpListener, stop: &Stop) {
        imp::allow_files();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        warn!(%error, "A connection failed.");
                    }
                    continue;
                }
                () = stop.stopped() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(self.0.clone().receive(stream, peer));
                }
                Err(error) => {
                    warn!(%error, "Cannot accept a connection.");
                    tokio::time::sleep(OUT_OF_SOCKETS).await;
                }
            }
        }
    }
}

impl Shared {
    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().expect("no code that holds the doors panics")
    }

    async fn receive(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let entered = self.doors().enter(peer.ip());
        match entered {
            Ok((id, leave)) => {
                let _place = Place { shared: &self, id };
                Connection::new(&self, stream, peer, id).run(&leave).await;
            }
            Err(refusal) => {
                debug!(%peer, reason = refusal.reason, "Refused a connection.");
                stream::say_good_bye(&stream, &refusal).await;
            }
        }
    }
}

#[cfg(unix)]
mod imp {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tracing::warn;

    /// A connection takes three files, and the usual limit of 1024 is for programs that use select(2).
    pub fn allow_files() {
        let limit = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
            warn!(%error, "Cannot have more open files than usual.");
        }
    }
}

#[cfg(windows)]
mod imp {
    /// There is no such limit.
    pub fn allow_files() {}
}

/// Frees the place inside, however the connection ends.
struct Place<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.doors().left(self.id);
    }
}

fn busy() -> Refusal {
    frame::refuse(::opcua::types::StatusCode::BadTcpServerTooBusy, "another connection needs the place")
}
