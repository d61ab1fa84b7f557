//! The controls of one camera (brightness, exposure, focus ...) as tags `cameras/<name>/Controls/<control>`.
//!
//!     closed ──asked: open, list, read all──► open ──event, write: read again──► open
//!      │  ▲                                  │  │
//!      │  └──── nobody asks any more ◄───────┘  │
//!      └───────────── gone ──► lost ◄── gone ───┘   (bad with the reason; tried again until it is back)
//!
//! While the device is open its events tell of every change. It is open while somebody asks: reads, writes, or monitors,
//! which to the owner of live tags is a refresh each second. An idle camera is left alone, so that it may sleep, be opened
//! by others, or have its driver unloaded. The price: with [`WhenOpen::OnDemand`], a sink that does not ask sees no change
//! between.
//!
//! - [`Controls`] is the life of it, on a thread of its own, because a bad USB camera can hold a call for seconds.
//! - `control.rs` says what a control is and what it takes; [`Place`] and [`Port`] are the seam to whoever has controls.
//!
//! Invariants: a device that is gone is closed at once, because some drivers let nobody open it again before. A control's
//! flags and limits are asked for anew before each write and after each event, never remembered. A tag once registered
//! stays: with another device in the same place it is bad, or taken up again by a control of the same name and type.
//!
//! Capturing is another file on the same device, and neither waits for the other.

mod control;

pub use control::{Control, Kind, Obstacle, Place, Port, PortError, number_of, text_of, value_of};

use super::device::CameraError;
use crate::base::{Backoff, Stop};
use crate::hub::{Hub, RegisterError, Registration, Request, WriteRequest};
use crate::model::{Quality, Sample, Status, TagId, TagName, TagSpec, Value};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// How often it is looked whether the device is still, or again, there.
const GLANCE: Duration = Duration::from_millis(500);
/// The longest wait for a device that exists and cannot be opened.
const RETRY: Duration = Duration::from_secs(5);
/// How long the device stays open after it was asked last; longer than a monitoring sink takes from one refresh to the
/// next, also if another camera does not answer.
const LINGER: Duration = Duration::from_secs(6);

/// When a device is open for its controls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenOpen {
    Never,
    #[default]
    OnDemand,
    Always,
}

pub struct Controls {
    hub: Hub,
    camera: String,
    place: Box<dyn Place>,
    open: WhenOpen,
    tags: Registration,
    slots: Vec<Slot>,
    port: Option<Box<dyn Port>>,
    asked: Instant,
    /// Why the device cannot be opened.
    loss: Option<CameraError>,
    backoff: Backoff,
    /// When to look at the device next: whether it is there still, or again.
    look: Instant,
}

/// A tag, and the control that it shows now.
struct Slot {
    tag: TagId,
    control: Option<u32>,
    /// Only a look shows the control's value.
    live: bool,
}

enum Next {
    Stop,
    Request(Request),
    Event,
    Glance,
}

impl Controls {
    /// Tags come with the first success in opening the device.
    pub fn register(hub: &Hub, camera: &str, place: Box<dyn Place>, open: WhenOpen) -> Result<Self, RegisterError> {
        let now = Instant::now();
        Ok(Self {
            tags: hub.register(&format!("controls of camera {camera}"), Vec::new())?,
            hub: hub.clone(),
            camera: camera.into(),
            place,
            open,
            slots: Vec::new(),
            port: None,
            asked: now,
            loss: None,
            backoff: Backoff::new(GLANCE, RETRY),
            look: now + GLANCE,
        })
    }

    /// Until `stop`. Blocks; for a thread of the runtime's that is kept for such.
    pub fn run(&mut self, stop: &Stop) {
        tokio::runtime::Handle::current().block_on(self.serve(stop));
    }

    async fn serve(&mut self, stop: &Stop) {
        if let Err(error) = self.connect() {
            self.lose(error);
        }
        loop {
            let next = self.next(stop).await;
            let outcome = match next {
                Next::Stop => return,
                Next::Request(Request::Write(request)) => self.write(request),
                // `done` is dropped after the reading.
                Next::Request(Request::Refresh { tags, done: _done }) => self.refresh(&tags),
                Next::Event => self.follow(None),
                Next::Glance => self.glance(),
            };
            if let Err(error) = outcome {
                self.lose(error);
            }
        }
    }

