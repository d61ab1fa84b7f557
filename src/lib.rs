//! Vedette: the firmware of an edge appliance. Cameras and tags, over OPC UA and MQTT.
//!
//! Windows has the relay, and only what that stands on.
//!
//! In reading order, which is also the order in which one may know another (tests/tidy.rs holds this):

pub mod model;

pub mod base;

#[cfg(target_os = "linux")]
pub mod hub;

#[cfg(target_os = "linux")]
pub mod store;

pub mod opcua;

#[cfg(target_os = "linux")]
pub mod mqtt;

pub mod users;

#[cfg(target_os = "linux")]
pub mod device;

#[cfg(target_os = "linux")]
pub mod cameras;

#[cfg(target_os = "linux")]
pub mod sources;

#[cfg(target_os = "linux")]
pub mod sinks;

#[cfg(target_os = "linux")]
pub mod config;

#[cfg(target_os = "linux")]
pub mod app;

#[cfg(target_os = "linux")]
pub mod cli;

pub mod relay;
