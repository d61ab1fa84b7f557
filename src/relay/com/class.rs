//! Which COM class is meant, and an object of it.

use super::abi::IOPCServer;
use super::memory::{OutText, wide};
use super::{Failure, check, query};
use std::fmt;
use std::ptr;
use windows_core::{GUID, IUnknown, Interface};
use windows_sys::Win32::System::Com::{
    CLSCTX_INPROC_SERVER, CLSCTX_LOCAL_SERVER, CLSIDFromProgID, CLSIDFromString, CoCreateInstance, ProgIDFromCLSID,
};

/// Which server is meant.
pub enum Server {
    /// A ProgID, or a CLSID in braces.
    Named(String),
    /// One of our own, hosted by this process.
    #[cfg(feature = "da-test-server")]
    Test(super::test_server::Script),
}

impl Server {
    /// By the thread that holds the process in its apartment.
    pub fn class(&self) -> Result<Class, Failure> {
        match self {
            Self::Named(name) => Class::find(name),
            #[cfg(feature = "da-test-server")]
            Self::Test(script) => super::test_server::host(script.clone()),
        }
    }
}

/// A CLSID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class(pub(super) GUID);

impl Class {
    /// From `{...}` or a ProgID.
    pub fn find(name: &str) -> Result<Self, Failure> {
        let text = wide(name);
        let mut id = GUID::zeroed();
        if name.starts_with('{') {
            // SAFETY: a text with its zero, and a place for the result.
            check("CLSIDFromString", unsafe { CLSIDFromString(text.as_ptr(), (&raw mut id).cast()) })?;
        } else {
            // SAFETY: as above.
            check("CLSIDFromProgID", unsafe { CLSIDFromProgID(text.as_ptr(), (&raw mut id).cast()) })?;
        }
        Ok(Self(id))
    }

    /// Empty if there is none.
    pub fn prog_id(&self) -> String {
        let mut text = OutText::new();
        // SAFETY: a CLSID and a place for the text.
        let result = unsafe { ProgIDFromCLSID((&raw const self.0).cast(), text.slot()) };
        text.after(result);
        text.text()
    }

    /// In this process if the class offers that for our bitness, else in its own. Asked for IUnknown first: what fails after
    /// that are missing proxies, not the server.
    pub(super) fn create_server(&self) -> Result<IOPCServer, Failure> {
        let object = self.create(CLSCTX_INPROC_SERVER | CLSCTX_LOCAL_SERVER)?;
        query(&object).map_err(|hresult| Failure { call: "QueryInterface IOPCServer".into(), hresult })
    }

    pub(super) fn create(&self, context: u32) -> Result<IUnknown, Failure> {
        let (mut object, iid) = (ptr::null_mut(), IUnknown::IID);
        // SAFETY: a class, an interface's id, and a place for the object.
        let result = unsafe {
            CoCreateInstance(
                (&raw const self.0).cast(),
                ptr::null_mut(),
                context,
                (&raw const iid).cast(),
                &raw mut object,
            )
        };
        check("CoCreateInstance", result)?;
        if object.is_null() {
            return Err(Failure { call: "CoCreateInstance".into(), hresult: super::E_POINTER });
        }
        // SAFETY: a successful call gave us one reference to an IUnknown.
        Ok(unsafe { IUnknown::from_raw(object) })
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{:?}}}", self.0)
    }
}
