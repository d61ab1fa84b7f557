//! Chapters 1 and 4: names and topics.

use super::*;

/// In a plant whose folders have all that is forbidden in a topic.
fn ids() -> Vec<String> {
    let specs = ["a+b/x", "a#b/x", "Ü 1/x", "cameras/a+b/x"].map(|name| spec(name, DataType::Int32)).to_vec();
    let mut plant = plant_of("", specs);
    plant.connect();
    plant.birth();
    plant.of(Kind::DBirth).iter().map(|said| said.device.clone().unwrap()).collect()
}

fn is_valid_id(id: &str) -> bool {
    !id.is_empty() && !id.contains(['+', '/', '#', '\0'])
}

fn is_of(plant: &Plant, kind: Kind) -> bool {
    let devices = ["line1", "plc", "press"].map(|device| format!("spBv1.0/G/{}/N/{device}", kind.name()));
    plant.of(kind).iter().all(|said| match kind.is_of_device() {
        false => said.message.topic == format!("spBv1.0/G/{}/N", kind.name()),
        true => devices.contains(&said.message.topic),
    })
}

tck! {
    tck_id_intro_group_id_string: { assert_eq!(SparkplugId::new("Wörk 1").unwrap().as_str(), "Wörk 1"); }
    tck_id_intro_group_id_chars: {
        for id in ["a+", "a/b", "#", "a\0", "a\n"] { assert!(SparkplugId::new(id).is_err(), "{id:?}"); }
    }
    tck_id_intro_edge_node_id_string: { assert_eq!(SparkplugId::nearest("Preß 4").as_str(), "Preß 4"); }
    tck_id_intro_edge_node_id_chars: {
        for id in ["a+", "a/b", "#", "a\0", ""] { assert!(is_valid_id(SparkplugId::nearest(id).as_str()), "{id:?}"); }
    }
    tck_id_intro_device_id_string: { assert!(ids().contains(&"Ü 1".to_owned())); }
    tck_id_intro_device_id_chars: { assert!(ids().iter().all(|id| is_valid_id(id)), "{:?}", ids()); }
    tck_id_intro_edge_node_id_uniqueness: {
        let plant = conversation("");
        assert!(plant.said.iter().all(|said| said.message.topic.starts_with("spBv1.0/G/") && said.message.topic.split('/').nth(3) == Some("N")));
    }
    tck_id_topic_structure: {
        for said in conversation("").said {
            let levels: Vec<&str> = said.message.topic.split('/').collect();
            assert_eq!(levels[..4], ["spBv1.0", "G", said.kind.name(), "N"]);
            assert_eq!(levels.len(), 4 + usize::from(said.device.is_some()));
        }
    }
    tck_id_topic_structure_namespace_a: {
        assert!(conversation("").said.iter().all(|said| said.message.topic.starts_with("spBv1.0/")));
    }
    tck_id_topic_structure_namespace_valid_group_id: { assert!(SparkplugId::new("G+").is_err() && SparkplugId::new("G").is_ok()); }
    tck_id_topic_structure_namespace_unique_edge_node_descriptor: {
        let plant = conversation("");
        let will = plant.will.unwrap().topic;
        assert!(will == "spBv1.0/G/NDEATH/N" && plant.said.iter().all(|said| Topic::parse(&said.message.topic).is_some()));
    }
    tck_id_topic_structure_namespace_valid_edge_node_id: { assert!(is_valid_id(SparkplugId::nearest("a/b+c#d").as_str())); }
    tck_id_topic_structure_namespace_valid_device_id: { assert!(ids().iter().all(|id| is_valid_id(id))); }
    tck_id_topic_structure_namespace_unique_device_id: {
        let mut ids = ids();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), count), (4, 4));
        // And none is born twice in a session without a death or an NBIRTH between.
        let mut alive: Vec<&Option<String>> = Vec::new();
        let plant = conversation("");
        for said in &plant.said {
            match said.kind {
                Kind::NBirth => alive.clear(),
                Kind::DDeath => alive.retain(|device| **device != said.device),
                Kind::DBirth => {
                    assert!(!alive.contains(&&said.device), "{said:?}");
                    alive.push(&said.device);
                }
                _ => {}
            }
        }
    }
    tck_id_topic_structure_namespace_duplicate_device_id_across_edge_node: {
        let other = Topic::Message { group: "G", kind: Kind::DCmd, node: "other", device: Some("plc") }.to_string();
        assert!(conversation("").command(&other, vec![order("set", wire::Value::IntValue(1))]).is_empty());
    }
    tck_id_topic_structure_namespace_device_id_associated_message_types: {
        each_of(&conversation(""), &[Kind::DBirth, Kind::DData, Kind::DDeath], |said| said.message.topic.split('/').count() == 5);
        let filters = plant("").session.filters(&plant("").tags);
        let of_devices: Vec<_> = filters.iter().filter(|filter| filter.contains("/DCMD/")).collect();
        assert!(of_devices.len() == 3 && of_devices.iter().all(|filter| filter.split('/').count() == 5));
    }
    tck_id_topic_structure_namespace_device_id_non_associated_message_types: {
        each_of(&conversation(""), &[Kind::NBirth, Kind::NData, Kind::NDeath], |said| said.message.topic.split('/').count() == 4);
        let plant = plant("primary_host = 'scada'");
        let filters = plant.session.filters(&plant.tags);
        assert!(filters.contains(&"spBv1.0/G/NCMD/N".to_owned()) && filters.contains(&"spBv1.0/STATE/scada".to_owned()));
    }
    tck_id_case_sensitivity_sparkplug_ids: {
        let tags = ["plc/x", "PLC/x"].map(|name| spec(name, DataType::Int32)).to_vec();
        let plant = plant_of("", tags);
        assert!(plant.session.lay_out(&plant.view()).notices[0].contains("differ in case only"), "people are told");
        assert!(plant_of("", vec![]).session.lay_out(&plant_of("", vec![]).view()).notices.is_empty());
    }
    tck_id_case_sensitivity_metric_names: {
        let tags = ["plc/x", "plc/X"].map(|name| spec(name, DataType::Int32)).to_vec();
        let plant = plant_of("", tags);
        assert!(plant.session.lay_out(&plant.view()).notices[0].contains("differ in case only"), "people are told");
        for said in conversation("").of(Kind::DBirth) {
            let lower: std::collections::HashSet<String> = said.names().iter().map(|name| name.to_lowercase()).collect();
            assert_eq!(lower.len(), said.names().len());
        }
    }
    tck_id_topics_nbirth_topic: { assert!(is_of(&conversation(""), Kind::NBirth)); }
    tck_id_topics_nbirth_mqtt: { each(&conversation(""), Kind::NBirth, is_plain); }
    tck_id_topics_nbirth_seq_num: { each(&conversation(""), Kind::NBirth, |said| said.payload.seq == Some(0)); }
    tck_id_topics_nbirth_timestamp: { each(&conversation(""), Kind::NBirth, is_timed); }
    tck_id_topics_nbirth_metric_reqs: { are_born(&conversation(""), Kind::NBirth, Kind::NData); }
    tck_id_topics_nbirth_metrics: {
        each(&conversation(""), Kind::NBirth, |said| {
            said.payload.metrics.iter().all(|m| !m.name().is_empty() && m.datatype.is_some() && has_value_or_is_null(m))
        });
    }
    tck_id_topics_nbirth_templates: {
        let plant = templates();
        each(&plant, Kind::NBirth, |said| said.names().contains(&"Pair"));
        assert!(instances().iter().all(|(_, instance)| instance.template_ref() == "Pair"));
    }
    tck_id_topics_nbirth_bdseq_included: { each(&conversation(""), Kind::NBirth, |said| said.names().contains(&"bdSeq")); }
    tck_id_topics_nbirth_bdseq_matching: {
        let plant = conversation("");
        each(&plant, Kind::NBirth, |said| bd_seq(&said.payload) == bd_seq(&will(&plant)));
    }
    tck_id_topics_nbirth_bdseq_increment: {
        // The number itself is counted, and kept, by bd_seq.rs.
        let folder = tempfile::tempdir().unwrap();
        let mut numbers = crate::sinks::mqtt::sparkplug::BdSeq::open(folder.path());
        let mut plant = plant("");
        for wanted in (0..=255).chain([0, 1]) {
            plant.session.connecting(numbers.next(), at(0));
            let birth = plant.birth();
            assert_eq!(bd_seq(&plant.said[birth].payload), wanted);
        }
    }
    tck_id_topics_nbirth_rebirth_metric: {
        each(&conversation("commands = 'none'"), Kind::NBirth, |said| {
            let metric = said.metric("Node Control/Rebirth");
            (metric.datatype, &metric.value) == (Some(Type::Boolean as u32), &Some(wire::Value::BooleanValue(false)))
        });
    }
    tck_id_topics_ndata_topic: { assert!(is_of(&conversation(""), Kind::NData)); }
    tck_id_topics_ndata_mqtt: { each(&conversation(""), Kind::NData, is_plain); }
    tck_id_topics_ndata_seq_num: { counts_on(&conversation(""), Kind::NData); }
    tck_id_topics_ndata_timestamp: { each(&conversation(""), Kind::NData, is_timed); }
    tck_id_topics_ndata_payload: {
        let mut plant = plant("");
        plant.connect();
        plant.birth();
        let samples = [plant.sample("alone", 1), plant.sample("system/load", 0)];
        let from = plant.live(&samples);
        assert_eq!(plant.shown(from), ["NDATA alone=true"]);
    }
    tck_id_topics_ndeath_topic: {
        let plant = conversation("");
        assert!(is_of(&plant, Kind::NDeath) && plant.will.unwrap().topic == "spBv1.0/G/NDEATH/N");
    }
    tck_id_topics_ndeath_payload: {
        let plant = conversation("");
        each(&plant, Kind::NDeath, |said| said.names() == ["bdSeq"]);
        assert_eq!(will(&plant).metrics.len(), 1);
    }
    tck_id_topics_ndeath_seq: {
        let plant = conversation("");
        each(&plant, Kind::NDeath, |said| said.payload.seq.is_none());
        assert_eq!(will(&plant).seq, None);
    }
    tck_id_topics_ncmd_topic: { assert_eq!(plant("").session.filters(&[])[0], "spBv1.0/G/NCMD/N"); }
    tck_id_topics_dbirth_topic: { assert!(is_of(&conversation(""), Kind::DBirth)); }
    tck_id_topics_dbirth_mqtt: { each(&conversation(""), Kind::DBirth, is_plain); }
    tck_id_topics_dbirth_seq: { counts_on(&conversation(""), Kind::DBirth); }
    tck_id_topics_dbirth_timestamp: { each(&conversation(""), Kind::DBirth, is_timed); }
    tck_id_topics_dbirth_metric_reqs: { are_born(&conversation(""), Kind::DBirth, Kind::DData); }
    tck_id_topics_dbirth_metrics: {
        let plant = conversation("");
        each(&plant, Kind::DBirth, |said| {
            said.payload.metrics.iter().all(|m| !m.name().is_empty() && m.datatype.is_some() && has_value_or_is_null(m))
        });
        let births = plant.of(Kind::DBirth);
        assert_eq!(births.iter().rev().find(|said| said.device.as_deref() == Some("press")).unwrap().metric("new").is_null, Some(true));
    }
    tck_id_topics_ddata_topic: { assert!(is_of(&conversation(""), Kind::DData)); }
    tck_id_topics_ddata_mqtt: { each(&conversation(""), Kind::DData, is_plain); }
    tck_id_topics_ddata_seq_num: { counts_on(&conversation(""), Kind::DData); }
    tck_id_topics_ddata_timestamp: { each(&conversation(""), Kind::DData, is_timed); }
    tck_id_topics_ddata_payload: {
        let mut plant = plant("");
        plant.connect();
        plant.birth();
        let samples = [plant.sample("plc/a", 1), plant.sample("plc/set", 0), plant.sample("press/temp", 7)];
        let from = plant.live(&samples);
        assert_eq!(plant.shown(from), ["DDATA plc a=1", "DDATA press temp=7"]);
    }
    tck_id_topics_ddeath_topic: { assert!(is_of(&conversation(""), Kind::DDeath)); }
    tck_id_topics_ddeath_mqtt: { each(&conversation(""), Kind::DDeath, is_plain); }
    tck_id_topics_ddeath_seq_num: { counts_on(&conversation(""), Kind::DDeath); }
    tck_id_topics_dcmd_topic: {
        let plant = plant("");
        assert!(plant.session.filters(&plant.tags).contains(&"spBv1.0/G/DCMD/N/plc".to_owned()));
    }
}
