//! What a server says happened: its events as ours, if that is wanted, and that nodes came or went.
//!
//! Both are items on the Server object in a subscription of their own. A server without events refuses them, and that is no
//! harm; one that has just no room is asked again. A storm of events is cut to so many a second, and what is left out is counted in one event.

use super::inbox::{Cut, Inbox};
use crate::hub::Hub;
use crate::model::EventKind;
use crate::opcua::client::{Connection, Item, Notice, Settings, Subscription, name};
use ::opcua::types::{
    AttributeId, ContentFilter, ContentFilterElement, EventFieldList, EventFilter, ExtensionObject, FilterOperator,
    LiteralOperand, NodeId, ObjectId, ObjectTypeId, SimpleAttributeOperand, StatusCode, Variant,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

/// Handles of the two items.
const MODEL: u32 = 1;
const ALL: u32 = 2;
/// Events of one server in a second; the hub keeps the last 200 of all.
const MOST: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);
/// Between two publications the server keeps so many.
const QUEUE: u32 = 1000;
const LONGEST: usize = 500;

/// What came of asking.
#[derive(Default)]
pub(super) struct Telling {
    pub subscription: Option<Subscription>,
    /// What was wanted most was refused: why. Worth another try, later.
    pub refused: Option<String>,
}

impl Telling {
    pub(super) fn is_overdue(&self) -> bool {
        self.subscription.as_ref().is_some_and(Subscription::is_overdue)
    }
}

/// `before` is what an earlier try came to; `changed` is told when nodes come or go.
pub(super) async fn subscribe(
    connection: &Connection,
    before: Telling,
    inbox: Inbox,
    source: Arc<str>,
    wants_all: bool,
    changed: Arc<Notify>,
) -> Telling {
    if let Some(subscription) = before.subscription
        && let Err(error) = subscription.delete().await
    {
        debug!(source = &*source, %error, "Cannot end a subscription.");
    }
    let mut passing = Passing { hub: inbox.hub().clone(), source: source.clone(), since: Instant::now(), count: 0 };
    let notice = move |notice| match notice {
        Notice::Events(events) => {
            for event in events {
                match event.client_handle {
                    MODEL => changed.notify_one(),
                    _ => passing.pass(&event),
                }
            }
        }
        Notice::Status(status) => inbox.end(status),
        Notice::Gap(gap) => inbox.cut(Cut::Gap(gap)),
        Notice::Data(_) => {}
    };
    let settings = Settings { publishing_interval: SECOND, ..Settings::default() };
    let subscription = match connection.subscribe(&settings, notice).await {
        Ok(subscription) => subscription,
        Err(error) => return Telling { subscription: None, refused: Some(error.to_string()) },
    };
    let model = of_type(ObjectTypeId::BaseModelChangeEventType.into());
    let mut items = vec![item(MODEL, model)];
    if wants_all {
        items.push(item(ALL, ContentFilter::default()));
    }
    let refused = match connection.monitor(&subscription, &items).await {
        Ok(made) => {
            let statuses: Vec<Option<StatusCode>> = made.into_iter().map(Result::err).collect();
            if let Some(Some(status)) = statuses.first() {
                debug!(source = &*source, status = name(*status), "The server does not tell of new nodes.");
            }
            statuses.last().copied().flatten().map(name)
        }
        Err(error) => Some(error.to_string()),
    };
    Telling { subscription: Some(subscription), refused }
}

/// In the order of the select clauses.
const FIELDS: [&str; 3] = ["SourceName", "Message", "Severity"];

fn item(handle: u32, where_clause: ContentFilter) -> Item {
    let select = |field: &str| SimpleAttributeOperand {
        type_definition_id: ObjectTypeId::BaseEventType.into(),
        browse_path: Some(vec![field.into()]),
        attribute_id: AttributeId::Value as u32,
        ..Default::default()
    };
    let filter = EventFilter { select_clauses: Some(FIELDS.map(select).to_vec()), where_clause };
    Item {
        handle,
        node: ObjectId::Server.into(),
        attribute: AttributeId::EventNotifier,
        sampling_interval: 0.0,
        queue_size: QUEUE,
        filter: ExtensionObject::from_message(filter),
    }
}

fn of_type(event_type: NodeId) -> ContentFilter {
    let operand = LiteralOperand { value: Variant::from(event_type) };
    let element = ContentFilterElement {
        filter_operator: FilterOperator::OfType,
        filter_operands: Some(vec![ExtensionObject::from_message(operand)]),
    };
    ContentFilter { elements: Some(vec![element]) }
}

/// Passes events on, not more than so many a second.
struct Passing {
    hub: Hub,
    source: Arc<str>,
    since: Instant,
    count: u32,
}

impl Passing {
    fn pass(&mut self, event: &EventFieldList) {
        if self.since.elapsed() >= SECOND {
            let left_out = self.count.saturating_sub(MOST);
            if left_out > 0 {
                let message = format!("{left_out} further events of {} were left out", self.source);
                self.hub.raise(EventKind::SourceEvent { severity: 500 }, self.source.clone(), message);
            }
            (self.since, self.count) = (Instant::now(), 0);
        }
        self.count = self.count.saturating_add(1);
        if self.count <= MOST {
            let (message, severity) = told(event.event_fields.as_deref().unwrap_or_default());
            self.hub.raise(EventKind::SourceEvent { severity }, self.source.clone(), message);
        }
    }
}

/// The message with the name of what it is about, and the severity.
fn told(fields: &[Variant]) -> (String, u16) {
    let text = |at: usize| match fields.get(at) {
        Some(Variant::String(text)) => text.to_string(),
        Some(Variant::LocalizedText(text)) => text.text.to_string(),
        _ => String::new(),
    };
    let message: String = match (text(0), text(1)) {
        (source, message) if source.is_empty() => message,
        (source, message) => format!("{source}: {message}"),
    };
    let severity = match fields.get(2) {
        Some(Variant::UInt16(severity)) => (*severity).clamp(1, 1000),
        _ => 1,
    };
    (message.chars().take(LONGEST).collect(), severity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::model::Happening;
    use ::opcua::types::LocalizedText;

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_cut_and_counted() {
        let hub = Hub::new(Clock::real());
        let mut passing = Passing { hub: hub.clone(), source: "plc".into(), since: Instant::now(), count: 0 };
        let fields = vec![Variant::from("Motor"), Variant::from(LocalizedText::from("hot")), Variant::UInt16(700)];
        let event = EventFieldList { client_handle: ALL, event_fields: Some(fields) };
        (0..MOST + 7).for_each(|_| passing.pass(&event));
        assert_eq!(hub.recent().len(), MOST as usize);
        tokio::time::advance(SECOND).await;
        passing.pass(&EventFieldList { client_handle: ALL, event_fields: None });
        let recent = hub.recent();
        let Happening::Event(first) = &recent[0] else { panic!() };
        assert_eq!((first.message.as_str(), first.kind.severity(), &*first.source), ("Motor: hot", 700, "plc"));
        let Happening::Event(cut) = &recent[MOST as usize] else { panic!() };
        assert!(cut.message.starts_with("7 further events"), "{}", cut.message);
    }
}
