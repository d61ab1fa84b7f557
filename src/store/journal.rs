//! What came since the archive was written last: one file to which each group of samples is appended and synced.
//!
//!     file       MAGIC, then frames
//!     frame      length of the payload, CRC-32 of it (both 32 bits, little endian), payload
//!     payload    number of new series, of each: id, name; number of rows, of each: series id, row (record.rs);
//!                if anything was settled: number of generations, of each: generation, numbers of rows (ranges.rs)
//!
//! A journal names each series it uses, so it needs nothing else to be read. It belongs to one generation, whose number is
//! in the file's name. A frame that is cut off or damaged ends it: what is behind was never synced, or cannot be trusted.
//!
//! A failed append leaves the file as long as it may be; the next one cuts it to what is known to be whole.

use super::ranges::Ranges;
use super::record::{Before, Row, put_row, row};
use super::wire::{Damaged, Reader, crc32, put_bytes, put_varint};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"vedettJ1";
const HEAD: usize = 8;

pub(super) struct Journal {
    pub(super) generation: u64,
    pub(super) file: File,
    /// Known to be whole.
    length: u64,
    is_torn: bool,
    /// Series that it names.
    named: HashSet<u32>,
}

/// One sample on its way into the journal.
pub(super) struct Line<'a> {
    pub(super) series: u32,
    pub(super) name: &'a str,
    pub(super) row: Row,
}

/// Rows that are owed no more: generations, and the numbers of their rows.
pub(super) type Settled = BTreeMap<u64, Ranges>;

/// What a frame says.
pub(super) enum Entry<'a> {
    Series(u32, &'a str),
    Row(u32, Row),
    Settled(u64, Ranges),
}

fn path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("journal-{generation:016x}"))
}

/// Generations of which there is a journal, the first one first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let generation = name.to_str().and_then(|name| u64::from_str_radix(name.strip_prefix("journal-")?, 16).ok());
        found.extend(generation);
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn remove(folder: &Path, generation: u64) -> io::Result<()> {
    fs::remove_file(path(folder, generation))
}

impl Journal {
    pub(super) fn create(folder: &Path, generation: u64) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path(folder, generation))?;
        file.write_all(MAGIC)?;
        file.sync_data()?;
        File::open(folder)?.sync_all()?;
        Ok(Self { generation, file, length: MAGIC.len() as u64, is_torn: false, named: HashSet::new() })
    }

    /// Reads what is whole, and goes on behind that. Returns also how many bytes were not.
    pub(super) fn recover(folder: &Path, generation: u64, mut each: impl FnMut(Entry<'_>)) -> io::Result<(Self, u64)> {
        let mut file = OpenOptions::new().read(true).write(true).open(path(folder, generation))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut named = HashSet::new();
        let whole = read(&bytes, |entry| {
            if let Entry::Series(id, _) = entry {
                named.insert(id);
            }
            each(entry);
        });
        let torn = (bytes.len() - whole) as u64;
        if whole == 0 {
            file.write_all_at(MAGIC, 0)?;
        }
        let length = whole.max(MAGIC.len()) as u64;
        Ok((Self { generation, file, length, is_torn: torn > 0, named }, torn))
    }

    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Appends and syncs one frame; returns its length.
    pub(super) fn append(&mut self, lines: &[Line<'_>], settled: &Settled) -> io::Result<u64> {
        let mut new: BTreeMap<u32, &str> = BTreeMap::new();
        for line in lines {
            if !self.named.contains(&line.series) {
                new.insert(line.series, line.name);
            }
        }
        let frame = frame(&new, lines, settled);
        if self.is_torn {
            self.file.set_len(self.length)?;
        }
        self.is_torn = true;
        self.file.write_all_at(&frame, self.length)?;
        self.file.sync_data()?;
        self.is_torn = false;
        self.length += frame.len() as u64;
        self.named.extend(new.into_keys());
        Ok(frame.len() as u64)
    }
}

fn frame(new: &BTreeMap<u32, &str>, lines: &[Line<'_>], settled: &Settled) -> Vec<u8> {
    let mut out = vec![0; HEAD];
    put_varint(&mut out, new.len() as u64);
    for (id, name) in new {
        put_varint(&mut out, (*id).into());
        put_bytes(&mut out, name.as_bytes());
    }
    put_varint(&mut out, lines.len() as u64);
    let mut before = Before::default();
    for line in lines {
        put_varint(&mut out, line.series.into());
        put_row(&mut out, &mut before, &line.row);
    }
    if !settled.is_empty() {
        put_varint(&mut out, settled.len() as u64);
        for (generation, numbers) in settled {
            put_varint(&mut out, *generation);
            numbers.put(&mut out);
        }
    }
    let (length, crc) = ((out.len() - HEAD) as u32, crc32(&out[HEAD..]));
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..HEAD].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Shows everything up to the first frame that is not whole, and says how many bytes that is.
pub(super) fn read(bytes: &[u8], mut each: impl FnMut(Entry<'_>)) -> usize {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len()) != Ok(MAGIC) {
        return 0;
    }
    let mut whole = MAGIC.len();
    while let Ok(payload) = payload(&mut reader) {
        // Looked through before anything is shown, because half a frame is none.
        if entries(payload, |_| {}).is_err() || entries(payload, &mut each).is_err() {
            break;
        }
        whole += HEAD + payload.len();
    }
    whole
}

fn payload<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Damaged> {
    let length = u32::from_le_bytes(reader.array()?);
    let crc = u32::from_le_bytes(reader.array()?);
    let payload = reader.take(length as usize)?;
    if crc32(payload) == crc { Ok(payload) } else { Err(Damaged) }
}

fn entries(payload: &[u8], mut each: impl FnMut(Entry<'_>)) -> Result<(), Damaged> {
    let mut reader = Reader::new(payload);
    for _ in 0..reader.varint()? {
        each(Entry::Series(reader.number()?, reader.text()?));
    }
    let mut before = Before::default();
    for _ in 0..reader.varint()? {
        each(Entry::Row(reader.number()?, row(&mut reader, &mut before)?));
    }
    if !reader.is_empty() {
        for _ in 0..reader.varint()? {
            each(Entry::Settled(reader.varint()?, Ranges::read(&mut reader)?));
        }
    }
    if reader.is_empty() { Ok(()) } else { Err(Damaged) }
}
