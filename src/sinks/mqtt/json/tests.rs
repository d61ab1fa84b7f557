use super::*;
use crate::model::{DataType, Quality, Status, Value};
use crate::sinks::mqtt::dialect::PAYLOAD;
use serde_json::{Value as Any, json};

const NOW: Timestamp = Timestamp::from_ticks(17_952_836_001_234_567);

fn dialect(toml: &str) -> Json {
    let config: Config = toml::from_str(&format!("broker = 'mqtt://b'\nformat = 'json'\ngroup = 'G'\n{toml}")).unwrap();
    assert!(config.validate().is_empty(), "{:?}", config.validate());
    Json::new(&config, &SparkplugId::new("N").unwrap())
}

fn spec(name: &str, data_type: DataType) -> TagSpec {
    TagSpec::new(TagName::new(name).unwrap(), data_type)
}

fn view(tags: Vec<(TagSpec, Value)>) -> View {
    let ids = || (0..).map(TagId);
    let current = tags.iter().zip(ids()).map(|((_, value), id)| Sample::good(id, value.clone(), NOW)).collect();
    let tags = tags.into_iter().zip(ids()).map(|((spec, _), id)| (id, Arc::new(spec))).collect();
    View { tags, current, lost: Vec::new() }
}

fn speed() -> View {
    view(vec![
        (spec("plc/Speed", DataType::Double).unit("m/s"), Value::Double(1.5)),
        (spec("plc/Set", DataType::Int16).writable(), Value::Int16(7)),
    ])
}

/// Topic below the root, payload, retained.
fn said(messages: Vec<Message>) -> Vec<(String, Any, bool)> {
    let one = |message: Message| {
        let payload = match message.payload.is_empty() {
            true => Any::Null,
            false => serde_json::from_slice(&message.payload).unwrap(),
        };
        let topic = message.topic.strip_prefix("vedette/G/N/").unwrap_or(&message.topic).to_owned();
        (topic, payload, message.retain)
    };
    messages.into_iter().map(one).collect()
}

fn later(millis: u64) -> Timestamp {
    NOW.saturating_add(std::time::Duration::from_millis(millis))
}

fn received(topic: &str, payload: &str, retain: bool) -> Received {
    let payload = payload.to_owned().into();
    Received { topic: format!("vedette/G/N/{topic}"), payload, retain, properties: Properties::default() }
}

