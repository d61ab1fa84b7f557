//! Values for the first evening: waves, counters, noise, and a set-point that can be written.
//!
//! Each `[[simulator]]` makes the tags `<name>/sine`, `ramp`, `random`, `counter`, `set_point` and `set_point_echo`, and one
//! tag of each further kind to try a client on, which keeps what is written: `switch`, `mode`, `text`, `bytes` and
//! `profile`. The waves follow the clock, not a count of ticks, so that a late tick shows as a gap and not as a slower
//! wave. To try load there can be any number of further ones, `<name>/waves/1` and on, each with a phase of its own.

use super::{Finding, Place, Source, SourceError};
use crate::base::{Stop, duration};
use crate::hub::{Hub, Registration, WriteRequest};
use crate::model::{Array, DataType, Quality, Sample, Status, TagId, TagName, TagNameError, TagSpec, Timestamp, Value};
use async_trait::async_trait;
use serde::Deserialize;
use std::f64::consts::TAU;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// `[[simulator]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of its tags. Example: "demo".
    pub name: String,
    /// Time between two values. Default: "1s".
    #[serde(default = "default_interval", deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// One turn of the sine, one rise of the ramp. Default: "60s".
    #[serde(default = "default_period", deserialize_with = "duration::deserialize")]
    pub period: Duration,
    /// Further sine waves. Default: 0.
    #[serde(default)]
    pub waves: u32,
}

/// More than any client of such a device looks at.
const MOST_WAVES: u32 = 100_000;

const fn default_interval() -> Duration {
    Duration::from_secs(1)
}

const fn default_period() -> Duration {
    Duration::from_secs(60)
}

impl super::Config for Config {
    fn table(&self) -> &'static str {
        "[[simulator]]"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Vec<Finding> {
        let mut faults = Vec::new();
        if self.interval < Duration::from_millis(1) {
            faults.push(("interval", "it is too short; use \"1ms\" or more".into()));
        }
        if self.period.is_zero() {
            faults.push(("period", "it must not be zero; use \"60s\", for example".into()));
        }
        if self.waves > MOST_WAVES {
            faults.push(("waves", format!("there are too many; use {MOST_WAVES} at most")));
        }
        faults.into_iter().map(Finding::from).collect()
    }

    fn register(&self, _: &Place, hub: &Hub) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Simulator::register(self.clone(), hub)?))
    }
}

/// A simulator whose tags are registered.
struct Simulator {
    config: Config,
    hub: Hub,
    tags: Registration,
    set_point: f64,
    counter: u32,
}

/// In the order of [`specs`].
#[derive(Clone, Copy)]
enum Tag {
    Sine,
    Ramp,
    Random,
    Counter,
    SetPoint,
    Echo,
    Switch,
    Mode,
    Text,
    Bytes,
    Profile,
}

/// What `mode` may be.
const MODES: [&str; 3] = ["stopped", "slow", "fast"];

const SET_POINT_LOW: f64 = 0.0;
const SET_POINT_HIGH: f64 = 100.0;

fn specs(folder: &str, waves: u32) -> Result<Vec<TagSpec>, TagNameError> {
    let spec = |name: &str, data_type, description: &str| {
        Ok(TagSpec::new(TagName::new(&format!("{folder}/{name}"))?, data_type).described(description))
    };
    let mut specs = vec![
        spec("sine", DataType::Double, "A sine wave")?.range(-1.0, 1.0),
        spec("ramp", DataType::Double, "Rises from 0 to 100, then falls back to 0")?.unit("%").range(0.0, 100.0),
        spec("random", DataType::Double, "Evenly spread between 0 and 1")?.range(0.0, 1.0),
        spec("counter", DataType::UInt32, "Counts the values since start")?,
        spec("set_point", DataType::Double, "Can be written, from 0 to 100")?
            .unit("%")
            .range(SET_POINT_LOW, SET_POINT_HIGH)
            .writable(),
        spec("set_point_echo", DataType::Double, "Follows the set-point with the next value")?
            .unit("%")
            .range(0.0, 100.0),
        spec("switch", DataType::Boolean, "Can be written")?.states(vec!["off".into(), "on".into()]).writable(),
        spec("mode", DataType::UInt32, "Can be written, from 0 to 2")?
            .states(MODES.map(Into::into).to_vec())
            .writable(),
        spec("text", DataType::String, "Can be written")?.writable(),
        spec("bytes", DataType::ByteString, "Can be written")?.writable(),
        TagSpec { is_array: true, ..spec("profile", DataType::Double, "Can be written, each from 0 to 100")? }
            .unit("mm")
            .range(SET_POINT_LOW, SET_POINT_HIGH)
            .writable(),
    ];
    for wave in 1..=waves {
        specs.push(
            spec(&format!("waves/{wave}"), DataType::Double, "A sine wave with a phase of its own")?.range(-1.0, 1.0),
        );
    }
    Ok(specs)
}

#[async_trait]
impl Source for Simulator {
    async fn run(&mut self, stop: &Stop) {
        let mut ticks = tokio::time::interval(self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(),
                request = self.tags.next_write() => self.answer(request),
                () = stop.stopped() => return,
            }
        }
    }
}

impl Simulator {
    fn register(config: Config, hub: &Hub) -> Result<Self, SourceError> {
        let tags = hub.register(&format!("simulator {}", config.name), specs(&config.name, config.waves)?)?;
        let simulator = Self { config, hub: hub.clone(), tags, set_point: 50.0, counter: 0 };
        let profile = [10.0, 20.0, 30.0, 20.0, 10.0].map(Value::Double).to_vec();
        let profile = Array::new(DataType::Double, profile, None).expect("all of them are Double");
        simulator.hub.publish(vec![
            simulator.good(Tag::SetPoint, Value::Double(simulator.set_point)),
            simulator.good(Tag::Switch, Value::Boolean(false)),
            simulator.good(Tag::Mode, Value::UInt32(0)),
            simulator.good(Tag::Text, Value::string("Füllstand")),
            simulator.good(Tag::Bytes, Value::bytes(*b"vedette")),
            simulator.good(Tag::Profile, profile.into()),
        ]);
        Ok(simulator)
    }

