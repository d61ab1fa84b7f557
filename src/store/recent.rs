//! What is in the journal and not in the archive yet, in memory as rows of each series, for readers and for the next
//! sealing. As large as the journal.

use super::record::{Before, Record, Row, put_row, row};
use super::wire::Reader;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Recent {
    /// These rows will be in the archive under this number; if they are there already, they count there.
    pub(super) generation: u64,
    pub(super) samples: u64,
    series: BTreeMap<u32, Rows>,
    /// Of all series that ever were.
    ids: HashMap<Arc<str>, u32, RandomState>,
    names: HashMap<u32, Arc<str>, RandomState>,
    next: u32,
}

#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    before: Before,
    /// The earliest time.
    first: Option<i64>,
}

impl Recent {
    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The id of a series, a new one if it is new.
    pub(super) fn id_or_new(&mut self, name: &str) -> u32 {
        match self.id(name) {
            Some(id) => id,
            None => {
                let id = self.next;
                self.define(id, name);
                id
            }
        }
    }

    pub(super) fn define(&mut self, id: u32, name: &str) {
        let name: Arc<str> = name.into();
        self.ids.insert(name.clone(), id);
        self.names.insert(id, name);
        self.next = self.next.max(id.saturating_add(1));
    }

    pub(super) fn name(&self, id: u32) -> Option<Arc<str>> {
        self.names.get(&id).cloned()
    }

    pub(super) fn push(&mut self, series: u32, row: &Row) {
        let rows = self.series.entry(series).or_default();
        put_row(&mut rows.bytes, &mut rows.before, row);
        let time = row.record.time().ticks();
        rows.first = Some(rows.first.map_or(time, |first| first.min(time)));
        self.samples += 1;
    }

    /// The series that have rows.
    pub(super) fn series(&self) -> Vec<u32> {
        self.series.keys().copied().collect()
    }

    /// The earliest time of any row.
    pub(super) fn first(&self) -> Option<i64> {
        self.series.values().filter_map(|rows| rows.first).min()
    }

    /// The rows of a series that `wanted` wants, in the order of their times; of equal ones as they came.
    pub(super) fn rows(&self, series: u32, wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
        let Some(Rows { bytes, .. }) = self.series.get(&series) else { return Vec::new() };
        let (mut reader, mut before, mut rows) = (Reader::new(bytes), Before::default(), Vec::new());
        while !reader.is_empty() {
            let row = row(&mut reader, &mut before).expect("these bytes were made by put_row");
            if wanted(&row) {
                rows.push(row);
            }
        }
        rows.sort_by_key(|row| row.record.time());
        rows
    }

    pub(super) fn records(&self, series: u32, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
        let rows = self.rows(series, |row| wanted(&row.record));
        rows.into_iter().map(|row| row.record).collect()
    }

    /// The rows are in the archive now.
    pub(super) fn clear(&mut self, next_generation: u64) {
        self.series.clear();
        self.samples = 0;
        self.generation = next_generation;
    }
}
