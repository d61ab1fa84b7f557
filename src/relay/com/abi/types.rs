//! DA's structures as they lie in memory. All of them are plain: what their pointers point to is owned by whoever `memory.rs`
//! says, so none of them can be cloned into a second owner.

use std::ffi::c_void;

pub type OpcHandle = u32;
pub type Bool32 = i32;
/// Zero-terminated UTF-16.
pub type Wide = *mut u16;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FileTime {
    pub low: u32,
    pub high: u32,
}

impl From<FileTime> for u64 {
    fn from(time: FileTime) -> Self {
        (Self::from(time.high) << 32) | Self::from(time.low)
    }
}

impl From<u64> for FileTime {
    fn from(time: u64) -> Self {
        Self { low: time as u32, high: (time >> 32) as u32 }
    }
}

/// VARIANT. `data` begins with the value in little endian, or with the pointer; a DECIMAL begins at `reserved`, over `vt`.
#[repr(C, align(8))]
pub struct RawVariant {
    pub vt: u16,
    pub reserved: [u16; 3],
    pub data: [u64; size_of::<usize>() / 4],
}

impl RawVariant {
    pub const EMPTY: Self = Self { vt: 0, reserved: [0; 3], data: [0; size_of::<usize>() / 4] };

    pub fn pointer(&self) -> *mut c_void {
        self.data[0] as usize as *mut c_void
    }
}

#[repr(C)]
pub struct OPCITEMDEF {
    pub access_path: *const u16,
    pub item_id: *const u16,
    pub active: Bool32,
    pub client: OpcHandle,
    pub blob_size: u32,
    pub blob: *mut u8,
    pub requested_type: u16,
    pub reserved: u16,
}

#[repr(C)]
pub struct OPCITEMRESULT {
    pub server: OpcHandle,
    pub canonical_type: u16,
    pub reserved: u16,
    pub access_rights: u32,
    pub blob_size: u32,
    pub blob: *mut u8,
}

#[repr(C)]
pub struct OPCITEMSTATE {
    pub client: OpcHandle,
    pub time: FileTime,
    pub quality: u16,
    pub reserved: u16,
    pub value: RawVariant,
}

#[repr(C)]
pub struct OPCSERVERSTATUS {
    pub start: FileTime,
    pub current: FileTime,
    pub last_update: FileTime,
    pub state: u32,
    pub groups: u32,
    pub bandwidth: u32,
    pub major: u16,
    pub minor: u16,
    pub build: u16,
    pub reserved: u16,
    pub vendor: Wide,
}

#[repr(C)]
pub struct OPCITEMPROPERTY {
    pub data_type: u16,
    pub reserved: u16,
    pub id: u32,
    pub item_id: Wide,
    pub description: Wide,
    pub value: RawVariant,
    pub error: i32,
    pub reserved2: u32,
}

#[repr(C)]
pub struct OPCITEMPROPERTIES {
    pub error: i32,
    pub count: u32,
    pub properties: *mut OPCITEMPROPERTY,
    pub reserved: u32,
}

#[repr(C)]
pub struct OPCBROWSEELEMENT {
    pub name: Wide,
    pub item_id: Wide,
    pub flags: u32,
    pub reserved: u32,
    pub properties: OPCITEMPROPERTIES,
}

#[repr(C)]
pub struct OPCITEMVQT {
    pub value: RawVariant,
    pub has_quality: Bool32,
    pub quality: u16,
    pub reserved: u16,
    pub has_time: Bool32,
    pub reserved2: u32,
    pub time: FileTime,
}

pub const OPC_DS_CACHE: u32 = 1;
pub const OPC_DS_DEVICE: u32 = 2;

pub const OPC_BRANCH: u32 = 1;
pub const OPC_LEAF: u32 = 2;
pub const OPC_FLAT: u32 = 3;
/// OPCNAMESPACETYPE
pub const OPC_NS_FLAT: u32 = 2;

pub const OPC_BROWSE_UP: u32 = 1;
pub const OPC_BROWSE_DOWN: u32 = 2;
pub const OPC_BROWSE_TO: u32 = 3;

pub const OPC_BROWSE_FILTER_ALL: u32 = 1;
pub const OPC_BROWSE_HASCHILDREN: u32 = 1;
pub const OPC_BROWSE_ISITEM: u32 = 2;

pub const VT_EMPTY: u16 = 0;
pub const VT_NULL: u16 = 1;
pub const VT_I2: u16 = 2;
pub const VT_I4: u16 = 3;
pub const VT_R4: u16 = 4;
pub const VT_R8: u16 = 5;
pub const VT_CY: u16 = 6;
pub const VT_DATE: u16 = 7;
pub const VT_BSTR: u16 = 8;
pub const VT_ERROR: u16 = 10;
pub const VT_BOOL: u16 = 11;
pub const VT_VARIANT: u16 = 12;
pub const VT_DECIMAL: u16 = 14;
pub const VT_I1: u16 = 16;
pub const VT_UI1: u16 = 17;
pub const VT_UI2: u16 = 18;
pub const VT_UI4: u16 = 19;
pub const VT_I8: u16 = 20;
pub const VT_UI8: u16 = 21;
pub const VT_INT: u16 = 22;
pub const VT_UINT: u16 = 23;
pub const VT_FILETIME: u16 = 64;
pub const VT_ARRAY: u16 = 0x2000;
