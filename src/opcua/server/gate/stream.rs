//! Reading, writing and closing a TCP connection that is not split into halves.

use super::frame::{self, Refusal};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::Shutdown;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the last word to a client may take.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// What was read and not looked at yet. Empty it holds no memory.
#[derive(Default)]
pub(super) struct Inbox(Vec<u8>);

/// Read at once; most requests are shorter.
const READ: usize = 4096;

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `count` bytes, read if they are not there. Room grows with what comes, not with what is announced.
    pub(super) async fn need(&mut self, stream: &TcpStream, count: usize) -> io::Result<&[u8]> {
        while self.0.len() < count {
            stream.readable().await?;
            self.0.reserve(READ);
            match stream.try_read_buf(&mut self.0) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.0[..count])
    }

    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.0.split_off(count);
        std::mem::replace(&mut self.0, rest)
    }
}

pub(super) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An Error message, and the end.
pub(super) async fn say_good_bye(stream: &TcpStream, refusal: &Refusal) {
    say_last(stream, &frame::error(refusal)).await;
}

/// Closed with unread bytes, a connection is reset, and what was said last is lost with it; so they are read.
pub(super) async fn say_last(stream: &TcpStream, bytes: &[u8]) {
    let last = async {
        write_all(stream, bytes).await?;
        SockRef::from(stream).shutdown(Shutdown::Write)?;
        let mut unread = [0; READ];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut unread) {
                Ok(0) => return Ok::<(), io::Error>(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    // A client that does not even listen to this is gone.
    let _ = timeout(GOOD_BYE, last).await;
}

/// No waiting for more to send; and a peer that vanished is noticed, after a minute and a half.
pub(super) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(15));
    // Windows before 10 counts to ten, and says so.
    SockRef::from(stream).set_tcp_keepalive(&probes.with_retries(4))
}
