//! Sparkplug B 3.0: what an edge node says and hears.
//!
//! In reading order: `session` the protocol as a state machine without I/O; `layout` which metrics there are (`names` where a tag is
//! said, `template` folders as instances); `metric` how a sample becomes a metric, `data` how many become DATA, `same` what is
//! a change; `command` what NCMD and DCMD ask for; `host` whether the primary host is there; `held` what cannot be said
//! yet; `bd_seq` the number that survives a restart.

mod session;

mod layout;
mod names;
mod template;

mod data;
mod metric;
mod same;

mod command;
mod held;
mod host;

mod bd_seq;

pub(super) use bd_seq::BdSeq;
pub(super) use session::Session;
