//! What a camera says of itself: the tags `cameras/<name>/...`.
//!
//! Three kinds, by what a loss of the device does to them:
//! - what this program knows whatever happens (State, Reason, counters): stays good;
//! - what the device said of itself (Driver, Format): bad with the reason while the device is not there;
//! - what is measured while it streams (FrameRate, Difference): the same.
//!
//! That it came or went is also an event, and its loss the condition CameraLost, as far as `news.rs` finds it worth telling.

use super::SpawnError;
use super::device::{CameraError, Description, Mode};
use super::news::{Health, News};
use crate::hub::{Hub, Registration};
use crate::model::{
    Array, ConditionKind, DataType, EventKind, Quality, Sample, TagId, TagName, TagSpec, Timestamp, Value,
};
use std::time::{Duration, Instant};

macro_rules! status_tags {
    ($($name:ident: $data_type:ident, $description:literal;)*) => {
        #[derive(Clone, Copy)]
        enum Tag { $($name),* }

        const TAGS: &[(&str, DataType, &str)] = &[$((stringify!($name), DataType::$data_type, $description)),*];
    };
}

status_tags! {
    State: String, "idle, streaming, disconnected, in use by another program, needs ISP, no cable, no signal, no sync, \
        not supported or failed";
    Reason: String, "Why the camera does not deliver; empty while it can";
    LastError: String, "The last reason there was";
    Device: String, "Where the camera is looked for";
    InUse: Boolean, "Somebody here wants pictures now";
    Leases: UInt32, "How many readers and monitored items want pictures now";
    FramesCaptured: UInt64, "Frames taken from the driver";
    FramesEncoded: UInt64, "Frames encoded by this device";
    FramesPublished: UInt64, "Pictures handed to readers and monitored items";
    FramesDropped: UInt64, "Frames the driver had to drop";
    FramesCorrupt: UInt64, "Frames that were damaged or truncated";
    LastFrameTime: DateTime, "When the last frame was captured";
    Driver: String, "The kernel driver";
    Card: String, "What the driver calls the camera";
    Bus: String, "Where the camera is attached";
    Formats: String, "What the camera offers: pixel formats, sizes, rates";
    Format: String, "Pixel format, size and rate in use";
    Width: UInt32, "Of the picture, as captured";
    Height: UInt32, "Of the picture, as captured";
    Encoder: String, "Who makes the JPEG: the camera, a hardware encoder by its name, or turbojpeg";
    FrameRate: Double, "Frames a second that arrive now; 0 while idle";
    Difference: Double, "How much the picture differs now from the last one that was measured and published; a deadband goes by this";
}

/// The first of those that a loss of the device makes bad.
const FIRST_OF_DEVICE: Tag = Tag::Driver;

/// How often counters are published while streaming.
const COUNTERS: Duration = Duration::from_secs(1);
/// How often the live difference is published at most, and at least.
const METER: Duration = Duration::from_millis(250);
const METER_AGE: Duration = Duration::from_secs(1);

/// The tags that every camera has, named without the camera.
pub fn specs() -> Vec<TagSpec> {
    let spec = |(tag, data_type, description): &(&str, DataType, &str)| {
        let name = TagName::new(tag).expect("the names above are single words");
        let spec = TagSpec::new(name, *data_type).described(*description);
        match *tag {
            "InUse" => spec.states(vec!["idle".into(), "in use".into()]),
            "Difference" => spec.unit("%").range(0.0, 100.0),
            "FrameRate" => spec.unit("1/s"),
            "Formats" => TagSpec { is_array: true, ..spec },
            _ => spec,
        }
    };
    TAGS.iter().map(spec).collect()
}

pub(super) struct Status {
    hub: Hub,
    name: String,
    news: News,
    tags: Registration,
    state: &'static str,
    reason: String,
    last_error: String,
    encoder: String,
    is_described: bool,
    is_hopeless: bool,
    pub(super) counters: Counters,
    window: Window,
    metered: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) captured: u64,
    pub(super) encoded: u64,
    pub(super) published: u64,
    pub(super) dropped: u64,
    pub(super) corrupt: u64,
    pub(super) last_frame: Option<Timestamp>,
}

