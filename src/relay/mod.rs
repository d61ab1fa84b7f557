//! The relay: OPC Classic (DA) servers of a Windows PC as if they were OPC UA.
//!
//!     UA clients ── ua/ ── one worker each (protocol.rs) ── com/ ── DA server
//!
//! `ua/` is an OPC UA server like the appliance's own, with the same security. It never touches COM: all of that is in workers,
//! one child process of the same program for each DA server, because COM has no timeouts, a DA server in the worker's process can
//! take it down with it, and nothing but the end of a process gives back a thread that is stuck in a call.
//!
//! - `config.rs` is what a user says; `cli/` the command line.
//! - `protocol.rs` is what both say to each other: DA's own words, without COM's memory.
//! - `ua/` and everything that judges DA's words (quality, times, properties) is portable, and tested on any machine.
//! - `com/` is Windows only, and so is `service.rs`: the relay under the service manager.

pub mod cli;
pub mod config;
pub mod protocol;
#[cfg(windows)]
pub mod service;
