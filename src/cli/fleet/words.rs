//! A node and its metrics in words and as JSON: the same for all commands.

use super::super::show::{self, Much};
use super::host::metric::{Held, Metric, QualityCode};
use super::host::summary::Summary;
use super::host::{Node, State};
use crate::model::Timestamp;
use serde_json::{Value as Json, json};

/// `3d 04h`, `2h 05m`, `4m 07s`, `12s`
pub(super) fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".into();
    }
    let seconds = seconds as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes:02}m"),
        (days, hours, ..) if days < 1000 => format!("{days}d {hours:02}h"),
        (days, ..) => format!("{days}d"),
    }
}

/// How long ago; a clock that is ahead of ours has said it now.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    span((now.millis() - then.millis()).max(0) as f64 / 1000.0)
}

pub(super) fn count(number: Option<f64>) -> String {
    match number {
        None => String::new(),
        Some(number) if number < 100_000.0 => format!("{number:.0}"),
        Some(number) if number < 1e7 => format!("{:.0}k", number / 1e3),
        Some(number) => format!("{:.0}M", number / 1e6),
    }
}

/// `2/3` of which two deliver.
pub(super) fn cameras(summary: &Summary) -> String {
    match summary.cameras {
        0 => String::new(),
        all => format!("{}/{all}", all - summary.cameras_lost),
    }
}

pub(super) fn held(metric: &Metric, much: Much) -> String {
    match &metric.held {
        Held::Null => "null".into(),
        Held::Value(value) => show::value(value, much),
        Held::Json(text) => {
            let shown: String = text.chars().take(much.characters).collect();
            let rest = if shown.len() < text.len() { "…" } else { "" };
            format!("{}{rest}", show::printable(&shown))
        }
        Held::Long(bytes) => format!("({bytes} bytes)"),
        Held::Unreadable => "(is not of its type)".into(),
    }
}

pub(super) fn quality(quality: QualityCode) -> &'static str {
    match quality {
        QualityCode::Bad => "bad",
        QualityCode::Good => "good",
        QualityCode::Stale => "stale",
    }
}

pub(super) fn metric_json(node: &Node, device: Option<&str>, metric: &Metric) -> Json {
    let value = match &metric.held {
        Held::Null | Held::Long(_) | Held::Unreadable => Json::Null,
        Held::Value(value) => show::json(value),
        Held::Json(text) => serde_json::from_str(text).unwrap_or(Json::Null),
    };
    let mut object = json!({
        "group": &*node.group,
        "node": &*node.name,
        "metric": &*metric.name,
        "type": metric.kind.as_str_name(),
        "value": value,
        "quality": quality(node.quality(device, metric.quality)),
        "time": metric.time.map(show::time),
    });
    if let Some(device) = device {
        object["device"] = json!(device);
    }
    if let Some(reason) = &metric.reason {
        object["reason"] = json!(&**reason);
    }
    if let Some(unit) = &metric.unit {
        object["unit"] = json!(&**unit);
    }
    if let Held::Long(bytes) = metric.held {
        object["bytes"] = json!(bytes);
    }
    object
}

pub(super) fn node_json(node: &mut Node) -> Json {
    let state: State = node.state();
    let summary = node.summary().clone();
    let lost = node.lost();
    json!({
        "group": &*node.group,
        "node": &*node.name,
        "state": state.name(),
        "version": summary.version.as_deref(),
        "uptime": summary.uptime,
        "queue": summary.queue,
        "cameras": summary.cameras,
        "camerasLost": summary.cameras_lost,
        "devices": node.devices.len(),
        "lost": lost,
        "bad": summary.bad,
        "born": node.born.map(show::time),
        "lastSeen": show::time(node.heard),
        "missed": node.missed,
        "faulty": node.faulty,
        "leftOut": node.left_out(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.9, "59s"),
            (61.0, "1m 01s"),
            (7500.0, "2h 05m"),
            (273_600.0, "3d 04h"),
            (1e8, "1157d"),
            (-1.0, "-"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(span(seconds), text);
        }
        let numbers = [0.0, 99_999.0, 123_456.0, 12_345_678.0].map(|number| count(Some(number)));
        assert_eq!(numbers, ["0", "99999", "123k", "12M"]);
    }
}
