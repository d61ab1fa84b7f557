//! One connection to the broker, from the first subscription to its end: gives the dialect what happens, and says what it
//! says.
//!
//!     subscribe ──► wait for the primary host, if there is one ──► birth ──► live, backlog, pictures, commands, rebirths
//!
//! Waits for the broker and for nobody else: what commands ask for runs beside it. Whatever could not be said when the
//! connection ends is owed by the store, the outbox or the commands, and comes again with the next one.
//!
//! A sample is older than the birth if it came to the hub with the batch that the birth shows, or before. It goes
//! as history, so that no host takes an old value for the newest.

use super::Setup;
use super::commands::{Commands, Letter, Out};
use super::config::Form;
use super::dialect::{Ask, Dialect, View};
use super::feed::Feed;
use super::forward::Forward;
use super::images::{Queued, Sent as Picture, Way};
use super::writes::Writes;
use crate::base::Selection;
use crate::hub::{Hub, Moment};
use crate::model::{ConditionKind, Sample, TagName};
use crate::mqtt::line::{Client, ClientError, Message, Received};
use crate::store::{Live, Record};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{debug, warn};

/// New tags come in bursts, and hosts ask for rebirths in chorus; one birth answers all of them.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(200);

/// For the others, when live data or the backlog take all the time they can get.
const TURN: Duration = Duration::from_millis(10);

/// How often a piece of the backlog goes, so that its rate is even.
const BACKLOG: Duration = Duration::from_millis(250);

/// How long to wait for the primary host at this broker: then it is another's turn, or people are told.
const HOST: Duration = Duration::from_secs(30);

/// Lines in the log of commands that cannot be done, in each minute of them.
const REFUSALS: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);

const NO_HOST: &str = "the primary host is not there";

pub(super) enum Why {
    Stopped,
    /// On purpose, for this reason.
    Left(String),
}

/// What a connection has come to.
pub(super) enum Stage {
    /// The first birth was said.
    Born,
    /// Nothing may be said yet, and this is why.
    Waiting(&'static str),
}

pub(super) struct Talk<'a> {
    setup: &'a Setup,
    hub: &'a Hub,
    tags: &'a Selection,
    dialect: &'a mut dyn Dialect,
    commands: &'a mut Commands,
    pictures: Way<'a>,
    feed: Feed,
    writes: Writes,
    subscribed: BTreeSet<String>,
    refused: Refused,
    birth: Birth,
}

/// What was said in this minute of commands that cannot be done. Some come again and again, as what is retained does, and some
/// in floods.
#[derive(Default)]
struct Refused {
    since: Option<Instant>,
    said: BTreeSet<String>,
}

impl Refused {
    fn is_new(&mut self, what: &str) -> bool {
        if self.since.is_none_or(|since| since.elapsed() >= MINUTE) {
            (self.since, self.said) = (Some(Instant::now()), BTreeSet::new());
        }
        self.said.len() < REFUSALS && self.said.insert(what.to_owned())
    }
}

