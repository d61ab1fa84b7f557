//! Reads and writes by ItemID, outside of the relay's groups.
//!
//! Reads of a DA 3 server need no group (`IOPCItemIO`). Otherwise, and for all writes, because those need the item's canonical type,
//! items are kept in two groups of our own: one that is inactive, for the device and for writing, so that the server polls nothing
//! for it, and an active one for its cache, which goes when nobody has read from it for a while. An item that was just added has
//! nothing in the cache yet, so it is read from the device. An item whose handle the server has forgotten is added again, once.

use super::abi::*;
use super::connection::Connection;
use super::group::{Added, Group, of_item};
use super::memory::{Out, wide_name};
use super::sinks::reading;
use super::variant;
use super::{Failure, Hresult};
use crate::relay::hresults::is_gone;
use crate::relay::protocol::{DaValue, GroupSettings, ITEMS_PER_CALL, Origin, Reading};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

/// So many items are kept in each of the two groups; then they begin anew.
const MOST_KEPT: usize = 20_000;

/// How often the server fills the cache of the active group.
const CACHE_RATE_MS: u32 = 1000;

/// After this an item's cache is full.
const SETTLED: Duration = Duration::from_secs(3);

/// After so long without a read the active group goes: the server polls its devices for it.
const IDLE: Duration = Duration::from_secs(60);

/// OPC_E_INVALIDHANDLE
const INVALID_HANDLE: Hresult = 0xC004_0001_u32 as Hresult;

#[derive(Default)]
pub struct Io {
    device: Option<Shelf>,
    cached: Option<Shelf>,
}

struct Shelf {
    group: Group,
    items: HashMap<String, Kept>,
    used: Instant,
}

#[derive(Clone, Copy)]
struct Kept {
    handle: OpcHandle,
    canonical_type: u16,
    since: Instant,
}

impl Io {
    /// In the order of `items`.
    pub fn read(
        &mut self,
        connection: &mut Connection,
        items: &[String],
        from: Origin,
    ) -> Result<Vec<Result<Reading, Hresult>>, Failure> {
        if let Some(item_io) = connection.item_io.clone() {
            match read_without_group(&item_io, items, from) {
                // Some offer it and cannot do it, or refuse all for one item.
                Err(failure) if !is_gone(failure.hresult) => connection.item_io = None,
                answer => return answer,
            }
        }
        let shelf = match from {
            Origin::Device => shelf(&mut self.device, connection, false, items.len())?,
            Origin::Cache => shelf(&mut self.cached, connection, true, items.len())?,
        };
        let mut answers = shelf.read(items, from)?;
        let again = forgotten(answers.iter().map(|answer| answer.as_ref().err().copied().unwrap_or_default()));
        if !again.is_empty() {
            let names: Vec<String> = again.iter().map(|&at| items[at].clone()).collect();
            shelf.forget(&names);
            again.into_iter().zip(shelf.read(&names, from)?).for_each(|(at, answer)| answers[at] = answer);
        }
        Ok(answers)
    }

    /// Each value as the item's canonical type. In the order of `items`.
    pub fn write(&mut self, connection: &Connection, items: &[(String, DaValue)]) -> Result<Vec<Hresult>, Failure> {
        let shelf = shelf(&mut self.device, connection, false, items.len())?;
        let mut answers = shelf.write(items)?;
        let again = forgotten(answers.iter().copied());
        if !again.is_empty() {
            let (names, items): (Vec<_>, Vec<_>) =
                again.iter().map(|&at| (items[at].0.clone(), items[at].clone())).unzip();
            shelf.forget(&names);
            again.into_iter().zip(shelf.write(&items)?).for_each(|(at, answer)| answers[at] = answer);
        }
        Ok(answers)
    }

    /// Lets go of what nobody has read for a while. How long until there may be more of that.
    pub fn tidy(&mut self) -> Option<Duration> {
        let idle = self.cached.as_ref()?.used.elapsed();
        if idle >= IDLE {
            self.cached = None;
            return None;
        }
        Some(IDLE - idle)
    }
}

/// The places of those that the server knew once.
fn forgotten(results: impl Iterator<Item = Hresult>) -> Vec<usize> {
    results.enumerate().filter(|(_, result)| *result == INVALID_HANDLE).map(|(at, _)| at).collect()
}

impl Shelf {
    /// In the order of `items`.
    fn read(&mut self, items: &[String], from: Origin) -> Result<Vec<Result<Reading, Hresult>>, Failure> {
        let kept = self.kept(items)?;
        let mut answers: Vec<Result<Reading, Hresult>> =
            kept.iter().map(|kept| Err(kept.as_ref().err().copied().unwrap_or_default())).collect();
        let found = kept.iter().enumerate().filter_map(|(index, kept)| Some((index, kept.as_ref().ok()?)));
        let (settled, fresh): (Vec<_>, Vec<_>) =
            found.partition(|(_, kept)| from == Origin::Cache && kept.since.elapsed() >= SETTLED);
        for (origin, wanted) in [(Origin::Cache, settled), (Origin::Device, fresh)] {
            let handles: Vec<OpcHandle> = wanted.iter().map(|(_, kept)| kept.handle).collect();
            for ((index, _), answer) in wanted.into_iter().zip(self.group.read(origin, &handles)?) {
                answers[index] = answer;
            }
        }
        Ok(answers)
    }

