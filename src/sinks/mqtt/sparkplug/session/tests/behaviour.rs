//! What is ours, beyond the specification's letter.

use super::*;
use crate::sinks::mqtt::sparkplug::data::alias_of_instance;

#[test]
fn golden_bytes_of_a_will() {
    let mut plant = plant("");
    let will = plant.session.connecting(3, Timestamp::from_millis(1_000_000)).unwrap();
    let golden = [
        0x08, 0xC0, 0x84, 0x3D, // timestamp 1000000
        0x12, 0x0F, // one metric
        0x0A, 0x05, b'b', b'd', b'S', b'e', b'q', // name
        0x18, 0xC0, 0x84, 0x3D, // timestamp
        0x20, 0x04, // datatype Int64
        0x58, 0x03, // long_value 3
    ];
    assert_eq!(will.payload[..], golden);
}

fn born(toml: &str) -> Plant {
    let mut plant = plant(toml);
    plant.connect();
    plant.birth();
    plant
}

#[test]
fn a_birth_says_the_node_then_each_device_with_its_folder() {
    let plant = born("");
    assert_eq!(plant.shown(0), ["NBIRTH", "DBIRTH line1", "DBIRTH plc", "DBIRTH press"]);
    let mut names = plant.said[0].names();
    names.sort_unstable();
    assert_eq!(
        names,
        ["Node Control/Identify", "Node Control/Rebirth", "Properties/system/load", "alone", "bdSeq"],
        "operators may identify, not reboot"
    );
    assert_eq!(plant.said[2].names(), ["a", "set", "words"]);
    let temp = plant.said[3].metric("temp").properties.clone().unwrap();
    assert_eq!(temp.keys, ["engUnit", "engLow", "engHigh", "description"]);
}

#[test]
fn what_a_broker_finds_too_large_is_split_or_not_born_and_the_rest_goes_on() {
    let large = (0..300).map(|number| spec(&format!("load/tag number {number:04}"), DataType::Int32));
    let mut plant =
        plant_of("", large.chain([spec("plc/a", DataType::Int32), spec("alone", DataType::Int32)]).collect());
    let plc = TagName::new("plc/a").unwrap();
    let load = TagName::new("load/tag number 0000").unwrap();

    // Births and data of any size.
    plant.connect();
    plant.birth();
    assert_eq!(plant.shown(0), ["NBIRTH", "DBIRTH load", "DBIRTH plc"]);
    let samples: Vec<Sample> =
        (0..300).map(|number| plant.sample(&format!("load/tag number {number:04}"), 1)).collect();
    let first = plant.live(&samples);
    assert_eq!(plant.said.len() - first, 1);

    // The birth fits, all changes at once do not.
    let birth = plant.said[1].message.size();
    plant.connect();
    plant.session.connected(Some(birth));
    plant.birth();
    let samples: Vec<Sample> =
        (0..300).map(|number| plant.sample(&format!("load/tag number {number:04}"), 2)).collect();
    plant.session.connected(Some(2000));
    let first = plant.live(&samples);
    let sizes: Vec<usize> = plant.said[first..].iter().map(|said| said.message.size()).collect();
    assert!(sizes.len() > 3 && sizes.iter().all(|&size| size <= 2000), "{sizes:?}");

    // The birth does not fit: as if the device were lost, and no seq is missing.
    plant.connect();
    plant.session.connected(Some(birth - 1));
    let first = plant.birth();
    assert_eq!(plant.shown(first), ["NBIRTH", "DBIRTH plc"]);
    let seqs: Vec<_> = plant.said[first..].iter().map(|said| said.payload.seq).collect();
    assert_eq!(seqs, [Some(0), Some(1)]);
    let can_say = plant.session.can_say();
    assert_eq!((can_say(&plc), can_say(&load)), (true, false));
    let first = plant.set("plc/a", 7);
    assert_eq!((plant.said[first].kind, plant.said[first].payload.seq), (Kind::DData, Some(2)));
    let last = plant.death();
    assert_eq!(plant.shown(last), ["DDEATH plc", "NDEATH"]);

    // Without the node's birth there is nothing else.
    plant.connect();
    plant.session.connected(Some(100));
    let first = plant.birth();
    assert_eq!(plant.shown(first), ["NBIRTH"]);
    assert!(
        plant.session.is_vital(&plant.said[first].message.topic) && !plant.session.is_vital("spBv1.0/G/DBIRTH/N/plc")
    );
}

