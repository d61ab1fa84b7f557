//! Where values and pictures go.

pub mod ua_server;
