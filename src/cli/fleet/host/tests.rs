use super::metric::{Held, QualityCode};
use super::*;
use crate::model::Value;
use crate::mqtt::sparkplug::codec;
use crate::mqtt::sparkplug::proto::payload::{Metric, PropertySet, PropertyValue, property_value};
use crate::mqtt::sparkplug::proto::{DataType as Type, Payload};
use proptest::prelude::*;
use prost::Message as _;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

fn metric(name: &str, value: Value) -> Metric {
    let data_type = value.data_type().unwrap();
    Metric {
        name: Some(name.into()),
        timestamp: Some(1000),
        datatype: Some(codec::metric_type(data_type, value.is_array()) as u32),
        value: codec::encode(&value),
        ..Metric::default()
    }
}

fn bd_seq(number: i64) -> Metric {
    metric("bdSeq", Value::Int64(number))
}

fn data(name: &str, value: Value) -> Metric {
    Metric { datatype: None, ..metric(name, value) }
}

struct Fleet {
    host: Host,
    now: Timestamp,
}

impl Fleet {
    fn new() -> Self {
        Self { host: Host::new(Limits::FLEET, Policy::All), now: at(0) }
    }

    fn say(&mut self, kind: &str, device: Option<&str>, seq: Option<u64>, metrics: Vec<Metric>) {
        let device = device.map(|device| format!("/{device}")).unwrap_or_default();
        let payload = Payload { timestamp: Some(1000), metrics, seq, ..Payload::default() };
        self.host.receive(&format!("spBv1.0/G/{kind}/N{device}"), &payload.encode_to_vec(), self.now);
    }

    fn state(&mut self) -> State {
        self.host.node_mut("G/N").unwrap().state()
    }

    fn node(&self) -> &Node {
        self.host.node("G/N").unwrap()
    }

    fn value(&self, name: &str) -> &Held {
        &self.node().metrics.get(name).unwrap().held
    }

    fn asked(&mut self) -> bool {
        self.now = self.now.saturating_add(std::time::Duration::from_secs(1));
        self.host.due(self.now).is_some()
    }
}

#[test]
fn a_node_is_born_speaks_and_dies() {
    let mut fleet = Fleet::new();
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(7), metric("a", Value::Int32(1))]);
    fleet.say("NDATA", None, Some(1), vec![data("a", Value::Int32(-2))]);
    assert_eq!(fleet.value("a"), &Held::Value(Value::Int32(-2)));
    assert_eq!(fleet.state(), State::Online);
    fleet.say("NDEATH", None, None, vec![bd_seq(6)]);
    assert_eq!((fleet.state(), fleet.host.counts.old_deaths), (State::Online, 1), "that of another connection");
    fleet.say("NDEATH", None, None, vec![bd_seq(7)]);
    assert_eq!(fleet.state(), State::Dead);
    assert_eq!(fleet.node().quality(None, QualityCode::Good), QualityCode::Stale);
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(8)]);
    assert_eq!((fleet.state(), fleet.node().metrics.list().len()), (State::Online, 1), "a birth is all there is");
    fleet.say("NDEATH", None, None, vec![bd_seq(9)]);
    assert_eq!(fleet.state(), State::Dead, "of a connection whose birth was missed");
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(255)]);
    fleet.say("NDEATH", None, None, vec![bd_seq(0)]);
    assert_eq!(fleet.state(), State::Dead);
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(1)]);
    assert!(!fleet.asked());
}

#[test]
fn whoever_was_born_before_is_asked_for_a_birth() {
    let mut fleet = Fleet::new();
    fleet.say("NDATA", None, Some(9), vec![data("a", Value::Int32(1))]);
    assert_eq!((fleet.state(), fleet.asked(), fleet.asked()), (State::Stale, true, false));
    assert_eq!(fleet.value("a"), &Held::Value(Value::Int32(1)), "what it says is shown all the same");
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0)]);
    assert_eq!(fleet.state(), State::Online);
}

