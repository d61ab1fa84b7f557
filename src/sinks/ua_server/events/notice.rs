//! An event with all its fields, as an event filter selects them (OPC 10000-4, 7.22.3).

use super::nodes::{condition_id, notifiers, source_node};
use super::{comparisons, kinds};
use crate::model::{
    Condition, ConditionKind, Event as Raised, EventId, EventKind, Happening, Level, LimitState, Role, Timestamp,
};
use crate::opcua::date_time;
use crate::sinks::ua_server::access::{Access, Action};
use ::opcua::nodes::Event;
use ::opcua::server::EventField;
use ::opcua::types::{
    AttributeId, ByteString, DateTime, LocalizedText, NodeId, NumericRange, ObjectId, ObjectTypeId, QualifiedName,
    StatusCode, UAString, Variant,
};

/// A field: its path below the event's type, all of it in the namespace of the standard.
pub(super) type Field = (&'static str, Variant);

#[derive(Debug)]
pub(super) struct Notice {
    /// Its type and all above it, its own first.
    types: Vec<NodeId>,
    time: DateTime,
    fields: Vec<Field>,
    /// The instance of the condition that changed.
    condition: Option<NodeId>,
    /// On which nodes it can be monitored. `None`: it is about the queue, or the refresh, and for everybody who gets it.
    notifiers: Option<Vec<NodeId>>,
    /// From which role on it is told, if its source may be read.
    role: Role,
}

/// Who was refused, and why, is for those who could let them in.
fn least_role(happening: &Happening) -> Role {
    match happening {
        Happening::Event(event) if matches!(event.kind, EventKind::LoginRefused | EventKind::ClientRefused) => {
            Role::Admin
        }
        _ => Role::Viewer,
    }
}

/// Whether every viewer may hear of it.
pub(super) fn is_for_viewers(happening: &Happening, access: &Access, namespace: u16) -> bool {
    let source = match happening {
        Happening::Event(event) => &event.source,
        Happening::Condition(condition) => &condition.source,
    };
    least_role(happening) == Role::Viewer
        && access.role_may(Role::Viewer, Action::Read, &source_node(source, namespace))
}

impl Notice {
    pub(super) fn of(happening: &Happening, namespace: u16) -> Self {
        let notice = match happening {
            Happening::Event(event) => Self::of_event(event, namespace),
            Happening::Condition(condition) => Self::of_condition(condition, namespace),
        };
        Self { role: least_role(happening), ..notice }
    }

    fn of_event(event: &Raised, namespace: u16) -> Self {
        let types = kinds::types_of_event(event.kind, namespace);
        let source = Source { node: source_node(&event.source, namespace), name: source_name(&event.source) };
        let fields = base(&types[0], event.id, source, event.time, &event.message, event.kind.severity());
        let notifiers = Some(notifiers(&event.source, namespace));
        Self { types, time: date_time(event.time), fields, condition: None, notifiers, role: Role::Viewer }
    }

    fn of_condition(condition: &Condition, namespace: u16) -> Self {
        Self {
            types: kinds::types_of_condition(condition.kind),
            time: date_time(condition.time),
            fields: condition_fields(condition, namespace),
            condition: Some(condition_id(condition, namespace)),
            notifiers: Some(notifiers(&condition.source, namespace)),
            role: Role::Viewer,
        }
    }

    /// Some events were lost (OPC 10000-4, 7.22.3: EventQueueOverflowEventType).
    pub(super) fn overflow(now: Timestamp) -> Self {
        Self::of_server(
            ObjectTypeId::EventQueueOverflowEventType,
            now,
            "Some events did not fit the queue and are lost",
        )
    }

    pub(super) fn refresh_start(now: Timestamp) -> Self {
        Self::of_server(ObjectTypeId::RefreshStartEventType, now, "The conditions as they are now follow")
    }

    pub(super) fn refresh_end(now: Timestamp) -> Self {
        Self::of_server(ObjectTypeId::RefreshEndEventType, now, "These were the conditions as they are now")
    }

    fn of_server(kind: ObjectTypeId, now: Timestamp, message: &str) -> Self {
        let mut types = vec![kind.into(), ObjectTypeId::BaseEventType.into()];
        if kind != ObjectTypeId::EventQueueOverflowEventType {
            types.insert(1, ObjectTypeId::SystemEventType.into());
        }
        let source = Source { node: ::opcua::types::ObjectId::Server.into(), name: "Server" };
        // Not one of the hub's, so with an id that none of those has.
        let id = EventId { start: now, number: u64::from(fastrand::u32(..)) << 32 };
        let fields = base(&types[0], id, source, now, message, 100);
        Self { types, time: date_time(now), fields, condition: None, notifiers: None, role: Role::Viewer }
    }

    /// The node that it is about; `None` if it is about the queue, or the refresh.
    fn about(&self) -> Option<&NodeId> {
        let node = self.fields.iter().find_map(|(name, value)| match value {
            Variant::NodeId(node) if *name == "SourceNode" => Some(&**node),
            _ => None,
        });
        node.filter(|_| self.notifiers.is_some())
    }

    /// Of what one may not read one does not hear, on whatever node one listens. `None` is who is nobody any more.
    pub(super) fn is_allowed(&self, access: &Access, role: Option<Role>) -> bool {
        match (role, self.about()) {
            (_, None) => true,
            (Some(role), Some(node)) => role >= self.role && access.role_may(role, Action::Read, node),
            (None, Some(_)) => false,
        }
    }

    /// Whether an item on this node is to get it.
    pub(super) fn is_for(&self, node: &NodeId) -> bool {
        self.notifiers.as_ref().is_none_or(|notifiers| notifiers.contains(node))
    }

    fn field(&self, path: &[QualifiedName]) -> Option<&Variant> {
        let is_path = |name: &&Field| {
            path.iter().all(|segment| segment.namespace_index == 0)
                && name.0.split('/').eq(path.iter().map(|segment| segment.name.as_ref()))
        };
        self.fields.iter().find(is_path).map(|(_, value)| value)
    }
}

impl Event for Notice {
    fn get_field(
        &self,
        type_definition_id: &NodeId,
        attribute_id: AttributeId,
        index_range: &NumericRange,
        browse_path: &[QualifiedName],
    ) -> Variant {
        // Of BaseEventType the path is taken without regard to the type (OPC 10000-4, 7.4.4.5); so for no type at all.
        if let Some(value) = comparisons::value(browse_path, self, self.notifiers.is_none()) {
            return value;
        }
        if !type_definition_id.is_null() && !self.types.contains(type_definition_id) {
            return Variant::Empty;
        }
        self.get_value(attribute_id, index_range, browse_path)
    }

    fn time(&self) -> &DateTime {
        &self.time
    }

    fn event_type_id(&self) -> &NodeId {
        &self.types[0]
    }
}

impl EventField for Notice {
    fn get_value(&self, attribute_id: AttributeId, index_range: &NumericRange, path: &[QualifiedName]) -> Variant {
        match attribute_id {
            // The ConditionId (OPC 10000-9, 5.5.2).
            AttributeId::NodeId if path.is_empty() => self.condition.clone().map_or(Variant::Empty, Variant::from),
            AttributeId::Value => {
                let value = self.field(path).cloned().unwrap_or_default();
                if *index_range == NumericRange::None { value } else { value.range_of(index_range).unwrap_or_default() }
            }
            _ => Variant::Empty,
        }
    }
}

struct Source<'a> {
    node: NodeId,
    name: &'a str,
}

