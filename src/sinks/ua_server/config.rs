//! `[ua_server]`: what the configuration says about the server.

use super::access::{AccessRule, Anonymous};
use super::found::{self, DiscoveryServer, Mdns, Reverse};
use crate::model::Role;
use crate::opcua::server::limits::Limits;
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
    /// What somebody without a user may do: "none", and nobody comes in without one; "viewer", "operator", "admin".
    /// Default: "viewer".
    pub anonymous: Anonymous,
    /// Who may do what with which nodes, where that differs from the defaults. Default: none.
    pub access: Vec<AccessRule>,
    /// Refuse clients whose CA has no current revocation list in the PKI folder's crls/. Default: false, the list of a CA
    /// counts if there is one.
    pub require_crls: bool,
    /// How much one client, and all of them, may cost.
    pub limits: Limits,
    /// Announce the server by multicast DNS: true, on the interfaces that `listen` is about; false; or a list of interfaces.
    /// On loopback it is announced only if that is in the list. Default: true.
    pub mdns: Mdns,
    /// Register with a local discovery server: its URL, or true for the one of this machine at port 4840, if there is one
    /// and that port is not this server's own; or false. Default: true.
    pub discovery_server: DiscoveryServer,
    /// `[[ua_server.reverse]]`: clients to connect to, because they cannot.
    pub reverse: Vec<Reverse>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 4840).into(),
            insecure_on_loopback: false,
            anonymous: Anonymous::Viewer,
            access: Vec::new(),
            require_crls: false,
            limits: Limits::default(),
            mdns: Mdns::Switch(true),
            discovery_server: DiscoveryServer::Switch(true),
            reverse: Vec::new(),
        }
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
        faults.extend(found::check(&self.mdns, &self.discovery_server, &self.reverse));
        faults
    }

    /// What is allowed and should not stay so, likewise.
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        let Some(role) = self.anonymous.role().filter(|role| *role > Role::Viewer) else { return Vec::new() };
        let what =
            format!("every client that connects, also without a user, is {role}; \"viewer\" or \"none\" is safe");
        vec![("anonymous", what)]
    }
}
