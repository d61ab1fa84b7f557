use super::*;
use crate::base::{Clock, Tasks};
use crate::model::{Array, DataType};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;
use tokio::sync::Notify;

/// A device that does what the test says. Numbers are rounded to tens, as by a driver with a step.
#[derive(Clone, Default)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    event: Arc<Notify>,
}

#[derive(Default)]
struct Script {
    controls: BTreeMap<u32, (Control, Value)>,
    changed: Vec<u32>,
    error: Option<CameraError>,
    open: u32,
    /// What reached the driver.
    written: Vec<(u32, Value)>,
}

struct Opened(Scripted);

impl Scripted {
    fn with(controls: impl IntoIterator<Item = (Control, Value)>) -> Self {
        let scripted = Self::default();
        scripted.replace(controls);
        scripted
    }

    fn replace(&self, controls: impl IntoIterator<Item = (Control, Value)>) {
        self.edit(|script| {
            script.controls = controls.into_iter().map(|control| (control.0.id, control)).collect();
        });
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut Script) -> T) -> T {
        edit(&mut self.script.lock().unwrap())
    }

    /// Somebody else changes a control.
    fn change(&self, id: u32, edit: impl FnOnce(&mut Control, &mut Value)) {
        self.edit(|script| {
            let (control, value) = script.controls.get_mut(&id).unwrap();
            edit(control, value);
            script.changed.push(id);
        });
        self.event.notify_one();
    }

    fn fails_with(&self, error: Option<CameraError>) {
        self.edit(|script| script.error = error);
    }

    fn is_open(&self) -> bool {
        self.edit(|script| script.open > 0)
    }
}

impl Place for Scripted {
    fn probe(&self) -> Result<(), CameraError> {
        self.edit(|script| script.check())
    }

    fn open(&mut self) -> Result<Box<dyn Port>, CameraError> {
        self.edit(|script| {
            script.check()?;
            script.open += 1;
            Ok(())
        })?;
        Ok(Box::new(Opened(self.clone())))
    }
}

impl Script {
    fn check(&self) -> Result<(), CameraError> {
        self.error.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.edit(|script| script.open -= 1);
    }
}

#[async_trait]
impl Port for Opened {
    fn list(&mut self) -> Result<Vec<Control>, CameraError> {
        self.0.edit(|script| {
            script.check()?;
            Ok(script.controls.values().map(|(control, _)| control.clone()).collect())
        })
    }

    fn describe(&mut self, id: u32) -> Result<Control, PortError> {
        self.0.edit(|script| {
            script.check()?;
            Ok(script.controls[&id].0.clone())
        })
    }

    fn get(&mut self, control: &Control) -> Result<Value, PortError> {
        self.0.edit(|script| {
            script.check()?;
            Ok(script.controls[&control.id].1.clone())
        })
    }

    fn set(&mut self, control: &Control, value: &Value) -> Result<(), PortError> {
        self.0.edit(|script| {
            script.check()?;
            script.written.push((control.id, value.clone()));
            let kept = &mut script.controls.get_mut(&control.id).unwrap().1;
            *kept = match value {
                Value::Int32(number) => Value::Int32(number / 10 * 10),
                other => other.clone(),
            };
            Ok(())
        })
    }

    async fn wait(&mut self) {
        self.0.event.notified().await;
    }

    fn changed(&mut self) -> Result<Vec<u32>, CameraError> {
        self.0.edit(|script| {
            script.check()?;
            Ok(std::mem::take(&mut script.changed))
        })
    }

    fn probe(&mut self) -> Result<(), CameraError> {
        self.0.edit(|script| script.check())
    }
}

fn control(id: u32, name: &str, kind: Kind) -> Control {
    let (length, obstacle) = (None, None);
    Control { id, name: name.into(), kind, length, readable: true, writable: true, live: false, obstacle }
}

fn number(id: u32, name: &str) -> (Control, Value) {
    (control(id, name, Kind::Number { data_type: DataType::Int32, low: -100, high: 100 }), Value::Int32(0))
}

fn menu() -> (Control, Value) {
    (control(2, "Mode", Kind::Menu(["", "Auto", "", "Manual"].map(Arc::from).into())), Value::UInt32(1))
}

const SECOND: Duration = Duration::from_secs(1);

/// Serves the device's controls while the test runs.
async fn served<T>(device: &Scripted, test: impl AsyncFnOnce(Hub) -> T) -> T {
    served_when(WhenOpen::Always, device, test).await
}

