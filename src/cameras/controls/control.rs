//! What a control is, whoever has it: a [`Place`] to open, and a [`Port`] with [`Control`]s to read and write.
//!
//! Drivers clamp and round what they are given and say nothing; so what a control takes is checked here, before the driver
//! sees it.

use crate::cameras::device::CameraError;
use crate::model::{DataType, Quality, Status, TagName, TagSpec, Value};
use async_trait::async_trait;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Where a device is looked for.
pub trait Place: Send {
    /// Whether it could be opened now. Cheap: called twice a second while the device is closed.
    fn probe(&self) -> Result<(), CameraError>;

    fn open(&mut self) -> Result<Box<dyn Port>, CameraError>;
}

/// A device's controls, while it is open. Blocking, because drivers are, but for `wait`.
#[async_trait]
pub trait Port: Send {
    /// All controls there are.
    fn list(&mut self) -> Result<Vec<Control>, CameraError>;

    /// One control as it is now: its limits and what can be done with it change with others.
    fn describe(&mut self, id: u32) -> Result<Control, PortError>;

    /// Only for readable controls that are no buttons.
    fn get(&mut self, control: &Control) -> Result<Value, PortError>;

    /// `value` is one that the control takes.
    fn set(&mut self, control: &Control, value: &Value) -> Result<(), PortError>;

    /// Waits until [`Port::changed`] has something, or the device is gone. Cancel safe.
    async fn wait(&mut self);

    /// The controls that changed since the last time, each once. Not those that are live.
    fn changed(&mut self) -> Result<Vec<u32>, CameraError>;

    /// Whether the device is still there. Cheap.
    fn probe(&mut self) -> Result<(), CameraError>;
}

#[derive(Debug)]
pub enum PortError {
    /// The device is gone, and all its controls with it.
    Lost(CameraError),
    /// This control does not do this now.
    Refused(Quality),
}

impl From<Quality> for PortError {
    fn from(quality: Quality) -> Self {
        PortError::Refused(quality)
    }
}

impl From<CameraError> for PortError {
    fn from(error: CameraError) -> Self {
        PortError::Lost(error)
    }
}

/// A control as its driver describes it.
#[derive(Clone, Debug)]
pub struct Control {
    /// The driver's number for it, V4L2_CID_*.
    pub id: u32,
    /// As the driver calls it, and fit to be a segment of a tag's name.
    pub name: String,
    pub kind: Kind,
    /// How many elements an array of them has; `None` for a single value.
    pub length: Option<RangeInclusive<usize>>,
    pub readable: bool,
    pub writable: bool,
    /// Its value may change without an event: only a look shows it.
    pub live: bool,
    /// Why it cannot be written just now.
    pub obstacle: Option<Obstacle>,
}

/// The type and the limits of a control, or of each element of an array.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Boolean,
    /// Reads false; writing true presses it.
    Button,
    Number {
        data_type: DataType,
        low: i64,
        high: i64,
    },
    /// The names of the values 0, 1, 2...; gaps are empty.
    Menu(Vec<Arc<str>>),
    /// The bits there are.
    Bitmask(u32),
    /// How many bytes.
    Text(RangeInclusive<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It has no effect while others are set as they are (V4L2_CTRL_FLAG_INACTIVE): exposure time under auto-exposure.
    Inactive,
    /// Somebody else has it, as a format-related one has a stream (V4L2_CTRL_FLAG_GRABBED).
    Grabbed,
    /// The hardware sets it; a write would be ignored (V4L2_CTRL_FLAG_VOLATILE).
    Volatile,
}

impl Control {
    pub fn data_type(&self) -> DataType {
        match self.kind {
            Kind::Boolean | Kind::Button => DataType::Boolean,
            Kind::Number { data_type, .. } => data_type,
            Kind::Menu(_) | Kind::Bitmask(_) => DataType::UInt32,
            Kind::Text(_) => DataType::String,
        }
    }

    /// The description of its tag.
    pub fn spec(&self, name: TagName) -> TagSpec {
        let mut spec = TagSpec::new(name, self.data_type());
        spec.is_array = self.length.is_some();
        spec.writable = self.writable;
        spec.live = self.is_shown();
        match &self.kind {
            Kind::Number { low, high, .. } => spec.range(*low as f64, *high as f64),
            Kind::Menu(names) => spec.states(names.clone()),
            Kind::Button => spec.described("Write true to press it"),
            Kind::Boolean => spec.states(vec!["off".into(), "on".into()]),
            Kind::Bitmask(_) | Kind::Text(_) => spec,
        }
    }

