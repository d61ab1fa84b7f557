//! The queue against a model: whatever happens in whatever order, nothing is lost that was committed, nothing is invented,
//! nothing is given twice unless it was not settled, and the counters are exact.
//!
//! The model knows, for each length that the journal had after a commit, what is owed if everything behind it is gone.
//! So a power cut is a journal that is cut anywhere.

use super::writer::Writer;
use super::*;
use crate::model::{TagId, Value};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::time::{Duration, UNIX_EPOCH};

#[derive(Clone, Debug)]
enum Step {
    /// Tag, time, owed, kept.
    Append(Vec<(u8, i64, bool, bool)>),
    Commit,
    /// A commit that the disk refuses.
    Fail,
    Rewind,
    /// What the tail has.
    Live,
    /// So many of the live rows that have not been settled.
    Settle(usize),
    /// So many; and a tag that cannot be said now, if it is one of the tags.
    Backlog(usize, u8),
    /// Of the live rows that have not been settled those of a tag.
    Park(u8),
    Unpark,
    /// One of the chunks that have not been settled.
    SettleChunk(prop::sample::Index),
    Seal,
    /// And after that a power cut, before the journal that was sealed is removed.
    SealAndCut,
    /// To a half of the bytes.
    Retain,
    Restart,
    /// And of the journal so much is left.
    Crash(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0..4u8, 0..50i64, prop::bool::weighted(0.8), any::<bool>());
    let step = prop_oneof![
        8 => prop::collection::vec(row, 1..8).prop_map(Step::Append),
        8 => Just(Step::Commit),
        2 => Just(Step::Fail),
        2 => Just(Step::Rewind),
        5 => Just(Step::Live),
        4 => (1..10usize).prop_map(Step::Settle),
        5 => (1..10usize, 0..12u8).prop_map(|(at_most, unwanted)| Step::Backlog(at_most, unwanted)),
        3 => (0..4u8).prop_map(Step::Park),
        1 => Just(Step::Unpark),
        4 => any::<prop::sample::Index>().prop_map(Step::SettleChunk),
        3 => Just(Step::Seal),
        1 => Just(Step::SealAndCut),
        1 => Just(Step::Retain),
        1 => Just(Step::Restart),
        2 => any::<prop::sample::Index>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..100)
}

/// What is on disk, by what is in the rows: a number that no other has.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// With their generations.
    owed: BTreeMap<i64, u64>,
    kept: BTreeMap<i64, u64>,
}

struct World {
    folder: tempfile::TempDir,
    store: Store,
    writer: Writer,
    tail: Option<Tail>,
    next: i64,
    /// Appended since the last commit: what is in the row, whether it is owed, whether it is kept.
    appended: Vec<(i64, bool, bool)>,
    /// Refused by the disk, and not settled.
    refused: BTreeSet<i64>,
    /// Rows up to here have been offered to the uplink.
    offered: i64,
    disk: Disk,
    /// Since the journal was begun: its length, and what is on disk up to there.
    commits: Vec<(u64, Disk)>,
    /// Expected from the tail.
    coming: Vec<i64>,
    /// By the store's numbers.
    live: BTreeMap<u64, i64>,
    chunks: Vec<(Token, Vec<i64>)>,
    parked: BTreeSet<i64>,
    /// The backlog may have parked these.
    passed: BTreeSet<i64>,
    /// Of each row.
    tags: BTreeMap<i64, u8>,
    settled: u64,
    dropped: u64,
}

fn open(folder: &std::path::Path) -> (Store, Writer) {
    let config = Config { max_age: Duration::MAX, ..Config::default() };
    let store = Store::new(config, folder.into(), Clock::simulated(UNIX_EPOCH));
    let mut writer = Writer::new(store.0.clone());
    writer.tick();
    (store, writer)
}

/// For whoever has the turn.
fn chunk(store: &Store, at_most: usize, is_wanted: impl Fn(&TagName) -> bool) -> Option<Chunk> {
    let epoch = store.0.queue().epoch();
    store.backlog(epoch, at_most, &is_wanted).unwrap()
}

fn name(tag: u8) -> TagName {
    TagName::new(&format!("t/{tag}")).unwrap()
}

