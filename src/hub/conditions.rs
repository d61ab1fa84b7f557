//! What is off normal, and who has seen it: one row for each condition there is.
//!
//!     normal ──set(Some(why))──► active, not acknowledged ──set(None)──► normal, not acknowledged
//!        ▲                            │ acknowledge                           │ acknowledge
//!        │                     active, acknowledged ──set(None)──► normal ◄───┘
//!
//! Whoever notices sets the state as often as it likes; only changes are told ([`super::Events`]). A disabled condition
//! changes silently. Whoever declared a condition may end and another take it over as it is, acknowledged or not, by
//! declaring the same; what nobody has taken over is withdrawn ([`Hub::retire`]). Nothing is on disk: what is still off normal after a restart is active and not acknowledged anew.

use super::{Hub, lock};
use crate::model::{Condition, ConditionKind, EventId, Happening, Level, LimitState, Limits};
use std::sync::Arc;

/// How many changes of one activation can be acknowledged by their id, the newest ones.
const CHANGES: usize = 32;

pub(super) struct Row {
    current: Arc<Condition>,
    /// The changes since it was last activated.
    changes: Vec<EventId>,
    /// Whoever declared it has ended.
    is_ended: bool,
}

/// What a person does about a condition. Texts that are not given leave those that are there.
#[derive(Clone, Debug)]
pub enum Act {
    Acknowledge {
        /// The change that the person saw.
        id: [u8; 16],
        comment: Option<String>,
    },
    Comment {
        id: [u8; 16],
        comment: String,
    },
    Enable,
    Disable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    #[error("there is no such condition")]
    Unknown,
    #[error("this change is not one of the condition since it was last activated")]
    UnknownChange,
    #[error("it is acknowledged already")]
    AlreadyAcked,
    #[error("it is disabled")]
    Disabled,
    #[error("it is enabled already")]
    AlreadyEnabled,
    #[error("it is disabled already")]
    AlreadyDisabled,
}

impl Hub {
    /// Makes a condition known, as normal; if it is known it stays as it is. Whether it is active.
    pub fn declare_condition(&self, kind: ConditionKind, source: &str) -> bool {
        self.declare(kind, source, kind.severity(), None).is_active
    }

    /// The same for the limits of a tag (`source` is `tags/` and its name). Which of them it is beyond already.
    pub fn declare_limit(&self, source: &str, limits: Limits, severity: u16) -> Option<Level> {
        let limit = LimitState { limits, level: None };
        self.declare(ConditionKind::Limit, source, severity, Some(limit)).limit?.level
    }

    fn declare(&self, kind: ConditionKind, source: &str, severity: u16, limit: Option<LimitState>) -> Arc<Condition> {
        let mut rows = lock(&self.0.conditions);
        if let Some(at) = rows.iter().position(|row| row.is(kind, source)) {
            let known = &mut rows[at];
            let limits = |limit: Option<LimitState>| limit.map(|limit| limit.limits);
            if known.current.severity == severity && limits(known.current.limit) == limits(limit) {
                known.is_ended = false;
                return known.current.clone();
            }
            self.tell_over(known, "its limits have changed");
            rows.remove(at);
        }
        let now = self.now();
        let id = EventId { start: now, number: 0 };
        let current = Arc::new(Condition {
            kind,
            source: source.into(),
            id,
            time: now,
            message: "normal".into(),
            severity,
            limit,
            is_enabled: true,
            is_active: false,
            since: now,
            is_acked: true,
            acked_at: now,
            comment: String::new(),
            user: String::new(),
            commented_at: now,
        });
        rows.push(Row { current: current.clone(), changes: Vec::new(), is_ended: false });
        drop(rows);
        self.0.structure.send_modify(|count| *count += 1);
        current
    }

    /// Whoever declared a condition ends. It stays as it is until somebody declares the same, or until the next
    /// [`Hub::retire`].
    pub fn release_condition(&self, kind: ConditionKind, source: &str) {
        if let Some(row) = lock(&self.0.conditions).iter_mut().find(|row| row.is(kind, source)) {
            row.is_ended = true;
        }
    }

