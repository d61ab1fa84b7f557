//! Vedette: the firmware of an edge appliance. Cameras and tags, over OPC UA and MQTT.
//!
//! In reading order, which is also the order in which one may know another (tests/tidy.rs holds this):

pub mod model;

pub mod base;

pub mod hub;

pub mod store;

pub mod opcua;

pub mod mqtt;

pub mod users;

pub mod cameras;

pub mod sources;

pub mod sinks;

pub mod config;

pub mod app;

pub mod cli;

pub mod relay;
