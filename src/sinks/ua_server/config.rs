//! `[ua_server]`: what the configuration says about the server.

use serde::Deserialize;
use std::net::SocketAddr;

/// `[ua_server]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port. Default: "0.0.0.0:4840", every interface.
    pub listen: SocketAddr,
    /// Also offer SecurityPolicy None: no encryption, no signature, anybody on this machine reads and writes. Only
    /// allowed while `listen` is a loopback address. Default: false.
    pub insecure_on_loopback: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: ([0, 0, 0, 0], 4840).into(), insecure_on_loopback: false }
    }
}

impl Config {
    /// What is wrong with the values, as (key, what and what would be right).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.insecure_on_loopback && !self.listen.ip().is_loopback() {
            let listen = self.listen;
            faults.push((
                "insecure_on_loopback",
                format!(
                    "SecurityPolicy None is only offered on a loopback address, and `listen` is {listen}; set it to \
                     false, or `listen` to \"127.0.0.1:{}\"",
                    listen.port()
                ),
            ));
        }
        faults
    }
}
