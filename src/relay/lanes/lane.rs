//! One thread of the worker: takes requests in their order, asks the DA server, answers.

use super::{Output, Polled};
use crate::relay::com::{Apartment, Class, Connection, Group, Io, Listener};
use crate::relay::hresults::is_gone;
use crate::relay::protocol::{Event, Failure, GroupSettings, Hresult, Lane, Reply, Request};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

pub type Queue = Receiver<(u32, Request)>;

const INVALID_HANDLE: Hresult = 0xC004_0001_u32 as Hresult;

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
        // Also while questions come one after the other.
        let idle = desk.io.tidy().unwrap_or(desk.until_poll());
        match queue.recv_timeout(desk.until_poll().min(idle)) {
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
            Request::PollGroup { group, settings } => {
                self.groups.remove(&group);
                self.add_polled(group, settings)?
            }
            Request::SetGroup { group, settings } => {
                let watched = self.watched(group)?;
                let revised = watched.group.set(settings)?;
                if let Some(polled) = &mut watched.polled {
                    *polled = Polled::new(revised.rate, settings.active, Instant::now());
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
                    Some(polled) => polled.refresh(Instant::now()),
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
        match Group::add(connection, settings, Some((number, listener))) {
            Ok((group, revised)) => {
                self.groups.insert(number, Watched { group, polled: None });
                Ok(Reply::Group { revised_rate: revised.rate, result: revised.result })
            }
            Err(failure) if is_gone(failure.hresult) || failure.call == "AddGroup" => Err(failure),
            Err(failure) => {
                let reply = self.add_polled(number, settings)?;
                let why = crate::relay::hresults::name(failure.hresult);
                let text = format!("the DA server does not call back ({}: {why}); its cache is polled", failure.call);
                self.output.event(Event::Said { text });
                Ok(reply)
            }
        }
    }

    fn add_polled(&mut self, number: u32, settings: GroupSettings) -> Result<Reply, Failure> {
        let (group, revised) = Group::add(self.connection()?, settings, None)?;
        let polled = Polled::new(revised.rate, settings.active, Instant::now());
        self.groups.insert(number, Watched { group, polled: Some(polled) });
        Ok(Reply::Group { revised_rate: revised.rate, result: revised.result })
    }

    fn watched(&mut self, group: u32) -> Result<&mut Watched, Failure> {
        let failure = || Failure { call: format!("(there is no group {group})"), hresult: INVALID_HANDLE };
        self.groups.get_mut(&group).ok_or_else(failure)
    }

    fn until_poll(&self) -> Duration {
        let now = Instant::now();
        let polled = self.groups.values().filter_map(|watched| watched.polled.as_ref());
        polled.map(|polled| polled.wait(now)).min().unwrap_or(Duration::from_secs(3600))
    }

    fn poll(&mut self) {
        let now = Instant::now();
        for (&number, watched) in &mut self.groups {
            let Some(polled) = watched.polled.as_mut() else { continue };
            if !polled.is_due(now) {
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