    /// Whether it has a value that the device can be asked for.
    pub fn is_shown(&self) -> bool {
        self.readable && self.kind != Kind::Button
    }

    /// Whether it takes this value now.
    pub fn check(&self, value: &Value) -> Result<(), Quality> {
        let Self { name, .. } = self;
        if !self.writable {
            return Err(Quality::new(Status::BAD_NOT_WRITABLE, format!("{name} is read-only")));
        }
        match self.obstacle {
            None => self.check_range(value),
            Some(Obstacle::Inactive) => Err(Quality::new(
                Status::BAD_INVALID_STATE,
                format!(
                    "{name} is inactive: it has no effect with the other controls as they are, such as an automatic"
                ),
            )),
            Some(Obstacle::Volatile) => {
                Err(Quality::new(Status::BAD_INVALID_STATE, format!("{name} is set by the camera itself")))
            }
            Some(Obstacle::Grabbed) => Err(Quality::new(
                Status::BAD_RESOURCE_UNAVAILABLE,
                format!("{name} is in use and cannot be changed now"),
            )),
        }
    }

    fn check_range(&self, value: &Value) -> Result<(), Quality> {
        let out_of_range = |what: String| Quality::new(Status::BAD_OUT_OF_RANGE, format!("{} {what}", self.name));
        match (value, &self.length) {
            (Value::Array(array), Some(length)) => {
                let found = array.values().len();
                if !length.contains(&found) {
                    let (least, most) = (length.start(), length.end());
                    let wanted = if least == most { most.to_string() } else { format!("{least} to {most}") };
                    return Err(out_of_range(format!("has {wanted} elements, not {found}")));
                }
                array.values().iter().try_for_each(|value| self.kind.check(value).map_err(out_of_range))
            }
            _ => self.kind.check(value).map_err(out_of_range),
        }
    }
}

impl Kind {
    /// What is wrong with a single value.
    fn check(&self, value: &Value) -> Result<(), String> {
        let number = number_of(value);
        let (is_valid, takes) = match self {
            Kind::Boolean | Kind::Button => (true, String::new()),
            Kind::Number { low, high, .. } => {
                (number.is_some_and(|number| (*low..=*high).contains(&number)), format!("goes from {low} to {high}"))
            }
            Kind::Menu(names) => {
                let name = number.and_then(|number| names.get(usize::try_from(number).ok()?));
                (name.is_some_and(|name| !name.is_empty()), "has no such state".into())
            }
            Kind::Bitmask(mask) => {
                (number.is_some_and(|number| number & !i64::from(*mask) == 0), format!("has the bits {mask:#x}"))
            }
            Kind::Text(length) => {
                let text = text_of(value);
                let (least, most) = (length.start(), length.end());
                let takes = format!("takes {least} to {most} bytes without NUL");
                (length.contains(&text.len()) && !text.contains('\0'), takes)
            }
        };
        if is_valid { Ok(()) } else { Err(takes) }
    }
}

/// A number of the driver as a value.
pub fn value_of(data_type: DataType, number: i64) -> Value {
    match data_type {
        DataType::Boolean => Value::Boolean(number != 0),
        DataType::Byte => Value::Byte(number as u8),
        DataType::UInt16 => Value::UInt16(number as u16),
        DataType::UInt32 => Value::UInt32(number as u32),
        DataType::Int64 => Value::Int64(number),
        _ => Value::Int32(number as i32),
    }
}

/// The other way; `None` for what no control has as a number.
pub fn number_of(value: &Value) -> Option<i64> {
    Some(match *value {
        Value::Boolean(v) => v.into(),
        Value::Byte(v) => v.into(),
        Value::UInt16(v) => v.into(),
        Value::UInt32(v) => v.into(),
        Value::Int32(v) => v.into(),
        Value::Int64(v) => v,
        _ => return None,
    })
}

/// The text in a value; a null string is as good as an empty one.
pub fn text_of(value: &Value) -> &str {
    match value {
        Value::String(Some(text)) => text,
        _ => "",
    }
}
