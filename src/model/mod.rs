//! The words of the product: what a tag is called, which value it has, how good that value is, when it was so.
//!
//! Plain data. Nothing here does I/O, waits, or asks what time it is, so everything here can be tested by hand
//! and used from every corner of the program.
//!
//! - [`Value`]: every built-in type of OPC UA (OPC 10000-6, 5.1.2), scalar or array, without loss.
//! - [`Quality`]: an OPC UA StatusCode and, where there is one, a reason a person can read.
//! - [`Timestamp`]: 100 ns ticks, the resolution of OPC UA.
//! - [`TagName`], [`TagSpec`], [`TagId`]: a tag's name, its description, and its place in the hub.
//! - [`Sample`]: one value of one tag at one time. What flows.
//! - [`Event`]: something that happened once. [`Condition`]: something that is off normal for a while.
//! - [`Role`]: what somebody may do.
//! - [`Picture`]: one encoded image of a camera. What flows on demand.
//! - [`LumaGrid`]: a picture's brightness on a small grid, to tell how much two pictures differ.

mod condition;
mod event;
mod frame;
mod luma;
mod quality;
mod role;
mod sample;
mod tag;
mod time;
mod value;

pub use condition::{Condition, ConditionKind, Happening, Level, LimitState, Limits};
pub use event::{Event, EventId, EventKind};
pub use frame::Picture;
pub use luma::LumaGrid;
pub use quality::{Quality, Status};
pub use role::Role;
pub use sample::{NameMap, Sample, TagId, TagMap};
pub use tag::{Range, TagName, TagNameError, TagSpec, folders};
pub use time::Timestamp;
pub use value::{
    Array, ArrayError, Body, DataType, DataValue, DiagnosticInfo, ExpandedNodeId, Identifier, LocalizedText, NodeId,
    QualifiedName, Structure, Value,
};
