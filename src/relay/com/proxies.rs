//! OPC's proxies: the DLLs that carry calls from one process to another, which somebody has to have installed for each bitness.

use super::abi::*;
use super::class::Class;
use super::registry::{self, View};
use windows_core::{GUID, Interface};

/// What a relay of one bitness finds.
pub struct Proxy {
    pub interface: &'static str,
    pub view: View,
    /// The DLL. None: not registered, or its class has none.
    pub library: Option<String>,
}

pub fn list() -> Vec<Proxy> {
    let wanted: [(&str, GUID); 8] = [
        ("IOPCServer", IOPCServer::IID),
        ("IOPCGroupStateMgt", IOPCGroupStateMgt::IID),
        ("IOPCItemMgt", IOPCItemMgt::IID),
        ("IOPCSyncIO", IOPCSyncIO::IID),
        ("IOPCDataCallback", IOPCDataCallback::IID),
        ("IOPCBrowseServerAddressSpace", IOPCBrowseServerAddressSpace::IID),
        ("IOPCBrowse", IOPCBrowse::IID),
        ("IOPCShutdown", IOPCShutdown::IID),
    ];
    let mut all = Vec::new();
    for view in View::ALL {
        for (interface, iid) in wanted {
            let key = format!("Interface\\{}\\ProxyStubClsid32", Class(iid));
            let library = registry::value(&key, "", view)
                .and_then(|class| registry::value(&format!("CLSID\\{class}\\InprocServer32"), "", view));
            all.push(Proxy { interface, view, library });
        }
    }
    all
}
