//! The line against a broker by script, over real TCP. Brokers that are none of ours: tests/peers.

use super::tls::Tls;
use super::*;
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const CONNACK_V311: &[u8] = &[0x20, 2, 0, 0];

/// One connection, from the broker's side.
struct Peer(TcpStream);

impl Peer {
    /// A packet: its first byte, and what follows the length.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.0.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut rest = vec![0; length];
        self.0.read_exact(&mut rest).await.ok()?;
        Some((first, rest))
    }

    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Takes the CONNECT and answers it.
    async fn accept(&mut self, connack: &[u8]) -> Vec<u8> {
        let (first, connect) = self.read().await.unwrap();
        assert_eq!(first, 0x10);
        self.write(connack).await;
        connect
    }
}

/// Dials a broker that does as `script` says.
async fn meet<F: Future<Output = ()> + Send + 'static>(
    toml: &str,
    script: impl FnOnce(Peer) -> F + Send + 'static,
) -> Result<Connection, ClientError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[allow(clippy::disallowed_methods, reason = "a test's peer")]
    tokio::spawn(async move { script(Peer(listener.accept().await.unwrap().0)).await });
    Rumqtt::default().dial(connect(&format!("broker = 'mqtt://127.0.0.1:{port}'\n{toml}"))).await
}

fn connect(toml: &str) -> Connect {
    let will = Message {
        topic: "will".into(),
        payload: vec![1].into(),
        qos: QoS::AtLeastOnce,
        retain: true,
        ..Message::default()
    };
    let config: crate::sinks::mqtt::Config = toml::from_str(toml).unwrap();
    let access = config.access(config.brokers()[0]);
    Connect { access, client_id: "G-N".into(), will: Some(will) }
}

fn message(topic: &str, qos: QoS) -> Message {
    Message { topic: topic.into(), payload: Bytes::from_static(b"x"), qos, ..Message::default() }
}

async fn refusal(toml: &str, answer: &'static [u8]) -> String {
    let outcome = meet(toml, async move |mut peer| {
        peer.accept(answer).await;
    });
    let error = outcome.await.err().unwrap().to_string();
    error.split_once(": ").unwrap().1.to_owned()
}

/// Whatever happens, it does not take long.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("no hang")
}

#[tokio::test]
async fn connect_says_what_sparkplug_asks_for() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let script = async move |mut peer: Peer| {
        sender.send(peer.accept(CONNACK).await).unwrap();
        peer.read().await;
    };
    meet("keep_alive = '7s'\nusername = 'u'", script).await.unwrap();
    let connect = receiver.await.unwrap();
    // Version 5; user name, will retain, will QoS 1, will, clean start; keep-alive.
    assert_eq!(connect[..10], [0, 4, b'M', b'Q', b'T', b'T', 5, 0xAE, 0, 7]);
    let properties = &connect[11..11 + usize::from(connect[10])];
    let wanted = [0x27, 0, 0x40, 0, 0];
    assert!(properties.windows(5).any(|window| window == wanted), "maximum packet size: {properties:?}");
    assert!(properties.windows(5).any(|window| window == [0x11, 0, 0, 0, 0]) || !properties.contains(&0x11));
}

#[tokio::test]
async fn the_old_version_by_configuration() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let script = async move |mut peer: Peer| {
        sender.send(peer.accept(CONNACK_V311).await).unwrap();
        let (first, publish) = peer.read().await.unwrap();
        assert_eq!((first, &publish[..]), (0x32, &[0, 1, b't', 0, 1, b'x'][..]), "no properties");
        peer.write(&[0x40, 2, 0, 1]).await;
        peer.write(&[0x31, 4, 0, 1, b'c', b'!']).await;
        assert_eq!(peer.read().await, Some((0xE0, vec![])));
    };
    let mut line = meet("protocol = '3.1.1'\nkeep_alive = '7s'\nusername = 'u'", script).await.unwrap();
    let mut message = message("t", QoS::AtLeastOnce);
    message.properties.content_type = Some("text/plain".into());
    line.publish(vec![message]).await.unwrap();
    let received = line.next().await.unwrap();
    assert_eq!((received.topic.as_str(), received.retain, &received.payload[..]), ("c", true, &b"!"[..]));
    line.disconnect_with_will().await.unwrap();
    assert_eq!(receiver.await.unwrap()[..10], [0, 4, b'M', b'Q', b'T', b'T', 4, 0xAE, 0, 7]);
}

