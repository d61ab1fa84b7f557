//! What is in order and compressed: a redb file.
//!
//!     series        id                          -> name
//!     generations   generation                  -> samples, bytes, first and last time, newest server time (varints)
//!     columns       generation, number          -> CRC-32, times (block.rs)
//!     blocks        generation, series, part    -> CRC-32, first and last time (64 bits), column, body (block.rs)
//!     owed          generation                  -> CRC-32, when the oldest of them came, numbers of rows owed to the uplink
//!     totals        what                        -> samples, counted over restarts
//!
//! A generation is what one journal became. It is written in one transaction and removed in one, so a reader sees all of it
//! or nothing. The newest is the last in each table, so writing touches few pages. redb gives freed pages out again, so
//! the file stops growing where the limit in bytes is reached.

use super::block;
use super::ranges::Ranges;
use super::record::Row;
use super::wire::{Damaged, Reader, crc32, put_signed, put_varint};
use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableHandle,
    WriteTransaction,
};
use std::collections::HashMap;
use std::ops::Bound;

pub(super) const SERIES: TableDefinition<u32, &str> = TableDefinition::new("series");
pub(super) const GENERATIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("generations");
pub(super) const COLUMNS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("columns");
pub(super) const BLOCKS: TableDefinition<(u64, u32, u32), &[u8]> = TableDefinition::new("blocks");
pub(super) const OWED: TableDefinition<u64, &[u8]> = TableDefinition::new("owed");
pub(super) const TOTALS: TableDefinition<&str, u64> = TableDefinition::new("totals");

/// Read again and again while a range is read; the rest comes from the page cache of the system.
const CACHE: usize = 1 << 20;
/// What a row takes of the file, about: its key and offsets, and room in its pages. A page has 4 KiB, and a value that is
/// larger gets a power of two of them for itself.
fn room(value: usize) -> u64 {
    let bytes = value as u64 + 40;
    if bytes > 1300 { bytes.next_power_of_two().max(4096) } else { bytes * 3 / 2 }
}

pub(super) struct Archive(Database);

/// What is known of a generation without reading it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Generation {
    pub(super) samples: u64,
    pub(super) bytes: u64,
    /// Ticks.
    pub(super) first: i64,
    pub(super) last: i64,
    /// By this device's clock.
    pub(super) newest: i64,
}

/// Samples that were removed, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) by_bytes: u64,
    pub(super) by_age: u64,
    /// Of these, those that were still owed to the uplink.
    pub(super) owed: u64,
}

/// What a generation still owes to the uplink.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Debt {
    /// When the oldest of them came, in ticks.
    pub(super) since: i64,
    pub(super) numbers: Ranges,
}

/// A reader's view of one moment.
pub(super) struct View {
    pub(super) generations: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) columns: ReadOnlyTable<(u64, u32), &'static [u8]>,
    pub(super) blocks: ReadOnlyTable<(u64, u32, u32), &'static [u8]>,
}

impl Generation {
    fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.samples);
        put_varint(&mut out, self.bytes);
        [self.first, self.last, self.newest].iter().for_each(|time| put_signed(&mut out, *time));
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            samples: reader.varint()?,
            bytes: reader.varint()?,
            first: reader.signed()?,
            last: reader.signed()?,
            newest: reader.signed()?,
        })
    }
}

impl Debt {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_signed(&mut out, self.since);
        self.numbers.put(&mut out);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        Ok(Self { since: reader.signed()?, numbers: Ranges::read(&mut reader)? })
    }
}

impl Archive {
    pub(super) fn open(backend: impl StorageBackend) -> Result<Self, redb::Error> {
        let database = redb::Builder::new().set_cache_size(CACHE).create_with_backend(backend)?;
        // A file of before the uplink's queue has no table for it.
        if !database.begin_read()?.list_tables()?.any(|table| table.name() == OWED.name()) {
            let transaction = database.begin_write()?;
            transaction.open_table(SERIES)?;
            transaction.open_table(GENERATIONS)?;
            transaction.open_table(COLUMNS)?;
            transaction.open_table(BLOCKS)?;
            transaction.open_table(OWED)?;
            transaction.open_table(TOTALS)?;
            transaction.commit()?;
        }
        Ok(Self(database))
    }

    pub(super) fn view(&self) -> Result<View, redb::Error> {
        let transaction = self.0.begin_read()?;
        Ok(View {
            generations: transaction.open_table(GENERATIONS)?,
            columns: transaction.open_table(COLUMNS)?,
            blocks: transaction.open_table(BLOCKS)?,
        })
    }

    pub(super) fn series(&self) -> Result<Vec<(u32, String)>, redb::Error> {
        let table = self.0.begin_read()?.open_table(SERIES)?;
        let row = |row: Result<(redb::AccessGuard<'_, u32>, redb::AccessGuard<'_, &str>), _>| {
            let (id, name) = row?;
            Ok((id.value(), name.value().to_owned()))
        };
        table.iter()?.map(row).collect()
    }

