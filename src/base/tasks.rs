//! Named tasks and threads, restarted when they fail, stopped in order.
//!
//! A [`Tasks`] is a group that is stopped together; the app holds one for each part of the configuration that runs, and
//! stops them in the order in which data flows (sources, then sinks). A task is a function that makes a future, so that one that panics or returns
//! early is logged and made anew after a wait: a fault inside a protocol crate costs a reconnect, not the process.
//!
//!     running --panic or early return--> waiting (backoff) --> running
//!        └──────── stop ────────┴── stop ──> joined, or abandoned after the deadline with its name in the log
//!
//! Threads (for blocking device I/O) follow the same rules; they see the stop as a flag or as a condition.

use super::Backoff;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// A task that ran for so long and failed is not one that fails at once.
const CALM: Duration = Duration::from_secs(60);

/// Seen by a task when it should end. Cheap to clone.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Completes when the group is asked to stop.
    pub async fn stopped(&self) {
        // An error means that the group is gone, which is a stop as well.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }

    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits, but not longer than until the stop. `false` if it was the stop.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            () = self.stopped() => false,
        }
    }
}

/// A group of tasks that stops together.
pub struct Tasks {
    name: Arc<str>,
    stop: watch::Sender<bool>,
    spawner: Spawner,
}

/// By name, in the order in which they were started.
type Running = Vec<(Arc<str>, JoinHandle<()>)>;

/// Adds tasks to a group, also from within one of them. Cheap to clone.
#[derive(Clone)]
pub struct Spawner {
    stop: Stop,
    running: Arc<Mutex<Running>>,
}

impl Tasks {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let stop = watch::Sender::new(false);
        let spawner = Spawner { stop: Stop(stop.subscribe()), running: Arc::default() };
        Self { name: name.into(), stop, spawner }
    }

    pub fn stop_signal(&self) -> Stop {
        self.spawner.stop.clone()
    }

    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// [`Spawner::spawn`]
    pub fn spawn<F>(&self, name: impl Into<Arc<str>>, make: impl FnMut(Stop) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawner.spawn(name, make);
    }

    /// [`Spawner::spawn_thread`]
    pub fn spawn_thread(&self, name: impl Into<Arc<str>>, body: impl FnMut(&Stop) + Send + 'static) {
        self.spawner.spawn_thread(name, body);
    }

    /// Asks all to end and waits for them, `deadline` at most in all.
    pub async fn stop(self, deadline: Duration) {
        self.stop.send_replace(true);
        let until = tokio::time::Instant::now() + deadline;
        // One at a time: those that are still to end may yet start others.
        while let Some((task, handle)) = self.spawner.take() {
            let abort = handle.abort_handle();
            if tokio::time::timeout_at(until, handle).await.is_err() {
                warn!(group = %self.name, %task, "Task did not end in time; leaving it behind.");
                abort.abort();
            }
        }
        info!(group = %self.name, "Stopped.");
    }
}

impl Spawner {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().expect("no code that holds the list panics")
    }

    fn take(&self) -> Option<(Arc<str>, JoinHandle<()>)> {
        let mut running = self.lock();
        if running.is_empty() { None } else { Some(running.remove(0)) }
    }

    /// Runs what `make` makes until the group stops; again, after a wait, if it panics or returns before that.
    pub fn spawn<F>(&self, name: impl Into<Arc<str>>, mut make: impl FnMut(Stop) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (name, stop) = (name.into(), self.stop.clone());
        let task = name.clone();
        #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
        let handle = tokio::spawn(async move {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            while !stop.is_stopped() {
                let began = tokio::time::Instant::now();
                let outcome = tokio::spawn(make(stop.clone())).await;
                if began.elapsed() > CALM {
                    backoff.reset();
                }
                if stop.is_stopped() {
                    break;
                }
                match outcome {
                    Ok(()) => warn!(%task, "Task ended early; starting it again."),
                    Err(error) => error!(%task, %error, "Task failed; starting it again."),
                }
                if !stop.sleep(backoff.wait()).await {
                    break;
                }
            }
        });
        self.lock().push((name, handle));
    }

    /// Runs `body` on a thread of its own until the group stops; again, after a wait, if it panics or returns.
    pub fn spawn_thread(&self, name: impl Into<Arc<str>>, mut body: impl FnMut(&Stop) + Send + 'static) {
        let (name, stop) = (name.into(), self.stop.clone());
        let task = name.clone();
        let handle = tokio::task::spawn_blocking(move || {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            while !stop.is_stopped() {
                let began = std::time::Instant::now();
                let outcome = catch_unwind(AssertUnwindSafe(|| body(&stop)));
                if began.elapsed() > CALM {
                    backoff.reset();
                }
                if stop.is_stopped() {
                    break;
                }
                match outcome {
                    Ok(()) => warn!(%task, "Thread ended early; starting it again."),
                    Err(_) => error!(%task, "Thread failed; starting it again."),
                }
                let wait = backoff.wait();
                tokio::runtime::Handle::current().block_on(stop.sleep(wait));
            }
        });
        self.lock().push((name, handle));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_comes_back_and_stops_when_asked() {
        let runs = Arc::new(AtomicU32::new(0));
        let tasks = Tasks::new("test");
        let counted = runs.clone();
        tasks.spawn("flaky", move |stop| {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(run >= 2, "fails twice");
                stop.stopped().await;
            }
        });
        while runs.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tasks.stop(Duration::from_secs(1)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_task_that_does_not_listen_is_left_behind() {
        let tasks = Tasks::new("test");
        tasks.spawn("deaf", |_| std::future::pending());
        tokio::time::timeout(Duration::from_secs(10), tasks.stop(Duration::from_millis(10))).await.unwrap();
    }

    #[tokio::test]
    async fn a_thread_sees_the_stop() {
        let tasks = Tasks::new("test");
        tasks.spawn_thread("thread", |stop| {
            while !stop.is_stopped() {
                std::thread::yield_now();
            }
        });
        tokio::time::timeout(Duration::from_secs(10), tasks.stop(Duration::from_secs(9))).await.unwrap();
    }
}
