//! The store against what can happen to a disk.

use super::archive::{Archive, Counted};
use super::examine::examine;
use super::journal::{self, Entry};
use super::record::{Before, Row, put_row, row};
use super::wire::Reader;
use super::writer::Writer;
use super::*;
use crate::model::{
    Array, Body, DataType, DataValue, DiagnosticInfo, ExpandedNodeId, Identifier, LocalizedText, NodeId, QualifiedName,
    Quality, Status, Structure, TagId, Value,
};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

fn text() -> impl Strategy<Value = Option<Arc<str>>> {
    proptest::option::of(".{0,8}".prop_map(Arc::from))
}

fn node() -> impl Strategy<Value = NodeId> {
    let identifier = prop_oneof![
        any::<u32>().prop_map(Identifier::Numeric),
        text().prop_map(Identifier::String),
        any::<[u8; 16]>().prop_map(Identifier::Guid),
        any::<Option<Vec<u8>>>().prop_map(|bytes| Identifier::Opaque(bytes.map(Arc::from))),
    ];
    (any::<u16>(), identifier).prop_map(|(namespace, identifier)| NodeId { namespace, identifier })
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Empty),
        any::<bool>().prop_map(Value::Boolean),
        any::<i8>().prop_map(Value::SByte),
        any::<u8>().prop_map(Value::Byte),
        any::<i16>().prop_map(Value::Int16),
        any::<u16>().prop_map(Value::UInt16),
        any::<i32>().prop_map(Value::Int32),
        any::<u32>().prop_map(Value::UInt32),
        any::<i64>().prop_map(Value::Int64),
        any::<u64>().prop_map(Value::UInt64),
        any::<f32>().prop_map(Value::Float),
        any::<f64>().prop_map(Value::Double),
        (-1_000_000..1_000_000i32).prop_map(|v| Value::Double(f64::from(v) / 100.0)),
        (-1_000_000..1_000_000i32).prop_map(|v| Value::Float(v as f32 / 10.0)),
        Just(Value::Double(-0.0)),
    ]
}

fn other() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::String),
        text().prop_map(Value::XmlElement),
        any::<i64>().prop_map(|ticks| Value::DateTime(Timestamp::from_ticks(ticks))),
        any::<[u8; 16]>().prop_map(Value::Guid),
        any::<Option<Vec<u8>>>().prop_map(|bytes| Value::ByteString(bytes.map(Arc::from))),
        any::<u32>().prop_map(|code| Value::StatusCode(Status(code))),
        node().prop_map(|id| Value::NodeId(Arc::new(id))),
        (node(), text(), any::<u32>()).prop_map(|(node_id, namespace_uri, server_index)| {
            Value::ExpandedNodeId(Arc::new(ExpandedNodeId { node_id, namespace_uri, server_index }))
        }),
        (any::<u16>(), text())
            .prop_map(|(namespace, name)| Value::QualifiedName(Arc::new(QualifiedName { namespace, name }))),
        (text(), text()).prop_map(|(locale, text)| Value::LocalizedText(Arc::new(LocalizedText { locale, text }))),
        (node(), any::<Option<Vec<u8>>>()).prop_map(|(encoding, body)| {
            let body = body.map_or(Body::None, |bytes| Body::Binary(bytes.into()));
            Value::Structure(Arc::new(Structure { encoding, body }))
        }),
        (number(), any::<Option<u32>>(), any::<Option<i64>>(), any::<Option<u16>>()).prop_map(
            |(value, status, time, picoseconds)| {
                let (value, status) = (Some(value), status.map(Status));
                let source_time = time.map(Timestamp::from_ticks);
                Value::DataValue(Arc::new(DataValue {
                    value,
                    status,
                    source_time,
                    source_picoseconds: picoseconds,
                    ..DataValue::default()
                }))
            }
        ),
        (any::<Option<i32>>(), proptest::option::of(text())).prop_map(|(id, info)| {
            let inner = DiagnosticInfo { localized_text: id, ..DiagnosticInfo::default() };
            let inner = Some(Arc::new(inner));
            Value::DiagnosticInfo(Arc::new(DiagnosticInfo {
                additional_info: info,
                inner,
                ..DiagnosticInfo::default()
            }))
        }),
        proptest::collection::vec(any::<i32>().prop_map(Value::Int32), 6)
            .prop_map(|values| { Value::from(Array::new(DataType::Int32, values, Some([2, 3].into())).unwrap()) }),
        proptest::collection::vec(number().prop_map(|value| Value::Variant(Arc::new(value))), 0..3)
            .prop_map(|values| Value::from(Array::new(DataType::Variant, values, None).unwrap())),
    ]
}

