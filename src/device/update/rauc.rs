//! RAUC over D-Bus (its manual, "D-Bus API"): it looks at the signature, writes the other slot, and makes that the next to start.
//!
//! How far it is, is asked for each second: what is said by signals alone is lost when its service restarts.

use futures_util::StreamExt as _;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use zbus::{Connection, fdo};

/// Writing 200 MiB to a slow card takes minutes.
const LONGEST: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_secs(1);
/// Looks at which it may be idle before it has begun, or before its last word is here.
const IDLE: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum RaucError {
    #[error("RAUC cannot be reached: {0}")]
    Bus(zbus::Error),
    #[error("RAUC refuses this bundle: {0}")]
    Refused(String),
    #[error("the bundle has version {found}, not {wanted}")]
    Version { found: String, wanted: String },
    #[error("RAUC could not install it: {0}")]
    Failed(String),
    #[error("RAUC did not end within {} minutes", LONGEST.as_secs() / 60)]
    Slow,
}

#[zbus::proxy(interface = "de.pengutronix.rauc.Installer", default_service = "de.pengutronix.rauc", default_path = "/")]
trait Installer {
    fn install_bundle(&self, source: &str, args: HashMap<&str, zbus::Variant<'_>>) -> zbus::Result<()>;

    /// Compatible and version.
    fn info(&self, bundle: &str) -> zbus::Result<(String, String)>;

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

/// Installs a bundle into the slot that does not run. `tell` hears percent and what is done.
pub async fn install(
    bus: &Connection,
    bundle: &Path,
    version: Option<&str>,
    tell: &mut (dyn FnMut(i32, &str) + Send),
) -> Result<(), RaucError> {
    let rauc = InstallerProxy::new(bus).await.map_err(RaucError::Bus)?;
    let bundle = bundle.to_str().ok_or_else(|| RaucError::Refused("its name is not UTF-8".into()))?;
    // What this program began before it was stopped: its end is not known here, so it is done again.
    let waiting = Instant::now();
    while rauc.operation().await.map_err(RaucError::Bus)? != "idle" {
        if waiting.elapsed() > LONGEST {
            return Err(RaucError::Slow);
        }
        tokio::time::sleep(LOOK).await;
    }
    if let Some(wanted) = version {
        // Looks at the signature as well. Newer versions of RAUC may take this method away.
        match rauc.info(bundle).await {
            Ok((_, found)) if found != wanted => {
                return Err(RaucError::Version { found, wanted: wanted.into() });
            }
            Err(error) if !is_unknown_method(&error) => return Err(refused(error)),
            Ok(_) | Err(_) => {}
        }
    }
    let mut completed = rauc.receive_completed().await.map_err(RaucError::Bus)?;
    rauc.install_bundle(bundle, HashMap::new()).await.map_err(refused)?;
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (began, mut idle) = (Instant::now(), 0);
    loop {
        tokio::select! {
            Some(signal) = completed.next() => {
                let result = *signal.args().map_err(RaucError::Bus)?.result();
                return if result == 0 { Ok(()) } else { Err(failed(&rauc).await) };
            }
            _ = looks.tick() => {
                let (operation, progress) = (rauc.operation().await, rauc.progress().await);
                idle = if operation.is_ok_and(|operation| operation != "idle") { 0 } else { idle + 1 };
                if let (0, Ok((percent, what, _))) = (idle, progress) {
                    tell(percent.clamp(0, 100), &what);
                }
                if idle > IDLE {
                    return Err(failed(&rauc).await);
                }
                if began.elapsed() > LONGEST {
                    return Err(RaucError::Slow);
                }
            }
        }
    }
}

async fn failed(rauc: &InstallerProxy<'_>) -> RaucError {
    match rauc.last_error().await {
        Ok(error) if !error.is_empty() => RaucError::Failed(error),
        _ => RaucError::Failed("it ended without saying why".into()),
    }
}

/// Its own words, without those of D-Bus.
fn refused(error: zbus::Error) -> RaucError {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => RaucError::Refused(text),
        zbus::Error::FDO(error) => match *error {
            fdo::Error::Failed(text) => RaucError::Refused(text),
            other => RaucError::Bus(other.into()),
        },
        other => RaucError::Bus(other),
    }
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
