//! A connection, and the host that listens to it: what comes in goes to the host, and what the host asks for goes out.

use super::host::Host;
use super::say;
use crate::base::Clock;
use crate::model::Timestamp;
use crate::mqtt::line::{Client as _, ClientError, Connect, Connection, Dial as _, Message, Received, Rumqtt};
use std::time::Duration;
use tokio::time::Instant;

/// Messages of a fleet that wait while something else is done. A second of ten thousand nodes and more; beyond that the line
/// drops, and the host sees the gaps.
const WAITING: usize = 65_536;
const WAITING_BYTES: usize = 64 << 20;

/// How often it is looked whether the host may ask again.
const TICK: Duration = Duration::from_millis(50);

pub(super) struct Session {
    line: Connection,
    pub host: Host,
    clock: Clock,
}

/// All that a host has to hear of a group, or of all groups.
pub(super) fn fleet(group: Option<&str>) -> Vec<String> {
    match group {
        // STATE is below spBv1.0 as well.
        None => vec!["spBv1.0/#".into(), "STATE/+".into()],
        Some(group) => vec![format!("spBv1.0/{group}/#"), "spBv1.0/STATE/+".into(), "STATE/+".into()],
    }
}

/// All that one node and its devices say.
pub(super) fn node(group: Option<&str>, node: &str) -> Vec<String> {
    vec![format!("spBv1.0/{}/+/{node}/#", group.unwrap_or("+"))]
}

impl Session {
    /// Gives the host back if it fails.
    pub(super) async fn open(connect: Connect, host: Host, filters: &[String]) -> Result<Self, (ClientError, Host)> {
        let line = match (Rumqtt { waiting: WAITING, bytes: WAITING_BYTES }).dial(connect).await {
            Ok(line) => line,
            Err(error) => return Err((error, host)),
        };
        let mut session = Self { line, host, clock: Clock::real() };
        match session.line.subscribe(filters.to_vec()).await {
            Ok(()) => Ok(session),
            Err(error) => Err((error, session.host)),
        }
    }

    pub(super) fn into_host(self) -> Host {
        self.host
    }

    pub(super) async fn subscribe(&mut self, filter: &str) -> Result<(), ClientError> {
        self.line.subscribe(vec![filter.to_owned()]).await
    }

    pub(super) async fn publish(&mut self, message: Message) -> Result<(), ClientError> {
        self.line.publish(vec![message]).await
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// The next message; the host has heard it. Cancel safe, but that a question of the host may then not be asked.
    pub(super) async fn next(&mut self) -> Result<Received, ClientError> {
        loop {
            while let Some((group, node)) = self.host.due(self.now()) {
                self.publish(say::rebirth(&group, &node, self.now())).await?;
            }
            tokio::select! {
                biased;
                received = self.line.next() => {
                    let received = received?;
                    let now = self.now();
                    self.host.receive(&received.topic, &received.payload, now);
                    return Ok(received);
                }
                () = tokio::time::sleep(TICK), if !self.host.is_idle() => {}
            }
        }
    }

    /// The next message before `until`.
    pub(super) async fn next_until(&mut self, until: Instant) -> Result<Option<Received>, ClientError> {
        match tokio::time::timeout_at(until, self.next()).await {
            Ok(received) => received.map(Some),
            Err(_) => Ok(None),
        }
    }
}