#[test]
fn changes_go_to_their_places_and_what_is_no_change_goes_nowhere() {
    let mut plant = born("");
    let samples = [plant.sample("plc/a", 1), plant.sample("alone", 1), plant.sample("plc/a", 2)];
    let first = plant.live(&samples);
    assert_eq!(plant.shown(first), ["NDATA alone=true", "DDATA plc a=1 a=2"]);
    assert_eq!(plant.set("plc/a", 2), plant.said.len(), "no change, no message");
    let again = bad(plant.sample("plc/a", 2), "unplugged");
    let first = plant.live(&[again]);
    assert_eq!(plant.shown(first), ["DDATA plc a=2"], "another status is a change");
    assert_eq!(plant.said[first].metric("a").properties.clone().unwrap().keys, ["Quality", "Reason"]);
}

#[test]
fn quality_is_told_once_when_it_is_good_again_also_by_the_birth_of_another_connection() {
    let code = |said: &Said| {
        let properties: &Option<PropertySet> = &said.metric("a").properties;
        properties.as_ref().map(|set| set.values[0].value.clone().unwrap())
    };
    let of = |code| Some(crate::mqtt::sparkplug::proto::payload::property_value::Value::IntValue(code));
    let mut plant = born("");
    let sample = bad(plant.sample("plc/a", 1), "unplugged");
    let first = plant.live(&[sample]);
    assert_eq!(code(&plant.said[first]), of(0));
    plant.connect();
    plant.sample("plc/a", 2);
    let first = plant.birth();
    assert_eq!(code(&plant.said[first + 2]), of(192));
    let first = plant.birth();
    assert_eq!(code(&plant.said[first + 2]), None);
}

#[test]
fn samples_that_a_birth_overtook_are_history_and_its_own_is_not_said_twice() {
    let mut plant = born("");
    let samples = [plant.sample("plc/a", 1), plant.sample("plc/a", 2), plant.sample("plc/a", 3)];
    plant.birth();
    let later = plant.sample("plc/a", 4);
    let first = plant.live(&samples);
    assert_eq!(plant.shown(first), ["DDATA plc !a=1 !a=2"]);
    let first = plant.live(&[later]);
    assert_eq!(plant.shown(first), ["DDATA plc a=4"]);
}

#[test]
fn a_clock_that_goes_back_begins_a_new_message() {
    let mut plant = born("");
    let first = Sample { source_time: Some(at(500)), ..plant.sample("plc/a", 1) };
    let back = Sample { source_time: Some(at(100)), ..plant.sample("plc/a", 2) };
    let from = plant.live(&[first, back]);
    assert_eq!(plant.shown(from), ["DDATA plc a=1", "DDATA plc a=2"], "what came last is said last");
}

#[test]
fn what_a_dead_device_had_to_say_follows_its_birth_in_order_and_once() {
    let mut plant = born("");
    let from = plant.lose("plc");
    assert_eq!(plant.shown(from), ["DDEATH plc"]);
    assert_eq!(plant.lose("plc"), plant.said.len(), "once is enough");
    assert_eq!(plant.lose("system"), plant.said.len(), "the node is no device");
    let one = plant.sample("plc/a", 1);
    assert_eq!(plant.live(std::slice::from_ref(&one)), plant.said.len());
    let old = Sample::good(TagId(0), Value::Int32(-5), at(-5));
    plant.backlog(&[("plc/a", old), ("plc/a", one)]);
    let two = plant.sample("plc/a", 2);
    plant.live(&[two]);
    plant.sample("plc/a", 3);
    let from = plant.back("plc");
    assert_eq!(plant.shown(from), ["DBIRTH plc", "DDATA plc !a=-5 !a=1 !a=2"]);
    assert_eq!(plant.back("plc"), plant.said.len(), "it is alive");
    let from = plant.set("plc/a", 4);
    assert_eq!(plant.shown(from), ["DDATA plc a=4"]);
}

