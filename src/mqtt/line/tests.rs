use super::*;
use std::path::Path;

fn connect(toml: &str) -> Connect {
    let will = Message { topic: "will".into(), payload: vec![1].into(), qos: QoS::AtLeastOnce, ..Message::default() };
    let config: crate::sinks::mqtt::Config = toml::from_str(toml).unwrap();
    let access = config.access(config.brokers()[0]);
    Connect { access, client_id: "G-N".into(), will: Some(will) }
}

fn refused(toml: &str) -> String {
    options(connect(toml)).err().map(|error| error.to_string()).unwrap()
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn connect_says_what_sparkplug_asks_for() {
    let options = options(connect("broker = 'mqtt://b'\nkeep_alive = '7s'\nusername = 'u'")).unwrap();
    assert!(options.clean_start());
    assert_eq!(options.session_expiry_interval(), Some(0));
    assert_eq!(options.keep_alive(), Duration::from_secs(7));
    assert_eq!(options.max_packet_size(), Some(INCOMING));
    let will = options.last_will().unwrap();
    assert_eq!((will.qos, will.retain), (rumqttc::QoS::AtLeastOnce, false));
}

#[test]
fn the_password_is_the_first_line_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    for content in ["secret", "secret\n", "secret\r\nand a note\n"] {
        let path = file(folder.path(), "password", content);
        let options =
            options(connect(&format!("broker = 'mqtt://b'\nusername = 'u'\npassword_file = '{path}'"))).unwrap();
        let wanted =
            rumqttc::ConnectAuth::UsernamePassword { username: "u".into(), password: Bytes::from_static(b"secret") };
        assert_eq!(options.auth(), &wanted);
    }
}

#[test]
fn files_that_do_not_do_are_named_with_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let text = file(folder.path(), "text", "no PEM");
    let broken = file(folder.path(), "broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = folder.path().join("missing").to_str().unwrap().to_owned();
    let tls = |key: &str, path: &str| refused(&format!("broker = 'mqtts://b'\n{key} = '{path}'"));
    let error = tls("ca_file", &missing);
    assert_eq!(error, format!("ca_file = {missing:?}: No such file or directory (os error 2)"));
    assert_eq!(tls("password_file", &missing), error.replace("ca_file", "password_file"));
    let error = tls("ca_file", &text);
    assert_eq!(error, format!("ca_file = {text:?}: no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
    assert!(tls("ca_file", &broken).starts_with(&format!("ca_file = {broken:?}: ")));
    let pair = format!("broker = 'mqtts://b'\nclient_cert_file = '{text}'\nclient_key_file = '{text}'");
    assert!(refused(&pair).starts_with("client_cert_file = "));
    let pair = format!("broker = 'mqtts://b'\nclient_cert_file = '{broken}'\nclient_key_file = '{text}'");
    assert!(refused(&pair).starts_with("client_key_file = "), "{}", refused(&pair));
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error_with_its_address() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outcome = Rumqtt::default().dial(connect(&format!("broker = 'mqtt://127.0.0.1:{port}'"))).await;
    let error = outcome.err().map(|error| error.to_string()).unwrap();
    assert_eq!(error, format!("mqtt://127.0.0.1:{port}: Connection refused (os error 111)"));
}
