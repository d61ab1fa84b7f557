//! Writes that commands asked for, on their way to their sources.
//!
//! A source may take ten seconds to answer, and the uplink must not wait for it. They run side by side, but are
//! handed to their sources in the order in which they came, so the last command for a tag wins.

use crate::hub::Hub;
use crate::model::{Quality, TagId, Value};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// More than people and slow loops have open at one time. When full a command is refused.
const OPEN: usize = 256;

type Outcome = Result<(), Quality>;
type Write = Pin<Box<dyn Future<Output = Outcome> + Send>>;

#[derive(Default)]
pub(super) struct Writes(Vec<(TagId, Write)>);

impl Writes {
    /// `false`: too many are open.
    pub(super) fn push(&mut self, hub: Hub, tag: TagId, value: Value) -> bool {
        if self.0.len() >= OPEN {
            return false;
        }
        self.0.push((tag, Box::pin(async move { hub.write(tag, value).await })));
        true
    }

    /// The next answer; waits for ever if nothing is open. Cancel safe.
    pub(super) async fn next(&mut self) -> (TagId, Outcome) {
        poll_fn(|cx| {
            for at in 0..self.0.len() {
                let (tag, write) = &mut self.0[at];
                if let Poll::Ready(outcome) = write.as_mut().poll(cx) {
                    let tag = *tag;
                    drop(self.0.remove(at));
                    return Poll::Ready((tag, outcome));
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::model::{DataType, Status, TagName, TagSpec};

    #[tokio::test]
    async fn a_slow_source_holds_up_nobody_and_order_is_kept() {
        let hub = Hub::new(Clock::real());
        let spec = |name| vec![TagSpec::new(TagName::new(name).unwrap(), DataType::Int32).writable()];
        let slow = hub.register("slow", spec("slow")).unwrap();
        let mut fast = hub.register("fast", spec("fast")).unwrap();
        let mut writes = Writes::default();
        assert!(writes.push(hub.clone(), slow.tags()[0], Value::Int32(0)));
        assert!(writes.push(hub.clone(), fast.tags()[0], Value::Int32(1)));
        assert!(writes.push(hub.clone(), fast.tags()[0], Value::Int32(2)));
        let owner = async {
            for wanted in [1, 2] {
                let request = fast.next_write().await;
                assert_eq!(request.value, Value::Int32(wanted));
                request.reply.send(Err(Status::BAD_OUT_OF_RANGE.into())).unwrap();
            }
            fast.tags()[0]
        };
        let (answers, tag) = tokio::join!(async { [writes.next().await, writes.next().await] }, owner);
        assert_eq!(answers.map(|(tag, outcome)| (tag, outcome.is_err())), [(tag, true), (tag, true)]);
        for _ in 1..OPEN {
            assert!(writes.push(hub.clone(), slow.tags()[0], Value::Int32(0)));
        }
        assert!(!writes.push(hub.clone(), slow.tags()[0], Value::Int32(0)), "a bound");
    }
}
