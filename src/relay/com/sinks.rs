//! What a DA server calls: `IOPCDataCallback` of a group and `IOPCShutdown` of the connection.
//!
//! Calls come on threads of COM's. What they bring is the server's: it is copied, handed on and not freed; whoever listens must
//! not block. A sink lives as long as its [`Advice`] or as the server holds it, whichever is longer.

use super::abi::*;
use super::marshal::{E_NOTIMPL, aligned, free_threaded, marshalled_freely};
use super::memory::{slice, text};
use super::{Failure, Hresult, check, found, query, variant};
use crate::relay::protocol::{Event, Reading};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use windows_core::{GUID, HRESULT, IUnknown, Interface, implement};

/// Hears what comes unasked. Must not block.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

const S_OK: HRESULT = HRESULT(0);

/// A sink that a connection point knows.
pub(super) struct Advice {
    point: IConnectionPoint,
    cookie: u32,
    _sink: IUnknown,
}

impl Advice {
    pub(super) fn new(object: &impl Interface, iid: &GUID, sink: IUnknown) -> Result<Self, Failure> {
        let container: IConnectionPointContainer = query(object)
            .map_err(|hresult| Failure { call: "QueryInterface IConnectionPointContainer".into(), hresult })?;
        let mut point = ptr::null_mut();
        // SAFETY: an interface's id and a place for the object.
        let result = unsafe { container.FindConnectionPoint(iid, &raw mut point) };
        check("FindConnectionPoint", result.0)?;
        // SAFETY: given by a call that succeeded.
        let point: IConnectionPoint = unsafe { found("FindConnectionPoint", point) }?;
        let mut cookie = 0;
        // SAFETY: the sink lives as long as this; the server takes its own reference.
        check("Advise", unsafe { point.Advise(sink.as_raw(), &raw mut cookie) }.0)?;
        Ok(Self { point, cookie, _sink: sink })
    }
}

impl Drop for Advice {
    fn drop(&mut self) {
        // It fails if the server is gone, and with some (8001011D) always. The sink is released all the same.
        // SAFETY: the cookie is the one that this point gave.
        let _ = unsafe { self.point.Unadvise(self.cookie) };
    }
}

#[implement(IOPCDataCallback, IMarshal, Agile = false)]
pub(super) struct DataSink {
    group: u32,
    listener: Listener,
    marshal: Option<IMarshal>,
}

impl DataSink {
    pub(super) fn unknown(group: u32, listener: Listener) -> IUnknown {
        IOPCDataCallback::from(Self { group, listener, marshal: free_threaded() }).into()
    }
}

marshalled_freely!(DataSink_Impl);
marshalled_freely!(ShutdownSink_Impl);

impl IOPCDataCallback_Impl for DataSink_Impl {
    /// What the server calls the group is not looked at: each group has a sink of its own.
    unsafe fn OnDataChange(
        &self,
        _: u32,
        _: OpcHandle,
        _: i32,
        _: i32,
        count: u32,
        clients: *const OpcHandle,
        values: *const RawVariant,
        qualities: *const u16,
        times: *const FileTime,
        errors: *const i32,
    ) -> HRESULT {
        let count = count as usize;
        // SAFETY: by the IDL each of these has `count` elements, until we return.
        let (clients, values, qualities, times, errors) = unsafe {
            (
                slice(clients, count),
                slice(values, count),
                slice(qualities, count),
                slice(times, count),
                slice(errors, count),
            )
        };
        let mut all = Vec::with_capacity(clients.len());
        for (index, &client) in clients.iter().enumerate() {
            let error = errors.get(index).copied().unwrap_or_default();
            let reading = match (values.get(index), qualities.get(index)) {
                (Some(value), Some(&quality)) if error >= 0 => {
                    let time = times.get(index).copied().unwrap_or_default().into();
                    // SAFETY: a VARIANT of the server's, until we return.
                    Ok(Reading { value: unsafe { variant::value(value) }, quality, time })
                }
                _ => Err(if error < 0 { error } else { super::E_POINTER }),
            };
            all.push((client, reading));
        }
        (self.listener)(Event::Data { group: self.group, values: all });
        S_OK
    }

    unsafe fn OnReadComplete(
        &self,
        _: u32,
        _: OpcHandle,
        _: i32,
        _: i32,
        _: u32,
        _: *const OpcHandle,
        _: *const RawVariant,
        _: *const u16,
        _: *const FileTime,
        _: *const i32,
    ) -> HRESULT {
        // Never asked for.
        S_OK
    }

    unsafe fn OnWriteComplete(
        &self,
        _: u32,
        _: OpcHandle,
        _: i32,
        _: u32,
        _: *const OpcHandle,
        _: *const i32,
    ) -> HRESULT {
        // Never asked for.
        S_OK
    }

    unsafe fn OnCancelComplete(&self, _: u32, _: OpcHandle) -> HRESULT {
        S_OK
    }
}

#[implement(IOPCShutdown, IMarshal, Agile = false)]
pub(super) struct ShutdownSink {
    listener: Listener,
    marshal: Option<IMarshal>,
}

impl ShutdownSink {
    pub(super) fn unknown(listener: Listener) -> IUnknown {
        IOPCShutdown::from(Self { listener, marshal: free_threaded() }).into()
    }
}

impl IOPCShutdown_Impl for ShutdownSink_Impl {
    unsafe fn ShutdownRequest(&self, reason: *const u16) -> HRESULT {
        // SAFETY: a text of the server's, until we return.
        let reason = unsafe { text(reason) };
        (self.listener)(Event::Shutdown { reason });
        S_OK
    }
}

/// The whole of an item's answer: its value, or its own error.
pub(super) fn reading(value: &RawVariant, quality: u16, time: FileTime, error: i32) -> Result<Reading, Hresult> {
    if error < 0 {
        return Err(error);
    }
    // SAFETY: part of an [out] array of ours.
    Ok(Reading { value: unsafe { variant::value(value) }, quality, time: time.into() })
}
