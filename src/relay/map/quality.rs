//! DA's quality word (OPC DA 3.00, 6.8) as a StatusCode (OPC 10000-8, A.3.2.3).
//!
//!     vvvvvvvv QQ SSSS LL      v: the vendor's own    Q: quality    S: substatus    L: limit
//!
//! Limit bits mean the same in both. The vendor's byte has no place in a StatusCode; it is a property of the item.

use ::opcua::types::StatusCode;

/// InfoType DataValue, which is what gives limit bits their meaning (OPC 10000-4, 7.39.1).
const DATA_VALUE: u32 = 1 << 10;

pub fn status_of_quality(quality: u16) -> StatusCode {
    let status = match (quality >> 6 & 0b11, quality >> 2 & 0b1111) {
        (0b11, 6) => StatusCode::GoodLocalOverride,
        (0b11, _) => StatusCode::Good,
        (0b01, 1) => StatusCode::UncertainLastUsableValue,
        (0b01, 4) => StatusCode::UncertainSensorNotAccurate,
        (0b01, 5) => StatusCode::UncertainEngineeringUnitsExceeded,
        (0b01, 6) => StatusCode::UncertainSubNormal,
        (0b01, _) => StatusCode::Uncertain,
        (0b00, 1) => StatusCode::BadConfigurationError,
        (0b00, 2) => StatusCode::BadNotConnected,
        (0b00, 3) => StatusCode::BadDeviceFailure,
        (0b00, 4) => StatusCode::BadSensorFailure,
        // The last known value.
        (0b00, 5) => StatusCode::BadOutOfService,
        (0b00, 6) => StatusCode::BadNoCommunication,
        (0b00, 7) => StatusCode::BadOutOfService,
        (0b00, 8) => StatusCode::BadWaitingForInitialData,
        // 0b10 is not used by the standard, so nothing is known of such a value.
        _ => StatusCode::Bad,
    };
    match u32::from(quality & 0b11) {
        0 => status,
        limit => StatusCode::from(status.bits() | DATA_VALUE | limit << 8),
    }
}

pub fn vendor_bits(quality: u16) -> u8 {
    (quality >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::opcua::types::status_code::{StatusCodeInfoType, StatusCodeLimit};
    use proptest::prelude::*;

    #[test]
    fn each_word_of_the_standard_has_its_status() {
        for (quality, status) in [
            (0xC0, StatusCode::Good),
            (0xD8, StatusCode::GoodLocalOverride),
            (0x40, StatusCode::Uncertain),
            (0x44, StatusCode::UncertainLastUsableValue),
            (0x50, StatusCode::UncertainSensorNotAccurate),
            (0x54, StatusCode::UncertainEngineeringUnitsExceeded),
            (0x58, StatusCode::UncertainSubNormal),
            (0x00, StatusCode::Bad),
            (0x04, StatusCode::BadConfigurationError),
            (0x08, StatusCode::BadNotConnected),
            (0x0C, StatusCode::BadDeviceFailure),
            (0x10, StatusCode::BadSensorFailure),
            (0x14, StatusCode::BadOutOfService),
            (0x18, StatusCode::BadNoCommunication),
            (0x1C, StatusCode::BadOutOfService),
            (0x20, StatusCode::BadWaitingForInitialData),
            (0x80, StatusCode::Bad),
        ] {
            assert_eq!(status_of_quality(quality), status, "{quality:#x}");
        }
        let limited = status_of_quality(0x0156);
        assert_eq!((limited.limit(), limited.info_type()), (StatusCodeLimit::High, StatusCodeInfoType::DataValue));
        assert_eq!(limited.sub_code(), StatusCode::UncertainEngineeringUnitsExceeded.sub_code());
    }

    proptest! {
        #[test]
        fn no_quality_becomes_better_than_it_is(quality in any::<u16>()) {
            let status = status_of_quality(quality);
            prop_assert_eq!(status.is_good(), quality >> 6 & 3 == 3);
            prop_assert_eq!(status.is_uncertain(), quality >> 6 & 3 == 1);
            prop_assert_eq!(status.limit() as u16, quality & 3);
            prop_assert_eq!(vendor_bits(quality), quality.to_be_bytes()[0]);
        }
    }
}
