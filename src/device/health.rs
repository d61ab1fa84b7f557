//! Whether this system is as healthy as it was: what is asked of a new slot before it is kept.
//!
//!     vedette run ── every ten minutes, if it changed ──► data_dir/health.json      what worked, of a slot that is not on trial
//!     an update ── before it reboots ────────────────────────┘
//!     vedette health ── asks the running one ──► present ──judge──► what is missed, in words
//!                    └─ nothing is missed ──► data_dir/passed                         in which boot the gate was passed
//!
//! A slot on trial does not write: else what it lost would be forgotten at its second try. What was lost before the update is not
//! missed after it, and so it is looked at once more in the moment in which the update is started: a camera that somebody has
//! just unplugged is not the new slot's fault. The kernel's command line says until the next boot that a slot is on trial, also
//! when it has passed; so that is noted.

use crate::base::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Below the data folder.
const FILE: &str = "health.json";
const PASSED: &str = "passed";

/// Each part with what is wrong with it; an empty text: it works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub cameras: BTreeMap<String, String>,
    pub sources: BTreeMap<String, String>,
    /// `None`: there is none.
    pub uplink: Option<String>,
    pub store: Option<String>,
    /// The process that says so; 0 in what is kept. One that was restarted begins its time anew.
    #[serde(skip_serializing_if = "is_zero")]
    pub process: u32,
    /// Whether this machine has an address: without one nobody would ever ask it for anything again. `None`: was never asked.
    pub network: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl State {
    /// Of before; nothing is missed where nothing is known.
    pub fn load(data_dir: &Path) -> Self {
        fs::read(data_dir.join(FILE)).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }

    /// Root may do that for the service.
    pub fn save(&self, data_dir: &Path) -> io::Result<()> {
        let owner = fs::metadata(data_dir)?;
        let kept = Self { process: 0, ..self.clone() };
        files::write_whole_as(&data_dir.join(FILE), 0o640, Some(&owner), &serde_json::to_vec(&kept)?)
    }

    /// Whether anything is known that the next slot could lose.
    pub fn is_known(&self) -> bool {
        *self != Self::default()
    }

    /// What of `before` does not work now. A store that does not open is never well.
    pub fn judge(&self, before: &Self) -> Vec<String> {
        let mut missed = Vec::new();
        let kinds = [("camera", &before.cameras, &self.cameras), ("source", &before.sources, &self.sources)];
        for (kind, before, now) in kinds {
            for name in before.iter().filter(|(_, fault)| fault.is_empty()).map(|(name, _)| name) {
                match now.get(name).map(String::as_str) {
                    Some("") => {}
                    Some(fault) => missed.push(format!("{kind} {name} worked before and does not now: {fault}")),
                    None => missed.push(format!("{kind} {name} worked before and is not there now")),
                }
            }
        }
        match (before.uplink.as_deref(), self.uplink.as_deref()) {
            (Some(""), Some(fault)) if !fault.is_empty() => {
                missed.push(format!("the uplink was connected before and is not now: {fault}"));
            }
            (Some(""), None) => missed.push("the uplink was connected before and is not there now".into()),
            _ => {}
        }
        match (before.store.as_deref(), self.store.as_deref()) {
            (_, Some(fault)) if !fault.is_empty() => missed.push(format!("the store cannot be written: {fault}")),
            (Some(""), None) => missed.push("the store was written before and is not there now".into()),
            _ => {}
        }
        if let (Some(""), Some(fault)) = (before.network.as_deref(), self.network.as_deref())
            && !fault.is_empty()
        {
            missed.push(format!("there was a network before: {fault}"));
        }
        missed
    }
}

/// Whether this slot is one to go back to: it was never on trial, or it has passed the gate since it was started.
pub fn is_kept(data_dir: &Path) -> bool {
    !super::is_on_trial() || passed_in(data_dir, &super::boot_id())
}

fn passed_in(data_dir: &Path, boot_id: &str) -> bool {
    !boot_id.is_empty() && fs::read_to_string(data_dir.join(PASSED)).is_ok_and(|passed| passed == boot_id)
}

/// Notes that it has passed. Nothing is written where nothing is on trial.
pub fn note_passed(data_dir: &Path) -> io::Result<()> {
    if is_kept(data_dir) {
        return Ok(());
    }
    files::write_whole(&data_dir.join(PASSED), 0o640, super::boot_id().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_counts_until_the_next_boot() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!passed_in(folder.path(), "b1"));
        fs::write(folder.path().join(PASSED), "b1").unwrap();
        assert!(passed_in(folder.path(), "b1") && !passed_in(folder.path(), "b2"));
        fs::write(folder.path().join(PASSED), "").unwrap();
        assert!(!passed_in(folder.path(), ""), "where boots have no number none has passed");
    }

    fn state(cameras: &[(&str, &str)], uplink: Option<&str>, store: Option<&str>) -> State {
        let cameras = cameras.iter().map(|(name, fault)| ((*name).to_owned(), (*fault).to_owned())).collect();
        State { cameras, uplink: uplink.map(Into::into), store: store.map(Into::into), ..State::default() }
    }

    #[test]
    fn only_what_worked_is_missed() {
        let before = state(&[("a", ""), ("b", "no cable"), ("c", "")], Some(""), Some(""));
        assert!(before.judge(&before).is_empty());
        assert!(state(&[], None, None).judge(&State::default()).is_empty(), "nothing is known of before");
        let now = state(&[("a", "disconnected"), ("b", "no cable")], Some("timeout"), Some("no space"));
        assert_eq!(
            now.judge(&before),
            [
                "camera a worked before and does not now: disconnected",
                "camera c worked before and is not there now",
                "the uplink was connected before and is not now: timeout",
                "the store cannot be written: no space",
            ]
        );
        let lost = state(&[("a", ""), ("c", "")], Some("timeout"), None);
        assert!(lost.judge(&state(&[], Some("timeout"), None)).is_empty(), "no worse than before");
        assert_eq!(state(&[("a", ""), ("c", "")], None, None).judge(&before).len(), 2);
    }

    #[test]
    fn a_network_is_missed_where_there_was_one() {
        let network = |fault: Option<&str>| State { network: fault.map(Into::into), ..State::default() };
        let (with, without, unknown) = (network(Some("")), network(Some("no address")), network(None));
        assert_eq!(without.judge(&with), ["there was a network before: no address"]);
        for (now, before) in
            [(&with, &without), (&without, &without), (&with, &with), (&unknown, &with), (&without, &unknown)]
        {
            assert!(now.judge(before).is_empty(), "{now:?} after {before:?}");
        }
    }

    #[test]
    fn it_is_kept_whole_and_what_cannot_be_read_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(State::load(folder.path()), State::default());
        let before = state(&[("a", "")], None, Some(""));
        before.save(folder.path()).unwrap();
        assert_eq!(State::load(folder.path()), before);
        fs::write(folder.path().join(FILE), "{\"cameras\":").unwrap();
        assert_eq!(State::load(folder.path()), State::default());
    }
}
