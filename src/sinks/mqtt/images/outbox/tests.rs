//! The keeper against a disk that fails and loses power, and the outbox on a real folder.

use super::disk::Disk;
use super::keeper::{Keeper, MEMORY};
use super::*;
use crate::model::Timestamp;
use crate::sinks::mqtt::config::Form;
use crate::sinks::mqtt::images::Cause;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

fn snap(number: u64, bytes: usize) -> Snap {
    Snap {
        camera: "line1".into(),
        jpeg: vec![number as u8; bytes].into(),
        width: 4,
        height: 3,
        captured: Timestamp::from_ticks(number as i64),
        cause: Cause::Interval,
        form: Form::Jpeg,
    }
}

fn number(snap: &Snap) -> u64 {
    snap.captured.ticks() as u64
}

/// Bytes of a picture's file beside the JPEG; a few digits more or less.
fn overhead() -> u64 {
    super::file::head(&snap(1, 1000)).len() as u64
}

/// A disk in memory. What happened to names since the last sync may or may not survive a power cut, each by itself; so
/// may any part of a file that was being written.
#[derive(Clone, Default)]
struct Plates(std::sync::Arc<std::sync::Mutex<Plate>>);

#[derive(Default)]
struct Plate {
    now: BTreeMap<String, Vec<u8>>,
    /// As of the last sync.
    safe: BTreeMap<String, Vec<u8>>,
    is_faulty: bool,
    /// Calls until the power goes; then nothing works until it is back.
    calls_left: Option<u32>,
}

