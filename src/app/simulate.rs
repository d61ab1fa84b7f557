//! Many devices in one process, each with the uplink that a device has, and a connection of its own: a load for brokers and
//! for what stands behind them.
//!
//!     tags task ──► hub ─┐
//!                   hub ─┼─► sinks::mqtt, one for each ──► Counting ──► broker
//!                   hub ─┘                                    └── Counts, read once a second by who shows them
//!
//! Only the tags are made up. Births, reconnects and what is said are the program's own, so what is measured here is what
//! a fleet does. Absent on purpose: cameras, sources, a store.

use crate::base::{Clock, Stop, Tasks};
use crate::hub::{Hub, RegisterError, Registration};
use crate::model::{DataType, Sample, TagName, TagSpec, Value};
use crate::mqtt::line::{Client, ClientError, Connect, Dial, Message, Received, Rumqtt};
use crate::mqtt::{Access, Protocol};
use crate::sinks::mqtt::{self, Setup, Status, StatusError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Simulated {
    pub access: Access,
    pub group: String,
    /// Nodes are called `NAME-00001` and on.
    pub name: String,
    pub devices: usize,
    /// Of each device; all of them change at each interval.
    pub tags: usize,
    pub interval: Duration,
}

/// Since the start; `connected` is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connected: u64,
    /// CONNECTs that were accepted.
    pub connects: u64,
    /// CONNECTs that were not.
    pub refused: u64,
    pub births: u64,
    /// Bytes of topics and payloads of births.
    pub birth_bytes: u64,
    pub messages: u64,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error(
        "{devices} connections need {wanted} open files, and this system allows {allowed}: raise it (ulimit -Hn, or LimitNOFILE \
         of the service), or run several with fewer devices and another --name"
    )]
    Files { devices: usize, wanted: u64, allowed: u64 },
    #[error("cannot make {path:?}: {source}; $TMPDIR names another folder")]
    Folder { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Tags(#[from] RegisterError),
    #[error("{0}")]
    Status(#[from] StatusError),
    #[error("{0}")]
    Config(String),
}

/// Files that the program has open besides.
const OTHERS: u64 = 64;

/// The devices' turns within an interval, so that a thousand do not speak in one moment.
const TURNS: usize = 200;

/// Of all goodbyes together.
const FAREWELL: Duration = Duration::from_secs(10);

pub struct Simulation {
    tasks: Tasks,
    counters: Arc<Counters>,
    folder: PathBuf,
}

#[derive(Default)]
struct Counters {
    connected: AtomicU64,
    connects: AtomicU64,
    refused: AtomicU64,
    births: AtomicU64,
    birth_bytes: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

struct Device {
    hub: Hub,
    tags: Registration,
}

impl Simulation {
    /// All devices at once, as after a power failure.
    pub fn start(simulated: &Simulated) -> Result<Self, SimulateError> {
        allow_files(simulated.devices)?;
        let folder = std::env::temp_dir().join(format!("vedette-simulate-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|source| SimulateError::Folder { path: folder.clone(), source })?;
        let counters = Arc::<Counters>::default();
        let tasks = Tasks::new("simulate");
        let mut devices = Vec::with_capacity(simulated.devices);
        for number in 1..=simulated.devices {
            let name = format!("{}-{number:05}", simulated.name);
            let hub = Hub::new(Clock::real());
            devices.push(Device { tags: hub.register("simulate", specs(simulated.tags))?, hub: hub.clone() });
            let config = config(simulated, &name)?;
            let setup = Arc::new(Setup {
                config,
                device_name: name.clone(),
                data_dir: folder.join(&name),
                store: None,
                status: Status::register(&hub)?,
            });
            let counters = counters.clone();
            tasks.spawn(name, move |stop| {
                let (setup, hub, dial) = (setup.clone(), hub.clone(), Counting { counters: counters.clone() });
                async move { mqtt::run_over(setup, hub, stop, dial).await }
            });
        }
        let (devices, interval) = (Arc::new(devices), simulated.interval);
        tasks.spawn("tags", move |stop| change(devices.clone(), interval, stop));
        Ok(Self { tasks, counters, folder })
    }

    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Counts {
            connected: read(&counters.connected),
            connects: read(&counters.connects),
            refused: read(&counters.refused),
            births: read(&counters.births),
            birth_bytes: read(&counters.birth_bytes),
            messages: read(&counters.messages),
            bytes: read(&counters.bytes),
        }
    }

    /// Each device says goodbye.
    pub async fn stop(self) {
        self.tasks.stop(FAREWELL).await;
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "Could not remove the folder of the simulation.");
        }
    }
}

/// A connection is a file.
fn allow_files(devices: usize) -> Result<(), SimulateError> {
    let wanted = devices as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(maximum.map_or(wanted, |maximum| maximum.min(wanted))), maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) if raised.current >= Some(wanted) => Ok(()),
        _ => Err(SimulateError::Files { devices, wanted, allowed: maximum.or(current).unwrap_or(0) }),
    }
}

fn specs(tags: usize) -> Vec<TagSpec> {
    let name = |tag: usize| TagName::new(&format!("line/value{tag:04}")).expect("this is a path");
    (1..=tags).map(|tag| TagSpec::new(name(tag), DataType::Double).unit("mm").range(-1.0, 1.0)).collect()
}