#[test]
fn a_gap_is_seen_and_wraps_at_256() {
    let mut fleet = Fleet::new();
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0), metric("a", Value::Int32(1))]);
    for seq in (1..256).chain(0..3) {
        fleet.say("NDATA", None, Some(seq), vec![data("a", Value::Int32(1))]);
    }
    assert_eq!((fleet.state(), fleet.node().missed), (State::Online, 0));
    fleet.say("NDATA", None, Some(5), vec![data("a", Value::Int32(1))]);
    assert_eq!((fleet.state(), fleet.node().missed), (State::Stale, 2));
    assert!(fleet.asked());
    // Between two connections of this host nobody knows what was missed.
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0)]);
    fleet.host.lost();
    assert_eq!(fleet.state(), State::Stale);
    fleet.say("NDATA", None, Some(77), vec![]);
    assert_eq!(fleet.node().missed, 2);
}

#[test]
fn devices_live_and_die_with_their_node() {
    let mut fleet = Fleet::new();
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0)]);
    fleet.say("DBIRTH", Some("plc"), Some(1), vec![metric("a", Value::Int32(1))]);
    fleet.say("DBIRTH", Some("cam"), Some(2), vec![metric("b", Value::Int32(1))]);
    fleet.say("DDATA", Some("plc"), Some(3), vec![data("a", Value::Int32(2))]);
    assert_eq!(fleet.state(), State::Online);
    fleet.say("DDEATH", Some("plc"), Some(4), vec![]);
    assert_eq!(fleet.node().lost().into_iter().collect::<Vec<_>>(), ["plc"]);
    assert_eq!(fleet.state(), State::Alarm);
    assert_eq!(fleet.node().quality(Some("plc"), QualityCode::Good), QualityCode::Stale);
    assert_eq!(fleet.node().quality(Some("cam"), QualityCode::Good), QualityCode::Good);
    // After a birth of the node each device has to come again; one that was lost stays so.
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0)]);
    assert_eq!(fleet.node().quality(Some("cam"), QualityCode::Good), QualityCode::Stale);
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0)]);
    assert_eq!(fleet.node().devices.keys().map(|name| &**name).collect::<Vec<_>>(), ["plc"]);
    fleet.say("DBIRTH", Some("plc"), Some(1), vec![metric("a", Value::Int32(1))]);
    assert_eq!(fleet.state(), State::Online);
    fleet.say("DDATA", Some("new"), Some(2), vec![data("a", Value::Int32(2))]);
    assert_eq!(fleet.state(), State::Stale, "its birth was missed");
    assert!(fleet.asked());
}

#[test]
fn a_device_that_was_taken_away_is_forgotten() {
    let mut fleet = Fleet::new();
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0)]);
    fleet.say("DBIRTH", Some("old"), Some(1), vec![metric("a", Value::Int32(1))]);
    fleet.say("DBIRTH", Some("plc"), Some(2), vec![]);
    fleet.say("DDEATH", Some("old"), Some(3), vec![]);
    fleet.say("DDEATH", Some("plc"), Some(4), vec![]);
    fleet.now = at(60_000);
    fleet.host.forget(fleet.now);
    assert_eq!(fleet.node().lost().len(), 2, "no birth since then");
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0)]);
    fleet.say("DBIRTH", Some("plc"), Some(1), vec![]);
    fleet.now = at(61_000);
    fleet.say("DDEATH", Some("plc"), Some(2), vec![]);
    assert_eq!(fleet.node().lost().len(), 2, "it may come yet");
    fleet.now = at(70_000);
    fleet.say("NDATA", None, Some(3), vec![]);
    assert_eq!(fleet.node().lost().into_iter().collect::<Vec<_>>(), ["plc"], "it died after the birth");
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0)]);
    fleet.now = at(80_000);
    fleet.host.forget(fleet.now);
    assert_eq!(fleet.state(), State::Online);
}

#[test]
fn a_source_that_was_never_born_is_lost_by_its_state() {
    let mut fleet = Fleet::new();
    let state = |name: &str, word: &str| metric(&format!("Properties/Sources/{name}/State"), Value::string(word));
    let born = vec![bd_seq(0), state("plc", "lost"), state("bus/unit 1", "lost"), state("demo", "running")];
    fleet.say("NBIRTH", None, Some(0), born);
    assert_eq!(fleet.node().lost().into_iter().collect::<Vec<_>>(), ["bus/unit 1", "plc"]);
    assert_eq!(fleet.host.node_mut("G/N").unwrap().summary().lost, 2);
    assert_eq!(fleet.state(), State::Alarm);
    fleet.say("NDATA", None, Some(1), vec![state("plc", "running"), state("bus/unit 1", "running")]);
    assert_eq!(fleet.state(), State::Online);
    // One that has a device as well is one.
    fleet.say("DBIRTH", Some("plc"), Some(2), vec![]);
    fleet.say("NDATA", None, Some(3), vec![state("plc", "lost")]);
    fleet.say("DDEATH", Some("plc"), Some(4), vec![]);
    assert_eq!(fleet.host.node_mut("G/N").unwrap().summary().lost, 1);
}

