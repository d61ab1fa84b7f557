//! Where values come from. One folder each; none knows another, and none knows a sink.

pub mod simulator;
pub mod system;