fn content(value: &Value) -> i64 {
    if let Value::Int64(content) = value { *content } else { panic!("{value:?}") }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, writer) = open(folder.path());
        let mut world = Self {
            folder,
            store,
            writer,
            tail: None,
            next: 0,
            appended: Vec::new(),
            refused: BTreeSet::new(),
            offered: 0,
            disk: Disk::default(),
            commits: Vec::new(),
            coming: Vec::new(),
            live: BTreeMap::new(),
            chunks: Vec::new(),
            parked: BTreeSet::new(),
            passed: BTreeSet::new(),
            tags: BTreeMap::new(),
            settled: 0,
            dropped: 0,
        };
        world.note();
        world
    }

    fn generation(&self) -> u64 {
        self.writer.journal.as_ref().unwrap().generation
    }

    /// What a power cut would leave now.
    fn note(&mut self) {
        let length = self.writer.journal.as_ref().unwrap().len();
        self.commits.retain(|(before, _)| *before < length);
        self.commits.push((length, self.disk.clone()));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(rows) => self.append(rows),
            Step::Commit => self.commit(),
            Step::Fail => self.fail(),
            Step::Rewind => self.rewind(),
            Step::Live => self.take_live(),
            Step::Settle(count) => self.settle(count),
            Step::Backlog(at_most, unwanted) => drop(self.backlog(at_most, unwanted)),
            Step::Park(tag) => {
                let numbers = self.live.iter().filter(|(_, row)| self.tags[row] == tag).map(|(number, _)| *number);
                let numbers: Vec<u64> = numbers.collect();
                self.store.park(numbers.iter().copied());
                self.parked.extend(numbers.iter().filter_map(|number| self.live.remove(number)));
            }
            Step::Unpark => {
                self.store.unpark();
                self.parked.clear();
                self.passed.clear();
            }
            Step::SettleChunk(index) if !self.chunks.is_empty() => {
                let (token, rows) = self.chunks.remove(index.index(self.chunks.len()));
                self.store.settle_chunk(&token);
                self.settled(rows);
            }
            Step::SettleChunk(_) => {}
            Step::Seal => self.seal(),
            Step::SealAndCut => {
                let journal = self.folder.path().join(format!("journal-{:016x}", self.generation()));
                let bytes = fs::read(&journal).unwrap();
                self.seal();
                fs::write(&journal, bytes).unwrap();
                self.reopen(None);
            }
            Step::Retain => self.retain(),
            Step::Restart => {
                self.commit();
                self.reopen(None);
            }
            Step::Crash(index) => self.reopen(Some(index)),
        }
        let state = self.store.queue();
        let waiting = (self.disk.owed.len() + self.refused.len()) as u64;
        assert_eq!((state.waiting, state.dropped, state.lost), (waiting, self.dropped, 0));
        assert_eq!(state.settled, self.settled);
        assert_eq!(state.oldest.is_some(), waiting > 0);
    }

    fn append(&mut self, rows: Vec<(u8, i64, bool, bool)>) {
        let (next, appended, tags) = (&mut self.next, &mut self.appended, &mut self.tags);
        self.store.append(rows.into_iter().map(|(tag, time, is_owed, is_kept)| {
            *next += 1;
            appended.push((*next, is_owed, is_kept));
            tags.insert(*next, tag);
            let sample = Sample::good(TagId(tag.into()), Value::Int64(*next), Timestamp::from_ticks(time));
            Arrival { tag: name(tag), sample, mark: *next as u64, is_owed, is_kept }
        }));
    }

    /// New rows reach the tail, written or not. Returns them.
    fn offer(&mut self) -> Vec<i64> {
        let fresh = self.appended.iter().filter(|(row, is_owed, _)| *is_owed && *row > self.offered);
        let fresh: Vec<_> = fresh.map(|(row, ..)| *row).collect();
        if self.tail.is_some() {
            self.coming.extend(&fresh);
        }
        self.offered = self.next;
        fresh
    }

    fn commit(&mut self) {
        let fresh = self.offer();
        self.writer.tick();
        assert_eq!(self.store.state().is_writing, Some(true), "{:?}", self.store.state());
        let generation = self.generation();
        let kept = std::mem::take(&mut self.appended).into_iter().filter(|(.., is_kept)| *is_kept);
        self.disk.kept.extend(kept.map(|(row, ..)| (row, generation)));
        let owed = std::mem::take(&mut self.refused).into_iter().chain(fresh);
        self.disk.owed.extend(owed.map(|row| (row, generation)));
        self.note();
    }

    fn fail(&mut self) {
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        std::mem::swap(&mut self.writer.journal.as_mut().unwrap().file, &mut full);
        let fresh = self.offer();
        self.writer.tick();
        std::mem::swap(&mut self.writer.journal.as_mut().unwrap().file, &mut full);
        if self.store.state().is_writing == Some(false) {
            self.refused.extend(fresh);
        } else {
            let needs_no_disk = |(row, _, is_kept): &(i64, bool, bool)| !is_kept && !self.refused.contains(row);
            assert!(fresh.is_empty() && self.appended.iter().all(needs_no_disk));
            self.appended.clear();
        }
    }

    fn rewind(&mut self) {
        self.tail = Some(self.store.rewind());
        self.coming.clear();
        self.live.clear();
        self.chunks.clear();
        self.parked.clear();
        self.passed.clear();
    }

    fn take_live(&mut self) {
        let Some(tail) = &mut self.tail else { return };
        let mut rows = Vec::new();
        while let Some(batch) = tail.try_next() {
            rows.extend(batch);
        }
        let got: Vec<_> = rows.iter().map(|row| content(&row.sample.value)).collect();
        assert_eq!(got, std::mem::take(&mut self.coming), "each once, in the order of arrival");
        assert!(rows.iter().all(|row| row.mark == content(&row.sample.value) as u64));
        self.live.extend(rows.iter().zip(got).map(|(row, content)| (row.number, content)));
    }

    fn settle(&mut self, count: usize) {
        let Some((&first, _)) = self.live.first_key_value() else { return };
        let last = *self.live.keys().nth(count.min(self.live.len()) - 1).unwrap();
        self.store.settle(first..last + 1);
        let left = self.live.split_off(&(last + 1));
        let rows = std::mem::replace(&mut self.live, left).into_values().collect();
        self.settled(rows);
    }

    /// Those that have not been dropped since.
    fn settled(&mut self, rows: Vec<i64>) {
        for row in rows {
            let was_owed = self.disk.owed.remove(&row).is_some() | self.refused.remove(&row);
            self.settled += u64::from(was_owed);
        }
    }

    /// Without rows of a tag. `None` if there is nothing; perhaps nothing if there was only what is unwanted.
    fn backlog(&mut self, at_most: usize, unwanted: u8) -> Option<Vec<i64>> {
        let with_the_uplink: BTreeSet<i64> = (self.live.values().copied())
            .chain(self.parked.iter().copied())
            .chain(self.coming.iter().copied())
            .chain(self.chunks.iter().flat_map(|(_, rows)| rows.iter().copied()))
            .collect();
        let waiting = |row: &&i64| !with_the_uplink.contains(row);
        let written: BTreeMap<i64, u64> = self
            .disk
            .owed
            .iter()
            .filter(|(row, _)| waiting(row))
            .map(|(row, generation)| (*row, *generation))
            .collect();
        let unwritten: BTreeSet<i64> = self.refused.iter().filter(waiting).copied().collect();
        let is_passed = |row: &&i64| self.tags[*row] == unwanted || self.passed.contains(*row);
        let given = chunk(&self.store, at_most, |tag| *tag != name(unwanted));
        let left = || written.keys().chain(&unwritten).find(|row| !is_passed(row));
        let Some(Chunk { rows, token }) = given else {
            assert_eq!(left(), None, "{written:?} and {unwritten:?} were not given");
            return None;
        };
        assert!(rows.len() <= at_most && rows.iter().all(|(tag, _)| *tag != name(unwanted)));
        assert!(rows.is_sorted_by_key(|(_, record)| record.time()));
        let rows: Vec<i64> = rows.iter().map(|(_, record)| content(&record.value)).collect();
        if let Some(first) = rows.first() {
            let oldest = written.get(first);
            let is_there = |row: &i64| written.get(row) == oldest && (oldest.is_some() || unwritten.contains(row));
            assert!(rows.iter().all(is_there), "{rows:?} of {written:?} and {unwritten:?}");
            let older = written.iter().filter(|(_, generation)| oldest.is_none_or(|oldest| *generation < oldest));
            assert_eq!(older.map(|(row, _)| row).find(|row| !is_passed(row)), None, "before {rows:?}");
        }
        let passed = written.keys().chain(&unwritten).copied().filter(|row| self.tags[row] == unwanted);
        self.passed.extend(passed);
        self.passed.retain(|row| !rows.contains(row));
        assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len(), "once");
        self.chunks.push((token, rows.clone()));
        Some(rows)
    }

    fn seal(&mut self) {
        self.writer.seal().unwrap();
        self.commits.clear();
        self.note();
    }

    fn retain(&mut self) {
        let bytes = |world: &Self| -> BTreeMap<u64, u64> {
            let found = world.store.0.archive().unwrap().generations().unwrap();
            found.into_iter().map(|(number, meta)| (number, meta.bytes)).collect()
        };
        let before = bytes(self);
        self.writer.retain_within(before.values().sum::<u64>() / 2).unwrap();
        let after = bytes(self);
        let is_gone = |generation: &u64| before.contains_key(generation) && !after.contains_key(generation);
        self.dropped += self.disk.owed.values().filter(|generation| is_gone(generation)).count() as u64;
        for disk in self.commits.iter_mut().map(|(_, disk)| disk).chain([&mut self.disk]) {
            disk.owed.retain(|_, generation| !is_gone(generation));
            disk.kept.retain(|_, generation| !is_gone(generation));
        }
    }

    /// Another process. After a crash, of the journal as much is left as the index says.
    fn reopen(&mut self, crash: Option<prop::sample::Index>) {
        let path = self.folder.path().join(format!("journal-{:016x}", self.generation()));
        if let Some(index) = crash {
            let length = fs::metadata(&path).unwrap().len();
            let left = index.index(length as usize + 1) as u64;
            File::options().write(true).open(&path).unwrap().set_len(left).unwrap();
            let (_, disk) = self.commits.iter().rfind(|(length, _)| *length <= left).unwrap_or(&self.commits[0]);
            self.disk = disk.clone();
        }
        self.store.0.set_archive(None);
        (self.store, self.writer) = open(self.folder.path());
        (self.tail, self.settled) = (None, 0);
        self.appended.clear();
        self.refused.clear();
        self.coming.clear();
        self.live.clear();
        self.chunks.clear();
        self.parked.clear();
        self.passed.clear();
        self.note();
    }

    /// Everything that is owed comes, and then no more.
    fn drain(&mut self) {
        self.commit();
        self.rewind();
        let owed: BTreeSet<i64> = self.disk.owed.keys().copied().collect();
        let mut got = Vec::new();
        while let Some(rows) = self.backlog(7, u8::MAX) {
            got.extend(rows);
        }
        assert_eq!(got.len(), owed.len());
        assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), owed);
        let all = Timestamp::from_ticks(i64::MIN)..=Timestamp::from_ticks(i64::MAX);
        let scans = (0..4).filter_map(|tag| self.store.scan(&name(tag), all.clone(), Direction::Forward).unwrap());
        let there: BTreeSet<i64> = scans.flatten().map(|record| content(&record.unwrap().value)).collect();
        assert!(self.disk.kept.keys().all(|row| there.contains(row)), "the history has what is kept");
        for (token, rows) in std::mem::take(&mut self.chunks) {
            self.store.settle_chunk(&token);
            self.settled(rows);
        }
        assert_eq!(self.store.queue().waiting, 0);
        self.commit();
        self.reopen(None);
        assert_eq!((self.store.queue().waiting, chunk(&self.store, 1, |_| true).is_none()), (0, true));
        assert_eq!(self.store.queue().dropped, self.dropped, "counted over restarts");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_and_nothing_is_invented(steps in steps()) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        world.drain();
    }
}