async fn served_when<T>(open: WhenOpen, device: &Scripted, test: impl AsyncFnOnce(Hub) -> T) -> T {
    let hub = Hub::new(Clock::simulated(UNIX_EPOCH));
    let mut controls = Controls::register(&hub, "line1", Box::new(device.clone()), open).unwrap();
    let tasks = Tasks::new("test");
    let stop = tasks.stop_signal();
    tokio::select! {
        () = controls.serve(&stop) => panic!("ended"),
        result = async {
            settle().await;
            test(hub).await
        } => result,
    }
}

/// Time for what is under way; simulated, and less than a glance.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

fn find(hub: &Hub, name: &str) -> TagId {
    hub.find(&TagName::new(&format!("cameras/line1/Controls/{name}")).unwrap()).unwrap()
}

fn value(hub: &Hub, name: &str) -> Value {
    let sample = hub.read(find(hub, name));
    assert!(sample.quality.is_good(), "{name} is {}", sample.quality);
    sample.value
}

fn quality(hub: &Hub, name: &str) -> String {
    hub.read(find(hub, name)).quality.to_string()
}

async fn refusal(hub: &Hub, name: &str, value: Value) -> String {
    hub.write(find(hub, name), value).await.unwrap_err().to_string()
}

fn gone() -> CameraError {
    CameraError::Gone { device: "scripted".into(), reason: "unplugged".into() }
}

