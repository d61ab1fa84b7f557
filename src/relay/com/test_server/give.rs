//! Memory that the caller of a method will free.

use crate::relay::com::abi::{RawVariant, Wide};
use crate::relay::com::memory::{Variant, wide};
use crate::relay::com::variant as com_variant;
use crate::relay::protocol::DaValue;
use std::ffi::c_void;
use std::mem;

#[link(name = "ole32")]
unsafe extern "system" {
    fn CoTaskMemAlloc(bytes: usize) -> *mut c_void;
    fn CoTaskMemFree(pointer: *const c_void);
}

/// # Safety
/// `place` is null or can be written.
pub unsafe fn array<T>(place: *mut *mut T, mut all: Vec<T>) {
    // SAFETY: enough room for all, which are not here any more afterwards; the caller's promise.
    unsafe {
        let memory = CoTaskMemAlloc((size_of::<T>() * all.len()).max(1)).cast::<T>();
        memory.copy_from_nonoverlapping(all.as_ptr(), all.len());
        all.set_len(0);
        if !place.is_null() {
            *place = memory;
        }
    }
}

pub fn text(text: &str) -> Wide {
    let mut place = std::ptr::null_mut();
    // SAFETY: a place of ours.
    unsafe { array(&raw mut place, wide(text)) };
    place
}

/// A VARIANT of any type; of one that cannot be made, an empty one that says it were.
pub fn value(value: &DaValue) -> Variant {
    match value {
        DaValue::Unsupported(vt) => Variant(RawVariant { vt: *vt, ..RawVariant::EMPTY }),
        value => com_variant::variant(value, 0).unwrap_or(Variant(RawVariant::EMPTY)),
    }
}

/// The VARIANT is the caller's from here on.
pub fn variant(variant: Variant) -> RawVariant {
    let raw = RawVariant { vt: variant.0.vt, reserved: variant.0.reserved, data: variant.0.data };
    mem::forget(variant);
    raw
}

/// Frees an `[in, out]` text that is replaced.
///
/// # Safety
/// Null, or the caller's text.
pub unsafe fn taken(text: Wide) {
    // SAFETY: the caller's promise.
    unsafe { CoTaskMemFree(text.cast()) };
}
