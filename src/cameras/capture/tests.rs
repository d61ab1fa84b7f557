use super::*;
use crate::base::{Clock, Tasks};
use crate::cameras::device::{Description, Stream};
use crate::hub::frames::{Comparison, Traits};
use crate::model::{EventKind, Happening, TagName, Value};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// A camera that does what the test says: grey frames at 100 a second, or an error.
#[derive(Clone, Default)]
struct Scripted(Arc<Script>);

#[derive(Default)]
struct Script {
    unplugged: AtomicBool,
    open: AtomicU32,
    opened: AtomicU32,
    error: Mutex<Option<CameraError>>,
}

struct Running(Arc<Script>, Mode, u32);

impl Scripted {
    fn unplug(&self, yes: bool) {
        self.0.unplugged.store(yes, Ordering::SeqCst);
    }

    fn fails_with(&self, error: Option<CameraError>) {
        *self.0.error.lock().unwrap() = error;
    }

    fn is_open(&self) -> bool {
        self.0.open.load(Ordering::SeqCst) > 0
    }
}

impl Script {
    fn check(&self) -> Result<(), CameraError> {
        if self.unplugged.load(Ordering::SeqCst) {
            return Err(CameraError::Missing { device: "scripted".into() });
        }
        Ok(())
    }
}

impl Device for Scripted {
    fn probe(&self) -> Result<(), CameraError> {
        self.0.check()
    }

    fn describe(&self) -> Result<Description, CameraError> {
        self.0.check()?;
        Ok(Description { path: "scripted".into(), ..Description::default() })
    }

    fn open(&mut self) -> Result<Box<dyn Stream>, CameraError> {
        self.0.check()?;
        if let Some(error) = self.0.error.lock().unwrap().clone() {
            return Err(error);
        }
        self.0.open.fetch_add(1, Ordering::SeqCst);
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        let mode = Mode {
            format: PixelFormat::Grey,
            width: 16,
            height: 16,
            stride: 16,
            limited_range: false,
            frame_interval: Duration::from_millis(10),
        };
        Ok(Box::new(Running(self.0.clone(), mode, 0)))
    }
}

impl Stream for Running {
    fn mode(&self) -> &Mode {
        &self.1
    }

