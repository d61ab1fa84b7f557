//! How a value lies in coils or registers, and back. Pure.
//!
//! A register holds 16 bits, the high byte first on the wire (Modbus Application Protocol V1.1b3, 4.2). How a value of more
//! than one register lies in several is the device's own choice, so an [`Order`] says it in the usual letters: A is the
//! byte of the highest value. Swapped bytes are a matter of each register, so they also hold for 16-bit values, bits and
//! text; swapped words only for numbers of two or four registers.

use crate::model::{Array, DataType, Quality, Status, Value};
use serde::Deserialize;

/// The order of the bytes of a 32-bit number on the wire; a 64-bit number follows the same rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Order {
    #[default]
    #[serde(rename = "ABCD")]
    Abcd,
    /// The word of the lowest value first.
    #[serde(rename = "CDAB")]
    Cdab,
    /// The bytes of each register swapped.
    #[serde(rename = "BADC")]
    Badc,
    #[serde(rename = "DCBA")]
    Dcba,
}

impl Order {
    fn swaps_words(self) -> bool {
        matches!(self, Order::Cdab | Order::Dcba)
    }

    fn swaps_bytes(self) -> bool {
        matches!(self, Order::Badc | Order::Dcba)
    }

    fn register(self, register: u16) -> u16 {
        if self.swaps_bytes() { register.swap_bytes() } else { register }
    }
}

/// What stands in the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Type {
    Boolean,
    Int16,
    UInt16,
    Int32,
    UInt32,
    Int64,
    UInt64,
    Float,
    Double,
    /// Two characters in each register.
    String,
    /// Decimal digits, four bits each; as UInt16.
    #[serde(rename = "BCD16")]
    Bcd16,
    /// The same in two registers; as UInt32.
    #[serde(rename = "BCD32")]
    Bcd32,
}

impl Type {
    pub fn data_type(self) -> DataType {
        match self {
            Type::Boolean => DataType::Boolean,
            Type::Int16 => DataType::Int16,
            Type::UInt16 | Type::Bcd16 => DataType::UInt16,
            Type::Int32 => DataType::Int32,
            Type::UInt32 | Type::Bcd32 => DataType::UInt32,
            Type::Int64 => DataType::Int64,
            Type::UInt64 => DataType::UInt64,
            Type::Float => DataType::Float,
            Type::Double => DataType::Double,
            Type::String => DataType::String,
        }
    }

    /// Registers of one value; a String has as many as its length asks for.
    fn registers(self) -> u16 {
        match self {
            Type::Boolean | Type::Int16 | Type::UInt16 | Type::Bcd16 | Type::String => 1,
            Type::Int32 | Type::UInt32 | Type::Float | Type::Bcd32 => 2,
            Type::Int64 | Type::UInt64 | Type::Double => 4,
        }
    }

    pub fn is_number(self) -> bool {
        !matches!(self, Type::Boolean | Type::String)
    }
}

/// The value of a tag is `raw * scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    pub scale: f64,
    pub offset: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    pub kind: Type,
    pub order: Order,
    /// The bit of a Boolean in a register, 0 the lowest; `None` for coils and discrete inputs.
    pub bit: Option<u8>,
    /// Of an array.
    pub count: Option<u16>,
    /// Bytes of a String, of which the last register may have one more.
    pub text: u16,
    pub scaling: Option<Scaling>,
}

/// What a write has to put into the device.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    Coils(Vec<bool>),
    Registers(Vec<u16>),
    /// One bit of a register, which shares it with others.
    Bit {
        mask: u16,
        set: bool,
    },
}

impl Layout {
    /// Registers; or coils, if it lies in coils.
    pub fn size(&self) -> u32 {
        let one = if self.kind == Type::String { self.text.div_ceil(2) } else { self.kind.registers() };
        u32::from(one) * u32::from(self.count.unwrap_or(1))
    }

    pub fn data_type(&self) -> DataType {
        if self.scaling.is_some() { DataType::Double } else { self.kind.data_type() }
    }

    /// From coils or discrete inputs, as many as [`Layout::size`].
    pub fn of_coils(&self, coils: &[bool]) -> Value {
        self.gather(coils.iter().map(|&coil| Value::Boolean(coil)).collect())
    }

