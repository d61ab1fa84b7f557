//! Which DA servers this PC has: what OPCEnum says, what the component categories say, and what the registry says in both views.
//!
//! OPCEnum may be missing, the categories show only servers of our own bitness, and old servers are in neither; so all of them are
//! asked, and the answers merged by CLSID.

use super::abi::*;
use super::class::Class;
use super::memory::OutText;
use super::registry::{self, View};
use super::{Failure, check, found, query};
use std::collections::BTreeMap;
use std::ptr;
use windows_core::{GUID, HRESULT};
use windows_sys::Win32::System::Com::{CLSCTX_INPROC_SERVER, CLSCTX_LOCAL_SERVER};

#[derive(Clone, Debug, Default)]
pub struct Listed {
    pub clsid: String,
    pub prog_id: String,
    pub description: String,
    /// 1, 2, 3.
    pub versions: [bool; 3],
    pub homes: Vec<Home>,
}

/// Where one view of the registry says that the server lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    pub view: View,
    /// In our process, so only in one of the same bitness.
    pub is_inside: bool,
    /// Command line, DLL, or the name of a service.
    pub program: String,
    pub is_service: bool,
}

/// What was found, and what could not be asked.
#[derive(Default)]
pub struct Catalog {
    pub servers: Vec<Listed>,
    pub opc_enum: Option<Failure>,
}

pub fn list() -> Catalog {
    let mut all: BTreeMap<String, Listed> = BTreeMap::new();
    let opc_enum = by_opc_enum(&mut all).err();
    // Without the categories' own reader there is still the registry, which is what it reads.
    let _ = by_categories(&mut all);
    by_registry(&mut all);
    for (clsid, listed) in &mut all {
        complete(clsid, listed);
    }
    let mut servers: Vec<Listed> = all.into_values().collect();
    servers.sort_by_key(|listed| listed.prog_id.to_lowercase());
    Catalog { servers, opc_enum }
}

/// The CLSID of a ProgID, also of one that stands for all versions: in either view of the registry, for a server of the other bitness
/// may be registered in that alone.
pub fn clsid(prog_id: &str) -> Option<String> {
    let direct = |prog_id: &str, view| registry::value(&format!("{prog_id}\\CLSID"), "", view);
    let by_version = |view| registry::value(&format!("{prog_id}\\CurVer"), "", view).and_then(|now| direct(&now, view));
    let registered = View::ALL.into_iter().find_map(|view| direct(prog_id, view).or_else(|| by_version(view)));
    let id = registered.or_else(|| Class::find(prog_id).ok().map(|class| class.to_string()))?;
    Some(id.to_uppercase()).filter(|id| id.starts_with('{'))
}

/// What the registry says of one class.
pub fn of_class(class: Class) -> Listed {
    let mut listed = Listed::default();
    complete(&class.to_string(), &mut listed);
    listed
}

fn note<'a>(all: &'a mut BTreeMap<String, Listed>, class: &GUID, version: usize) -> &'a mut Listed {
    let listed = all.entry(Class(*class).to_string().to_uppercase()).or_default();
    listed.versions[version] = true;
    listed
}

fn by_opc_enum(all: &mut BTreeMap<String, Listed>) -> Result<(), Failure> {
    let object = Class(CLSID_SERVER_LIST).create(CLSCTX_LOCAL_SERVER | CLSCTX_INPROC_SERVER)?;
    let no_details = |hresult| Failure { call: "QueryInterface IOPCServerList".into(), hresult };
    let list2 = query::<IOPCServerList2>(&object);
    let list1 = query::<IOPCServerList>(&object);
    for (version, category) in CATID_DA.iter().enumerate() {
        let mut classes = ptr::null_mut();
        // SAFETY: one category, and a place for the object.
        let result = unsafe {
            match (&list2, &list1) {
                (Ok(list), _) => list.EnumClassesOfCategories(1, category, 0, ptr::null(), &raw mut classes),
                (_, Ok(list)) => list.EnumClassesOfCategories(1, category, 0, ptr::null(), &raw mut classes),
                (_, Err(hresult)) => return Err(no_details(*hresult)),
            }
        };
        check("EnumClassesOfCategories", result.0)?;
        // SAFETY: given by a call that succeeded; both kinds of lists have the same methods.
        let classes: IEnumGUID = unsafe { found("EnumClassesOfCategories", classes) }?;
        for class in each(&classes) {
            let listed = note(all, &class, version);
            let (mut prog_id, mut description, mut general) = (OutText::new(), OutText::new(), OutText::new());
            // SAFETY: a class, and places for the texts, which are ours afterwards.
            let result = unsafe {
                match (&list2, &list1) {
                    (Ok(list), _) => list.GetClassDetails(&class, prog_id.slot(), description.slot(), general.slot()),
                    (_, Ok(list)) => list.GetClassDetails(&class, prog_id.slot(), description.slot()),
                    (_, Err(hresult)) => HRESULT(*hresult),
                }
            };
            [&mut prog_id, &mut description, &mut general].into_iter().for_each(|text| text.after(result.0));
            (listed.prog_id, listed.description) = (prog_id.text(), description.text());
        }
    }
    Ok(())
}

