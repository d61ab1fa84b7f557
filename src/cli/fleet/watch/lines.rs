//! Without a terminal: a line for each node whose state changes.

use super::super::super::remote::{Failure, Output};
use super::super::super::show;
use super::super::host::{Host, State};
use super::super::words;
use crate::model::Timestamp;
use std::collections::HashMap;

pub(super) struct Lines {
    pub output: Output,
    /// As it was told last: the state, the devices that are lost, and the cameras.
    told: HashMap<String, (State, Vec<String>, usize)>,
}

impl Lines {
    pub(super) fn new(is_json: bool) -> Self {
        Self { output: Output::new(is_json), told: HashMap::new() }
    }

    /// After a message about this node.
    pub(super) fn tell(&mut self, host: &mut Host, key: &str, now: Timestamp) -> Result<(), Failure> {
        let Some(node) = host.node_mut(key) else { return Ok(()) };
        let lost: Vec<String> = node.lost().into_iter().map(str::to_owned).collect();
        let is_now = (node.state(), lost, node.summary().cameras_lost);
        if self.told.get(key) == Some(&is_now) {
            return Ok(());
        }
        if self.output.is_json {
            let mut object = words::node_json(node);
            object["time"] = show::time(now).into();
            self.output.json(&object)?;
        } else {
            let (state, lost, _) = &is_now;
            let summary = node.summary();
            let mut line = format!("{now}  {:<6} {}", state.name(), show::printable(key));
            if let Some(version) = &summary.version {
                line.push_str(&format!("  version {}", show::printable(version)));
            }
            if summary.cameras > 0 {
                line.push_str(&format!("  cameras {}", words::cameras(summary)));
            }
            if !lost.is_empty() {
                line.push_str(&format!("  lost: {}", show::printable(&lost.join(", "))));
            }
            if summary.bad > 0 {
                line.push_str(&format!("  bad values: {}", summary.bad));
            }
            self.output.line(&line)?;
        }
        self.told.insert(key.to_owned(), is_now);
        Ok(())
    }
}
