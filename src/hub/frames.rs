//! Pictures on demand: who wants one, and how often.
//!
//!     sink ── lease(interval) ──► Camera ◄── wait_for_demand ── Port ── capture thread
//!     sink ◄── next() ── slot ◄── deliver(picture) if due ◄───────────────┘
//!
//! A [`Camera`] is what sinks hold, a [`Port`] is what the one capture thread of that camera holds. The camera
//! captures only while there is demand; a frame is encoded only if [`Port::is_wanted`] says that somebody is due one;
//! each lease has one slot, where a newer picture replaces an older one that was not fetched.
//!
//! Each lease keeps its own grid of due times, so that one that asks for a picture each second gets one each second
//! whatever the others ask. A frame belongs to the nearest point of the grid: it is due from half a frame interval
//! before. The grid does not drift, and begins anew when the camera paused.
//!
//! While the camera is not able to deliver, its [`Quality`] is bad with the reason; every lease gets that as its next
//! item, a new one at once. The port decides when it is good again.

use super::{Hub, lock};
use crate::model::{Picture, Quality, Status};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A picture, or why there is none.
pub type Shot = Result<Picture, Quality>;

/// What a sink holds of a camera. Cheap to clone.
#[derive(Clone)]
pub struct Camera(Arc<Shared>);

/// What the capture thread holds of a camera. When it is dropped, the camera is bad for good.
pub struct Port(Arc<Shared>);

struct Shared {
    name: Box<str>,
    state: Mutex<State>,
    /// Signalled when a lease begins or ends.
    demand: Condvar,
}

struct State {
    leases: BTreeMap<u64, Due>,
    next_lease: u64,
    quality: Quality,
    last: Option<(Instant, Picture)>,
}

struct Due {
    /// Frames captured from here on are due.
    at: Instant,
    /// Zero: every frame.
    interval: Duration,
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    shot: Mutex<Option<Shot>>,
    filled: Notify,
}

/// Keeps the camera capturing. Dropping it ends the demand.
pub struct Lease {
    camera: Arc<Shared>,
    id: u64,
    slot: Arc<Slot>,
}

/// What all leases of a camera ask for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub leases: usize,
}

impl Hub {
    /// Adds a camera. Its name is unique; the second of a name is refused.
    pub fn register_camera(&self, name: &str) -> Option<Port> {
        let mut cameras = self.0.cameras.write().expect("no code that holds the cameras panics");
        if cameras.iter().any(|camera| camera.name() == name) {
            return None;
        }
        let shared = Arc::new(Shared {
            name: name.into(),
            state: Mutex::new(State { leases: BTreeMap::new(), next_lease: 0, quality: Quality::GOOD, last: None }),
            demand: Condvar::new(),
        });
        cameras.push(Camera(shared.clone()));
        drop(cameras);
        self.0.structure.send_modify(|count| *count += 1);
        Some(Port(shared))
    }

    /// All cameras in the order of their registration; the first is the first of the configuration.
    pub fn cameras(&self) -> Vec<Camera> {
        self.0.cameras.read().expect("no code that holds the cameras panics").clone()
    }
}

impl Camera {
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn quality(&self) -> Quality {
        lock(&self.0.state).quality.clone()
    }

    /// Asks for a picture each `interval` from now on; zero asks for every frame.
    pub fn lease(&self, interval: Duration) -> Lease {
        self.lease_from(Instant::now(), interval)
    }

    fn lease_from(&self, at: Instant, interval: Duration) -> Lease {
        let slot = Arc::<Slot>::default();
        let mut state = lock(&self.0.state);
        if state.quality.is_bad() {
            slot.fill(Err(state.quality.clone()));
        }
        let id = state.next_lease;
        state.next_lease += 1;
        state.leases.insert(id, Due { at, interval, slot: slot.clone() });
        self.0.demand.notify_all();
        drop(state);
        Lease { camera: self.0.clone(), id, slot }
    }

    /// One picture, captured not longer than `max_age` ago; with zero, captured from now on.
    pub async fn snapshot(&self, max_age: Duration, timeout: Duration) -> Shot {
        let now = Instant::now();
        let oldest = now.checked_sub(max_age);
        {
            let state = lock(&self.0.state);
            if state.quality.is_bad() {
                return Err(state.quality.clone());
            }
            if let Some((captured, picture)) = &state.last
                && oldest.is_none_or(|oldest| *captured >= oldest)
            {
                return Ok(picture.clone());
            }
        }
        let mut lease = self.lease_from(oldest.unwrap_or(now), Duration::ZERO);
        match tokio::time::timeout(timeout, lease.next()).await {
            Ok(shot) => shot,
            Err(_) => {
                let reason = format!("camera {} gave no frame within {timeout:?}", self.name());
                Err(Quality::new(Status::BAD_TIMEOUT, reason))
            }
        }
    }
}

