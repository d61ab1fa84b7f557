//! RAUC over D-Bus (its manual, "D-Bus API"): it looks at the signature, writes the other slot, and makes that the next to start.
//!
//! How far it is, is asked for each second: what is said by signals alone is lost when its service restarts.
//!
//! Nothing here waits for ever: an answer has [`ANSWER`], an installation [`LONGEST`]. While RAUC hangs nobody else could update.

use futures_util::StreamExt as _;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedVariant, fdo};

/// For one answer. Before it says what a bundle of the plain format is it hashes all of it.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// Writing 200 MiB to a slow card takes minutes.
const LONGEST: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_secs(1);
/// Looks at which it may be idle, or silent, before it has begun, or before its last word is here.
const IDLE: u32 = 5;
/// What some versions say instead of what is wrong with a bundle, and how long it may take to learn more.
const NO_WORDS: &str = "rauc info error";
const WORDS: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RaucError {
    #[error("RAUC cannot be reached: {0}")]
    Bus(zbus::Error),
    #[error(
        "RAUC runs and does not answer, so it hangs: restart it (systemctl restart rauc) or the device, and ask again"
    )]
    Silent,
    #[error("RAUC refuses this bundle: {0}")]
    Refused(String),
    #[error("the bundle is version {found}, but version {wanted} was asked for")]
    Version { found: String, wanted: String },
    #[error("the bundle is for {found}, and this device is {own}")]
    Compatible { found: String, own: String },
    #[error("this RAUC does not say which version a bundle has, so version {wanted} cannot be told from another")]
    NoVersion { wanted: String },
    #[error("RAUC could not install it: {0}")]
    Failed(String),
    #[error("RAUC did not end within {} minutes", LONGEST.as_secs() / 60)]
    Slow,
}

impl From<zbus::Error> for RaucError {
    fn from(error: zbus::Error) -> Self {
        match &error {
            zbus::Error::InputOutput(cause) if cause.kind() == io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Bus(error),
        }
    }
}

#[zbus::proxy(interface = "de.pengutronix.rauc.Installer", default_service = "de.pengutronix.rauc", default_path = "/")]
trait Installer {
    fn install_bundle(&self, source: &str, args: HashMap<&str, zbus::Variant<'_>>) -> zbus::Result<()>;

    /// Compatible and version. All versions have it, but newer ones say that it will go.
    fn info(&self, bundle: &str) -> zbus::Result<(String, String)>;

    /// What takes its place: as `rauc info --output-format=json-2`.
    fn inspect_bundle(
        &self,
        bundle: &str,
        args: HashMap<&str, zbus::Variant<'_>>,
    ) -> zbus::Result<HashMap<String, OwnedVariant>>;

    /// For which devices a bundle must be.
    #[zbus(property(emits_changed_signal = "false"))]
    fn compatible(&self) -> zbus::Result<String>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn operation(&self) -> zbus::Result<String>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn last_error(&self) -> zbus::Result<String>;

    /// Percent, what it does, and how deep that is.
    #[zbus(property(emits_changed_signal = "false"))]
    fn progress(&self) -> zbus::Result<(i32, String, i32)>;

    #[zbus(signal)]
    fn completed(&self, result: i32) -> zbus::Result<()>;
}

/// What a bundle says of itself. Its signature is good then.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    pub compatible: String,
    pub version: String,
}

impl About {
    /// `wanted` is the version that somebody asked for.
    pub fn check(found: Option<Self>, wanted: Option<&str>) -> Result<(), RaucError> {
        match (found, wanted) {
            (Some(About { version: found, .. }), Some(wanted)) if found != wanted => {
                Err(RaucError::Version { found, wanted: wanted.into() })
            }
            (None, Some(wanted)) => Err(RaucError::NoVersion { wanted: wanted.into() }),
            _ => Ok(()),
        }
    }
}

/// The system's bus, or another one. No answer on it takes longer than `answer`; by themselves they may take for ever.
pub async fn connect(address: Option<&str>, answer: Duration) -> Result<Connection, zbus::Error> {
    let builder = match address {
        Some(address) => zbus::connection::Builder::address(address),
        None => zbus::connection::Builder::system(),
    };
    match timeout(answer, builder.method_timeout(answer).build()).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// Without a cache: none of what is asked for is to be old, and that it is filled is waited for without a limit.
async fn installer(bus: &Connection) -> Result<InstallerProxy<'_>, zbus::Error> {
    InstallerProxy::builder(bus).cache_properties(CacheProperties::No).build().await
}

