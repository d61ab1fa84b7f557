//! Vedette: the firmware of an edge appliance. Cameras and tags, over OPC UA and MQTT.
//!
//! In reading order, and in the order in which one may know another (tests/tidy.rs holds this):

pub mod model;

pub mod base;

pub mod hub;

pub mod sinks;
