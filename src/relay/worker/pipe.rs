//! Frames through a worker's pipes, never more than one frame's bytes at a time.
//!
//! Both ends may be given up in the middle of waiting and asked again: what was read or written so far stays here. A length that is
//! announced and does not come costs nothing, because memory is taken for bytes that are there.

use crate::relay::protocol::{self, FromWorker, LONGEST_FRAME, ProtocolError, ToWorker};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[derive(Debug, thiserror::Error)]
pub(super) enum PipeError {
    #[error("what it says is {0}")]
    Protocol(#[from] ProtocolError),
    #[error("its pipe: {0}")]
    Io(#[from] std::io::Error),
    #[error("it ended in the middle of a message")]
    Cut,
}

pub(super) struct Incoming<R> {
    reader: R,
    bytes: BytesMut,
}

/// What is read at once.
const READ: usize = 64 * 1024;

impl<R: AsyncRead + Unpin> Incoming<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, bytes: BytesMut::with_capacity(READ) }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<FromWorker>, PipeError> {
        loop {
            if let Some(head) = self.bytes.first_chunk::<4>() {
                let end = 4 + protocol::length(*head)?;
                if self.bytes.len() >= end {
                    let message = protocol::parse(&self.bytes[4..end])?;
                    self.bytes.advance(end);
                    return Ok(Some(message));
                }
            }
            if self.bytes.is_empty() && self.bytes.capacity() > LONGEST_FRAME / 16 {
                // After a long frame; most are short.
                self.bytes = BytesMut::new();
            }
            self.bytes.reserve(READ);
            if self.reader.read_buf(&mut self.bytes).await? == 0 {
                return if self.bytes.is_empty() { Ok(None) } else { Err(PipeError::Cut) };
            }
        }
    }
}

pub(super) struct Outgoing<W> {
    writer: W,
    bytes: BytesMut,
}

/// Requests wait for a worker that does not take them; beyond this much nothing more is asked.
const FULL: usize = 1 << 20;

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, bytes: BytesMut::new() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < FULL
    }

    pub(super) fn push(&mut self, message: &ToWorker) -> Result<(), ProtocolError> {
        self.bytes.extend_from_slice(&protocol::frame(message)?);
        Ok(())
    }

    /// Writes something of what waits; for ever if nothing does.
    pub(super) async fn write(&mut self) -> Result<(), PipeError> {
        if self.bytes.is_empty() {
            return std::future::pending().await;
        }
        if self.writer.write_buf(&mut self.bytes).await? == 0 {
            return Err(PipeError::Io(std::io::ErrorKind::WriteZero.into()));
        }
        Ok(self.writer.flush().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::protocol::{Event, frame};
    use proptest::prelude::*;

    async fn read(bytes: &[u8]) -> (Vec<FromWorker>, Result<(), PipeError>) {
        let mut incoming = Incoming::new(bytes);
        let mut messages = Vec::new();
        loop {
            match incoming.next().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, Ok(())),
                Err(error) => return (messages, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_and_a_part_of_one_is_an_error() {
        let said = |text: &str| FromWorker::Event(Event::Said { text: text.into() });
        let long = said(&"x".repeat(3 << 20));
        let mut bytes = [frame(&said("a")).unwrap(), frame(&long).unwrap(), frame(&said("b")).unwrap()].concat();
        let (messages, end) = read(&bytes).await;
        assert_eq!(messages, [said("a"), long, said("b")]);
        assert!(end.is_ok());
        bytes.pop();
        assert!(matches!(read(&bytes).await, (messages, Err(PipeError::Cut)) if messages.len() == 2));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_nothing_worse(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, end) = runtime.block_on(read(&bytes));
            prop_assert!(bytes.is_empty() || end.is_err() || bytes.len() >= 4);
            // The same as the body of a frame.
            let framed = [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat();
            let (messages, _) = runtime.block_on(read(&framed));
            prop_assert!(messages.len() <= 1 + bytes.len() / 5);
        }
    }
}
