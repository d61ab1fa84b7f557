//! A group: its items, and what is called back when it is its time.

use super::points::{Place, give_point, held};
use super::space::World;
use super::{E_INVALIDARG, E_NOTIMPL, S_FALSE, S_OK, give};
use crate::relay::com::abi::*;
use crate::relay::com::memory::{Variant, slice, text};
use crate::relay::com::variant;
use crate::relay::protocol::{DaValue, Hresult};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use windows_core::{GUID, HRESULT, Interface, implement};

const INVALID_HANDLE: Hresult = 0xC004_0001_u32 as Hresult;
const UNKNOWN: Hresult = 0xC004_0007_u32 as Hresult;
const E_FAIL: HRESULT = HRESULT(0x8000_4005_u32 as i32);

pub struct State {
    handle: u32,
    inner: Mutex<Inner>,
    sink: Place,
}

struct Inner {
    client: u32,
    rate: u32,
    is_active: bool,
    deadband: f32,
    keep_alive: u32,
    next: Instant,
    spoken: Instant,
    /// To be sent whether they changed or not.
    is_refreshed: bool,
    items: BTreeMap<u32, Member>,
    count: u32,
}

struct Member {
    item: usize,
    client: u32,
    sent: Option<(u64, DaValue)>,
}

impl State {
    pub fn new(handle: u32, client: u32, rate: u32, is_active: bool, deadband: f32) -> Self {
        let inner = Inner {
            client,
            rate,
            is_active,
            deadband,
            keep_alive: 0,
            next: Instant::now(),
            spoken: Instant::now(),
            is_refreshed: false,
            items: BTreeMap::new(),
            count: 0,
        };
        Self { handle, inner: Mutex::new(inner), sink: Place::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn forget(&self) {
        self.lock().items.clear();
    }

    /// Calls back what is due.
    pub fn tick(&self, world: &World) {
        let Some(sink) = held(&self.sink) else { return };
        let (group, due) = {
            let mut inner = self.lock();
            let now = Instant::now();
            if !inner.is_active || (inner.next > now && !inner.is_refreshed) {
                return;
            }
            inner.next = now + Duration::from_millis(inner.rate.into());
            let due = inner.due(world);
            let is_quiet =
                inner.keep_alive > 0 && inner.spoken.elapsed() >= Duration::from_millis(inner.keep_alive.into());
            if due.is_empty() && !is_quiet {
                return;
            }
            inner.spoken = now;
            (inner.client, due)
        };
        let clients: Vec<u32> = due.iter().map(|due| due.client).collect();
        let qualities: Vec<u16> = due.iter().map(|due| due.quality).collect();
        let times: Vec<FileTime> = due.iter().map(|due| due.time).collect();
        // The variants stay their owners'.
        let raw: Vec<RawVariant> = due.iter().map(|due| &due.value.0).map(copied).collect();
        let errors = vec![0; clients.len()];
        // SAFETY: the sink was queried for this interface; arrays of one length, ours before and after.
        let _ = unsafe {
            IOPCDataCallback::from_raw(sink.into_raw()).OnDataChange(
                0,
                group,
                0,
                0,
                clients.len() as u32,
                clients.as_ptr(),
                raw.as_ptr(),
                qualities.as_ptr(),
                times.as_ptr(),
                errors.as_ptr(),
            )
        };
    }
}

struct Due {
    client: u32,
    value: Variant,
    quality: u16,
    time: FileTime,
}

fn copied(raw: &RawVariant) -> RawVariant {
    RawVariant { vt: raw.vt, reserved: raw.reserved, data: raw.data }
}

impl Inner {
    fn due(&mut self, world: &World) -> Vec<Due> {
        let is_refreshed = std::mem::take(&mut self.is_refreshed);
        let (deadband, now) = (f64::from(self.deadband), world.lock());
        let mut all = Vec::new();
        for member in self.items.values_mut() {
            let (item, current) = (&world.items[member.item], &now[member.item]);
            let is_same = match &member.sent {
                None => false,
                Some((version, _)) if *version == current.version => true,
                Some((_, DaValue::R8(old))) if deadband > 0.0 && !item.properties.is_empty() => {
                    // The analog item's range is 200.
                    matches!(current.value, DaValue::R8(new) if (new - old).abs() <= deadband / 100.0 * 200.0)
                }
                Some(_) => false,
            };
            if (is_same && !is_refreshed) || item.access & 1 == 0 {
                continue;
            }
            member.sent = Some((current.version, current.value.clone()));
            let value = give::value(&current.value);
            all.push(Due { client: member.client, value, quality: current.quality, time: current.time.into() });
        }
        all
    }
}

#[implement(IOPCItemMgt, IOPCGroupStateMgt2, IOPCSyncIO, IOPCAsyncIO2, IConnectionPointContainer, Agile = false)]
pub struct Group {
    pub world: Arc<World>,
    pub state: Arc<State>,
}

impl IConnectionPointContainer_Impl for Group_Impl {
    unsafe fn EnumConnectionPoints(&self, _: *mut *mut c_void) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn FindConnectionPoint(&self, iid: *const GUID, place: *mut *mut c_void) -> HRESULT {
        // SAFETY: the caller's id and place.
        unsafe {
            if *iid != IOPCDataCallback::IID || self.world.script.mute {
                return HRESULT(0x8004_0200_u32 as i32);
            }
            if self.world.script.dies_in_advise {
                std::process::abort();
            }
            give_point(IOPCDataCallback::IID, &self.state.sink, place)
        }
    }
}

impl IOPCItemMgt_Impl for Group_Impl {
    unsafe fn AddItems(
        &self,
        count: u32,
        items: *const OPCITEMDEF,
        results: *mut *mut OPCITEMRESULT,
        errors: *mut *mut i32,
    ) -> HRESULT {
        self.world.gate();
        let (mut all, mut own) = (Vec::new(), Vec::new());
        let mut inner = self.state.lock();
        // SAFETY: arrays and texts of the caller's.
        let is_known = |item: &OPCITEMDEF| self.world.by_id.contains_key(&unsafe { text(item.item_id) });
        // SAFETY: as above.
        if self.world.script.all_or_none && !unsafe { slice(items, count as usize) }.iter().all(is_known) {
            return E_INVALIDARG;
        }
        // SAFETY: as above.
        for definition in unsafe { slice(items, count as usize) } {
            let empty = OPCITEMRESULT {
                server: 0,
                canonical_type: 0,
                reserved: 0,
                access_rights: 0,
                blob_size: 0,
                blob: std::ptr::null_mut(),
            };
            // A null path is what some servers stumble over.
            if definition.access_path.is_null() {
                return E_INVALIDARG;
            }
            // SAFETY: as above.
            let Some(&item) = self.world.by_id.get(&unsafe { text(definition.item_id) }) else {
                all.push(empty);
                own.push(UNKNOWN);
                continue;
            };
            inner.count += 1;
            let handle = inner.count;
            inner.items.insert(handle, Member { item, client: definition.client, sent: None });
            let about = &self.world.items[item];
            all.push(OPCITEMRESULT {
                server: handle,
                canonical_type: about.data_type,
                access_rights: about.access,
                ..empty
            });
            own.push(0);
        }
        let is_good = own.iter().all(|&error| error == 0);
        // SAFETY: the caller's places.
        unsafe {
            give::array(results, all);
            give::array(errors, own);
        }
        if is_good { S_OK } else { S_FALSE }
    }

    unsafe fn ValidateItems(
        &self,
        _: u32,
        _: *const OPCITEMDEF,
        _: Bool32,
        _: *mut *mut OPCITEMRESULT,
        _: *mut *mut i32,
    ) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn RemoveItems(&self, count: u32, servers: *const OpcHandle, errors: *mut *mut i32) -> HRESULT {
        self.world.gate();
        let mut inner = self.state.lock();
        // SAFETY: an array of the caller's.
        let own = unsafe { slice(servers, count as usize) }
            .iter()
            .map(|handle| if inner.items.remove(handle).is_some() { 0 } else { INVALID_HANDLE })
            .collect();
        // SAFETY: the caller's place.
        unsafe { give::array(errors, own) };
        S_OK
    }

    unsafe fn SetActiveState(&self, _: u32, _: *const OpcHandle, _: Bool32, _: *mut *mut i32) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn SetClientHandles(&self, _: u32, _: *const OpcHandle, _: *const OpcHandle, _: *mut *mut i32) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn SetDatatypes(&self, _: u32, _: *const OpcHandle, _: *const u16, _: *mut *mut i32) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn CreateEnumerator(&self, _: *const GUID, _: *mut *mut c_void) -> HRESULT {
        E_NOTIMPL
    }
}

impl IOPCGroupStateMgt_Impl for Group_Impl {
    unsafe fn GetState(
        &self,
        _: *mut u32,
        _: *mut Bool32,
        _: *mut Wide,
        _: *mut i32,
        _: *mut f32,
        _: *mut u32,
        _: *mut OpcHandle,
        _: *mut OpcHandle,
    ) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn SetState(
        &self,
        rate: *const u32,
        revised: *mut u32,
        active: *const Bool32,
        _: *const i32,
        deadband: *const f32,
        _: *const u32,
        _: *const OpcHandle,
    ) -> HRESULT {
        self.world.gate();
        let mut inner = self.state.lock();
        // SAFETY: null, or numbers and a place of the caller's.
        unsafe {
            if let Some(rate) = rate.as_ref() {
                inner.rate = (*rate).max(self.world.script.fastest);
                inner.next = Instant::now();
            }
            if let Some(active) = active.as_ref() {
                inner.is_active = *active != 0;
            }
            if let Some(deadband) = deadband.as_ref() {
                inner.deadband = *deadband;
            }
            *revised = inner.rate;
        }
        S_OK
    }

    unsafe fn SetName(&self, _: *const u16) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn CloneGroup(&self, _: *const u16, _: *const GUID, _: *mut *mut c_void) -> HRESULT {
        E_NOTIMPL
    }
}

impl IOPCGroupStateMgt2_Impl for Group_Impl {
    unsafe fn SetKeepAlive(&self, milliseconds: u32, revised: *mut u32) -> HRESULT {
        if self.world.script.da < 3 {
            return E_NOTIMPL;
        }
        self.state.lock().keep_alive = milliseconds;
        // SAFETY: the caller's place.
        unsafe { *revised = milliseconds };
        S_OK
    }

    unsafe fn GetKeepAlive(&self, _: *mut u32) -> HRESULT {
        E_NOTIMPL
    }
}

impl IOPCSyncIO_Impl for Group_Impl {
    unsafe fn Read(
        &self,
        _: u32,
        count: u32,
        servers: *const OpcHandle,
        values: *mut *mut OPCITEMSTATE,
        errors: *mut *mut i32,
    ) -> HRESULT {
        self.world.gate();
        let (inner, now) = (self.state.lock(), self.world.lock());
        let (mut all, mut own) = (Vec::new(), Vec::new());
        // SAFETY: an array of the caller's.
        for handle in unsafe { slice(servers, count as usize) } {
            let mut state = OPCITEMSTATE {
                client: 0,
                time: FileTime::default(),
                quality: 0,
                reserved: 0,
                value: RawVariant::EMPTY,
            };
            own.push(match inner.items.get(handle) {
                None => INVALID_HANDLE,
                Some(member) if self.world.items[member.item].access & 1 == 0 => super::space::OPC_E_BADRIGHTS,
                Some(member) => {
                    let current = &now[member.item];
                    state.client = member.client;
                    state.time = current.time.into();
                    state.quality = current.quality;
                    state.value = give::variant(give::value(&current.value));
                    0
                }
            });
            all.push(state);
        }
        let is_good = own.iter().all(|&error| error == 0);
        // SAFETY: the caller's places.
        unsafe {
            give::array(values, all);
            give::array(errors, own);
        }
        if is_good { S_OK } else { S_FALSE }
    }

    unsafe fn Write(
        &self,
        count: u32,
        servers: *const OpcHandle,
        values: *const RawVariant,
        errors: *mut *mut i32,
    ) -> HRESULT {
        self.world.gate();
        let mut own = Vec::new();
        // SAFETY: arrays of the caller's.
        let (servers, values) = unsafe { (slice(servers, count as usize), slice(values, count as usize)) };
        for (handle, value) in servers.iter().zip(values) {
            let item = self.state.lock().items.get(handle).map(|member| member.item);
            own.push(match item {
                None => INVALID_HANDLE,
                // Strict on purpose: conversion is the client's.
                Some(item) if self.world.items[item].data_type != value.vt && self.world.items[item].data_type != 0 => {
                    0xC004_0004_u32 as Hresult
                }
                // SAFETY: a VARIANT of the caller's.
                Some(item) => self.world.write(item, unsafe { variant::value(value) }),
            });
        }
        let is_good = own.iter().all(|&error| error == 0);
        // SAFETY: the caller's place.
        unsafe { give::array(errors, own) };
        if is_good { S_OK } else { S_FALSE }
    }
}

impl IOPCAsyncIO2_Impl for Group_Impl {
    unsafe fn Read(&self, _: u32, _: *const OpcHandle, _: u32, _: *mut u32, _: *mut *mut i32) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn Write(
        &self,
        _: u32,
        _: *const OpcHandle,
        _: *const RawVariant,
        _: u32,
        _: *mut u32,
        _: *mut *mut i32,
    ) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn Refresh2(&self, _: u32, _: u32, cancel: *mut u32) -> HRESULT {
        self.world.gate();
        if self.world.script.no_refresh {
            return E_NOTIMPL;
        }
        let mut inner = self.state.lock();
        if !inner.is_active {
            return E_FAIL;
        }
        inner.is_refreshed = true;
        // SAFETY: the caller's place.
        unsafe { *cancel = self.state.handle };
        S_OK
    }

    unsafe fn Cancel2(&self, _: u32) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn SetEnable(&self, _: Bool32) -> HRESULT {
        S_OK
    }

    unsafe fn GetEnable(&self, _: *mut Bool32) -> HRESULT {
        E_NOTIMPL
    }
}
