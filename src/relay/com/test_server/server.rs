//! The server's object: `Server2` has what DA 2 has, `Server3` the interfaces of DA 3 besides. Their methods are the same.

use super::group::{Group, State};
use super::points::{Place, give_names, give_point};
use super::space::{Node, World};
use super::{E_INVALIDARG, E_NOTIMPL, S_FALSE, S_OK, give};
use crate::relay::com::abi::*;
use crate::relay::com::memory::{slice, text};
use crate::relay::com::variant;
use crate::relay::protocol::{DaValue, Hresult};
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use windows_core::{GUID, HRESULT, IUnknown, Interface, implement};

const UNKNOWN: HRESULT = HRESULT(0xC004_0007_u32 as i32);
const INVALID_PID: Hresult = 0xC004_0203_u32 as Hresult;
const OPC_S_UNSUPPORTEDRATE: HRESULT = HRESULT(0x0004_000D);

pub struct Core {
    world: Arc<World>,
    /// Where IOPCBrowseServerAddressSpace stands.
    position: Mutex<Vec<String>>,
    goodbye: Place,
    /// Held until RemoveGroup.
    groups: Mutex<HashMap<u32, Arc<State>>>,
    next: Mutex<u32>,
    /// Where a browse of DA 3 is.
    place: Mutex<usize>,
}

#[implement(
    IOPCServer,
    IOPCCommon,
    IOPCBrowseServerAddressSpace,
    IOPCItemProperties,
    IConnectionPointContainer,
    Agile = false
)]
pub struct Server2 {
    core: Core,
}

#[implement(
    IOPCServer,
    IOPCCommon,
    IOPCBrowse,
    IOPCBrowseServerAddressSpace,
    IOPCItemProperties,
    IOPCItemIO,
    IConnectionPointContainer,
    Agile = false
)]
pub struct Server3 {
    core: Core,
}

impl Core {
    fn new(world: Arc<World>) -> Self {
        let goodbye = Place::default();
        world.goodbyes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&goodbye));
        Self {
            world,
            position: Mutex::default(),
            goodbye,
            groups: Mutex::default(),
            next: Mutex::new(1),
            place: Mutex::default(),
        }
    }

    fn names(&self, kind: u32) -> Vec<String> {
        let script = &self.world.script;
        let position = self.position.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(node) = self.world.node(&position) else { return Vec::new() };
        let is_hidden = script.only_flat && position.is_empty();
        let of = |wanted: fn(&Node) -> bool| {
            let names = node.names.iter().filter(|name| node.children.get(*name).is_some_and(wanted));
            names.cloned().collect()
        };
        match kind {
            _ if script.ignores_kind => node.names.clone(),
            OPC_FLAT if script.no_flat => Vec::new(),
            OPC_FLAT => {
                let branches = if script.flat_lies { node.names.clone() } else { Vec::new() };
                let items = self.world.items.iter().map(|item| item.id.clone());
                branches.into_iter().chain(items).collect()
            }
            _ if is_hidden => Vec::new(),
            OPC_BRANCH => of(|node| !node.names.is_empty()),
            _ => of(|node| node.item.is_some()),
        }
    }
}

impl Server2 {
    pub fn new(world: Arc<World>) -> Self {
        Self { core: Core::new(world) }
    }
}

impl Server3 {
    pub fn new(world: Arc<World>) -> Self {
        Self { core: Core::new(world) }
    }
}