    /// Says how a condition is now: off normal and why, or normal. Declares it.
    pub fn set_condition(&self, kind: ConditionKind, source: &str, off_normal: Option<&str>) {
        self.declare_condition(kind, source);
        self.set(kind, source, off_normal, None);
    }

    /// Says that a value is beyond a limit, and how to say that, or within all of them.
    pub fn set_limit(&self, source: &str, off_normal: Option<(Level, &str)>) {
        self.set(ConditionKind::Limit, source, off_normal.map(|(_, why)| why), off_normal.map(|(level, _)| level));
    }

    fn set(&self, kind: ConditionKind, source: &str, off_normal: Option<&str>, level: Option<Level>) {
        let mut rows = lock(&self.0.conditions);
        let Some(row) = rows.iter_mut().find(|row| row.is(kind, source)) else { return };
        let current = &row.current;
        let is_same = match off_normal {
            Some(why) => current.is_active && current.message == why,
            None => !current.is_active,
        };
        if is_same {
            return;
        }
        let mut next = Condition::clone(current);
        next.message = off_normal.unwrap_or("normal again").to_owned();
        if next.is_active != off_normal.is_some() {
            next.is_active = off_normal.is_some();
            next.since = self.now();
        }
        let before = current.limit.and_then(|limit| limit.level);
        let is_worse = level.is_some_and(|level| before.is_some_and(|old| old != level && !level.is_milder_than(old)));
        if next.is_active && (!current.is_active || is_worse) {
            next.is_acked = false;
            row.changes.clear();
        }
        if let Some(limit) = &mut next.limit {
            limit.level = level;
        }
        self.change(row, next);
    }

    /// Nobody looks after the conditions of this source any more, so nothing is off normal.
    pub fn end_conditions(&self, source: &str) {
        let of_source = |row: &&Row| *row.current.source == *source;
        let kinds: Vec<ConditionKind> =
            lock(&self.0.conditions).iter().filter(of_source).map(|row| row.current.kind).collect();
        for kind in kinds {
            self.set_condition(kind, source, None);
        }
    }

    /// What a condition was about is not there any more. Whoever shows it is told that it is over.
    pub fn withdraw_condition(&self, kind: ConditionKind, source: &str) {
        self.withdraw_conditions(|row| row.is(kind, source));
    }

    /// Those that nobody has taken over, and those of cameras that are not there any more.
    pub(super) fn retire_conditions(&self) {
        let cameras = self.cameras();
        self.withdraw_conditions(|row| {
            let camera = row.current.source.strip_prefix("cameras/");
            row.is_ended || camera.is_some_and(|name| cameras.iter().all(|camera| camera.name() != name))
        });
    }

    fn withdraw_conditions(&self, is_gone: impl Fn(&Row) -> bool) {
        let mut rows = lock(&self.0.conditions);
        let before = rows.len();
        for row in rows.iter_mut().filter(|row| is_gone(row)) {
            self.tell_over(row, "it is not in the configuration any more");
        }
        rows.retain(|row| !is_gone(row));
        if rows.len() < before {
            self.0.structure.send_modify(|count| *count += 1);
        }
    }

    /// To whoever shows it, before it goes.
    fn tell_over(&self, row: &mut Row, why: &str) {
        if !row.current.is_retained() {
            return;
        }
        let mut next = Condition::clone(&row.current);
        (next.is_active, next.is_acked, next.since) = (false, true, self.now());
        next.message = why.to_owned();
        if let Some(limit) = &mut next.limit {
            limit.level = None;
        }
        self.change(row, next);
    }

    /// All conditions, in the order in which they were declared.
    pub fn conditions(&self) -> Vec<Arc<Condition>> {
        lock(&self.0.conditions).iter().map(|row| row.current.clone()).collect()
    }

