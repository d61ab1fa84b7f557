//! A bundle by HTTP, into a file: goes on where it was cut, believes nothing that it is told.
//!
//!     what is there is hashed ──► GET, Range ──► streamed, hashed ──► whole and with the right sum, or not there
//!          ▲                                          │
//!          └──── wait, longer each time ◄── cut, 5xx ──┘      the sum is wrong, 404, too large: the end of it
//!
//! Memory is one buffer. The sum and RAUC's signature decide what is installed, so plain http:// is as safe as the way by which the sum
//! came. A server that trickles is bounded by [`LONGEST`], one that says nothing by the timeout of a read, one that does not
//! say how much it sends by what the data partition has to spare. What a server has changed in between (ETag) begins anew.

use crate::base::Backoff;
use crate::base::net::hide_userinfo;
use ring::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

/// Both slots of an image are smaller together; what is larger is no bundle.
pub(super) const LARGEST: u64 = 1 << 30;
/// What the store and the rest need, whatever is downloaded.
pub(super) const SPARE: u64 = 16 << 20;
/// Of attempts that bring little.
const ATTEMPTS: u32 = 8;
/// Less than this is little.
const LITTLE: u64 = 1 << 20;
const LONGEST: Duration = Duration::from_secs(6 * 3600);
pub(super) const BUFFER: usize = 64 << 10;
/// So much may come before it is looked again what the partition has to spare.
const LOOK: u64 = 4 << 20;
const CONNECT: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("{0}")]
    Refused(String),
    #[error("{url}: given up after {ATTEMPTS} attempts: {what}")]
    GivenUp { url: String, what: String },
    #[error("the SHA-256 of {url} is {found}, not {wanted}: it is another file, or it was damaged")]
    Sum { url: String, found: String, wanted: String },
    #[error("{bytes} bytes are more than the {LARGEST} that a bundle may have")]
    TooLarge { bytes: u64 },
    #[error("there is no room for {bytes} bytes on the data partition: {free} are free, of which {SPARE} stay so")]
    NoRoom { bytes: u64, free: u64 },
    #[error("{url}: not here after {} hours", LONGEST.as_secs() / 3600)]
    Slow { url: String },
    #[error("cannot write the bundle: {0}")]
    Write(io::Error),
    #[error("stopped")]
    Stopped,
}

/// How an attempt ended.
enum Cut {
    /// Another one may bring more.
    Again(String),
    End(DownloadError),
}

impl From<DownloadError> for Cut {
    fn from(error: DownloadError) -> Self {
        Self::End(error)
    }
}

pub struct Download<'a> {
    pub url: &'a str,
    pub path: &'a Path,
    /// 64 hexadecimal digits. Without it the signature alone decides.
    pub sha256: Option<&'a str>,
    /// Authorities (PEM) that are trusted beside the system's own.
    pub ca_file: Option<&'a Path>,
    /// How much there is, and of how much if that is known.
    pub tell: &'a dyn Fn(u64, Option<u64>),
    /// Why it was cut: whoever waits sees what is to be mended, not only that it takes long.
    pub say: &'a dyn Fn(String),
    pub is_stopped: &'a dyn Fn() -> bool,
    /// Between attempts, at the least and at the most.
    pub wait: (Duration, Duration),
    /// What is free where the file is.
    pub free: &'a dyn Fn(&Path) -> Option<u64>,
}

/// What stays the same from one attempt to the next.
struct Session {
    agent: Agent,
    began: Instant,
    /// Which of its versions the server has sent, if it says so and means it byte by byte (RFC 9110, 8.8.3).
    etag: RefCell<Option<String>>,
}