/// Some of the same type in a row, as in life, and any times: clocks are set, and sources tell old values.
fn records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    let status = prop_oneof![6 => Just(Status::GOOD), 1 => any::<u32>().prop_map(Status)];
    let value = prop_oneof![3 => number(), 1 => other()];
    let time = prop_oneof![3 => 0..4i64, 1 => any::<i32>().prop_map(i64::from), 1 => any::<i64>()];
    let record = (value, status, time, prop_oneof![3 => Just(Some(0i64)), 1 => any::<Option<i64>>()], 1..20usize);
    let run = record.prop_map(|(value, status, time, late, count)| {
        let record = |step| {
            let time = time.wrapping_add(step * 10_000_000);
            let source_time = late.map(|_| Timestamp::from_ticks(time));
            let server_time = Timestamp::from_ticks(time.wrapping_add(late.unwrap_or(0)));
            Record { value: value.clone(), status, source_time, server_time }
        };
        (0..count as i64).map(record).collect::<Vec<_>>()
    });
    proptest::collection::vec(run, 0..most).prop_map(|runs| runs.concat())
}

/// Some owed, some kept, numbered as they come or not.
fn rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    let marks = proptest::collection::vec((any::<bool>(), any::<bool>(), prop_oneof![Just(1), 0..1u64 << 39]), 1..8);
    (records(most), marks).prop_map(|(records, marks)| {
        let mut next = 0;
        let row = |(record, (is_owed, is_kept, jump)): (Record, &(bool, bool, u64))| {
            next = (next + jump) % (1 << 40);
            Row { record, owed: is_owed.then_some(next), is_kept: *is_kept }
        };
        records.into_iter().zip(marks.iter().cycle()).map(row).collect()
    })
}

/// NaN is equal to itself here.
fn same(left: &[Record], right: &[Record]) -> bool {
    left == right || format!("{left:?}") == format!("{right:?}")
}

