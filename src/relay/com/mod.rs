//! COM, and what OPC DA makes of it: the only place with `unsafe`.
//!
//! Everything that is public here is safe to use from one thread that has entered an [`Apartment`]; COM pointers never leave it.
//! Answers are values of `protocol.rs`, free of COM's memory. Nothing here has a timeout, because COM has none: a caller who
//! cannot wait has to be a process that can be ended.
//!
//! - `abi/`: the interfaces, as they lie in memory; `memory.rs`: who frees what; `variant.rs`: values.
//! - `class.rs`, `connection.rs`, `group.rs`, `io.rs`, `browse*.rs`, `properties.rs`, `sinks.rs`: a DA server, as a client sees it.
//! - `catalog.rs`, `registry.rs`: which DA servers there are. `rights.rs`: of the account that the service runs as.

#![allow(unsafe_code, reason = "COM; every block says why it holds")]

mod abi;

mod marshal;
mod memory;
mod variant;

mod apartment;
mod class;

mod browse;
mod browse2;
mod browse3;
mod connection;
mod group;
mod io;
mod properties;
mod sinks;

pub mod catalog;
pub mod proxies;
mod registry;
pub mod rights;

#[cfg(feature = "da-test-server")]
pub mod test_server;

pub use apartment::Apartment;
pub use class::{Class, Server};
pub use connection::Connection;
pub use group::Group;
pub use io::Io;
pub use registry::View;
pub use sinks::Listener;

use crate::relay::protocol::{Failure, Hresult};
use std::ffi::c_void;
use std::ptr;
use windows_core::Interface;

const E_POINTER: Hresult = 0x8000_4003_u32 as Hresult;
const E_NOINTERFACE: Hresult = 0x8000_4002_u32 as Hresult;

/// A success as it is; a failure with the method's name.
fn check(call: &str, hresult: Hresult) -> Result<Hresult, Failure> {
    if hresult < 0 { Err(Failure { call: call.into(), hresult }) } else { Ok(hresult) }
}

fn query<T: Interface>(object: &impl Interface) -> Result<T, Hresult> {
    let mut interface = ptr::null_mut();
    // SAFETY: an interface's id, and a place for it.
    let result = unsafe { object.query(&T::IID, &raw mut interface) }.0;
    if result < 0 {
        return Err(result);
    }
    // SAFETY: given by a call that succeeded, for this interface's id.
    unsafe { found("", interface) }.map_err(|failure| failure.hresult)
}

/// An interface that a call gave.
///
/// # Safety
/// Null, or one reference to an object with this interface, which is ours.
unsafe fn found<T: Interface>(call: &str, interface: *mut c_void) -> Result<T, Failure> {
    if interface.is_null() {
        return Err(Failure { call: call.into(), hresult: E_POINTER });
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { T::from_raw(interface) })
}
