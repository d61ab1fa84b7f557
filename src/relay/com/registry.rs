//! The registry, read: one value or the keys below a key, in the view of 32 or of 64 bits.

use super::memory::wide;
use std::ptr;
use windows_sys::Win32::Foundation::ERROR_SUCCESS;
use windows_sys::Win32::System::Registry::{
    HKEY, HKEY_CURRENT_USER, HKEY_LOCAL_MACHINE, KEY_READ, KEY_WOW64_32KEY, KEY_WOW64_64KEY, RegCloseKey,
    RegEnumKeyExW, RegOpenKeyExW, RegQueryValueExW,
};

/// Which programs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Narrow,
    Wide,
}

impl View {
    pub const ALL: [Self; 2] = [Self::Narrow, Self::Wide];

    pub fn bits(self) -> u8 {
        match self {
            Self::Narrow => 32,
            Self::Wide => 64,
        }
    }
}

/// The longest name of a key, and its zero.
const LONGEST_NAME: usize = 256;

/// Longer values are none that we read.
const LONGEST_VALUE: usize = 1 << 16;

struct Key(HKEY);

impl Key {
    /// Of the machine, else of this user.
    fn open(path: &str, view: View) -> Option<Self> {
        let flag = match view {
            View::Narrow => KEY_WOW64_32KEY,
            View::Wide => KEY_WOW64_64KEY,
        };
        let path = wide(&format!("SOFTWARE\\Classes\\{path}"));
        [HKEY_LOCAL_MACHINE, HKEY_CURRENT_USER].into_iter().find_map(|root| {
            let mut key = ptr::null_mut();
            // SAFETY: a text with its zero, and a place for the key.
            let result = unsafe { RegOpenKeyExW(root, path.as_ptr(), 0, KEY_READ | flag, &raw mut key) };
            (result == ERROR_SUCCESS).then_some(Self(key))
        })
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: opened by us.
        unsafe { RegCloseKey(self.0) };
    }
}

/// Whether there is this key below `Classes`.
pub fn exists(path: &str, view: View) -> bool {
    Key::open(path, view).is_some()
}

/// Of a key below `Classes`; an empty name is the key's own value. Texts only.
pub fn value(path: &str, name: &str, view: View) -> Option<String> {
    let key = Key::open(path, view)?;
    let name = wide(name);
    let mut bytes = vec![0_u16; LONGEST_VALUE / 2];
    let (mut kind, mut length) = (0, LONGEST_VALUE as u32);
    // SAFETY: a text with its zero, and as much room as is said.
    let result = unsafe {
        RegQueryValueExW(key.0, name.as_ptr(), ptr::null(), &raw mut kind, bytes.as_mut_ptr().cast(), &raw mut length)
    };
    // REG_SZ and REG_EXPAND_SZ
    if result != ERROR_SUCCESS || !matches!(kind, 1 | 2) {
        return None;
    }
    let units = bytes.into_iter().take(length as usize / 2).take_while(|&unit| unit != 0);
    Some(String::from_utf16_lossy(&units.collect::<Vec<_>>()))
}

/// Names of the keys right below a key below `Classes`.
pub fn keys(path: &str, view: View) -> Vec<String> {
    let Some(key) = Key::open(path, view) else { return Vec::new() };
    let mut all = Vec::new();
    for index in 0.. {
        let mut name = [0_u16; LONGEST_NAME];
        let mut length = LONGEST_NAME as u32;
        // SAFETY: as much room as is said.
        let result = unsafe {
            RegEnumKeyExW(
                key.0,
                index,
                name.as_mut_ptr(),
                &raw mut length,
                ptr::null(),
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if result != ERROR_SUCCESS {
            break;
        }
        all.push(String::from_utf16_lossy(&name[..(length as usize).min(LONGEST_NAME)]));
    }
    all
}