    fn tick(&mut self) {
        let now = self.hub.now();
        let turn = turn(now, self.config.period);
        self.counter = self.counter.wrapping_add(1);
        let mut batch = vec![
            self.good(Tag::Sine, Value::Double((turn * TAU).sin())),
            self.good(Tag::Ramp, Value::Double(turn * 100.0)),
            self.good(Tag::Random, Value::Double(fastrand::f64())),
            self.good(Tag::Counter, Value::UInt32(self.counter)),
            self.good(Tag::Echo, Value::Double(self.set_point)),
        ];
        let waves = &self.tags.tags()[Tag::Profile as usize + 1..];
        let phases = waves.iter().zip(0_u32..).map(|(tag, index)| (*tag, f64::from(index) / waves.len() as f64));
        batch.extend(phases.map(|(tag, phase)| Sample::good(tag, Value::Double(((turn + phase) * TAU).sin()), now)));
        self.hub.publish(batch);
    }

    fn answer(&mut self, request: WriteRequest) {
        let outcome = self.set(request.tag, request.value);
        // Whoever asked may have given up.
        let _ = request.reply.send(outcome);
    }

    /// The hub has checked that the tag is writable and the type is right.
    fn set(&mut self, tag: TagId, value: Value) -> Result<(), Quality> {
        let is_in_range = |value: f64| (SET_POINT_LOW..=SET_POINT_HIGH).contains(&value);
        let out_of_range = |what| Err(Quality::new(Status::BAD_OUT_OF_RANGE, what));
        match &value {
            Value::Double(set_point) if is_in_range(*set_point) => self.set_point = *set_point,
            Value::Double(_) => return out_of_range("the set-point goes from 0 to 100"),
            Value::UInt32(mode) if *mode as usize >= MODES.len() => return out_of_range("the mode goes from 0 to 2"),
            Value::Array(profile) if !profile.values().iter().all(|value| value.as_f64().is_some_and(is_in_range)) => {
                return out_of_range("each value of the profile goes from 0 to 100");
            }
            _ => {}
        }
        self.hub.publish(vec![Sample::good(tag, value, self.hub.now())]);
        Ok(())
    }

    fn good(&self, tag: Tag, value: Value) -> Sample {
        let tag: TagId = self.tags.tags()[tag as usize];
        Sample::good(tag, value, self.hub.now())
    }
}

/// How far the period is, 0 to 1.
fn turn(now: Timestamp, period: Duration) -> f64 {
    let period = (period.as_nanos() / 100).clamp(1, i64::MAX as u128) as i64;
    now.ticks().rem_euclid(period) as f64 / period as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, Tasks};
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_wave_follows_the_clock() {
        let period = Duration::from_secs(60);
        assert_eq!(turn(Timestamp::from_millis(15_000), period), 0.25);
        assert_eq!(turn(Timestamp::from_millis(-15_000), period), 0.75);
        assert_eq!(turn(Timestamp::from_millis(5), Duration::from_nanos(1)), 0.0);
    }

    #[test]
    fn each_wave_has_its_own_phase() {
        let hub = Hub::new(Clock::simulated(UNIX_EPOCH + Duration::from_secs(60)));
        let config: Config = toml::from_str("name = 'demo'\nwaves = 4").unwrap();
        let mut simulator = Simulator::register(config, &hub).unwrap();
        simulator.tick();
        let wave = |n: usize| {
            let name = TagName::new(&format!("demo/waves/{n}")).unwrap();
            hub.read(hub.find(&name).unwrap()).value.as_f64().unwrap().round()
        };
        assert_eq!([1, 2, 3, 4].map(wave), [0.0, 1.0, 0.0, -1.0]);
        let config: Config = toml::from_str("name = 'demo'\nwaves = 100_001").unwrap();
        let finding = Finding::from(("waves", "there are too many; use 100000 at most".to_owned()));
        assert_eq!(super::super::Config::check(&config), [finding]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ticks_takes_set_points_and_refuses_those_out_of_range() {
        let hub = Hub::new(Clock::simulated(UNIX_EPOCH));
        let config: Config = toml::from_str("name = 'demo'").unwrap();
        let mut simulator = Simulator::register(config, &hub).unwrap();
        let tasks = Tasks::new("test");
        let stop = tasks.stop_signal();
        let ids = simulator.tags.tags().to_vec();
        let value = |tag: Tag| hub.read(ids[tag as usize]).value.as_f64().unwrap();
        let client = async {
            tokio::time::sleep(Duration::from_millis(15_500)).await;
            assert_eq!((value(Tag::Counter), value(Tag::Ramp)), (16.0, 25.0));
            assert!((value(Tag::Sine) - 1.0).abs() < 1e-9);
            hub.write(ids[Tag::SetPoint as usize], Value::Double(70.0)).await.unwrap();
            assert_eq!((value(Tag::SetPoint), value(Tag::Echo)), (70.0, 50.0));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(value(Tag::Echo), 70.0);
            let error = hub.write(ids[Tag::SetPoint as usize], Value::Double(f64::NAN)).await.unwrap_err();
            assert_eq!(error.status, Status::BAD_OUT_OF_RANGE);
            assert_eq!(value(Tag::SetPoint), 70.0);
        };
        tokio::select! {
            () = simulator.run(&stop) => panic!("ended"),
            () = client => {}
        }
    }
}