/// As the configuration of a device would say it.
fn config(simulated: &Simulated, node: &str) -> Result<mqtt::Config, SimulateError> {
    let access = &simulated.access;
    let mut table = toml::Table::new();
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let protocol = match access.protocol {
        Protocol::V5 => "5",
        Protocol::V311 => "3.1.1",
    };
    let millis = simulated.interval.clamp(Duration::from_millis(10), Duration::from_secs(1)).as_millis();
    for (key, value) in [
        ("broker", Some(access.broker.to_string())),
        ("protocol", Some(protocol.to_owned())),
        ("group", Some(simulated.group.clone())),
        ("node", Some(node.to_owned())),
        ("publish_interval", Some(format!("{millis}ms"))),
        ("keep_alive", Some(format!("{}s", access.keep_alive.as_secs()))),
        ("username", access.username.clone()),
        ("password_file", access.password_file.as_ref().map(path)),
        ("ca_file", access.ca_file.as_ref().map(path)),
        ("client_cert_file", access.client_cert_file.as_ref().map(path)),
        ("client_key_file", access.client_key_file.as_ref().map(path)),
    ] {
        if let Some(value) = value {
            table.insert(key.to_owned(), value.into());
        }
    }
    table.try_into().map_err(|error: toml::de::Error| SimulateError::Config(error.message().to_owned()))
}

/// Gives each device new values once an interval.
async fn change(devices: Arc<Vec<Device>>, interval: Duration, stop: Stop) {
    let turns = devices.len().clamp(1, TURNS);
    let mut ticks = tokio::time::interval(interval / turns as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut turn = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.stopped() => return,
        }
        for device in devices.iter().skip(turn % turns).step_by(turns) {
            let now = device.hub.now();
            let value = |_| Value::Double(fastrand::f64() * 2.0 - 1.0);
            let tags = device.tags.tags().iter();
            device.hub.publish(tags.map(|&tag| Sample::good(tag, value(tag), now)).collect());
        }
        turn += 1;
    }
}

/// The line to the broker, with counters.
struct Counting {
    counters: Arc<Counters>,
}

struct Counted<C> {
    client: C,
    counters: Arc<Counters>,
}

impl Dial for Counting {
    type Client = Counted<<Rumqtt as Dial>::Client>;

    async fn dial(&mut self, connect: Connect) -> Result<Self::Client, ClientError> {
        let counters = self.counters.clone();
        match Rumqtt::default().dial(connect).await {
            Ok(client) => {
                counters.connects.fetch_add(1, Ordering::Relaxed);
                counters.connected.fetch_add(1, Ordering::Relaxed);
                Ok(Counted { client, counters })
            }
            Err(error) => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}

impl<C> Drop for Counted<C> {
    fn drop(&mut self) {
        self.counters.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C> Counted<C> {
    fn count(&self, message: &Message) {
        let bytes = (message.topic.len() + message.payload.len()) as u64;
        self.counters.messages.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        if message.topic.contains("/NBIRTH/") {
            self.counters.births.fetch_add(1, Ordering::Relaxed);
        }
        if message.topic.contains("BIRTH/") {
            self.counters.birth_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl<C: Client> Client for Counted<C> {
    async fn next(&mut self) -> Result<Received, ClientError> {
        self.client.next().await
    }

    fn largest(&self) -> Option<usize> {
        self.client.largest()
    }

    async fn subscribe(&mut self, filters: Vec<String>) -> Result<(), ClientError> {
        self.client.subscribe(filters).await
    }

    async fn publish(&mut self, messages: Vec<Message>) -> Result<(), ClientError> {
        messages.iter().for_each(|message| self.count(message));
        self.client.publish(messages).await
    }

    async fn disconnect(&mut self) -> Result<(), ClientError> {
        self.client.disconnect().await
    }

    async fn probe(&mut self) -> Result<(), ClientError> {
        self.client.probe().await
    }

    async fn disconnect_with_will(&mut self) -> Result<(), ClientError> {
        self.client.disconnect_with_will().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::BrokerUrl;

    #[test]
    fn a_simulated_device_is_configured_as_a_real_one() {
        let access = Access {
            broker: BrokerUrl::parse("mqtts://broker").unwrap(),
            protocol: Protocol::V311,
            username: Some("u".into()),
            password_file: Some("/etc/p".into()),
            ca_file: Some("/etc/ca.pem".into()),
            client_cert_file: None,
            client_key_file: None,
            keep_alive: Duration::from_secs(7),
        };
        let simulated = Simulated {
            access: access.clone(),
            group: "G".into(),
            name: "sim".into(),
            devices: 1,
            tags: 3,
            interval: Duration::from_millis(1),
        };
        let config = config(&simulated, "sim-1").unwrap();
        assert_eq!(config.access(config.brokers()[0]), access);
        assert_eq!((config.group.as_str(), config.node.as_ref().map(|node| node.as_str())), ("G", Some("sim-1")));
        assert_eq!((config.publish_interval, config.validate()), (Duration::from_millis(10), Vec::new()));
        assert_eq!(specs(3).len(), 3);
        let wrong = Simulated { group: "a/b".into(), ..simulated };
        assert!(self::config(&wrong, "n").unwrap_err().to_string().contains("Sparkplug id"));
    }
}
