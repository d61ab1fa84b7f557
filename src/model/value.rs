//! Every value that OPC UA can carry, without loss.
//!
//! One enum for the 25 built-in types (OPC 10000-6, 5.1.2) and arrays of them. What is large is behind an [`Arc`],
//! so a `Value` is 24 bytes and a clone never copies a payload: a sample is cloned once per sink. Null strings and
//! empty strings differ in OPC UA, so they differ here. Structures stay encoded: whoever does not know the type
//! can still pass it on.

use super::{Status, Timestamp};
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// No value, not even a type (the null Variant).
    #[default]
    Empty,
    Boolean(bool),
    SByte(i8),
    Byte(u8),
    Int16(i16),
    UInt16(u16),
    Int32(i32),
    UInt32(u32),
    Int64(i64),
    UInt64(u64),
    Float(f32),
    Double(f64),
    String(Option<Arc<str>>),
    DateTime(Timestamp),
    /// In the order in which a GUID is written: the first byte is the first two digits.
    Guid([u8; 16]),
    ByteString(Option<Arc<[u8]>>),
    XmlElement(Option<Arc<str>>),
    NodeId(Arc<NodeId>),
    ExpandedNodeId(Arc<ExpandedNodeId>),
    StatusCode(Status),
    QualifiedName(Arc<QualifiedName>),
    LocalizedText(Arc<LocalizedText>),
    /// An ExtensionObject.
    Structure(Arc<Structure>),
    DataValue(Arc<DataValue>),
    /// A Variant inside a Variant; OPC UA allows it in arrays only.
    Variant(Arc<Value>),
    DiagnosticInfo(Arc<DiagnosticInfo>),
    Array(Arc<Array>),
}

macro_rules! data_types {
    ($($name:ident = $id:literal),* $(,)?) => {
        /// The built-in types, with the numeric identifier of their DataType node in namespace 0.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DataType { $($name = $id),* }

        impl DataType {
            pub const ALL: &'static [DataType] = &[$(DataType::$name),*];

            /// As OPC UA writes it.
            pub fn name(self) -> &'static str {
                match self { $(DataType::$name => stringify!($name)),* }
            }

            /// A subtype of OPC UA's Number (OPC 10000-3, 8.30), and so one that can have a range and a unit.
            pub fn is_number(self) -> bool {
                (DataType::SByte as u32..=DataType::Double as u32).contains(&(self as u32))
            }

            /// The built-in type with this identifier (1..=25), if there is one.
            pub fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(DataType::$name),)* _ => None }
            }
        }

        impl Value {
            /// The type of a scalar or of an array's elements; `None` for [`Value::Empty`].
            pub fn data_type(&self) -> Option<DataType> {
                match self {
                    Value::Empty => None,
                    Value::Array(array) => Some(array.data_type),
                    $(Value::$name { .. } => Some(DataType::$name),)*
                }
            }
        }
    };
}

data_types! {
    Boolean = 1, SByte = 2, Byte = 3, Int16 = 4, UInt16 = 5, Int32 = 6, UInt32 = 7, Int64 = 8, UInt64 = 9,
    Float = 10, Double = 11, String = 12, DateTime = 13, Guid = 14, ByteString = 15, XmlElement = 16, NodeId = 17,
    ExpandedNodeId = 18, StatusCode = 19, QualifiedName = 20, LocalizedText = 21, Structure = 22, DataValue = 23,
    Variant = 24, DiagnosticInfo = 25,
}

impl Value {
    /// Like `==`, but a NaN is the same as itself: a sensor that measures nothing would else report at each sample.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Value::Double(a), Value::Double(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Value::Array(a), Value::Array(b)) => {
                a.data_type() == b.data_type()
                    && a.dimensions() == b.dimensions()
                    && a.values().len() == b.values().len()
                    && a.values().iter().zip(b.values()).all(|(a, b)| a.is_same(b))
            }
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Value {
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Value::String(Some(text.into()))
    }

    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Value::ByteString(Some(bytes.into()))
    }

    pub fn is_array(&self) -> bool {
        matches!(self, Value::Array(_))
    }

    /// Numbers and booleans as a number, for ranges, deadbands and arithmetic; 64-bit integers may round.
    pub fn as_f64(&self) -> Option<f64> {
        Some(match *self {
            Value::Boolean(v) => f64::from(u8::from(v)),
            Value::SByte(v) => v.into(),
            Value::Byte(v) => v.into(),
            Value::Int16(v) => v.into(),
            Value::UInt16(v) => v.into(),
            Value::Int32(v) => v.into(),
            Value::UInt32(v) => v.into(),
            Value::Int64(v) => v as f64,
            Value::UInt64(v) => v as f64,
            Value::Float(v) => v.into(),
            Value::Double(v) => v,
            _ => return None,
        })
    }
}

