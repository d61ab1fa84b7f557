use super::*;
use crate::base::{Clock, Tasks};
use crate::model::{TagName, Value};
use crate::sources::Config as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a device makes of a question, without the transaction: unit and PDU, both ways; `None`: no answer.
type Device = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

async fn serve(listener: TcpListener, device: Device) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        loop {
            let mut header = [0; 6];
            if stream.read_exact(&mut header).await.is_err() {
                break;
            }
            let mut body = vec![0; usize::from(header[5])];
            if stream.read_exact(&mut body).await.is_err() {
                break;
            }
            let Some(answer) = device(&body) else { continue };
            let frame = [&header[..4], &(answer.len() as u16).to_be_bytes(), &answer].concat();
            if stream.write_all(&frame).await.is_err() {
                break;
            }
        }
    }
}

/// Each register has its own address as value; those of `illegal` do not exist.
fn registers(question: &[u8], illegal: &[u16]) -> Vec<u8> {
    let word = |at: usize| u16::from_be_bytes([question[at], question[at + 1]]);
    let (unit, function, address, count) = (question[0], question[1], word(2), word(4));
    if illegal.iter().any(|bad| (address..address + count).contains(bad)) {
        return vec![unit, function | 0x80, 2];
    }
    let values = (address..address + count).flat_map(u16::to_be_bytes);
    [unit, function, (count * 2) as u8].into_iter().chain(values).collect()
}

/// The same with RTU frames, of which each 20th is answered late: after the time-out of 200 ms, or after a retry's as well.
async fn serve_rtu(listener: TcpListener, late: Arc<AtomicUsize>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let (mut question, mut asked) = ([0; 8], 0);
        while stream.read_exact(&mut question).await.is_ok() {
            asked += 1;
            let is_late = asked % 20 == 0;
            let time = if asked % 40 == 0 {
                250
            } else if is_late {
                430
            } else {
                5
            };
            tokio::time::sleep(Duration::from_millis(time)).await;
            let answer = registers(&question[..6], &[]);
            let frame = [&answer[..], &sieve::crc(&answer).to_le_bytes()].concat();
            if stream.write_all(&frame).await.is_err() {
                break;
            }
            late.fetch_add(usize::from(is_late), Relaxed);
        }
    }
}

/// The source runs against the device while `test` looks on.
async fn with<T>(config: &str, device: Device, test: impl AsyncFnOnce(Hub) -> T) -> T {
    with_peer(config, |listener| serve(listener, device), test).await
}

