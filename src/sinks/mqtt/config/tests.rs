//! Keys, their defaults, and what is refused.

use super::*;

fn read(toml: &str) -> Result<Config, String> {
    toml::from_str(toml).map_err(|error| error.message().to_owned())
}

fn faults(toml: &str) -> Vec<(&'static str, String)> {
    read(toml).unwrap().validate()
}

#[test]
fn the_broker_alone_is_enough() {
    let config = read(r#"broker = "mqtt://broker""#).unwrap();
    assert_eq!(config.broker.as_ref().unwrap().to_string(), "mqtt://broker:1883");
    assert_eq!((config.group.as_str(), config.node.as_ref()), ("Vedette", None));
    assert_eq!((config.keep_alive, config.publish_interval), (Duration::from_secs(30), Duration::from_secs(1)));
    assert!(config.validate().is_empty());
}

#[test]
fn the_shipped_file_has_each_key_with_its_default() {
    let text = include_str!("../../../../config/vedette.toml");
    let table = text.split_once("#[mqtt]\n").unwrap().1.split("\n\n").next().unwrap();
    let keys = table.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
    let toml = keys.collect::<Vec<_>>().join("\n").replace("[mqtt.", "[");
    let shown = read(&toml).unwrap();
    let written: toml::Table = toml::from_str(&toml).unwrap();
    for key in [
        "broker brokers protocol format group node primary_host aliases template tags username password_file ca_file",
        "client_cert_file client_key_file keep_alive publish_interval backlog_rate commands json image_bytes image",
    ] {
        key.split(' ').for_each(|key| assert!(written.contains_key(key), "{key}"));
    }
    let default = read("").unwrap();
    let home_assistant = shown.json.home_assistant.clone();
    assert_eq!(shown.json, Json { home_assistant, ..default.json.clone() });
    let given = Config {
        broker: shown.broker.clone(),
        brokers: shown.brokers.clone(),
        node: shown.node.clone(),
        primary_host: shown.primary_host.clone(),
        template: shown.template.clone(),
        username: shown.username.clone(),
        password_file: shown.password_file.clone(),
        ca_file: shown.ca_file.clone(),
        client_cert_file: shown.client_cert_file.clone(),
        client_key_file: shown.client_key_file.clone(),
        json: shown.json.clone(),
        image: shown.image.clone(),
        ..default
    };
    assert_eq!(shown, given, "all else is what it is without being written");
    let image =
        toml::from_str("camera = 'line1'\ninterval = '10m'\non_change = 5.0\ntrigger = { tag = 'line1/stopped' }");
    assert_eq!(shown.image, [image.unwrap()]);
}

#[test]
fn what_keys_get_wrong_together_names_the_key() {
    fn keys(toml: &str) -> Vec<&'static str> {
        faults(toml).into_iter().map(|(key, _)| key).collect()
    }
    assert_eq!(keys("broker = 'mqtts://b'\nclient_cert_file = 'c'"), ["client_key_file"]);
    assert_eq!(keys("broker = 'mqtts://b'\nclient_key_file = 'c'"), ["client_cert_file"]);
    assert!(keys("broker = 'mqtts://b'\nclient_key_file = 'k'\nclient_cert_file = 'c'").is_empty());
    assert_eq!(keys("broker = 'mqtt://b'\nca_file = 'c'"), ["ca_file"]);
    for wrong in ["0s", "1500ms", "65536s"] {
        assert_eq!(keys(&format!("broker = 'mqtt://b'\nkeep_alive = '{wrong}'")), ["keep_alive"], "{wrong}");
    }
    for wrong in ["9ms", "2h"] {
        let toml = format!("broker = 'mqtt://b'\npublish_interval = '{wrong}'");
        assert_eq!(keys(&toml), ["publish_interval"], "{wrong}");
    }
    for (wrong, key, words) in [
        (
            "template = [{name = 'M', folders = ['a']}, {name = 'M', folders = ['b']}]",
            "template",
            "two templates \"M\"",
        ),
        ("image = [{camera = 'c'}]", "image", "c: it sends nothing"),
        ("image = [{camera = 'c', interval = '1s', max_bytes = '65MiB'}]", "image", "more than image_bytes"),
        ("protocol = '3.1.1'\npassword_file = 'p'", "password_file", "needs a username"),
    ] {
        let found = faults(&format!("broker = 'mqtt://b'\n{wrong}"));
        let [(at, message)] = &found[..] else { panic!("{wrong}: {found:?}") };
        assert!(*at == key && message.contains(words), "{wrong}: {message}");
    }
    assert!(keys("broker = 'mqtt://b'\npassword_file = 'p'").is_empty(), "MQTT 5 can");
    let (_, message) = &faults("broker = 'mqtt://b'\nca_file = 'c'")[0];
    assert_eq!(message, r#"ca_file has no effect without TLS: write broker = "mqtts://...""#);
}

#[test]
fn a_key_that_is_none_is_refused() {
    assert!(read("broker = 'mqtt://b'\nbrocker = 1").unwrap_err().contains("unknown field `brocker`"));
}