#[test]
fn aliases_stand_for_names() {
    let alias = |number, metric: Metric| Metric { alias: Some(number), name: None, ..metric };
    let mut fleet = Fleet::new();
    let born = Metric { alias: Some(3), ..metric("a", Value::Int16(1)) };
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0), born]);
    fleet.say("NDATA", None, Some(1), vec![alias(3, data("", Value::Int16(-5)))]);
    assert_eq!(fleet.value("a"), &Held::Value(Value::Int16(-5)));
    assert_eq!(fleet.state(), State::Online);
    fleet.say("NDATA", None, Some(2), vec![alias(4, data("", Value::Int16(1)))]);
    assert_eq!(fleet.state(), State::Stale, "a birth was missed that told it");
    assert!(fleet.asked());
}

#[test]
fn what_is_historical_is_no_news() {
    let told = |time, historical, value| Metric {
        timestamp: Some(time),
        is_historical: Some(historical),
        ..data("a", Value::Int32(value))
    };
    let mut fleet = Fleet::new();
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0), metric("a", Value::Int32(1))]);
    fleet.say("NDATA", None, Some(1), vec![told(900, true, 2), told(1000, true, 3)]);
    assert_eq!(fleet.value("a"), &Held::Value(Value::Int32(1)));
    fleet.say("NDATA", None, Some(2), vec![told(1100, true, 4)]);
    assert_eq!(fleet.value("a"), &Held::Value(Value::Int32(4)), "but newer than what is known");
    fleet.say("NDATA", None, Some(3), vec![told(500, false, 5)]);
    assert_eq!(fleet.value("a"), &Held::Value(Value::Int32(5)), "a clock may be set back");
}

#[test]
fn null_bad_quality_and_units() {
    let text = |text: &str| PropertyValue {
        r#type: Some(Type::String as u32),
        value: Some(property_value::Value::StringValue(text.into())),
        ..PropertyValue::default()
    };
    let code = |code| PropertyValue {
        r#type: Some(Type::Int32 as u32),
        value: Some(property_value::Value::IntValue(code)),
        ..PropertyValue::default()
    };
    let with = |keys: &[&str], values, metric: Metric| Metric {
        properties: Some(PropertySet { keys: keys.iter().map(|key| key.to_string()).collect(), values }),
        ..metric
    };
    let mut fleet = Fleet::new();
    let born = with(&["engUnit"], vec![text("°C")], metric("a", Value::Double(1.0)));
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0), born]);
    let bad = with(&["Quality", "Reason"], vec![code(0), text("unplugged")], data("a", Value::Double(1.0)));
    fleet.say("NDATA", None, Some(1), vec![Metric { is_null: Some(true), ..bad }]);
    let metric = fleet.node().metrics.get("a").unwrap();
    assert_eq!((&metric.held, metric.quality, metric.unit.as_deref()), (&Held::Null, QualityCode::Bad, Some("°C")));
    assert_eq!(metric.reason.as_deref(), Some("unplugged"));
    assert_eq!(fleet.state(), State::Alarm);
    fleet.say("NDATA", None, Some(2), vec![data("a", Value::Double(2.0))]);
    assert_eq!(fleet.state(), State::Online);
}