proptest! {
    #[test]
    fn rows_come_back(rows in rows(10)) {
        let (mut bytes, mut before) = (Vec::new(), Before::default());
        rows.iter().for_each(|row| put_row(&mut bytes, &mut before, row));
        let (mut reader, mut before) = (Reader::new(&bytes), Before::default());
        let back: Vec<_> = rows.iter().map(|_| row(&mut reader, &mut before).unwrap()).collect();
        prop_assert_eq!(format!("{rows:?}"), format!("{back:?}"));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn blocks_come_back(mut rows in rows(15)) {
        rows.sort_by_key(|row| row.record.time());
        rows.truncate(block::MOST);
        rows.iter_mut().for_each(|row| row.is_kept = true);
        let (times, body) = (block::times(&rows), block::encode(&rows));
        let back = block::decode(&times, &body).unwrap();
        prop_assert_eq!(format!("{rows:?}"), format!("{back:?}"));
        // Whatever it is, it is no panic.
        let _ = block::decode(&times, &body[..body.len() / 2]);
    }

    #[test]
    fn what_is_no_journal_and_no_block_does_no_harm(bytes: Vec<u8>) {
        examine(&bytes);
        let framed = |magic: &[u8]| [magic, &(bytes.len() as u32).to_le_bytes(), &wire::crc32(&bytes).to_le_bytes(), &bytes].concat();
        examine(&framed(b"vedettJ1"));
    }
}

fn tag(name: &str) -> TagName {
    TagName::new(name).unwrap()
}

fn sample(time: i64, value: Value) -> Sample {
    Sample::good(TagId(0), value, Timestamp::from_ticks(time))
}

/// For the history.
fn kept(tag: &TagName, samples: &[Sample]) -> impl Iterator<Item = Arrival> {
    samples.iter().map(|sample| Arrival::kept(tag, sample))
}

fn store(folder: &Path) -> Store {
    store_with(folder, Config::default())
}

/// At a time at which nothing is too old.
fn store_with(folder: &Path, config: Config) -> Store {
    Store::new(config, folder.into(), Clock::simulated(UNIX_EPOCH))
}

fn all(store: &Store, name: &str) -> Vec<Record> {
    let range = Timestamp::from_ticks(i64::MIN)..=Timestamp::from_ticks(i64::MAX);
    let scan = store.scan(&tag(name), range, Direction::Forward).unwrap();
    scan.into_iter().flatten().map(Result::unwrap).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8, Vec<Record>),
    Seal,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3u8, records(4)).prop_map(|(tag, records)| Step::Append(tag, records)),
        1 => Just(Step::Seal),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_is_written_is_read_back_in_order_over_seals_and_restarts(steps in steps(), from: i32, span: u16) {
        let folder = tempfile::tempdir().unwrap();
        // So old that nothing is.
        let config = Config { max_age: Duration::MAX, ..Config::default() };
        let mut store = store_with(folder.path(), config.clone());
        let mut writer = Writer::new(store.0.clone());
        let mut expected: [Vec<Record>; 3] = Default::default();
        for step in steps {
            match step {
                Step::Append(number, mut records) => {
                    let bad = records.iter_mut().filter(|record| record.status.is_bad());
                    bad.for_each(|record| record.value = Value::Empty);
                    let name = tag(&number.to_string());
                    for Record { value, status, source_time, server_time } in records.clone() {
                        let quality = Quality::from(status);
                        let sample = Sample { tag: TagId(0), value, quality, source_time, server_time };
                        store.append(kept(&name, &[sample]));
                    }
                    expected[usize::from(number)].extend(records);
                    writer.tick();
                }
                Step::Seal => writer.seal().unwrap(),
                Step::Restart => {
                    drop(writer);
                    let next = store_with(folder.path(), config.clone());
                    store.0.set_archive(None);
                    store = next;
                    writer = Writer::new(store.0.clone());
                    writer.tick();
                }
            }
        }
        writer.tick();
        let (from, to) = (i64::from(from), i64::from(from) + i64::from(span) * 10_000_000);
        for (number, mut expected) in expected.into_iter().enumerate() {
            expected.sort_by_key(Record::time);
            let name = number.to_string();
            let got = all(&store, &name);
            prop_assert!(same(&expected, &got), "{expected:?} became {got:?}");
            let range = || Timestamp::from_ticks(from)..=Timestamp::from_ticks(to);
            expected.retain(|record| range().contains(&record.time()));
            for direction in [Direction::Forward, Direction::Backward] {
                let scan = store.scan(&tag(&name), range(), direction).unwrap();
                let got: Vec<_> = scan.into_iter().flatten().map(Result::unwrap).collect();
                prop_assert!(same(&expected, &got), "{direction:?} {expected:?} became {got:?}");
                expected.reverse();
            }
        }
    }
}