/// Elements of one type, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    data_type: DataType,
    values: Box<[Value]>,
    dimensions: Option<Box<[u32]>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    #[error("element {index} is {found}, in an array of {wanted}")]
    Element { index: usize, found: String, wanted: DataType },
    #[error("dimensions {dimensions:?} hold {product} elements, but there are {length}")]
    Dimensions { dimensions: Box<[u32]>, product: u64, length: usize },
}

impl Array {
    /// Elements must all be scalars of `data_type`. `dimensions` only for more than one: their product must be
    /// the number of elements.
    pub fn new(
        data_type: DataType,
        values: impl Into<Box<[Value]>>,
        dimensions: Option<Box<[u32]>>,
    ) -> Result<Self, ArrayError> {
        let values = values.into();
        let misfit = |value: &Value| value.is_array() || value.data_type() != Some(data_type);
        if let Some(index) = values.iter().position(misfit) {
            let found = match &values[index] {
                Value::Array(_) => "an array".to_owned(),
                other => other.data_type().map_or("empty".to_owned(), |t| t.to_string()),
            };
            return Err(ArrayError::Element { index, found, wanted: data_type });
        }
        if let Some(dimensions) = &dimensions {
            let product = dimensions.iter().try_fold(1u64, |product, &d| product.checked_mul(d.into()));
            let product = product.unwrap_or(u64::MAX);
            if product != values.len() as u64 {
                return Err(ArrayError::Dimensions { dimensions: dimensions.clone(), product, length: values.len() });
            }
        }
        Ok(Self { data_type, values, dimensions })
    }

    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// `None` for a plain, one-dimensional array.
    pub fn dimensions(&self) -> Option<&[u32]> {
        self.dimensions.as_deref()
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Value::Array(Arc::new(array))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeId {
    pub namespace: u16,
    pub identifier: Identifier,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identifier {
    Numeric(u32),
    String(Option<Arc<str>>),
    Guid([u8; 16]),
    Opaque(Option<Arc<[u8]>>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExpandedNodeId {
    pub node_id: NodeId,
    pub namespace_uri: Option<Arc<str>>,
    pub server_index: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QualifiedName {
    pub namespace: u16,
    pub name: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalizedText {
    pub locale: Option<Arc<str>>,
    pub text: Option<Arc<str>>,
}

/// An ExtensionObject (OPC 10000-6, 5.2.2.15): the id of its encoding and its body, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    pub encoding: NodeId,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Binary(Arc<[u8]>),
    Xml(Arc<str>),
}

/// A DataValue as a value (OPC 10000-6, 5.2.2.17). Every part may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataValue {
    pub value: Option<Value>,
    pub status: Option<Status>,
    pub source_time: Option<Timestamp>,
    pub source_picoseconds: Option<u16>,
    pub server_time: Option<Timestamp>,
    pub server_picoseconds: Option<u16>,
}

/// A DiagnosticInfo as a value (OPC 10000-6, 5.2.2.12). The numbers index a string table that travels apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiagnosticInfo {
    pub symbolic_id: Option<i32>,
    pub namespace_uri: Option<i32>,
    pub locale: Option<i32>,
    pub localized_text: Option<i32>,
    /// `Some(None)`: present, and a null string.
    pub additional_info: Option<Option<Arc<str>>>,
    pub inner_status: Option<Status>,
    pub inner: Option<Arc<DiagnosticInfo>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_small_enough_to_clone_per_sink() {
        assert!(size_of::<Value>() <= 24, "{}", size_of::<Value>());
    }

    #[test]
    fn type_ids_are_those_of_the_standard() {
        assert_eq!(DataType::ALL.len(), 25);
        for (index, data_type) in DataType::ALL.iter().enumerate() {
            assert_eq!(*data_type as usize, index + 1);
            assert_eq!(DataType::from_id(index as u32 + 1), Some(*data_type));
        }
        assert_eq!(DataType::from_id(0), None);
        assert_eq!(DataType::from_id(26), None);
    }

    #[test]
    fn arrays_hold_one_type_and_as_many_elements_as_they_say() {
        let two = || vec![Value::Int32(1), Value::Int32(2)];
        let array = Array::new(DataType::Int32, two(), None).unwrap();
        assert_eq!(Value::from(array).data_type(), Some(DataType::Int32));
        let error = Array::new(DataType::Double, two(), None).unwrap_err();
        assert_eq!(error.to_string(), "element 0 is Int32, in an array of Double");
        let error = Array::new(DataType::Int32, two(), Some([3, 1].into())).unwrap_err();
        assert_eq!(error.to_string(), "dimensions [3, 1] hold 3 elements, but there are 2");
        assert!(Array::new(DataType::Int32, two(), Some([u32::MAX; 4].into())).is_err());
    }
}
