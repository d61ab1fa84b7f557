//! Takes the pictures of `[[mqtt.image]]`: by time and by change here, at a tag's edge in [`trigger`](super::trigger).
//!
//!     lease(interval) ─► fit ─► put        for intervals from LONG on: a snapshot each time, so the camera rests between
//!     lease(every, deadband) ─► fit ─► put   the camera judges, against the picture that went before
//!
//! A camera that has no picture now says so on its own tags; nothing is said here. When the disk is slower than a camera
//! its newest picture is the one that counts (hub::frames).

use super::{Cause, Outbox, PATIENCE, Snap, find, fit, trigger, unknown};
use crate::base::Stop;
use crate::hub::Hub;
use crate::hub::frames::{Camera, Shot, Terms};
use crate::model::Picture;
use crate::sinks::mqtt::config::Image;
use futures_util::future::join_all;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// Between two pictures so far apart a camera is closed.
const LONG: Duration = Duration::from_secs(10);

pub struct Taker {
    images: Vec<Image>,
    hub: Hub,
    outbox: Outbox,
}

/// One `[[mqtt.image]]` and its camera.
pub(super) struct Post<'a> {
    pub(super) hub: &'a Hub,
    pub(super) camera: Camera,
    pub(super) image: &'a Image,
    outbox: &'a Outbox,
    /// It was said that a picture does not fit.
    is_too_large: AtomicBool,
}

impl Taker {
    pub fn new(images: Vec<Image>, hub: Hub, outbox: Outbox) -> Self {
        Self { images, hub, outbox }
    }

    /// Until the stop; then until what was taken is kept.
    pub async fn run(&self, stop: &Stop) {
        let all = join_all(self.images.iter().map(|image| self.serve(image)));
        tokio::select! {
            _ = futures_util::future::join(all, self.outbox.tend()) => {}
            () = stop.stopped() => {}
        }
        self.outbox.settle().await;
    }

    async fn serve(&self, image: &Image) {
        let camera = self.camera(&image.camera).await;
        let post = Post { hub: &self.hub, camera, image, outbox: &self.outbox, is_too_large: AtomicBool::new(false) };
        tokio::join!(post.by_time(), post.by_change(), trigger::serve(&post));
    }

    /// Waits until there is a camera of this name. One that is there stays, also when it is unplugged.
    async fn camera(&self, name: &str) -> Camera {
        let mut structure = self.hub.structure();
        let mut said = None;
        loop {
            if let Some(camera) = find(&self.hub, name) {
                if said.is_some() {
                    info!(camera = name, "The camera whose pictures are to be sent is there now.");
                }
                return camera;
            }
            let reason = unknown(&self.hub, name);
            if said.as_ref() != Some(&reason) {
                warn!("[[mqtt.image]]: {reason}. Waiting for it.");
                said = Some(reason);
            }
            structure.changed().await.expect("this task holds the hub");
        }
    }
}

impl Post<'_> {
    async fn by_time(&self) {
        match self.image.interval {
            Some(interval) if interval < LONG => self.lease(Terms::from(interval), Cause::Interval).await,
            Some(interval) => {
                let mut ticks = tokio::time::interval(interval);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
                loop {
                    ticks.tick().await;
                    if let Ok(picture) = self.camera.snapshot(Duration::ZERO, PATIENCE).await {
                        self.send(picture, Cause::Interval).await;
                    }
                }
            }
            None => {}
        }
    }

    async fn by_change(&self) {
        if let Some(percent) = self.image.on_change {
            self.lease(Terms { interval: self.image.every, deadband: Some(percent) }, Cause::Change).await;
        }
    }

    async fn lease(&self, terms: Terms, cause: Cause) {
        let mut lease = self.camera.lease(terms);
        loop {
            if let Ok(picture) = lease.next().await {
                self.send(picture, cause.clone()).await;
            }
        }
    }

    async fn send(&self, picture: Picture, cause: Cause) {
        if let Ok(picture) = self.fit(picture).await {
            self.put(picture, cause).await;
        }
    }

    /// Why it does not fit is said once.
    pub(super) async fn fit(&self, picture: Picture) -> Shot {
        let fitted = fit::fit(&self.camera, picture, self.image.max_bytes).await;
        if let Err(quality) = &fitted
            && !self.is_too_large.swap(true, Ordering::Relaxed)
        {
            let reason = quality.reason.as_deref().unwrap_or_default();
            warn!(camera = self.camera.name(), reason, "A picture cannot be made to fit max_bytes; it is not sent.");
        }
        fitted
    }

    pub(super) async fn put(&self, picture: Picture, cause: Cause) {
        self.outbox.put(Snap::new(self.camera.name(), picture, cause, self.image.form)).await;
    }
}
