//! Owed rows that the uplink does not have: from the archive, from the journal, and from memory while nothing can be
//! written; generation by generation, in each by the rows' times.
//!
//! A generation is read at once and given out in pieces: it is what one journal had, a few megabytes in memory.

use super::queue::{Epoch, Next, Token};
use super::ranges::Ranges;
use super::record::{Record, Row};
use super::{Shared, StoreError, lock};
use crate::model::TagName;
use std::collections::{HashMap, VecDeque};

/// Some rows of the backlog; perhaps none, if all that was looked at cannot be said now.
#[derive(Debug)]
pub struct Chunk {
    pub rows: Vec<(TagName, Record)>,
    /// To settle them with.
    pub token: Token,
}

/// What was read and not given out yet.
#[derive(Default)]
pub(super) struct Drain {
    /// Of the queue; another one makes this void.
    round: u64,
    /// `None`: they were on no disk.
    generation: Option<u64>,
    rows: VecDeque<Owed>,
}

struct Owed {
    number: u64,
    tag: TagName,
    record: Record,
}

pub(super) fn take(
    shared: &Shared,
    epoch: Epoch,
    at_most: usize,
    is_wanted: &dyn Fn(&TagName) -> bool,
) -> Result<Option<Chunk>, StoreError> {
    let mut drain = lock(&shared.drain);
    loop {
        let (round, next, unwritten) = {
            let mut queue = shared.queue();
            // Whoever asks has ended meanwhile.
            if queue.epoch() != epoch || at_most == 0 {
                return Ok(None);
            }
            if drain.round == queue.round() {
                let mut rows = Vec::new();
                let mut numbers = Ranges::default();
                let mut has_parked = false;
                while rows.len() < at_most
                    && let Some(Owed { number, tag, record }) = drain.rows.pop_front()
                {
                    // It may have been dropped since.
                    if !queue.is_waiting(drain.generation, number) {
                        continue;
                    }
                    if !is_wanted(&tag) {
                        has_parked = true;
                        queue.park_waiting(number);
                    } else {
                        numbers.insert(number..number + 1);
                        rows.push((tag, record));
                    }
                }
                if !rows.is_empty() || has_parked {
                    return Ok(Some(Chunk { rows, token: queue.take(numbers) }));
                }
            }
            (queue.round(), queue.next(), queue.next_unwritten())
        };
        let generation = next.as_ref().map(|next| next.generation);
        let mut rows = match next {
            Some(Next { generation, base, is_sealed, wanted }) => {
                let found = written(shared, generation, base, &wanted)?;
                let there = found.iter().map(|row| row.number..row.number + 1).collect();
                let missing = wanted.without(&there);
                if !missing.is_empty() {
                    let mut queue = shared.queue();
                    // Whatever was read while it was moved is read again.
                    if queue.is_sealed(generation) != is_sealed {
                        continue;
                    }
                    tracing::error!(samples = missing.count(), "Samples that were to be sent are damaged.");
                    queue.lose(&missing);
                }
                found
            }
            None => in_memory(shared, &unwritten),
        };
        if rows.is_empty() && generation.is_none() {
            return Ok(None);
        }
        rows.sort_by_key(|row| (row.record.time(), row.number));
        *drain = Drain { round, generation, rows: rows.into() };
    }
}

/// Rows of a generation, which is in the archive, or else in the journal.
fn written(shared: &Shared, generation: u64, base: u64, wanted: &Ranges) -> Result<Vec<Owed>, StoreError> {
    let wanted = wanted.relative_to(base);
    let (view, in_journal) = {
        // First: once it is cleared the archive has what it had.
        let recent = shared.recent();
        let view = shared.archive()?.view()?;
        let is_sealed = view.newest()?.is_some_and(|newest| newest >= generation);
        let is_wanted = |row: &Row| row.owed.is_some_and(|number| wanted.contains(number));
        let rows = |series| recent.rows(series, is_wanted).into_iter().map(move |row| (series, row));
        let in_journal = (!is_sealed).then(|| recent.series().into_iter().flat_map(rows).collect());
        (view, in_journal)
    };
    let found: Vec<(u32, Row)> = match in_journal {
        Some(found) => found,
        None => view.owed(generation, &wanted)?,
    };
    let names: HashMap<u32, TagName> = {
        let (recent, mut names) = (shared.recent(), HashMap::new());
        for (series, _) in &found {
            if !names.contains_key(series)
                && let Some(name) = recent.name(*series).and_then(|name| TagName::new(&name).ok())
            {
                names.insert(*series, name);
            }
        }
        names
    };
    let owed = found.into_iter().filter_map(|(series, row)| {
        let (number, tag) = (base + row.owed?, names.get(&series)?.clone());
        Some(Owed { number, tag, record: row.record })
    });
    Ok(owed.collect())
}

/// Those that wait for the disk. What is not among them is on its way there just now.
fn in_memory(shared: &Shared, wanted: &Ranges) -> Vec<Owed> {
    let pending = shared.pending();
    let waiting = pending.iter().filter_map(|waiting| Some((waiting.number?, waiting)));
    let wanted = waiting.filter(|(number, _)| wanted.contains(*number));
    wanted.map(|(number, row)| Owed { number, tag: row.tag.clone(), record: (&row.sample).into() }).collect()
}
