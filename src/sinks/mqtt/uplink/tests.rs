use super::super::talk::DEBOUNCE;
use super::*;
use crate::base::{Clock, Tasks};
use crate::hub::Registration;
use crate::model::{DataType, Sample, TagName, TagSpec, Value};
use crate::mqtt::line::Received;
use crate::mqtt::sparkplug::proto::Payload;
use crate::mqtt::sparkplug::proto::payload::{Metric, metric};
use crate::sinks::history::{Recorder, Wanted};
use crate::sinks::mqtt::Status;
use crate::store::Store;
use prost::Message as _;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// A broker by script: refuses the first `refusals` CONNECTs, then shows what the uplink does.
#[derive(Clone)]
struct Script {
    refusals: Arc<AtomicU32>,
    seen: mpsc::Sender<Seen>,
    lines: mpsc::Sender<mpsc::Sender<Vec<u8>>>,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Connect { bd_seq: u64 },
    Subscribe(String),
    Publish { kind: String, seq: Option<u64>, metrics: Vec<String> },
    Disconnect,
}

struct Line {
    script: Script,
    /// Ends with the connection.
    commands: mpsc::Receiver<Vec<u8>>,
}

fn gone() -> ClientError {
    let broker = crate::mqtt::BrokerUrl::parse("mqtt://script").unwrap();
    ClientError::Connection { broker, reason: "as the script says".into() }
}

impl Dial for Script {
    type Client = Line;

    async fn dial(&mut self, connect: Connect) -> Result<Line, ClientError> {
        let will = Payload::decode(connect.will.unwrap().payload).unwrap();
        let Some(metric::Value::LongValue(bd_seq)) = will.metrics[0].value else { panic!("{will:?}") };
        self.seen.send(Seen::Connect { bd_seq }).await.unwrap();
        if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(gone());
        }
        let (sender, commands) = mpsc::channel(8);
        self.lines.send(sender).await.unwrap();
        Ok(Line { script: self.clone(), commands })
    }
}

impl Client for Line {
    async fn next(&mut self) -> Result<Received, ClientError> {
        let payload = self.commands.recv().await.ok_or_else(gone)?.into();
        Ok(Received {
            topic: "spBv1.0/Vedette/NCMD/box".into(),
            payload,
            retain: false,
            properties: Default::default(),
        })
    }

    async fn subscribe(&mut self, filters: Vec<String>) -> Result<(), ClientError> {
        // Those of JSON commands are for their own tests.
        for filter in filters.into_iter().filter(|filter| filter.starts_with("spBv1.0/")) {
            self.script.seen.send(Seen::Subscribe(filter)).await.map_err(|_| gone())?;
        }
        Ok(())
    }

    async fn publish(&mut self, messages: Vec<Message>) -> Result<(), ClientError> {
        for message in messages {
            let payload = Payload::decode(message.payload.as_ref()).unwrap();
            let show = |metric: &Metric| match metric.value {
                Some(metric::Value::IntValue(value)) => format!("{}={}", metric.name(), value as i32),
                _ => metric.name().to_owned(),
            };
            let kind = message.topic.split('/').nth(2).unwrap().to_owned();
            let metrics = payload.metrics.iter().map(show).collect();
            let seen = Seen::Publish { kind, seq: payload.seq, metrics };
            self.script.seen.send(seen).await.map_err(|_| gone())?;
        }
        Ok(())
    }

    async fn disconnect(&mut self) -> Result<(), ClientError> {
        self.disconnect_with_will().await
    }

    async fn probe(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    async fn disconnect_with_will(&mut self) -> Result<(), ClientError> {
        self.script.seen.send(Seen::Disconnect).await.map_err(|_| gone())
    }
}

/// The uplink with a scripted broker, in simulated time.
struct Plant {
    hub: Hub,
    source: Registration,
    tasks: Tasks,
    seen: mpsc::Receiver<Seen>,
    lines: mpsc::Receiver<mpsc::Sender<Vec<u8>>>,
    _data_dir: tempfile::TempDir,
}

impl Plant {
    fn start(refusals: u32) -> Self {
        Self::of(refusals, "")
    }