#[tokio::test]
async fn properties_go_both_ways() {
    let properties = Properties {
        content_type: Some("application/json".into()),
        response_topic: Some("answer/here".into()),
        correlation_data: Some(Bytes::from_static(b"\0\xFF")),
        user: vec![("camera".into(), "front".into()), ("camera".into(), "back".into())],
    };
    let echo = async move |mut peer: Peer| {
        peer.accept(CONNACK).await;
        let (first, mut publish) = peer.read().await.unwrap();
        assert_eq!(first, 0x31, "retained");
        publish.insert(0, u8::try_from(publish.len()).unwrap());
        publish.insert(0, first);
        peer.write(&publish).await;
        peer.read().await;
    };
    let mut line = meet("", echo).await.unwrap();
    let message = Message { retain: true, properties: properties.clone(), ..message("t", QoS::AtMostOnce) };
    line.publish(vec![message]).await.unwrap();
    let received = line.next().await.unwrap();
    assert_eq!((received.properties, received.retain), (properties, true));
}

#[tokio::test]
async fn a_batch_goes_out_in_order_without_waiting_for_each_answer() {
    let script = async |mut peer: Peer| {
        peer.accept(CONNACK).await;
        for round in 0..3 {
            let mut ids = Vec::new();
            // All that may be unacknowledged, before the first is acknowledged.
            for number in 0..64 {
                let (first, publish) = peer.read().await.unwrap();
                assert_eq!(first, 0x32);
                assert_eq!(publish[2..5], *format!("{:03}", round * 64 + number).as_bytes());
                ids.extend_from_slice(&publish[5..7]);
            }
            for id in ids.chunks(2) {
                // What comes in meanwhile waits.
                peer.write(&[0x30, 5, 0, 1, b'c', 0, b'!']).await;
                peer.write(&[0x40, 2, id[0], id[1]]).await;
            }
        }
        peer.read().await;
    };
    let mut line = meet("", script).await.unwrap();
    let messages = (0..192).map(|number| message(&format!("{number:03}"), QoS::AtLeastOnce)).collect();
    soon(line.publish(messages)).await.unwrap();
    for _ in 0..192 {
        assert_eq!(soon(line.next()).await.unwrap().topic, "c");
    }
}

#[tokio::test]
async fn a_message_that_is_refused_is_named_and_the_line_stays() {
    let script = async |mut peer: Peer| {
        // Takes packets of 100 bytes at most.
        peer.accept(&[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 100]).await;
        for reason in [0x87, 0x10] {
            let (_, publish) = peer.read().await.unwrap();
            peer.write(&[0x40, 3, publish[3], publish[4], reason]).await;
        }
        let (_, publish) = peer.read().await.unwrap();
        peer.write(&[0x40, 2, publish[3], publish[4]]).await;
        peer.read().await;
    };
    let mut line = meet("", script).await.unwrap();
    let batch = vec![message("a", QoS::AtLeastOnce), message("b", QoS::AtLeastOnce)];
    let error = line.publish(batch).await.unwrap_err().to_string();
    assert!(error.ends_with(" does not take a message to a: not authorised"), "{error}");
    let large = Message { payload: vec![0; 100].into(), ..message("large", QoS::AtLeastOnce) };
    let error = line.publish(vec![large]).await.unwrap_err().to_string();
    assert!(
        error.ends_with(" does not take a message to large: it has 118 bytes, and the broker takes 100"),
        "{error}"
    );
    line.publish(vec![message("c", QoS::AtLeastOnce)]).await.unwrap();
}

#[tokio::test]
async fn what_the_broker_may_take_later_is_lost_with_the_connection() {
    let script = async |mut peer: Peer| {
        peer.accept(&[0x20, 3, 0, 0, 0]).await;
        // The first for good, the second for now: its quota is exceeded.
        for reason in [0x87, 0x97] {
            let (_, publish) = peer.read().await.unwrap();
            peer.write(&[0x40, 3, publish[3], publish[4], reason]).await;
        }
        peer.read().await;
    };
    let mut line = meet("", script).await.unwrap();
    let error = line.publish(vec![message("a", QoS::AtLeastOnce), message("b", QoS::AtLeastOnce)]).await.unwrap_err();
    assert!(matches!(error, ClientError::Connection { .. }), "{error}");
    assert!(error.to_string().contains("does not take a message to b for now: quota exceeded"), "{error}");
}

