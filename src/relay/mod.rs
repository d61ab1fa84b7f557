//! The relay: OPC Classic (DA) servers of a Windows PC as if they were OPC UA.
//!
//!     UA clients ── ua/ ── one worker each (protocol.rs) ── com/ ── DA server
//!
//! `ua/` is an OPC UA server like the appliance's own, with the same security. It never touches COM: all of that is in workers,
//! one child process of the same program for each DA server, because COM has no timeouts, a DA server in the worker's process can
//! take it down with it, and nothing but the end of a process gives back a thread that is stuck in a call.
//!
//! - `config.rs` is what a user says; `cli/` the command line; `run.rs` the relay as it is configured.
//! - `protocol.rs` is what both say to each other: DA's own words, without COM's memory.
//! - `hresults.rs` says in words what HRESULTs mean; `show.rs` how values look to people.
//! - `worker/` starts that process and starts it again; `map/` is what DA's words mean in OPC UA; `ua/` is the server. These are
//!   portable, and tested on any machine against a DA server that is scripted (`examples/fake_da.rs`).
//! - `com/` is Windows only, and so is what stands on it, most of `lanes/` (the inside of that process) and `cli/da/`, and
//!   `service.rs`: the relay under the service manager.

pub mod cli;
#[cfg(windows)]
mod com;
pub mod config;
pub mod hresults;
pub mod lanes;
pub mod map;
pub mod protocol;
pub mod run;
#[cfg(windows)]
pub mod service;
pub mod show;
pub mod ua;
pub mod worker;
