//! Whatever nodes and hosts say, a fleet's host takes it in without a panic and within its memory. The input is cut into
//! messages: a byte for who speaks of what, two for the length, then the payload.
//!
//! The modules are compiled in alone: the whole program would take minutes to build and is no part of what is tried.

#![no_main]

use cli::fleet::host::{Host, Limits, Policy};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports, reason = "most of it is for others")]
#[path = "../../src/model/mod.rs"]
mod model;

#[allow(dead_code, unused_imports, reason = "most of it is for others")]
#[path = "../../src/mqtt"]
mod mqtt {
    pub mod sparkplug;
}

#[allow(dead_code, unused_imports, reason = "a part of it is for others")]
#[path = "../../src/cli"]
mod cli {
    #[path = "fleet"]
    pub mod fleet {
        pub mod host;
    }
}

const KINDS: [&str; 8] = ["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH", "NCMD", "XX"];
const MOST: usize = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    let mut host = Host::new(Limits { nodes: 3, bytes: MOST, longest: 64 }, Policy::All);
    let (mut rest, mut millis) = (bytes, 0);
    while let [who, low, high, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (payload, after) = more.split_at(length);
        rest = after;
        let (kind, node, device) = (KINDS[usize::from(who & 7)], who >> 3 & 3, who >> 5 & 1);
        let topic = match who >> 6 {
            3 => "spBv1.0/STATE/scada".to_owned(),
            _ if kind.starts_with('D') => format!("spBv1.0/G/{kind}/{node}/{device}"),
            _ => format!("spBv1.0/G/{kind}/{node}"),
        };
        millis += 100;
        let now = model::Timestamp::from_millis(millis);
        host.receive(&topic, payload, now);
        let _ = host.due(now);
        for node in host.nodes_mut() {
            let _ = node.state();
        }
        let held: usize = host.nodes().flat_map(|node| node.each()).map(|(_, metric)| metric.bytes()).sum();
        assert!(held <= MOST);
    }
});
