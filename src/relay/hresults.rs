//! HRESULTs that OPC Classic servers answer with: their names, what they mean here, and what to do.

use super::protocol::Hresult;
use std::borrow::Cow;

/// Number, name, what it means and what helps.
const KNOWN: &[(u32, &str, &str)] = &[
    // Success, with something to say.
    (0x0000_0000, "S_OK", "it worked"),
    (0x0000_0001, "S_FALSE", "it worked for some, not for all"),
    (0x0004_000D, "OPC_S_UNSUPPORTEDRATE", "the server updates at another rate than was asked for"),
    (0x0004_000E, "OPC_S_CLAMP", "the value was taken, but limited to the item's range"),
    (0x0004_000F, "OPC_S_INUSE", "the server keeps it until its last user is gone"),
    (0x0004_0404, "OPC_S_DATAQUEUEOVERFLOW", "the server lost values: its queue was too short"),
    // DA's own.
    (0xC004_0001, "OPC_E_INVALIDHANDLE", "the server no longer knows this item or group"),
    (0xC004_0004, "OPC_E_BADTYPE", "the server cannot convert the item to this type"),
    (0xC004_0005, "OPC_E_PUBLIC", "this is not possible with a public group"),
    (
        0xC004_0006,
        "OPC_E_BADRIGHTS",
        "the item's access rights forbid it: some items can only be read, others only be written",
    ),
    (
        0xC004_0007,
        "OPC_E_UNKNOWNITEMID",
        "there is no such item, or not now: check the ItemID letter by letter with `browse`; some servers know an item only \
         while its device is connected",
    ),
    (0xC004_0008, "OPC_E_INVALIDITEMID", "this is not how ItemIDs of this server look"),
    (0xC004_0009, "OPC_E_INVALIDFILTER", "the server does not take this filter"),
    (0xC004_000A, "OPC_E_UNKNOWNPATH", "the server does not know this access path"),
    (0xC004_000B, "OPC_E_RANGE", "the value is out of the item's range"),
    (0xC004_000C, "OPC_E_DUPLICATENAME", "the name is taken"),
    (0xC004_0010, "OPC_E_INVALIDCONFIGFILE", "the server's own configuration is broken"),
    (0xC004_0011, "OPC_E_NOTFOUND", "it was not found"),
    (0xC004_0203, "OPC_E_INVALID_PID", "the item has no such property"),
    (0xC004_0400, "OPC_E_DEADBANDNOTSET", "the item has no deadband of its own"),
    (0xC004_0401, "OPC_E_DEADBANDNOTSUPPORTED", "the item has no deadband: only analog ones do"),
    (0xC004_0402, "OPC_E_NOBUFFERING", "the server does not buffer"),
    (0xC004_0403, "OPC_E_INVALIDCONTINUATIONPOINT", "the server forgot where the browse was: begin it again"),
    (0xC004_0405, "OPC_E_RATENOTSET", "the item has no rate of its own"),
    (0xC004_0406, "OPC_E_NOTSUPPORTED", "the server does not support this; most often writing a quality or a time"),
    // COM's.
    (
        0x8004_0154,
        "REGDB_E_CLASSNOTREG",
        "no such server for programs of this bitness: it is not installed, its registration is broken, or it is an in-process \
         server for the other bitness: try the other vedette-da-relay.exe (most DA servers are for 32 bits)",
    ),
    (
        0x8004_0155,
        "REGDB_E_IIDNOTREG",
        "OPC's proxies are not registered for this bitness (opcproxy.dll, opccomn_ps.dll): install the OPC Core Components \
         Redistributable, x86 and x64",
    ),
    (
        0x8000_4002,
        "E_NOINTERFACE",
        "the server has no such interface, or OPC's proxies are missing for this bitness or that of the server: install the \
         OPC Core Components Redistributable, x86 and x64",
    ),
    (
        0x8007_0005,
        "E_ACCESSDENIED",
        "Windows refuses this account: give it Launch and Activation and Access rights for the server in dcomcnfg (Component \
         Services, DCOM Config), or run the relay as an account that has them",
    ),
    (
        0x8008_0005,
        "CO_E_SERVER_EXEC_FAILURE",
        "the server did not start in time: it hangs, or its identity in dcomcnfg is \"The interactive user\" and nobody is logged \
         on: set it to \"The launching user\" or to a fixed account, and start it by hand once to see its own messages",
    ),
    (
        0x8000_401A,
        "CO_E_RUNAS_LOGON_FAILURE",
        "the server is to run as \"The interactive user\", and nobody is logged on, or its account's password is wrong: dcomcnfg, \
         the server's properties, Identity",
    ),
    (0x8007_042D, "ERROR_SERVICE_LOGON_FAILED", "the server's service cannot log on: its account's password is wrong"),
    (0x8007_0422, "ERROR_SERVICE_DISABLED", "the server is a service, and it is disabled"),
    (0x8007_041D, "ERROR_SERVICE_REQUEST_TIMEOUT", "the server is a service, and did not start in time"),
    (0x8004_01F3, "CO_E_CLASSSTRING", "there is no server of this name: `list` shows those that there are"),
    (0x8004_01F0, "CO_E_NOTINITIALIZED", "COM is not ready; this is a fault of the relay: please report it"),
    (0x8007_007E, "ERROR_MOD_NOT_FOUND", "the server's DLL, or one that it needs, is not there"),
    (0x8007_0002, "ERROR_FILE_NOT_FOUND", "the server's program is not where the registry says"),
    (
        0x8007_00C1,
        "ERROR_BAD_EXE_FORMAT",
        "the server's DLL is for the other bitness: try the other vedette-da-relay.exe (most DA servers are for 32 bits)",
    ),
    (0x8007_02E4, "ERROR_ELEVATION_REQUIRED", "the server wants to be started as administrator"),
    // Of a server that is going or gone.
    (0x8007_06BA, "RPC_S_SERVER_UNAVAILABLE", "the server is gone: it crashed or was ended, or a firewall is between"),
    (0x8007_06BB, "RPC_S_SERVER_TOO_BUSY", "the server is too busy to take the call"),
    (0x8007_06BE, "RPC_S_CALL_FAILED", "the server went away during the call: it crashed or was ended"),
    (0x8007_06BF, "RPC_S_CALL_FAILED_DNE", "the server went away before the call: it crashed or was ended"),
    (0x8007_06F4, "RPC_X_NULL_REF_POINTER", "the server or its proxy broke the rules of the call"),
    (
        0x8007_06F7,
        "RPC_X_BAD_STUB_DATA",
        "OPC's proxies on both sides do not fit each other: reinstall the OPC Core Components",
    ),
    (0x8001_0007, "RPC_E_SERVER_DIED", "the server died during the call"),
    (0x8001_0012, "RPC_E_SERVER_DIED_DNE", "the server died before the call"),
    (0x8001_0108, "RPC_E_DISCONNECTED", "the server has cut the connection"),
    (0x8001_0105, "RPC_E_SERVERFAULT", "the server crashed in this call"),
    (0x8001_010A, "RPC_E_SERVERCALL_RETRYLATER", "the server is busy, for instance with a dialog on its screen"),
    (0x8001_0001, "RPC_E_CALL_REJECTED", "the server is busy, for instance with a dialog on its screen"),
    (0x8001_0104, "RPC_E_CLIENT_CANTUNMARSHAL_DATA", "OPC's proxies on both sides do not fit each other"),
    (
        0x8001_0106,
        "RPC_E_CHANGED_MODE",
        "the thread is in another apartment; this is a fault of the relay: please report it",
    ),
    (0x8001_011D, "RPC_E_INVALID_OBJECT", "the object is gone; without meaning when ending"),
    (0x8004_01FD, "CO_E_OBJNOTCONNECTED", "the server has let go of this object"),
    (
        0x8004_0200,
        "CONNECT_E_NOCONNECTION",
        "the server cannot call back: it speaks DA 1 only, or broke its list of clients",
    ),
    (0x8004_0201, "CONNECT_E_ADVISELIMIT", "the server takes no more clients that want callbacks"),
    (
        0x8004_0202,
        "CONNECT_E_CANNOTCONNECT",
        "the server cannot call back; check that it has Access rights on this side",
    ),
    // Values.
    (0x8002_0005, "DISP_E_TYPEMISMATCH", "the value cannot be made the item's type"),
    (0x8002_000A, "DISP_E_OVERFLOW", "the value is out of the range of the item's type"),
    (0x8002_0008, "DISP_E_BADVARTYPE", "the type of the value is none that OPC has"),
    // Anything.
    (0x8000_4001, "E_NOTIMPL", "the server cannot do this"),
    (0x8000_4003, "E_POINTER", "the server answered with nothing at all"),
    (0x8000_4005, "E_FAIL", "the server failed and does not say why; its own log may"),
    (0x8000_FFFF, "E_UNEXPECTED", "the server failed in a way that it did not expect"),
    (0x8007_0006, "E_HANDLE", "the server no longer knows this handle"),
    (0x8007_000E, "E_OUTOFMEMORY", "out of memory; a 32-bit server may have reached its 2 GB"),
    (0x8007_0057, "E_INVALIDARG", "the server does not take one of the arguments"),
    (0x8007_05B4, "ERROR_TIMEOUT", "it took too long; the server lives, its device may be slow or off"),
    (0x8000_4004, "E_ABORT", "it was cancelled"),
];

