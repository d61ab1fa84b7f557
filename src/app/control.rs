//! What somebody at the device's shell asks of the program that runs there.
//!
//!     vedette reload ──► data_dir/control.sock ──► Hub::reload
//!     "reload\n"         only who may write it      "done\n" or "refused\n", then why
//!
//!     vedette health ──► "health\n" ──► what works (device::health::State, as JSON)
//!                        "passed\n" ──► noted for this boot; whoever waits for this slot to be healthy hears it
//!
//!     vedette update ──► "failed\n" ──► what failed here (device::update::FailedHere) is told upstream
//!
//! One at a time: whoever is slow is cut off, and the next one waits for so long. A socket that was left behind by a
//! program that was killed is replaced; one behind which somebody answers is not, and then there is none here.

use super::health;
use crate::base::Stop;
use crate::device::health::{State, note_passed};
use crate::hub::Hub;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as Caller;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

const SOCKET: &str = "control.sock";
/// All questions have one length.
const RELOAD: &str = "reload\n";
const HEALTH: &str = "health\n";
const PASSED: &str = "passed\n";
const FAILED: &str = "failed\n";
const DONE: &str = "done\n";
const REFUSED: &str = "refused\n";

/// How long a caller gets to ask and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer may take; longer than [`Hub::reload`].
const ANSWER: Duration = Duration::from_secs(40);
/// How long to wait when the system has no socket left.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    data_dir: PathBuf,
    gates: Gates,
}

/// Who is told what somebody at the shell found out.
#[derive(Clone)]
pub(super) struct Gates {
    /// Becomes true when the gate has been passed.
    pub(super) healthy: watch::Sender<bool>,
    /// An update that was begun at the shell has failed.
    pub(super) failed: Arc<Notify>,
}

