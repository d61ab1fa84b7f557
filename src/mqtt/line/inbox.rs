//! What comes in from the broker, until it is taken: bounded by number and by bytes.

use super::{Properties, Received};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tracing::warn;

pub(super) enum Inbound {
    Connected(Limits),
    Message(Received),
}

/// What a broker says at CONNECT that it does not take (OASIS MQTT 5.0, 3.2.2.3).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// Larger packets.
    pub(super) largest: Option<u32>,
    /// Messages that are acknowledged.
    pub(super) is_without_qos: bool,
    /// Retained ones.
    pub(super) is_without_retain: bool,
}

/// The pump's end of what comes in.
pub(super) struct Inbox {
    pub(super) sender: mpsc::Sender<Inbound>,
    pub(super) bytes: Arc<AtomicUsize>,
    pub(super) most: usize,
    pub(super) dropped: u64,
}

impl Inbox {
    pub(super) fn connected(&mut self, limits: Limits) {
        // The first to come in; there is room.
        let _ = self.sender.try_send(Inbound::Connected(limits));
    }

    pub(super) fn push(&mut self, received: Received) {
        let size = received.size();
        let fits = self.bytes.load(Ordering::Relaxed) + size <= self.most;
        if fits && self.sender.try_send(Inbound::Message(received)).is_ok() {
            self.bytes.fetch_add(size, Ordering::Relaxed);
            self.dropped = 0;
            return;
        }
        self.dropped += 1;
        if self.dropped == 1 {
            warn!("Messages come from the broker faster than they can be taken; dropping some.");
        }
    }
}

impl Received {
    pub(super) fn size(&self) -> usize {
        let Properties { content_type, response_topic, correlation_data, user } = &self.properties;
        let texts = content_type.iter().chain(response_topic).map(String::len).sum::<usize>();
        let user = user.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>();
        self.topic.len() + self.payload.len() + texts + correlation_data.as_ref().map_or(0, Bytes::len) + user
    }
}
