//! One thread of the worker: takes requests in their order, asks the DA server, answers.

use super::Output;
use crate::relay::com::{Apartment, Class, Connection, Group, Io, Listener};
use crate::relay::hresults::is_gone;
use crate::relay::protocol::{Event, Failure, GroupSettings, Hresult, Lane, Reading, Reply, Request};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

pub type Queue = Receiver<(u32, Request)>;

const INVALID_HANDLE: Hresult = 0xC004_0001_u32 as Hresult;

/// How often a group that does not call back is polled, at most.
const FASTEST_POLL: Duration = Duration::from_millis(50);

/// Until the queue's other end is gone. `started` hears from the Data lane whether there is a server.
pub fn run(name: Lane, class: Class, queue: Queue, output: &Arc<Output>, started: &SyncSender<Result<(), Failure>>) {
    // Left after the desk is cleared.
    let _apartment = match Apartment::enter() {
        Ok(apartment) => apartment,
        Err(failure) => {
            let _ = started.send(Err(failure));
            return;
        }
    };
    let mut desk = Desk { class, output, connection: None, groups: HashMap::new(), io: Io::default() };
    if name == Lane::Data {
        let opened = desk.connection().map(|connection| connection.capabilities());
        match opened {
            Ok(capabilities) => {
                output.event(Event::Started(capabilities));
                let _ = started.send(Ok(()));
            }
            Err(failure) => {
                let _ = started.send(Err(failure));
                return;
            }
        }
    }
    loop {
        match queue.recv_timeout(desk.until_poll()) {
            Ok((id, request)) => {
                let reply = desk.answer(id, request).unwrap_or_else(Reply::Failed);
                if !output.reply(id, reply) {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => desk.poll(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Dropped from top to bottom: groups before the connection, all of it before the apartment.
struct Desk<'a> {
    groups: HashMap<u32, Watched>,
    io: Io,
    connection: Option<Connection>,
    class: Class,
    output: &'a Arc<Output>,
}

struct Watched {
    group: Group,
    /// None if it calls back.
    polled: Option<Polled>,
}

/// A group of a server that cannot call back, or will not.
struct Polled {
    every: Duration,
    next: Instant,
    is_active: bool,
    last: HashMap<u32, Result<Reading, Hresult>>,
}

impl Desk<'_> {
    fn connection(&mut self) -> Result<&mut Connection, Failure> {
        if self.connection.is_none() {
            let output = Arc::clone(self.output);
            // Each lane's connection is told; the relay takes the first.
            let listener: Listener = Arc::new(move |event| output.event(event));
            self.connection = Some(Connection::open(self.class, Some(listener))?);
        }
        self.connection.as_mut().ok_or(Failure { call: "(no connection)".into(), hresult: INVALID_HANDLE })
    }

    /// The last reply.
    fn answer(&mut self, id: u32, request: Request) -> Result<Reply, Failure> {
        Ok(match request {
            Request::Status => Reply::Status(self.connection()?.status()?),
            Request::Browse { branch } => {
                let output = Arc::clone(self.output);
                self.connection()?
                    .browse(&branch, &mut |entries| output.reply(id, Reply::Entries { entries, more: true }))?;
                Reply::Entries { entries: Vec::new(), more: false }
            }
            Request::Properties { items, ids } => {
                Reply::Properties(self.connection()?.item_properties(&items, ids.as_deref())?)
            }
            Request::Read { items, from } => {
                self.connection()?;
                let Some(connection) = &mut self.connection else { return Ok(Reply::Done) };
                Reply::Values(self.io.read(connection, &items, from)?)
            }
            Request::Write { items } => {
                self.connection()?;
                let Some(connection) = &self.connection else { return Ok(Reply::Done) };
                Reply::Written(self.io.write(connection, &items)?)
            }
            Request::AddGroup { group, settings } => self.add_group(group, settings)?,
            Request::SetGroup { group, settings } => {
                let watched = self.watched(group)?;
                let revised = watched.group.set(settings)?;
                if let Some(polled) = &mut watched.polled {
                    *polled = Polled::new(revised.rate, settings.active);
                }
                Reply::Group { revised_rate: revised.rate, result: revised.result }
            }
            Request::RemoveGroup { group } => {
                self.groups.remove(&group);
                Reply::Done
            }
            Request::AddItems { group, items } => Reply::Added(self.watched(group)?.group.add_items(&items)?),
            Request::RemoveItems { group, handles } => {
                self.watched(group)?.group.remove_items(&handles)?;
                Reply::Done
            }
            Request::Refresh { group } => {
                let watched = self.watched(group)?;
                match &mut watched.polled {
                    Some(polled) => {
                        polled.last.clear();
                        polled.next = Instant::now();
                    }
                    None => watched.group.refresh()?,
                }
                Reply::Done
            }
        })
    }

    fn add_group(&mut self, number: u32, settings: GroupSettings) -> Result<Reply, Failure> {
        let output = Arc::clone(self.output);
        let listener: Listener = Arc::new(move |event| output.event(event));
        // One that takes the place of another of the same number, not beside it.
        self.groups.remove(&number);
        let connection = self.connection()?;
        let (group, revised, polled) = match Group::add(connection, settings, Some((number, listener))) {
            Ok((group, revised)) => (group, revised, None),
            Err(failure) if is_gone(failure.hresult) || failure.call == "AddGroup" => return Err(failure),
            Err(failure) => {
                let (group, revised) = Group::add(connection, settings, None)?;
                let why = crate::relay::hresults::name(failure.hresult);
                let text = format!("the DA server does not call back ({}: {why}); its cache is polled", failure.call);
                self.output.event(Event::Said { text });
                (group, revised, Some(Polled::new(revised.rate, settings.active)))
            }
        };
        self.groups.insert(number, Watched { group, polled });
        Ok(Reply::Group { revised_rate: revised.rate, result: revised.result })
    }

    fn watched(&mut self, group: u32) -> Result<&mut Watched, Failure> {
        let failure = || Failure { call: format!("(there is no group {group})"), hresult: INVALID_HANDLE };
        self.groups.get_mut(&group).ok_or_else(failure)
    }

    fn until_poll(&self) -> Duration {
        let next = self.groups.values().filter_map(|watched| watched.polled.as_ref()).map(|polled| polled.next).min();
        next.map_or(Duration::from_secs(3600), |next| next.saturating_duration_since(Instant::now()))
    }

    fn poll(&mut self) {
        let now = Instant::now();
        for (&number, watched) in &mut self.groups {
            let Some(polled) = watched.polled.as_mut().filter(|polled| polled.next <= now) else { continue };
            polled.next = now + polled.every;
            if !polled.is_active {
                continue;
            }
            match watched.group.poll() {
                Ok(values) => {
                    let values = polled.changed(values);
                    self.output.event(Event::Data { group: number, values });
                }
                // Whether it lives is the Status lane's to say.
                Err(failure) => tracing::warn!(call = failure.call, hresult = failure.hresult, "A poll failed."),
            }
        }
    }
}

impl Polled {
    fn new(rate: u32, is_active: bool) -> Self {
        let every = Duration::from_millis(rate.into()).max(FASTEST_POLL);
        Self { every, next: Instant::now(), is_active, last: HashMap::new() }
    }

    /// Those that are not as they were; of the others, times do not count.
    fn changed(&mut self, values: Vec<(u32, Result<Reading, Hresult>)>) -> Vec<(u32, Result<Reading, Hresult>)> {
        let is_same = |old: &Result<Reading, Hresult>, new: &Result<Reading, Hresult>| match (old, new) {
            (Ok(old), Ok(new)) => old.value == new.value && old.quality == new.quality,
            (old, new) => old == new,
        };
        let mut changed = Vec::new();
        for (number, value) in values {
            if !self.last.get(&number).is_some_and(|last| is_same(last, &value)) {
                self.last.insert(number, value.clone());
                changed.push((number, value));
            }
        }
        changed
    }
}
