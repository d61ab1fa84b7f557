//! Who sits behind a subscription, so that its monitored items follow when that changes.
//!
//! A session can be given another user (ActivateSession), and then its items must be judged anew (OPC 10000-4, 5.13.2.1:
//! "the same behaviour for the case where the access rights are changed after the call to CreateMonitoredItems"). The UA
//! crate does not. And items outlive sessions: a subscription can be transferred, also to another user, because the crate
//! compares who the sessions' users were when each got its first subscription, and tells nobody. So the user is kept by
//! subscription, changed for all subscriptions of a session that is activated, and looked up again and again.

use ::opcua::server::SubscriptionCache;
use ::opcua::server::authenticator::UserToken;
use ::opcua::server::node_manager::RequestContext;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use tokio::sync::watch;

pub(in crate::sinks::ua_server) struct Seats {
    /// By subscription; each lives as long as an item holds it.
    seats: Mutex<HashMap<u32, Weak<Seat>>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

/// The user of one subscription.
pub(in crate::sinks::ua_server) struct Seat(RwLock<UserToken>);

impl Seat {
    pub(in crate::sinks::ua_server) fn token(&self) -> UserToken {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether that is another user than before.
    fn take(&self, token: &UserToken) -> bool {
        let mut seated = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = *seated != *token;
        if is_new {
            *seated = token.clone();
        }
        is_new
    }
}

impl Default for Seats {
    fn default() -> Self {
        Self { seats: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Seats {
    /// The seat of a subscription in which somebody creates an item.
    pub(in crate::sinks::ua_server) fn seat(&self, subscription: u32, token: &UserToken) -> Arc<Seat> {
        let mut seats = self.lock();
        if let Some(seat) = seats.get(&subscription).and_then(Weak::upgrade) {
            // Only who owns it can create one.
            self.tell(seat.take(token));
            return seat;
        }
        seats.retain(|_, seat| seat.strong_count() > 0);
        let seat = Arc::new(Seat(RwLock::new(token.clone())));
        seats.insert(subscription, Arc::downgrade(&seat));
        seat
    }

    /// Changes when a subscription got another user.
    pub(in crate::sinks::ua_server) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A session has this user now.
    pub(super) fn seat_session(&self, context: &RequestContext) {
        let Some(subscriptions) = context.subscriptions.get_session_subscriptions(context.session_id) else { return };
        let seats: Vec<_> = self.lock().iter().filter_map(|(id, seat)| Some((*id, seat.upgrade()?))).collect();
        let subscriptions = subscriptions.lock();
        let own = seats.into_iter().filter(|(id, _)| subscriptions.get(*id).is_some());
        // Each of them takes its seat, also after the first that is new.
        let changed = own.filter(|(_, seat)| seat.take(&context.token)).count();
        self.tell(changed > 0);
    }

    /// Looks who owns the subscriptions of these sessions now.
    pub(in crate::sinks::ua_server) fn look(
        &self,
        subscriptions: &SubscriptionCache,
        sessions: impl Iterator<Item = u32>,
    ) {
        if self.lock().values().all(|seat| seat.strong_count() == 0) {
            return;
        }
        for session in sessions {
            let Some(subscriptions) = subscriptions.get_session_subscriptions(session) else { continue };
            let (ids, session) = {
                let subscriptions = subscriptions.lock();
                (subscriptions.subscription_ids(), subscriptions.session().clone())
            };
            // Not under the lock of its subscriptions: the crate takes the session's own first.
            let token = session.read().user_token().cloned();
            if let Some(token) = token {
                self.reseat(&ids, &token);
            }
        }
    }

    /// These subscriptions have this user now.
    fn reseat(&self, subscriptions: &[u32], token: &UserToken) {
        let seats: Vec<_> = {
            let seats = self.lock();
            subscriptions.iter().filter_map(|id| seats.get(id)?.upgrade()).collect()
        };
        let changed = seats.iter().filter(|seat| seat.take(token)).count();
        self.tell(changed > 0);
    }

    fn tell(&self, is_changed: bool) {
        if is_changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Weak<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_has_one_seat_while_somebody_holds_it() {
        let (seats, anna, bert) = (Seats::default(), UserToken("anna".into()), UserToken("bert".into()));
        let first = seats.seat(1, &anna);
        assert!(Arc::ptr_eq(&first, &seats.seat(1, &anna)));
        assert!(!first.take(&anna));
        assert!(first.take(&bert));
        assert_eq!(seats.seat(1, &bert).token(), bert);
        drop(first);
        assert_eq!(seats.seat(2, &anna).token(), anna);
        assert_eq!(seats.lock().len(), 1, "what nobody holds is forgotten");
    }

    #[test]
    fn a_subscription_that_gets_another_owner_is_judged_anew() {
        let (seats, anna, bert) = (Seats::default(), UserToken("anna".into()), UserToken("bert".into()));
        let (first, second) = (seats.seat(1, &anna), seats.seat(2, &anna));
        let mut changed = seats.changed();
        seats.reseat(&[1, 2, 3], &anna);
        assert!(!changed.has_changed().unwrap());
        seats.reseat(&[1, 3], &bert);
        assert!(changed.has_changed().unwrap());
        assert_eq!((first.token(), second.token()), (bert.clone(), anna));
        changed.mark_unchanged();
        seats.seat(2, &bert);
        assert!(changed.has_changed().unwrap());
        assert_eq!(second.token(), bert);
    }
}