    fn next(&mut self, _: Duration) -> Result<Option<Frame<'_>>, CameraError> {
        std::thread::sleep(self.1.frame_interval);
        self.0.check()?;
        self.2 += 1;
        let (captured, sequence) = (Instant::now(), self.2);
        Ok(Some(Frame { data: &[128; 256], captured, sequence, corrupt: false, dmabuf: None }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Rig {
    hub: Hub,
    device: Scripted,
    tasks: Tasks,
}

fn rig(linger: Duration) -> Rig {
    let hub = Hub::new(Clock::real());
    let device = Scripted::default();
    let comparison = Comparison { noise_floor: 0.0, ignore_brightness: false, heartbeat: None };
    let traits = Traits { comparison, reshape: |picture, _, _| Ok(picture.clone()), max_bytes: 1 };
    let mut capture = Capture {
        hub: hub.clone(),
        port: hub.register_camera("line1", traits).unwrap(),
        device: Box::new(device.clone()),
        status: Status::register(&hub, "line1", "scripted").unwrap(),
        settings: Settings { quality: 80, max_bytes: 100_000, hardware_jpeg: false, verify_jpeg: true, linger },
    };
    let tasks = Tasks::new("test");
    tasks.spawn_thread("camera", move |stop| capture.run(stop));
    Rig { hub, device, tasks }
}

impl Rig {
    fn state(&self) -> String {
        let tag = self.hub.find(&TagName::new("cameras/line1/State").unwrap()).unwrap();
        match self.hub.read(tag).value {
            Value::String(Some(text)) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn events(&self) -> Vec<EventKind> {
        let events = self.hub.recent().into_iter().filter_map(|happening| match happening {
            Happening::Event(event) => Some(event.kind),
            Happening::Condition(_) => None,
        });
        events.collect()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn it_streams_only_while_somebody_wants_pictures() {
    let rig = rig(Duration::from_millis(50));
    rig.until("idle", |rig| rig.hub.cameras()[0].quality().is_good()).await;
    assert!(!rig.device.is_open());

    let camera = rig.hub.cameras().remove(0);
    let picture = camera.snapshot(Duration::ZERO, Duration::from_secs(20)).await.unwrap();
    assert_eq!((picture.width, picture.height), (16, 16));
    assert!(turbojpeg::read_header(&picture.jpeg).is_ok());
    rig.until("closed after the linger", |rig| !rig.device.is_open()).await;

    let mut lease = camera.lease(Duration::ZERO);
    for _ in 0..3 {
        lease.next().await.unwrap();
    }
    rig.until("streaming", |rig| rig.state() == "streaming").await;
    drop(lease);
    rig.until("idle again", |rig| !rig.device.is_open() && rig.state() == "idle").await;
    assert_eq!(rig.device.0.opened.load(Ordering::SeqCst), 2);
    rig.tasks.stop(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn unplugged_while_streaming_it_is_bad_with_a_reason_and_comes_back_by_itself() {
    let rig = rig(Duration::from_secs(5));
    let mut lease = rig.hub.cameras()[0].lease(Duration::ZERO);
    lease.next().await.unwrap();

    rig.device.unplug(true);
    let quality = loop {
        if let Err(quality) = lease.next().await {
            break quality;
        }
    };
    assert_eq!(quality.to_string(), "BadNotConnected: scripted does not exist");
    rig.until("disconnected", |rig| rig.state() == "disconnected").await;

    rig.device.unplug(false);
    while lease.next().await.is_err() {}
    rig.until("streaming", |rig| rig.state() == "streaming").await;
    rig.tasks.stop(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn unplugged_while_idle_is_seen_and_so_is_the_return() {
    let rig = rig(Duration::ZERO);
    rig.device.unplug(true);
    rig.until("bad", |rig| rig.hub.cameras()[0].quality().is_bad()).await;
    rig.device.unplug(false);
    rig.until("good", |rig| rig.hub.cameras()[0].quality().is_good()).await;
    rig.until("an event for each", |rig| rig.events().len() == 3 || rig.events()[0] != EventKind::CameraConnected)
        .await;
    let lost = rig.hub.conditions().remove(0);
    assert_eq!((lost.is_active, lost.is_acked), (false, false), "it was lost, and nobody has seen that");
    assert_eq!(rig.events().last(), Some(&EventKind::CameraConnected));
    assert_eq!(rig.device.0.opened.load(Ordering::SeqCst), 0, "looking is not opening");
    rig.tasks.stop(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_fault_stays_until_an_attempt_succeeds() {
    let rig = rig(Duration::ZERO);
    rig.device.fails_with(Some(CameraError::Busy { device: "scripted".into() }));
    let mut lease = rig.hub.cameras()[0].lease(Duration::ZERO);
    assert_eq!(lease.next().await.unwrap_err().status, crate::model::Status::BAD_RESOURCE_UNAVAILABLE);
    rig.until("busy", |rig| rig.state() == "in use by another program").await;
    rig.device.fails_with(None);
    while lease.next().await.is_err() {}
    rig.tasks.stop(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_fault_does_not_outlive_its_cause_when_the_camera_is_only_read() {
    let rig = rig(Duration::ZERO);
    let camera = rig.hub.cameras().remove(0);
    rig.device.fails_with(Some(CameraError::Busy { device: "scripted".into() }));
    camera.snapshot(Duration::ZERO, Duration::from_secs(20)).await.unwrap_err();
    rig.device.fails_with(None);
    rig.until("read again", |rig| rig.hub.cameras()[0].quality().is_good()).await;
    camera.snapshot(Duration::ZERO, Duration::from_secs(20)).await.unwrap();
    rig.tasks.stop(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_restart_closes_and_opens_the_device_and_leases_go_on() {
    let rig = rig(Duration::ZERO);
    let camera = rig.hub.cameras().remove(0);
    let mut lease = camera.lease(Duration::ZERO);
    lease.next().await.unwrap();
    camera.restart(Duration::from_secs(20)).await.unwrap();
    assert_eq!(rig.device.0.opened.load(Ordering::SeqCst), 2);
    lease.next().await.unwrap();
    drop(lease);
    rig.until("closed", |rig| !rig.device.is_open()).await;
    camera.restart(Duration::from_secs(20)).await.unwrap();
    assert_eq!(rig.device.0.opened.load(Ordering::SeqCst), 3, "an idle one is opened to see that it works");
    rig.tasks.stop(Duration::from_secs(20)).await;
    let error = camera.restart(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.status, crate::model::Status::BAD_TIMEOUT, "its thread is busy elsewhere or gone");
}

#[tokio::test]
async fn a_restart_says_what_is_wrong_and_does_not_wait_for_the_next_attempt() {
    let rig = rig(Duration::ZERO);
    let camera = rig.hub.cameras().remove(0);
    rig.device.fails_with(Some(CameraError::Busy { device: "scripted".into() }));
    let mut lease = camera.lease(Duration::ZERO);
    lease.next().await.unwrap_err();
    let error = camera.restart(Duration::from_secs(20)).await.unwrap_err();
    assert_eq!(error.status, crate::model::Status::BAD_RESOURCE_UNAVAILABLE);
    rig.device.fails_with(None);
    camera.restart(Duration::from_secs(20)).await.unwrap();
    rig.tasks.stop(Duration::from_secs(20)).await;
}
