//! The COM interfaces of OPC DA and the few of Windows it needs, by hand: what the public IDL says, and nothing else.
//!
//! Every method gives its HRESULT as it is, because DA says much with successes (S_FALSE, OPC_S_CLAMP,
//! OPC_S_UNSUPPORTEDRATE). The order of the methods is the order of the vtable; the test at the end pins it.
//!
//! Pointers are as COM's: `[out]` memory is the caller's to free with CoTaskMemFree, `[in]` memory stays the caller's. Who
//! owns what in Rust is said in `memory.rs`.

// Declarations that follow the IDL name by name; the macro's bodies are not ours to comment.
#![allow(non_snake_case, unsafe_op_in_unsafe_fn, clippy::too_many_arguments, clippy::upper_case_acronyms)]

mod group;
mod server;
mod system;
mod types;

pub use group::*;
pub use server::*;
pub use system::*;
pub use types::*;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};
    use windows_core::Interface;

    /// The names in the order in which they must stand, after the base's.
    macro_rules! pinned {
        ($table:ty, $first:expr, $($name:ident),+) => {{
            let mut slot = $first;
            $(
                assert_eq!(offset_of!($table, $name), slot * size_of::<usize>(), stringify!($name));
                slot += 1;
            )+
            assert_eq!(size_of::<$table>(), slot * size_of::<usize>());
        }};
    }

    #[test]
    fn methods_stand_in_the_order_of_the_idl() {
        pinned!(
            IOPCServer_Vtbl,
            3,
            AddGroup,
            GetErrorString,
            GetGroupByName,
            GetStatus,
            RemoveGroup,
            CreateGroupEnumerator
        );
        pinned!(IOPCCommon_Vtbl, 3, SetLocaleID, GetLocaleID, QueryAvailableLocaleIDs, GetErrorString, SetClientName);
        pinned!(
            IOPCBrowseServerAddressSpace_Vtbl,
            3,
            QueryOrganization,
            ChangeBrowsePosition,
            BrowseOPCItemIDs,
            GetItemID,
            BrowseAccessPaths
        );
        pinned!(IOPCBrowse_Vtbl, 3, GetProperties, Browse);
        pinned!(IOPCItemProperties_Vtbl, 3, QueryAvailableProperties, GetItemProperties, LookupItemIDs);
        pinned!(IOPCItemIO_Vtbl, 3, Read, WriteVQT);
        pinned!(
            IOPCItemMgt_Vtbl,
            3,
            AddItems,
            ValidateItems,
            RemoveItems,
            SetActiveState,
            SetClientHandles,
            SetDatatypes,
            CreateEnumerator
        );
        pinned!(IOPCGroupStateMgt_Vtbl, 3, GetState, SetState, SetName, CloneGroup);
        pinned!(IOPCGroupStateMgt2_Vtbl, 7, SetKeepAlive, GetKeepAlive);
        pinned!(IOPCSyncIO_Vtbl, 3, Read, Write);
        pinned!(IOPCSyncIO2_Vtbl, 5, ReadMaxAge, WriteVQT);
        pinned!(IOPCAsyncIO2_Vtbl, 3, Read, Write, Refresh2, Cancel2, SetEnable, GetEnable);
        pinned!(IOPCAsyncIO3_Vtbl, 9, ReadMaxAge, WriteVQT, RefreshMaxAge);
        pinned!(IOPCDataCallback_Vtbl, 3, OnDataChange, OnReadComplete, OnWriteComplete, OnCancelComplete);
        pinned!(IOPCShutdown_Vtbl, 3, ShutdownRequest);
        pinned!(IOPCServerList_Vtbl, 3, EnumClassesOfCategories, GetClassDetails, CLSIDFromProgID);
        pinned!(IOPCServerList2_Vtbl, 3, EnumClassesOfCategories, GetClassDetails, CLSIDFromProgID);
        pinned!(IConnectionPointContainer_Vtbl, 3, EnumConnectionPoints, FindConnectionPoint);
        pinned!(
            IConnectionPoint_Vtbl,
            3,
            GetConnectionInterface,
            GetConnectionPointContainer,
            Advise,
            Unadvise,
            EnumConnections
        );
        pinned!(IEnumString_Vtbl, 3, Next, Skip, Reset, Clone);
        pinned!(IEnumGUID_Vtbl, 3, Next, Skip, Reset, Clone);
        pinned!(IOPCEnumGUID_Vtbl, 3, Next, Skip, Reset, Clone);
        pinned!(
            IMarshal_Vtbl,
            3,
            GetUnmarshalClass,
            GetMarshalSizeMax,
            MarshalInterface,
            UnmarshalInterface,
            ReleaseMarshalData,
            DisconnectObject
        );
        pinned!(
            ICatInformation_Vtbl,
            3,
            EnumCategories,
            GetCategoryDesc,
            EnumClassesOfCategories,
            IsClassOfCategories,
            EnumImplCategoriesOfClass,
            EnumReqCategoriesOfClass
        );
    }

    #[test]
    fn interfaces_have_the_ids_of_the_idl() {
        let opc = |low: u128| 0x39C1_3A00_011E_11D0_9675_0020_AFD8_ADB3 | (low << 96);
        let ids = [
            (IOPCServer::IID, opc(0x4D)),
            (IOPCBrowseServerAddressSpace::IID, opc(0x4F)),
            (IOPCGroupStateMgt::IID, opc(0x50)),
            (IOPCSyncIO::IID, opc(0x52)),
            (IOPCItemMgt::IID, opc(0x54)),
            (IOPCDataCallback::IID, opc(0x70)),
            (IOPCAsyncIO2::IID, opc(0x71)),
            (IOPCItemProperties::IID, opc(0x72)),
            (IOPCBrowse::IID, 0x39227004_A18F_4B57_8B0A_5235670F4468),
            (IOPCItemIO::IID, 0x85C0B427_2893_4CBC_BD78_E5FC5146F08F),
            (IOPCSyncIO2::IID, 0x730F5F0F_55B1_4C81_9E18_FF8A0904E1FA),
            (IOPCAsyncIO3::IID, 0x0967B97B_36EF_423E_B6F8_6BFF1E40D39D),
            (IOPCGroupStateMgt2::IID, 0x8E368666_D72E_4F78_87ED_647611C61C9F),
            (IOPCShutdown::IID, 0xF31DFDE1_07B6_11D2_B2D8_0060083BA1FB),
            (IOPCCommon::IID, 0xF31DFDE2_07B6_11D2_B2D8_0060083BA1FB),
            (IOPCServerList::IID, 0x13486D50_4821_11D2_A494_3CB306C10000),
            (IOPCServerList2::IID, 0x9DD0B56C_AD9E_43EE_8305_487F3188BF7A),
            (IOPCEnumGUID::IID, 0x55C382C8_21C7_4E88_96C1_BECFB1E3F483),
            (IConnectionPointContainer::IID, 0xB196B284_BAB4_101A_B69C_00AA00341D07),
            (IConnectionPoint::IID, 0xB196B286_BAB4_101A_B69C_00AA00341D07),
            (IEnumString::IID, 0x00000101_0000_0000_C000_000000000046),
            (IEnumGUID::IID, 0x0002E000_0000_0000_C000_000000000046),
            (IMarshal::IID, 0x00000003_0000_0000_C000_000000000046),
            (ICatInformation::IID, 0x0002E013_0000_0000_C000_000000000046),
        ];
        for (index, (ours, idl)) in ids.into_iter().enumerate() {
            assert_eq!(ours.to_u128(), idl, "number {index}");
        }
    }

    /// As a C compiler lays them out for this width.
    #[test]
    fn structures_have_their_size() {
        let of = |wide, narrow| if cfg!(target_pointer_width = "64") { wide } else { narrow };
        assert_eq!(size_of::<RawVariant>(), of(24, 16));
        assert_eq!(size_of::<OPCITEMDEF>(), of(48, 32));
        assert_eq!(size_of::<OPCITEMRESULT>(), of(24, 20));
        assert_eq!(size_of::<OPCITEMSTATE>(), of(40, 32));
        assert_eq!(size_of::<OPCSERVERSTATUS>(), of(56, 48));
        assert_eq!(size_of::<OPCITEMPROPERTY>(), of(56, 40));
        assert_eq!(size_of::<OPCITEMPROPERTIES>(), of(24, 16));
        assert_eq!(size_of::<OPCBROWSEELEMENT>(), of(48, 32));
        assert_eq!(size_of::<OPCITEMVQT>(), of(48, 40));
        assert_eq!(offset_of!(OPCITEMSTATE, value), 16);
        assert_eq!(offset_of!(RawVariant, data), 8);
    }
}
