//! The worker: the process that holds one DA server, and says on its standard output what the relay asks on its standard input.
//!
//!     stdin ── reader ──┬── Data lane ────┐
//!                       ├── Browse lane ──┼── Output ── writer ── stdout
//!                       ├── Describe lane ┤
//!                       └── Status lane ──┤
//!                          callbacks ─────┘
//!
//! Each lane is a thread with a connection of its own, made when it is first needed; only the Data lane's is made at once, because
//! it says whether there is a server. A lane that is stuck in a call takes no more, and what is asked of it then is refused when
//! its queue is full. Nothing else here blocks: the relay always learns that nothing comes, and ends the process.
//!
//! Logs go to standard error: nothing but frames may appear on standard output.

mod output;
mod polled;

#[cfg(windows)]
mod lane;
#[cfg(windows)]
mod run;

pub use output::Output;
pub use polled::Polled;
#[cfg(windows)]
pub use run::run;