    pub(super) fn dropped(&self) -> Result<Dropped, redb::Error> {
        let table = self.0.begin_read()?.open_table(TOTALS)?;
        let total = |name: &str| Ok::<_, redb::Error>(table.get(name)?.map_or(0, |total| total.value()));
        let (by_bytes, by_age) = (total("dropped_by_bytes")?, total("dropped_by_age")?);
        Ok(Dropped { by_bytes, by_age, owed: total("dropped_owed")? })
    }

    /// What each generation owed when the last one was sealed. What cannot be read is not known to be owed.
    pub(super) fn debts(&self) -> Result<Vec<(u64, Debt)>, redb::Error> {
        let table = self.0.begin_read()?.open_table(OWED)?;
        let mut debts = Vec::new();
        for row in table.iter()? {
            let (generation, value) = row?;
            if let Ok(debt) = without_crc(value.value()).and_then(Debt::from_bytes) {
                debts.push((generation.value(), debt));
            }
        }
        Ok(debts)
    }

    /// All generations, the first one first. One that cannot be read counts as empty and infinitely old.
    pub(super) fn generations(&self) -> Result<Vec<(u64, Generation)>, redb::Error> {
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(GENERATIONS)?;
        let mut generations = Vec::new();
        for row in table.iter()? {
            let (number, meta) = row?;
            let unreadable = Generation { samples: 0, bytes: 0, first: i64::MAX, last: i64::MIN, newest: i64::MIN };
            generations.push((number.value(), Generation::from_bytes(meta.value()).unwrap_or(unreadable)));
        }
        Ok(generations)
    }

