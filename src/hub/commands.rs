//! What the device itself is asked to do by somebody who may: to read its configuration anew, to try another one, to
//! reboot, to show where it is.
//!
//!     sink ── ask(Demand) ──► whoever took Hub::demands, once, at start (the app)
//!       ▲        one answer, a sentence for people ◄──┘   │
//!       └── next_report ◄── the last 16 ◄── report ───────┘  how a trial goes on that outlives whoever asked for it
//!
//! Until somebody takes demands, or when nobody answers in time, that is said instead. A configuration on trial may end
//! the connection through which it came, the sink that took it, or the process: its further answers are reports, with an
//! address that only the sink understands, and wait here until a sink fetches them.

use super::{Hub, lock};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

/// People who press twice wait for the first.
const PENDING: usize = 4;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A trial has three at most, an update one each few seconds, and there is one at a time of each. When full the oldest goes.
const REPORTS: usize = 16;

/// A sentence: what was done, or why nothing was.
pub type Outcome = Result<String, String>;

/// What the device is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// To read the configuration anew.
    Reload,
    /// To try a configuration, and to go back to the one before unless it is confirmed. The answer says whether the trial
    /// began; how it goes on is said by reports.
    Apply(Apply),
    /// Somebody who came through to the device at `heard` confirms the trial of this name.
    Confirm {
        id: String,
        heard: Instant,
    },
    /// The text of the configuration that runs, without its secrets.
    Configuration,
    Reboot,
    /// To blink.
    Identify {
        lasts: Duration,
    },
    /// To log by another filter, for ever or for so long.
    Log {
        filter: String,
        lasts: Option<Duration>,
    },
    /// To install other firmware. The answer says whether that began; how it goes on, over a reboot, is said by reports.
    Update(Update),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub id: String,
    pub url: String,
    pub sha256: String,
    pub version: String,
    /// As of [`Apply`].
    pub address: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Apply {
    /// What the confirmation names.
    pub id: String,
    pub toml: String,
    pub confirm_within: Duration,
    /// Where reports go; only who asks understands it.
    pub address: String,
}

/// A demand on its way. Dropping it unanswered counts as a refusal. When `reply` is closed whoever asked has been told that it
/// failed, and it must not be done.
#[derive(Debug)]
pub struct DeviceRequest {
    pub demand: Demand,
    pub reply: oneshot::Sender<Outcome>,
}

/// How a trial or an update goes on.
#[derive(Debug)]
pub struct Report {
    pub address: String,
    pub news: News,
    /// For who has to know that it has arrived. Dropped when it has not, and never will.
    pub arrived: Option<oneshot::Sender<()>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Progress(String),
    Done(String),
    Failed(String),
}

#[derive(Default)]
pub(super) struct Desk {
    taker: Mutex<Option<mpsc::Sender<DeviceRequest>>>,
    reports: Mutex<VecDeque<Report>>,
    is_news: Notify,
}

impl Hub {
    /// Demands come here from now on, and no longer to whoever took them before.
    pub fn demands(&self) -> mpsc::Receiver<DeviceRequest> {
        let (sender, receiver) = mpsc::channel(PENDING);
        *lock(&self.0.desk.taker) = Some(sender);
        receiver
    }

    /// Asks for the configuration to be read anew and applied.
    pub async fn reload(&self) -> Outcome {
        self.ask(Demand::Reload).await
    }

    /// Asks the device for something, and waits for the answer.
    pub async fn ask(&self, demand: Demand) -> Outcome {
        let taker = lock(&self.0.desk.taker).clone();
        let Some(taker) = taker else {
            return Err("this device takes no commands about itself while it runs; restart it".into());
        };
        let gone = |_| "whoever does this has ended".to_owned();
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            taker.send(DeviceRequest { demand, reply }).await.map_err(|_| gone(()))?;
            answer.await.map_err(|_| gone(()))?
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("it did not end within {} s", TIMEOUT.as_secs())),
        }
    }

    /// Says how a trial goes on.
    pub fn report(&self, address: impl Into<String>, news: News) {
        self.push_report(Report { address: address.into(), news, arrived: None });
    }

    /// Says how something ended. `true` when that has arrived at the broker, which may take until there is one; `false` when it has
    /// been lost on the way, with the connection that had taken it.
    pub async fn report_until_arrived(&self, address: impl Into<String>, news: News) -> bool {
        let (arrived, receipt) = oneshot::channel();
        self.push_report(Report { address: address.into(), news, arrived: Some(arrived) });
        receipt.await.is_ok()
    }

    fn push_report(&self, report: Report) {
        let mut reports = lock(&self.0.desk.reports);
        if reports.len() == REPORTS {
            reports.pop_front();
        }
        reports.push_back(report);
        drop(reports);
        self.0.desk.is_news.notify_one();
    }

    /// The oldest report that nobody has fetched. Cancel safe.
    pub async fn next_report(&self) -> Report {
        loop {
            if let Some(report) = lock(&self.0.desk.reports).pop_front() {
                return report;
            }
            self.0.desk.is_news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    #[tokio::test(start_paused = true)]
    async fn a_demand_is_answered_by_who_takes_it_and_refused_by_nobody() {
        let hub = Hub::new(Clock::real());
        assert!(hub.reload().await.unwrap_err().contains("takes no commands"));
        let mut demands = hub.demands();
        let answer = async {
            let first = demands.recv().await.unwrap();
            assert_eq!(first.demand, Demand::Reload);
            first.reply.send(Ok("nothing changed".into())).unwrap();
            drop(demands.recv().await.unwrap());
            let silent = demands.recv().await.unwrap();
            tokio::time::sleep(TIMEOUT * 2).await;
            drop(silent);
        };
        let ask = async {
            assert_eq!(hub.reload().await, Ok("nothing changed".into()));
            assert!(hub.ask(Demand::Reboot).await.unwrap_err().contains("has ended"));
            assert!(hub.reload().await.unwrap_err().contains("30 s"));
        };
        tokio::join!(answer, ask);
    }

    #[tokio::test]
    async fn reports_wait_for_who_fetches_them_and_the_oldest_go() {
        let hub = Hub::new(Clock::real());
        for number in 0..REPORTS + 2 {
            hub.report(number.to_string(), News::Done(String::new()));
        }
        for number in 2..REPORTS + 2 {
            assert_eq!(hub.next_report().await.address, number.to_string());
        }
        let (late, ()) = tokio::join!(hub.next_report(), async { hub.report("a", News::Failed("no".into())) });
        assert_eq!(late.news, News::Failed("no".into()));
    }
}
