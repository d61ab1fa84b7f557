//! What is said on the line, Sparkplug or JSON: a state machine without I/O, clock or disk. The uplink gives it what happens and
//! sends what it says, in that order.

use crate::model::{Sample, TagId, TagName, TagSpec, Timestamp, Value};
use crate::mqtt::BrokerUrl;
use crate::mqtt::line::{Message, Received};
use crate::store::Record;
use std::sync::Arc;
use std::time::Duration;

/// By how much a sample that [`Dialect::live`] is given can be older than what a birth showed. All of them are newer than
/// the first birth of the connection; only a part that was born again by itself may have shown more than waits here, which is for
/// one `publish_interval` and one slow message. What seems to be older by more was measured after the clock was set back, and it
/// is the newest all the same: as history nobody would see it until the clock has caught up.
const OVERTAKEN: Duration = Duration::from_secs(60);

/// Whether a birth that showed `born` has shown something newer than this sample, which is for [`Dialect::live`].
pub(super) fn is_overtaken(sample: &Sample, born: &Sample) -> bool {
    let (at, birth) = (sample.server_time, born.server_time);
    at < birth && birth <= at.saturating_add(OVERTAKEN)
}

/// Everything as it is at one moment. Only tags that are to be sent, in the order of their ids.
pub(super) struct View {
    pub(super) tags: Vec<(TagId, Arc<TagSpec>)>,
    /// The newest samples of `tags`, in their order.
    pub(super) current: Vec<Sample>,
    /// Sources and cameras that are lost, by the folder of their tags.
    pub(super) lost: Vec<Arc<str>>,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    /// Everything anew.
    Birth,
    Write(TagId, Value),
    /// A command of Sparkplug's `Node Control/`, by what follows that; its value is true.
    Control(String),
    /// Say goodbye and try the next broker; for this reason.
    Leave(String),
    /// Nothing: it cannot be done. Where, what, and what would be right.
    Refused(String),
}

/// Whether samples of a tag can be said, as things are.
pub(super) type CanSay = Box<dyn Fn(&TagName) -> bool + Send>;

/// What stands around payload and topic of a message, at most: of MQTT 13 bytes; a content type, or a Sparkplug payload's time and seq.
const AROUND: usize = 32;

/// A message of many values is ended when it has become this large: many brokers refuse more than 128 KiB or 256 KiB.
pub(super) const PAYLOAD: usize = 96 * 1024;

/// Bytes that such a payload to this topic may have: fewer where the broker takes no packet so large.
pub(super) fn room(largest: Option<usize>, topic: &str) -> usize {
    largest.map_or(PAYLOAD, |largest| largest.saturating_sub(AROUND + topic.len()).min(PAYLOAD))
}

pub(super) trait Dialect: Send {
    /// The next CONNECT goes to this broker; said before [`Dialect::connecting`]. (Sparkplug's primary host has a session, with times
    /// of its own, at each broker.)
    fn dialing(&mut self, _broker: &BrokerUrl) {}

    /// A CONNECT is about to be made: whatever was of the connection before is forgotten. Returns the will.
    fn connecting(&mut self, bd_seq: u8, now: Timestamp) -> Option<Message>;

    /// There is a connection. The largest packet that this broker takes, if it says one.
    fn connected(&mut self, _largest: Option<usize>) {}

    /// What to subscribe to (QoS 1) before anything is said. Asked again before each birth and change; what is new is subscribed
    /// to first, so that an answer to a birth is heard (Sparkplug 3.0, 5.6: DCMD before DBIRTH).
    fn filters(&self, tags: &[(TagId, Arc<TagSpec>)]) -> Vec<String>;

    /// Whether a birth may be said now. Asked after each message that came in.
    fn may_be_born(&self) -> bool;

    /// Everything as it is, first or again.
    fn birth(&mut self, view: &View, now: Timestamp) -> Vec<Message>;

    /// The set of tags is another; what this takes, perhaps less than a whole birth.
    fn changed(&mut self, view: &View, now: Timestamp) -> Vec<Message> {
        self.birth(view, now)
    }

    fn is_born(&self) -> bool;

    /// Whether nothing may be said without the message to this topic.
    fn is_vital(&self, _topic: &str) -> bool {
        false
    }

    /// Which tags can be said until the next birth, change, loss or return. Samples of others stay with whoever keeps them, and are
    /// not given here. Tags that are gone can be "said": there is nothing to wait for, and they are counted as unsaid.
    fn can_say(&self) -> CanSay {
        Box::new(|_| true)
    }

    /// Samples that are newer than the birth, in the order of the hub.
    fn live(&mut self, samples: &[Sample], now: Timestamp) -> Vec<Message>;

    /// Samples that are older than the birth, in the order of their times.
    fn backlog(&mut self, rows: &[(TagName, Record)], now: Timestamp) -> Vec<Message>;

    /// A source or camera is lost (with its folder), or back.
    fn lost(&mut self, folder: &str, now: Timestamp) -> Vec<Message>;
    fn back(&mut self, folder: &str, view: &View, now: Timestamp) -> Vec<Message>;

    /// A picture of a camera whose pictures are said like samples (`as = "sparkplug"`); `None` if it cannot be said now.
    fn picture(
        &mut self,
        _camera: &str,
        _jpeg: &[u8],
        _captured: Timestamp,
        _is_historical: bool,
        _now: Timestamp,
    ) -> Option<Message> {
        None
    }

    /// Samples that were given here and could not be said, now or later, since the start: their tags are gone or of another type.
    fn unsaid(&self) -> u64 {
        0
    }

    fn received(&mut self, received: &Received, now: Timestamp) -> Vec<Ask>;

    /// The write that was asked for was not done. Whoever asked believes it was; [`Dialect::live`], also without samples, says the value
    /// as it is.
    fn refused(&mut self, _tag: TagId) {}

    /// The goodbye, before a DISCONNECT on purpose. If there is none, the will says it: DISCONNECT with reason 0x04, and on MQTT 3.1.1
    /// the end of the line without a DISCONNECT.
    fn death(&mut self, now: Timestamp) -> Vec<Message>;
}