#[test]
fn what_is_held_outlives_the_connection() {
    let mut plant = born("");
    plant.lose("plc");
    plant.set("plc/a", 1);
    plant.connect();
    plant.sample("plc/a", 2);
    let from = plant.birth();
    assert_eq!(plant.shown(from), ["NBIRTH", "DBIRTH line1", "DBIRTH press"]);
    let from = plant.back("plc");
    assert_eq!(plant.shown(from), ["DBIRTH plc", "DDATA plc !a=1"]);
}

#[test]
fn too_much_of_a_dead_device_is_dropped_oldest_first_and_counted() {
    let mut plant = born("");
    plant.lose("plc");
    let samples: Vec<Sample> = (1..=65_540).map(|number| plant.sample("plc/a", number)).collect();
    plant.live(&samples);
    let from = plant.back("plc");
    let said: usize = plant.said[from + 1..].iter().map(|said| said.payload.metrics.len()).sum();
    assert_eq!((said, plant.session.unsaid()), (65_535, 4), "the newest is the birth's");
    assert!(plant.said[from + 1..].iter().all(|said| said.message.payload.len() <= 97 * 1024));
}

#[test]
fn a_device_with_other_tags_dies_and_is_born_and_the_rest_is_left_alone() {
    let mut plant = born("");
    plant.add(spec("plc/new", DataType::Int32));
    plant.set("plc/new", 1);
    let from = plant.changed();
    assert_eq!(plant.shown(from), ["DDEATH plc", "DBIRTH plc"]);
    assert_eq!(plant.said[from + 1].names(), ["a", "set", "words", "new"], "in the order of their times");
    plant.add(spec("more/x", DataType::Int32));
    plant.tags.retain(|(_, spec)| !spec.name.as_str().starts_with("press/"));
    let from = plant.changed();
    assert_eq!(plant.shown(from), ["DDEATH press", "DBIRTH more"]);
    assert_eq!(plant.changed(), plant.said.len(), "nothing changed");
    plant.add(spec("of_the_node", DataType::Int32));
    let from = plant.changed();
    assert_eq!(plant.shown(from), ["NBIRTH", "DBIRTH line1", "DBIRTH more", "DBIRTH plc"]);
    plant.tags.retain(|(_, spec)| !spec.name.as_str().starts_with("plc/"));
    let from = plant.birth();
    assert_eq!(plant.shown(from)[..2], ["DDEATH plc", "NBIRTH"]);
}

#[test]
fn a_tag_whose_type_is_to_come_waits_for_it() {
    let mut plant = plant_of("", vec![spec("plc/a", DataType::Variant), spec("plc/b", DataType::Int32)]);
    plant.connect();
    let from = plant.birth();
    assert_eq!(plant.said[from + 1].names(), ["b"]);
    let one = Sample::good(TagId(0), Value::Int32(1), at(5));
    let two = Sample::good(TagId(0), Value::Int32(2), at(6));
    assert_eq!(plant.live(&[one, two.clone()]), plant.said.len());
    plant.tags[0].1 = Arc::new(spec("plc/a", DataType::Int32));
    plant.current[0] = two;
    let from = plant.changed();
    assert_eq!(plant.shown(from), ["DDEATH plc", "DBIRTH plc", "DDATA plc !a=1"]);
}