macro_rules! of_all_versions {
    ($server:ident) => {
        impl IOPCServer_Impl for $server {
            unsafe fn AddGroup(
                &self,
                _: *const u16,
                active: Bool32,
                rate: u32,
                client: OpcHandle,
                _: *const i32,
                deadband: *const f32,
                _: u32,
                server_group: *mut OpcHandle,
                revised: *mut u32,
                iid: *const GUID,
                place: *mut *mut c_void,
            ) -> HRESULT {
                self.core.world.gate();
                let mut next = self.core.next.lock().unwrap_or_else(PoisonError::into_inner);
                let handle = *next;
                *next += 1;
                let got = rate.max(self.core.world.script.fastest);
                // SAFETY: null or a number.
                let deadband = if deadband.is_null() { 0.0 } else { unsafe { *deadband } };
                let state = Arc::new(State::new(handle, client, got, active != 0, deadband));
                let world = Arc::clone(&self.core.world);
                world.groups.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&state));
                self.core.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::clone(&state));
                let group = IUnknown::from(IOPCItemMgt::from(Group { world, state }));
                // SAFETY: the caller's places.
                let result = unsafe {
                    *server_group = handle;
                    *revised = got;
                    group.query(iid, place)
                };
                if result.0 >= 0 && got != rate { OPC_S_UNSUPPORTEDRATE } else { result }
            }

            unsafe fn GetErrorString(&self, _: i32, _: u32, _: *mut Wide) -> HRESULT {
                E_NOTIMPL
            }

            unsafe fn GetGroupByName(&self, _: *const u16, _: *const GUID, _: *mut *mut c_void) -> HRESULT {
                E_NOTIMPL
            }

            unsafe fn GetStatus(&self, place: *mut *mut OPCSERVERSTATUS) -> HRESULT {
                self.core.world.gate();
                let now = self.core.world.time();
                let status = OPCSERVERSTATUS {
                    start: (now - 10_000_000).into(),
                    current: now.into(),
                    last_update: now.into(),
                    state: self.core.world.script.state,
                    groups: self.core.groups.lock().unwrap_or_else(PoisonError::into_inner).len() as u32,
                    bandwidth: 7,
                    major: 1,
                    minor: 2,
                    build: 3,
                    reserved: 0,
                    vendor: give::text("Vedette's test server"),
                };
                // SAFETY: the caller's place.
                unsafe { give::array(place, vec![status]) };
                S_OK
            }

            unsafe fn RemoveGroup(&self, group: OpcHandle, _: Bool32) -> HRESULT {
                self.core.world.gate();
                let removed = self.core.groups.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
                if removed.is_some() { S_OK } else { E_INVALIDARG }
            }

            unsafe fn CreateGroupEnumerator(&self, _: u32, _: *const GUID, _: *mut *mut c_void) -> HRESULT {
                E_NOTIMPL
            }
        }

        impl IOPCCommon_Impl for $server {
            unsafe fn SetLocaleID(&self, _: u32) -> HRESULT {
                S_OK
            }

            unsafe fn GetLocaleID(&self, _: *mut u32) -> HRESULT {
                E_NOTIMPL
            }

            unsafe fn QueryAvailableLocaleIDs(&self, _: *mut u32, _: *mut *mut u32) -> HRESULT {
                E_NOTIMPL
            }

            unsafe fn GetErrorString(&self, _: i32, _: *mut Wide) -> HRESULT {
                E_NOTIMPL
            }

            unsafe fn SetClientName(&self, _: *const u16) -> HRESULT {
                S_OK
            }
        }

        impl IConnectionPointContainer_Impl for $server {
            unsafe fn EnumConnectionPoints(&self, _: *mut *mut c_void) -> HRESULT {
                E_NOTIMPL
            }

            unsafe fn FindConnectionPoint(&self, iid: *const GUID, place: *mut *mut c_void) -> HRESULT {
                // SAFETY: the caller's id and place.
                unsafe {
                    if *iid != IOPCShutdown::IID {
                        return E_INVALIDARG;
                    }
                    give_point(IOPCShutdown::IID, &self.core.goodbye, place)
                }
            }
        }

        impl IOPCBrowseServerAddressSpace_Impl for $server {
            unsafe fn QueryOrganization(&self, organization: *mut u32) -> HRESULT {
                let script = &self.core.world.script;
                if script.no_organization {
                    return E_NOTIMPL;
                }
                // SAFETY: the caller's place.
                unsafe { *organization = if script.flat || script.only_flat { 2 } else { 1 } };
                S_OK
            }

            unsafe fn ChangeBrowsePosition(&self, direction: u32, name: *const u16) -> HRESULT {
                self.core.world.gate();
                // SAFETY: a text of the caller's.
                let name = unsafe { text(name) };
                if self.core.world.script.is_broken(&name) {
                    return HRESULT(0x8000_4005_u32 as i32);
                }
                if self.core.world.script.stays && direction == OPC_BROWSE_DOWN {
                    return S_OK;
                }
                let mut position = self.core.position.lock().unwrap_or_else(PoisonError::into_inner);
                let mut next = position.clone();
                match direction {
                    OPC_BROWSE_UP if next.pop().is_none() => return HRESULT(0x8000_4005_u32 as i32),
                    OPC_BROWSE_UP => {}
                    OPC_BROWSE_DOWN => next.push(name),
                    _ if self.core.world.script.climbs => return E_INVALIDARG,
                    _ if name.is_empty() => next.clear(),
                    _ => next = name.split('.').map(str::to_owned).collect(),
                }
                if !self.core.world.node(&next).is_some_and(|node| next.is_empty() || !node.names.is_empty()) {
                    return E_INVALIDARG;
                }
                *position = next;
                S_OK
            }

            unsafe fn BrowseOPCItemIDs(
                &self,
                kind: u32,
                _: *const u16,
                _: u16,
                _: u32,
                place: *mut *mut c_void,
            ) -> HRESULT {
                self.core.world.gate();
                // SAFETY: the caller's place.
                unsafe { give_names(self.core.names(kind), place) }
            }

            unsafe fn GetItemID(&self, name: *const u16, place: *mut Wide) -> HRESULT {
                self.core.world.gate();
                // SAFETY: a text of the caller's.
                let name = unsafe { text(name) };
                if self.core.world.script.no_item_ids {
                    return HRESULT(0x8000_4005_u32 as i32);
                }
                let position = self.core.position.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let node = self.core.world.node(&position).and_then(|node| node.children.get(&name));
                let id = match node.and_then(|node| node.item) {
                    Some(item) => self.core.world.items[item].id.clone(),
                    None if self.core.world.by_id.contains_key(&name) => name,
                    None => return UNKNOWN,
                };
                // SAFETY: the caller's place.
                unsafe { *place = give::text(&id) };
                S_OK
            }

            unsafe fn BrowseAccessPaths(&self, _: *const u16, _: *mut *mut c_void) -> HRESULT {
                E_NOTIMPL
            }
        }

        impl IOPCItemProperties_Impl for $server {
            unsafe fn QueryAvailableProperties(
                &self,
                item: *const u16,
                count: *mut u32,
                ids: *mut *mut u32,
                descriptions: *mut *mut Wide,
                types: *mut *mut u16,
            ) -> HRESULT {
                self.core.world.gate();
                if self.core.world.script.no_properties {
                    return E_NOTIMPL;
                }
                // SAFETY: a text of the caller's.
                let Some(&index) = self.core.world.by_id.get(&unsafe { text(item) }) else { return UNKNOWN };
                let all = self.core.world.properties(index);
                // SAFETY: the caller's places.
                unsafe {
                    *count = self.core.world.count(index, all.len());
                    give::array(ids, all.iter().map(|(id, ..)| *id).collect());
                    give::array(descriptions, all.iter().map(|(_, text, ..)| give::text(text)).collect());
                    give::array(types, all.iter().map(|(_, _, data_type, _)| *data_type).collect());
                }
                S_OK
            }

            unsafe fn GetItemProperties(
                &self,
                item: *const u16,
                count: u32,
                ids: *const u32,
                values: *mut *mut RawVariant,
                errors: *mut *mut i32,
            ) -> HRESULT {
                self.core.world.gate();
                // SAFETY: a text and an array of the caller's.
                let (item, ids) = unsafe { (text(item), slice(ids, count as usize)) };
                let Some(&index) = self.core.world.by_id.get(&item) else { return UNKNOWN };
                let all = self.core.world.properties(index);
                let (mut given, mut results) = (Vec::new(), Vec::new());
                for wanted in ids {
                    let found = all.iter().find(|(id, ..)| id == wanted).map(|(_, _, _, value)| value);
                    match found.map(|value| variant::variant(value, 0)) {
                        Some(Ok(value)) => {
                            given.push(give::variant(value));
                            results.push(0);
                        }
                        _ => {
                            given.push(RawVariant::EMPTY);
                            results.push(INVALID_PID);
                        }
                    }
                }
                let result = if results.iter().all(|&result| result == 0) { S_OK } else { S_FALSE };
                // SAFETY: the caller's places.
                unsafe {
                    give::array(values, given);
                    give::array(errors, results);
                }
                result
            }

            unsafe fn LookupItemIDs(
                &self,
                _: *const u16,
                _: u32,
                _: *const u32,
                _: *mut *mut Wide,
                _: *mut *mut i32,
            ) -> HRESULT {
                E_NOTIMPL
            }
        }
    };
}