    fn of(refusals: u32, toml: &str) -> Self {
        let hub = Hub::new(Clock::simulated(std::time::UNIX_EPOCH + Duration::from_secs(1000)));
        let spec = |name: &str| TagSpec::new(TagName::new(name).unwrap(), DataType::Int32);
        let source = hub.register("source", vec![spec("a"), spec("set").writable()]).unwrap();
        let data_dir = tempfile::tempdir().unwrap();
        let common = "broker = 'mqtt://script'\nnode = 'box'\npublish_interval = '50ms'\ntags = ['*']";
        let config = toml::from_str(&format!("{common}\n{toml}")).unwrap();
        let setup = Arc::new(Setup {
            config,
            device_name: "unused".into(),
            data_dir: data_dir.path().to_owned(),
            store: None,
            status: Status::register(&hub).unwrap(),
        });
        let (seen_sender, seen) = mpsc::channel(64);
        let (line_sender, lines) = mpsc::channel(8);
        let script = Script { refusals: Arc::new(refusals.into()), seen: seen_sender, lines: line_sender };
        let tasks = Tasks::new("test");
        let of_task = hub.clone();
        tasks.spawn("mqtt", move |stop| {
            let (setup, hub, script) = (setup.clone(), of_task.clone(), script.clone());
            async move {
                let outbox = Outbox::open(setup.data_dir.join("pictures"), 1 << 20).await;
                run(&setup, &hub, &stop, &outbox, script).await
            }
        });
        Self { hub, source, tasks, seen, lines, _data_dir: data_dir }
    }

    async fn next(&mut self) -> Seen {
        tokio::time::timeout(Duration::from_secs(300), self.seen.recv()).await.expect("in time").expect("uplink runs")
    }

