//! One line: its wire, tokio-modbus on top of it, and how a question to a unit can end.
//!
//!     closed ──open──► open ──ask──► answer, exception, timeout (stays open)
//!        ▲                    └────► garbled, lost
//!        └───────────────────────────────┘
//!
//! On a line of RTU frames a late answer could be taken for that of another question of the same length. So after a timeout
//! the unit is asked only the same again; and once that is answered there is still an answer on its way for each time that it
//! was not, so the unit is asked nothing until they must have come.

use super::config::Endpoint;
use super::sieve::{Framing, Notes, Sieve};
use super::wire::{Wire, plain};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_modbus::client::{Client, Context, rtu, tcp};
use tokio_modbus::slave::{Slave, SlaveContext};
use tokio_modbus::{Error, ExceptionCode, Request, Response};

pub struct Link {
    endpoint: Endpoint,
    gap: Duration,
    /// What a unit is given to answer, if nobody is in a hurry.
    timeout: Duration,
    open: Option<Open>,
    /// When the next request may be sent.
    free: Instant,
    /// By unit, on a line of RTU frames.
    late: BTreeMap<u8, Late>,
}

struct Open {
    wire: Arc<Wire>,
    notes: Arc<Notes>,
    context: Context,
    /// Something was answered since it was opened.
    has_answered: bool,
}

/// Answers that may still come.
struct Late {
    /// To what; `None` once it was answered.
    question: Option<Request<'static>>,
    /// When it was asked first.
    since: Instant,
    count: u32,
    /// How long each of them may take.
    each: Duration,
    until: Instant,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Fault {
    /// The unit answered, with an exception.
    Exception(ExceptionCode),
    Timeout(Duration),
    /// What came is not an answer.
    Garbled(String),
    /// The wire is closed.
    Lost {
        reason: String,
        was_sent: bool,
    },
}

impl Link {
    pub fn new(endpoint: Endpoint, gap: Option<Duration>, timeout: Duration) -> Self {
        // 3.5 characters of silence between frames (Modbus over Serial Line V1.02, 2.5.1.1), which are 1750 us above 19200 baud.
        let silence = match &endpoint {
            Endpoint::Serial { baud, .. } => characters(*baud, 3.5).max(Duration::from_micros(1750)),
            Endpoint::Tcp(_) | Endpoint::RtuTcp(_) => Duration::ZERO,
        };
        let gap = gap.unwrap_or(silence);
        Self { endpoint, gap, timeout, open: None, free: Instant::now(), late: BTreeMap::new() }
    }

    pub async fn open(&mut self) -> Result<(), String> {
        self.open = None;
        let wire = Arc::new(Wire::open(&self.endpoint).await?);
        let notes = Arc::new(Notes::default());
        let sieve = |framing| Sieve::new(wire.clone(), framing, notes.clone());
        let context = match self.endpoint {
            Endpoint::Tcp(_) => tcp::attach(sieve(Framing::Tcp)),
            Endpoint::RtuTcp(_) | Endpoint::Serial { .. } => rtu::attach(sieve(Framing::Rtu)),
        };
        self.open = Some(Open { wire, notes, context, has_answered: false });
        Ok(())
    }

    pub fn close(&mut self) {
        self.open = None;
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub fn has_answered(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.has_answered)
    }

