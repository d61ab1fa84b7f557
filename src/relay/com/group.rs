//! A DA group: its items, its state, its callbacks.
//!
//! Items are known by the number that the caller gave them; the server's own handles stay in here. A call that fails as a whole
//! for any other reason than a lost server is each of its items' own failure, because some servers answer so when one of the
//! items is wrong; items that are to be added are then tried in ever smaller parts.

use super::abi::*;
use super::connection::Connection;
use super::memory::{Out, Variant, wide, wide_name};
use super::sinks::{Advice, DataSink, Listener, reading};
use super::{Failure, Hresult, check, found, query};
use crate::relay::hresults::is_gone;
use crate::relay::protocol::{AddedItem, GroupSettings, ITEMS_PER_CALL, NewItem, News, Origin, Reading};
use std::collections::HashMap;
use std::ptr;
use windows_core::Interface;

/// How often a group without changes is to say that it lives, where the server can (DA 3): as an `Event::Data` without values.
const KEEP_ALIVE_MS: u32 = 5000;

/// Calls for one chunk of items that is refused as a whole: enough for about five bad ones of a thousand. What is still refused
/// then is tried again with the next retry, without those that were taken.
const MOST_CALLS: usize = 100;

pub struct Group {
    server: IOPCServer,
    handle: OpcHandle,
    state: IOPCGroupStateMgt,
    items: IOPCItemMgt,
    sync: IOPCSyncIO,
    asynchronous: Option<IOPCAsyncIO2>,
    advice: Option<Advice>,
    known: HashMap<u32, OpcHandle>,
}

/// What the server made of the settings.
#[derive(Clone, Copy)]
pub struct Revised {
    pub rate: u32,
    pub result: Hresult,
}

/// An item in a group, as the server knows it.
pub(super) struct Added {
    pub handle: OpcHandle,
    pub item: AddedItem,
}

impl Group {
    /// With a listener it calls back, as the group `number`; without one it is for reading and writing.
    pub fn add(
        connection: &Connection,
        settings: GroupSettings,
        listener: Option<(u32, Listener)>,
    ) -> Result<(Self, Revised), Failure> {
        let server = connection.server.clone();
        // Without a name the server finds one of its own.
        let name = wide("");
        let client = listener.as_ref().map_or(0, |(number, _)| *number);
        let (mut handle, mut rate, mut state) = (0, 0, ptr::null_mut());
        // SAFETY: a text with its zero, our deadband, and places for what comes back.
        let result = unsafe {
            server.AddGroup(
                name.as_ptr(),
                settings.active.into(),
                settings.rate,
                client,
                ptr::null(),
                &settings.deadband,
                0,
                &raw mut handle,
                &raw mut rate,
                &IOPCGroupStateMgt::IID,
                &raw mut state,
            )
        };
        let result = check("AddGroup", result.0)?;
        // SAFETY: given by a call that succeeded.
        let state: IOPCGroupStateMgt = unsafe { found("AddGroup", state) }?;
        let missing = |call: &str| {
            let call = format!("QueryInterface {call}");
            move |hresult| Failure { call, hresult }
        };
        let items = query(&state).map_err(missing("IOPCItemMgt"))?;
        let sync = query(&state).map_err(missing("IOPCSyncIO"))?;
        let asynchronous = query(&state).ok();
        let mut group = Self { server, handle, state, items, sync, asynchronous, advice: None, known: HashMap::new() };
        if let Some((number, listener)) = listener {
            let sink = DataSink::unknown(number, listener);
            group.advice = Some(Advice::new(&group.state, &IOPCDataCallback::IID, sink)?);
            group.keep_alive();
        }
        Ok((group, Revised { rate, result }))
    }

    /// Without it silence says less, so its failure does not matter.
    fn keep_alive(&self) {
        if let Ok(state) = query::<IOPCGroupStateMgt2>(&self.state) {
            let mut revised = 0;
            // SAFETY: a place for the answer.
            let _ = unsafe { state.SetKeepAlive(KEEP_ALIVE_MS, &raw mut revised) };
        }
    }