#[test]
fn after_the_clock_was_set_back_values_are_new_and_not_history() {
    let mut plant = born("");
    for (value, seconds, mark) in [(2, 3600, ""), (3, 61, ""), (4, 59, "!"), (5, 3599, "")] {
        let back = Timestamp::from_millis(plant.current[0].server_time.millis() - seconds * 1000);
        let from = plant.live(&[Sample::good(TagId(0), Value::Int32(value), back)]);
        assert_eq!(plant.shown(from), [format!("DDATA plc {mark}a={value}")], "{seconds} s before the birth");
    }
}

#[test]
fn the_backlog_is_history_of_what_was_born_and_the_rest_is_counted() {
    let mut plant = born("");
    let old = |number| Sample::good(TagId(0), Value::Int32(number), at(-10 + i64::from(number)));
    let of_another_type = Sample { value: Value::Double(1.0), ..old(3) };
    let shown = plant.current[0].clone();
    let lost = bad(old(4), "unplugged");
    let rows = [
        ("plc/a", old(1)),
        ("gone/a", old(2)),
        ("plc/a", of_another_type),
        ("alone", Sample { value: Value::Boolean(true), ..old(2) }),
        ("plc/a", lost),
        ("plc/a", shown),
    ];
    let from = plant.backlog(&rows);
    assert_eq!(plant.shown(from), ["NDATA !alone=true", "DDATA plc !a=1 !a=null"]);
    assert_eq!(plant.session.unsaid(), 2);
    plant.tags.retain(|(_, spec)| spec.name.as_str() != "plc/a");
    plant.lose("plc");
    plant.set("plc/set", 9);
    plant.tags.retain(|(_, spec)| !spec.name.as_str().starts_with("plc/"));
    plant.birth();
    assert_eq!(plant.session.unsaid(), 3, "what was held of a tag that is gone");
}

#[test]
fn large_data_is_split_and_a_large_birth_is_not() {
    let specs = (0..10_000).map(|number| spec(&format!("line{}/motor{}/speed", number % 2, number), DataType::Double));
    let mut plant = plant_of("", specs.collect());
    plant.connect();
    plant.birth();
    assert_eq!(plant.shown(0), ["NBIRTH", "DBIRTH line0", "DBIRTH line1"]);
    let births: usize = plant.said.iter().map(|said| said.message.payload.len()).sum();
    assert!((350_000..600_000).contains(&births), "two births of 5000 tags have {births} bytes");
    let names: Vec<String> = plant.tags.iter().map(|(_, spec)| spec.name.to_string()).collect();
    let samples: Vec<Sample> = names.iter().map(|name| plant.sample(name, 1)).collect();
    let from = plant.live(&samples);
    let data = &plant.said[from..];
    assert!(data.len() >= 4 && data.iter().all(|said| said.message.payload.len() <= 97 * 1024));
    let seqs: Vec<u64> = data.iter().map(|said| said.payload.seq()).collect();
    assert_eq!(seqs, (3..3 + data.len() as u64).collect::<Vec<_>>());
}

const MOTORS: &str = "[[template]]\nname = 'Motor'\nfolders = ['plc/m*']";

fn motors(toml: &str) -> Plant {
    let mut plant = plant_of(
        &format!("{toml}\n{MOTORS}"),
        vec![
            spec("plc/m1/speed", DataType::Double).writable(),
            spec("plc/m1/on", DataType::Boolean),
            spec("plc/m2/speed", DataType::Double).writable(),
            spec("plc/m2/on", DataType::Boolean),
            spec("plc/x", DataType::Int32),
        ],
    );
    plant.connect();
    plant.birth();
    plant
}

fn template(metric: &Metric) -> &Template {
    match &metric.value {
        Some(wire::Value::TemplateValue(template)) => template,
        other => panic!("{other:?}"),
    }
}

