//! The sessions there are, which the UA crate does not tell: its CurrentSessionCount is always 0.
//!
//! A session is known once it has asked for anything of a node; it is gone when the crate has closed it or let it go.

use ::opcua::server::node_manager::RequestContext;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
pub struct Sessions {
    /// By the crate's number. Asks whether the session is still there; its type has no name outside of the crate.
    open: Mutex<HashMap<u32, IsOpen>>,
}

type IsOpen = Box<dyn Fn() -> bool + Send>;

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, IsOpen>> {
        self.open.lock().expect("no code that holds the sessions panics")
    }

    /// To be called for each request.
    pub fn saw(&self, context: &RequestContext) {
        let mut open = self.lock();
        if open.contains_key(&context.session_id) {
            return;
        }
        // A new session is the occasion to forget old ones.
        open.retain(|_, is_open| is_open());
        let session = std::sync::Arc::downgrade(&context.session);
        let is_open = move || session.upgrade().is_some_and(|session| session.read().is_activated());
        open.insert(context.session_id, Box::new(is_open));
    }

    fn ids(&self) -> Vec<u32> {
        let mut open = self.lock();
        open.retain(|_, is_open| is_open());
        open.keys().copied().collect()
    }

    pub(super) fn count(&self) -> u32 {
        self.ids().len() as u32
    }

    /// How many different publishing intervals their subscriptions have.
    pub(super) fn publishing_intervals(&self, subscriptions: &::opcua::server::SubscriptionCache) -> u32 {
        let mut intervals = BTreeSet::new();
        for session in self.ids().into_iter().filter_map(|id| subscriptions.get_session_subscriptions(id)) {
            let session = session.lock();
            let known = session.subscription_ids().into_iter().filter_map(|id| session.get(id));
            intervals.extend(known.map(|subscription| subscription.publishing_interval()));
        }
        intervals.len() as u32
    }
}
