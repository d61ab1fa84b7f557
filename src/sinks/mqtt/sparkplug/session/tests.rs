use super::*;
use crate::model::{DataType, Quality};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn session() -> Session {
    Session::new(Topics::new(&SparkplugId::new("G").unwrap(), &SparkplugId::new("N").unwrap()))
}

fn specs(names: &[&str]) -> Vec<(TagId, Arc<TagSpec>)> {
    let spec = |name: &str| {
        let spec = TagSpec::new(TagName::new(name).unwrap(), DataType::Int32);
        Arc::new(if name.starts_with("set") { spec.writable() } else { spec })
    };
    names.iter().enumerate().map(|(id, name)| (TagId(id as u32), spec(name))).collect()
}

/// `value` of the tag `id`, `at` milliseconds after the birth.
fn sample(id: u32, value: i32, at: i64) -> Sample {
    Sample::good(TagId(id), Value::Int32(value), Timestamp::from_millis(NOW.millis() + at))
}

fn bad(id: u32, at: i64) -> Sample {
    Sample { quality: Quality::new(Status::BAD_NOT_CONNECTED, "gone"), ..sample(id, 0, at) }
}

fn payload(message: &Message) -> Payload {
    Payload::decode(message.payload.as_ref()).unwrap()
}

/// `name=value@milliseconds`, with `!` before what is historical.
fn shown(messages: &[Message]) -> Vec<String> {
    let show = |metric: Metric| {
        let value = match &metric.value {
            Some(wire::Value::IntValue(value)) => (*value as i32).to_string(),
            other => format!("{other:?}"),
        };
        let mark = if metric.is_historical() { "!" } else { "" };
        format!("{mark}{}={value}@{}", metric.name(), metric.timestamp() as i64 - NOW.millis())
    };
    messages.iter().flat_map(|message| payload(message).metrics).map(show).collect()
}

/// Connected, and born with `a`, `b` and `set`, all 0.
fn born() -> Session {
    let mut session = session();
    session.connecting(7, NOW);
    session.birth(specs(&["a", "b", "set"]), &[sample(0, 0, 0), sample(1, 0, 0), sample(2, 0, 0)], &[], NOW);
    session
}

#[test]
fn the_will_has_bd_seq_a_time_and_nothing_else() {
    let will = session().connecting(255, NOW);
    assert_eq!((will.topic.as_str(), will.qos), ("spBv1.0/G/NDEATH/N", QoS::AtLeastOnce));
    let payload = payload(&will);
    assert_eq!((payload.timestamp, payload.seq, payload.metrics.len()), (Some(1_000_000), None, 1));
    let bd_seq = &payload.metrics[0];
    assert_eq!((bd_seq.name(), bd_seq.datatype(), bd_seq.timestamp), ("bdSeq", Type::Int64 as u32, Some(1_000_000)));
    assert_eq!(bd_seq.value, Some(wire::Value::LongValue(255)));
}

#[test]
fn golden_bytes_of_a_death() {
    let mut session = session();
    session.connecting(3, NOW);
    let golden = [
        0x08, 0xC0, 0x84, 0x3D, // timestamp 1000000
        0x12, 0x0F, // one metric
        0x0A, 0x05, b'b', b'd', b'S', b'e', b'q', // name
        0x18, 0xC0, 0x84, 0x3D, // timestamp
        0x20, 0x04, // datatype Int64
        0x58, 0x03, // long_value 3
    ];
    assert_eq!(session.death(NOW).payload[..], golden);
}