    /// Writes a generation: `rows` gives those of each series, in the order of their times. And what generations owe now,
    /// this one among them; those that owe nothing any more too.
    pub(super) fn seal(
        &self,
        number: u64,
        series: &[(u32, &str)],
        rows: impl Fn(u32) -> Vec<Row>,
        debts: &[(u64, Debt)],
    ) -> Result<(), redb::Error> {
        let transaction = self.begin()?;
        {
            let mut names = transaction.open_table(SERIES)?;
            let mut columns = transaction.open_table(COLUMNS)?;
            let mut blocks = transaction.open_table(BLOCKS)?;
            let mut known: HashMap<Vec<u8>, u32> = HashMap::new();
            let mut meta = Generation { samples: 0, bytes: 0, first: i64::MAX, last: i64::MIN, newest: i64::MIN };
            for &(id, name) in series {
                if names.get(id)?.is_none() {
                    names.insert(id, name)?;
                }
                for (part, rows) in rows(id).chunks(block::MOST).enumerate() {
                    let times = block::times(rows);
                    let next = known.len() as u32;
                    let column = *known.entry(times).or_insert_with_key(|times| {
                        meta.bytes += room(times.len());
                        next
                    });
                    let time = |row: &Row| row.record.time().ticks();
                    let (first, last) = (time(&rows[0]), time(&rows[rows.len() - 1]));
                    let mut body = [first.to_le_bytes(), last.to_le_bytes()].concat();
                    put_varint(&mut body, column.into());
                    body.extend(block::encode(rows));
                    blocks.insert((number, id, part as u32), with_crc(&body).as_slice())?;
                    meta.samples += rows.len() as u64;
                    meta.bytes += room(body.len());
                    meta.first = meta.first.min(first);
                    meta.last = meta.last.max(last);
                    let newest = rows.iter().map(|row| row.record.server_time.ticks()).max();
                    meta.newest = meta.newest.max(newest.unwrap_or(i64::MIN));
                }
            }
            for (times, column) in &known {
                columns.insert((number, *column), with_crc(times).as_slice())?;
            }
            let mut owed = transaction.open_table(OWED)?;
            for (generation, debt) in debts {
                if debt.numbers.is_empty() {
                    owed.remove(generation)?;
                } else {
                    owed.insert(generation, with_crc(&debt.to_bytes()).as_slice())?;
                }
            }
            transaction.open_table(GENERATIONS)?.insert(number, meta.to_bytes().as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The oldest generations but what has `max_bytes` at most, and those whose newest sample came before `oldest` and that
    /// are not young all the same; and how many samples they have.
    pub(super) fn surplus(
        &self,
        max_bytes: u64,
        oldest: i64,
        is_young: impl Fn(u64) -> bool,
    ) -> Result<(Vec<u64>, Dropped), redb::Error> {
        let generations = self.generations()?;
        let mut bytes: u64 = generations.iter().map(|(_, meta)| meta.bytes).sum();
        let (mut surplus, mut dropped) = (Vec::new(), Dropped::default());
        let newest = generations.last().map(|(number, _)| *number);
        for (number, meta) in generations {
            // The newest says which journal was sealed, also when all of that was settled and nothing had to be kept.
            if meta.samples == 0 && Some(number) == newest {
                continue;
            }
            if meta.newest < oldest && !is_young(number) {
                dropped.by_age += meta.samples;
            } else if bytes > max_bytes {
                dropped.by_bytes += meta.samples;
            } else {
                continue;
            }
            bytes -= meta.bytes;
            surplus.push(number);
        }
        Ok((surplus, dropped))
    }

    /// Removes generations and counts what went with them.
    pub(super) fn remove(&self, gone: &[u64], dropped: Dropped) -> Result<(), redb::Error> {
        let transaction = self.begin()?;
        {
            let mut generations = transaction.open_table(GENERATIONS)?;
            let mut columns = transaction.open_table(COLUMNS)?;
            let mut blocks = transaction.open_table(BLOCKS)?;
            let mut owed = transaction.open_table(OWED)?;
            for &number in gone {
                generations.remove(number)?;
                owed.remove(number)?;
                columns.retain_in((number, 0)..=(number, u32::MAX), |_, _| false)?;
                blocks.retain_in((number, 0, 0)..=(number, u32::MAX, u32::MAX), |_, _| false)?;
            }
            let mut totals = transaction.open_table(TOTALS)?;
            let Dropped { by_bytes, by_age, owed } = dropped;
            for (name, count) in [("dropped_by_bytes", by_bytes), ("dropped_by_age", by_age), ("dropped_owed", owed)] {
                let before = totals.get(name)?.map_or(0, |total| total.value());
                totals.insert(name, before + count)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn begin(&self) -> Result<WriteTransaction, redb::Error> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        Ok(transaction)
    }
}

impl View {
    /// The last generation there is.
    pub(super) fn newest(&self) -> Result<Option<u64>, redb::Error> {
        Ok(self.generations.last()?.map(|(number, _)| number.value()))
    }

    /// The parts of a series in a generation, with their first and last times.
    pub(super) fn parts(&self, number: u64, series: u32) -> Result<Vec<(u32, i64, i64)>, redb::Error> {
        let mut parts = Vec::new();
        for row in self.blocks.range((number, series, 0)..=(number, series, u32::MAX))? {
            let (key, value) = row?;
            // Of one that cannot be read the times are not known, so it is looked at and found out.
            let (first, last) = value.value().get(4..20).map_or((i64::MIN, i64::MAX), |times| {
                let time = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes each"));
                (time(&times[..8]), time(&times[8..]))
            });
            parts.push((key.value().2, first, last));
        }
        Ok(parts)
    }

    /// The rows of a generation that are owed and wanted, by their numbers, with their series. Those that cannot be read
    /// any more are missing.
    pub(super) fn owed(&self, number: u64, wanted: &Ranges) -> Result<Vec<(u32, Row)>, redb::Error> {
        let mut found = Vec::new();
        for entry in self.blocks.range((number, 0, 0)..=(number, u32::MAX, u32::MAX))? {
            let (_, series, part) = entry?.0.value();
            let rows = self.rows(number, series, part)?.unwrap_or_default();
            let is_wanted = |row: &Row| row.owed.is_some_and(|number| wanted.contains(number));
            found.extend(rows.into_iter().filter(is_wanted).map(|row| (series, row)));
        }
        Ok(found)
    }

    /// The samples of a part; none if they cannot be read any more.
    pub(super) fn rows(&self, number: u64, series: u32, part: u32) -> Result<Option<Vec<Row>>, redb::Error> {
        let Some(value) = self.blocks.get((number, series, part))? else { return Ok(None) };
        let Ok((column, body)) = opened(value.value()) else { return Ok(None) };
        let Some(times) = self.columns.get((number, column))? else { return Ok(None) };
        Ok(without_crc(times.value()).and_then(|times| block::decode(times, body)).ok())
    }
}

/// The column and the body of a block's value.
fn opened(value: &[u8]) -> Result<(u32, &[u8]), Damaged> {
    let mut reader = Reader::new(without_crc(value)?);
    reader.take(16)?;
    let column = reader.number()?;
    Ok((column, reader.rest()))
}

fn with_crc(bytes: &[u8]) -> Vec<u8> {
    [&crc32(bytes).to_le_bytes(), bytes].concat()
}

fn without_crc(value: &[u8]) -> Result<&[u8], Damaged> {
    let (crc, bytes) = value.split_first_chunk::<4>().ok_or(Damaged)?;
    if u32::from_le_bytes(*crc) == crc32(bytes) { Ok(bytes) } else { Err(Damaged) }
}

/// Whether a file that redb does not open is beyond repair, and not only out of reach.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    use std::io::ErrorKind as Kind;
    match error {
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted => true,
        redb::Error::Io(error) => matches!(error.kind(), Kind::InvalidData | Kind::UnexpectedEof),
        _ => false,
    }
}

/// A file that counts what is written to it.
#[derive(Debug)]
pub(super) struct Counted<B> {
    pub(super) inner: B,
    pub(super) written: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl<B: StorageBackend> StorageBackend for Counted<B> {
    fn len(&self) -> std::io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.written.fetch_add(data.len() as u64, std::sync::atomic::Ordering::Relaxed);
        self.inner.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