of_all_versions!(Server2_Impl);
of_all_versions!(Server3_Impl);

impl IOPCBrowse_Impl for Server3_Impl {
    unsafe fn GetProperties(
        &self,
        items: u32,
        item_ids: *const *const u16,
        _: Bool32,
        properties: u32,
        property_ids: *const u32,
        place: *mut *mut OPCITEMPROPERTIES,
    ) -> HRESULT {
        self.core.world.gate();
        // SAFETY: arrays of the caller's.
        let (items, wanted) = unsafe { (slice(item_ids, items as usize), slice(property_ids, properties as usize)) };
        let mut all = Vec::new();
        for &item in items {
            // SAFETY: a text of the caller's.
            let Some(&index) = self.core.world.by_id.get(&unsafe { text(item) }) else {
                all.push(OPCITEMPROPERTIES { error: UNKNOWN.0, count: 0, properties: ptr::null_mut(), reserved: 0 });
                continue;
            };
            let found = self.core.world.properties(index);
            let given: Vec<OPCITEMPROPERTY> = found
                .into_iter()
                .filter(|(id, ..)| wanted.is_empty() || wanted.contains(id))
                .map(|(id, description, data_type, value)| OPCITEMPROPERTY {
                    data_type,
                    reserved: 0,
                    id,
                    item_id: ptr::null_mut(),
                    description: give::text(description),
                    value: give::variant(give::value(&value)),
                    error: 0,
                    reserved2: 0,
                })
                .collect();
            let count = self.core.world.count(index, given.len());
            let mut properties = ptr::null_mut();
            // SAFETY: a place of ours.
            unsafe { give::array(&raw mut properties, given) };
            all.push(OPCITEMPROPERTIES { error: 0, count, properties, reserved: 0 });
        }
        let is_good = all.iter().all(|one| one.error == 0);
        // SAFETY: the caller's place.
        unsafe { give::array(place, all) };
        if is_good { S_OK } else { S_FALSE }
    }