#[test]
fn a_birth_shows_everything_and_begins_at_seq_0() {
    let mut session = session();
    session.connecting(7, NOW);
    let waiting = Sample::bad(TagId(1), Status::BAD_WAITING_FOR_INITIAL_DATA.into(), NOW);
    let birth = session.birth(specs(&["a", "b"]), &[sample(0, -5, -10), waiting], &[], NOW);
    assert_eq!((birth.topic.as_str(), birth.qos), ("spBv1.0/G/NBIRTH/N", QoS::AtMostOnce));
    let payload = payload(&birth);
    assert_eq!((payload.seq, payload.timestamp), (Some(0), Some(1_000_000)));
    let names: Vec<&str> = payload.metrics.iter().map(Metric::name).collect();
    assert_eq!(names, ["bdSeq", "Node Control/Rebirth", "a", "b"]);
    assert!(payload.metrics.iter().all(|metric| metric.datatype.is_some() && metric.timestamp.is_some()));
    assert_eq!(payload.metrics[0].value, Some(wire::Value::LongValue(7)));
    assert_eq!(payload.metrics[1].value, Some(wire::Value::BooleanValue(false)));
    assert_eq!(payload.metrics[2].value, Some(wire::Value::IntValue(-5i32 as u32)));
    assert_eq!((payload.metrics[3].is_null(), &payload.metrics[3].value), (true, &None));
}

#[test]
fn nothing_goes_out_before_the_birth_nor_after_the_end() {
    let mut session = session();
    session.samples(&[sample(0, 1, 0)]);
    assert!(session.data(NOW).is_empty());
    session.connecting(0, NOW);
    session.samples(&[sample(0, 1, 0)]);
    assert!(session.data(NOW).is_empty());
    let mut session = born();
    session.samples(&[sample(0, 1, 0)]);
    session.lost();
    assert!(session.data(NOW).is_empty());
    let mut session = born();
    session.death(NOW);
    session.samples(&[sample(0, 1, 0)]);
    assert!(session.data(NOW).is_empty());
}

#[test]
fn only_changes_are_sent_in_the_order_of_their_times() {
    let mut session = born();
    session.samples(&[sample(0, 0, 1), sample(0, 1, 2), sample(1, 5, 1)]);
    session.samples(&[sample(0, 1, 3), sample(0, 2, 4), bad(0, 5), bad(0, 6)]);
    let data = session.data(NOW);
    assert_eq!(shown(&data), ["b=5@1", "a=1@2", "a=2@4", "a=0@5"]);
    assert_eq!(data[0].topic, "spBv1.0/G/NDATA/N");
    assert_eq!(payload(&data[0]).seq, Some(1));
    assert!(session.data(NOW).is_empty(), "no change, no message");
}

#[test]
fn seq_runs_over_255_to_0_and_a_rebirth_begins_again_with_the_same_bd_seq() {
    let mut session = born();
    for count in 1..=300i32 {
        session.samples(&[sample(0, count, 0)]);
        let data = session.data(NOW);
        assert_eq!(payload(&data[0]).seq, Some((count % 256) as u64));
    }
    let again = payload(&session.birth(specs(&["a", "b", "set"]), &[sample(0, 300, 0), sample(1, 0, 0)], &[], NOW));
    assert_eq!((again.seq, &again.metrics[0].value), (Some(0), &Some(wire::Value::LongValue(7))));
}

#[test]
fn what_is_older_than_a_rebirth_follows_it_as_history() {
    let mut session = born();
    session.samples(&[sample(0, 1, 1), sample(0, 2, 2), sample(1, 9, 2)]);
    let queued = [sample(0, 3, 3), sample(0, 4, 4), sample(1, 9, 4), sample(0, 5, 5)];
    session.birth(specs(&["a", "b", "set"]), &[sample(0, 4, 4), sample(1, 9, 4), sample(2, 0, 0)], &queued, NOW);
    let data = session.data(NOW);
    assert_eq!(shown(&data), ["!a=1@1", "!a=2@2", "!b=9@2", "!a=3@3", "a=5@5"]);
}

#[test]
fn history_of_a_nan_ends_at_the_birth_as_well() {
    let mut session = session();
    let spec = Arc::new(TagSpec::new(TagName::new("a").unwrap(), DataType::Double));
    let sample = |value, at| Sample { value: Value::Double(value), ..sample(0, 0, at) };
    session.connecting(0, NOW);
    let queued = [sample(1.0, 1), sample(f64::NAN, 2)];
    session.birth(vec![(TagId(0), spec)], &[sample(f64::NAN, 2)], &queued, NOW);
    assert!(session.data(NOW).is_empty());
}