#[test]
fn a_journal_that_is_cut_off_or_damaged_anywhere_gives_what_is_before() {
    let folder = tempfile::tempdir().unwrap();
    let written = store(folder.path());
    let mut writer = Writer::new(written.0.clone());
    for group in 0..10 {
        let samples: Vec<_> = (0..5).map(|n| sample(group * 10 + n, Value::Int64(group))).collect();
        let name = tag("a");
        written.append(kept(&name, &samples));
        writer.tick();
    }
    written.0.set_archive(None);
    let path = folder.path().join("journal-0000000000000000");
    let whole = fs::read(&path).unwrap();
    let count = |bytes: &[u8]| {
        let mut rows = 0;
        journal::read(bytes, |entry| rows += u32::from(matches!(entry, Entry::Row(..))));
        rows
    };
    assert_eq!(count(&whole), 50);
    for cut in 0..whole.len() {
        assert!(count(&whole[..cut]) <= 45 && count(&whole[..cut]) % 5 == 0, "cut at {cut}");
        let mut damaged = whole.clone();
        damaged[cut] ^= 0x40;
        assert!(count(&damaged) <= 45 && count(&damaged) % 5 == 0, "damaged at {cut}");
    }
    // And it goes on from there.
    for (cut, left) in [(whole.len() - 3, 45), (3, 0), (0, 0)] {
        fs::write(&path, &whole[..cut]).unwrap();
        let store = store(folder.path());
        let mut writer = Writer::new(store.0.clone());
        writer.tick();
        assert_eq!(all(&store, "a").len(), left, "cut to {cut}");
        store.append(kept(&tag("a"), &[sample(1000, Value::Int64(0))]));
        writer.tick();
        assert_eq!(store.state().is_writing, Some(true), "{:?}", store.state());
        store.0.set_archive(None);
        let again = self::store(folder.path());
        Writer::new(again.0.clone()).tick();
        assert_eq!(all(&again, "a").len(), left + 1, "cut to {cut}");
        again.0.set_archive(None);
    }
}

#[test]
fn an_archive_that_is_damaged_is_moved_aside_and_the_journal_is_kept() {
    for damage in [&b"this is no database"[..], &[0; 4096], b""] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("archive.redb"), damage).unwrap();
        let store = store(folder.path());
        let mut writer = Writer::new(store.0.clone());
        store.append(kept(&tag("a"), &[sample(1, Value::Int64(0))]));
        writer.tick();
        assert_eq!(store.state().is_writing, Some(true), "{:?}", store.state());
        assert_eq!(all(&store, "a").len(), 1);
        // An empty file is one that was just begun.
        let is_said = store.state().last_error.is_some_and(|error| error.contains("archive.redb"));
        assert_eq!(is_said, !damage.is_empty());
        assert_eq!(folder.path().join("archive.redb.damaged").exists(), is_said);
    }
}

#[test]
fn a_block_that_is_damaged_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let written = store(folder.path());
    let mut writer = Writer::new(written.0.clone());
    for group in 0..3 {
        let text = format!("this is group {group}");
        written.append(kept(&tag("a"), &[sample(group, Value::string(text))]));
        writer.tick();
        writer.seal().unwrap();
    }
    drop(writer);
    written.0.set_archive(None);
    drop(written);
    let path = folder.path().join("archive.redb");
    let mut bytes = fs::read(&path).unwrap();
    // Wherever redb left copies of it.
    let places: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"this is group 1")).collect();
    places.iter().for_each(|&at| bytes[at] = b'T');
    fs::write(&path, bytes).unwrap();
    let store = store(folder.path());
    Writer::new(store.0.clone()).tick();
    let values: Vec<_> = all(&store, "a").into_iter().map(|record| record.value).collect();
    assert_eq!(values, [Value::string("this is group 0"), Value::string("this is group 2")]);
}

#[test]
fn what_was_sealed_but_not_yet_forgotten_is_there_once_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let written = store(folder.path());
    written.append(kept(&tag("a"), &[sample(1, Value::Int64(0))]));
    Writer::new(written.0.clone()).tick();
    // The first half of `Writer::seal`.
    let archive = written.0.archive().unwrap();
    archive.seal(0, &[(0, "a")], |series| written.0.recent().rows(series, |_| true), &[]).unwrap();
    assert_eq!(all(&written, "a").len(), 1);
    drop(archive);
    written.0.set_archive(None);
    let again = store(folder.path());
    let mut writer = Writer::new(again.0.clone());
    again.append(kept(&tag("a"), &[sample(2, Value::Int64(0))]));
    writer.tick();
    writer.seal().unwrap();
    assert_eq!(all(&again, "a").len(), 2);
    let left = journal::list(folder.path()).unwrap();
    assert_eq!(left, [2], "sealed journals are removed");
}

