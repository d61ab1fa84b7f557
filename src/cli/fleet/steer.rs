//! Writing metrics of any Sparkplug node: NCMD for the node, DCMD for a device of it.
//!
//! A value needs the metric's type, which only the birth tells; so a birth is asked for. That a command arrived is nothing
//! Sparkplug says: the answer is the new value among the data. Where the value was so before, nothing can answer, and that
//! is said.

use super::super::typed::Wanted;
use super::call::Ending;
use super::host::metric::{Held, Metric, tag_type};
use super::host::{Host, Life};
use super::node::Address;
use super::say;
use super::session::Session;
use crate::model::Value;
use crate::mqtt::line::ClientError;
use crate::mqtt::sparkplug::proto::DataType as Type;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// What `--type` may be.
pub(super) type Kind = Type;

/// A metric, and what it is to be.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    name: String,
    text: String,
}

/// For clap: `NAME=VALUE`.
pub(super) fn assignment(text: &str) -> Result<Assignment, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Assignment { name: name.into(), text: value.into() }),
        _ => Err("write NAME=VALUE".into()),
    }
}

/// For clap: a type by Sparkplug's name, in upper or lower case.
pub(super) fn kind(text: &str) -> Result<Kind, String> {
    let all = (1..=34).filter_map(|number| Type::try_from(number).ok()).filter(|kind| tag_type(*kind).is_some());
    let mut names = Vec::new();
    for kind in all {
        if kind.as_str_name().eq_ignore_ascii_case(text) {
            return Ok(kind);
        }
        names.push(kind.as_str_name());
    }
    Err(format!("write one of {}", names.join(", ")))
}

pub(super) async fn steer(
    session: &mut Session,
    to: &Address,
    device: Option<&str>,
    assignments: &[Assignment],
    kind: Option<Kind>,
    timeout: Duration,
) -> Result<Ending, ClientError> {
    let until = Instant::now() + timeout;
    let is_control = |assignment: &Assignment| device.is_none() && assignment.name.starts_with("Node Control/");
    let needs_birth = kind.is_none() && !assignments.iter().all(is_control);
    if needs_birth && !is_born(session, to, device, until).await? {
        let who = device.map_or("it".to_owned(), |device| format!("its device {device:?}"));
        let seconds = timeout.as_secs_f64();
        let what = format!("{who} did not say within {seconds} s of which type its metrics are; --type says it");
        return Ok(Ending::Unanswered(what));
    }
    let mut metrics = Vec::new();
    for assignment in assignments {
        let told = match (kind, is_control(assignment)) {
            (Some(kind), _) => kind,
            (None, true) => Type::Boolean,
            (None, false) => match metric(&session.host, to, device, &assignment.name) {
                Some(metric) => metric.kind,
                None => return Ok(Ending::Failed(format!("there is no metric {:?}", assignment.name))),
            },
        };
        match value(told, &assignment.text) {
            Ok(value) => metrics.push((assignment.name.clone(), told, value)),
            Err(what) => return Ok(Ending::Failed(format!("{}: {what}", assignment.name))),
        }
    }
    let is_so = |host: &Host| {
        metrics.iter().all(|(name, _, value)| {
            metric(host, to, device, name).is_some_and(|metric| metric.held == Held::Value(value.clone()))
        })
    };
    let was_so = is_so(&session.host);
    let command = say::command(&to.group, &to.node, device, metrics.clone(), session.now());
    session.publish(command).await?;
    if metrics.iter().all(|(name, ..)| name.starts_with("Node Control/")) {
        return Ok(Ending::Done(json!("sent; a node does not answer this")));
    }
    if was_so {
        return Ok(Ending::Done(json!("sent; it was so already")));
    }
    let until = Instant::now() + timeout;
    while session.next_until(until).await?.is_some() {
        if is_so(&session.host) {
            return Ok(Ending::Done(json!("the new value was reported")));
        }
    }
    let seconds = timeout.as_secs_f64();
    Ok(Ending::Unanswered(format!("sent, and the new value was not reported within {seconds} s")))
}

/// Asks for a birth, and waits for it.
async fn is_born(
    session: &mut Session,
    to: &Address,
    device: Option<&str>,
    until: Instant,
) -> Result<bool, ClientError> {
    let now = session.now();
    session.publish(say::rebirth(&to.group, &to.node, now)).await?;
    loop {
        let node = session.host.node(&to.to_string()).filter(|node| node.life == Life::Born);
        let is_born = match device {
            None => node.is_some(),
            Some(device) => {
                node.and_then(|node| node.devices.get(device)).is_some_and(|device| device.life == Life::Born)
            }
        };
        if is_born {
            return Ok(true);
        }
        if session.next_until(until).await?.is_none() {
            return Ok(false);
        }
    }
}

fn metric<'a>(host: &'a Host, to: &Address, device: Option<&str>, name: &str) -> Option<&'a Metric> {
    let node = host.node(&to.to_string())?;
    match device {
        None => node.metrics.get(name),
        Some(device) => node.devices.get(device)?.metrics.get(name),
    }
}

fn value(kind: Type, text: &str) -> Result<Value, String> {
    let (data_type, is_array) = tag_type(kind).ok_or_else(|| format!("a {} cannot be written", kind.as_str_name()))?;
    let rank = if is_array { 1 } else { -1 };
    Wanted { data_type, rank, names: Vec::new() }.parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_the_metrics_type() {
        assert_eq!(value(Type::Int8, "-5"), Ok(Value::SByte(-5)));
        assert_eq!(value(Type::Text, "a=b"), Ok(Value::string("a=b")));
        assert!(value(Type::Int16Array, "[1, -2]").unwrap().is_array());
        assert!(value(Type::UInt8, "256").unwrap_err().contains("out of the range"));
        assert!(value(Type::DataSet, "1").unwrap_err().contains("cannot be written"));
        assert_eq!(kind("uint16"), Ok(Type::UInt16));
        assert!(kind("number").unwrap_err().contains("Double") && assignment("=1").is_err());
    }
}
