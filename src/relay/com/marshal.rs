//! Sinks for all threads of this process.
//!
//! A DA server in our process may live on threads of another apartment, or carry a sink from one of its threads to another. COM
//! would put a proxy between, and so ask for OPC's proxies, which an in-process server has no need of and which may not be there.
//! Windows' free-threaded marshaler says instead that the pointer itself will do. For other processes it does as COM does.

use super::abi::IMarshal;
use super::query;
use std::ffi::c_void;
use std::ptr;
use windows_core::{GUID, HRESULT, IUnknown, Interface};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};

/// CoCreateFreeThreadedMarshaler.
type Create = unsafe extern "system" fn(outer: *mut c_void, marshaler: *mut *mut c_void) -> i32;

/// None: COM does what it does without.
pub(super) fn free_threaded() -> Option<IMarshal> {
    // By hand: the bindings have it from combase.dll, which Windows 7 has not, and the linker would take theirs.
    // SAFETY: names with their zeros; whoever is in an apartment has ole32.dll, and this function of it is of that type.
    let create = unsafe {
        let library = GetModuleHandleA(c"ole32.dll".as_ptr().cast());
        let function = GetProcAddress(library, c"CoCreateFreeThreadedMarshaler".as_ptr().cast())?;
        std::mem::transmute::<unsafe extern "system" fn() -> isize, Create>(function)
    };
    let mut marshaler = ptr::null_mut();
    // SAFETY: nobody around it, and a place for the object.
    if unsafe { create(ptr::null_mut(), &raw mut marshaler) } < 0 || marshaler.is_null() {
        return None;
    }
    // SAFETY: given by a call that succeeded.
    query(&unsafe { IUnknown::from_raw(marshaler) }).ok()
}

/// An id that proxies point at within their own description, where it may lie at any address. What is asked for it in turn is a sink of
/// ours, and in Rust a reference is to be aligned.
///
/// # Safety
///
/// There is an id.
pub(super) unsafe fn aligned(iid: *const GUID) -> GUID {
    // SAFETY: the caller says so.
    unsafe { iid.read_unaligned() }
}

pub(super) const E_NOTIMPL: HRESULT = HRESULT(0x8000_4001_u32 as i32);

/// `IMarshal` of a sink, by its field `marshal`.
macro_rules! marshalled_freely {
    ($sink:ident) => {
        impl IMarshal_Impl for $sink {
            unsafe fn GetUnmarshalClass(
                &self,
                iid: *const GUID,
                object: *const c_void,
                context: u32,
                reserved: *const c_void,
                flags: u32,
                class: *mut GUID,
            ) -> HRESULT {
                let Some(marshal) = &self.marshal else { return E_NOTIMPL };
                // SAFETY: COM's own arguments, as they are; this holds for all that follow.
                unsafe { marshal.GetUnmarshalClass(&aligned(iid), object, context, reserved, flags, class) }
            }

            unsafe fn GetMarshalSizeMax(
                &self,
                iid: *const GUID,
                object: *const c_void,
                context: u32,
                reserved: *const c_void,
                flags: u32,
                size: *mut u32,
            ) -> HRESULT {
                let Some(marshal) = &self.marshal else { return E_NOTIMPL };
                // SAFETY: as above.
                unsafe { marshal.GetMarshalSizeMax(&aligned(iid), object, context, reserved, flags, size) }
            }

            unsafe fn MarshalInterface(
                &self,
                stream: *mut c_void,
                iid: *const GUID,
                object: *const c_void,
                context: u32,
                reserved: *const c_void,
                flags: u32,
            ) -> HRESULT {
                let Some(marshal) = &self.marshal else { return E_NOTIMPL };
                // SAFETY: as above.
                unsafe { marshal.MarshalInterface(stream, &aligned(iid), object, context, reserved, flags) }
            }

            unsafe fn UnmarshalInterface(
                &self,
                stream: *mut c_void,
                iid: *const GUID,
                object: *mut *mut c_void,
            ) -> HRESULT {
                let Some(marshal) = &self.marshal else { return E_NOTIMPL };
                // SAFETY: as above.
                unsafe { marshal.UnmarshalInterface(stream, iid, object) }
            }

            unsafe fn ReleaseMarshalData(&self, stream: *mut c_void) -> HRESULT {
                let Some(marshal) = &self.marshal else { return E_NOTIMPL };
                // SAFETY: as above.
                unsafe { marshal.ReleaseMarshalData(stream) }
            }

            unsafe fn DisconnectObject(&self, reserved: u32) -> HRESULT {
                let Some(marshal) = &self.marshal else { return E_NOTIMPL };
                // SAFETY: as above.
                unsafe { marshal.DisconnectObject(reserved) }
            }
        }
    };
}

pub(super) use marshalled_freely;
