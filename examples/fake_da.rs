//! The relay without COM: for tests of its portable half on any machine, and for measuring what it costs.
//!
//!     fake_da relay <configuration>     the relay, with this program as the worker of each `[[server]]`
//!     fake_da worker <name>             a worker that holds a scripted DA server
//!     fake_da trust|user ...            the relay's own commands
//!
//! A scripted DA server has
//!
//! - `Plant` with branches and items of all kinds, `Big` with 50 000 items, `Types.<VARTYPE>`, `Ramp.<any number>`, which counts up at
//!   each update, `Wave.<any number>`, the same as a Double, `Stamp`, whose value is its timestamp, `Static.<any number>`, which never changes, `Quality.<hex>`, `Time.<FILETIME>`, `Level`, which is what was
//!   written to it (0 to 100, clamped), `ReadOnly`;
//! - `Odd.<name>` and the branch `Plant`/`Odd`: what no honest server says; one that goes round in circles, one with a million items;
//! - `Do`: writing to it makes the server `die`, `freeze`, `mute` (no callbacks any more), `storm` (callbacks without end), say
//!   `garbage`, or `shutdown`;
//! - rates in steps of 50 ms.
//!
//! A name that ends in `.late` takes a second to come up; one in `.absent` never does; one in `.liar` says what nobody asked;
//! one in `.huge` announces more than there may be.

#![allow(clippy::unwrap_used, reason = "a tool for tests")]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vedette::base::{Clock, Tasks};
use vedette::relay::config;
use vedette::relay::protocol::*;
use vedette::relay::run::{self, Held};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", name] => worker(name),
        ["relay", config] => relay(config),
        ["trust" | "user", ..] => return vedette::relay::cli::main(),
        _ => eprintln!("fake_da worker <name> | fake_da relay <configuration> | fake_da trust|user ..."),
    }
    ExitCode::SUCCESS
}

fn say(message: &FromWorker) {
    let bytes = frame(message).unwrap();
    let mut output = io::stdout().lock();
    if output.write_all(&bytes).and_then(|()| output.flush()).is_err() {
        // Nobody is there any more.
        std::process::abort();
    }
}

fn event(event: Event) {
    say(&FromWorker::Event(event));
}

fn now() -> Filetime {
    Clock::real().now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 / 100 + 116_444_736_000_000_000
}

const UNKNOWN: Hresult = 0xC004_0007_u32 as i32;
const BAD_RIGHTS: Hresult = 0xC004_0006_u32 as i32;
const BAD_TYPE: Hresult = 0xC004_0004_u32 as i32;
const CLAMP: Hresult = 0x0004_000E;
const NO_PROPERTY: Hresult = 0xC004_0203_u32 as i32;
const NOT_FOUND: Hresult = 0x8007_0002_u32 as i32;

/// A group of the DA server.
struct Group {
    rate: Duration,
    due: Instant,
    /// Handle, item, and whether its value was sent.
    items: HashMap<u32, (String, bool)>,
}

#[derive(Default)]
struct Server {
    groups: HashMap<u32, Group>,
    level: f64,
    count: i32,
    muted: bool,
    lost: bool,
    frozen: bool,
    storms: bool,
    started: Filetime,
}