#[test]
fn a_tag_that_the_birth_did_not_have_waits_for_the_next() {
    let mut session = born();
    session.samples(&[sample(3, 1, 1)]);
    assert!(session.data(NOW).is_empty());
    let current = [sample(0, 0, 0), sample(1, 0, 0), sample(2, 0, 0), sample(3, 1, 1)];
    let birth = session.birth(specs(&["a", "b", "set", "new"]), &current, &[], NOW);
    assert_eq!(payload(&birth).metrics.last().map(Metric::name), Some("new"));
    session.samples(&[sample(3, 2, 2)]);
    assert_eq!(shown(&session.data(NOW)), ["new=2@2"]);
}

#[test]
fn recovery_is_told_once_also_by_the_birth_of_the_next_connection() {
    let quality = |metric: &Metric| metric.properties.as_ref().map(|set| set.values[0].value.clone().unwrap());
    let code = |code| Some(crate::mqtt::sparkplug::proto::payload::property_value::Value::IntValue(code));
    let mut session = born();
    session.samples(&[bad(0, 1)]);
    assert_eq!(quality(&payload(&session.data(NOW)[0]).metrics[0]), code(0));
    session.lost();
    session.connecting(8, NOW);
    let current = [sample(0, 0, 2), sample(1, 0, 0), sample(2, 0, 0)];
    let birth = payload(&session.birth(specs(&["a", "b", "set"]), &current, &[], NOW));
    assert_eq!(quality(&birth.metrics[2]), code(192));
    assert_eq!(quality(&birth.metrics[3]), None);
    session.samples(&[sample(0, 1, 3)]);
    assert_eq!(quality(&payload(&session.data(NOW)[0]).metrics[0]), None);
}

#[test]
fn a_large_batch_becomes_several_messages() {
    let mut session = born();
    session.samples(&(1..10_000).map(|value| sample(0, value, value.into())).collect::<Vec<_>>());
    let data = session.data(NOW);
    assert!(data.len() > 1 && data.iter().all(|message| message.payload.len() < PAYLOAD + PAYLOAD / 4));
    let seqs: Vec<u64> = data.iter().map(|message| payload(message).seq()).collect();
    assert_eq!(seqs, (1..=data.len() as u64).collect::<Vec<_>>());
    assert_eq!(shown(&data).len(), 9_999);
}

#[test]
fn tags_called_like_sparkplugs_own_metrics_stay_out() {
    let mut session = session();
    session.connecting(7, NOW);
    let birth = session.birth(specs(&["bdSeq", "a"]), &[sample(0, 0, 0), sample(1, 0, 0)], &[], NOW);
    let names: Vec<String> = payload(&birth).metrics.iter().map(|metric| metric.name().to_owned()).collect();
    assert_eq!(names, ["bdSeq", "Node Control/Rebirth", "a"]);
    session.samples(&[sample(0, 1, 1), sample(1, 1, 1)]);
    assert_eq!(shown(&session.data(NOW)), ["a=1@1"]);
}

fn ncmd(metrics: Vec<Metric>) -> Vec<u8> {
    Payload { metrics, ..Payload::default() }.encode_to_vec()
}

fn named(name: &str, value: wire::Value) -> Metric {
    Metric { name: Some(name.into()), value: Some(value), ..Metric::default() }
}

#[test]
fn commands_set_tags_and_ask_for_rebirths() {
    let session = born();
    let rebirth = |asked| ncmd(vec![named(REBIRTH, wire::Value::BooleanValue(asked))]);
    assert!(session.command(&rebirth(true)).unwrap().rebirth);
    assert_eq!(session.command(&rebirth(false)).unwrap(), Command::default());
    let write = ncmd(vec![named("set", wire::Value::IntValue(-3i32 as u32))]);
    assert_eq!(session.command(&write).unwrap().writes, [(TagId(2), Value::Int32(-3))]);
}

