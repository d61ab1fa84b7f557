//! What a client may send before anybody knows it: headers, Hello, the clear part of OpenSecureChannel, requests that are
//! not encrypted. Nothing of it may panic, and what is let through must be safe for the UA crate's own decoder.
//!
//! The modules are compiled in alone: the whole program would take minutes to build and is no part of what is tried.

#![no_main]

use libfuzzer_sys::fuzz_target;
use opcua::core::{Message, RequestMessage};
use opcua::sync::RwLock;
use opcua::types::{BinaryDecodable, ContextOwned, DecodingOptions, NamespaceMap, NodeId, TypeLoaderCollection};

#[allow(dead_code, reason = "a part of it is for those who answer")]
#[path = "../../src/opcua/server/gate/frame.rs"]
mod frame;
#[path = "../../src/opcua/server/gate/bodies.rs"]
mod bodies;
#[allow(dead_code, reason = "the same")]
#[path = "../../src/opcua/server/gate/walk.rs"]
mod walk;

fuzz_target!(|data: &[u8]| {
    if let Some(header) = data.first_chunk() {
        let _ = frame::Header::parse(*header);
    }
    if let Ok(hello) = frame::Hello::parse(data) {
        assert_eq!(frame::Hello::parse(&hello.forward()), Ok(hello));
    }
    let _ = frame::Open::parse(data);
    let mut track = frame::Track::default();
    track.pass(data);
    let Ok(request) = walk::request(data) else { return };
    let loaders = RwLock::new(TypeLoaderCollection::new());
    bodies::guard(&loaders);
    let context = ContextOwned::new(NamespaceMap::new(), loaders.into_inner(), DecodingOptions::default());
    let mut stream = data;
    let Ok(id) = NodeId::decode(&mut stream, &context.context()) else { return };
    let Ok(id) = id.as_object_id() else { return };
    if let Ok(message) = RequestMessage::decode_by_object_id(&mut stream, id, &context.context()) {
        assert_eq!(message.request_handle(), request.handle);
    }
});
