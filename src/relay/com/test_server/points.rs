//! Connection points of servers and groups, and lists of names.

use super::{E_INVALIDARG, E_NOTIMPL, S_FALSE, S_OK, give};
use crate::relay::com::abi::*;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use windows_core::{GUID, HRESULT, IUnknown, Interface, implement};

/// A sink, called by the one thread that ticks.
pub struct Sink(pub IUnknown);

// SAFETY: all threads here are in the multi-threaded apartment, where pointers belong to all.
unsafe impl Send for Sink {}

pub type Place = Arc<Mutex<Option<Sink>>>;

pub fn held(place: &Place) -> Option<IUnknown> {
    place.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|sink| sink.0.clone())
}

#[implement(IConnectionPoint, Agile = false)]
pub struct Point {
    pub iid: GUID,
    pub place: Place,
}

impl IConnectionPoint_Impl for Point_Impl {
    unsafe fn GetConnectionInterface(&self, iid: *mut GUID) -> HRESULT {
        // SAFETY: COM gives a place.
        unsafe { *iid = self.iid };
        S_OK
    }

    unsafe fn GetConnectionPointContainer(&self, _: *mut *mut c_void) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn Advise(&self, sink: *mut c_void, cookie: *mut u32) -> HRESULT {
        let mut wanted = ptr::null_mut();
        // SAFETY: the caller gives an interface and a place for the cookie; what is queried is ours.
        unsafe {
            let Some(sink) = IUnknown::from_raw_borrowed(&sink) else { return E_INVALIDARG };
            let result = sink.query(&self.iid, &raw mut wanted);
            if result.0 < 0 {
                return result;
            }
            let sink = Sink(IUnknown::from_raw(wanted));
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
            *cookie = 1;
        }
        S_OK
    }

    unsafe fn Unadvise(&self, _: u32) -> HRESULT {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        S_OK
    }

    unsafe fn EnumConnections(&self, _: *mut *mut c_void) -> HRESULT {
        E_NOTIMPL
    }
}

/// For `FindConnectionPoint`.
///
/// # Safety
/// `place` can be written.
pub unsafe fn give_point(iid: GUID, sink: &Place, place: *mut *mut c_void) -> HRESULT {
    let point = IConnectionPoint::from(Point { iid, place: Arc::clone(sink) });
    // SAFETY: the caller's promise; the reference is the receiver's.
    unsafe { *place = point.into_raw() };
    S_OK
}

#[implement(IEnumString, Agile = false)]
pub struct Names {
    pub names: Mutex<std::vec::IntoIter<String>>,
}

/// # Safety
/// `place` can be written.
pub unsafe fn give_names(names: Vec<String>, place: *mut *mut c_void) -> HRESULT {
    let result = if names.is_empty() { S_FALSE } else { S_OK };
    let list = IEnumString::from(Names { names: Mutex::new(names.into_iter()) });
    // SAFETY: the caller's promise; the reference is the receiver's.
    unsafe { *place = list.into_raw() };
    result
}

impl IEnumString_Impl for Names_Impl {
    unsafe fn Next(&self, wanted: u32, strings: *mut Wide, fetched: *mut u32) -> HRESULT {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        while count < wanted {
            let Some(name) = names.next() else { break };
            // SAFETY: there is room for as many as are wanted.
            unsafe { *strings.add(count as usize) = give::text(&name) };
            count += 1;
        }
        if !fetched.is_null() {
            // SAFETY: the caller's place.
            unsafe { *fetched = count };
        }
        if count == wanted { S_OK } else { S_FALSE }
    }

    unsafe fn Skip(&self, _: u32) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn Reset(&self) -> HRESULT {
        E_NOTIMPL
    }

    unsafe fn Clone(&self, _: *mut *mut c_void) -> HRESULT {
        E_NOTIMPL
    }
}
