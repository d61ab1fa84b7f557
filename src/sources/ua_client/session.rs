//! One session, until it ends: looks, items, writes, and what has to be seen to every second.

use super::config::RuleConfig;
use super::events::{self, Telling};
use super::inbox::Cut;
use super::learn::Types;
use super::look::{self, Seen, Task};
use super::source::{Item, Origin, UaClient};
use super::watch::{Monitors, Watched, watch};
use super::writes::write;
use crate::hub::WriteRequest;
use crate::model::{DataType, Quality, Status, TagSpec};
use crate::opcua::client::{ConnectError, Connection, ServiceError};
use crate::opcua::timestamp;
use ::opcua::types::DateTime;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, warn};

/// Why there is no session (any more).
pub(super) enum Ended {
    Connect(ConnectError),
    Lost(Quality),
}

impl From<ConnectError> for Ended {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<ServiceError> for Ended {
    fn from(error: ServiceError) -> Self {
        Self::Lost(Quality::new(error.status(), error.to_string()))
    }
}

/// What runs beside the loop.
enum Done {
    Looked(Seen),
    Watched(Watched),
}

/// While something is missing, the next look is after this, and then after twice as long, up to the second.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(30);
/// Between two wishes for events, at most.
const LATEST: Duration = Duration::from_secs(600);
/// A session that has delivered for so long was worth it.
const STEADY: Duration = Duration::from_secs(10);
/// How often the clocks are compared.
const CLOCK: Duration = Duration::from_secs(30);
/// Clocks that differ by more are worth a line.
const ODD: f64 = 10.0;
/// Writes on their way. More wait in the hub.
const WRITES: usize = 32;

impl UaClient {
    /// Returns when the session is of no use any more.
    pub(super) async fn serve(&mut self, connection: &Connection) -> Ended {
        match self.serve_while_good(connection).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn serve_while_good(&mut self, connection: &Connection) -> Result<std::convert::Infallible, Ended> {
        self.inbox.open();
        self.tell();
        let (groups, inbox) = (self.groups.clone(), self.inbox.clone());
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut writes = FuturesUnordered::new();
        let mut clock: Option<BoxFuture<'_, Result<Option<f64>, ServiceError>>> = None;
        let mut next_clock = Instant::now();
        let (mut next_rescan, mut wait) = (Instant::now() + self.config.rescan, SOON);
        let mut next_look = Instant::now();
        let (mut is_complete, mut is_watched) = (false, false);
        let mut monitors = Some(Monitors::default());
        let task = self.task(Types::default(), true);
        let mut work: Option<BoxFuture<'_, Result<Done, ServiceError>>> = Some(looking(connection, task));
        let mut types = None;
        let changed = Arc::new(Notify::new());
        let (source, wants_all): (Arc<str>, bool) = (self.config.name.as_str().into(), self.config.events);
        let tell = |before: Telling| {
            events::subscribe(connection, before, inbox.clone(), source.clone(), wants_all, changed.clone()).boxed()
        };
        let mut telling = Some(tell(Telling::default()));
        // Held while the session lasts.
        let mut told = Telling::default();
        let (mut next_telling, mut telling_wait) = (Instant::now(), SOON);
        let mut flows_since = None;
        loop {
            tokio::select! {
                done = pending_or(&mut work) => {
                    work = None;
                    match done? {
                        Done::Looked(mut seen) => {
                            types = Some(std::mem::take(&mut seen.types));
                            let gone = self.forget_vanished();
                            let wishes;
                            (wishes, is_complete) = self.apply(seen);
                            let (groups, inbox) = (groups.clone(), inbox.clone());
                            let open = monitors.take().unwrap_or_default();
                            let watching = async move {
                                watch(connection, open, &groups, &inbox, wishes, gone).await.map(Done::Watched)
                            };
                            work = Some(watching.boxed());
                        }
                        Done::Watched(Watched { monitors: open, rows }) => {
                            monitors = Some(open);
                            is_watched = true;
                            for (row, made) in rows {
                                match made {
                                    Ok(seat) => self.items[row].seat = Some(seat),
                                    Err(status) => {
                                        is_complete = false;
                                        self.refuse(row, status);
                                    }
                                }
                            }
                            wait = if is_complete { SOON } else { (wait * 2).min(LATER) };
                            next_look = Instant::now() + wait;
                        }
                    }
                }
                request = self.tags.next_write(), if writes.len() < WRITES => {
                    if let Some(sent) = self.send(connection, request) {
                        writes.push(sent);
                    }
                }
                Some(()) = writes.next() => {}
                typed = self.inbox.typed() => self.learn_types(typed),
                cut = self.inbox.next_cut() => {
                    if let Some(reason) = self.weigh(cut) {
                        return Err(Ended::Lost(Quality::new(Status::BAD_NO_COMMUNICATION, reason)));
                    }
                }
                made = pending_or(&mut telling), if work.is_none() => {
                    (telling, told) = (None, made);
                    if let Some(reason) = &told.refused {
                        let what = format!("the server does not tell its events, and is asked again: {reason}");
                        if wants_all { self.tell_once(what) } else { debug!(source = self.config.name, "{what}") }
                        telling_wait = (telling_wait * 2).min(LATEST);
                        next_telling = Instant::now() + telling_wait;
                    }
                }
                () = changed.notified() => next_rescan = next_rescan.min(Instant::now() + SOON),
                offset = pending_or(&mut clock) => {
                    clock = None;
                    // A server without a clock is none the worse for it.
                    self.compare_clocks(offset.ok().flatten());
                }
                now = ticks.tick() => {
                    self.tell();
                    if monitors.as_ref().is_some_and(Monitors::is_overdue) || told.is_overdue() {
                        let reason = "the server answers, but delivers nothing";
                        return Err(Ended::Lost(Quality::new(Status::BAD_TIMEOUT, reason)));
                    }
                    // A server whose values we cannot read is not back, however often it lets us in.
                    let has_none = || is_watched && self.items.iter().all(|item| item.seat.is_none());
                    if self.inbox.has_taken() || has_none() {
                        self.hub.source_back(&self.config.name);
                        self.is_steady |= now - *flows_since.get_or_insert(now) >= STEADY;
                    }
                    if telling.is_none() && told.refused.is_some() && now >= next_telling {
                        telling = Some(tell(std::mem::take(&mut told)));
                    }
                    if now >= next_clock {
                        next_clock = now + CLOCK;
                        clock = Some(offset(connection, self.hub.clone()).boxed());
                    }
                    let is_rescan = now >= next_rescan;
                    let is_due = now >= next_look && (!is_complete || !self.inbox.vanished().is_empty());
                    if work.is_none() && (is_rescan || is_due) {
                        if is_rescan {
                            next_rescan = now + self.config.rescan;
                        }
                        let task = self.task(types.take().unwrap_or_default(), is_rescan);
                        work = Some(looking(connection, task));
                    }
                }
            }
        }
    }

    /// What to look for: tags without an item, and the rules if they are due or if one of their tags has none. If they are due,
    /// also whether what is monitored is there still.
    fn task(&self, types: Types, is_rescan: bool) -> Task {
        let vanished = self.inbox.vanished();
        let is_open = |(row, item): &(usize, &Item)| item.seat.is_none() || vanished.contains(row);
        let open = self.items.iter().enumerate().filter(is_open);
        let tags = open.filter_map(|(row, item)| match &item.origin {
            Origin::Tag(node) => Some((row, node.clone())),
            Origin::Rule(_) => None,
        });
        let rules = self.config.rule.iter().enumerate();
        let rules = rules.filter(|(number, _)| {
            let is_own = |item: &Item| matches!(item.origin, Origin::Rule(of) if of == *number);
            let mut own = self.items.iter().enumerate().filter(|(_, item)| is_own(item)).peekable();
            is_rescan || own.peek().is_none() || own.any(|(row, item)| item.seat.is_none() || vanished.contains(&row))
        });
        let rules: Vec<(usize, RuleConfig)> = rules.map(|(number, rule)| (number, rule.get_ref().clone())).collect();
        let seated = |(row, item): (usize, &Item)| item.seat.and(item.node.clone()).map(|node| (row, node));
        let monitored = if is_rescan { self.items.iter().enumerate().filter_map(seated).collect() } else { Vec::new() };
        Task { tags: tags.collect(), monitored, rules, types }
    }

    /// Items that the server has given up with their nodes are made anew.
    fn forget_vanished(&mut self) -> Vec<super::watch::Seat> {
        let vanished = self.inbox.vanished();
        vanished.into_iter().filter_map(|row| self.items[row].seat.take()).collect()
    }

    fn send<'c>(&self, connection: &'c Connection, request: WriteRequest) -> Option<BoxFuture<'c, ()>> {
        let node = self.by_tag.get(&request.tag).and_then(|&row| self.items[row].node.clone());
        match node {
            Some(node) => Some(write(connection, node, request, self.config.read_back).boxed()),
            None => {
                let quality = Quality::new(Status::BAD_NODE_ID_UNKNOWN, "the server has no such node now");
                // Whoever asked may have given up.
                let _ = request.reply.send(Err(quality));
                None
            }
        }
    }

