//! Chapter 6: payloads.

use super::*;

fn types(metrics: &[&Metric]) -> Vec<u32> {
    metrics.iter().map(|metric| metric.datatype.expect("a type")).collect()
}

fn is_type(number: u32) -> bool {
    i32::try_from(number).is_ok_and(|number| number > 0 && Type::try_from(number).is_ok())
}

tck! {
    tck_id_payloads_timestamp_in_utc: { each_of(&conversation(""), &SEQUENCED, is_timed); }
    tck_id_payloads_sequence_num_always_included: { each_of(&conversation(""), &SEQUENCED, |said| said.payload.seq.is_some()); }
    tck_id_payloads_sequence_num_req_nbirth: {
        each(&conversation(""), Kind::NBirth, |said| said.payload.seq.is_some_and(|seq| seq <= 255));
    }
    tck_id_payloads_sequence_num_incrementing: {
        let plant = conversation("");
        let mut seqs = plant.said.iter().filter(|said| said.kind != Kind::NDeath);
        let mut wraps = 0;
        let mut before = seqs.next().unwrap().payload.seq();
        for said in seqs {
            let wanted = if said.kind == Kind::NBirth { 0 } else { (before + 1) % 256 };
            assert_eq!(said.payload.seq(), wanted);
            wraps += u32::from(before == 255);
            before = wanted;
        }
        assert!(wraps > 0, "it went over 255");
    }
    tck_id_payloads_name_requirement: {
        assert!(metrics(&conversation(""), &SEQUENCED[..4]).iter().all(|metric| !metric.name().is_empty() && metric.alias.is_none()));
    }
    tck_id_payloads_alias_uniqueness: {
        let mut plant = conversation(&format!("aliases = true\n{TEMPLATES}"));
        plant.add(spec("plc/pair1/a", DataType::Int32));
        plant.add(spec("press/pair2/a", DataType::Int32));
        plant.connect();
        let from = plant.birth();
        let births = plant.said[from..].iter().flat_map(|said| &said.payload.metrics);
        let aliases: Vec<u64> = births.filter_map(|metric| metric.alias).collect();
        let unique: std::collections::HashSet<&u64> = aliases.iter().collect();
        assert!(aliases.len() == 10 && unique.len() == 10, "{aliases:?}");
    }
    tck_id_payloads_alias_birth_requirement: {
        let plant = conversation("aliases = true");
        let births = metrics(&plant, &BIRTHS);
        assert!(births.iter().all(|metric| !metric.name().is_empty()));
        assert!(births.iter().filter(|metric| metric.alias.is_some()).count() > 10);
    }
    tck_id_payloads_alias_data_cmd_requirement: {
        let plant = conversation("aliases = true");
        assert!(metrics(&plant, &DATA).iter().all(|metric| metric.name.is_none() && metric.alias.is_some()), "also history");
        let plant = conversation("");
        assert!(metrics(&plant, &DATA).iter().all(|metric| metric.name.is_some() && metric.alias.is_none()));
        let mut aliased = plant_with("aliases = true");
        aliased.connect();
        aliased.birth();
        let set = Metric { name: None, alias: aliased.said[2].metric("set").alias, ..order("", wire::Value::IntValue(4)) };
        assert_eq!(aliased.command("spBv1.0/G/DCMD/N/plc", vec![set.clone()]), [Ask::Write(TagId(1), Value::Int32(4))]);
        assert!(matches!(aliased.command(NCMD, vec![set]).as_slice(), [Ask::Refused(_)]), "of another place");
    }
    tck_id_payloads_name_birth_data_requirement: {
        let plant = conversation("");
        assert!(metrics(&plant, &[Kind::NBirth, Kind::DBirth, Kind::NData, Kind::DData]).iter().all(|metric| metric.timestamp.is_some()));
        let members = instances().into_iter().chain(definitions()).flat_map(|(_, template)| template.metrics);
        assert!(members.into_iter().all(|member| member.timestamp.is_some()));
    }
    tck_id_payloads_name_cmd_requirement: {
        let mut plant = plant("");
        plant.connect();
        plant.birth();
        for timestamp in [None, Some(0), Some(u64::MAX)] {
            let metric = Metric { timestamp, ..order("set", wire::Value::IntValue(1)) };
            assert_eq!(plant.command("spBv1.0/G/DCMD/N/plc", vec![metric]), [Ask::Write(TagId(1), Value::Int32(1))]);
        }
    }
    tck_id_payloads_metric_timestamp_in_utc: {
        let mut plant = plant("");
        plant.connect();
        plant.birth();
        let time = at(123);
        let sample = Sample { source_time: Some(time), ..plant.sample("plc/a", 1) };
        let from = plant.live(&[sample]);
        assert_eq!(plant.said[from].metric("a").timestamp, Some(NOW as u64 + 123));
    }
    tck_id_payloads_metric_datatype_value_type: { assert!(!types(&metrics(&conversation(""), &BIRTHS)).is_empty()); }
    tck_id_payloads_metric_datatype_value: { assert!(types(&metrics(&conversation(""), &BIRTHS)).into_iter().all(is_type)); }
    tck_id_payloads_metric_datatype_req: { assert!(metrics(&conversation(""), &BIRTHS).iter().all(|metric| metric.datatype.is_some())); }
    tck_id_payloads_metric_datatype_not_req: {
        assert!(metrics(&conversation(""), &DATA).iter().all(|metric| metric.datatype.is_none()));
        let members = found_templates(&templates(), &[Kind::DData]).1.into_iter().flat_map(|(_, template)| template.metrics);
        assert!(members.into_iter().all(|member| member.datatype.is_none()));
    }
    tck_id_payloads_propertyset_keys_array_size: {
        let plant = conversation("");
        let sets: Vec<_> = plant.said.iter().flat_map(|said| &said.payload.metrics).filter_map(|metric| metric.properties.as_ref()).collect();
        assert!(sets.len() > 2 && sets.iter().all(|set| set.keys.len() == set.values.len()));
    }
    tck_id_payloads_propertyset_values_array_size: {
        for said in conversation("").said {
            for set in said.payload.metrics.iter().filter_map(|metric| metric.properties.as_ref()) {
                assert!(!set.values.is_empty() && set.values.len() == set.keys.len());
            }
        }
    }
    tck_id_payloads_metric_propertyvalue_type_type: { assert!(properties(&conversation("")).iter().all(|(_, datatype, _)| datatype.is_some())); }
    tck_id_payloads_metric_propertyvalue_type_value: {
        for (key, datatype, value) in properties(&conversation("")) {
            let fits = match value {
                property_value::Value::IntValue(_) => datatype == Some(Type::Int32 as u32),
                property_value::Value::DoubleValue(_) => datatype == Some(Type::Double as u32),
                property_value::Value::StringValue(_) => datatype == Some(Type::String as u32),
                _ => false,
            };
            assert!(fits, "{key}: {datatype:?} {value:?}");
        }
    }
    tck_id_payloads_metric_propertyvalue_type_req: {
        let plant = conversation("");
        let births = metrics(&plant, &BIRTHS);
        let sets: Vec<_> = births.iter().filter_map(|metric| metric.properties.as_ref()).collect();
        assert!(!sets.is_empty() && sets.iter().flat_map(|set| &set.values).all(|value| value.r#type.is_some()));
    }
    tck_id_payloads_propertyset_quality_value_type: {
        let plant = conversation("");
        let mut qualities = properties(&plant).into_iter().filter(|(key, ..)| *key == "Quality");
        assert!(qualities.all(|(_, datatype, _)| datatype == Some(3)));
    }
    tck_id_payloads_propertyset_quality_value_value: {
        let plant = conversation("");
        let all = properties(&plant).into_iter().filter(|(key, ..)| *key == "Quality").map(|(.., value)| match value {
            property_value::Value::IntValue(code) => *code,
            other => panic!("{other:?}"),
        });
        let codes: std::collections::BTreeSet<u32> = all.collect();
        assert_eq!(codes.into_iter().collect::<Vec<_>>(), [0, 192, 500]);
    }
    tck_id_payloads_template_definition_nbirth_only: {
        assert!(found_templates(&templates(), &[Kind::DBirth, Kind::DData]).0.is_empty());
        assert!(!found_templates(&templates(), &[Kind::NBirth]).0.is_empty());
    }
    tck_id_payloads_template_definition_is_definition: { assert!(definitions().iter().all(|(_, t)| t.is_definition == Some(true))); }
    tck_id_payloads_template_definition_ref: { assert!(definitions().iter().all(|(_, t)| t.template_ref.is_none())); }
    tck_id_payloads_template_definition_members: { assert!(definitions().iter().all(|(_, t)| names(t) == ["a", "b"])); }
    tck_id_payloads_template_definition_nbirth: {
        let known: Vec<String> = definitions().into_iter().map(|(name, _)| name).collect();
        assert!(instances().iter().all(|(_, t)| known.iter().any(|name| name == t.template_ref())));
        let plant = templates();
        let born = plant.said.iter().position(|said| said.kind == Kind::NBirth).unwrap();
        assert_eq!((born, plant.said[0].names()[0]), (0, "Pair"));
    }
    tck_id_payloads_template_instance_is_definition: { assert!(instances().iter().all(|(_, t)| t.is_definition == Some(false))); }
    tck_id_payloads_template_instance_ref: { assert!(instances().iter().all(|(_, t)| t.template_ref.as_deref() == Some("Pair"))); }
    tck_id_payloads_template_instance_members: {
        assert!(instances().iter().all(|(_, t)| names(t).iter().all(|name| ["a", "b"].contains(name))));
    }
    tck_id_payloads_template_instance_members_birth: {
        let born = found_templates(&templates(), &[Kind::DBirth]).1;
        assert!(born.len() == 6 && born.iter().all(|(_, t)| names(t) == ["a", "b"]));
    }
    tck_id_payloads_template_instance_members_data: {
        let data = found_templates(&templates(), &[Kind::DData]).1;
        assert!(data.len() == 6 && data.iter().all(|(_, t)| t.metrics.len() == 1));
    }
    tck_id_payloads_template_ref_definition: { assert!(definitions().iter().all(|(_, t)| t.template_ref().is_empty())); }
    tck_id_payloads_template_ref_instance: { assert!(instances().iter().all(|(_, t)| t.template_ref() == definitions()[0].0)); }
    tck_id_payloads_template_is_definition: {
        assert!(definitions().iter().chain(&instances()).all(|(_, t)| t.is_definition.is_some()));
    }
    tck_id_payloads_template_is_definition_definition: { assert!(definitions().iter().all(|(name, t)| name == "Pair" && t.is_definition())); }
    tck_id_payloads_template_is_definition_instance: { assert!(instances().iter().all(|(name, t)| name != "Pair" && !t.is_definition())); }
    tck_id_payloads_nbirth_timestamp: { each(&conversation(""), Kind::NBirth, is_timed); }
    tck_id_payloads_nbirth_edge_node_descriptor: {
        let plant = conversation("");
        let topics: std::collections::HashSet<&str> = plant.of(Kind::NBirth).iter().map(|said| said.message.topic.as_str()).collect();
        assert_eq!(topics.len(), 1, "one descriptor for the session");
    }
    tck_id_payloads_nbirth_seq: { each(&conversation(""), Kind::NBirth, |said| said.payload.seq == Some(0)); }
    tck_id_payloads_nbirth_bdseq: { each(&conversation(""), Kind::NBirth, |said| bd_seq(&said.payload) <= 255); }
    tck_id_payloads_nbirth_bdseq_repeat: {
        let plant = conversation("");
        assert!(plant.of(Kind::NBirth).len() > 1);
        each(&plant, Kind::NBirth, |said| bd_seq(&said.payload) == bd_seq(&will(&plant)));
    }
    tck_id_payloads_nbirth_rebirth_req: {
        each(&conversation(""), Kind::NBirth, |said| said.metric("Node Control/Rebirth").value == Some(wire::Value::BooleanValue(false)));
    }
    tck_id_payloads_nbirth_qos: { each(&conversation(""), Kind::NBirth, |said| said.message.qos == QoS::AtMostOnce); }
    tck_id_payloads_nbirth_retain: { each(&conversation(""), Kind::NBirth, |said| !said.message.retain); }
    tck_id_payloads_dbirth_timestamp: { each(&conversation(""), Kind::DBirth, is_timed); }
    tck_id_payloads_dbirth_seq: { each(&conversation(""), Kind::DBirth, |said| said.payload.seq.is_some()); }
    tck_id_payloads_dbirth_seq_inc: { counts_on(&conversation(""), Kind::DBirth); }
    tck_id_payloads_dbirth_order: {
        let plant = conversation("");
        for (at, _) in plant.said.iter().enumerate().filter(|(_, said)| said.kind == Kind::NBirth) {
            let kinds: Vec<Kind> = plant.said[at + 1..at + 4].iter().map(|said| said.kind).collect();
            assert_eq!(kinds, [Kind::DBirth; 3]);
        }
    }
    tck_id_payloads_dbirth_qos: { each(&conversation(""), Kind::DBirth, |said| said.message.qos == QoS::AtMostOnce); }
    tck_id_payloads_dbirth_retain: { each(&conversation(""), Kind::DBirth, |said| !said.message.retain); }
    tck_id_payloads_ndata_timestamp: { each(&conversation(""), Kind::NData, is_timed); }
    tck_id_payloads_ndata_seq: { each(&conversation(""), Kind::NData, |said| said.payload.seq.is_some()); }
    tck_id_payloads_ndata_seq_inc: { counts_on(&conversation(""), Kind::NData); }
    tck_id_payloads_ndata_order: {
        let plant = conversation("");
        let first = plant.said.iter().position(|said| said.kind == Kind::NData).unwrap();
        assert_eq!(plant.shown(0)[..4], ["NBIRTH", "DBIRTH line1", "DBIRTH plc", "DBIRTH press"]);
        assert!(first >= 4);
    }
    tck_id_payloads_ndata_qos: { each(&conversation(""), Kind::NData, |said| said.message.qos == QoS::AtMostOnce); }
    tck_id_payloads_ndata_retain: { each(&conversation(""), Kind::NData, |said| !said.message.retain); }
    tck_id_payloads_ddata_timestamp: { each(&conversation(""), Kind::DData, is_timed); }
    tck_id_payloads_ddata_seq: { each(&conversation(""), Kind::DData, |said| said.payload.seq.is_some()); }
    tck_id_payloads_ddata_seq_inc: { counts_on(&conversation(""), Kind::DData); }
    tck_id_payloads_ddata_order: {
        let plant = conversation("");
        let births: Vec<usize> = plant.said.iter().enumerate().filter(|(_, said)| said.kind == Kind::NBirth).map(|(at, _)| at).collect();
        assert!(births.len() > 1);
        for at in births {
            assert!(plant.said[at + 1..at + 4].iter().all(|said| said.kind != Kind::DData));
        }
    }
    tck_id_payloads_ddata_qos: { each(&conversation(""), Kind::DData, |said| said.message.qos == QoS::AtMostOnce); }
    tck_id_payloads_ddata_retain: { each(&conversation(""), Kind::DData, |said| !said.message.retain); }
    tck_id_payloads_ndeath_seq: { assert!(will(&conversation("")).seq.is_none()); each(&conversation(""), Kind::NDeath, |said| said.payload.seq.is_none()); }
    tck_id_payloads_ndeath_will_message: { assert!(conversation("").will.unwrap().topic.contains("/NDEATH/")); }
    tck_id_payloads_ndeath_will_message_qos: { assert_eq!(conversation("").will.unwrap().qos, QoS::AtLeastOnce); }
    tck_id_payloads_ndeath_will_message_retain: { assert!(!conversation("").will.unwrap().retain); }
    tck_id_payloads_ndeath_bdseq: {
        let plant = conversation("");
        let birth = bd_seq(&plant.of(Kind::NBirth)[0].payload);
        assert_eq!((bd_seq(&will(&plant)), bd_seq(&plant.of(Kind::NDeath)[0].payload)), (birth, birth));
    }
    tck_id_payloads_ndeath_will_message_publisher: { assert_eq!(conversation("").said.last().unwrap().kind, Kind::NDeath); }
    tck_id_payloads_ddeath_timestamp: { each(&conversation(""), Kind::DDeath, is_timed); }
    tck_id_payloads_ddeath_seq: { each(&conversation(""), Kind::DDeath, |said| said.payload.seq.is_some()); }
    tck_id_payloads_ddeath_seq_inc: { counts_on(&conversation(""), Kind::DDeath); }
    tck_id_payloads_ddeath_seq_number: { each(&conversation(""), Kind::DDeath, |said| said.payload.seq.is_some_and(|seq| seq <= 255)); }
}
