//! Whatever others say in NCMD, DCMD, STATE and births: it is read in bounded memory and without a panic, as whatever tag or host
//! it is for, and what was read can be written and read again.
//!
//! The modules are compiled in alone: the whole program would take minutes to build and is no part of what is tried.

#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{DataType, Value};
use sparkplug::proto::payload::Metric;

#[allow(dead_code, unused_imports, reason = "most of it is for others")]
#[path = "../../src/model/mod.rs"]
mod model;

#[allow(dead_code, unused_imports, reason = "a part of it is for others")]
#[path = "../../src/mqtt/sparkplug/mod.rs"]
mod sparkplug;

/// Fields of one payload.
const PARTS: usize = 1000;

fn try_metric(metric: &Metric) {
    for &data_type in DataType::ALL {
        for is_array in [false, true] {
            let Ok(value) = sparkplug::codec::decode(metric, data_type, is_array) else { continue };
            assert!(value == Value::Empty || value.data_type() == Some(data_type));
            assert_eq!(value.is_array(), is_array);
            let Some(wire) = sparkplug::codec::encode(&value) else { continue };
            let again = Metric {
                datatype: Some(sparkplug::codec::metric_type(data_type, is_array) as u32),
                value: Some(wire.clone()),
                ..Metric::default()
            };
            let read = sparkplug::codec::decode(&again, data_type, is_array).expect("what was written is read");
            // On the wire, because a time at the end of its range has no whole milliseconds; as text, because a NaN is not
            // itself.
            assert_eq!(format!("{:?}", sparkplug::codec::encode(&read)), format!("{:?}", Some(wire)));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = sparkplug::HostState::read(bytes);
    if let Some(topic) = std::str::from_utf8(bytes).ok().and_then(sparkplug::Topic::parse) {
        let text = topic.to_string();
        assert_eq!((text.as_bytes(), sparkplug::Topic::parse(&text)), (bytes, Some(topic)));
    }
    if let Ok(payload) = sparkplug::read(bytes, PARTS) {
        payload.metrics.iter().take(16).for_each(try_metric);
    }
});