/// Whether the process of the server, or the way to it, is lost, so that nothing on this connection will work again.
pub fn has_ended(hresult: Hresult) -> bool {
    matches!(
        hresult as u32,
        0x8007_06BA | 0x8007_06BE | 0x8007_06BF | 0x8001_0108 | 0x8001_0007 | 0x8001_0012 | 0x8004_01FD
    )
}

/// Whether it is, or a call was answered by what is no server any more.
pub fn is_gone(hresult: Hresult) -> bool {
    has_ended(hresult) || matches!(hresult as u32, 0x8001_0105 | 0x8001_011D | 0x8007_06B5 | 0x8008_0005)
}

/// `OPC_E_RANGE`; without a name, `0xC0041234`.
pub fn name(hresult: Hresult) -> Cow<'static, str> {
    match entry(hresult) {
        Some((_, name, _)) => Cow::Borrowed(name),
        None => Cow::Owned(format!("0x{hresult:08X}")),
    }
}

/// What it means, and what to do.
pub fn meaning(hresult: Hresult) -> Option<&'static str> {
    entry(hresult).map(|&(_, _, meaning)| meaning)
}

/// `E_FAIL (0x80004005): the server failed...`
pub fn explained(hresult: Hresult) -> String {
    match entry(hresult) {
        Some((number, name, meaning)) => format!("{name} (0x{number:08X}): {meaning}"),
        None => format!("0x{hresult:08X}"),
    }
}

