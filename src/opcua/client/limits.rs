//! How much a server takes in one request, and cutting what is asked into such pieces.
//!
//! A server says its OperationLimits (OPC 10000-5, 6.3.11), or says nothing, or means less than it says. So each limit is
//! where we begin: whenever a request is refused for its size the piece is halved, for good, and tried again.

use super::error::ServiceError;
use opcua::types::{Error, StatusCode};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one service: the number of operations in one request.
#[derive(Debug)]
pub struct Limit(AtomicUsize);

/// Read once at the beginning of a session.
#[derive(Debug)]
pub struct OperationLimits {
    pub read: Limit,
    pub write: Limit,
    pub browse: Limit,
    pub translate: Limit,
    pub monitored_items: Limit,
    /// In one subscription. Not a limit of a request.
    pub items_per_subscription: usize,
    /// That a session may hold at once.
    pub continuation_points: usize,
}

/// Without a limit of the server's. More in one request would not be faster, and others wait meanwhile.
const DEFAULT: usize = 1000;
const ITEMS_PER_SUBSCRIPTION: usize = 10_000;
const CONTINUATION_POINTS: usize = 100;

impl Limit {
    /// 0 is no limit.
    pub(super) fn new(said: u32) -> Self {
        Self(AtomicUsize::new(match said as usize {
            0 => DEFAULT,
            said => said.min(DEFAULT),
        }))
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn halve(&self, from: usize) {
        self.0.fetch_min((from / 2).max(1), Ordering::Relaxed);
    }

    /// Calls a service until all items are through, and gives the results in their order.
    pub(super) async fn chunked<I, O, F>(
        &self,
        service: &'static str,
        items: &[I],
        mut call: impl FnMut(Vec<I>) -> F,
    ) -> Result<Vec<O>, ServiceError>
    where
        I: Clone,
        F: Future<Output = Result<Vec<O>, Error>>,
    {
        let mut results = Vec::with_capacity(items.len());
        while results.len() < items.len() {
            let rest = &items[results.len()..];
            let size = self.get().min(rest.len());
            match call(rest[..size].to_vec()).await {
                Ok(some) if some.len() == size => results.extend(some),
                Ok(some) => {
                    let detail = format!("{} results for {size} operations", some.len());
                    return Err(ServiceError::wrong(service, detail));
                }
                Err(error) if size > 1 && is_too_much(error.status()) => self.halve(size),
                Err(error) => return Err(ServiceError::new(service, &error)),
            }
        }
        Ok(results)
    }
}

impl OperationLimits {
    /// In the order of [`super::connection::LIMITS`].
    pub(super) fn new(said: [u32; 7]) -> Self {
        let [read, write, browse, translate, monitored_items, items_per_subscription, continuation_points] = said;
        let or = |said: u32, default: usize| if said == 0 { default } else { (said as usize).min(default) };
        Self {
            read: Limit::new(read),
            write: Limit::new(write),
            browse: Limit::new(browse),
            translate: Limit::new(translate),
            monitored_items: Limit::new(monitored_items),
            items_per_subscription: or(items_per_subscription, ITEMS_PER_SUBSCRIPTION),
            continuation_points: or(continuation_points, CONTINUATION_POINTS),
        }
    }
}

fn is_too_much(status: StatusCode) -> bool {
    use StatusCode as Code;
    let too_much = [
        Code::BadTooManyOperations,
        Code::BadEncodingLimitsExceeded,
        Code::BadRequestTooLarge,
        Code::BadResponseTooLarge,
        Code::BadTcpMessageTooLarge,
    ];
    too_much.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that takes `most` at once.
    async fn served(limit: &Limit, most: usize, count: usize) -> (Result<Vec<usize>, ServiceError>, usize) {
        let calls = std::cell::Cell::new(0);
        let items: Vec<usize> = (0..count).collect();
        let outcome =
            limit.chunked("Read", &items, |some| {
                calls.set(calls.get() + 1);
                async move {
                    if some.len() > most { Err(Error::new(StatusCode::BadTooManyOperations, "")) } else { Ok(some) }
                }
            });
        (outcome.await, calls.get())
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_of_its_limits_is_found_out_once() {
        let limit = Limit::new(0);
        let (results, calls) = served(&limit, 10, 2500).await;
        assert_eq!(results.unwrap(), (0..2500).collect::<Vec<_>>());
        assert!(limit.get() <= 10 && calls < 2500 / 7 + 10, "{limit:?} {calls}");
        assert_eq!(served(&limit, 10, 7).await.1, 1);
    }

    #[tokio::test]
    async fn one_at_a_time_is_the_least_and_then_it_is_an_error() {
        let limit = Limit::new(4);
        assert_eq!(served(&limit, 1, 3).await.0.unwrap(), [0, 1, 2]);
        let error = served(&limit, 0, 3).await.0.unwrap_err();
        assert_eq!(error.status, StatusCode::BadTooManyOperations);
        let short = limit.chunked("Read", &[1, 2], |_| async { Ok(Vec::<u8>::new()) }).await.unwrap_err();
        assert_eq!(short.status, StatusCode::BadUnknownResponse);
    }
}