    /// What a person (`user`, as others shall see it) does about a condition.
    pub fn act(&self, kind: ConditionKind, source: &str, act: Act, user: &str) -> Result<(), ActError> {
        let mut rows = lock(&self.0.conditions);
        let row = rows.iter_mut().find(|row| row.is(kind, source)).ok_or(ActError::Unknown)?;
        let mut next = Condition::clone(&row.current);
        let now = self.now();
        let comment = match act {
            Act::Acknowledge { .. } | Act::Comment { .. } if !next.is_enabled => return Err(ActError::Disabled),
            Act::Enable if next.is_enabled => return Err(ActError::AlreadyEnabled),
            Act::Disable if !next.is_enabled => return Err(ActError::AlreadyDisabled),
            Act::Enable | Act::Disable => {
                next.is_enabled = !next.is_enabled;
                None
            }
            Act::Acknowledge { id, comment } => {
                row.check(id)?;
                if next.is_acked {
                    return Err(ActError::AlreadyAcked);
                }
                (next.is_acked, next.acked_at) = (true, now);
                comment
            }
            Act::Comment { id, comment } => {
                row.check(id)?;
                Some(comment)
            }
        };
        if let Some(comment) = comment {
            (next.comment, next.commented_at) = (comment, now);
        }
        next.user = user.to_owned();
        self.change(row, next);
        Ok(())
    }

    /// Puts a change in force and tells it. What changes while it is disabled is not told, but that it is now disabled is.
    fn change(&self, row: &mut Row, mut next: Condition) {
        next.time = self.now();
        if !next.is_enabled && !row.current.is_enabled {
            row.current = Arc::new(next);
            return;
        }
        self.0.log.add(|id| {
            next.id = id;
            if row.changes.len() == CHANGES {
                row.changes.remove(0);
            }
            row.changes.push(id);
            row.current = Arc::new(next);
            Happening::Condition(row.current.clone())
        });
    }
}

impl Row {
    fn is(&self, kind: ConditionKind, source: &str) -> bool {
        self.current.kind == kind && *self.current.source == *source
    }

