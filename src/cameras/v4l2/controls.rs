//! The controls of a V4L2 node: which there are, what they take, and events when they change.
//!
//! A file of its own, opened without blocking and never streamed from, so that controls work whether somebody captures or
//! not. Each control's events are subscribed to before its value is read for the first time, so that no change is missed.
//! Events only say where to look: values and limits are always asked for anew, by one path for all types.
//!
//! Left out: control classes (headings), structs other than V4L2_CTRL_TYPE_AREA, arrays of strings.

use super::control_calls::{self, ControlInfo, Payload};
use super::{Place as Node, ioctl, kinds, names};
use crate::cameras::controls::{Control, Kind, Obstacle, Place, Port, PortError, number_of, text_of, value_of};
use crate::cameras::device::CameraError;
use crate::model::{Array, DataType, Quality, Status, Value};
use async_trait::async_trait;
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;
use v4l::v4l_sys as sys;

/// A menu that claims more entries is cut; the longest known has a few hundred.
const MENU: i64 = 1024;
/// Arrays with more elements are left out.
const ELEMENTS: usize = 65_536;

/// The controls of the capture node with this path. It need not exist yet.
pub struct ControlsAt(pub Node);

impl Place for ControlsAt {
    fn probe(&self) -> Result<(), CameraError> {
        super::probe(&self.0)
    }

    /// Needs a tokio runtime.
    fn open(&mut self) -> Result<Box<dyn Port>, CameraError> {
        let (device, path) = (self.0.name(), self.0.get()?);
        let file = super::open(&path).map_err(|failure| super::error(&device, "open", &failure))?;
        let found = ioctl::capability(&file).map_err(|failure| super::not_v4l2(&device, &failure))?;
        kinds::camera_queue(&found, &path)
            .map_err(|what| CameraError::NotACamera { device: device.clone(), found: what.into() })?;
        let file =
            control_calls::await_events(file).map_err(|failure| super::error(&device, "wait for events", &failure))?;
        Ok(Box::new(V4l2Controls { device, file, silent: HashSet::new() }))
    }
}

struct V4l2Controls {
    device: String,
    file: AsyncFd<File>,
    /// Controls without events, because the driver has none.
    silent: HashSet<u32>,
}

#[async_trait]
impl Port for V4l2Controls {
    fn list(&mut self) -> Result<Vec<Control>, CameraError> {
        let mut controls = Vec::new();
        let mut last = 0;
        loop {
            let info = match control_calls::control_after(self.file.get_ref(), last) {
                // A driver that does not go on would keep us here.
                Ok(Some(info)) if info.id > last => info,
                Ok(_) => return Ok(controls),
                // Some USB cameras fail at one control; those before it are better than none.
                Err(failure) => match self.error("list controls", &failure) {
                    error @ CameraError::Failed { .. } if !controls.is_empty() => {
                        warn!(%error, found = controls.len(), "Further controls of the camera are left out.");
                        return Ok(controls);
                    }
                    error => return Err(error),
                },
            };
            last = info.id;
            if info.flags & sys::V4L2_CTRL_FLAG_DISABLED != 0 {
                continue;
            }
            // With feedback: a write to one control changes flags of others, which is wanted too.
            let flags = sys::V4L2_EVENT_SUB_FL_ALLOW_FEEDBACK;
            if ioctl::subscribe(self.file.get_ref(), sys::V4L2_EVENT_CTRL, info.id, flags).is_err() {
                self.silent.insert(info.id);
            }
            controls.extend(self.control(info));
        }
    }

    fn describe(&mut self, id: u32) -> Result<Control, PortError> {
        let info = control_calls::control(self.file.get_ref(), id).map_err(|failure| self.read_error(&failure))?;
        let missing = || Quality::new(Status::BAD_NOT_SUPPORTED, "the camera no longer has this control");
        self.control(info).ok_or_else(|| missing().into())
    }

