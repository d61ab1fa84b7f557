//! How much one client, and all of them, may cost: the appliance's `[ua_server.limits]`.
//!
//! Connections, times and bytes are the gate's (`gate/`); what concerns sessions and services is handed to the UA crate
//! ([`Limits::apply`]); pictures are the appliance's own. docs/ua-server.md says which status code stands for which limit.

use super::gate::frame::{RESPONSE_BYTES, RESPONSE_CHUNKS};
use ::opcua::server::ServerConfig;
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::time::Duration;

/// `[ua_server.limits]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// TCP connections. When all are taken the oldest that has not opened a secure channel makes room for a new one.
    /// Default: 250.
    pub connections: usize,
    /// TCP connections from one address. Default: 150.
    pub connections_per_address: usize,
    /// TCP connections that have not opened a secure channel yet, or one for discovery only. Default: 50.
    pub half_open: usize,
    /// How long a client may take from connecting to its Hello. Default: "5s".
    #[serde(deserialize_with = "crate::base::duration::deserialize")]
    pub hello_timeout: Duration,
    /// How long it may take from there to an open secure channel, and how long a channel for discovery may last.
    /// Default: "15s".
    #[serde(deserialize_with = "crate::base::duration::deserialize")]
    pub channel_timeout: Duration,
    /// How long it may take to send one request, from its first byte to its last. Default: "30s".
    #[serde(deserialize_with = "crate::base::duration::deserialize")]
    pub request_timeout: Duration,
    /// How long a client may leave a part of a response (64 KiB at most) untaken. Default: "30s".
    #[serde(deserialize_with = "crate::base::duration::deserialize")]
    pub stall_timeout: Duration,
    /// How long a client may be silent. Default: "10m".
    #[serde(deserialize_with = "crate::base::duration::deserialize")]
    pub idle_timeout: Duration,
    /// Bytes of one request. More than the default lets a client that is trusted use up the stack. Default: 262144.
    pub request_bytes: usize,
    /// Bytes of requests of all clients of which the end has not come yet. Default: 4194304.
    pub unfinished_bytes: usize,
    /// Requests of one connection that are not answered yet; further ones wait. Publish requests count too.
    /// Default: 64.
    pub requests_in_flight: usize,

    /// Sessions. Default: 200.
    pub sessions: usize,
    /// The longest session timeout that a client gets; a session that was never activated lasts as long.
    /// Default: "1m".
    #[serde(deserialize_with = "crate::base::duration::deserialize")]
    pub session_timeout: Duration,
    /// Default: 50.
    pub subscriptions_per_session: usize,
    /// Default: 50000.
    pub monitored_items_per_subscription: usize,
    /// Monitored items on tags, all clients together. Default: 200000.
    pub monitored_items: usize,
    /// Values in the queue of a monitored item. Default: 20.
    pub queue_size: usize,
    /// Messages that a subscription keeps for a client that does not ask for them. Default: 20.
    pub queued_notifications: usize,
    /// Publish requests that wait in one session. Default: 20.
    pub publish_requests: usize,
    /// Default: "10ms".
    #[serde(deserialize_with = "crate::base::duration::deserialize")]
    pub min_sampling_interval: Duration,
    /// Default: "20ms".
    #[serde(deserialize_with = "crate::base::duration::deserialize")]
    pub min_publishing_interval: Duration,

    /// Nodes in one Read. Default: 10000.
    pub nodes_per_read: usize,
    /// Nodes in one Write. Default: 10000.
    pub nodes_per_write: usize,
    /// Nodes in one Browse, and references of one node in its answer. Default: 1000.
    pub nodes_per_browse: usize,
    /// Methods in one Call. Default: 100.
    pub nodes_per_call: usize,
    /// Paths in one TranslateBrowsePathsToNodeIds. Default: 1000.
    pub nodes_per_translate: usize,
    /// Nodes in one RegisterNodes. Default: 10000.
    pub nodes_per_register: usize,
    /// Nodes in one HistoryRead. Default: 100.
    pub nodes_per_history_read: usize,
    /// Monitored items in one request that creates, changes or deletes them. Default: 10000.
    pub monitored_items_per_call: usize,
    /// Continuation points of one session, for Browse and for HistoryRead each. Default: 100.
    pub continuation_points: usize,

    /// Monitored items on pictures, all clients together. Each holds up to three copies of a picture. Default: 128.
    pub image_items: usize,
    /// Pictures in one Read. Default: 32.
    pub pictures_per_read: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 250,
            connections_per_address: 150,
            half_open: 50,
            hello_timeout: Duration::from_secs(5),
            channel_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            request_bytes: 256 * 1024,
            unfinished_bytes: 4 * 1024 * 1024,
            requests_in_flight: 64,
            sessions: 200,
            session_timeout: Duration::from_secs(60),
            subscriptions_per_session: 50,
            monitored_items_per_subscription: 50_000,
            monitored_items: 200_000,
            queue_size: 20,
            queued_notifications: 20,
            publish_requests: 20,
            min_sampling_interval: Duration::from_millis(10),
            min_publishing_interval: Duration::from_millis(20),
            nodes_per_read: 10_000,
            nodes_per_write: 10_000,
            nodes_per_browse: 1000,
            nodes_per_call: 100,
            nodes_per_translate: 1000,
            nodes_per_register: 10_000,
            nodes_per_history_read: 100,
            monitored_items_per_call: 10_000,
            continuation_points: 100,
            image_items: 128,
            pictures_per_read: 32,
        }
    }
}