/// What the frame rate is taken over.
struct Window {
    since: Instant,
    captured: u64,
}

impl Status {
    /// Registers `cameras/<name>/...`.
    pub(super) fn register(hub: &Hub, name: &str, device: &str) -> Result<Self, SpawnError> {
        let specs = specs().into_iter().map(|spec| {
            let name = TagName::new(&format!("cameras/{name}/{}", spec.name))?;
            Ok(TagSpec { name, ..spec })
        });
        let specs = specs.collect::<Result<Vec<_>, SpawnError>>()?;
        let tags = hub.register(&format!("camera {name}"), specs)?;
        let status = Self {
            hub: hub.clone(),
            name: name.into(),
            news: News::default(),
            tags,
            state: "",
            reason: String::new(),
            last_error: String::new(),
            encoder: String::new(),
            is_described: false,
            is_hopeless: false,
            counters: Counters::default(),
            window: Window { since: Instant::now(), captured: 0 },
            metered: None,
        };
        status.publish([
            // Until the camera's thread has looked.
            (Tag::State, Value::string("disconnected")),
            (Tag::Reason, Value::string("it has not been looked at yet")),
            (Tag::Device, Value::string(device)),
            (Tag::LastError, Value::string("")),
        ]);
        status.count(0);
        hub.declare_condition(ConditionKind::CameraLost, &status.source());
        Ok(status)
    }

    /// What events and conditions of this camera are about.
    fn source(&self) -> String {
        format!("cameras/{}", self.name)
    }

    fn id(&self, tag: Tag) -> TagId {
        self.tags.tags()[tag as usize]
    }

    fn publish(&self, values: impl IntoIterator<Item = (Tag, Value)>) {
        let now = self.hub.now();
        self.hub.publish(values.into_iter().map(|(tag, value)| Sample::good(self.id(tag), value, now)).collect());
    }

    /// Whether the device that is there now has said what it is.
    pub(super) fn is_described(&self) -> bool {
        self.is_described
    }

    /// The device that is there will never give pictures.
    pub(super) fn is_hopeless(&self) -> bool {
        self.is_hopeless
    }

    pub(super) fn is_disconnected(&self) -> bool {
        self.state == "disconnected"
    }

    /// Publishes state and reason if they changed; whether they did.
    pub(super) fn set(&mut self, state: &'static str, reason: &str) -> bool {
        if self.state == state && self.reason == reason {
            return false;
        }
        self.state = state;
        self.reason = reason.to_owned();
        if !reason.is_empty() {
            self.last_error = reason.to_owned();
        }
        self.publish([
            (Tag::State, Value::string(state)),
            (Tag::Reason, Value::string(reason)),
            (Tag::LastError, Value::string(&*self.last_error)),
        ]);
        self.news.see(Health::of(state), Instant::now());
        self.tell();
        true
    }

    /// Raises what is news by now.
    pub(super) fn tell(&mut self) {
        let Some((health, changes)) = self.news.due(Instant::now()) else { return };
        let Self { name, reason, .. } = self;
        let (kind, mut message) = match health {
            Health::Well => (EventKind::CameraConnected, format!("Camera {name} is connected")),
            Health::NoSignal => (EventKind::CameraNoSignal, format!("Camera {name} has no signal: {reason}")),
            Health::Lost => (EventKind::CameraDisconnected, format!("Camera {name} is lost: {reason}")),
        };
        if changes > 0 {
            message.push_str(&format!(" (after {changes} changes that were not told)"));
        }
        let off_normal = (health != Health::Well).then_some(message.as_str());
        self.hub.set_condition(ConditionKind::CameraLost, &self.source(), off_normal);
        self.hub.raise(kind, self.source(), message);
    }

    /// What the device said is not known any more.
    pub(super) fn lose_device(&mut self, quality: &Quality) {
        self.is_described = false;
        self.is_hopeless = false;
        self.hub.degrade(&self.tags.tags()[FIRST_OF_DEVICE as usize..], quality);
    }

