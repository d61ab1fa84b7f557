//! Edges become samples, and writes become levels.
//!
//!     line: not taken ──take (tried every second)──► taken ──an error, the chip is gone──► not taken
//!
//! Inputs that tell their edges are waited for; all lines are looked at every `interval`, because an output tells nothing
//! of a chip that was pulled out, and some chips have no interrupts. When the whole chip is not there the source is lost.

use super::Config;
use super::chip::{self, Taken};
use super::line::{self, Count};
use crate::base::Stop;
use crate::hub::{Hub, Registration, WriteRequest};
use crate::model::{Quality, Sample, Status, TagId, Value};
use crate::sources::{Source, SourceError};
use async_trait::async_trait;
use futures_util::future::select_all;
use gpiocdev::Request;
use gpiocdev::line::EdgeEvent;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::time::{Instant, MissedTickBehavior};

/// How often it is tried to take lines that are not ours.
const RETRY: Duration = Duration::from_secs(1);
/// Edges that are taken in at once, so that a line that rings like a bell leaves room for others.
const MOST_EDGES: usize = 256;

pub(super) struct Gpio {
    config: Config,
    hub: Hub,
    tags: Registration,
    lines: Vec<Line>,
}

struct Line {
    config: line::Config,
    /// Of its level and its count.
    tags: Vec<TagId>,
    taken: Option<Open>,
    /// Why it is not taken.
    fault: Quality,
    count: Count,
}

struct Open {
    request: Arc<Request>,
    offset: u32,
    /// `None`: it has to be looked at.
    edges: Option<pipe::Receiver>,
    level: bool,
}

impl Gpio {
    pub(super) fn register(config: Config, hub: &Hub) -> Result<Self, SourceError> {
        let configs: Vec<line::Config> = config.line.iter().map(|line| line.get_ref().clone()).collect();
        let specs = configs.iter().map(|line| line.specs(&config.name)).collect::<Result<Vec<_>, _>>()?;
        let counts: Vec<usize> = specs.iter().map(Vec::len).collect();
        let tags = hub.register(&format!("gpio {}", config.name), specs.into_iter().flatten().collect())?;
        let mut ids = tags.tags().iter().copied();
        let lines = configs.into_iter().zip(counts).map(|(config, count)| Line {
            config,
            tags: ids.by_ref().take(count).collect(),
            taken: None,
            fault: Status::BAD_WAITING_FOR_INITIAL_DATA.into(),
            count: Count::default(),
        });
        Ok(Self { lines: lines.collect(), config, hub: hub.clone(), tags })
    }

    /// Tries to take the lines that are not ours.
    async fn take(&mut self) {
        let missing: Vec<usize> = (0..self.lines.len()).filter(|&at| self.lines[at].taken.is_none()).collect();
        if missing.is_empty() {
            return;
        }
        let configs: Vec<line::Config> = missing.iter().map(|&at| self.lines[at].config.clone()).collect();
        let chip = self.config.chip.clone();
        match blocking(move || chip::take(&chip, &configs)).await {
            Ok(taken) => {
                self.hub.source_back(&self.config.name);
                for (at, taken) in missing.into_iter().zip(taken) {
                    match taken.and_then(open) {
                        Ok(open) => self.lines[at].begin(open, &self.hub),
                        Err(quality) => self.lines[at].lose(&quality, &self.hub),
                    }
                }
            }
            Err(quality) => {
                missing.into_iter().for_each(|at| self.lines[at].lose(&quality, &self.hub));
                self.hub.source_lost(&self.config.name, &quality.to_string());
            }
        }
    }

    /// Looks at all lines that are taken.
    async fn look(&mut self) {
        let taken = self.lines.iter().enumerate().filter_map(|(at, line)| Some((at, line.taken.as_ref()?)));
        let taken: Vec<_> = taken.map(|(at, open)| (at, open.request.clone(), open.offset)).collect();
        let look = move || taken.into_iter().map(|(at, request, offset)| (at, chip::level(&request, offset)));
        for (at, level) in blocking(move || look().collect::<Vec<_>>()).await {
            match level {
                Ok(level) => self.lines[at].see(level, &self.hub),
                Err(quality) => self.lines[at].lose(&quality, &self.hub),
            }
        }
    }

    fn edges(&mut self, at: usize, edges: Result<Vec<EdgeEvent>, Quality>) {
        let (line, now) = (&mut self.lines[at], self.hub.now());
        match edges {
            Ok(edges) => {
                let Line { config, tags, count, .. } = line;
                let samples = edges.iter().flat_map(|edge| line::samples(config, tags, count, edge, now));
                self.hub.publish(samples.collect());
            }
            Err(quality) => line.lose(&quality, &self.hub),
        }
    }

    async fn write(&mut self, request: WriteRequest) {
        let outcome = self.set(request.tag, &request.value).await;
        // Whoever asked may have given up.
        let _ = request.reply.send(outcome);
    }

    /// The hub has checked that the tag is writable and the type is right.
    async fn set(&mut self, tag: TagId, value: &Value) -> Result<(), Quality> {
        let line = self.lines.iter_mut().find(|line| line.tags[0] == tag).filter(|line| line.config.is_output());
        let (Some(line), &Value::Boolean(level)) = (line, value) else {
            return Err(Status::BAD_NOT_WRITABLE.into());
        };
        let Some(open) = &mut line.taken else { return Err(line.fault.clone()) };
        let (request, offset) = (open.request.clone(), open.offset);
        let set = move || request.set_value(offset, level.into()).map(|_| ()).map_err(|error| chip::lost(&error));
        match blocking(set).await {
            Ok(()) => {
                open.level = level;
                self.hub.publish(vec![Sample::good(tag, Value::Boolean(level), self.hub.now())]);
                Ok(())
            }
            Err(quality) => {
                line.lose(&quality, &self.hub);
                Err(quality)
            }
        }
    }
}

