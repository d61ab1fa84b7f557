//! One test for each normative statement about edge nodes that the session can fulfil or break, named by its id in the Sparkplug
//! 3.0.0 specification (`tests/fixtures/sparkplug-ids.txt` has all, and who proves which).

use super::*;
use crate::mqtt::sparkplug::proto::payload::property_value;
use std::collections::BTreeMap;

/// A session with all that can happen in one: births, data, quality, a device that dies and is back, a rebirth, more tags, history,
/// more than 256 messages, and the end.
fn conversation(toml: &str) -> Plant {
    let mut plant = plant(toml);
    plant.connect();
    plant.host(true, 5);
    plant.birth();
    let mut samples = Vec::new();
    for name in ["plc/a", "press/temp", "cameras/line1/State", "system/load", "alone", "plc/words", "plc/a"] {
        samples.push(plant.sample(name, samples.len() as i32 + 1));
    }
    plant.live(&samples);
    let sample = bad(plant.sample("press/temp", 3), "too hot");
    plant.live(&[sample]);
    plant.set("press/temp", 4);
    plant.lose("plc");
    plant.set("plc/a", 20);
    plant.sample("plc/a", 21);
    plant.back("plc");
    plant.rebirth();
    plant.set("plc/a", 22);
    plant.birth();
    let waiting = Sample {
        value: Value::Empty,
        quality: Status::BAD_WAITING_FOR_INITIAL_DATA.into(),
        ..plant.current[0].clone()
    };
    plant.add(spec("press/new", DataType::Double));
    *plant.current.last_mut().unwrap() = Sample { tag: TagId(7), ..waiting };
    plant.changed();
    plant.backlog(&[("plc/a", Sample::good(TagId(0), Value::Int32(-1), at(-100)))]);
    for number in 0..300 {
        plant.set(["plc/a", "system/load"][number % 2], number as i32 + 30);
    }
    plant.death();
    plant
}

const TEMPLATES: &str = "[[template]]\nname = 'Pair'\nfolders = ['*/pair*']";

fn templates() -> Plant {
    let names = ["plc/pair1/a", "plc/pair1/b", "plc/pair2/a", "plc/pair2/b", "press/pair/a", "press/pair/b"];
    let specs = names.into_iter().map(|name| spec(name, DataType::Int32)).collect();
    let mut plant = plant_of(TEMPLATES, specs);
    plant.connect();
    plant.birth();
    for (number, name) in names.into_iter().enumerate() {
        plant.set(name, number as i32 + 1);
    }
    plant.rebirth();
    plant.birth();
    plant
}

/// Where a local `plant` hides the function.
fn plant_with(toml: &str) -> Plant {
    plant(toml)
}

fn each(plant: &Plant, kind: Kind, check: impl Fn(&Said) -> bool) {
    plant.of(kind).into_iter().for_each(|said| assert!(check(said), "{said:?}"));
}

fn each_of(plant: &Plant, kinds: &[Kind], check: impl Fn(&Said) -> bool) {
    kinds.iter().for_each(|&kind| each(plant, kind, &check));
}

/// The message, and the one before it in the session.
fn pairs(plant: &Plant, kind: Kind) -> Vec<(&Said, &Said)> {
    let pairs: Vec<_> =
        plant.said.windows(2).map(|pair| (&pair[0], &pair[1])).filter(|(_, said)| said.kind == kind).collect();
    assert!(!pairs.is_empty(), "no {} after another message", kind.name());
    pairs
}

fn counts_on(plant: &Plant, kind: Kind) {
    for (before, said) in pairs(plant, kind) {
        assert_eq!(said.payload.seq, Some((before.payload.seq() + 1) % 256), "{said:?}");
    }
}

fn is_plain(said: &Said) -> bool {
    said.message.qos == QoS::AtMostOnce && !said.message.retain
}

/// The payload's time is that of the moment at which it was said.
fn is_timed(said: &Said) -> bool {
    said.payload.timestamp.is_some_and(|time| (NOW as u64..NOW as u64 + 1000).contains(&time))
}

fn will(plant: &Plant) -> Payload {
    Payload::decode(plant.will.as_ref().expect("a will").payload.as_ref()).unwrap()
}