/// The longest lifetime of a channel's token that a client gets.
pub const CHANNEL_LIFETIME: Duration = Duration::from_secs(300);

impl Limits {
    /// What is wrong with the values, as (key, what and what would be right).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let counts: [(&'static str, usize, RangeInclusive<usize>); 24] = [
            ("connections", self.connections, 1..=10_000),
            ("connections_per_address", self.connections_per_address, 1..=10_000),
            ("half_open", self.half_open, 1..=10_000),
            // The least chunk that a client may send (OPC 10000-6, 7.1.2.3), and what a large array wants.
            ("request_bytes", self.request_bytes, 8192..=16 * 1024 * 1024),
            ("unfinished_bytes", self.unfinished_bytes, 8192..=1024 * 1024 * 1024),
            ("requests_in_flight", self.requests_in_flight, 1..=1000),
            ("sessions", self.sessions, 1..=10_000),
            ("subscriptions_per_session", self.subscriptions_per_session, 1..=10_000),
            ("monitored_items_per_subscription", self.monitored_items_per_subscription, 1..=1_000_000),
            ("monitored_items", self.monitored_items, 1..=10_000_000),
            ("queue_size", self.queue_size, 1..=100_000),
            ("queued_notifications", self.queued_notifications, 1..=10_000),
            ("publish_requests", self.publish_requests, 1..=1000),
            ("nodes_per_read", self.nodes_per_read, 1..=100_000),
            ("nodes_per_write", self.nodes_per_write, 1..=100_000),
            ("nodes_per_browse", self.nodes_per_browse, 1..=100_000),
            ("nodes_per_call", self.nodes_per_call, 1..=10_000),
            ("nodes_per_translate", self.nodes_per_translate, 1..=100_000),
            ("nodes_per_register", self.nodes_per_register, 1..=100_000),
            ("nodes_per_history_read", self.nodes_per_history_read, 1..=10_000),
            ("monitored_items_per_call", self.monitored_items_per_call, 1..=100_000),
            ("continuation_points", self.continuation_points, 1..=10_000),
            ("image_items", self.image_items, 1..=10_000),
            ("pictures_per_read", self.pictures_per_read, 1..=1000),
        ];
        for (key, value, range) in counts {
            out_of_range(&mut faults, key, value, &range, usize::to_string);
        }
        let (ms, second, hour) = (Duration::from_millis(1), Duration::from_secs(1), Duration::from_secs(3600));
        let times = [
            ("hello_timeout", self.hello_timeout, second..=hour),
            ("channel_timeout", self.channel_timeout, second..=hour),
            ("request_timeout", self.request_timeout, second..=hour),
            ("stall_timeout", self.stall_timeout, second..=hour),
            ("idle_timeout", self.idle_timeout, second..=24 * hour),
            ("session_timeout", self.session_timeout, second..=24 * hour),
            ("min_sampling_interval", self.min_sampling_interval, ms..=hour),
            ("min_publishing_interval", self.min_publishing_interval, ms..=hour),
        ];
        for (key, value, range) in times {
            let text = |time: &Duration| format!("\"{}\"", humantime::format_duration(*time));
            out_of_range(&mut faults, key, value, &range, text);
        }
        // Publish requests are answered only when there is something to say, and a gate that waits for that is shut.
        if self.requests_in_flight <= self.publish_requests {
            let least = self.publish_requests + 1;
            let what = format!("must be more than publish_requests ({}): {least} or more", self.publish_requests);
            faults.push(("requests_in_flight", what));
        }
        faults
    }

    /// Hands over what the UA crate looks after.
    pub fn apply(&self, config: &mut ServerConfig) {
        let limits = &mut config.limits;
        // The crate has one size for requests and responses; the gate holds requests to theirs.
        limits.max_message_size = RESPONSE_BYTES;
        limits.max_chunk_count = RESPONSE_CHUNKS;
        // These are about what is received: nothing in a request can be longer or more than its bytes. The crate makes
        // room for as many elements as a message announces before it looks whether they are there.
        limits.max_byte_string_length = self.request_bytes;
        limits.max_string_length = self.request_bytes;
        limits.max_array_length = self.request_bytes;
        limits.max_sessions = self.sessions;
        limits.max_browse_continuation_points = self.continuation_points;
        limits.max_history_continuation_points = self.continuation_points;
        limits.max_query_continuation_points = self.continuation_points;
        let subscriptions = &mut limits.subscriptions;
        subscriptions.max_subscriptions_per_session = self.subscriptions_per_session;
        subscriptions.max_monitored_items_per_sub = self.monitored_items_per_subscription;
        subscriptions.max_monitored_item_queue_size = self.queue_size;
        subscriptions.max_queued_notifications = self.queued_notifications;
        subscriptions.max_pending_publish_requests = self.publish_requests;
        subscriptions.max_publish_requests_per_subscription = self.publish_requests;
        subscriptions.min_sampling_interval_ms = self.min_sampling_interval.as_secs_f64() * 1000.0;
        subscriptions.min_publishing_interval_ms = self.min_publishing_interval.as_secs_f64() * 1000.0;
        let operations = &mut limits.operational;
        operations.max_nodes_per_read = self.nodes_per_read;
        operations.max_nodes_per_write = self.nodes_per_write;
        operations.max_nodes_per_browse = self.nodes_per_browse;
        operations.max_references_per_browse_node = self.nodes_per_browse;
        operations.max_nodes_per_method_call = self.nodes_per_call;
        operations.max_nodes_per_translate_browse_paths_to_node_ids = self.nodes_per_translate;
        operations.max_nodes_per_register_nodes = self.nodes_per_register;
        operations.max_nodes_per_history_read_data = self.nodes_per_history_read;
        operations.max_nodes_per_history_read_events = self.nodes_per_history_read;
        operations.max_monitored_items_per_call = self.monitored_items_per_call;
        config.max_session_timeout_ms = u64::try_from(self.session_timeout.as_millis()).unwrap_or(u64::MAX);
        config.max_secure_channel_token_lifetime_ms = u32::try_from(CHANNEL_LIFETIME.as_millis()).unwrap_or(u32::MAX);
        // How often the crate looks for due notifications, which bounds every publishing interval from below.
        let poll = u64::try_from(self.min_publishing_interval.as_millis()).unwrap_or(u64::MAX);
        config.subscription_poll_interval_ms = poll.clamp(1, 20);
    }
}