    pub fn set(&self, settings: GroupSettings) -> Result<Revised, Failure> {
        let (mut rate, active) = (0, Bool32::from(settings.active));
        // SAFETY: numbers of ours, and a place for the answer; null leaves the rest as it is.
        let result = unsafe {
            self.state.SetState(
                &settings.rate,
                &raw mut rate,
                &active,
                ptr::null(),
                &settings.deadband,
                ptr::null(),
                ptr::null(),
            )
        };
        Ok(Revised { rate, result: check("SetState", result.0)? })
    }

    /// In the order of `items`.
    pub fn add_items(&mut self, items: &[NewItem]) -> Result<Vec<Result<AddedItem, Hresult>>, Failure> {
        let wanted: Vec<(u32, &str)> = items.iter().map(|item| (item.handle, item.item_id.as_str())).collect();
        let added = self.add_each(&wanted)?;
        let mut answers = Vec::with_capacity(added.len());
        for (new, added) in items.iter().zip(added) {
            answers.push(added.map(|added| {
                self.known.insert(new.handle, added.handle);
                added.item
            }));
        }
        Ok(answers)
    }

    /// Not remembered. A call that fails as a whole is made again for each half of its items: some servers refuse all for one.
    pub(super) fn add_each(&self, items: &[(u32, &str)]) -> Result<Vec<Result<Added, Hresult>>, Failure> {
        let (mut names, mut answers) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for (place, &(client, name)) in items.iter().enumerate() {
            match wide_name(name) {
                Ok(name) => {
                    names.push((place, client, name));
                    answers.push(Err(super::E_POINTER));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        for chunk in names.chunks(ITEMS_PER_CALL) {
            let mut calls = 0;
            let mut rest = vec![chunk];
            while let Some(some) = rest.pop() {
                calls += 1;
                match self.add_at_once(some)? {
                    Err(_) if some.len() > 1 && calls < MOST_CALLS => {
                        let (first, second) = some.split_at(some.len() / 2);
                        rest.extend([second, first]);
                    }
                    Err(error) => some.iter().for_each(|(place, ..)| answers[*place] = Err(error)),
                    Ok(added) => some.iter().zip(added).for_each(|((place, ..), added)| answers[*place] = added),
                }
            }
        }
        Ok(answers)
    }

    /// The inner error is the call's own.
    fn add_at_once(
        &self,
        items: &[(usize, u32, Vec<u16>)],
    ) -> Result<Result<Vec<Result<Added, Hresult>>, Hresult>, Failure> {
        // An empty text, not null: servers forget to look.
        let no_path = wide("");
        let definitions: Vec<OPCITEMDEF> = items
            .iter()
            .map(|(_, client, name)| OPCITEMDEF {
                access_path: no_path.as_ptr(),
                item_id: name.as_ptr(),
                active: 1,
                client: *client,
                blob_size: 0,
                blob: ptr::null_mut(),
                requested_type: VT_EMPTY,
                reserved: 0,
            })
            .collect();
        let mut results = Out::<OPCITEMRESULT>::new(items.len());
        let mut errors = Out::<i32>::new(items.len());
        // SAFETY: as many definitions as are said, whose texts live on; what comes back is ours.
        let result =
            unsafe { self.items.AddItems(items.len() as u32, definitions.as_ptr(), results.slot(), errors.slot()).0 };
        results.after(result);
        errors.after(result);
        if is_gone(result) {
            return Err(Failure { call: "AddItems".into(), hresult: result });
        }
        if result < 0 {
            return Ok(Err(result));
        }
        let each = |index| match (results.as_slice().get(index), of_item(&errors, index, result)) {
            (Some(item), error) if error >= 0 => Ok(Added {
                handle: item.server,
                item: AddedItem { canonical_type: item.canonical_type, access_rights: item.access_rights },
            }),
            (_, error) => Err(if error < 0 { error } else { super::E_POINTER }),
        };
        Ok(Ok((0..items.len()).map(each).collect()))
    }

    /// Those that are not in the group are left out.
    pub fn remove_items(&mut self, numbers: &[u32]) -> Result<(), Failure> {
        let handles: Vec<OpcHandle> = numbers.iter().filter_map(|number| self.known.remove(number)).collect();
        for chunk in handles.chunks(ITEMS_PER_CALL) {
            let mut errors = Out::<i32>::new(chunk.len());
            // SAFETY: as many handles as are said; what comes back is ours.
            let result = unsafe { self.items.RemoveItems(chunk.len() as u32, chunk.as_ptr(), errors.slot()).0 };
            errors.after(result);
            check("RemoveItems", result)?;
        }
        Ok(())
    }

    /// All active items are called back once more.
    pub fn refresh(&self) -> Result<(), Failure> {
        let Some(asynchronous) = &self.asynchronous else {
            return Err(Failure { call: "QueryInterface IOPCAsyncIO2".into(), hresult: super::E_NOINTERFACE });
        };
        let mut cancel = 0;
        // SAFETY: a place for the answer.
        let result = unsafe { asynchronous.Refresh2(OPC_DS_CACHE, 1, &raw mut cancel) };
        check("Refresh2", result.0).map(|_| ())
    }

    /// All items from the cache, for servers that do not call back.
    pub fn poll(&self) -> Result<Vec<News>, Failure> {
        let (numbers, handles): (Vec<u32>, Vec<OpcHandle>) = self.known.iter().unzip();
        Ok(numbers.into_iter().zip(self.read(Origin::Cache, &handles)?).collect())
    }

    pub(super) fn read(&self, from: Origin, handles: &[OpcHandle]) -> Result<Vec<Result<Reading, Hresult>>, Failure> {
        let source = match from {
            Origin::Cache => OPC_DS_CACHE,
            Origin::Device => OPC_DS_DEVICE,
        };
        let mut all = Vec::with_capacity(handles.len());
        for chunk in handles.chunks(ITEMS_PER_CALL) {
            let mut values = Out::<OPCITEMSTATE>::new(chunk.len());
            let mut errors = Out::<i32>::new(chunk.len());
            // SAFETY: as many handles as are said; what comes back is ours.
            let result =
                unsafe { self.sync.Read(source, chunk.len() as u32, chunk.as_ptr(), values.slot(), errors.slot()).0 };
            values.after(result);
            errors.after(result);
            if is_gone(result) {
                return Err(Failure { call: "Read".into(), hresult: result });
            }
            for index in 0..chunk.len() {
                let error = of_item(&errors, index, result);
                all.push(match values.as_slice().get(index) {
                    Some(state) => reading(&state.value, state.quality, state.time, error),
                    None => Err(if error < 0 { error } else { super::E_POINTER }),
                });
            }
        }
        Ok(all)
    }

    /// Successes too.
    pub(super) fn write(&self, values: Vec<(OpcHandle, Variant)>) -> Result<Vec<Hresult>, Failure> {
        let mut all = Vec::with_capacity(values.len());
        for chunk in values.chunks(ITEMS_PER_CALL) {
            let handles: Vec<OpcHandle> = chunk.iter().map(|(handle, _)| *handle).collect();
            // For the call only: the variants stay their owners'.
            let raw: Vec<RawVariant> =
                chunk.iter().map(|(_, v)| RawVariant { vt: v.0.vt, reserved: v.0.reserved, data: v.0.data }).collect();
            let mut errors = Out::<i32>::new(chunk.len());
            // SAFETY: as many handles and values as are said; what comes back is ours.
            let result =
                unsafe { self.sync.Write(chunk.len() as u32, handles.as_ptr(), raw.as_ptr(), errors.slot()).0 };
            errors.after(result);
            if is_gone(result) {
                return Err(Failure { call: "Write".into(), hresult: result });
            }
            all.extend((0..chunk.len()).map(|index| of_item(&errors, index, result)));
        }
        Ok(all)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.advice.take());
        // Of a lost server it fails; of others it ends the group when the last pointer is released, which is next.
        // SAFETY: the handle is the one that this server gave.
        let _ = unsafe { self.server.RemoveGroup(self.handle, 0) };
    }
}

/// An item's own result; the call's if there is none.
pub(super) fn of_item(errors: &Out<i32>, index: usize, result: Hresult) -> Hresult {
    errors.as_slice().get(index).copied().unwrap_or(result)
}
