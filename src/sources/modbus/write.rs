//! Writes: between two requests of a scan, answered when the device has, and read back at once.
//!
//! One coil or register goes by its own function (5, 6), more by that for several (15, 16); a device that does not know the
//! first, but does the second, is written to with the second from then on. One bit of a register goes by Mask Write Register (22) or, for a device
//! that does not know that, by reading the register and writing it whole: then what the device changes between is undone.
//! Nothing is written twice: after a timeout nobody knows whether it was done, and the answer says so. Nothing is written
//! any more for somebody who has given up waiting.

use super::fault;
use super::layout::Raw;
use super::line::Line;
use super::link::Fault;
use super::plan::Area;
use super::scan::question;
use super::unit::Point;
use crate::hub::WriteRequest;
use crate::model::{Quality, Range, Status, Value};
use std::borrow::Cow;
use tokio::sync::oneshot;
use tokio_modbus::{ExceptionCode, Request, Response};

/// Why something was not written: what is said about it, and the fault, if the device was asked.
type Refusal = (Quality, Option<Fault>);
/// To whoever asked.
type Reply = oneshot::Sender<Result<(), Quality>>;

fn is_of_line(fault: &Fault) -> bool {
    !matches!(fault, Fault::Exception(code) if !fault::is_of_gateway(*code))
}

impl Line {
    /// `Err` if the line is lost with it.
    pub async fn write(&mut self, request: WriteRequest) -> Result<(), String> {
        let WriteRequest { tag, value, reply } = request;
        let place = self.units.iter().enumerate().find_map(|(unit, own)| {
            let point = own.points.iter().find(|point| point.tag == tag)?;
            Some((unit, point.clone()))
        });
        let Some((unit, point)) = place else {
            let _ = reply.send(Err(Status::BAD_NODE_ID_UNKNOWN.into()));
            return Ok(());
        };
        let outcome = self.put(unit, &point, &value, &reply).await;
        let fault = match outcome {
            Ok(()) => {
                self.read_back(unit, &point).await;
                let _ = reply.send(Ok(()));
                None
            }
            Err((quality, fault)) => {
                // Whoever asked may have given up.
                let _ = reply.send(Err(quality));
                fault
            }
        };
        match fault {
            Some(fault) if is_of_line(&fault) => self.unanswered(unit, &fault, None).await,
            _ => Ok(()),
        }
    }

    async fn put(&mut self, unit: usize, point: &Point, value: &Value, reply: &Reply) -> Result<(), Refusal> {
        let own = &self.units[unit];
        if !own.is_good() {
            let reason = format!("unit {} does not answer: {}", own.id, own.counts.last_error);
            return Err((Quality::new(Status::BAD_NO_COMMUNICATION, reason), None));
        }
        check_range(point.range, value).map_err(|quality| (quality, None))?;
        let raw = point.layout.to_raw(value, point.area == Area::Coil).map_err(|quality| (quality, None))?;
        let address = point.address;
        match raw {
            Raw::Coils(coils) if coils.len() == 1 && !own.habits.no_single_coil => {
                let single = Request::WriteSingleCoil(address, coils[0]);
                let several = Request::WriteMultipleCoils(address, coils.into());
                let knows_several_only = self.single_or_more(unit, single, several, reply).await?;
                self.units[unit].habits.no_single_coil = knows_several_only;
                Ok(())
            }
            Raw::Coils(coils) => self.send(unit, Request::WriteMultipleCoils(address, coils.into()), reply).await,
            Raw::Registers(registers) => self.put_registers(unit, address, registers, reply).await,
            Raw::Bit { mask, set } => self.put_bit(unit, address, mask, set, reply).await,
        }
    }

