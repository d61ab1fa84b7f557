//! Commands as a person at the other end sees them.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::base::Clock;
use crate::hub::Registration;
use crate::model::{DataType, Happening, Sample, TagName, TagSpec, Value};
use crate::mqtt::line::{Properties, QoS};
use serde_json::json;
use std::time::{Duration, UNIX_EPOCH};

const BASE: &str = "vedette/G/n";

struct Pictures;

#[async_trait]
impl TakePicture for Pictures {
    async fn take(&self, camera: &str, max_bytes: Option<u64>) -> Result<Snapshot, String> {
        if camera == "slow" {
            std::future::pending::<()>().await;
        }
        if camera != "line1" {
            return Err(format!("there is no camera {camera:?}"));
        }
        let payload = vec![7; max_bytes.unwrap_or(10_000) as usize].into();
        let message = Message { topic: format!("{BASE}/image/line1"), payload, ..Message::default() };
        Ok(Snapshot { message, captured: Timestamp::UNIX_EPOCH })
    }
}

struct Desk {
    hub: Hub,
    commands: Commands,
    demo: Registration,
}

impl Desk {
    fn open(limit: Option<Role>) -> Self {
        let hub = Hub::new(Clock::simulated(UNIX_EPOCH + Duration::from_secs(1_795_232_569)));
        let spec = |name: &str| TagSpec::new(TagName::new(name).unwrap(), DataType::Double).unit("°C");
        let demo = hub.register("demo", vec![spec("demo/sine"), spec("demo/set_point").writable()]).unwrap();
        hub.publish(vec![Sample::good(demo.tags()[0], Value::Double(0.5), hub.now())]);
        let commands = Commands::new(limit, BASE.into(), hub.clone(), Arc::new(Pictures));
        Self { hub, commands, demo }
    }

    fn send(&mut self, role: &str, payload: impl Into<Vec<u8>>) {
        self.send_with(role, payload, Properties::default());
    }

    fn send_with(&mut self, role: &str, payload: impl Into<Vec<u8>>, properties: Properties) {
        let topic = format!("{BASE}/command/{role}");
        assert!(self.commands.take(&Received { topic, payload: payload.into().into(), retain: false, properties }));
    }

    fn ask(&mut self, role: &str, id: &str, command: &str, args: Json) {
        self.send(role, json!({"id": id, "command": command, "args": args}).to_string());
    }

    async fn message(&mut self) -> Message {
        match tokio::time::timeout(Duration::from_secs(600), self.commands.next()).await.unwrap() {
            Out::Send(letter) => letter.message,
            Out::Ask(ask) => panic!("asks {ask:?}"),
        }
    }

    async fn answer(&mut self) -> Json {
        let message = self.message().await;
        assert!(message.qos == QoS::AtLeastOnce && !message.retain);
        let answer: Json = serde_json::from_slice(&message.payload).unwrap();
        let (above, id) = message.topic.rsplit_once('/').unwrap();
        assert_eq!(id, answer["id"]);
        assert!(["viewer", "operator", "admin"].contains(&above.strip_prefix(&format!("{BASE}/answer/")).unwrap()));
        answer
    }

    /// The last of two answers, of which the first one is `accepted`.
    async fn end(&mut self) -> Json {
        let accepted = self.answer().await;
        assert_eq!(accepted["state"], "accepted", "{accepted}");
        self.answer().await
    }