fn bd_seq(payload: &Payload) -> u64 {
    let metric = payload.metrics.iter().find(|metric| metric.name() == "bdSeq").expect("a bdSeq");
    assert_eq!(metric.datatype, Some(Type::Int64 as u32));
    let Some(wire::Value::LongValue(number)) = metric.value else { panic!("{metric:?}") };
    number
}

/// Each metric of DATA is one of the last birth of its place.
fn are_born(plant: &Plant, birth: Kind, data: Kind) {
    let mut born: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    let mut checked = 0;
    for said in &plant.said {
        if said.kind == birth {
            born.insert(said.device.as_deref(), said.names());
        }
        if said.kind == data {
            let names = &born[&said.device.as_deref()];
            assert!(said.names().iter().all(|name| names.contains(name)), "{said:?}");
            checked += 1;
        }
    }
    assert!(checked > 0);
}

fn has_value_or_is_null(metric: &Metric) -> bool {
    metric.value.is_some() != (metric.is_null == Some(true))
}

fn is_in_order(said: &Said) -> bool {
    let current = said.payload.metrics.iter().filter(|metric| !metric.is_historical());
    current.map(|metric| metric.timestamp()).is_sorted()
}

fn metrics<'a>(plant: &'a Plant, kinds: &[Kind]) -> Vec<&'a Metric> {
    kinds.iter().flat_map(|&kind| plant.of(kind)).flat_map(|said| &said.payload.metrics).collect()
}

const BIRTHS: [Kind; 2] = [Kind::NBirth, Kind::DBirth];
const DATA: [Kind; 2] = [Kind::NData, Kind::DData];
const SEQUENCED: [Kind; 5] = [Kind::NBirth, Kind::DBirth, Kind::NData, Kind::DData, Kind::DDeath];

/// Key, type and value of all properties.
fn properties(plant: &Plant) -> Vec<(&str, Option<u32>, &property_value::Value)> {
    let sets = plant.said.iter().flat_map(|said| &said.payload.metrics).filter_map(|metric| metric.properties.as_ref());
    let properties = sets.flat_map(|set| set.keys.iter().map(String::as_str).zip(&set.values));
    let properties: Vec<_> =
        properties.map(|(key, value)| (key, value.r#type, value.value.as_ref().unwrap())).collect();
    assert!(
        properties.iter().any(|(key, ..)| *key == "Quality") && properties.iter().any(|(key, ..)| *key == "engUnit")
    );
    properties
}

type Named = Vec<(String, Template)>;

/// Definitions and instances that a kind of message has.
fn found_templates(plant: &Plant, kinds: &[Kind]) -> (Named, Named) {
    let is_template = |metric: &&Metric| matches!(metric.value, Some(wire::Value::TemplateValue(_)));
    let all = metrics(plant, kinds).into_iter().filter(is_template).map(|metric| match &metric.value {
        Some(wire::Value::TemplateValue(template)) => (metric.name().to_owned(), template.clone()),
        other => panic!("{other:?}"),
    });
    all.partition(|(_, template)| template.is_definition())
}

fn names(template: &Template) -> Vec<&str> {
    let mut names: Vec<&str> = template.metrics.iter().map(Metric::name).collect();
    names.sort_unstable();
    names
}

const ALL: [Kind; 4] = [Kind::NBirth, Kind::DBirth, Kind::DData, Kind::NBirth];

fn definitions() -> Named {
    let found = found_templates(&templates(), &ALL).0;
    assert!(!found.is_empty());
    found
}

fn instances() -> Named {
    let found = found_templates(&templates(), &ALL).1;
    assert!(found.len() > 6);
    found
}

/// Waiting for the primary host, connected to the first of two brokers.
fn waiting() -> Plant {
    let mut plant = plant("primary_host = 'scada'");
    plant.session.dialing(&BrokerUrl::parse("mqtt://one").unwrap());
    plant.connect();
    plant
}

fn is_leave(asks: &[Ask]) -> bool {
    matches!(asks, [Ask::Leave(_)])
}

macro_rules! tck {
    ($($id:ident: $body:block)*) => { $(#[test] fn $id() $body)* };
}

mod edge_node;
mod payloads;
mod topics;
