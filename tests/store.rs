//! The store's promises to those who cut the power: what was synced is there, in order, once; and what is owed to the uplink
//! is given to it, again only if it was not settled. `VEDETTE_CUTS` says how many cuts; 10 of each kind else.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use vedette::base::{Clock, Tasks};
use vedette::model::{Sample, TagId, TagName, Timestamp, Value};
use vedette::store::{Arrival, Config, Direction, Store};

/// Set for the process that is to be killed: the folder it writes to.
const FOLDER: &str = "VEDETTE_TEST_STORE";
/// And the first number that it appends.
const FROM: &str = "VEDETTE_TEST_FROM";
const GROUP: i64 = 1500;

fn open(folder: &Path) -> (Store, Tasks) {
    let config = Config { commit_interval: Duration::from_millis(10), ..Config::default() };
    let store = Store::new(config, folder.into(), Clock::real());
    let tasks = Tasks::new("store");
    let writer = store.clone();
    tasks.spawn_thread("store", move |stop| writer.run(stop));
    (store, tasks)
}

async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited for too long");
}

fn numbers(store: &Store) -> Vec<i64> {
    let range = Timestamp::from_ticks(i64::MIN)..=Timestamp::from_ticks(i64::MAX);
    let scan = store.scan(&TagName::new("n").unwrap(), range, Direction::Forward).unwrap();
    let number = |value| if let Value::Int64(number) = value { number } else { panic!("{value:?}") };
    scan.into_iter().flatten().map(|record| number(record.unwrap().value)).collect()
}

/// Appends 0, 1, 2 ... for ever and says how far they are on the disk. Does nothing when it runs as one of the tests.
#[tokio::test]
async fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (store, _tasks) = open(Path::new(&folder));
    until(|| store.state().is_writing == Some(true)).await;
    let (name, mut next) = (TagName::new("n").unwrap(), numbers(&store).len() as i64);
    let before = store.state().samples - next as u64;
    loop {
        let now = Clock::real().now().into();
        let samples: Vec<_> = (next..next + GROUP).map(|n| Sample::good(TagId(0), Value::Int64(n), now)).collect();
        next += GROUP;
        store.append(samples.iter().map(|sample| Arrival::kept(&name, sample)));
        until(|| store.state().samples >= before + next as u64).await;
        eprintln!("synced {next}");
    }
}

fn cuts() -> u32 {
    std::env::var("VEDETTE_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// Runs one of the tests as a process of its own, kills it at some moment, and returns what it said until then.
fn killed(test: &str, folder: &Path, from: i64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .env(FROM, from.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    // Read meanwhile, because a pipe that is full would stop it.
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        said
    });
    std::thread::sleep(Duration::from_millis(100 + fastrand::u64(..400)));
    child.kill().unwrap();
    child.wait().unwrap();
    let said = said.join().unwrap();
    // What is behind the last line's end was cut off.
    let (whole, _) = said.rsplit_once('\n').unwrap_or_default();
    whole.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_was_synced_survives_being_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut synced = 0;
    for round in 0..cuts() {
        let said = killed("writer", folder.path(), 0);
        let last = said.iter().filter_map(|line| line.strip_prefix("synced ")?.parse().ok()).next_back();
        synced = last.unwrap_or(synced);

        let (store, tasks) = open(folder.path());
        until(|| store.state().is_writing == Some(true)).await;
        let numbers = numbers(&store);
        assert!(numbers.iter().enumerate().all(|(index, number)| index as i64 == *number), "in order in round {round}");
        assert!(numbers.len() as i64 >= synced, "{} of {synced} in round {round}", numbers.len());
        assert_eq!(numbers.len() as i64 % GROUP, 0, "whole groups");
        tasks.stop(Duration::from_secs(5)).await;
    }
    assert!(synced > 0);
    assert!(!folder.path().join("archive.redb.damaged").exists());
}

/// What comes from the store, in the words of the child: rows by what is in them.
fn say(what: &str, numbers: &[i64]) {
    let numbers: Vec<_> = numbers.iter().map(i64::to_string).collect();
    eprintln!("{what} {}", numbers.join(" "));
}

fn number(value: &Value) -> i64 {
    if let Value::Int64(number) = value { *number } else { panic!("{value:?}") }
}

/// An uplink that appends and takes for ever, and settles late. Does nothing when it runs as one of the tests.
#[tokio::test]
async fn uplink() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut next: i64 = std::env::var(FROM).unwrap().parse().unwrap();
    let (store, _tasks) = open(Path::new(&folder));
    until(|| store.state().is_writing == Some(true)).await;
    let mut tail = store.rewind();
    let names: Vec<_> = (0..3).map(|tag| TagName::new(&format!("n/{tag}")).unwrap()).collect();
    let mut live = std::collections::VecDeque::new();
    let (mut chunks, mut settled) = (Vec::new(), Vec::new());
    loop {
        eprintln!("appending {}", next + GROUP);
        let now = Clock::real().now().into();
        store.append((next..next + GROUP).map(|n| Arrival {
            tag: names[n as usize % names.len()].clone(),
            sample: Sample::good(TagId(0), Value::Int64(n), now),
            mark: 0,
            is_owed: true,
            is_kept: n % 2 == 0,
        }));
        next += GROUP;
        let mut came = 0;
        while came < GROUP as usize {
            let rows = tail.next().await.unwrap();
            came += rows.len();
            say("got", &rows.iter().map(|row| number(&row.sample.value)).collect::<Vec<_>>());
            live.extend(rows.into_iter().map(|row| (row.number, number(&row.sample.value))));
        }
        eprintln!("synced {next}");
        // Rows that were appended after a settling are synced, so that is, too.
        say("over", &std::mem::take(&mut settled));
        if let Some(chunk) = store.backlog(tail.epoch(), fastrand::usize(1..3000), &|_| true).unwrap() {
            let rows: Vec<_> = chunk.rows.iter().map(|(_, record)| number(&record.value)).collect();
            say("got", &rows);
            chunks.push((chunk.token, rows));
        }
        if fastrand::bool() {
            for (token, rows) in chunks.drain(..) {
                store.settle_chunk(&token);
                settled.extend(rows);
            }
            let some: Vec<_> = live.drain(..fastrand::usize(..=live.len())).collect();
            if let (Some((first, _)), Some((last, _))) = (some.first(), some.last()) {
                store.settle(*first..last + 1);
            }
            settled.extend(some.into_iter().map(|(_, content)| content));
        }
    }
}