#[test]
fn instances_say_only_the_members_that_changed() {
    let mut plant = motors("");
    assert_eq!(plant.said[0].names()[0], "Motor", "before all others");
    assert_eq!(plant.said[1].names(), ["x", "m1", "m2"]);
    let mut samples = vec![plant.sample("plc/m1/speed", 5)];
    samples.push(Sample { source_time: samples[0].source_time, ..plant.sample("plc/m1/on", 1) });
    samples.push(plant.sample("plc/m1/speed", 6));
    samples.push(plant.sample("plc/x", 1));
    let from = plant.live(&samples);
    assert_eq!(plant.shown(from), ["DDATA plc m1={speed=5,on=true} m1={speed=6} x=1"]);
    let metric = plant.said[from].metric("m1");
    assert_eq!((template(metric).template_ref(), template(metric).is_definition), ("Motor", Some(false)));
    assert!(template(metric).metrics.iter().all(|member| member.timestamp == metric.timestamp));
}

#[test]
fn members_are_written_by_path_and_inside_a_template() {
    let mut plant = motors("aliases = true");
    let speed = |value| order("speed", wire::Value::DoubleValue(value));
    let inside = |metrics| wire::Value::TemplateValue(Template { metrics, ..Template::default() });
    let by_alias =
        Metric { name: None, alias: Some(alias_of_instance(TagId(2))), ..order("", inside(vec![speed(3.0)])) };
    let asks = plant.command(
        "spBv1.0/G/DCMD/N/plc",
        vec![
            order("m1/speed", wire::Value::DoubleValue(1.0)),
            order("m2", inside(vec![speed(2.0), order("on", wire::Value::BooleanValue(true))])),
            by_alias,
        ],
    );
    let write = |tag, value| Ask::Write(TagId(tag), Value::Double(value));
    let refused = Ask::Refused("m2/on: it is read-only".into());
    assert_eq!(asks, [write(0, 1.0), write(2, 2.0), write(2, 3.0), refused]);
}

#[test]
fn commands_write_tags_of_their_place() {
    let mut plant = born("");
    let int = |name: &str, value: i32| order(name, wire::Value::IntValue(value as u32));
    assert_eq!(plant.command("spBv1.0/G/DCMD/N/plc", vec![int("set", -5)]), [Ask::Write(TagId(1), Value::Int32(-5))]);
    let on = order("alone", wire::Value::BooleanValue(true));
    assert_eq!(plant.command(NCMD, vec![on.clone()]), [Ask::Write(TagId(5), Value::Boolean(true))]);
    let refused = |asks: Vec<Ask>| match asks.as_slice() {
        [Ask::Refused(why)] => why.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(plant.command(NCMD, vec![int("set", 1)])), "set: there is no such metric");
    assert_eq!(refused(plant.command("spBv1.0/G/DCMD/N/plc", vec![int("a", 1)])), "a: it is read-only");
    assert!(refused(plant.command("spBv1.0/G/DCMD/N/nobody", vec![on.clone()])).contains("no such device"));
    let wrong = order("set", wire::Value::StringValue("x".into()));
    let asks = plant.command("spBv1.0/G/DCMD/N/plc", vec![wrong, int("b", 1), Metric::default(), int("set", 1)]);
    let Ask::Refused(why) = &asks[1] else { panic!("{asks:?}") };
    assert!(asks[0] == Ask::Write(TagId(1), Value::Int32(1)) && why.ends_with("; and 2 more"), "{why}");
    assert!(refused(plant.receive(NCMD, b"\xFF\xFFgarbage".to_vec(), false)).contains("no Sparkplug B payload"));
    let payload = Payload { metrics: vec![on], ..Payload::default() }.encode_to_vec();
    assert!(refused(plant.receive(NCMD, payload, true)).contains("retained"));
    let many = vec![Metric::default(); 70_000];
    assert!(refused(plant.command(NCMD, many)).contains("more than 65536 parts"));
    for elsewhere in ["spBv1.0/G/NCMD/M", "spBv1.0/H/NCMD/N", "spBv1.0/G/NDATA/N", "spBv1.0/STATE/scada", "x"] {
        assert!(plant.command(elsewhere, vec![int("set", 1)]).is_empty(), "{elsewhere}");
    }
}

