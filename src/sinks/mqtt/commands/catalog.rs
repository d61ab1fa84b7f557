//! The commands: what each is called, who may, what arguments it takes. Read into types that cannot be wrong.

use super::request::Request;
use crate::base::{duration, logs};
use crate::model::{Role, TagName};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::Value as Json;
use std::time::Duration;

#[derive(Debug)]
pub(super) enum Command {
    Status,
    List { pattern: String },
    Read { tags: Vec<TagName> },
    Snapshot { camera: String, max_bytes: Option<u64> },
    Log { lines: usize, level: logs::Level },
    Write { tag: TagName, value: Json },
    Rebirth,
    Identify { seconds: Option<u64> },
    Reboot,
    LogLevel { filter: String, seconds: Option<u64> },
    Update { url: String, sha256: String, version: String },
    ConfigGet,
    ConfigApply { toml: String, confirm_within: Duration },
    ConfigConfirm { id: String },
}

/// Name, the role that it takes, and its arguments as an example.
const COMMANDS: [(&str, Role, &str); 14] = [
    ("status", Role::Viewer, "{}"),
    ("list", Role::Viewer, r#"{"pattern": "system/**"}"#),
    ("read", Role::Viewer, r#"{"tags": ["demo/sine"]}"#),
    ("snapshot", Role::Viewer, r#"{"camera": "line1", "max_bytes": 200000}"#),
    ("log", Role::Viewer, r#"{"lines": 100, "level": "info"}"#),
    ("write", Role::Operator, r#"{"tag": "demo/set_point", "value": 42}"#),
    ("rebirth", Role::Operator, "{}"),
    ("identify", Role::Operator, r#"{"seconds": 30}"#),
    ("reboot", Role::Admin, "{}"),
    ("log_level", Role::Admin, r#"{"filter": "debug", "seconds": 300}"#),
    ("update", Role::Admin, r#"{"url": "https://...", "sha256": "64 digits", "version": "1.2.3"}"#),
    ("config.get", Role::Admin, "{}"),
    ("config.apply", Role::Admin, r#"{"toml": "[device] ...", "confirm_within": "2m"}"#),
    ("config.confirm", Role::Admin, r#"{"id": "the id of config.apply"}"#),
];

/// Tags in one request.
const MOST_TAGS: usize = 1000;
/// What the ring of the log holds.
const MOST_LINES: usize = 1000;
/// An hour of blinking is enough to find anything.
const LONGEST_IDENTIFY: u64 = 3600;
/// After a day nobody remembers that the log is loud.
const LONGEST_LOG: u64 = 86_400;
const CONFIRM: Duration = Duration::from_secs(120);
const LONGEST_CONFIRM: Duration = Duration::from_secs(3600);

fn known(name: &str) -> Result<&'static (&'static str, Role, &'static str), String> {
    let names = || COMMANDS.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let known = COMMANDS.iter().find(|(known, ..)| *known == name);
    known.ok_or_else(|| {
        format!("there is no command {:?}; there are {}", name.chars().take(32).collect::<String>(), names())
    })
}

/// What it takes to say this.
pub(super) fn role_of(name: &str) -> Result<Role, String> {
    known(name).map(|(_, role, _)| *role)
}

pub(super) fn role(command: &Command) -> Role {
    match command {
        Command::Status
        | Command::List { .. }
        | Command::Read { .. }
        | Command::Snapshot { .. }
        | Command::Log { .. } => Role::Viewer,
        Command::Write { .. } | Command::Rebirth | Command::Identify { .. } => Role::Operator,
        Command::Reboot
        | Command::LogLevel { .. }
        | Command::Update { .. }
        | Command::ConfigGet
        | Command::ConfigApply { .. }
        | Command::ConfigConfirm { .. } => Role::Admin,
    }
}

/// For log and event, without what may be secret or long.
pub(super) fn describe(command: &Command) -> String {
    match command {
        Command::Write { tag, value } => {
            let text: String = value.to_string().chars().take(64).collect();
            format!("write {tag} = {text}")
        }
        Command::LogLevel { filter, .. } => format!("log_level {filter:?}"),
        Command::Update { version, .. } => format!("update to {version:?}"),
        Command::ConfigApply { toml, .. } => format!("config.apply of {} bytes", toml.len()),
        Command::ConfigConfirm { id } => format!("config.confirm {id:?}"),
        Command::Rebirth => "rebirth".into(),
        Command::Identify { .. } => "identify".into(),
        Command::Reboot => "reboot".into(),
        Command::ConfigGet => "config.get".into(),
        Command::Status | Command::List { .. } | Command::Read { .. } => "look at tags".into(),
        Command::Snapshot { camera, .. } => format!("snapshot {camera:?}"),
        Command::Log { .. } => "log".into(),
    }
}

pub(super) fn parse(request: &Request) -> Result<Command, String> {
    let (name, _, example) = known(&request.command)?;
    let command = match *name {
        "status" => args::<Nothing>(request).map(|_| Command::Status),
        "list" => args(request).map(|List { pattern }| Command::List { pattern }),
        "read" => args(request).map(|Read { tags }| Command::Read { tags }),
        "snapshot" => args(request).map(|Snapshot { camera, max_bytes }| Command::Snapshot { camera, max_bytes }),
        "log" => args(request).map(|Log { lines, level }| Command::Log { lines, level }),
        "write" => args(request).map(|Write { tag, value }| Command::Write { tag, value }),
        "rebirth" => args::<Nothing>(request).map(|_| Command::Rebirth),
        "identify" => args(request).map(|Identify { seconds }| Command::Identify { seconds }),
        "reboot" => args::<Nothing>(request).map(|_| Command::Reboot),
        "log_level" => args(request).map(|LogLevel { filter, seconds }| Command::LogLevel { filter, seconds }),
        "update" => args(request).map(|Update { url, sha256, version }| Command::Update { url, sha256, version }),
        "config.get" => args::<Nothing>(request).map(|_| Command::ConfigGet),
        "config.apply" => {
            args(request).map(|Apply { toml, confirm_within }| Command::ConfigApply { toml, confirm_within })
        }
        _ => args(request).map(|Confirm { id }| Command::ConfigConfirm { id }),
    };
    let command = command.and_then(|command| check(&command).map(|()| command));
    command.map_err(|what| format!("{what}; {name} takes args such as {example}"))
}

/// What a type alone cannot say.
fn check(command: &Command) -> Result<(), String> {
    let within = |what: &str, value: u64, from: u64, to: u64| match (from..=to).contains(&value) {
        true => Ok(()),
        false => Err(format!("{what} is {value} and must be from {from} to {to}")),
    };
    match command {
        Command::Read { tags } => within("the number of tags", tags.len() as u64, 1, MOST_TAGS as u64),
        Command::Snapshot { max_bytes: Some(bytes), .. } => within("max_bytes", *bytes, 4096, 3 << 20),
        Command::Log { lines, .. } => within("lines", *lines as u64, 1, MOST_LINES as u64),
        Command::Identify { seconds: Some(seconds) } => within("seconds", *seconds, 1, LONGEST_IDENTIFY),
        Command::LogLevel { filter, seconds } => {
            logs::check(filter).map_err(|error| error.to_string())?;
            seconds.map_or(Ok(()), |seconds| within("seconds", seconds, 1, LONGEST_LOG))
        }
        Command::Update { url, sha256, version } => check_update(url, sha256, version),
        Command::ConfigApply { confirm_within, .. } => {
            let is_within = (Duration::from_secs(1)..=LONGEST_CONFIRM).contains(confirm_within);
            if is_within { Ok(()) } else { Err("confirm_within must be from \"1s\" to \"1h\"".into()) }
        }
        _ => Ok(()),
    }
}

fn check_update(url: &str, sha256: &str, version: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if host.is_empty() || url.len() > 2048 || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("url must be https://HOST/PATH".into());
    }
    if sha256.len() != 64 || !sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("sha256 must be 64 hexadecimal digits".into());
    }
    if !(1..=64).contains(&version.len()) || !version.chars().all(|c| c.is_ascii_graphic()) {
        return Err("version must be 1 to 64 characters without blanks".into());
    }
    Ok(())
}

fn args<T: DeserializeOwned>(request: &Request) -> Result<T, String> {
    serde_json::from_value(Json::Object(request.args.clone())).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default = "all", deserialize_with = "pattern")]
    pattern: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    tags: Vec<TagName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    camera: String,
    max_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(default = "hundred")]
    lines: usize,
    #[serde(default)]
    level: logs::Level,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    tag: TagName,
    value: Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identify {
    seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    filter: String,
    seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    url: String,
    sha256: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apply {
    toml: String,
    #[serde(default = "two_minutes", deserialize_with = "duration::deserialize")]
    confirm_within: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    id: String,
}

fn all() -> String {
    "**".into()
}

fn hundred() -> usize {
    100
}

fn two_minutes() -> Duration {
    CONFIRM
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let pattern = String::deserialize(deserializer)?;
    match crate::base::selection::check_pattern(&pattern) {
        Some(what) => Err(D::Error::custom(what)),
        None => Ok(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: &str, args: Json) -> Request {
        let Json::Object(args) = args else { panic!("an object") };
        Request { id: "a".into(), command: command.into(), args }
    }

    #[test]
    fn each_example_is_right_and_its_role_is_the_one_of_the_table() {
        for (name, needed, example) in COMMANDS {
            let mut example: Json = serde_json::from_str(example).unwrap();
            if let Some(sha256) = example.get_mut("sha256") {
                *sha256 = Json::String("0a".repeat(32));
                example["url"] = Json::String("https://updates.example/vedette.raucb".into());
            }
            let command = parse(&request(name, example)).unwrap();
            assert_eq!((role(&command), role_of(name)), (needed, Ok(needed)), "{name}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused_with_what_would_be_right() {
        use serde_json::json;
        let sha = "0".repeat(64);
        for (name, args, words) in [
            ("reboot", json!({"when": "now"}), "unknown field `when`"),
            ("read", json!({}), "missing field `tags`"),
            ("read", json!({"tags": []}), "from 1 to 1000"),
            ("read", json!({"tags": ["a//b"]}), "empty segment"),
            ("list", json!({"pattern": "a//b"}), "empty segment"),
            ("log", json!({"lines": 5000}), "from 1 to 1000"),
            ("log", json!({"level": "loud"}), "`error`, `warn`"),
            ("snapshot", json!({"camera": "x", "max_bytes": 1}), "from 4096"),
            ("identify", json!({"seconds": -1}), "invalid value"),
            ("log_level", json!({"filter": "a=b=c"}), "is not understood"),
            ("update", json!({"url": "ftp://x", "sha256": sha, "version": "1"}), "https://HOST"),
            ("update", json!({"url": "https:///x", "sha256": sha, "version": "1"}), "https://HOST"),
            ("update", json!({"url": "https://x/y", "sha256": "00", "version": "1"}), "64 hex"),
            ("update", json!({"url": "https://x/y", "sha256": sha, "version": ""}), "1 to 64"),
            ("config.apply", json!({"toml": "", "confirm_within": 5}), "invalid duration"),
            ("config.apply", json!({"toml": "", "confirm_within": "2h"}), "from \"1s\" to \"1h\""),
        ] {
            let error = parse(&request(name, args.clone())).unwrap_err();
            assert!(error.contains(words) && error.contains("takes args such as"), "{name} {args}: {error}");
        }
        let error = parse(&request("shutdown", json!({}))).unwrap_err();
        assert!(error.contains("no command \"shutdown\"") && error.contains("config.apply"), "{error}");
    }

    #[test]
    fn what_is_written_down_has_no_configuration_in_it() {
        let apply = parse(&request("config.apply", serde_json::json!({"toml": "password = 'x'"}))).unwrap();
        assert_eq!(describe(&apply), "config.apply of 14 bytes");
    }
}
