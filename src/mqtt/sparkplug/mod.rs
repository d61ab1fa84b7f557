//! Sparkplug B's topics and payloads, for the edge node that this device is and for the tool that looks at others.
//!
//! `proto` the schema (generated), `topic` and `id` names, `payload` reads what others sent, `codec` a value as a metric's
//! value and back, `state` whether a host is there; `array` and `text` are parts of `codec`.

mod id;
mod topic;

mod array;
pub mod codec;
mod payload;
mod state;
mod text;

#[rustfmt::skip]
#[allow(unreachable_pub, reason = "generated")]
pub mod proto;

pub use id::{SparkplugId, SparkplugIdError};
pub use payload::{PayloadError, read};
pub use state::{HostState, HostStateError};
pub use topic::{Kind, Topic};
