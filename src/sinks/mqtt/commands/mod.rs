//! Commands as JSON: requests that came over MQTT, what is done about them, and the answers.
//!
//!     <base>/command/<role> ──take──► request ──catalog──► who may ──► running (16 at a time) ──► hub, pictures, the app
//!                                        │                                │
//!                       refused at once ─┴──► answers waiting ◄───────────┴── reports of a trial (Hub::next_report)
//!                                                  └──next──► the uplink: a message, or something to ask of it
//!
//!     request   the payload, read and bounded        value   a tag's value as JSON and back
//!     catalog   each command: role, arguments        look, act   what commands do
//!     answer    where answers go and what they say   memory  which ids were seen, and what was answered
//!
//! The uplink owns [`Commands`] for as long as it runs, through all its connections, and asks for [`Commands::next`]
//! beside everything else it does: nothing here blocks or waits for the line. An answer that could not be sent is given
//! back and comes again, after the reconnect.
//!
//! - Which role a request has is said by its topic, so the broker's access list decides who may; `[mqtt] commands` is the
//!   most that this device takes.
//! - A retained request is ignored: as a reboot it would be a boot loop. A request that was seen lately is answered again and
//!   not done again, because at QoS 1 it may come twice. It is the same one if id, role, command and arguments are: else
//!   whoever sends the id of somebody else would get what that one may see.
//! - An answer is no request (it has keys that none may have), and no answer goes to where devices take commands or
//!   Sparkplug talks, or where another role hears its answers, whatever the response topic says: else somebody who may only look
//!   could have this device say things in its own name.

mod act;
mod answer;
mod catalog;
mod look;
mod memory;
mod request;

use super::dialect::Ask;
use crate::hub::{Apply, Demand, Hub, News, Report, Update};
use crate::model::{EventKind, Role, Timestamp};
use crate::mqtt::line::{Message, Received};
use act::Doer;
use answer::{Address, Answer, Asked, State};
use async_trait::async_trait;
use catalog::Command;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use memory::Memory;
use request::Request;
use serde_json::Value as Json;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};
use tracing::{info, warn};

/// Commands that are being done. People and fleets have few open at a time; the next one is told to come again. Who may
/// more finds room when who may less has taken all of theirs.
const RUNNING: [(Role, usize); 3] = [(Role::Viewer, 8), (Role::Operator, 12), (Role::Admin, 16)];
/// Answers that wait for the line, and their bytes. When there are more no request is taken, so a sender who does not
/// listen cannot fill the memory. For admins twice as many, so that others cannot keep their requests from being heard.
const WAITING: usize = 128;
const WAITING_BYTES: usize = 4 << 20;
/// Answers that are sent at once.
const TOGETHER: usize = 16;
/// A command that could not begin for so long, because the line was lost when it had just come, is not done any more: whoever
/// sent it has given it up.
const LATE: Duration = Duration::from_secs(10);
/// Requests that cannot even be answered are said in the log no more often than this.
const COMPLAIN: Duration = Duration::from_secs(10);

/// What events about commands are about.
const SOURCE: &str = "mqtt";

/// Takes a picture for a command. The uplink's images do it, because they know how pictures are made to fit and what goes
/// with them.
#[async_trait]
pub(in crate::sinks::mqtt) trait TakePicture: Send + Sync {
    /// A new picture of `max_bytes` at most, as it is to be sent. Or a sentence that says why there is none.
    async fn take(&self, camera: &str, max_bytes: Option<u64>) -> Result<Snapshot, String>;
}

/// A picture that is sent before the command that asked for it is done.
pub(in crate::sinks::mqtt) struct Snapshot {
    pub(in crate::sinks::mqtt) message: Message,
    pub(in crate::sinks::mqtt) captured: Timestamp,
}

/// What the uplink is to do next.
#[derive(Debug)]
pub(in crate::sinks::mqtt) enum Out {
    Send(Letter),
    Ask(Ask),
}