#[test]
fn what_commands_may_do_is_limited_by_the_role() {
    let controls = |role: &str| {
        let mut plant = born(&format!("commands = '{role}'"));
        let control = |name: &str| order(&format!("Node Control/{name}"), wire::Value::BooleanValue(true));
        let mut tried = Vec::new();
        for name in ["Rebirth", "Identify", "Reboot", "Launch"] {
            tried.push(plant.command(NCMD, vec![control(name)]));
        }
        tried.push(plant.command("spBv1.0/G/DCMD/N/plc", vec![order("set", wire::Value::IntValue(1))]));
        let is_done = |asks: &Vec<Ask>| !matches!(asks.as_slice(), [Ask::Refused(_)]);
        let born = plant.said[0].names().iter().filter(|name| name.starts_with("Node Control/")).count();
        let dcmd = plant.session.filters(&plant.tags).iter().filter(|filter| filter.contains("DCMD")).count();
        (tried.iter().map(is_done).collect::<Vec<_>>(), born, dcmd)
    };
    assert_eq!(controls("none"), (vec![true, false, false, false, false], 1, 0));
    assert_eq!(controls("viewer"), (vec![true, false, false, false, false], 1, 0));
    assert_eq!(controls("operator"), (vec![true, true, false, false, true], 2, 3));
    assert_eq!(controls("admin"), (vec![true, true, false, false, true], 2, 3), "an NCMD has no role");
    let mut plant = born("");
    let off = order("Node Control/Rebirth", wire::Value::BooleanValue(false));
    assert!(plant.command(NCMD, vec![off]).is_empty(), "as the birth has it");
    let twice = vec![order("Node Control/Identify", wire::Value::BooleanValue(true)); 2];
    assert_eq!(plant.command(NCMD, twice), [Ask::Control("Identify".into())]);
}

#[test]
fn pictures_are_bytes_of_the_cameras_device() {
    let mut plant = born("[[image]]\ncamera = 'line1'\ninterval = '1s'\nas = 'sparkplug'");
    let image = plant.said[1].metric("Image").clone();
    assert_eq!((image.datatype, image.is_null), (Some(Type::Bytes as u32), Some(true)));
    let said = plant.session.picture("line1", b"\xFF\xD8\xFF\xD9", at(1), false, at(2)).unwrap();
    let said = Said::new(said, "picture");
    let image = said.metric("Image");
    assert_eq!((said.kind, said.device.as_deref(), image.datatype), (Kind::DData, Some("line1"), None));
    assert_eq!(image.value, Some(wire::Value::BytesValue(b"\xFF\xD8\xFF\xD9".to_vec())));
    assert_eq!(image.metadata.as_ref().unwrap().content_type(), "image/jpeg");
    assert!(plant.session.picture("line2", b"", at(1), false, at(2)).is_none());
    plant.lose("cameras/line1");
    assert!(plant.session.picture("line1", b"", at(1), false, at(2)).is_none());
}

#[test]
fn tags_of_a_dead_device_cannot_be_said_until_it_is_back() {
    let mut plant = born("");
    let can_say = |plant: &Plant| {
        let can_say = plant.session.can_say();
        ["plc/a", "press/speed", "alone", "gone/a"].map(|name| can_say(&TagName::new(name).unwrap()))
    };
    assert_eq!(can_say(&plant), [true; 4]);
    plant.lose("plc");
    assert_eq!(can_say(&plant), [false, true, true, true], "nothing will come back for a tag that is gone");
    plant.connect();
    plant.birth();
    assert_eq!(can_say(&plant), [false, true, true, true], "nor does a new connection bring it back");
    plant.back("plc");
    assert_eq!(can_say(&plant), [true; 4]);
}
