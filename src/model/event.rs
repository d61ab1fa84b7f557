//! Something that happened once, for people and their systems to take note of; unlike a tag it has no current value.

use super::Timestamp;
use std::sync::Arc;

/// What happened. Becomes an event type in OPC UA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    CameraConnected,
    CameraDisconnected,
    CameraNoSignal,
    SourceLost,
    SourceBack,
    UplinkLost,
    UplinkBack,
    ConfigurationApplied,
    ConfigurationRefused,
    /// A user who may not come in: wrong password, unknown name or certificate.
    LoginRefused,
    /// An application whose certificate is not trusted.
    ClientRefused,
    /// Our own certificate is about to expire.
    CertificateExpires,
    UpdateInstalled,
    /// Firmware that was to be installed is not, or did not come up healthy; what ran before runs.
    UpdateFailed,
    /// Somebody upstream told this device to do something.
    CommandTaken,
    /// A device that a source collects from says that something happened to it.
    SourceEvent {
        severity: u16,
    },
}

impl EventKind {
    /// Urgency by OPC 10000-5, 6.4.2: 1 is the least, 1000 a catastrophe.
    pub const fn severity(self) -> u16 {
        use EventKind as Kind;
        match self {
            Kind::CameraConnected | Kind::SourceBack | Kind::UplinkBack | Kind::ConfigurationApplied => 100,
            Kind::UpdateInstalled | Kind::CommandTaken => 200,
            Kind::SourceEvent { severity } => severity,
            Kind::LoginRefused
            | Kind::ClientRefused
            | Kind::ConfigurationRefused
            | Kind::CertificateExpires
            | Kind::UpdateFailed => 500,
            Kind::CameraDisconnected | Kind::CameraNoSignal | Kind::SourceLost | Kind::UplinkLost => 700,
        }
    }
}

/// Tells apart all events and changes of conditions there ever were on this device: the start of the process, by its clock,
/// and a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    pub start: Timestamp,
    pub number: u64,
}

impl EventId {
    /// As others see it; no meaning is promised.
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.start.ticks().to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub kind: EventKind,
    /// What it happened to, as a path: `cameras/line1`, `mqtt`, `ua_server`, `configuration`.
    pub source: Arc<str>,
    /// One sentence for people.
    pub message: String,
    /// By this device's clock.
    pub time: Timestamp,
}