    /// Until the other side closes. Cancel safe.
    pub fn closed(&self) -> impl Future<Output = String> + use<> {
        let (wire, endpoint) = (self.open.as_ref().map(|open| open.wire.clone()), self.endpoint.to_string());
        async move {
            match wire {
                Some(wire) => format!("{endpoint}: {}", wire.closed().await),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for the answer for `patience`, and for as long as the bytes take.
    pub async fn ask(&mut self, unit: u8, question: &Request<'static>, patience: Duration) -> Result<Response, Fault> {
        self.wait(unit, question).await;
        let Some(open) = &mut self.open else {
            return Err(Fault::Lost { reason: format!("{}: not connected", self.endpoint), was_sent: false });
        };
        open.context.set_slave(Slave(unit));
        let way = way(&self.endpoint, question);
        let (asked, whole) = (Instant::now(), patience + way);
        let outcome = timeout(whole, open.context.call(question.clone())).await;
        self.free = Instant::now() + self.gap;
        let Notes { sent, dropped, unfinished } = &*open.notes;
        let (was_sent, dropped, half) = (sent.load(Relaxed), dropped.load(Relaxed), unfinished.load(Relaxed));
        let fault = match outcome {
            Ok(Ok(answer)) => {
                open.has_answered = true;
                if let Some(late) = self.late.get_mut(&unit) {
                    // Who was slow with the first may be as slow with the others.
                    late.each = late.each.max(late.since.elapsed());
                    late.until = Instant::now() + late.each;
                    late.question = None;
                }
                return answer.map_err(Fault::Exception);
            }
            Ok(Err(Error::Protocol(error))) => Fault::Garbled(error.to_string()),
            Ok(Err(Error::Transport(error))) if error.kind() == io::ErrorKind::InvalidData => {
                Fault::Garbled(format!("{}: {error}", self.endpoint))
            }
            Ok(Err(Error::Transport(error))) => {
                Fault::Lost { reason: format!("{}: {}", self.endpoint, plain(&error)), was_sent }
            }
            // The next answer would be taken for the other half.
            Err(_) if half > 0 && matches!(self.endpoint, Endpoint::Tcp(_)) => {
                Fault::Garbled(format!("{}: {half} bytes of an answer came, and not its end", self.endpoint))
            }
            Err(_) if !was_sent => Fault::Lost { reason: format!("{}: takes nothing more", self.endpoint), was_sent },
            Err(_) => {
                if !matches!(self.endpoint, Endpoint::Tcp(_)) {
                    let late = self.late.entry(unit).or_insert_with(|| Late {
                        question: Some(question.clone()),
                        since: asked,
                        count: 0,
                        each: Duration::ZERO,
                        until: asked,
                    });
                    late.count += 1;
                    late.each = late.each.max(self.timeout + way);
                    late.until = Instant::now() + late.each;
                }
                return Err(match dropped {
                    0 => Fault::Timeout(patience),
                    bytes => Fault::Garbled(format!("{bytes} bytes came that are no answer")),
                });
            }
        };
        // Where the next frame begins is not known any more.
        self.close();
        Err(fault)
    }

    async fn wait(&mut self, unit: u8, question: &Request<'static>) {
        if let Some(open) = &self.open
            && let Some(late) = self.late.get(&unit)
            && late.question.as_ref() != Some(question)
        {
            late.drain(open.wire.clone()).await;
            self.late.remove(&unit);
        }
        if self.late.get(&unit).is_some_and(|late| late.until <= Instant::now()) {
            self.late.remove(&unit);
        }
        if self.free > Instant::now() {
            sleep_until(self.free).await;
        }
    }
}

impl Late {
    /// Throws away what comes until nothing more can.
    fn drain(&self, wire: Arc<Wire>) -> impl Future<Output = ()> + use<> {
        let each = self.each;
        let (mut until, last) = (self.until, self.until + each * (self.count - 1));
        async move {
            while let Ok(Ok(())) = timeout_at(until, poll_fn(|cx| wire.poll_read_ready(cx))).await {
                match wire.try_read(&mut [0; 512]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // The next question finds it closed.
                    Ok(0) | Err(_) => return,
                    // There may be another one after it.
                    Ok(_) => until = until.max((Instant::now() + each).min(last)),
                }
            }
        }
    }
}

/// The time that question and answer take on a serial line.
fn way(endpoint: &Endpoint, question: &Request<'_>) -> Duration {
    let Endpoint::Serial { baud, .. } = endpoint else { return Duration::ZERO };
    let bytes = match question {
        Request::ReadCoils(_, count) | Request::ReadDiscreteInputs(_, count) => count / 8,
        Request::ReadHoldingRegisters(_, count) | Request::ReadInputRegisters(_, count) => count * 2,
        Request::WriteMultipleCoils(_, coils) => coils.len() as u16 / 8,
        Request::WriteMultipleRegisters(_, registers) => registers.len() as u16 * 2,
        _ => 0,
    };
    // Unit, function, address, count and checksum both ways.
    characters(*baud, 20.0 + f64::from(bytes))
}

/// Of 11 bits each.
fn characters(baud: u32, count: f64) -> Duration {
    Duration::from_secs_f64(count * 11.0 / f64::from(baud))
}
