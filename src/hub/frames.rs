//! Pictures on demand: who wants one, and how often.
//!
//!     sink ── lease(terms) ──► Camera ◄── wait_for_demand ── Port ── capture thread
//!     sink ◄── next() ── slot ◄── deliver(picture) if due ◄────────────┘
//!
//! A [`Camera`] is what sinks hold, a [`Port`] is what the one capture thread of that camera holds. The camera
//! captures only while there is demand; a frame is encoded only if [`Port::wanted`] and [`Port::judge`] say that somebody
//! is to get it; each lease has one slot, where a newer picture replaces an older one that was not fetched.
//!
//! A lease with a deadband is asked before any encoding: the capture thread measures the frame once ([`LumaGrid`]), and
//! each lease compares that with the last picture that it got itself. A picture that does not differ enough counts as
//! sampled: the next look is one interval later. After a loss, and after the heartbeat, a picture comes anyway.
//!
//! Each lease keeps its own grid of due times, so that one that asks for a picture each second gets one each second
//! whatever the others ask. A frame belongs to the nearest point of the grid: it is due from half a frame interval
//! before. The grid does not drift, and begins anew when the camera paused.
//!
//! While the camera is not able to deliver, its [`Quality`] is bad with the reason; every lease gets that as its next
//! item, a new one at once. The port decides when it is good again.

mod restart;

use super::{Hub, lock};
use crate::model::{LumaGrid, Picture, Quality, Status};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// A picture, or why there is none.
pub type Shot = Result<Picture, Quality>;

/// What a sink holds of a camera. Cheap to clone.
#[derive(Clone)]
pub struct Camera(Arc<Shared>);

/// What the capture thread holds of a camera. When it is dropped, the camera is bad, until somebody registers it anew.
pub struct Port {
    shared: Arc<Shared>,
    comparison: Comparison,
}

/// What does not change of a camera while it has one port.
#[derive(Clone, Copy)]
pub struct Traits {
    pub comparison: Comparison,
    /// Makes a picture of another size or quality from one of this camera, of so many bytes at most; blocks for as long as
    /// that takes.
    pub reshape: fn(&Picture, Shape, usize) -> Shot,
    /// Bytes.
    pub max_bytes: usize,
}

/// How two pictures of a camera are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Percent. Parts of the picture that differ by less than this count as equal.
    pub noise_floor: f64,
    /// A change of the whole picture's brightness is no difference.
    pub ignore_brightness: bool,
    /// After this a lease with a deadband gets a picture even if nothing has changed.
    pub heartbeat: Option<Duration>,
}

impl Comparison {
    /// Percent, 0 to 100.
    pub fn difference(&self, one: &LumaGrid, other: &LumaGrid) -> f64 {
        one.difference(other, self.noise_floor, self.ignore_brightness)
    }
}

/// What a picture is made into; 0 leaves that as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Pixels. With one of width and height 0 the aspect ratio stays.
    pub width: u32,
    pub height: u32,
    /// Of the JPEG, 1 to 100.
    pub quality: u8,
}

/// What a lease asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Zero asks for every frame.
    pub interval: Duration,
    /// Percent: only pictures that differ from the last one by more.
    pub deadband: Option<f64>,
}

impl From<Duration> for Terms {
    fn from(interval: Duration) -> Self {
        Self { interval, deadband: None }
    }
}

struct Shared {
    name: Box<str>,
    state: Mutex<State>,
    /// Signalled when a lease begins or ends, and by a nudge.
    demand: Condvar,
}

struct State {
    traits: Traits,
    owner: Owner,
    leases: BTreeMap<u64, Due>,
    next_lease: u64,
    quality: Quality,
    last: Option<(Instant, Picture)>,
    /// The device may have come or gone.
    is_nudged: bool,
    /// Who waits for the device to be closed and begun anew.
    restarts: Vec<oneshot::Sender<()>>,
}

/// As with tags: held by a port, left behind by it, taken away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Held,
    Ended,
    Retired,
}

struct Due {
    /// Frames captured from here on are due.
    at: Instant,
    terms: Terms,
    /// What it got last: when it was captured and, if that was measured, how it looked.
    published: Option<(Instant, LumaGrid)>,
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

/// What the leases that are due ask of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Nothing,
    /// The picture, whatever it shows.
    Picture,
    /// The picture if it differs: it is to be measured and [`Port::judge`]d.
    Comparison,
}

