//! A DA server for tests, scripted, in the process that uses it: no registration, no proxies. Only in a build with the feature
//! `da-test-server`; the delivered program has none of it.
//!
//! - `space.rs`: items, their values and what happens on a write; no COM.
//! - `server.rs`, `group.rs`, `points.rs`: the COM objects; `give.rs`: memory for their callers.
//!
//! One thread moves the values and calls back; it is the only one that calls a sink.

mod give;
mod group;
mod points;
mod server;
mod space;

pub use space::Script;

use super::abi::{Bool32, IClassFactory, IClassFactory_Impl};
use super::{Class, Failure, check};
use server::{Server2, Server3};
use space::World;
use std::ffi::c_void;
use std::sync::Arc;
use std::{ptr, thread};
use windows_core::{GUID, HRESULT, IUnknown, Interface, implement};
use windows_sys::Win32::System::Com::{CLSCTX_INPROC_SERVER, CoRegisterClassObject, REGCLS_MULTIPLEUSE};

const S_OK: HRESULT = HRESULT(0);
const S_FALSE: HRESULT = HRESULT(1);
const E_NOTIMPL: HRESULT = HRESULT(0x8000_4001_u32 as i32);
const E_INVALIDARG: HRESULT = HRESULT(0x8007_0057_u32 as i32);

/// Of nobody else's.
const CLASS: GUID = GUID::from_u128(0x5E8F3A52_7D0B_4C57_9B1E_2A6D70C1F4D8);

/// For as long as the process lives. The caller is in the apartment that will use it.
pub fn host(script: Script) -> Result<Class, Failure> {
    let world = Arc::new(World::new(script));
    let ticking = Arc::clone(&world);
    thread::spawn(move || {
        let _apartment = super::Apartment::enter();
        ticking.run();
    });
    let factory = IUnknown::from(IClassFactory::from(Factory { world }));
    let (mut cookie, class) = (0, CLASS);
    // SAFETY: the factory lives on in COM's list, which is never told otherwise.
    let result = unsafe {
        CoRegisterClassObject(
            (&raw const class).cast(),
            factory.as_raw(),
            CLSCTX_INPROC_SERVER,
            REGCLS_MULTIPLEUSE as u32,
            &raw mut cookie,
        )
    };
    check("CoRegisterClassObject", result)?;
    Ok(Class(CLASS))
}

#[implement(IClassFactory, Agile = false)]
struct Factory {
    world: Arc<World>,
}

impl IClassFactory_Impl for Factory_Impl {
    unsafe fn CreateInstance(&self, _: *mut c_void, iid: *const GUID, object: *mut *mut c_void) -> HRESULT {
        self.world.gate();
        let server: IUnknown = match self.world.script.da {
            3 => Server3::new(Arc::clone(&self.world)).into(),
            _ => Server2::new(Arc::clone(&self.world)).into(),
        };
        // SAFETY: COM gives an id and a place.
        unsafe {
            *object = ptr::null_mut();
            server.query(iid, object)
        }
    }

    unsafe fn LockServer(&self, _: Bool32) -> HRESULT {
        S_OK
    }
}
