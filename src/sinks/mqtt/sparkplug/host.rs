//! The primary host: whether it is there, by its STATE messages (Sparkplug 3.0, 5.4, 5.5 and 5.12).
//!
//! Each STATE has the time of the host's CONNECT. One that is older than the newest is of a session that is over, and is ignored; a broker
//! delivers the will of a lost host late. The newest time is kept for each broker, because the host has a session with each,
//! and over our connections, because what we missed between two of them may not make an old one valid.

use crate::mqtt::sparkplug::{HostState, SparkplugId};
use std::collections::HashMap;

pub(super) struct Host {
    pub(super) id: SparkplugId,
    broker: String,
    /// The newest timestamp, by broker.
    newest: HashMap<String, u64>,
    is_online: bool,
}

impl Host {
    pub(super) fn new(id: SparkplugId) -> Self {
        Self { id, broker: String::new(), newest: HashMap::new(), is_online: false }
    }

    /// From now on it is this broker.
    pub(super) fn at(&mut self, broker: String) {
        self.broker = broker;
    }

    /// Whatever was known is to be heard again.
    pub(super) fn forget(&mut self) {
        self.is_online = false;
    }

    pub(super) fn is_online(&self) -> bool {
        self.is_online
    }

    /// `false`: it is of the past.
    pub(super) fn hear(&mut self, state: HostState) -> bool {
        let newest = self.newest.entry(self.broker.clone()).or_insert(state.timestamp);
        if state.timestamp < *newest {
            return false;
        }
        *newest = state.timestamp;
        self.is_online = state.online;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host::new(SparkplugId::new("scada").unwrap())
    }

    #[test]
    fn what_is_older_than_the_newest_is_ignored() {
        let mut host = host();
        let mut hear = |online, timestamp| (host.hear(HostState { online, timestamp }), host.is_online());
        assert_eq!(hear(false, 5), (true, false), "the first counts, whatever its time");
        assert_eq!(hear(true, 5), (true, true), "as old is not older");
        assert_eq!(hear(false, 4), (false, true));
        assert_eq!(hear(false, 5), (true, false));
        assert_eq!(hear(true, 4), (false, false));
        assert_eq!(hear(true, 6), (true, true));
    }

    #[test]
    fn times_are_kept_for_each_broker_and_over_connections() {
        let mut host = host();
        host.at("one".into());
        assert!(host.hear(HostState { online: true, timestamp: 100 }));
        host.at("two".into());
        host.forget();
        assert!(!host.is_online());
        assert!(host.hear(HostState { online: true, timestamp: 90 }), "another session of the host");
        host.at("one".into());
        host.forget();
        assert!(!host.hear(HostState { online: true, timestamp: 99 }));
        assert!(!host.is_online());
    }
}