    fn get(&mut self, control: &Control) -> Result<Value, PortError> {
        let mut payload = empty(control);
        control_calls::get_control(self.file.get_ref(), control.id, &mut payload)
            .map_err(|failure| self.read_error(&failure))?;
        Ok(decode(control, &payload))
    }

    fn set(&mut self, control: &Control, value: &Value) -> Result<(), PortError> {
        control_calls::set_control(self.file.get_ref(), control.id, &mut encode(control, value))
            .map_err(|failure| self.write_error(&failure))
    }

    async fn wait(&mut self) {
        match self.file.ready(Interest::PRIORITY).await {
            // Whoever waited now takes all events there are.
            Ok(mut ready) => ready.clear_ready(),
            // The runtime is ending.
            Err(_) => std::future::pending().await,
        }
    }

    fn changed(&mut self) -> Result<Vec<u32>, CameraError> {
        let mut ids = Vec::new();
        while let Some(event) =
            ioctl::next_event(self.file.get_ref()).map_err(|failure| self.error("take an event", &failure))?
        {
            if event.kind == sys::V4L2_EVENT_CTRL && !ids.contains(&event.id) {
                ids.push(event.id);
            }
        }
        Ok(ids)
    }

    fn probe(&mut self) -> Result<(), CameraError> {
        // Answered by the kernel, without a word to the camera.
        ioctl::capability(self.file.get_ref()).map(|_| ()).map_err(|failure| self.error("query capabilities", &failure))
    }
}

impl V4l2Controls {
    fn error(&self, operation: &'static str, failure: &io::Error) -> CameraError {
        super::error(&self.device, operation, failure)
    }

    fn control(&self, info: ControlInfo) -> Option<Control> {
        let has_events = !self.silent.contains(&info.id);
        let (file, id) = (self.file.get_ref(), info.id);
        control(info, has_events, |is_integer, index| control_calls::menu_entry(file, id, is_integer, index))
    }

    fn read_error(&self, failure: &io::Error) -> PortError {
        match self.error("read control", failure) {
            lost @ (CameraError::Gone { .. } | CameraError::Missing { .. }) => lost.into(),
            error => Quality::new(Status::BAD_DEVICE_FAILURE, error.to_string()).into(),
        }
    }

    /// The kernel's documentation of VIDIOC_S_EXT_CTRLS says what the driver means.
    fn write_error(&self, failure: &io::Error) -> PortError {
        let (status, reason) = match failure.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::RANGE | Errno::INVAL) => (Status::BAD_OUT_OF_RANGE, "the camera does not take this value"),
            Some(Errno::BUSY) => (Status::BAD_RESOURCE_UNAVAILABLE, "the control is in use and cannot be changed now"),
            // What USB cameras say of a control that an automatic has.
            Some(Errno::ACCESS | Errno::ILSEQ) => {
                (Status::BAD_INVALID_STATE, "the camera does not take it in its present state")
            }
            Some(Errno::TIMEDOUT) => (Status::BAD_TIMEOUT, "the camera did not answer"),
            _ => return self.read_error(failure),
        };
        Quality::new(status, format!("{}: {reason}", self.device)).into()
    }
}