fn worker(name: &str) {
    if name.ends_with(".huge") {
        io::stdout().write_all(&[0xFF; 4]).unwrap();
        io::stdout().flush().unwrap();
    }
    if name.ends_with(".late") {
        std::thread::sleep(Duration::from_secs(1));
    }
    if name.ends_with(".absent") {
        event(Event::NotStarted(Failure { call: "CoCreateInstance".into(), hresult: 0x8008_0005_u32 as i32 }));
        return;
    }
    let (clsid, prog_id) = ("{00000000-0000-0000-0000-000000000001}".into(), name.into());
    let has =
        Capabilities { clsid, prog_id, browse2: true, properties: true, item_io: true, ..Capabilities::default() };
    event(Event::Started(has));
    if name.ends_with(".liar") {
        say(&FromWorker::Reply { id: 77, reply: Reply::Values(vec![]) });
    }
    let server = Arc::new(Mutex::new(Server { started: now(), level: 50.0, ..Server::default() }));
    let ticking = server.clone();
    std::thread::spawn(move || {
        loop {
            let mut server = ticking.lock().unwrap();
            tick(&mut server);
            let pause = if server.storms { 0 } else { 5 };
            drop(server);
            std::thread::sleep(Duration::from_millis(pause));
        }
    });
    let mut input = io::stdin().lock();
    let mut head = [0; 4];
    while input.read_exact(&mut head).is_ok() {
        let mut bytes = vec![0; length(head).unwrap()];
        input.read_exact(&mut bytes).unwrap();
        let ToWorker { id, request } = parse(&bytes).unwrap();
        if let Request::Browse { branch } = request {
            // On a thread of its own, as a worker has it.
            std::thread::spawn(move || say(&FromWorker::Reply { id, reply: browse(id, &branch) }));
            continue;
        }
        let reply = answer(&server, request);
        say(&FromWorker::Reply { id, reply });
        let held = server.lock().unwrap();
        if held.frozen {
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
    }
}

fn tick(server: &mut Server) {
    server.count = server.count.wrapping_add(1);
    if server.muted || server.lost {
        return;
    }
    let storm = server.storms;
    let (count, level, time) = (server.count, server.level, now());
    for (id, group) in &mut server.groups {
        if Instant::now() < group.due && !storm {
            continue;
        }
        group.due = if storm { group.due } else { group.due + group.rate };
        let changed = group.items.iter_mut().filter(|(_, (item, was_sent))| !*was_sent || !is_static(item));
        let mut values: Vec<_> = changed
            .map(|(handle, (item, was_sent))| {
                *was_sent = true;
                (*handle, read(item, count, level, time))
            })
            .collect();
        while !values.is_empty() {
            let rest = values.split_off(values.len().min(2000));
            event(Event::Data { group: *id, values });
            values = rest;
        }
    }
}

fn is_static(item: &str) -> bool {
    !item.starts_with("Ramp.") && !item.starts_with("Wave.") && item != "Level" && item != "Stamp"
}

fn read(item: &str, count: i32, level: f64, time: Filetime) -> Result<Reading, Hresult> {
    let good = |value| Ok(Reading { value, quality: 0xC0, time });
    let (kind, rest) = item.split_once('.').unwrap_or((item, ""));
    match kind {
        "Ramp" => good(DaValue::I4(count)),
        "Wave" => good(DaValue::R8(f64::from(count))),
        "Static" => Ok(Reading {
            value: DaValue::I4(rest.parse().map_err(|_| UNKNOWN)?),
            quality: 0xC0,
            time: time - 36_000_000_000,
        }),
        "Big" => good(DaValue::R8(rest.parse().map_err(|_| UNKNOWN)?)),
        "Level" => good(DaValue::R8(level)),
        // Not at the group's rate: what a scan of the devices every 30 ms has found.
        "Stamp" => {
            let time = time - time % 300_000;
            Ok(Reading { value: DaValue::I8(time as i64), quality: 0xC0, time })
        }
        "ReadOnly" | "Valve" | "Mode" => good(DaValue::I2(1)),
        "Do" => good(DaValue::Text(String::new())),
        "Quality" => {
            let quality = u16::from_str_radix(rest, 16).map_err(|_| UNKNOWN)?;
            Ok(Reading { value: DaValue::I4(7), quality, time })
        }
        "Time" => Ok(Reading { value: DaValue::I4(7), quality: 0xC0, time: rest.parse().map_err(|_| UNKNOWN)? }),
        "Types" => good(of_type(rest).ok_or(UNKNOWN)?),
        "Odd" => odd(rest, time),
        "a b" if rest == "c/d[1]" => good(DaValue::Bool(true)),
        _ => Err(UNKNOWN),
    }
}

fn odd(name: &str, time: Filetime) -> Result<Reading, Hresult> {
    let around = |value| DaValue::Array { dimensions: vec![1], elements: Elements::Variant(vec![value]) };
    let lies = |dimensions| DaValue::Array { dimensions, elements: Elements::I4(vec![1, 2, 3]) };
    let good = |value| Ok(Reading { value, quality: 0xC0, time });
    match name {
        "NaN" => good(DaValue::R8(f64::NAN)),
        "Infinite" => good(DaValue::R4(f32::INFINITY)),
        "Date" => good(DaValue::Date(1e300)),
        "Error" => good(DaValue::Error(-5)),
        "Record" => good(DaValue::Unsupported(36)),
        "Deep" => good((0..8).fold(DaValue::I4(5), |value, _| around(value))),
        "Lies" => good(lies(vec![u32::MAX, u32::MAX, 7])),
        "Nothing" => good(lies(vec![])),
        "Huge" => good(DaValue::Text("h".repeat(1 << 20))),
        "Zeros" => good(DaValue::Text("a\0b".into())),
        "Quality" => Ok(Reading { value: DaValue::I4(5), quality: 0xFFBF, time }),
        "Time" => Ok(Reading { value: DaValue::I4(5), quality: 0xC0, time: u64::MAX }),
        _ => Err(UNKNOWN),
    }
}

fn of_type(name: &str) -> Option<DaValue> {
    let array = |dimensions: &[u32], elements| DaValue::Array { dimensions: dimensions.to_vec(), elements };
    Some(match name {
        "Empty" => DaValue::Empty,
        "Bool" => DaValue::Bool(true),
        "I1" => DaValue::I1(-1),
        "U1" => DaValue::U1(1),
        "I2" => DaValue::I2(-2),
        "U2" => DaValue::U2(2),
        "I4" => DaValue::I4(-4),
        "U4" => DaValue::U4(4),
        "I8" => DaValue::I8(-8),
        "U8" => DaValue::U8(8),
        "R4" => DaValue::R4(0.5),
        "R8" => DaValue::R8(0.25),
        "Cy" => DaValue::Cy(123_456),
        "Date" => DaValue::Date(46_023.75),
        "Text" => DaValue::Text("Süd".into()),
        "I4s" => array(&[3], Elements::I4(vec![1, 2, 3])),
        "Texts" => array(&[2], Elements::Text(vec!["a".into(), "b".into()])),
        "Matrix" => array(&[2, 3], Elements::R8(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        "Variants" => array(&[2], Elements::Variant(vec![DaValue::I4(1), DaValue::Text("b".into())])),
        _ => return None,
    })
}

fn browse(id: u32, branch: &Branch) -> Reply {
    let entry = |name: &str, item: Option<&str>, is_branch| Entry {
        name: name.into(),
        item_id: item.map(str::to_owned),
        is_branch,
        is_item: item.is_some(),
    };
    let names: Vec<&str> = branch.names.iter().map(String::as_str).collect();
    let entries = match names[..] {
        [] => vec![
            entry("Plant", None, true),
            entry("Big", None, true),
            entry("Level", Some("Level"), false),
            // One name, twice.
            entry("Valve", Some("Valve"), true),
        ],
        ["Plant"] => vec![
            entry("Types", None, true),
            entry("Ramp", Some("Ramp.1"), false),
            entry("c/d[1]", Some("a b.c/d[1]"), false),
            entry("Mode", Some("Mode"), false),
            entry("Odd", None, true),
        ],
        ["Plant", "Odd", .., "million"] | ["Plant", "million"] => {
            for piece in 0..1000 {
                let numbers = piece * 1000..(piece + 1) * 1000;
                let entries = numbers.map(|number| entry(&number.to_string(), Some(&format!("Big.{number}")), false));
                say(&FromWorker::Reply { id, reply: Reply::Entries { entries: entries.collect(), more: true } });
            }
            Vec::new()
        }
        ["Plant", "Odd", ..] => vec![
            entry("again", None, true),
            entry("million", None, true),
            entry("", Some("Odd.NaN"), false),
            entry(&"n".repeat(1 << 16), Some("Odd.Error"), false),
            entry(&"b".repeat(1 << 16), None, true),
            entry("long", Some(&"i".repeat(1 << 16)), false),
            entry("Huge", Some("Odd.Huge"), false),
        ],
        ["Plant", "Types"] => {
            ["I4", "R8", "Text"].map(|name| entry(name, Some(&format!("Types.{name}")), false)).to_vec()
        }
        ["Valve"] => vec![entry("ReadOnly", Some("ReadOnly"), false)],
        ["Big"] => {
            for piece in 0..100 {
                let numbers = piece * 500..(piece + 1) * 500;
                let entries =
                    numbers.map(|number| entry(&format!("{number}"), Some(&format!("Big.{number}")), false)).collect();
                say(&FromWorker::Reply { id, reply: Reply::Entries { entries, more: true } });
                std::thread::sleep(Duration::from_millis(10));
            }
            Vec::new()
        }
        _ => return Reply::Failed(Failure { call: "ChangeBrowsePosition".into(), hresult: 0x8007_0057_u32 as i32 }),
    };
    Reply::Entries { entries, more: false }
}

fn vartype(value: &DaValue) -> u16 {
    match value {
        DaValue::I2(_) => 2,
        DaValue::I4(_) => 3,
        DaValue::R4(_) => 4,
        DaValue::R8(_) => 5,
        DaValue::Text(_) => 8,
        DaValue::Bool(_) => 11,
        DaValue::Array { elements: Elements::R8(_), .. } => 0x2005,
        _ => 0,
    }
}

fn properties(item: &str, ids: Option<&[u32]>) -> Result<Vec<Property>, Hresult> {
    let value = read(item, 0, 50.0, now())?.value;
    let text = |text: &str| DaValue::Text(text.into());
    let rights = if item == "ReadOnly" { 1 } else { 3 };
    let mut all = vec![
        (1, DaValue::I2(vartype(&value) as i16)),
        (5, DaValue::I4(rights)),
        (6, DaValue::R4(50.0)),
        (101, text(&format!("About {item}"))),
        (5001, text("made by nobody")),
    ];
    match item {
        item if item.starts_with("Big.") => all.extend([(102, DaValue::R8(1e6)), (103, DaValue::R8(0.0))]),
        "Odd.Error" => all.extend((5002..5100).map(|id| (id, text(&"p".repeat(1 << 16))))),
        "Odd.NaN" => all.extend([(102, DaValue::R8(f64::NAN)), (103, DaValue::R8(f64::INFINITY))]),
        "Level" => all.extend([(100, text("bar")), (102, DaValue::R8(100.0)), (103, DaValue::R8(0.0))]),
        "Valve" => all.extend([(106, text("open")), (107, text("shut"))]),
        "Mode" => {
            let names = Elements::Text(vec!["off".into(), "hand".into(), "auto".into()]);
            all.extend([(7, DaValue::I4(2)), (8, DaValue::Array { dimensions: vec![3], elements: names })]);
        }
        _ => {}
    }
    let property = |(id, value): (u32, DaValue)| Property {
        id,
        description: format!("Property {id}"),
        data_type: vartype(&value),
        value: Ok(value),
    };
    let Some(ids) = ids else { return Ok(all.into_iter().map(property).collect()) };
    let found = ids.iter().map(|id| match all.iter().find(|(other, _)| other == id) {
        Some(found) => property(found.clone()),
        None => Property { id: *id, description: String::new(), data_type: 0, value: Err(NO_PROPERTY) },
    });
    Ok(found.collect())
}

fn write(server: &mut Server, item: &str, value: &DaValue) -> Hresult {
    match (item, value) {
        ("Level", DaValue::R8(level)) if (0.0..=100.0).contains(level) => {
            server.level = *level;
            0
        }
        ("Level", DaValue::R8(level)) => {
            server.level = level.clamp(0.0, 100.0);
            CLAMP
        }
        ("Level", _) => BAD_TYPE,
        ("ReadOnly", _) => BAD_RIGHTS,
        ("Do", DaValue::Text(what)) => {
            match &what[..] {
                "die" => std::process::abort(),
                "freeze" => server.frozen = true,
                "garbage" => io::stdout().lock().write_all(&[5, 0, 0, 0, 9, 9, 9, 9, 9]).unwrap(),
                "shutdown" => event(Event::Shutdown { reason: "for maintenance".into() }),
                "mute" => server.muted = true,
                "lost" => server.lost = true,
                "storm" => server.storms = true,
                _ => return NOT_FOUND,
            }
            0
        }
        _ => read(item, 0, 0.0, now()).map_or_else(|hresult| hresult, |_| 0),
    }
}

fn answer(server: &Mutex<Server>, request: Request) -> Reply {
    let mut server = server.lock().unwrap();
    let (count, level, time) = (server.count, server.level, now());
    if server.lost {
        return Reply::Failed(Failure { call: "GetStatus".into(), hresult: 0x8007_06BA_u32 as i32 });
    }
    match request {
        Request::Status => Reply::Status(ServerStatus {
            start: server.started,
            current: time,
            last_update: time,
            state: 1,
            groups: server.groups.len() as u32,
            bandwidth: 3,
            version: (3, 1, 4),
            vendor: "Nobody".into(),
        }),
        Request::Browse { .. } => unreachable!("it has a thread of its own"),
        Request::Properties { items, ids } => {
            Reply::Properties(items.iter().map(|item| properties(item, ids.as_deref())).collect())
        }
        Request::Read { items, .. } => Reply::Values(items.iter().map(|item| read(item, count, level, time)).collect()),
        Request::Write { items } => {
            Reply::Written(items.iter().map(|(item, value)| write(&mut server, item, value)).collect())
        }
        Request::AddGroup { group, settings } | Request::PollGroup { group, settings } => {
            let revised_rate = settings.rate.div_ceil(50).max(1) * 50;
            let rate = Duration::from_millis(u64::from(revised_rate));
            server.groups.insert(group, Group { rate, due: Instant::now(), items: HashMap::new() });
            Reply::Group { revised_rate, result: if revised_rate == settings.rate { 0 } else { 0x0004_000D } }
        }
        Request::SetGroup { .. } => Reply::Failed(Failure { call: "SetState".into(), hresult: -1 }),
        Request::RemoveGroup { group } => {
            server.groups.remove(&group);
            Reply::Done
        }
        Request::AddItems { group, items } => {
            let Some(group) = server.groups.get_mut(&group) else {
                return Reply::Failed(Failure { call: "AddItems".into(), hresult: -1 });
            };
            let add = |item: NewItem| {
                let value = read(&item.item_id, count, level, time)?.value;
                group.items.insert(item.handle, (item.item_id, false));
                Ok(AddedItem { canonical_type: vartype(&value), access_rights: 3 })
            };
            Reply::Added(items.into_iter().map(add).collect())
        }
        Request::RemoveItems { group, handles } => {
            if let Some(group) = server.groups.get_mut(&group) {
                handles.iter().for_each(|handle| drop(group.items.remove(handle)));
            }
            Reply::Done
        }
        Request::Refresh { group } => {
            if let Some(group) = server.groups.get_mut(&group) {
                group.items.values_mut().for_each(|(_, was_sent)| *was_sent = false);
            }
            Reply::Done
        }
    }
}

/// The relay with this configuration, and this program as the worker of each of its DA servers.
fn relay(config: &str) {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let config = config::load(Some(Path::new(config))).unwrap_or_else(|faults| panic!("{faults}"));
    let program = std::env::current_exe().unwrap();
    let held = config.servers().map(|server| Held {
        server: server.clone(),
        program: program.clone(),
        class: server.title().into(),
        about: "scripted".into(),
        more: Vec::new(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let tasks = Tasks::new("relay");
    let stop = tasks.stop_signal();
    runtime.block_on(run::run(&config, held.collect(), Clock::real(), &stop)).unwrap();
}