impl Plates {
    fn with<T>(&self, work: impl FnOnce(&mut Plate) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    /// `false`: nothing works.
    fn call(&self) -> io::Result<()> {
        self.with(|plate| match plate.calls_left.as_mut() {
            Some(0) => Err(io::Error::other("no power")),
            _ if plate.is_faulty => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        })
    }

    /// Whether there was a picture to damage.
    fn damage(&self, at: impl FnOnce(usize) -> usize) -> bool {
        self.with(|plate| {
            let names: Vec<_> = plate.now.keys().filter(|name| name.ends_with(".picture")).cloned().collect();
            let Some(name) = (!names.is_empty()).then(|| &names[at(names.len())]) else { return false };
            for files in [&mut plate.now, &mut plate.safe] {
                files.get_mut(name).map(Vec::pop);
            }
            true
        })
    }

    /// The power goes and comes back. `keep` decides which names are as they were last.
    fn cut(&self, mut keep: impl FnMut(&str) -> bool) {
        self.with(|plate| {
            let names: BTreeSet<_> = plate.now.keys().chain(plate.safe.keys()).cloned().collect();
            for name in names {
                let last = plate.now.get(&name).cloned();
                if plate.safe.get(&name) != last.as_ref() && keep(&name) {
                    match last {
                        Some(bytes) => drop(plate.safe.insert(name, bytes)),
                        None => drop(plate.safe.remove(&name)),
                    }
                }
            }
            plate.now = plate.safe.clone();
            (plate.is_faulty, plate.calls_left) = (false, None);
        });
    }
}

impl Disk for Plates {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.call()?;
        Ok(self.with(|plate| plate.now.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.call()?;
        self.with(|plate| plate.now.get(name).cloned()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = parts.concat();
        let written = self.call();
        let length = if written.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.with(|plate| {
            if written.is_ok() || plate.calls_left == Some(0) {
                plate.now.insert(name.to_owned(), bytes[..length].to_vec());
            }
        });
        written
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call()?;
        self.with(|plate| match plate.now.remove(from) {
            Some(bytes) => {
                plate.now.insert(to.to_owned(), bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call()?;
        self.with(|plate| plate.now.remove(name));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.call()?;
        self.with(|plate| plate.safe = plate.now.clone());
        Ok(())
    }
}

fn open(disk: &Plates, budget: u64) -> Keeper<Plates> {
    let keeper = Keeper::new(disk.clone(), budget);
    keeper.tend();
    keeper
}

/// The next picture, on its way from now on.
fn next(keeper: &Keeper<Plates>) -> Option<(u64, u64, bool)> {
    let (id, snap) = keeper.load()?;
    let is_historical = keeper.begin(id).unwrap();
    Some((id, number(&snap), is_historical))
}

fn arrived(keeper: &Keeper<Plates>, id: u64) {
    if let Some(number) = keeper.arrived(id) {
        keeper.remove(number);
    }
}

/// Sends all.
fn drain(keeper: &Keeper<Plates>) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some((id, number, _)) = next(keeper) {
        arrived(keeper, id);
        numbers.push(number);
    }
    numbers
}

#[test]
fn the_oldest_goes_first_and_again_after_a_loss() {
    let disk = Plates::default();
    let keeper = open(&disk, 1 << 20);
    for number in 1..=3 {
        keeper.put(snap(number, 10));
    }
    let (first, number, is_historical) = next(&keeper).unwrap();
    assert_eq!((number, is_historical), (1, false));
    let (second, number, _) = next(&keeper).unwrap();
    assert_eq!(number, 2);
    arrived(&keeper, second);
    arrived(&keeper, 999);
    keeper.rewind();
    keeper.put(snap(4, 10));
    let waiting: Vec<_> = std::iter::from_fn(|| next(&keeper)).map(|(_, number, old)| (number, old)).collect();
    assert_eq!(waiting, [(1, true), (3, true), (4, false)]);
    arrived(&keeper, first);
    let state = keeper.state();
    assert_eq!((state.waiting, state.sent, state.dropped), (2, 2, 0));
    assert_eq!(state.bytes, 2 * (10 + super::file::head(&snap(3, 10)).len() as u64));

    drop(keeper);
    let keeper = open(&disk, 1 << 20);
    assert_eq!(next(&keeper).map(|(_, number, old)| (number, old)), Some((3, true)));
    assert_eq!((keeper.state().waiting, keeper.state().sent), (2, 0));
}

#[test]
fn over_budget_the_oldest_are_dropped_but_not_what_is_on_its_way() {
    let disk = Plates::default();
    let budget = 3 * (1000 + overhead()) + 30;
    let keeper = open(&disk, budget);
    keeper.put(snap(1, 1000));
    let (first, ..) = next(&keeper).unwrap();
    for number in 2..=6 {
        keeper.put(snap(number, 1000));
    }
    assert_eq!((keeper.state().waiting, keeper.state().dropped), (3, 3));
    arrived(&keeper, first);
    keeper.put(snap(7, budget as usize));
    assert_eq!((keeper.state().waiting, keeper.state().dropped), (2, 4), "alone too large, and drives out no others");

    let keeper = open(&disk, budget);
    assert_eq!((keeper.state().waiting, keeper.state().dropped), (2, 4));
    let keeper = open(&disk, budget / 3);
    assert_eq!((keeper.state().waiting, keeper.state().dropped), (1, 5), "the budget became smaller");
    assert_eq!(drain(&keeper), [6]);
}

#[test]
fn a_disk_that_takes_nothing_leaves_the_newest_in_memory() {
    let disk = Plates::default();
    let keeper = open(&disk, 1 << 30);
    keeper.put(snap(1, 1000));
    disk.with(|plate| plate.is_faulty = true);
    let third = MEMORY as usize / 3 - 1000;
    for number in 2..=5 {
        keeper.put(snap(number, third));
    }
    let state = keeper.state();
    assert_eq!((state.waiting, state.dropped), (4, 1));
    assert_eq!(state.fault.as_deref(), Some("read-only filesystem or storage medium"));

    disk.with(|plate| plate.is_faulty = false);
    keeper.tend();
    let state = keeper.state();
    assert_eq!((state.waiting, state.dropped, state.fault), (4, 1, None));
    drop(keeper);
    let keeper = open(&disk, 1 << 30);
    assert_eq!((keeper.state().waiting, keeper.state().dropped), (4, 1));
    assert_eq!(drain(&keeper), [1, 3, 4, 5]);
}

#[test]
fn a_disk_that_is_not_there_at_the_start_is_read_when_it_is() {
    let disk = Plates::default();
    open(&disk, 1 << 20).put(snap(1, 10));
    disk.with(|plate| plate.is_faulty = true);
    let keeper = open(&disk, 1 << 20);
    keeper.put(snap(2, 10));
    let (id, number, _) = next(&keeper).unwrap();
    assert_eq!(number, 2, "live, from memory");
    arrived(&keeper, id);
    keeper.put(snap(3, 10));
    disk.with(|plate| plate.is_faulty = false);
    keeper.put(snap(4, 10));
    assert_eq!(keeper.state().fault, None);
    assert_eq!(drain(&keeper), [1, 3, 4]);
    assert!(disk.with(|plate| plate.now.keys().all(|name| !name.ends_with(".picture"))));
}

#[test]
fn what_cannot_be_removed_is_removed_later() {
    let disk = Plates::default();
    let keeper = open(&disk, 1 << 20);
    keeper.put(snap(1, 10));
    let (id, ..) = next(&keeper).unwrap();
    disk.with(|plate| plate.is_faulty = true);
    arrived(&keeper, id);
    assert!(keeper.is_faulty());
    disk.with(|plate| plate.is_faulty = false);
    keeper.tend();
    assert!(disk.with(|plate| plate.now.is_empty()));
}

#[test]
fn a_picture_that_cannot_be_read_is_moved_aside_and_counted() {
    let disk = Plates::default();
    let keeper = open(&disk, 1 << 20);
    for number in 1..=4 {
        keeper.put(snap(number, 10));
    }
    disk.with(|plate| {
        let names: Vec<_> = plate.now.keys().cloned().collect();
        plate.now.get_mut(&names[0]).unwrap().pop();
        plate.now.insert(names[1].clone(), vec![0xFF; 100]);
        plate.now.remove(&names[2]);
        plate.now.insert("ffffffffffffffff.picture".into(), vec![1]);
        plate.now.insert("12.picture".into(), vec![1]);
        plate.now.insert("picture.new".into(), vec![1]);
    });
    assert_eq!(drain(&keeper), [4]);
    assert_eq!((keeper.state().dropped, keeper.state().waiting, keeper.state().bytes), (3, 0, 0));
    let keeper = open(&disk, 1 << 20);
    assert_eq!((keeper.state().dropped, keeper.state().waiting), (3, 0));
    let names = disk.with(|plate| plate.now.keys().cloned().collect::<Vec<_>>());
    assert_eq!(names, ["12.picture", "counters", "damaged", "ffffffffffffffff.picture"]);
    keeper.put(snap(5, 10));
    assert_eq!(drain(&keeper), [5]);
}

/// The power goes at any call of the disk, and of what was not synced any half is there after that.
#[test]
fn what_was_counted_is_not_counted_again_when_it_comes_back() {
    for (calls, counters_survive) in (0..16).flat_map(|calls| [(calls, true), (calls, false)]) {
        let disk = Plates::default();
        let keeper = open(&disk, 1 << 20);
        for number in 1..=2 {
            keeper.put(snap(number, 10));
            disk.damage(|names| names - 1);
        }
        disk.with(|plate| plate.calls_left = Some(calls));
        assert!(drain(&keeper).is_empty());
        disk.cut(|name| (name == "counters") == counters_survive);
        let keeper = open(&disk, 1 << 20);
        assert!(drain(&keeper).is_empty());
        assert_eq!(keeper.state().dropped, 2, "{calls} calls, {counters_survive}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Next,
    /// One of those on their way.
    Arrived(prop::sample::Index),
    Lost,
    Faulty(bool),
    Tend,
    /// The program ends and starts again.
    Restart,
    /// The disk forgets a byte of a picture.
    Damage(prop::sample::Index),
    /// The power goes after so many calls of the disk, and comes back when something has failed of that.
    Cut(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..400).prop_map(Step::Put),
        1 => Just(Step::Put(3000)),
        4 => Just(Step::Next),
        3 => any::<prop::sample::Index>().prop_map(Step::Arrived),
        1 => Just(Step::Lost),
        1 => any::<bool>().prop_map(Step::Faulty),
        1 => Just(Step::Tend),
        1 => Just(Step::Restart),
        1 => any::<prop::sample::Index>().prop_map(Step::Damage),
        2 => (0u32..12).prop_map(Step::Cut),
    ]
}

/// What the test knows of the pictures.
#[derive(Default)]
struct Model {
    put: u64,
    /// On the disk, and not known to have arrived.
    kept: BTreeSet<u64>,
    arrived: BTreeSet<u64>,
    /// Were in memory when the program ended.
    gone_with_memory: BTreeSet<u64>,
    in_flight: Vec<(u64, u64)>,
    /// The disk has forgotten something by itself.
    is_damaged: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Without power cuts and faults of the disk: to the picture.
    #[test]
    fn every_picture_arrives_or_waits_or_is_counted(steps in proptest::collection::vec(step(), 0..60)) {
        let (disk, budget) = (Plates::default(), 2000);
        let mut keeper = open(&disk, budget);
        let (mut put, mut sent, mut flying) = (0, 0, Vec::new());
        for step in steps {
            let is_put = matches!(step, Step::Put(..=2000));
            match step {
                Step::Put(bytes) => {
                    put += 1;
                    keeper.put(snap(put, bytes));
                }
                Step::Next => flying.extend(next(&keeper).map(|(id, number, _)| (id, number))),
                Step::Arrived(at) if !flying.is_empty() => {
                    let (id, _) = flying.remove(at.index(flying.len()));
                    let waiting = keeper.state().waiting;
                    arrived(&keeper, id);
                    // It may have been dropped on its way.
                    sent += waiting - keeper.state().waiting;
                }
                Step::Lost => {
                    keeper.rewind();
                    flying.clear();
                }
                Step::Restart => {
                    flying.clear();
                    drop(keeper);
                    keeper = open(&disk, budget);
                }
                _ => {}
            }
            let state = keeper.state();
            prop_assert_eq!(put, sent + state.waiting + state.dropped);
            let on_disk: u64 = disk.with(|plate| {
                plate.now.iter().filter(|(name, _)| name.ends_with(".picture")).map(|(_, bytes)| bytes.len() as u64).sum()
            });
            prop_assert_eq!(state.bytes, on_disk);
            prop_assert!(!is_put || on_disk <= budget);
        }
        keeper.rewind();
        let rest = drain(&keeper);
        prop_assert!(rest.is_sorted(), "{:?}", rest);
    }

    /// With them: what was on the disk is never lost uncounted, and never half.
    #[test]
    fn a_power_cut_costs_nothing_that_was_kept(
        steps in proptest::collection::vec(step(), 0..60), seed: u64,
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (disk, budget) = (Plates::default(), 2000);
        let mut keeper = open(&disk, budget);
        let mut model = Model::default();
        for step in steps {
            let mut ends = false;
            match step {
                Step::Put(bytes) => {
                    model.put += 1;
                    keeper.put(snap(model.put, bytes));
                    if bytes as u64 > budget {
                        model.gone_with_memory.insert(model.put);
                    }
                    if !keeper.is_faulty() {
                        // All that waited in memory is on the disk, too.
                        model.kept.extend(1..=model.put);
                        model.kept.retain(|number| !model.arrived.contains(number) && !model.gone_with_memory.contains(number));
                    }
                }
                Step::Next => model.in_flight.extend(next(&keeper).map(|(id, number, _)| (id, number))),
                Step::Arrived(at) if !model.in_flight.is_empty() => {
                    let (id, number) = model.in_flight.remove(at.index(model.in_flight.len()));
                    arrived(&keeper, id);
                    model.arrived.insert(number);
                    model.kept.remove(&number);
                }
                Step::Arrived(_) => {}
                Step::Lost => {
                    keeper.rewind();
                    model.in_flight.clear();
                }
                Step::Faulty(is_faulty) => disk.with(|plate| plate.is_faulty = is_faulty),
                Step::Tend => keeper.tend(),
                Step::Damage(at) => model.is_damaged |= disk.damage(|names| at.index(names)),
                Step::Restart => ends = true,
                Step::Cut(calls) => disk.with(|plate| plate.calls_left = Some(calls)),
            }
            if ends || disk.with(|plate| plate.calls_left == Some(0)) {
                drop(keeper);
                if !ends {
                    disk.cut(|_| random.bool());
                }
                disk.with(|plate| (plate.is_faulty, plate.calls_left) = (false, None));
                model.gone_with_memory.extend((1..=model.put).filter(|number| !model.kept.contains(number)));
                model.in_flight.clear();
                keeper = open(&disk, budget);
                prop_assert!(!keeper.is_faulty());
            }
        }
        drop(keeper);
        disk.with(|plate| (plate.is_faulty, plate.calls_left) = (false, None));
        let keeper = open(&disk, budget);
        let rest: BTreeSet<u64> = drain(&keeper).into_iter().collect();
        // Each picture that was on the disk and did not arrive was counted; what was in memory only may be, too.
        let lost = model.kept.iter().filter(|number| !rest.contains(number)).count() as u64;
        let dropped = keeper.state().dropped;
        // Half a picture is never found.
        prop_assert_eq!(disk.with(|plate| plate.now.contains_key("damaged")) && !model.is_damaged, false);
        prop_assert!(dropped >= lost, "{} dropped, {} lost", dropped, lost);
        let others = model.put - model.kept.len() as u64;
        prop_assert!(dropped <= lost + others, "{} dropped, {} lost, {} others", dropped, lost, others);
    }
}

#[tokio::test]
async fn next_waits_and_goes_on_where_it_was_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path().join("mqtt/pictures"), 1 << 20).await;
    let other = outbox.clone();
    let (queued, ()) = tokio::join!(outbox.next(), async move {
        tokio::task::yield_now().await;
        other.put(snap(1, 300)).await;
        other.put(snap(2, 300)).await;
    });
    assert_eq!((number(&queued.snap), queued.is_historical), (1, false));
    assert_eq!(queued.snap, snap(1, 300));

    // Asked over and over, as in a loop that has other things to do, it still arrives.
    let queued = loop {
        tokio::select! {
            biased;
            queued = outbox.next() => break queued,
            () = tokio::task::yield_now() => {}
        }
    };
    assert_eq!(number(&queued.snap), 2);
    let nothing = tokio::time::timeout(Duration::from_millis(20), outbox.next()).await;
    assert!(nothing.is_err());
    outbox.rewind();
    let again = outbox.next().await;
    assert_eq!((number(&again.snap), again.is_historical), (1, true));
    outbox.arrived(again.id);
    outbox.settle().await;

    let outbox = Outbox::open(folder.path().join("mqtt/pictures"), 1 << 20).await;
    assert_eq!((outbox.state().waiting, number(&outbox.next().await.snap)), (1, 2));
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("pictures");
    std::fs::write(&place, "a file").unwrap();
    let outbox = Outbox::open(place.clone(), 1 << 20).await;
    assert!(outbox.state().fault.is_some());
    outbox.put(snap(1, 30)).await;
    let queued = outbox.next().await;
    assert_eq!(number(&queued.snap), 1);

    std::fs::remove_file(&place).unwrap();
    outbox.settle().await;
    assert_eq!(outbox.state().fault, None);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1, "it is kept after all");
}
