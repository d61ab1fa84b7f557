//! Which version ran last, to tell when an update has been installed.

use crate::base::files::write_whole;
use crate::hub::Hub;
use crate::model::EventKind;
use std::fs;
use std::io;
use std::path::Path;
use tracing::warn;

/// Below the data folder.
const FILE: &str = "version";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Raises an event if another version ran last, and takes note of this one. The first start is no update. Not for a version that is
/// on trial: its event is that of its update.
pub(super) fn note(data_dir: &Path, hub: &Hub) {
    let file = data_dir.join(FILE);
    let last = match fs::read_to_string(&file) {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return warn!(?file, %error, "Cannot tell which version ran last."),
    };
    if last.as_deref() == Some(VERSION) {
        return;
    }
    if let Some(last) = last {
        hub.raise(
            EventKind::UpdateInstalled,
            "system",
            format!("Version {VERSION} is installed; before it ran {last}"),
        );
    }
    keep(data_dir);
}

/// Takes note of it without a word.
pub(super) fn keep(data_dir: &Path) {
    let file = data_dir.join(FILE);
    if let Err(error) = write_whole(&file, 0o644, VERSION.as_bytes()) {
        warn!(?file, %error, "Cannot note which version runs; the next start may take it for an update.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    #[test]
    fn only_another_version_is_an_update() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::new(Clock::real());
        note(folder.path(), &hub);
        note(folder.path(), &hub);
        assert!(hub.recent().is_empty(), "the first start, and the same version again");
        fs::write(folder.path().join(FILE), "0.0.9\n").unwrap();
        note(folder.path(), &hub);
        note(folder.path(), &hub);
        assert_eq!(hub.recent().len(), 1);
    }
}