/// A message, and who has to know that it has arrived.
#[derive(Debug)]
pub(in crate::sinks::mqtt) struct Letter {
    pub(in crate::sinks::mqtt) message: Message,
    arrived: Option<oneshot::Sender<()>>,
}

impl Letter {
    pub(in crate::sinks::mqtt) fn has_arrived(self) {
        if let Some(arrived) = self.arrived {
            // Whoever wanted to know may have ended.
            let _ = arrived.send(());
        }
    }
}

pub(in crate::sinks::mqtt) struct Commands {
    limit: Option<Role>,
    /// `vedette/<group>/<node>`
    base: String,
    hub: Hub,
    doer: Arc<Doer>,
    running: FuturesUnordered<BoxFuture<'static, (Option<Address>, End)>>,
    waiting: VecDeque<Out>,
    memory: Memory,
    complained: Option<Instant>,
}

/// How a command ended.
enum End {
    Done(Json),
    /// Together with a picture, which goes first.
    Picture(Message, Json),
    Ask(Ask, Json),
    Failed(String),
    /// It goes on: reports say how.
    Later,
}

impl Commands {
    /// `base` is `vedette/<group>/<node>`. With `limit` `None` nothing is taken.
    pub(in crate::sinks::mqtt) fn new(
        limit: Option<Role>,
        base: String,
        hub: Hub,
        pictures: Arc<dyn TakePicture>,
    ) -> Self {
        let doer = Arc::new(Doer { hub: hub.clone(), pictures });
        Self {
            limit,
            base,
            hub,
            doer,
            running: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            memory: Memory::default(),
            complained: None,
        }
    }

    /// What to subscribe to, at QoS 1.
    pub(in crate::sinks::mqtt) fn filters(&self) -> Vec<String> {
        // All roles: a request beyond what this device takes is told so.
        self.limit.iter().map(|_| format!("{}/command/+", self.base)).collect()
    }

    /// What is to be sent or asked next. Cancel safe; commands go on only while this is awaited.
    pub(in crate::sinks::mqtt) async fn next(&mut self) -> Out {
        loop {
            tokio::select! {
                biased;
                // So that what was taken begins now, and not when a slow line has taken the answers before it.
                Some((address, end)) = self.running.next() => self.ended(address, end),
                () = std::future::ready(()), if !self.waiting.is_empty() => {
                    if let Some(out) = self.waiting.pop_front() {
                        return out;
                    }
                }
                report = self.hub.next_report() => self.reported(report),
            }
        }
    }

    /// What waits already, for a goodbye.
    pub(in crate::sinks::mqtt) fn try_next(&mut self) -> Option<Out> {
        self.waiting.pop_front()
    }

    /// A message from here, and those that wait right behind it: as many as go together.
    pub(in crate::sinks::mqtt) fn with_next(&mut self, letter: Letter) -> Vec<Letter> {
        let mut letters = vec![letter];
        while letters.len() < TOGETHER
            && let Some(Out::Send(letter)) = self.waiting.pop_front_if(|out| matches!(out, Out::Send(_)))
        {
            letters.push(letter);
        }
        letters
    }

    /// A message from here that did not get through. It comes again before all others.
    pub(in crate::sinks::mqtt) fn give_back(&mut self, letter: Letter) {
        self.waiting.push_front(Out::Send(letter));
    }

    /// A command of Sparkplug's `Node Control/`: `Identify`. It gets no answer.
    pub(in crate::sinks::mqtt) fn control(&mut self, name: &str) {
        let command = match name {
            "Identify" => Command::Identify { seconds: None },
            _ => return self.complain(&format!("there is no Node Control/{name}")),
        };
        let needed = catalog::role(&command);
        if self.limit < Some(needed) {
            return self.complain(&self.beyond_limit(needed));
        }
        if self.running.len() >= room(needed) {
            return self.complain("there are too many that are being done already");
        }
        self.start(None, "NCMD", command);
    }

