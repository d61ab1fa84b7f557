//! COM, and what OPC DA makes of it: the only place with `unsafe`.
#![allow(unsafe_code, reason = "COM")]
#![allow(dead_code)]

mod abi;

mod memory;

mod variant;