impl Line {
    fn begin(&mut self, open: Open, hub: &Hub) {
        let now = hub.now();
        let values = [Value::Boolean(open.level), Value::UInt64(self.count.edges())];
        hub.publish(self.tags.iter().zip(values).map(|(&tag, value)| Sample::good(tag, value, now)).collect());
        self.count.restart();
        self.taken = Some(open);
    }

    /// Its level, by a look. Edges say it better where they are told.
    fn see(&mut self, level: bool, hub: &Hub) {
        let Some(open) = self.taken.as_mut().filter(|open| open.edges.is_none()) else { return };
        if std::mem::replace(&mut open.level, level) != level {
            hub.publish(vec![Sample::good(self.tags[0], Value::Boolean(level), hub.now())]);
        }
    }

    fn lose(&mut self, quality: &Quality, hub: &Hub) {
        self.taken = None;
        if self.fault != *quality || hub.read(self.tags[0]).quality != *quality {
            self.fault = quality.clone();
            hub.degrade(&self.tags, quality);
        }
    }
}

fn open(taken: Taken) -> Result<Open, Quality> {
    let Taken { request, offset, tells_edges, level } = taken;
    let edges = tells_edges.then(|| watch(&request)).transpose();
    let cannot = |error| Quality::new(Status::BAD_RESOURCE_UNAVAILABLE, format!("cannot wait for its edges: {error}"));
    Ok(Open { edges: edges.map_err(cannot)?, request: Arc::new(request), offset, level })
}

/// The edges of a line, read as from a pipe: tokio's AsyncFd would need `unsafe`.
fn watch(request: &Request) -> std::io::Result<pipe::Receiver> {
    let file = request.as_fd().try_clone_to_owned()?;
    rustix::io::ioctl_fionbio(&file, true)?;
    pipe::Receiver::from_owned_fd_unchecked(file)
}

/// Waits for edges: of which line, and which, or that it is lost. Cancel safe: edges are taken only when this returns.
async fn edges(lines: &[Line]) -> (usize, Result<Vec<EdgeEvent>, Quality>) {
    let waiting = lines.iter().enumerate().filter_map(|(at, line)| {
        let open = line.taken.as_ref()?;
        let edges = open.edges.as_ref()?;
        Some(Box::pin(async move { (at, next_edges(&open.request, edges).await) }))
    });
    let waiting: Vec<_> = waiting.collect();
    if waiting.is_empty() {
        return std::future::pending().await;
    }
    select_all(waiting).await.0
}

async fn next_edges(request: &Request, edges: &pipe::Receiver) -> Result<Vec<EdgeEvent>, Quality> {
    let lost = |error| Quality::new(Status::BAD_NOT_CONNECTED, format!("the chip does not answer: {error}"));
    let size = request.edge_event_size();
    loop {
        edges.readable().await.map_err(lost)?;
        let mut bytes = vec![0; MOST_EDGES * size];
        match edges.try_read(&mut bytes) {
            Ok(0) => return Err(lost(ErrorKind::UnexpectedEof.into())),
            Ok(length) => {
                let events = bytes[..length].chunks_exact(size).map(|event| decode(request, event));
                return events.collect::<Result<_, _>>().map_err(|error| chip::lost(&error));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(lost(error)),
        }
    }
}

fn decode(request: &Request, event: &[u8]) -> gpiocdev::Result<EdgeEvent> {
    let words = event.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
    request.edge_event_from_slice(&words.collect::<Vec<_>>())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("asking the kernel does not panic")
}

#[async_trait]
impl Source for Gpio {
    async fn run(&mut self, stop: &Stop) {
        let mut ticks = tokio::time::interval(self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut next_try = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.look().await;
                    if next_try <= Instant::now() {
                        self.take().await;
                        next_try = Instant::now() + RETRY;
                    }
                }
                (at, found) = edges(&self.lines) => self.edges(at, found),
                request = self.tags.next_write() => self.write(request).await,
                () = stop.stopped() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};
    use crate::model::{EventKind, Happening, TagName};

    #[tokio::test(start_paused = true)]
    async fn without_a_chip_all_is_bad_writes_are_refused_and_it_is_said_once() {
        let hub = Hub::new(Clock::real());
        let toml = "name = 'io'\nchip = 'none such'\n[[line]]\nname = 'door'\nline = 1\ncount = true\n[[line]]\nname = 'lamp'\n\
                    line = 'L'\ndirection = 'out'";
        let mut gpio = Gpio::register(toml::from_str(toml).unwrap(), &hub).unwrap();
        let tasks = Tasks::new("test");
        let stop = tasks.stop_signal();
        let story = async {
            let tag = |name: &str| hub.find(&TagName::new(name).unwrap()).unwrap();
            while hub.recent().is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            for name in ["io/door", "io/door_count", "io/lamp"] {
                let quality = hub.read(tag(name)).quality.to_string();
                assert!(quality.starts_with("BadNotConnected: no GPIO chip is called \"none such\""), "{quality}");
            }
            let refused = hub.write(tag("io/lamp"), Value::Boolean(true)).await.unwrap_err();
            assert_eq!(refused.status, Status::BAD_NOT_CONNECTED);
            let events = hub.recent();
            let [Happening::Event(event)] = &events[..] else { panic!("{events:?}") };
            assert_eq!((event.kind, &*event.source), (EventKind::SourceLost, "io"));
        };
        tokio::select! {
            () = gpio.run(&stop) => panic!("ended"),
            () = story => {}
        }
    }
}
