//! What a host says to nodes and devices: NCMD and DCMD (Sparkplug 3.0, 6.4.21 and 6.4.22), QoS 0, not retained.

use crate::model::{Timestamp, Value};
use crate::mqtt::line::{Message, QoS};
use crate::mqtt::sparkplug::codec;
use crate::mqtt::sparkplug::proto::payload::{Metric, metric};
use crate::mqtt::sparkplug::proto::{DataType as Type, Payload};
use prost::Message as _;

pub(super) const REBIRTH: &str = "Node Control/Rebirth";

/// Everything anew.
pub(super) fn rebirth(group: &str, node: &str, now: Timestamp) -> Message {
    command(group, node, None, vec![(REBIRTH.into(), Type::Boolean, Value::Boolean(true))], now)
}

/// A small negative number in as many bits as its type has. Whoever reads it sign-extended understands it as well, and some
/// libraries nothing else.
fn narrow(value: metric::Value, kind: Type) -> metric::Value {
    match (value, kind) {
        (metric::Value::IntValue(v), Type::Int8) => metric::Value::IntValue(v & 0xFF),
        (metric::Value::IntValue(v), Type::Int16) => metric::Value::IntValue(v & 0xFFFF),
        (value, _) => value,
    }
}

/// To a node, or to a device of it. Each metric with its type, because not every node looks it up.
pub(super) fn command(
    group: &str,
    node: &str,
    device: Option<&str>,
    metrics: Vec<(String, Type, Value)>,
    now: Timestamp,
) -> Message {
    let time = u64::try_from(now.millis()).ok();
    let metrics = metrics.into_iter().map(|(name, kind, value)| {
        let value = codec::encode(&value).map(|value| narrow(value, kind));
        let is_null = value.is_none().then_some(true);
        Metric { name: Some(name), timestamp: time, datatype: Some(kind as u32), is_null, value, ..Metric::default() }
    });
    let payload = Payload { timestamp: time, metrics: metrics.collect(), ..Payload::default() };
    let topic = match device {
        None => format!("spBv1.0/{group}/NCMD/{node}"),
        Some(device) => format!("spBv1.0/{group}/DCMD/{node}/{device}"),
    };
    Message { topic, payload: payload.encode_to_vec().into(), qos: QoS::AtMostOnce, ..Message::default() }
}
