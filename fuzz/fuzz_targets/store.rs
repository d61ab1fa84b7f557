//! Whatever stands in the files of the history, reading it ends without a panic; and what could be read can be written and
//! read again. Half of the inputs get the frame of a journal, because no fuzzer finds a checksum.
//!
//! The modules are compiled in alone: the whole program would take minutes to build and is no part of what is tried.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports, reason = "most of it is for others")]
#[path = "../../src/model/mod.rs"]
mod model;

#[allow(dead_code, reason = "a part of it is for others")]
#[path = "../../src/store"]
mod store {
    mod block;
    pub mod examine;
    mod journal;
    mod ranges;
    mod record;
    mod value;
    pub mod wire;
}

fuzz_target!(|bytes: &[u8]| {
    store::examine::examine(bytes);
    let mut framed = b"vedettJ1".to_vec();
    framed.extend((bytes.len() as u32).to_le_bytes());
    framed.extend(store::wire::crc32(bytes).to_le_bytes());
    framed.extend(bytes);
    store::examine::examine(&framed);
});