fn owed(tag: u8, contents: impl IntoIterator<Item = i64>) -> impl Iterator<Item = Arrival> {
    contents.into_iter().map(move |content| Arrival {
        tag: name(tag),
        sample: Sample::good(TagId(0), Value::Int64(content), Timestamp::from_ticks(content)),
        mark: 0,
        is_owed: true,
        is_kept: false,
    })
}

/// The whole backlog, not settled.
fn backlog(store: &Store) -> Vec<i64> {
    let chunks = std::iter::from_fn(|| chunk(store, 1000, |_| true));
    chunks.flat_map(|chunk| chunk.rows).map(|(_, record)| content(&record.value)).collect()
}

#[test]
fn what_the_tail_has_no_room_for_is_in_the_backlog_and_settling_around_it_does_not_touch_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = open(folder.path());
    let mut tail = store.rewind();
    for group in 0..6 {
        // Four megabytes, of 16 that fit.
        let large = |n: i64| Arrival {
            sample: Sample::good(TagId(0), Value::string("x".repeat(200_000)), Timestamp::from_ticks(group * 20 + n)),
            ..owed(0, [0]).next().unwrap()
        };
        store.append((0..20).map(large));
        writer.tick();
    }
    let mut live: Vec<Live> = Vec::new();
    while let Some(rows) = tail.try_next() {
        live.extend(rows);
    }
    store.append(owed(0, [1000]));
    writer.tick();
    live.extend(tail.try_next().unwrap());
    assert!((60..120).contains(&live.len()), "{}", live.len());
    store.settle(live[0].number..live[live.len() - 1].number + 1);
    let left = 121 - live.len() as u64;
    assert_eq!(store.queue().waiting, left);
    let chunks = std::iter::from_fn(|| chunk(&store, 1000, |_| true));
    let rows: Vec<_> = chunks.flat_map(|chunk| chunk.rows).collect();
    assert_eq!(rows.len() as u64, left);
    let times: BTreeSet<i64> = rows.iter().map(|(_, record)| record.time().ticks()).collect();
    let live: BTreeSet<i64> = live.iter().map(|row| row.sample.server_time.ticks()).collect();
    assert!(live.is_disjoint(&times));
}

