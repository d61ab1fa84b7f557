//! The filter of a monitored item: which one fits which value.
//!
//! The UA crate (0.19) parses filters into a type that it does not export, so nobody outside can look into one by its
//! parts. What it does export is how one prints, and that is read here; the crate's version is pinned, and the tests
//! below print filters of the crate itself.

use ::opcua::server::{CreateMonitoredItem, MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::{StatusCode, TimestampsToReturn, Variant};
use std::fmt::{self, Debug, Write};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deadband {
    None,
    /// Of the EURange; of a picture's difference. 0 to 100.
    Percent(f64),
    /// For numbers only (OPC 10000-4, 7.22.2).
    Absolute(f64),
}

impl Deadband {
    pub fn percent(self) -> Option<f64> {
        match self {
            Deadband::Percent(percent) => Some(percent),
            Deadband::None | Deadband::Absolute(_) => None,
        }
    }
}

/// What the crate does not look at when an item on a Value is created: whether the filter is for data at all, a deadband for
/// numbers, and itself a number (it compares with 0 and 100, which is true of NaN in no case).
pub fn check(item: &CreateMonitoredItem, is_number: bool) -> Result<(), StatusCode> {
    if item.timestamps_to_return() == TimestampsToReturn::Invalid {
        return Err(StatusCode::BadTimestampsToReturnInvalid);
    }
    if printed(item.filter()).starts_with("EventFilter") {
        return Err(StatusCode::BadFilterNotAllowed);
    }
    match deadband(item.filter()) {
        Deadband::None => Ok(()),
        Deadband::Percent(size) | Deadband::Absolute(size) if !size.is_finite() => {
            Err(StatusCode::BadDeadbandFilterInvalid)
        }
        Deadband::Percent(_) | Deadband::Absolute(_) if !is_number => Err(StatusCode::BadFilterNotAllowed),
        Deadband::Percent(_) | Deadband::Absolute(_) => Ok(()),
    }
}

/// Also an array of numbers.
pub fn is_number(value: &Variant) -> bool {
    use ::opcua::types::VariantScalarTypeId as Type;
    let data_type = match value {
        Variant::Array(array) => Some(array.value_type),
        Variant::Empty => None,
        scalar => scalar.scalar_type_id(),
    };
    data_type.is_some_and(|data_type| (Type::SByte as u32..=Type::Double as u32).contains(&(data_type as u32)))
}

/// Whether a client gave no filter at all.
pub fn is_none(filter: &impl Debug) -> bool {
    printed(filter) == "None"
}

/// Of anything of the crate's that has a filter and prints it before its values.
pub fn deadband(filtered: &impl Debug) -> Deadband {
    let text = printed(filtered);
    if let Some((_, size)) = text.split_once("deadband: Absolute(") {
        let size = size.split(')').next().and_then(|size| size.parse().ok());
        return Deadband::Absolute(size.unwrap_or(f64::NAN));
    }
    let trigger = text.split_once("deadband: Percent(").and_then(|(_, percent)| percent.split_once("trigger: "));
    let fraction = trigger.and_then(|(_, value)| value.split([' ', ',', '}']).next()?.parse::<f64>().ok());
    // Taken from a percentage by the crate, so given back without what dividing left.
    fraction.map_or(Deadband::None, |fraction| Deadband::Percent((fraction * 1e14).round() / 1e12))
}

fn printed(filtered: &impl Debug) -> String {
    let mut printed = Beginning::default();
    // The only error is that of the limit, and the filter is printed by then.
    let _ = write!(printed, "{filtered:?}");
    printed.0
}

/// Of an item that exists, in the session that it was created in.
pub fn deadband_of_item(subscriptions: &SubscriptionCache, session: u32, handle: MonitoredItemHandle) -> Deadband {
    let Some(session) = subscriptions.get_session_subscriptions(session) else { return Deadband::None };
    let session = session.lock();
    let item = session.get(handle.subscription_id).and_then(|sub| sub.get(&handle.monitored_item_id));
    item.map_or(Deadband::None, deadband)
}

/// The first characters only: an item also prints its values, which for a picture is megabytes.
#[derive(Default)]
struct Beginning(String);

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const ENOUGH: usize = 4096;
        if self.0.len() + text.len() > ENOUGH {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::opcua::types::{DataChangeFilter, DataChangeTrigger, DeadbandType, ParsedDataChangeFilter};

    fn parsed(deadband_type: DeadbandType, deadband_value: f64) -> ParsedDataChangeFilter {
        let trigger = DataChangeTrigger::StatusValue;
        let filter = DataChangeFilter { trigger, deadband_type: deadband_type as u32, deadband_value };
        ParsedDataChangeFilter::parse(filter, Some((0.0, 100.0))).unwrap()
    }

    #[test]
    fn a_filter_of_the_crate_is_read_as_it_prints() {
        assert_eq!(deadband(&parsed(DeadbandType::None, 0.0)), Deadband::None);
        assert_eq!(deadband(&parsed(DeadbandType::Absolute, 3.0)), Deadband::Absolute(3.0));
        assert!(
            matches!(deadband(&parsed(DeadbandType::Absolute, f64::NAN)), Deadband::Absolute(size) if size.is_nan())
        );
        assert!(matches!(deadband(&parsed(DeadbandType::Percent, f64::NAN)), Deadband::Percent(size) if size.is_nan()));
        for percent in [0.0, 0.1, 0.7, 5.0, 14.000001, 30.0, 99.9, 100.0, 1e-9] {
            assert_eq!(deadband(&parsed(DeadbandType::Percent, percent)), Deadband::Percent(percent));
        }
    }

    #[test]
    fn what_is_printed_behind_the_filter_does_not_matter() {
        assert_eq!(deadband(&(parsed(DeadbandType::Percent, 5.0), vec![7u8; 1 << 20])), Deadband::Percent(5.0));
        assert_eq!(deadband(&()), Deadband::None);
    }
}
