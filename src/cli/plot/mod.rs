//! `vedette plot`: a live plot in the terminal.
//!
//!     Feed (session's task) ──News──► Series (rings) ──► Figure ──► Screen, SVG, PNG
//!
//! One task takes news, keys and the clock's ticks in turn, so nothing is shared. `series.rs` keeps what came, `figure.rs`
//! makes lines and axes of it, `view.rs` has the keys, `screen.rs` and `save.rs` draw.

mod figure;
mod save;
mod screen;
mod series;
mod view;

use super::remote::{self, Failure, Feed, Interrupt, News, Server};
use super::show;
use crate::base::{Clock, duration};
use crate::model::{Status, Timestamp};
use ratatui::crossterm::event::{self, Event};
use screen::Screen;
use series::Series;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use view::{View, Wish};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// NodeIds (ns=2;s=Speed, nsu=urn:plant;s=Speed) or browse paths (/Objects/2:Line 1/Speed) of numbers and Booleans.
    #[arg(value_name = "NODE", required = true, num_args = 1..=MOST)]
    nodes: Vec<String>,
    /// How much time is shown, 1s to 1day; + and - change it.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    window: Duration,
    /// How often the server looks for a change.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration::parse)]
    interval: Duration,
}

/// More lines than that nobody tells apart.
const MOST: usize = 32;
/// Frames; a terminal far away is not flooded.
const TICK: Duration = Duration::from_millis(100);

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
        let what = "plot draws on a terminal, and this is none; `vedette watch --json` gives values to other programs";
        return super::complain(super::WRONG, what);
    }
    remote::run(plot(arguments))
}

async fn plot(arguments: &Arguments) -> Result<(), Failure> {
    let nodes = remote::node_refs(&arguments.nodes)?;
    let access = arguments.server.access()?;
    let connection = access.open().await?;
    let mut interrupt = Interrupt::new()?;
    let interval = arguments.interval.as_secs_f64().max(0.01);
    let abouts = remote::abouts(&connection, &nodes).await?;
    let series = arguments.nodes.iter().zip(abouts).map(|(written, about)| {
        let name = written.rsplit('/').next().unwrap_or(written);
        Series::new(show::printable(name), about.unit.unwrap_or_default(), interval)
    });
    let mut plot = Plot {
        title: format!("vedette plot {}", access.url()),
        series: series.collect(),
        view: View::new(arguments.window.as_secs_f64()),
        clock: Clock::real(),
        refused: Vec::new(),
    };
    let feed = Feed { access, nodes, interval: arguments.interval, deadband: None };
    let (sender, receiver) = Feed::queue();
    let (stop, stopped) = watch::channel(false);
    let drawing = async {
        let drawn = tokio::select! {
            drawn = plot.run(receiver) => drawn,
            () = interrupt.received() => Ok(()),
        };
        stop.send_replace(true);
        drawn
    };
    let (followed, drawn) = tokio::join!(feed.run(connection, sender, stopped), drawing);
    drawn.and(followed)?;
    // On the terminal that is whole again.
    match plot.refused.as_slice() {
        [] => Ok(()),
        refused => Err(Failure::failed(refused.join("\n"))),
    }
}

struct Plot {
    title: String,
    series: Vec<Series>,
    view: View,
    clock: Clock,
    /// Nodes that were never shown, and why.
    refused: Vec<String>,
}

impl Plot {
    async fn run(&mut self, mut news: mpsc::Receiver<News>) -> Result<(), Failure> {
        let mut screen =
            Screen::open().map_err(|error| Failure::failed(format!("cannot use the terminal: {error}")))?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                next = news.recv() => match next {
                    Some(next) => if self.take(next) { return Ok(()) },
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    while event::poll(Duration::ZERO)? {
                        // A resized terminal is drawn anew in any case.
                        if let Event::Key(key) = event::read()?
                            && self.key(key)
                        {
                            return Ok(());
                        }
                    }
                    let figure = self.view.figure(&self.series, self.now(), screen.columns());
                    screen.draw(&self.title, &self.view, &self.series, &figure)?;
                }
            }
        }
    }

    /// `true`: there is nothing to plot.
    fn take(&mut self, news: News) -> bool {
        let now = self.now();
        match news {
            News::Value(index, reading) => self.series[index].take(&reading, now),
            News::Refused(index, status) => {
                let name = &self.series[index].name;
                self.view.message = format!("{name}: {status}");
                self.refused.push(remote::of_node(name, status));
                return self.refused.len() == self.series.len();
            }
            News::Begun => {
                if self.view.message.starts_with(LOST) {
                    view::KEYS.clone_into(&mut self.view.message);
                }
            }
            News::Lost(reason) => {
                self.series.iter_mut().for_each(|series| series.lose(Status::BAD_NO_COMMUNICATION, now));
                self.refused.clear();
                self.view.message = format!("{LOST}: {reason}; trying again");
            }
            News::Dropped(count) => self.view.message = format!("{count} values came faster than they are drawn"),
        }
        false
    }

    /// `true`: enough.
    fn key(&mut self, key: event::KeyEvent) -> bool {
        let now = self.now();
        let wish = self.view.key(key, &mut self.series, now);
        if let Some(kind) = wish.kind() {
            let figure = self.view.figure(&self.series, now, 1000);
            let saved = save::save(std::path::Path::new("."), kind, now, &self.series, &figure);
            self.view.message = match saved {
                Ok(path) => format!("saved {}", path.display()),
                Err(error) => format!("not saved: {error}"),
            };
        }
        wish == Wish::Quit
    }

    /// Seconds from 1970.
    fn now(&self) -> f64 {
        Timestamp::from(self.clock.now()).ticks() as f64 / 1e7
    }
}

const LOST: &str = "the connection was lost";
