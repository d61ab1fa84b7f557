//! `vedette fleet ls`: who speaks, and how they are.

use super::super::remote::{self, Failure, Interrupt, Output};
use super::super::show;
use super::broker::{Broker, explain};
use super::host::{Host, Limits};
use super::words;
use super::{session, watch};
use crate::base::duration;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    broker: Broker,
    /// Only this group. Default: all.
    #[arg(long, value_name = "GROUP", value_parser = super::group)]
    group: Option<String>,
    /// How long to listen.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    time: Duration,
    /// For scripts: one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(ls(arguments))
}

async fn ls(arguments: &Arguments) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    let filters = session::fleet(arguments.group.as_deref());
    let mut session = arguments.broker.open(Limits::FLEET, filters).await?;
    let mut output = Output::new(arguments.json);
    let until = Instant::now() + arguments.time;
    let listening = async {
        while session.next_until(until).await?.is_some() {
            let nodes = session.host.nodes().count();
            output.progress.tell(|| format!("listening: {nodes} nodes so far"));
        }
        Ok(())
    };
    let listened = tokio::select! {
        listened = listening => listened,
        () = interrupt.received() => return Err(Failure::failed("interrupted".into())),
    };
    listened.map_err(|error| Failure::failed(explain(&error)))?;
    let now = session.now();
    if output.is_json {
        for node in session.host.nodes_mut() {
            output.json(&words::node_json(node))?;
        }
        for (host, primary) in session.host.hosts() {
            let time = primary.time.map(show::time);
            output.json(&json!({ "host": host, "online": primary.is_online, "time": time }))?;
        }
    } else {
        let rows = watch::Rows::new(&mut session.host, &watch::Order::default(), "", now);
        for line in rows.lines() {
            output.line(&line)?;
        }
    }
    said_beside(&mut output, &session.host, arguments);
    Ok(())
}

/// What is not in the table.
fn said_beside(output: &mut Output, host: &Host, arguments: &Arguments) {
    if host.nodes().next().is_none() {
        let seconds = arguments.time.as_secs_f64();
        output.note(&format!(
            "nobody spoke within {seconds} s; nodes that only speak when something changes may take longer: --for 60s"
        ));
    }
    if !output.is_json {
        for (host, primary) in host.hosts() {
            output.note(&format!("host {host} is {}", if primary.is_online { "online" } else { "offline" }));
        }
    }
    for (count, what) in [
        (host.counts.garbage, "messages were no Sparkplug"),
        (host.counts.left_out, "messages of nodes or hosts were left out: there are too many"),
    ] {
        if count > 0 {
            output.note(&format!("{count} {what}"));
        }
    }
}
