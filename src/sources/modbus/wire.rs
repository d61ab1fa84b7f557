//! The bytes' way to the units: a TCP connection or a serial port.
//!
//! A serial port is opened as raw as it can be and locked, and then used as a pipe of tokio's, which asks of a file only that
//! it can be waited for. Reading and writing need no `&mut`, so that one can wait for the end of the wire while nothing is asked.

use super::config::{Endpoint, Parity};
use crate::base::net::HostPort;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::termios::{ControlModes, OptionalActions, QueueSelector};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;

/// For a name to be found and a connection to be made.
const CONNECT: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub enum Wire {
    Tcp(TcpStream),
    Serial { from: pipe::Receiver, to: pipe::Sender },
}

impl Wire {
    /// Says why not in a sentence.
    pub async fn open(endpoint: &Endpoint) -> Result<Self, String> {
        match endpoint {
            Endpoint::Tcp(place) | Endpoint::RtuTcp(place) => {
                let connect = TcpStream::connect((place.host.as_str(), place.port));
                let stream = match tokio::time::timeout(CONNECT, connect).await {
                    Ok(connected) => connected.map_err(|error| plain(&error)),
                    Err(_) => Err(format!("no connection in {CONNECT:?}")),
                };
                // Questions are small and each waits for its answer.
                let stream =
                    stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream).map_err(|error| plain(&error)));
                stream.map(Wire::Tcp).map_err(|error| format!("{endpoint}: {error}"))
            }
            Endpoint::Serial { device, baud, parity, stop_bits } => {
                let port = open_serial(device, *baud, *parity, *stop_bits);
                let opened = port.and_then(|port| {
                    let to = pipe::Sender::from_owned_fd_unchecked(port.try_clone()?)?;
                    Ok(Wire::Serial { from: pipe::Receiver::from_owned_fd_unchecked(port)?, to })
                });
                opened.map_err(|error| format!("{endpoint}: {}", plain(&error)))
            }
        }
    }

    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.try_read(buffer),
            Wire::Serial { from, .. } => from.try_read(buffer),
        }
    }

    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.try_write(bytes),
            Wire::Serial { to, .. } => to.try_write(bytes),
        }
    }

    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tcp(stream) => stream.poll_read_ready(cx),
            Wire::Serial { from, .. } => from.poll_read_ready(cx),
        }
    }

    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tcp(stream) => stream.poll_write_ready(cx),
            Wire::Serial { to, .. } => to.poll_write_ready(cx),
        }
    }

    /// Until the other side closes, while nothing is asked. Cancel safe.
    pub async fn closed(&self) -> String {
        match self {
            Wire::Tcp(stream) => match stream.peek(&mut [0]).await {
                Ok(0) => "the connection was closed".into(),
                // A late answer, which the next question drops.
                Ok(_) => std::future::pending().await,
                Err(error) => plain(&error),
            },
            Wire::Serial { from, .. } => loop {
                if let Err(error) = from.readable().await {
                    return plain(&error);
                }
                // What comes unasked is noise.
                match from.try_read(&mut [0; 512]) {
                    Ok(0) => return "the serial port is gone".into(),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return plain(&error),
                    Ok(_) | Err(_) => tokio::task::yield_now().await,
                }
            },
        }
    }
}

fn open_serial(device: &Path, baud: u32, parity: Parity, stop_bits: u8) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let port = rustix::fs::open(device, flags, Mode::empty())?;
    if !rustix::termios::isatty(&port) {
        return Err(io::Error::other("it is no serial port"));
    }
    rustix::fs::flock(&port, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::other("another program, or another [[modbus]], uses it"))?;
    let mut settings = rustix::termios::tcgetattr(&port)?;
    settings.make_raw();
    let cleared = ControlModes::PARENB | ControlModes::PARODD | ControlModes::CSTOPB | ControlModes::CRTSCTS;
    settings.control_modes.remove(cleared);
    settings.control_modes.insert(ControlModes::CLOCAL | ControlModes::CREAD);
    match parity {
        Parity::None => {}
        Parity::Even => settings.control_modes.insert(ControlModes::PARENB),
        Parity::Odd => settings.control_modes.insert(ControlModes::PARENB | ControlModes::PARODD),
    }
    if stop_bits == 2 {
        settings.control_modes.insert(ControlModes::CSTOPB);
    }
    settings.set_speed(baud)?;
    rustix::termios::tcsetattr(&port, OptionalActions::Now, &settings)?;
    rustix::termios::tcflush(&port, QueueSelector::IOFlush)?;
    Ok(port)
}

/// Without the number of the error.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(HostPort { host, port }) | Endpoint::RtuTcp(HostPort { host, port }) => {
                if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
            }
            Endpoint::Serial { device, .. } => write!(f, "{}", device.display()),
        }
    }
}
