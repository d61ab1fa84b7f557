//! What a DA server's own object offers: `IOPCServer` of all versions, browsing and properties of DA 2, browsing, properties and
//! I/O without groups of DA 3, and from OPC Common the client's name and the server's goodbye.

use super::types::*;
use std::ffi::c_void;
use windows_core::{GUID, HRESULT, IUnknown, IUnknown_Vtbl, interface};

#[interface("39c13a4d-011e-11d0-9675-0020afd8adb3")]
pub unsafe trait IOPCServer: IUnknown {
    pub fn AddGroup(
        &self,
        name: *const u16,
        active: Bool32,
        rate: u32,
        client_group: OpcHandle,
        time_bias: *const i32,
        percent_deadband: *const f32,
        locale: u32,
        server_group: *mut OpcHandle,
        revised_rate: *mut u32,
        iid: *const GUID,
        group: *mut *mut c_void,
    ) -> HRESULT;
    pub fn GetErrorString(&self, error: i32, locale: u32, text: *mut Wide) -> HRESULT;
    pub fn GetGroupByName(&self, name: *const u16, iid: *const GUID, group: *mut *mut c_void) -> HRESULT;
    pub fn GetStatus(&self, status: *mut *mut OPCSERVERSTATUS) -> HRESULT;
    pub fn RemoveGroup(&self, server_group: OpcHandle, force: Bool32) -> HRESULT;
    pub fn CreateGroupEnumerator(&self, scope: u32, iid: *const GUID, groups: *mut *mut c_void) -> HRESULT;
}

#[interface("f31dfde2-07b6-11d2-b2d8-0060083ba1fb")]
pub unsafe trait IOPCCommon: IUnknown {
    pub fn SetLocaleID(&self, locale: u32) -> HRESULT;
    pub fn GetLocaleID(&self, locale: *mut u32) -> HRESULT;
    pub fn QueryAvailableLocaleIDs(&self, count: *mut u32, locales: *mut *mut u32) -> HRESULT;
    pub fn GetErrorString(&self, error: i32, text: *mut Wide) -> HRESULT;
    pub fn SetClientName(&self, name: *const u16) -> HRESULT;
}

#[interface("39c13a4f-011e-11d0-9675-0020afd8adb3")]
pub unsafe trait IOPCBrowseServerAddressSpace: IUnknown {
    pub fn QueryOrganization(&self, organization: *mut u32) -> HRESULT;
    pub fn ChangeBrowsePosition(&self, direction: u32, name: *const u16) -> HRESULT;
    pub fn BrowseOPCItemIDs(
        &self,
        kind: u32,
        filter: *const u16,
        data_type: u16,
        access_rights: u32,
        names: *mut *mut c_void,
    ) -> HRESULT;
    pub fn GetItemID(&self, name: *const u16, item_id: *mut Wide) -> HRESULT;
    pub fn BrowseAccessPaths(&self, item_id: *const u16, paths: *mut *mut c_void) -> HRESULT;
}

#[interface("39227004-a18f-4b57-8b0a-5235670f4468")]
pub unsafe trait IOPCBrowse: IUnknown {
    pub fn GetProperties(
        &self,
        items: u32,
        item_ids: *const *const u16,
        with_values: Bool32,
        properties: u32,
        property_ids: *const u32,
        result: *mut *mut OPCITEMPROPERTIES,
    ) -> HRESULT;
    pub fn Browse(
        &self,
        item_id: *const u16,
        continuation: *mut Wide,
        longest: u32,
        filter: u32,
        name_filter: *const u16,
        vendor_filter: *const u16,
        all_properties: Bool32,
        property_values: Bool32,
        properties: u32,
        property_ids: *const u32,
        more: *mut Bool32,
        count: *mut u32,
        elements: *mut *mut OPCBROWSEELEMENT,
    ) -> HRESULT;
}

#[interface("39c13a72-011e-11d0-9675-0020afd8adb3")]
pub unsafe trait IOPCItemProperties: IUnknown {
    pub fn QueryAvailableProperties(
        &self,
        item_id: *const u16,
        count: *mut u32,
        ids: *mut *mut u32,
        descriptions: *mut *mut Wide,
        types: *mut *mut u16,
    ) -> HRESULT;
    pub fn GetItemProperties(
        &self,
        item_id: *const u16,
        count: u32,
        ids: *const u32,
        values: *mut *mut RawVariant,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn LookupItemIDs(
        &self,
        item_id: *const u16,
        count: u32,
        ids: *const u32,
        item_ids: *mut *mut Wide,
        errors: *mut *mut i32,
    ) -> HRESULT;
}

#[interface("85c0b427-2893-4cbc-bd78-e5fc5146f08f")]
pub unsafe trait IOPCItemIO: IUnknown {
    pub fn Read(
        &self,
        count: u32,
        item_ids: *const *const u16,
        oldest: *const u32,
        values: *mut *mut RawVariant,
        qualities: *mut *mut u16,
        times: *mut *mut FileTime,
        errors: *mut *mut i32,
    ) -> HRESULT;
    pub fn WriteVQT(
        &self,
        count: u32,
        item_ids: *const *const u16,
        values: *const OPCITEMVQT,
        errors: *mut *mut i32,
    ) -> HRESULT;
}

#[interface("f31dfde1-07b6-11d2-b2d8-0060083ba1fb")]
pub unsafe trait IOPCShutdown: IUnknown {
    pub fn ShutdownRequest(&self, reason: *const u16) -> HRESULT;
}
