//! With a primary host. (What the specification says of it is in `tck`.)

use super::*;

fn waiting() -> Plant {
    let mut plant = plant("primary_host = 'scada'");
    plant.session.dialing(&BrokerUrl::parse("mqtt://one").unwrap());
    plant.connect();
    plant
}

#[test]
fn garbage_and_other_hosts_are_ignored() {
    let mut plant = waiting();
    for garbage in ["", "ONLINE", r#"{"online":true}"#, r#"{"online":"true","timestamp":5}"#] {
        let asks = plant.receive("spBv1.0/STATE/scada", garbage.into(), true);
        assert!(matches!(asks.as_slice(), [Ask::Refused(_)]), "{garbage}");
    }
    let online = br#"{"online":true,"timestamp":5}"#;
    for other in ["spBv1.0/STATE/other", "STATE/scada", "spBv1.0/STATE/scada/x"] {
        assert!(plant.receive(other, online.to_vec(), true).is_empty());
    }
    assert!(!plant.session.may_be_born());
    assert!(plant.host(true, 5).is_empty());
    assert!(plant.session.may_be_born());
}

#[test]
fn each_connection_waits_again_and_remembers_the_times_of_its_broker() {
    let mut plant = waiting();
    plant.host(true, 100);
    assert!(plant.session.may_be_born());
    plant.session.dialing(&BrokerUrl::parse("mqtt://two").unwrap());
    plant.connect();
    assert!(!plant.session.may_be_born());
    plant.host(true, 90);
    assert!(plant.session.may_be_born(), "the host's session with this broker is another");
    plant.session.dialing(&BrokerUrl::parse("mqtt://one").unwrap());
    plant.connect();
    plant.host(true, 99);
    assert!(!plant.session.may_be_born(), "older than what was heard there");
}

#[test]
fn without_a_birth_there_is_nothing_to_say_but_the_will() {
    let mut plant = waiting();
    assert!(matches!(plant.host(false, 5).as_slice(), [Ask::Leave(_)]));
    assert_eq!(plant.death(), plant.said.len(), "the birth has to be the first message");
}
