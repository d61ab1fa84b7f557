//! From the server behind to the client, at the client's pace.
//!
//! The lock on [`Track`] is held from reading until the client has taken all that was read; whoever wants to forward a
//! request waits for it ([`Responses::turn`]). splice(2) instead of copying was tried and is no faster: on loopback
//! a page each costs what the copy costs.

use super::frame::{BUFFER, Track};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

#[derive(Default)]
pub(super) struct Responses {
    track: tokio::sync::Mutex<Track>,
    /// Requests that were forwarded and are not answered.
    in_flight: AtomicUsize,
    answered: Notify,
    /// Chunks that the client has got.
    chunks: AtomicU32,
}

impl Responses {
    /// Waits until the client has taken what there is for it, and fewer than `limit` requests are on the way.
    pub(super) async fn turn(&self, limit: usize) {
        loop {
            let answered = self.answered.notified();
            if self.in_flight.load(Ordering::Relaxed) < limit {
                break;
            }
            answered.await;
        }
        drop(self.track.lock().await);
    }

    /// A request goes out.
    pub(super) fn asked(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// The client has got something from the server.
    pub(super) fn has_begun(&self) -> bool {
        self.chunks.load(Ordering::Relaxed) > 0
    }

    /// Chunks that went out, if the client is between two messages, so that another one may be added.
    pub(super) fn between(&self) -> Option<u32> {
        let track = self.track.try_lock().ok()?;
        track.is_between().then(|| self.chunks.load(Ordering::Relaxed))
    }

    /// Carries what the server has to say now; `false` if it has closed the connection. The client gets `stall` for
    /// each part; after that it is an error of the kind TimedOut.
    pub(super) async fn carry(
        &self,
        server: &TcpStream,
        client: &TcpStream,
        buffers: &Buffers,
        stall: Duration,
    ) -> io::Result<bool> {
        server.readable().await?;
        let mut buffer = buffers.take();
        let outcome = loop {
            let mut track = self.track.lock().await;
            match server.try_read(&mut buffer) {
                Ok(0) => break Ok(false),
                Ok(count) => self.pass(&buffer[..count], client, &mut track, stall).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(true),
                Err(error) => break Err(error),
            }
        };
        buffers.put_back(buffer);
        outcome
    }

    async fn pass(&self, mut bytes: &[u8], client: &TcpStream, track: &mut Track, stall: Duration) -> io::Result<()> {
        let passed = timeout(stall, async {
            while !bytes.is_empty() {
                match client.try_write(bytes) {
                    Ok(count) => {
                        track.pass(&bytes[..count]);
                        bytes = &bytes[count..];
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => client.writable().await?,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        passed.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        self.chunks.store(track.chunks, Ordering::Relaxed);
        let answered = std::mem::take(&mut track.messages);
        if answered > 0 {
            let left = |in_flight: usize| Some(in_flight.saturating_sub(answered));
            // Never fails, because `left` never refuses.
            let _ = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
            self.answered.notify_one();
        }
        Ok(())
    }
}

/// Buffers that wait for their next use, for all connections; those beyond [`BUFFERS`] are freed.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// As many as there may be threads that have one in use.
const BUFFERS: usize = 8;

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().expect("no code that holds the buffers panics").pop();
        kept.unwrap_or_else(|| vec![0; BUFFER])
    }

    fn put_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().expect("no code that holds the buffers panics");
        if kept.len() < BUFFERS {
            kept.push(buffer);
        }
    }
}