#[test]
fn what_the_disk_does_not_take_goes_to_the_uplink_and_is_lost_only_when_it_is_neither_written_nor_settled() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = open(folder.path());
    let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut tail = store.rewind();
    std::mem::swap(&mut writer.journal.as_mut().unwrap().file, &mut full);
    store.append(owed(0, 0..100));
    writer.tick();
    let live = tail.try_next().unwrap();
    assert_eq!(live.len(), 100);
    store.settle(live[0].number..live[40].number);
    // As many as fit while nothing is written: the 60 that were not settled go.
    writer.tick();
    store.append(owed(0, 100..100 + 65_536));
    writer.tick();
    assert_eq!((store.queue().waiting, store.queue().lost), (60 + 65_536, 0), "the uplink still has them");
    store.settle(live[40].number..live[60].number);
    let mut tail = store.rewind();
    assert_eq!((store.queue().waiting, store.queue().lost), (65_536, 40));
    assert_eq!(chunk(&store, 10, |_| true).unwrap().rows.len(), 10, "out of memory");
    assert!(tail.try_next().is_none());
    std::mem::swap(&mut writer.journal.as_mut().unwrap().file, &mut full);
    writer.tick();
    store.append(owed(0, [1_000_000]));
    writer.tick();
    assert_eq!(tail.try_next().unwrap().len(), 1, "what was offered once is not live again");
    drop(store.rewind());
    let expected: Vec<_> = (100..100 + 65_536).chain([1_000_000]).collect();
    assert_eq!(backlog(&store), expected);
    assert_eq!((store.queue().settled, store.queue().lost), (60, 40));
}

