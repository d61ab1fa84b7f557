//! `vedette fleet watch`: a live table of all nodes in the terminal; lines where there is none.
//!
//!     Session (line, host) ──► Rows ──► Screen      one task takes messages, keys and ticks in turn
//!
//! The connection is made again after each loss, and meanwhile the table stays, with all that was missed as stale.

mod lines;
mod rows;
mod screen;
mod view;

pub(super) use rows::{Order, Rows};

use super::super::remote::{self, Failure, Interrupt};
use super::broker::{Broker, explain};
use super::host::{Host, Limits};
use super::session::{self, Session};
use crate::base::{Backoff, Clock, duration};
use crate::mqtt::line::ClientError;
use lines::Lines;
use ratatui::crossterm::event::{self, Event};
use screen::{Drawn, Screen};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;
use view::{Shown, View, Wish};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    broker: Broker,
    /// Only this group. Default: all.
    #[arg(long, value_name = "GROUP", value_parser = super::group)]
    group: Option<String>,
    /// End after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    time: Option<Duration>,
    /// For scripts: no table; one JSON object a line for each change of a node's state.
    #[arg(long)]
    json: bool,
}

/// Keys are taken so often.
const KEYS: Duration = Duration::from_millis(50);
/// Drawn at most so often, for a terminal far away; at once after a key.
const FRAME: Duration = Duration::from_millis(500);
/// Messages that are taken in before keys and screen have their turn.
const AT_ONCE: usize = 2000;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(watch(arguments))
}

async fn watch(arguments: &Arguments) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    // The first time it either works or a person has to know.
    let filters = session::fleet(arguments.group.as_deref());
    let session = arguments.broker.open(Limits::FLEET, filters.clone()).await?;
    let is_table = !arguments.json && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let face = match is_table {
        true => {
            let screen = Screen::open();
            Face::Table(screen.map_err(|error| Failure::failed(format!("cannot use the terminal: {error}")))?)
        }
        false => Face::Lines(Lines::new(arguments.json)),
    };
    let group = arguments.group.as_deref().map(|group| format!("  group {group}")).unwrap_or_default();
    let mut watch = Watch {
        arguments,
        filters,
        title: format!("{}{group}", arguments.broker.url()),
        face,
        view: View::default(),
        drawn: Drawn::default(),
        due: Instant::now(),
    };
    let time = arguments.time.unwrap_or(Duration::MAX);
    tokio::select! {
        watched = watch.run(session) => watched,
        () = tokio::time::sleep(time) => Ok(()),
        () = interrupt.received() => Ok(()),
    }
}

enum Face {
    Table(Screen),
    Lines(Lines),
}

struct Watch<'a> {
    arguments: &'a Arguments,
    filters: Vec<String>,
    title: String,
    face: Face,
    view: View,
    drawn: Drawn,
    /// When it is drawn next.
    due: Instant,
}

impl Watch<'_> {
    /// Until somebody has seen enough.
    async fn run(&mut self, mut session: Session) -> Result<(), Failure> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let lost = match self.follow(&mut session).await? {
                Some(lost) => lost,
                None => return Ok(()),
            };
            let mut host = session.into_host();
            host.lost();
            self.note(&format!("the connection was lost: {lost}; trying again"));
            session = loop {
                let again = Instant::now() + backoff.wait();
                while Instant::now() < again {
                    if self.keys_and_screen(&mut host)? {
                        return Ok(());
                    }
                    tokio::time::sleep(KEYS).await;
                }
                let connect = self.arguments.broker.connect()?;
                match Session::open(connect, host, &self.filters).await {
                    Ok(session) => break session,
                    Err((error, kept)) => {
                        host = kept;
                        let said = explain(&error);
                        self.view.message = Some(format!("{}; trying again", said.lines().next().unwrap_or_default()));
                    }
                }
            };
            backoff.reset();
            self.note("connected again");
        }
    }

    /// `None`: enough; else why the connection ended.
    async fn follow(&mut self, session: &mut Session) -> Result<Option<ClientError>, Failure> {
        let mut turn = Instant::now();
        loop {
            for _ in 0..AT_ONCE {
                match session.next_until(turn).await {
                    Ok(Some(received)) => {
                        if let (Face::Lines(lines), Some((group, node))) =
                            (&mut self.face, Host::speaker(&received.topic))
                        {
                            let now = session.now();
                            lines.tell(&mut session.host, &format!("{group}/{node}"), now)?;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return Ok(Some(error)),
                }
            }
            if self.keys_and_screen(&mut session.host)? {
                return Ok(None);
            }
            turn = Instant::now() + KEYS;
        }
    }

    /// `true`: enough.
    fn keys_and_screen(&mut self, host: &mut Host) -> Result<bool, Failure> {
        let Face::Table(screen) = &mut self.face else { return Ok(false) };
        // Reading from one that is gone would never return.
        if !std::io::stdin().is_terminal() {
            return Ok(true);
        }
        let now = Clock::real().now().into();
        while event::poll(Duration::ZERO)? {
            self.due = Instant::now();
            // A resized terminal is drawn anew in any case.
            let Event::Key(key) = event::read()? else { continue };
            let shown = Shown { keys: &self.drawn.keys, page: self.drawn.page, lines: self.drawn.lines };
            match self.view.key(key, &shown) {
                Wish::Quit => return Ok(true),
                Wish::Birth(node) => host.insist(&node, now),
                Wish::Nothing => {}
            }
        }
        if Instant::now() >= self.due {
            self.drawn = screen.draw(&self.title, host, &self.view, now)?;
            self.due = Instant::now() + FRAME;
        }
        Ok(false)
    }

    fn note(&mut self, text: &str) {
        match &mut self.face {
            Face::Table(_) => self.view.message = Some(text.to_owned()),
            Face::Lines(lines) => lines.output.note(text),
        }
    }
}
