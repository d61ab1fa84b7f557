//! What the store costs, for the history and for the uplink: CPU, bytes to the block device, bytes on the disk, memory.
//!
//! `cargo bench --bench store` (or scripts/bench). Below target/, because bytes to a tmpfs are none. Figures come from the
//! kernel: /proc/self/io counts what goes to the device, the page cache's pages whole; so a commit of few samples costs a
//! page of 4 KiB.

#![allow(clippy::print_stdout, reason = "its purpose")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use vedette::base::{Clock, Tasks};
use vedette::model::{Sample, TagId, TagName, Timestamp, Value};
use vedette::store::{Arrival, Config, Direction, Store};

#[tokio::main]
async fn main() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench-store");
    let folder = Path::new(folder);
    println!("100 Doubles with one digit behind the point, each second; each commit one second, 20 ms apart:");
    run(folder, 100, 2000, |last| ((last + fastrand::f64() - 0.5) * 10.0).round() / 10.0).await;
    println!("100 Doubles of noise, likewise:");
    run(folder, 100, 1000, |_| fastrand::f64()).await;
    println!("10 Doubles, likewise:");
    run(folder, 10, 1000, |last| ((last + fastrand::f64() - 0.5) * 10.0).round() / 10.0).await;
    println!("1000 Doubles, 10 times a second; each commit 1000 samples:");
    run(folder, 1000, 1000, |last| ((last + fastrand::f64() - 0.5) * 10.0).round() / 10.0).await;
    flood(folder, false).await;
    println!("The same, owed to the uplink, which takes, settles and goes on:");
    flood(folder, true).await;
    println!("And without an uplink; then all of it as backlog:");
    backlog(folder).await;
    let _ = fs::remove_dir_all(folder);
}