/// A control as the driver describes it; `None` for types that are left out. `entry` gives an entry of its menu, as text
/// or as the number behind it.
fn control(info: ControlInfo, has_events: bool, entry: impl Fn(bool, u32) -> Option<String>) -> Option<Control> {
    let (low, high) = (info.minimum, info.maximum);
    let number = |data_type| Kind::Number { data_type, low, high };
    let menu = |is_integer| {
        let entries = (0..=high.clamp(0, MENU - 1) as u32).map(|index| entry(is_integer, index));
        Kind::Menu(entries.map(|entry| entry.unwrap_or_default().into()).collect())
    };
    let has = |flags| info.flags & flags != 0;
    let elements = info.dimensions.iter().try_fold(1usize, |product, &size| product.checked_mul(size as usize));
    let elements = elements.filter(|elements| (1..=ELEMENTS).contains(elements))?;
    let is_array = !info.dimensions.is_empty();
    let least = if has(sys::V4L2_CTRL_FLAG_DYNAMIC_ARRAY) { 1 } else { elements };
    let mut length = is_array.then_some(least..=elements);
    let kind = match info.kind {
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => Kind::Boolean,
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => Kind::Button,
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER => number(DataType::Int32),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64 => number(DataType::Int64),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_U8 => number(DataType::Byte),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_U16 => number(DataType::UInt16),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_U32 => number(DataType::UInt32),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU => menu(false),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => menu(true),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => Kind::Bitmask(high as u32),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_STRING if !is_array => Kind::Text(bytes(low)..=bytes(high)),
        // Width and height, of which the kernel takes no zero.
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_AREA if !is_array => {
            length = Some(2..=2);
            Kind::Number { data_type: DataType::UInt32, low: 1, high: u32::MAX.into() }
        }
        _ => return None,
    };
    let readable = kind == Kind::Button || !has(sys::V4L2_CTRL_FLAG_WRITE_ONLY);
    // An inactive control is one that the camera itself may be setting, and USB cameras do not say when they do.
    let may_change = sys::V4L2_CTRL_FLAG_VOLATILE | sys::V4L2_CTRL_FLAG_EXECUTE_ON_WRITE | sys::V4L2_CTRL_FLAG_INACTIVE;
    let obstacle = if has(sys::V4L2_CTRL_FLAG_INACTIVE) {
        Some(Obstacle::Inactive)
    } else if has(sys::V4L2_CTRL_FLAG_GRABBED) {
        Some(Obstacle::Grabbed)
    } else if has(sys::V4L2_CTRL_FLAG_VOLATILE) && !has(sys::V4L2_CTRL_FLAG_EXECUTE_ON_WRITE) {
        Some(Obstacle::Volatile)
    } else {
        None
    };
    Some(Control {
        id: info.id,
        name: names::clean(&info.name).unwrap_or_else(|| format!("Control {:#010x}", info.id)),
        length,
        readable,
        writable: !has(sys::V4L2_CTRL_FLAG_READ_ONLY),
        live: readable && kind != Kind::Button && (has(may_change) || !has_events),
        obstacle,
        kind,
    })
}

fn bytes(limit: i64) -> usize {
    usize::try_from(limit).unwrap_or(0)
}

/// Bytes of one element of an array in the driver's memory.
fn size_of_element(data_type: DataType) -> usize {
    match data_type {
        DataType::Byte => 1,
        DataType::UInt16 => 2,
        DataType::Int64 => 8,
        _ => 4,
    }
}

/// Room for the longest value of a control.
fn empty(control: &Control) -> Payload {
    match (&control.kind, &control.length) {
        (Kind::Text(length), _) => Payload::Bytes(vec![0; length.end() + 1]),
        (_, Some(length)) => Payload::Bytes(vec![0; length.end() * size_of_element(control.data_type())]),
        (Kind::Number { data_type: DataType::Int64, .. }, None) => Payload::Value64(0),
        _ => Payload::Value(0),
    }
}

fn encode(control: &Control, value: &Value) -> Payload {
    let number = |value: &Value| number_of(value).unwrap_or_default();
    match (empty(control), value) {
        (Payload::Value(_), value) => Payload::Value(number(value) as i32),
        (Payload::Value64(_), value) => Payload::Value64(number(value)),
        (Payload::Bytes(_), Value::Array(array)) => {
            // In the machine's own order, and of the width of the element: its low bytes.
            let size = size_of_element(control.data_type());
            let element = |value: &Value| match size {
                1 => vec![number(value) as u8],
                2 => (number(value) as u16).to_ne_bytes().to_vec(),
                4 => (number(value) as u32).to_ne_bytes().to_vec(),
                _ => number(value).to_ne_bytes().to_vec(),
            };
            Payload::Bytes(array.values().iter().flat_map(element).collect())
        }
        (Payload::Bytes(_), text) => Payload::Bytes(text_of(text).bytes().chain([0]).collect()),
    }
}

