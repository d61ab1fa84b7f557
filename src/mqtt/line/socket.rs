//! The stream below MQTT: TCP, and TLS over it. Opened here and not by `rumqttc`, so that both versions of MQTT share
//! it, a certificate that does not do is explained where it is seen, and it is known how much goes out.

use super::ClientError;
use super::tls;
use crate::base::net;
use crate::mqtt::BrokerUrl;
use rumqttc::tokio_rustls::TlsConnector;
use rumqttc::tokio_rustls::rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of a broker's first words: a CONNACK with a server reference and a reason in it.
const FIRST_WORDS: usize = 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

pub(super) struct Socket {
    stream: Box<dyn Stream>,
    meter: Arc<Meter>,
}

/// What went through a socket.
#[derive(Default)]
pub(super) struct Meter {
    written: AtomicU64,
    first_words: Mutex<Vec<u8>>,
}

impl Meter {
    /// Bytes that the system took; less what is in its own buffers, they went to the broker.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How the broker began.
    pub(super) fn first_words(&self) -> Vec<u8> {
        self.first_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Opens the stream. Bounded by the caller's time alone.
pub(super) async fn open(broker: &BrokerUrl, tls: Option<tls::Tls>) -> Result<(Socket, Arc<Meter>), ClientError> {
    let lost = |error: io::Error| ClientError::Connection { broker: broker.clone(), reason: error.to_string() };
    let tcp = net::connect(broker.host(), broker.port()).await.map_err(lost)?;
    // Messages are collected before they get here; to hold them back once more only costs time.
    tcp.set_nodelay(true).map_err(lost)?;
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(tcp),
        Some(tls) => {
            let name = ServerName::try_from(broker.host().to_owned()).map_err(|_| {
                let reason = "with mqtts:// the host must be a DNS name or an IP address".to_owned();
                ClientError::Tls { broker: broker.clone(), reason }
            })?;
            let handshake = TlsConnector::from(tls.config.clone()).connect(name, tcp).await;
            Box::new(
                handshake.map_err(|error| ClientError::Tls { broker: broker.clone(), reason: tls.explain(&error) })?,
            )
        }
    };
    let meter = Arc::new(Meter::default());
    Ok((Socket { stream, meter: meter.clone() }, meter))
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            let mut words = self.meter.first_words.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = FIRST_WORDS.saturating_sub(words.len()).min(buffer.filled().len() - before);
            words.extend_from_slice(&buffer.filled()[before..before + wanted]);
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = outcome {
            self.meter.written.fetch_add(written as u64, Ordering::Relaxed);
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