#[test]
fn bad_samples_keep_their_status_and_have_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let bad = Sample { quality: Quality::from(Status::BAD_NOT_CONNECTED), ..sample(5, Value::Int64(3)) };
    store.append(kept(&tag("a"), &[bad]));
    Writer::new(store.0.clone()).tick();
    let kept = &all(&store, "a")[0];
    assert_eq!((&kept.value, kept.status, kept.time().ticks()), (&Value::Empty, Status::BAD_NOT_CONNECTED, 5));
    assert_eq!(store.oldest(), Some(Timestamp::from_ticks(5)));
    let nobody = store.scan(&tag("b"), Timestamp::from_ticks(0)..=Timestamp::from_ticks(9), Direction::Forward);
    assert!(nobody.unwrap().is_none());
}

/// A second of a plant: values with one digit behind the point that wander, all of one time.
fn plant(second: i64, tags: usize, values: &mut Vec<f64>) -> Vec<(TagName, Sample)> {
    values.resize(tags, 20.0);
    let time = Timestamp::from_ticks(second * 10_000_000 + i64::from(fastrand::u16(..)) / 10 * 10);
    let mut sample = |index: usize| {
        values[index] = ((values[index] + fastrand::f64() - 0.5) * 10.0).round() / 10.0;
        (tag(&format!("plant/{index}")), Sample::good(TagId(0), Value::Double(values[index]), time))
    };
    (0..tags).map(&mut sample).collect()
}

#[test]
fn the_oldest_go_when_it_is_too_much_or_too_old_and_the_counters_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let limit = 8 << 20;
    let config = Config { max_bytes: limit, max_age: Duration::from_secs(1 << 30), ..Config::default() };
    let store = store_with(folder.path(), config.clone());
    let mut writer = Writer::new(store.0.clone());
    let (mut values, mut written) = (Vec::new(), 0);
    for second in 0..80 {
        // Noise, so that it takes room.
        let mut samples = Vec::new();
        for _ in 0..10_000 {
            samples.push(sample(second * 10_000_000 + fastrand::i64(0..10_000_000), Value::Double(fastrand::f64())));
        }
        written += samples.len() as u64;
        let name = tag("noise");
        store.append(kept(&name, &samples));
        writer.tick();
        // Not the lengths: redb doubles its file, and what was never written has no blocks.
        let blocks = |file: std::io::Result<fs::DirEntry>| file.unwrap().metadata().unwrap().blocks() * 512;
        let on_disk: u64 = fs::read_dir(folder.path()).unwrap().map(blocks).sum();
        assert!(on_disk <= limit, "{on_disk} bytes at {second}");
        let state = store.state();
        assert_eq!(state.samples + state.dropped_by_bytes, written);
    }
    let state = store.state();
    assert!(state.dropped_by_bytes > 100_000 && state.samples > 100_000, "{state:?}");
    assert_eq!(all(&store, "noise").len() as u64, state.samples);
    assert_eq!((state.dropped_by_age, state.lost), (0, 0));

    // A year later, in another process.
    drop(writer);
    store.0.set_archive(None);
    let samples = plant(60, 1, &mut values);
    let year = Duration::from_secs(365 * 86_400);
    let config = Config { max_age: Duration::from_secs(86_400), ..config };
    let later = Store::new(config, folder.path().into(), Clock::simulated(UNIX_EPOCH + year));
    let mut writer = Writer::new(later.0.clone());
    later.append(samples.iter().map(|(tag, sample)| Arrival::kept(tag, sample)));
    writer.tick();
    let after = later.state();
    assert_eq!(after.dropped_by_bytes, state.dropped_by_bytes, "counted over restarts");
    assert!(after.dropped_by_age > 0);
    assert_eq!(after.dropped_by_age + after.samples, state.samples + 1);
}