#[test]
fn a_disk_that_comes_back_late_has_its_old_rows_beside_the_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("history"), folder.path().join("away"));
    let (store, mut writer) = open(&path);
    store.append(owed(0, 0..5));
    writer.tick();
    writer.seal().unwrap();
    store.append(owed(1, 5..8));
    writer.tick();
    store.0.set_archive(None);
    drop(writer);
    fs::rename(&path, &away).unwrap();
    fs::write(&path, "no folder").unwrap();

    let (store, mut writer) = open(&path);
    let mut tail = store.rewind();
    store.append(owed(2, 8..12));
    writer.tick();
    assert_eq!(store.state().is_writing, Some(false));
    let live = tail.try_next().unwrap();
    assert_eq!(live.len(), 4);
    store.settle(live[1].number..live[2].number);
    fs::remove_file(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    writer.tick();
    assert_eq!((store.state().is_writing, store.queue().waiting), (Some(true), 11));
    assert_eq!(backlog(&store), [0, 1, 2, 3, 4, 5, 6, 7], "not what the tail has");
    drop(store.rewind());
    assert_eq!(backlog(&store), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]);
    // And so it is for the next process.
    store.0.set_archive(None);
    let (store, _writer) = open(&path);
    assert_eq!(backlog(&store), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]);
}

