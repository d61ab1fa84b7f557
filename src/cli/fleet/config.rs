//! `vedette fleet config`: a device's configuration, read and changed so that nobody is locked out.
//!
//!     apply ──► device: checks, applies, may reconnect ──progress "applied"──► here: is it the new one? ──confirm──► done
//!                  └── no confirmation in time: rolled back by itself
//!
//! What confirms is that the device, by its new configuration, was reached and told the SHA-256 of that configuration. The
//! text itself it gives back without its secrets.

use super::super::remote::{self, Failure, Interrupt, Output};
use super::broker::{Broker, explain};
use super::call::{self, AnswerState, Ending, Patience, Request};
use super::host::Limits;
use super::node::{self, Address, Written};
use super::session::Session;
use crate::app;
use crate::base::duration;
use crate::mqtt::line::ClientError;
use clap::Subcommand;
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the configuration that a device runs with.
    Get(Get),
    /// Give a device a new configuration; it rolls back by itself unless it can be reached afterwards.
    Apply(Apply),
    /// Confirm a configuration that was applied with --no-confirm.
    Confirm(Confirm),
}

#[derive(clap::Args)]
struct Who {
    #[command(flatten)]
    broker: Broker,
    /// The device: GROUP/NODE, or NODE if it can be heard.
    #[arg(value_name = "NODE", value_parser = node::parse)]
    node: Written,
    /// How long to listen for a node that is not written in full.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    time: Duration,
    /// How long an answer may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
    /// For scripts: one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Get {
    #[command(flatten)]
    who: Who,
}

#[derive(clap::Args)]
struct Apply {
    #[command(flatten)]
    who: Who,
    /// The new configuration.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The device rolls back unless it is confirmed within this time.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration::parse)]
    within: Duration,
    /// Only apply; `vedette fleet config confirm` does the rest.
    #[arg(long)]
    no_confirm: bool,
}

#[derive(clap::Args)]
struct Confirm {
    #[command(flatten)]
    who: Who,
    /// What `apply --no-confirm` printed.
    #[arg(value_name = "ID")]
    id: String,
}

/// Between two questions to a device that is on its way back.
const AGAIN: Duration = Duration::from_secs(2);

/// Where a device tells the SHA-256 of the configuration that runs.
const HASH: &str = "device/Configuration/Hash";

const ADMIN: &str = "admin";

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(async {
        let mut interrupt = Interrupt::new()?;
        let work = async {
            match &arguments.command {
                Command::Get(get) => self::get(&get.who).await,
                Command::Apply(apply) => self::apply(apply).await,
                Command::Confirm(confirm) => self::confirm(confirm).await,
            }
        };
        tokio::select! {
            done = work => done,
            () = interrupt.received() => {
                Err(Failure::failed("interrupted; what is not confirmed rolls back by itself".into()))
            }
        }
    })
}

impl Who {
    /// Its answers are all that is listened to.
    async fn open(&self) -> Result<(Session, Address), Failure> {
        let address = node::find_one(&self.broker, &self.node, self.time).await?;
        Ok((self.broker.open_quietly(Limits::FEW, Vec::new()).await?, address))
    }

    fn patience(&self) -> Patience {
        Patience { answer: self.timeout, end: self.timeout.max(Duration::from_secs(60)) }
    }
}

async fn get(who: &Who) -> Result<(), Failure> {
    let (mut session, address) = who.open().await?;
    let result = ask(&mut session, &address, who, "config.get", json!({})).await?;
    let mut output = Output::new(who.json);
    match (output.is_json, text_of(&result)) {
        (true, _) => output.json(&json!({ "group": address.group, "node": address.node, "config": text_of(&result) })),
        // As a file: nothing before it, nothing after it, and what a terminal must not see is written as TOML can say it.
        (false, Some(text)) => output.line(&super::super::show::lines(text.trim_end_matches('\n'), "")),
        (false, None) => Err(Failure::failed(format!("{address}: what it gave is no configuration: {result}"))),
    }
}

/// The configuration in the result of `config.get`.
fn text_of(result: &Json) -> Option<&str> {
    result.as_str().or_else(|| result.get("toml").and_then(Json::as_str))
}

async fn ask(session: &mut Session, address: &Address, who: &Who, command: &str, args: Json) -> Result<Json, Failure> {
    let request = Request::new(command, args, ADMIN);
    let ending = call::call(session, address, &request, who.patience(), |_, _| None).await;
    done(address, ending)
}

