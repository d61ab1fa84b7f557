//! The taker with cameras of the test's own: it says when there is a frame, and what it shows.

use super::super::config::Config;
use super::*;
use crate::base::{Clock, Tasks};
use crate::hub::Registration;
use crate::hub::frames::{Comparison, Port, Shape, Shot, Traits, Wanted};
use crate::model::{DataType, LumaGrid, Picture, Sample, TagName, TagSpec, Timestamp, Value};
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A camera, and the tag `plc/LineStop`.
struct Plant {
    hub: Hub,
    outbox: Outbox,
    port: Port,
    /// Of the first frame.
    start: Instant,
    tags: Registration,
    _folder: tempfile::TempDir,
}

/// Bytes are as many as pixels; there are no smaller ones than 100.
fn reshape(picture: &Picture, shape: Shape, limit: usize) -> Shot {
    let height = picture.height * shape.width / picture.width;
    let bytes = ((shape.width * height) as usize).max(100);
    if bytes > limit {
        return Err(Quality::new(Status::BAD_RESOURCE_UNAVAILABLE, format!("{bytes} bytes, not {limit}")));
    }
    Ok(Picture { jpeg: vec![0; bytes].into(), width: shape.width, height, ..picture.clone() })
}

fn register(hub: &Hub, camera: &str) -> Port {
    let comparison = Comparison { noise_floor: 0.0, ignore_brightness: false, heartbeat: None };
    hub.register_camera(camera, Traits { comparison, reshape, max_bytes: 1 << 20 }).unwrap()
}

impl Plant {
    async fn new() -> Self {
        let hub = Hub::new(Clock::real());
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(super::folder(folder.path()), 1 << 20).await;
        let name = TagName::new("plc/LineStop").unwrap();
        let tags = hub.register("plc", vec![TagSpec::new(name, DataType::Boolean)]).unwrap();
        let plant = Self { port: register(&hub, "line1"), hub, outbox, start: Instant::now(), tags, _folder: folder };
        plant.publish(&[false]);
        plant
    }

    /// Runs a script beside the taker of these `[[mqtt.image]]`.
    async fn run(&self, config: &str, script: impl Future<Output = ()>) {
        let config: Config = toml::from_str(&format!("broker = 'mqtt://b'\n{config}")).unwrap();
        assert_eq!(config.validate(), []);
        let taker = Taker::new(config.image, self.hub.clone(), self.outbox.clone());
        let tasks = Tasks::new("test");
        let stop = tasks.stop_signal();
        tokio::select! {
            () = taker.run(&stop) => panic!("the taker ended"),
            () = script => {}
        }
        tasks.stop(SECOND).await;
        tokio::time::timeout(10 * SECOND, taker.run(&stop)).await.expect("it ends with the stop");
    }

    fn publish(&self, values: &[bool]) {
        let tag = self.tags.tags()[0];
        self.hub
            .publish(values.iter().map(|value| Sample::good(tag, Value::Boolean(*value), self.hub.now())).collect());
    }

    /// Until so many leases are held, and whatever else there is to do is done.
    async fn leases(&self, count: usize) {
        let reached = async {
            while self.port.demand().leases != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(30 * SECOND, reached).await.expect("so many leases");
        settle().await;
    }

    /// A frame `second` seconds after the first one, all of this brightness. Its JPEG is the number of the second.
    async fn shoot(&self, second: u8, luma: u8) {
        // The clock goes backwards all the time.
        let captured = Timestamp::from_millis(1000 - i64::from(second));
        let picture =
            Picture { jpeg: vec![second].into(), width: 64, height: 48, sequence: u64::from(second), captured };
        let (captured, frame) = (self.start + SECOND * second.into(), Duration::from_millis(40));
        let grid = LumaGrid::new(64, 64, [u16::from(luma) << 8; LumaGrid::CELLS]);
        match self.port.wanted(captured, frame) {
            Wanted::Nothing => {}
            Wanted::Picture => drop(self.port.deliver(captured, frame, &picture, None)),
            Wanted::Comparison if self.port.judge(captured, frame, &grid) => {
                self.port.deliver(captured, frame, &picture, Some(&grid));
            }
            Wanted::Comparison => {}
        }
        settle().await;
    }

    /// So many pictures, in their order: what they show, and why they were taken.
    async fn sent(&self, count: usize) -> Vec<(u8, String)> {
        let mut sent = Vec::new();
        for _ in 0..count {
            let Queued { id, snap, .. } = tokio::time::timeout(30 * SECOND, self.outbox.next()).await.unwrap();
            let word = match snap.cause {
                Cause::Trigger { index, of, .. } => format!("{index}/{of}"),
                cause => format!("{cause:?}"),
            };
            sent.push((snap.jpeg[0], word));
            self.outbox.arrived(id);
        }
        assert_eq!(self.outbox.state().waiting, 0);
        sent
    }
}

/// Other tasks of this thread go as far as they can, those that wait for the disk excepted.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn said(sent: &[(u8, String)]) -> Vec<String> {
    sent.iter().map(|(second, word)| format!("{second} {word}")).collect()
}

