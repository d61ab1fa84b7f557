//! HRESULT as StatusCode; in words it is `relay/hresults.rs`. The codes are those of OPC DA 3.00 (opcerror.h) and of COM and RPC (winerror.h).

use crate::relay::protocol::Hresult;
use ::opcua::types::StatusCode;

#[rustfmt::skip]
const STATUSES: &[(u32, StatusCode)] = &[
    // OPC.
    (0xC004_0001, StatusCode::BadInternalError),
    (0xC004_0004, StatusCode::BadTypeMismatch),
    (0xC004_0006, StatusCode::BadNotWritable),
    (0xC004_0007, StatusCode::BadNodeIdUnknown),
    (0xC004_0008, StatusCode::BadNodeIdInvalid),
    (0xC004_0009, StatusCode::BadInternalError),
    (0xC004_000A, StatusCode::BadNodeIdUnknown),
    (0xC004_000B, StatusCode::BadOutOfRange),
    (0xC004_000C, StatusCode::BadInternalError),
    (0xC004_0010, StatusCode::BadConfigurationError),
    (0xC004_0011, StatusCode::BadNotFound),
    (0xC004_0203, StatusCode::BadNotFound),
    (0xC004_0403, StatusCode::BadContinuationPointInvalid),
    (0xC004_0406, StatusCode::BadWriteNotSupported),
    (0x0004_000D, StatusCode::Good),
    (0x0004_000E, StatusCode::GoodClamped),
    (0x0004_000F, StatusCode::Good),
    // COM.
    (0x8000_4001, StatusCode::BadNotSupported),
    (0x8000_4002, StatusCode::BadNotSupported),
    (0x8000_4005, StatusCode::Bad),
    (0x8007_0005, StatusCode::BadUserAccessDenied),
    (0x8007_000E, StatusCode::BadOutOfMemory),
    (0x8007_0057, StatusCode::BadInvalidArgument),
    (0x8007_05B4, StatusCode::BadTimeout),
    (0x8002_0005, StatusCode::BadTypeMismatch),
    (0x8002_0008, StatusCode::BadTypeMismatch),
    (0x8002_000A, StatusCode::BadOutOfRange),
    (0x8004_0154, StatusCode::BadNotConnected),
    (0x8004_0155, StatusCode::BadNotConnected),
    (0x8004_01F3, StatusCode::BadNotConnected),
    (0x8008_0005, StatusCode::BadNotConnected),
    (0x8004_01FD, StatusCode::BadNotConnected),
    // RPC: the server's process is gone, or does not take calls.
    (0x8001_0001, StatusCode::BadResourceUnavailable),
    (0x8001_0007, StatusCode::BadNotConnected),
    (0x8001_0012, StatusCode::BadNotConnected),
    (0x8001_010A, StatusCode::BadResourceUnavailable),
    (0x8001_0105, StatusCode::BadInternalError),
    (0x8001_0108, StatusCode::BadNotConnected),
    (0x8007_06BA, StatusCode::BadNotConnected),
    (0x8007_06BB, StatusCode::BadResourceUnavailable),
    (0x8007_06BE, StatusCode::BadNotConnected),
    (0x8007_06BF, StatusCode::BadNotConnected),
];

/// What became of a write, and of anything else.
pub fn status_of_hresult(hresult: Hresult) -> StatusCode {
    match STATUSES.iter().find(|(code, _)| *code == hresult as u32) {
        Some((_, status)) => *status,
        None if hresult < 0 => StatusCode::Bad,
        None => StatusCode::Good,
    }
}

/// Of what has failed for certain, whatever the HRESULT says.
pub fn status_of_failure(hresult: Hresult) -> StatusCode {
    let status = status_of_hresult(hresult);
    if status.is_bad() { status } else { StatusCode::Bad }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn codes_stand_once_and_mean_what_they_should() {
        let codes: HashSet<u32> = STATUSES.iter().map(|(code, ..)| *code).collect();
        assert_eq!(codes.len(), STATUSES.len());
        let status = |code: u32| status_of_hresult(code as i32);
        assert_eq!(status(0), StatusCode::Good);
        assert_eq!(status(0xC004_0007), StatusCode::BadNodeIdUnknown);
        assert_eq!(status(0xC004_0006), StatusCode::BadNotWritable);
        assert_eq!(status(0x0004_000E), StatusCode::GoodClamped);
        assert_eq!(status(0x8007_06BA), StatusCode::BadNotConnected);
    }

    proptest! {
        #[test]
        fn a_failure_is_bad_and_a_success_is_good(hresult in any::<i32>()) {
            prop_assert_eq!(status_of_hresult(hresult).is_bad(), hresult < 0);
            prop_assert_eq!(status_of_hresult(hresult).is_good(), hresult >= 0);
        }
    }
}
