//! What Windows and OPCEnum offer: connection points, enumerators, class factories, and who says which DA servers there are.

use super::types::*;
use std::ffi::c_void;
use windows_core::{GUID, HRESULT, IUnknown, IUnknown_Vtbl, interface};

/// Servers of DA 1, 2 and 3, as component categories.
pub const CATID_DA: [GUID; 3] = [
    GUID::from_u128(0x63D5F430_CFE4_11D1_B2C8_0060083BA1FB),
    GUID::from_u128(0x63D5F432_CFE4_11D1_B2C8_0060083BA1FB),
    GUID::from_u128(0xCC603642_66D7_48F1_B69A_B625E73652D7),
];

/// OPCEnum.
pub const CLSID_SERVER_LIST: GUID = GUID::from_u128(0x13486D51_4821_11D2_A494_3CB306C10000);

/// Windows' own reader of the component categories.
pub const CLSID_CATEGORIES: GUID = GUID::from_u128(0x0002E005_0000_0000_C000_000000000046);

#[interface("b196b284-bab4-101a-b69c-00aa00341d07")]
pub unsafe trait IConnectionPointContainer: IUnknown {
    pub fn EnumConnectionPoints(&self, points: *mut *mut c_void) -> HRESULT;
    pub fn FindConnectionPoint(&self, iid: *const GUID, point: *mut *mut c_void) -> HRESULT;
}

#[interface("b196b286-bab4-101a-b69c-00aa00341d07")]
pub unsafe trait IConnectionPoint: IUnknown {
    pub fn GetConnectionInterface(&self, iid: *mut GUID) -> HRESULT;
    pub fn GetConnectionPointContainer(&self, container: *mut *mut c_void) -> HRESULT;
    pub fn Advise(&self, sink: *mut c_void, cookie: *mut u32) -> HRESULT;
    pub fn Unadvise(&self, cookie: u32) -> HRESULT;
    pub fn EnumConnections(&self, connections: *mut *mut c_void) -> HRESULT;
}

#[interface("00000101-0000-0000-c000-000000000046")]
pub unsafe trait IEnumString: IUnknown {
    pub fn Next(&self, wanted: u32, strings: *mut Wide, fetched: *mut u32) -> HRESULT;
    pub fn Skip(&self, count: u32) -> HRESULT;
    pub fn Reset(&self) -> HRESULT;
    pub fn Clone(&self, copy: *mut *mut c_void) -> HRESULT;
}

#[interface("0002e000-0000-0000-c000-000000000046")]
pub unsafe trait IEnumGUID: IUnknown {
    pub fn Next(&self, wanted: u32, ids: *mut GUID, fetched: *mut u32) -> HRESULT;
    pub fn Skip(&self, count: u32) -> HRESULT;
    pub fn Reset(&self) -> HRESULT;
    pub fn Clone(&self, copy: *mut *mut c_void) -> HRESULT;
}

/// The same once more under OPC's own id, because the proxies of the first one were broken on old Windows.
#[interface("55c382c8-21c7-4e88-96c1-becfb1e3f483")]
pub unsafe trait IOPCEnumGUID: IUnknown {
    pub fn Next(&self, wanted: u32, ids: *mut GUID, fetched: *mut u32) -> HRESULT;
    pub fn Skip(&self, count: u32) -> HRESULT;
    pub fn Reset(&self) -> HRESULT;
    pub fn Clone(&self, copy: *mut *mut c_void) -> HRESULT;
}

#[interface("13486d50-4821-11d2-a494-3cb306c10000")]
pub unsafe trait IOPCServerList: IUnknown {
    pub fn EnumClassesOfCategories(
        &self,
        implemented: u32,
        implemented_ids: *const GUID,
        required: u32,
        required_ids: *const GUID,
        classes: *mut *mut c_void,
    ) -> HRESULT;
    pub fn GetClassDetails(&self, class: *const GUID, prog_id: *mut Wide, user_type: *mut Wide) -> HRESULT;
    pub fn CLSIDFromProgID(&self, prog_id: *const u16, class: *mut GUID) -> HRESULT;
}

#[interface("9dd0b56c-ad9e-43ee-8305-487f3188bf7a")]
pub unsafe trait IOPCServerList2: IUnknown {
    pub fn EnumClassesOfCategories(
        &self,
        implemented: u32,
        implemented_ids: *const GUID,
        required: u32,
        required_ids: *const GUID,
        classes: *mut *mut c_void,
    ) -> HRESULT;
    pub fn GetClassDetails(
        &self,
        class: *const GUID,
        prog_id: *mut Wide,
        user_type: *mut Wide,
        version_independent: *mut Wide,
    ) -> HRESULT;
    pub fn CLSIDFromProgID(&self, prog_id: *const u16, class: *mut GUID) -> HRESULT;
}

#[interface("0002e013-0000-0000-c000-000000000046")]
pub unsafe trait ICatInformation: IUnknown {
    pub fn EnumCategories(&self, locale: u32, categories: *mut *mut c_void) -> HRESULT;
    pub fn GetCategoryDesc(&self, category: *const GUID, locale: u32, description: *mut Wide) -> HRESULT;
    pub fn EnumClassesOfCategories(
        &self,
        implemented: u32,
        implemented_ids: *const GUID,
        required: u32,
        required_ids: *const GUID,
        classes: *mut *mut c_void,
    ) -> HRESULT;
    pub fn IsClassOfCategories(
        &self,
        class: *const GUID,
        implemented: u32,
        implemented_ids: *const GUID,
        required: u32,
        required_ids: *const GUID,
    ) -> HRESULT;
    pub fn EnumImplCategoriesOfClass(&self, class: *const GUID, categories: *mut *mut c_void) -> HRESULT;
    pub fn EnumReqCategoriesOfClass(&self, class: *const GUID, categories: *mut *mut c_void) -> HRESULT;
}

#[interface("00000001-0000-0000-c000-000000000046")]
pub unsafe trait IClassFactory: IUnknown {
    pub fn CreateInstance(&self, outer: *mut c_void, iid: *const GUID, object: *mut *mut c_void) -> HRESULT;
    pub fn LockServer(&self, lock: Bool32) -> HRESULT;
}

#[interface("00000003-0000-0000-c000-000000000046")]
pub unsafe trait IMarshal: IUnknown {
    pub fn GetUnmarshalClass(
        &self,
        iid: *const GUID,
        object: *const c_void,
        context: u32,
        reserved: *const c_void,
        flags: u32,
        class: *mut GUID,
    ) -> HRESULT;
    pub fn GetMarshalSizeMax(
        &self,
        iid: *const GUID,
        object: *const c_void,
        context: u32,
        reserved: *const c_void,
        flags: u32,
        size: *mut u32,
    ) -> HRESULT;
    pub fn MarshalInterface(
        &self,
        stream: *mut c_void,
        iid: *const GUID,
        object: *const c_void,
        context: u32,
        reserved: *const c_void,
        flags: u32,
    ) -> HRESULT;
    pub fn UnmarshalInterface(&self, stream: *mut c_void, iid: *const GUID, object: *mut *mut c_void) -> HRESULT;
    pub fn ReleaseMarshalData(&self, stream: *mut c_void) -> HRESULT;
    pub fn DisconnectObject(&self, reserved: u32) -> HRESULT;
}