#[tokio::test]
async fn by_time_and_by_change() {
    let plant = Plant::new().await;
    let config = "[[image]]\ncamera = 'line1'\ninterval = '2s'\n[[image]]\ncamera = 'line1'\non_change = 10";
    let script = async {
        plant.leases(2).await;
        plant.shoot(1, 0).await;
        let mut first = said(&plant.sent(2).await);
        first.sort();
        assert_eq!(first, ["1 Change", "1 Interval"]);
        plant.shoot(2, 0).await;
        plant.shoot(3, 0).await;
        assert_eq!(said(&plant.sent(1).await), ["3 Interval"]);
        plant.shoot(4, 100).await;
        assert_eq!(said(&plant.sent(1).await), ["4 Change"]);
    };
    plant.run(config, script).await;
    assert_eq!(plant.port.demand().leases, 0, "the camera may rest");
}

#[tokio::test]
async fn a_long_interval_lets_the_camera_rest() {
    let plant = Plant::new().await;
    let script = async {
        plant.leases(1).await;
        plant.shoot(1, 0).await;
        assert_eq!(said(&plant.sent(1).await), ["1 Interval"]);
        plant.leases(0).await;
    };
    plant.run("[[image]]\ncamera = 'line1'\ninterval = '1h'", script).await;
}

const TRIGGER: &str = "[[image]]\ncamera = 'line1'\ntrigger = { tag = 'plc/LineStop', before = 2, after = 3 }";

#[tokio::test]
async fn two_before_and_three_after_an_edge() {
    let plant = Plant::new().await;
    let script = async {
        plant.leases(1).await;
        for second in 1..=5 {
            plant.shoot(second, 0).await;
        }
        plant.publish(&[true]);
        plant.leases(2).await;
        for second in 6..=9 {
            plant.shoot(second, 0).await;
        }
        plant.leases(1).await;
        assert_eq!(said(&plant.sent(5).await), ["4 1/5", "5 2/5", "6 3/5", "7 4/5", "8 5/5"]);
        plant.publish(&[true]);
        settle().await;
        assert_eq!(plant.port.demand().leases, 1, "no edge");
    };
    plant.run(TRIGGER, script).await;
}

#[tokio::test]
async fn two_edges_in_quick_succession_are_two_events() {
    let plant = Plant::new().await;
    let script = async {
        plant.leases(1).await;
        plant.shoot(1, 0).await;
        plant.shoot(2, 0).await;
        plant.publish(&[true, false]);
        plant.leases(2).await;
        plant.shoot(3, 0).await;
        plant.publish(&[true]);
        plant.leases(3).await;
        for second in 4..=7 {
            plant.shoot(second, 0).await;
        }
        plant.leases(1).await;
        let mut sent = said(&plant.sent(10).await);
        sent.sort();
        let first = ["1 1/5", "2 2/5", "3 3/5", "4 4/5", "5 5/5"];
        let second = ["2 1/5", "3 2/5", "4 3/5", "5 4/5", "6 5/5"];
        let mut wanted = [first, second].concat();
        wanted.sort();
        assert_eq!(sent, wanted);
    };
    plant.run(TRIGGER, script).await;
}