    unsafe fn Browse(
        &self,
        item_id: *const u16,
        continuation: *mut Wide,
        longest: u32,
        _: u32,
        _: *const u16,
        _: *const u16,
        _: Bool32,
        _: Bool32,
        _: u32,
        property_ids: *const u32,
        more: *mut Bool32,
        count: *mut u32,
        place: *mut *mut OPCBROWSEELEMENT,
    ) -> HRESULT {
        self.core.world.gate();
        // SAFETY: texts and places of the caller's.
        let (id, from) = unsafe { (text(item_id), text(*continuation)) };
        let path: Vec<String> = if id.is_empty() { Vec::new() } else { id.split('.').map(str::to_owned).collect() };
        let Some(node) = self.core.world.node(&path) else { return UNKNOWN };
        if property_ids.is_null() || self.core.world.script.is_broken(&id) {
            return E_INVALIDARG;
        }
        let script = &self.core.world.script;
        let mut place_kept = self.core.place.lock().unwrap_or_else(PoisonError::into_inner);
        let from: usize = match script.one_point && !from.is_empty() {
            true => *place_kept,
            false => from.parse().unwrap_or_default(),
        };
        let longest = if longest == 0 { usize::MAX } else { longest as usize };
        let names: Vec<&String> = node.names.iter().skip(from).take(longest).collect();
        let next = from + names.len();
        let elements = names.into_iter().map(|name| {
            let child = node.children.get(name);
            let is_item = child.is_some_and(|child| child.item.is_some());
            let is_branch = child.is_some_and(|child| !child.names.is_empty());
            let own = path.iter().chain([name]).cloned().collect::<Vec<_>>().join(".");
            OPCBROWSEELEMENT {
                name: give::text(name),
                item_id: give::text(&own),
                flags: u32::from(is_branch) | (u32::from(is_item) * OPC_BROWSE_ISITEM),
                reserved: 0,
                properties: OPCITEMPROPERTIES { error: 0, count: 0, properties: ptr::null_mut(), reserved: 0 },
            }
        });
        let elements: Vec<OPCBROWSEELEMENT> = elements.collect();
        let is_more = next < node.names.len();
        *place_kept = next;
        let point = match (is_more, script.one_point) {
            (true, true) => "on".into(),
            (true, false) if !script.no_points => next.to_string(),
            _ => String::new(),
        };
        // SAFETY: the caller's places; the old text is freed here, as the caller does not.
        unsafe {
            give::taken(*continuation);
            *continuation = give::text(&point);
            *more = (is_more && script.no_points).into();
            *count = elements.len() as u32;
            give::array(place, elements);
        }
        S_OK
    }
}