    fn publish(&self, value: i32) {
        self.hub.publish(vec![Sample::good(self.source.tags()[0], Value::Int32(value), self.hub.now())]);
    }
}

fn seen(kind: &str, seq: Option<u64>, metrics: &[&str]) -> Seen {
    Seen::Publish { kind: kind.into(), seq, metrics: metrics.iter().map(|&name| name.to_owned()).collect() }
}

/// They are of the moment of the birth, and so after the tags.
const OWN: [&str; 3] = ["bdSeq", "Node Control/Rebirth", "Node Control/Identify"];

fn birth(tags: &[&str]) -> Seen {
    seen("NBIRTH", Some(0), &[tags, &OWN].concat())
}

fn subscribed() -> Seen {
    Seen::Subscribe("spBv1.0/Vedette/NCMD/box".into())
}

fn ncmd(name: &str, value: metric::Value) -> Vec<u8> {
    let metric = Metric { name: Some(name.into()), value: Some(value), ..Metric::default() };
    Payload { metrics: vec![metric], ..Payload::default() }.encode_to_vec()
}

#[tokio::test(start_paused = true)]
async fn birth_data_and_death() {
    let mut plant = Plant::start(0);
    assert_eq!(plant.next().await, Seen::Connect { bd_seq: 0 });
    assert_eq!(plant.next().await, subscribed());
    assert_eq!(plant.next().await, birth(&["a", "set"]));
    plant.publish(1);
    plant.publish(2);
    assert_eq!(plant.next().await, seen("NDATA", Some(1), &["a=1", "a=2"]));
    plant.publish(3);
    let Plant { tasks, seen: mut rest, .. } = plant;
    tasks.stop(Duration::from_secs(5)).await;
    let mut last = Vec::new();
    while let Some(seen) = rest.recv().await {
        last.push(seen);
    }
    assert_eq!(last.pop(), Some(Seen::Disconnect));
    assert_eq!(last.pop(), Some(seen("NDEATH", None, &["bdSeq"])), "the last before DISCONNECT");
}

#[tokio::test(start_paused = true)]
async fn each_connect_has_its_own_bd_seq_and_a_lost_line_is_born_again() {
    let mut plant = Plant::start(3);
    for bd_seq in 0..4 {
        assert_eq!(plant.next().await, Seen::Connect { bd_seq });
    }
    assert_eq!(plant.next().await, subscribed());
    assert_eq!(plant.next().await, birth(&["a", "set"]));
    let line = plant.lines.recv().await.unwrap();
    plant.publish(7);
    drop(line);
    assert_eq!(plant.next().await, Seen::Connect { bd_seq: 4 });
    assert_eq!(plant.next().await, subscribed());
    assert_eq!(plant.next().await, birth(&["set", "a=7"]), "what happened meanwhile is in the birth");
}

#[tokio::test(start_paused = true)]
async fn a_primary_host_that_does_not_come_is_said() {
    let mut plant = Plant::of(0, "primary_host = 'scada'");
    assert_eq!(plant.next().await, Seen::Connect { bd_seq: 0 });
    assert_eq!(plant.next().await, subscribed());
    let down = |plant: &Plant| {
        let conditions = plant.hub.conditions().into_iter();
        conditions
            .filter(|condition| condition.is_active)
            .map(|condition| condition.message.to_string())
            .collect::<Vec<_>>()
    };
    assert!(down(&plant).is_empty(), "it may be about to come");
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(down(&plant), ["No connection to mqtt://script:1883: the primary host is not there"]);
    assert_eq!(plant.next().await, Seen::Subscribe("spBv1.0/STATE/scada".into()));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(plant.seen.try_recv().is_err(), "with nowhere else to go it stays");
}

#[tokio::test(start_paused = true)]
async fn a_chorus_of_rebirth_requests_gets_one_answer_at_a_time() {
    let mut plant = Plant::start(0);
    let line = plant.lines.recv().await.unwrap();
    for _ in 0..3 {
        plant.next().await;
    }
    for _ in 0..5 {
        line.send(ncmd("Node Control/Rebirth", metric::Value::BooleanValue(true))).await.unwrap();
    }
    assert_eq!(plant.next().await, birth(&["a", "set"]));
    let before = plant.hub.now();
    line.send(ncmd("Node Control/Rebirth", metric::Value::BooleanValue(true))).await.unwrap();
    plant.publish(1);
    assert_eq!(plant.next().await, birth(&["set", "a=1"]), "no data between the request and the birth");
    assert!(plant.hub.now() >= before.saturating_add(DEBOUNCE));
    plant.publish(2);
    assert_eq!(plant.next().await, seen("NDATA", Some(1), &["a=2"]), "no third birth before it");
}

#[tokio::test(start_paused = true)]
async fn new_tags_bring_one_new_birth() {
    let mut plant = Plant::start(0);
    for _ in 0..3 {
        plant.next().await;
    }
    let register = |name: &str| {
        let spec = TagSpec::new(TagName::new(name).unwrap(), DataType::Int32);
        plant.hub.register("more", vec![spec]).unwrap()
    };
    let _sources = [register("x"), register("y")];
    assert_eq!(plant.next().await, birth(&["a", "set", "x", "y"]));
    plant.publish(1);
    assert_eq!(plant.next().await, seen("NDATA", Some(1), &["a=1"]));
}

#[tokio::test(start_paused = true)]
async fn a_command_is_written_and_its_value_comes_back_as_data() {
    let mut plant = Plant::start(0);
    let line = plant.lines.recv().await.unwrap();
    for _ in 0..3 {
        plant.next().await;
    }
    line.send(b"\xFF\xFFgarbage".to_vec()).await.unwrap();
    line.send(ncmd("nobody", metric::Value::IntValue(1))).await.unwrap();
    line.send(ncmd("a", metric::Value::IntValue(1))).await.unwrap();
    line.send(ncmd("set", metric::Value::StringValue("no number".into()))).await.unwrap();
    line.send(ncmd("set", metric::Value::IntValue(5))).await.unwrap();
    let request = plant.source.next_write().await;
    assert_eq!((request.tag, &request.value), (plant.source.tags()[1], &Value::Int32(5)));
    plant.hub.publish(vec![Sample::good(request.tag, request.value.clone(), plant.hub.now())]);
    request.reply.send(Ok(())).unwrap();
    assert_eq!(plant.next().await, seen("NDATA", Some(1), &["set=5"]));
}

/// A broker that is there or not, and keeps what it was told of DATA messages.
#[derive(Clone)]
struct Keeper {
    is_there: tokio::sync::watch::Sender<bool>,
    told: Arc<Mutex<Vec<Told>>>,
}

/// A value of a metric of a DATA message.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    device: Option<String>,
    value: i32,
    time: u64,
    is_historical: bool,
}

struct KeptLine(Keeper);

impl KeptLine {
    fn check(&self) -> Result<(), ClientError> {
        if *self.0.is_there.borrow() { Ok(()) } else { Err(gone()) }
    }
}

impl Dial for Keeper {
    type Client = KeptLine;

    async fn dial(&mut self, _: Connect) -> Result<KeptLine, ClientError> {
        let line = KeptLine(self.clone());
        line.check().map(|()| line)
    }
}

impl Client for KeptLine {
    async fn next(&mut self) -> Result<Received, ClientError> {
        self.0.is_there.subscribe().wait_for(|is_there| !is_there).await.map_err(|_| gone())?;
        Err(gone())
    }

    async fn subscribe(&mut self, _: Vec<String>) -> Result<(), ClientError> {
        self.check()
    }

