//! What happens, as events and alarms of OPC UA (OPC 10000-4, 5.13; 10000-5, 6.4; 10000-9).
//!
//!     hub: Events ──► Notice ──► delivery: a queue for each item ──► the crate's queue of the item ──► publish
//!                        └─────► variables of the condition's instance, Device/Events
//!
//! - `notice.rs` is an event with all its fields; `kinds.rs` says which type of the standard or of ours it has.
//! - `nodes.rs` makes the types, the notifiers (Server, Cameras, each camera, Device) and the conditions' instances.
//! - `delivery.rs` brings notices to the monitored items: to those on the notifiers above their source, or to one
//!   subscription that asks for a refresh; none is lost because a client chose a short queue.
//! - `filters.rs` and `comparisons.rs` help the crate to understand event filters.
//! - `methods.rs` are the methods of conditions: acknowledge, comment, refresh; `manager.rs` gets their calls.
//! - `history.rs` answers who asks later what happened.
//!
//! All state is in the hub: a server that is started again, or a session that comes later, finds it there.

mod comparisons;
pub(super) mod delivery;
mod filters;
mod history;
mod kinds;
pub(super) mod manager;
mod methods;
pub(super) mod nodes;
mod notice;

use super::access::Access;
use super::node_manager::HubNodes;
use crate::hub::{Events, Hub};
use crate::model::{Condition, Happening};
use ::opcua::server::ServerHandle;
use ::opcua::server::node_manager::memory::{CoreNodeManager, InMemoryNodeManager};
use ::opcua::types::{DataValue, NodeId, NumericRange};
use delivery::{Delivery, News, To};
use filters::Reader;
use notice::Notice;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// How soon it is looked whether an item has room for what waits for it (the shortest publishing interval), and how late
/// at last, if again and again there is none: the client sends no publish requests, or the item does not report.
const RETRY: Duration = Duration::from_millis(20);
const RETRY_AT_LAST: Duration = Duration::from_millis(320);

/// What is done to the crate's server before it runs.
pub(super) fn set_up(handle: &ServerHandle) {
    comparisons::install(handle.info());
    if let Some(standard) = handle.node_managers().get_of_type::<CoreNodeManager>() {
        nodes::add_history(&mut standard.address_space().write());
    }
}

/// Passes on what happens, for ever.
pub(super) async fn run(
    hub: &Hub,
    mut events: Events,
    delivery: &Delivery,
    nodes: &InMemoryNodeManager<HubNodes>,
    handle: &ServerHandle,
) {
    let namespace = nodes.inner().namespace();
    let subscriptions = handle.subscriptions();
    show(hub, delivery.access(), &[], nodes, handle);
    let mut retry = RETRY;
    loop {
        let mut happenings = Vec::new();
        let mut lost = 0;
        tokio::select! {
            (happening, count) = events.next() => {
                happenings.push(happening);
                lost = count;
            }
            () = delivery.stirred() => {}
            () = tokio::time::sleep(retry), if delivery.is_waiting() => {}
        }
        happenings.extend(std::iter::from_fn(|| events.try_next()));
        let mut news: Vec<News> =
            happenings.iter().map(|happening| News::all(Notice::of(happening, namespace))).collect();
        if lost > 0 {
            warn!(lost, "Events came faster than they could be passed on.");
            news.insert(0, News::all(Notice::overflow(hub.now())));
        }
        if !happenings.is_empty() {
            show(hub, delivery.access(), &happenings, nodes, handle);
        }
        let has_moved = delivery.pump(subscriptions, &Reader(handle.type_tree().read()), &news);
        retry = if has_moved { RETRY } else { RETRY_AT_LAST.min(retry * 2) };
    }
}

/// Brings the variables up to date.
fn show(
    hub: &Hub,
    access: &Access,
    happenings: &[Happening],
    nodes: &InMemoryNodeManager<HubNodes>,
    handle: &ServerHandle,
) {
    let namespace = nodes.inner().namespace();
    let mut values: Vec<(NodeId, DataValue)> = vec![nodes::recent(hub, access, namespace)];
    for happening in happenings {
        if let Happening::Condition(condition) = happening {
            values.extend(nodes::values(condition, namespace));
        }
    }
    for (id, value) in values {
        // A condition that was declared just now has no nodes yet; they are made with its state.
        let _ = nodes.set_value(handle.subscriptions(), &id, None::<&NumericRange>, value);
    }
}

/// The conditions that a new reader is to be shown (OPC 10000-9, 5.5.7), between a start and an end.
fn refresh(hub: &Hub, namespace: u16, to: To) -> Vec<News> {
    let retained = |condition: &Arc<Condition>| condition.is_retained();
    let conditions = hub.conditions().into_iter().filter(retained);
    let notices = conditions.map(|condition| Notice::of(&Happening::Condition(condition), namespace));
    let all = std::iter::once(Notice::refresh_start(hub.now())).chain(notices);
    let all = all.chain(std::iter::once(Notice::refresh_end(hub.now())));
    all.map(|notice| News { notice: Arc::new(notice), to }).collect()
}