#[test]
fn will_birth_and_goodbye() {
    let mut dialect = dialect("");
    assert!(!dialect.may_be_born() && !dialect.is_born());
    let will = dialect.connecting(0, NOW).unwrap();
    assert_eq!((will.qos, will.topic.as_str(), will.retain), (QoS::AtLeastOnce, "vedette/G/N/status", true));
    assert_eq!(&will.payload[..], br#"{"state":"offline"}"#);
    assert!(dialect.live(&[], NOW).is_empty() && dialect.may_be_born());
    let birth = dialect.birth(&speed(), NOW);
    assert!(birth.iter().all(|message| message.qos == QoS::AtLeastOnce));
    assert!(birth.iter().all(|message| message.properties.content_type.as_deref() == Some("application/json")));
    let time = "2026-11-21T17:53:20.1234567Z";
    let online = json!({"state": "online", "time": time, "version": env!("CARGO_PKG_VERSION")});
    assert_eq!(
        said(birth),
        [
            ("status".to_owned(), online, true),
            ("plc/Speed".to_owned(), json!({"time": time, "value": 1.5, "quality": "Good", "unit": "m/s"}), false),
            ("plc/Set".to_owned(), json!({"time": time, "value": 7, "quality": "Good"}), false),
        ]
    );
    assert!(dialect.is_born());
    let offline = json!({"state": "offline", "time": time});
    assert_eq!(said(dialect.death(NOW)), [("status".to_owned(), offline, true)]);
    assert!(!dialect.is_born());
}

#[test]
fn changes_are_said_once_and_a_bad_value_is_null_with_its_reason() {
    let mut dialect = dialect("");
    dialect.connecting(0, NOW);
    dialect.birth(&speed(), NOW);
    let sample = |value: f64, millis| Sample::good(TagId(0), Value::Double(value), later(millis));
    let lost = Quality::new(Status(0x808A_0480), "unplugged");
    let bad = Sample { quality: lost, ..sample(3.0, 40) };
    let unknown = Sample::good(TagId(9), Value::Int32(1), later(1));
    let samples =
        [sample(1.5, 10), sample(2.0, 20), sample(2.0, 30), bad, sample(f64::NAN, 50), sample(f64::NAN, 60), unknown];
    let live: Vec<_> = said(dialect.live(&samples, later(60))).into_iter().map(|(_, payload, _)| payload).collect();
    assert_eq!(live[0]["value"], json!(2.0));
    assert_eq!(
        live[1],
        json!({"time": "2026-11-21T17:53:20.1634567Z", "value": null, "quality": "BadNotConnected", "unit": "m/s", "reason": "unplugged"})
    );
    assert_eq!(live[2]["value"], json!("NaN"));
    assert_eq!(live.len(), 3);
}

#[test]
fn what_is_older_than_the_birth_says_so_and_is_never_retained() {
    let mut dialect = dialect("[json]\nretain = true");
    dialect.connecting(0, NOW);
    let birth = said(dialect.birth(&speed(), NOW));
    assert!(birth.iter().all(|(_, _, retain)| *retain));
    let name = TagName::new("plc/Speed").unwrap();
    let record = |value: f64, at: Timestamp| Record {
        value: Value::Double(value),
        status: Status::GOOD,
        source_time: Some(at),
        server_time: at,
    };
    let before = Timestamp::from_ticks(NOW.ticks() - 10_000_000);
    let gone = TagName::new("gone").unwrap();
    let rows = [(name.clone(), record(1.0, before)), (name, record(1.5, NOW)), (gone, record(9.0, before))];
    let backlog = said(dialect.backlog(&rows, NOW));
    let old = json!({"time": "2026-11-21T17:53:19.1234567Z", "value": 1.0, "quality": "Good", "unit": "m/s", "historical": true});
    assert_eq!(backlog[0], ("plc/Speed".to_owned(), old, false));
    assert_eq!((backlog[1].0.as_str(), backlog.len()), ("gone", 2), "the birth said the other one");
    let late = Sample::good(TagId(0), Value::Double(0.5), before);
    let live = said(dialect.live(&[late], NOW));
    assert_eq!((&live[0].1["historical"], live[0].2), (&json!(true), false));
    let live = said(dialect.live(&[Sample::good(TagId(0), Value::Double(0.5), later(1))], NOW));
    assert_eq!((live[0].1.get("historical"), live[0].2), (None, true));
}

#[test]
fn a_batch_is_of_many_values_below_its_limit() {
    let mut dialect = dialect("[json]\nlayout = 'batch'\nqos = 0");
    dialect.connecting(0, NOW);
    let tags = (0..3000).map(|n| (spec(&format!("plc/tag number {n}"), DataType::Int32), Value::Int32(n))).collect();
    let birth = dialect.birth(&view(tags), NOW);
    assert!(birth.len() > 2 && birth.iter().all(|message| message.payload.len() <= PAYLOAD));
    assert!(birth[1..].iter().all(|message| message.qos == QoS::AtMostOnce && !message.retain));
    let mut numbers = Vec::new();
    for (topic, payload, _) in &said(birth)[1..] {
        assert_eq!((topic.as_str(), &payload["time"]), ("data", &json!("2026-11-21T17:53:20.1234567Z")));
        for value in payload["values"].as_array().unwrap() {
            assert_eq!(value["tag"], json!(format!("plc/tag number {}", value["value"])));
            numbers.push(value["value"].as_i64().unwrap());
        }
    }
    assert_eq!(numbers, (0..3000).collect::<Vec<i64>>(), "in their order");
    assert!(dialect.live(&[], NOW).is_empty(), "no empty batch");
    let text = Value::string("x".repeat(PAYLOAD));
    let large = view(vec![(spec("large", DataType::String), text), (spec("small", DataType::Int32), Value::Int32(1))]);
    assert_eq!(dialect.birth(&large, NOW).len(), 3, "what is too large goes alone");
}

#[test]
fn writes_are_asked_for_or_refused_and_answered() {
    let mut dialect = dialect("");
    dialect.connecting(0, NOW);
    assert_eq!(dialect.filters(&speed().tags), ["vedette/G/N/+/+/set"]);
    dialect.birth(&speed(), NOW);
    let mut ask = |topic: &str, payload: &str, retain| dialect.received(&received(topic, payload, retain), NOW);
    for payload in ["5", r#"{"value": 5}"#, " 5\n"] {
        assert_eq!(ask("plc/Set/set", payload, false), [Ask::Write(TagId(1), Value::Int16(5))]);
    }
    for (payload, retain, words) in [
        ("5", true, "a retained write would be done again"),
        ("five", false, "no JSON"),
        ("", false, "no JSON"),
        (r#"{"valeu": 5}"#, false, "an object without \"value\""),
        ("5.5", false, "from -32768 to 32767"),
        ("70000", false, "from -32768 to 32767"),
        ("\"5\"", false, "from -32768 to 32767"),
    ] {
        let asks = ask("plc/Set/set", payload, retain);
        assert!(matches!(&asks[..], [Ask::Refused(reason)] if reason.contains(words)), "{payload}: {asks:?}");
    }
    assert!(ask("plc/Speed/set", "5", false).is_empty(), "not writable");
    let answer = said(dialect.live(&[], NOW));
    assert_eq!((answer.len(), answer[0].0.as_str(), &answer[0].1["value"]), (1, "plc/Set", &json!(7)));
    dialect.refused(TagId(1));
    assert_eq!(dialect.live(&[], NOW).len(), 1);
    assert!(dialect.live(&[], NOW).is_empty());
}

#[test]
fn without_the_role_nobody_writes() {
    let mut dialect = dialect("commands = 'viewer'");
    dialect.connecting(0, NOW);
    assert!(dialect.filters(&speed().tags).is_empty());
    dialect.birth(&speed(), NOW);
    assert!(dialect.received(&received("plc/Set/set", "5", false), NOW).is_empty());
}

#[test]
fn retained_values_go_with_their_tags_also_over_a_lost_connection() {
    let mut dialect = dialect("[json]\nretain = true");
    dialect.connecting(0, NOW);
    dialect.birth(&speed(), NOW);
    dialect.connecting(0, NOW);
    let one = view(vec![(spec("plc/Speed", DataType::Double), Value::Double(1.0))]);
    let birth = said(dialect.birth(&one, NOW));
    assert_eq!(birth[0], ("plc/Set".to_owned(), Any::Null, true));
    assert_eq!(birth.len(), 3);
    assert_eq!(dialect.birth(&one, NOW).len(), 2, "once");
}

const HOME: &str = "[json]\nhome_assistant = 'homeassistant'\n[[image]]\ncamera = 'front'\ninterval = '1m'";

fn configs(messages: Vec<Message>) -> HashMap<String, Any> {
    let configs = said(messages).into_iter().filter(|(topic, ..)| topic.starts_with("homeassistant/"));
    configs.inspect(|config| assert!(config.2)).map(|(topic, payload, _)| (topic, payload)).collect()
}

#[test]
fn home_assistant_is_told_of_each_tag_and_camera() {
    let mut dialect = dialect(HOME);
    dialect.connecting(0, NOW);
    let range = spec("oven/Set point", DataType::Double).unit("°C").range(0.0, 300.0).writable();
    let tags = view(vec![
        (range, Value::Double(20.0)),
        (spec("oven/Open", DataType::Boolean), Value::Boolean(true)),
        (spec("oven/Light", DataType::Boolean).writable(), Value::Boolean(true)),
        (spec("oven/Load", DataType::Float).unit("%"), Value::Float(1.0)),
        (spec("oven/Recipe", DataType::String).writable(), Value::string("bread")),
        (spec("oven/Since", DataType::DateTime), Value::DateTime(NOW)),
        (spec("oven/Blob", DataType::ByteString), Value::bytes([1])),
        (TagSpec { is_array: true, ..spec("oven/Curve", DataType::Double) }, Value::Empty),
    ]);
    let configs = configs(dialect.birth(&tags, NOW));
    let of =
        |component: &str, object: &str| &configs[&format!("homeassistant/{component}/vedette-G-N/{object}/config")];
    assert_eq!(configs.len(), 7);
    let set_point = of("number", "oven__Set_20point");
    assert_eq!(set_point["device_class"], "temperature");
    assert_eq!(set_point["command_topic"], "vedette/G/N/oven/Set point/set");
    assert_eq!((&set_point["min"], &set_point["max"]), (&json!(0.0), &json!(300.0)));
    assert_eq!(of("binary_sensor", "oven__Open")["state_topic"], "vedette/G/N/oven/Open");
    assert_eq!(of("switch", "oven__Light")["payload_on"], "true");
    let load = of("sensor", "oven__Load");
    assert_eq!((&load["unit_of_measurement"], &load["state_class"]), (&json!("%"), &json!("measurement")));
    assert_eq!(load.get("device_class"), None, "not certain");
    assert_eq!(of("sensor", "oven__Recipe").get("command_topic"), None, "sensors take no commands");
    let template = of("sensor", "oven__Recipe")["value_template"].as_str().unwrap();
    assert!(template.contains("value_json.value[:255] if"), "no state is longer: {template}");
    assert_eq!(of("sensor", "oven__Since")["device_class"], "timestamp");
    assert_eq!(of("camera", "cameras__front__picture")["topic"], "vedette/G/N/image/front");
    for config in configs.values() {
        assert_eq!(config["device"]["identifiers"], json!(["vedette-G-N"]));
        assert_eq!(config["availability_topic"], "vedette/G/N/status");
    }
}

#[test]
fn what_home_assistant_was_told_before_a_restart_is_taken_away() {
    let mut dialect = dialect(HOME);
    dialect.connecting(0, NOW);
    let filters = dialect.filters(&speed().tags);
    assert_eq!(filters, ["vedette/G/N/+/+/set", "homeassistant/+/vedette-G-N/+/config"]);
    let config = |component: &str, device: &str, object: &str| Received {
        topic: format!("homeassistant/{component}/{device}/{object}/config"),
        payload: "{}".into(),
        retain: true,
        properties: Properties::default(),
    };
    // Before the birth, after it, known and foreign.
    dialect.received(&config("sensor", "vedette-G-N", "gone"), NOW);
    dialect.received(&config("sensor", "vedette-G-N", "plc__Speed"), NOW);
    let birth = said(dialect.birth(&speed(), NOW));
    assert_eq!(birth[0], ("homeassistant/sensor/vedette-G-N/gone/config".to_owned(), Any::Null, true));
    assert!(birth[1].0.ends_with("plc__Speed/config") && birth[1].1.is_object());
    dialect.received(&config("switch", "vedette-G-N", "plc__Speed"), NOW);
    dialect.received(&config("sensor", "vedette-G-N", "plc__Speed"), NOW);
    dialect.received(&config("sensor", "other", "plc__Speed"), NOW);
    let live = said(dialect.live(&[], NOW));
    assert_eq!(live, [("homeassistant/switch/vedette-G-N/plc__Speed/config".to_owned(), Any::Null, true)]);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_that_comes_in_is_a_panic(topic in "[a-zA-Z/]{0,30}|plc/Set/set", payload in ".{0,60}", retain: bool) {
        let mut dialect = dialect(HOME);
        dialect.connecting(0, NOW);
        dialect.birth(&speed(), NOW);
        dialect.received(&received(&topic, &payload, retain), NOW);
        dialect.live(&[], NOW);
    }
}

#[test]
fn after_the_clock_was_set_back_values_are_new_and_not_history() {
    let mut dialect = dialect("[json]\nretain = true");
    dialect.connecting(0, NOW);
    dialect.birth(&speed(), NOW);
    let back = |seconds: u64| NOW.saturating_sub(std::time::Duration::from_secs(seconds));
    for (value, seconds, is_history) in [(2.0, 3600, false), (3.0, 61, false), (4.0, 60, true), (5.0, 3599, false)] {
        let sample = Sample::good(TagId(0), Value::Double(value), back(seconds));
        let live = said(dialect.live(&[sample], NOW));
        let is_said = (live[0].1["value"].clone(), live[0].1.get("historical").is_some(), live[0].2);
        assert_eq!(is_said, (json!(value), is_history, !is_history), "{seconds} s before the birth");
    }
}

#[test]
fn what_was_gathered_of_a_tag_before_it_went_is_said_as_history() {
    let mut dialect = dialect("[json]\nretain = true");
    dialect.connecting(0, NOW);
    let mut view = speed();
    dialect.birth(&view, NOW);
    view.tags.pop();
    view.current.pop();
    dialect.changed(&view, later(20));
    let gathered = Sample::good(TagId(1), Value::Int16(8), later(10));
    let live = said(dialect.live(&[gathered], later(30)));
    let (_, payload, retain) = live.iter().find(|(topic, ..)| topic == "plc/Set").unwrap();
    assert_eq!((&payload["value"], &payload["historical"], *retain), (&json!(8), &json!(true), false));
}
