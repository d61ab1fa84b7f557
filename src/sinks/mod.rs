//! Where values and pictures go.

pub mod mqtt;
pub mod ua_server;
