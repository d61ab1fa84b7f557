//! Binding a port, and saying who has it when it is taken; connecting to a name of several addresses.

use futures_util::stream::{FuturesUnordered, StreamExt as _};
#[cfg(target_os = "linux")]
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
#[cfg(target_os = "linux")]
use tracing::warn;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// `host`, `host:1234`, `[::1]:1234`.
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(inside) => inside.split_once(']')?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|&port| port != 0)?,
            None if rest.is_empty() => default_port,
            None => return None,
        };
        let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "@?#".contains(c));
        is_host.then(|| Self { host: host.into(), port })
    }
}

/// A URL for people: error messages reach logs, screens and other machines; a password that somebody wrote into it must not. What
/// stands before the last @ is hidden, also behind a slash, for a password may have one.
pub fn hide_userinfo(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        (None, Some((_, host))) => format!("...@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(unix)]
const FORBIDDEN: &str = "ports below 1024 need root or CAP_NET_BIND_SERVICE";
#[cfg(windows)]
const FORBIDDEN: &str =
    "another program has this port for itself, or Windows keeps it (netsh int ipv4 show excludedportrange tcp)";

#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
    /// Name and process id of the program that listens there, where this process may see it.
    pub holder: Option<(String, u32)>,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { address, source, holder } = self;
        match (source.kind(), holder) {
            (io::ErrorKind::AddrInUse, Some((name, pid))) => {
                write!(f, "{address} is in use by {name} (process {pid})")
            }
            (io::ErrorKind::AddrInUse, None) => write!(f, "{address} is in use by another program"),
            (io::ErrorKind::AddrNotAvailable, _) => write!(f, "{address} is not an address of this machine"),
            (io::ErrorKind::PermissionDenied, _) => {
                write!(f, "{address}: {FORBIDDEN}")
            }
            _ => write!(f, "cannot listen on {address}: {source}"),
        }
    }
}

impl std::error::Error for BindError {}

impl BindError {
    /// It is this process that has the port.
    pub fn is_ours(&self) -> bool {
        self.holder.as_ref().is_some_and(|(_, pid)| *pid == std::process::id())
    }
}

/// Listens on `address`, ready to be handed to tokio. On Linux also on one that this machine does not have yet: a cable that is plugged
/// in later must not cost what needs no network.
pub fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    // std sets SO_REUSEADDR, so a restart does not wait for old connections to die.
    let bind = || -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let bound = match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => listen_before(address),
        bound => bound,
    };
    bound.map_err(|source| BindError { address, source, holder: holder(address.port()) })
}

/// Before the address is there: IP_FREEBIND, ip(7).
#[cfg(target_os = "linux")]
fn listen_before(address: SocketAddr) -> io::Result<TcpListener> {
    /// As std has it.
    const BACKLOG: i32 = 128;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    warn!(%address, "This machine does not have this address now; whoever wants to connect must wait until it has.");
    Ok(socket.into())
}

#[cfg(not(target_os = "linux"))]
fn listen_before(_: SocketAddr) -> io::Result<TcpListener> {
    Err(io::ErrorKind::AddrNotAvailable.into())
}

/// Between the first tries of a name's addresses: one that swallows packets must not keep the next one from its turn
/// (RFC 8305, 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Connects to a name, or an address without brackets.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    connect_to_first(tokio::net::lookup_host((host, port)).await?).await
}

/// The first address that answers, of any number: all are tried beside each other, each a little after the one before.
pub async fn connect_to_first(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    let mut addresses = addresses.peekable();
    let mut tries = FuturesUnordered::new();
    while addresses.peek().is_some() || !tries.is_empty() {
        tries.extend(addresses.next().map(TcpStream::connect));
        tokio::select! {
            Some(outcome) = tries.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = tokio::time::sleep(NEXT_ADDRESS), if addresses.peek().is_some() => {}
        }
    }
    Err(failure)
}

/// Who listens on this TCP port: /proc/net/tcp* give the socket's inode, /proc/*/fd the process that has it open.
fn holder(port: u16) -> Option<(String, u32)> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|table| listening_inode(&table, port))?;
    let wanted = format!("socket:[{inode}]");
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if has_open(&entry.path().join("fd"), &wanted) {
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            return Some((name.trim().to_owned(), pid));
        }
    }
    None
}

fn has_open(fds: &Path, wanted: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(fds) else { return false };
    entries.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted))
}

/// Columns as in proc(5): local address in hex as `ADDRESS:PORT` second, state fourth (0A is LISTEN), inode tenth.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, hex) = columns.get(1)?.rsplit_once(':')?;
        let is_port = u16::from_str_radix(hex, 16).is_ok_and(|found| found == port);
        if is_port && columns.get(3) == Some(&"0A") { columns.get(9)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        let parse = |text| HostPort::parse(text, 4840).map(|found| (found.host, found.port));
        assert_eq!(parse("plc"), Some(("plc".into(), 4840)));
        assert_eq!(parse("10.0.0.1:1"), Some(("10.0.0.1".into(), 1)));
        assert_eq!(parse("[fe80::1]:2"), Some(("fe80::1".into(), 2)));
        assert_eq!(["", ":1", "a:0", "a:70000", "a:b", "[::1", "[::1]x", "a b", "u@h"].map(parse), [const { None }; 9]);
    }

    #[test]
    fn user_and_password_of_a_url_are_not_shown() {
        for (url, shown) in [
            ("http://me:secret@host:8080/b", "http://...@host:8080/b"),
            ("http://me:sec/ret@host/b", "http://...@host/b"),
            ("me:secret@host", "...@host"),
            ("https://host/b?x", "https://host/b?x"),
            ("/data/b.raucb", "/data/b.raucb"),
        ] {
            assert_eq!(hide_userinfo(url), shown);
        }
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.holder.as_ref().map(|(_, pid)| *pid), Some(std::process::id()));
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }

    /// 192.0.2.1 and 2001:db8::1 are for documentation, so nobody has them.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_address_that_is_not_ours_yet_is_taken_once() {
        let first = listen("192.0.2.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(address.ip().to_string(), "192.0.2.1");
        assert!(listen(address).unwrap_err().to_string().contains("is in use by"));
        let source = io::ErrorKind::AddrNotAvailable.into();
        let error = BindError { address, source, holder: None };
        assert!(error.to_string().ends_with("is not an address of this machine"));
    }

    #[tokio::test]
    async fn addresses_that_swallow_packets_or_refuse_do_not_keep_the_next_one_waiting() {
        // Nobody accepts here, and the queue is full.
        let deaf = tokio::net::TcpSocket::new_v4().unwrap();
        deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let deaf = deaf.listen(1).unwrap();
        let swallows = deaf.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(swallows)).await {
            queued.push(stream.unwrap());
        }
        let refuses = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = good.local_addr().unwrap();

        let addresses = [swallows, refuses, swallows, swallows, swallows, swallows, answers];
        let stream = tokio::time::timeout(Duration::from_secs(20), connect_to_first(addresses.into_iter())).await;
        assert_eq!(stream.expect("before a dial is given up").unwrap().peer_addr().unwrap(), answers);
        let stream =
            tokio::time::timeout(Duration::from_secs(15), connect_to_first([swallows, answers].into_iter())).await;
        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), answers);
        let nowhere = connect_to_first([refuses].into_iter()).await.unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect_to_first([].into_iter()).await.unwrap_err().to_string(), "its name has no address");
    }
}