impl Lease {
    /// The next picture, or why there is none. If more than one came since the last call, the newest. Cancel safe.
    pub async fn next(&mut self) -> Shot {
        loop {
            if let Some(shot) = lock(&self.slot.shot).take() {
                return shot;
            }
            self.slot.filled.notified().await;
        }
    }

    /// Changes how often, from the next picture on.
    pub fn set_interval(&self, interval: Duration) {
        if let Some(due) = lock(&self.camera.state).leases.get_mut(&self.id) {
            due.interval = interval;
            due.at = due.at.min(Instant::now() + interval);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.camera.state).leases.remove(&self.id);
        self.camera.demand.notify_all();
    }
}

impl Slot {
    fn fill(&self, shot: Shot) {
        *lock(&self.shot) = Some(shot);
        self.filled.notify_one();
    }
}

impl Port {
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn demand(&self) -> Demand {
        Demand { leases: lock(&self.0.state).leases.len() }
    }

    /// Blocks until somebody holds a lease, `timeout` at most.
    pub fn wait_for_demand(&self, timeout: Duration) -> Demand {
        let state = lock(&self.0.state);
        let (state, _) = self
            .0
            .demand
            .wait_timeout_while(state, timeout, |state| state.leases.is_empty())
            .expect("no code that holds this lock panics");
        Demand { leases: state.leases.len() }
    }

    /// Whether a frame captured at `captured` is due to anybody, so that it is worth encoding.
    pub fn is_wanted(&self, captured: Instant, frame_interval: Duration) -> bool {
        let state = lock(&self.0.state);
        state.leases.values().any(|due| due.is_due(captured, frame_interval))
    }

    /// Hands a picture to every lease that is due one, and returns to how many.
    pub fn deliver(&self, captured: Instant, frame_interval: Duration, picture: &Picture) -> usize {
        let mut state = lock(&self.0.state);
        state.quality = Quality::GOOD;
        state.last = Some((captured, picture.clone()));
        let mut delivered = 0;
        for due in state.leases.values_mut().filter(|due| due.is_due(captured, frame_interval)) {
            due.advance(captured, frame_interval);
            due.slot.fill(Ok(picture.clone()));
            delivered += 1;
        }
        delivered
    }

    /// Says whether the camera can deliver. Bad reaches every lease at once.
    pub fn set_quality(&self, quality: Quality) {
        let mut state = lock(&self.0.state);
        if quality.is_bad() && state.quality != quality {
            for due in state.leases.values() {
                due.slot.fill(Err(quality.clone()));
            }
        }
        if quality.is_bad() {
            state.last = None;
        }
        state.quality = quality;
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let reason = format!("camera {} has stopped", self.name());
        self.set_quality(Quality::new(Status::BAD_SHUTDOWN, reason));
    }
}

impl Due {
    fn is_due(&self, captured: Instant, frame_interval: Duration) -> bool {
        // The first point of the grid is strict: a snapshot must not be older than asked for.
        let early = if self.interval.is_zero() { Duration::ZERO } else { frame_interval / 2 };
        captured + early >= self.at
    }

