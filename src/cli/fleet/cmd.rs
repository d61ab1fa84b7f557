//! `vedette fleet cmd`: tells nodes to do something, waits for their answers, and says how it ended.
//!
//! Devices of ours take JSON commands (`call.rs`), any Sparkplug node takes metrics by NCMD and DCMD (`steer.rs`). Each node
//! has a connection of its own, [`AT_ONCE`] at a time.

use super::super::remote::{self, Failure, Interrupt, Output};
use super::super::show;
use super::broker::{Broker, explain};
use super::call::{self, Ending, Patience, Request};
use super::host::Limits;
use super::node::{self, Address, Written};
use super::steer::{self, Assignment};
use super::{say, session};
use crate::base::duration;
use crate::mqtt::line::ClientError;
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value as Json, json};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    broker: Broker,
    /// The node: GROUP/NODE, or NODE if it can be heard; with * and ? several (--all).
    #[arg(value_name = "NODE", value_parser = node::parse)]
    node: Written,
    /// status, list, read, snapshot, log, write, rebirth, identify, reboot, log_level, update, config.get, ...
    #[arg(value_name = "COMMAND", required_unless_present = "metric")]
    command: Option<String>,
    /// Arguments of the command; a value that is no JSON is a text: tag=plc/speed value=5
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    pairs: Vec<(String, Json)>,
    /// The arguments as one JSON object instead.
    #[arg(long, value_name = "JSON", value_parser = object, conflicts_with = "pairs")]
    args: Option<Json>,
    /// Write a metric by NCMD, or by DCMD with --device; any Sparkplug node takes that.
    #[arg(long, value_name = "NAME=VALUE", value_parser = steer::assignment, conflicts_with_all = ["command", "args"])]
    metric: Vec<Assignment>,
    /// The device that --metric is of. Default: the node itself.
    #[arg(long, value_name = "DEVICE", requires = "metric")]
    device: Option<String>,
    /// The Sparkplug type of --metric, as in Int32. Default: what its birth says.
    #[arg(long = "type", value_name = "TYPE", requires = "metric", value_parser = steer::kind)]
    kind: Option<steer::Kind>,
    /// As whom the command is given: viewer, operator, admin. Default: the least that may do it.
    #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator", "admin"])]
    role: Option<String>,
    /// Yes, all of them.
    #[arg(long)]
    all: bool,
    /// How long to listen for nodes that are not written in full.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    time: Duration,
    /// How long the first answer may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
    /// How long it may take in all.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    end: Duration,
    /// For scripts: one JSON object a line, for each node as it ends.
    #[arg(long)]
    json: bool,
}

const AT_ONCE: usize = 8;

/// A device of ours answers at once; so much later a node is taken to be somebody else's.
const FOREIGN: Duration = Duration::from_secs(3);

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(command(arguments))
}

/// What each node is told.
enum Order<'a> {
    Call(&'a str, Json, &'a str),
    Steer(&'a [Assignment]),
}

async fn command(arguments: &Arguments) -> Result<(), Failure> {
    let order = order(arguments)?;
    let mut interrupt = Interrupt::new()?;
    tokio::select! {
        done = tell_all(arguments, &order) => done,
        () = interrupt.received() => Err(Failure::failed("interrupted; what was told already is done all the same".into())),
    }
}

fn order(arguments: &Arguments) -> Result<Order<'_>, Failure> {
    let Some(command) = arguments.command.as_deref() else { return Ok(Order::Steer(&arguments.metric)) };
    let role = match (&arguments.role, call::role(command)) {
        (Some(role), _) => role.as_str(),
        (None, Some(role)) => role,
        (None, None) => {
            let what =
                format!("who may give the command {command:?} is not known here: say --role viewer, operator or admin");
            return Err(Failure::Wrong(what));
        }
    };
    let args = arguments.args.clone().unwrap_or_else(|| Json::Object(arguments.pairs.iter().cloned().collect()));
    Ok(Order::Call(command, args, role))
}

async fn tell_all(arguments: &Arguments, order: &Order<'_>) -> Result<(), Failure> {
    let nodes = node::find(&arguments.broker, &arguments.node, arguments.time).await?;
    if nodes.len() > 1 && !arguments.all {
        let names: Vec<String> = nodes.iter().take(10).map(Address::to_string).collect();
        let rest = if nodes.len() > 10 { ", …" } else { "" };
        let what =
            format!("these are {} nodes: {}{rest}\nsay --all if all of them are meant", nodes.len(), names.join(", "));
        return Err(Failure::Wrong(what));
    }
    let count = nodes.len();
    let mut output = Output::new(arguments.json);
    // What is said of progress, from those that are at it.
    let (sender, mut notes) = mpsc::channel::<String>(AT_ONCE);
    let mut endings = std::pin::pin!(
        stream::iter(nodes)
            .map(|address| {
                let sender = sender.clone();
                async move {
                    let ending = tell(arguments, order, &address, sender).await;
                    (address, ending)
                }
            })
            .buffer_unordered(AT_ONCE)
    );
    let (mut failed, mut unanswered) = (0, 0);
    loop {
        tokio::select! {
            biased;
            Some(note) = notes.recv() => output.note(&note),
            ended = endings.next() => match ended {
                Some((address, ending)) => {
                    // What it said on the way stands before its end.
                    while let Ok(note) = notes.try_recv() {
                        output.note(&note);
                    }
                    // One that cannot be told is no reason to say nothing of the others.
                    let ending = match ending {
                        Err(Failure::Failed(why)) => Ending::Failed(why),
                        other => other?,
                    };
                    failed += usize::from(matches!(ending, Ending::Failed(_)));
                    unanswered += usize::from(matches!(ending, Ending::Unanswered(_)));
                    print(&mut output, order, &address, &ending, count)?;
                }
                None => break,
            },
        }
    }
    if count > 1 && !output.is_json {
        let done = count - failed - unanswered;
        output.note(&format!("{done} done, {failed} failed, {unanswered} without an answer"));
    }
    match (failed, unanswered) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::Unanswered),
        _ => Err(Failure::Said),
    }
}