    /// From registers, as many as [`Layout::size`].
    pub fn of_registers(&self, registers: &[u16]) -> Result<Value, Quality> {
        if self.kind == Type::String {
            return Ok(self.text_of(registers));
        }
        let each = registers.chunks_exact(usize::from(self.kind.registers()));
        Ok(self.gather(each.map(|registers| self.one_of(registers)).collect::<Result<_, _>>()?))
    }

    fn gather(&self, mut values: Vec<Value>) -> Value {
        match self.count {
            None => values.pop().unwrap_or_default(),
            Some(_) => Array::new(self.data_type(), values, None).expect("all come from one layout").into(),
        }
    }

    fn one_of(&self, registers: &[u16]) -> Result<Value, Quality> {
        if let Some(bit) = self.bit {
            return Ok(Value::Boolean(self.order.register(registers[0]) >> bit & 1 == 1));
        }
        // The word of the highest value first, whatever the order on the wire.
        let mut bits = 0_u64;
        let mut add = |&register: &u16| bits = bits << 16 | u64::from(self.order.register(register));
        if self.order.swaps_words() {
            registers.iter().rev().for_each(&mut add)
        } else {
            registers.iter().for_each(add)
        }
        let raw = match self.kind {
            Type::Boolean | Type::String => return Err(Quality::from(Status::BAD_INTERNAL_ERROR)),
            Type::UInt16 => Value::UInt16(bits as u16),
            Type::Int16 => Value::Int16(bits as u16 as i16),
            Type::UInt32 => Value::UInt32(bits as u32),
            Type::Int32 => Value::Int32(bits as u32 as i32),
            Type::UInt64 => Value::UInt64(bits),
            Type::Int64 => Value::Int64(bits as i64),
            Type::Float => Value::Float(f32::from_bits(bits as u32)),
            Type::Double => Value::Double(f64::from_bits(bits)),
            Type::Bcd16 => Value::UInt16(decimal(bits, 4)? as u16),
            Type::Bcd32 => Value::UInt32(decimal(bits, 8)? as u32),
        };
        Ok(match (self.scaling, raw.as_f64()) {
            (Some(Scaling { scale, offset }), Some(raw)) => Value::Double(raw * scale + offset),
            _ => raw,
        })
    }

    /// Up to the first NUL, without blanks at the end. What is no UTF-8 is taken as Latin-1, in which each byte is a character.
    fn text_of(&self, registers: &[u16]) -> Value {
        let bytes = registers.iter().flat_map(|&register| self.order.register(register).to_be_bytes());
        let bytes: Vec<u8> = bytes.take(self.text.into()).collect();
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        let text = match std::str::from_utf8(text) {
            Ok(text) => text.to_owned(),
            Err(_) => text.iter().map(|&byte| char::from(byte)).collect(),
        };
        Value::string(text.trim_end())
    }

    /// What to write for a value of the tag's type.
    pub fn to_raw(&self, value: &Value, is_coil: bool) -> Result<Raw, Quality> {
        let values = match value {
            Value::Array(array) => array.values(),
            one => std::slice::from_ref(one),
        };
        let wanted = usize::from(self.count.unwrap_or(1));
        if values.len() != wanted {
            return Err(refused(format!("it has {wanted} elements, not {}", values.len())));
        }
        match (value, self.bit) {
            (Value::Boolean(set), Some(bit)) => return Ok(Raw::Bit { mask: self.order.register(1 << bit), set: *set }),
            (Value::String(text), _) => return self.registers_of(text.as_deref().unwrap_or_default()),
            _ if is_coil => {}
            _ => {
                let each = values.iter().map(|value| self.registers_of_one(value));
                return Ok(Raw::Registers(each.collect::<Result<Vec<_>, _>>()?.concat()));
            }
        }
        Ok(Raw::Coils(values.iter().map(|value| *value == Value::Boolean(true)).collect()))
    }

    fn registers_of(&self, text: &str) -> Result<Raw, Quality> {
        let most = usize::from(self.text);
        if text.len() > most {
            return Err(refused(format!("the text has {} bytes, and there is room for {most}", text.len())));
        }
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(most.next_multiple_of(2), 0);
        let registers = bytes.chunks_exact(2).map(|pair| self.order.register(u16::from_be_bytes([pair[0], pair[1]])));
        Ok(Raw::Registers(registers.collect()))
    }