#[test]
fn what_is_damaged_is_counted_as_lost_and_the_rest_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = open(folder.path());
    for group in 0..3 {
        let text = Value::string(format!("this is group {group}"));
        let sample = Sample::good(TagId(0), text, Timestamp::from_ticks(group));
        store.append([Arrival { sample, ..owed(0, [0]).next().unwrap() }].into_iter());
        store.append(owed(1, [group]));
        writer.tick();
        writer.seal().unwrap();
    }
    store.append(owed(2, [7]));
    writer.tick();
    store.0.set_archive(None);
    drop(writer);
    let path = folder.path().join("archive.redb");
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"this is group 1")).collect();
    places.iter().for_each(|&at| bytes[at] = b'T');
    fs::write(&path, bytes).unwrap();
    let (store, writer) = open(folder.path());
    let rows: Vec<_> = std::iter::from_fn(|| chunk(&store, 2, |_| true)).flat_map(|chunk| chunk.rows).collect();
    assert_eq!(rows.len(), 6);
    assert_eq!((store.queue().waiting, store.queue().lost), (6, 1));

    // The whole archive.
    store.0.set_archive(None);
    drop(writer);
    fs::write(&path, "this is no database").unwrap();
    let (store, _writer) = open(folder.path());
    assert_eq!(backlog(&store), [7], "the journal is there");
}

#[test]
fn a_generation_that_is_sealed_while_it_is_being_read_is_given_and_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = open(folder.path());
    store.append(owed(0, 0..100));
    writer.tick();
    std::thread::scope(|scope| {
        let mut recent = store.0.recent();
        let reader = scope.spawn(|| backlog(&store));
        // It comes as far as it does without what is recent.
        std::thread::sleep(Duration::from_millis(200));
        let debts = store.0.queue().debts(0);
        let rows = |series| recent.rows(series, |_| true);
        store.0.archive().unwrap().seal(0, &[(0, "t/0")], rows, &debts).unwrap();
        recent.clear(1);
        drop(recent);
        assert_eq!(reader.join().unwrap(), (0..100).collect::<Vec<_>>());
    });
    assert_eq!((store.queue().waiting, store.queue().lost), (100, 0));
}

#[test]
fn what_cannot_be_said_waits_on_the_disk_and_lets_the_rest_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = open(folder.path());
    for group in 0..3 {
        store.append(owed(0, [group * 10]).chain(owed(1, [group * 10 + 1])));
        writer.tick();
        writer.seal().unwrap();
    }
    let mut tail = store.rewind();
    store.append(owed(0, [30]).chain(owed(1, [31])).chain(owed(0, [32])));
    writer.tick();
    let live = tail.try_next().unwrap();
    store.park([live[0].number, live[2].number].into_iter());
    store.settle(live[0].number..live[2].number + 1);
    assert_eq!((store.queue().settled, store.queue().waiting), (1, 8), "what is parked is not settled with the rest");
    let others = || {
        let chunks = std::iter::from_fn(|| chunk(&store, 10, |tag| *tag != name(0)));
        chunks.flat_map(|chunk| chunk.rows).map(|(_, record)| content(&record.value)).collect::<Vec<_>>()
    };
    assert_eq!(others(), [1, 11, 21]);
    assert!(others().is_empty() && backlog(&store).is_empty(), "it is not asked for again and again");
    store.unpark();
    assert_eq!(backlog(&store), [0, 10, 20, 30, 32], "from the oldest");
    store.rewind();
    assert_eq!(others(), [1, 11, 21]);
    // Nor does a restart lose it.
    writer.tick();
    store.0.set_archive(None);
    let (store, _writer) = open(folder.path());
    assert_eq!(store.queue().waiting, 8);
}