    /// The first values of tags have told their types.
    fn learn_types(&mut self, typed: Vec<(usize, DataType, bool)>) {
        let respec = |(row, data_type, is_array): (usize, DataType, bool)| {
            let tag = self.items[row].tag;
            let spec = self.hub.spec(tag);
            (tag, TagSpec { data_type, is_array, ..(*spec).clone() })
        };
        let specs: Vec<_> = typed.into_iter().map(respec).collect();
        self.tags.respec(specs);
    }

    /// Why the session ends, if it does.
    fn weigh(&mut self, cut: Cut) -> Option<String> {
        match cut {
            Cut::Ended(status) => {
                Some(format!("the server has ended a subscription: {}", crate::opcua::client::name(status)))
            }
            // Whatever was in it, a new session begins with the values of now.
            Cut::Gap(gap) => {
                if !self.gaps.is_believed() {
                    let what = "the server's notifications leave out numbers all the time, so these seem to mean nothing; \
                                whether a notification is lost cannot be seen";
                    self.tell_once(what.into());
                    return None;
                }
                Some(format!("a notification was lost on the way: {} came, and {} should have", gap.came, gap.expected))
            }
        }
    }

    fn compare_clocks(&mut self, offset: Option<f64>) {
        let is_odd = |offset: Option<f64>| offset.is_some_and(|offset| offset.abs() > ODD);
        if is_odd(offset) && !is_odd(self.status.clock_offset) {
            warn!(
                source = self.config.name,
                seconds = offset,
                "The server's clock is far from this device's. Its timestamps are passed on as they are."
            );
        }
        self.status.clock_offset = offset;
    }
}

fn looking(connection: &Connection, task: Task) -> BoxFuture<'_, Result<Done, ServiceError>> {
    async move { look::look(connection, task).await.map(Done::Looked) }.boxed()
}

/// Completes with the future, if there is one.
async fn pending_or<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// By how many seconds the server's clock is ahead of ours, halfway between question and answer.
async fn offset(connection: &Connection, hub: crate::hub::Hub) -> Result<Option<f64>, ServiceError> {
    let before = hub.now();
    let theirs: Option<DateTime> = connection.clock().await?;
    let after = hub.now();
    let ours = (before.ticks() as f64 + after.ticks() as f64) / 2.0;
    Ok(theirs.map(|theirs| ((timestamp(&theirs).ticks() as f64 - ours) / 1e7 * 1000.0).round() / 1000.0))
}
