//! Modbus by TCP, by RTU on a serial line, and by RTU through a network: coils, inputs and registers as tags.
//!
//!     Config ──check──► resolve ──► Line (one task's worth each) ──► unit ──► job (its tags of one interval) ──► block (a request)
//!                                     │ link ─ tokio-modbus ─ sieve ─ wire
//!                                     └ next: write? scan? probe of a silent unit?
//!
//! - `config`: what an integrator writes; `check`: what is wrong with it; `resolve`: what runs.
//! - Pure: `layout` (registers to values and back), `plan` (tags to requests), `fault` (exceptions to qualities).
//! - `wire`, `sieve`, `link`: one question, one answer, and what else can come of it.
//! - `line`, `unit`, `scan`, `write`, `status`: who is asked what, and when.
//!
//! A value's source time is that of the answer it came with: Modbus carries none, and a gateway's clients expect one.
//! All lines of a table run in one task; a line does one thing at a time, as a serial line must and many TCP devices can.

mod check;
mod config;
mod fault;
mod layout;
mod line;
mod link;
mod plan;
mod resolve;
mod scan;
mod sieve;
mod status;
mod unit;
mod wire;
mod write;

pub use config::Config;

use super::{Finding, Place, Source, SourceError};
use crate::base::Stop;
use crate::hub::{Hub, Registration, WriteRequest};
use crate::model::{Quality, Status, TagId};
use async_trait::async_trait;
use futures_util::future::join_all;
use line::Line;
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Writes that wait for one line. When it is full a further one is refused: the line is slower than those who write.
const PENDING_WRITES: usize = 64;

impl super::Config for Config {
    fn table(&self) -> &'static str {
        "[[modbus]]"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Vec<Finding> {
        self.faults()
    }

    fn register(&self, _: &Place, hub: &Hub) -> Result<Box<dyn Source>, SourceError> {
        let (tags, lines) = self.lines(hub)?;
        let of_line = |(index, line): (usize, &Line)| -> Vec<(TagId, usize)> {
            line.units.iter().flat_map(|unit| unit.tags()).map(|tag| (tag, index)).collect()
        };
        let line_of = lines.iter().enumerate().flat_map(of_line).collect();
        Ok(Box::new(Modbus { tags, lines, line_of }))
    }
}

/// The source, with its tags registered.
struct Modbus {
    tags: Registration,
    lines: Vec<Line>,
    line_of: HashMap<TagId, usize>,
}

#[async_trait]
impl Source for Modbus {
    async fn run(&mut self, stop: &Stop) {
        let (mut writes, mut runs) = (Vec::new(), Vec::new());
        for line in &mut self.lines {
            let (sender, mut requests) = mpsc::channel(PENDING_WRITES);
            writes.push(sender);
            runs.push(async move { line.run(&mut requests).await });
        }
        tokio::select! {
            _ = join_all(runs) => {}
            () = route(&mut self.tags, &self.line_of, &writes) => {}
            () = stop.stopped() => {}
        }
    }
}

/// Hands each write to the line of its tag.
async fn route(tags: &mut Registration, line_of: &HashMap<TagId, usize>, lines: &[mpsc::Sender<WriteRequest>]) {
    loop {
        let request = tags.next_write().await;
        let line = line_of.get(&request.tag).and_then(|&line| lines.get(line));
        if let Some(Err(refused)) = line.map(|line| line.try_send(request)) {
            let reason = "too many writes wait for this line";
            // Whoever asked may have given up.
            let _ = refused.into_inner().reply.send(Err(Quality::new(Status::BAD_RESOURCE_UNAVAILABLE, reason)));
        }
    }
}

#[cfg(test)]
mod tests;
