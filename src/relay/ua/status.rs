//! What there is to read of a DA server itself, as variables of its folder.

use crate::relay::map;
use crate::relay::worker::{Phase, State};
use ::opcua::types::{DataTypeId, DataValue, DateTime, LocalizedText, StatusCode, Variant};

pub(super) struct StatusVariable {
    pub(super) name: &'static str,
    pub(super) data_type: DataTypeId,
    value: fn(&State) -> Option<Variant>,
}

/// Their places are their NodeIds: new ones come last.
pub(super) const STATUS: [StatusVariable; 14] = [
    StatusVariable {
        name: "Connected",
        data_type: DataTypeId::Boolean,
        value: |state| Some((state.phase == Phase::Running).into()),
    },
    // running, failed, noconfig, suspended, test, commfault; or what keeps it from saying so.
    StatusVariable { name: "State", data_type: DataTypeId::String, value: |state| Some(state_name(state).into()) },
    StatusVariable {
        name: "Vendor",
        data_type: DataTypeId::String,
        value: |state| Some(state.status.as_ref()?.vendor.as_str().into()),
    },
    StatusVariable {
        name: "Version",
        data_type: DataTypeId::String,
        value: |state| {
            let (major, minor, build) = state.status.as_ref()?.version;
            Some(format!("{major}.{minor}.{build}").into())
        },
    },
    StatusVariable {
        name: "StartTime",
        data_type: DataTypeId::DateTime,
        value: |state| Some(map::date_time(state.status.as_ref()?.start).into()),
    },
    StatusVariable {
        name: "CurrentTime",
        data_type: DataTypeId::DateTime,
        value: |state| Some(map::date_time(state.status.as_ref()?.current).into()),
    },
    StatusVariable {
        name: "LastUpdateTime",
        data_type: DataTypeId::DateTime,
        value: |state| Some(map::date_time(state.status.as_ref()?.last_update).into()),
    },
    StatusVariable {
        name: "Groups",
        data_type: DataTypeId::UInt32,
        value: |state| Some(state.status.as_ref()?.groups.into()),
    },
    StatusVariable {
        name: "Bandwidth",
        data_type: DataTypeId::UInt32,
        value: |state| Some(state.status.as_ref()?.bandwidth.into()),
    },
    StatusVariable { name: "Reconnects", data_type: DataTypeId::UInt32, value: |state| Some(state.reconnects.into()) },
    StatusVariable {
        name: "LastError",
        data_type: DataTypeId::String,
        value: |state| Some(state.last_error.as_str().into()),
    },
    StatusVariable {
        name: "ProgId",
        data_type: DataTypeId::String,
        value: |state| Some(state.capabilities.prog_id.as_str().into()),
    },
    StatusVariable {
        name: "Clsid",
        data_type: DataTypeId::String,
        value: |state| Some(state.capabilities.clsid.as_str().into()),
    },
    StatusVariable { name: "Interfaces", data_type: DataTypeId::LocalizedText, value: |state| Some(interfaces(state)) },
];

fn state_name(state: &State) -> &'static str {
    match (state.phase, state.status.as_ref().map(|status| status.state)) {
        (Phase::Running, Some(1)) => "running",
        (Phase::Running, Some(2)) => "failed",
        (Phase::Running, Some(3)) => "noconfig",
        (Phase::Running, Some(4)) => "suspended",
        (Phase::Running, Some(5)) => "test",
        (Phase::Running, Some(6)) => "commfault",
        (phase, _) => phase.name(),
    }
}

fn interfaces(state: &State) -> Variant {
    let has = &state.capabilities;
    let all = [
        (has.browse3, "IOPCBrowse"),
        (has.browse2, "IOPCBrowseServerAddressSpace"),
        (has.properties, "IOPCItemProperties"),
        (has.item_io, "IOPCItemIO"),
        (has.wide, "64 bit"),
    ];
    let names: Vec<&str> = all.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    LocalizedText::from(names.join(", ")).into()
}

/// The value now. What the DA server has never said is not known.
pub(super) fn value(index: usize, state: &State) -> DataValue {
    let now = DateTime::now();
    match STATUS.get(index).and_then(|variable| (variable.value)(state)) {
        Some(value) => DataValue {
            value: Some(value),
            status: Some(StatusCode::Good),
            source_timestamp: Some(now),
            server_timestamp: Some(now),
            ..DataValue::default()
        },
        None => map::bad(StatusCode::BadWaitingForInitialData, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::protocol::ServerStatus;

    fn of(name: &str, state: &State) -> Option<Variant> {
        let index = STATUS.iter().position(|variable| variable.name == name).unwrap();
        value(index, state).value.filter(|value| *value != Variant::Empty)
    }

    #[test]
    fn what_was_said_stays_when_the_server_is_gone() {
        let mut state = State::default();
        assert_eq!((of("State", &state), of("Vendor", &state)), (Some("down".into()), None));
        let status = ServerStatus { state: 3, vendor: "Maker".into(), version: (2, 1, 7), ..ServerStatus::default() };
        (state.phase, state.status) = (Phase::Running, Some(status));
        assert_eq!(of("State", &state), Some("noconfig".into()));
        assert_eq!(of("Version", &state), Some("2.1.7".into()));
        state.phase = Phase::Frozen;
        assert_eq!((of("State", &state), of("Vendor", &state)), (Some("frozen".into()), Some("Maker".into())));
        assert_eq!(of("Connected", &state), Some(false.into()));
    }
}
