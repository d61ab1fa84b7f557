//! Whatever a client sends as its certificates, and whatever stands in a revocation list, is judged without a panic; and
//! nobody is let in but those whom the CAs of the fixtures have issued, to the last bit.
//!
//! The modules are compiled in alone: the whole program would take minutes to build and is no part of what is tried.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};
use trust::path::{Known, Reason, Rules, judge};
use trust::x509::{self, Cert, Crl};

#[allow(dead_code, unused_imports, reason = "most of it is for others")]
#[path = "../../src/model/mod.rs"]
mod model;

#[allow(dead_code, reason = "a part of it is for others")]
#[path = "../../src/opcua/trust"]
mod trust {
    pub mod path;
    mod signature;
    pub mod x509;
}

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/fixtures/pki/", $name, ".der"))
    };
}

/// The trusted CAs' clients.
const CLIENTS: [&[u8]; 8] = [
    fixture!("direct"),
    fixture!("leaf"),
    fixture!("pss"),
    fixture!("sha512"),
    fixture!("by-p256"),
    fixture!("by-p384"),
    // In a time of their own.
    fixture!("expired"),
    fixture!("early"),
];

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let cert = |der: &[u8]| Arc::new(Cert::from_der(der).expect("a certificate"));
    Known {
        trusted: [fixture!("root").as_slice(), fixture!("p256-ca"), fixture!("p384-ca")].map(cert).to_vec(),
        issuers: vec![cert(fixture!("middle"))],
        crls: vec![Arc::new(Crl::from_der(fixture!("crl-root-middle")).expect("a list"))],
    }
});

fuzz_target!(|data: &[u8]| {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_761_600);
    let mut known = KNOWN.clone();
    if let Ok(lists) = x509::blocks(data, x509::CRL)
        && let Some(list) = lists.iter().find_map(|block| Crl::from_der(block).ok())
    {
        known.crls.push(Arc::new(list));
        let direct = Arc::new(Cert::from_der(CLIENTS[0]).expect("a certificate"));
        let judged = judge(&known, &[direct], now, Rules::default());
        let is_genuine = data == fixture!("crl-root-direct");
        assert!(judged.is_ok() || (is_genuine && matches!(judged, Err(Reason::Revoked { .. }))), "{judged:?}");
    }
    let _ = x509::blocks(data, x509::CERTIFICATE);
    let Ok(parts) = x509::split(data) else { return };
    let Ok(chain) = parts.into_iter().map(|part| Cert::from_der(part).map(Arc::new)).collect::<Result<Vec<_>, _>>() else {
        return;
    };
    for now in [now, SystemTime::UNIX_EPOCH] {
        if judge(&known, &chain, now, Rules::default()).is_ok() {
            assert!(CLIENTS.contains(&chain[0].der()), "let in: {}", chain[0].title());
        }
    }
});
