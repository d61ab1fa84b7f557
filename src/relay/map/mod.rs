//! What DA's words mean in OPC UA: OPC 10000-8 Annex A, and what it leaves open. Without I/O, and without COM.
//!
//! - `quality.rs`: QQSSSSLL to StatusCode; `time.rs`: FILETIME to SourceTimestamp.
//! - `value.rs`: VARIANT to Variant and back; `hresult.rs`: HRESULT to StatusCode, and to words.
//! - `property.rs`: item properties to types of variables and to their property nodes.

mod hresult;
mod property;
mod quality;
mod time;
mod value;

use crate::relay::protocol::{DaValue, Hresult, Reading};
use ::opcua::types::{DataValue, DateTime, StatusCode, Variant};
pub use hresult::{status_of_failure, status_of_hresult};
pub use property::{Access, Description, FOLDER_TYPE, Key, Kind, OF_TYPE, PROPERTY_TYPE, PropertyNode, describe};
pub use quality::{status_of_quality, vendor_bits};
pub use time::{Times, date_time};
pub use value::{da_value, data_type, variant};

/// What a DA server says of an item, as UA clients get it. A bad value is null: what DA sends with it is the last one that
/// was good, or nothing at all.
pub fn data_value(reading: &Result<Reading, Hresult>, times: &Times, now: DateTime) -> DataValue {
    match reading {
        Ok(reading) => {
            let status = match (&reading.value, status_of_quality(reading.quality)) {
                (_, status) if status.is_bad() => status,
                (DaValue::Unsupported(_), _) => StatusCode::BadNotSupported,
                (DaValue::Empty | DaValue::Null, _) => StatusCode::Bad,
                (_, status) => status,
            };
            let value = if status.is_bad() { Variant::Empty } else { variant(&reading.value) };
            let time = times.source_time(reading.time, now);
            DataValue { source_timestamp: Some(time), server_timestamp: Some(now), ..plain(value, status) }
        }
        Err(hresult) => match status_of_failure(*hresult) {
            // Of what is read, the right that is missing is that to read it.
            StatusCode::BadNotWritable => bad(StatusCode::BadNotReadable, now),
            status => bad(status, now),
        },
    }
}

/// There is no value; the DA server has nothing to do with it, so there is no time of its own.
pub fn bad(status: StatusCode, now: DateTime) -> DataValue {
    DataValue { server_timestamp: Some(now), ..plain(Variant::Empty, status) }
}

/// Good is what no status means, and need not be sent.
fn plain(value: Variant, status: StatusCode) -> DataValue {
    let status = (status != StatusCode::Good).then_some(status);
    DataValue { value: Some(value), status, ..DataValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_is_null_and_an_empty_one_is_bad() {
        let (times, now) = (Times::new("test", 0), DateTime::ymd(2026, 5, 5));
        let of = |value, quality| data_value(&Ok(Reading { value, quality, time: now.ticks() as u64 }), &times, now);
        let good = of(DaValue::I4(5), 0xC0);
        assert_eq!((good.value, good.status), (Some(Variant::from(5)), None));
        assert_eq!((good.source_timestamp, good.server_timestamp), (Some(now), Some(now)));
        let failed = of(DaValue::I4(5), 0x0C);
        assert_eq!((failed.value, failed.status), (Some(Variant::Empty), Some(StatusCode::BadDeviceFailure)));
        assert_eq!(of(DaValue::Empty, 0xC0).status, Some(StatusCode::Bad));
        assert_eq!(of(DaValue::Unsupported(9), 0xC0).status, Some(StatusCode::BadNotSupported));
        assert_eq!(of(DaValue::Empty, 0x20).status, Some(StatusCode::BadWaitingForInitialData));
        let unknown = data_value(&Err(0xC004_0007_u32 as i32), &times, now);
        assert_eq!((unknown.value, unknown.status), (Some(Variant::Empty), Some(StatusCode::BadNodeIdUnknown)));
    }
}
