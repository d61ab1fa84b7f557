//! A thread's COM: always in the multi-threaded apartment, because callbacks into an STA without a message pump are lost.
//!
//! The security of the process is said once, before any call that is marshalled: packets are signed, and the DA server
//! may know who we are, but not act as us. `CoInitializeSecurity` also decides who may call back: everybody whom the PC lets in,
//! as the DA server may run under any account.

use super::{Failure, check};
use std::marker::PhantomData;
use std::ptr;
use windows_sys::Win32::System::Com::{
    COINIT_MULTITHREADED, CoInitializeEx, CoInitializeSecurity, CoUninitialize, EOAC_NONE,
    RPC_C_AUTHN_LEVEL_PKT_INTEGRITY, RPC_C_IMP_LEVEL_IDENTIFY,
};

/// As long as this lives, its thread may use COM. Not for another thread.
pub struct Apartment(PhantomData<*const ()>);

impl Apartment {
    pub fn enter() -> Result<Self, Failure> {
        // SAFETY: no arguments; undone by `drop`, on the same thread.
        check("CoInitializeEx", unsafe { CoInitializeEx(ptr::null(), COINIT_MULTITHREADED as u32) })?;
        Ok(Self(PhantomData))
    }

    /// For the whole process, so by its first thread.
    pub fn secure(&self) -> Result<(), Failure> {
        // SAFETY: no security descriptor and no list: Windows' own defaults for both.
        let result = unsafe {
            CoInitializeSecurity(
                ptr::null_mut(),
                -1,
                ptr::null(),
                ptr::null(),
                RPC_C_AUTHN_LEVEL_PKT_INTEGRITY,
                RPC_C_IMP_LEVEL_IDENTIFY,
                ptr::null(),
                EOAC_NONE as u32,
                ptr::null(),
            )
        };
        check("CoInitializeSecurity", result).map(|_| ())
    }
}

impl Drop for Apartment {
    fn drop(&mut self) {
        // SAFETY: entered by this thread.
        unsafe { CoUninitialize() };
    }
}
