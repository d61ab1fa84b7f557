//! A scan of a job, block by block; and the probes of units that are silent.

use super::fault;
use super::line::{LEAST, Line};
use super::link::Fault;
use super::plan::{Area, Block};
use super::unit::{Health, Unit};
use crate::model::{Quality, Sample, Status as Code};
use std::time::Duration;
use tokio::time::Instant;
use tokio_modbus::{Request, Response};

impl Line {
    pub async fn read(&mut self, unit: usize, job: usize) -> Result<(), String> {
        let own = &mut self.units[unit].jobs[job];
        let Some(block) = own.scan.as_mut().and_then(|scan| scan.todo.pop_front()) else {
            self.end_scan(unit, job);
            return Ok(());
        };
        let (is_retry, is_suspect) = (own.is_known_bad(&block), own.take_suspect(&block));
        let patience = if is_retry { self.usual() } else { self.patience(unit) };
        let began = Instant::now();
        let outcome = self.ask(unit, &question(&block), patience).await;
        let own = &mut self.units[unit].jobs[job];
        let done = match outcome {
            Ok(answer) => {
                own.is_good_again(&block, &self.limits);
                self.publish(unit, job, &block, &answer);
                Ok(())
            }
            Err(Fault::Exception(code)) if !fault::is_of_gateway(code) => {
                let parts = if fault::is_of_block(code) { own.divide(&block, &self.limits) } else { Vec::new() };
                if parts.is_empty() {
                    self.degrade(unit, job, &block, &fault::of_read(code, &block));
                } else if let Some(scan) = &mut own.scan {
                    parts.into_iter().rev().for_each(|part| scan.todo.push_front(part));
                }
                Ok(())
            }
            Err(fault) if is_retry || is_suspect => {
                own.leave_out(&block);
                if is_suspect {
                    let reason = "the unit answers, but not when it is asked for this";
                    self.degrade(unit, job, &block, &Quality::new(Code::BAD_TIMEOUT, reason));
                }
                self.probe_after = Instant::now() + began.elapsed() * 4;
                if self.link.is_open() { Ok(()) } else { self.reopen(fault::of_unit(&fault)).await }
            }
            Err(fault) => self.unanswered(unit, &fault, Some((job, block.extents.start))).await,
        };
        self.end_scan(unit, job);
        done
    }

    fn end_scan(&mut self, unit: usize, job: usize) {
        let own = &mut self.units[unit].jobs[job];
        if let Some(scan) = own.scan.take_if(|scan| scan.todo.is_empty()) {
            self.counts.time = scan.began.elapsed();
        }
    }

    /// What is enough for all that answer.
    fn usual(&self) -> Duration {
        let paces = self.units.iter().filter(|unit| unit.is_good()).filter_map(|unit| unit.pace);
        paces.max().map_or(self.timeout, |pace| (pace * 4).max(LEAST).min(self.timeout))
    }

    pub async fn probe(&mut self, unit: usize) -> Result<(), String> {
        let Some((job, block)) = self.units[unit].probe(&self.limits) else { return Ok(()) };
        let Health::Silent(silence) = &mut self.units[unit].health else { return Ok(()) };
        silence.tries += 1;
        let (tries, culprit) = (silence.tries, silence.culprit);
        let is_patient = tries % 4 == 0 || !self.counts.is_connected;
        let is_last = self.counts.is_connected && !self.units.iter().any(Unit::is_good);
        let patience = match (is_last, is_patient) {
            (true, _) => self.patience(unit),
            (false, true) => self.timeout,
            (false, false) => self.usual(),
        };
        let began = Instant::now();
        let outcome = self.ask(unit, &question(&block), patience).await;
        match outcome {
            Ok(_) | Err(Fault::Exception(_)) if self.units[unit].is_good() => {
                if let Some((of, first)) = culprit.filter(|culprit| *culprit != (job, block.extents.start)) {
                    self.units[unit].jobs[of].suspect(first);
                }
                if let Ok(answer) = outcome {
                    self.publish(unit, job, &block, &answer);
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(_) if is_last => Err(self.nobody()),
            Err(fault) => {
                if let Health::Silent(silence) = &mut self.units[unit].health {
                    silence.wait();
                }
                self.probe_after = Instant::now() + began.elapsed() * 4;
                if self.link.is_open() { Ok(()) } else { self.reopen(fault::of_unit(&fault)).await }
            }
        }
    }

    /// The values of a block; each that makes no sense is bad by itself.
    pub fn publish(&mut self, unit: usize, job: usize, block: &Block, answer: &Response) {
        let now = self.hub.now();
        let own = &self.units[unit];
        let mut batch = Vec::new();
        for (extent, point) in own.jobs[job].points_of(block) {
            let point = &own.points[point];
            let from = usize::from(extent.address - block.address);
            let span = from..from + usize::from(extent.size);
            let value = match answer {
                Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) => {
                    bits.get(span).map(|bits| Ok(point.layout.of_coils(bits)))
                }
                Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) => {
                    words.get(span).map(|words| point.layout.of_registers(words))
                }
                _ => None,
            };
            match value {
                Some(Ok(value)) => batch.push(Sample::good(point.tag, value, now)),
                Some(Err(quality)) => self.hub.degrade(&[point.tag], &quality),
                None => {
                    let quality = Quality::new(Code::BAD_DEVICE_FAILURE, "the answer is too short");
                    self.hub.degrade(&[point.tag], &quality);
                }
            }
        }
        self.hub.publish(batch);
    }

    fn degrade(&self, unit: usize, job: usize, block: &Block, quality: &Quality) {
        let own = &self.units[unit];
        let tags: Vec<_> = own.jobs[job].points_of(block).map(|(_, point)| own.points[point].tag).collect();
        self.hub.degrade(&tags, quality);
    }
}

pub fn question(block: &Block) -> Request<'static> {
    let &Block { area, address, count, .. } = block;
    match area {
        Area::Coil => Request::ReadCoils(address, count),
        Area::Discrete => Request::ReadDiscreteInputs(address, count),
        Area::Input => Request::ReadInputRegisters(address, count),
        Area::Holding => Request::ReadHoldingRegisters(address, count),
    }
}
