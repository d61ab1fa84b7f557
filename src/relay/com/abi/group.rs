//! What a DA group offers, and what it calls back: items, state, reads and writes, and `IOPCDataCallback`.

use super::types::*;
use std::ffi::c_void;
use windows_core::{GUID, HRESULT, IUnknown, IUnknown_Vtbl, interface};

#[interface("39c13a54-011e-11d0-9675-0020afd8adb3")]
pub unsafe trait IOPCItemMgt: IUnknown {
    pub fn AddItems(
        &self,
        count: u32,
        items: *const OPCITEMDEF,
        results: *mut *mut OPCITEMRESULT,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn ValidateItems(
        &self,
        count: u32,
        items: *const OPCITEMDEF,
        update_blobs: Bool32,
        results: *mut *mut OPCITEMRESULT,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn RemoveItems(&self, count: u32, servers: *const OpcHandle, errors: *mut *mut i32) -> HRESULT;
    pub fn SetActiveState(
        &self,
        count: u32,
        servers: *const OpcHandle,
        active: Bool32,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn SetClientHandles(
        &self,
        count: u32,
        servers: *const OpcHandle,
        clients: *const OpcHandle,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn SetDatatypes(
        &self,
        count: u32,
        servers: *const OpcHandle,
        types: *const u16,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn CreateEnumerator(&self, iid: *const GUID, enumerator: *mut *mut c_void) -> HRESULT;
}

#[interface("39c13a50-011e-11d0-9675-0020afd8adb3")]
pub unsafe trait IOPCGroupStateMgt: IUnknown {
    pub fn GetState(
        &self,
        rate: *mut u32,
        active: *mut Bool32,
        name: *mut Wide,
        time_bias: *mut i32,
        percent_deadband: *mut f32,
        locale: *mut u32,
        client_group: *mut OpcHandle,
        server_group: *mut OpcHandle,
    ) -> HRESULT;
    pub fn SetState(
        &self,
        rate: *const u32,
        revised_rate: *mut u32,
        active: *const Bool32,
        time_bias: *const i32,
        percent_deadband: *const f32,
        locale: *const u32,
        client_group: *const OpcHandle,
    ) -> HRESULT;
    pub fn SetName(&self, name: *const u16) -> HRESULT;
    pub fn CloneGroup(&self, name: *const u16, iid: *const GUID, group: *mut *mut c_void) -> HRESULT;
}

#[interface("8e368666-d72e-4f78-87ed-647611c61c9f")]
pub unsafe trait IOPCGroupStateMgt2: IOPCGroupStateMgt {
    pub fn SetKeepAlive(&self, milliseconds: u32, revised: *mut u32) -> HRESULT;
    pub fn GetKeepAlive(&self, milliseconds: *mut u32) -> HRESULT;
}

#[interface("39c13a52-011e-11d0-9675-0020afd8adb3")]
pub unsafe trait IOPCSyncIO: IUnknown {
    pub fn Read(
        &self,
        source: u32,
        count: u32,
        servers: *const OpcHandle,
        values: *mut *mut OPCITEMSTATE,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn Write(
        &self,
        count: u32,
        servers: *const OpcHandle,
        values: *const RawVariant,
        errors: *mut *mut i32,
    ) -> HRESULT;
}

#[interface("730f5f0f-55b1-4c81-9e18-ff8a0904e1fa")]
pub unsafe trait IOPCSyncIO2: IOPCSyncIO {
    pub fn ReadMaxAge(
        &self,
        count: u32,
        servers: *const OpcHandle,
        oldest: *const u32,
        values: *mut *mut RawVariant,
        qualities: *mut *mut u16,
        times: *mut *mut FileTime,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn WriteVQT(
        &self,
        count: u32,
        servers: *const OpcHandle,
        values: *const OPCITEMVQT,
        errors: *mut *mut i32,
    ) -> HRESULT;
}

#[interface("39c13a71-011e-11d0-9675-0020afd8adb3")]
pub unsafe trait IOPCAsyncIO2: IUnknown {
    pub fn Read(
        &self,
        count: u32,
        servers: *const OpcHandle,
        transaction: u32,
        cancel: *mut u32,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn Write(
        &self,
        count: u32,
        servers: *const OpcHandle,
        values: *const RawVariant,
        transaction: u32,
        cancel: *mut u32,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn Refresh2(&self, source: u32, transaction: u32, cancel: *mut u32) -> HRESULT;
    pub fn Cancel2(&self, cancel: u32) -> HRESULT;
    pub fn SetEnable(&self, enable: Bool32) -> HRESULT;
    pub fn GetEnable(&self, enable: *mut Bool32) -> HRESULT;
}

#[interface("0967b97b-36ef-423e-b6f8-6bff1e40d39d")]
pub unsafe trait IOPCAsyncIO3: IOPCAsyncIO2 {
    pub fn ReadMaxAge(
        &self,
        count: u32,
        servers: *const OpcHandle,
        oldest: *const u32,
        transaction: u32,
        cancel: *mut u32,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn WriteVQT(
        &self,
        count: u32,
        servers: *const OpcHandle,
        values: *const OPCITEMVQT,
        transaction: u32,
        cancel: *mut u32,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn RefreshMaxAge(&self, oldest: u32, transaction: u32, cancel: *mut u32) -> HRESULT;
}

#[interface("39c13a70-011e-11d0-9675-0020afd8adb3")]
pub unsafe trait IOPCDataCallback: IUnknown {
    pub fn OnDataChange(
        &self,
        transaction: u32,
        group: OpcHandle,
        master_quality: i32,
        master_error: i32,
        count: u32,
        clients: *const OpcHandle,
        values: *const RawVariant,
        qualities: *const u16,
        times: *const FileTime,
        errors: *const i32,
    ) -> HRESULT;
    pub fn OnReadComplete(
        &self,
        transaction: u32,
        group: OpcHandle,
        master_quality: i32,
        master_error: i32,
        count: u32,
        clients: *const OpcHandle,
        values: *const RawVariant,
        qualities: *const u16,
        times: *const FileTime,
        errors: *const i32,
    ) -> HRESULT;
    pub fn OnWriteComplete(
        &self,
        transaction: u32,
        group: OpcHandle,
        master_error: i32,
        count: u32,
        clients: *const OpcHandle,
        errors: *const i32,
    ) -> HRESULT;
    pub fn OnCancelComplete(&self, transaction: u32, group: OpcHandle) -> HRESULT;
}
