//! The uplink at a real broker (mosquitto, from the PATH or /usr/sbin): births, data, commands, rebirth and death as a
//! host would see them, over a broker that is killed and started again, and over TLS
//! (with certificates made by openssl).

#![allow(clippy::unwrap_used, reason = "a test")]

use prost::Message;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use vedette::base::{Clock, Tasks};
use vedette::hub::{Hub, Registration};
use vedette::model::{DataType, Quality, Sample, Status, TagName, TagSpec, Value};
use vedette::mqtt::sparkplug::proto::payload::{Metric, metric, property_value};
use vedette::mqtt::sparkplug::proto::{DataType as Type, Payload};
use vedette::sinks::mqtt::{self, Setup, run};

const PATIENCE: Duration = Duration::from_secs(30);

/// A mosquitto of our own on a free port of the loopback.
struct Broker {
    process: Child,
    port: u16,
}

impl Broker {
    async fn start(folder: &Path) -> Self {
        Self::start_at(folder, free_port()).await
    }

    async fn start_at(folder: &Path, port: u16) -> Self {
        Self::start_with(folder, port, "").await
    }

    /// `more`: further lines of the configuration of the listener.
    async fn start_with(folder: &Path, port: u16, more: &str) -> Self {
        let config = folder.join("mosquitto.conf");
        // As root it would become the user `mosquitto`, who cannot read the files of a test.
        let text = format!("user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n{more}");
        std::fs::write(&config, text).unwrap();
        let program = ["/usr/sbin/mosquitto", "mosquitto"]
            .into_iter()
            .find(|name| Command::new(name).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok());
        let program = program.expect("this test needs mosquitto: apt-get install mosquitto");
        let process =
            Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().expect("mosquitto starts");
        let broker = Self { process, port };
        let connects = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connects).await.expect("mosquitto listens");
        broker
    }

    fn kill(mut self) -> u16 {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.port
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a host application sees and says.
struct Host {
    client: AsyncClient,
    seen: mpsc::Receiver<(String, Payload)>,
    _tasks: Tasks,
}

impl Host {
    async fn connect(port: u16) -> Self {
        let mut options = MqttOptions::new("host", ("127.0.0.1", port));
        options.set_unlimited_incoming_packet_size();
        let (client, mut event_loop) = AsyncClient::builder(options).capacity(16).build();
        let (sender, seen) = mpsc::channel(1024);
        let (ready, mut subscribed) = mpsc::channel(1);
        let tasks = Tasks::new("host");
        let mut event_loop = Some(event_loop_task(async move {
            loop {
                match event_loop.poll().await {
                    Ok(Event::Incoming(Packet::SubAck(_))) => ready.send(()).await.unwrap(),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        assert!(!publish.retain, "Sparkplug retains nothing that an edge node sends");
                        let kind = String::from_utf8(publish.topic.to_vec()).unwrap();
                        let payload = Payload::decode(publish.payload).unwrap();
                        let _ = sender.send((kind, payload)).await;
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        }));
        tasks.spawn("host", move |_| event_loop.take().expect("runs once"));
        client.subscribe("spBv1.0/#", QoS::AtLeastOnce).await.unwrap();
        tokio::time::timeout(PATIENCE, subscribed.recv()).await.expect("the host can subscribe");
        Self { client, seen, _tasks: tasks }
    }

    /// The next message of this kind, among others perhaps; of a device if the kind is one of a device.
    async fn next(&mut self, kind: &str) -> Payload {
        let device = if kind.starts_with('D') { "/line" } else { "" };
        let next = async {
            loop {
                let (topic, payload) = self.seen.recv().await.expect("the host is connected");
                if topic == format!("spBv1.0/Plant 1/{kind}/press-4{device}") {
                    return payload;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.unwrap_or_else(|_| panic!("no {kind} came"))
    }

    /// To the node.
    async fn command(&self, name: &str, datatype: Type, value: metric::Value) {
        self.send("spBv1.0/Plant 1/NCMD/press-4", name, datatype, value).await;
    }

    async fn send(&self, topic: &str, name: &str, datatype: Type, value: metric::Value) {
        let metric = Metric {
            name: Some(name.into()),
            datatype: Some(datatype as u32),
            value: Some(value),
            ..Metric::default()
        };
        let payload = Payload { metrics: vec![metric], ..Payload::default() }.encode_to_vec();
        let options = rumqttc::PublishOptions::at_least_once();
        self.client.publish(topic, payload, options).await.unwrap();
    }
}

fn event_loop_task(
    task: impl Future<Output = ()> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(task)
}

/// The device: a hub with a few tags and the uplink.
struct Device {
    hub: Hub,
    source: Registration,
    tasks: Tasks,
    data_dir: tempfile::TempDir,
}

impl Device {
    fn start(port: u16) -> Self {
        Self::start_with(&format!("broker = 'mqtt://127.0.0.1:{port}'"))
    }

    /// `config`: at least the broker.
    fn start_with(config: &str) -> Self {
        let hub = Hub::new(Clock::real());
        let spec = |name: &str, data_type| TagSpec::new(TagName::new(name).unwrap(), data_type);
        let specs = vec![
            spec("line/speed", DataType::Double).unit("m/min"),
            spec("line/limit", DataType::Int16).writable(),
            spec("line/state", DataType::String),
        ];
        let source = hub.register("line", specs).unwrap();
        let data_dir = tempfile::tempdir().unwrap();
        let config = format!(
            "{config}\ngroup = 'Plant 1'\npublish_interval = '50ms'\nkeep_alive = '5s'\ntags = ['line/**', 'more', 'text']"
        );
        let setup = Arc::new(Setup {
            config: toml::from_str(&config).unwrap(),
            device_name: "press/4".into(),
            data_dir: data_dir.path().to_owned(),
            store: None,
            status: mqtt::Status::register(&hub).unwrap(),
        });
        let tasks = Tasks::new("device");
        let of_task = hub.clone();
        tasks.spawn("mqtt", move |stop| run(setup.clone(), of_task.clone(), stop));
        Self { hub, source, tasks, data_dir }
    }

    fn publish(&self, at: usize, value: Value) {
        self.hub.publish(vec![Sample::good(self.source.tags()[at], value, self.hub.now())]);
    }
}

fn by_name(payload: &Payload) -> HashMap<&str, &Metric> {
    payload.metrics.iter().map(|metric| (metric.name(), metric)).collect()
}

fn bd_seq(payload: &Payload) -> u64 {
    match by_name(payload)["bdSeq"].value {
        Some(metric::Value::LongValue(number)) => number,
        ref other => panic!("bdSeq is {other:?}"),
    }
}

#[tokio::test]
async fn from_birth_to_death() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path()).await;
    let mut host = Host::connect(broker.port).await;
    let mut device = Device::start(broker.port);

    let birth = host.next("NBIRTH").await;
    assert_eq!((birth.seq, bd_seq(&birth)), (Some(0), 0));
    let metrics = by_name(&birth);
    assert_eq!(metrics["Node Control/Rebirth"].value, Some(metric::Value::BooleanValue(false)));
    let birth = host.next("DBIRTH").await;
    let metrics = by_name(&birth);
    assert_eq!((birth.seq, metrics["speed"].datatype), (Some(1), Some(Type::Double as u32)));
    assert!(metrics["speed"].is_null(), "no value yet");

    device.publish(0, Value::Double(12.5));
    device.publish(0, Value::Double(12.5));
    device.publish(0, Value::Double(13.0));
    let data = host.next("DDATA").await;
    let values: Vec<_> = data.metrics.iter().map(|metric| metric.value.clone()).collect();
    assert_eq!(values, [Some(metric::Value::DoubleValue(12.5)), Some(metric::Value::DoubleValue(13.0))]);
    assert_eq!(data.seq, Some(2));

    device.hub.degrade(&device.source.tags()[..1], &Quality::new(Status::BAD_NOT_CONNECTED, "cable"));
    let data = host.next("DDATA").await;
    let properties = data.metrics[0].properties.clone().unwrap();
    assert_eq!(properties.keys, ["Quality", "Reason"]);
    assert_eq!(properties.values[0].value, Some(property_value::Value::IntValue(0)));

    let limit = metric::Value::IntValue(-7i32 as u32);
    host.send("spBv1.0/Plant 1/DCMD/press-4/line", "limit", Type::Int16, limit).await;
    let request = tokio::time::timeout(PATIENCE, device.source.next_write()).await.unwrap();
    assert_eq!(request.value, Value::Int16(-7));
    device.publish(1, request.value.clone());
    request.reply.send(Ok(())).unwrap();
    let data = host.next("DDATA").await;
    assert_eq!(by_name(&data)["limit"].value, Some(metric::Value::IntValue(-7i32 as u32)));

    host.command("Node Control/Rebirth", Type::Boolean, metric::Value::BooleanValue(true)).await;
    let again = host.next("NBIRTH").await;
    assert_eq!((again.seq, bd_seq(&again)), (Some(0), 0));
    let again = host.next("DBIRTH").await;
    assert_eq!(by_name(&again)["limit"].value, Some(metric::Value::IntValue(-7i32 as u32)));

    let spec = TagSpec::new(TagName::new("more").unwrap(), DataType::Boolean);
    let _more = device.hub.register("more", vec![spec]).unwrap();
    assert!(by_name(&host.next("NBIRTH").await).contains_key("more"));

    device.tasks.stop(Duration::from_secs(5)).await;
    assert!(host.next("DDEATH").await.metrics.is_empty());
    let death = host.next("NDEATH").await;
    assert_eq!((death.seq, bd_seq(&death), death.metrics.len()), (None, 0, 1));
    // DISCONNECT with reason 0x04 makes the broker send the will as well.
    assert_eq!(bd_seq(&host.next("NDEATH").await), 0);
    drop(device.data_dir);
}

#[tokio::test]
async fn a_broker_that_dies_finds_the_device_again() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path()).await;
    let mut host = Host::connect(broker.port).await;
    let device = Device::start(broker.port);
    assert_eq!(bd_seq(&host.next("NBIRTH").await), 0);

    let port = broker.kill();
    device.publish(0, Value::Double(1.0));
    let broker = Broker::start_at(folder.path(), port).await;
    let mut host = Host::connect(broker.port).await;
    // The host may have come back after the birth; then it asks for one, as hosts do.
    host.command("Node Control/Rebirth", Type::Boolean, metric::Value::BooleanValue(true)).await;
    let birth = host.next("NBIRTH").await;
    let number = bd_seq(&birth);
    assert!(number >= 1, "a new CONNECT");
    assert_eq!(by_name(&host.next("DBIRTH").await)["speed"].value, Some(metric::Value::DoubleValue(1.0)));
    let kept = std::fs::read_to_string(device.data_dir.path().join("mqtt/bdseq")).unwrap();
    assert_eq!(kept.trim().parse(), Ok(number));
    device.tasks.stop(Duration::from_secs(5)).await;
    assert_eq!(bd_seq(&host.next("NDEATH").await), number);
}

#[tokio::test]
async fn a_large_birth_and_a_large_command_pass() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path()).await;
    let mut host = Host::connect(broker.port).await;
    let mut device = Device::start(broker.port);
    host.next("NBIRTH").await;
    let spec = TagSpec::new(TagName::new("text").unwrap(), DataType::String).writable();
    let mut source = device.hub.register("text", vec![spec]).unwrap();
    host.next("NBIRTH").await;
    let text = "x".repeat(1_000_000);
    host.command("text", Type::String, metric::Value::StringValue(text.clone())).await;
    let request = tokio::time::timeout(PATIENCE, source.next_write()).await.expect("the command arrives");
    assert_eq!(request.value, Value::string(text.as_str()));
    device.hub.publish(vec![Sample::good(request.tag, request.value.clone(), device.hub.now())]);
    let data = host.next("NDATA").await;
    assert_eq!(data.metrics[0].value, Some(metric::Value::StringValue(text)));
    assert!(device.source.try_next_write().is_none());
    device.tasks.stop(Duration::from_secs(5)).await;
}