fn done(address: &Address, ending: Result<Ending, ClientError>) -> Result<Json, Failure> {
    match ending.map_err(|error| Failure::failed(explain(&error)))? {
        Ending::Done(result) => Ok(result),
        Ending::Failed(reason) => Err(Failure::failed(format!("{address}: {reason}"))),
        Ending::Unanswered(reason) => Err(Failure::Silent(format!(
            "{address}: {reason}\nis it on, and does its [mqtt] commands allow admin? The broker's access list may keep this \
             user from vedette/{address}/command/admin"
        ))),
    }
}

async fn confirm(arguments: &Confirm) -> Result<(), Failure> {
    let who = &arguments.who;
    let (mut session, address) = who.open().await?;
    ask(&mut session, &address, who, "config.confirm", json!({ "id": arguments.id })).await?;
    say_done(who, &address, &arguments.id, "confirmed")
}

fn say_done(who: &Who, address: &Address, id: &str, state: &str) -> Result<(), Failure> {
    let mut output = Output::new(who.json);
    match who.json {
        true => output.json(&json!({ "group": address.group, "node": address.node, "id": id, "state": state })),
        false => output.line(state),
    }
}

async fn apply(arguments: &Apply) -> Result<(), Failure> {
    let who = &arguments.who;
    let toml = std::fs::read_to_string(&arguments.file)
        .map_err(|error| Failure::Wrong(format!("cannot read {}: {error}", arguments.file.display())))?;
    let (mut session, address) = who.open().await?;
    let mut output = Output::new(who.json);
    let within = format!("{}s", arguments.within.as_secs());
    let args = json!({ "toml": toml, "confirm_within": within });
    let request = Request::new("config.apply", args, ADMIN);
    let rest = Patience { answer: who.timeout, end: arguments.within + who.timeout };
    // Until it is applied, or refused; a device that has to reconnect says so after that.
    let applied = call::call(&mut session, &address, &request, rest, |_, answer| {
        let answer = answer?;
        if let Some(said) = call::progress(answer) {
            output.note(&format!("{address}: {said}"));
        }
        let reason = answer.reason.as_deref().unwrap_or_default();
        let is_applied = answer.state == AnswerState::Progress && reason.starts_with("applied");
        is_applied.then_some(Ending::Done(Json::Null))
    });
    done(&address, applied.await)?;
    if arguments.no_confirm {
        output.note(&format!(
            "it rolls back unless it is confirmed within {within}: vedette fleet config confirm {} \"{address}\" {}",
            who.broker.url(),
            request.id
        ));
        return say_done(who, &address, &request.id, "applied");
    }
    let until = Instant::now() + arguments.within;
    check(&mut session, &address, who, &app::hash(&toml), until).await?;
    let confirm = Request::new("config.confirm", json!({ "id": request.id }), ADMIN);
    let confirmed = call::call(&mut session, &address, &confirm, who.patience(), |_, _| None).await;
    done(&address, confirmed)?;
    say_done(who, &address, &request.id, "confirmed")
}

/// Waits until the device tells that it runs the configuration that it was given.
async fn check(session: &mut Session, address: &Address, who: &Who, hash: &str, until: Instant) -> Result<(), Failure> {
    // It says that it is applied, and a moment later it is among its tags.
    let shown = Instant::now() + who.timeout;
    loop {
        let request = Request::new("read", json!({ "tags": [HASH] }), ADMIN);
        let patience = Patience { answer: AGAIN, end: who.timeout };
        let ending = call::call(session, address, &request, patience, |_, _| None).await;
        match ending.map_err(|error| Failure::failed(explain(&error)))? {
            Ending::Done(rows) if rows[0]["value"] == hash => return Ok(()),
            Ending::Done(_) if Instant::now() < shown.min(until) => tokio::time::sleep(AGAIN / 4).await,
            Ending::Done(_) => {
                let what = "it runs another configuration than the one it was given; not confirmed, so it rolls back by itself";
                return Err(Failure::failed(format!("{address}: {what}")));
            }
            Ending::Failed(reason) => return Err(Failure::failed(format!("{address}: {reason}; not confirmed"))),
            Ending::Unanswered(_) if Instant::now() < until => {}
            Ending::Unanswered(_) => {
                let what = "it was not reached with its new configuration; not confirmed, so it rolls back by itself";
                return Err(Failure::Silent(format!("{address}: {what}")));
            }
        }
    }
}
