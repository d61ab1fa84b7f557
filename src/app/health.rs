//! What works, asked of the hub; and what worked, kept for the next slot (`device::health`).

use crate::base::{Stop, interfaces};
use crate::device::health::State;
use crate::hub::Hub;
use crate::model::{Sample, Value};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{debug, warn};

/// After a start things need so long to find each other.
const FIRST: Duration = Duration::from_secs(60);
/// A picture that is younger shows that a camera works; a new one has so long to come.
const RECENT: Duration = Duration::from_secs(60);
const PICTURE: Duration = Duration::from_secs(15);
/// A card wears: no more often than this, and only if it changed.
const OFTEN: Duration = Duration::from_secs(600);

/// What works now.
pub(super) fn present(hub: &Hub) -> State {
    let moment = hub.read_all();
    let named = moment.tags.iter().zip(&moment.current).map(|((_, spec), sample)| (spec.name.as_str(), sample));
    let tags: HashMap<&str, &Sample> = named.collect();
    let text = |name: &str| match tags.get(name).map(|sample| &sample.value) {
        Some(Value::String(Some(text))) => text.to_string(),
        _ => String::new(),
    };
    let camera = |name: &str| {
        let name = name.strip_prefix("cameras/")?.strip_suffix("/State")?;
        let (state, reason) = (text(&format!("cameras/{name}/State")), text(&format!("cameras/{name}/Reason")));
        let fault = match state.as_str() {
            "idle" | "streaming" => String::new(),
            "" => "not known yet".into(),
            _ if reason.is_empty() => state,
            _ => format!("{state}: {reason}"),
        };
        Some((name.to_owned(), fault))
    };
    let fault = |state: &crate::hub::SourceState| match (state.is_lost, &state.last_error) {
        (false, _) if state.is_untried => "not known yet".into(),
        (false, _) => String::new(),
        (true, error) => error.as_deref().unwrap_or("lost").to_owned(),
    };
    State {
        cameras: tags.keys().filter_map(|name| camera(name)).collect(),
        sources: hub.sources().iter().map(|(name, state)| (name.to_string(), fault(state))).collect(),
        uplink: tags.get("mqtt/Connected").map(|sample| match (&sample.value, text("mqtt/LastError")) {
            (Value::Boolean(true), _) => String::new(),
            (_, error) if error.is_empty() => "not connected yet".into(),
            (_, error) => error,
        }),
        store: tags.contains_key("store/State").then(|| match text("store/State").as_str() {
            "writing" => String::new(),
            "" => "not known yet".into(),
            other => other.to_owned(),
        }),
        network: Some(network(&interfaces::addresses())),
        process: 0,
    }
}

/// The same, and who says so; of each camera that seems to work a picture has been taken.
pub(super) async fn tried(hub: &Hub) -> State {
    let mut state = State { process: std::process::id(), ..present(hub) };
    let cameras = hub.cameras();
    let seeming = cameras.iter().filter(|camera| state.cameras.get(camera.name()).is_some_and(String::is_empty));
    let shots = seeming.map(async |camera| (camera.name().to_owned(), camera.snapshot(RECENT, PICTURE).await));
    for (name, shot) in join_all(shots).await {
        if let Err(quality) = shot {
            state.cameras.insert(name, format!("it gives no picture: {quality}"));
        }
    }
    state
}

fn network(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() { "no interface has an address".into() } else { String::new() }
}

/// Keeps what works, once this slot is not on trial any more.
pub(super) struct Keeper {
    pub(super) hub: Hub,
    pub(super) data_dir: PathBuf,
    pub(super) healthy: watch::Receiver<bool>,
}

impl Keeper {
    /// Until the stop.
    pub(super) async fn run(&mut self, stop: &Stop) {
        tokio::select! {
            Ok(_) = self.healthy.wait_for(|is_healthy| *is_healthy) => {}
            () = stop.stopped() => return,
        }
        let mut kept = State::load(&self.data_dir);
        let mut wait = FIRST;
        while stop.sleep(wait).await {
            wait = OFTEN;
            let state = present(&self.hub);
            if works(&state) == works(&kept) {
                continue;
            }
            match state.save(&self.data_dir) {
                Ok(()) => kept = state,
                Err(error) => warn!(%error, "Cannot keep what works; an update will be judged by less."),
            }
            debug!("Kept what works.");
        }
    }
}

/// Without the words of what does not, which change more often than that it does not.
fn works(state: &State) -> (Vec<&str>, bool, bool, bool) {
    let parts = state.cameras.iter().chain(&state.sources);
    let working = parts.filter(|(_, fault)| fault.is_empty()).map(|(name, _)| name.as_str()).collect();
    let is_well = |part: &Option<String>| part.as_deref() == Some("");
    (working, is_well(&state.uplink), is_well(&state.store), is_well(&state.network))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};
    use crate::model::{DataType, TagName, TagSpec};

    #[test]
    fn one_address_is_a_network() {
        assert_eq!(network(&["10.0.0.5".parse().unwrap()]), "");
        assert!(network(&[]).contains("no interface"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_works_is_seen_and_kept_when_the_slot_is_not_on_trial() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::new(Clock::real());
        let network = Some(network(&interfaces::addresses()));
        assert_eq!(present(&hub), State { network, ..State::default() });
        let names = [
            "cameras/a/State",
            "cameras/b/State",
            "cameras/b/Reason",
            "mqtt/Connected",
            "mqtt/LastError",
            "store/State",
        ];
        let specs = names.map(|name| TagSpec::new(TagName::new(name).unwrap(), DataType::String)).to_vec();
        let tags = hub.register("test", specs).unwrap();
        let values = ["idle", "no cable", "look at it", "", "timeout", "writing"].map(Value::string);
        let now = hub.now();
        hub.publish(tags.tags().iter().zip(values).map(|(&tag, value)| Sample::good(tag, value, now)).collect());
        hub.source_lost("plc", "no route to host");
        let tries = Tasks::new("tries");
        let _running = hub.source_runs("line", true, &tries.stop_signal());
        assert_eq!(present(&hub).sources["line"], "not known yet");
        hub.source_back("line");
        assert_eq!(present(&hub).sources["line"], "");
        let state = present(&hub);
        assert_eq!((state.cameras["a"].as_str(), state.cameras["b"].as_str()), ("", "no cable: look at it"));
        assert_eq!(state.sources["plc"], "no route to host");
        assert_eq!((state.uplink.as_deref(), state.store.as_deref()), (Some("timeout"), Some("")));

        let tasks = Tasks::new("test");
        let (stop, healthy) = (tasks.stop_signal(), watch::Sender::new(false));
        let data_dir = folder.path().to_owned();
        let mut keeper = Keeper { hub: hub.clone(), data_dir: data_dir.clone(), healthy: healthy.subscribe() };
        tokio::select! {
            () = keeper.run(&stop) => {}
            () = async {
                tokio::time::sleep(FIRST * 2).await;
                assert_eq!(State::load(&data_dir), State::default(), "on trial");
                healthy.send_replace(true);
                tokio::time::sleep(FIRST * 2).await;
                assert_eq!(State::load(&data_dir), state);
                hub.source_back("plc");
                tokio::time::sleep(OFTEN / 2).await;
                assert_eq!(State::load(&data_dir), state, "seldom");
                tokio::time::sleep(OFTEN).await;
                assert_eq!(State::load(&data_dir).sources["plc"], "");
            } => {}
        }
    }
}
