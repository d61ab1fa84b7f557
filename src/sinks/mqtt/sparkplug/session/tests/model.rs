//! Any order of whatever may happen, judged by a host that knows nothing but the messages.
//!
//! Each value is another number, so each sample can be told from all others: what was given to a session that was born has been
//! said once in the end, in DATA, unless a birth showed it.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Op {
    Connect,
    Birth,
    /// A tag has a new value, by a clock that may go back.
    Sample(usize, bool),
    /// The session gets what is new.
    Deliver,
    Backlog(usize),
    Lose(usize),
    Back(usize),
    Rebirth,
    Write(usize),
    State(bool, u64),
    Add(usize),
    Remove(usize),
    Changed,
    Death,
}

const FOLDERS: [&str; 3] = ["plc", "cameras/line1", "press"];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Connect),
        3 => Just(Op::Birth),
        12 => (any::<usize>(), proptest::bool::weighted(0.1)).prop_map(|(tag, back)| Op::Sample(tag, back)),
        6 => Just(Op::Deliver),
        3 => any::<usize>().prop_map(Op::Backlog),
        2 => any::<usize>().prop_map(Op::Lose),
        3 => any::<usize>().prop_map(Op::Back),
        1 => Just(Op::Rebirth),
        1 => any::<usize>().prop_map(Op::Write),
        1 => (any::<bool>(), 0u64..5).prop_map(|(online, time)| Op::State(online, time)),
        1 => any::<usize>().prop_map(Op::Add),
        1 => any::<usize>().prop_map(Op::Remove),
        2 => Just(Op::Changed),
        1 => Just(Op::Death),
    ]
}

/// A host.
#[derive(Default)]
struct Host {
    is_born: bool,
    /// A rebirth was asked for.
    is_waiting: bool,
    bd_seq: u64,
    seq: u64,
    /// Metrics of the node and of each device that is alive, with the number last shown.
    alive: HashMap<Option<String>, HashMap<String, i32>>,
    /// The device and the metric.
    aliases: HashMap<u64, (Option<String>, String)>,
    /// Numbers said in DATA, and those that a birth showed.
    said: HashMap<i32, bool>,
    shown: HashSet<i32>,
}

impl Host {
    fn hear(&mut self, said: &Said, aliases: bool) {
        let kind = said.kind;
        if kind == Kind::NDeath {
            assert_eq!((said.payload.seq, bd_seq(&said.payload)), (None, self.bd_seq));
            assert!(self.is_born, "no death before the birth");
            self.is_born = false;
            return;
        }
        let wanted = if kind == Kind::NBirth { 0 } else { (self.seq + 1) % 256 };
        assert_eq!(said.payload.seq, Some(wanted), "{said:?}");
        self.seq = wanted;
        match kind {
            Kind::NBirth => {
                assert_eq!(bd_seq(&said.payload), self.bd_seq);
                (self.is_born, self.is_waiting) = (true, false);
                self.alive.clear();
                self.aliases.clear();
                self.born(said, aliases);
            }
            Kind::DBirth => {
                assert!(self.is_born && !self.alive.contains_key(&said.device), "{said:?}");
                self.born(said, aliases);
            }
            Kind::DDeath => {
                assert!(self.is_born && self.alive.remove(&said.device).is_some(), "{said:?}");
                assert!(said.payload.metrics.is_empty());
                self.aliases.retain(|_, (device, _)| *device != said.device);
            }
            Kind::NData | Kind::DData => {
                assert!(self.is_born && !self.is_waiting, "{said:?}");
                let times = said.payload.metrics.iter().filter(|metric| !metric.is_historical()).map(|m| m.timestamp());
                assert!(times.is_sorted(), "{said:?}");
                said.payload.metrics.iter().for_each(|metric| self.data(&said.device, metric, aliases));
            }
            other => panic!("{other:?}"),
        }
    }

    fn born(&mut self, said: &Said, aliases: bool) {
        let mut metrics = HashMap::new();
        assert!(said.payload.metrics.iter().map(|metric| metric.timestamp()).is_sorted());
        for metric in &said.payload.metrics {
            assert!(metric.datatype.is_some() && !metric.is_historical());
            if let Some(alias) = metric.alias {
                assert!(aliases, "{said:?}");
                let meant = (said.device.clone(), metric.name().to_owned());
                assert_eq!(self.aliases.insert(alias, meant), None, "aliases are unique");
            }
            for (path, number) in numbers(metric.name(), metric) {
                self.shown.insert(number);
                assert_eq!(metrics.insert(path, number), None, "names are unique");
            }
        }
        self.alive.insert(said.device.clone(), metrics);
    }

