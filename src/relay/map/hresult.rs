//! HRESULT as StatusCode, and in words. The codes are those of OPC DA 3.00 (opcerror.h) and of COM and RPC (winerror.h).

use crate::relay::protocol::Hresult;
use ::opcua::types::StatusCode;

type Meaning = (u32, StatusCode, &'static str);

#[rustfmt::skip]
const MEANINGS: &[Meaning] = &[
    // OPC.
    (0xC004_0001, StatusCode::BadInternalError, "invalid handle"),
    (0xC004_0004, StatusCode::BadTypeMismatch, "the value cannot be brought to the item's type"),
    (0xC004_0006, StatusCode::BadNotWritable, "the item's access rights do not allow it"),
    (0xC004_0007, StatusCode::BadNodeIdUnknown, "unknown item"),
    (0xC004_0008, StatusCode::BadNodeIdInvalid, "no item can have this ItemID"),
    (0xC004_0009, StatusCode::BadInternalError, "invalid filter"),
    (0xC004_000A, StatusCode::BadNodeIdUnknown, "unknown access path"),
    (0xC004_000B, StatusCode::BadOutOfRange, "the value is out of range"),
    (0xC004_000C, StatusCode::BadInternalError, "the group's name is taken"),
    (0xC004_0010, StatusCode::BadConfigurationError, "the server's configuration file is not valid"),
    (0xC004_0011, StatusCode::BadNotFound, "not found"),
    (0xC004_0203, StatusCode::BadNotFound, "the item has no such property"),
    (0xC004_0403, StatusCode::BadContinuationPointInvalid, "invalid continuation point"),
    (0xC004_0406, StatusCode::BadWriteNotSupported, "the server cannot write quality or time"),
    (0x0004_000D, StatusCode::Good, "the server uses another update rate"),
    (0x0004_000E, StatusCode::GoodClamped, "the value was written, but clamped"),
    (0x0004_000F, StatusCode::Good, "the group is still in use"),
    // COM.
    (0x8000_4001, StatusCode::BadNotSupported, "not implemented"),
    (0x8000_4002, StatusCode::BadNotSupported, "no such interface, or its proxy is missing: install the OPC Core Components"),
    (0x8000_4005, StatusCode::Bad, "failed, for a reason that the server does not say"),
    (0x8007_0005, StatusCode::BadUserAccessDenied, "access denied: look at the DCOM rights of the account"),
    (0x8007_000E, StatusCode::BadOutOfMemory, "out of memory"),
    (0x8007_0057, StatusCode::BadInvalidArgument, "invalid argument"),
    (0x8002_0005, StatusCode::BadTypeMismatch, "the value has another type"),
    (0x8002_0008, StatusCode::BadTypeMismatch, "the value's type is not known"),
    (0x8002_000A, StatusCode::BadOutOfRange, "the value does not fit into the item's type"),
    (0x8004_0154, StatusCode::BadNotConnected, "the class is not registered, or only for programs of the other bitness"),
    (0x8004_0155, StatusCode::BadNotConnected, "the proxy of an interface is not registered: install the OPC Core Components"),
    (0x8004_01F3, StatusCode::BadNotConnected, "there is no DA server of this name"),
    (0x8008_0005, StatusCode::BadNotConnected, "the server did not start: its account may need somebody to be logged on"),
    (0x8004_01FD, StatusCode::BadNotConnected, "the object is not connected to its server"),
    // RPC: the server's process is gone, or does not take calls.
    (0x8001_0001, StatusCode::BadResourceUnavailable, "the server rejects calls at the moment"),
    (0x8001_0007, StatusCode::BadNotConnected, "the server has died"),
    (0x8001_0012, StatusCode::BadNotConnected, "the server has died"),
    (0x8001_010A, StatusCode::BadResourceUnavailable, "the server is busy"),
    (0x8001_0105, StatusCode::BadInternalError, "the server failed inside the call"),
    (0x8001_0108, StatusCode::BadNotConnected, "the server has gone away from its clients"),
    (0x8007_06BA, StatusCode::BadNotConnected, "the server cannot be reached: it is gone, or a firewall is between"),
    (0x8007_06BB, StatusCode::BadResourceUnavailable, "the server is too busy"),
    (0x8007_06BE, StatusCode::BadNotConnected, "the server went away during the call"),
    (0x8007_06BF, StatusCode::BadNotConnected, "the server went away and did not do the call"),
];

fn meaning(hresult: Hresult) -> Option<&'static Meaning> {
    MEANINGS.iter().find(|(code, ..)| *code == hresult as u32)
}

/// What became of a write, and of anything else.
pub fn status_of_hresult(hresult: Hresult) -> StatusCode {
    match meaning(hresult) {
        Some((_, status, _)) => *status,
        None if hresult < 0 => StatusCode::Bad,
        None => StatusCode::Good,
    }
}

/// Of what has failed for certain, whatever the HRESULT says.
pub fn status_of_failure(hresult: Hresult) -> StatusCode {
    let status = status_of_hresult(hresult);
    if status.is_bad() { status } else { StatusCode::Bad }
}

/// In words, if it is one of those that come up with DA servers.
pub fn explain(hresult: Hresult) -> Option<&'static str> {
    meaning(hresult).map(|(.., words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn codes_stand_once_and_mean_what_they_should() {
        let codes: HashSet<u32> = MEANINGS.iter().map(|(code, ..)| *code).collect();
        assert_eq!(codes.len(), MEANINGS.len());
        let status = |code: u32| status_of_hresult(code as i32);
        assert_eq!(status(0), StatusCode::Good);
        assert_eq!(status(0xC004_0007), StatusCode::BadNodeIdUnknown);
        assert_eq!(status(0xC004_0006), StatusCode::BadNotWritable);
        assert_eq!(status(0x0004_000E), StatusCode::GoodClamped);
        assert_eq!(status(0x8007_06BA), StatusCode::BadNotConnected);
        assert!(explain(0x8008_0005_u32 as i32).is_some_and(|words| words.contains("logged on")));
    }

    proptest! {
        #[test]
        fn a_failure_is_bad_and_a_success_is_good(hresult in any::<i32>()) {
            prop_assert_eq!(status_of_hresult(hresult).is_bad(), hresult < 0);
            prop_assert_eq!(status_of_hresult(hresult).is_good(), hresult >= 0);
        }
    }
}