    /// A look showed that it cannot be used: when it can be again, it is as if it were new.
    pub(super) fn forget_device(&mut self) {
        self.is_described = false;
    }

    /// The device is there, idle.
    pub(super) fn found(&mut self, Description { path, identity, formats, fault }: &Description) {
        // A sensor stays one. Everything else may change: a loopback device has no format until somebody writes to it.
        self.is_hopeless = matches!(fault, Some(CameraError::NeedsIsp { .. }));
        self.is_described = fault.is_none() || self.is_hopeless;
        self.encoder.clear();
        let formats: Vec<_> = formats.iter().map(|format| Value::string(format.as_str())).collect();
        let formats = Array::new(DataType::String, formats, None).expect("all of them are strings");
        self.publish([
            (Tag::Device, Value::string(path.as_str())),
            (Tag::Driver, Value::string(&*identity.driver)),
            (Tag::Card, Value::string(&*identity.card)),
            (Tag::Bus, Value::string(&*identity.bus)),
            (Tag::Formats, formats.into()),
            (Tag::Format, Value::string("")),
            (Tag::Width, Value::UInt32(0)),
            (Tag::Height, Value::UInt32(0)),
            (Tag::Encoder, Value::string("")),
            (Tag::FrameRate, Value::Double(0.0)),
            (Tag::Difference, Value::Double(0.0)),
        ]);
    }

    /// It streams.
    pub(super) fn streams(&self, mode: &Mode) {
        self.publish([
            (Tag::Format, Value::string(mode.to_string())),
            (Tag::Width, Value::UInt32(mode.width)),
            (Tag::Height, Value::UInt32(mode.height)),
        ]);
    }

    /// Who makes the JPEGs now.
    pub(super) fn set_encoder(&mut self, name: &str) {
        if self.encoder != name {
            self.encoder = name.into();
            self.publish([(Tag::Encoder, Value::string(name))]);
        }
    }

    /// Publishes the counters if it is time.
    pub(super) fn tick(&mut self, leases: usize) {
        if self.window.since.elapsed() >= COUNTERS {
            self.count(leases);
            let frames = self.counters.captured - self.window.captured;
            let rate = frames as f64 / self.window.since.elapsed().as_secs_f64();
            self.publish([(Tag::FrameRate, Value::Double((rate * 100.0).round() / 100.0))]);
            self.begin_window();
        }
    }

    pub(super) fn begin_window(&mut self) {
        self.window = Window { since: Instant::now(), captured: self.counters.captured };
    }

    /// Publishes the counters.
    fn count(&self, leases: usize) {
        let Counters { captured, encoded, published, dropped, corrupt, last_frame } = &self.counters;
        let mut values = vec![
            (Tag::InUse, Value::Boolean(leases > 0)),
            (Tag::Leases, Value::UInt32(leases as u32)),
            (Tag::FramesCaptured, Value::UInt64(*captured)),
            (Tag::FramesEncoded, Value::UInt64(*encoded)),
            (Tag::FramesPublished, Value::UInt64(*published)),
            (Tag::FramesDropped, Value::UInt64(*dropped)),
            (Tag::FramesCorrupt, Value::UInt64(*corrupt)),
        ];
        if let Some(time) = last_frame {
            values.push((Tag::LastFrameTime, Value::DateTime(*time)));
        }
        self.publish(values);
    }

    /// The device is closed.
    pub(super) fn rests(&mut self, leases: usize) {
        self.count(leases);
        if self.is_described {
            self.publish([(Tag::FrameRate, Value::Double(0.0))]);
        }
    }

    /// It is time for the meter to move, also if nobody has a deadband: people look at it to choose one.
    pub(super) fn is_meter_old(&self) -> bool {
        self.metered.is_none_or(|at| at.elapsed() >= METER_AGE)
    }

    /// How much a frame differs, in percent.
    pub(super) fn meter(&mut self, difference: f64) {
        let now = Instant::now();
        if self.metered.is_none_or(|at| now.duration_since(at) >= METER) {
            self.metered = Some(now);
            self.publish([(Tag::Difference, Value::Double((difference * 100.0).round() / 100.0))]);
        }
    }
}
