//! A session under test: `Plant` is what is around it, `Said` what it said, decoded.

mod behaviour;
mod model;
mod primary_host;
mod tck;

use super::*;
use crate::model::{DataType, Quality, Status, Value};
use crate::mqtt::sparkplug::proto::payload::{PropertySet, Template};

const NOW: i64 = 1_668_114_759_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(NOW + millis)
}

#[derive(Clone, Debug)]
struct Said {
    message: Message,
    kind: Kind,
    device: Option<String>,
    payload: Payload,
    /// What had happened.
    cause: &'static str,
}

impl Said {
    fn new(message: Message, cause: &'static str) -> Self {
        let payload = Payload::decode(message.payload.as_ref()).expect("a payload");
        let Some(Topic::Message { group: "G", kind, node: "N", device }) = Topic::parse(&message.topic) else {
            panic!("{}", message.topic);
        };
        let device = device.map(str::to_owned);
        Said { kind, device, payload, cause, message }
    }

    fn metric(&self, name: &str) -> &Metric {
        let found = self.payload.metrics.iter().find(|metric| metric.name() == name);
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.payload))
    }

    fn names(&self) -> Vec<&str> {
        self.payload.metrics.iter().map(Metric::name).collect()
    }
}

/// The plant around a session: tags 0 and up, the newest sample of each, what is lost.
struct Plant {
    session: Session,
    tags: Vec<(TagId, Arc<TagSpec>)>,
    current: Vec<Sample>,
    lost: Vec<Arc<str>>,
    /// Milliseconds after [`NOW`].
    now: i64,
    bd_seq: u8,
    will: Option<Message>,
    said: Vec<Said>,
}

fn spec(name: &str, data_type: DataType) -> TagSpec {
    TagSpec::new(TagName::new(name).unwrap(), data_type)
}

fn plant_of(toml: &str, specs: Vec<TagSpec>) -> Plant {
    let config: Config = toml::from_str(&format!("broker = 'mqtt://b'\ngroup = 'G'\n{toml}")).unwrap();
    let mut plant = Plant {
        session: Session::new(&config, &SparkplugId::new("N").unwrap()),
        tags: Vec::new(),
        current: Vec::new(),
        lost: Vec::new(),
        now: 0,
        bd_seq: 6,
        will: None,
        said: Vec::new(),
    };
    specs.into_iter().for_each(|spec| plant.add(spec));
    plant
}

/// All kinds of tags: of the node, of two sources, of a camera.
fn plant(toml: &str) -> Plant {
    plant_of(
        toml,
        vec![
            spec("plc/a", DataType::Int32),
            spec("plc/set", DataType::Int32).writable(),
            spec("press/temp", DataType::Double).unit("°C").range(-20.0, 90.0).described("In the oil"),
            spec("cameras/line1/State", DataType::String),
            spec("system/load", DataType::Float),
            spec("alone", DataType::Boolean).writable(),
            TagSpec { is_array: true, ..spec("plc/words", DataType::Int16) },
        ],
    )
}

/// A value of the tag's type that tells which it is.
fn value(spec: &TagSpec, number: i32) -> Value {
    let one = |number: i32| match spec.data_type {
        DataType::Int16 => Value::Int16(number as i16),
        DataType::Int32 => Value::Int32(number),
        DataType::Float => Value::Float(number as f32),
        DataType::Double => Value::Double(number.into()),
        DataType::Boolean => Value::Boolean(number % 2 == 1),
        _ => Value::string(number.to_string()),
    };
    match spec.is_array {
        true => crate::model::Array::new(spec.data_type, vec![one(number), one(-1)], None).unwrap().into(),
        false => one(number),
    }
}

impl Plant {
    fn add(&mut self, spec: TagSpec) {
        let id = TagId(self.current.len() as u32);
        let sample = Sample::good(id, value(&spec, 0), at(self.now));
        self.tags.push((id, Arc::new(spec)));
        self.current.push(sample);
    }

    fn view(&self) -> View {
        let current = self.tags.iter().map(|(id, _)| self.current[id.index()].clone()).collect();
        View { tags: self.tags.clone(), current, lost: self.lost.clone() }
    }

    fn spec(&self, name: &str) -> (TagId, Arc<TagSpec>) {
        self.tags.iter().find(|(_, spec)| spec.name.as_str() == name).cloned().unwrap()
    }

    /// A tag has a new value; the session is not told yet.
    fn sample(&mut self, name: &str, number: i32) -> Sample {
        let (id, spec) = self.spec(name);
        self.now += 1;
        let sample = Sample::good(id, value(&spec, number), at(self.now));
        self.current[id.index()] = sample.clone();
        sample
    }

    fn note(&mut self, cause: &'static str, messages: Vec<Message>) -> usize {
        let first = self.said.len();
        self.said.extend(messages.into_iter().map(|message| Said::new(message, cause)));
        first
    }