    /// `false`: it is no request, but something else that came in.
    pub(in crate::sinks::mqtt) fn take(&mut self, received: &Received) -> bool {
        let below = received.topic.strip_prefix(&self.base).and_then(|rest| rest.strip_prefix("/command/"));
        let Some(role) = below else { return false };
        let role = match role {
            "viewer" => Role::Viewer,
            "operator" => Role::Operator,
            "admin" => Role::Admin,
            _ => {
                self.complain("the last level of the topic must be viewer, operator or admin");
                return true;
            }
        };
        if received.retain {
            self.complain("a retained request is ignored, because it would be done again at each connect");
            return true;
        }
        if self.is_full(role) {
            self.complain("answers wait for the line; no request is taken until they are gone");
            return true;
        }
        self.request(role, received);
        true
    }

    fn request(&mut self, role: Role, received: &Received) {
        let (id, request) = match request::read(&received.payload) {
            Ok(request) => (request.id.clone(), Ok(request)),
            Err(request::Fault { id: Some(id), what }) => (id, Err(what)),
            Err(request::Fault { id: None, what }) => return self.complain(&what),
        };
        let name = request.as_ref().map_or("", |request| &request.command);
        let asked = Asked::new(role, request.as_ref().map_err(|_| &received.payload[..]));
        let address = match Address::of(&self.base, &id, name, asked, received) {
            Ok(address) => address,
            Err(what) => return self.complain(&what),
        };
        match self.memory.seen(&id) {
            Some(answer) if answer.is_to(&address) => return self.send(address.message(answer)),
            // It says nothing of the other one, and what is known of that stays.
            Some(_) => {
                let what = "this id was used for another command; a new one is needed for each";
                let answer = Answer::new(&address, State::Failed, self.hub.now(), Some(what.into()), None);
                return self.send(address.message(&answer));
            }
            None => {}
        }
        match request.and_then(|request| self.judge(role, &request)) {
            Err(what) => self.say(&address, State::Failed, Some(what), None),
            // A device that could not hear this would roll back although all is well. It takes no time.
            Ok(command) if self.running.len() >= room(role) && !matches!(command, Command::ConfigConfirm { .. }) => {
                let running = self.running.len();
                let what = format!("{running} commands are being done already; try again when one of them has ended");
                self.say(&address, State::Failed, Some(what), None);
            }
            Ok(command) => {
                self.say(&address, State::Accepted, None, None);
                self.start(Some(address), &format!("{role}, id {id}"), command);
            }
        }
    }

    fn judge(&self, role: Role, request: &Request) -> Result<Command, String> {
        let needed = catalog::role_of(&request.command)?;
        if self.limit < Some(needed) {
            return Err(self.beyond_limit(needed));
        }
        if role < needed {
            let (base, name) = (&self.base, &request.command);
            return Err(format!("{name} needs the role {needed}: send it to {base}/command/{needed}"));
        }
        catalog::parse(request)
    }

    fn beyond_limit(&self, needed: Role) -> String {
        match self.limit {
            None => "this device takes no commands ([mqtt] commands = \"none\")".into(),
            Some(limit) => {
                format!("this device takes no commands of the role {needed} ([mqtt] commands = \"{limit}\")")
            }
        }
    }