impl Hub {
    /// Adds a camera. Its name is unique; the second of a name is refused, unless the first one's port is gone: then those
    /// who hold the camera, and their leases, go on with the new one.
    pub fn register_camera(&self, name: &str, traits: Traits) -> Option<Port> {
        let mut cameras = self.0.cameras.write().expect("no code that holds the cameras panics");
        let known = cameras.iter().find(|camera| camera.name() == name).map(|camera| camera.0.clone());
        let (shared, is_news) = match known {
            Some(shared) => {
                let mut state = lock(&shared.state);
                let before = std::mem::replace(&mut state.owner, Owner::Held);
                if before == Owner::Held {
                    return None;
                }
                state.traits = traits;
                state.quality = Quality::GOOD;
                drop(state);
                (shared, before == Owner::Retired)
            }
            None => {
                let shared = Arc::new(Shared {
                    name: name.into(),
                    state: Mutex::new(State {
                        traits,
                        owner: Owner::Held,
                        leases: BTreeMap::new(),
                        next_lease: 0,
                        quality: Quality::GOOD,
                        last: None,
                        is_nudged: false,
                        restarts: Vec::new(),
                    }),
                    demand: Condvar::new(),
                });
                cameras.push(Camera(shared.clone()));
                (shared, true)
            }
        };
        drop(cameras);
        if is_news {
            self.0.structure.send_modify(|count| *count += 1);
        }
        Some(Port { comparison: traits.comparison, shared })
    }

    /// All cameras in the order of their first registration.
    pub fn cameras(&self) -> Vec<Camera> {
        let cameras = self.0.cameras.read().expect("no code that holds the cameras panics");
        cameras.iter().filter(|camera| lock(&camera.0.state).owner != Owner::Retired).cloned().collect()
    }

    /// Takes away the cameras whose ports are gone; whether there were any.
    pub(super) fn retire_cameras(&self, quality: &Quality) -> bool {
        let cameras = self.cameras();
        let ended = cameras.iter().filter(|camera| lock(&camera.0.state).owner == Owner::Ended);
        let retire = |camera: &Camera| {
            lock(&camera.0.state).owner = Owner::Retired;
            camera.0.set_quality(quality.clone());
            self.end_conditions(&format!("cameras/{}", camera.name()));
        };
        ended.map(retire).count() > 0
    }
}

impl Camera {
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn quality(&self) -> Quality {
        lock(&self.0.state).quality.clone()
    }

    /// Asks for pictures from now on.
    pub fn lease(&self, terms: impl Into<Terms>) -> Lease {
        self.lease_from(Instant::now(), terms.into())
    }

    fn lease_from(&self, at: Instant, terms: Terms) -> Lease {
        let slot = Arc::<Slot>::default();
        let mut state = lock(&self.0.state);
        if state.quality.is_bad() {
            slot.fill(Err(state.quality.clone()));
        }
        let id = state.next_lease;
        state.next_lease += 1;
        state.leases.insert(id, Due { at, terms, published: None, slot: slot.clone() });
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
        let mut lease = self.lease_from(oldest.unwrap_or(now), Terms::default());
        match tokio::time::timeout(timeout, lease.next()).await {
            Ok(shot) => shot,
            Err(_) => {
                let reason = format!("camera {} gave no frame within {timeout:?}", self.name());
                Err(Quality::new(Status::BAD_TIMEOUT, reason))
            }
        }
    }

    /// A picture of this camera made into another shape. Blocks while it computes.
    pub fn reshape(&self, picture: &Picture, shape: Shape) -> Shot {
        self.reshape_within(picture, shape, usize::MAX)
    }

    /// The same, of `limit` bytes at most.
    pub fn reshape_within(&self, picture: &Picture, shape: Shape, limit: usize) -> Shot {
        let Traits { reshape, max_bytes, .. } = lock(&self.0.state).traits;
        reshape(picture, shape, max_bytes.min(limit))
    }