    fn registers_of_one(&self, value: &Value) -> Result<Vec<u16>, Quality> {
        let bits = match (self.scaling, value) {
            (Some(Scaling { scale, offset }), Value::Double(value)) => {
                self.bits_of(*value, (value - offset) / scale)?
            }
            (None, Value::Float(value)) => value.to_bits().into(),
            (None, Value::Double(value)) => value.to_bits(),
            (None, Value::UInt16(value)) if self.kind == Type::Bcd16 => digits((*value).into(), 4)?,
            (None, Value::UInt32(value)) if self.kind == Type::Bcd32 => digits((*value).into(), 8)?,
            (None, Value::UInt16(value)) => (*value).into(),
            (None, Value::Int16(value)) => *value as u64,
            (None, Value::UInt32(value)) => (*value).into(),
            (None, Value::Int32(value)) => *value as u64,
            (None, Value::UInt64(value)) => *value,
            (None, Value::Int64(value)) => *value as u64,
            _ => return Err(Status::BAD_TYPE_MISMATCH.into()),
        };
        let count = self.kind.registers();
        let mut registers: Vec<u16> =
            (0..count).rev().map(|at| self.order.register((bits >> (16 * at)) as u16)).collect();
        if self.order.swaps_words() {
            registers.reverse();
        }
        Ok(registers)
    }

    /// The bits of an unscaled number. Whole numbers are rounded to the nearest.
    fn bits_of(&self, value: f64, raw: f64) -> Result<u64, Quality> {
        let whole = |low: f64, high: f64| {
            let rounded = raw.round();
            let is_within = (low..=high).contains(&rounded);
            is_within
                .then_some(rounded)
                .ok_or_else(|| refused(format!("{value} would be {raw} in the device, which holds {low} to {high}")))
        };
        // 2^63 and 2^64 themselves do not fit, and the next lower f64 does.
        let below = |power: i32| f64::from_bits(2_f64.powi(power).to_bits() - 1);
        Ok(match self.kind {
            Type::UInt16 => whole(0.0, u16::MAX.into())? as u64,
            Type::Int16 => whole(i16::MIN.into(), i16::MAX.into())? as i64 as u64,
            Type::UInt32 => whole(0.0, u32::MAX.into())? as u64,
            Type::Int32 => whole(i32::MIN.into(), i32::MAX.into())? as i64 as u64,
            Type::UInt64 => whole(0.0, below(64))? as u64,
            Type::Int64 => whole(-2_f64.powi(63), below(63))? as i64 as u64,
            Type::Bcd16 => digits(whole(0.0, 9999.0)? as u64, 4)?,
            Type::Bcd32 => digits(whole(0.0, 99_999_999.0)? as u64, 8)?,
            Type::Float if raw.is_finite() && (raw as f32).is_infinite() => {
                return Err(refused(format!("{value} would be {raw} in the device, which is too large for a Float")));
            }
            Type::Float => (raw as f32).to_bits().into(),
            Type::Double => raw.to_bits(),
            Type::Boolean | Type::String => return Err(Status::BAD_TYPE_MISMATCH.into()),
        })
    }
}

fn refused(what: String) -> Quality {
    Quality::new(Status::BAD_OUT_OF_RANGE, what)
}

fn decimal(bits: u64, digits: u32) -> Result<u64, Quality> {
    (0..digits).rev().try_fold(0, |number, at| match bits >> (4 * at) & 0xF {
        digit @ 0..=9 => Ok(number * 10 + digit),
        _ => Err(Quality::new(
            Status::BAD_OUT_OF_RANGE,
            format!("0x{bits:0width$X} is no BCD number", width = digits as usize),
        )),
    })
}

fn digits(mut number: u64, digits: u32) -> Result<u64, Quality> {
    if number >= 10_u64.pow(digits) {
        return Err(refused(format!("{number} has more than {digits} digits")));
    }
    let mut bits = 0;
    for at in 0..digits {
        bits |= (number % 10) << (4 * at);
        number /= 10;
    }
    Ok(bits)
}

#[cfg(test)]
mod tests;
