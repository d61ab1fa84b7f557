//! All cameras that run: those of the configuration and those that are found.
//!
//!     Cameras ──start, apply, stop──► Plug ──► for each camera a group of threads (capture, controls)
//!                                      ▲ look: what came and went ── the thread "cameras"
//!
//! A change of the configuration stops the cameras that it changes and starts them again; all others go on, with those who
//! watch them. A camera that comes back under its name serves the leases and monitored items that it had (hub::frames).

use super::capture::{Capture, Settings};
use super::controls::{Controls, WhenOpen};
use super::plug::Plug;
use super::status::Status;
use super::v4l2::{self, Place};
use super::{CameraConfig, Config, scale};
use crate::base::{Clock, Tasks};
use crate::hub::frames::{Comparison, Traits};
use crate::hub::{Hub, RegisterError};
use crate::model::TagNameError;
use futures_util::future::join_all;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("two cameras have the name {0:?}, or the one that had it has not ended yet")]
    Duplicate(String),
    #[error(transparent)]
    Name(#[from] TagNameError),
    #[error(transparent)]
    Tag(#[from] RegisterError),
}

pub struct Cameras {
    plug: Arc<Mutex<Plug>>,
    watch: Tasks,
}

impl Cameras {
    /// Registers the cameras of the configuration, in their order, then those that are found, and starts their threads.
    /// Goes on to do so for those that are plugged in later.
    pub fn start(config: &Config, cameras: &[CameraConfig], hub: &Hub, clock: &Clock) -> Result<Self, SpawnError> {
        let starter = Starter { config: config.clone(), hub: hub.clone(), clock: clock.clone() };
        let mut plug = Plug::new(starter);
        plug.set_wanted(config, cameras);
        if let Some(error) = plug.start_wanted().pop() {
            return Err(error);
        }
        let (plug, watch) = (Arc::new(Mutex::new(plug)), Tasks::new("cameras"));
        let watched = plug.clone();
        watch.spawn_thread("cameras", move |stop| super::plug::run(&watched, stop));
        Ok(Self { plug, watch })
    }

    /// Stops what the new configuration does not have or has otherwise, each within `deadline`, and starts what it has.
    /// What could not be started, and why.
    pub async fn apply(&self, config: &Config, cameras: &[CameraConfig], deadline: Duration) -> Vec<SpawnError> {
        let (config, cameras) = (config.clone(), cameras.to_vec());
        let ended = self.with_plug(move |plug| plug.set_wanted(&config, &cameras)).await;
        join_all(ended.into_iter().map(|tasks| tasks.stop(deadline))).await;
        self.with_plug(Plug::start_wanted).await
    }

    pub async fn stop(self, deadline: Duration) {
        let Self { plug, watch } = self;
        watch.stop(deadline).await;
        // A driver may hold the thread that holds the lock.
        let Ok(running) = plug.try_lock().map(|mut plug| plug.take_all()) else { return };
        join_all(running.into_iter().map(|tasks| tasks.stop(deadline))).await;
    }

    /// The plug asks devices what they are, which a bad one answers late.
    async fn with_plug<T: Send + 'static>(&self, work: impl FnOnce(&mut Plug) -> T + Send + 'static) -> T {
        let plug = self.plug.clone();
        let work = move || work(&mut plug.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.expect("looking at devices does not panic")
    }
}

/// What is needed to start a camera's threads, at start and later.
pub(super) struct Starter {
    pub(super) config: Config,
    pub(super) hub: Hub,
    pub(super) clock: Clock,
}

impl Starter {
    pub(super) fn start(&self, camera: &CameraConfig, place: &Place) -> Result<Tasks, SpawnError> {
        let Self { config, hub, .. } = self;
        let name = camera.name.clone();
        let comparison = Comparison {
            noise_floor: camera.noise_floor.unwrap_or(config.noise_floor),
            ignore_brightness: camera.ignore_brightness.unwrap_or(config.ignore_brightness),
            heartbeat: camera.heartbeat.or(config.heartbeat),
        };
        let traits = Traits { comparison, reshape: scale::reshape_picture, max_bytes: config.max_bytes };
        let status = Status::register(hub, &name, &place.name())?;
        let port = hub.register_camera(&name, traits).ok_or_else(|| SpawnError::Duplicate(name.clone()))?;
        let Config { max_bytes, hardware_jpeg, verify_jpeg, linger, .. } = *config;
        let settings = Settings { quality: camera.quality, max_bytes, hardware_jpeg, verify_jpeg, linger };
        let device = camera.open(place, &self.clock);
        let mut capture = Capture { hub: hub.clone(), port, device, status, settings };
        let tasks = Tasks::new(format!("camera {name}"));
        tasks.spawn_thread(format!("camera {name}"), move |stop| capture.run(stop));
        if config.controls != WhenOpen::Never && camera.is_v4l2() {
            let at = Box::new(v4l2::ControlsAt(place.clone()));
            let mut controls = Controls::register(hub, &name, at, config.controls)?;
            tasks.spawn_thread(format!("controls of camera {name}"), move |stop| controls.run(stop));
        }
        Ok(tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cameras::WhenTestPattern;

    fn camera(name: &str, device: &str) -> CameraConfig {
        CameraConfig::plain(name.into(), device.into())
    }

    fn names(hub: &Hub) -> Vec<String> {
        hub.cameras().iter().map(|camera| camera.name().to_owned()).collect()
    }

    #[tokio::test]
    async fn the_test_pattern_comes_only_when_asked() {
        let with = |test_pattern, cameras: &[CameraConfig]| {
            let config = Config { discover: false, test_pattern, ..Config::default() };
            let hub = Hub::new(Clock::real());
            let _cameras = Cameras::start(&config, cameras, &hub, &Clock::real()).unwrap();
            names(&hub).len()
        };
        let one = [camera("a", "/dev/video77")];
        assert_eq!([with(WhenTestPattern::Never, &[]), with(WhenTestPattern::Never, &one)], [0, 1]);
        assert_eq!([with(WhenTestPattern::IfNone, &[]), with(WhenTestPattern::IfNone, &one)], [1, 1]);
        assert_eq!([with(WhenTestPattern::Always, &[]), with(WhenTestPattern::Always, &one)], [1, 2]);
        let hidden = [CameraConfig { hide: true, ..one[0].clone() }];
        assert_eq!(with(WhenTestPattern::Never, &hidden), 0);
    }

    #[tokio::test]
    async fn only_what_changed_is_stopped() {
        let config = Config { discover: false, test_pattern: WhenTestPattern::IfNone, ..Config::default() };
        let hub = Hub::new(Clock::real());
        let (a, b) = (camera("a", "test-pattern"), camera("b", "/dev/video77"));
        let cameras = Cameras::start(&config, &[a.clone(), b.clone()], &hub, &Clock::real()).unwrap();
        let deadline = Duration::from_secs(5);
        let mut lease = hub.cameras()[0].lease(Duration::ZERO);
        lease.next().await.unwrap();

        let changed = CameraConfig { quality: 50, ..b };
        assert!(cameras.apply(&config, &[a.clone(), changed], deadline).await.is_empty());
        assert!(lease.next().await.is_ok(), "its camera was not touched");
        hub.retire();
        assert_eq!(names(&hub), ["a", "b"]);

        let changed = CameraConfig { width: 320, height: 240, ..a };
        assert!(cameras.apply(&config, std::slice::from_ref(&changed), deadline).await.is_empty());
        let mut shot = lease.next().await;
        while shot.as_ref().is_ok_and(|picture| picture.width != 320) || shot.is_err() {
            shot = lease.next().await;
        }
        hub.retire();
        assert_eq!(names(&hub), ["a"]);

        drop(lease);
        assert!(cameras.apply(&config, &[], deadline).await.is_empty());
        hub.retire();
        assert_eq!(names(&hub), ["Test pattern"], "there is none");
        cameras.stop(deadline).await;
        hub.retire();
        assert_eq!(names(&hub), Vec::<String>::new());
    }
}