#[test]
fn the_table_knows_ours_and_guesses_others() {
    let mut fleet = Fleet::new();
    let own = vec![
        bd_seq(0),
        metric("Properties/version", Value::string("1.2.3")),
        metric("Properties/system/uptime", Value::Double(61.0)),
        metric("Properties/store/owed", Value::UInt64(12)),
    ];
    fleet.say("NBIRTH", None, Some(0), own);
    let camera = |state: &str| vec![metric("State", Value::string(state)), metric("FramesCaptured", Value::UInt64(1))];
    fleet.say("DBIRTH", Some("line1"), Some(1), camera("streaming"));
    fleet.say("DBIRTH", Some("line2"), Some(2), camera("disconnected"));
    let summary = fleet.host.node_mut("G/N").unwrap().summary().clone();
    assert_eq!((summary.version.as_deref(), summary.uptime, summary.queue), (Some("1.2.3"), Some(61.0), Some(12.0)));
    assert_eq!((summary.cameras, summary.cameras_lost, fleet.state()), (2, 1, State::Alarm));
    let count = |state: &str, count| metric(&format!("Properties/system/cameras/{state}"), Value::UInt32(count));
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0), count("idle", 2), count("disconnected", 1), count("faulty", 0)]);
    let summary = fleet.host.node_mut("G/N").unwrap().summary().clone();
    assert_eq!((summary.cameras, summary.cameras_lost), (3, 1), "one was never there, so never born");
    // A node that says anything is one line of the table, and no end of it.
    let odd = |state: &str, count| metric(&format!("Properties/system/cameras/{state}"), Value::Double(count));
    fleet.say(
        "NBIRTH",
        None,
        Some(0),
        vec![bd_seq(0), odd("streaming", 2.0), odd("lost", 1e30), odd("faulty", f64::NAN)],
    );
    assert_eq!(fleet.host.node_mut("G/N").unwrap().summary().cameras, 10_002);
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0), metric("Firmware Version", Value::string("7"))]);
    assert_eq!(fleet.host.node_mut("G/N").unwrap().summary().version.as_deref(), Some("7"));
}