async fn with_peer<T, F: Future<Output = ()>>(
    config: &str,
    peer: impl FnOnce(TcpListener) -> F,
    test: impl AsyncFnOnce(Hub) -> T,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let config: Config = toml::from_str(&config.replace("ADDRESS", &address.to_string())).unwrap();
    assert_eq!(config.check(), []);
    let hub = Hub::new(Clock::real());
    let place = Place { data_dir: "/".into(), device_name: "test".into() };
    let mut source = config.register(&place, &hub).unwrap();
    let tasks = Tasks::new("test");
    let stop = tasks.stop_signal();
    tokio::select! {
        () = source.run(&stop) => panic!("it ended"),
        () = peer(listener) => panic!("the device ended"),
        value = test(hub.clone()) => value,
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn read(hub: &Hub, name: &str) -> crate::model::Sample {
    hub.read(hub.find(&TagName::new(name).unwrap()).unwrap())
}

#[tokio::test]
async fn neighbours_come_in_one_request_and_a_bad_one_stands_alone() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let device: Device = Arc::new(move |question| {
        log.lock().unwrap().push(question.to_vec());
        Some(registers(question, &[4]))
    });
    let tags: String = (0..8).map(|n| format!("{{ name = 't{n}', address = {n} }},")).collect();
    let config = format!("name = 'a'\nurl = 'tcp://ADDRESS'\ninterval = '20ms'\nunit = [{{ id = 1, tag = [{tags}] }}]");
    with(&config, device, async |hub| {
        until("the bad one is found", || read(&hub, "a/unit1/t4").quality.status == Status::BAD_CONFIGURATION_ERROR)
            .await;
        until("the others are good", || {
            (0..8).filter(|n| *n != 4).all(|n| {
                let sample = read(&hub, &format!("a/unit1/t{n}"));
                sample.quality.is_good() && sample.value == Value::UInt16(n)
            })
        })
        .await;
        asked.lock().unwrap().clear();
        until("some scans", || asked.lock().unwrap().len() > 6).await;
        let asked = asked.lock().unwrap();
        let is_usual = |question: &Vec<u8>| [[0, 0, 0, 4], [0, 5, 0, 3]].iter().any(|span| question[2..] == span[..]);
        assert!(asked.iter().skip(1).all(is_usual), "two requests a scan: {asked:?}");
    })
    .await;
}

#[tokio::test]
async fn a_dead_unit_is_known_by_itself_and_comes_back() {
    let is_dead = Arc::new(Mutex::new(true));
    let dead = is_dead.clone();
    let device: Device =
        Arc::new(move |question| (question[0] != 2 || !*dead.lock().unwrap()).then(|| registers(question, &[])));
    let config = "name = 'a'\nurl = 'tcp://ADDRESS'\ninterval = '20ms'\ntimeout = '100ms'\n\
                  unit = [{ ids = '1-4', tag = [{ name = 't', address = 7 }] }]";
    with(config, device, async |hub| {
        until("the dead one is known", || read(&hub, "a/unit2/t").quality.status == Status::BAD_NO_COMMUNICATION).await;
        let reason = read(&hub, "a/unit2/t").quality.to_string();
        assert_eq!(reason, "BadNoCommunication: unit 2: no answer within 100 ms");
        for unit in [1, 3, 4] {
            until("the others are good", || read(&hub, &format!("a/unit{unit}/t")).quality.is_good()).await;
        }
        assert_eq!(read(&hub, "a/unit2/status/connected").value, Value::Boolean(false));
        assert_eq!(read(&hub, "a/status/connected").value, Value::Boolean(true));
        *is_dead.lock().unwrap() = false;
        until("it is back", || read(&hub, "a/unit2/t").quality.is_good()).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_never_answered_is_not_the_whole_unit() {
    let device: Device = Arc::new(|question| (question[3] != 50).then(|| registers(question, &[])));
    let config = "name = 'a'\nurl = 'tcp://ADDRESS'\ninterval = '20ms'\ntimeout = '50ms'\n\
                  unit = [{ id = 1, tag = [{ name = 'good', address = 7 }, { name = 'bad', address = 50 }] }]";
    with(config, device, async |hub| {
        until("it is found", || read(&hub, "a/unit1/bad").quality.status == Status::BAD_TIMEOUT).await;
        until("the other is good", || read(&hub, "a/unit1/good").quality.is_good()).await;
        let first = read(&hub, "a/unit1/good").server_time;
        until("and goes on", || read(&hub, "a/unit1/good").server_time > first).await;
    })
    .await;
}

#[tokio::test]
async fn writes_use_what_the_device_knows_and_are_read_back() {
    let (asked, value) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0_u16)));
    let (log, register) = (asked.clone(), value.clone());
    // It knows Read Holding Registers and Write Multiple Registers only.
    let device: Device = Arc::new(move |question| {
        let mut register = register.lock().unwrap();
        log.lock().unwrap().push(question[1]);
        Some(match question[1] {
            3 => [&[question[0], 3, 2][..], &register.to_be_bytes()].concat(),
            16 => {
                *register = u16::from_be_bytes([question[7], question[8]]);
                question[..6].to_vec()
            }
            other => vec![question[0], other | 0x80, 1],
        })
    });
    let config = "name = 'a'\nurl = 'tcp://ADDRESS'\ninterval = '1h'\nunit = [{ id = 1, tag = [\
                  { name = 'bit', address = 0, bit = 3, writable = true }, \
                  { name = 'word', address = 0, writable = true, range = [0, 500] }] }]";
    with(config, device, async |hub| {
        let id = |name| hub.find(&TagName::new(name).unwrap()).unwrap();
        until("it is read", || read(&hub, "a/unit1/word").quality.is_good()).await;
        asked.lock().unwrap().clear();
        hub.write(id("a/unit1/word"), Value::UInt16(0x41)).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [6, 16, 3], "the single write is not known");
        assert_eq!(read(&hub, "a/unit1/word").value, Value::UInt16(0x41));
        hub.write(id("a/unit1/bit"), Value::Boolean(true)).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [6, 16, 3, 22, 3, 16, 3], "nor is the mask");
        assert_eq!(*value.lock().unwrap(), 0x49, "the other bits are as they were");
        assert_eq!(read(&hub, "a/unit1/bit").value, Value::Boolean(true));
        let refused = hub.write(id("a/unit1/word"), Value::UInt16(501)).await.unwrap_err();
        assert_eq!(refused.to_string(), "BadOutOfRange: its range goes from 0 to 500");
    })
    .await;
}

