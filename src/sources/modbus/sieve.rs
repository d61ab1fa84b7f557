//! What lies below tokio-modbus and lets through only the answer to the last question.
//!
//!     tokio-modbus ── question ──► Sieve (remembers it) ──► wire
//!                  ◄── its answer ── Sieve ◄── whatever the wire brings
//!
//! tokio-modbus 0.17 takes the next frame for the answer: after a timeout, with TCP, the late answer fails the next question;
//! on a line of RTU frames, which have no transaction number, it is taken for the answer to another one. It does not compare
//! the length with what was asked for, and lets a peer announce 64 KiB. So here a frame must be of the transaction, the unit,
//! the function, the address and the length that the question asks for. What else comes is dropped: by frames where frames can
//! be told (TCP), else byte by byte until one fits and its checksum is right (RTU).
//!
//! Invariant: the inbox holds one frame and what came with it at most, whatever the peer sends.

use super::wire::Wire;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Tcp,
    Rtu,
}

/// What happened since the last question was sent.
#[derive(Debug, Default)]
pub struct Notes {
    /// At least a part of it is on its way.
    pub sent: AtomicBool,
    /// Bytes that belong to no answer that was waited for.
    pub dropped: AtomicUsize,
    /// Bytes of a frame that has not come as a whole.
    pub unfinished: AtomicUsize,
}

#[derive(Debug)]
pub struct Sieve {
    wire: Arc<Wire>,
    framing: Framing,
    notes: Arc<Notes>,
    expected: Option<Expected>,
    inbox: Vec<u8>,
    /// The answer, as far as it has not been taken.
    answer: Vec<u8>,
    /// Bytes of the question that are still to be written.
    unsent: usize,
}

/// What an answer must be like. The function and what follows it is the PDU (Modbus Application Protocol V1.1b3, 4.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    transaction: u16,
    unit: u8,
    function: u8,
    /// How the PDU of the answer begins, after the function.
    start: Vec<u8>,
    /// Of the PDU.
    length: usize,
}

/// Transaction, protocol, length; the length counts from the unit on.
const TCP_HEADER: usize = 6;
/// Unit and PDU (Modbus Messaging on TCP/IP V1.0b, 4.1: 260 bytes with the header).
const LONGEST: usize = 254;
/// Of an exception.
const EXCEPTION: usize = 2;
/// What a question finds on the line is thrown away, but a line that never ends its talk is none.
const MOST_NOISE: usize = 64 * 1024;

impl Expected {
    fn of(framing: Framing, question: &[u8]) -> Option<Self> {
        let (transaction, body) = match framing {
            Framing::Tcp => (u16::from_be_bytes([*question.first()?, *question.get(1)?]), question.get(TCP_HEADER..)?),
            Framing::Rtu => (0, question),
        };
        let &[unit, function, high, low, ref rest @ ..] = body else { return None };
        let count = || Some(usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])));
        let read = |bytes: usize| (vec![bytes as u8], 2 + bytes);
        let (start, length) = match function {
            1 | 2 => read(count()?.div_ceil(8)),
            3 | 4 => read(count()? * 2),
            5 | 6 | 15 | 16 => (vec![high, low], 5),
            22 => (vec![high, low], 7),
            _ => return None,
        };
        Some(Self { transaction, unit, function, start, length })
    }

    fn is_answer(&self, pdu: &[u8]) -> bool {
        match pdu.split_first() {
            Some((&function, rest)) if function == self.function => {
                pdu.len() == self.length && rest.starts_with(&self.start)
            }
            Some((&function, _)) => function == self.function | 0x80 && pdu.len() == EXCEPTION,
            None => false,
        }
    }
}

/// Takes the answer out of what came by TCP; `None`: not there yet. What is older is dropped.
pub fn sift_tcp(inbox: &mut Vec<u8>, expected: &Expected, dropped: &mut usize) -> Result<Option<Vec<u8>>, String> {
    loop {
        if inbox.len() >= 4 && inbox[2..4] != [0, 0] {
            return Err("it sends what is not Modbus TCP".into());
        }
        if inbox.len() < TCP_HEADER {
            return Ok(None);
        }
        let length = usize::from(u16::from_be_bytes([inbox[4], inbox[5]]));
        if !(2..=LONGEST).contains(&length) {
            return Err(format!("it announces {length} bytes, which no answer has"));
        }
        if inbox.len() < TCP_HEADER + length {
            return Ok(None);
        }
        let frame: Vec<u8> = inbox.drain(..TCP_HEADER + length).collect();
        if u16::from_be_bytes([frame[0], frame[1]]) != expected.transaction {
            *dropped += frame.len();
            continue;
        }
        let unit = frame[TCP_HEADER];
        if unit != expected.unit {
            return Err(format!("the answer is of unit {unit}"));
        }
        if !expected.is_answer(&frame[TCP_HEADER + 1..]) {
            return Err("the answer does not fit the question".into());
        }
        return Ok(Some(frame));
    }
}

