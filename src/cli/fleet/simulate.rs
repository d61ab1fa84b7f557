//! `vedette fleet simulate`: many devices against a broker, and what it makes of them.

use super::super::remote::{self, Failure, Interrupt, Output};
use super::broker::Broker;
use crate::app::{Counts, Simulated, Simulation};
use crate::base::duration;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    broker: Broker,
    /// How many; each has a connection of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// Tags of each device; all of them change at each interval.
    #[arg(long, value_name = "M", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tags: u32,
    /// How often the tags change.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    interval: Duration,
    /// The group of the devices.
    #[arg(long, value_name = "GROUP", default_value = "Simulated", value_parser = super::group)]
    group: String,
    /// The nodes are NAME-00001 and on.
    #[arg(long, value_name = "NAME", default_value = "sim", value_parser = super::group)]
    name: String,
    /// End after this time. Default: with Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    time: Option<Duration>,
    /// For scripts: one JSON object a second, and one in the end.
    #[arg(long)]
    json: bool,
}

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.interval < Duration::from_millis(10) {
        return super::super::complain(super::super::WRONG, "--interval must be 10ms or more");
    }
    remote::run(simulate(arguments))
}

async fn simulate(arguments: &Arguments) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    let simulated = Simulated {
        access: arguments.broker.connect()?.access,
        group: arguments.group.clone(),
        name: arguments.name.clone(),
        devices: arguments.devices as usize,
        tags: arguments.tags as usize,
        interval: arguments.interval,
    };
    let simulation = Simulation::start(&simulated).map_err(|error| Failure::failed(error.to_string()))?;
    let mut show =
        Show { output: Output::new(arguments.json), last: Counts::default(), most: 0, began: Instant::now() };
    let time = arguments.time.unwrap_or(Duration::MAX);
    let shown = tokio::select! {
        shown = show.run(&simulation) => shown,
        () = tokio::time::sleep(time) => Ok(()),
        () = interrupt.received() => Ok(()),
    };
    let (counts, time) = (simulation.counts(), show.began.elapsed());
    simulation.stop().await;
    shown?;
    show.end(counts, time, arguments.devices)
}

struct Show {
    output: Output,
    last: Counts,
    /// Births in one second.
    most: u64,
    began: Instant,
}

impl Show {
    async fn run(&mut self, simulation: &Simulation) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval_at(self.began + SECOND, SECOND);
        loop {
            ticks.tick().await;
            self.second(simulation.counts())?;
        }
    }

    fn second(&mut self, now: Counts) -> Result<(), Failure> {
        let last = std::mem::replace(&mut self.last, now);
        let (births, messages, bytes) =
            (now.births - last.births, now.messages - last.messages, now.bytes - last.bytes);
        let (connects, refused) = (now.connects - last.connects, now.refused - last.refused);
        self.most = self.most.max(births);
        let seconds = self.began.elapsed().as_secs_f64().round();
        if self.output.is_json {
            return self.output.json(&json!({
                "second": seconds, "connected": now.connected, "connects": connects, "refused": refused,
                "births": births, "messages": messages, "bytes": bytes,
            }));
        }
        self.output.line(&format!(
            "{seconds:>5} s  connected {:>6}  connects {connects:>5}  refused {refused:>5}  births {births:>5}  messages \
             {messages:>6}  {:>8.1} kB",
            now.connected,
            bytes as f64 / 1e3
        ))
    }

    fn end(&mut self, counts: Counts, time: Duration, devices: u32) -> Result<(), Failure> {
        let seconds = time.as_secs_f64();
        let again = counts.connects.saturating_sub(u64::from(devices));
        let size = counts.birth_bytes.checked_div(counts.births).unwrap_or(0);
        if self.output.is_json {
            return self.output.json(&json!({
                "seconds": seconds, "devices": devices, "connects": counts.connects, "reconnects": again,
                "refused": counts.refused, "births": counts.births, "mostBirthsPerSecond": self.most, "birthBytes": size,
                "messages": counts.messages, "bytes": counts.bytes,
            }));
        }
        self.output.line(&format!(
            "{devices} devices in {seconds:.0} s: {} connects ({again} again), {} refused; {} births of {size} bytes, {} a second \
             at most; {} messages, {:.1} MB",
            counts.connects,
            counts.refused,
            counts.births,
            self.most,
            counts.messages,
            counts.bytes as f64 / 1e6
        ))
    }
}
