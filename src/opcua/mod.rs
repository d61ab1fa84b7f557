//! The words of OPC UA that server, client and relay share: this program's values and qualities as the UA crate's, the
//! application's certificate, which certificates of others it trusts, and those of users.

pub mod certificate;
#[cfg(target_os = "linux")]
pub mod client;
pub mod json;
pub mod server;
pub mod trust;
pub mod user_certificate;
mod value;

pub use value::{data_value, date_time, quality, sample_status, status_code, timestamp, value, variant};