    async fn failed(&mut self, words: &str) {
        let answer = self.answer().await;
        assert_eq!(answer["state"], "failed", "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains(words), "{answer}");
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(1), self.commands.next()).await.is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn who_looks_gets_accepted_and_then_what_there_is() {
    let mut desk = Desk::open(Some(Role::Viewer));
    assert_eq!(desk.commands.filters(), ["vedette/G/n/command/+"]);
    desk.ask("viewer", "1", "read", json!({"tags": ["demo/sine", "demo/set_point"]}));
    let done = desk.end().await;
    assert_eq!(
        (&done["command"], &done["state"], &done["time"]),
        (&json!("read"), &json!("done"), &json!("2026-11-21T03:42:49.000Z"))
    );
    let row = json!({"name": "demo/sine", "value": 0.5, "quality": "Good", "time": "2026-11-21T03:42:49.000Z"});
    assert_eq!(done["result"][0], row);
    assert_eq!(done["result"][1]["quality"], "BadWaitingForInitialData");

    desk.ask("viewer", "2", "list", json!({"pattern": "demo/s*e"}));
    let rows = desk.end().await["result"].clone();
    let row = &rows[0];
    assert_eq!((rows.as_array().unwrap().len(), &row["type"], &row["unit"]), (1, &json!("Double"), &json!("°C")));
    assert_eq!(row["writable"], false);

    desk.hub.source_lost("plc", "no route to host");
    desk.ask("viewer", "3", "status", json!({}));
    let status = desk.end().await["result"].clone();
    assert_eq!(
        (&status["version"], &status["lost_sources"]["plc"]),
        (&json!(env!("CARGO_PKG_VERSION")), &json!("no route to host"))
    );

    desk.ask("viewer", "4", "log", json!({"lines": 1}));
    assert!(desk.end().await["result"].is_array());
    desk.ask("viewer", "5", "read", json!({"tags": ["demo/sinus"]}));
    assert!(desk.end().await["reason"].as_str().unwrap().contains("no tag demo/sinus"));
    assert!(
        desk.hub
            .recent()
            .iter()
            .all(|one| !matches!(one, Happening::Event(event) if event.kind == EventKind::CommandTaken))
    );
}

#[tokio::test(start_paused = true)]
async fn a_picture_goes_before_the_end_of_its_command() {
    let mut desk = Desk::open(Some(Role::Viewer));
    desk.ask("viewer", "1", "snapshot", json!({"camera": "line1", "max_bytes": 5000}));
    assert_eq!(desk.answer().await["state"], "accepted");
    let picture = desk.message().await;
    assert_eq!((picture.topic.as_str(), picture.payload.len()), ("vedette/G/n/image/line1", 5000));
    let done = desk.answer().await;
    assert_eq!(done["result"], json!({"topic": picture.topic, "bytes": 5000, "captured": "1970-01-01T00:00:00.000Z"}));
    desk.ask("viewer", "2", "snapshot", json!({"camera": "line2"}));
    assert!(desk.end().await["reason"].as_str().unwrap().contains("no camera \"line2\""));
}

#[tokio::test(start_paused = true)]
async fn a_write_is_answered_by_the_source_and_written_down() {
    let mut desk = Desk::open(Some(Role::Operator));
    desk.ask("operator", "1", "write", json!({"tag": "demo/set_point", "value": 7}));
    assert_eq!(desk.answer().await["state"], "accepted");
    let Desk { commands, demo, .. } = &mut desk;
    let owner = async {
        let request = demo.next_write().await;
        assert_eq!(request.value, Value::Double(7.0));
        request.reply.send(Ok(())).unwrap();
    };
    let (Out::Send(Letter { message, .. }), ()) = tokio::join!(commands.next(), owner) else { panic!("a message") };
    let done: Json = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!((&done["state"], done.get("result")), (&json!("done"), None));
    let Some(Happening::Event(event)) = desk.hub.recent().pop() else { panic!("an event") };
    assert_eq!(
        (event.kind, &*event.message),
        (EventKind::CommandTaken, "Command: write demo/set_point = 7 (by operator, id 1)")
    );

    for (args, words) in [
        (json!({"tag": "demo/set_point", "value": "hot"}), "\"hot\" is no Double"),
        (json!({"tag": "demo/sine", "value": 1}), "read-only"),
        (json!({"tag": "demo/x", "value": 1}), "no tag demo/x"),
    ] {
        desk.ask("operator", words.split(' ').next().unwrap().trim_matches('"'), "write", args);
        let failed = desk.end().await;
        assert!(failed["reason"].as_str().unwrap().contains(words), "{failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_begins_when_it_is_taken_however_slow_the_line_and_not_when_it_is_back_after_a_loss() {
    let mut desk = Desk::open(Some(Role::Operator));
    desk.ask("operator", "1", "write", json!({"tag": "demo/set_point", "value": 7}));
    assert_eq!(desk.answer().await["state"], "accepted");
    // The line takes its time for that answer; nobody asks for the next one.
    let request = tokio::time::timeout(Duration::from_secs(1), desk.demo.next_write()).await.unwrap();
    request.reply.send(Ok(())).unwrap();
    assert_eq!(desk.answer().await["state"], "done");

    desk.ask("operator", "2", "write", json!({"tag": "demo/set_point", "value": 8}));
    // The line was lost at once, and is back after an hour.
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(desk.answer().await["state"], "accepted");
    desk.failed("the connection was lost before it could begin, 3600 s ago").await;
    assert!(tokio::time::timeout(Duration::from_secs(60), desk.demo.next_write()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn answers_that_wait_go_together() {
    let mut desk = Desk::open(Some(Role::Viewer));
    for id in ["1", "2"] {
        desk.ask("viewer", id, "status", json!({}));
    }
    let Out::Send(first) = desk.commands.next().await else { panic!("an answer") };
    let letters = desk.commands.with_next(first);
    let states = letters.iter().map(|letter| {
        let answer: Json = serde_json::from_slice(&letter.message.payload).unwrap();
        format!("{} {}", answer["id"], answer["state"])
    });
    let states: Vec<String> = states.collect();
    assert_eq!((states.len(), &*states[0]), (4, r#""1" "accepted""#), "{states:?}");
    // They were lost on the way.
    letters.into_iter().rev().for_each(|letter| desk.commands.give_back(letter));
    assert_eq!(desk.answer().await["id"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_slow_command_holds_up_nobody_and_there_is_an_end_to_how_many() {
    let mut desk = Desk::open(Some(Role::Operator));
    for id in 0..room(Role::Operator) {
        desk.ask("operator", &id.to_string(), "write", json!({"tag": "demo/set_point", "value": id}));
        assert_eq!(desk.answer().await["state"], "accepted");
    }
    for (role, command) in [("viewer", "status"), ("operator", "rebirth")] {
        desk.ask(role, &format!("more-{role}"), command, json!({}));
        desk.failed("12 commands are being done already").await;
    }
    // Nobody answers the writes.
    for _ in 0..room(Role::Operator) {
        assert!(desk.answer().await["reason"].as_str().unwrap().contains("BadTimeout"));
    }
    desk.ask("viewer", "again", "status", json!({}));
    assert_eq!(desk.end().await["state"], "done");
}

#[tokio::test(start_paused = true)]
async fn nobody_keeps_a_configuration_from_being_confirmed() {
    let mut desk = Desk::open(Some(Role::Admin));
    let mut demands = desk.hub.demands();
    let mut number = 0;
    for (role, command, args, most) in [
        ("viewer", "snapshot", json!({"camera": "slow"}), 8),
        ("operator", "write", json!({"tag": "demo/set_point", "value": 1}), 12),
        ("admin", "reboot", json!({}), 16),
    ] {
        while desk.commands.running.len() < most {
            number += 1;
            desk.ask(role, &number.to_string(), command, args.clone());
            assert_eq!(desk.answer().await["state"], "accepted", "{role}, {number}");
        }
        desk.ask(role, &format!("{role}-more"), command, args);
        desk.failed(&format!("{most} commands are being done already")).await;
    }
    desk.commands.control("Identify");
    assert_eq!(desk.commands.running.len(), 16);
    desk.ask("admin", "confirm", "config.confirm", json!({"id": "1"}));
    assert_eq!(desk.answer().await["state"], "accepted");
    let device = async {
        loop {
            let request = demands.recv().await.unwrap();
            if matches!(request.demand, Demand::Confirm { .. }) {
                return request.reply.send(Ok("confirmed".into())).unwrap();
            }
        }
    };
    let says = async {
        loop {
            let answer = desk.answer().await;
            if answer["id"] == "confirm" {
                return answer;
            }
        }
    };
    let (answer, ()) = tokio::join!(says, device);
    assert_eq!(answer["state"], "done", "{answer}");
    // Nor do answers that wait.
    for id in 0..2 * WAITING {
        desk.ask("viewer", &format!("x{id}"), "nonsense", json!({}));
    }
    desk.ask("admin", "again", "config.confirm", json!({"id": "1"}));
    let waits = |out: &Out| matches!(out, Out::Send(letter) if letter.message.topic.ends_with("/admin/again"));
    assert!(desk.commands.waiting.iter().any(waits));
}

#[tokio::test(start_paused = true)]
async fn a_role_is_needed_and_the_device_has_the_last_word() {
    let mut desk = Desk::open(Some(Role::Operator));
    desk.ask("viewer", "1", "write", json!({"tag": "demo/set_point", "value": 1}));
    desk.failed("needs the role operator: send it to vedette/G/n/command/operator").await;
    desk.ask("admin", "2", "reboot", json!({}));
    desk.failed("([mqtt] commands = \"operator\")").await;
    desk.ask("admin", "3", "status", json!({}));
    assert_eq!(desk.end().await["state"], "done");
    assert!(Desk::open(None).commands.filters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_refused_if_it_can_be_and_else_only_logged() {
    let mut desk = Desk::open(Some(Role::Admin));
    desk.ask("viewer", "1", "selfdestruct", json!({}));
    desk.failed("there is no command \"selfdestruct\"").await;
    desk.ask("viewer", "2", "read", json!({"tag": "demo/sine"}));
    desk.failed("read takes args such as {\"tags\": [\"demo/sine\"]}").await;
    desk.send("viewer", r#"{"id": "3", "command": "status", "args": []}"#);
    desk.failed("it is not understood").await;
    for payload in ["", "reboot", "{}", r#"{"id": 5, "command": "reboot"}"#, "\u{0}"] {
        desk.send("admin", payload);
    }
    desk.send("root", r#"{"id": "4", "command": "status"}"#);
    let topic = format!("{BASE}/command/admin");
    let payload = r#"{"id": "5", "command": "status"}"#.into();
    assert!(desk.commands.take(&Received { topic, payload, retain: true, properties: Properties::default() }));
    assert!(desk.is_silent().await, "retained, unknown role, no id");
    for topic in ["vedette/G/n/answer/1", "vedette/G/n2/command/admin", "spBv1.0/G/NCMD/n"] {
        let topic = topic.to_owned();
        let received = Received { topic, payload: "{}".into(), retain: false, properties: Properties::default() };
        assert!(!desk.commands.take(&received));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_twice_is_done_once_and_answered_twice() {
    let mut desk = Desk::open(Some(Role::Operator));
    let request = json!({"id": "1", "command": "rebirth"}).to_string();
    desk.send("operator", request.clone());
    desk.send("operator", request.clone());
    assert_eq!(desk.answer().await["state"], "accepted");
    assert_eq!(desk.answer().await["state"], "accepted", "again, as long as that is the newest");
    assert!(matches!(desk.commands.next().await, Out::Ask(Ask::Birth)));
    let done = desk.answer().await;
    let properties = Properties {
        response_topic: Some("hosts/7".into()),
        correlation_data: Some("c".into()),
        ..Properties::default()
    };
    desk.send_with("operator", request, properties);
    let again = desk.message().await;
    assert_eq!((again.topic.as_str(), again.properties.correlation_data.as_deref()), ("hosts/7", Some(&b"c"[..])));
    assert_eq!(serde_json::from_slice::<Json>(&again.payload).unwrap(), done);
    assert!(desk.is_silent().await, "no second birth");
}

#[tokio::test(start_paused = true)]
async fn an_id_of_somebody_else_opens_nothing() {
    let mut desk = Desk::open(Some(Role::Admin));
    let _demands = desk.hub.demands();
    desk.ask("admin", "1", "config.get", json!({}));
    assert_eq!(desk.answer().await["state"], "accepted");
    for (role, command, args) in
        [("viewer", "config.get", json!({})), ("admin", "status", json!({})), ("admin", "config.get", json!({"a": 1}))]
    {
        desk.ask(role, "1", command, args);
        let message = desk.message().await;
        assert_eq!(message.topic, format!("{BASE}/answer/{role}/1"));
        let answer: Json = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!((&answer["state"], &answer["command"]), (&json!("failed"), &json!(command)));
        assert!(answer["reason"].as_str().unwrap().contains("this id was used for another command"), "{answer}");
    }
    desk.send("admin", r#"{"args": {}, "command": "config.get", "id": "1"}"#);
    assert_eq!(desk.answer().await["state"], "accepted", "the same again, and what is known of it has stayed");
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_a_command_for_others() {
    let mut desk = Desk::open(Some(Role::Admin));
    for topic in [
        "vedette/G/n/command/admin",
        "vedette/G/other/command/admin",
        "vedette/G/n/answer/admin/1",
        "spBv1.0/G/NCMD/other",
        "$share/x",
    ] {
        let properties = Properties { response_topic: Some(topic.into()), ..Properties::default() };
        desk.send_with("viewer", json!({"id": "1", "command": "status"}).to_string(), properties);
    }
    assert!(desk.is_silent().await);
    // And if it came there all the same, it would not be taken for a request.
    desk.ask("viewer", "2", "reboot", json!({}));
    let answer = desk.message().await.payload;
    let mut desk = Desk::open(Some(Role::Admin));
    desk.send("admin", answer.to_vec());
    desk.failed("unknown field `state`").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_not_sent_comes_again_first() {
    let mut desk = Desk::open(Some(Role::Viewer));
    desk.ask("viewer", "1", "status", json!({}));
    let accepted = desk.message().await;
    desk.commands.give_back(Letter { message: accepted.clone(), arrived: None });
    assert_eq!(desk.message().await, accepted);
    assert_eq!(desk.answer().await["state"], "done");
    // Somebody who asks and never listens.
    for id in 0..2 * WAITING {
        desk.ask("viewer", &format!("x{id}"), "nonsense", json!({}));
    }
    let mut waiting = 0;
    while desk.commands.try_next().is_some() {
        waiting += 1;
    }
    assert_eq!(waiting, WAITING);
}

#[tokio::test(start_paused = true)]
async fn the_device_itself_answers_through_the_hub() {
    let mut desk = Desk::open(Some(Role::Admin));
    let mut demands = desk.hub.demands();
    let args = json!({"filter": "debug", "seconds": 60});
    desk.ask("admin", "1", "log_level", args);
    assert_eq!(desk.answer().await["state"], "accepted");
    let device = async {
        let request = demands.recv().await.unwrap();
        assert_eq!(request.demand, Demand::Log { filter: "debug".into(), lasts: Some(Duration::from_secs(60)) });
        request.reply.send(Err("no".into())).unwrap();
    };
    let (Out::Send(Letter { message, .. }), ()) = tokio::join!(desk.commands.next(), device) else {
        panic!("a message")
    };
    assert!(String::from_utf8_lossy(&message.payload).contains("\"reason\":\"no\""));
    desk.commands.control("Identify");
    desk.commands.control("Format");
    let device = async { demands.recv().await.unwrap() };
    let request = tokio::select! {
        request = device => request,
        _ = desk.commands.next() => panic!("there is no answer to that"),
    };
    assert_eq!(request.demand, Demand::Identify { lasts: Duration::from_secs(30) });
    let mut low = Desk::open(Some(Role::Viewer));
    low.commands.control("Identify");
    assert!(low.commands.running.is_empty());
    let mut high = Desk::open(Some(Role::Admin));
    high.commands.control("Reboot");
    assert!(high.commands.running.is_empty(), "nobody can say who may");
}

#[tokio::test(start_paused = true)]
async fn a_trial_is_answered_by_reports_also_by_the_uplink_after_this_one() {
    let mut desk = Desk::open(Some(Role::Admin));
    let mut demands = desk.hub.demands();
    let properties = Properties {
        response_topic: Some("hosts/7".into()),
        correlation_data: Some("c".into()),
        ..Properties::default()
    };
    let request = json!({"id": "t1", "command": "config.apply", "args": {"toml": "x = 1", "confirm_within": "1m"}});
    desk.send_with("admin", request.to_string(), properties);
    assert!(String::from_utf8_lossy(&desk.message().await.payload).contains("accepted"));
    let request = tokio::select! {
        request = demands.recv() => request.unwrap(),
        _ = desk.commands.next() => panic!("not yet"),
    };
    let Demand::Apply(apply) = request.demand else { panic!("a trial") };
    assert_eq!(
        (apply.id.as_str(), apply.toml.as_str(), apply.confirm_within),
        ("t1", "x = 1", Duration::from_secs(60))
    );
    request.reply.send(Ok(String::new())).unwrap();
    assert!(desk.is_silent().await);
    // The change ended the uplink.
    desk.commands = Commands::new(Some(Role::Admin), BASE.into(), desk.hub.clone(), Arc::new(Pictures));
    desk.hub.report(apply.address.clone(), News::Progress("applied".into()));
    desk.hub.report("nobody", News::Done(String::new()));
    desk.hub.report(apply.address, News::Failed("not confirmed; rolled back".into()));
    for (state, reason) in [("progress", "applied"), ("failed", "not confirmed; rolled back")] {
        let message = desk.message().await;
        let answer: Json = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(
            (message.topic.as_str(), message.properties.correlation_data.as_deref()),
            ("hosts/7", Some(&b"c"[..]))
        );
        assert_eq!(
            (&answer["id"], &answer["command"], &answer["state"], &answer["reason"]),
            (&json!("t1"), &json!("config.apply"), &json!(state), &json!(reason))
        );
    }
}