/// A camera and a tag by their names, all else as it is.
fn source_name(source: &str) -> &str {
    source.strip_prefix("cameras/").or_else(|| source.strip_prefix("tags/")).unwrap_or(source)
}

/// OPC 10000-5, 6.4.2.
fn base(kind: &NodeId, id: EventId, source: Source<'_>, time: Timestamp, message: &str, severity: u16) -> Vec<Field> {
    vec![
        ("EventId", Variant::ByteString(ByteString::from(id.bytes().to_vec()))),
        ("EventType", kind.clone().into()),
        ("SourceNode", source.node.into()),
        ("SourceName", UAString::from(source.name).into()),
        ("Time", date_time(time).into()),
        ("ReceiveTime", date_time(time).into()),
        ("Message", text(message)),
        ("Severity", severity.into()),
    ]
}

fn text(text: &str) -> Variant {
    LocalizedText::new("en", text).into()
}

/// All fields of a condition's event, which are the variables of its instance as well (OPC 10000-9, 5.5.2, 5.7.2, 5.8.2).
pub(super) fn condition_fields(condition: &Condition, namespace: u16) -> Vec<Field> {
    let source = Source { node: source_node(&condition.source, namespace), name: source_name(&condition.source) };
    let kind = NodeId::from(kinds::condition_type(condition.kind));
    let severity = condition.severity;
    let mut fields = base(&kind, condition.id, source, condition.time, &condition.message, severity);
    let state = |is: bool, yes: &str, no: &str| text(if is { yes } else { no });
    let time = |time| Variant::from(date_time(time));
    let Condition { is_enabled, is_acked, is_active, .. } = *condition;
    let (class, class_name) = match condition.kind {
        ConditionKind::Limit => (ObjectTypeId::ProcessConditionClassType, "ProcessConditionClass"),
        _ => (ObjectTypeId::SystemConditionClassType, "SystemConditionClass"),
    };
    fields.extend([
        ("ConditionClassId", NodeId::from(class).into()),
        ("ConditionClassName", text(class_name)),
        ("ConditionName", UAString::from(condition.kind.name()).into()),
        ("BranchId", NodeId::null().into()),
        ("Retain", condition.is_retained().into()),
        ("EnabledState", state(is_enabled, "Enabled", "Disabled")),
        ("EnabledState/Id", is_enabled.into()),
        ("Quality", StatusCode::Good.into()),
        ("Quality/SourceTimestamp", time(condition.time)),
        // It is the same whenever the condition is active, so it was so before.
        ("LastSeverity", severity.into()),
        ("LastSeverity/SourceTimestamp", time(condition.since)),
        ("Comment", text(&condition.comment)),
        ("Comment/SourceTimestamp", time(condition.commented_at)),
        ("ClientUserId", UAString::from(condition.user.as_str()).into()),
        ("AckedState", state(is_acked, "Acknowledged", "Unacknowledged")),
        ("AckedState/Id", is_acked.into()),
        ("AckedState/TransitionTime", time(condition.acked_at)),
        ("ActiveState", state(is_active, "Active", "Inactive")),
        ("ActiveState/Id", is_active.into()),
        ("ActiveState/TransitionTime", time(condition.since)),
        ("InputNode", input_node(condition, namespace).into()),
        ("SuppressedOrShelved", false.into()),
    ]);
    match &condition.limit {
        Some(limit) => fields.extend(limit_fields(limit)),
        // There is no variable that has the normal value.
        None => fields.push(("NormalState", NodeId::null().into())),
    }
    fields
}