#[test]
fn an_uplink_that_has_ended_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = open(folder.path());
    store.append(owed(0, 0..3));
    writer.tick();
    let before = store.rewind();
    let _tail = store.rewind();
    assert!(store.backlog(before.epoch(), 10, &|_| true).unwrap().is_none());
    assert_eq!(backlog(&store), [0, 1, 2]);
}

#[test]
fn a_sealing_that_failed_and_reached_the_disk_all_the_same_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = open(folder.path());
    store.append(owed(0, 0..10));
    writer.tick();
    // All of `Writer::seal` but that it knows.
    let debts = store.0.queue().debts(0);
    let rows = |series| store.0.recent().rows(series, |_| true);
    store.0.archive().unwrap().seal(0, &[(0, "t/0")], rows, &debts).unwrap();
    store.0.set_archive(None);
    writer.tick();
    assert_eq!(store.queue().waiting, 10);
    drop(store.rewind());
    let Chunk { rows, token } = chunk(&store, 10, |_| true).unwrap();
    assert_eq!(rows.len(), 10);
    store.settle_chunk(&token);
    store.append(owed(0, [10]));
    writer.tick();
    writer.seal().unwrap();
    store.0.set_archive(None);
    let (store, _writer) = open(folder.path());
    assert_eq!(backlog(&store), [10], "what was settled does not come again");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_removes_nothing_that_is_owed() {
    let folder = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let config = Config { max_age: day, ..Config::default() };
    // The rows came in 1970, as their times say.
    let store = Store::new(config, folder.path().into(), Clock::simulated(UNIX_EPOCH + 365 * day));
    let mut writer = Writer::new(store.0.clone());
    store.append(owed(0, 0..5).map(|arrival| Arrival { is_owed: false, is_kept: true, ..arrival }));
    writer.tick();
    writer.seal().unwrap();
    assert_eq!(store.state().dropped_by_age, 5, "nobody waits for what is only history");
    store.append(owed(0, 5..10));
    writer.tick();
    writer.seal().unwrap();
    tokio::time::advance(day / 2).await;
    writer.retain_within(u64::MAX).unwrap();
    assert_eq!((store.queue().waiting, store.queue().dropped), (5, 0));
    tokio::time::advance(day / 2).await;
    writer.retain_within(u64::MAX).unwrap();
    assert_eq!((store.queue().waiting, store.queue().dropped), (0, 5), "as old as that it is by any clock");
}

#[test]
fn while_the_disk_takes_nothing_the_uplink_has_what_is_much_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { commit_interval: Duration::from_secs(60), max_age: Duration::MAX, ..Config::default() };
    let store = Store::new(config, folder.path().into(), Clock::simulated(UNIX_EPOCH));
    let mut writer = Writer::new(store.0.clone());
    writer.tick();
    let mut tail = store.rewind();
    writer.journal.as_mut().unwrap().file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    store.append(owed(0, [0]));
    writer.tick();
    assert_eq!((store.state().is_writing, tail.try_next().unwrap().len()), (Some(false), 1));
    let tasks = crate::base::Tasks::new("test");
    let stop = tasks.stop_signal();
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.wait(&stop));
        let mut came = 0;
        // Twice as many as fit in memory.
        for group in 0..8 {
            store.append(owed(0, group * 20_000..(group + 1) * 20_000));
            while came < (group + 1) * 20_000 && began.elapsed() < Duration::from_secs(50) {
                let rows = tail.try_next().unwrap_or_default();
                came += rows.len() as i64;
                rows.last().inspect(|last| store.settle(0..last.number + 1));
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        drop(tasks);
        assert_eq!((came, store.queue().lost), (160_000, 0));
    });
}