impl IOPCItemIO_Impl for Server3_Impl {
    unsafe fn Read(
        &self,
        count: u32,
        item_ids: *const *const u16,
        _: *const u32,
        values: *mut *mut RawVariant,
        qualities: *mut *mut u16,
        times: *mut *mut FileTime,
        errors: *mut *mut i32,
    ) -> HRESULT {
        self.core.world.gate();
        let world = &self.core.world;
        if world.script.item_io_fails {
            return E_INVALIDARG;
        }
        // SAFETY: an array of the caller's.
        let items = unsafe { slice(item_ids, count as usize) };
        let (mut all, mut own, mut stamps, mut results) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for &item in items {
            // SAFETY: a text of the caller's.
            let found = world.by_id.get(&unsafe { text(item) });
            let (value, quality, time, result) = match found {
                None => (DaValue::Empty, 0, 0, UNKNOWN.0),
                Some(&index) if world.items[index].access & 1 == 0 => {
                    (DaValue::Empty, 0, 0, super::space::OPC_E_BADRIGHTS)
                }
                Some(&index) => {
                    let now = world.lock()[index].clone();
                    (now.value, now.quality, now.time, 0)
                }
            };
            all.push(give::variant(give::value(&value)));
            own.push(quality);
            stamps.push(FileTime::from(time));
            results.push(result);
        }
        let is_good = results.iter().all(|&result| result == 0);
        // SAFETY: the caller's places.
        unsafe {
            give::array(values, all);
            give::array(qualities, own);
            give::array(times, stamps);
            give::array(errors, results);
        }
        if is_good { S_OK } else { S_FALSE }
    }

    unsafe fn WriteVQT(&self, _: u32, _: *const *const u16, _: *const OPCITEMVQT, _: *mut *mut i32) -> HRESULT {
        E_NOTIMPL
    }
}