#[test]
fn what_a_command_gets_wrong_is_named_and_the_rest_is_done() {
    let session = born();
    let text = wire::Value::StringValue("x".into());
    let command = ncmd(vec![
        named("nobody", wire::Value::IntValue(1)),
        named("a", wire::Value::IntValue(1)),
        named("set", text.clone()),
        named(REBIRTH, text),
        Metric { alias: Some(4), ..Metric::default() },
        named("set", wire::Value::IntValue(1)),
    ]);
    let command = session.command(&command).unwrap();
    assert_eq!(command.unknown, ["nobody", "alias 4"]);
    assert_eq!(command.writes, [(TagId(2), Value::Int32(1))]);
    assert!(!command.rebirth);
    let faults: Vec<String> = command.faults.iter().map(Fault::to_string).collect();
    assert_eq!(faults[0], "a is read-only");
    assert_eq!(faults[1..], ["set: the value is no Int32", "Node Control/Rebirth: the value is no Boolean"]);
    assert!(session.command(&[0xFF, 0xFF, 0xFF]).is_err(), "malformed is an error and no panic");
}

/// What can happen to a session, in any order in which the uplink could make it happen.
#[derive(Clone, Debug)]
enum Input {
    Connect,
    Birth,
    Sample(u32, i32),
    Data,
    Lost,
    Death,
    Command(Vec<u8>),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Connect),
        Just(Input::Birth),
        (0..4u32, 0..3i32).prop_map(|(tag, value)| Input::Sample(tag, value)),
        Just(Input::Data),
        Just(Input::Lost),
        Just(Input::Death),
        any::<Vec<u8>>().prop_map(Input::Command),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_host_sees_a_sound_stream(inputs in proptest::collection::vec(input(), 0..200)) {
        let mut session = session();
        let (mut connected, mut bd_seq, mut sent) = (false, 0u8, Vec::new());
        for (at, input) in inputs.into_iter().enumerate() {
            match input {
                Input::Connect => {
                    (connected, bd_seq) = (true, bd_seq.wrapping_add(1));
                    session.connecting(bd_seq, NOW);
                    sent.clear();
                }
                Input::Birth if connected => {
                    let current = [sample(0, 0, 0), sample(1, 0, 0), sample(2, 0, 0)];
                    sent.push(session.birth(specs(&["a", "b", "set"]), &current, &[], NOW));
                }
                Input::Birth => {}
                Input::Sample(tag, value) => session.samples(&[sample(tag, value, at as i64)]),
                Input::Data => sent.extend(session.data(NOW)),
                Input::Lost => {
                    connected = false;
                    session.lost();
                }
                Input::Death if connected => {
                    connected = false;
                    sent.push(session.death(NOW));
                }
                Input::Death => {}
                Input::Command(bytes) => { let _ = session.command(&bytes); }
            }
            let mut expected = None;
            for message in &sent {
                let payload = payload(message);
                let told = payload.metrics.iter().find(|metric| metric.name() == BD_SEQ).map(|m| m.value.clone());
                match message.topic.as_str() {
                    "spBv1.0/G/NBIRTH/N" => {
                        prop_assert_eq!(payload.seq, Some(0));
                        prop_assert_eq!(told, Some(Some(wire::Value::LongValue(bd_seq.into()))));
                        expected = Some(1u8);
                    }
                    "spBv1.0/G/NDATA/N" => {
                        prop_assert_eq!(payload.seq, expected.map(u64::from), "follows, and follows a birth");
                        prop_assert!(!payload.metrics.is_empty());
                        expected = expected.map(|seq| seq.wrapping_add(1));
                    }
                    _ => {
                        prop_assert_eq!(payload.seq, None);
                        prop_assert_eq!(told, Some(Some(wire::Value::LongValue(bd_seq.into()))));
                        expected = None;
                    }
                }
            }
        }
    }
}

#[test]
fn a_tag_of_unknown_type_is_left_out_until_it_is_known() {
    let mut session = session();
    session.connecting(7, NOW);
    let mut specs = specs(&["a", "b"]);
    specs[0].1 = Arc::new(TagSpec::new(TagName::new("a").unwrap(), DataType::Variant));
    let birth = session.birth(specs, &[sample(0, 0, 0), sample(1, 0, 0)], &[], NOW);
    let names: Vec<String> = payload(&birth).metrics.iter().map(|metric| metric.name().to_owned()).collect();
    assert!(!names.contains(&"a".to_owned()) && names.contains(&"b".to_owned()), "{names:?}");
    session.samples(&[sample(0, 1, 5), sample(1, 1, 6)]);
    assert_eq!(shown(&session.data(NOW)), ["b=1@6"]);
}