#[tokio::test(start_paused = true)]
async fn each_control_is_a_tag_with_its_type_and_limits() {
    let mut fixed = number(3, "Power");
    fixed.0.writable = false;
    let mut secret = number(5, "Secret");
    secret.0.readable = false;
    let button = (control(4, "Reset", Kind::Button), Value::Empty);
    let device = Scripted::with([number(1, "Gain"), menu(), fixed, button, secret, number(6, "Gain")]);
    served(&device, async |hub| {
        let spec = |name| hub.spec(find(&hub, name));
        assert_eq!((spec("Gain").data_type, spec("Gain").writable), (DataType::Int32, true));
        assert_eq!(spec("Gain").range, Some(crate::model::Range { low: -100.0, high: 100.0 }));
        assert_eq!(spec("Mode").data_type, DataType::UInt32);
        assert_eq!(spec("Mode").states.iter().map(|name| &**name).collect::<Vec<_>>(), ["", "Auto", "", "Manual"]);
        assert!(!spec("Power").writable);
        assert_eq!(value(&hub, "Gain 0x00000006"), Value::Int32(0), "a second of the same name");
        assert_eq!((value(&hub, "Mode"), value(&hub, "Reset")), (Value::UInt32(1), Value::Boolean(false)));
        assert!(quality(&hub, "Secret").starts_with("BadNotReadable: "));
        hub.write(find(&hub, "Secret"), Value::Int32(10)).await.unwrap();
        assert_eq!(device.edit(|script| script.written.clone()), [(5, Value::Int32(10))]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_write_shows_what_the_driver_made_of_it_and_what_else_changed() {
    let device = Scripted::with([number(1, "Gain"), number(2, "Autogain")]);
    served(&device, async |hub| {
        let mut every = hub.every(10);
        // Known to the driver when it answers, and before the event can be awaited.
        device.edit(|script| script.changed.push(2));
        hub.write(find(&hub, "Gain"), Value::Int32(57)).await.unwrap();
        assert_eq!(value(&hub, "Gain"), Value::Int32(50));
        let batch = every.try_next().unwrap();
        assert_eq!(batch.iter().map(|s| s.tag).collect::<Vec<_>>(), ["Autogain", "Gain"].map(|name| find(&hub, name)));
        assert!(every.try_next().is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_control_does_not_take_never_reaches_the_driver() {
    let bits = (control(3, "Bits", Kind::Bitmask(0x8000_0010)), Value::UInt32(0));
    let text = (control(4, "Text", Kind::Text(2..=4)), Value::string("ab"));
    let mut matrix = control(5, "Matrix", Kind::Number { data_type: DataType::Byte, low: 1, high: 9 });
    matrix.length = Some(3..=3);
    let array = |values: &[u8]| {
        let values: Vec<_> = values.iter().map(|&v| Value::Byte(v)).collect();
        Value::from(Array::new(DataType::Byte, values, None).unwrap())
    };
    let device = Scripted::with([number(1, "Gain"), menu(), bits, text, (matrix, array(&[1, 1, 1]))]);
    served(&device, async |hub| {
        for (name, bad) in [
            ("Gain", Value::Int32(101)),
            ("Gain", Value::Int32(-101)),
            ("Mode", Value::UInt32(2)),
            ("Mode", Value::UInt32(4)),
            ("Bits", Value::UInt32(0x11)),
            ("Text", Value::string("a")),
            ("Text", Value::string("abcde")),
            ("Text", Value::string("a\0b")),
            ("Text", Value::String(None)),
            ("Matrix", array(&[1, 1])),
            ("Matrix", array(&[1, 1, 1, 1])),
            ("Matrix", array(&[1, 10, 1])),
        ] {
            let refused = refusal(&hub, name, bad.clone()).await;
            assert!(refused.starts_with(&format!("BadOutOfRange: {name} ")), "{name} {bad:?}: {refused}");
        }
        assert_eq!(refusal(&hub, "Gain", Value::Int32(101)).await, "BadOutOfRange: Gain goes from -100 to 100");
        assert_eq!(device.edit(|script| script.written.len()), 0);
        for (name, good) in [
            ("Gain", Value::Int32(-100)),
            ("Mode", Value::UInt32(3)),
            ("Bits", Value::UInt32(0x8000_0000)),
            ("Text", Value::string("abcd")),
            ("Matrix", array(&[1, 5, 9])),
        ] {
            hub.write(find(&hub, name), good.clone()).await.unwrap();
            assert_eq!(value(&hub, name), good);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn flags_and_limits_hold_as_they_are_now() {
    let device = Scripted::with([number(1, "Gain")]);
    served(&device, async |hub| {
        for (obstacle, status) in [
            (Obstacle::Inactive, "BadInvalidState"),
            (Obstacle::Volatile, "BadInvalidState"),
            (Obstacle::Grabbed, "BadResourceUnavailable"),
        ] {
            // Without an event: some drivers send none.
            device.edit(|script| script.controls.get_mut(&1).unwrap().0.obstacle = Some(obstacle));
            let refused = refusal(&hub, "Gain", Value::Int32(10)).await;
            assert!(refused.starts_with(&format!("{status}: Gain is ")), "{refused}");
        }
        device.edit(|script| {
            let control = &mut script.controls.get_mut(&1).unwrap().0;
            control.obstacle = None;
            control.kind = Kind::Number { data_type: DataType::Int32, low: 0, high: 500 };
        });
        hub.write(find(&hub, "Gain"), Value::Int32(500)).await.unwrap();
        assert!(refusal(&hub, "Gain", Value::Int32(-10)).await.starts_with("BadOutOfRange"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_true_presses_a_button() {
    let device = Scripted::with([(control(4, "Reset", Kind::Button), Value::Empty)]);
    served(&device, async |hub| {
        for pressed in [false, true] {
            hub.write(find(&hub, "Reset"), Value::Boolean(pressed)).await.unwrap();
            assert_eq!(value(&hub, "Reset"), Value::Boolean(false));
        }
        assert_eq!(device.edit(|script| script.written.clone()), [(4, Value::Boolean(true))]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn changes_by_others_come_by_events_and_live_values_when_asked_for() {
    let device = Scripted::with([number(1, "Gain"), number(2, "Brightness")]);
    served(&device, async |hub| {
        let gain = find(&hub, "Gain");
        device.change(1, |_, value| *value = Value::Int32(30));
        settle().await;
        assert_eq!(value(&hub, "Gain"), Value::Int32(30));

        let silently = |number| {
            device.edit(|script| script.controls.get_mut(&1).unwrap().1 = Value::Int32(number));
        };
        silently(40);
        hub.refresh(&[gain], Duration::ZERO).await;
        assert_eq!(value(&hub, "Gain"), Value::Int32(30), "a value of which events tell is not asked for");
        device.change(1, |control, _| control.live = true);
        settle().await;
        silently(50);
        hub.refresh(&[gain], Duration::ZERO).await;
        assert_eq!(value(&hub, "Gain"), Value::Int32(50));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_device_is_closed_at_once_and_comes_back() {
    let device = Scripted::with([number(1, "Gain"), number(2, "Focus")]);
    served(&device, async |hub| {
        let focus = find(&hub, "Focus");
        device.fails_with(Some(gone()));
        tokio::time::sleep(SECOND).await;
        assert_eq!(quality(&hub, "Gain"), "BadNotConnected: scripted is gone (unplugged)");
        assert!(!device.is_open());
        assert!(refusal(&hub, "Gain", Value::Int32(1)).await.starts_with("BadNotConnected"));
        let start = Instant::now();
        hub.refresh(&[focus], Duration::ZERO).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "readers do not wait for it");

        device.edit(|script| script.controls.get_mut(&1).unwrap().1 = Value::Int32(70));
        device.fails_with(None);
        tokio::time::sleep(SECOND).await;
        assert_eq!(value(&hub, "Gain"), Value::Int32(70));

        // Requests that need not ask the device do not keep it from being looked at.
        device.fails_with(Some(gone()));
        for _ in 0..10 {
            hub.refresh(&[focus], Duration::ZERO).await;
            tokio::time::sleep(SECOND / 10).await;
        }
        assert!(quality(&hub, "Focus").starts_with("BadNotConnected"));
        device.fails_with(None);
        tokio::time::sleep(SECOND).await;

        // Lost in the middle of a write, and there again before anybody looks.
        device.fails_with(Some(gone()));
        assert!(refusal(&hub, "Gain", Value::Int32(1)).await.starts_with("BadNotConnected"));
        device.fails_with(None);
        settle().await;
        assert!(quality(&hub, "Gain").starts_with("BadNotConnected"), "a loss can be seen");
        tokio::time::sleep(SECOND).await;
        assert_eq!(value(&hub, "Gain"), Value::Int32(70));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_device_in_the_same_place_takes_up_what_fits() {
    let device = Scripted::with([number(1, "Gain"), number(2, "Mode"), number(3, "Focus")]);
    served(&device, async |hub| {
        let before = hub.tags().len();
        device.fails_with(Some(gone()));
        tokio::time::sleep(SECOND).await;
        // Gain has another number, Mode another type, Zoom is new and Focus is not there.
        device.replace([number(7, "Gain"), menu(), number(9, "Zoom")]);
        device.fails_with(None);
        tokio::time::sleep(SECOND).await;
        assert_eq!(hub.tags().len(), before + 1);
        assert_eq!((value(&hub, "Gain"), value(&hub, "Zoom")), (Value::Int32(0), Value::Int32(0)));
        for name in ["Mode", "Focus"] {
            assert!(quality(&hub, name).starts_with("BadNotSupported: "), "{name}: {}", quality(&hub, name));
            assert!(refusal(&hub, name, Value::Int32(1)).await.starts_with("BadNotSupported"));
        }
        hub.write(find(&hub, "Zoom"), Value::Int32(20)).await.unwrap();
        hub.write(find(&hub, "Gain"), Value::Int32(30)).await.unwrap();
        assert_eq!(device.edit(|script| script.written.clone()), [(9, Value::Int32(20)), (7, Value::Int32(30))]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_there_yet_is_taken_up_when_it_comes() {
    let device = Scripted::with([number(1, "Gain")]);
    device.fails_with(Some(CameraError::Missing { device: "scripted".into() }));
    served(&device, async |hub| {
        tokio::time::sleep(60 * SECOND).await;
        assert!(hub.tags().is_empty());
        device.fails_with(None);
        tokio::time::sleep(SECOND).await;
        assert_eq!(value(&hub, "Gain"), Value::Int32(0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_device_is_open_while_somebody_asks_and_closed_else() {
    let mut secret = number(2, "Secret");
    secret.0.readable = false;
    let device = Scripted::with([number(1, "Gain"), secret]);
    served_when(WhenOpen::OnDemand, &device, async |hub| {
        let gain = find(&hub, "Gain");
        assert!(device.is_open(), "to find out what there is");
        tokio::time::sleep(LINGER + SECOND).await;
        assert!(!device.is_open());

        // Changed by somebody meanwhile: a reader gets it.
        device.edit(|script| script.controls.get_mut(&1).unwrap().1 = Value::Int32(30));
        hub.refresh(&[gain], Duration::ZERO).await;
        assert_eq!(value(&hub, "Gain"), Value::Int32(30));
        // A monitoring sink asks each second.
        for _ in 0..10 {
            tokio::time::sleep(SECOND).await;
            assert!(device.is_open());
            hub.refresh(&[gain], Duration::ZERO).await;
        }
        tokio::time::sleep(LINGER + SECOND).await;
        assert!(!device.is_open());
        hub.write(find(&hub, "Secret"), Value::Int32(50)).await.unwrap();
        assert!(device.is_open());
        tokio::time::sleep(LINGER + SECOND).await;

        device.fails_with(Some(gone()));
        tokio::time::sleep(SECOND).await;
        assert!(quality(&hub, "Gain").starts_with("BadNotConnected"), "also while it is closed");
        device.fails_with(None);
        tokio::time::sleep(SECOND).await;
        assert_eq!(value(&hub, "Gain"), Value::Int32(30));
    })
    .await;
}
