//! Values of nodes as they change, for as long as somebody wants them, also over restarts of the server.
//!
//!     subscribed ──lost, overdue, ended by the server──► waiting (1 s to 30 s) ──connected──► subscribed
//!         └──────────────── stop ──────────────► subscription deleted, session closed
//!
//! A node that is refused is asked for again every few seconds: after a restart it may come later than the server. What
//! comes goes into a bounded queue; if its reader is slower than the server then what does not fit is counted and told, so
//! the session never waits for a terminal.

use super::{Access, Failure, Reading, failure};
use crate::base::Backoff;
use crate::opcua::client::{Connection, Item, NodeRef, Notice, ServiceError, Settings, Subscription};
use opcua::types::{
    AttributeId, DataChangeFilter, DataChangeTrigger, DeadbandType, ExtensionObject, NodeId, StatusCode,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What happens, of nodes by their place in the command line.
#[derive(Debug)]
pub(in crate::cli) enum News {
    Value(usize, Reading),
    /// The server does not watch this node.
    Refused(usize, StatusCode),
    /// All that can be watched is being watched.
    Begun,
    Lost(String),
    /// The queue was full so many times.
    Dropped(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) enum Deadband {
    Absolute(f64),
    /// Of the node's EURange.
    Percent(f64),
}

impl std::str::FromStr for Deadband {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no deadband: write a number as in 0.5, or percent of the range as in 1%");
        let number =
            |text: &str| text.trim().parse().ok().filter(|number| (0.0..f64::MAX).contains(number)).ok_or_else(wrong);
        match text.strip_suffix('%') {
            Some(percent) => number(percent)
                .and_then(|percent| if percent <= 100.0 { Ok(Self::Percent(percent)) } else { Err(wrong()) }),
            None => number(text).map(Self::Absolute),
        }
    }
}

pub(in crate::cli) struct Feed {
    pub access: Access,
    pub nodes: Vec<NodeRef>,
    pub interval: Duration,
    pub deadband: Option<Deadband>,
}

/// A second of many fast values.
const QUEUE: usize = 16_384;
/// How often refused nodes are asked for again, and the session is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How many values a server keeps between two publications.
const KEPT: u32 = 100;

impl Feed {
    pub(in crate::cli) fn queue() -> (mpsc::Sender<News>, mpsc::Receiver<News>) {
        mpsc::channel(QUEUE)
    }

    /// Until the stop. Errors are those that trying again does not help.
    pub(in crate::cli) async fn run(
        &self,
        first: Connection,
        news: mpsc::Sender<News>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let mut connection = first;
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let ended = self.follow(&connection, &news, &mut stop, &mut backoff).await;
            connection.close().await;
            let Some(reason) = ended else { return Ok(()) };
            // A reader that is gone is a stop as well.
            if news.send(News::Lost(reason)).await.is_err() {
                return Ok(());
            }
            connection = loop {
                tokio::select! {
                    () = tokio::time::sleep(backoff.wait()) => {}
                    () = stopped(&mut stop) => return Ok(()),
                }
                tokio::select! {
                    opened = self.access.reopen() => match opened? {
                        Ok(connection) => break connection,
                        Err(reason) => tracing::debug!(reason, "Still no connection."),
                    },
                    () = stopped(&mut stop) => return Ok(()),
                }
            };
        }
    }

    /// Until it ends, and why; `None` if that was the stop.
    async fn follow(
        &self,
        connection: &Connection,
        news: &mpsc::Sender<News>,
        stop: &mut watch::Receiver<bool>,
        backoff: &mut Backoff,
    ) -> Option<String> {
        let dropped = Arc::new(AtomicU64::new(0));
        let is_ended = Arc::new(AtomicBool::new(false));
        let settings = Settings { publishing_interval: self.interval, ..Settings::default() };
        let made = connection.subscribe(&settings, self.notice(news, &dropped, &is_ended)).await;
        let subscription = match made {
            Ok(subscription) => subscription,
            Err(error) => return Some(format!("{error}; {}", failure::meaning(error.status))),
        };
        let mut waiting: Vec<usize> = (0..self.nodes.len()).collect();
        let mut is_first = true;
        let mut told = 0;
        loop {
            match self.monitor(connection, &subscription, &mut waiting).await {
                Err(error) => return Some(error.to_string()),
                Ok(refused) if is_first => {
                    for (index, status) in refused {
                        news.send(News::Refused(index, status)).await.ok()?;
                    }
                    news.send(News::Begun).await.ok()?;
                    backoff.reset();
                    is_first = false;
                }
                Ok(_) => {}
            }
            tokio::select! {
                loss = connection.lost() => return Some(loss.reason),
                () = stopped(stop) => {
                    if let Err(error) = subscription.delete().await {
                        // The session goes next, and takes it along.
                        tracing::debug!(%error, "The subscription is left to the session's end.");
                    }
                    return None;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            let all = dropped.load(Ordering::Relaxed);
            if all > told {
                news.send(News::Dropped(all - told)).await.ok()?;
                told = all;
            }
            if is_ended.load(Ordering::Relaxed) {
                return Some("the server ended the subscription".into());
            }
            if subscription.is_overdue() {
                return Some("the session is there, but the server says nothing any more".into());
            }
        }
    }

    /// Hands on what comes, on the session's task.
    fn notice(
        &self,
        news: &mpsc::Sender<News>,
        dropped: &Arc<AtomicU64>,
        is_ended: &Arc<AtomicBool>,
    ) -> impl FnMut(Notice) + Send + Sync + use<> {
        let (news, dropped, is_ended, count) = (news.clone(), dropped.clone(), is_ended.clone(), self.nodes.len());
        move |notice| match notice {
            Notice::Data(items) => {
                for item in items {
                    // Handles count from 1; a server may send any.
                    let index = (item.client_handle as usize).wrapping_sub(1);
                    if index < count && news.try_send(News::Value(index, Reading::from(&item.value))).is_err() {
                        dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Notice::Status(status) if status.is_bad() => is_ended.store(true, Ordering::Relaxed),
            Notice::Gap(_) => {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
            Notice::Status(_) | Notice::Events(_) => {}
        }
    }

    /// Those of `waiting` that can be watched are taken out of it; the others come back with their status.
    async fn monitor(
        &self,
        connection: &Connection,
        subscription: &Subscription,
        waiting: &mut Vec<usize>,
    ) -> Result<Vec<(usize, StatusCode)>, ServiceError> {
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<NodeRef> = waiting.iter().map(|&index| self.nodes[index].clone()).collect();
        let mut refused = Vec::new();
        let mut items = Vec::new();
        for (&index, found) in waiting.iter().zip(connection.resolve_all(&wanted).await?) {
            match found {
                Ok(node) => items.push((index, self.item(index, node))),
                Err(status) => refused.push((index, status)),
            }
        }
        let requests: Vec<Item> = items.iter().map(|(_, item)| item.clone()).collect();
        for ((index, _), made) in items.into_iter().zip(connection.monitor(subscription, &requests).await?) {
            refused.extend(made.err().map(|status| (index, status)));
        }
        *waiting = refused.iter().map(|(index, _)| *index).collect();
        Ok(refused)
    }

    fn item(&self, index: usize, node: NodeId) -> Item {
        let filter = |kind: DeadbandType, value| {
            ExtensionObject::from_message(DataChangeFilter {
                trigger: DataChangeTrigger::StatusValue,
                deadband_type: kind as u32,
                deadband_value: value,
            })
        };
        Item {
            handle: index as u32 + 1,
            node,
            attribute: AttributeId::Value,
            sampling_interval: self.interval.as_secs_f64() * 1000.0,
            queue_size: KEPT,
            filter: match self.deadband {
                None => ExtensionObject::null(),
                Some(Deadband::Absolute(value)) => filter(DeadbandType::Absolute, value),
                Some(Deadband::Percent(value)) => filter(DeadbandType::Percent, value),
            },
        }
    }
}

/// Told, or nobody is left to tell.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadbands_are_numbers_or_percent() {
        assert_eq!("0.5".parse(), Ok(Deadband::Absolute(0.5)));
        assert_eq!("1%".parse(), Ok(Deadband::Percent(1.0)));
        assert_eq!("2.5 %".parse(), Ok(Deadband::Percent(2.5)));
        for wrong in ["", "%", "-1", "x", "101%", "NaN", "inf"] {
            assert!(wrong.parse::<Deadband>().unwrap_err().contains("1%"), "{wrong}");
        }
    }
}