    /// Tells the capture thread that its device may have come or gone.
    pub fn nudge(&self) {
        lock(&self.0.state).is_nudged = true;
        self.0.demand.notify_all();
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

    /// Changes what is asked for, from the next picture on.
    pub fn set_terms(&self, terms: Terms) {
        if let Some(due) = lock(&self.camera.state).leases.get_mut(&self.id) {
            due.terms = terms;
            due.at = due.at.min(Instant::now() + terms.interval);
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
        &self.shared.name
    }

    pub fn demand(&self) -> Demand {
        Demand { leases: lock(&self.shared.state).leases.len() }
    }

    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// Blocks until somebody holds a lease or nudges, `timeout` at most.
    pub fn wait_for_demand(&self, timeout: Duration) -> Demand {
        self.wait_while(timeout, |state| state.leases.is_empty() && !state.is_nudged && state.restarts.is_empty())
    }

    /// Blocks until somebody nudges, `timeout` at most.
    pub fn wait_for_nudge(&self, timeout: Duration) {
        self.wait_while(timeout, |state| !state.is_nudged && state.restarts.is_empty());
    }

    fn wait_while(&self, timeout: Duration, condition: impl Fn(&State) -> bool) -> Demand {
        let state = lock(&self.shared.state);
        let (state, _) = self
            .shared
            .demand
            .wait_timeout_while(state, timeout, |state| condition(state))
            .expect("no code that holds this lock panics");
        Demand { leases: state.leases.len() }
    }

    /// Whether somebody nudged since this was asked last.
    pub fn take_nudge(&self) -> bool {
        std::mem::take(&mut lock(&self.shared.state).is_nudged)
    }

    /// What is to be done with a frame captured at `captured`.
    pub fn wanted(&self, captured: Instant, frame_interval: Duration) -> Wanted {
        let state = lock(&self.shared.state);
        let mut wanted = Wanted::Nothing;
        for due in state.leases.values().filter(|due| due.is_due(captured, frame_interval)) {
            if due.terms.deadband.is_some() {
                return Wanted::Comparison;
            }
            wanted = Wanted::Picture;
        }
        wanted
    }

    /// Shows how a frame looks to every lease that is due one, and returns whether any of them still wants it.
    pub fn judge(&self, captured: Instant, frame_interval: Duration, grid: &LumaGrid) -> bool {
        let mut state = lock(&self.shared.state);
        let mut is_wanted = false;
        for due in state.leases.values_mut().filter(|due| due.is_due(captured, frame_interval)) {
            if due.has_changed(captured, frame_interval, grid, self.comparison()) {
                is_wanted = true;
            } else {
                due.advance(captured, frame_interval);
            }
        }
        is_wanted
    }

    /// Hands a picture to every lease that is due one, and returns to how many. `grid` is how it looks, if it was
    /// measured.
    pub fn deliver(
        &self,
        captured: Instant,
        frame_interval: Duration,
        picture: &Picture,
        grid: Option<&LumaGrid>,
    ) -> usize {
        let mut state = lock(&self.shared.state);
        state.quality = Quality::GOOD;
        state.last = Some((captured, picture.clone()));
        let mut delivered = 0;
        for due in state.leases.values_mut().filter(|due| due.is_due(captured, frame_interval)) {
            if due.terms.deadband.is_some() && grid.is_none() {
                // It came after this frame was judged; the next one is measured for it.
                continue;
            }
            due.advance(captured, frame_interval);
            due.published = grid.map(|grid| (captured, grid.clone()));
            due.slot.fill(Ok(picture.clone()));
            delivered += 1;
        }
        delivered
    }

    /// Says whether the camera can deliver. Bad reaches every lease at once.
    pub fn set_quality(&self, quality: Quality) {
        self.shared.set_quality(quality);
    }
}

impl Shared {
    fn set_quality(&self, quality: Quality) {
        let mut state = lock(&self.state);
        if quality.is_bad() && state.quality != quality {
            for due in state.leases.values_mut() {
                due.slot.fill(Err(quality.clone()));
                // Whatever comes next is news, and wanted at once.
                due.published = None;
                due.at = due.at.min(Instant::now());
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
        let mut state = lock(&self.shared.state);
        state.owner = Owner::Ended;
        state.restarts.clear();
    }
}

impl Due {
    fn is_due(&self, captured: Instant, frame_interval: Duration) -> bool {
        // The first point of the grid is strict: a snapshot must not be older than asked for.
        let early = if self.terms.interval.is_zero() { Duration::ZERO } else { frame_interval / 2 };
        captured + early >= self.at
    }

    /// The next point of the grid; of a new grid if this frame came too late for the old one, because the camera had to
    /// start first or paused.
    fn advance(&mut self, captured: Instant, frame_interval: Duration) {
        let interval = self.terms.interval;
        let slack = if frame_interval.is_zero() { interval / 2 } else { frame_interval };
        let from = if captured >= self.at + slack { captured } else { self.at };
        self.at = from + interval;
    }

    /// Whether its deadband lets a frame through.
    fn has_changed(
        &self,
        captured: Instant,
        frame_interval: Duration,
        grid: &LumaGrid,
        comparison: &Comparison,
    ) -> bool {
        let (Some(deadband), Some((at, last))) = (self.terms.deadband, &self.published) else { return true };
        let heartbeat = comparison.heartbeat.and_then(|heartbeat| at.checked_add(heartbeat));
        heartbeat.is_some_and(|heartbeat| captured + frame_interval / 2 >= heartbeat)
            || comparison.difference(grid, last) > deadband
    }
}

#[cfg(test)]
mod tests;