impl Download<'_> {
    /// Blocks until the file is there.
    pub fn run(&self) -> Result<(), DownloadError> {
        let session = Session { agent: self.agent()?, began: Instant::now(), etag: RefCell::default() };
        // A fleet is updated at one moment.
        let mut backoff = Backoff::spread(self.wait.0, self.wait.1);
        // The most there ever was: a server that leads to beginning anew again and again brings nothing.
        let (mut futile, mut most) = (0, length(self.path));
        loop {
            let what = match self.attempt(&session) {
                Ok(()) => return Ok(()),
                Err(Cut::End(error)) => return Err(error),
                Err(Cut::Again(what)) => what,
            };
            if length(self.path) >= most + LITTLE {
                (futile, most) = (0, length(self.path));
                backoff.reset();
            }
            futile += 1;
            if futile >= ATTEMPTS {
                return Err(DownloadError::GivenUp { url: self.shown(), what });
            }
            (self.say)(format!("the download was cut, and goes on in a while: {what}"));
            let until = Instant::now() + backoff.wait();
            while Instant::now() < until {
                self.heed_stop()?;
                std::thread::sleep(Duration::from_millis(100).min(self.wait.0));
            }
        }
    }

    /// The URL, for people.
    fn shown(&self) -> String {
        hide_userinfo(self.url)
    }

    fn agent(&self) -> Result<Agent, DownloadError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("vedette/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        // Also for http://, which may lead elsewhere.
        let roots = self.authorities()?;
        if roots.is_empty() && self.url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")) {
            let what = "this system has no certificate authorities, so https:// cannot be used; name one in [update] ca_file, \
                        or use http://, the SHA-256 protects";
            return Err(DownloadError::Refused(what.into()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        config = config.tls_config(
            TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(provider)
                .root_certs(RootCerts::new_with_certs(&roots))
                .build(),
        );
        Ok(config.build().new_agent())
    }

    /// The system's, and those that somebody named.
    fn authorities(&self) -> Result<Vec<Certificate<'static>>, DownloadError> {
        let roots = rustls_native_certs::load_native_certs().certs;
        let mut roots: Vec<_> = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        if let Some(path) = self.ca_file {
            let refused = |what: String| DownloadError::Refused(format!("ca_file = {path:?}: {what}"));
            let pem = fs::read(path).map_err(|error| refused(error.to_string()))?;
            let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            let own = own.map_err(|error| refused(error.to_string()))?;
            if own.is_empty() {
                return Err(refused("no certificate in PEM (-----BEGIN CERTIFICATE-----)".into()));
            }
            roots.extend(own.iter().map(|der| Certificate::from_der(der).to_owned()));
        }
        Ok(roots)
    }

    fn attempt(&self, session: &Session) -> Result<(), Cut> {
        let mut file = self.open()?;
        let mut hash = Context::new(&SHA256);
        let mut got = self.hash(&mut file, &mut hash)?;
        if got > 0 && self.sha256.is_some_and(|sum| hex(&hash.clone().finish()).eq_ignore_ascii_case(sum)) {
            return Ok(());
        }
        let mut request = session.agent.get(self.url);
        if got > 0 {
            request = request.header(header::RANGE, format!("bytes={got}-"));
            if let Some(etag) = &*session.etag.borrow() {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        let mut response = request.call().map_err(|error| self.failed(&error))?;
        let before = session.etag.replace(strong_etag(&response));
        let total = match response.status() {
            StatusCode::PARTIAL_CONTENT => match range(&response) {
                _ if before.is_some() && before != *session.etag.borrow() => {
                    return Err(self.anew("the server has another file now"));
                }
                Some((from, total)) if from == got => total,
                _ => return Err(self.anew("the server goes on in the wrong place")),
            },
            StatusCode::OK => {
                self.empty(&mut file)?;
                (got, hash) = (0, Context::new(&SHA256));
                response.body().content_length()
            }
            // Of nothing there is no range, and what is there is not what the server has.
            StatusCode::RANGE_NOT_SATISFIABLE if got > 0 => {
                return Err(self.anew("the server has less than was here already"));
            }
            status if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) => {
                return Err(Cut::Again(format!("the server says {status}")));
            }
            status => {
                return Err(DownloadError::Refused(format!("{}: the server says {status}", self.shown())).into());
            }
        };
        let resumed = got;
        self.room_for(total.unwrap_or(0).saturating_sub(got))?;
        let mut looked = got;
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            self.heed_stop()?;
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.keep(&file, &error.to_string())),
            };
            got += count as u64;
            if got > LARGEST {
                self.remove();
                return Err(DownloadError::TooLarge { bytes: got }.into());
            }
            file.write_all(&buffer[..count]).map_err(DownloadError::Write)?;
            hash.update(&buffer[..count]);
            (self.tell)(got, total);
            if session.began.elapsed() > LONGEST {
                return Err(DownloadError::Slow { url: self.shown() }.into());
            }
            if got - looked >= LOOK {
                looked = got;
                self.room_for(total.unwrap_or(0).saturating_sub(got))?;
            }
        }
        if total.is_some_and(|total| got < total) {
            return Err(self.keep(&file, "the connection ended early"));
        }
        file.sync_all().map_err(DownloadError::Write)?;
        let found = hex(&hash.finish());
        match self.sha256 {
            Some(wanted) if !found.eq_ignore_ascii_case(wanted) && resumed > 0 => {
                // Perhaps the beginning was that of another file.
                Err(self.anew("the sum is wrong"))
            }
            Some(wanted) if !found.eq_ignore_ascii_case(wanted) => {
                self.remove();
                Err(DownloadError::Sum { url: self.shown(), found, wanted: wanted.into() }.into())
            }
            _ => Ok(()),
        }
    }

    /// For reading and going on. What RAUC has taken for its own may not be written any more.
    fn open(&self) -> Result<File, DownloadError> {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.path);
        open().or_else(|_| fs::remove_file(self.path).and_then(|()| open())).map_err(DownloadError::Write)
    }

    /// What is there; the file stands at its end then.
    fn hash(&self, file: &mut File, hash: &mut Context) -> Result<u64, Cut> {
        let (mut got, mut buffer) = (0, vec![0; BUFFER]);
        loop {
            self.heed_stop()?;
            match file.read(&mut buffer).map_err(DownloadError::Write)? {
                0 => return Ok(got),
                count => {
                    hash.update(&buffer[..count]);
                    got += count as u64;
                }
            }
        }
    }

    fn empty(&self, file: &mut File) -> Result<(), DownloadError> {
        file.set_len(0).and_then(|()| file.rewind()).map_err(DownloadError::Write)
    }

    /// For so many bytes more.
    fn room_for(&self, bytes: u64) -> Result<(), DownloadError> {
        if bytes > LARGEST {
            return Err(DownloadError::TooLarge { bytes });
        }
        match (self.free)(self.path) {
            Some(free) if bytes + SPARE > free => Err(DownloadError::NoRoom { bytes, free }),
            _ => Ok(()),
        }
    }

    /// What came so far is worth keeping.
    fn keep(&self, file: &File, what: &str) -> Cut {
        match file.sync_all() {
            Ok(()) => Cut::Again(what.into()),
            Err(error) => DownloadError::Write(error).into(),
        }
    }

    fn anew(&self, what: &str) -> Cut {
        self.remove();
        Cut::Again(format!("{what}; starting anew"))
    }

    fn remove(&self) {
        // If it stays, the next attempt meets it and judges it by its sum.
        let _ = fs::remove_file(self.path);
    }

    fn failed(&self, error: &ureq::Error) -> Cut {
        // Some have the URL in them.
        let text = error.to_string().replace(self.url, &self.shown());
        match error {
            ureq::Error::BadUri(_) | ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => {
                DownloadError::Refused(format!("{}: {text}", self.shown())).into()
            }
            // Most often that is the clock.
            _ if text.contains("NotValidYet") || text.contains("not valid yet") => {
                Cut::Again(format!("{text}; is this device's clock set?"))
            }
            _ => Cut::Again(text),
        }
    }

    fn heed_stop(&self) -> Result<(), DownloadError> {
        if (self.is_stopped)() { Err(DownloadError::Stopped) } else { Ok(()) }
    }
}

/// Of `bytes 10-19/20`: from where, and of how much (RFC 9110, 14.4).
fn range(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((span.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

/// A weak one may be the same for another file.
fn strong_etag(response: &Response<Body>) -> Option<String> {
    let etag = response.headers().get(header::ETAG)?.to_str().ok()?;
    etag.starts_with('"').then(|| etag.to_owned())
}

/// What whoever is not root may still write there.
pub(super) fn free(path: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(path).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// SHA-256 of a file, in hexadecimal digits.
pub(super) fn sum(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Context::new(&SHA256), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finish())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn hex(digest: &ring::digest::Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