    /// The next point of the grid; of a new grid if this frame came too late for the old one, because the camera had to
    /// start first or paused.
    fn advance(&mut self, captured: Instant, frame_interval: Duration) {
        let slack = if frame_interval.is_zero() { self.interval / 2 } else { frame_interval };
        let from = if captured >= self.at + slack { captured } else { self.at };
        self.at = from + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::model::Timestamp;

    const FRAME: Duration = Duration::from_millis(40);

    fn picture(sequence: u64) -> Picture {
        let jpeg = bytes::Bytes::from_static(b"jpeg");
        Picture { jpeg, width: 1, height: 1, sequence, captured: Timestamp::UNIX_EPOCH }
    }

    fn camera() -> (Camera, Port) {
        let hub = Hub::new(Clock::real());
        let port = hub.register_camera("line1").unwrap();
        assert!(hub.register_camera("line1").is_none(), "names are unique");
        (hub.cameras().remove(0), port)
    }

    /// Feeds frames at 25 a second, with some jitter, and returns which of them each lease got.
    fn feed(port: &Port, leases: &[&Lease], frames: u32) -> Vec<Vec<u64>> {
        let start = Instant::now();
        let mut got = vec![Vec::new(); leases.len()];
        for frame in 0..frames {
            let jitter = Duration::from_millis(if frame % 2 == 0 { 3 } else { 0 });
            let captured = start + FRAME * frame + jitter;
            if !port.is_wanted(captured, FRAME) {
                continue;
            }
            port.deliver(captured, FRAME, &picture(frame.into()));
            for (lease, got) in leases.iter().zip(&mut got) {
                if let Some(Ok(picture)) = lock(&lease.slot.shot).take() {
                    got.push(picture.sequence);
                }
            }
        }
        got
    }

    #[test]
    fn each_lease_gets_its_own_rate() {
        let (camera, port) = camera();
        let leases = [0, 200, 1000].map(|ms| camera.lease(Duration::from_millis(ms)));
        let got = feed(&port, &leases.each_ref(), 100);
        assert_eq!(got[0].len(), 100);
        assert_eq!(got[1].len(), 20, "{:?}", got[1]);
        assert_eq!(got[2].len(), 4, "{:?}", got[2]);
    }

    #[test]
    fn without_a_lease_nothing_is_wanted() {
        let (camera, port) = camera();
        assert_eq!(port.wait_for_demand(Duration::ZERO).leases, 0);
        assert!(!port.is_wanted(Instant::now(), FRAME));
        let lease = camera.lease(Duration::ZERO);
        assert_eq!(port.wait_for_demand(Duration::from_secs(9)).leases, 1);
        drop(lease);
        assert_eq!(port.demand().leases, 0);
    }

    #[test]
    fn a_camera_that_takes_its_time_to_start_does_not_leave_the_grid_behind() {
        let (camera, port) = camera();
        let lease = camera.lease(Duration::from_secs(10));
        let first = Instant::now() + Duration::from_secs(1);
        assert_eq!(port.deliver(first, FRAME, &picture(0)), 1);
        assert!(!port.is_wanted(first + Duration::from_secs(9), FRAME), "ten seconds from the first picture on");
        assert!(port.is_wanted(first + Duration::from_secs(10), FRAME));
        drop(lease);
    }

    #[test]
    fn after_a_pause_a_lease_does_not_catch_up() {
        let (camera, port) = camera();
        let lease = camera.lease(Duration::from_millis(200));
        let late = Instant::now() + Duration::from_secs(60);
        assert_eq!(port.deliver(late, FRAME, &picture(0)), 1);
        assert!(!port.is_wanted(late + FRAME, FRAME));
        assert!(port.is_wanted(late + Duration::from_millis(200), FRAME));
        drop(lease);
    }

    #[tokio::test]
    async fn a_snapshot_is_as_young_as_asked() {
        let (camera, port) = camera();
        let timeout = Duration::from_millis(20);
        let now = Instant::now();
        let lease = camera.lease(Duration::ZERO);
        port.deliver(now + Duration::from_micros(1), FRAME, &picture(1));
        assert_eq!(camera.snapshot(Duration::from_secs(60), timeout).await.unwrap().sequence, 1);
        let error = camera.snapshot(Duration::ZERO, timeout).await.unwrap_err();
        assert_eq!(error.status, Status::BAD_TIMEOUT);
        drop(lease);

        let shot = camera.snapshot(Duration::ZERO, Duration::from_secs(9));
        let capture = async {
            while port.demand().leases == 0 {
                tokio::task::yield_now().await;
            }
            port.deliver(now, FRAME, &picture(2));
            port.deliver(Instant::now(), FRAME, &picture(3));
        };
        let (shot, ()) = tokio::join!(shot, capture);
        assert_eq!(shot.unwrap().sequence, 3, "the frame from before the request does not count");
    }

    #[tokio::test]
    async fn a_lost_camera_reaches_every_lease_and_every_new_one() {
        let (camera, port) = camera();
        let mut lease = camera.lease(Duration::from_secs(1));
        let lost = Quality::new(Status::BAD_NOT_CONNECTED, "unplugged");
        port.set_quality(lost.clone());
        assert_eq!(lease.next().await.unwrap_err(), lost);
        assert_eq!(camera.lease(Duration::ZERO).next().await.unwrap_err(), lost);
        assert_eq!(camera.snapshot(Duration::MAX, Duration::ZERO).await.unwrap_err(), lost);

        port.deliver(Instant::now(), FRAME, &picture(1));
        assert!(lease.next().await.is_ok());
        drop(port);
        assert_eq!(lease.next().await.unwrap_err().status, Status::BAD_SHUTDOWN);
    }
}
