//! The store's promise to those who cut the power: what was synced is there, in order, once.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use vedette::base::{Clock, Tasks};
use vedette::model::{Sample, TagId, TagName, Timestamp, Value};
use vedette::store::{Arrival, Config, Direction, Store};

/// Set for the process that is to be killed: the folder it writes to.
const FOLDER: &str = "VEDETTE_TEST_STORE";
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

#[tokio::test]
async fn what_was_synced_survives_being_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut synced = 0;
    let rounds = std::env::var("STORE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100 + fastrand::u64(..300)));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let last = said.filter_map(|line| line.strip_prefix("synced ")?.parse().ok()).last();
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