#[test]
fn hosts_say_that_they_are_there() {
    let mut host = Host::new(Limits::FLEET, Policy::No);
    let shown = |host: &Host| host.hosts().map(|(name, state)| (name.to_owned(), state.is_online)).collect::<Vec<_>>();
    host.receive("spBv1.0/STATE/scada", br#"{"online":true,"timestamp":2000}"#, at(0));
    host.receive("spBv1.0/STATE/scada", br#"{"online":false,"timestamp":1000}"#, at(0));
    host.receive("STATE/old", b"OFFLINE", at(0));
    assert_eq!(shown(&host), [("old".to_owned(), false), ("scada".to_owned(), true)]);
    host.receive("spBv1.0/STATE/scada", b"true", at(0));
    host.receive("spBv1.0/STATE/scada", b"", at(0));
    assert_eq!((shown(&host).len(), host.counts.garbage), (1, 1));
}

#[test]
fn garbage_is_counted_and_makes_no_node() {
    let mut fleet = Fleet::new();
    fleet.host.receive("spBv1.0/G/NBIRTH/N", b"\xff\xff\xff", at(0));
    fleet.host.receive("spBv1.0/G/XBIRTH/N", b"", at(0));
    assert_eq!((fleet.host.nodes().count(), fleet.host.counts.garbage), (0, 2));
    fleet.say("NBIRTH", None, Some(0), vec![bd_seq(0), Metric::default(), metric("a", Value::Int32(1))]);
    let wrong = Metric { value: codec::encode(&Value::string("x")), ..data("a", Value::Int32(1)) };
    fleet.say("NDATA", None, Some(1), vec![wrong]);
    fleet.host.receive("spBv1.0/G/NDATA/N", b"\x08", at(0));
    assert_eq!((fleet.node().faulty, fleet.value("a")), (3, &Held::Unreadable));
    // Births of two metrics with one name hold the later.
    fleet.say("NBIRTH", None, Some(0), vec![metric("a", Value::Int32(1)), metric("a", Value::Int32(2))]);
    assert_eq!(fleet.value("a"), &Held::Value(Value::Int32(2)));
}

#[test]
fn memory_has_a_limit_and_what_is_left_out_is_counted() {
    let limits = Limits { nodes: 3, bytes: 10_000, longest: 64 };
    let mut host = Host::new(limits, Policy::No);
    let many: Vec<Metric> = (0..200).map(|n| metric(&format!("metric{n}"), Value::string("x".repeat(50)))).collect();
    let birth = Payload { metrics: many.clone(), seq: Some(0), ..Payload::default() }.encode_to_vec();
    for round in 0..3 {
        for node in 0..5 {
            host.receive(&format!("spBv1.0/G/NBIRTH/{node}"), &birth, at(round));
            host.receive(&format!("spBv1.0/G/DBIRTH/{node}/D"), &birth, at(round));
        }
        assert!(host.used() <= limits.bytes, "{}", host.used());
    }
    assert_eq!(host.nodes().count(), 3);
    assert_eq!(host.counts.left_out, 12);
    assert!(host.nodes().map(Node::left_out).sum::<u64>() > 1000);
    let none = Payload { seq: Some(0), ..Payload::default() }.encode_to_vec();
    for node in 0..3 {
        host.receive(&format!("spBv1.0/G/NBIRTH/{node}"), &none, at(9));
        host.receive(&format!("spBv1.0/G/DBIRTH/{node}/D"), &none, at(9));
    }
    assert_eq!(host.used(), 0, "and all of it comes back");
}

#[test]
fn a_message_that_would_take_hundreds_of_times_its_size_is_garbage() {
    let mut fleet = Fleet::new();
    let tag = |number: usize| {
        let property =
            |value| PropertyValue { r#type: Some(Type::Double as u32), value: Some(value), ..Default::default() };
        let range = [0.0, 1.0].map(|limit| property(property_value::Value::DoubleValue(limit)));
        let unit = property(property_value::Value::StringValue("mm".into()));
        let values = range.into_iter().chain([unit]).collect();
        let keys = ["engLow", "engHigh", "engUnit"].map(str::to_owned).to_vec();
        let properties = Some(PropertySet { keys, values });
        Metric { properties, ..metric(&format!("tag{number:05}"), Value::Double(0.5)) }
    };
    fleet.say("NBIRTH", None, Some(0), (0..10_000).map(tag).collect());
    assert_eq!((fleet.node().metrics.list().len(), fleet.node().faulty), (10_000, 0), "a large plant");
    fleet.host.receive("spBv1.0/G/NDATA/N", &[0x12, 0x00].repeat(2_000_000), at(0));
    assert_eq!((fleet.host.counts.garbage, fleet.node().faulty), (1, 1), "it was not even looked at");
}

/// What a fleet may say, sensible or not.
fn message() -> impl Strategy<Value = (String, Vec<u8>)> {
    let kind = prop::sample::select(vec!["NBIRTH", "NDATA", "NDEATH", "DBIRTH/", "DDATA/", "DDEATH/", "XX"]);
    let value = prop_oneof![
        any::<i32>().prop_map(Value::Int32),
        any::<f64>().prop_map(Value::Double),
        ".{0,40}".prop_map(Value::string),
        any::<Vec<u8>>().prop_map(Value::bytes),
    ];
    let told = (".{0,2}", value, any::<Option<u64>>(), any::<[Option<bool>; 2]>(), prop::option::of(0..40u32))
        .prop_map(|(name, value, alias, [null, old], datatype)| Metric {
            alias: alias.map(|alias| alias % 4),
            is_null: null,
            is_historical: old,
            datatype,
            timestamp: alias,
            ..metric(&name, value)
        });
    let payload = (prop::collection::vec(told, 0..5), any::<Option<u8>>(), any::<Option<u64>>()).prop_map(
        |(metrics, seq, timestamp)| {
            Payload { metrics, seq: seq.map(u64::from), timestamp, ..Payload::default() }.encode_to_vec()
        },
    );
    let payload = prop_oneof![8 => payload, 1 => any::<Vec<u8>>()];
    (kind, 0..4u8, 0..3u8, payload).prop_map(|(kind, node, device, payload)| {
        let topic = match kind.strip_suffix('/') {
            Some(kind) => format!("spBv1.0/G/{kind}/{node}/{device}"),
            None => format!("spBv1.0/G/{kind}/{node}"),
        };
        (topic, payload)
    })
}

proptest! {
    #[test]
    fn whatever_is_said_memory_is_counted_right(messages in prop::collection::vec(message(), 0..60)) {
        let limits = Limits { nodes: 3, bytes: 4000, longest: 32 };
        let mut host = Host::new(limits, Policy::All);
        for (index, (topic, payload)) in messages.iter().enumerate() {
            host.receive(topic, payload, at(index as i64 * 100));
            let _ = host.due(at(index as i64 * 100));
            let held: usize = host.nodes().flat_map(Node::each).map(|(_, metric)| metric.bytes()).sum();
            prop_assert!(host.used() <= limits.bytes && held <= host.used());
            for node in host.nodes_mut() {
                let _ = node.state();
            }
        }
    }
}
