//! `vedette fleet get`: what a node says of itself, metric by metric.
//!
//! Only a birth tells all of it, so one is asked for, unless nothing may be asked: then what is heard is shown.

use super::super::glob::Glob;
use super::super::remote::{self, Failure, Interrupt, Output};
use super::super::show::{self, Much};
use super::broker::{Broker, explain};
use super::host::metric::{Metric, QualityCode};
use super::host::{Life, Limits, Node, Policy};
use super::node::{self, Written};
use super::session::{self, Session};
use super::{say, words};
use crate::base::duration;
use crate::mqtt::line::ClientError;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    broker: Broker,
    /// The node: GROUP/NODE, or NODE if it can be heard.
    #[arg(value_name = "NODE", value_parser = node::parse)]
    node: Written,
    /// Metrics, as NAME or DEVICE/NAME, with * and ?. Default: all.
    #[arg(value_name = "METRIC")]
    metrics: Vec<Glob>,
    /// How long to wait for the node; before that, if it is not written in full, how long to listen for it.
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    time: Duration,
    /// Long texts and arrays as a whole.
    #[arg(long)]
    full: bool,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// After the last birth, and for the births of its devices.
const QUIET: Duration = Duration::from_millis(500);

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(get(arguments))
}

async fn get(arguments: &Arguments) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    let address = tokio::select! {
        found = node::find_one(&arguments.broker, &arguments.node, arguments.time) => found?,
        () = interrupt.received() => return Err(Failure::failed("interrupted".into())),
    };
    let filters = session::node(Some(&address.group), &address.node);
    let mut session = arguments.broker.open(Limits::FEW, filters).await?;
    let key = address.to_string();
    let heard = tokio::select! {
        heard = hear(&mut session, &address, arguments) => heard,
        () = interrupt.received() => return Err(Failure::failed("interrupted".into())),
    };
    heard.map_err(|error| Failure::failed(explain(&error)))?;
    let Some(node) = session.host.node(&key) else {
        return Err(Failure::failed(format!(
            "{key}: nothing was heard of it within {} s\nis it switched on, and is its name spelled right? \
             `vedette fleet ls` shows who speaks; its group is a part of its name",
            arguments.time.as_secs_f64()
        )));
    };
    let mut output = Output::new(arguments.json);
    let mut is_any = false;
    for (device, metric) in node.each() {
        let device = device.map(|device| &**device);
        if fits(&arguments.metrics, device, metric) {
            is_any = true;
            print(&mut output, node, device, metric, arguments)?;
        }
    }
    match node.life {
        Life::Dead => output.note(&format!("{key} is dead; these are the last values")),
        Life::Heard | Life::Missed => {
            output.note(&format!("{key}: its birth was not heard; there may be more metrics"))
        }
        Life::Born => {}
    }
    match is_any {
        true => Ok(()),
        false => Err(Failure::failed(format!("{key}: no metric is called so; without a pattern all are shown"))),
    }
}

async fn hear(session: &mut Session, address: &node::Address, arguments: &Arguments) -> Result<(), ClientError> {
    let until = Instant::now() + arguments.time;
    if arguments.broker.policy() != Policy::No {
        let now = session.now();
        session.publish(say::rebirth(&address.group, &address.node, now)).await?;
    }
    let key = address.to_string();
    loop {
        let node = session.host.node(&key);
        // A device whose birth is on its way is waited for as long as one that is not known of at all.
        let is_whole = node.is_some_and(|node| node.life == Life::Born);
        let wait = if is_whole { until.min(Instant::now() + QUIET) } else { until };
        let mut is_quiet = true;
        while let Some(received) = session.next_until(wait).await? {
            if received.topic.contains("BIRTH/") {
                is_quiet = false;
                break;
            }
        }
        if is_quiet {
            return Ok(());
        }
    }
}

fn fits(patterns: &[Glob], device: Option<&str>, metric: &Metric) -> bool {
    let whole = device.map(|device| format!("{device}/{}", metric.name));
    patterns.is_empty()
        || patterns.iter().any(|glob| glob.fits(&metric.name) || whole.as_ref().is_some_and(|whole| glob.fits(whole)))
}

fn print(
    output: &mut Output,
    node: &Node,
    device: Option<&str>,
    metric: &Metric,
    arguments: &Arguments,
) -> Result<(), Failure> {
    if output.is_json {
        return output.json(&words::metric_json(node, device, metric));
    }
    let much = if arguments.full { Much::ALL } else { Much::LINE };
    let name = device.map(|device| format!("{device}/")).unwrap_or_default() + &metric.name;
    let unit = metric.unit.as_ref().map(|unit| format!(" {unit}")).unwrap_or_default();
    let quality = match node.quality(device, metric.quality) {
        QualityCode::Good => String::new(),
        other => format!("  {}", words::quality(other)),
    };
    let reason = metric.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let time = metric.time.map(|time| format!("  {}", show::time(time))).unwrap_or_default();
    let value = words::held(metric, much);
    let line = format!(
        "{} = {value}{}{quality}{}{time}  {}",
        show::printable(&name),
        show::printable(&unit),
        show::printable(&reason),
        metric.kind.as_str_name()
    );
    output.line(&line)
}