#[tokio::test]
async fn edges_beyond_a_few_at_once_bring_nothing_about() {
    let plant = Plant::new().await;
    let script = async {
        plant.leases(1).await;
        plant.shoot(1, 0).await;
        plant.publish(&[true, false].repeat(100));
        plant.leases(5).await;
        for second in 2..=4 {
            plant.shoot(second, 0).await;
        }
        plant.leases(1).await;
        assert_eq!(plant.sent(16).await.len(), 16, "of four events, each with one from before");
    };
    plant.run(TRIGGER, script).await;
}

#[tokio::test]
async fn what_a_lost_camera_left_in_the_ring_is_sent() {
    let plant = Plant::new().await;
    let script = async {
        plant.leases(1).await;
        plant.shoot(1, 0).await;
        plant.publish(&[true]);
        plant.leases(2).await;
        plant.shoot(2, 0).await;
        plant.port.set_quality(Quality::new(Status::BAD_NOT_CONNECTED, "unplugged"));
        plant.leases(1).await;
        assert_eq!(said(&plant.sent(2).await), ["1 2/5", "2 3/5"]);
        plant.publish(&[false, true]);
        assert_eq!(said(&plant.sent(2).await), ["1 1/5", "2 2/5"], "there are no newer ones");
        plant.leases(1).await;
        for second in 3..=4 {
            plant.shoot(second, 0).await;
        }
        plant.publish(&[false, true]);
        plant.leases(2).await;
        assert_eq!(said(&plant.sent(2).await), ["3 1/5", "4 2/5"]);
    };
    plant.run(TRIGGER, script).await;
}

#[tokio::test]
async fn without_before_the_camera_rests_until_the_edge() {
    let plant = Plant::new().await;
    let config =
        "[[image]]\ncamera = 'line1'\ntrigger = { tag = 'plc/LineStop', becomes = true, every = '2s', after = 2 }";
    let script = async {
        settle().await;
        assert_eq!(plant.port.demand().leases, 0);
        plant.publish(&[true]);
        plant.leases(1).await;
        for second in 1..=3 {
            plant.shoot(second, 0).await;
        }
        plant.leases(0).await;
        assert_eq!(said(&plant.sent(2).await), ["1 1/2", "3 2/2"]);
    };
    plant.run(config, script).await;
}

#[tokio::test]
async fn a_camera_that_comes_later_is_found() {
    let plant = Plant::new().await;
    let script = async {
        settle().await;
        let port = register(&plant.hub, "line2");
        while port.demand().leases == 0 {
            tokio::task::yield_now().await;
        }
    };
    plant.run("[[image]]\ncamera = 'line2'\ninterval = '1s'", script).await;
    assert_eq!(unknown(&plant.hub, "x"), r#"no camera has the name "x"; there are "line1", "line2""#);
    assert_eq!(unknown(&Hub::new(Clock::real()), "x"), r#"no camera has the name "x"; there is none at all"#);
}

#[tokio::test]
async fn pictures_are_made_to_fit() {
    let plant = Plant::new().await;
    let picture = |bytes: usize| Picture {
        jpeg: vec![0; bytes].into(),
        width: 640,
        height: 480,
        sequence: 0,
        captured: Timestamp::UNIX_EPOCH,
    };
    let take = async |max_bytes, bytes| {
        let shoot = async {
            plant.leases(1).await;
            plant.port.deliver(Instant::now(), Duration::ZERO, &picture(bytes), None);
        };
        tokio::join!(take(&plant.hub, "line1", max_bytes), shoot).0
    };
    let snap = take(None, 500_000).await.unwrap();
    assert_eq!((snap.jpeg.len(), snap.width, &snap.cause, snap.form), (500_000, 640, &Cause::Command, Form::Jpeg));
    // Twice the limit is for the quality alone; ten times is a smaller picture.
    assert_eq!(take(Some(320_000), 600_000).await.unwrap().width, 640);
    assert_eq!(take(Some(60_000), 600_000).await.unwrap().width, 214, "smaller than what the factor of two asks for");
    assert!(take(None, 700_000).await.unwrap().jpeg.len() <= 512 << 10);
    assert_eq!(take(Some(99), 600_000).await.unwrap_err().reason.as_deref(), Some("100 bytes, not 99"));
    let error = super::take(&plant.hub, "line7", None).await.unwrap_err();
    assert_eq!(error.reason.as_deref(), Some(r#"no camera has the name "line7"; there are "line1""#));
}