/// The same for RTU frames. A byte that begins no answer is dropped.
pub fn sift_rtu(inbox: &mut Vec<u8>, expected: &Expected, dropped: &mut usize) -> Option<Vec<u8>> {
    // Where an answer may begin that is not whole yet.
    let mut unfinished = None;
    for start in 0..inbox.len() {
        let rest = &inbox[start..];
        if rest[0] != expected.unit {
            continue;
        }
        let length = match rest.get(1) {
            Some(&function) if function == expected.function => expected.length,
            Some(&function) if function == expected.function | 0x80 => EXCEPTION,
            Some(_) => continue,
            None => {
                unfinished = unfinished.or(Some(start));
                continue;
            }
        };
        match rest.get(..1 + length + 2) {
            Some(frame) if is_whole(frame) && expected.is_answer(&frame[1..1 + length]) => {
                let frame = frame.to_vec();
                *dropped += inbox.len() - frame.len();
                inbox.clear();
                return Some(frame);
            }
            Some(_) => {}
            None => unfinished = unfinished.or(Some(start)),
        }
    }
    let useless = unfinished.unwrap_or(inbox.len());
    inbox.drain(..useless);
    *dropped += useless;
    None
}

fn is_whole(frame: &[u8]) -> bool {
    let (body, checksum) = frame.split_at(frame.len() - 2);
    crc(body).to_le_bytes() == checksum
}

/// CRC-16/MODBUS (Modbus over Serial Line V1.02, 6.2.2).
pub fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}

impl Sieve {
    pub fn new(wire: Arc<Wire>, framing: Framing, notes: Arc<Notes>) -> Self {
        Self { wire, framing, notes, expected: None, inbox: Vec::new(), answer: Vec::new(), unsent: 0 }
    }