fn decode(control: &Control, payload: &Payload) -> Value {
    let data_type = control.data_type();
    match payload {
        Payload::Value(number) => value_of(data_type, (*number).into()),
        Payload::Value64(number) => value_of(data_type, *number),
        Payload::Bytes(bytes) if data_type == DataType::String => {
            let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
            Value::string(String::from_utf8_lossy(text))
        }
        Payload::Bytes(bytes) => {
            let element = |bytes: &[u8]| {
                value_of(
                    data_type,
                    match *bytes {
                        [a] => a.into(),
                        [a, b] => u16::from_ne_bytes([a, b]).into(),
                        [a, b, c, d] => i32::from_ne_bytes([a, b, c, d]).into(),
                        _ => i64::from_ne_bytes(bytes.try_into().unwrap_or_default()),
                    },
                )
            };
            let elements: Vec<Value> = bytes.chunks_exact(size_of_element(data_type)).map(element).collect();
            Array::new(data_type, elements, None).expect("all are of one type").into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(kind: u32, minimum: i64, maximum: i64, flags: u32, dimensions: &[u32]) -> ControlInfo {
        let dimensions = dimensions.to_vec();
        ControlInfo { id: 7, kind, name: "White Balance, Auto/Manual".into(), minimum, maximum, flags, dimensions }
    }

    fn made(info: ControlInfo) -> Control {
        control(info, true, |is_integer, index| (index % 2 == 1).then(|| format!("{is_integer} {index}"))).unwrap()
    }

    const INTEGER: u32 = sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER;

    #[test]
    fn types_and_limits_become_kinds() {
        let number = |data_type, low, high| Kind::Number { data_type, low, high };
        let menu = |names: &[&str]| Kind::Menu(names.iter().map(|&name| name.into()).collect());
        for (kind, low, high, expected) in [
            (INTEGER, -5, 9, number(DataType::Int32, -5, 9)),
            (sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64, i64::MIN, 9, number(DataType::Int64, i64::MIN, 9)),
            (sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN, 0, 1, Kind::Boolean),
            (sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK, 0, 0x8000_0001, Kind::Bitmask(0x8000_0001)),
            (sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_STRING, 2, 4, Kind::Text(2..=4)),
            (sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU, 1, 3, menu(&["", "false 1", "", "false 3"])),
            (sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU, 0, 1, menu(&["", "true 1"])),
        ] {
            assert_eq!(made(info(kind, low, high, 0, &[])).kind, expected);
        }
        assert_eq!(made(info(INTEGER, 0, 1, 0, &[])).name, "White Balance, Auto Manual");
        let class = info(sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_CTRL_CLASS, 0, 0, 0, &[]);
        assert!(control(class, true, |_, _| None).is_none());
        let huge = info(INTEGER, 0, 0, 0, &[u32::MAX, u32::MAX, u32::MAX]);
        assert!(control(huge, true, |_, _| None).is_none());
    }

    #[test]
    fn flags_say_what_can_be_done() {
        let with = |flags| made(info(INTEGER, 0, 9, flags, &[]));
        let plain = with(0);
        assert!(plain.readable && plain.writable && !plain.live && plain.obstacle.is_none());
        assert!(!with(sys::V4L2_CTRL_FLAG_READ_ONLY).writable);
        assert!(!with(sys::V4L2_CTRL_FLAG_WRITE_ONLY | sys::V4L2_CTRL_FLAG_VOLATILE).live, "it cannot be read");
        assert_eq!(with(sys::V4L2_CTRL_FLAG_GRABBED).obstacle, Some(Obstacle::Grabbed));
        let automatic = with(sys::V4L2_CTRL_FLAG_INACTIVE | sys::V4L2_CTRL_FLAG_VOLATILE);
        assert_eq!((automatic.obstacle, automatic.live), (Some(Obstacle::Inactive), true));
        let measured = with(sys::V4L2_CTRL_FLAG_VOLATILE);
        assert_eq!((measured.obstacle, measured.live), (Some(Obstacle::Volatile), true));
        let action = with(sys::V4L2_CTRL_FLAG_VOLATILE | sys::V4L2_CTRL_FLAG_EXECUTE_ON_WRITE);
        assert_eq!((action.obstacle, action.live), (None, true));
        let silent = control(info(INTEGER, 0, 9, 0, &[]), false, |_, _| None).unwrap();
        assert!(silent.live, "without events somebody has to ask");
        let button = info(sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON, 0, 0, sys::V4L2_CTRL_FLAG_WRITE_ONLY, &[]);
        assert!(made(button).readable && !control(info(4, 0, 0, 0, &[]), false, |_, _| None).unwrap().live);
    }

    #[test]
    fn values_of_every_kind_travel_both_ways() {
        let array = |data_type, values: Vec<Value>| Value::from(Array::new(data_type, values, None).unwrap());
        let bytes = |bytes: &[u8]| Payload::Bytes(bytes.to_vec());
        let wide = [1u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
        let long = [(-2i64).to_ne_bytes(), i64::MAX.to_ne_bytes()].concat();
        let area = sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_AREA;
        for (control, value, payload) in [
            (info(INTEGER, -9, 9, 0, &[]), Value::Int32(-9), Payload::Value(-9)),
            (info(2, 0, 1, 0, &[]), Value::Boolean(true), Payload::Value(1)),
            (info(3, 0, 1, 0, &[]), Value::UInt32(1), Payload::Value(1)),
            (info(5, i64::MIN, 0, 0, &[]), Value::Int64(i64::MIN), Payload::Value64(i64::MIN)),
            (info(8, 0, u32::MAX.into(), 0, &[]), Value::UInt32(0x8000_0000), Payload::Value(i32::MIN)),
            (info(7, 0, 4, 0, &[]), Value::string("aé"), bytes(b"a\xc3\xa9\0")),
            (
                info(256, 0, 255, 0, &[2]),
                array(DataType::Byte, vec![Value::Byte(200), Value::Byte(1)]),
                bytes(&[200, 1]),
            ),
            (
                info(257, 0, 9, 0, &[1]),
                array(DataType::UInt16, vec![Value::UInt16(0xFEDC)]),
                bytes(&0xFEDCu16.to_ne_bytes()),
            ),
            (info(area, 0, 0, 0, &[]), array(DataType::UInt32, [1, u32::MAX].map(Value::UInt32).into()), bytes(&wide)),
            (info(INTEGER, -1, 1, 0, &[2]), array(DataType::Int32, [1, -1].map(Value::Int32).into()), bytes(&wide)),
            (info(5, 0, 1, 0, &[2, 1]), array(DataType::Int64, [-2, i64::MAX].map(Value::Int64).into()), bytes(&long)),
        ] {
            let control = made(control);
            assert_eq!(encode(&control, &value), payload);
            assert_eq!(decode(&control, &payload), value);
        }
        let text = made(info(7, 0, 4, 0, &[]));
        assert_eq!(empty(&text), bytes(&[0; 5]), "the longest text and its NUL");
        assert_eq!(decode(&text, &bytes(b"a\xff\0b")), Value::string("a\u{fffd}"));
        let dynamic = made(info(258, 0, 9, sys::V4L2_CTRL_FLAG_DYNAMIC_ARRAY, &[100]));
        assert_eq!((dynamic.length.clone(), empty(&dynamic)), (Some(1..=100), bytes(&[0; 400])));
    }
}
