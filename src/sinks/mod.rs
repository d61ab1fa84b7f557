//! Where samples go. Each sink knows the hub and none of the others.

pub mod mqtt;