impl Control {
    pub(super) fn listen(data_dir: &Path, gates: Gates) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if Caller::connect(&path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another vedette runs with this data folder"));
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path, data_dir: data_dir.to_owned(), gates })
    }

    /// Until the stop.
    pub(super) async fn run(&self, hub: &Hub, stop: &Stop) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.stopped() => return,
            };
            let answered = match accepted {
                Ok((mut stream, _)) => self.answer(&mut stream, hub).await,
                Err(error) => {
                    warn!(%error, "Cannot listen to commands of the shell.");
                    stop.sleep(RETRY).await;
                    continue;
                }
            };
            if let Err(error) = answered {
                debug!(%error, "Somebody at the control socket gave up.");
            }
        }
    }

    async fn answer(&self, stream: &mut UnixStream, hub: &Hub) -> io::Result<()> {
        let mut asked = [0; RELOAD.len()];
        timeout(PATIENCE, stream.read_exact(&mut asked)).await??;
        let (word, text) = match std::str::from_utf8(&asked) {
            Ok(RELOAD) => match hub.reload().await {
                Ok(text) => (DONE, text),
                Err(text) => (REFUSED, text),
            },
            Ok(HEALTH) => (DONE, serde_json::to_string(&health::tried(hub).await).unwrap_or_default()),
            Ok(PASSED) => {
                if let Err(error) = note_passed(&self.data_dir) {
                    warn!(%error, "Cannot note that this slot is healthy; after a restart of the program it waits for the next boot.");
                }
                self.gates.healthy.send_replace(true);
                (DONE, String::new())
            }
            Ok(FAILED) => {
                self.gates.failed.notify_one();
                (DONE, String::new())
            }
            _ => {
                (REFUSED, "there is no such command; this program is of another version than the one that asks".into())
            }
        };
        timeout(PATIENCE, stream.write_all(format!("{word}{text}").as_bytes())).await?
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Whoever finds it all the same is told that nobody listens.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "no vedette runs with the data folder {data_dir:?} ({source}); start it, or name its folder with --data-dir"
    )]
    Nobody { data_dir: PathBuf, source: io::Error },
    #[error("only who runs vedette, or root, may do this: {0}")]
    NotAllowed(io::Error),
    #[error("the running vedette did not answer: {0}")]
    Silent(io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Asks the program that runs with this data folder to read its configuration anew. What was applied.
pub fn ask_to_reload(data_dir: &Path) -> Result<String, AskError> {
    ask(data_dir, RELOAD)
}

/// What works of it.
pub fn ask_for_health(data_dir: &Path) -> Result<State, AskError> {
    let text = ask(data_dir, HEALTH)?;
    serde_json::from_str(&text).map_err(|error| AskError::Silent(error.into()))
}

/// Tells it that this system was found healthy.
pub fn tell_passed(data_dir: &Path) -> Result<(), AskError> {
    ask(data_dir, PASSED).map(drop)
}

/// Tells it that an update that was begun at the shell has failed, so that others hear of it.
pub fn tell_failed(data_dir: &Path) -> Result<(), AskError> {
    ask(data_dir, FAILED).map(drop)
}

fn ask(data_dir: &Path, question: &str) -> Result<String, AskError> {
    let mut stream = Caller::connect(data_dir.join(SOCKET)).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::NotAllowed(source),
        _ => AskError::Nobody { data_dir: data_dir.into(), source },
    })?;
    let mut answer = String::new();
    let exchange = (|| {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(question.as_bytes())?;
        stream.read_to_string(&mut answer)
    })();
    exchange.map_err(AskError::Silent)?;
    match (answer.strip_prefix(DONE), answer.strip_prefix(REFUSED)) {
        (Some(done), _) => Ok(done.to_owned()),
        (_, Some(refused)) => Err(AskError::Refused(refused.to_owned())),
        _ => Err(AskError::Silent(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};

    #[tokio::test]
    async fn who_asks_gets_the_hubs_answer_and_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let error = ask_to_reload(&path).unwrap_err().to_string();
        assert!(error.contains("no vedette runs"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(path.join(SOCKET)).unwrap());

        let (hub, tasks) = (Hub::new(Clock::real()), Tasks::new("test"));
        let mut demands = hub.demands();
        let gates = Gates { healthy: watch::Sender::new(false), failed: Arc::default() };
        let control = Arc::new(Control::listen(&path, gates.clone()).unwrap());
        assert!(Control::listen(&path, gates.clone()).is_err(), "one is enough");
        let served = control.clone();
        tasks.spawn("control", move |stop| {
            let (control, hub) = (served.clone(), hub.clone());
            async move { control.run(&hub, &stop).await }
        });
        // One that says nothing, and one that says something else.
        drop(Caller::connect(path.join(SOCKET)).unwrap());
        let mut other = Caller::connect(path.join(SOCKET)).unwrap();
        other.write_all(b"reboot\n").unwrap();
        let mut said = String::new();
        tokio::task::spawn_blocking(move || other.read_to_string(&mut said).map(|_| said))
            .await
            .unwrap()
            .map(|said| assert!(said.starts_with(REFUSED), "{said}"))
            .unwrap();

        let asked = path.clone();
        let caller = tokio::task::spawn_blocking(move || (ask_to_reload(&asked), ask_to_reload(&asked)));
        demands.recv().await.unwrap().reply.send(Ok("demo added".into())).unwrap();
        demands.recv().await.unwrap().reply.send(Err("x.toml:1: no".into())).unwrap();
        let (first, second) = caller.await.unwrap();
        assert_eq!(first.unwrap(), "demo added");
        assert!(matches!(second, Err(AskError::Refused(why)) if why == "x.toml:1: no"));

        let (asked, mut healthy) = (path.clone(), gates.healthy.subscribe());
        let ask = move || (ask_for_health(&asked), tell_passed(&asked), tell_failed(&asked));
        let (state, passed, failed) = tokio::task::spawn_blocking(ask).await.unwrap();
        let state = state.unwrap();
        assert_eq!((state.process, passed.is_ok(), failed.is_ok()), (std::process::id(), true, true));
        assert!(state.network.is_some());
        assert!(*healthy.borrow_and_update());
        gates.failed.notified().await;
        tasks.stop(Duration::from_secs(1)).await;
    }
}