    fn check(&self, id: [u8; 16]) -> Result<(), ActError> {
        let is_known = self.changes.iter().any(|change| change.bytes() == id);
        if is_known { Ok(()) } else { Err(ActError::UnknownChange) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::hub::Events;
    use ConditionKind::CameraLost as Lost;

    const LINE1: &str = "cameras/line1";

    fn now(hub: &Hub) -> Arc<Condition> {
        hub.conditions().pop().unwrap()
    }

    fn told(events: &mut Events) -> usize {
        std::iter::from_fn(|| events.try_next()).count()
    }

    #[test]
    fn only_changes_are_told_and_a_change_for_the_worse_wants_to_be_seen() {
        let hub = Hub::new(Clock::real());
        let mut events = hub.events();
        hub.set_condition(Lost, LINE1, None);
        assert!(!now(&hub).is_retained() && told(&mut events) == 0, "normal from the beginning");
        hub.set_condition(Lost, LINE1, Some("unplugged"));
        hub.set_condition(Lost, LINE1, Some("unplugged"));
        assert!(now(&hub).is_active && !now(&hub).is_acked && told(&mut events) == 1);
        let first = now(&hub).id.bytes();
        hub.set_condition(Lost, LINE1, Some("no signal"));
        hub.set_condition(Lost, LINE1, None);
        assert!(now(&hub).is_retained() && !now(&hub).is_active && told(&mut events) == 2);

        let acknowledge = |id| hub.act(Lost, LINE1, Act::Acknowledge { id, comment: Some("seen".into()) }, "eva");
        assert_eq!(acknowledge([0; 16]), Err(ActError::UnknownChange));
        assert_eq!(acknowledge(first), Ok(()));
        let seen = now(&hub);
        assert_eq!((seen.is_retained(), &*seen.comment, &*seen.user), (false, "seen", "eva"));
        assert_eq!(acknowledge(first), Err(ActError::AlreadyAcked));
        assert_eq!(told(&mut events), 1);

        hub.set_condition(Lost, LINE1, Some("unplugged"));
        assert_eq!(acknowledge(first), Err(ActError::UnknownChange), "that was the activation before");
        assert!(!now(&hub).is_acked);
    }

    #[test]
    fn a_limit_wants_to_be_seen_again_when_it_gets_worse() {
        let (hub, source) = (Hub::new(Clock::real()), "tags/a");
        hub.declare_limit(source, Limits { high_high: Some(9.0), high: Some(5.0), ..Limits::default() }, 300);
        let level = || now(&hub).limit.unwrap().level;
        let set = |level| hub.set_limit(source, Some((level, "too high")));
        let acknowledge = || {
            let id = now(&hub).id.bytes();
            hub.act(ConditionKind::Limit, source, Act::Acknowledge { id, comment: None }, "eva")
        };
        set(Level::High);
        assert_eq!((acknowledge(), level(), now(&hub).severity), (Ok(()), Some(Level::High), 300));
        hub.set_limit(source, Some((Level::HighHigh, "far too high")));
        assert!(!now(&hub).is_acked && acknowledge().is_ok());
        set(Level::High);
        assert!(now(&hub).is_acked && now(&hub).is_active);
        hub.set_limit(source, None);
        assert_eq!((level(), now(&hub).is_retained()), (None, false));
    }

    #[test]
    fn what_is_withdrawn_is_over_and_gone() {
        let hub = Hub::new(Clock::real());
        hub.set_condition(Lost, LINE1, Some("unplugged"));
        hub.declare_condition(ConditionKind::UplinkDown, "mqtt");
        let mut events = hub.events();
        // There is no camera of that name.
        hub.retire();
        let Some(Happening::Condition(over)) = events.try_next() else { panic!("it was told") };
        assert!(!over.is_retained() && told(&mut events) == 0);
        hub.withdraw_condition(ConditionKind::UplinkDown, "mqtt");
        assert!(hub.conditions().is_empty() && told(&mut events) == 0);
    }

    #[test]
    fn what_is_declared_again_goes_on_and_what_is_not_is_withdrawn() {
        let (hub, source) = (Hub::new(Clock::real()), "tags/a");
        let declare = |high| hub.declare_limit(source, Limits { high: Some(high), ..Limits::default() }, 300);
        let release = || hub.release_condition(ConditionKind::Limit, source);
        assert_eq!(declare(5.0), None);
        hub.set_limit(source, Some((Level::High, "too high")));
        let (before, mut events) = (now(&hub), hub.events());
        release();
        assert_eq!((declare(5.0), told(&mut events)), (Some(Level::High), 0));
        hub.retire();
        assert_eq!((now(&hub), told(&mut events)), (before, 0));

        release();
        assert_eq!((declare(6.0), hub.conditions().len()), (None, 1));
        let Some(Happening::Condition(over)) = events.try_next() else { panic!("it was told") };
        assert_eq!((over.is_retained(), &*over.message), (false, "its limits have changed"));
        hub.set_limit(source, Some((Level::High, "too high")));
        release();
        assert!(now(&hub).is_active);
        hub.retire();
        assert!(hub.conditions().is_empty());

        hub.set_condition(ConditionKind::DiskNearlyFull, "system", Some("full"));
        hub.release_condition(ConditionKind::DiskNearlyFull, "system");
        assert!(hub.declare_condition(ConditionKind::DiskNearlyFull, "system"));
        hub.retire();
        assert!(now(&hub).is_active);
    }

    #[test]
    fn what_is_disabled_is_silent_and_true_when_it_is_enabled_again() {
        let hub = Hub::new(Clock::real());
        hub.declare_condition(Lost, LINE1);
        let mut events = hub.events();
        let act = |act| hub.act(Lost, LINE1, act, "eva");
        assert_eq!(act(Act::Enable), Err(ActError::AlreadyEnabled));
        assert_eq!((act(Act::Disable), told(&mut events)), (Ok(()), 1));
        hub.set_condition(Lost, LINE1, Some("unplugged"));
        assert!(!now(&hub).is_retained() && told(&mut events) == 0);
        let comment = Act::Comment { id: now(&hub).id.bytes(), comment: "?".into() };
        assert_eq!(act(comment), Err(ActError::Disabled));
        assert_eq!(act(Act::Disable), Err(ActError::AlreadyDisabled));
        assert_eq!((act(Act::Enable), told(&mut events)), (Ok(()), 1));
        assert!(now(&hub).is_retained());
        assert_eq!(hub.act(Lost, "cameras/line2", Act::Disable, "eva"), Err(ActError::Unknown));
    }
}