    async fn put_registers(
        &mut self,
        unit: usize,
        address: u16,
        registers: Vec<u16>,
        reply: &Reply,
    ) -> Result<(), Refusal> {
        let several = |registers| Request::WriteMultipleRegisters(address, Cow::Owned(registers));
        match registers.as_slice() {
            &[one] if !self.units[unit].habits.no_single_register => {
                let single = Request::WriteSingleRegister(address, one);
                let knows_several_only = self.single_or_more(unit, single, several(registers), reply).await?;
                self.units[unit].habits.no_single_register = knows_several_only;
                Ok(())
            }
            _ => self.send(unit, several(registers), reply).await,
        }
    }

    /// Whether only the function for several did it.
    async fn single_or_more(
        &mut self,
        unit: usize,
        single: Request<'static>,
        more: Request<'static>,
        reply: &Reply,
    ) -> Result<bool, Refusal> {
        match self.send(unit, single, reply).await {
            Err((_, Some(Fault::Exception(ExceptionCode::IllegalFunction)))) => {
                self.send(unit, more, reply).await.map(|()| true)
            }
            done => done.map(|()| false),
        }
    }

    async fn put_bit(&mut self, unit: usize, address: u16, mask: u16, set: bool, reply: &Reply) -> Result<(), Refusal> {
        if !self.units[unit].habits.no_mask {
            let or = if set { mask } else { 0 };
            match self.send(unit, Request::MaskWriteRegister(address, !mask, or), reply).await {
                Err((_, Some(Fault::Exception(ExceptionCode::IllegalFunction)))) => {
                    self.units[unit].habits.no_mask = true;
                }
                done => return done,
            }
        }
        let read = Request::ReadHoldingRegisters(address, 1);
        let before = match self.ask(unit, &read, self.timeout).await {
            Ok(Response::ReadHoldingRegisters(words)) => words.first().copied().unwrap_or_default(),
            Ok(_) => return Err((Status::BAD_DEVICE_FAILURE.into(), None)),
            Err(fault) => return Err(refusal(fault)),
        };
        let after = if set { before | mask } else { before & !mask };
        self.put_registers(unit, address, vec![after], reply).await
    }

    async fn send(&mut self, unit: usize, request: Request<'static>, reply: &Reply) -> Result<(), Refusal> {
        if reply.is_closed() {
            return Err((Quality::new(Status::BAD_TIMEOUT, "nobody waits for it any more"), None));
        }
        self.ask(unit, &request, self.timeout).await.map(|_| ()).map_err(refusal)
    }

    /// What the device has now, also where that is not what was written. If it cannot be read, the next scan says so.
    async fn read_back(&mut self, unit: usize, point: &Point) {
        let own = &self.units[unit];
        let extent = point.extent();
        let mut jobs = own.jobs.iter().enumerate();
        let Some((job, block)) = jobs.find_map(|(job, own)| Some((job, own.find(&extent)?))) else { return };
        if let Ok(answer) = self.ask(unit, &question(&block), self.timeout).await {
            self.publish(unit, job, &block, &answer);
        }
    }
}

fn refusal(fault: Fault) -> Refusal {
    let quality = match &fault {
        Fault::Exception(code) => fault::of_write(*code),
        Fault::Lost { reason, was_sent: false } => Quality::new(Status::BAD_NOT_CONNECTED, reason.as_str()),
        other => {
            let reason = format!("{}; whether it was written is not known", fault::of_unit(other));
            Quality::new(Status::BAD_TIMEOUT, reason)
        }
    };
    (quality, Some(fault))
}

fn check_range(range: Option<Range>, value: &Value) -> Result<(), Quality> {
    let Some(Range { low, high }) = range else { return Ok(()) };
    let is_within = |value: &Value| value.as_f64().is_some_and(|value| (low..=high).contains(&value));
    let is_good = match value {
        Value::Array(array) => array.values().iter().all(is_within),
        one => is_within(one),
    };
    let what = || Quality::new(Status::BAD_OUT_OF_RANGE, format!("its range goes from {low} to {high}"));
    is_good.then_some(()).ok_or_else(what)
}