    fn data(&mut self, device: &Option<String>, metric: &Metric, aliases: bool) {
        assert_eq!((metric.name.is_none(), metric.alias.is_some()), (aliases, aliases));
        let name = metric.alias.map_or_else(|| metric.name().to_owned(), |alias| self.aliases[&alias].1.clone());
        let alive = self.alive.get_mut(device).expect("the device is alive");
        for (path, number) in numbers(&name, metric) {
            let last = alive.get_mut(&path).unwrap_or_else(|| panic!("{path} was not born"));
            assert_eq!(self.said.insert(number, metric.is_historical()), None, "{path} = {number} was said already");
            if !metric.is_historical() {
                assert!(number > *last, "{path}: {number} after {last}");
                *last = number;
            }
        }
    }
}

/// The values of a metric, and of the members of an instance.
fn numbers(name: &str, metric: &Metric) -> Vec<(String, i32)> {
    match &metric.value {
        Some(wire::Value::IntValue(number)) => vec![(name.to_owned(), *number as i32)],
        Some(wire::Value::TemplateValue(template)) if !template.is_definition() => {
            let member = |metric: &Metric| numbers(&format!("{name}/{}", metric.name()), metric);
            template.metrics.iter().flat_map(member).collect()
        }
        _ => Vec::new(),
    }
}

fn bd_seq(payload: &Payload) -> u64 {
    match payload.metrics.iter().find(|metric| metric.name() == "bdSeq").map(|metric| &metric.value) {
        Some(Some(wire::Value::LongValue(number))) => *number,
        other => panic!("{other:?}"),
    }
}

struct World {
    plant: Plant,
    host: Host,
    aliases: bool,
    heard: usize,
    number: i32,
    /// Not given to the session yet.
    queue: Vec<Sample>,
    /// Given to a session that was born.
    given: Vec<(TagId, i32)>,
    removed: HashSet<TagId>,
}

impl World {
    fn new(aliases: bool, templates: bool) -> Self {
        let mut toml = format!("primary_host = 'scada'\naliases = {aliases}\n");
        if templates {
            toml += "[[template]]\nname = 'Motor'\nfolders = ['plc/m*']";
        }
        let names = [
            "plc/m1/a",
            "plc/m1/b",
            "plc/m2/a",
            "plc/m2/b",
            "plc/x",
            "cameras/line1/State",
            "press/temp",
            "system/load",
            "alone",
        ];
        let specs = names.map(|name| spec(name, DataType::Int32).writable()).to_vec();
        let mut world = Self {
            plant: plant_of(&toml, specs),
            host: Host::default(),
            aliases,
            heard: 0,
            number: 0,
            queue: Vec::new(),
            given: Vec::new(),
            removed: HashSet::new(),
        };
        for at in 0..names.len() {
            let sample = world.next(at, false);
            world.queue.retain(|queued| queued != &sample);
        }
        world
    }

    fn next(&mut self, tag: usize, back: bool) -> Sample {
        self.number += 1;
        let tags = &self.plant.tags;
        let name = tags[tag % tags.len()].1.name.to_string();
        let mut sample = self.plant.sample(&name, self.number);
        if back {
            sample.source_time = Some(at(self.plant.now - 50));
            self.plant.current[sample.tag.index()] = sample.clone();
        }
        self.queue.push(sample.clone());
        sample
    }

    fn hear(&mut self) {
        for said in &self.plant.said[self.heard..] {
            self.host.hear(said, self.aliases);
        }
        self.heard = self.plant.said.len();
    }

    fn deliver(&mut self) {
        if self.plant.session.is_born() {
            let samples = std::mem::take(&mut self.queue);
            self.given.extend(samples.iter().map(|sample| (sample.tag, number_of(sample))));
            self.plant.live(&samples);
        }
    }

