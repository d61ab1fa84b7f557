//! Sparkplug B 3.0: what an edge node says and hears. `session` is the protocol as a state machine without I/O; `metric` how
//! a sample becomes a metric, `bd_seq` the number that survives a restart.

mod bd_seq;
mod metric;
mod session;

pub(super) use bd_seq::BdSeq;
pub(super) use session::{Session, Topics, is_reserved};
