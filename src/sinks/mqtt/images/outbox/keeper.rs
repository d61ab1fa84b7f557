//! The outbox without tasks: index and shelf under their locks, and what is said in the log.
//!
//! Lock order: shelf, then index, then said. The index is held for moments only, so what touches it alone ([`Keeper::begin`],
//! [`Keeper::arrived`], [`Keeper::rewind`], [`Keeper::state`]) does not wait; all else waits for the disk.

use super::disk::Disk;
use super::index::{Index, Place};
use super::shelf::Shelf;
use super::{State, file};
use crate::sinks::mqtt::images::Snap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tracing::{error, info, warn};

/// Bytes of pictures that wait in memory at most while the disk takes nothing; one alone may have more.
pub const MEMORY: u64 = 8 << 20;

/// A picture and its number in the index.
pub type Loaded = Option<(u64, Snap)>;

pub struct Keeper<D> {
    /// Bytes on the disk at most.
    budget: u64,
    shelf: Mutex<Shelf<D>>,
    index: Mutex<Index>,
    /// What the shelf counts, for those who do not wait for it.
    dropped: AtomicU64,
    said: Mutex<Said>,
}

/// So that a recurring cause is logged once.
#[derive(Default)]
struct Said {
    fault: Option<Arc<str>>,
    /// The count before the present period of drops.
    dropping_since: Option<u64>,
}

impl<D: Disk> Keeper<D> {
    pub fn new(disk: D, budget: u64) -> Self {
        let (shelf, index) = (Mutex::new(Shelf::new(disk)), Mutex::default());
        Self { budget, shelf, index, dropped: AtomicU64::new(0), said: Mutex::default() }
    }

    pub fn put(&self, snap: Snap) {
        let head = file::head(&snap);
        let bytes = (head.len() + snap.jpeg.len()) as u64;
        let mut shelf = lock(&self.shelf);
        if bytes > self.budget {
            warn!(camera = %snap.camera, bytes, "A picture alone is larger than image_bytes, so it is not sent.");
            self.lose(&mut shelf, Vec::new(), 1);
            return;
        }
        // In turn: a newer picture does not become a file before an older one.
        let number = self.catch_up(&mut shelf).and_then(|()| self.write(&mut shelf, &head, &snap.jpeg));
        let mut index = lock(&self.index);
        match number {
            Ok(number) => {
                index.push(Place::File(number), bytes);
                drop(index);
                self.works();
            }
            Err(error) => {
                let lost = index.make_room_in_memory(MEMORY.min(self.budget), bytes);
                index.push(Place::Memory(snap), bytes);
                drop(index);
                self.fails(&error);
                if lost > 0 {
                    self.lose(&mut shelf, Vec::new(), lost);
                }
            }
        }
    }

    /// Tries to do what the disk did not take.
    pub fn tend(&self) {
        let mut shelf = lock(&self.shelf);
        if let Err(error) = self.catch_up(&mut shelf) {
            self.fails(&error);
        }
        self.dropped.store(shelf.dropped(), Ordering::Relaxed);
    }

    pub fn has_next(&self) -> bool {
        lock(&self.index).first().is_some()
    }

    /// What is to go next. Those that cannot be read are passed over, and counted.
    pub fn load(&self) -> Loaded {
        let mut shelf = lock(&self.shelf);
        loop {
            let (id, place) = lock(&self.index).first().map(|entry| (entry.id, entry.place.clone()))?;
            let number = match place {
                Place::Memory(snap) => return Some((id, snap)),
                Place::File(number) => number,
            };
            let read = shelf.read(number).map_err(|error| error.to_string());
            let reason = match read.and_then(|bytes| file::decode(bytes).map_err(|damage| damage.to_string())) {
                Ok(snap) => return Some((id, snap)),
                Err(reason) => reason,
            };
            // It may have arrived or been dropped meanwhile.
            if lock(&self.index).remove(id).is_none() {
                continue;
            }
            error!(number, reason, "A picture that waited for the broker cannot be read; it is lost.");
            if let Err(error) = shelf.put_aside(number) {
                self.fails(&error);
            }
            self.dropped.store(shelf.dropped(), Ordering::Relaxed);
        }
    }