#[test]
fn a_week_of_a_hundred_tags_fits_in_256_mib() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut writer = Writer::new(store.0.clone());
    let (mut values, seconds) = (Vec::new(), 2000);
    for second in 0..seconds {
        let samples = plant(second, 100, &mut values);
        store.append(samples.iter().map(|(tag, sample)| Arrival::kept(tag, sample)));
        writer.tick();
    }
    writer.seal().unwrap();
    let state = store.state();
    let on_disk = store.0.archive().unwrap().generations().unwrap().iter().map(|(_, meta)| meta.bytes).sum::<u64>();
    let each = on_disk as f64 / (seconds * 100) as f64;
    eprintln!("{each:.2} bytes a sample on disk, {:.1} written", state.bytes_written as f64 / (seconds * 100) as f64);
    assert!(each * 7.0 * 86_400.0 * 100.0 < f64::from(256 << 20), "{each} bytes a sample");
}

/// A disk that keeps what was synced, and of the rest what the power cut leaves: any of the writes, each whole or half.
#[derive(Debug, Default)]
struct Disk {
    synced: Vec<u8>,
    /// As the program sees it.
    seen: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone, Debug)]
struct Cuttable(Arc<Mutex<Disk>>);

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Write::Length(length) => to.resize(*length as usize, 0),
            Write::Bytes(at, bytes) => {
                let end = *at as usize + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at as usize..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Cuttable {
    fn write(&self, write: Write) {
        let mut disk = lock(&self.0);
        write.apply(&mut disk.seen);
        disk.unsynced.push(write);
    }

    /// What is there when the power is back.
    fn cut(&self) -> Self {
        let disk = lock(&self.0);
        let mut left = disk.synced.clone();
        for write in &disk.unsynced {
            match write {
                _ if fastrand::bool() => {}
                // A sector is whole or not there.
                Write::Bytes(at, bytes) if bytes.len() > 512 && fastrand::bool() => {
                    let half = fastrand::usize(1..bytes.len() / 512 + 1) * 512;
                    Write::Bytes(*at, bytes[..half.min(bytes.len())].to_vec()).apply(&mut left);
                }
                write => write.apply(&mut left),
            }
        }
        Self(Arc::new(Mutex::new(Disk { synced: left.clone(), seen: left, unsynced: Vec::new() })))
    }
}

impl redb::StorageBackend for Cuttable {
    fn len(&self) -> std::io::Result<u64> {
        Ok(lock(&self.0).seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let disk = lock(&self.0);
        let bytes = disk.seen.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.write(Write::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let mut disk = lock(&self.0);
        disk.synced = disk.seen.clone();
        disk.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        Cuttable::write(self, Write::Bytes(offset, data.to_vec()));
        Ok(())
    }
}

#[test]
fn a_power_cut_at_any_moment_leaves_whole_generations() {
    let mut disk = Cuttable(Arc::default());
    let (mut sealed, mut cuts_inside) = (0u64, 0);
    for _ in 0..200 {
        let archive = Archive::open(Counted { inner: disk.clone(), written: Arc::default() }).unwrap();
        let found = archive.generations().unwrap();
        let newest = found.last().map_or(0, |(number, _)| number + 1);
        assert!(newest == sealed || newest == sealed + 1, "{newest} after {sealed}");
        sealed = newest;
        for (number, meta) in found {
            let view = archive.view().unwrap();
            let records: Vec<_> = (0..3).map(|series| view.rows(number, series, 0).unwrap().unwrap()).collect();
            assert_eq!(records.iter().map(Vec::len).sum::<usize>() as u64, meta.samples);
        }
        let records = |series: u32| {
            let row = |n: u32| {
                let sample = sample(i64::from(n), Value::Double(fastrand::f64() + f64::from(series)));
                Row { record: Record::from(&sample), owed: Some(u64::from(n * 3 + series)), is_kept: true }
            };
            (0..200).map(row).collect::<Vec<_>>()
        };
        // The disk as it is at a random moment of one of these, which the program never learns.
        for _ in 0..fastrand::u32(1..4) {
            let (gone, dropped) = archive.surplus(30_000, i64::MIN, |_| false).unwrap();
            if !gone.is_empty() {
                archive.remove(&gone, dropped).unwrap();
            }
            archive.seal(sealed, &[(0, "a"), (1, "b"), (2, "c")], records, &[]).unwrap();
            sealed += 1;
        }
        // A transaction that does not come to its end.
        let half = Cuttable(Arc::new(Mutex::new(Disk::default())));
        {
            let mut copy = lock(&half.0);
            let disk = lock(&disk.0);
            (copy.synced, copy.seen) = (disk.synced.clone(), disk.seen.clone());
        }
        drop(archive);
        let stopping = Stopping { inner: half.clone(), writes_left: Arc::new(Mutex::new(fastrand::u32(0..40))) };
        if let Ok(archive) = Archive::open(Counted { inner: stopping, written: Arc::default() }) {
            match archive.seal(sealed, &[(0, "a"), (1, "b"), (2, "c")], records, &[]) {
                Ok(()) => sealed += 1,
                Err(_) => cuts_inside += 1,
            }
        }
        disk = half.cut();
    }
    assert!(cuts_inside > 20, "{cuts_inside} cuts in the middle of a transaction");
}

/// Fails all writes and syncs after so many, as the power does.
#[derive(Debug)]
struct Stopping {
    inner: Cuttable,
    writes_left: Arc<Mutex<u32>>,
}

impl Stopping {
    fn spend(&self) -> std::io::Result<()> {
        let mut left = lock(&self.writes_left);
        *left = left.checked_sub(1).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(())
    }
}

impl redb::StorageBackend for Stopping {
    fn len(&self) -> std::io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.spend()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.spend()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.spend()?;
        redb::StorageBackend::write(&self.inner, offset, data)
    }
}

#[test]
fn an_archive_that_takes_nothing_for_ever_does_not_let_the_journal_grow_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), Config { max_age: Duration::MAX, ..Config::default() });
    let mut writer = Writer::new(store.0.clone());
    writer.tick();
    let writes_left = Arc::new(Mutex::new(u32::MAX));
    let disk = Cuttable(Arc::default());
    let open = || {
        *lock(&writes_left) = u32::MAX;
        let inner = Stopping { inner: disk.clone(), writes_left: writes_left.clone() };
        let archive = Archive::open(Counted { inner, written: Arc::default() }).unwrap();
        *lock(&writes_left) = 0;
        store.0.set_archive(Some(archive));
    };
    let (name, mut appended) = (tag("a"), 0);
    let mut append = || {
        let samples: Vec<_> = (0..16_000).map(|n| sample(appended + n, Value::Int64(n))).collect();
        appended += 16_000;
        store.append(kept(&name, &samples));
        appended as u64
    };
    for _ in 0..20 {
        append();
        store.0.set_archive(None);
        open();
        writer.tick();
        assert!(store.0.recent().samples < 4 * 32_768 + 16_000);
    }
    assert_eq!(store.state().is_writing, Some(false));
    let lost = store.state().lost;
    assert!(lost > 0, "what does not fit in memory is counted");
    // It takes data again.
    *lock(&writes_left) = u32::MAX;
    let appended = append();
    store.0.set_archive(None);
    open();
    *lock(&writes_left) = u32::MAX;
    writer.tick();
    assert_eq!(store.state().is_writing, Some(true), "{:?}", store.state());
    assert_eq!(all(&store, "a").len() as u64 + store.state().lost, appended);
}