#[tokio::test]
async fn filters_that_are_refused_are_named() {
    let script = async |mut peer: Peer| {
        peer.accept(CONNACK).await;
        let (first, subscribe) = peer.read().await.unwrap();
        assert_eq!(first, 0x82);
        peer.write(&[0x90, 5, subscribe[0], subscribe[1], 0, 0x01, 0x87]).await;
        peer.read().await;
    };
    let mut line = meet("", script).await.unwrap();
    let error = line.subscribe(vec!["a/#".into(), "b/#".into()]).await.unwrap_err().to_string();
    assert!(error.ends_with(" does not let this device subscribe to b/#: not authorised"), "{error}");
}

#[tokio::test]
async fn no_subscribe_has_more_filters_than_the_strictest_broker_takes() {
    for (toml, more) in [("", 1), ("protocol = '3.1.1'", 0)] {
        let script = async move |mut peer: Peer| {
            peer.accept(if more == 1 { CONNACK } else { CONNACK_V311 }).await;
            for count in [8, 8, 4] {
                let (first, subscribe) = peer.read().await.unwrap();
                // Packet id, properties; each is two bytes of length, `f`, and its options.
                assert_eq!((first, subscribe.len()), (0x82, 2 + usize::from(more) + 4 * usize::from(count)));
                let mut suback = vec![0x90, 2 + more + count, subscribe[0], subscribe[1]];
                suback.resize(4 + usize::from(more), 0);
                suback.resize(suback.len() + usize::from(count), 1);
                peer.write(&suback).await;
            }
            peer.read().await;
        };
        let mut line = meet(toml, script).await.unwrap();
        soon(line.subscribe(vec!["f".into(); 20])).await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_answers_no_unsubscribe_is_probed_by_what_it_answers() {
    for (toml, options) in [("", 0x21), ("protocol = '3.1.1'", 0x01)] {
        let is_new = toml.is_empty();
        let script = async move |mut peer: Peer| {
            peer.accept(if is_new { CONNACK } else { CONNACK_V311 }).await;
            for wanted in [1, options] {
                let (first, subscribe) = peer.read().await.unwrap();
                assert_eq!((first, subscribe.last()), (0x82, Some(&wanted)), "the second time nothing retained");
                assert!(subscribe.ends_with(&[0, 3, b'a', b'/', b'b', wanted]));
                let answer: &[u8] = if is_new { &[0x90, 4, 0, 0, 0, 1] } else { &[0x90, 3, 0, 0, 1] };
                let mut answer = answer.to_vec();
                answer[2..4].copy_from_slice(&subscribe[..2]);
                peer.write(&answer).await;
            }
            peer.read().await;
        };
        let mut line = meet(toml, script).await.unwrap();
        line.subscribe(vec!["a/b".into()]).await.unwrap();
        soon(line.probe()).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_broker_says_that_it_does_not_take_is_not_sent_to_it() {
    assert_eq!(refusal("", &[0x20, 5, 0, 0, 2, 0x24, 0]).await, NO_QOS);
    assert_eq!(refusal("", &[0x20, 5, 0, 0, 2, 0x25, 0]).await, NO_RETAIN);
}

#[tokio::test]
async fn an_end_after_a_large_message_says_how_large_it_was() {
    for (size, is_told) in [(30_000, true), (300, false)] {
        let script = async |mut peer: Peer| {
            peer.accept(CONNACK).await;
            peer.read().await;
        };
        let mut line = meet("", script).await.unwrap();
        let large = Message { payload: vec![0; size].into(), ..message("t", QoS::AtMostOnce) };
        line.publish(vec![large]).await.unwrap();
        let error = soon(line.next()).await.unwrap_err().to_string();
        assert_eq!(error.contains("after a message of 30014 bytes; perhaps"), is_told, "{error}");
    }
}

#[tokio::test]
async fn refusals_are_in_words() {
    for (answer, words) in [
        (&[0x20, 3, 0, 0x86, 0][..], "bad user name or password"),
        (&[0x20, 3, 0, 0x87, 0], NOT_AUTHORISED),
        (&[0x20, 3, 0, 0x85, 0], CLIENT_ID),
        (&[0x20, 3, 0, 0x88, 0], "the broker is not available"),
        (&[0x20, 3, 0, 0x8A, 0], "this client is banned"),
        (&[0x20, 3, 0, 0x84, 0], OLD_BROKER),
        (&[0x20, 3, 0, 0x97, 0], "quota exceeded"),
        (&[0x20, 9, 0, 0x9C, 6, 0x1C, 0, 3, b'b', b':', b'1'], "another broker is to be used; it names \"b:1\""),
        (
            &[0x20, 8, 0, 0x87, 5, 0x1F, 0, 2, b'n', b'o'],
            "not authorised; many brokers say so of a wrong user name or password, too; it says \"no\"",
        ),
        // Of a broker that is older than MQTT 5.
        (&[0x20, 2, 0, 1], OLD_BROKER),
    ] {
        assert_eq!(refusal("", answer).await, words, "{answer:?}");
    }
    for (code, words) in [
        (1, "it does not speak MQTT 3.1.1"),
        (2, CLIENT_ID),
        (3, "the broker is not available"),
        (4, "bad user name or password"),
        (5, NOT_AUTHORISED),
    ] {
        let answer: &'static [u8] = Box::leak(Box::new([0x20, 2, 0, code]));
        assert_eq!(refusal("protocol = '3.1.1'", answer).await, words, "{code}");
    }
}

#[tokio::test]
async fn what_is_no_broker_of_this_version_is_said() {
    let hint = "before it said anything; if it wants TLS on this port, write mqtts://";
    let version = "; if it does not speak MQTT 5, set protocol = \"3.1.1\"";
    assert!(refusal("", &[]).await.ends_with(&format!("{hint}{version}")));
    assert!(refusal("protocol = '3.1.1'", &[]).await.ends_with(hint));
    assert!(refusal("", b"HTTP/1.1 400 Bad Request\r\n").await.contains("does not speak MQTT ("));
    assert!(refusal("", &[0x15, 3, 3, 0, 2, 2, 22]).await.ends_with("speaks TLS on this port: write mqtts://"));
}

#[tokio::test]
async fn a_disconnect_by_the_broker_says_why() {
    let script = async |mut peer: Peer| {
        peer.accept(CONNACK).await;
        peer.write(&[0xE0, 2, 0x8E, 0]).await;
        peer.read().await;
    };
    let mut line = meet("", script).await.unwrap();
    let error = line.next().await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("the broker ended the connection: {TAKEN_OVER}")), "{error}");
    let again = line.publish(vec![message("t", QoS::AtMostOnce)]).await.unwrap_err().to_string();
    assert_eq!(again, error, "it stays the reason");
}

#[tokio::test]
async fn a_broker_that_answers_nothing_is_given_up() {
    for toml in ["", "\nprotocol = '3.1.1'"] {
        let connack = if toml.is_empty() { CONNACK } else { CONNACK_V311 };
        let script = async move |mut peer: Peer| {
            peer.accept(connack).await;
            // Reads all, and answers pings, but acknowledges nothing.
            while let Some((first, _)) = peer.read().await {
                if first == 0xC0 {
                    peer.write(&[0xD0, 0]).await;
                }
            }
        };
        let mut line = meet(&format!("keep_alive = '1s'{toml}"), script).await.unwrap();
        let error = soon(line.publish(vec![message("t", QoS::AtLeastOnce)])).await.unwrap_err().to_string();
        assert!(error.ends_with("did not answer PUBLISH within 1.5s"), "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_takes_nothing_in_is_given_up_and_a_slow_one_is_not() {
    let script = async |mut peer: Peer| {
        peer.accept(CONNACK).await;
        std::future::pending().await
    };
    let large = || Message { payload: vec![0; 16 << 20].into(), ..message("t", QoS::AtMostOnce) };
    let mut line = meet("keep_alive = '1s'", script).await.unwrap();
    let error = soon(line.publish(vec![large()])).await.unwrap_err().to_string();
    assert!(error.ends_with("did not answer PUBLISH within 1.5s"), "{error}");

    let script = async |mut peer: Peer| {
        peer.accept(CONNACK).await;
        let mut chunk = vec![0; 1 << 20];
        // Four seconds, of which 1.5 s without a byte would be too much.
        while peer.0.read_exact(&mut chunk).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let mut line = meet("keep_alive = '1s'", script).await.unwrap();
    soon(line.publish(vec![large()])).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_messages_is_bounded_and_the_line_goes_on() {
    let script = async |mut peer: Peer| {
        peer.accept(CONNACK).await;
        peer.read().await.unwrap();
        // 64 MiB while nobody takes them.
        let mut flood = vec![0x30, 0x84, 0x80, 0x40, 0, 1, b'c', 0];
        flood.resize(8 + (1 << 20), 0);
        for _ in 0..64 {
            peer.write(&flood).await;
        }
        peer.write(&[0x40, 2, 0, 1]).await;
        peer.read().await;
    };
    let mut line = meet("", script).await.unwrap();
    soon(line.publish(vec![message("t", QoS::AtLeastOnce)])).await.unwrap();
    assert!(line.inbox_bytes.load(Ordering::Relaxed) <= WAITING_BYTES);
    let mut taken = 0;
    while tokio::time::timeout(Duration::from_millis(200), line.next()).await.is_ok() {
        taken += 1;
    }
    assert!((1..=WAITING_BYTES >> 20).contains(&taken), "{taken}");
    assert_eq!(line.inbox_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn packets_that_are_too_large_end_the_line_before_they_are_read() {
    for (toml, connack) in [("", CONNACK), ("protocol = '3.1.1'", CONNACK_V311)] {
        let script = async move |mut peer: Peer| {
            peer.accept(connack).await;
            peer.write(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b'c']).await;
            peer.read().await;
        };
        let mut line = meet(toml, script).await.unwrap();
        let error = soon(line.next()).await.unwrap_err().to_string();
        assert!(error.contains("the broker sent a packet of 268435"), "{error}");
    }
}

#[tokio::test]
async fn half_a_packet_is_not_waited_for_for_ever() {
    let script = async |mut peer: Peer| {
        peer.accept(CONNACK).await;
        peer.write(&[0x30, 100, 0, 1]).await;
        std::future::pending().await
    };
    let mut line = meet("keep_alive = '1s'", script).await.unwrap();
    let error = soon(line.next()).await.unwrap_err().to_string();
    assert!(error.ends_with("the broker does not answer"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_ends_the_line_or_is_ignored(
        before in any::<bool>(),
        is_old in any::<bool>(),
        first in any::<u8>(),
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let script = async move |mut peer: Peer| {
                let mut answer = match (before, is_old) {
                    (true, _) => Vec::new(),
                    (false, true) => CONNACK_V311.to_vec(),
                    (false, false) => CONNACK.to_vec(),
                };
                answer.push(first);
                // Half of the time a length that fits.
                if garbage.len().is_multiple_of(2) {
                    answer.push((garbage.len() % 128) as u8);
                }
                answer.extend_from_slice(&garbage);
                peer.accept(&answer).await;
                let _ = peer.0.shutdown().await;
            };
            if let Ok(mut line) = soon(meet(if is_old { "protocol = '3.1.1'" } else { "" }, script)).await {
                let _ = soon(line.publish(vec![message("t", QoS::AtLeastOnce)])).await;
                while soon(line.next()).await.is_ok() {}
            }
        });
    }
}

#[tokio::test]
async fn files_that_do_not_do_are_named_with_their_key() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let refused = |toml: String| Tls::new(&connect(&toml).access).err().unwrap().to_string();
    let text = file("text", "no PEM");
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = folder.path().join("missing").to_str().unwrap().to_owned();
    let tls = |key: &str, path: &str| refused(format!("broker = 'mqtts://b'\n{key} = '{path}'"));
    assert_eq!(tls("ca_file", &missing), format!("ca_file = {missing:?}: No such file or directory (os error 2)"));
    let error = tls("ca_file", &text);
    assert_eq!(error, format!("ca_file = {text:?}: no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
    assert!(tls("ca_file", &broken).starts_with(&format!("ca_file = {broken:?}: ")));
    let pair = |certificate: &str| {
        refused(format!("broker = 'mqtts://b'\nclient_cert_file = '{certificate}'\nclient_key_file = '{text}'"))
    };
    assert!(pair(&text).starts_with("client_cert_file = "));
    assert!(pair(&broken).starts_with("client_key_file = "), "{}", pair(&broken));
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error_with_its_address() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outcome = Rumqtt::default().dial(connect(&format!("broker = 'mqtt://127.0.0.1:{port}'"))).await;
    let error = outcome.err().map(|error| error.to_string()).unwrap();
    assert_eq!(error, format!("mqtt://127.0.0.1:{port}: Connection refused (os error 111)"));
}