#[tokio::test]
async fn what_is_owed_is_given_over_any_number_of_kills_and_not_again_once_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let mut next = 0;
    let (mut synced, mut got, mut over) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for round in 0..cuts() {
        let first = next;
        for line in killed("uplink", folder.path(), first) {
            let (word, numbers) = line.split_once(' ').unwrap_or_default();
            let numbers: Vec<i64> = numbers.split(' ').map_while(|number| number.parse().ok()).collect();
            match (word, &numbers[..]) {
                ("appending", [number]) => next = *number,
                ("synced", [number]) => synced.extend(number - GROUP..*number),
                ("got", numbers) => {
                    let again: Vec<_> = numbers.iter().filter(|number| over.contains(*number)).collect();
                    assert!(again.is_empty(), "{} came again in round {round}, first {:?}", again.len(), again[0]);
                    assert!(numbers.iter().all(|number| (0..next).contains(number)), "invented in round {round}");
                    got.extend(numbers.iter().copied());
                }
                ("over", numbers) => over.extend(numbers.iter().copied()),
                _ => {}
            }
        }
    }
    let (store, tasks) = open(folder.path());
    until(|| store.state().is_writing == Some(true)).await;
    let tail = store.rewind();
    let waiting = store.queue().waiting;
    let mut left = 0;
    while let Some(chunk) = store.backlog(tail.epoch(), 1000, &|_| true).unwrap() {
        let rows: Vec<_> = chunk.rows.iter().map(|(_, record)| number(&record.value)).collect();
        assert!(rows.iter().all(|row| !over.contains(row)));
        left += rows.len() as u64;
        got.extend(rows);
        store.settle_chunk(&chunk.token);
    }
    assert_eq!((left, store.queue().lost, store.queue().waiting), (waiting, 0, 0));
    assert_eq!(synced.difference(&got).count(), 0, "missing of {}", synced.len());
    assert!(!synced.is_empty() && !over.is_empty());
    eprintln!("{} synced, {} settled for good, {left} left at the end", synced.len(), over.len());
    tasks.stop(Duration::from_secs(5)).await;
}

/// A disk of 12 MiB, if this may be mounted here; else nothing can be said.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }

    fn remount(&self, options: &str) -> bool {
        let options = format!("remount,{options}");
        Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().unwrap().success()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_disk_that_is_full_or_read_only_is_said_and_what_came_meanwhile_is_written_later() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("NOT TESTED: a full disk, because nothing may be mounted here");
        return;
    };
    let folder = disk.0.path().join("history");
    let (store, tasks) = open(&folder);
    until(|| store.state().is_writing == Some(true)).await;
    let name = TagName::new("n").unwrap();
    let mut next = 0;
    let mut append = |count: i64| {
        let samples: Vec<_> =
            (next..next + count).map(|n| Sample::good(TagId(0), Value::Int64(n), Timestamp::from_ticks(n))).collect();
        next += count;
        store.append(samples.iter().map(|sample| Arrival::kept(&name, sample)));
        next
    };
    let first = append(100);
    until(|| numbers(&store).len() as i64 == first).await;

    let filler = disk.0.path().join("filler");
    let _ = std::fs::write(&filler, vec![1; 16 << 20]);
    let full = append(5000);
    until(|| store.state().is_writing == Some(false)).await;
    let reason = store.state().last_error.unwrap();
    assert!(reason.contains("No space left"), "{reason}");
    assert_eq!(numbers(&store).len() as i64, first, "what there is can be read");
    std::fs::remove_file(&filler).unwrap();
    until(|| store.state().is_writing == Some(true)).await;
    until(|| numbers(&store).len() as i64 == full).await;

    // What is open for writing keeps a file system from becoming read-only, so the store begins on it.
    tasks.stop(Duration::from_secs(5)).await;
    drop(store);
    assert!(disk.remount("ro"));
    let (store, tasks) = open(&folder);
    let samples: Vec<_> =
        (0..10).map(|n| Sample::good(TagId(0), Value::Int64(full + n), Timestamp::from_ticks(full + n))).collect();
    store.append(samples.iter().map(|sample| Arrival::kept(&name, sample)));
    until(|| store.state().is_writing == Some(false)).await;
    let reason = store.state().last_error.unwrap();
    assert!(reason.contains("Read-only"), "{reason}");
    assert!(disk.remount("rw"));
    until(|| store.state().is_writing == Some(true)).await;
    let all = numbers(&store);
    assert!(all.iter().enumerate().all(|(index, number)| index as i64 == *number));
    assert_eq!((all.len() as i64, store.state().lost), (full + 10, 0));
    tasks.stop(Duration::from_secs(5)).await;
}