#[tokio::test]
async fn on_a_line_of_rtu_frames_no_late_answer_is_taken_for_another() {
    let late = Arc::new(AtomicUsize::new(0));
    let count = late.clone();
    let config = "name = 'a'\nurl = 'rtu+tcp://ADDRESS'\ninterval = '20ms'\ntimeout = '200ms'\nunit = [{ id = 1, tag = [\
                  { name = 't100', address = 100 }, { name = 't200', address = 200 }, \
                  { name = 't300', address = 300 }, { name = 't400', address = 400 }] }]";
    with_peer(
        config,
        |listener| serve_rtu(listener, count),
        async |hub| {
            let sample = |n: u16| read(&hub, &format!("a/unit1/t{n}"));
            until("some were late", || {
                for n in [100, 200, 300, 400] {
                    let sample = sample(n);
                    assert!(!sample.quality.is_good() || sample.value == Value::UInt16(n), "{n}: {sample:?}");
                }
                late.load(Relaxed) > 3
            })
            .await;
            until("it goes on", || [100, 200, 300, 400].iter().all(|n| sample(*n).quality.is_good())).await;
        },
    )
    .await;
}

#[tokio::test]
async fn one_question_without_an_answer_costs_no_more_than_that() {
    let lost = AtomicBool::new(false);
    let device: Device =
        Arc::new(move |question| (question[3] != 0 || lost.swap(true, Relaxed)).then(|| registers(question, &[])));
    let tags: String = (0..60).chain([200]).map(|n| format!("{{ name = 't{n}', address = {n} }},")).collect();
    let config = format!(
        "name = 'a'\nurl = 'tcp://ADDRESS'\ninterval = '1h'\ntimeout = '50ms'\nunit = [{{ id = 1, tag = [{tags}] }}]"
    );
    with(&config, device, async |hub| {
        until("all are good", || (0..60).all(|n| read(&hub, &format!("a/unit1/t{n}")).quality.is_good())).await;
    })
    .await;
}

