//! Who owns COM's memory.
//!
//! - [`Out`] owns what a call allocated for us: the array, and what its elements own (texts and VARIANTs first, then the array).
//! - [`Variant`] owns one VARIANT that we made or took over.
//! - What a callback is given belongs to its caller: it is read by [`slice`] and [`text`], and never freed.
//!
//! Nothing here can be cloned, because a bitwise copy of a VARIANT or of a pointer would be freed twice.

use super::abi::{
    FileTime, OPCBROWSEELEMENT, OPCITEMPROPERTIES, OPCITEMPROPERTY, OPCITEMRESULT, OPCITEMSTATE, OPCSERVERSTATUS,
    RawVariant, Wide,
};
use crate::relay::protocol::Hresult;
use std::ffi::c_void;
use std::ptr;
use windows_sys::Win32::System::Variant::VariantClear;

// By hand, because the bindings have it from combase.dll, which Windows 7 has not.
#[link(name = "ole32")]
unsafe extern "system" {
    fn CoTaskMemFree(pointer: *const c_void);
}

/// Longer texts are taken for garbage without an end.
const LONGEST_TEXT: usize = 1 << 22;

/// Nobody gives so many elements at once: a count beyond it is a lie, and what it counts is neither read nor freed.
pub(super) const MOST_ELEMENTS: usize = 1 << 22;

/// OPC_E_INVALIDITEMID
pub(super) const INVALID_ITEM_ID: Hresult = 0xC004_0008_u32 as Hresult;

/// What an element of an `[out]` array owns besides itself.
pub(super) trait Owning {
    fn free(&mut self) {}
}

impl Owning for u16 {}
impl Owning for u32 {}
impl Owning for i32 {}
impl Owning for FileTime {}

impl Owning for Wide {
    fn free(&mut self) {
        free(*self);
    }
}

impl Owning for RawVariant {
    fn free(&mut self) {
        // SAFETY: the VARIANT is ours, and is VT_EMPTY afterwards.
        unsafe { VariantClear(ptr::from_mut(self).cast()) };
    }
}

impl Owning for OPCITEMRESULT {
    fn free(&mut self) {
        free(self.blob);
    }
}

impl Owning for OPCITEMSTATE {
    fn free(&mut self) {
        self.value.free();
    }
}

impl Owning for OPCSERVERSTATUS {
    fn free(&mut self) {
        self.vendor.free();
    }
}

impl Owning for OPCITEMPROPERTY {
    fn free(&mut self) {
        self.item_id.free();
        self.description.free();
        self.value.free();
    }
}

impl Owning for OPCITEMPROPERTIES {
    fn free(&mut self) {
        let mut all = Out { pointer: self.properties, count: 0 };
        all.set_count(self.count);
    }
}

impl Owning for OPCBROWSEELEMENT {
    fn free(&mut self) {
        self.name.free();
        self.item_id.free();
        self.properties.free();
    }
}

fn free<T>(pointer: *mut T) {
    // SAFETY: what an [out] parameter points to was allocated by CoTaskMemAlloc, and is freed by its one owner; null is allowed.
    unsafe { CoTaskMemFree(pointer.cast::<c_void>()) };
}

/// An `[out]` array.
pub(super) struct Out<T: Owning> {
    pointer: *mut T,
    count: usize,
}

impl<T: Owning> Out<T> {
    pub(super) fn new(count: usize) -> Self {
        Self { pointer: ptr::null_mut(), count }
    }

    /// Where the call puts the array.
    pub(super) fn slot(&mut self) -> *mut *mut T {
        &raw mut self.pointer
    }

    /// Of a failed call nothing is believed, also no pointer: some servers leave one that they have freed.
    pub(super) fn after(&mut self, result: Hresult) {
        if result < 0 {
            self.pointer = ptr::null_mut();
        }
    }

    /// For arrays whose length the call says.
    pub(super) fn set_count(&mut self, count: u32) {
        self.count = count as usize;
        if self.count > MOST_ELEMENTS {
            (self.pointer, self.count) = (ptr::null_mut(), 0);
        }
    }

    /// Empty if there is no array.
    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: by the IDL, a call that succeeds gives as many elements as it was asked for, or says.
        unsafe { slice(self.pointer, self.count) }
    }
}

impl<T: Owning> Drop for Out<T> {
    fn drop(&mut self) {
        if self.pointer.is_null() {
            return;
        }
        for index in 0..self.count {
            // SAFETY: as in `as_slice`; each element is freed once, here.
            unsafe { (*self.pointer.add(index)).free() };
        }
        free(self.pointer);
    }
}

/// An `[out]` text.
#[repr(transparent)]
pub(super) struct OutText(Wide);

impl OutText {
    pub(super) fn new() -> Self {
        Self(ptr::null_mut())
    }

    pub(super) fn slot(&mut self) -> *mut Wide {
        &raw mut self.0
    }

    pub(super) fn after(&mut self, result: Hresult) {
        if result < 0 {
            self.0 = ptr::null_mut();
        }
    }

    pub(super) fn text(&self) -> String {
        // SAFETY: a text of a call that succeeded, or null.
        unsafe { text(self.0) }
    }
}

impl Drop for OutText {
    fn drop(&mut self) {
        free(self.0);
    }
}

/// A VARIANT of ours.
pub(super) struct Variant(pub RawVariant);

impl Drop for Variant {
    fn drop(&mut self) {
        self.0.free();
    }
}

/// Empty if the pointer is null, or the count a lie.
///
/// # Safety
/// Else there are `count` elements, for as long as the slice is used.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, count: usize) -> &'a [T] {
    if pointer.is_null() || count > MOST_ELEMENTS {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(pointer, count) }
}

/// What is not UTF-16 is replaced; null is empty.
///
/// # Safety
/// The pointer is null or points to UTF-16 with a zero at its end.
pub(super) unsafe fn text(pointer: *const u16) -> String {
    if pointer.is_null() {
        return String::new();
    }
    let mut length = 0;
    // SAFETY: the caller's promise: the zero is not behind us yet.
    while length < LONGEST_TEXT && unsafe { *pointer.add(length) } != 0 {
        length += 1;
    }
    // SAFETY: so many units were just read.
    String::from_utf16_lossy(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// An ItemID or a name of a client's. One with a zero in it would be another for the server, which reads up to that.
pub(super) fn wide_name(name: &str) -> Result<Vec<u16>, Hresult> {
    if name.contains('\0') { Err(INVALID_ITEM_ID) } else { Ok(wide(name)) }
}

/// A text of our own for an `[in]` parameter, with its zero.
pub(super) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}