    fn connect(&mut self) {
        self.bd_seq = self.bd_seq.wrapping_add(1);
        self.will = self.session.connecting(self.bd_seq, at(self.now));
    }

    fn birth(&mut self) -> usize {
        self.now += 1;
        let messages = self.session.birth(&self.view(), at(self.now));
        self.note("birth", messages)
    }

    fn live(&mut self, samples: &[Sample]) -> usize {
        let messages = self.session.live(samples, at(self.now));
        self.note("live", messages)
    }

    /// A new value, and told.
    fn set(&mut self, name: &str, number: i32) -> usize {
        let sample = self.sample(name, number);
        self.live(&[sample])
    }

    fn backlog(&mut self, rows: &[(&str, Sample)]) -> usize {
        let rows: Vec<_> =
            rows.iter().map(|(name, sample)| (TagName::new(name).unwrap(), Record::from(sample))).collect();
        let messages = self.session.backlog(&rows, at(self.now));
        self.note("backlog", messages)
    }

    fn lose(&mut self, folder: &str) -> usize {
        self.lost.push(folder.into());
        let messages = self.session.lost(folder, at(self.now));
        self.note("lost", messages)
    }

    fn back(&mut self, folder: &str) -> usize {
        self.lost.retain(|lost| lost.as_ref() != folder);
        let messages = self.session.back(folder, &self.view(), at(self.now));
        self.note("back", messages)
    }

    fn changed(&mut self) -> usize {
        self.now += 1;
        let messages = self.session.changed(&self.view(), at(self.now));
        self.note("changed", messages)
    }

    fn death(&mut self) -> usize {
        let messages = self.session.death(at(self.now));
        self.note("death", messages)
    }

    fn receive(&mut self, topic: &str, payload: Vec<u8>, retain: bool) -> Vec<Ask> {
        let received =
            Received { topic: topic.into(), payload: payload.into(), retain, properties: Default::default() };
        self.session.received(&received, at(self.now))
    }

    fn command(&mut self, topic: &str, metrics: Vec<Metric>) -> Vec<Ask> {
        self.receive(topic, Payload { metrics, ..Payload::default() }.encode_to_vec(), false)
    }

    fn rebirth(&mut self) -> Vec<Ask> {
        self.command(NCMD, vec![order("Node Control/Rebirth", wire::Value::BooleanValue(true))])
    }

    fn host(&mut self, online: bool, timestamp: u64) -> Vec<Ask> {
        let state = format!(r#"{{"online":{online},"timestamp":{timestamp}}}"#);
        self.receive("spBv1.0/STATE/scada", state.into_bytes(), true)
    }

    fn of(&self, kind: Kind) -> Vec<&Said> {
        let said: Vec<_> = self.said.iter().filter(|said| said.kind == kind).collect();
        assert!(!said.is_empty(), "no {} was said", kind.name());
        said
    }

    /// From there on: `KIND device: metric=value ...`, with `!` before what is historical.
    fn shown(&self, from: usize) -> Vec<String> {
        self.said[from..].iter().map(|said| self.show(said)).collect()
    }

    fn show(&self, said: &Said) -> String {
        let mut line = said.kind.name().to_owned();
        line.extend(said.device.iter().flat_map(|device| [" ", device]));
        if matches!(said.kind, Kind::NBirth | Kind::DBirth | Kind::NDeath) {
            return line;
        }
        for metric in &said.payload.metrics {
            let mark = if metric.is_historical() { "!" } else { "" };
            line += &format!(" {mark}{}={}", metric.name(), shown_value(metric));
        }
        line
    }
}

const NCMD: &str = "spBv1.0/G/NCMD/N";

fn order(name: &str, value: wire::Value) -> Metric {
    Metric { name: Some(name.into()), value: Some(value), ..Metric::default() }
}

fn shown_value(metric: &Metric) -> String {
    match &metric.value {
        None => "null".into(),
        Some(wire::Value::IntValue(v)) => (*v as i32).to_string(),
        Some(wire::Value::LongValue(v)) => v.to_string(),
        Some(wire::Value::FloatValue(v)) => v.to_string(),
        Some(wire::Value::DoubleValue(v)) => v.to_string(),
        Some(wire::Value::BooleanValue(v)) => v.to_string(),
        Some(wire::Value::StringValue(v)) => v.clone(),
        Some(wire::Value::BytesValue(v)) => format!("{v:?}"),
        Some(wire::Value::TemplateValue(template)) => {
            let member = |metric: &Metric| format!("{}={}", metric.name(), shown_value(metric));
            let members: Vec<String> = template.metrics.iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        other => format!("{other:?}"),
    }
}

fn bad(mut sample: Sample, reason: &str) -> Sample {
    sample.quality = Quality::new(Status::BAD_NOT_CONNECTED, reason);
    sample
}