/// Looks at a bundle that is for this device, and at its signature; waits for what RAUC is at. `None`: this RAUC cannot do that.
pub async fn inspect(bus: &Connection, bundle: &Path) -> Result<Option<About>, RaucError> {
    let rauc = installer(bus).await?;
    let bundle = text(bundle)?;
    // What this program began before it was stopped: its end is not known here, so it is done again.
    let waiting = Instant::now();
    while rauc.operation().await? != "idle" {
        if waiting.elapsed() > LONGEST {
            return Err(RaucError::Slow);
        }
        tokio::time::sleep(LOOK).await;
    }
    let about = match rauc.info(bundle).await {
        Ok((compatible, version)) => About { compatible, version },
        Err(error) if is_unknown_method(&error) => match rauc.inspect_bundle(bundle, HashMap::new()).await {
            Ok(mut about) => {
                let mut update = about.remove("update").map(HashMap::<String, OwnedVariant>::try_from);
                let mut word = |key: &str| String::try_from(update.as_mut()?.as_mut().ok()?.remove(key)?).ok();
                let (Some(compatible), Some(version)) = (word("compatible"), word("version")) else { return Ok(None) };
                About { compatible, version }
            }
            Err(error) if is_unknown_method(&error) => return Ok(None),
            Err(error) => return Err(in_words(refused(error), bundle).await),
        },
        Err(error) => return Err(in_words(refused(error), bundle).await),
    };
    let own = rauc.compatible().await?;
    if own != about.compatible {
        return Err(RaucError::Compatible { found: about.compatible, own });
    }
    Ok(Some(about))
}

/// Installs a bundle into the slot that does not run. `tell` hears percent and what is done.
pub async fn install(
    bus: &Connection,
    bundle: &Path,
    tell: &mut (dyn FnMut(i32, &str) + Send),
) -> Result<(), RaucError> {
    let rauc = installer(bus).await?;
    let bundle = text(bundle)?;
    let mut completed = rauc.receive_completed().await?;
    rauc.install_bundle(bundle, HashMap::new()).await.map_err(refused)?;
    tokio::select! {
        Some(signal) = completed.next() => match *signal.args()?.result() {
            0 => Ok(()),
            _ => Err(failed(&rauc).await),
        },
        fault = watch(&rauc, tell) => Err(fault),
        () = sleep(LONGEST) => Err(RaucError::Slow),
    }
}

/// Says how far it is, until it is seen that there is no last word to wait for.
async fn watch(rauc: &InstallerProxy<'_>, tell: &mut (dyn FnMut(i32, &str) + Send)) -> RaucError {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle = 0;
    while idle <= IDLE {
        looks.tick().await;
        let is_at_it = rauc.operation().await.is_ok_and(|operation| operation != "idle");
        idle = if is_at_it { 0 } else { idle + 1 };
        if is_at_it && let Ok((percent, what, _)) = rauc.progress().await {
            tell(percent.clamp(0, 100), &what);
        }
    }
    failed(rauc).await
}

fn text(bundle: &Path) -> Result<&str, RaucError> {
    bundle.to_str().ok_or_else(|| RaucError::Refused("its name is not UTF-8".into()))
}

async fn failed(rauc: &InstallerProxy<'_>) -> RaucError {
    match rauc.last_error().await {
        Ok(error) if !error.is_empty() => RaucError::Failed(error),
        Ok(_) => RaucError::Failed("it ended without saying why".into()),
        // It is gone, or the bus is.
        Err(error) => error.into(),
    }
}

/// Its own words, without those of D-Bus.
fn refused(error: zbus::Error) -> RaucError {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => RaucError::Refused(text),
        zbus::Error::FDO(error) => match *error {
            fdo::Error::Failed(text) => RaucError::Refused(text),
            other => zbus::Error::from(other).into(),
        },
        other => other.into(),
    }
}

/// RAUC 1.8 says over D-Bus only that there is an error, and why on its own command line.
async fn in_words(error: RaucError, bundle: &str) -> RaucError {
    match &error {
        RaucError::Refused(text) if text == NO_WORDS => {}
        _ => return error,
    }
    let asked = Command::new("rauc").args(["info", bundle]).kill_on_drop(true).output();
    match timeout(WORDS, asked).await {
        Ok(Ok(said)) => last_words(&String::from_utf8_lossy(&said.stderr)).map_or(error, RaucError::Refused),
        _ => error,
    }
}

/// The last line that is none of its log.
fn last_words(said: &str) -> Option<String> {
    let is_log =
        |line: &str| line.contains("rauc-Message:") || line.contains("rauc-WARNING") || line.contains("rauc-DEBUG");
    let said = said.lines().map(str::trim).rfind(|line| !line.is_empty() && !is_log(line))?;
    Some(said.to_owned())
}

fn is_unknown_method(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::FDO(error) => matches!(**error, fdo::Error::UnknownMethod(_)),
        zbus::Error::MethodError(name, ..) => name.ends_with(".UnknownMethod"),
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