fn out_of_range<T: PartialOrd>(
    faults: &mut Vec<(&'static str, String)>,
    key: &'static str,
    value: T,
    range: &RangeInclusive<T>,
    text: impl Fn(&T) -> String,
) {
    if !range.contains(&value) {
        let (least, most) = (text(range.start()), text(range.end()));
        faults.push((key, format!("is {}; write something from {least} to {most}", text(&value))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_what_is_not_says_what_would_be() {
        assert_eq!(Limits::default().check(), []);
        let wrong = Limits {
            connections: 0,
            stall_timeout: Duration::from_millis(10),
            requests_in_flight: 20,
            ..Limits::default()
        };
        let faults: Vec<String> = wrong.check().into_iter().map(|(key, what)| format!("{key} {what}")).collect();
        let expected = [
            "connections is 0; write something from 1 to 10000",
            "stall_timeout is \"10ms\"; write something from \"1s\" to \"1h\"",
            "requests_in_flight must be more than publish_requests (20): 21 or more",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn the_crate_gets_what_it_looks_after() {
        let limits = Limits { sessions: 7, nodes_per_read: 8, queue_size: 9, ..Limits::default() };
        let mut config = ServerConfig::default();
        limits.apply(&mut config);
        let got = &config.limits;
        let items = got.subscriptions.max_monitored_item_queue_size;
        assert_eq!((got.max_sessions, got.operational.max_nodes_per_read, items), (7, 8, 9));
        assert_eq!((config.max_session_timeout_ms, config.subscription_poll_interval_ms), (60_000, 20));
    }
}