    /// Before a question: what has come is not its answer. Fails if the wire is found closed, and nothing has been sent yet.
    fn begin(&mut self, question: &[u8]) -> io::Result<()> {
        self.notes.sent.store(false, Relaxed);
        self.notes.dropped.store(0, Relaxed);
        self.answer.clear();
        self.expected = Expected::of(self.framing, question);
        let mut noise = 0;
        let mut chunk = [0; 512];
        loop {
            match self.wire.try_read(&mut chunk) {
                Ok(0) => return Err(closed()),
                Ok(count) => {
                    noise += count;
                    self.inbox.extend_from_slice(&chunk[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if self.framing == Framing::Rtu {
                self.inbox.clear();
            } else {
                // Of what is late only the frame that is not whole yet is of interest, to know where the next one begins.
                self.sift()?;
            }
            if noise > MOST_NOISE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not stop sending"));
            }
        }
        if self.framing == Framing::Rtu {
            self.inbox.clear();
        }
        Ok(())
    }

    fn sift(&mut self) -> io::Result<()> {
        let Some(expected) = &self.expected else { return Ok(()) };
        let mut dropped = 0;
        let found = match self.framing {
            Framing::Tcp => sift_tcp(&mut self.inbox, expected, &mut dropped)
                .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))?,
            Framing::Rtu => sift_rtu(&mut self.inbox, expected, &mut dropped),
        };
        self.notes.dropped.fetch_add(dropped, Relaxed);
        self.notes.unfinished.store(self.inbox.len(), Relaxed);
        self.answer = found.unwrap_or_default();
        Ok(())
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")
}

impl AsyncRead for Sieve {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.answer.is_empty() {
            // Asked first, because this counts against the task's budget: a peer that floods must not hold the task.
            ready!(this.wire.poll_read_ready(cx))?;
            let mut chunk = [0; 512];
            match this.wire.try_read(&mut chunk) {
                Ok(0) => return Poll::Ready(Err(closed())),
                Ok(count) => this.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            }
            this.sift()?;
        }
        let count = this.answer.len().min(buf.remaining());
        buf.put_slice(&this.answer[..count]);
        this.answer.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sieve {
    /// tokio-modbus hands over a question as a whole; what did not fit comes again.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent == 0 {
            this.begin(bytes)?;
            this.unsent = bytes.len();
        }
        loop {
            ready!(this.wire.poll_write_ready(cx))?;
            match this.wire.try_write(bytes) {
                Ok(count) => {
                    this.unsent = this.unsent.saturating_sub(count);
                    this.notes.sent.store(true, Relaxed);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Transaction 7, unit 3: two holding registers from 16 on.
    fn question(framing: Framing) -> Expected {
        let body = [3, 3, 0, 16, 0, 2];
        let whole = [&[0, 7, 0, 0, 0, 6][..], &body].concat();
        Expected::of(framing, if framing == Framing::Tcp { &whole } else { &body }).unwrap()
    }

    fn tcp(transaction: u16, body: &[u8]) -> Vec<u8> {
        [&transaction.to_be_bytes()[..], &[0, 0], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    fn rtu(body: &[u8]) -> Vec<u8> {
        [body, &crc(body).to_le_bytes()].concat()
    }

    const ANSWER: &[u8] = &[3, 3, 4, 1, 2, 3, 4];

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc(b"123456789"), 0x4B37);
    }

    #[test]
    fn late_answers_by_tcp_are_dropped_and_wrong_ones_are_faults() {
        let sift = |bytes: &[u8]| sift_tcp(&mut bytes.to_vec(), &question(Framing::Tcp), &mut 0);
        let late = tcp(6, &[3, 3, 4, 9, 9, 9, 9]);
        assert_eq!(sift(&[late.clone(), tcp(7, ANSWER)].concat()), Ok(Some(tcp(7, ANSWER))));
        assert_eq!(sift(&late), Ok(None));
        assert_eq!(sift(&tcp(7, ANSWER)[..8]), Ok(None), "half of it");
        assert_eq!(sift(&tcp(7, &[3, 0x83, 2])), Ok(Some(tcp(7, &[3, 0x83, 2]))), "an exception");
        assert_eq!(sift(&tcp(7, &[4, 3, 4, 1, 2, 3, 4])).unwrap_err(), "the answer is of unit 4");
        for wrong in [
            &[3, 4, 4, 1, 2, 3, 4][..],
            &[3, 3, 2, 1, 2],
            &[3, 3, 6, 1, 2, 3, 4, 5, 6],
            &[3, 3, 2, 1, 2, 3, 4],
            &[3, 3],
        ] {
            assert_eq!(sift(&tcp(7, wrong)).unwrap_err(), "the answer does not fit the question", "{wrong:?}");
        }
        assert_eq!(sift(b"HTTP/1.1 400 Bad Request").unwrap_err(), "it sends what is not Modbus TCP");
        assert!(sift(&[0, 7, 0, 0, 0xFF, 0xFF]).unwrap_err().contains("65535"));
        assert!(sift(&[0, 7, 0, 0, 0, 1, 3]).is_err());
    }

    #[test]
    fn an_answer_is_found_in_the_noise_of_a_line() {
        let noise = [3, 0, 3, 3, 4, 1, 0xFF, 3];
        for body in [ANSWER, &[3, 0x83, 2]] {
            let mut inbox = [&noise[..], &rtu(body), &[9]].concat();
            assert_eq!(sift_rtu(&mut inbox, &question(Framing::Rtu), &mut 0), Some(rtu(body)));
            assert!(inbox.is_empty());
        }
        // Of another unit, of another length, broken.
        for wrong in [rtu(&[4, 3, 4, 1, 2, 3, 4]), rtu(&[3, 3, 2, 1, 2]), [ANSWER, &[0, 0]].concat()] {
            let mut inbox = wrong.clone();
            assert_eq!(sift_rtu(&mut inbox, &question(Framing::Rtu), &mut 0), None, "{wrong:?}");
            inbox.extend(rtu(ANSWER));
            assert_eq!(sift_rtu(&mut inbox, &question(Framing::Rtu), &mut 0), Some(rtu(ANSWER)));
        }
    }

    #[test]
    fn the_answer_to_a_write_is_of_the_same_address() {
        let expected = Expected::of(Framing::Rtu, &[1, 6, 0, 5, 0x12, 0x34]).unwrap();
        assert!(expected.is_answer(&[6, 0, 5, 0x12, 0x34]));
        assert!(!expected.is_answer(&[6, 0, 6, 0x12, 0x34]));
        let expected = Expected::of(Framing::Rtu, &[1, 1, 0, 0, 0, 9]).unwrap();
        assert!(expected.is_answer(&[1, 2, 0xFF, 1]), "nine coils are two bytes");
        assert_eq!(Expected::of(Framing::Rtu, &[1, 3, 0]), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_the_inbox_stays_small_and_an_answer_is_found(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12)
        ) {
            let (tcp_question, rtu_question) = (question(Framing::Tcp), question(Framing::Rtu));
            let (mut by_tcp, mut by_rtu, mut dropped) = (Vec::new(), Vec::new(), 0);
            let mut is_tcp = true;
            for part in &parts {
                by_rtu.extend(part);
                sift_rtu(&mut by_rtu, &rtu_question, &mut dropped);
                prop_assert!(by_rtu.len() < 10, "less than an answer");
                if is_tcp {
                    by_tcp.extend(part);
                    is_tcp = sift_tcp(&mut by_tcp, &tcp_question, &mut dropped).is_ok();
                    prop_assert!(!is_tcp || by_tcp.len() < TCP_HEADER + LONGEST);
                }
            }
            by_rtu.extend(rtu(ANSWER));
            let mut found = sift_rtu(&mut by_rtu, &rtu_question, &mut dropped);
            if found.is_none() {
                // The noise ended as an exception or an answer begins.
                by_rtu.extend(rtu(ANSWER));
                found = sift_rtu(&mut by_rtu, &rtu_question, &mut dropped);
            }
            prop_assert!(found.is_some());
        }
    }
}
