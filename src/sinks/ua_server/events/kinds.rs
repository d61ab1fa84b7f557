//! Which event type each kind has: our own ones below those of the standard that fit, and the standard's alarms.

use crate::model::{ConditionKind, EventKind};
use ::opcua::types::{NodeId, ObjectTypeId};

/// All kinds of events, for their types.
pub(super) const EVENTS: [EventKind; 16] = [
    EventKind::CameraConnected,
    EventKind::CameraDisconnected,
    EventKind::CameraNoSignal,
    EventKind::SourceLost,
    EventKind::SourceBack,
    EventKind::UplinkLost,
    EventKind::UplinkBack,
    EventKind::ConfigurationApplied,
    EventKind::ConfigurationRefused,
    EventKind::LoginRefused,
    EventKind::ClientRefused,
    EventKind::CertificateExpires,
    EventKind::UpdateInstalled,
    EventKind::UpdateFailed,
    EventKind::CommandTaken,
    EventKind::SourceEvent { severity: 1 },
];

/// The name of the type, and what it means.
pub(super) fn name(kind: EventKind) -> (&'static str, &'static str) {
    match kind {
        EventKind::CameraConnected => ("CameraConnectedEventType", "A camera is there, for the first time or again"),
        EventKind::CameraDisconnected => {
            ("CameraDisconnectedEventType", "A camera does not deliver; the message says why")
        }
        EventKind::CameraNoSignal => ("CameraNoSignalEventType", "A camera is there and gets no signal"),
        EventKind::SourceLost => ("SourceLostEventType", "A source of tags has lost what it reads, or has ended"),
        EventKind::SourceBack => ("SourceBackEventType", "A source of tags that was lost works again"),
        EventKind::UplinkLost => ("UplinkLostEventType", "The connection upstream is lost"),
        EventKind::UplinkBack => ("UplinkBackEventType", "The connection upstream is back"),
        EventKind::ConfigurationApplied => ("ConfigurationAppliedEventType", "A configuration is in force"),
        EventKind::ConfigurationRefused => {
            ("ConfigurationRefusedEventType", "A configuration was refused; the last one stays")
        }
        EventKind::LoginRefused => ("LoginRefusedEventType", "A user was not let in"),
        EventKind::ClientRefused => ("ClientRefusedEventType", "A client application was not let in"),
        EventKind::CertificateExpires => {
            ("CertificateExpiresEventType", "The certificate of this server is about to expire")
        }
        EventKind::UpdateInstalled => ("UpdateInstalledEventType", "Another version of this software runs now"),
        EventKind::UpdateFailed => ("UpdateFailedEventType", "An update was not installed, or not found healthy"),
        EventKind::CommandTaken => ("CommandTakenEventType", "Somebody upstream told this device to do something"),
        EventKind::SourceEvent { .. } => {
            ("SourceEventType", "What a source collects from has told an event of its own")
        }
    }
}

/// The type of the standard that it is a subtype of (OPC 10000-5, 6.4.29 and 6.4.30). Refused logins are no audit events:
/// those have fields (SessionId, SecureChannelId, UserIdentityToken ...) that are not known here.
pub(super) fn parent(kind: EventKind) -> ObjectTypeId {
    match kind {
        EventKind::CameraDisconnected | EventKind::CameraNoSignal | EventKind::SourceLost | EventKind::UplinkLost => {
            ObjectTypeId::DeviceFailureEventType
        }
        _ => ObjectTypeId::SystemEventType,
    }
}

/// The type and all above it, the type first.
pub(super) fn types_of_event(kind: EventKind, namespace: u16) -> Vec<NodeId> {
    let mut types = vec![NodeId::new(namespace, name(kind).0)];
    if parent(kind) == ObjectTypeId::DeviceFailureEventType {
        types.push(ObjectTypeId::DeviceFailureEventType.into());
    }
    types.extend([ObjectTypeId::SystemEventType.into(), ObjectTypeId::BaseEventType.into()]);
    types
}

/// The type of a condition (OPC 10000-9, 5.8.15, 5.8.20 and 5.8.23).
pub(super) fn condition_type(kind: ConditionKind) -> ObjectTypeId {
    match kind {
        ConditionKind::CameraLost => ObjectTypeId::OffNormalAlarmType,
        ConditionKind::Limit => ObjectTypeId::ExclusiveLevelAlarmType,
        _ => ObjectTypeId::SystemOffNormalAlarmType,
    }
}

/// The type and all above it, the type first.
pub(super) fn types_of_condition(kind: ConditionKind) -> Vec<NodeId> {
    use ObjectTypeId as Type;
    let own: &[Type] = match condition_type(kind) {
        Type::ExclusiveLevelAlarmType => {
            &[Type::ExclusiveLevelAlarmType, Type::ExclusiveLimitAlarmType, Type::LimitAlarmType]
        }
        Type::OffNormalAlarmType => &[Type::OffNormalAlarmType, Type::DiscreteAlarmType],
        _ => &[Type::SystemOffNormalAlarmType, Type::OffNormalAlarmType, Type::DiscreteAlarmType],
    };
    let base = [Type::AlarmConditionType, Type::AcknowledgeableConditionType, Type::ConditionType, Type::BaseEventType];
    own.iter().copied().chain(base).map(NodeId::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_has_a_type_of_its_own_below_one_of_the_standard() {
        let names: BTreeSet<_> = EVENTS.iter().map(|kind| name(*kind).0).collect();
        assert_eq!(names.len(), EVENTS.len());
        let base = NodeId::from(ObjectTypeId::BaseEventType);
        for kind in EVENTS {
            let types = types_of_event(kind, 2);
            assert!(types[0].namespace == 2 && types[1] == parent(kind), "{kind:?}");
            assert_eq!(types.last(), Some(&base));
        }
        assert_eq!(types_of_condition(ConditionKind::CameraLost)[0], NodeId::from(ObjectTypeId::OffNormalAlarmType));
        assert_eq!(types_of_condition(ConditionKind::ClockNotSet).len(), 7);
        assert_eq!(types_of_condition(ConditionKind::Limit)[2], NodeId::from(ObjectTypeId::LimitAlarmType));
    }
}