    /// [`Index::begin`]
    pub fn begin(&self, id: u64) -> Option<bool> {
        lock(&self.index).begin(id)
    }

    /// The number of the file that is to be removed, if it has one.
    pub fn arrived(&self, id: u64) -> Option<u64> {
        let mut index = lock(&self.index);
        let place = index.arrived(id)?;
        if index.waiting() == 0
            && let Some(before) = lock(&self.said).dropping_since.take()
        {
            let dropped = self.dropped.load(Ordering::Relaxed) - before;
            info!(dropped, "No picture waits for the broker any more.");
        }
        match place {
            Place::File(number) => Some(number),
            Place::Memory(_) => None,
        }
    }

    pub fn remove(&self, number: u64) {
        if let Err(error) = lock(&self.shelf).remove(number) {
            self.fails(&error);
        }
    }

    /// Drops one, and counts it.
    pub fn refuse(&self, id: u64) {
        let mut shelf = lock(&self.shelf);
        let Some(place) = lock(&self.index).remove(id) else { return };
        let (numbers, more) = match place {
            Place::File(number) => (vec![number], 0),
            Place::Memory(_) => (Vec::new(), 1),
        };
        if let Err(error) = shelf.lose(numbers, more) {
            self.fails(&error);
        }
        self.dropped.store(shelf.dropped(), Ordering::Relaxed);
    }

    pub fn release(&self, id: u64) {
        lock(&self.index).release(id);
    }

    pub fn rewind(&self) {
        lock(&self.index).rewind();
    }

    pub fn state(&self) -> State {
        let index = lock(&self.index);
        let (waiting, bytes, sent) = (index.waiting(), index.bytes(), index.sent());
        drop(index);
        let (dropped, fault) = (self.dropped.load(Ordering::Relaxed), lock(&self.said).fault.clone());
        State { waiting, bytes, dropped, sent, fault }
    }

    pub fn is_faulty(&self) -> bool {
        lock(&self.said).fault.is_some()
    }

    /// Opens the folder if that is still to be done, and makes files of what waits in memory.
    fn catch_up(&self, shelf: &mut Shelf<D>) -> io::Result<()> {
        if !shelf.is_open() {
            let found = shelf.open()?;
            if !found.is_empty() {
                info!(pictures = found.len(), "Pictures from before the start wait for the broker.");
            }
            lock(&self.index).found(found);
            self.works();
            // Those from before may be more than what is configured now.
            self.make_room(shelf, 0);
        }
        shelf.settle()?;
        loop {
            let Some((id, snap)) = lock(&self.index).first_in_memory() else { return Ok(()) };
            let number = self.write(shelf, &file::head(&snap), &snap.jpeg)?;
            if !lock(&self.index).saved(id, number) {
                shelf.remove(number)?;
            }
            self.works();
        }
    }

    fn write(&self, shelf: &mut Shelf<D>, head: &[u8], jpeg: &[u8]) -> io::Result<u64> {
        self.make_room(shelf, (head.len() + jpeg.len()) as u64);
        shelf.put(&[head, jpeg])
    }

    fn make_room(&self, shelf: &mut Shelf<D>, bytes: u64) {
        let numbers = lock(&self.index).make_room_on_disk(self.budget, bytes);
        if !numbers.is_empty() {
            self.lose(shelf, numbers, 0);
        }
    }

    fn lose(&self, shelf: &mut Shelf<D>, numbers: Vec<u64>, more: u64) {
        let before = shelf.dropped();
        if let Err(error) = shelf.lose(numbers, more) {
            self.fails(&error);
        }
        self.dropped.store(shelf.dropped(), Ordering::Relaxed);
        let mut said = lock(&self.said);
        if said.dropping_since.is_none() {
            said.dropping_since = Some(before);
            error!("More pictures wait for the broker than image_bytes allows; the oldest are dropped.");
        }
    }

    fn fails(&self, error: &io::Error) {
        let mut said = lock(&self.said);
        if said.fault.is_none() {
            error!(%error, "Pictures for the broker cannot be kept on the disk; the newest wait in memory.");
        }
        said.fault = Some(error.to_string().into());
    }

    fn works(&self) {
        if lock(&self.said).fault.take().is_some() {
            info!("Pictures for the broker are kept on the disk again.");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code that holds this lock panics")
}
