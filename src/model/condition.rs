//! Something that is off normal for a while, or not: it has a state, and people acknowledge that they have seen it.

use super::{EventId, Timestamp};
use std::sync::Arc;

/// What can be off normal. Becomes an instance of an alarm type in OPC UA (OPC 10000-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionKind {
    CameraLost,
    UplinkDown,
    DiskNearlyFull,
    ClockNotSet,
    /// The value of a tag is beyond one of its limits.
    Limit,
}

impl ConditionKind {
    /// The name of the instance below its source.
    pub const fn name(self) -> &'static str {
        match self {
            ConditionKind::CameraLost => "CameraLost",
            ConditionKind::UplinkDown => "UplinkDown",
            ConditionKind::DiskNearlyFull => "DiskNearlyFull",
            ConditionKind::ClockNotSet => "ClockNotSet",
            ConditionKind::Limit => "Limit",
        }
    }

    /// Urgency while it is active, by OPC 10000-5, 6.4.2; of a limit unless it is set.
    pub const fn severity(self) -> u16 {
        match self {
            ConditionKind::CameraLost | ConditionKind::UplinkDown => 700,
            ConditionKind::DiskNearlyFull => 800,
            ConditionKind::ClockNotSet => 600,
            ConditionKind::Limit => 500,
        }
    }
}

/// Where a value begins to be off normal; the outer limits are for what is more urgent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    pub high_high: Option<f64>,
    pub high: Option<f64>,
    pub low: Option<f64>,
    pub low_low: Option<f64>,
}

/// Which limit a value is beyond, the outermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    HighHigh,
    High,
    Low,
    LowLow,
}

impl Level {
    /// Going from `before` to here is no reason to look again.
    pub fn is_milder_than(self, before: Level) -> bool {
        matches!((before, self), (Level::HighHigh, Level::High) | (Level::LowLow, Level::Low))
    }
}

/// What a condition of the kind [`ConditionKind::Limit`] has besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitState {
    pub limits: Limits,
    /// `Some` while it is active.
    pub level: Option<Level>,
}

/// The state of a condition from one change to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub kind: ConditionKind,
    /// What it is about, as of an event: `cameras/line1`, `mqtt`, `system`; of a limit the tag: `tags/calc/power`.
    pub source: Arc<str>,
    /// Of the change that led to this state.
    pub id: EventId,
    pub time: Timestamp,
    /// One sentence for people.
    pub message: String,
    /// Urgency while it is active, by OPC 10000-5, 6.4.2.
    pub severity: u16,
    pub limit: Option<LimitState>,
    pub is_enabled: bool,
    pub is_active: bool,
    /// Since when it is (not) active.
    pub since: Timestamp,
    /// Somebody has seen it. A condition that was never active needs nobody to see it.
    pub is_acked: bool,
    pub acked_at: Timestamp,
    /// What somebody said about it last, who, and when.
    pub comment: String,
    pub user: String,
    pub commented_at: Timestamp,
}

impl Condition {
    /// It is to be shown to whoever looks (OPC 10000-9, 5.5.2: Retain).
    pub fn is_retained(&self) -> bool {
        self.is_enabled && (self.is_active || !self.is_acked)
    }
}

/// Of what one is told as it happens.
#[derive(Clone, Debug)]
pub enum Happening {
    Event(Arc<super::Event>),
    /// A condition changed to this.
    Condition(Arc<Condition>),
}