/// The last one.
struct Birth {
    at: Instant,
    /// When the next one is to be.
    due: Option<Instant>,
    /// Somebody asked for it: everything anew. Else the tags have changed.
    is_asked: bool,
    /// The number of the newest batch of the hub that the last whole birth shows.
    mark: u64,
    /// Sources and cameras that hosts know to be lost.
    lost: BTreeSet<Arc<str>>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        setup: &'a Setup,
        hub: &'a Hub,
        tags: &'a Selection,
        dialect: &'a mut dyn Dialect,
        commands: &'a mut Commands,
        pictures: Way<'a>,
        forward: Forward,
    ) -> Self {
        let birth = Birth { at: Instant::now(), due: None, is_asked: false, mark: 0, lost: BTreeSet::new() };
        Self {
            feed: Feed::begin(setup.store.as_ref(), hub, tags, forward),
            pictures,
            writes: Writes::default(),
            subscribed: BTreeSet::new(),
            refused: Refused::default(),
            setup,
            hub,
            tags,
            dialect,
            commands,
            birth,
        }
    }

    /// Until the connection ends. May be dropped at any await: the client is left usable, at worst with its last messages on
    /// the way.
    pub(super) async fn hold(
        &mut self,
        client: &mut impl Client,
        mut reached: impl FnMut(Stage),
    ) -> Result<Why, ClientError> {
        let hub = self.hub.clone();
        let mut structure = hub.structure();
        let mut events = hub.events();
        let mut tick = tokio::time::interval(self.setup.config.publish_interval);
        let mut backlog = tokio::time::interval(BACKLOG.min(self.setup.config.publish_interval));
        let mut probe = tokio::time::interval(self.setup.config.keep_alive / 2);
        let is_unproved = self.setup.config.is_unacknowledged();
        for interval in [&mut tick, &mut backlog, &mut probe] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        self.dialect.connected(client.largest());
        let (_, view) = self.view();
        self.subscribe(client, &view).await?;
        self.subscribe_to_commands(client).await?;
        let patience = tokio::time::sleep(HOST);
        tokio::pin!(patience);
        let has_others = self.setup.config.brokers().len() > 1;
        let mut is_told = false;
        loop {
            if !self.dialect.is_born() && self.dialect.may_be_born() {
                structure.mark_unchanged();
                self.be_born(client).await?;
                reached(Stage::Born);
            }
            let is_born = self.dialect.is_born();
            tokio::select! {
                biased;
                received = client.next() => {
                    let (leave, is_refused) = self.hear(&received?);
                    // With nowhere else to go it waits for the primary host where it is.
                    if let Some(reason) = leave.filter(|_| is_born || has_others) {
                        return Ok(Why::Left(reason));
                    }
                    if is_refused {
                        self.say_again(client).await?;
                    }
                }
                () = &mut patience, if !is_born && !is_told => {
                    if has_others {
                        return Ok(Why::Left(NO_HOST.into()));
                    }
                    reached(Stage::Waiting(NO_HOST));
                    is_told = true;
                }
                () = tokio::time::sleep_until(self.birth.due.unwrap_or(self.birth.at)), if is_born && self.birth.due.is_some() => {
                    structure.mark_unchanged();
                    match self.birth.is_asked {
                        true => self.be_born(client).await?,
                        false => self.be_changed(client).await?,
                    }
                }
                changed = structure.changed(), if is_born => {
                    changed.expect("this task holds the hub");
                    self.birth.due.get_or_insert(Instant::now() + DEBOUNCE);
                }
                // Before commands: whoever asks and asks must not silence the device.
                at = tick.tick(), if is_born => {
                    self.say_live(client).await?;
                    rest(&mut tick, at);
                }
                at = backlog.tick(), if is_born => {
                    self.say_backlog(client).await?;
                    rest(&mut backlog, at);
                }
                _ = probe.tick(), if is_born && is_unproved => self.prove(client).await?,
                _ = events.next(), if is_born => self.look_for_the_lost(client).await?,
                (tag, outcome) = self.writes.next() => {
                    if let Err(quality) = outcome {
                        let metric = hub.spec(tag).name.clone();
                        match self.refused.is_new(&format!("{metric}: {quality}")) {
                            true => warn!(%metric, reason = %quality, "A command was refused."),
                            false => debug!(%metric, reason = %quality, "A command was refused."),
                        }
                        self.dialect.refused(tag);
                        self.say_again(client).await?;
                    }
                }
                out = self.commands.next() => self.answer(client, out).await?,
                picture = self.pictures.next(), if is_born && self.birth.due.is_none() => self.send_picture(client, picture).await?,
                () = self.feed.gather(), if is_born => {
                    if self.feed.has_much() {
                        self.say_live(client).await?;
                    }
                }
            }
        }
    }

    /// The largest picture that was on its way.
    pub(super) fn largest_picture(&self) -> Option<Picture> {
        self.pictures.largest()
    }

    /// What is left to say before a goodbye on purpose, and the goodbye.
    pub(super) fn last_words(&mut self, why: &Why) -> Vec<Message> {
        let mut last = match self.birth.due {
            // Who leaves because its host is not there has nobody to tell.
            None if matches!(why, Why::Stopped) && self.dialect.is_born() => {
                let rows = self.sayable();
                self.words(rows)
            }
            _ => Vec::new(),
        };
        while let Some(out) = self.commands.try_next() {
            if let Out::Send(answer) = out {
                last.push(answer.message);
            }
        }
        last.extend(self.dialect.death(self.hub.now()));
        last
    }

    /// To what is new, before anything is said of it, so that whoever answers is heard.
    async fn subscribe(&mut self, client: &mut impl Client, view: &View) -> Result<(), ClientError> {
        let mut filters = self.dialect.filters(&view.tags);
        filters.retain(|filter| !self.subscribed.contains(filter));
        if filters.is_empty() {
            return Ok(());
        }
        self.subscribed.extend(filters.iter().cloned());
        client.subscribe(filters).await
    }

    /// A broker that keeps Sparkplug to its own topics may refuse these.
    async fn subscribe_to_commands(&mut self, client: &mut impl Client) -> Result<(), ClientError> {
        match client.subscribe(self.commands.filters()).await {
            Err(error @ ClientError::Subscribe { .. }) => {
                warn!(%error, "There are no commands as JSON from this broker.");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Everything as it is, and the number of the hub's batch that is.
    fn view(&self) -> (u64, View) {
        let Moment { mark, tags, current } = self.hub.read_all();
        let all = tags.into_iter().zip(current);
        let (tags, current) = all.filter(|((_, spec), _)| self.tags.contains(spec.name.as_str())).unzip();
        (mark, View { tags, current, lost: self.lost().into_iter().collect() })
    }

    /// Everything as it is: the first birth of this connection, or another that somebody asked for.
    async fn be_born(&mut self, client: &mut impl Client) -> Result<(), ClientError> {
        let (mark, view) = self.view();
        self.subscribe(client, &view).await?;
        let messages = self.dialect.birth(&view, self.hub.now());
        self.birth.mark = mark;
        self.show(client, view, messages).await
    }

    /// The set of tags is another. What is not born anew goes on as before.
    async fn be_changed(&mut self, client: &mut impl Client) -> Result<(), ClientError> {
        let (_, view) = self.view();
        self.subscribe(client, &view).await?;
        let messages = self.dialect.changed(&view, self.hub.now());
        self.show(client, view, messages).await
    }

    async fn show(&mut self, client: &mut impl Client, view: View, messages: Vec<Message>) -> Result<(), ClientError> {
        self.birth = Birth {
            at: Instant::now(),
            due: None,
            is_asked: false,
            mark: self.birth.mark,
            lost: view.lost.into_iter().collect(),
        };
        self.pictures.retry();
        self.feed.unpark();
        match client.publish(messages).await {
            // Refused for good: another broker may take it.
            Err(ClientError::Publish { topic, broker, reason }) if self.dialect.is_vital(&topic) => {
                Err(ClientError::Birth { broker, topic, reason })
            }
            outcome => unless_refused(outcome),
        }
    }

    /// Sources and cameras that are lost now, by the folder of their tags.
    fn lost(&self) -> BTreeSet<Arc<str>> {
        let sources = self.hub.lost_sources().into_iter().map(|(name, _)| name);
        let conditions = self.hub.conditions().into_iter();
        let cameras = conditions.filter(|condition| condition.kind == ConditionKind::CameraLost && condition.is_active);
        sources.chain(cameras.map(|condition| condition.source.clone())).collect()
    }

    /// Sources and cameras come and go.
    async fn look_for_the_lost(&mut self, client: &mut impl Client) -> Result<(), ClientError> {
        let lost = self.lost();
        if lost == self.birth.lost || self.birth.due.is_some() {
            return Ok(());
        }
        // What they said before goes before.
        self.say_live(client).await?;
        let now = self.hub.now();
        let mut messages = Vec::new();
        for gone in lost.difference(&self.birth.lost) {
            messages.extend(self.dialect.lost(gone, now));
        }
        if self.birth.lost.difference(&lost).next().is_some() {
            let (_, view) = self.view();
            for back in self.birth.lost.difference(&lost) {
                messages.extend(self.dialect.back(back, &view, now));
            }
            self.feed.unpark();
        }
        self.birth.lost = lost;
        self.pictures.retry();
        say(client, messages).await
    }

    /// A message from the broker; a reason to leave it, if there is one, and whether something was refused.
    fn hear(&mut self, received: &Received) -> (Option<String>, bool) {
        if self.commands.take(received) {
            return (None, false);
        }
        let asks = self.dialect.received(received, self.hub.now());
        let is_refused = asks.iter().any(|ask| matches!(ask, Ask::Refused(_)));
        (asks.into_iter().find_map(|ask| self.ask(ask)), is_refused)
    }

    /// What is as it was, for whoever believes that it was changed.
    async fn say_again(&mut self, client: &mut impl Client) -> Result<(), ClientError> {
        if !self.dialect.is_born() || self.birth.due.is_some() {
            return Ok(());
        }
        let messages = self.dialect.live(&[], self.hub.now());
        say(client, messages).await
    }

    fn ask(&mut self, ask: Ask) -> Option<String> {
        match ask {
            // Nobody is told anything before the primary host is there; then everybody is.
            Ask::Birth if !self.dialect.is_born() => {}
            Ask::Birth => {
                let earliest = Instant::now().max(self.birth.at + DEBOUNCE);
                self.birth.due = Some(self.birth.due.map_or(earliest, |due| due.min(earliest)));
                self.birth.is_asked = true;
            }
            Ask::Write(tag, value) => {
                let name = self.hub.spec(tag).name.clone();
                debug!(metric = %name, "Writing for a command.");
                if !self.writes.push(self.hub.clone(), tag, value) {
                    warn!(metric = %name, "Ignored a command: too many of them wait for their sources.");
                }
            }
            Ask::Control(name) => self.commands.control(&name),
            Ask::Refused(what) if self.refused.is_new(&what) => warn!("Ignored a command: {what}."),
            Ask::Refused(what) => debug!("Ignored a command: {what}."),
            Ask::Leave(reason) => return Some(reason),
        }
        None
    }

    async fn answer(&mut self, client: &mut impl Client, out: Out) -> Result<(), ClientError> {
        match out {
            Out::Ask(ask) => {
                // Commands have no reason to leave.
                let _ = self.ask(ask);
                Ok(())
            }
            Out::Send(letter) => {
                // Together, because the broker may take its time to acknowledge them.
                let letters = self.commands.with_next(letter);
                let outcome = say(client, letters.iter().map(|letter| letter.message.clone()).collect()).await;
                match outcome {
                    Ok(()) => letters.into_iter().for_each(Letter::has_arrived),
                    Err(_) => letters.into_iter().rev().for_each(|letter| self.commands.give_back(letter)),
                }
                outcome
            }
        }
    }

    /// What was gathered. Between the request for a birth and the birth no data may go out (Sparkplug 3.0, 5.17).
    async fn say_live(&mut self, client: &mut impl Client) -> Result<(), ClientError> {
        if self.birth.due.is_some() {
            return Ok(());
        }
        let rows = self.sayable();
        let numbers = match (rows.first(), rows.last()) {
            (Some(first), Some(last)) => first.number..last.number + 1,
            _ => return Ok(()),
        };
        let messages = self.words(rows);
        say(client, messages).await?;
        self.feed.said(numbers);
        Ok(())
    }

    /// What was gathered and can be said now. The rest is the store's again; without a store it is gone.
    fn sayable(&mut self) -> Vec<Live> {
        let rows = self.feed.take();
        if rows.is_empty() {
            return rows;
        }
        let can_say = self.dialect.can_say();
        let (rows, others): (Vec<Live>, Vec<Live>) = rows.into_iter().partition(|row| can_say(&row.tag));
        let (new, old): (Vec<Live>, Vec<Live>) = rows.into_iter().partition(|row| row.mark > self.birth.mark);
        // What is older than the birth stands in the backlog among its like, in the order of the times.
        let is_given_back = self.feed.give_back(old.iter().map(|row| row.number));
        self.feed.park(others.iter().map(|row| row.number));
        if is_given_back { new } else { old.into_iter().chain(new).collect() }
    }

    fn words(&mut self, rows: Vec<Live>) -> Vec<Message> {
        let now = self.hub.now();
        let (mut new, mut old): (Vec<Sample>, Vec<(TagName, Record)>) = Default::default();
        for row in rows {
            if row.mark > self.birth.mark {
                new.push(row.sample);
            } else {
                old.push((row.tag, (&row.sample).into()));
            }
        }
        let mut messages = self.dialect.backlog(&old, now);
        messages.extend(self.dialect.live(&new, now));
        messages
    }

    /// A picture that is a metric has arrived when the broker has answered to something after it.
    async fn send_picture(&mut self, client: &mut impl Client, picture: Queued) -> Result<(), ClientError> {
        let Queued { id, snap, is_historical } = picture;
        let (camera, is_metric) = (snap.camera.clone(), snap.form == Form::Sparkplug);
        self.pictures.begin(id, snap.jpeg.len());
        let message = match is_metric {
            true => self.dialect.picture(&camera, &snap.jpeg, snap.captured, is_historical, self.hub.now()),
            false => Some(snap.message(&self.setup.base())),
        };
        let Some(message) = message else {
            // While the camera is lost its device cannot say anything.
            self.pictures.wait_for_its_camera();
            return Ok(());
        };
        match client.publish(vec![message]).await {
            Ok(()) if is_metric => self.pictures.is_shown(),
            Ok(()) => self.pictures.has_arrived(),
            Err(error @ ClientError::Publish { .. }) => {
                self.pictures.is_refused();
                if self.refused.is_new(&format!("a picture of {camera}")) {
                    warn!(%error, "A picture is dropped; max_bytes of its [[mqtt.image]] says how large they may be.");
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Asks the broker something; what was sent before has arrived if it answers.
    async fn prove(&mut self, client: &mut impl Client) -> Result<(), ClientError> {
        let at = Instant::now();
        client.probe().await?;
        self.feed.prove(at);
        self.pictures.prove(at);
        Ok(())
    }

    async fn say_backlog(&mut self, client: &mut impl Client) -> Result<(), ClientError> {
        self.feed.settle();
        self.setup.status.unsaid(self.dialect.unsaid());
        if self.birth.due.is_some() {
            return Ok(());
        }
        let Some(chunk) = self.feed.backlog(self.dialect.can_say()).await else { return Ok(()) };
        let messages = self.dialect.backlog(&chunk.rows, self.hub.now());
        say(client, messages).await?;
        self.feed.said_chunk(chunk);
        Ok(())
    }
}

/// A message that the broker does not take ends nothing, as it would be refused the next time, too: all others have arrived.
/// What took as long as its interval is not due again at once: first it is the others' turn.
fn rest(interval: &mut Interval, began: Instant) {
    if began.elapsed() >= interval.period() {
        interval.reset_after(TURN.min(interval.period()));
    }
}

async fn say(client: &mut impl Client, messages: Vec<Message>) -> Result<(), ClientError> {
    unless_refused(client.publish(messages).await)
}

fn unless_refused(outcome: Result<(), ClientError>) -> Result<(), ClientError> {
    match outcome {
        Err(error @ ClientError::Publish { .. }) => {
            warn!(%error, "A message was refused and is not sent again.");
            Ok(())
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_again_and_again_is_said_once_a_minute_and_no_flood_fills_the_log() {
        let mut refused = Refused::default();
        assert_eq!([refused.is_new("a"), refused.is_new("a"), refused.is_new("b")], [true, false, true]);
        let flood = (0..1000).filter(|number| refused.is_new(&format!("{number}"))).count();
        assert_eq!(flood, REFUSALS - 2);
        tokio::time::advance(MINUTE).await;
        assert!(refused.is_new("a"));
    }
}
