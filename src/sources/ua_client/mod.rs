//! Tags of another OPC UA server, and so also of DA servers behind the relay.
//!
//!     run:       connect ─► session ─► lost: all tags Bad, wait (backoff) ─► connect ...     for ever; no other state
//!     session:   look (resolve, browse, learn types) ─► watch (monitored items) ─► values, writes
//!                  ^── again while something is missing, when the server says that nodes came, and every `rescan`
//!
//! - `config.rs` is `[[ua_client]]`; `access.rs` makes of it where and as whom to connect.
//! - `source.rs` has the items and their tags; `session.rs` is one session with its loop.
//! - `look.rs` asks what there is, with `rules.rs` and `learn.rs`; `found.rs` makes tags of it; `watch.rs` has it monitored.
//! - `inbox.rs` takes in values; `writes.rs` sends them; `events.rs` passes on events; `status.rs` tells of all that.
//!
//! Invariants: a tag keeps its row while the process lives, and so its handle; NodeIds are resolved anew in each session,
//! so another order of namespaces changes nothing; a rule's tag belongs to its node, not to its name. One bad node costs
//! nobody else anything. The session's task publishes values by itself; no request waits for another but those of one look.

mod access;
mod config;
mod events;
mod found;
mod inbox;
mod learn;
mod look;
mod rules;
mod session;
mod source;
mod status;
mod watch;
mod writes;

pub use config::Config;

use super::{Finding, Place, Source, SourceError};
use crate::hub::Hub;

impl super::Config for Config {
    fn table(&self) -> &'static str {
        "[[ua_client]]"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Vec<Finding> {
        self.faults()
    }

    fn register(&self, place: &Place, hub: &Hub) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(source::UaClient::register(self.clone(), place.clone(), hub)?))
    }
}
