//! What the device is asked to do by somebody who may: to read its configuration anew.
//!
//! The hub carries the request from the sink that took it to whoever said [`Hub::reloads`], once, at start. It is answered
//! once, with a sentence for people; until somebody takes requests, or when nobody answers in time, that is said instead.

use super::{Hub, lock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// People who press twice wait for the first.
const PENDING: usize = 4;
/// How long a reload may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A sentence: what was applied, or why nothing was.
pub type Outcome = Result<String, String>;

/// A request to read the configuration anew. Dropping it unanswered counts as a refusal.
#[derive(Debug)]
pub struct Reload {
    pub reply: oneshot::Sender<Outcome>,
}

impl Hub {
    /// Requests to reload come here from now on, and no longer to whoever took them before.
    pub fn reloads(&self) -> mpsc::Receiver<Reload> {
        let (sender, receiver) = mpsc::channel(PENDING);
        *lock(&self.0.reloads) = Some(sender);
        receiver
    }

    /// Asks for the configuration to be read anew and applied.
    pub async fn reload(&self) -> Outcome {
        let taker = lock(&self.0.reloads).clone();
        let Some(taker) = taker else {
            return Err("this device cannot reload its configuration while it runs; restart it".into());
        };
        let gone = |_| "whoever reloads the configuration has ended".to_owned();
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            taker.send(Reload { reply }).await.map_err(|_| gone(()))?;
            answer.await.map_err(|_| gone(()))?
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("the reload did not end within {} s", TIMEOUT.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    #[tokio::test(start_paused = true)]
    async fn a_reload_is_answered_by_who_takes_it_and_refused_by_nobody() {
        let hub = Hub::new(Clock::real());
        assert!(hub.reload().await.unwrap_err().contains("cannot reload"));
        let mut reloads = hub.reloads();
        let answer = async {
            reloads.recv().await.unwrap().reply.send(Ok("nothing changed".into())).unwrap();
            drop(reloads.recv().await.unwrap());
            let silent = reloads.recv().await.unwrap();
            tokio::time::sleep(TIMEOUT * 2).await;
            drop(silent);
        };
        let ask = async {
            assert_eq!(hub.reload().await, Ok("nothing changed".into()));
            assert!(hub.reload().await.unwrap_err().contains("has ended"));
            assert!(hub.reload().await.unwrap_err().contains("30 s"));
        };
        tokio::join!(answer, ask);
    }
}
