//! The metrics of one node or device, and the budget that all of them share.
//!
//! They stand in the order of their names, so that a value is found without a table of its own: ten thousand nodes with a
//! hundred metrics each are a million metrics. Names are shared: the devices of a fleet are alike.

use super::metric::{self, LONGEST_NAME, Metric, Properties};
use crate::model::Timestamp;
use crate::mqtt::sparkplug::proto::payload;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Names that are kept to be shared. More are not shared, which costs memory that the budget counts.
const SHARED: usize = 100_000;

/// What all nodes together may take, and the names that they share.
pub struct Store {
    names: HashSet<Arc<str>>,
    used: usize,
    most: usize,
    /// How much of one value is kept.
    longest: usize,
}

impl Store {
    pub fn new(most: usize, longest: usize) -> Self {
        Self { names: HashSet::new(), used: 0, most, longest }
    }

    pub fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        if self.names.len() < SHARED {
            self.names.insert(new.clone());
        }
        new
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used
    }
}

#[derive(Default)]
pub struct Metrics {
    /// By name.
    list: Vec<Metric>,
    aliases: HashMap<u64, Arc<str>>,
    bytes: usize,
    /// Metrics that there was no room for.
    pub left_out: u64,
}

/// What one message held that could not be used.
#[derive(Default)]
pub struct Misfits {
    /// Metrics with neither a name nor a known alias, with a value that is not of its type, or twice in a birth.
    pub faulty: u64,
    /// Aliases that no birth has told: what was missed is in the birth.
    pub unknown: bool,
}

impl Metrics {
    pub fn list(&self) -> &[Metric] {
        &self.list
    }

    pub fn get(&self, name: &str) -> Option<&Metric> {
        self.place(name).ok().map(|at| &self.list[at])
    }

    /// Those whose names begin so.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Metric> {
        let first = self.list.partition_point(|metric| *metric.name < *prefix);
        self.list[first..].iter().take_while(move |metric| metric.name.starts_with(prefix))
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.list.binary_search_by(|metric| (*metric.name).cmp(name))
    }

    /// Takes everything out.
    pub fn clear(&mut self, store: &mut Store) {
        store.used -= self.bytes;
        *self = Self::default();
    }

    /// What a birth says: these and no others.
    pub fn birth(&mut self, metrics: Vec<payload::Metric>, time: Option<u64>, store: &mut Store) -> Misfits {
        self.clear(store);
        let mut misfits = Misfits::default();
        for mut told in metrics {
            let Some(name) = told.name.take().filter(|name| !name.is_empty() && name.len() <= LONGEST_NAME) else {
                misfits.faulty += 1;
                continue;
            };
            let name = store.name(&name);
            if let Some(alias) = told.alias {
                self.aliases.insert(alias, name.clone());
            }
            let metric = read(&mut told, name, None, time, store.longest);
            misfits.faulty += u64::from(metric.held == metric::Held::Unreadable);
            self.list.push(metric);
        }
        let told = self.list.len();
        // Stable: of two with one name the last one counts.
        self.list.reverse();
        self.list.sort_by(|a, b| a.name.cmp(&b.name));
        self.list.dedup_by(|a, b| a.name == b.name);
        misfits.faulty += (told - self.list.len()) as u64;
        let room = store.most.saturating_sub(store.used);
        let (mut bytes, mut fit) = (self.aliases.len() * ALIAS, 0);
        while let Some(metric) = self.list.get(fit)
            && bytes + metric.bytes() <= room
        {
            bytes += metric.bytes();
            fit += 1;
        }
        self.left_out = (self.list.len() - fit) as u64;
        if self.left_out > 0 {
            self.list.truncate(fit);
            self.list.shrink_to_fit();
            self.aliases = HashMap::new();
            bytes = self.list.iter().map(Metric::bytes).sum();
        }
        self.bytes = bytes;
        store.used += bytes;
        misfits
    }

    /// What a DATA says. A metric that no birth has told is taken if it has a name, because the birth may have been
    /// before this host.
    pub fn data(&mut self, metrics: Vec<payload::Metric>, time: Option<u64>, store: &mut Store) -> Misfits {
        let mut misfits = Misfits::default();
        for mut told in metrics {
            let name = match (told.name.take(), told.alias) {
                (Some(name), _) if !name.is_empty() => name.as_str().into(),
                (_, Some(alias)) => match self.aliases.get(&alias) {
                    Some(name) => name.clone(),
                    None => {
                        misfits.unknown = true;
                        continue;
                    }
                },
                _ => Arc::from(""),
            };
            if name.is_empty() || name.len() > LONGEST_NAME {
                misfits.faulty += 1;
                continue;
            }
            match self.place(&name) {
                Ok(at) => {
                    let old = &self.list[at];
                    let is_historical = told.is_historical();
                    let new = read(&mut told, old.name.clone(), Some(old), time, store.longest);
                    misfits.faulty += u64::from(new.held == metric::Held::Unreadable);
                    // What comes late is no news.
                    if is_historical && new.time <= old.time {
                        continue;
                    }
                    self.replace(at, new, store);
                }
                Err(at) => {
                    let name = store.name(&name);
                    let new = read(&mut told, name, None, time, store.longest);
                    misfits.faulty += u64::from(new.held == metric::Held::Unreadable);
                    let bytes = new.bytes();
                    if store.used + bytes > store.most {
                        self.left_out += 1;
                        continue;
                    }
                    self.list.insert(at, new);
                    self.bytes += bytes;
                    store.used += bytes;
                }
            }
        }
        misfits
    }

    fn replace(&mut self, at: usize, mut new: Metric, store: &mut Store) {
        let (before, mut after) = (self.list[at].bytes(), new.bytes());
        if after > before && store.used - before + after > store.most {
            new.held = metric::Held::Long(after - size_of::<Metric>());
            after = new.bytes();
        }
        self.bytes = self.bytes - before + after;
        store.used = store.used - before + after;
        self.list[at] = new;
    }
}

/// What an alias takes in the table, about.
const ALIAS: usize = 48;

fn read(told: &mut payload::Metric, name: Arc<str>, old: Option<&Metric>, time: Option<u64>, longest: usize) -> Metric {
    let kind =
        metric::kind(told).or(old.map(|old| old.kind)).unwrap_or_else(|| metric::likely_kind(told.value.as_ref()));
    let Properties { quality, reason, unit } = Properties::read(told.properties.as_ref());
    let millis = told.timestamp.or(time).and_then(|millis| i64::try_from(millis).ok());
    Metric {
        name,
        kind,
        held: metric::held(told, kind, longest),
        quality,
        reason,
        unit: unit.or_else(|| old.and_then(|old| old.unit.clone())),
        time: millis.map(Timestamp::from_millis),
    }
}