fn open(folder: &Path, interval: Duration) -> (Store, Tasks) {
    let _ = fs::remove_dir_all(folder);
    let config = Config { commit_interval: interval, max_age: Duration::MAX, ..Config::default() };
    let store = Store::new(config, folder.into(), Clock::real());
    let tasks = Tasks::new("store");
    let writer = store.clone();
    tasks.spawn_thread("store", move |stop| writer.run(stop));
    (store, tasks)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn names(tags: usize) -> Vec<TagName> {
    (0..tags).map(|tag| TagName::new(&format!("bench/{tag}")).expect("a good name")).collect()
}

async fn run(folder: &Path, tags: usize, commits: i64, next: impl Fn(f64) -> f64) {
    let (store, tasks) = open(folder, Duration::from_millis(1));
    until(|| store.state().is_writing == Some(true)).await;
    let (names, mut values) = (names(tags), vec![20.0; tags]);
    let (cpu, written) = (cpu(), proc("io", "write_bytes:"));
    for second in 0..commits {
        let time = Timestamp::from_ticks(second * 10_000_000 + fastrand::i64(0..10_000) * 10);
        let samples: Vec<Sample> = values
            .iter_mut()
            .map(|value| {
                *value = next(*value);
                Sample::good(TagId(0), Value::Double(*value), time)
            })
            .collect();
        let before = store.state().samples;
        store.append(names.iter().zip(&samples).map(|(name, sample)| Arrival::kept(name, sample)));
        until(|| store.state().samples >= before + tags as u64).await;
    }
    let samples = commits * tags as i64;
    let (cpu, written) = (crate::cpu() - cpu, proc("io", "write_bytes:") - written);
    tasks.stop(Duration::from_secs(5)).await;
    println!(
        "  {:.2} us CPU, {:.1} bytes to the device, {:.2} bytes on the disk for each of {samples} samples; {} kB resident at the most",
        cpu * 1e6 / samples as f64,
        written as f64 / samples as f64,
        on_disk(folder) as f64 / samples as f64,
        proc("status", "VmHWM:")
    );
}

fn owed(name: &TagName, sample: &Sample, is_owed: bool) -> Arrival {
    Arrival { is_owed, is_kept: !is_owed, ..Arrival::kept(name, sample) }
}

/// What was not sent: into the store, and out of it.
async fn backlog(folder: &Path) {
    let (store, tasks) = open(folder, Duration::from_secs(1));
    until(|| store.state().is_writing == Some(true)).await;
    let (names, mut values, seconds) = (names(100), vec![20.0; 100], 20_000);
    let (began, before, written) = (Instant::now(), cpu(), proc("io", "write_bytes:"));
    for second in 0..seconds {
        let time = Timestamp::from_ticks(second * 10_000_000 + fastrand::i64(0..10_000) * 10);
        store.append(names.iter().zip(&mut values).map(|(name, value)| {
            *value = ((*value + fastrand::f64() - 0.5) * 10.0).round() / 10.0;
            owed(name, &Sample::good(TagId(0), Value::Double(*value), time), true)
        }));
        until(|| store.queue().waiting + 40_000 > second as u64 * 100).await;
    }
    let samples = seconds as u64 * 100;
    until(|| store.queue().waiting == samples).await;
    let (cpu_in, written) = (cpu() - before, proc("io", "write_bytes:") - written);
    println!(
        "  in: {:.0} a second, {:.2} us CPU, {:.2} bytes to the device, {:.2} bytes on the disk for each of {samples} samples",
        samples as f64 / began.elapsed().as_secs_f64(),
        cpu_in * 1e6 / samples as f64,
        written as f64 / samples as f64,
        on_disk(folder) as f64 / samples as f64,
    );
    let week = on_disk(folder) as f64 * 7.0 * 86_400.0 / seconds as f64;
    println!("  7 days of 100 tags at 1 Hz, scaled up from {seconds} s: {:.0} MB", week / 1e6);
    let (began, before) = (Instant::now(), cpu());
    let epoch = store.rewind().epoch();
    let mut count = 0;
    while let Some(chunk) = store.backlog(epoch, 500, &|_| true).expect("it is open") {
        count += chunk.rows.len() as u64;
        store.settle_chunk(&chunk.token);
    }
    assert_eq!((count, store.queue().waiting), (samples, 0), "all of it, once");
    let (cpu, seconds) = ((cpu() - before) * 1e6 / count as f64, began.elapsed().as_secs_f64());
    println!("  out: {:.0} a second, {cpu:.2} us CPU each", count as f64 / seconds);
    tasks.stop(Duration::from_secs(5)).await;
}

/// As fast as it takes them.
async fn flood(folder: &Path, is_owed: bool) {
    let (store, tasks) = open(folder, Duration::from_secs(1));
    until(|| store.state().is_writing == Some(true)).await;
    let (names, mut tail) = (names(100), store.rewind());
    let (began, cpu) = (Instant::now(), cpu());
    let batches = 10_000i64;
    for batch in 0..batches {
        let time = Timestamp::from_ticks(batch * 100_000);
        let sample = Sample::good(TagId(0), Value::Double((batch % 1000) as f64 / 10.0), time);
        store.append(names.iter().map(|name| owed(name, &sample, is_owed)));
        // What is pending is bounded, and what does not fit is lost.
        loop {
            while let Some(rows) = tail.try_next() {
                store.settle(rows[0].number..rows[rows.len() - 1].number + 1);
            }
            let done = if is_owed { store.queue().settled } else { store.state().samples };
            if done + 40_000 > batch as u64 * 100 && (batch + 1 < batches || done >= batches as u64 * 100 - 100) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let (state, samples) = (store.state(), batches as f64 * 100.0);
    println!(
        "a million samples as fast as they go: {:.0} a second, {:.2} us CPU each, {} lost, {} kB resident at the most",
        samples / began.elapsed().as_secs_f64(),
        (crate::cpu() - cpu) * 1e6 / samples,
        state.lost,
        proc("status", "VmHWM:")
    );
    if is_owed {
        tasks.stop(Duration::from_secs(5)).await;
        return;
    }
    let (began, range) = (Instant::now(), Timestamp::from_ticks(0)..=Timestamp::from_ticks(i64::MAX));
    let scan = store.scan(&names[7], range, Direction::Forward).expect("it is open").expect("it is known");
    let count = scan.inspect(|record| assert!(record.is_ok(), "it can be read")).count();
    println!("read {count} of one tag: {:.2} us each", began.elapsed().as_secs_f64() * 1e6 / count as f64);

    let (store_again, began) = (open_again(folder, tasks).await, Instant::now());
    until(|| store_again.0.state().is_writing == Some(true)).await;
    println!("opened again in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    store_again.1.stop(Duration::from_secs(5)).await;
}

async fn open_again(folder: &Path, tasks: Tasks) -> (Store, Tasks) {
    tasks.stop(Duration::from_secs(5)).await;
    let store = Store::new(Config::default(), folder.into(), Clock::real());
    let tasks = Tasks::new("store");
    let writer = store.clone();
    tasks.spawn_thread("store", move |stop| writer.run(stop));
    (store, tasks)
}

fn on_disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(folder).expect("it was made").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Seconds, user and system.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn proc(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0)
}
