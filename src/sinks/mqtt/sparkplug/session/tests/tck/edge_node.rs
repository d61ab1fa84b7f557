//! Chapters 2 and 5: what an edge node does, and when.

use super::*;

fn rebirth_metric(said: &Said) -> &Metric {
    said.metric("Node Control/Rebirth")
}

/// What follows the request for a rebirth while values change.
fn after_a_request() -> Plant {
    let mut plant = plant("");
    plant.connect();
    plant.birth();
    assert_eq!(plant.rebirth(), [Ask::Birth]);
    plant.said.clear();
    for number in 1..5 {
        plant.set("plc/a", number);
        plant.set("system/load", number);
        plant.backlog(&[("plc/a", Sample::good(TagId(0), Value::Int32(-number), at(-100 + i64::from(number))))]);
    }
    plant
}

tck! {
    tck_id_principles_rbe_recommended: {
        let mut plant = plant("");
        plant.connect();
        plant.birth();
        for _ in 0..3 {
            let from = plant.set("plc/a", 0);
            assert_eq!(from, plant.said.len());
        }
    }
    tck_id_principles_birth_certificates_order: {
        let mut plant = waiting();
        plant.host(false, 1);
        plant.set("plc/a", 1);
        plant.lose("plc");
        plant.back("plc");
        plant.changed();
        plant.death();
        assert!(plant.said.is_empty(), "nothing before the birth, not even a death");
        plant.connect();
        plant.host(true, 2);
        plant.birth();
        assert_eq!(plant.said[0].kind, Kind::NBirth);
    }
    tck_id_message_flow_edge_node_ncmd_subscribe: {
        assert!(plant("commands = 'none'").session.filters(&[]).contains(&NCMD.to_owned()));
    }
    tck_id_message_flow_edge_node_birth_publish_connect: {
        let mut plant = plant("");
        assert!(!plant.session.is_born());
        let from = plant.changed();
        assert_eq!(from, plant.said.len());
        plant.connect();
        plant.birth();
        assert!(plant.session.is_born());
    }
    tck_id_message_flow_edge_node_birth_publish_will_message: { assert!(plant("").session.connecting(0, at(0)).is_some()); }
    tck_id_message_flow_edge_node_birth_publish_will_message_topic: {
        assert_eq!(conversation("").will.unwrap().topic, "spBv1.0/G/NDEATH/N");
    }
    tck_id_message_flow_edge_node_birth_publish_will_message_payload: { assert!(will(&conversation("")).timestamp.is_some()); }
    tck_id_message_flow_edge_node_birth_publish_will_message_payload_bdseq: {
        let mut plant = plant("");
        for number in [0, 1, 254, 255, 0] {
            plant.will = plant.session.connecting(number, at(0));
            assert_eq!(bd_seq(&will(&plant)), u64::from(number));
        }
    }
    tck_id_message_flow_edge_node_birth_publish_will_message_qos: { assert_eq!(conversation("").will.unwrap().qos, QoS::AtLeastOnce); }
    tck_id_message_flow_edge_node_birth_publish_will_message_will_retained: { assert!(!conversation("").will.unwrap().retain); }
    tck_id_message_flow_edge_node_birth_publish_phid_wait: {
        let mut plant = waiting();
        assert!(!plant.session.may_be_born());
        plant.host(true, 1);
        assert!(plant.session.may_be_born());
        assert!(plant_with("").session.may_be_born(), "without one nobody waits");
    }
    tck_id_message_flow_edge_node_birth_publish_phid_wait_id: {
        let mut plant = waiting();
        for other in ["spBv1.0/STATE/scada_WRONG", "spBv1.0/STATE/SCADA", "spBv1.0/STATE/x"] {
            plant.receive(other, br#"{"online":true,"timestamp":1}"#.to_vec(), true);
        }
        assert!(!plant.session.may_be_born());
    }
    tck_id_message_flow_edge_node_birth_publish_phid_wait_online: {
        let mut plant = waiting();
        assert!(is_leave(&plant.host(false, 1)));
        assert!(!plant.session.may_be_born());
    }
    tck_id_message_flow_edge_node_birth_publish_phid_wait_timestamp: {
        let mut plant = waiting();
        plant.host(false, 10);
        plant.host(true, 9);
        assert!(!plant.session.may_be_born());
        plant.connect();
        plant.host(true, 9);
        assert!(!plant.session.may_be_born(), "nor after another CONNECT");
        plant.host(true, 10);
        assert!(plant.session.may_be_born(), "as new is new enough");
    }
    tck_id_message_flow_edge_node_birth_publish_nbirth_topic: {
        each(&conversation(""), Kind::NBirth, |said| said.message.topic == "spBv1.0/G/NBIRTH/N");
    }
    tck_id_message_flow_edge_node_birth_publish_nbirth_payload: {
        each(&conversation(""), Kind::NBirth, |said| said.payload.encode_to_vec() == said.message.payload);
    }
    tck_id_message_flow_edge_node_birth_publish_nbirth_payload_bdseq: {
        let plant = conversation("");
        each(&plant, Kind::NBirth, |said| bd_seq(&said.payload) == u64::from(plant.bd_seq));
    }
    tck_id_message_flow_edge_node_birth_publish_nbirth_qos: { each(&conversation(""), Kind::NBirth, |said| said.message.qos == QoS::AtMostOnce); }
    tck_id_message_flow_edge_node_birth_publish_nbirth_retained: { each(&conversation(""), Kind::NBirth, |said| !said.message.retain); }
    tck_id_message_flow_edge_node_birth_publish_nbirth_payload_seq: {
        each(&conversation(""), Kind::NBirth, |said| said.payload.seq.is_some_and(|seq| seq <= 255));
    }
    tck_id_message_flow_edge_node_birth_publish_phid_offline: {
        let mut plant = waiting();
        plant.host(true, 10);
        plant.birth();
        assert!(is_leave(&plant.host(false, 10)));
        plant.death();
        assert_eq!(plant.said.last().unwrap().kind, Kind::NDeath);
    }
    tck_id_message_flow_device_dcmd_subscribe: {
        let plant = plant("");
        let filters = plant.session.filters(&plant.tags);
        assert!(filters.contains(&"spBv1.0/G/DCMD/N/plc".to_owned()), "{filters:?}");
    }
    tck_id_message_flow_device_birth_publish_nbirth_wait: {
        let plant = conversation("");
        let first = plant.said.iter().position(|said| said.kind == Kind::DBirth).unwrap();
        assert!(plant.said[..first].iter().any(|said| said.kind == Kind::NBirth));
        let mut unborn = plant_with("");
        unborn.connect();
        unborn.lose("plc");
        assert_eq!(unborn.back("plc"), unborn.said.len());
    }
    tck_id_message_flow_device_birth_publish_dbirth_topic: {
        each(&conversation(""), Kind::DBirth, |said| said.message.topic == format!("spBv1.0/G/DBIRTH/N/{}", said.device.as_deref().unwrap()));
    }
    tck_id_message_flow_device_birth_publish_dbirth_match_edge_node_topic: {
        let node: Vec<String> = conversation("").of(Kind::NBirth)[0].message.topic.split('/').map(str::to_owned).collect();
        each(&conversation(""), Kind::DBirth, |said| {
            let levels: Vec<&str> = said.message.topic.split('/').collect();
            (levels[1], levels[3]) == (node[1].as_str(), node[3].as_str())
        });
    }
    tck_id_message_flow_device_birth_publish_dbirth_payload: {
        each(&conversation(""), Kind::DBirth, |said| said.payload.encode_to_vec() == said.message.payload);
    }
    tck_id_message_flow_device_birth_publish_dbirth_qos: { each(&conversation(""), Kind::DBirth, |said| said.message.qos == QoS::AtMostOnce); }
    tck_id_message_flow_device_birth_publish_dbirth_retained: { each(&conversation(""), Kind::DBirth, |said| !said.message.retain); }
    tck_id_message_flow_device_birth_publish_dbirth_payload_seq: { counts_on(&conversation(""), Kind::DBirth); }
    tck_id_operational_behavior_edge_node_intentional_disconnect_ndeath: {
        let plant = conversation("");
        let last = plant.said.last().unwrap();
        assert_eq!((last.kind, last.cause), (Kind::NDeath, "death"));
    }
    tck_id_operational_behavior_edge_node_termination_host_offline: {
        let mut plant = waiting();
        plant.host(true, 10);
        plant.birth();
        assert!(is_leave(&plant.host(false, 11)));
        assert!(!plant.session.may_be_born());
    }
    tck_id_operational_behavior_edge_node_termination_host_offline_reconnect: {
        let mut plant = waiting();
        plant.host(true, 10);
        plant.birth();
        assert!(is_leave(&plant.host(false, 10)));
        plant.death();
        plant.session.dialing(&BrokerUrl::parse("mqtt://two").unwrap());
        plant.connect();
        assert!(!plant.session.may_be_born(), "the next broker's host has to be heard");
        plant.host(true, 3);
        let from = plant.birth();
        assert_eq!(plant.shown(from)[0], "NBIRTH");
    }
    tck_id_operational_behavior_edge_node_termination_host_offline_timestamp: {
        let mut plant = waiting();
        plant.host(true, 10);
        plant.birth();
        assert!(plant.host(false, 9).is_empty());
        assert!(plant.session.may_be_born() && plant.session.is_born());
    }
    tck_id_operational_behavior_device_ddeath: {
        let mut plant = plant("");
        plant.connect();
        plant.birth();
        let from = plant.lose("plc");
        assert_eq!(plant.shown(from), ["DDEATH plc"]);
        let from = plant.death();
        assert_eq!(plant.shown(from), ["DDEATH line1", "DDEATH press", "NDEATH"]);
    }
    tck_id_operational_behavior_primary_application_state_with_multiple_servers_state_subs: {
        let filters = plant("primary_host = 'scada'").session.filters(&[]);
        assert!(filters.contains(&"spBv1.0/STATE/scada".to_owned()));
    }
    tck_id_operational_behavior_primary_application_state_with_multiple_servers_walk: {
        let mut plant = waiting();
        assert!(is_leave(&plant.host(false, 1)), "what a broker has retained counts as well");
    }
    tck_id_operational_behavior_edge_node_birth_sequence_wait: {
        let mut plant = waiting();
        plant.receive("spBv1.0/STATE/scada", b"ONLINE".to_vec(), true);
        assert!(!plant.session.may_be_born());
        plant.host(true, 0);
        assert!(plant.session.may_be_born());
    }
    tck_id_operational_behavior_data_publish_nbirth: { are_born(&conversation("aliases = false"), Kind::NBirth, Kind::NData); }
    tck_id_operational_behavior_data_publish_nbirth_values: {
        each(&conversation(""), Kind::NBirth, |said| said.payload.metrics.iter().all(has_value_or_is_null));
    }
    tck_id_operational_behavior_data_publish_nbirth_change: {
        let mut plant = plant("");
        plant.connect();
        plant.birth();
        let from = plant.set("system/load", 0);
        assert_eq!(from, plant.said.len());
        let from = plant.set("system/load", 1);
        assert_eq!(plant.shown(from), ["NDATA Properties/system/load=1"]);
    }
    tck_id_operational_behavior_data_publish_nbirth_order: {
        let mut plant = conversation("");
        each_of(&plant, &[Kind::NBirth, Kind::NData], is_in_order);
        plant.connect();
        plant.birth();
        let late = Sample { source_time: Some(at(1)), ..plant.sample("alone", 2) };
        let early = plant.sample("system/load", 1);
        let from = plant.live(&[early, late]);
        assert_eq!(plant.shown(from), ["NDATA alone=false Properties/system/load=1"]);
    }
    tck_id_operational_behavior_data_publish_dbirth: { are_born(&conversation(""), Kind::DBirth, Kind::DData); }
    tck_id_operational_behavior_data_publish_dbirth_values: {
        each(&conversation(""), Kind::DBirth, |said| said.payload.metrics.iter().all(has_value_or_is_null));
    }
    tck_id_operational_behavior_data_publish_dbirth_change: {
        let mut plant = plant("");
        plant.connect();
        plant.birth();
        let from = plant.set("plc/a", 0);
        assert_eq!(from, plant.said.len());
        let from = plant.set("plc/a", 1);
        assert_eq!(plant.shown(from), ["DDATA plc a=1"]);
    }
    tck_id_operational_behavior_data_publish_dbirth_order: {
        let mut plant = plant("");
        plant.sample("plc/a", 1);
        plant.connect();
        plant.birth();
        each(&plant, Kind::DBirth, is_in_order);
        let early = plant.sample("plc/a", 2);
        let late = Sample { source_time: Some(at(1)), ..plant.sample("plc/set", 1) };
        let from = plant.live(&[early, late]);
        assert_eq!(plant.shown(from), ["DDATA plc set=1 a=2"]);
    }
    tck_id_operational_behavior_data_commands_rebirth_name: {
        each(&conversation(""), Kind::NBirth, |said| said.names().contains(&"Node Control/Rebirth"));
    }
    tck_id_operational_behavior_data_commands_rebirth_name_aliases: {
        let plant = conversation("aliases = true");
        each(&plant, Kind::NBirth, |said| rebirth_metric(said).alias.is_none() && said.metric("alone").alias.is_some());
    }
    tck_id_operational_behavior_data_commands_rebirth_datatype: {
        each(&conversation(""), Kind::NBirth, |said| rebirth_metric(said).datatype == Some(Type::Boolean as u32));
    }
    tck_id_operational_behavior_data_commands_rebirth_value: {
        each(&conversation(""), Kind::NBirth, |said| rebirth_metric(said).value == Some(wire::Value::BooleanValue(false)));
    }
    tck_id_operational_behavior_data_commands_rebirth_action_1: { assert!(after_a_request().said.is_empty()); }
    tck_id_operational_behavior_data_commands_rebirth_action_2: {
        let mut plant = after_a_request();
        plant.birth();
        let shown = plant.shown(0);
        assert_eq!(shown[..4], ["NBIRTH", "DBIRTH line1", "DBIRTH plc", "DBIRTH press"]);
        let history = ["NDATA !Properties/system/load=1 !Properties/system/load=2 !Properties/system/load=3",
            "DDATA plc !a=-1 !a=-2 !a=-3 !a=-4 !a=1 !a=2 !a=3"];
        assert_eq!(shown[4..], history, "and what was between");
    }
    tck_id_operational_behavior_data_commands_rebirth_action_3: {
        let mut plant = after_a_request();
        plant.birth();
        assert_eq!(bd_seq(&plant.said[0].payload), bd_seq(&will(&plant)));
    }
}
