//! Commands being done. What is about tags goes to the hub, what is about the device to whoever takes demands there.

use super::catalog::Command;
use super::{Ask, End, TakePicture, look};
use crate::hub::{Demand, Hub, Outcome};
use crate::model::TagName;
use crate::sinks::mqtt::value::from_json;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const IDENTIFY: u64 = 30;

/// What commands are done with.
pub(super) struct Doer {
    pub(super) hub: Hub,
    pub(super) pictures: Arc<dyn TakePicture>,
}

impl Doer {
    /// `heard` is when the command came in.
    pub(super) async fn run(&self, command: Command, heard: Instant) -> End {
        let hub = &self.hub;
        match command {
            Command::Status => look::status(hub),
            Command::List { pattern } => look::list(hub, pattern),
            Command::Read { tags } => look::read(hub, tags).await,
            Command::Snapshot { camera, max_bytes } => self.snapshot(&camera, max_bytes).await,
            Command::Log { lines, level } => look::log(lines, level),
            Command::Write { tag, value } => self.write(&tag, &value).await,
            Command::Rebirth => End::Ask(Ask::Birth, json!("a birth follows")),
            Command::Identify { seconds } => {
                self.ask(Demand::Identify { lasts: Duration::from_secs(seconds.unwrap_or(IDENTIFY)) }).await
            }
            Command::Reboot => self.ask(Demand::Reboot).await,
            Command::LogLevel { filter, seconds } => {
                self.ask(Demand::Log { filter, lasts: seconds.map(Duration::from_secs) }).await
            }
            Command::ConfigGet => match hub.ask(Demand::Configuration).await {
                Ok(toml) => End::Done(json!({"toml": toml})),
                Err(why) => End::Failed(why),
            },
            Command::ConfigConfirm { id } => self.ask(Demand::Confirm { id, heard }).await,
            Command::ConfigApply { .. } => End::Failed("a trial needs somebody who confirms it".into()),
            Command::Update { .. } => End::Failed("an update needs somebody who hears how it goes".into()),
        }
    }

    async fn ask(&self, demand: Demand) -> End {
        said(self.hub.ask(demand).await)
    }

    async fn write(&self, name: &TagName, value: &Json) -> End {
        let Some(tag) = self.hub.find(name) else {
            return End::Failed(format!("there is no tag {name}; `list` says which there are"));
        };
        let value = match from_json(value, &self.hub.spec(tag)) {
            Ok(value) => value,
            Err(what) => return End::Failed(what),
        };
        match self.hub.write(tag, value).await {
            Ok(()) => End::Done(Json::Null),
            Err(quality) => End::Failed(quality.to_string()),
        }
    }
}

fn said(outcome: Outcome) -> End {
    outcome.map_or_else(End::Failed, |text| End::Done(text.into()))
}