async fn tell(
    arguments: &Arguments,
    order: &Order<'_>,
    address: &Address,
    notes: mpsc::Sender<String>,
) -> Result<Ending, Failure> {
    // Its births and deaths are heard as well: of a foreign node they are the answer.
    let filters = session::node(Some(&address.group), &address.node);
    let mut session = arguments.broker.open_quietly(Limits::FEW, filters).await?;
    let patience = Patience { answer: arguments.timeout, end: arguments.end };
    let ended = match order {
        Order::Steer(assignments) => {
            let device = arguments.device.as_deref();
            steer::steer(&mut session, address, device, assignments, arguments.kind, arguments.timeout).await
        }
        Order::Call(command, args, role) => {
            let request = Request::new(command, args.clone(), role);
            let is_rebirth = *command == "rebirth";
            let patience = match is_rebirth {
                true => Patience { answer: patience.answer.min(FOREIGN), ..patience },
                false => patience,
            };
            let called = call::call(&mut session, address, &request, patience, |_, answer| {
                if let Some(said) = answer.and_then(call::progress) {
                    // Whoever cannot keep up misses a line of progress, not the end.
                    let _ = notes.try_send(format!("{address}: {said}"));
                }
                None
            });
            match called.await {
                Ok(Ending::Unanswered(_)) if is_rebirth => rebirth(&mut session, address, arguments.timeout).await,
                ended => ended,
            }
        }
    };
    ended.map_err(|error| Failure::failed(explain(&error)))
}

/// As any Sparkplug node understands it.
async fn rebirth(session: &mut session::Session, address: &Address, timeout: Duration) -> Result<Ending, ClientError> {
    let now = session.now();
    session.publish(say::rebirth(&address.group, &address.node, now)).await?;
    let birth = format!("spBv1.0/{}/NBIRTH/{}", address.group, address.node);
    let until = tokio::time::Instant::now() + timeout;
    while let Some(received) = session.next_until(until).await? {
        if received.topic == birth {
            return Ok(Ending::Done(json!("born anew, asked by NCMD")));
        }
    }
    let seconds = timeout.as_secs_f64();
    Ok(Ending::Unanswered(format!("neither an answer nor a birth within {seconds} s")))
}

fn print(
    output: &mut Output,
    order: &Order<'_>,
    address: &Address,
    ending: &Ending,
    count: usize,
) -> Result<(), Failure> {
    if output.is_json {
        let (state, result, reason) = match ending {
            Ending::Done(result) => ("done", result.clone(), None),
            Ending::Failed(reason) => ("failed", Json::Null, Some(reason)),
            Ending::Unanswered(reason) => ("timeout", Json::Null, Some(reason)),
        };
        let command = match order {
            Order::Call(command, ..) => json!(command),
            Order::Steer(_) => Json::Null,
        };
        return output.json(&json!({
            "group": address.group, "node": address.node, "command": command,
            "state": state, "result": result, "reason": reason,
        }));
    }
    match ending {
        Ending::Done(result) => {
            let before = if count > 1 { format!("{address}: ") } else { String::new() };
            let lines = in_words(result);
            let lines = if lines.is_empty() { vec!["done".into()] } else { lines };
            for line in lines {
                output.line(&show::printable(&format!("{before}{line}")))?;
            }
        }
        Ending::Failed(reason) => output.note(&format!("{address}: failed: {reason}")),
        Ending::Unanswered(reason) => output.note(&format!("{address}: {reason}")),
    }
    Ok(())
}

/// A result as lines: text as it is, a list one by one, an object by its keys.
pub(super) fn in_words(result: &Json) -> Vec<String> {
    match result {
        Json::Null => Vec::new(),
        Json::String(text) => text.lines().map(str::to_owned).collect(),
        Json::Array(items) => items.iter().flat_map(in_words_on_a_line).collect(),
        Json::Object(object) => object.iter().map(|(key, value)| format!("{key}: {}", plain(value))).collect(),
        other => vec![other.to_string()],
    }
}

fn in_words_on_a_line(item: &Json) -> Vec<String> {
    match item {
        Json::Object(object) => {
            vec![object.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect::<Vec<_>>().join("  ")]
        }
        other => in_words(other),
    }
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn pair(text: &str) -> Result<(String, Json), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    Ok((key.to_owned(), value))
}

fn object(text: &str) -> Result<Json, String> {
    let parsed: Result<Map<String, Json>, _> = serde_json::from_str(text);
    parsed.map(Json::Object).map_err(|error| format!("{error}; write a JSON object, as in {{\"tag\": \"plc/speed\"}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_or_text() {
        assert_eq!(pair("value=5").unwrap(), ("value".into(), json!(5)));
        assert_eq!(pair("tags=[\"a\"]").unwrap().1, json!(["a"]));
        assert_eq!(pair("url=http://a/b?c=d").unwrap().1, json!("http://a/b?c=d"));
        assert!(pair("value").is_err() && object("[1]").is_err() && object("{\"a\":1}").is_ok());
    }

    #[test]
    fn results_are_lines() {
        assert_eq!(in_words(&json!("a\nb")), ["a", "b"]);
        assert_eq!(in_words(&json!({ "a": 1, "b": "x" })), ["a: 1", "b: x"]);
        assert_eq!(in_words(&json!([{ "name": "a", "value": 1 }, "x"])), ["name=a  value=1", "x"]);
        assert!(in_words(&Json::Null).is_empty());
    }
}