#[tokio::test]
async fn writes_without_a_pause_leave_time_to_read() {
    let device: Device = Arc::new(|question| {
        let echo = question[..6].to_vec();
        Some(if question[1] == 6 { echo } else { registers(question, &[]) })
    });
    let config = "name = 'a'\nurl = 'tcp://ADDRESS'\ninterval = '10ms'\nunit = [{ id = 1, tag = [\
                  { name = 'read', address = 0 }, { name = 'w1', address = 100, writable = true }, \
                  { name = 'w2', address = 200, writable = true }, { name = 'w3', address = 300, writable = true }] }]";
    with(config, device, async |hub| {
        until("it is read", || read(&hub, "a/unit1/read").quality.is_good()).await;
        let writer = async |name: &str| {
            let id = hub.find(&TagName::new(name).unwrap()).unwrap();
            loop {
                hub.write(id, Value::UInt16(1)).await.unwrap();
            }
        };
        let reading = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for _ in 0..5 {
                let before = read(&hub, "a/unit1/read").server_time;
                until("it is read again", || read(&hub, "a/unit1/read").server_time > before).await;
            }
        };
        tokio::select! {
            () = reading => {}
            () = writer("a/unit1/w1") => {}
            () = writer("a/unit1/w2") => {}
            () = writer("a/unit1/w3") => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_that_was_given_up_is_not_carried_out() {
    let (is_slow, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (slow, log) = (is_slow.clone(), written.clone());
    let device: Device = Arc::new(move |question| {
        if question[1] == 6 {
            log.lock().unwrap().push(question[5]);
            return Some(question[..6].to_vec());
        }
        (!slow.load(Relaxed)).then(|| registers(question, &[]))
    });
    let config = "name = 'a'\nurl = 'tcp://ADDRESS'\ninterval = '10ms'\ntimeout = '1s'\nretries = 3\n\
                  unit = [{ id = 1, tag = [{ name = 't', address = 0, writable = true }] }]";
    with(config, device, async |hub| {
        until("it is read", || read(&hub, "a/unit1/t").quality.is_good()).await;
        let id = hub.find(&TagName::new("a/unit1/t").unwrap()).unwrap();
        is_slow.store(true, Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let given_up = tokio::time::timeout(Duration::from_millis(100), hub.write(id, Value::UInt16(1))).await;
        assert!(given_up.is_err());
        is_slow.store(false, Relaxed);
        hub.write(id, Value::UInt16(2)).await.unwrap();
        assert_eq!(*written.lock().unwrap(), [2]);
    })
    .await;
}

#[tokio::test]
async fn a_coil_that_cannot_be_written_leaves_registers_writable() {
    // A drive that knows 3 and 6 only.
    let device: Device = Arc::new(|question| {
        Some(match question[1] {
            3 => registers(question, &[]),
            6 => question[..6].to_vec(),
            other => vec![question[0], other | 0x80, 1],
        })
    });
    let config = "name = 'a'\nurl = 'tcp://ADDRESS'\ninterval = '1h'\nunit = [{ id = 1, tag = [\
                  { name = 'coil', address = 0, table = 'coil', writable = true }, \
                  { name = 'word', address = 0, writable = true }] }]";
    with(config, device, async |hub| {
        until("it is read", || read(&hub, "a/unit1/word").quality.is_good()).await;
        let id = |name| hub.find(&TagName::new(name).unwrap()).unwrap();
        for _ in 0..2 {
            let refused = hub.write(id("a/unit1/coil"), Value::Boolean(true)).await.unwrap_err();
            assert_eq!(refused.status, Status::BAD_NOT_SUPPORTED);
            hub.write(id("a/unit1/word"), Value::UInt16(0)).await.unwrap();
        }
    })
    .await;
}

#[test]
fn a_unit_like_another_has_its_tags_and_its_own() {
    let text = "name = 'a'\nurl = 'tcp://x'\n[[unit]]\nid = 1\nname = 'pump'\ntag = [{ name = 't', address = 0 }]\n\
                [[unit]]\nid = 2\nname = 'other'\nlike = 'pump'\ntag = [{ name = 'u', address = 9, type = 'Float' }]\n\
                [[unit]]\nid = 3\nname = 'far'\nlike = 'pump'\nurl = 'tcp://y'";
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!(config.check(), []);
    let hub = Hub::new(Clock::real());
    let (_tags, lines) = config.lines(&hub).unwrap();
    assert_eq!(lines.iter().map(|line| line.label.as_str()).collect::<Vec<_>>(), ["a", "a/far"]);
    for name in ["a/pump/t", "a/other/t", "a/other/u", "a/other/status/connected", "a/far/t", "a/far/status/overruns"] {
        assert!(hub.find(&TagName::new(name).unwrap()).is_some(), "{name}");
    }
}