/// An authority, a certificate for `localhost` and one for the device, as PEM files.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output();
        let output = output.expect("this test needs openssl: apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -subj /CN=authority -days 2 -keyout ca.key -out ca.pem"));
    for (name, extension) in [("broker", "subjectAltName=DNS:localhost"), ("device", "subjectAltName=DNS:press-4")] {
        std::fs::write(folder.join("extension"), extension).unwrap();
        openssl(&format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        let signed = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extension";
        openssl(&format!("x509 -req -in {name}.csr {signed} -out {name}.pem"));
    }
}

#[tokio::test]
async fn over_tls_both_ends_show_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let at = folder.path().display();
    let (port, plain) = (free_port(), free_port());
    let files = format!("cafile {at}/ca.pem\ncertfile {at}/broker.pem\nkeyfile {at}/broker.key");
    let more = format!("{files}\nrequire_certificate true\nlistener {plain} 127.0.0.1\n");
    let _broker = Broker::start_with(folder.path(), port, &more).await;
    let mut host = Host::connect(plain).await;
    let own = format!("client_cert_file = '{at}/device.pem'\nclient_key_file = '{at}/device.key'");
    let ca = format!("ca_file = '{at}/ca.pem'");

    let refused = [
        // The certificate names localhost and no address.
        format!("broker = 'mqtts://127.0.0.1:{port}'\n{ca}\n{own}"),
        // The system's authorities did not sign it.
        format!("broker = 'mqtts://localhost:{port}'\n{own}"),
        // The broker wants to see a certificate.
        format!("broker = 'mqtts://localhost:{port}'\n{ca}"),
    ];
    let refused = refused.each_ref().map(|config| Device::start_with(config));
    for device in refused {
        let file = device.data_dir.path().join("mqtt/bdseq");
        let second_attempt = async {
            let number = || std::fs::read_to_string(&file).ok()?.trim().parse::<u8>().ok();
            while number() < Some(1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, second_attempt).await.expect("tries again");
        device.tasks.stop(Duration::from_secs(5)).await;
    }
    assert!(host.seen.try_recv().is_err(), "nothing went out where the other end is not who it should be");

    let device = Device::start_with(&format!("broker = 'mqtts://localhost:{port}'\n{ca}\n{own}"));
    host.next("NBIRTH").await;
    device.tasks.stop(Duration::from_secs(5)).await;
    host.next("NDEATH").await;
}
