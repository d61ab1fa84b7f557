//! How good a value is, and why it is not better.

use std::fmt;
use std::sync::Arc;

/// An OPC UA StatusCode (OPC 10000-4, 7.38): severity in the two top bits, then sub-code, then info bits.
///
/// All 32 bits are kept as they came, so that a code of another server passes through unharmed. The constants are
/// the codes that this program gives by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($(#[$doc:meta])* $constant:ident = $code:literal $name:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $constant: Status = Status($code);)*

            /// The standard's name of the code, without its info bits; `None` if this program has no name for it.
            pub fn name(self) -> Option<&'static str> {
                match self.0 & 0xFFFF_0000 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    GOOD = 0x0000_0000 "Good";
    UNCERTAIN = 0x4000_0000 "Uncertain";
    UNCERTAIN_LAST_USABLE_VALUE = 0x4090_0000 "UncertainLastUsableValue";
    UNCERTAIN_INITIAL_VALUE = 0x4092_0000 "UncertainInitialValue";
    BAD = 0x8000_0000 "Bad";
    BAD_INTERNAL_ERROR = 0x8002_0000 "BadInternalError";
    BAD_RESOURCE_UNAVAILABLE = 0x8004_0000 "BadResourceUnavailable";
    BAD_TIMEOUT = 0x800A_0000 "BadTimeout";
    BAD_SHUTDOWN = 0x800C_0000 "BadShutdown";
    BAD_CERTIFICATE_INVALID = 0x8012_0000 "BadCertificateInvalid";
    BAD_SECURITY_CHECKS_FAILED = 0x8013_0000 "BadSecurityChecksFailed";
    BAD_CERTIFICATE_TIME_INVALID = 0x8014_0000 "BadCertificateTimeInvalid";
    BAD_CERTIFICATE_ISSUER_TIME_INVALID = 0x8015_0000 "BadCertificateIssuerTimeInvalid";
    BAD_CERTIFICATE_URI_INVALID = 0x8017_0000 "BadCertificateUriInvalid";
    BAD_CERTIFICATE_USE_NOT_ALLOWED = 0x8018_0000 "BadCertificateUseNotAllowed";
    BAD_CERTIFICATE_ISSUER_USE_NOT_ALLOWED = 0x8019_0000 "BadCertificateIssuerUseNotAllowed";
    BAD_CERTIFICATE_UNTRUSTED = 0x801A_0000 "BadCertificateUntrusted";
    BAD_CERTIFICATE_REVOCATION_UNKNOWN = 0x801B_0000 "BadCertificateRevocationUnknown";
    BAD_CERTIFICATE_ISSUER_REVOCATION_UNKNOWN = 0x801C_0000 "BadCertificateIssuerRevocationUnknown";
    BAD_CERTIFICATE_REVOKED = 0x801D_0000 "BadCertificateRevoked";
    BAD_CERTIFICATE_ISSUER_REVOKED = 0x801E_0000 "BadCertificateIssuerRevoked";
    BAD_NO_COMMUNICATION = 0x8031_0000 "BadNoCommunication";
    BAD_WAITING_FOR_INITIAL_DATA = 0x8032_0000 "BadWaitingForInitialData";
    BAD_USER_ACCESS_DENIED = 0x801F_0000 "BadUserAccessDenied";
    BAD_NODE_ID_UNKNOWN = 0x8034_0000 "BadNodeIdUnknown";
    BAD_NOT_READABLE = 0x803A_0000 "BadNotReadable";
    BAD_NOT_WRITABLE = 0x803B_0000 "BadNotWritable";
    BAD_OUT_OF_RANGE = 0x803C_0000 "BadOutOfRange";
    BAD_NOT_SUPPORTED = 0x803D_0000 "BadNotSupported";
    BAD_TYPE_MISMATCH = 0x8074_0000 "BadTypeMismatch";
    BAD_CONFIGURATION_ERROR = 0x8089_0000 "BadConfigurationError";
    BAD_NOT_CONNECTED = 0x808A_0000 "BadNotConnected";
    BAD_DEVICE_FAILURE = 0x808B_0000 "BadDeviceFailure";
    BAD_SENSOR_FAILURE = 0x808C_0000 "BadSensorFailure";
    BAD_OUT_OF_SERVICE = 0x808D_0000 "BadOutOfService";
    BAD_CERTIFICATE_CHAIN_INCOMPLETE = 0x810D_0000 "BadCertificateChainIncomplete";
    BAD_CERTIFICATE_POLICY_CHECK_FAILED = 0x8114_0000 "BadCertificatePolicyCheckFailed";
    BAD_INVALID_STATE = 0x80AF_0000 "BadInvalidState";
}

impl Status {
    pub const fn is_good(self) -> bool {
        self.0 >> 30 == 0
    }

    pub const fn is_uncertain(self) -> bool {
        self.0 >> 30 == 1
    }

    pub const fn is_bad(self) -> bool {
        self.0 >> 30 >= 2
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:08X}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A status and, where one is known, the reason for it in words: `BadNotConnected: /dev/video0 does not exist`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quality {
    pub status: Status,
    pub reason: Option<Arc<str>>,
}

impl Quality {
    pub const GOOD: Quality = Quality { status: Status::GOOD, reason: None };

    pub fn new(status: Status, reason: impl Into<Arc<str>>) -> Self {
        Self { status, reason: Some(reason.into()) }
    }

    pub fn is_good(&self) -> bool {
        self.status.is_good()
    }

    pub fn is_bad(&self) -> bool {
        self.status.is_bad()
    }
}

impl From<Status> for Quality {
    fn from(status: Status) -> Self {
        Self { status, reason: None }
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_is_in_the_top_bits_whatever_the_rest_says() {
        assert!(Status(0x0000_0480).is_good());
        assert!(Status(0x4090_0000).is_uncertain());
        assert!(Status::BAD_NOT_CONNECTED.is_bad());
        assert!(Status(0xFFFF_FFFF).is_bad());
    }

    #[test]
    fn names_ignore_info_bits_and_unknown_codes_print_as_hex() {
        assert_eq!(Status(0x808A_0480).to_string(), "BadNotConnected");
        assert_eq!(Status(0x80FE_0000).to_string(), "0x80FE0000");
        let quality = Quality::new(Status::BAD_NOT_CONNECTED, "/dev/video0 does not exist");
        assert_eq!(quality.to_string(), "BadNotConnected: /dev/video0 does not exist");
    }
}
