//! What waits, in its order, and what of it is on its way. In memory alone: no disk, no clock.

use crate::sinks::mqtt::images::Snap;
use std::collections::VecDeque;

#[derive(Default)]
pub struct Index {
    /// The oldest first.
    entries: VecDeque<Entry>,
    next_id: u64,
    /// What those in files take.
    on_disk: u64,
    /// What those in memory take.
    in_memory: u64,
    sent: u64,
}

pub struct Entry {
    pub id: u64,
    pub place: Place,
    bytes: u64,
    is_in_flight: bool,
    /// It was there before the connection that there is.
    is_historical: bool,
}

#[derive(Clone)]
pub enum Place {
    /// The number of its file.
    File(u64),
    Memory(Snap),
}

impl Index {
    pub fn waiting(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn bytes(&self) -> u64 {
        self.on_disk + self.in_memory
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// From before this start: older than all others.
    pub fn found(&mut self, files: Vec<(u64, u64)>) {
        for (number, bytes) in files.into_iter().rev() {
            let id = self.next_id();
            self.on_disk += bytes;
            let place = Place::File(number);
            self.entries.push_front(Entry { id, place, bytes, is_in_flight: false, is_historical: true });
        }
    }

    pub fn push(&mut self, place: Place, bytes: u64) {
        let id = self.next_id();
        *self.taken_by(&place) += bytes;
        self.entries.push_back(Entry { id, place, bytes, is_in_flight: false, is_historical: false });
    }

    /// It is to go next: the oldest that is not on its way.
    pub fn first(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| !entry.is_in_flight)
    }

    /// It is on its way now; whether it counts as history. `None` if it has been dropped meanwhile.
    pub fn begin(&mut self, id: u64) -> Option<bool> {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id)?;
        entry.is_in_flight = true;
        Some(entry.is_historical)
    }

    /// It is where it was to go. `None` if it was not known.
    pub fn arrived(&mut self, id: u64) -> Option<Place> {
        let place = self.remove(id)?;
        self.sent += 1;
        Some(place)
    }

    pub fn remove(&mut self, id: u64) -> Option<Place> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        self.remove_at(at)
    }

    /// It could not be sent now, and may be later.
    pub fn release(&mut self, id: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.is_in_flight = false;
        }
    }

    /// Nothing is on its way any more, and what there is belongs to the past.
    pub fn rewind(&mut self) {
        for entry in &mut self.entries {
            (entry.is_in_flight, entry.is_historical) = (false, true);
        }
    }

    /// Takes out files, the oldest first, until `more` fit in with the rest. What is on its way goes last.
    pub fn make_room_on_disk(&mut self, most: u64, more: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        while self.on_disk + more > most {
            let is_file = |entry: &Entry| matches!(entry.place, Place::File(_));
            let is_idle = |entry: &Entry| !entry.is_in_flight && is_file(entry);
            let oldest = self.entries.iter().position(is_idle).or_else(|| self.entries.iter().position(is_file));
            let Some(at) = oldest else { break };
            if let Some(Place::File(number)) = self.remove_at(at) {
                numbers.push(number);
            }
        }
        numbers
    }

    /// As above for those in memory; how many it took out.
    pub fn make_room_in_memory(&mut self, most: u64, more: u64) -> u64 {
        let mut count = 0;
        while self.in_memory + more > most {
            let is_held = |entry: &Entry| matches!(entry.place, Place::Memory(_));
            let is_idle = |entry: &Entry| !entry.is_in_flight && is_held(entry);
            let oldest = self.entries.iter().position(is_idle).or_else(|| self.entries.iter().position(is_held));
            let Some(at) = oldest else { break };
            self.remove_at(at);
            count += 1;
        }
        count
    }

    /// The oldest that is in memory alone.
    pub fn first_in_memory(&self) -> Option<(u64, Snap)> {
        self.entries.iter().find_map(|entry| match &entry.place {
            Place::Memory(snap) => Some((entry.id, snap.clone())),
            Place::File(_) => None,
        })
    }

    /// It is in a file now; `false` if it is not there any more.
    pub fn saved(&mut self, id: u64, number: u64) -> bool {
        let Some(at) = self.entries.iter().position(|entry| entry.id == id) else { return false };
        let entry = &mut self.entries[at];
        let bytes = entry.bytes;
        entry.place = Place::File(number);
        self.in_memory -= bytes;
        self.on_disk += bytes;
        true
    }

    fn remove_at(&mut self, at: usize) -> Option<Place> {
        let Entry { place, bytes, .. } = self.entries.remove(at)?;
        *self.taken_by(&place) -= bytes;
        Some(place)
    }

    fn taken_by(&mut self, place: &Place) -> &mut u64 {
        match place {
            Place::File(_) => &mut self.on_disk,
            Place::Memory(_) => &mut self.in_memory,
        }
    }

    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}
