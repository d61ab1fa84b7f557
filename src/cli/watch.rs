//! `vedette watch`: a line for each change.

use super::read::value;
use super::remote::{self, About, Failure, Feed, Interrupt, News, Output, Reading, Server};
use super::show::{self, Much};
use crate::base::{Clock, duration};
use crate::model::Timestamp;
use opcua::types::StatusCode;
use serde_json::json;
use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// NodeIds (ns=2;s=Speed, nsu=urn:plant;s=Speed) or browse paths (/Objects/2:Line 1/Speed).
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
    /// How often the server looks for a change, and tells it.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration::parse)]
    interval: Duration,
    /// Changes that are smaller are not told: 0.5, or 1% of the node's range.
    #[arg(long, value_name = "CHANGE")]
    deadband: Option<remote::Deadband>,
    /// End after so many lines.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    time: Option<Duration>,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(follow(arguments))
}

async fn follow(arguments: &Arguments) -> Result<(), Failure> {
    let nodes = remote::node_refs(&arguments.nodes)?;
    let access = arguments.server.access()?;
    let connection = access.open().await?;
    let mut interrupt = Interrupt::new()?;
    let abouts = remote::abouts(&connection, &nodes).await?;
    let feed = Feed { access, nodes, interval: arguments.interval, deadband: arguments.deadband };
    let (sender, receiver) = Feed::queue();
    let (stop, stopped) = watch::channel(false);
    let printing = async {
        let mut printer =
            Printer { arguments, abouts, output: Output::new(arguments.json), lines: 0, refused: HashSet::new() };
        let time = arguments.time.unwrap_or(Duration::MAX);
        let printed = tokio::select! {
            printed = printer.run(receiver) => printed,
            () = tokio::time::sleep(time) => Ok(()),
            () = interrupt.received() => Ok(()),
        };
        stop.send_replace(true);
        printed.and(if printer.refused.is_empty() { Ok(()) } else { Err(Failure::Said) })
    };
    let (followed, printed) = tokio::join!(feed.run(connection, sender, stopped), printing);
    printed.and(followed)
}

struct Printer<'a> {
    arguments: &'a Arguments,
    abouts: Vec<About>,
    output: Output,
    lines: u64,
    /// Those that the server does not watch, or not yet.
    refused: HashSet<usize>,
}

impl Printer<'_> {
    async fn run(&mut self, mut news: mpsc::Receiver<News>) -> Result<(), Failure> {
        let (mut is_lost, mut is_begun) = (false, false);
        while let Some(news) = news.recv().await {
            is_begun |= matches!(news, News::Begun | News::Lost(_));
            match news {
                // Those that are watched may be faster than the news of those that are not.
                News::Value(..) if self.is_full() => {}
                News::Value(index, reading) => {
                    self.refused.remove(&index);
                    self.print(index, &reading)?;
                    self.lines += 1;
                }
                News::Refused(index, status) => self.refuse(index, status),
                News::Begun if self.refused.len() == self.arguments.nodes.len() && !is_lost => {
                    return Err(Failure::Said);
                }
                News::Begun if is_lost => {
                    is_lost = false;
                    self.output.note("connected again");
                }
                News::Begun => {}
                News::Lost(reason) => {
                    is_lost = true;
                    self.refused.clear();
                    self.output.note(&format!("the connection was lost: {reason}; trying again until Ctrl-C"));
                }
                News::Dropped(count) => {
                    self.output.note(&format!("{count} changes are not shown: they came faster than they are printed"));
                }
            }
            if is_begun && self.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.arguments.count == Some(self.lines)
    }

    fn refuse(&mut self, index: usize, status: StatusCode) {
        self.refused.insert(index);
        self.output.note(&remote::of_node(&self.arguments.nodes[index], status));
    }

    fn print(&mut self, index: usize, reading: &Reading) -> Result<(), Failure> {
        let (written, about) = (&self.arguments.nodes[index], &self.abouts[index]);
        if self.output.is_json {
            let mut object = json!({
                "node": written,
                "value": show::json(&reading.value),
                "type": show::data_type(&reading.value),
                "status": show::status(reading.status),
                "sourceTime": reading.source_time.map(show::time),
                "serverTime": reading.server_time.map(show::time),
            });
            if let Some(unit) = &about.unit {
                object["unit"] = json!(unit);
            }
            return self.output.json(&object);
        }
        let time = reading.source_time.or(reading.server_time).unwrap_or_else(|| Timestamp::from(Clock::real().now()));
        let value = value(reading, about, Much::LINE);
        let status = if reading.status.0 == 0 { String::new() } else { format!("  {}", show::status(reading.status)) };
        self.output.line(&format!("{time}  {written} = {value}{status}"))
    }
}