    /// In the order of `items`.
    fn write(&mut self, items: &[(String, DaValue)]) -> Result<Vec<Hresult>, Failure> {
        let names: Vec<String> = items.iter().map(|(name, _)| name.clone()).collect();
        let kept = self.kept(&names)?;
        let mut answers = vec![0; items.len()];
        let (mut places, mut values) = (Vec::new(), Vec::new());
        for (index, (kept, (_, value))) in kept.into_iter().zip(items).enumerate() {
            match kept.and_then(|kept| Ok((kept.handle, variant::variant(value, kept.canonical_type)?))) {
                Ok(value) => {
                    places.push(index);
                    values.push(value);
                }
                Err(error) => answers[index] = error,
            }
        }
        for (place, result) in places.into_iter().zip(self.group.write(values)?) {
            answers[place] = result;
        }
        Ok(answers)
    }

    /// To be added anew.
    fn forget(&mut self, items: &[String]) {
        for item in items {
            self.items.remove(item);
        }
    }
}

fn shelf<'a>(
    place: &'a mut Option<Shelf>,
    connection: &Connection,
    active: bool,
    more: usize,
) -> Result<&'a mut Shelf, Failure> {
    if place.as_ref().is_some_and(|shelf| shelf.items.len() + more > MOST_KEPT.max(more)) {
        *place = None;
    }
    if place.is_none() {
        let settings = GroupSettings { rate: CACHE_RATE_MS, deadband: 0.0, active };
        let (group, _) = Group::add(connection, settings, None)?;
        *place = Some(Shelf { group, items: HashMap::new(), used: Instant::now() });
    }
    let shelf = place.as_mut().ok_or(Failure { call: "AddGroup".into(), hresult: super::E_POINTER })?;
    shelf.used = Instant::now();
    Ok(shelf)
}

impl Shelf {
    /// Those that are not in the group yet are added.
    fn kept(&mut self, items: &[String]) -> Result<Vec<Result<Kept, Hresult>>, Failure> {
        let mut errors = HashMap::new();
        let mut missing: Vec<(u32, &str)> = Vec::new();
        for item in items {
            if !self.items.contains_key(item)
                && let Entry::Vacant(vacant) = errors.entry(item.as_str())
            {
                vacant.insert(0);
                missing.push((missing.len() as u32, item));
            }
        }
        let since = Instant::now();
        for ((_, name), added) in missing.iter().zip(self.group.add_each(&missing)?) {
            match added {
                Ok(Added { handle, item }) => {
                    let kept = Kept { handle, canonical_type: item.canonical_type, since };
                    self.items.insert((*name).to_owned(), kept);
                }
                Err(error) => {
                    errors.insert(name, error);
                }
            }
        }
        let of = |item: &String| match self.items.get(item) {
            Some(kept) => Ok(*kept),
            None => Err(errors.get(item.as_str()).copied().unwrap_or(super::E_POINTER)),
        };
        Ok(items.iter().map(of).collect())
    }
}

fn read_without_group(
    item_io: &IOPCItemIO,
    items: &[String],
    from: Origin,
) -> Result<Vec<Result<Reading, Hresult>>, Failure> {
    let oldest = match from {
        Origin::Device => 0,
        Origin::Cache => u32::MAX,
    };
    let mut all: Vec<Result<Reading, Hresult>> = Vec::with_capacity(items.len());
    let mut named = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        let name = wide_name(item);
        all.push(Err(name.as_ref().err().copied().unwrap_or(super::E_POINTER)));
        named.extend(name.ok().map(|name| (place, name)));
    }
    for named in named.chunks(ITEMS_PER_CALL) {
        let count = named.len();
        let pointers: Vec<*const u16> = named.iter().map(|(_, name)| name.as_ptr()).collect();
        let ages = vec![oldest; count];
        let mut values = Out::<RawVariant>::new(count);
        let mut qualities = Out::<u16>::new(count);
        let mut times = Out::<FileTime>::new(count);
        let mut errors = Out::<i32>::new(count);
        // SAFETY: as many names and ages as are said, whose texts live on; what comes back is ours.
        let result = unsafe {
            item_io.Read(
                count as u32,
                pointers.as_ptr(),
                ages.as_ptr(),
                values.slot(),
                qualities.slot(),
                times.slot(),
                errors.slot(),
            )
        }
        .0;
        values.after(result);
        qualities.after(result);
        times.after(result);
        errors.after(result);
        if result < 0 {
            return Err(Failure { call: "IOPCItemIO Read".into(), hresult: result });
        }
        for (index, (place, _)) in named.iter().enumerate() {
            let error = of_item(&errors, index, result);
            let time = times.as_slice().get(index).copied().unwrap_or_default();
            all[*place] = match (values.as_slice().get(index), qualities.as_slice().get(index)) {
                (Some(value), Some(&quality)) => reading(value, quality, time, error),
                _ => Err(if error < 0 { error } else { super::E_POINTER }),
            };
        }
    }
    Ok(all)
}
