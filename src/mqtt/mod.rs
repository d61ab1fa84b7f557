//! MQTT, for the uplink and for the tool: brokers, the line to one, and Sparkplug B's payloads. What is said is the
//! business of who uses this.

mod broker;
mod image;
pub mod line;
pub mod sparkplug;

pub use broker::{Access, BrokerUrl, BrokerUrlError, Protocol};
pub use image::image_topic;
