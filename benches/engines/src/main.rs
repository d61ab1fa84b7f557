//! What each of the two candidates costs for the store's way of writing, and whether it survives being killed.
//!
//!     engines redb|fjall write FOLDER [commits] [samples]   the load, and what it cost
//!     engines redb|fjall crash FOLDER [rounds]              kills a writer again and again, and looks at what is left
//!
//! The load: each commit is one journal record (`samples` samples of 11 bytes); every 600 commits 100 blocks of 1200
//! bytes are put and the journal records before are removed, as src/store does it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

trait Engine: Sized {
    fn open(folder: &Path) -> Fallible<Self>;
    fn append(&self, seq: u64, record: &[u8]) -> Fallible<()>;
    /// In one transaction: put blocks, remove journal records from `first` up to `last`.
    fn seal(&self, generation: u64, blocks: &[Vec<u8>], first: u64, last: u64) -> Fallible<()>;
    fn journal(&self) -> Fallible<Vec<(u64, Vec<u8>)>>;
    fn blocks(&self) -> Fallible<u64>;
}

struct Redb(redb::Database);
const JOURNAL: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("journal");
const BLOCKS: redb::TableDefinition<(u64, u32), &[u8]> = redb::TableDefinition::new("blocks");

impl Engine for Redb {
    fn open(folder: &Path) -> Fallible<Self> {
        let database = redb::Builder::new().set_cache_size(2 << 20).create(folder.join("store.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(JOURNAL)?;
        transaction.open_table(BLOCKS)?;
        transaction.commit()?;
        Ok(Self(database))
    }

    fn append(&self, seq: u64, record: &[u8]) -> Fallible<()> {
        let transaction = self.0.begin_write()?;
        transaction.open_table(JOURNAL)?.insert(seq, record)?;
        Ok(transaction.commit()?)
    }

    fn seal(&self, generation: u64, blocks: &[Vec<u8>], first: u64, last: u64) -> Fallible<()> {
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(BLOCKS)?;
            for (index, block) in blocks.iter().enumerate() {
                table.insert((generation, index as u32), block.as_slice())?;
            }
            transaction.open_table(JOURNAL)?.retain_in(first..=last, |_, _| false)?;
        }
        Ok(transaction.commit()?)
    }

    fn journal(&self) -> Fallible<Vec<(u64, Vec<u8>)>> {
        use redb::{ReadableDatabase, ReadableTable};
        let table = self.0.begin_read()?.open_table(JOURNAL)?;
        table.iter()?.map(|row| row.map(|(key, value)| (key.value(), value.value().to_vec())).map_err(Into::into)).collect()
    }

    fn blocks(&self) -> Fallible<u64> {
        use redb::{ReadableDatabase, ReadableTableMetadata};
        Ok(self.0.begin_read()?.open_table(BLOCKS)?.len()?)
    }
}

struct Fjall { database: fjall::Database, journal: fjall::Keyspace, blocks: fjall::Keyspace }

impl Engine for Fjall {
    fn open(folder: &Path) -> Fallible<Self> {
        let database = fjall::Database::builder(folder).cache_size(2 << 20).worker_threads(1).open()?;
        let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(2 << 20);
        let (journal, blocks) = (database.keyspace("journal", options)?, database.keyspace("blocks", options)?);
        Ok(Self { database, journal, blocks })
    }

    fn append(&self, seq: u64, record: &[u8]) -> Fallible<()> {
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncData));
        batch.insert(&self.journal, seq.to_be_bytes(), record);
        Ok(batch.commit()?)
    }

    fn seal(&self, generation: u64, blocks: &[Vec<u8>], first: u64, last: u64) -> Fallible<()> {
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncData));
        for (index, block) in blocks.iter().enumerate() {
            let key: Vec<u8> = [&generation.to_be_bytes()[..], &(index as u32).to_be_bytes()].concat();
            batch.insert(&self.blocks, key, block.as_slice());
        }
        for seq in first..=last {
            batch.remove(&self.journal, seq.to_be_bytes());
        }
        Ok(batch.commit()?)
    }

    fn journal(&self) -> Fallible<Vec<(u64, Vec<u8>)>> {
        let mut rows = Vec::new();
        for row in self.journal.iter() {
            let (key, value) = row.into_inner()?;
            rows.push((u64::from_be_bytes((&*key).try_into()?), value.to_vec()));
        }
        Ok(rows)
    }

    fn blocks(&self) -> Fallible<u64> {
        let mut count = 0;
        for row in self.blocks.iter() {
            row.key()?;
            count += 1;
        }
        Ok(count)
    }
}

const SEAL: u64 = 600;

