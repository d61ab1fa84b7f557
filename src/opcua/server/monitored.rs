//! Monitored items that look after themselves, where the UA crate (0.19) does not.
//!
//! - When a subscription expires (its client died), nobody is told that its items are gone. [`gone`] finds out.
//! - Without a data change filter an item compares values and not statuses, though the standard's default trigger is
//!   StatusValue (OPC 10000-4, 7.22.2). A bad value is null, so two different faults in a row would look the same;
//!   [`Nulls`] tells them apart by the two ways there are to say null.
//! - A subscription that is created right after the last one of its session was deleted can be thrown away with what that
//!   one left. [`tidied`] keeps the client waiting until there is nothing left to throw away.

use crate::model::Status;
use ::opcua::server::node_manager::RequestContext;
use ::opcua::server::{MonitoredItemHandle, SubscriptionCache};
use ::opcua::types::Variant;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The newest session that has asked anything of our nodes. The UA crate numbers sessions from 1, in one count for the
/// whole process.
static NEWEST_SESSION: AtomicU32 = AtomicU32::new(0);

/// Sessions that have not asked anything yet may own a subscription that was transferred to them.
const UNSEEN_SESSIONS: u32 = 1000;
/// Sessions older than the newest ones by more are not asked: they are long gone, and looking through all that there ever
/// were would hold everybody up.
const OLD_SESSIONS: u32 = 10_000;

/// To be called for each request.
pub fn saw_session(session: u32) {
    NEWEST_SESSION.fetch_max(session, Ordering::Relaxed);
}

/// Which of these monitored items are not there any more. Each comes with the session where it was created; subscriptions can
/// be transferred, and the crate shows subscriptions only by session, so what is not there is looked for in all others: once
/// for all of them, because a client that dies leaves thousands, and sessions are many.
pub fn gone(
    subscriptions: &SubscriptionCache,
    mut items: Vec<(u32, MonitoredItemHandle)>,
) -> impl Iterator<Item = MonitoredItemHandle> {
    // By subscription.
    let mut missing: HashMap<u32, Vec<MonitoredItemHandle>> = HashMap::new();
    items.sort_unstable_by_key(|(session, _)| *session);
    for of_session in items.chunk_by(|(one, _), (other, _)| one == other) {
        let session = of_session.first().and_then(|(session, _)| subscriptions.get_session_subscriptions(*session));
        let session = session.as_ref().map(|session| session.lock());
        for (_, handle) in of_session {
            let subscription = session.as_ref().and_then(|session| session.get(handle.subscription_id));
            if !subscription.is_some_and(|subscription| subscription.contains_key(&handle.monitored_item_id)) {
                missing.entry(handle.subscription_id).or_default().push(*handle);
            }
        }
    }
    let newest = NEWEST_SESSION.load(Ordering::Relaxed);
    let others = newest.saturating_sub(OLD_SESSIONS)..=newest.saturating_add(UNSEEN_SESSIONS);
    for session in others {
        if missing.is_empty() {
            break;
        }
        let Some(session) = subscriptions.get_session_subscriptions(session) else { continue };
        let session = session.lock();
        for id in session.subscription_ids() {
            if let (Some(handles), Some(subscription)) = (missing.get_mut(&id), session.get(id)) {
                handles.retain(|handle| !subscription.contains_key(&handle.monitored_item_id));
            }
        }
    }
    missing.into_values().flatten()
}

/// How often it is looked whether the crate has tidied up, and for how long at most. It does so at each of its ticks, which
/// are 20 ms apart at most ([`super::limits`]).
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_millis(250);

/// To be awaited when monitored items were deleted, before the client is answered.
///
/// If they were the last subscription's, the crate's next tick answers the Publish requests that wait with
/// BadNoSubscription and notes that nothing is left of the session's subscriptions; a moment later it throws that away,
/// with a subscription that was created meanwhile. Besides, a client that hears BadNoSubscription after it has made a new
/// one may take it for that one's (asyncua stops publishing then).
pub async fn tidied(context: &RequestContext) {
    let until = Instant::now() + PATIENCE;
    let is_untidy = || {
        let left = context.subscriptions.get_session_subscriptions(context.session_id);
        left.is_some_and(|left| left.lock().subscription_ids().is_empty())
    };
    while is_untidy() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
}

/// How the null of a bad value is written: another status, the other way. One for each item.
pub struct Nulls {
    last: Option<Status>,
    is_variant: bool,
}

impl Nulls {
    /// After an initial value, which is written as the null Variant if it is bad.
    pub fn after(bad: Option<Status>) -> Self {
        Self { last: bad, is_variant: true }
    }

    /// For a bad value with this status.
    pub fn null(&mut self, status: Status) -> Option<Variant> {
        if self.last != Some(status) {
            self.is_variant = !self.is_variant;
            self.last = Some(status);
        }
        self.is_variant.then_some(Variant::Empty)
    }

    /// After a value that is not bad.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_in_a_row_differ() {
        let (a, b) = (Status::BAD_NOT_CONNECTED, Status::BAD_DEVICE_FAILURE);
        let mut nulls = Nulls::after(Some(a));
        let null = Some(Variant::Empty);
        assert_eq!([a, b, b, a].map(|status| nulls.null(status)), [null.clone(), None, None, null.clone()]);
        nulls.reset();
        assert_eq!(nulls.null(a), None);
        assert_eq!(Nulls::after(None).null(a), None);
    }
}