/// OPC 10000-9, 5.8.11 and 5.8.12. A limit that there is not has no field.
fn limit_fields(limit: &LimitState) -> Vec<Field> {
    let (name, id) = match limit.level {
        Some(Level::HighHigh) => ("HighHigh", ObjectId::ExclusiveLimitStateMachineType_HighHigh.into()),
        Some(Level::High) => ("High", ObjectId::ExclusiveLimitStateMachineType_High.into()),
        Some(Level::Low) => ("Low", ObjectId::ExclusiveLimitStateMachineType_Low.into()),
        Some(Level::LowLow) => ("LowLow", ObjectId::ExclusiveLimitStateMachineType_LowLow.into()),
        None => ("", NodeId::null()),
    };
    let limits = limit.limits;
    let limits = [
        ("HighHighLimit", limits.high_high),
        ("HighLimit", limits.high),
        ("LowLimit", limits.low),
        ("LowLowLimit", limits.low_low),
    ];
    let state = [("LimitState/CurrentState", text(name)), ("LimitState/CurrentState/Id", id.into())];
    let limits = limits.into_iter().filter_map(|(name, value)| Some((name, value?.into())));
    state.into_iter().chain(limits).collect()
}

/// The variable that shows what the condition is about.
fn input_node(condition: &Condition, namespace: u16) -> NodeId {
    match condition.kind {
        ConditionKind::CameraLost => {
            NodeId::new(namespace, format!("Cameras/{}/State", source_name(&condition.source)))
        }
        ConditionKind::DiskNearlyFull => NodeId::new(namespace, "Tags/system/disk/available"),
        ConditionKind::Limit => source_node(&condition.source, namespace),
        ConditionKind::UplinkDown | ConditionKind::ClockNotSet => NodeId::null(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::hub::Hub;
    use crate::model::Limits;

    fn get(notice: &Notice, of: ObjectTypeId, path: &[&str]) -> Variant {
        let path: Vec<QualifiedName> = path.iter().map(|name| (*name).into()).collect();
        notice.get_field(&of.into(), AttributeId::Value, &NumericRange::None, &path)
    }

    fn last(hub: &Hub) -> Notice {
        Notice::of(hub.recent().last().unwrap(), 2)
    }

    #[test]
    fn who_was_refused_is_told_to_admins() {
        let hub = Hub::new(Clock::real());
        let role = |kind| {
            hub.raise(kind, "ua_server", "x");
            last(&hub).role
        };
        assert_eq!(role(EventKind::LoginRefused), Role::Admin);
        assert_eq!(role(EventKind::ClientRefused), Role::Admin);
        assert_eq!(role(EventKind::CertificateExpires), Role::Viewer);
    }

    #[test]
    fn an_event_has_the_fields_of_its_types_and_no_others() {
        let hub = Hub::new(Clock::real());
        hub.raise(EventKind::CameraNoSignal, "cameras/line1", "dark");
        let notice = last(&hub);
        let severity = Variant::from(700_u16);
        assert_eq!(get(&notice, ObjectTypeId::BaseEventType, &["Severity"]), severity);
        assert_eq!(get(&notice, ObjectTypeId::DeviceFailureEventType, &["Severity"]), severity);
        assert_eq!(get(&notice, ObjectTypeId::ConditionType, &["Severity"]), Variant::Empty);
        assert_eq!(get(&notice, ObjectTypeId::BaseEventType, &["Retain"]), Variant::Empty);
        assert_eq!(get(&notice, ObjectTypeId::BaseEventType, &["SourceName"]), "line1".into());
        let id = notice.get_field(&NodeId::null(), AttributeId::NodeId, &NumericRange::None, &[]);
        assert_eq!(id, Variant::Empty, "it is no condition");
    }

    #[test]
    fn it_is_for_the_notifiers_above_its_source() {
        let hub = Hub::new(Clock::real());
        let (server, line1, device) =
            (ObjectId::Server.into(), NodeId::new(2, "Cameras/line1"), NodeId::new(2, "Device"));
        hub.raise(EventKind::CameraNoSignal, "cameras/line1", "dark");
        let of = |nodes: [&NodeId; 4]| nodes.map(|node| last(&hub).is_for(node));
        let nodes = [&server, &line1, &NodeId::new(2, "Cameras"), &device];
        assert_eq!(of(nodes), [true, true, true, false]);
        hub.raise(EventKind::UplinkLost, "mqtt", "gone");
        assert_eq!(of(nodes), [true, false, false, true]);
    }

    #[test]
    fn a_limit_is_about_its_tag_and_says_which_limit_it_is() {
        let hub = Hub::new(Clock::real());
        let limits = Limits { high: Some(5.0), ..Limits::default() };
        hub.declare_limit("tags/calc/power", limits, 300);
        hub.set_limit("tags/calc/power", Some((Level::High, "too much")));
        let notice = last(&hub);
        let (limit, base) = (ObjectTypeId::LimitAlarmType, ObjectTypeId::BaseEventType);
        let power = NodeId::new(2, "Tags/calc/power");
        assert_eq!(get(&notice, base, &["SourceNode"]), power.clone().into());
        assert_eq!(get(&notice, base, &["SourceName"]), "calc/power".into());
        assert_eq!(get(&notice, base, &["Severity"]), Variant::from(300_u16));
        assert_eq!(get(&notice, limit, &["HighLimit"]), 5.0.into());
        assert_eq!(get(&notice, limit, &["LowLimit"]), Variant::Empty);
        let high = NodeId::from(ObjectId::ExclusiveLimitStateMachineType_High);
        assert_eq!(
            get(&notice, ObjectTypeId::ExclusiveLimitAlarmType, &["LimitState", "CurrentState", "Id"]),
            high.into()
        );
        assert_eq!(get(&notice, ObjectTypeId::OffNormalAlarmType, &["Retain"]), Variant::Empty, "it is none");
        assert!(notice.is_for(&NodeId::new(2, "Device")) && !notice.is_for(&power), "a variable is no notifier");
    }

    #[test]
    fn a_condition_has_its_states_and_its_id() {
        let hub = Hub::new(Clock::real());
        hub.set_condition(ConditionKind::CameraLost, "cameras/line1", Some("unplugged"));
        let notice = last(&hub);
        let alarm = ObjectTypeId::AlarmConditionType;
        assert_eq!(get(&notice, alarm, &["ActiveState", "Id"]), true.into());
        assert_eq!(get(&notice, alarm, &["AckedState", "Id"]), false.into());
        assert_eq!(get(&notice, ObjectTypeId::SystemOffNormalAlarmType, &["Retain"]), Variant::Empty, "it is none");
        let condition = ObjectTypeId::ConditionType.into();
        let id = notice.get_field(&condition, AttributeId::NodeId, &NumericRange::None, &[]);
        assert_eq!(id, NodeId::new(2, "Cameras/line1/CameraLost").into());
    }
}
