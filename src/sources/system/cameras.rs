//! How many cameras there are in which state, by what they say themselves in `cameras/<name>/State`.

use crate::hub::Hub;
use crate::model::{TagName, Value};

/// Idle, streaming, disconnected, and all others.
pub(super) fn count(hub: &Hub) -> [Value; 4] {
    let mut counts = [0; 4];
    for camera in hub.cameras() {
        let tag = TagName::new(&format!("cameras/{}/State", camera.name())).ok().and_then(|name| hub.find(&name));
        let Some(tag) = tag else { continue };
        let place = match hub.read(tag).value {
            Value::String(Some(state)) if &*state == "idle" => 0,
            Value::String(Some(state)) if &*state == "streaming" => 1,
            Value::String(Some(state)) if &*state == "disconnected" => 2,
            _ => 3,
        };
        counts[place] += 1;
    }
    counts.map(Value::UInt32)
}
