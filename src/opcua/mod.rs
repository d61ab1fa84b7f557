//! The words of OPC UA that server, client and relay share: this program's values and qualities as the UA crate's, the
//! application's certificate, and which certificates of others it trusts.

pub mod certificate;
pub mod trust;
mod value;

pub use value::{data_value, date_time, quality, sample_status, status_code, timestamp, value, variant};