fn entry(hresult: Hresult) -> Option<&'static (u32, &'static str, &'static str)> {
    KNOWN.iter().find(|(number, ..)| *number == hresult as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn who_has_no_user_at_the_screen_is_told() {
        assert!(meaning(0x8008_0005_u32 as i32).is_some_and(|words| words.contains("logged on")));
    }

    #[test]
    fn each_is_there_once() {
        let numbers: HashSet<u32> = KNOWN.iter().map(|(number, ..)| *number).collect();
        let names: HashSet<&str> = KNOWN.iter().map(|(_, name, _)| *name).collect();
        assert!(numbers.len() == KNOWN.len() && names.len() == KNOWN.len());
        assert!(
            KNOWN
                .iter()
                .all(|(number, name, _)| (number >> 31 == 0) == (name.starts_with("S_") || name.starts_with("OPC_S_")))
        );
    }

    #[test]
    fn what_people_see_most_is_explained() {
        for number in [0x8007_0005, 0x8007_06BA, 0x8004_0154, 0x8008_0005, 0x8000_4002, 0x8004_0155_u32] {
            assert!(explained(number as Hresult).len() > 60, "{number:X}");
        }
        assert_eq!(name(0xC004_0007_u32 as Hresult), "OPC_E_UNKNOWNITEMID");
        assert_eq!(explained(0xC123_4567_u32 as Hresult), "0xC1234567");
        assert!(is_gone(0x8007_06BA_u32 as Hresult) && !is_gone(-1) && !is_gone(1));
        assert!(has_ended(0x8007_06BA_u32 as Hresult) && !has_ended(0x8001_0105_u32 as Hresult));
    }
}
