//! Where values and pictures go. Each sink knows the hub and none of the others.

pub mod history;
pub mod mqtt;
pub mod ua_server;