    fn connect(&mut self) {
        self.plant.session.dialing(&BrokerUrl::parse("mqtt://one").unwrap());
        self.plant.connect();
        let will = Payload::decode(self.plant.will.as_ref().unwrap().payload.as_ref()).unwrap();
        (self.host.bd_seq, self.host.is_born, self.host.is_waiting) = (bd_seq(&will), false, false);
        assert_eq!(self.host.bd_seq, u64::from(self.plant.bd_seq));
        assert!(!self.plant.session.may_be_born() && !self.plant.session.is_born());
    }

    fn step(&mut self, op: &Op) {
        let connected = self.plant.will.is_some();
        match *op {
            Op::Connect => self.connect(),
            Op::Birth if connected && self.plant.session.may_be_born() => {
                self.plant.birth();
            }
            Op::Birth => {}
            Op::Sample(tag, back) => {
                self.next(tag, back);
            }
            Op::Deliver => self.deliver(),
            Op::Backlog(tag) => {
                if self.plant.session.is_born() {
                    self.number += 1;
                    let (id, spec) = self.plant.tags[tag % self.plant.tags.len()].clone();
                    let old = Sample::good(id, Value::Int32(self.number), at(i64::from(self.number) - 10_000));
                    self.given.push((id, self.number));
                    self.plant.backlog(&[(spec.name.as_str(), old)]);
                }
            }
            Op::Lose(folder) => {
                self.plant.lose(FOLDERS[folder % FOLDERS.len()]);
            }
            Op::Back(folder) => {
                self.plant.back(FOLDERS[folder % FOLDERS.len()]);
            }
            Op::Rebirth => {
                assert_eq!(self.plant.rebirth(), [Ask::Birth]);
                self.host.is_waiting = self.plant.session.is_born();
            }
            Op::Write(tag) => {
                let (id, spec) = self.plant.tags[tag % self.plant.tags.len()].clone();
                if let Some(entry) = self.plant.session.layout.entries.get(&id) {
                    let name = match &entry.instance {
                        Some(instance) => format!("{}/{}", instance.name, entry.name),
                        None => entry.name.clone(),
                    };
                    let topic = match &entry.place {
                        Place::Node => NCMD.to_owned(),
                        Place::Device(folder) => {
                            format!("spBv1.0/G/DCMD/N/{}", self.plant.session.layout.devices[folder])
                        }
                    };
                    let asks = self.plant.command(&topic, vec![order(&name, wire::Value::IntValue(7))]);
                    assert_eq!(asks, [Ask::Write(id, Value::Int32(7))], "{}", spec.name);
                }
            }
            Op::State(online, time) => {
                let was_born = self.plant.session.is_born();
                if let [Ask::Leave(_)] = self.plant.host(online, time).as_slice() {
                    let from = self.plant.death();
                    assert_eq!(self.plant.said.len() > from, was_born);
                    self.plant.will = None;
                }
            }
            Op::Add(folder) => {
                let name = format!("{}/more{}", FOLDERS[folder % FOLDERS.len()], self.plant.current.len());
                self.plant.add(spec(&name, DataType::Int32).writable());
                self.next(self.plant.tags.len() - 1, false);
            }
            Op::Remove(tag) => {
                if self.plant.tags.len() > 4 {
                    let (id, _) = self.plant.tags.remove(tag % self.plant.tags.len());
                    self.removed.insert(id);
                }
            }
            Op::Changed => {
                self.plant.changed();
            }
            Op::Death => {
                self.plant.death();
                self.plant.will = None;
            }
        }
        self.hear();
        assert_eq!(self.host.is_born, self.plant.session.is_born());
    }

    /// In the end all is well again.
    fn finish(&mut self) {
        self.connect();
        self.plant.host(true, 1000);
        self.plant.lost.clear();
        self.plant.birth();
        self.deliver();
        self.plant.changed();
        self.hear();
        for (tag, number) in &self.given {
            let said = self.host.said.contains_key(number) || self.host.shown.contains(number);
            assert!(said || self.removed.contains(tag), "{number} of {tag:?} was lost");
        }
    }
}

fn number_of(sample: &Sample) -> i32 {
    match sample.value {
        Value::Int32(number) => number,
        ref other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_host_can_follow_and_nothing_is_lost(
        ops in proptest::collection::vec(op(), 1..80),
        aliases in any::<bool>(),
        templates in any::<bool>(),
    ) {
        let mut world = World::new(aliases, templates);
        world.connect();
        world.plant.host(true, 0);
        ops.iter().for_each(|op| world.step(op));
        world.finish();
    }
}
