//! Logs: sentences on stderr with the data as fields.
//!
//! Under systemd (JOURNAL_STREAM is set) without time and colours, because journald adds them. The last lines are also
//! kept in memory (`ring.rs`), for whoever asks from afar: [`recent`].

mod file;
mod ring;

pub use file::LogFile;
pub use ring::{Level, Line, recent};

use ring::Ring;
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// What is shown if nobody says otherwise. Protocol crates speak only when something is wrong; the UA crate takes a
/// client that goes away without goodbye for an error, which in a plant is an ordinary morning, and so it does a channel without
/// security, which needs no certificate. What its client has to say at each attempt is said by us, once.
const DEFAULT: &str = "info,opcua_client=off,opcua_server=warn,opcua_core=error,\
                       opcua_core::comms::secure_channel=off,opcua_crypto=warn,opcua_nodes=warn,\
                       opcua_types=warn,rumqttc=error,rustls=warn";

#[derive(Debug, thiserror::Error)]
#[error(
    "log filter {filter:?} is not understood ({reason}); write a level (error, warn, info, debug, trace), or \
         levels by module as in `info,vedette::cameras=debug`"
)]
pub struct FilterError {
    filter: String,
    reason: String,
}

/// Starts logging. `filter` adds to the default: `debug` or `info,vedette::cameras=debug`.
pub fn start(filter: Option<&str>) -> Result<(), FilterError> {
    let targets = targets(filter)?;
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        init(targets, fmt::layer().with_writer(std::io::stderr).without_time().with_ansi(false).with_target(false));
    } else {
        let ansi = std::io::stderr().is_terminal();
        init(targets, fmt::layer().with_writer(std::io::stderr).with_ansi(ansi).with_target(false));
    }
    Ok(())
}

/// Starts logging to a file.
pub fn start_in(file: LogFile, filter: Option<&str>) -> Result<(), FilterError> {
    init(targets(filter)?, fmt::layer().with_writer(file).with_ansi(false).with_target(false));
    Ok(())
}

type Filter = reload::Layer<Targets, Registry>;

/// Where the filter can be changed while the program runs.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

fn init<L>(targets: Targets, layer: L)
where
    L: Layer<tracing_subscriber::layer::Layered<Filter, Registry>> + Send + Sync + 'static,
    tracing_subscriber::layer::Layered<Filter, Registry>: Subscriber + for<'a> LookupSpan<'a>,
{
    let (filter, handle) = reload::Layer::new(targets);
    // Only a second call in one process can fail, which in tests is harmless.
    if tracing_subscriber::registry().with(filter).with(layer).with(Ring).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Whether a filter is understood.
pub fn check(filter: &str) -> Result<(), FilterError> {
    targets(Some(filter)).map(|_| ())
}

/// Changes what is logged, to a filter that was checked.
pub fn set(filter: Option<&str>) {
    if let (Some(handle), Ok(targets)) = (FILTER.get(), targets(filter)) {
        // An error means that logging has ended.
        let _ = handle.reload(targets);
    }
}

fn targets(filter: Option<&str>) -> Result<Targets, FilterError> {
    let all = format!("{DEFAULT},{}", filter.unwrap_or("info"));
    all.parse().map_err(|error: tracing_subscriber::filter::ParseError| FilterError {
        filter: filter.unwrap_or_default().to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn what_the_user_says_comes_on_top_of_the_default() {
        let targets = targets(Some("debug")).unwrap();
        assert!(targets.would_enable("vedette::hub", &Level::DEBUG));
        assert!(!targets.would_enable("opcua_server", &Level::INFO));
    }

    #[test]
    fn nonsense_is_refused_with_a_way_out() {
        let error = targets(Some("vedette=loud")).unwrap_err().to_string();
        assert!(error.contains("vedette=loud") && error.contains("info,vedette::cameras=debug"), "{error}");
    }
}
