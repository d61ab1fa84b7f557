//! Sparkplug B's payloads, for the edge node that this device is and for the tool that looks at others.
//!
//! `proto` the schema (generated), `codec` a value as a metric's value and back, `array` and `text` its parts, `id` names.

mod array;
pub mod codec;
mod id;
mod text;

#[rustfmt::skip]
#[allow(unreachable_pub, reason = "generated")]
pub mod proto;

pub use id::{SparkplugId, SparkplugIdError};
