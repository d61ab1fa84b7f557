//! The right of an account to log on as a service. No COM; it stands here because `unsafe` does.

use super::memory::wide;
use std::ffi::c_void;
use std::io;
use std::ptr;
use windows_sys::Win32::Security::LookupAccountNameW;

/// Of one right, SeServiceLogonRight, whose name is the same in all languages.
const RIGHT: &str = "SeServiceLogonRight";

/// The longest SID (SECURITY_MAX_SID_SIZE) and more; aligned as its parts want it.
const LONGEST_SID: usize = 32;

const POLICY_LOOKUP_NAMES: u32 = 0x800;
const POLICY_CREATE_ACCOUNT: u32 = 0x10;

#[repr(C)]
struct LsaText {
    /// In bytes.
    length: u16,
    most: u16,
    text: *const u16,
}

#[repr(C)]
struct LsaAttributes {
    length: u32,
    root: *mut c_void,
    name: *const LsaText,
    attributes: u32,
    descriptor: *const c_void,
    quality: *const c_void,
}

// By hand, because for these few the bindings want another of their features, with which all that stands on them is built anew.
#[link(name = "advapi32")]
unsafe extern "system" {
    fn LsaOpenPolicy(system: *const LsaText, attributes: *const LsaAttributes, access: u32, policy: *mut isize) -> i32;
    fn LsaAddAccountRights(policy: isize, account: *const c_void, rights: *const LsaText, count: u32) -> i32;
    fn LsaClose(policy: isize) -> i32;
    fn LsaNtStatusToWinError(status: i32) -> u32;
}

/// `account` is "DOMAIN\user", or "user" for one of this PC. Who has the right already keeps it.
pub fn let_log_on_as_service(account: &str) -> io::Result<()> {
    let sid = sid(account)?;
    let name = wide(RIGHT);
    let bytes = (2 * RIGHT.len()) as u16;
    let right = LsaText { length: bytes, most: bytes + 2, text: name.as_ptr() };
    let attributes = LsaAttributes {
        length: size_of::<LsaAttributes>() as u32,
        root: ptr::null_mut(),
        name: ptr::null(),
        attributes: 0,
        descriptor: ptr::null(),
        quality: ptr::null(),
    };
    let mut policy = 0;
    // SAFETY: no system, which is this one; a structure of ours; a place for the handle.
    checked(unsafe {
        LsaOpenPolicy(ptr::null(), &raw const attributes, POLICY_LOOKUP_NAMES | POLICY_CREATE_ACCOUNT, &raw mut policy)
    })?;
    // SAFETY: an open handle, a SID that Windows wrote, one text that lives on.
    let added = checked(unsafe { LsaAddAccountRights(policy, sid.as_ptr().cast(), &raw const right, 1) });
    // SAFETY: opened by us, closed once. What it says changes nothing.
    let _ = unsafe { LsaClose(policy) };
    added
}

fn checked(status: i32) -> io::Result<()> {
    if status >= 0 {
        return Ok(());
    }
    // SAFETY: a number.
    Err(io::Error::from_raw_os_error(unsafe { LsaNtStatusToWinError(status) } as i32))
}

fn sid(account: &str) -> io::Result<[u64; LONGEST_SID]> {
    let account = wide(account);
    let (mut sid, mut domain) = ([0_u64; LONGEST_SID], [0_u16; 512]);
    let (mut sid_bytes, mut domain_units, mut kind) = (size_of_val(&sid) as u32, domain.len() as u32, 0);
    // SAFETY: a text with its zero, and as much room as is said.
    let found = unsafe {
        LookupAccountNameW(
            ptr::null(),
            account.as_ptr(),
            sid.as_mut_ptr().cast(),
            &raw mut sid_bytes,
            domain.as_mut_ptr(),
            &raw mut domain_units,
            &raw mut kind,
        )
    };
    if found == 0 { Err(io::Error::last_os_error()) } else { Ok(sid) }
}