    fn start(&mut self, address: Option<Address>, who: &str, command: Command) {
        if catalog::role(&command) > Role::Viewer {
            let what = catalog::describe(&command);
            info!(command = %what, by = who, "A command is taken.");
            self.hub.raise(EventKind::CommandTaken, SOURCE, format!("Command: {what} (by {who})"));
        }
        let (doer, heard) = (self.doer.clone(), Instant::now());
        self.running.push(Box::pin(async move {
            if heard.elapsed() >= LATE {
                let late = heard.elapsed().as_secs();
                return (
                    address,
                    End::Failed(format!("not done: the connection was lost before it could begin, {late} s ago")),
                );
            }
            let demand = match (command, &address) {
                (Command::ConfigApply { toml, confirm_within }, Some(address)) => {
                    let (id, address) = (address.id.clone(), address.to_text());
                    Ok(Demand::Apply(Apply { id, toml, confirm_within, address }))
                }
                (Command::Update { url, sha256, version }, Some(address)) => {
                    let (id, address) = (address.id.clone(), address.to_text());
                    Ok(Demand::Update(Update { id, url, sha256, version, address }))
                }
                (command, _) => Err(command),
            };
            let end = match demand {
                // It goes on for longer than a request waits, and perhaps than this connection lasts.
                Ok(demand) => doer.hub.ask(demand).await.map_or_else(End::Failed, |_| End::Later),
                Err(command) => doer.run(command, heard).await,
            };
            (address, end)
        }));
    }

    fn ended(&mut self, address: Option<Address>, end: End) {
        let Some(address) = address else {
            match end {
                End::Failed(why) => warn!(%why, "A command failed."),
                End::Ask(ask, _) => self.waiting.push_back(Out::Ask(ask)),
                End::Done(_) | End::Picture(..) | End::Later => {}
            }
            return;
        };
        match end {
            End::Done(result) => self.say(&address, State::Done, None, Some(result)),
            End::Picture(message, result) => {
                self.send(message);
                self.say(&address, State::Done, None, Some(result));
            }
            End::Ask(ask, result) => {
                self.waiting.push_back(Out::Ask(ask));
                self.say(&address, State::Done, None, Some(result));
            }
            End::Failed(why) => {
                info!(command = address.command, %why, "A command failed.");
                self.say(&address, State::Failed, Some(why), None);
            }
            End::Later => {}
        }
    }

    fn reported(&mut self, Report { address, news, arrived }: Report) {
        let Some(address) = Address::from_text(&address) else {
            warn!("The answer to a command has no address any more.");
            // Nor will it ever have one, so nobody needs to try again.
            if let Some(arrived) = arrived {
                let _ = arrived.send(());
            }
            return;
        };
        let (state, text) = match news {
            News::Progress(text) => (State::Progress, text),
            News::Done(text) => (State::Done, text),
            News::Failed(text) => (State::Failed, text),
        };
        let answer = Answer::new(&address, state, self.hub.now(), Some(text), None);
        self.post(&address, answer, arrived);
    }

    fn say(&mut self, address: &Address, state: State, reason: Option<String>, result: Option<Json>) {
        let answer = Answer::new(address, state, self.hub.now(), reason, result);
        self.post(address, answer, None);
    }

    fn post(&mut self, address: &Address, answer: Answer, arrived: Option<oneshot::Sender<()>>) {
        self.waiting.push_back(Out::Send(Letter { message: address.message(&answer), arrived }));
        self.memory.keep(answer);
    }

    fn send(&mut self, message: Message) {
        self.waiting.push_back(Out::Send(Letter { message, arrived: None }));
    }

    fn is_full(&self, role: Role) -> bool {
        let times = if role == Role::Admin { 2 } else { 1 };
        let bytes = |out: &Out| match out {
            Out::Send(letter) => letter.message.payload.len(),
            Out::Ask(_) => 0,
        };
        self.waiting.len() >= times * WAITING || self.waiting.iter().map(bytes).sum::<usize>() >= times * WAITING_BYTES
    }

    /// About a request to which no answer can go.
    fn complain(&mut self, what: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
            self.complained = Some(Instant::now());
            warn!("Ignored a command: {what}.");
        }
    }
}

/// Commands that may be being done when another of this role comes.
fn room(role: Role) -> usize {
    RUNNING.iter().find(|(of, _)| *of == role).map_or(0, |(_, room)| *room)
}

#[cfg(test)]
mod tests;