fn by_categories(all: &mut BTreeMap<String, Listed>) -> Result<(), Failure> {
    let object = Class(CLSID_CATEGORIES).create(CLSCTX_INPROC_SERVER)?;
    let categories: ICatInformation =
        query(&object).map_err(|hresult| Failure { call: "QueryInterface ICatInformation".into(), hresult })?;
    for (version, category) in CATID_DA.iter().enumerate() {
        let mut classes = ptr::null_mut();
        // SAFETY: one category, none that is required (-1 is "do not look"), and a place for the object.
        let result =
            unsafe { categories.EnumClassesOfCategories(1, category, u32::MAX, ptr::null(), &raw mut classes) };
        check("EnumClassesOfCategories", result.0)?;
        // SAFETY: given by a call that succeeded.
        let classes: IEnumGUID = unsafe { found("EnumClassesOfCategories", classes) }?;
        for class in each(&classes) {
            note(all, &class, version);
        }
    }
    Ok(())
}

fn each(classes: &IEnumGUID) -> Vec<GUID> {
    let mut all = Vec::new();
    loop {
        let (mut some, mut fetched) = ([GUID::zeroed(); 32], 0);
        // SAFETY: as many places as are said.
        let result = unsafe { classes.Next(some.len() as u32, some.as_mut_ptr(), &raw mut fetched) };
        all.extend(some.into_iter().take(fetched as usize));
        if result.0 != 0 || fetched == 0 {
            return all;
        }
    }
}

fn by_registry(all: &mut BTreeMap<String, Listed>) {
    let categories = CATID_DA.map(|category| Class(category).to_string().to_uppercase());
    for view in View::ALL {
        for clsid in registry::keys("CLSID", view) {
            for category in registry::keys(&format!("CLSID\\{clsid}\\Implemented Categories"), view) {
                if let Some(version) = categories.iter().position(|known| *known == category.to_uppercase()) {
                    all.entry(clsid.to_uppercase()).or_default().versions[version] = true;
                }
            }
        }
        // Before there were categories, a server of DA 1 had a key OPC below its ProgID.
        for prog_id in registry::keys("", view) {
            if prog_id.contains('.')
                && registry::exists(&format!("{prog_id}\\OPC"), view)
                && let Some(clsid) = registry::value(&format!("{prog_id}\\CLSID"), "", view)
            {
                let listed = all.entry(clsid.to_uppercase()).or_default();
                if listed.versions == [false; 3] {
                    listed.versions[0] = true;
                }
            }
        }
    }
}

fn complete(clsid: &str, listed: &mut Listed) {
    listed.clsid = clsid.to_owned();
    let path = format!("CLSID\\{clsid}");
    for view in View::ALL {
        let own = |key: &str| registry::value(&format!("{path}\\{key}"), "", view).filter(|text| !text.is_empty());
        if listed.prog_id.is_empty() {
            listed.prog_id = own("ProgID").or_else(|| own("VersionIndependentProgID")).unwrap_or_default();
        }
        if listed.description.is_empty() {
            listed.description = registry::value(&path, "", view).unwrap_or_default();
        }
        let service = registry::value(&path, "AppID", view)
            .and_then(|app_id| registry::value(&format!("AppID\\{app_id}"), "LocalService", view));
        let homes = [
            own("InprocServer32").map(|program| Home { view, is_inside: true, program, is_service: false }),
            own("LocalServer32").map(|program| Home { view, is_inside: false, program, is_service: false }),
            service.map(|program| Home { view, is_inside: false, program, is_service: true }),
        ];
        listed.homes.extend(homes.into_iter().flatten());
    }
}