    async fn next(&mut self, stop: &Stop) -> Next {
        let Self { tags, port, look, .. } = self;
        let event = async {
            match port {
                Some(port) => port.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.stopped() => Next::Stop,
            request = tags.next_request() => Next::Request(request),
            () = event => Next::Event,
            () = tokio::time::sleep_until(*look) => Next::Glance,
        }
    }

    fn glance(&mut self) -> Result<(), CameraError> {
        self.look = Instant::now() + GLANCE;
        if self.open == WhenOpen::OnDemand && self.asked.elapsed() >= LINGER {
            self.port = None;
        }
        match &mut self.port {
            _ if self.loss.is_some() => self.connect(),
            Some(port) => port.probe(),
            None => self.place.probe(),
        }
    }

    /// Opens the device, gives each of its controls a tag and publishes what they are set to.
    fn connect(&mut self) -> Result<(), CameraError> {
        self.asked = Instant::now();
        let mut port = self.place.open()?;
        let controls = port.list()?;
        let known = self.slots.len();
        self.assign(&controls);
        self.port = Some(port);
        let ids: Vec<u32> = controls.iter().map(|control| control.id).collect();
        self.read(&ids)?;
        let missing: Vec<TagId> =
            self.slots.iter().filter(|slot| slot.control.is_none()).map(|slot| slot.tag).collect();
        let reason = "the camera that is there now has no such control";
        self.hub.degrade(&missing, &Quality::new(Status::BAD_NOT_SUPPORTED, reason));
        if self.loss.take().is_some() || self.slots.len() > known {
            info!(camera = %self.camera, controls = controls.len(), "Serving the camera's controls.");
        }
        self.backoff.reset();
        Ok(())
    }

    /// Finds the tags of these controls, and registers those that are new.
    fn assign(&mut self, controls: &[Control]) {
        self.slots.iter_mut().for_each(|slot| slot.control = None);
        let mut added: Vec<(u32, TagSpec)> = Vec::new();
        for (control, name) in controls.iter().zip(names(controls)) {
            let name = match TagName::new(&format!("cameras/{}/Controls/{name}", self.camera)) {
                Ok(name) => name,
                Err(error) => {
                    warn!(camera = %self.camera, %error, "Left out a control.");
                    continue;
                }
            };
            let spec = control.spec(name);
            let known = self.hub.find(&spec.name);
            let slot = known.and_then(|tag| self.slots.iter_mut().find(|slot| slot.tag == tag));
            match slot {
                Some(slot) => {
                    let has = self.hub.spec(slot.tag);
                    // What clients were told of a tag holds while this process lives.
                    let fits = |has: &TagSpec| (has.data_type, has.is_array) == (spec.data_type, spec.is_array);
                    slot.control = fits(&has).then_some(control.id);
                }
                None => added.push((control.id, spec)),
            }
        }
        let (ids, specs): (Vec<u32>, Vec<TagSpec>) = added.into_iter().unzip();
        if specs.is_empty() {
            return;
        }
        match self.tags.extend(specs) {
            Ok(()) => {
                let tags = &self.tags.tags()[self.slots.len()..];
                self.slots.extend(tags.iter().zip(ids).map(|(&tag, id)| Slot { tag, control: Some(id), live: false }));
            }
            Err(error) => warn!(camera = %self.camera, %error, "Left out the camera's controls."),
        }
    }

    /// Publishes these controls as they are now.
    fn read(&mut self, ids: &[u32]) -> Result<(), CameraError> {
        let Some(port) = &mut self.port else { return Ok(()) };
        let mut batch = Vec::with_capacity(ids.len());
        for &id in ids {
            let Some(slot) = self.slots.iter_mut().find(|slot| slot.control == Some(id)) else { continue };
            let outcome = port.describe(id).and_then(|control| {
                slot.live = control.live;
                value_now(port.as_mut(), &control)
            });
            let now = self.hub.now();
            batch.push(match outcome {
                Ok(value) => Sample::good(slot.tag, value, now),
                Err(PortError::Refused(quality)) => Sample::bad(slot.tag, quality, now),
                Err(PortError::Lost(error)) => return Err(error),
            });
        }
        self.hub.publish(batch);
        Ok(())
    }

    /// Publishes what events say to have changed, and what was written.
    fn follow(&mut self, written: Option<u32>) -> Result<(), CameraError> {
        let Some(port) = &mut self.port else { return Ok(()) };
        let mut ids = port.changed()?;
        ids.extend(written.filter(|id| !ids.contains(id)));
        self.read(&ids)
    }

    /// Somebody wants these tags to be up to date.
    fn refresh(&mut self, tags: &[TagId]) -> Result<(), CameraError> {
        if self.wake()? {
            return Ok(());
        }
        let looked_at = self.slots.iter().filter(|slot| slot.live && tags.contains(&slot.tag));
        let ids: Vec<u32> = looked_at.filter_map(|slot| slot.control).collect();
        self.read(&ids)
    }

    /// Opens the device if it is closed and was not lost, which brings all tags up to date: then `true`.
    fn wake(&mut self) -> Result<bool, CameraError> {
        self.asked = Instant::now();
        if self.port.is_some() || self.loss.is_some() {
            return Ok(false);
        }
        self.connect().map(|()| true)
    }

    fn write(&mut self, WriteRequest { tag, value, reply }: WriteRequest) -> Result<(), CameraError> {
        let (answer, outcome) = match self.set(tag, &value) {
            // It was done, also if that made the device go away. The answer comes after what the driver made of it.
            Ok(id) => (Ok(()), self.follow(Some(id))),
            Err(PortError::Refused(quality)) => (Err(quality), Ok(())),
            Err(PortError::Lost(error)) => (Err(error.quality()), Err(error)),
        };
        // Whoever asked may have given up.
        let _ = reply.send(answer);
        outcome
    }

    /// Which control has been set.
    fn set(&mut self, tag: TagId, value: &Value) -> Result<u32, PortError> {
        self.wake()?;
        let id = self.slots.iter().find(|slot| slot.tag == tag).and_then(|slot| slot.control);
        let (Some(port), Some(id)) = (&mut self.port, id) else {
            return Err(self.hub.read(tag).quality.into());
        };
        let control = port.describe(id)?;
        control.check(value)?;
        if control.kind != Kind::Button || *value == Value::Boolean(true) {
            port.set(&control, value)?;
        }
        Ok(id)
    }

    fn lose(&mut self, error: CameraError) {
        self.port = None;
        for slot in &mut self.slots {
            slot.control = None;
        }
        if matches!(error, CameraError::Missing { .. } | CameraError::Gone { .. }) {
            self.backoff.reset();
        }
        // A wait, also so that the loss is seen when the device comes back at once.
        self.look = Instant::now() + self.backoff.wait();
        if self.loss.as_ref() != Some(&error) {
            info!(camera = %self.camera, %error, "The camera's controls are not available; trying again.");
            self.hub.degrade(self.tags.tags(), &error.quality());
            self.loss = Some(error);
        }
    }
}

fn value_now(port: &mut dyn Port, control: &Control) -> Result<Value, PortError> {
    match control {
        Control { kind: Kind::Button, .. } => Ok(Value::Boolean(false)),
        Control { readable: false, .. } => {
            Err(Quality::new(Status::BAD_NOT_READABLE, "the camera takes this value but does not show it").into())
        }
        control => port.get(control),
    }
}

/// A name for each, unlike all others: of those that share one, all but the first get their number behind it.
fn names(controls: &[Control]) -> Vec<String> {
    let is_first = |at: usize| controls[..at].iter().all(|other| other.name != controls[at].name);
    let name = |(at, control): (usize, &Control)| match is_first(at) {
        true => control.name.clone(),
        false => format!("{} {:#010x}", control.name, control.id),
    };
    controls.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests;