/// Not compressible, and known from its number.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Appends one commit, and seals when it is time.
fn step(engine: &impl Engine, seq: u64, samples: usize) -> Fallible<()> {
    engine.append(seq, &noise(seq, samples * 11))?;
    seal(engine, seq, samples)
}

fn seal(engine: &impl Engine, seq: u64, samples: usize) -> Fallible<()> {
    if (seq + 1) % SEAL == 0 {
        let blocks: Vec<_> = (0..100).map(|block| noise(seq + block, samples * 12)).collect();
        engine.seal(seq / SEAL, &blocks, seq + 1 - SEAL, seq)?;
    }
    Ok(())
}

fn proc_value(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0)
}

fn cpu_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap_or(0) + fields[12].parse::<u64>().unwrap_or(0)) * 10
}

fn size(folder: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let (apparent, real) = if meta.is_dir() { size(&entry.path()) } else { (meta.len(), meta.blocks() * 512) };
        sum = (sum.0 + apparent, sum.1 + real);
    }
    sum
}

fn write<E: Engine>(folder: &Path, commits: u64, samples: usize) -> Fallible<()> {
    fs::create_dir_all(folder)?;
    let engine = E::open(folder)?;
    let idle = proc_value("status", "VmRSS:");
    let (began, cpu, written) = (Instant::now(), cpu_ms(), proc_value("io", "write_bytes:"));
    for seq in 0..commits {
        step(&engine, seq, samples)?;
    }
    let all = commits as f64 * samples as f64;
    let written = proc_value("io", "write_bytes:") - written;
    println!(
        "{all} samples in {commits} commits: {:.1} s, CPU {} ms, {written} bytes to the device ({:.1} a sample)",
        began.elapsed().as_secs_f64(), cpu_ms() - cpu, written as f64 / all
    );
    println!("resident {idle} kB when opened, {} kB at the most", proc_value("status", "VmHWM:"));
    drop(engine);
    let (apparent, real) = size(folder);
    println!("on disk {apparent} bytes, {real} allocated");
    let began = Instant::now();
    E::open(folder)?;
    println!("opened again in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Writes for ever, and says what is committed.
fn writer<E: Engine>(folder: &Path) -> Fallible<()> {
    let engine = E::open(folder)?;
    let first = match engine.journal()?.last() {
        Some((seq, _)) => {
            // Killed between the two.
            seal(&engine, *seq, 100)?;
            seq + 1
        }
        None => engine.blocks()? / 100 * SEAL,
    };
    for seq in first.. {
        step(&engine, seq, 100)?;
        println!("{seq}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn crash<E: Engine>(name: &str, folder: &Path, rounds: u64) -> Fallible<()> {
    fs::create_dir_all(folder)?;
    let (mut committed, mut slowest) = (None, Duration::ZERO);
    for round in 0..rounds {
        let mut child = Command::new(env::current_exe()?).args([name, "writer"]).arg(folder).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let pause = Duration::from_millis(30 + noise(round + 1, 8)[0] as u64 * 2);
        std::thread::sleep(pause);
        child.kill()?;
        child.wait()?;
        committed = lines.by_ref().map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok()).last().or(committed);
        let began = Instant::now();
        let engine = E::open(folder)?;
        slowest = slowest.max(began.elapsed());
        let journal = engine.journal()?;
        let sealed = engine.blocks()? / 100 * SEAL;
        let last = journal.last().map_or(sealed, |(seq, _)| seq + 1);
        for (index, (seq, record)) in journal.iter().enumerate() {
            let in_order = *seq == journal[0].0 + index as u64;
            if !in_order || *record != noise(*seq, 1100) {
                return Err(format!("round {round}: record {seq} is wrong").into());
            }
        }
        if committed.is_some_and(|committed| last <= committed) {
            return Err(format!("round {round}: {last} is left of {committed:?}").into());
        }
    }
    println!("{rounds} kills, nothing lost, {committed:?} commits; slowest opening {:.1} ms", slowest.as_secs_f64() * 1e3);
    Ok(())
}

fn run<E: Engine>(name: &str, arguments: &[String]) -> Fallible<()> {
    let number = |index: usize, default: u64| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let folder = PathBuf::from(&arguments[1]);
    match arguments[0].as_str() {
        "write" => write::<E>(&folder, number(2, 1000)?, number(3, 100)? as usize),
        "writer" => writer::<E>(&folder),
        "crash" => crash::<E>(name, &folder, number(2, 100)?),
        other => Err(format!("unknown: {other}").into()),
    }
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("redb") if arguments.len() > 2 => run::<Redb>("redb", &arguments[1..]),
        Some("fjall") if arguments.len() > 2 => run::<Fjall>("fjall", &arguments[1..]),
        _ => Err("engines redb|fjall write|crash FOLDER [...]".into()),
    }
}