    async fn publish(&mut self, messages: Vec<Message>) -> Result<(), ClientError> {
        self.check()?;
        for message in messages {
            let levels: Vec<_> = message.topic.split('/').collect();
            if !levels[2].ends_with("DATA") {
                continue;
            }
            let payload = Payload::decode(message.payload.as_ref()).unwrap();
            let device = levels.get(4).map(|&device| device.to_owned());
            let told = payload.metrics.iter().filter_map(|metric| match metric.value {
                Some(metric::Value::IntValue(value)) => Some(Told {
                    device: device.clone(),
                    value: value as i32,
                    time: metric.timestamp.unwrap(),
                    is_historical: metric.is_historical(),
                }),
                _ => None,
            });
            self.0.told.lock().unwrap().extend(told);
        }
        Ok(())
    }

    async fn disconnect(&mut self) -> Result<(), ClientError> {
        self.check()
    }

    async fn probe(&mut self) -> Result<(), ClientError> {
        self.check()
    }

    async fn disconnect_with_will(&mut self) -> Result<(), ClientError> {
        self.check()
    }
}

/// The uplink with the store that it has in the appliance, which writes in real time.
struct Outage {
    hub: Hub,
    source: Registration,
    store: Store,
    keeper: Keeper,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Outage {
    fn start(limits: &str) -> Self {
        let hub = Hub::new(Clock::simulated(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000)));
        let spec = |name: &str| TagSpec::new(TagName::new(name).unwrap(), DataType::Int32);
        let source = hub.register("press", vec![spec("press/a"), spec("press/b")]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let limits = toml::from_str(&format!("commit_interval = '10ms'\n{limits}")).unwrap();
        let clock = Clock::simulated(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let store = Store::new(limits, folder.path().join("store"), clock);
        let tasks = Tasks::new("outage");
        let (writer, stop) = (store.clone(), tasks.stop_signal());
        // Not as a blocking task: while there is one, simulated time stands still.
        std::thread::spawn(move || writer.run(&stop));
        let uplink = Selection::new(&["press/*".to_owned()]);
        let wanted = Wanted { store: store.clone(), history: None, uplink };
        let recorder = Arc::new(Recorder::register(wanted, &hub).unwrap());
        tasks.spawn("recorder", move |stop| {
            let recorder = recorder.clone();
            async move { recorder.run(&stop).await }
        });
        let config =
            "broker = 'mqtt://script'\nnode = 'box'\npublish_interval = '1s'\ntags = ['press/*']\nbacklog_rate = 50000";
        let setup = Arc::new(Setup {
            config: toml::from_str(config).unwrap(),
            device_name: "unused".into(),
            data_dir: folder.path().to_owned(),
            store: Some(store.clone()),
            status: Status::register(&hub).unwrap(),
        });
        let keeper = Keeper { is_there: tokio::sync::watch::Sender::new(true), told: Arc::default() };
        let (of_task, dial) = (hub.clone(), keeper.clone());
        tasks.spawn("mqtt", move |stop| {
            let (setup, hub, dial) = (setup.clone(), of_task.clone(), dial.clone());
            async move {
                let outbox = Outbox::open(setup.data_dir.join("pictures"), 1 << 20).await;
                run(&setup, &hub, &stop, &outbox, dial).await
            }
        });
        Self { hub, source, store, keeper, tasks, _folder: folder }
    }

    /// Each tag has so many values a second: `a` counts up, `b` down.
    async fn pass(&self, values: std::ops::Range<i32>, a_second: usize) {
        let [a, b] = self.source.tags() else { panic!("two tags") };
        let values: Vec<i32> = values.collect();
        for (second, values) in values.chunks(a_second).enumerate() {
            let sample = |(at, &value): (usize, &i32)| {
                let now = self.hub.now().saturating_add(Duration::from_secs(1) * at as u32 / a_second as u32);
                [Sample::good(*a, Value::Int32(value), now), Sample::good(*b, Value::Int32(-value), now)]
            };
            self.hub.publish(values.iter().enumerate().flat_map(sample).collect());
            tokio::time::sleep(Duration::from_secs(1)).await;
            if second % 60 == 0 {
                // The store writes in real time, of which there would be too little else.
                std::thread::sleep(Duration::from_millis(5 + a_second as u64));
            }
        }
    }

    fn told(&self) -> Vec<Told> {
        self.keeper.told.lock().unwrap().clone()
    }

    /// While simulated time goes on, until it holds.
    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let began = std::time::Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(60), "never {what}: {:?}", self.store.queue());
            tokio::time::sleep(Duration::from_millis(250)).await;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// That so many samples have arrived or are counted as not to arrive, and none is owed.
    async fn settled(&self, count: u64) {
        let is_settled = || {
            let queue = self.store.queue();
            queue.waiting == 0 && queue.settled + queue.dropped + queue.lost == count
        };
        self.until("settled", is_settled).await;
    }

    async fn end(self) {
        self.tasks.stop(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_a_network_is_made_up_for() {
    let outage = Outage::start("");
    outage
        .until("connected", || {
            outage.hub.read_all().tags.iter().any(|(_, spec)| spec.name.as_str() == "mqtt/Connected")
        })
        .await;
    outage.pass(1..30, 1).await;
    outage.settled(2 * 29).await;
    outage.keeper.is_there.send_replace(false);
    outage.pass(30..3630, 1).await;
    assert_eq!(outage.store.queue().dropped, 0);
    outage.keeper.is_there.send_replace(true);
    outage.pass(3630..3800, 1).await;
    outage.settled(2 * 3799).await;
    let told = outage.told();
    let mut values: Vec<i32> = told.iter().map(|told| told.value).collect();
    values.sort_unstable();
    values.dedup();
    // The newest of what came before a birth is in the birth, and as often as it comes.
    let missing = (-3799..3800).filter(|value| *value != 0 && values.binary_search(value).is_err());
    assert!(missing.clone().count() <= 2 * 2, "{:?}", missing.collect::<Vec<_>>());
    let queue = outage.store.queue();
    assert_eq!((queue.settled, queue.dropped, queue.lost), (2 * 3799, 0, 0));
    let old: Vec<_> = told.iter().filter(|told| told.is_historical && (30..3630).contains(&told.value)).collect();
    assert!(old.len() > 3000 && old.is_sorted_by_key(|told| told.time), "in the order of their times");
    outage.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_to_know_learns_when_the_last_word_has_arrived() {
    let plant = Outage::start("");
    let hub = plant.hub.clone();
    plant.keeper.is_there.send_replace(false);
    let address = r#"{"id":"1","command":"update","asked":{"role":"admin","hash":1},"topic":"hosts/7/update","correlation":null}"#;
    let report = hub.report_until_arrived(address, crate::hub::News::Done("installed".into()));
    tokio::pin!(report);
    let waited = tokio::time::timeout(Duration::from_secs(600), &mut report).await;
    assert!(waited.is_err(), "nobody has it yet");
    plant.keeper.is_there.send_replace(true);
    assert!(tokio::time::timeout(Duration::from_secs(600), report).await.unwrap());
    // What can never be told is not waited for.
    let nowhere = hub.report_until_arrived("nowhere", crate::hub::News::Done("installed".into()));
    assert!(tokio::time::timeout(Duration::from_secs(60), nowhere).await.unwrap());
    plant.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_cap_costs_is_counted_to_the_sample() {
    // What is beyond 4 MiB is for samples; no configuration is let have so little.
    let outage = Outage::start("max_bytes = '4200KiB'");
    outage.until("connected", || *outage.keeper.is_there.borrow()).await;
    outage.keeper.is_there.send_replace(false);
    let values = 20 * 3600;
    outage.pass(1..values, 20).await;
    outage.keeper.is_there.send_replace(true);
    outage.pass(values..values + 100, 1).await;
    outage.settled(2 * (values as u64 + 99)).await;
    let queue = outage.store.queue();
    assert!(queue.dropped > 30_000, "{queue:?}");
    let told: BTreeSet<i32> = outage.told().iter().map(|told| told.value).collect();
    assert!((told.len() as u64).abs_diff(queue.settled) <= 2, "{} values, {queue:?}", told.len());
    outage.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_device_said_before_it_was_lost_comes_when_it_is_back() {
    let outage = Outage::start("");
    outage.until("connected", || outage.hub.read_all().tags.len() > 10).await;
    outage.pass(1..20, 1).await;
    outage.hub.source_lost("press", "no answer");
    outage.pass(20..60, 1).await;
    outage.hub.source_back("press");
    outage.pass(60..90, 1).await;
    outage.settled(2 * 89).await;
    let mut values: Vec<i32> = outage.told().iter().map(|told| told.value).filter(|value| *value > 0).collect();
    values.sort_unstable();
    values.dedup();
    let missing: Vec<_> = (1..90).filter(|value| values.binary_search(value).is_err()).collect();
    assert!(missing.len() <= 2, "{missing:?}");
    assert!(outage.told().iter().all(|told| told.device.as_deref() == Some("press")));
    outage.end().await;
}
